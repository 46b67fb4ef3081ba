"""Loading: what a configuration names, verified, all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import bundle, moderator, no_leaked_threads
from tiny_models import encoder_files, write_files

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import Route
from sprat.config import Config, ModelConfig
from sprat.errors import (
    ConfigError,
    CorruptFile,
    InvalidInput,
    NotFound,
    SpratError,
    StaleBundle,
)
from sprat.head import Head
from sprat.pull import pull
from sprat.registry import Registry
from sprat.scheduler import ComputePool
from sprat.store import Store
from sprat.task_config import ClassifyTaskConfig, TaskConfig, ThresholdsConfig
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.route import RouteTask
from sprat.values import CategoryThresholds, Label, TaskInfo

ENCODER, TASK = "tiny-encoder", "letters"


def build_store(folder: Path, *, calibrated: bool = True) -> Store:
    store = Store(folder / "home")
    pull(str(write_files(folder / ENCODER, encoder_files())), store)
    base, _ = store.model(ENCODER)
    made = bundle(base, calibrated=calibrated)
    store.add_bundle(TASK, lambda path: made.save(path, report="{}"))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return build_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def permits() -> ComputePermits:
    return ComputePermits(2)


@pytest.fixture
def pool(permits: ComputePermits) -> Iterator[ComputePool]:
    with no_leaked_threads():
        made = ComputePool(permits)
        yield made
        made.close()


def load(config: Config, store: Store, permits: ComputePermits, pool: ComputePool) -> Registry:
    return Registry.load(config, store, permits=permits, pool=pool)


def tasks(**accept_at: float | None) -> dict[str, TaskConfig]:
    return {name: TaskConfig(bundle=TASK, accept_at=value) for name, value in accept_at.items()}


def test_registry_task_brings_the_model_of_its_bundle(
    store: Store, permits: ComputePermits, pool: ComputePool
) -> None:
    registry = load(Config(tasks=tasks(letters=None)), store, permits, pool)
    assert list(registry.models) == [ENCODER]
    assert registry.task(TASK).info.models[0][0] == ENCODER
    assert registry.model(ENCODER).info.dimension == 32
    registry.close()


def test_registry_tasks_share_one_model(
    store: Store, permits: ComputePermits, pool: ComputePool
) -> None:
    config = Config(models={ENCODER: ModelConfig()}, tasks=tasks(strict=0.9, loose=0.1))
    registry = load(config, store, permits, pool)
    assert list(registry.models) == [ENCODER]
    assert list(registry.tasks) == ["loose", "strict"]
    assert registry.task("strict").info.accept_at == 0.9
    assert registry.task("loose").info.accept_at == 0.1
    versions = {task.info.version for task in registry.tasks.values()}
    assert len(versions | {store.bundle(TASK)[0].version}) == 3
    registry.close()


def test_registry_bundle_by_path(store: Store, permits: ComputePermits, pool: ComputePool) -> None:
    _, folder = store.bundle(TASK)
    config = Config(tasks={"by-path": TaskConfig(bundle=str(folder))})
    registry = load(config, store, permits, pool)
    assert registry.task("by-path").info.version
    registry.close()


def test_registry_route_bundle_is_a_route_task(
    store: Store, permits: ComputePermits, pool: ComputePool, tmp_path: Path
) -> None:
    made = bundle(store.model(ENCODER)[0])
    route = Route(targets=dict.fromkeys(made.manifest.labels, "ops"))
    manifest = made.manifest.model_copy(update={"kind": "route", "route": route})
    Bundle(manifest, made.heads).save(tmp_path, report="{}")
    config = Config(tasks={"routes": TaskConfig(bundle=str(tmp_path), accept_at=0.5)})
    registry = load(config, store, permits, pool)
    task = registry.task("routes")
    assert isinstance(task, RouteTask)
    assert (task.info.kind, task.info.accept_at, task.info.calibrated) == ("route", 0.5, True)
    assert task.info.version != bundle(store.model(ENCODER)[0]).manifest.version
    registry.close()


def test_registry_unknown_names_offer_the_known(
    store: Store, permits: ComputePermits, pool: ComputePool
) -> None:
    registry = load(Config(tasks=tasks(letters=None)), store, permits, pool)
    with pytest.raises(NotFound, match=f"known: {ENCODER}"):
        registry.model("nothing")
    with pytest.raises(NotFound, match=f"known: {TASK}"):
        registry.task("nothing")
    registry.close()


def test_registry_of_nothing(store: Store, permits: ComputePermits, pool: ComputePool) -> None:
    registry = load(Config(), store, permits, pool)
    assert registry.models == {}
    assert registry.tasks == {}
    registry.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("nothing", NotFound), ("../tiny-encoder", InvalidInput), ("", InvalidInput)],
)
def test_registry_missing_model_releases_the_others(
    store: Store,
    permits: ComputePermits,
    pool: ComputePool,
    name: str,
    kind: type[SpratError],
) -> None:
    config = Config(models={ENCODER: ModelConfig(), name: ModelConfig()})
    with no_leaked_threads(), pytest.raises(kind):
        load(config, store, permits, pool)


def test_registry_missing_bundle_releases_the_models(
    store: Store, permits: ComputePermits, pool: ComputePool
) -> None:
    config = Config(models={ENCODER: ModelConfig()}, tasks={"t": TaskConfig(bundle="nothing")})
    with no_leaked_threads(), pytest.raises(NotFound):
        load(config, store, permits, pool)


def test_registry_stale_bundle(tmp_path: Path, permits: ComputePermits, pool: ComputePool) -> None:
    store = build_store(tmp_path)
    files = encoder_files(rows=16)
    pull(str(write_files(tmp_path / "newer" / ENCODER, files)), store, replace=True)
    with no_leaked_threads(), pytest.raises(StaleBundle, match="train the bundle again"):
        load(Config(tasks=tasks(letters=None)), store, permits, pool)


def test_registry_corrupt_head(tmp_path: Path, permits: ComputePermits, pool: ComputePool) -> None:
    store = build_store(tmp_path)
    _, folder = store.bundle(TASK)
    head = folder / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-4] + b"\0\0\0\1")
    with no_leaked_threads(), pytest.raises(CorruptFile, match=r"head\.safetensors"):
        load(Config(tasks=tasks(letters=None)), store, permits, pool)


def test_registry_threshold_without_calibration(
    tmp_path: Path, permits: ComputePermits, pool: ComputePool
) -> None:
    store = build_store(tmp_path, calibrated=False)
    load(Config(tasks=tasks(letters=None)), store, permits, pool).close()
    with no_leaked_threads(), pytest.raises(ConfigError, match=r"tasks\.letters\.accept_at"):
        load(Config(tasks=tasks(letters=0.5)), store, permits, pool)


def test_registry_moderate_task_has_thresholds_of_its_own(
    tmp_path: Path, permits: ComputePermits, pool: ComputePool
) -> None:
    store = build_store(tmp_path)
    base, _ = store.model(ENCODER)
    made = moderator(base, thresholds=[{"flag_at": 0.5}] * 2)
    store.add_bundle("moderator", lambda path: made.save(path, report="{}"))
    task = TaskConfig(bundle="moderator")
    strict = task.model_copy(update={"accept_at": 0.5})
    registry = load(Config(tasks={"m": task, "strict": strict}), store, permits, pool)
    assert registry.task("m").info.kind == "moderate"
    assert [registry.task(name).info.accept_at for name in ("m", "strict")] == [0.0, 0.5]
    assert registry.task("m").info.version != registry.task("strict").info.version
    registry.close()
    both = strict.model_copy(update={"thresholds": {"zed": ThresholdsConfig(flag_at=0.7)}})
    with (
        no_leaked_threads(),
        pytest.raises(ConfigError, match=r"tasks\.m\.thresholds: expected none beside accept_at"),
    ):
        load(Config(tasks={"m": both}), store, permits, pool)


def test_registry_thresholds_of_the_configuration_count(
    tmp_path: Path, permits: ComputePermits, pool: ComputePool
) -> None:
    store = build_store(tmp_path)
    base, _ = store.model(ENCODER)
    made = moderator(base, thresholds=[{"flag_at": 0.5, "block_at": 0.9}, {"flag_at": 0.6}])
    store.add_bundle("moderator", lambda path: made.save(path, report="{}"))

    def infos(**thresholds: ThresholdsConfig) -> dict[str, TaskInfo]:
        plain = TaskConfig(bundle="moderator")
        changed = TaskConfig(bundle="moderator", thresholds=thresholds)
        registry = load(Config(tasks={"plain": plain, "m": changed}), store, permits, pool)
        registry.close()
        return {name: task.info for name, task in registry.tasks.items()}

    info = infos(zed=ThresholdsConfig(flag_at=0.7), quirk=ThresholdsConfig(block_at=0.8))
    assert info["plain"].thresholds == (
        CategoryThresholds("zed", 0.5, 0.9),
        CategoryThresholds("quirk", 0.6, None),
    )
    assert info["m"].thresholds == (
        CategoryThresholds("zed", 0.7, 0.9),
        CategoryThresholds("quirk", 0.6, 0.8),
    )
    assert info["plain"].version == store.bundle("moderator")[0].version != info["m"].version
    other = infos(zed=ThresholdsConfig(flag_at=0.7))
    assert other["m"].version not in (info["m"].version, info["plain"].version)
    # What changes nothing is the same task.
    same = infos(zed=ThresholdsConfig(flag_at=0.5), quirk=ThresholdsConfig())
    assert same["m"].version == same["plain"].version


@pytest.mark.parametrize(
    ("bundle", "thresholds", "said"),
    [
        ("moderator", {"zedd": {"flag_at": 0.5}}, r"thresholds\.zedd: .* has no such .* 'zed', "),
        ("moderator", {"zed": {"flag_at": 0.95}}, r"thresholds\.zed: block_at 0.9 is below"),
        ("moderator", {"zed": {"block_at": 0.1}}, r"thresholds\.zed: block_at 0.1 is below"),
        (
            TASK,
            {"a": {"flag_at": 0.5}},
            "thresholds: expected none: a bundle of kind classify has no categories",
        ),
    ],
)
def test_registry_refuses_thresholds_that_cannot_be(
    tmp_path: Path,
    permits: ComputePermits,
    pool: ComputePool,
    bundle: str,
    thresholds: dict[str, dict[str, float]],
    said: str,
) -> None:
    store = build_store(tmp_path)
    base, _ = store.model(ENCODER)
    made = moderator(base, thresholds=[{"flag_at": 0.5, "block_at": 0.9}] * 2)
    store.add_bundle("moderator", lambda path: made.save(path, report="{}"))
    task = TaskConfig.model_validate({"bundle": bundle, "thresholds": thresholds})
    with no_leaked_threads(), pytest.raises(ConfigError, match=r"^tasks\.m\." + said):
        load(Config(tasks={"m": task}), store, permits, pool)


def test_registry_moderator_of_another_width_is_corrupt(
    tmp_path: Path, permits: ComputePermits, pool: ComputePool
) -> None:
    store = build_store(tmp_path)
    base, _ = store.model(ENCODER)
    made = moderator(base, thresholds=[{"flag_at": 0.5}] * 2)
    (head,) = made.heads
    cut = Bundle(made.manifest, (Head(np.ascontiguousarray(head.weight[:, 1:]), head.bias),))
    store.add_bundle("moderator", lambda path: cut.save(path, report="{}"))
    with pytest.raises(CorruptFile, match=r"columns, but vectors .* and there are 4096 n-grams"):
        load(Config(tasks={"m": TaskConfig(bundle="moderator")}), store, permits, pool)


def test_registry_named_task_needs_a_generative_model(
    store: Store, permits: ComputePermits, pool: ComputePool
) -> None:
    task = ClassifyTaskConfig(model=ENCODER, labels=(Label("a"), Label("b")))
    with no_leaked_threads(), pytest.raises(ConfigError, match=r"tasks\.t\.model: expected a gen"):
        load(Config(tasks={"t": task}), store, permits, pool)


def test_registry_named_task_brings_its_adapter(
    store: Store, permits: ComputePermits, pool: ComputePool
) -> None:
    task = ClassifyTaskConfig(model=ENCODER, labels=(Label("a"), Label("b")), adapter="nothing")
    with no_leaked_threads(), pytest.raises(NotFound, match="adapter named 'nothing'"):
        load(Config(tasks={"t": task}), store, permits, pool)


def test_registry_bundle_survives_the_store(store: Store) -> None:
    base, _ = store.model(ENCODER)
    _, folder = store.bundle(TASK)
    read = Bundle.load(folder, bases={base.name: base})
    np.testing.assert_array_equal(read.heads[0].weight, bundle(base).heads[0].weight)


# -- cascades --------------------------------------------------------------------------------

SMALLER = "tiny-smaller"


def add_tiers(
    store: Store, folder: Path, *, accept_at: tuple[float, float], calibrated: bool = True
) -> None:
    """A bundle of two tiers, each on a model of its own."""
    pull(str(write_files(folder / SMALLER, encoder_files(rows=16))), store)
    small, large = (
        bundle(store.model(name)[0], accept_at=least)
        for name, least in zip((SMALLER, ENCODER), accept_at, strict=True)
    )
    (first,), (last,) = small.manifest.tiers, large.manifest.tiers
    changes = {"name": "static", "weights": "static.safetensors"}
    if not calibrated:
        changes["calibration"] = None  # type: ignore[assignment]
    manifest = large.manifest.model_copy(
        update={"name": "tiers", "tiers": (first.model_copy(update=changes), last)}
    )
    made = Bundle(manifest, small.heads + large.heads)
    store.add_bundle("tiers", lambda path: made.save(path, report="{}"))


def tiered(**settings: Any) -> Config:
    return Config(tasks={"t": TaskConfig.model_validate({"bundle": "tiers", **settings})})


def test_registry_without_thresholds_the_last_tier_answers_alone(
    tmp_path: Path, permits: ComputePermits, pool: ComputePool
) -> None:
    store = build_store(tmp_path)
    add_tiers(store, tmp_path, accept_at=(0.0, 0.3))
    registry = load(tiered(), store, permits, pool)
    info = registry.task("t").info
    assert (info.models[0][0], info.accept_at, info.tiers) == (ENCODER, 0.3, ())
    assert info.version == store.bundle("tiers")[0].version
    assert list(registry.models) == [ENCODER]
    registry.close()


def test_registry_tiers_with_thresholds_are_a_cascade(
    tmp_path: Path, permits: ComputePermits, pool: ComputePool
) -> None:
    store = build_store(tmp_path)
    add_tiers(store, tmp_path, accept_at=(0.9, 0.3))
    registry = load(tiered(), store, permits, pool)
    task = registry.task("t")
    assert isinstance(task, ClassifyTask)
    assert [name for name, _ in task.info.models] == [SMALLER, ENCODER]
    assert [(tier.name, tier.accept_at) for tier in task.info.tiers] == [
        ("static", 0.9),
        ("head", 0.3),
    ]
    assert task.info.version == store.bundle("tiers")[0].version
    assert list(registry.models) == [ENCODER, SMALLER]
    registry.close()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tiers": {"static": {"accept_at": 0.7}}}, [0.7, 0.3]),
        ({"tiers": {"static": {"accept_at": 0.7}, "head": {"accept_at": 0.2}}}, [0.7, 0.2]),
        ({"tiers": {"static": {"accept_at": 0.7}}, "accept_at": 0.1}, [0.7, 0.1]),
        ({"accept_at": 0.1}, [0.9, 0.1]),
        ({"tiers": {"static": {"accept_at": 0.0}}}, []),
    ],
)
def test_registry_configuration_sets_thresholds_by_tier(
    tmp_path: Path,
    permits: ComputePermits,
    pool: ComputePool,
    settings: dict[str, Any],
    expected: list[float],
) -> None:
    store = build_store(tmp_path)
    add_tiers(store, tmp_path, accept_at=(0.9, 0.3))
    registry = load(tiered(**settings), store, permits, pool)
    info = registry.task("t").info
    assert [tier.accept_at for tier in info.tiers] == expected
    assert info.version != store.bundle("tiers")[0].version
    registry.close()


@pytest.mark.parametrize(
    ("settings", "path", "said"),
    [
        ({"tiers": {"large": {"accept_at": 0.5}}}, "t.tiers.large", "tiers: static, head"),
        (
            {"tiers": {"head": {"accept_at": 0.5}}, "accept_at": 0.5},
            "t.accept_at",
            r"tiers\.head\.accept_at; keep one",
        ),
    ],
)
def test_registry_thresholds_that_cannot_be(
    tmp_path: Path,
    permits: ComputePermits,
    pool: ComputePool,
    settings: dict[str, Any],
    path: str,
    said: str,
) -> None:
    store = build_store(tmp_path)
    add_tiers(store, tmp_path, accept_at=(0.9, 0.3))
    with no_leaked_threads(), pytest.raises(ConfigError, match=said) as caught:
        load(tiered(**settings), store, permits, pool)
    assert caught.value.path == f"tasks.{path}"


def test_registry_tier_without_calibration_cannot_pass_on(
    tmp_path: Path, permits: ComputePermits, pool: ComputePool
) -> None:
    store = build_store(tmp_path)
    add_tiers(store, tmp_path, accept_at=(0.9, 0.0), calibrated=False)
    with no_leaked_threads(), pytest.raises(ConfigError, match="is not calibrated") as caught:
        load(tiered(), store, permits, pool)
    assert caught.value.path == "tasks.t.tiers.static.accept_at"


def add_moderator(store: Store, folder: Path) -> None:
    """A moderator of two tiers, each on a model of its own."""
    pull(str(write_files(folder / SMALLER, encoder_files(rows=16))), store)
    small, large = (
        moderator(store.model(name)[0], thresholds=[{"flag_at": 0.5}] * 2)
        for name in (SMALLER, ENCODER)
    )
    (first,), (last,) = small.manifest.tiers, large.manifest.tiers
    first = first.model_copy(update={"name": "static", "weights": "static.safetensors"})
    manifest = large.manifest.model_copy(update={"name": "tiers", "tiers": (first, last)})
    made = Bundle(manifest, small.heads + large.heads)
    store.add_bundle("tiers", lambda path: made.save(path, report="{}"))


def test_registry_moderator_with_thresholds_is_a_cascade(
    tmp_path: Path, permits: ComputePermits, pool: ComputePool
) -> None:
    store = build_store(tmp_path)
    add_moderator(store, tmp_path)
    alone = load(tiered(), store, permits, pool)
    assert (alone.task("t").info.tiers, list(alone.models)) == ((), [ENCODER])
    alone.close()
    settings = {"tiers": {"static": {"accept_at": 0.9}}, "accept_at": 0.6, "on_failure": "error"}
    registry = load(tiered(**settings), store, permits, pool)
    info = registry.task("t").info
    assert [(tier.name, tier.accept_at) for tier in info.tiers] == [("static", 0.9), ("head", 0.6)]
    assert [name for name, _ in info.models] == [SMALLER, ENCODER]
    assert info.version != alone.task("t").info.version
    registry.close()
    limits = {"zed": {"flag_at": 0.7}}
    with no_leaked_threads(), pytest.raises(ConfigError, match="beside accept_at") as caught:
        load(tiered(**settings, thresholds=limits), store, permits, pool)
    assert caught.value.path == "tasks.t.thresholds"
    with no_leaked_threads(), pytest.raises(ConfigError, match="tiers: static, head"):
        load(tiered(tiers={"finetune": {"accept_at": 0.5}}), store, permits, pool)
