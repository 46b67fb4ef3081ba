"""What requests and answers of all kinds say of the tiers of a task."""

from __future__ import annotations

from typing import Any

from sprat.codec.common import set_number
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import (
    Chunk,
    Classification,
    Degraded,
    Effort,
    Extraction,
    Moderation,
    TierAnswer,
)

_Request = (
    pb.ClassifyRequest
    | pb.RouteRequest
    | pb.ModerateRequest
    | pb.ExtractRequest
    | pb.TransformRequest
)
_Answer = pb.Classification | pb.Moderation | pb.Extraction | pb.TransformResponse

_EFFORT = ("max_tier", "accept_at", "budget_ms")

_DEGRADED: dict[int, Degraded] = {
    pb.DEGRADED_NO_TIME: "no_time",
    pb.DEGRADED_OVERLOAD: "overload",
    pb.DEGRADED_FAILURE: "failure",
}
_DEGRADED_NUMBERS: dict[Degraded, pb.Degraded] = {
    "no_time": pb.DEGRADED_NO_TIME,
    "overload": pb.DEGRADED_OVERLOAD,
    "failure": pb.DEGRADED_FAILURE,
}


def effort(message: _Request) -> Effort:
    """How far a request may go through the tiers of its task."""
    return Effort(**{name: getattr(message, name) for name in _EFFORT if message.HasField(name)})


def set_effort(message: _Request, effort: Effort) -> None:
    """Say in a request how far it may go."""
    for name in _EFFORT:
        set_number(message, name, getattr(effort, name), name)


def fill_tiers(made: _Answer, item: Classification | Moderation | Extraction | Chunk) -> None:
    """Put what an answer says of its tiers into its message."""
    if item.confidence is not None:
        made.confidence = item.confidence
    made.abstained = item.abstained
    made.tier = item.tier
    made.escalated = item.escalated
    if item.degraded is not None:
        made.degraded = _DEGRADED_NUMBERS[item.degraded]
    for said in item.tiers:
        made.tiers.add(
            tier=said.tier, label=said.label, confidence=said.confidence, cpu_ms=said.cpu_ms
        )
    if item.cpu_ms is not None:
        made.cpu_ms = item.cpu_ms


def tier_facts(message: _Answer) -> dict[str, Any]:
    """The same from a message, by the names of the answer's attributes."""
    return {
        "confidence": message.confidence if message.HasField("confidence") else None,
        "abstained": message.abstained,
        "tier": message.tier,
        "escalated": message.escalated,
        # A newer server may know more reasons; none of them is good news.
        "degraded": _DEGRADED.get(message.degraded, "failure") if message.degraded else None,
        "tiers": tuple(
            TierAnswer(
                said.tier,
                said.label,
                said.confidence if said.HasField("confidence") else None,
                said.cpu_ms if said.HasField("cpu_ms") else None,
            )
            for said in message.tiers
        ),
        "cpu_ms": message.cpu_ms if message.HasField("cpu_ms") else None,
    }
