"""What the decision log has of an answer, whatever kind of task gave it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from sprat.decisions import ALLOW, RIGHT_OR_WRONG
from sprat.values import (
    Chunk,
    Classification,
    ClassifyResult,
    DecideResult,
    Decision,
    Extraction,
    ExtractResult,
    ModerateResult,
    Moderation,
    RouteResult,
    Routing,
    TaskInfo,
    TierAnswer,
    TransformResult,
)

Result = (
    ClassifyResult | RouteResult | ModerateResult | DecideResult | ExtractResult | TransformResult
)
Answer = Classification | Moderation | Extraction | Chunk

LOGGED_KINDS = ("classify", "route", "moderate", "decide", "extract", "transform")
"""Kinds of tasks whose answers are written, each as a row with one label."""

COMPLETE = "complete"
"""Label of a rewriting that came to its end."""

HASH_BYTES = 16


def rows_of(
    task: TaskInfo,
    texts: Sequence[str],
    result: Result,
    *,
    request_id: str,
    time: float,
    key: bytes,
    store_text: bool,
) -> Iterator[tuple[Any, ...]]:
    """The rows of a call: one for each text that has an answer.

    Parameters
    ----------
    time : float
        Seconds since 1970.
    key : bytes
        Of the hashes of texts.
    store_text : bool
        Keep the texts, too.

    Yields
    ------
    tuple
        The columns of `sprat.decisions.SCHEMA` behind the id.
    """
    for index, item in enumerate(result.items):
        if item is None:
            continue
        text = texts[index]
        said = _said(item)
        label = _label(said)
        tiers: list[dict[str, Any]] = [
            {
                "tier": heard.tier,
                "name": tier_name(task, heard.tier),
                "label": heard.label,
                "confidence": heard.confidence,
            }
            for heard in _heard(said)
        ]
        if isinstance(said, Moderation):
            flagged = [each.category for each in said.categories if each.action != "allow"]
            tiers[-1]["flagged"] = flagged
        yield (
            *(request_id, index, time, task.name, result.task_version, task.kind),
            *(hash_text(text, key), storable(text) if store_text else None),
            *(storable(label), said.confidence, said.abstained or not label, said.tier),
            *(said.escalated, said.degraded, storable(json.dumps(tiers, ensure_ascii=False))),
            said.prompt_tokens if isinstance(said, Chunk) else said.input_tokens,
        )


def _said(item: Answer | Routing | Decision) -> Answer:
    """An answer as it is written; of a decide task, its answers are the label."""
    match item:
        case Routing():
            return item.classification
        case Decision():
            answers = {answer.question: answer.option for answer in item.answers}
            label = json.dumps(answers, ensure_ascii=False)
            return Classification(label, None, (), input_tokens=item.input_tokens)
        case _:
            return item


def _label(item: Answer) -> str:
    """What was answered, in a word; empty where nothing was."""
    match item:
        case Classification():
            return item.label
        case Moderation():
            return "" if item.abstained else item.category or ALLOW
        case Extraction():
            return "" if item.value is None else str(len(item.fields))
        case Chunk():
            return COMPLETE if item.complete and not item.abstained else ""


def _heard(item: Answer) -> tuple[TierAnswer, ...]:
    """What each tier said; of a task of one tier, what that one did."""
    if item.tiers:
        return item.tiers
    best = ""
    if isinstance(item, Classification):
        best = item.scores[0].label if item.scores else item.label
    elif isinstance(item, Moderation):
        flagged = [each for each in item.categories if each.action != "allow"]
        worst = max(flagged, key=lambda e: (e.action == "block", e.probability), default=None)
        best = ALLOW if worst is None else worst.category
    return (TierAnswer(item.tier, best, item.confidence),)


def feedback_labels(task: TaskInfo) -> tuple[str, ...]:
    """What may be said to be right for a text of a task."""
    if task.kind in ("decide", "extract", "transform"):
        return RIGHT_OR_WRONG
    if task.kind == "moderate":
        # A category may have one of these names; then it is meant.
        return tuple(dict.fromkeys((*task.labels, ALLOW, *RIGHT_OR_WRONG)))
    return task.labels


def hash_text(text: str, key: bytes) -> bytes:
    """What stands for a text in the log: 16 bytes of keyed BLAKE2b over its UTF-8."""
    content = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=HASH_BYTES, key=key).digest()


def count(result: Result) -> int:
    """Texts that have an answer."""
    return sum(item is not None for item in result.items)


def tier_name(task: TaskInfo, tier: int) -> str:
    """Of a cascade, the tier's name in the bundle; else that of the model."""
    return task.tiers[tier].name if task.tiers else task.models[0][0]


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: one odd row must not cost the others of its batch."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
