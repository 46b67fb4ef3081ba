"""Loading bundles with a language tier: model and adapter are those that the tier was made with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lora
import pytest
from doubles import LABELS, bundle, no_leaked_threads
from languages import with_language
from tiny_models import CHAT_TEMPLATE, encoder_files, gguf_file, write_files

from sprat import adapter
from sprat.bundle import Bundle
from sprat.bundle_manifest import Route
from sprat.config import Config
from sprat.errors import ConfigError, NotFound, SpratError, StaleBundle, TaskNotSupported
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store
from sprat.task_config import TaskConfig

ENCODER, GENERATOR, ADAPTER, TIERED = "tiny-encoder", "tiny", "polite", "tiered"
TEXTS = ("a", "b c", "third z")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, a language model in two versions, and two adapters for the first."""
    folder = tmp_path_factory.mktemp("published")
    content = gguf_file(folder, context_length=1024, chat_template=CHAT_TEMPLATE)
    (folder / "tiny.gguf").write_bytes(content)
    (folder / "newer.gguf").write_bytes(content[:-4] + b"\0\0\0\0")
    write_files(folder / ENCODER, encoder_files())
    for name, seed in ((ADAPTER, 7), ("other", 8)):
        made = lora.pairs(folder / "tiny.gguf", seed=seed, size=0.5)
        lora.write_adapter(folder / f"{name}.gguf", made)
    return folder


@pytest.fixture
def store(published: Path, tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    pull(str(published / ENCODER), store)
    pull(str(published / "tiny.gguf"), store)
    adapter.add(published / f"{ADAPTER}.gguf", store, base=GENERATOR)
    return store


def add(
    store: Store,
    *,
    first: float = 1.0,
    kind: str = "classify",
    model: str = GENERATOR,
    **changes: Any,
) -> None:
    """A bundle of a head and a language tier under the adapter."""
    ref = store.adapter(ADAPTER)[0]
    asks = {"adapter": {"name": ref.name, "digest": ref.digest}, **changes.pop("asks", {})}
    head = bundle(store.model(ENCODER)[0], accept_at=first)
    made = with_language(head, store.model(model)[0], asks=asks, **changes).named(TIERED)
    if kind == "route":
        route = Route(targets={label: f"q/{label}" for label in LABELS}, default_target="people")
        update = {"kind": kind, "route": route}
        made = Bundle(made.manifest.model_copy(update=update), made.heads)
    store.add_bundle(TIERED, lambda path: made.save(path, report="{}"))


@pytest.fixture
def runtime(store: Store) -> Iterator[Runtime]:
    add(store)
    with no_leaked_threads(), Runtime(tasks=[TIERED], store=store) as runtime:
        yield runtime


def refused(store: Store, error: type[SpratError]) -> SpratError:
    with no_leaked_threads(), pytest.raises(error) as caught:
        Runtime(tasks=[TIERED], store=store)
    return caught.value


def test_registry_language_tier_answers_under_its_adapter(store: Store, runtime: Runtime) -> None:
    result = runtime.classify(TIERED, TEXTS)
    (info,) = runtime.list_tasks()
    assert [name for name, _ in info.models] == [ENCODER, GENERATOR]
    assert [(tier.name, tier.asked) for tier in info.tiers] == [("head", 3), ("language", 3)]
    assert (result.model, result.task_version) == (GENERATOR, store.bundle(TIERED)[0].version)
    under = Bundle.open(store, TIERED).manifest.tiers[1].language
    assert under is not None
    spec = under.spec(GENERATOR)
    for item, plain in zip(result.items, runtime.choose(spec, TEXTS).items, strict=True):
        assert item is not None
        assert plain is not None
        assert (item.tier, item.scores[0].label) == (1, plain.label)
        assert item.cpu_ms is not None
        assert item.tiers[1].cpu_ms is not None
        assert item.cpu_ms > item.tiers[1].cpu_ms > 0


def test_registry_language_tier_alone(store: Store) -> None:
    add(store, first=0.0)
    with no_leaked_threads(), Runtime(tasks=[TIERED], store=store) as runtime:
        result = runtime.classify(TIERED, TEXTS)
        assert [each.name for each in runtime.list_models()] == [GENERATOR]
    assert result.task_version == store.bundle(TIERED)[0].version
    assert all(item and item.label for item in result.items)


def test_registry_language_tier_of_a_router(store: Store) -> None:
    add(store, kind="route", accept_at=0.999)
    with no_leaked_threads(), Runtime(tasks=[TIERED], store=store) as runtime:
        routed = runtime.route(TIERED, TEXTS)
        freely = runtime.route(TIERED, TEXTS, accept_at=0.0)
    for item in routed.items:
        assert item is not None
        assert (item.target, item.classification.tier) == ("people", 1)
    for item in freely.items:
        assert item is not None
        assert item.target == f"q/{item.classification.label}"


def test_registry_language_tier_takes_thresholds_of_the_configuration(store: Store) -> None:
    add(store)
    tiers = {"head": {"accept_at": 0.0}, "language": {"accept_at": 0.9}}
    task = TaskConfig.model_validate({"bundle": TIERED, "tiers": tiers})
    config = Config(tasks={"t": task})
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        (info,) = runtime.list_tasks()
    assert (info.tiers, info.accept_at, info.models[0][0]) == ((), 0.9, GENERATOR)


def test_registry_refuses_a_stale_adapter(store: Store, published: Path) -> None:
    add(store)
    version = store.adapter(ADAPTER)[0].version
    adapter.add(published / "other.gguf", store, base=GENERATOR, name=ADAPTER, replace=True)
    other = store.adapter(ADAPTER)[0].version
    error = refused(store, StaleBundle)
    assert f"tier language was made with {ADAPTER} version {version}" in error.message
    assert f"here is version {other}; add the tier again" in error.message


def test_registry_refuses_another_version_of_the_language_model(
    store: Store, published: Path
) -> None:
    add(store)
    pull(str(published / "newer.gguf"), store, name=GENERATOR, replace=True)
    assert f"tier language was made with {GENERATOR} version" in refused(store, StaleBundle).message


def test_registry_refuses_a_language_tier_whose_adapter_is_gone(store: Store) -> None:
    add(store)
    store.remove_adapter(ADAPTER)
    assert f"adapter named '{ADAPTER}'" in refused(store, NotFound).message


def test_registry_refuses_a_language_tier_that_cannot_be_asked(store: Store) -> None:
    add(store, asks={"normalize_length": True})
    error = refused(store, ConfigError)
    assert isinstance(error, ConfigError)
    assert error.path == f"tasks.{TIERED}.tiers.language"
    assert "expected full scoring" in error.message


def test_registry_refuses_a_language_tier_on_an_encoder(store: Store) -> None:
    add(store, model=ENCODER, asks={"adapter": None})
    message = refused(store, TaskNotSupported).message
    assert message == f"tier language needs a generative model; model {ENCODER} is an encoder"
