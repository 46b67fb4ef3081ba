"""Choose: classify texts by labels of the request's own, with a generative model.

No text is generated: the model says how probable each label is as its answer. What it says is a
score by its own lights, not a calibrated confidence.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import get_args

import numpy as np

from sprat.engine.base import Chosen
from sprat.errors import InvalidInput
from sprat.model import GenerativeModel
from sprat.scheduler import Mailbox
from sprat.tokenizer import check_text
from sprat.values import (
    Classification,
    ClassifyResult,
    LabelScore,
    LabelSet,
    Message,
    Scoring,
    Timings,
    Truncation,
)

MOST_LABELS = 256
GENERAL_INSTRUCTIONS = "Classify the text that the user sends."
PROBES = ("0", "Text")
"""Texts that begin differently, so that what prompts about them share is there without a text."""


async def run(
    model: GenerativeModel,
    texts: Sequence[str],
    labels: LabelSet,
    *,
    top_k: int | None = None,
    truncation: Truncation = "refuse",
    partial: bool = False,
    deadline: float = math.inf,
    mailbox: Mailbox,
) -> ClassifyResult:
    """Classify texts by labels. See `sprat.model.GenerativeModel.choose` for other errors.

    Parameters
    ----------
    top_k : int, optional
        How many scores to return, from 1; absent: all labels.

    Raises
    ------
    InvalidInput
        For labels that are too few, too many, empty or alike, for ``normalize_length`` without
        ``full`` scoring, and for any truncation: what is cut off a text could be what decides.
    """
    started = time.perf_counter_ns()
    _check(labels)
    if top_k is not None and top_k < 1:
        raise InvalidInput(f"top_k: expected 1 or more, got {top_k}", field="top_k")
    if truncation != "refuse":
        raise InvalidInput(
            "truncation: texts are never cut for labels of the request", field="truncation"
        )
    system = prompt(labels)
    names = [label.name for label in labels.labels]
    choices = await model.choose(
        [_chat(system, text) for text in texts],
        [_chat(system, text) for text in PROBES],
        names,
        scoring=labels.scoring,
        normalize_length=labels.normalize_length,
        partial=partial,
        deadline=deadline,
        mailbox=mailbox,
    )
    items: list[Classification | None] = [None] * len(texts)
    for (index, tokens), chosen in zip(choices.kept, choices.chosen, strict=True):
        items[index] = _classification(names, chosen, top_k or len(names), tokens)
    return ClassifyResult(
        items=tuple(items),
        errors=choices.errors,
        model=model.info.name,
        model_version=model.info.version,
        task_version="",
        calibrated=False,
        timings=Timings(
            choices.tokenize_ns,
            choices.queue_ns,
            choices.infer_ns,
            time.perf_counter_ns() - started,
        ),
    )


def prompt(labels: LabelSet) -> str:
    """What the model is told before it reads a text."""
    lines = [
        f"- {label.name}: {label.description}" if label.description else f"- {label.name}"
        for label in labels.labels
    ]
    head = labels.instructions or GENERAL_INSTRUCTIONS
    return "\n".join([head, "Answer with one of these labels and nothing else:", *lines])


def _chat(system: str, text: str) -> list[Message]:
    return [Message("system", system), Message("user", text)]


def _check(labels: LabelSet) -> None:
    count = len(labels.labels)
    if not 2 <= count <= MOST_LABELS:
        raise InvalidInput(
            f"labels: expected 2 to {MOST_LABELS} labels, got {count}", field="labels"
        )
    if labels.scoring not in get_args(Scoring):
        raise InvalidInput(
            f"scoring: expected constrained or full, got {labels.scoring!r}", field="scoring"
        )
    if labels.normalize_length and labels.scoring != "full":
        raise InvalidInput(
            "normalize_length: expected full scoring beside it", field="normalize_length"
        )
    if labels.instructions:
        check_text(labels.instructions, field="instructions")
    seen: dict[str, int] = {}
    for index, label in enumerate(labels.labels):
        field = f"labels[{index}]"
        check_text(label.name, field=field)
        if label.description:
            check_text(label.description, field=field)
        if label.name in seen:
            raise InvalidInput(f"{field}: the same as labels[{seen[label.name]}]", field=field)
        seen[label.name] = index


def _classification(
    names: Sequence[str], chosen: Chosen, top_k: int, input_tokens: int
) -> Classification:
    # Stable: labels of equal probability stay in the order of the request.
    order = np.argsort(-chosen.probabilities, kind="stable")[:top_k].tolist()
    scores = tuple(LabelScore(names[i], float(chosen.probabilities[i])) for i in order)
    return Classification(
        label=scores[0].label,
        confidence=None,
        scores=scores,
        input_tokens=input_tokens,
        cached_tokens=chosen.cached_tokens,
        pruned=chosen.pruned,
    )
