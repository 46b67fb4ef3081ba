"""Between messages and values: nothing is lost, nothing unknown passes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message as Proto
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sprat import codec, values
from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import (
    CategoryThresholds,
    Chunk,
    Classification,
    ClassifyResult,
    Drift,
    DriftFigure,
    Effort,
    EmbedResult,
    EndpointInfo,
    ItemError,
    Label,
    LabelScore,
    LabelSet,
    LogUse,
    Message,
    ModelInfo,
    PrefixUse,
    Sampling,
    TaskInfo,
    TierAnswer,
    TierInfo,
    Timings,
    Tokenized,
    TokenizeResult,
    Verdict,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**31 - 1)
floats = st.floats(0, 1, width=32)
endpoints = st.builds(
    EndpointInfo,
    name=texts,
    requests_today=counts,
    tokens_today=counts,
    spent_today=st.floats(0, 1e9),
)
verdicts = st.sampled_from(Verdict.__args__)  # type: ignore[attr-defined]
timings = st.builds(Timings, *[st.integers(0, 2**63 - 1)] * 4)
item_errors = st.builds(ItemError, counts, texts, texts)


def travel(message: Proto) -> Any:
    """To bytes and back, as over a connection."""
    return type(message).FromString(message.SerializeToString())


# -- answers ---------------------------------------------------------------------------------

classifications = st.builds(
    Classification,
    label=texts,
    confidence=st.none() | floats,
    scores=st.lists(st.builds(LabelScore, texts, floats), max_size=3).map(tuple),
    abstained=st.booleans(),
    tier=counts,
    escalated=st.booleans(),
    input_tokens=counts,
    dropped_tokens=counts,
    cached_tokens=counts,
    pruned=floats,
    degraded=st.sampled_from([None, "no_time", "overload", "failure"]),
    tiers=st.lists(
        st.builds(TierAnswer, counts, texts, st.none() | floats, st.none() | floats), max_size=3
    ).map(tuple),
    cpu_ms=st.none() | floats,
)


@st.composite
def classify_results(draw: st.DrawFn) -> ClassifyResult:
    items = draw(st.lists(st.none() | classifications, max_size=4))
    failed = [index for index, item in enumerate(items) if item is None]
    return ClassifyResult(
        items=tuple(items),
        errors=tuple(ItemError(index, draw(texts), draw(texts)) for index in failed),
        model=draw(texts),
        model_version=draw(texts),
        task_version=draw(texts),
        calibrated=draw(st.booleans()),
        timings=draw(timings),
        request_id=draw(texts),
    )


@given(classify_results())
def test_codec_classify_result_round_trips(result: ClassifyResult) -> None:
    there = codec.classify_result(travel(codec.classify_response(result)))
    assert there == result
    # What comparisons leave out is there too.
    assert asdict(there) == asdict(result)


def test_codec_feedback_request() -> None:
    request = travel(codec.feedback_request("5f0c", "refund", 3))
    assert (request.request_id, request.label, request.item) == ("5f0c", "refund", 3)
    for item in (2**31, -(2**31) - 1, 10**30):
        with pytest.raises(InvalidInput, match=r"item: .* is out of range"):
            codec.feedback_request("5f0c", "refund", item)
    with pytest.raises(InvalidInput, match="label: lone surrogate at character 0"):
        codec.feedback_request("5f0c", "\ud800", 0)


def test_codec_classify_confidence_zero_is_not_absent() -> None:
    for confidence in (0.0, None):
        item = Classification("a", confidence, ())
        result = ClassifyResult((item,), (), "m", "v", "t", True, Timings())
        assert codec.classify_result(travel(codec.classify_response(result))) == result


@st.composite
def embed_results(draw: st.DrawFn) -> EmbedResult:
    rows, dimension = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    every_float = st.floats(width=32, allow_nan=True, allow_infinity=True)
    return EmbedResult(
        vectors=draw(hnp.arrays(np.float32, (rows, dimension), elements=every_float)),
        input_tokens=draw(hnp.arrays(np.int32, rows, elements=counts)),
        dropped_tokens=draw(hnp.arrays(np.int32, rows, elements=counts)),
        errors=tuple(draw(st.lists(item_errors, max_size=2))),
        model=draw(texts),
        model_version=draw(texts),
        timings=draw(timings),
    )


@given(embed_results())
def test_codec_embed_result_round_trips(result: EmbedResult) -> None:
    back = codec.embed_result(travel(codec.embed_response(result)))
    for field in dataclasses.fields(EmbedResult):
        mine, theirs = getattr(result, field.name), getattr(back, field.name)
        if isinstance(mine, np.ndarray):
            assert theirs.dtype == mine.dtype
            np.testing.assert_array_equal(theirs, mine)
        else:
            assert theirs == mine


@pytest.mark.parametrize(
    "vectors",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(6, dtype=">f4").reshape(2, 3),
    ],
    ids=["reversed", "fortran", "big-endian"],
)
def test_codec_vectors_travel_as_rows_of_little_endian_float32(vectors: Any) -> None:
    zeros = np.zeros(2, np.int32)
    response = codec.embed_response(EmbedResult(vectors, zeros, zeros, (), "m", "v", Timings()))
    assert response.vectors == b"".join(float_bytes(v) for v in vectors.ravel().tolist())
    assert response.dimension == 3


def float_bytes(value: float) -> bytes:
    return np.array([value], "<f4").tobytes()


@given(
    st.lists(
        st.builds(
            Tokenized,
            st.lists(counts, max_size=5).map(tuple),
            st.lists(texts, max_size=5).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    counts,
    texts,
    timings,
)
def test_codec_tokenize_result_round_trips(
    items: tuple[Tokenized, ...], most: int, name: str, spent: Timings
) -> None:
    result = TokenizeResult(items, most, name, name, spent)
    assert codec.tokenize_result(travel(codec.tokenize_response(result))) == result


@given(
    st.builds(
        Chunk,
        text=texts,
        finish_reason=st.sampled_from(["stop", "length"]),
        prompt_tokens=counts,
        output_tokens=counts,
        timings=timings,
        model=texts,
        model_version=texts,
    )
    | st.builds(Chunk, text=texts)
)
def test_codec_chunk_round_trips(chunk: Chunk) -> None:
    assert codec.chunk(travel(codec.generate_response(chunk))) == chunk


def test_codec_knows_every_finish_reason() -> None:
    """What an engine may report must be sayable on the wire."""
    for reason in values.FinishReason.__args__:  # type: ignore[attr-defined]
        chunk = Chunk("", reason)
        assert codec.chunk(codec.generate_response(chunk)).finish_reason == reason


@given(
    st.lists(
        st.builds(
            TaskInfo,
            name=texts,
            kind=texts,
            labels=st.lists(texts, max_size=3).map(tuple),
            models=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
            calibrated=st.booleans(),
            accept_at=floats,
            version=texts,
            thresholds=st.lists(
                st.builds(
                    CategoryThresholds,
                    category=texts,
                    flag_at=st.floats(0, 1),
                    block_at=st.none() | st.floats(0, 1),
                ),
                max_size=2,
            ).map(tuple),
            tiers=st.lists(
                st.builds(
                    TierInfo,
                    *(texts, floats, *[st.integers(0, 2**63 - 1)] * 3),
                    endpoint=st.none() | endpoints,
                ),
                max_size=2,
            ).map(tuple),
            log=st.none() | st.builds(LogUse, *[st.integers(0, 2**63 - 1)] * 2),
            unconfigured=st.lists(texts, max_size=2).map(tuple),
            drift=st.none()
            | st.builds(
                Drift,
                verdicts,
                counts,
                st.lists(
                    st.builds(
                        DriftFigure,
                        texts,
                        texts,
                        counts,
                        verdicts,
                        *[st.none() | st.floats(0, 1)] * 8,
                    ),
                    max_size=2,
                ).map(tuple),
                texts,
                st.sampled_from([None, "tuning", "evaluation"]),
                counts,
            ),
        ),
        max_size=3,
    ).map(tuple)
)
def test_codec_task_infos_round_trip(tasks: tuple[TaskInfo, ...]) -> None:
    assert codec.task_infos(travel(codec.list_tasks_response(tasks))) == tasks


@given(
    st.lists(
        st.builds(
            ModelInfo,
            name=texts,
            kind=st.sampled_from(["encoder", "generative"]),
            engine=texts,
            version=texts,
            architecture=texts,
            quantization=texts,
            tokenizer=texts,
            max_tokens=counts,
            dimension=counts,
            licence=texts,
            size_bytes=st.integers(0, 2**63 - 1),
            prefix_use=st.none() | st.builds(PrefixUse, *[st.integers(0, 2**63 - 1)] * 3),
        ),
        max_size=3,
    ).map(tuple)
)
def test_codec_model_infos_round_trip(models: tuple[ModelInfo, ...]) -> None:
    assert codec.model_infos(travel(codec.list_models_response(models))) == models


# -- requests --------------------------------------------------------------------------------


@given(texts, st.lists(texts, max_size=4), st.none() | st.integers(-5, 100), st.booleans())
def test_codec_classify_request_says_what_was_asked(
    task: str, given_texts: list[str], top_k: int | None, partial: bool
) -> None:
    request = travel(codec.classify_request(task, given_texts, top_k, "truncate", partial))
    assert (request.task, list(request.texts)) == (task, given_texts)
    assert (request.top_k if request.HasField("top_k") else None) == top_k
    assert codec.truncation(request.truncation) == "truncate"
    assert request.partial_results is partial


efforts = st.builds(
    Effort,
    max_tier=st.none() | st.integers(-(2**31), 2**31 - 1),
    accept_at=st.none() | st.floats(width=32, allow_nan=False),
    budget_ms=st.none() | st.floats(width=32, allow_nan=False),
)


@given(efforts)
def test_codec_effort_round_trips(effort: Effort) -> None:
    for request in (
        codec.classify_request("t", ["a"], None, "refuse", False, effort),
        codec.route_request("t", ["a"], None, "refuse", False, effort),
    ):
        assert codec.effort(travel(request)) == effort


def test_codec_effort_zero_is_not_absent() -> None:
    assert codec.effort(pb.ClassifyRequest()) == Effort()
    asked = travel(pb.RouteRequest(max_tier=0, accept_at=0.0, budget_ms=0.0))
    assert codec.effort(asked) == Effort(0, 0.0, 0.0)


def test_codec_effort_refuses_what_is_no_number() -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.classify_request("t", ["a"], None, "refuse", False, Effort(accept_at="high"))  # type: ignore[arg-type]
    assert caught.value.field == "accept_at"
    with pytest.raises(InvalidInput) as caught:
        codec.route_request("t", ["a"], None, "refuse", False, Effort(max_tier=2**31))
    assert caught.value.field == "max_tier"


def test_codec_degraded_for_a_reason_that_is_not_known_yet() -> None:
    response = pb.ClassifyResponse(results=[pb.Classification(degraded=99)])  # type: ignore[arg-type]
    (item,) = codec.classify_result(travel(response)).items
    assert item is not None
    assert item.degraded == "failure"


label_sets = st.builds(
    LabelSet,
    model=texts,
    labels=st.lists(st.builds(Label, texts, texts), max_size=4).map(tuple),
    instructions=texts,
    scoring=st.sampled_from(["constrained", "full"]),
    normalize_length=st.booleans(),
    correct_prior=st.booleans(),
    adapter=texts,
)


@given(label_sets, st.lists(texts, max_size=4), st.none() | st.integers(-5, 100), st.booleans())
def test_codec_choose_request_round_trips(
    labels: LabelSet, given_texts: list[str], top_k: int | None, partial: bool
) -> None:
    request = travel(codec.choose_request(labels, given_texts, top_k, partial))
    assert request.HasField("label_set")
    assert codec.label_set(request.label_set) == labels
    assert (request.task, list(request.texts)) == ("", given_texts)
    assert (request.top_k if request.HasField("top_k") else None) == top_k
    assert codec.truncation(request.truncation) == "refuse"
    assert request.partial_results is partial


def test_codec_absent_scoring_is_constrained() -> None:
    assert codec.label_set(pb.LabelSet()) == LabelSet("", ())


@pytest.mark.parametrize("value", [3, -1, 99])
def test_codec_label_set_refuses_unknown_scorings(value: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.label_set(travel(pb.LabelSet(scoring=value)))  # type: ignore[arg-type]
    assert caught.value.field == "label_set.scoring"
    assert str(value) in caught.value.message


@given(texts, st.lists(texts, max_size=4), st.booleans())
def test_codec_embed_request_says_what_was_asked(
    model: str, given_texts: list[str], partial: bool
) -> None:
    request = travel(codec.embed_request(model, given_texts, "refuse", partial))
    assert (request.model, list(request.texts)) == (model, given_texts)
    assert codec.truncation(request.truncation) == "refuse"
    assert request.partial_results is partial


samplings = st.builds(
    Sampling,
    max_tokens=st.integers(0, 2**31 - 1),
    temperature=floats,
    top_k=st.integers(0, 2**31 - 1),
    top_p=floats,
    min_p=floats,
    repeat_penalty=floats,
    seed=st.none() | st.integers(0, 2**32 - 1),
    stop=st.lists(texts, max_size=3).map(tuple),
)
chats = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), max_size=4
)


@given(samplings, texts | chats)
def test_codec_generate_request_round_trips(
    sampling: Sampling, prompt: str | list[Message]
) -> None:
    request = travel(codec.generate_request("m", prompt, sampling))
    assert request.model == "m"
    assert codec.sampling(request) == sampling
    assert codec.prompt(request) == prompt


def test_codec_absent_sampling_is_the_default() -> None:
    assert codec.sampling(pb.GenerateRequest()) == Sampling()
    assert codec.sampling(travel(pb.GenerateRequest(sampling=pb.Sampling()))) == Sampling()


def test_codec_sampling_zero_is_not_absent() -> None:
    asked = pb.Sampling(max_tokens=0, top_p=0.0, repeat_penalty=0.0, seed=0)
    made = codec.sampling(travel(pb.GenerateRequest(sampling=asked)))
    assert (made.max_tokens, made.top_p, made.repeat_penalty, made.seed) == (0, 0.0, 0.0, 0)


def test_codec_prompt_needs_one_of_two() -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.prompt(pb.GenerateRequest())
    assert caught.value.field == "input"


@pytest.mark.parametrize("role", [0, 4, 99, -1])
def test_codec_prompt_refuses_unknown_roles(role: int) -> None:
    request = pb.GenerateRequest(
        chat=pb.Chat(
            messages=[
                pb.Message(role=pb.ROLE_USER, content="secret"),
                pb.Message(role=role, content="secret"),  # type: ignore[arg-type]
            ]
        )
    )
    with pytest.raises(InvalidInput) as caught:
        codec.prompt(travel(request))
    assert caught.value.field == "chat.messages[1].role"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("value", [3, 99, -1])
def test_codec_truncation_refuses_unknown_numbers(value: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.truncation(value)
    assert caught.value.field == "truncation"


def test_codec_truncation_absent_refuses_long_texts() -> None:
    assert codec.truncation(pb.ClassifyRequest().truncation) == "refuse"


# -- what a client must not send -------------------------------------------------------------

Request = Callable[[list[Any]], object]
REQUESTS: dict[str, Request] = {
    "classify": lambda texts: codec.classify_request("t", texts, None, "refuse", False),
    "choose": lambda texts: codec.choose_request(LabelSet("m", ()), texts, None, False),
    "embed": lambda texts: codec.embed_request("m", texts, "refuse", False),
    "tokenize": lambda texts: codec.tokenize_request("m", texts),
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("bad", ["\ud800", "fine\udfff", "\udc80\ud800"])
def test_codec_refuses_lone_surrogates(name: str, bad: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        REQUESTS[name](["a", "ü", bad])
    assert caught.value.field == "texts[2]"
    assert bad not in caught.value.message


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["nested"]])
def test_codec_refuses_what_is_no_text(name: str, bad: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        REQUESTS[name](["a", bad])
    assert caught.value.field == "texts[1]"
    assert type(bad).__name__ in caught.value.message


@pytest.mark.parametrize("name", REQUESTS)
def test_codec_refuses_one_text_in_the_place_of_many(name: str) -> None:
    with pytest.raises(InvalidInput, match="sequence of texts, got one str"):
        REQUESTS[name]("secret")  # type: ignore[arg-type]


def test_codec_refuses_surrogates_in_prompt_chat_and_stop() -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.generate_request("m", "\ud800", Sampling())
    assert caught.value.field == "prompt"
    with pytest.raises(InvalidInput) as caught:
        codec.generate_request("m", [Message("user", "a"), Message("user", "\ud800")], Sampling())
    assert caught.value.field == "chat.messages[1].content"
    with pytest.raises(InvalidInput) as caught:
        codec.generate_request("m", "a", Sampling(stop=("b", "\ud800")))
    assert caught.value.field == "sampling.stop[1]"


@pytest.mark.parametrize(
    ("labels", "field"),
    [
        (LabelSet("\ud800", ()), "model"),
        (LabelSet("m", (), instructions="\ud800"), "instructions"),
        (LabelSet("m", (Label("a"), Label("\ud800"))), "labels[1]"),
        (LabelSet("m", (Label("a", "\ud800"),)), "labels[0]"),
    ],
)
def test_codec_refuses_surrogates_in_label_sets(labels: LabelSet, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.choose_request(labels, ["a"], None, False)
    assert caught.value.field == field


def test_codec_refuses_unknown_words() -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.choose_request(LabelSet("m", (), scoring="best"), ["a"], None, False)  # type: ignore[arg-type]
    assert caught.value.field == "scoring"
    with pytest.raises(InvalidInput) as caught:
        codec.classify_request("t", ["a"], None, "end", False)  # type: ignore[arg-type]
    assert caught.value.field == "truncation"
    with pytest.raises(InvalidInput) as caught:
        codec.generate_request("m", [Message("robot", "a")], Sampling())  # type: ignore[arg-type]
    assert caught.value.field == "chat.messages[0].role"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_tokens": 2**31}, "sampling.max_tokens"),
        ({"top_k": -(2**31) - 1}, "sampling.top_k"),
        ({"seed": -1}, "sampling.seed"),
        ({"seed": 2**32}, "sampling.seed"),
    ],
)
def test_codec_refuses_numbers_that_the_wire_cannot_carry(
    changes: dict[str, int], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.generate_request("m", "a", Sampling(**changes))  # type: ignore[arg-type]
    assert caught.value.field == field


def test_codec_refuses_a_top_k_that_the_wire_cannot_carry() -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.classify_request("t", ["a"], 2**31, "refuse", False)
    assert caught.value.field == "top_k"
    with pytest.raises(InvalidInput) as caught:
        codec.choose_request(LabelSet("m", ()), ["a"], 2**31, False)
    assert caught.value.field == "top_k"


# -- the document ----------------------------------------------------------------------------


def test_codec_proto_states_the_defaults_of_sampling() -> None:
    source = Path(pb.__file__).with_name("sprat.proto").read_text()
    stated = dict(
        re.findall(
            r"optional \w+ (\w+) = \d+; +//.* Absent: (\S+)\.\n", source.split("Sampling {")[1]
        )
    )
    defaults = {field.name: field.default for field in dataclasses.fields(Sampling)}
    for name, text in stated.items():
        if name == "seed":
            assert (text, defaults[name]) == ("drawn", None)
        else:
            assert float(text) == defaults[name], name
    assert set(stated) == set(defaults) - {"stop"}


def test_codec_requests_name_a_task_or_bring_a_spec() -> None:
    requests = (
        (codec.route_request("t", ["x"], 2, "refuse", False), "route_set"),
        (codec.decide_request("t", ["x"], False), "question_set"),
        (codec.extract_request("t", ["x"], (), "refuse", False), "spec"),
        (codec.transform_request("t", "x", {"a": "b"}), "spec"),
    )
    for request, spec in requests:
        assert request.task == "t"
        assert not request.HasField(spec)
    with pytest.raises(InvalidInput, match="task: lone surrogate"):
        codec.decide_request("\ud800", ["x"], False)
