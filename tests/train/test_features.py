"""Kept embeddings: never wrong, never too many, and never in the way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sprat.train import features
from sprat.train.features import EmbeddingCache
from sprat.values import FloatArray, IntArray

DIGEST = "ab" * 32


class Model:
    """Counts what it is asked for; the vector of a text is made of its length and first letter."""

    def __init__(self, dimension: int = 8) -> None:
        self.asked: list[list[str]] = []
        self._dimension = dimension

    def __call__(self, texts: Sequence[str]) -> tuple[FloatArray, IntArray]:
        self.asked.append(list(texts))
        vectors = np.array([[len(t), ord(t[0])] for t in texts], np.float32)
        repeated = np.tile(vectors, (1, self._dimension // 2))
        return repeated, np.array([len(t) % 3 for t in texts], np.int32)


TEXTS = ["one", "three", "eleven", "été"]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*"))


def test_features_are_computed_once(tmp_path: Path) -> None:
    model = Model()
    vectors, dropped = EmbeddingCache(tmp_path, DIGEST).embed(TEXTS, model)
    again, dropped_again = EmbeddingCache(tmp_path, DIGEST).embed(TEXTS[::-1], model)
    assert model.asked == [TEXTS]
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, vectors[::-1])
    np.testing.assert_array_equal(dropped_again, dropped[::-1])
    np.testing.assert_array_equal(vectors, Model()(TEXTS)[0])


def test_features_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    model, cache = Model(), EmbeddingCache(tmp_path, DIGEST)
    cache.embed(TEXTS[1:3], model)
    vectors, dropped = cache.embed(TEXTS, model)
    assert model.asked == [TEXTS[1:3], ["one", "été"]]
    np.testing.assert_array_equal(vectors, Model()(TEXTS)[0])
    np.testing.assert_array_equal(dropped, Model()(TEXTS)[1])
    assert len(files(tmp_path)) == 2


def test_features_of_another_model_or_version_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()
    EmbeddingCache(tmp_path, DIGEST).embed(TEXTS, model)
    EmbeddingCache(tmp_path, "cd" * 32).embed(TEXTS, model)
    monkeypatch.setattr(features.sprat, "__version__", "99.0")
    EmbeddingCache(tmp_path, DIGEST).embed(TEXTS, model)
    assert len(model.asked) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_features_of_a_corrupt_file_are_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, cache = Model(), EmbeddingCache(tmp_path, DIGEST)
    expected, _ = cache.embed(TEXTS, model)
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"flip": bytes(content), "cut": content[:-9], "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        vectors, _ = cache.embed(TEXTS, model)
    np.testing.assert_array_equal(vectors, expected)
    assert "is corrupt and is made again" in caplog.text
    assert model.asked == [TEXTS, TEXTS]
    cache.embed(TEXTS, model)
    assert len(model.asked) == 2


def test_features_are_bounded_and_the_least_used_go(tmp_path: Path) -> None:
    model = Model()
    EmbeddingCache(tmp_path, DIGEST).embed(["first"], model)
    (first,) = files(tmp_path)
    size = first.stat().st_size
    os.utime(first, (1, 1))
    cache = EmbeddingCache(tmp_path, "cd" * 32, limit_bytes=5 * size // 2)
    cache.embed(["second"], model)
    os.utime(next(p for p in files(tmp_path) if p != first), (2, 2))
    # Using a file makes it young: the second one is the oldest now, and not of the same model.
    EmbeddingCache(tmp_path, DIGEST).embed(["first"], model)
    cache.embed(["third"], model)
    assert len(files(tmp_path)) == 2
    assert first.exists()
    cache.embed(["second"], model)
    assert model.asked == [["first"], ["second"], ["third"], ["second"]]


def test_features_over_the_limit_are_not_kept(tmp_path: Path) -> None:
    model, cache = Model(), EmbeddingCache(tmp_path, DIGEST, limit_bytes=100)
    for _ in range(2):
        assert len(cache.embed(TEXTS, model)[0]) == len(TEXTS)
    assert len(model.asked) == 2
    assert files(tmp_path) == []


def test_features_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    model, cache = Model(), EmbeddingCache(tmp_path, DIGEST)
    cache.embed(TEXTS[:2], model)
    folder = files(tmp_path)[0].parent
    old, young = folder / ".old.part", folder / ".young.part"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    hour_ago = time.time() - features.LEFT_BEHIND_S - 1
    os.utime(old, (hour_ago, hour_ago))
    cache.embed(TEXTS, model)
    assert not old.exists()
    assert young.exists()


def test_features_are_private_and_hold_no_text(tmp_path: Path) -> None:
    root = tmp_path / "cache" / "embeddings"
    EmbeddingCache(root, DIGEST).embed(["xyzzy-secret"], Model())
    (path,) = files(root)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert b"xyzzy" not in path.read_bytes()


def test_features_a_disk_that_refuses_costs_only_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    model = Model()
    with caplog.at_level(logging.WARNING):
        vectors, _ = EmbeddingCache(blocked / "embeddings", DIGEST).embed(TEXTS, model)
    np.testing.assert_array_equal(vectors, Model()(TEXTS)[0])
    assert "embeddings are not kept" in caplog.text


WORKER = """
import sys
from pathlib import Path
import numpy as np
from sprat.train.features import EmbeddingCache

def model(texts):
    vectors = np.array([[len(text), ord(text[0])] for text in texts], np.float32)
    return vectors, np.zeros(len(texts), np.int32)

# A limit that is always reached: files go while others read them.
cache = EmbeddingCache(Path(sys.argv[1]), "ab" * 32, limit_bytes=3000)
for turn in range(60):
    start = turn * int(sys.argv[2])
    texts = [f"{'abcdef'[i % 6]} text {(start + i) % 40}" for i in range(10)]
    vectors, _ = cache.embed(texts, model)
    assert (vectors == model(texts)[0]).all()
"""


def test_features_are_safe_between_processes(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(number)])
        for number in (1, 2, 3)
    ]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert files(tmp_path)
    assert all(path.suffix == ".safetensors" for path in files(tmp_path))
