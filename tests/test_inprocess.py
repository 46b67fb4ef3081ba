"""`Runtime`: the verbs of the clients over real, tiny models in this process."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from doubles import WAIT_S, no_leaked_threads
from tiny_models import encoder_files, gguf_file, write_files

from sprat import Message, Runtime, Sampling, errors
from sprat.config import Config, ModelConfig
from sprat.pull import pull
from sprat.store import Store

ENCODER, GENERATOR = "tiny-encoder", "tiny-generator"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a real encoder and a real generator, both of random weights."""
    folder = tmp_path_factory.mktemp("published")
    store = Store(folder / "home")
    pull(str(write_files(folder / ENCODER, encoder_files())), store)
    (folder / f"{GENERATOR}.gguf").write_bytes(gguf_file(folder))
    pull(str(folder / f"{GENERATOR}.gguf"), store)
    return store


@pytest.fixture
def runtime(store: Store) -> Iterator[Runtime]:
    with no_leaked_threads(), Runtime(models=[ENCODER, GENERATOR], store=store) as made:
        yield made


def test_inprocess_embeds(runtime: Runtime) -> None:
    result = runtime.embed(ENCODER, ["late parcel", "refund", "late parcel"])
    assert result.vectors.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(result.vectors[0], result.vectors[2], atol=1e-5)
    assert result.model == ENCODER


def test_inprocess_generates(runtime: Runtime) -> None:
    chunks = list(runtime.generate(GENERATOR, "abc", Sampling(max_tokens=5)))
    assert chunks[-1].finish_reason == "length"
    assert chunks[-1].output_tokens == 5
    again = list(runtime.generate(GENERATOR, "abc", Sampling(max_tokens=5)))
    assert [c.text for c in again] == [c.text for c in chunks]


def test_inprocess_tokenizes_and_lists(runtime: Runtime) -> None:
    assert runtime.tokenize(ENCODER, ["late"]).items[0].tokens[-1] in ("late", "[SEP]")
    assert [m.name for m in runtime.list_models()] == [ENCODER, GENERATOR]
    assert runtime.list_tasks() == ()


def test_inprocess_raises_the_errors_of_the_clients(runtime: Runtime) -> None:
    for call, kind in (
        (lambda: runtime.embed("nothing", ["a"]), errors.NotFound),
        (lambda: runtime.embed(GENERATOR, ["a"]), errors.TaskNotSupported),
        (lambda: runtime.embed(ENCODER, []), errors.InvalidInput),
        (lambda: runtime.embed(ENCODER, ["\ud800"]), errors.InvalidInput),
        (lambda: runtime.embed(ENCODER, ["late " * 99]), errors.InputTooLong),
        (lambda: runtime.classify("nothing", ["a"]), errors.NotFound),
        (lambda: list(runtime.generate(ENCODER, "a")), errors.TaskNotSupported),
        (lambda: list(runtime.generate(GENERATOR, "a" * 99)), errors.InputTooLong),
        (lambda: list(runtime.generate(GENERATOR, [])), errors.InvalidInput),
        (
            lambda: list(runtime.generate(GENERATOR, [Message("user", "a")])),
            errors.TaskNotSupported,
        ),
    ):
        with pytest.raises(kind):
            call()
    assert len(runtime.embed(ENCODER, ["late"]).vectors) == 1


def test_inprocess_deadline_of_an_answer(runtime: Runtime) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        list(runtime.generate(GENERATOR, "a", Sampling(max_tokens=40), timeout_s=0.0))


def test_inprocess_serves_many_threads(runtime: Runtime) -> None:
    expected = {word: runtime.embed(ENCODER, [word]).vectors[0] for word in ("late", "refund")}
    wrong: list[str] = []

    def work(word: str) -> None:
        for _ in range(20):
            got = runtime.embed(ENCODER, [word, "parcel"]).vectors[0]
            if not np.allclose(got, expected[word], atol=0.02):
                wrong.append(word)

    threads = [threading.Thread(target=work, args=(w,)) for w in ("late", "refund") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert wrong == []


def test_inprocess_stream_closed_early_frees_the_model(runtime: Runtime) -> None:
    for _ in range(20):
        stream = runtime.generate(GENERATOR, "ab", Sampling(max_tokens=40))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert len(list(runtime.generate(GENERATOR, "ab", Sampling(max_tokens=3)))) <= 3


def test_inprocess_close_is_final_and_may_be_repeated(store: Store) -> None:
    with no_leaked_threads():
        runtime = Runtime(models=[ENCODER], store=store)
        runtime.close()
        runtime.close()
    with pytest.raises(errors.NotReady):
        runtime.embed(ENCODER, ["late"])


def test_inprocess_close_with_an_open_stream(store: Store) -> None:
    with no_leaked_threads():
        runtime = Runtime(models=[GENERATOR], store=store)
        stream = runtime.generate(GENERATOR, "ab", Sampling(max_tokens=40))
        next(stream)
        runtime.close()
        stream.close()  # type: ignore[attr-defined]
    del stream
    gc.collect()


def test_inprocess_that_cannot_load_leaves_nothing(store: Store) -> None:
    with no_leaked_threads():
        with pytest.raises(errors.NotFound):
            Runtime(models=[ENCODER, "nothing"], store=store)
        with pytest.raises(errors.NotFound):
            Runtime(tasks=["nothing"], store=store)


def test_inprocess_configuration_is_used(store: Store) -> None:
    config = Config(models={GENERATOR: ModelConfig(context_length=32)})
    with Runtime(models=[ENCODER], config=config, store=store) as runtime:
        assert [m.max_tokens for m in runtime.list_models()] == [24, 32]


def test_inprocess_corrupt_model_is_refused(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path)
    pull(str(write_files(tmp_path / "published" / ENCODER, encoder_files())), other)
    manifest, folder = other.model(ENCODER)
    weights = next(f for f in manifest.files if f.path.endswith("model.bin"))
    path = folder / weights.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with no_leaked_threads(), pytest.raises(errors.CorruptFile):
        Runtime(models=[ENCODER], store=other)
