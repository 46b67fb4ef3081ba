"""Loading bundles that rewrite texts: their models, adapters, grammars and thresholds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lora
import pytest
import rewritings
from doubles import no_leaked_threads
from rewritings import language_tier, remote_tier
from servers import sprat
from tiny_models import CHAT_TEMPLATE, encoder_files, gguf_file, write_files

from sprat import adapter
from sprat.config import Config
from sprat.errors import (
    ConfigError,
    CorruptFile,
    NotFound,
    SpratError,
    StaleBundle,
    TaskNotSupported,
)
from sprat.inprocess import Runtime
from sprat.pull import pull
from sprat.store import Store
from sprat.task_config import TaskConfig
from sprat.values import Chunk, TransformSpec

ENCODER, GENERATOR, ADAPTER, BUNDLE = "tiny-encoder", "tiny", "polite", "kinder"
DIGITS = {"grammar": {"kind": "regex", "source": "[0-9]{3}"}}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, a language model, and two adapters for it."""
    folder = tmp_path_factory.mktemp("published")
    content = gguf_file(folder, context_length=1024, chat_template=CHAT_TEMPLATE)
    (folder / "tiny.gguf").write_bytes(content)
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


def add(store: Store, *, accept_at: float = 0.9, model: str = GENERATOR, **changes: Any) -> None:
    """A bundle of two tiers: the model as it is, and under the adapter."""
    base, ref = store.model(model)[0], store.adapter(ADAPTER)[0]
    asks = {"sampling": {"max_tokens": 8}, **changes.pop("asks", {})}
    under = {"adapter": {"name": ref.name, "digest": ref.digest}}
    made = rewritings.bundle(
        language_tier(base, "plain", accept_at=accept_at, asks=asks),
        language_tier(base, "tuned", asks={**asks, **under}),
        *changes.pop("more", ()),
        name=BUNDLE,
        **changes,
    )
    store.add_bundle(BUNDLE, lambda path: made.save(path, report="{}"))


def answer(runtime: Runtime, text: str = "abc", **options: Any) -> tuple[str, Chunk]:
    """All of an answer, and its last chunk."""
    chunks = list(runtime.transform(BUNDLE, text, **options))
    return "".join(chunk.text for chunk in chunks), chunks[-1]


@pytest.fixture
def runtime(store: Store) -> Iterator[Runtime]:
    add(store, transform=DIGITS)
    with no_leaked_threads(), Runtime(tasks=[BUNDLE], store=store) as runtime:
        yield runtime


def test_registry_transform_tiers_answer_under_their_grammar(
    store: Store, runtime: Runtime
) -> None:
    text, last = answer(runtime)
    (info,) = runtime.list_tasks()
    assert (info.kind, info.labels, info.calibrated) == ("transform", (), True)
    assert [name for name, _ in info.models] == [GENERATOR, GENERATOR]
    assert [(tier.name, tier.asked) for tier in info.tiers] == [("plain", 1), ("tuned", 1)]
    assert info.version == store.bundle(BUNDLE)[0].version == last.task_version
    assert text.isdigit()
    assert len(text) == 3
    assert (last.complete, last.tier, last.model) == (True, 1, GENERATOR)
    assert [said.tier for said in last.tiers] == [0, 1]
    assert all(said.confidence and said.cpu_ms for said in last.tiers)


def test_registry_transform_tiers_of_one_model_take_turns(runtime: Runtime) -> None:
    """One of them under an adapter, which shares no batch with the other."""

    async def ask_all() -> list[tuple[str, Chunk]]:
        calls = (asyncio.to_thread(answer, runtime, f"text {number}") for number in range(8))
        return list(await asyncio.wait_for(asyncio.gather(*calls), 60))

    for text, last in asyncio.run(ask_all()):
        assert len(text) == 3
        assert (last.tier, last.degraded) == (1, None)
    assert [tier.asked for tier in runtime.list_tasks()[0].tiers] == [8, 8]


def test_registry_transform_last_tier_answers_as_its_spec_would(runtime: Runtime) -> None:
    spec = runtime._service.registry.task(BUNDLE)._tiers[1].spec  # type: ignore[union-attr]
    assert isinstance(spec, TransformSpec)
    assert spec.adapter == ADAPTER
    plainly = "".join(chunk.text for chunk in runtime.transform(spec, "abc"))
    assert answer(runtime)[0] == plainly


def test_registry_transform_takes_thresholds_of_the_configuration(store: Store) -> None:
    add(store)
    task = {"bundle": BUNDLE, "accept_at": 0.999, "tiers": {"plain": {"accept_at": 0.0}}}
    config = Config(tasks={"t": TaskConfig.model_validate(task)})
    with no_leaked_threads(), Runtime(config=config, store=store) as runtime:
        (info,) = runtime.list_tasks()
        (only,) = runtime.transform("t", "abc")
    assert (info.tiers, info.accept_at) == ((), 0.999)
    assert (only.abstained, only.text, only.tiers) == (True, "", ())


def test_registry_transform_threshold_out_of_bundle_changes_the_version(store: Store) -> None:
    add(store)
    task = TaskConfig.model_validate({"bundle": BUNDLE, "tiers": {"plain": {"accept_at": 0.5}}})
    with no_leaked_threads(), Runtime(config=Config(tasks={"t": task}), store=store) as runtime:
        (info,) = runtime.list_tasks()
    assert info.version != store.bundle(BUNDLE)[0].version


