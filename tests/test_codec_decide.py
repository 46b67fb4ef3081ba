"""Decide and Route between values and messages, over bytes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message as Proto
from hypothesis import given
from hypothesis import strategies as st

from sprat import codec
from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import (
    Answer,
    Classification,
    DecideResult,
    Decision,
    Destination,
    ItemError,
    Label,
    LabelScore,
    Question,
    QuestionSet,
    RouteResult,
    RouteSet,
    Routing,
    Timings,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**31 - 1)
floats = st.floats(0, 1, width=32)
scores = st.lists(st.builds(LabelScore, texts, floats), max_size=3).map(tuple)
decisions = st.builds(
    Decision,
    answers=st.lists(
        st.builds(Answer, texts, texts, scores, st.none() | st.floats(0, 9, width=32), floats),
        max_size=3,
    ).map(tuple),
    input_tokens=counts,
    cached_tokens=counts,
)
routings = st.builds(Routing, texts, st.builds(Classification, texts, st.none() | floats, scores))
question_sets = st.builds(
    QuestionSet,
    model=texts,
    questions=st.lists(
        st.builds(
            Question,
            texts,
            texts,
            st.sampled_from(["choice", "score", "yes_no"]),
            st.lists(st.builds(Label, texts, texts), max_size=3).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    instructions=texts,
    correct_prior=st.booleans(),
    adapter=texts,
)
route_sets = st.builds(
    RouteSet,
    model=texts,
    destinations=st.lists(st.builds(Destination, texts, texts, texts), max_size=3).map(tuple),
    instructions=texts,
    scoring=st.sampled_from(["constrained", "full"]),
    normalize_length=st.booleans(),
    correct_prior=st.booleans(),
    adapter=texts,
)


def travel(message: Proto) -> Any:
    """To bytes and back, as over a connection."""
    return type(message).FromString(message.SerializeToString())


def about(items: list[Any], text: str, flag: bool) -> dict[str, Any]:
    """The fields that both results have, with an error for each item that is none."""
    failed = [index for index, item in enumerate(items) if item is None]
    return {
        "items": tuple(items),
        "errors": tuple(ItemError(index, text, text) for index in failed),
        "model": text,
        "model_version": text,
        "task_version": text,
        "calibrated": flag,
        "timings": Timings(1, 2, 3, 4),
    }


@given(st.lists(st.none() | decisions, max_size=4), texts, st.booleans())
def test_codec_decide_result_round_trips(items: list[Any], text: str, flag: bool) -> None:
    result = DecideResult(**about(items, text, flag), request_id=text)
    assert codec.decide_result(travel(codec.decide_response(result))) == result


@given(st.lists(st.none() | routings, max_size=4), texts, st.booleans())
def test_codec_route_result_round_trips(items: list[Any], text: str, flag: bool) -> None:
    result = RouteResult(**about(items, text, flag), request_id=text)
    assert codec.route_result(travel(codec.route_response(result))) == result


@given(question_sets)
def test_codec_question_set_round_trips(questions: QuestionSet) -> None:
    request = travel(codec.decide_request(questions, ["a", "b"], True))
    assert codec.question_set(request.question_set) == questions
    assert (request.task, list(request.texts), request.partial_results) == ("", ["a", "b"], True)


@given(route_sets, st.none() | st.integers(-5, 100))
def test_codec_route_set_round_trips(routes: RouteSet, top_k: int | None) -> None:
    request = travel(codec.route_request(routes, ["a"], top_k, "truncate", False))
    assert codec.route_set(request.route_set) == routes
    assert codec.truncation(request.truncation) == "truncate"
    assert (request.top_k if request.HasField("top_k") else None) == top_k


@pytest.mark.parametrize("kind", [0, 4, -1])
def test_codec_question_kind_is_required_and_known(kind: Any) -> None:
    message = pb.QuestionSet(questions=[pb.Question(kind=pb.QUESTION_KIND_YES_NO)])
    message.questions.add(kind=kind)
    with pytest.raises(InvalidInput) as caught:
        codec.question_set(travel(message))
    assert caught.value.field == "question_set.questions[1].kind"


def test_codec_route_set_refuses_unknown_scorings() -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.route_set(travel(pb.RouteSet(scoring=9)))  # type: ignore[arg-type]
    assert caught.value.field == "route_set.scoring"


BAD = "\ud800"


@pytest.mark.parametrize(
    ("questions", "field"),
    [
        (QuestionSet(BAD, ()), "model"),
        (QuestionSet("m", (), BAD), "instructions"),
        (QuestionSet("m", (Question(BAD, "a", "yes_no"),)), "questions[0].name"),
        (QuestionSet("m", (Question("a", BAD, "yes_no"),)), "questions[0].text"),
        (
            QuestionSet("m", (Question("a", "b", "choice", (Label("c"), Label("d", BAD))),)),
            "questions[0].options[1]",
        ),
        (QuestionSet("m", (Question("a", "b", "maybe"),)), "questions[0].kind"),  # type: ignore[arg-type]
    ],
)
def test_codec_decide_refuses_what_cannot_travel(questions: QuestionSet, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.decide_request(questions, ["a"], False)
    assert caught.value.field == field
    assert BAD not in caught.value.message


@pytest.mark.parametrize(
    "destination", [Destination(BAD), Destination("a", BAD), Destination("a", target=BAD)]
)
def test_codec_route_refuses_what_cannot_travel(destination: Destination) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.route_request(RouteSet("m", (destination,)), ["a"], None, "refuse", False)
    assert caught.value.field == "destinations[0]"
    with pytest.raises(InvalidInput) as caught:
        codec.route_request(RouteSet("m", ()), ["a", BAD], None, "refuse", False)
    assert caught.value.field == "texts[1]"
