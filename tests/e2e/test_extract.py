"""Extract and Transform through a real server on a real model."""

from __future__ import annotations

import json
from pathlib import Path

import extraction_cases
import grpc
import pytest
from servers import GENERATOR, Server, sprat

from sprat.client import Client
from sprat.errors import InputTooLong, InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.proto.v1.sprat_pb2_grpc import SpratStub
from sprat.store import Store
from sprat.values import ExtractSpec, Grammar, Sampling, TransformSpec

TEXT = "Hi, it is Elly Zlaten. Can we have a table for 8 at 19:30, please?"
NAME = json.dumps(extraction_cases.fields(name=extraction_cases.TEXT))


@pytest.mark.parametrize("name", extraction_cases.SCHEMAS)
def test_extract_is_valid_or_says_it_is_incomplete(client: Client, name: str) -> None:
    extraction_cases.extract(client, name, [TEXT])


def test_extract_reads_what_texts_share_once(client: Client) -> None:
    spec = ExtractSpec(GENERATOR, NAME, "Who is it?", max_tokens=48)
    client.extract(spec, [TEXT])
    (item,) = client.extract(spec, ["My name is Tom."]).items
    assert item is not None
    assert 0 < item.cached_tokens < item.input_tokens
    assert 0 < item.forced_tokens < item.output_tokens


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ("{", "schema"),
        ('{"type":"object","properties":{"a":false},"required":["a"]}', "schema"),
        ('{"type":"object","properties":{"a":{"type":"strin"}}}', "schema"),
        ('{"type":"object","properties":{"a":{"$ref":"#/$defs/none"}}}', "schema"),
    ],
)
def test_extract_refuses_schemas_that_cannot_be_followed(
    client: Client, schema: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.extract(ExtractSpec(GENERATOR, schema), [TEXT])
    assert caught.value.field == field
    assert caught.value.message.startswith("schema: ")


def test_extract_refuses_long_texts_unless_they_may_be_cut(client: Client) -> None:
    spec = ExtractSpec(GENERATOR, '{"type":"object","properties":{"a":{"const":1}}}')
    with pytest.raises(InputTooLong, match="long_input"):
        client.extract(spec, ["It rains. " * 4000])


def test_transform_streams_and_says_how_it_ended(client: Client) -> None:
    spec = TransformSpec(GENERATOR, "Say yes or no. {text}", Grammar("regex", "yes|no"))
    chunks = [*client.transform(spec, TEXT)]
    assert "".join(chunk.text for chunk in chunks) in ("yes", "no")
    assert (chunks[-1].finish_reason, chunks[-1].complete) == ("stop", True)
    cut = TransformSpec(GENERATOR, "Repeat: {text}", sampling=Sampling(max_tokens=2))
    last = [*client.transform(cut, TEXT)][-1]
    assert (last.finish_reason, last.complete, last.output_tokens) == ("length", False, 2)


@pytest.mark.parametrize("lookup", [True, False])
def test_transform_lookup_changes_nothing_but_the_time(client: Client, lookup: bool) -> None:
    spec = TransformSpec(
        GENERATOR,
        "{text}",
        Grammar("lark", f"start: {json.dumps(TEXT)}"),
        lookup=lookup,
    )
    chunks = [*client.transform(spec, TEXT)]
    assert "".join(chunk.text for chunk in chunks) == TEXT
    assert chunks[-1].complete


@pytest.mark.parametrize(
    ("spec", "inputs", "field"),
    [
        (TransformSpec(GENERATOR, "{text.__class__}"), {}, "prompt"),
        (TransformSpec(GENERATOR, "{tone} {text}"), {}, "inputs"),
        (TransformSpec(GENERATOR, "{text}", Grammar("regex", "(")), {}, "grammar"),
        (TransformSpec(GENERATOR, "{text}", Grammar("lark", "")), {}, "grammar"),
        (TransformSpec(GENERATOR, "{text}", Grammar("json_schema", "false")), {}, "grammar"),
        (TransformSpec(GENERATOR, "{text}" * 300), {}, "prompt"),
    ],
)
def test_transform_refuses(
    client: Client, spec: TransformSpec, inputs: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        list(client.transform(spec, TEXT, inputs=inputs))
    assert caught.value.field == field


def test_transform_reader_that_leaves_harms_nobody(client: Client) -> None:
    spec = TransformSpec(GENERATOR, "Tell a story. {text}", sampling=Sampling(max_tokens=400))
    for _ in range(3):
        stream = client.transform(spec, TEXT)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    yes = TransformSpec(GENERATOR, "{text}", Grammar("regex", "yes"))
    assert "".join(chunk.text for chunk in client.transform(yes, TEXT)) == "yes"


def test_extract_and_transform_need_a_spec(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = SpratStub(channel)  # type: ignore[no-untyped-call]
        for task, code in (
            ("", grpc.StatusCode.INVALID_ARGUMENT),
            ("nothing", grpc.StatusCode.NOT_FOUND),
            ("tickets", grpc.StatusCode.FAILED_PRECONDITION),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Extract(pb.ExtractRequest(task=task, texts=["a"]))
            assert caught.value.code() == code  # type: ignore[attr-defined]
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Transform(pb.TransformRequest(task=task, text="a")))
            assert caught.value.code() == code  # type: ignore[attr-defined]


def test_logs_have_no_text(client: Client, server: Server) -> None:
    secret = "Xylophonic Zebrafish"
    client.extract(ExtractSpec(GENERATOR, NAME, max_tokens=8), [secret])
    spec = TransformSpec(GENERATOR, "{a} {text}", sampling=Sampling(max_tokens=4))
    list(client.transform(spec, secret, inputs={"a": secret}))
    with pytest.raises(InvalidInput) as caught:
        list(client.transform(spec, secret, inputs={secret: secret}))
    assert "Xylophonic" not in caught.value.message
    assert "Xylophonic" not in server.log.read_text()


@pytest.mark.parametrize("served", [True, False])
def test_extract_command(
    store: Store, smollm: Path, server: Server, tmp_path: Path, served: bool
) -> None:
    (tmp_path / "s.json").write_text(NAME)
    where = ("--server", server.address) if served else ()
    arguments = ("extract", GENERATOR, TEXT, "--schema", str(tmp_path / "s.json"), *where)
    done = sprat(store, *arguments, "--json", "--max-tokens", "48")
    assert done.returncode == 0, done.stderr
    (item,) = json.loads(done.stdout)["items"]
    assert item["fields"][0]["path"] == "/name"
    if served:
        table = sprat(store, *arguments, "--max-tokens", "48")
        assert table.returncode == 0, table.stderr
        assert all(word in table.stdout for word in ("path", "/name", "score", "span"))


@pytest.mark.parametrize("served", [True, False])
def test_transform_command(store: Store, smollm: Path, server: Server, served: bool) -> None:
    where = ("--server", server.address) if served else ()
    arguments = ("transform", GENERATOR, "--prompt", "{tone}: {text}", "--input", "tone=kind")
    done = sprat(store, *arguments, "--regex", "yes", *where, input=TEXT)
    assert (done.returncode, done.stdout) == (0, "yes\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract", GENERATOR, "x", "--schema", "nowhere.json"), "nowhere.json cannot be read"),
        (("transform", GENERATOR, "x", "--prompt", "{0}"), "the brace at character"),
        (("transform", GENERATOR, "x", "--prompt", "{text}", "--input", "a"), "NAME=VALUE"),
        (
            ("transform", GENERATOR, "x", "--prompt", "{text}", "--regex", "a", "--lark", "b"),
            "expected one of --schema, --regex and --lark",
        ),
    ],
)
def test_commands_refuse_in_one_line(
    store: Store, server: Server, arguments: tuple[str, ...], message: str
) -> None:
    done = sprat(store, *arguments, "--server", server.address)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
