"""What users see: public names, one set of verbs everywhere, a proto that explains itself."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sprat
from sprat import AsyncClient, Client, Runtime, errors, values
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.proto.v1 import sprat_pb2_grpc
from sprat.server import servicer

VERBS = (
    *(
        "classify",
        "choose",
        "route",
        "moderate",
        "decide",
        "extract",
        "transform",
        "embed",
        "generate",
    ),
    *("tokenize", "feedback", "list_tasks", "list_models"),
)


# -- names -----------------------------------------------------------------------------------


def test_surface_public_names_are_these() -> None:
    assert sprat.__all__ == sorted(sprat.__all__)
    assert set(sprat.__all__) == {
        "AsyncClient",
        "Client",
        "Destination",
        "ExtractSpec",
        "Grammar",
        "Label",
        "LabelSet",
        "Message",
        "Question",
        "QuestionSet",
        "RouteSet",
        "Runtime",
        "Sampling",
        "TransformSpec",
        "__version__",
    }
    for name in sprat.__all__:
        assert getattr(sprat, name) is not None


def test_surface_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        sprat.Nothing  # noqa: B018
    assert not hasattr(sprat, "nothing")


def test_surface_import_loads_neither_grpc_nor_an_engine() -> None:
    script = (
        "import sys, sprat\n"
        "heavy = {'grpc', 'google.protobuf', 'ctranslate2', 'llama_cpp', 'tokenizers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_surface_is_documented() -> None:
    for kind in (Client, AsyncClient, Runtime, values.Sampling, values.Message, values.LabelSet):
        assert inspect.getdoc(kind)
        for name, member in vars(kind).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                assert inspect.getdoc(member), f"{kind.__name__}.{name}"


def test_surface_errors_of_the_docs_exist() -> None:
    for kind in (Client, AsyncClient, Runtime):
        for member in vars(kind).values():
            raised = re.search(r"Raises\n-+\n((?:\S.*\n?)+)", inspect.getdoc(member) or "")
            names = re.findall(r"^([A-Z]\w+(?:, [A-Z]\w+)*)$", raised[1] if raised else "", re.M)
            for name in (n for line in names for n in line.split(", ")):
                assert issubclass(getattr(errors, name), errors.SpratError)


# -- one set of verbs ------------------------------------------------------------------------


def parameters(kind: type, verb: str) -> list[tuple[str, Any, Any, Any]]:
    signature = inspect.signature(getattr(kind, verb))
    return [(p.name, p.kind, p.default, p.annotation) for p in signature.parameters.values()]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", [AsyncClient, Runtime])
def test_surface_verbs_take_the_same_parameters_everywhere(kind: type, verb: str) -> None:
    assert parameters(kind, verb) == parameters(Client, verb)


@pytest.mark.parametrize("verb", VERBS)
def test_surface_verbs_return_the_same_everywhere(verb: str) -> None:
    blocking = inspect.signature(getattr(Client, verb)).return_annotation
    assert inspect.signature(getattr(Runtime, verb)).return_annotation == blocking
    awaited = inspect.signature(getattr(AsyncClient, verb)).return_annotation
    assert awaited.replace("AsyncIterator", "Iterator") == blocking


def public(kind: type) -> set[str]:
    return {n for n, m in vars(kind).items() if inspect.isfunction(m) and not n.startswith("_")}


def test_surface_clients_have_the_same_methods() -> None:
    assert public(Client) == public(AsyncClient) == {*VERBS, "close", "wait_until_ready"}
    # States of tokens are too large to be sent.
    assert public(Runtime) == {*VERBS, "close", "token_states"}
    assert parameters(Client, "__init__") == parameters(AsyncClient, "__init__")
    assert parameters(Client, "wait_until_ready") == parameters(AsyncClient, "wait_until_ready")


def test_surface_every_rpc_is_wired() -> None:
    rpcs = {m.name for m in pb.DESCRIPTOR.services_by_name["Sprat"].methods}
    assert set(servicer.UNARY) | set(servicer.STREAM) == rpcs
    snake = {re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower() for name in rpcs}
    # Classify is both: by a task, or by labels of the request's own.
    assert snake == {*VERBS} - {"choose"}
    assert rpcs <= set(vars(sprat_pb2_grpc.SpratServicer))


# -- the proto -------------------------------------------------------------------------------

SOURCE = Path(pb.__file__).with_name("sprat.proto").read_text()
DECLARATION = re.compile(
    r"^ +(?:optional |repeated )?(?:[\w.]+|map<.*>) (\w+) = \d+;(.*)$|^ +([A-Z_]+) = \d+;(.*)$"
)


def declarations() -> list[tuple[str, str, str]]:
    """(scope, name, comment: beside it and on lines below, or above) of fields and enum values."""
    found, scope, above = [], "", ""
    for line in SOURCE.splitlines():
        if opened := re.match(r"(?:message|enum|service) (\w+) \{", line):
            scope = opened[1]
        elif matched := DECLARATION.match(line):
            name = matched[1] or matched[3]
            found.append((scope, name, (matched[2] or matched[4] or "").strip() or above))
        elif found and re.match(r" {20,}// ", line):
            found[-1] = (*found[-1][:2], f"{found[-1][2]} {line.strip(' /')}")
        above = line.strip() if line.strip().startswith("//") else ""
    return found


def test_surface_proto_parser_sees_every_field() -> None:
    fields = {
        (message.name, f.name)
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        for f in message.fields
    }
    members = {
        (enum.name, v.name)
        for enum in pb.DESCRIPTOR.enum_types_by_name.values()
        for v in enum.values
    }
    assert {(scope, name) for scope, name, _ in declarations()} == fields | members


SELF_EXPLAINING = {
    ("Role", "ROLE_SYSTEM"),
    ("Role", "ROLE_USER"),
    ("Role", "ROLE_ASSISTANT"),
}


@pytest.mark.parametrize(
    ("scope", "name", "comment"),
    [d for d in declarations() if d[:2] not in SELF_EXPLAINING],
    ids=lambda value: value if re.fullmatch(r"\w+", value) else "",
)
def test_surface_proto_every_field_has_a_comment(scope: str, name: str, comment: str) -> None:
    assert re.match(r"// [A-Z0-9`\"].*", comment), f"{scope}.{name} has no comment"


def test_surface_proto_optional_fields_say_what_absence_means() -> None:
    for scope, name, comment in declarations():
        message = pb.DESCRIPTOR.message_types_by_name.get(scope)
        if message and message.fields_by_name[name].has_presence:
            field = message.fields_by_name[name]
            if field.message_type is None and field.containing_oneof is not None:
                is_optional = field.containing_oneof.name == f"_{name}"
                assert not is_optional or "Absent:" in comment, f"{scope}.{name}"


def test_surface_proto_every_rpc_has_a_comment() -> None:
    lines = SOURCE.splitlines()
    for number, line in enumerate(lines):
        if line.strip().startswith("rpc "):
            assert lines[number - 1].strip().startswith("// "), line


def test_surface_proto_enums_start_at_unspecified() -> None:
    for enum in pb.DESCRIPTOR.enum_types_by_name.values():
        prefix = re.sub(r"(?<!^)([A-Z])", r"_\1", enum.name).upper()
        assert enum.values[0].number == 0
        assert enum.values[0].name == f"{prefix}_UNSPECIFIED"
        assert all(value.name.startswith(f"{prefix}_") for value in enum.values)


def test_surface_proto_answers_carry_timings_and_the_model() -> None:
    for method in pb.DESCRIPTOR.services_by_name["Sprat"].methods:
        if method.name.startswith("List") or method.name == "Feedback":
            continue
        fields = method.output_type.fields_by_name
        assert fields["timings"].message_type is pb.Timings.DESCRIPTOR
        assert fields["model"].message_type is pb.ModelVersion.DESCRIPTOR


def test_surface_proto_has_no_repeated_floats() -> None:
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            is_float = field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE)
            assert not (is_float and field.is_repeated), f"{message.name}.{field.name}"
