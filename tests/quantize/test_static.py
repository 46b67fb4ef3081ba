"""From an encoder to a table: what is embedded, reduced, weighed, rounded and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import model2vec
import numpy as np
import pytest
import tokenizers
from static_models import bpe, wordpiece
from tiny_models import encoder_files, write_files

from sprat import static_table
from sprat.engine.static import StaticEncoder
from sprat.errors import CorruptFile, InvalidInput, UnsupportedModel
from sprat.quantize.static import (
    BATCH,
    Vocabulary,
    distil,
    plain_tokenizer,
    principal_components,
    quantize,
    read_vocabulary,
    zipf_weights,
)
from sprat.static_table import MAX_LENGTH, UNLIMITED, StaticTable
from sprat.values import FloatArray, IntArray

WIDTH = 12


class Encoder:
    """Vectors that depend on the ids alone, and what was asked for."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.largest = 0

    def __call__(self, rows: Any) -> FloatArray:
        self.rows += [row.tolist() for row in rows]
        self.largest = max(self.largest, len(rows))
        return np.stack([self.vector(row.tolist()) for row in rows])

    @staticmethod
    def vector(row: list[int]) -> FloatArray:
        return np.random.default_rng(row).normal(size=WIDTH).astype(np.float32)


def vocabulary(content: int = 100, special: int = 3) -> Vocabulary:
    ids = np.arange(special, special + content, dtype=np.int32)
    return Vocabulary(special + content, ids, before=(1,), after=(2,))


def test_distil_embeds_every_token_between_the_special_ones() -> None:
    encoder = Encoder()
    table = distil(vocabulary(), encoder, dimension=5)
    assert encoder.rows == [[1, token, 2] for token in range(3, 103)]
    assert encoder.largest == BATCH
    assert table.values.shape == (103, 5)
    assert table.values.dtype == np.float32
    assert not table.values[:3].any()
    assert table.values[3:].any(axis=1).all()
    assert (table.normalize, table.max_tokens) == (True, MAX_LENGTH)
    assert table.weights is None
    assert table.rows is None


def test_distil_keeps_the_directions_of_the_encoder() -> None:
    known = vocabulary(content=40)
    encoder = Encoder()
    table = distil(known, encoder, dimension=WIDTH, sif=1e9)
    vectors = np.stack([Encoder.vector(row) for row in encoder.rows])
    centred = vectors - vectors.mean(axis=0)
    # All components are kept and all weigh 1: a rotation, which keeps every inner product.
    rotated = table.values[3:]
    np.testing.assert_allclose(rotated @ rotated.T, centred @ centred.T, atol=1e-4)


def test_distil_tells_how_far_it_is() -> None:
    class Tape:
        def __init__(self) -> None:
            self.phases: list[tuple[str, int | None]] = []
            self.done = 0

        def phase(self, text: str, total: int | None = None) -> None:
            self.phases.append((text, total))

        def advance(self, size: int) -> None:
            self.done += size

    tape = Tape()
    distil(vocabulary(), Encoder(), dimension=4, progress=tape)
    assert tape.phases == [("embed 100 tokens", 100), ("reduce 12 to 4 dimensions", None)]
    assert tape.done == 100


def test_distil_keeps_what_there_is_by_default() -> None:
    assert distil(vocabulary(), Encoder()).values.shape == (103, WIDTH)
    assert distil(vocabulary(content=9), Encoder()).values.shape == (12, 8)


@pytest.mark.parametrize("dimension", [0, -1, WIDTH + 1])
def test_distil_refuses_a_dimension_that_cannot_be(dimension: int) -> None:
    with pytest.raises(InvalidInput, match=f"dimension: expected 1 to 12, got {dimension}"):
        distil(vocabulary(), Encoder(), dimension=dimension)


def test_distil_refuses_more_dimensions_than_tokens_can_span() -> None:
    with pytest.raises(InvalidInput, match="dimension: expected 1 to 7, got 8"):
        distil(vocabulary(content=8), Encoder(), dimension=8)


