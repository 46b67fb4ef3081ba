"""The static engine against the library whose models it reads, and what it refuses to load."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model2vec
import numpy as np
import pytest
import tokenizers
from model2vec.model import quantize_model
from safetensors.numpy import load_file, save_file
from static_models import (
    DIMENSION,
    WORDS,
    bpe,
    save,
    static_model,
    unigram,
    wordlevel,
    wordpiece,
)

from sprat.engine.static import StaticEncoder, unknown_token
from sprat.errors import CorruptFile, SpratError, UnsupportedModel

ODD = [
    "My parcel is late!",
    "parcelly refunds  broken\tlate\n",
    "nothing that is known: 魚 42 ???",
    "MY PARCEL É é e\u0301 ÉÉ",
    "!!!",
    "[PAD] my [UNK] parcel [CLS]",
    "x" * 101 + " parcel",
    "a\0b parcel\u200b late\ufeff",
    "\u00a0my\u3000parcel\u2028is",
    "\U0001f41f parcel \U0001f9d1\u200d\U0001f692",
]


def agrees(library: model2vec.StaticModel, folder: Path, texts: list[str]) -> StaticEncoder:
    """Check our vectors of texts, cut where they must be, against the library's."""
    library.tokenizer.encode_special_tokens = True  # No markup in texts, as everywhere in sprat.
    ours = StaticEncoder(folder)
    got = ours.encode(texts).vectors
    expected = library.encode(texts).astype(np.float32)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    # The library rounds its own sums to float16 where the table is float16.
    loose = library.embedding.dtype == np.float16
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, atol=scale * (1e-3 if loose else 1e-6), rtol=1e-5)
    return ours


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "float16", "float32", "float64"])
@pytest.mark.parametrize("tokenizer", [wordpiece, wordlevel, unigram, bpe])
def test_static_vectors_are_those_of_the_library(
    tokenizer: Callable[[], tokenizers.Tokenizer], dtype: str, normalize: bool, tmp_path: Path
) -> None:
    library = static_model(tokenizer(), dtype, normalize=normalize)
    ours = agrees(library, save(library, tmp_path / "m"), ODD)
    assert ours.dimension == DIMENSION
    assert ours.quantization == ("float32" if dtype == "float64" else dtype)
    is_ours = tokenizer is wordpiece
    assert ours.tokenizer.name.startswith("sprat" if is_ours else "tokenizers") is True


@pytest.mark.parametrize("tokenizer", [wordpiece, unigram])
def test_static_weights_and_shared_rows_are_those_of_the_library(
    tokenizer: Callable[[], tokenizers.Tokenizer], tmp_path: Path
) -> None:
    shared = quantize_model(static_model(tokenizer()), vocabulary_quantization=4)
    assert shared.weights is not None
    assert len(shared.embedding) == 4
    agrees(shared, save(shared, tmp_path / "shared"), ODD)
    small = quantize_model(shared, quantize_to="int8")
    agrees(small, save(small, tmp_path / "small"), ODD)


def test_static_real_tokenizer_agrees_on_thousands_of_odd_texts(
    minilm: Path, tmp_path: Path, tickets: tuple[Path, Path]
) -> None:
    backend = tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))
    library = static_model(backend, "int8", normalize=True)
    draw = random.Random(3)
    alphabet = [
        chr(c) for c in (*range(32, 127), 0xE9, 0x130, 0x301, 0x4E00, 0xAC00, 0x1F41F, 0xDF)
    ]
    texts = ["".join(draw.choices(alphabet, k=draw.randint(1, 60))) for _ in range(2000)]
    texts += [json.loads(line)["text"] for line in tickets[0].read_text("utf-8").splitlines()]
    agrees(library, save(library, tmp_path / "m"), texts)


@pytest.mark.parametrize("tokenizer", [wordpiece, unigram])
@pytest.mark.parametrize("max_length", [1, 7, 512, None])
def test_static_reads_as_much_of_a_text_as_the_library(
    tokenizer: Callable[[], tokenizers.Tokenizer], max_length: int | None, tmp_path: Path
) -> None:
    library = static_model(tokenizer(), max_length=max_length)
    texts = [
        "my parcel is late! " * 300,
        "?" * 4000 + " parcel",
        "parcel " + " " * 5000 + "late",
        "refund " * 6,
        "é" * 4000,
    ]
    ours = agrees(library, save(library, tmp_path / "m"), texts)
    dropped = ours.encode(texts).dropped
    if max_length is None:
        assert not dropped.any()
        return
    assert ours.max_tokens == max_length
    assert ours.max_characters == max_length * library.median_token_length
    assert dropped[0] > 0
    if tokenizer is wordpiece:
        # White space alone that is not read is no loss; a word that is cut counts once.
        spaces = "my " + " " * ours.max_characters
        assert ours.encode([spaces, spaces + "parcel"]).dropped.tolist() == [0, 1]
        word = "?" * (ours.max_characters - 3) + " parcel"
        kept = min(max_length, ours.max_characters - 2)
        assert ours.encode([word]).dropped.tolist() == [ours.max_characters - 2 - kept]


