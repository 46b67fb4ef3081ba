"""Static models as the model2vec library makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model2vec
import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece

WORDS = [
    "[PAD]",
    "[UNK]",
    "parcel",
    "refund",
    "late",
    "broken",
    "##s",
    "##ly",
    "!",
    "my",
    "is",
    "é",
]
DIMENSION = 24


def wordpiece(words: list[str] = WORDS) -> tokenizers.Tokenizer:
    """A tokenizer of the kind that our own kernel runs."""
    made = tokenizers.Tokenizer(
        WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.normalizer = normalizers.BertNormalizer(strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[PAD]", "[UNK]"])
    return made


def wordlevel() -> tokenizers.Tokenizer:
    """Whole words, as distilling with a vocabulary of one's own gives them."""
    made = tokenizers.Tokenizer(
        WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def unigram() -> tokenizers.Tokenizer:
    """What multilingual models have."""
    pieces = [
        "<unk>",
        "\u2581",
        "\u2581my",
        "\u2581parcel",
        "s",
        "\u2581is",
        "\u2581late",
        "e",
        "l",
    ]
    made = tokenizers.Tokenizer(Unigram([(p, -float(i)) for i, p in enumerate(pieces)], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made


def bpe() -> tokenizers.Tokenizer:
    """Bytes, and so no unknown token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "pa", "la"])}
    made = tokenizers.Tokenizer(BPE(vocabulary, [("p", "a"), ("l", "a")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    return made


def table(rows: int, dtype: str = "float32", seed: int = 5) -> npt.NDArray[Any]:
    """Random embeddings."""
    values = np.random.default_rng(seed).normal(size=(rows, DIMENSION))
    return (
        np.rint(values * 40).clip(-127, 127).astype(np.int8)
        if dtype == "int8"
        else values.astype(dtype)
    )


def static_model(
    tokenizer: tokenizers.Tokenizer | None = None, dtype: str = "float32", **options: Any
) -> model2vec.StaticModel:
    """A model of the library."""
    tokenizer = tokenizer or wordpiece()
    rows = tokenizer.get_vocab_size()
    values = options.pop("values", None)
    return model2vec.StaticModel(
        table(rows, dtype) if values is None else values, tokenizer, **options
    )


def save(model: model2vec.StaticModel, folder: Path) -> Path:
    """The folder that the library writes."""
    model.save_pretrained(folder)
    return folder