@pytest.mark.parametrize("sif", [0.0, -1.0, float("nan")])
def test_distil_refuses_a_coefficient_that_weighs_nothing(sif: float) -> None:
    with pytest.raises(InvalidInput, match="sif: expected a number above 0"):
        distil(vocabulary(), Encoder(), dimension=2, sif=sif)


def test_principal_components_are_ordered_and_always_the_same() -> None:
    draw = np.random.default_rng(0)
    spread = np.diag([9.0, 4.0, 1.0, 0.1])
    turn, _ = np.linalg.qr(draw.normal(size=(4, 4)))
    vectors = (draw.normal(size=(500, 4)) @ spread @ turn + 7).astype(np.float32)
    found = principal_components(vectors, 3)
    assert found.shape == (500, 3)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    deviations = found.std(axis=0)
    np.testing.assert_allclose(deviations, [9, 4, 1], rtol=0.15)
    covariance = found.T @ found
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-6)
    np.testing.assert_array_equal(principal_components(vectors.copy(), 3), found)


def test_zipf_weights_are_those_of_the_library() -> None:
    # model2vec.distill needs torch: its formula, by hand, for three tokens.
    shares = np.array([1 / 2, 1 / 3, 1 / 4]) / (1 / 2 + 1 / 3 + 1 / 4)
    np.testing.assert_allclose(zipf_weights(3, 1e-4), 1e-4 / (1e-4 + shares))
    weights = zipf_weights(30_000, 1e-4)
    assert (np.diff(weights) > 0).all()
    assert 0 < weights[0] < 0.01 < 0.9 < weights[-1] < 1


def float_table(rows: int = 20) -> StaticTable:
    values = np.random.default_rng(1).normal(size=(rows, WIDTH)) * np.logspace(-6, 2, rows)[:, None]
    values[3] = 0
    return StaticTable(values.astype(np.float32), None, None, normalize=True, max_tokens=9)


def test_quantize_int8_keeps_small_rows_as_exact_as_large_ones() -> None:
    table = float_table()
    small = quantize(table, "int8")
    assert small.quantization == "int8"
    assert small.weights is not None
    assert small.weights.dtype == np.float32
    restored = small.values * small.weights[:, None]
    step = np.abs(table.values).max(axis=1, keepdims=True) / 127
    assert (np.abs(restored - table.values) <= step * 0.501).all()
    assert not restored[3].any()
    assert np.abs(small.values).max() == 127
    assert (small.normalize, small.max_tokens) == (True, 9)


def test_quantize_int8_keeps_the_weights_of_tokens_that_share_rows() -> None:
    table = float_table(4)
    rows = np.array([3, 1, 1, 0, 2], np.int32)
    weights = np.array([2, 1, 0.5, 1, -1], np.float32)
    shared = StaticTable(table.values, weights, rows, normalize=False, max_tokens=UNLIMITED)
    small = quantize(shared, "int8")
    assert small.weights is not None
    restored = small.values[rows] * small.weights[:, None]
    np.testing.assert_allclose(
        restored, table.values[rows] * weights[:, None], atol=1e-2 * np.abs(table.values).max()
    )


def test_quantize_to_float16_and_to_what_it_is() -> None:
    table = float_table()
    half = quantize(table, "float16")
    assert half.values.dtype == np.float16
    assert half.weights is None
    assert quantize(table, "float32") is table
    small = quantize(half, "int8")
    assert quantize(small, "int8") is small
    with pytest.raises(InvalidInput, match="int8 already, and cannot become float16"):
        quantize(small, "float16")
    huge = StaticTable(np.full((1, 1), 1e6, np.float32), None, None, True, 1)
    with pytest.raises(InvalidInput, match="too large for float16"):
        quantize(huge, "float16")


def save_tokenizer(folder: Path, made: tokenizers.Tokenizer) -> Path:
    path = folder / "tokenizer.json"
    made.save(str(path))
    return path