def test_static_counts_known_and_dropped_tokens(tmp_path: Path) -> None:
    folder = save(static_model(max_length=4), tmp_path / "m")
    _, tokens, dropped = StaticEncoder(folder).encode(
        ["my parcel", "my what", "what", "my my my my my my", "what my my my refunds"]
    )
    assert tokens.tolist() == [2, 1, 0, 4, 3]
    assert dropped.tolist() == [0, 0, 0, 2, 2]
    assert StaticEncoder(folder).encode([]).vectors.shape == (0, DIMENSION)


def test_static_tokenizer_adds_no_special_tokens(minilm: Path, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))
    ours = StaticEncoder(save(static_model(backend), tmp_path / "m"))
    (ids,) = ours.tokenizer.encode_batch(["a small fish"])
    assert ours.tokenizer.tokens(ids) == ("a", "small", "fish")


def change(folder: Path, **tensors: Any) -> None:
    path = folder / "model.safetensors"
    kept = {k: v for k, v in (load_file(path) | tensors).items() if v is not None}
    save_file(kept, path)


def configure(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


V = len(WORDS)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), CorruptFile, "not a whole safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 90), CorruptFile, "not a whole"),
        (lambda f: (f / "config.json").unlink(), CorruptFile, "cannot be read"),
        (lambda f: (f / "config.json").write_text("{"), CorruptFile, "not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), CorruptFile, "expected an object"),
        (lambda f: (f / "tokenizer.json").unlink(), CorruptFile, "not a tokenizer"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), CorruptFile, "not a tokenizer"),
        (lambda f: change(f, embeddings=None, x=np.ones(1)), CorruptFile, "expected a table"),
        (
            lambda f: change(f, embeddings=np.ones(V)),
            CorruptFile,
            r"expected a table .* got \[12\]",
        ),
        (lambda f: change(f, embeddings=np.ones((V, 0))), CorruptFile, "expected a table"),
        (lambda f: change(f, embeddings=np.ones((V, 2), np.int32)), UnsupportedModel, "got int32"),
        (
            lambda f: change(f, embeddings=np.full((V, 2), np.nan, np.float32)),
            CorruptFile,
            "not all values are finite",
        ),
        (
            lambda f: change(f, embeddings=np.ones((V - 1, 2), np.float32)),
            CorruptFile,
            r"expected 11 tokens, .* got 12 with ids in \[0, 11\]",
        ),
        (lambda f: change(f, weights=np.ones(V - 1)), CorruptFile, "weights: expected 12 floats"),
        (lambda f: change(f, weights=np.ones(V, int)), CorruptFile, "weights: expected 12 floats"),
        (lambda f: change(f, weights=np.full(V, np.inf)), CorruptFile, "weights: not all values"),
        (lambda f: change(f, mapping=np.full(V, V)), CorruptFile, r"mapping: .* \[0, 12\), got 12"),
        (lambda f: change(f, mapping=np.full(V, -1)), CorruptFile, "mapping: .* got -1"),
        (lambda f: change(f, mapping=np.ones(V)), CorruptFile, "mapping: expected integers"),
        (lambda f: change(f, mapping=np.zeros(3, int)), CorruptFile, "expected 3 tokens"),
        (lambda f: configure(f, normalize="yes"), CorruptFile, "normalize: expected true or"),
        (lambda f: configure(f, max_length=0), CorruptFile, "max_length: expected an integer"),
        (lambda f: configure(f, max_length=True), CorruptFile, "max_length: expected an integer"),
    ],
)
def test_static_refuses_a_damaged_folder(
    damage: Callable[[Path], object], error: type[SpratError], message: str, tmp_path: Path
) -> None:
    folder = save(static_model(), tmp_path / "m")
    damage(folder)
    with pytest.raises(error, match=message) as caught:
        StaticEncoder(folder)
    assert str(folder) in caught.value.message


def test_static_finds_the_unknown_token(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for backend, expected in ((wordpiece(), 1), (wordlevel(), 1), (unigram(), 0), (bpe(), None)):
        backend.save(str(path))
        assert unknown_token(path) == expected
    for bad in ("[]", "{}", '{"model": 1}', '{"model": {"unk_token": "x"}}', "{"):
        path.write_text(bad)
        with pytest.raises(CorruptFile, match="malformed"):
            unknown_token(path)
    path.write_text('{"model": {"unk_id": "1"}}')
    with pytest.raises(CorruptFile, match="expected an id, got '1'"):
        unknown_token(path)