def test_registry_transform_other_verbs_refuse_the_task(runtime: Runtime) -> None:
    for call in (runtime.classify, runtime.extract, runtime.moderate):
        with pytest.raises(TaskNotSupported, match="kind transform"):
            call(BUNDLE, ["abc"])  # type: ignore[operator]


def refused(store: Store, error: type[SpratError], config: Config | None = None) -> SpratError:
    with no_leaked_threads(), pytest.raises(error) as caught:
        if config is None:
            Runtime(tasks=[BUNDLE], store=store)
        else:
            Runtime(config=config, store=store)
    return caught.value


def test_registry_transform_refuses_a_stale_adapter(store: Store, published: Path) -> None:
    add(store)
    adapter.add(published / "other.gguf", store, base=GENERATOR, name=ADAPTER, replace=True)
    assert f"tier tuned was made with {ADAPTER} version" in refused(store, StaleBundle).message


def test_registry_transform_refuses_a_missing_adapter(store: Store) -> None:
    add(store)
    store.remove_adapter(ADAPTER)
    assert f"adapter named '{ADAPTER}'" in refused(store, NotFound).message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transform": {"grammar": {"kind": "regex", "source": "("}}}, "grammar"),
        ({"transform": {"grammar": {"kind": "json_schema", "source": "{"}}}, "grammar"),
        ({"asks": {"sampling": {"temperature": 99.0}}}, "sampling.temperature"),
        ({"asks": {"prompt": "{text}" + "abc " * 1000}}, "prompt"),
    ],
)
def test_registry_transform_refuses_a_tier_that_cannot_be_asked(
    store: Store, changes: dict[str, Any], message: str
) -> None:
    add(store, **changes)
    error = refused(store, ConfigError)
    assert isinstance(error, ConfigError)
    assert error.path == f"tasks.{BUNDLE}.tiers.plain"
    assert message in error.message


def test_registry_transform_refuses_a_prompt_without_a_place_for_the_text(store: Store) -> None:
    add(store, asks={"prompt": "no place"})
    assert (
        "tier plain: prompt: expected the placeholder {text}" in refused(store, CorruptFile).message
    )


def test_registry_transform_refuses_an_encoder(store: Store) -> None:
    base = store.model(ENCODER)[0]
    made = rewritings.bundle(language_tier(base), name=BUNDLE)
    store.add_bundle(BUNDLE, lambda path: made.save(path, report="{}"))
    message = refused(store, TaskNotSupported).message
    assert message == f"tier language needs a generative model; model {ENCODER} is an encoder"


def test_registry_transform_thresholds_of_categories_are_for_moderators(store: Store) -> None:
    add(store)
    task = TaskConfig.model_validate({"bundle": BUNDLE, "thresholds": {"a": {"flag_at": 0.5}}})
    error = refused(store, ConfigError, Config(tasks={"t": task}))
    assert "a bundle of kind transform has no categories" in error.message


def test_registry_transform_remote_tier_without_an_endpoint_is_left_out(store: Store) -> None:
    add(store, more=[remote_tier()])
    with no_leaked_threads(), Runtime(tasks=[BUNDLE], store=store) as runtime:
        (info,) = runtime.list_tasks()
        assert answer(runtime)[1].tier == 1
    assert info.unconfigured == ("remote",)


def test_registry_transform_by_command_with_inputs(store: Store) -> None:
    add(store, asks={"prompt": "{tone}: {text}"}, transform={"inputs": ["tone"], **DIGITS})
    done = sprat(store, "transform", BUNDLE, "abc", "--input", "tone=kind", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["tier"], len(answer["text"]), answer["task_version"]) == (
        *(1, 3),
        store.bundle(BUNDLE)[0].version,
    )
    done = sprat(store, "explain", BUNDLE, "abc", "--input", "tone=kind", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["answer"]["text"] == answer["text"]
    assert [tier["decision"] for tier in report["tiers"]] == ["passes on", "answers"]
    rows, out = store.root / "rows.jsonl", store.root / "out.jsonl"
    lines = [{"text": "abc", "tone": "kind", "id": 7}, {"text": "abc"}, {"tone": "kind"}]
    lines += [{"text": f"text {number}", "tone": "rude"} for number in range(9)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = sprat(store, "run", BUNDLE, str(rows), "-o", str(out), "--input", "tone")
    assert done.returncode == 0, done.stderr
    good, bare, bad, *others = map(json.loads, out.read_text().splitlines())
    assert (good["line"], good["id"], good["text"], good["tier"]) == (1, 7, answer["text"], 1)
    assert good["complete"]
    assert "nothing for {tone}" in bare["error"]
    assert "no `text`" in bad["error"]
    assert [each["line"] for each in others] == list(range(4, 13))
    assert all(len(each["text"]) == 3 for each in others)
    assert "12 lines, 2 of them failed" in done.stdout
    done = sprat(store, "transform", BUNDLE, "abc")
    assert done.returncode != 0
    assert "nothing for {tone}" in done.stderr
