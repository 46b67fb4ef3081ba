"""The first request finds what prompts begin with, on the real language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fields
import pytest
import rewritings
from doubles import LABELS, bundle, no_leaked_threads
from languages import with_language
from pydantic import TypeAdapter
from servers import GENERATOR

from sprat.config import Config
from sprat.errors import EngineError
from sprat.inprocess import Runtime
from sprat.store import Store
from sprat.task_config import ModelTaskConfig, TaskConfig

TEXT = "The grass is green."
LONG = "Say in one word what colour the thing has that the user tells you of, if it has one. "


def named(kind: str, **given: Any) -> ModelTaskConfig:
    section = {"kind": kind, "model": GENERATOR, **given}
    made: ModelTaskConfig = TypeAdapter(ModelTaskConfig).validate_python(section)
    return made


def colours(*labels: str) -> ModelTaskConfig:
    return named("classify", labels=["red", *labels])


@pytest.fixture
def tiered(store: Store, minilm: Path, smollm: Path, tmp_path: Path) -> TaskConfig:
    """A head that is sure of nothing, and SmolLM2 behind it."""
    made = with_language(bundle(store.model(minilm.name)[0]), store.model(GENERATOR)[0])
    made.save(tmp_path, report="{}")
    return TaskConfig.model_validate({"bundle": str(tmp_path), "tiers": {"head": {"accept_at": 1}}})


def test_warm_up_of_a_language_tier_behind_a_head(store: Store, tiered: TaskConfig) -> None:
    with no_leaked_threads(), Runtime(config=Config(tasks={"t": tiered}), store=store) as runtime:
        (before,) = (m.prefix_use for m in runtime.list_models() if m.name == GENERATOR)
        (item,) = runtime.classify("t", [TEXT]).items
        (info,) = runtime.list_tasks()
    assert item is not None
    assert (item.tier, item.label in LABELS) == (1, True)
    assert item.input_tokens // 2 < item.cached_tokens < item.input_tokens
    assert before is not None
    assert (before.requests, before.hits) == (1, 0)
    # Nobody's request: it is in no figure of the task.
    assert [tier.asked for tier in info.tiers] == [1, 1]


def test_warm_up_reads_what_a_model_keeps_in_the_order_of_the_configuration(
    store: Store, smollm: Path
) -> None:
    choosing = {
        "z-first": colours("green"),
        "route": named("route", destinations=["money", "other"]),
        "decide": named("decide", questions=[{"name": "n", "text": "Is it?", "kind": "yes_no"}]),
        "a-last": colours("blue"),
    }
    writing = {
        "orders": named(
            "extract", schema={"type": "object", "properties": {"a": {"type": "null"}}}
        ),
        "digits": named("transform", prompt=LONG + "{tone} {text}", grammar={"regex": "[0-9]{3}"}),
        "third": named("transform", prompt=f"{LONG}Be brief. {{text}}", sampling={"max_tokens": 1}),
    }
    config = Config(tasks={**choosing, **writing})
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        first = runtime.classify("z-first", [TEXT]).items[0]
        route = runtime.route("route", [TEXT]).items[0]
        decide = runtime.decide("decide", [TEXT]).items[0]
        last = runtime.classify("a-last", [TEXT]).items[0]
        orders = runtime.extract("orders", [TEXT]).items[0]
        *_, digits = runtime.transform("digits", TEXT, inputs={"tone": "well"})
        *_, third = runtime.transform("third", TEXT)
    assert first is not None
    assert route is not None
    assert last is not None
    for warm in (first, route.classification, decide, orders, digits):
        assert warm is not None
        assert warm.cached_tokens > 16
    assert last.cached_tokens == 0
    assert third.cached_tokens == 0


def test_warm_up_asks_nothing_without_a_task(store: Store, smollm: Path) -> None:
    with no_leaked_threads(), Runtime(models=[GENERATOR], store=store) as runtime:
        (model,) = runtime.list_models()
    assert model.prefix_use is not None
    assert model.prefix_use.requests == 0


def test_warm_up_that_fails_ends_the_start(
    store: Store, smollm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*given: Any, **more: Any) -> None:
        raise EngineError("no memory for choices")

    monkeypatch.setattr("sprat.engine.llama.Chooser", no_memory)
    config = Config(tasks={"t": colours("green")})
    with no_leaked_threads(), pytest.raises(EngineError, match="no memory for choices"):
        Runtime(config=config, store=store)


def test_warm_up_of_a_tier_that_rewrites(store: Store, smollm: Path, tmp_path: Path) -> None:
    base, _ = store.model(GENERATOR)
    asks = {"prompt": f"{LONG}{{text}}", "sampling": {"max_tokens": 4}}
    rewritings.bundle(rewritings.language_tier(base, asks=asks)).save(tmp_path, report="{}")
    config = Config(tasks={"t": TaskConfig(bundle=str(tmp_path))})
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        *_, last = runtime.transform("t", TEXT)
    assert last.cached_tokens > 16


def test_warm_up_of_a_tier_that_writes_fields(
    store: Store, minilm: Path, smollm: Path, tmp_path: Path
) -> None:
    head = fields.extract_bundle(store.model(minilm.name)[0])
    made = fields.with_language_fields(head, store.model(GENERATOR)[0], max_tokens=16)
    made.save(tmp_path, report="{}")
    config = Config(tasks={"t": TaskConfig(bundle=str(tmp_path))})
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        (item,) = runtime.extract("t", [TEXT]).items
    assert item is not None
    assert item.tier == 1
    assert item.cached_tokens > 16
