"""Bookings with spans, and token states that need no model: a fixed random vector a word."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import WORDS, encoder_files, write_files
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from sprat.train.spans import GoldSpan, SpanDataset
from sprat.values import TokenStates

DIMENSION = 32
WORD = re.compile(r"\w+|[^\w\s]")
NAMES = ("Ada", "Bea", "Cleo", "Dora", "Elsa", "Fritz", "Gerd", "Hugo", "Ines", "Jana", "Karl")


def read_words(texts: Sequence[str]) -> list[TokenStates]:
    """Words and marks as tokens; their states depend on nothing but the word."""
    made = []
    for text in texts:
        found = list(WORD.finditer(text))
        ids = [zlib.crc32(match[0].lower().encode()) % 30000 for match in found]
        states = [np.random.default_rng(each).standard_normal(DIMENSION) for each in ids]
        made.append(
            TokenStates(
                np.array(ids, np.int32),
                np.array([match.span() for match in found], np.int32).reshape(-1, 2),
                np.array(states, np.float32).reshape(-1, DIMENSION),
            )
        )
    return made


def make_bookings(rows: int, *, seed: int = 0, path: str = "bookings.jsonl") -> SpanDataset:
    """Tables for people at a time under a name; a lone number is whatever was asked for."""
    rng = random.Random(seed)
    texts, spans, requested = [], [], []
    for number in range(rows):
        size, hour, name = rng.randint(2, 12), rng.randint(1, 11), rng.choice(NAMES)
        kind = number % 5
        if kind == 0:
            parts = ["table for ", ("people", str(size)), " at ", ("time", f"{hour}:{30}")]
        elif kind == 1:
            parts = ["my name is ", ("name", name), ", see you at ", ("time", f"{hour} pm")]
        elif kind == 2:
            parts = [("people", str(size))]
        elif kind == 3:
            parts = (
                [("time", str(hour)), " please"] if rng.random() < 0.5 else [("time", str(hour))]
            )
        else:
            parts = [rng.choice(("thanks a lot", "hello there", "is it open?"))]
        text, found = "", []
        for part in parts:
            if isinstance(part, tuple):
                found.append(GoldSpan(len(text), len(text) + len(part[1]), part[0]))
                text += part[1]
            else:
                text += part
        texts.append(text)
        spans.append(tuple(found))
        requested.append(({2: ("people",), 3: ("time",)}).get(kind, ()))
    lines = tuple(range(1, rows + 1))
    return SpanDataset(tuple(texts), tuple(spans), tuple(requested), lines, path)


def write_encoder(folder: Path) -> Path:
    """A random BERT of up to 24 tokens that knows the words of bookings, as others publish one."""
    said = " ".join((*make_bookings(200).texts, *map(str, range(13)), *NAMES))
    words = sorted(set(WORD.findall(said.lower())))
    vocabulary = {word: index for index, word in enumerate([*WORDS[:4], *words])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(each, vocabulary[each]) for each in WORDS[2:4]]
    )
    files = encoder_files(rows=len(vocabulary))
    return write_files(folder, {**files, "tokenizer.json": tokenizer.to_str().encode()})


def write_rows(path: Path, data: SpanDataset) -> Path:
    """The file that rows like these are read from."""
    with path.open("w", encoding="utf-8") as stream:
        for text, spans, requested in zip(data.texts, data.spans, data.requested, strict=True):
            row: dict[str, Any] = {
                "text": text,
                "spans": [{**asdict(span), "text": text[span.start : span.end]} for span in spans],
            }
            if requested:
                row["requested"] = requested
            stream.write(json.dumps(row) + "\n")
    return path
