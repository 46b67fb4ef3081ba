"""The RPCs over a real connection: what is refused and how, and what a client's absence stops.

One file, because all of it stands on the server fixture below.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from doubles import (
    ENCODER,
    GENERATOR,
    LABELS,
    MAX_TOKENS,
    TASK,
    WAIT_S,
    Encoder,
    Generator,
    eventually,
    ids,
    serving,
    vector,
)
from google.rpc import error_details_pb2, status_pb2

from sprat import client, errors
from sprat.config import LimitsConfig
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.proto.v1.sprat_pb2_grpc import SpratStub
from sprat.server import servicer as servicers
from sprat.server.servicer import Servicer
from sprat.service import Service

LIMITS = LimitsConfig(max_texts=8, max_text_bytes=400)


@dataclass
class Front:
    """A server in front of the doubles."""

    address: str
    stub: Any
    channel: Any
    servicer: Servicer
    service: Service
    encoder: Encoder
    generator: Generator


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    encoder, generator = Encoder(), Generator(context_length=100_000, cells=10**9)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(encoder, generator, limits=LIMITS))
        servicer = Servicer(max_concurrent_calls=4)
        servicer.service = service
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((servicer.handler(),))
        address = f"unix:{tmp_path}/s"
        server.add_insecure_port(address)
        await server.start()
        stack.push_async_callback(server.stop, None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        stub: Any = SpratStub(channel)  # type: ignore[no-untyped-call]
        yield Front(address, stub, channel, servicer, service, encoder, generator)
        encoder.gate.set()
        generator.gate.set()


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    return caught.value


async def error_of(call: Any) -> errors.SpratError:
    return client.to_error(await refused(call))


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    metadata: Any = error.trailing_metadata() or ()
    return dict(metadata)


def detail(error: grpc.aio.AioRpcError, kind: type[Any]) -> Any:
    packed = trailers(error)["grpc-status-details-bin"]
    found = kind()
    assert any(d.Unpack(found) for d in status_pb2.Status.FromString(packed).details), kind
    return found


def classify(**fields: Any) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(**{"task": TASK, "texts": ["a"], **fields})


LABEL_SET = pb.LabelSet(model=GENERATOR, labels=[pb.Label(name="a"), pb.Label(name="b")])


def embed(**fields: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(**{"model": ENCODER, "texts": ["a"], **fields})


def generate(**fields: Any) -> pb.GenerateRequest:
    asked = {"model": GENERATOR, "sampling": pb.Sampling(max_tokens=3), **fields}
    return pb.GenerateRequest(**asked if "chat" in asked else {"prompt": "ab", **asked})


# -- answers ---------------------------------------------------------------------------------


async def test_servicer_classify(front: Front) -> None:
    answer = await front.stub.Classify(classify(texts=["a", "b c"]), timeout=WAIT_S)
    assert len(answer.results) == 2
    for result in answer.results:
        assert {s.label for s in result.scores} == set(LABELS)
        assert result.HasField("confidence")
    assert [r.input_tokens for r in answer.results] == [3, 4]
    assert answer.model.name == ENCODER
    assert answer.task_version
    assert answer.calibrated
    timings = answer.timings
    assert min(timings.tokenize_ns, timings.queue_ns, timings.infer_ns, timings.total_ns) > 0


async def test_servicer_classify_top_k(front: Front) -> None:
    answer = await front.stub.Classify(classify(top_k=1), timeout=WAIT_S)
    assert len(answer.results[0].scores) == 1
    error = await error_of(front.stub.Classify(classify(top_k=0), timeout=WAIT_S))
    assert isinstance(error, errors.InvalidInput)
    assert error.field == "top_k"


async def test_servicer_classify_threshold_of_the_request(front: Front) -> None:
    answer = await front.stub.Classify(classify(accept_at=1.0), timeout=WAIT_S)
    assert answer.results[0].abstained
    answer = await front.stub.Classify(
        classify(accept_at=0.0, max_tier=0, budget_ms=1e-6), timeout=WAIT_S
    )
    assert answer.results[0].label
    assert not answer.results[0].degraded


async def test_servicer_embed(front: Front) -> None:
    answer = await front.stub.Embed(embed(texts=["a b", "c"]), timeout=WAIT_S)
    vectors = np.frombuffer(answer.vectors, "<f4").reshape(2, answer.dimension)
    np.testing.assert_array_equal(vectors, [vector(ids("a b")), vector(ids("c"))])
    assert list(answer.input_tokens) == [4, 3]
    assert answer.timings.infer_ns > 0


async def test_servicer_generate(front: Front) -> None:
    answers = [a async for a in front.stub.Generate(generate(), timeout=WAIT_S)]
    assert "".join(a.text for a in answers) == "aba"
    assert [a.finish_reason for a in answers] == [0, 0, pb.FINISH_REASON_LENGTH]
    last = answers[-1]
    assert (last.prompt_tokens, last.output_tokens) == (3, 3)
    assert last.model.name == GENERATOR
    assert last.timings.total_ns > 0


async def test_servicer_generate_chat(front: Front) -> None:
    chat = pb.Chat(messages=[pb.Message(role=pb.ROLE_USER, content="x")])
    answers = [a async for a in front.stub.Generate(generate(chat=chat), timeout=WAIT_S)]
    assert "".join(a.text for a in answers) == "<us"


@pytest.mark.parametrize("model", [ENCODER, GENERATOR])
async def test_servicer_tokenize(front: Front, model: str) -> None:
    request = pb.TokenizeRequest(model=model, texts=["a b", "c"])
    answer = await front.stub.Tokenize(request, timeout=WAIT_S)
    assert len(answer.results) == 2
    assert all(len(r.ids) == len(r.pieces) > 0 for r in answer.results)
    assert answer.max_tokens == {ENCODER: MAX_TOKENS, GENERATOR: 100_000}[model]
    assert answer.model.name == model
    assert answer.timings.total_ns > 0


async def test_servicer_lists(front: Front) -> None:
    tasks = (await front.stub.ListTasks(pb.ListTasksRequest(), timeout=WAIT_S)).tasks
    assert [(t.name, t.kind, tuple(t.labels)) for t in tasks] == [(TASK, "classify", LABELS)]
    models = (await front.stub.ListModels(pb.ListModelsRequest(), timeout=WAIT_S)).models
    assert [(m.name, m.kind) for m in models] == [(ENCODER, "encoder"), (GENERATOR, "generative")]


async def test_servicer_every_rpc_of_the_proto_is_there() -> None:
    described = pb.DESCRIPTOR.services_by_name["Sprat"]
    streaming = {m.name for m in described.methods if m.server_streaming}
    assert set(servicers.STREAM) == streaming
    assert set(servicers.UNARY) == {m.name for m in described.methods} - streaming
    for method in described.methods:
        kind, _ = {**servicers.UNARY, **servicers.STREAM}[method.name]
        assert kind.DESCRIPTOR is method.input_type
    assert described.full_name == servicers.SERVICE_NAME


# -- bad bytes -------------------------------------------------------------------------------

INVALID_UTF8 = b"\x0a\x01t\x12\x04secr\x12\x02\xff\xfe"
BAD_BYTES = {
    "not UTF-8": INVALID_UTF8,
    "cut": classify().SerializeToString()[:-1],
    "no protobuf": b"\xff" * 20,
    "wrong wire type": b"\x0d\x01",
}


@pytest.mark.parametrize("method", ["Classify", "Embed", "Tokenize"])
@pytest.mark.parametrize("kind", [k for k in BAD_BYTES if k != "wrong wire type"])
async def test_servicer_bytes_that_are_no_request(front: Front, method: str, kind: str) -> None:
    raw = front.channel.unary_unary(f"/sprat.v1.Sprat/{method}")
    error = await refused(raw(BAD_BYTES[kind], timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "request"
    assert f"sprat.v1.{method}Request" in (error.details() or "")
    assert "secr" not in (error.details() or "")


async def test_servicer_bytes_that_are_no_request_of_a_stream(front: Front) -> None:
    raw = front.channel.unary_stream("/sprat.v1.Sprat/Generate")
    error = await refused(raw(b"\x12\x02\xff\xfe", timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert detail(error, error_details_pb2.BadRequest).field_violations[0].field == "request"


async def test_servicer_unknown_fields_of_a_newer_client_are_ignored(front: Front) -> None:
    raw = front.channel.unary_unary("/sprat.v1.Sprat/Classify")
    newer = classify().SerializeToString() + b"\xfa\x7f\x03new"
    answer = pb.ClassifyResponse.FromString(await raw(newer, timeout=WAIT_S))
    assert len(answer.results) == 1


async def test_servicer_unknown_method(front: Front) -> None:
    error = await refused(front.channel.unary_unary("/sprat.v1.Sprat/Nothing")(b"", timeout=9))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


# -- bad requests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("Classify", classify(texts=[]), "texts"),
        ("Classify", classify(texts=["a"] * 9), "texts"),
        ("Classify", classify(texts=["a", ""]), "texts[1]"),
        ("Classify", classify(texts=["a", "x" * 401]), "texts[1]"),
        ("Classify", classify(texts=["a", "ü" * 201]), "texts[1]"),
        ("Classify", classify(truncation=3), "truncation"),
        ("Classify", classify(max_tier=-1), "max_tier"),
        ("Classify", classify(accept_at=1.5), "accept_at"),
        ("Classify", classify(accept_at=float("nan")), "accept_at"),
        ("Classify", classify(budget_ms=0.0), "budget_ms"),
        ("Classify", classify(budget_ms=float("inf")), "budget_ms"),
        ("Classify", classify(task="", label_set=LABEL_SET, max_tier=0), "max_tier"),
        (
            "Route",
            pb.RouteRequest(texts=["a"], route_set=pb.RouteSet(model=GENERATOR), accept_at=0.5),
            "accept_at",
        ),
        ("Embed", embed(texts=[]), "texts"),
        ("Embed", embed(texts=["a"] * 9), "texts"),
        ("Embed", embed(texts=[" "]), "texts[0]"),
        ("Embed", embed(truncation=99), "truncation"),
        ("Tokenize", pb.TokenizeRequest(model=ENCODER), "texts"),
        ("Tokenize", pb.TokenizeRequest(model=ENCODER, texts=["a"] * 9), "texts"),
        ("Generate", pb.GenerateRequest(model=GENERATOR), "input"),
        ("Generate", generate(prompt=""), "prompt"),
        ("Generate", generate(prompt="x" * 401), "prompt"),
        ("Generate", generate(chat=pb.Chat()), "chat.messages"),
        ("Generate", generate(chat=pb.Chat(messages=[pb.Message()])), "chat.messages[0].role"),
        (
            "Generate",
            generate(chat=pb.Chat(messages=[pb.Message(role=pb.ROLE_USER, content="x" * 401)])),
            "chat.messages[0].content",
        ),
        ("Generate", generate(sampling=pb.Sampling(top_p=0.0)), "sampling.top_p"),
        ("Generate", generate(sampling=pb.Sampling(temperature=float("nan"))), "sampling.temp"),
        ("Generate", generate(sampling=pb.Sampling(stop=[""])), "sampling.stop[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_servicer_bad_request_names_the_field(
    front: Front, method: str, request_: Any, field: str
) -> None:
    error = await refused(getattr(front.stub, method)(request_, timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field.startswith(field)
    assert "xxx" not in (error.details() or "")
    assert front.encoder.calls == []
    assert front.generator.started == []


async def test_servicer_too_many_texts_says_how_many(front: Front) -> None:
    assert len((await front.stub.Embed(embed(texts=["a"] * 8), timeout=WAIT_S)).input_tokens) == 8
    error = await error_of(front.stub.Embed(embed(texts=["a"] * 9), timeout=WAIT_S))
    assert error.message == "texts: expected 1 to 8 texts, got 9"
    error = await error_of(front.stub.Embed(embed(texts=[]), timeout=WAIT_S))
    assert error.message == "texts: expected 1 to 8 texts, got 0"


async def test_servicer_text_of_exactly_the_limit_is_read(front: Front) -> None:
    request = pb.TokenizeRequest(model=ENCODER, texts=["x" * 400, "ü" * 200])
    assert len((await front.stub.Tokenize(request, timeout=WAIT_S)).results) == 2


@pytest.mark.parametrize(
    ("method", "request_", "kind", "name"),
    [
        ("Classify", classify(task="nothing"), "task", "nothing"),
        ("Classify", classify(task=""), "task", ""),
        ("Classify", classify(task=ENCODER), "task", ENCODER),
        ("Embed", embed(model="nothing"), "model", "nothing"),
        ("Generate", generate(model="nothing"), "model", "nothing"),
        ("Tokenize", pb.TokenizeRequest(model="nothing", texts=["a"]), "model", "nothing"),
    ],
)
async def test_servicer_unknown_names(
    front: Front, method: str, request_: Any, kind: str, name: str
) -> None:
    error = await refused(getattr(front.stub, method)(request_, timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    info = detail(error, error_details_pb2.ResourceInfo)
    assert (info.resource_type, info.resource_name) == (f"sprat.v1.{kind}", name)
    known = TASK if kind == "task" else f"{ENCODER}, {GENERATOR}"
    assert f"known: {known}" in (error.details() or "")


async def test_servicer_name_of_a_megabyte(front: Front) -> None:
    error = await error_of(front.stub.Classify(classify(task="ü" * 500_000), timeout=WAIT_S))
    assert isinstance(error, errors.NotFound)


async def test_servicer_wrong_kind_of_model(front: Front) -> None:
    for call in (
        front.stub.Embed(embed(model=GENERATOR), timeout=WAIT_S),
        front.stub.Generate(generate(model=ENCODER), timeout=WAIT_S),
    ):
        error = await refused(call)
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert detail(error, error_details_pb2.ErrorInfo).reason == "TASK_NOT_SUPPORTED"


# -- labels of the request's own -------------------------------------------------------------


def choose(*names: str, **fields: Any) -> pb.ClassifyRequest:
    labels = [pb.Label(name=name) for name in names or ("red", "blue")]
    return pb.ClassifyRequest(
        texts=fields.pop("texts", ["blue"]),
        task=fields.pop("task", ""),
        truncation=fields.pop("truncation", pb.TRUNCATION_UNSPECIFIED),
        partial_results=fields.pop("partial_results", False),
        label_set=pb.LabelSet(**{"model": GENERATOR, "labels": labels, **fields}),
    )


async def test_servicer_choose(front: Front) -> None:
    request = choose(texts=["blue", "red and red"])
    request.top_k = 1
    answer = await front.stub.Classify(request, timeout=WAIT_S)
    assert [result.label for result in answer.results] == ["blue", "red"]
    assert [round(result.scores[0].score * 18) for result in answer.results] == [16, 17]
    assert [len(result.scores) for result in answer.results] == [1, 1]
    assert not answer.calibrated
    assert not any(result.HasField("confidence") for result in answer.results)
    assert all(0 < result.cached_tokens < result.input_tokens for result in answer.results)
    assert (answer.model.name, answer.task_version) == (GENERATOR, "")
    assert answer.timings.total_ns > 0


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (choose(task=TASK), "task"),
        (choose(scoring=7), "label_set.scoring"),
        (choose(normalize_length=True), "normalize_length"),
        (choose(truncation=pb.TRUNCATION_END), "truncation"),
        (choose("one"), "labels"),
        (choose("one", "two", "one"), "labels[2]"),
        (choose(*map(str, range(257))), "labels"),
        (choose(texts=[]), "texts"),
        (choose(texts=[""]), "texts[0]"),
        (choose(instructions="x" * 401), "instructions"),
    ],
)
async def test_servicer_choose_bad_request_names_the_field(
    front: Front, request_: pb.ClassifyRequest, field: str
) -> None:
    error = await refused(front.stub.Classify(request_, timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == field
    assert not front.generator.choices.started


async def test_servicer_choose_needs_a_generative_model(front: Front) -> None:
    error = await error_of(front.stub.Classify(choose(model=ENCODER), timeout=WAIT_S))
    assert isinstance(error, errors.TaskNotSupported)
    error = await error_of(front.stub.Classify(choose(model="nothing"), timeout=WAIT_S))
    assert isinstance(error, errors.NotFound)


async def test_servicer_choose_partial_results(front: Front) -> None:
    request = choose(texts=["red", "", "blue"], partial_results=True)
    answer = await front.stub.Classify(request, timeout=WAIT_S)
    assert [result.label for result in answer.results] == ["red", "", "blue"]
    assert [(error.index, error.reason) for error in answer.errors] == [(1, "INVALID_INPUT")]


async def test_servicer_choose_cancelled_call_stops_the_engine(front: Front) -> None:
    front.generator.choices.steps_each = 10**9
    call = front.stub.Classify(choose(texts=["red", "blue"]), timeout=WAIT_S)
    await eventually(lambda: len(front.generator.choices.live) == 2, "it never started")
    call.cancel()
    await eventually(lambda: not front.generator.choices.live, "it was never stopped")


async def test_servicer_choose_deadline_stops_the_engine(front: Front) -> None:
    front.generator.choices.steps_each = 10**9
    error = await refused(front.stub.Classify(choose(), timeout=0.2))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: not front.generator.choices.live, "it was never stopped")


# -- questions and targets of the request's own ----------------------------------------------


def decide(**fields: Any) -> pb.DecideRequest:
    questions = [
        pb.Question(name="urgent", text="Is it?", kind=pb.QUESTION_KIND_YES_NO),
        pb.Question(
            name="mood",
            text="How angry?",
            kind=pb.QUESTION_KIND_SCORE,
            options=[pb.Label(name=name) for name in ("calm", "cross")],
        ),
    ]
    return pb.DecideRequest(
        texts=fields.pop("texts", ["so cross, yes"]),
        task=fields.pop("task", ""),
        partial_results=fields.pop("partial_results", False),
        question_set=pb.QuestionSet(**{"model": GENERATOR, "questions": questions, **fields}),
    )


def route(**fields: Any) -> pb.RouteRequest:
    places = [pb.Destination(name="red", target="queue-1"), pb.Destination(name="blue")]
    return pb.RouteRequest(
        texts=fields.pop("texts", ["red"]),
        task=fields.pop("task", ""),
        partial_results=fields.pop("partial_results", False),
        route_set=pb.RouteSet(**{"model": GENERATOR, "destinations": places, **fields}),
    )


async def test_servicer_decide(front: Front) -> None:
    request = decide(texts=["so cross, yes", ""], partial_results=True)
    answer = await front.stub.Decide(request, timeout=WAIT_S)
    first, second = answer.results
    assert [(a.question, a.option) for a in first.answers] == [("urgent", "yes"), ("mood", "cross")]
    assert [a.HasField("expected_level") for a in first.answers] == [False, True]
    assert first.answers[1].expected_level == pytest.approx(0.9)
    assert 0 < first.cached_tokens < first.input_tokens
    assert not second.answers
    assert [(error.index, error.reason) for error in answer.errors] == [(1, "INVALID_INPUT")]
    assert (answer.model.name, answer.task_version, answer.calibrated) == (GENERATOR, "", False)
    assert answer.timings.total_ns > 0


async def test_servicer_route(front: Front) -> None:
    request = route(texts=["red", "blue", ""], partial_results=True)
    answer = await front.stub.Route(request, timeout=WAIT_S)
    assert [result.target for result in answer.results] == ["queue-1", "blue", ""]
    assert [len(result.classification.scores) for result in answer.results] == [2, 2, 0]
    assert [error.index for error in answer.errors] == [2]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (decide(questions=[]), "questions"),
        (decide(questions=[pb.Question(name="a", text="b")]), "question_set.questions[0].kind"),
        (decide(texts=[]), "texts"),
        (decide(instructions="x" * 401), "instructions"),
        (decide(task="t"), "task"),
        (route(destinations=[]), "destinations"),
        (route(scoring=7), "route_set.scoring"),
        (route(texts=[""]), "texts[0]"),
        (route(task="t"), "task"),
    ],
)
async def test_servicer_decide_and_route_bad_request_names_the_field(
    front: Front, request_: pb.DecideRequest | pb.RouteRequest, field: str
) -> None:
    stub = front.stub.Decide if isinstance(request_, pb.DecideRequest) else front.stub.Route
    error = await refused(stub(request_, timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == field
    assert not front.generator.choices.started


async def test_servicer_decide_and_route_by_a_task_that_cannot(front: Front) -> None:
    for call, request in (
        (front.stub.Decide, pb.DecideRequest(texts=["a"])),
        (front.stub.Route, pb.RouteRequest(texts=["a"])),
    ):
        request.task = TASK
        error = await error_of(call(request, timeout=WAIT_S))
        assert isinstance(error, errors.TaskNotSupported)
        request.task = "nothing"
        error = await error_of(call(request, timeout=WAIT_S))
        assert isinstance(error, errors.NotFound)


async def test_servicer_decide_cancelled_call_stops_the_engine(front: Front) -> None:
    front.generator.choices.steps_each = 10**9
    call = front.stub.Decide(decide(), timeout=WAIT_S)
    await eventually(lambda: len(front.generator.choices.live) == 2, "it never started")
    call.cancel()
    await eventually(lambda: not front.generator.choices.live, "it was never stopped")


# -- long inputs and partial results ---------------------------------------------------------


async def test_servicer_long_text(front: Front) -> None:
    long = classify(texts=["a", "b " * 20])
    error = await error_of(front.stub.Classify(long, timeout=WAIT_S))
    assert isinstance(error, errors.InputTooLong)
    assert (error.field, error.tokens, error.limit) == ("texts[1]", 22, MAX_TOKENS)
    long.truncation = pb.TRUNCATION_END
    answer = await front.stub.Classify(long, timeout=WAIT_S)
    assert [(r.input_tokens, r.dropped_tokens) for r in answer.results] == [(3, 0), (16, 6)]


async def test_servicer_partial_results(front: Front) -> None:
    texts = ["a", "", "b " * 20, "c"]
    answer = await front.stub.Classify(classify(texts=texts, partial_results=True), timeout=WAIT_S)
    assert [bool(r.scores) for r in answer.results] == [True, False, False, True]
    assert [(e.index, e.reason) for e in answer.errors] == [
        (1, "INVALID_INPUT"),
        (2, "INPUT_TOO_LONG"),
    ]
    answer = await front.stub.Embed(embed(texts=texts, partial_results=True), timeout=WAIT_S)
    vectors = np.frombuffer(answer.vectors, "<f4").reshape(4, 4)
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True, True, False]
    assert [e.index for e in answer.errors] == [1, 2]


# -- not now ---------------------------------------------------------------------------------

EVERY_CALL: list[tuple[str, Any]] = [
    ("Classify", classify()),
    ("Embed", embed()),
    ("Generate", generate()),
    ("Tokenize", pb.TokenizeRequest(model=ENCODER, texts=["a"])),
    ("ListTasks", pb.ListTasksRequest()),
    ("ListModels", pb.ListModelsRequest()),
]


@pytest.mark.parametrize(("method", "request_"), EVERY_CALL, ids=[c[0] for c in EVERY_CALL])
async def test_servicer_before_the_models_are_loaded(
    front: Front, method: str, request_: Any
) -> None:
    front.servicer.service = None
    error = await refused(getattr(front.stub, method)(request_, timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert trailers(error)["grpc-retry-pushback-ms"] == "500"
    delay = detail(error, error_details_pb2.RetryInfo).retry_delay
    assert delay.ToMilliseconds() == 500


async def test_servicer_bounds_calls_in_flight_and_recovers(front: Front) -> None:
    stream = front.stub.Generate(generate(sampling=pb.Sampling(max_tokens=90_000)), timeout=WAIT_S)
    await anext(aiter(stream))
    front.encoder.gate.clear()
    calls = [front.stub.Embed(embed(texts=["a", "b"]), timeout=WAIT_S) for _ in range(3)]
    await eventually(lambda: front.servicer._in_flight == 4, "the calls never came")
    error = await refused(front.stub.ListModels(pb.ListModelsRequest(), timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "grpc-retry-pushback-ms" in trailers(error)
    assert detail(error, error_details_pb2.ErrorInfo).reason == "QUEUE_FULL"
    stream.cancel()
    await eventually(lambda: front.servicer._in_flight == 3, "the cancelled call still counts")
    await front.stub.ListModels(pb.ListModelsRequest(), timeout=WAIT_S)
    front.encoder.gate.set()
    await asyncio.gather(*calls)
    await refused(front.stub.Embed(embed(texts=[]), timeout=WAIT_S))
    await eventually(lambda: front.servicer._in_flight == 0, "a call was never counted out")


async def test_servicer_engine_failure_is_internal_and_silent(front: Front) -> None:
    front.encoder.failure = lambda _: RuntimeError("secret text")
    error = await refused(front.stub.Embed(embed(), timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")
    assert detail(error, error_details_pb2.ErrorInfo).reason == "ENGINE"

    def fail() -> None:
        raise RuntimeError("secret text")

    front.generator.on_step = fail
    error = await refused(front.stub.Generate(generate(), timeout=WAIT_S))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")


async def test_servicer_unforeseen_failure_is_internal_with_an_incident(
    front: Front, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("secret text")

    for name in ("classify", "generate"):
        monkeypatch.setattr(Service, name, broken)
    for call in (
        front.stub.Classify(classify(), timeout=WAIT_S),
        front.stub.Generate(generate(), timeout=WAIT_S),
    ):
        error = await refused(call)
        assert error.code() == grpc.StatusCode.INTERNAL
        incident = detail(error, error_details_pb2.ErrorInfo).metadata["incident"]
        assert incident in caplog.text
    assert "secret" not in caplog.text


# -- time and absence ------------------------------------------------------------------------


async def occupy(front: Front) -> list[Any]:
    """Keep both workers in a pass until the gate opens."""
    front.encoder.gate.clear()
    calls = []
    for number in range(1, 3):
        calls.append(front.stub.Embed(embed(texts=["a", "b"]), timeout=WAIT_S))
        await eventually(partial(has_calls, front.encoder, number), "no pass started")
    return calls


def has_calls(encoder: Encoder, count: int) -> bool:
    return len(encoder.calls) == count


async def test_servicer_deadline_reaches_the_queue(front: Front) -> None:
    blockers = await occupy(front)
    late = front.stub.Embed(embed(texts=["x"]), timeout=0.03)
    assert (await refused(late)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    front.encoder.gate.set()
    await asyncio.gather(*blockers)
    await front.stub.Embed(embed(texts=["z"]), timeout=WAIT_S)
    assert ids("x") not in front.encoder.rows


async def test_servicer_deadline_in_the_middle_of_a_stream(front: Front) -> None:
    front.generator.on_step = lambda: time.sleep(0.002)
    request = generate(sampling=pb.Sampling(max_tokens=100_000))
    got = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for answer in front.stub.Generate(request, timeout=0.05):
            got.append(answer)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: not front.generator.live, "the engine goes on")
    assert got


async def test_servicer_cancelled_unary_call_is_dropped(front: Front) -> None:
    blockers = await occupy(front)
    dropped = front.stub.Embed(embed(texts=["x", "y"]), timeout=WAIT_S)
    encoder: Any = front.service.registry.models[ENCODER]
    queue = encoder._scheduler._queue
    await eventually(lambda: len(queue) == 1, "the call never came")
    (work,) = queue._works
    dropped.cancel()
    await eventually(lambda: work.cancelled, "nobody told the work")
    front.encoder.gate.set()
    await asyncio.gather(*blockers)
    await eventually(lambda: front.servicer._in_flight == 0, "the call still counts")
    assert ids("x") not in front.encoder.rows


async def test_servicer_cancelled_stream_stops_the_engine(front: Front) -> None:
    stream = front.stub.Generate(generate(sampling=pb.Sampling(max_tokens=100_000)), timeout=WAIT_S)
    await anext(aiter(stream))
    assert front.generator.live
    stream.cancel()
    await eventually(lambda: not front.generator.live, "the engine goes on")
    await eventually(lambda: front.servicer._in_flight == 0, "the call still counts")
    assert front.generator.stopped == [0]


async def test_servicer_client_that_does_not_read_can_be_cancelled(front: Front) -> None:
    """Flow control holds the answer up inside a write; that must not hide the cancellation."""
    front.generator.repeat = 50_000
    front.generator.on_step = lambda: time.sleep(0.001)
    stream = front.stub.Generate(generate(sampling=pb.Sampling(max_tokens=90_000)), timeout=WAIT_S)
    await eventually(lambda: len(front.generator.slices) > 20, "the engine never ran")
    stream.cancel()
    await eventually(lambda: not front.generator.live, "the engine goes on")
    await eventually(lambda: front.servicer._in_flight == 0, "the call still counts")


async def test_servicer_client_that_vanishes_stops_the_engine(front: Front) -> None:
    channel: Any = grpc.aio.insecure_channel(front.address, [("grpc.use_local_subchannel_pool", 1)])
    stub: Any = SpratStub(channel)  # type: ignore[no-untyped-call]
    stream = stub.Generate(generate(sampling=pb.Sampling(max_tokens=100_000)))
    await anext(aiter(stream))
    await channel.close()
    await eventually(lambda: not front.generator.live, "the engine goes on")


async def test_servicer_cancelled_stream_leaves_its_neighbours_alone(front: Front) -> None:
    sampling = pb.Sampling(max_tokens=200)
    streams = [front.stub.Generate(generate(prompt=p, sampling=sampling)) for p in "abc"]
    await anext(aiter(streams[1]))
    streams[1].cancel()
    for stream, letter in ((streams[0], "a"), (streams[2], "c")):
        assert "".join([a.text async for a in stream]) == letter * 200
