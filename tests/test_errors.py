"""The error tree: facts, messages, and what must not be in them."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import sprat
from sprat import errors
from sprat.errors import SpratError

SAMPLES: list[SpratError] = [
    SpratError("broken"),
    errors.InvalidInput("top_k: expected 1 or more, got 0", field="top_k"),
    errors.InputTooLong(field="texts[3]", tokens=300, limit=256, hint="allow truncation"),
    errors.NotFound("task", "tickets", ("routes",)),
    errors.TaskNotSupported("embed needs an encoder", metadata={"model": "m"}),
    errors.Retryable("later", retry_after_s=2.5),
    errors.NotReady("models are loading", retry_after_s=0.5),
    errors.QueueFull("no room", retry_after_s=0.125, metadata={"waiting": "9"}),
    errors.DeadlineExceeded("too late"),
    errors.Cancelled("the caller gave up"),
    errors.CorruptFile("/m/model.bin", "cut"),
    errors.StaleBundle("/b/bundle.json", "made with another model"),
    errors.StaleAdapter("/a", "made for another model"),
    errors.Unauthenticated("unknown token"),
    errors.PermissionDenied("not yours"),
    errors.SetupError("something is missing"),
    errors.ConfigError("server.listen", "expected unix:PATH"),
    errors.DataError("rows.jsonl", 7, "no label"),
    errors.DownloadError("no source"),
    errors.EndpointError("https://models.example.org: status 401"),
    errors.StoreError("no space"),
    errors.UnsupportedModel("bart"),
    errors.EngineError("cannot load"),
]


def tree(kind: type[SpratError] = SpratError) -> list[type[SpratError]]:
    return [kind, *(c for child in kind.__subclasses__() for c in tree(child))]


def import_all() -> None:
    for module in pkgutil.walk_packages(sprat.__path__, "sprat."):
        if module.name.split(".")[1] not in ("kernels", "proto", "__main__", "cli", "quantize"):
            importlib.import_module(module.name)


def test_errors_samples_cover_every_class() -> None:
    assert {type(e) for e in SAMPLES} == set(tree())


def test_errors_all_stand_in_one_module() -> None:
    import_all()
    assert {kind.__module__ for kind in tree()} == {"sprat.errors"}


def test_errors_reasons_are_unique_and_upper_snake() -> None:
    reasons = [kind.reason for kind in tree()]
    assert len(set(reasons)) == len(reasons)
    for reason in reasons:
        assert reason.replace("_", "").isalpha()
        assert reason == reason.upper()


def test_errors_tree_in_the_docstring_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    parents = [""]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.fullmatch(r" {4}([│├└─ ]*)(\w+) +[A-Z_]+(  .*)?", line):
            depth = len(found[1]) // 4
            del parents[depth + 1 :]
            drawn[found[2]] = parents[depth]
            parents.append(found[2])
    real = {kind.__name__: kind.__mro__[1].__name__ for kind in tree()}
    assert drawn == {**real, "SpratError": ""}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
def test_errors_facts_are_strings_and_the_message_is_the_text(error: SpratError) -> None:
    assert str(error) == error.message
    assert error.message
    for key, value in error.metadata.items():
        assert isinstance(key, str)
        assert isinstance(value, str)


def test_errors_properties_read_the_facts() -> None:
    too_long = errors.InputTooLong(field="texts[3]", tokens=300, limit=256)
    assert (too_long.field, too_long.tokens, too_long.limit) == ("texts[3]", 300, 256)
    assert too_long.message == "texts[3]: 300 tokens, at most 256 are accepted"
    missing = errors.NotFound("task", "tickets")
    assert (missing.kind, missing.name) == ("task", "tickets")
    assert errors.QueueFull("full", retry_after_s=0.0625).retry_after_s == 0.062
    assert errors.CorruptFile("f", "cut").path == "f"
    row = errors.DataError("rows.csv", 3, "no label")
    assert (row.path, row.line, row.message) == ("rows.csv", 3, "rows.csv:3: no label")
    assert errors.DataError("rows.csv", 0, "empty").message == "rows.csv: empty"
    assert errors.ConfigError("server.listen", "bad").path == "server.listen"


def test_errors_not_found_offers_what_is_known_sorted() -> None:
    assert errors.NotFound("task", "x", ("b", "a")).message == "no task named 'x'; known: a, b"
    assert errors.NotFound("task", "x").message == "no task named 'x'"


def test_errors_not_found_stays_small_however_long_the_name_and_the_offer() -> None:
    """Messages travel in HTTP/2 trailers of some 8 KiB, three times over."""
    known = tuple(f"task-{i:03d}-{'x' * 50}" for i in range(500))
    error = errors.NotFound("task", "ü" * 100_000, known)
    assert len(error.message.encode()) < 1024
    assert len(error.name) == 128
    assert error.message.endswith(" and 490 more")


def test_errors_metadata_is_copied() -> None:
    facts = {"a": "1"}
    error = errors.TaskNotSupported("no", metadata=facts)
    facts["a"] = "2"
    assert error.metadata == {"a": "1"}


def test_errors_describe_names_class_and_places_but_never_the_message() -> None:
    def inner() -> None:
        raise KeyError("secret input text")

    def outer() -> None:
        inner()

    with pytest.raises(KeyError) as caught:
        outer()
    text = errors.describe(caught.value)
    assert text.startswith("KeyError at test_errors.py:")
    assert "(inner) < test_errors.py:" in text
    assert "secret" not in text
    assert "/" not in text


def test_errors_describe_bounds_deep_recursion() -> None:
    def fall(depth: int) -> None:
        if depth == 0:
            raise ValueError
        fall(depth - 1)

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        fall(100)
    assert errors.describe(caught.value).count("<") == 7


def test_errors_describe_without_traceback() -> None:
    assert errors.describe(ValueError("secret")).startswith("ValueError")
