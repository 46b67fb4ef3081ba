"""Moderate between values and messages, over bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprat import codec
from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import (
    CategoryScore,
    Effort,
    ItemError,
    ModerateResult,
    Moderation,
    TierAnswer,
    Timings,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**31 - 1)
floats = st.floats(0, 1, width=32)
actions = st.sampled_from(["allow", "flag", "block"])
moderations = st.builds(
    Moderation,
    action=actions,
    category=texts,
    categories=st.lists(
        st.builds(CategoryScore, texts, floats, actions, counts, counts), max_size=3
    ).map(tuple),
    chunks=counts,
    input_tokens=counts,
    confidence=st.none() | floats,
    abstained=st.booleans(),
    tier=counts,
    escalated=st.booleans(),
    degraded=st.sampled_from([None, "no_time", "overload", "failure"]),
    tiers=st.lists(
        st.builds(TierAnswer, counts, texts, st.none() | floats, st.none() | floats), max_size=2
    ).map(tuple),
    cpu_ms=st.none() | floats,
)


@given(st.lists(moderations | st.none(), max_size=4), texts, st.booleans())
def test_codec_moderate_result_round_trips(
    items: list[Moderation | None], text: str, flag: bool
) -> None:
    result = ModerateResult(
        items=tuple(items),
        errors=tuple(ItemError(i, text, text) for i, item in enumerate(items) if item is None),
        model=text,
        model_version=text,
        task_version=text,
        calibrated=flag,
        timings=Timings(1, 2, 3, 4),
        request_id=text,
    )
    data = codec.moderate_response(result).SerializeToString()
    assert codec.moderate_result(pb.ModerateResponse.FromString(data)) == result


def test_codec_moderate_request_says_what_cannot_travel() -> None:
    request = codec.moderate_request("spam", ["a", "b"], True)
    assert (request.task, list(request.texts), request.partial_results) == (
        "spam",
        ["a", "b"],
        True,
    )
    for effort in (Effort(), Effort(0, 0.0, 0.5), Effort(3, 1.0, 9.5)):
        sent = codec.moderate_request("spam", ["a"], False, effort).SerializeToString()
        assert codec.effort(pb.ModerateRequest.FromString(sent)) == effort
    with pytest.raises(InvalidInput, match="max_tier: 4294967296 is out of range"):
        codec.moderate_request("spam", ["a"], False, Effort(max_tier=2**32))
    with pytest.raises(InvalidInput, match=r"texts\[1\]: lone surrogate at character 2"):
        codec.moderate_request("spam", ["a", "bc\ud800"], False)
    with pytest.raises(InvalidInput, match="texts: expected a sequence of texts"):
        codec.moderate_request("spam", "a", False)
    with pytest.raises(InvalidInput, match="task: expected str"):
        codec.moderate_request(3, ["a"], False)  # type: ignore[arg-type]