def test_read_vocabulary_of_the_real_model(minilm: Path) -> None:
    found = read_vocabulary(minilm / "tokenizer.json")
    assert (found.size, found.before, found.after) == (30522, (101,), (102,))
    # 994 unused ones and [PAD], [UNK], [CLS], [SEP], [MASK].
    assert len(found.content) == 30522 - 994 - 5
    assert found.content[0] == 999
    assert found.content.dtype == np.int32


def test_read_vocabulary_without_special_tokens(tmp_path: Path) -> None:
    found = read_vocabulary(save_tokenizer(tmp_path, bpe()))
    assert (found.before, found.after) == ((), ())
    assert found.content.tolist() == list(range(found.size))


def test_read_vocabulary_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CorruptFile, match="not a tokenizer"):
        read_vocabulary(path)
    path.write_text("{}")
    with pytest.raises(CorruptFile, match="not a tokenizer"):
        read_vocabulary(path)
    document = json.loads(wordpiece().to_str())
    document["model"]["vocab"]["gap"] = 99
    path.write_text(json.dumps(document))
    with pytest.raises(UnsupportedModel, match="without gaps"):
        read_vocabulary(path)
    only_special = wordpiece(["[PAD]", "[UNK]"])
    with pytest.raises(UnsupportedModel, match="no tokens but special ones"):
        read_vocabulary(save_tokenizer(tmp_path, only_special))


def test_plain_tokenizer_tokenizes_as_before_without_a_frame(minilm: Path, tmp_path: Path) -> None:
    plain = tokenizers.Tokenizer.from_str(plain_tokenizer(minilm / "tokenizer.json"))
    before = tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))
    before.no_padding()
    before.no_truncation()
    text = "A sprat, sprats; caf\u00e9 \u9b5a " * 100
    assert plain.encode(text).ids == before.encode(text, add_special_tokens=False).ids
    with pytest.raises(CorruptFile, match="cannot be read"):
        plain_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(CorruptFile, match="expected an object"):
        plain_tokenizer(tmp_path / "bad.json")


@pytest.mark.parametrize("quantization", ["int8", "float16", "float32"])
def test_distilled_table_loads_in_the_library(quantization: Any, tmp_path: Path) -> None:
    path = write_files(tmp_path / "e", encoder_files()) / "tokenizer.json"
    known = read_vocabulary(path)
    table = quantize(distil(known, Encoder(), dimension=3, sif=0.1), quantization)
    folder = tmp_path / "static"
    folder.mkdir()
    static_table.write(folder, table, {"tokenizer_name": "e"})
    (folder / "tokenizer.json").write_text(plain_tokenizer(path))
    library = model2vec.StaticModel.from_pretrained(folder)
    texts = ["parcel late", "refund broken parcel", "what", "parcel"]
    expected = library.encode(texts).astype(np.float32)
    found = StaticEncoder(folder).encode(texts).vectors
    np.testing.assert_allclose(found, expected, atol=2e-3 if quantization == "float16" else 1e-6)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 0, 1], abs=1e-5)
    assert library.config["embedding_dtype"] == quantization
    assert library.max_length == MAX_LENGTH


def test_static_table_is_written_as_it_is_read(tmp_path: Path) -> None:
    rows: IntArray = np.array([1, 0, 1], np.int32)
    table = StaticTable(
        np.arange(8, dtype=np.int8).reshape(2, 4),
        np.array([1, 2, 3], np.float32),
        rows,
        normalize=False,
        max_tokens=UNLIMITED,
    )
    static_table.write(tmp_path, table, {"note": "kept"})
    found = static_table.read(tmp_path)
    np.testing.assert_array_equal(found.values, table.values)
    np.testing.assert_array_equal(found.weights, table.weights)
    np.testing.assert_array_equal(found.rows, rows)
    assert (found.normalize, found.max_tokens) == (False, UNLIMITED)
    assert (found.vocabulary_size, found.quantization) == (3, "int8")
    config = static_table.read_config(tmp_path)
    assert config["note"] == "kept"
    assert config["vocabulary_quantization"] == 2
    assert config["max_length"] is None
    assert static_table.is_static(tmp_path)
    assert not static_table.is_static(tmp_path / "none")
