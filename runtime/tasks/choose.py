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
from sprat.model import Branch, Choices, GenerativeModel
from sprat.scheduler import Mailbox
from sprat.tokenizer import check_text
from sprat.values import (
    Classification,
    ClassifyResult,
    Label,
    LabelScore,
    LabelSet,
    Scoring,
    Timings,
    Truncation,
)

MOST_LABELS = 256
GENERAL_INSTRUCTIONS = "Classify the text that the user sends."


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
    field: str = "labels",
) -> ClassifyResult:
    """Classify texts by labels. See `sprat.model.GenerativeModel.choose` for other errors.

    Parameters
    ----------
    top_k : int, optional
        How many scores to return, from 1; absent: all labels.
    field : str
        What the request calls the labels, for errors.

    Raises
    ------
    InvalidInput
        For labels that are too few, too many, empty or alike, for ``normalize_length`` without
        ``full`` scoring, and for any truncation: what is cut off a text could be what decides.
    """
    started = time.perf_counter_ns()
    _check(labels, field)
    if top_k is not None and top_k < 1:
        raise InvalidInput(f"top_k: expected 1 or more, got {top_k}", field="top_k")
    if truncation != "refuse":
        raise InvalidInput(
            "truncation: texts are never cut for labels of the request", field="truncation"
        )
    names = tuple(label.name for label in labels.labels)
    choices = await ask(
        model,
        texts,
        labels,
        partial=partial,
        keep_going=partial,
        deadline=deadline,
        mailbox=mailbox,
        field=field,
    )
    items: list[Classification | None] = [None] * len(texts)
    for (index, tokens), (chosen,), cpu_ns in zip(
        choices.kept, choices.chosen, choices.cpu_ns, strict=True
    ):
        items[index] = _classification(names, chosen, top_k or len(names), tokens, cpu_ns)
    return ClassifyResult(
        items=tuple(items),
        errors=choices.all_errors,
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


async def ask(
    model: GenerativeModel,
    texts: Sequence[str],
    labels: LabelSet,
    *,
    partial: bool,
    keep_going: bool,
    deadline: float,
    mailbox: Mailbox,
    field: str = "labels",
) -> Choices:
    """What the model makes of labels that `check` has nothing against; one branch a text."""
    return await model.choose(
        prompt(labels),
        texts,
        [Branch(tuple(label.name for label in labels.labels), field)],
        scoring=labels.scoring,
        normalize_length=labels.normalize_length,
        correct_prior=labels.correct_prior,
        adapter=labels.adapter,
        partial=partial,
        keep_going=keep_going,
        deadline=deadline,
        mailbox=mailbox,
    )


def check(model: GenerativeModel, labels: LabelSet, field: str = "labels") -> None:
    """Raise what `run` would, whatever the text."""
    _check(labels, field)
    names = tuple(label.name for label in labels.labels)
    model.check_branches(prompt(labels), [Branch(names, field)])


def prompt(labels: LabelSet) -> str:
    """What the model is told before it reads a text."""
    head = labels.instructions or GENERAL_INSTRUCTIONS
    return "\n".join(
        [head, "Answer with one of these labels and nothing else:", *map(line, labels.labels)]
    )


def line(label: Label) -> str:
    """A label in a list for the model to read."""
    return f"- {label.name}: {label.description}" if label.description else f"- {label.name}"


def _check(labels: LabelSet, field: str) -> None:
    check_options(labels.labels, 2, MOST_LABELS, field)
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


def check_options(options: Sequence[Label], least: int, most: int, field: str) -> None:
    """Check what a model is to choose from.

    Parameters
    ----------
    field : str
        Where they stand in the request, such as ``labels``.

    Raises
    ------
    InvalidInput
        They are too few or too many, or one is empty, invisible, no text, or there already.
    """
    if not least <= len(options) <= most:
        raise InvalidInput(f"{field}: expected {least} to {most}, got {len(options)}", field=field)
    seen: dict[str, int] = {}
    for index, option in enumerate(options):
        where = f"{field}[{index}]"
        check_text(option.name, field=where)
        if option.description:
            check_text(option.description, field=where)
        if option.name in seen:
            raise InvalidInput(f"{where}: the same as {field}[{seen[option.name]}]", field=where)
        seen[option.name] = index


def _classification(
    names: Sequence[str], chosen: Chosen, top_k: int, input_tokens: int, cpu_ns: int
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
        cpu_ms=cpu_ns / 1e6,
    )
