"""WordPiece against the `tokenizers` library: the same ids and spans, always."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers.implementations import BertWordPieceTokenizer

from sprat.kernels import WordPiece, _wordpiece, reference

ROOT = Path(__file__).resolve().parents[2]
# Every code point of the planes that have characters, and some of those that have none or private
# ones only; the test of the tables asks about each of these too.
CODES = [
    *range(0xD800),
    *range(0xE000, 0x32400),
    *range(0x32400, 0xE0000, 61),
    *range(0xE0000, 0xE0200),
    *range(0xE0200, 0x110000, 61),
]
CASES: dict[str, dict[str, Any]] = {
    "uncased": {},
    "cased": {"lowercase": False},
    "raw": {"clean_text": False, "handle_chinese_chars": False},
    "accented": {"strip_accents": False},
    "plain": {"lowercase": False, "strip_accents": True, "clean_text": False},
}


class Pair:
    """The library and a `WordPiece` of the same file."""

    def __init__(self, path: Path, kind: type[WordPiece] = _wordpiece.WordPiece) -> None:
        self.library = tokenizers.Tokenizer.from_file(str(path))
        self.library.no_padding()
        self.library.no_truncation()
        self.library.encode_special_tokens = True
        self.ours = kind.from_tokenizer_json(path)

    def check(self, texts: list[str], **options: Any) -> None:
        """Fail on the first text with other ids or spans."""
        rows = self.ours.encode_batch(texts, **options)
        for index, encoding in enumerate(self.library.encode_batch(texts)):
            row = slice(rows.offsets[index], rows.offsets[index + 1])
            assert rows.ids[row].tolist() == encoding.ids, ascii(texts[index])
            spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            assert np.array_equal(rows.spans[row], spans), ascii(texts[index])


@pytest.fixture(scope="module")
def folder(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer.json of minilm for each case."""
    made = tmp_path_factory.mktemp("tokenizers")
    document = json.loads((minilm / "tokenizer.json").read_bytes())
    original = dict(document["normalizer"])
    for name, changes in CASES.items():
        document["normalizer"] = {**original, **changes}
        (made / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    return made


def joined(pieces: Iterable[str], count: int = 64) -> list[str]:
    """Pieces in longer texts, which the library needs less time for."""
    each = list(pieces)
    return [" ".join(each[i : i + count]) for i in range(0, len(each), count)]


# -- generated texts ------------------------------------------------------------------------

# First and last code point of what texts are drawn from.
SCRIPTS = {
    "ascii": [(0x20, 0x7E)],
    "latin": [(0x61, 0x7A), (0xA0, 0x24F), (0x1E00, 0x1EFF)],
    "greek and cyrillic": [(0x370, 0x3FF), (0x1F00, 0x1FFF), (0x400, 0x4FF)],
    "hebrew and arabic": [(0x590, 0x6FF)],
    "indic": [(0x900, 0xDFF), (0xE00, 0xFFF)],
    "hangul": [(0xAC00, 0xD7A3), (0x1100, 0x11FF)],
    "chinese and japanese": [(0x4E00, 0x9FFF), (0x3040, 0x30FF), (0xF900, 0xFAFF)],
    "emoji": [(0x1F300, 0x1FAFF), (0x2600, 0x27BF), (0xFE0F, 0xFE0F), (0x200D, 0x200D)],
    "marks": [(0x300, 0x36F), (0x302A, 0x302F), (0x1AB0, 0x1AFF), (0x20D0, 0x20FF)],
    "music": [(0x1D100, 0x1D1FF), (0x1D242, 0x1D244)],
    "controls": [(0, 0x20), (0x7F, 0xA0), (0x2000, 0x206F), (0xFEFF, 0xFEFF), (0xFFF0, 0xFFFD)],
    "punctuation": [(0x2010, 0x205E), (0x3000, 0x303F), (0xFF00, 0xFF65)],
    "mathematics": [(0x2200, 0x22FF), (0x1D400, 0x1D7FF)],
    "anything": [(0, 0xD7FF), (0xE000, 0x10FFFF)],
}


def generated(seed: int, count: int, words: list[str]) -> list[str]:
    """Texts of several scripts, words of the vocabulary, repeats and long words among them."""
    draw = random.Random(seed)
    scripts = [*SCRIPTS.values()]

    def one() -> str:
        parts = []
        for _ in range(draw.randint(0, 6)):
            kind = draw.random()
            if kind < 0.25:
                part = draw.choice(words).removeprefix("##")
                part = part.title() if draw.random() < 0.3 else part
            elif kind < 0.27:
                part = draw.choice(["a", "\u00e9", "\ud55c", "x\u0301", "ab"]) * draw.randint(
                    30, 130
                )
            else:
                first, last = draw.choice(draw.choice(scripts))
                part = "".join(chr(draw.randint(first, last)) for _ in range(draw.randint(1, 6)))
            parts.append(part)
            if draw.random() < 0.4:
                parts.append(draw.choice([" ", "  ", "\n", "-", "\u0301", "\u200b"]))
        return "".join(parts)

    return [one() for _ in range(count)]


@pytest.fixture(scope="module")
def words(minilm: Path) -> list[str]:
    document = json.loads((minilm / "tokenizer.json").read_bytes())
    return [*document["model"]["vocab"]]


# -- tests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_wordpiece_exact_on_shared_data(folder: Path, shared_data: Path, case: str) -> None:
    pair = Pair(folder / f"{case}.json")
    texts: set[str] = set()

    def collect(value: object) -> None:
        if isinstance(value, str):
            texts.add(value)
        elif isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                collect(each)

    for path in sorted(shared_data.iterdir()):
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            for line in content.splitlines():
                collect(json.loads(line))
        else:
            texts.add(content)
    assert len(texts) > 10_000
    pair.check(sorted(texts))


@pytest.mark.parametrize("case", ["uncased", "cased"])
def test_wordpiece_exact_on_every_code_point(folder: Path, case: str) -> None:
    pair = Pair(folder / f"{case}.json")
    pair.check(joined(chr(code) for code in CODES))
    pair.check(joined(f"a{chr(code)}b" for code in CODES))
    # By themselves, those at least that words are written with.
    pair.check([chr(code) for code in (*range(0x3100), *range(0xF900, 0xFB00))])


@pytest.mark.parametrize("case", CASES)
def test_wordpiece_exact_on_generated_texts(folder: Path, words: list[str], case: str) -> None:
    pair = Pair(folder / f"{case}.json")
    pair.check(generated(len(case), 20_000, words))


@pytest.mark.parametrize("case", CASES)
def test_wordpiece_exact_on_marks_in_any_order(folder: Path, case: str) -> None:
    pair = Pair(folder / f"{case}.json")
    draw = random.Random(3)
    odd = (
        "a \u4e00\0\u0301\u0323\u0334\u0344\u0345\u0f73\u0f71\u1e69\u302a\u302e\u302f"
        "\U0001d15e\U0001d160\U0001d165\U0001d16e\U0001d157\U00016ff0"
    )
    pair.check(["".join(draw.choices(odd, k=draw.randint(1, 9))) for _ in range(20_000)])


@pytest.mark.parametrize("case", CASES)
def test_wordpiece_exact_twin(folder: Path, words: list[str], case: str) -> None:
    pair = Pair(folder / f"{case}.json", reference.WordPiece)
    pair.check(generated(11, 1000, words))
    pair.check(joined(f"a{chr(code)}b" for code in CODES[::20]))


@pytest.mark.parametrize("limit", [2, 3, 4, 7, 16, 128])
def test_wordpiece_exact_when_truncated(folder: Path, words: list[str], limit: int) -> None:
    pair = Pair(folder / "uncased.json")
    pair.library.enable_truncation(limit)
    texts = generated(limit, 2000, words)
    pair.check(texts, max_tokens=limit)
    pair.check(texts, max_tokens=limit, count_dropped=True, threads=2)


def test_wordpiece_exact_with_special_tokens(folder: Path, words: list[str]) -> None:
    pair = Pair(folder / "uncased.json")
    draw = random.Random(5)
    pieces = [
        "[SEP]",
        "[CLS]",
        "[MASK]",
        "[PAD]",
        "[",
        "]",
        "sep",
        " ",
        "\u0301",
        "\U0001d15e",
        "A",
    ]
    texts = ["".join(draw.choices(pieces, k=draw.randint(0, 8))) for _ in range(5000)]
    pair.check(texts)
    pair.library.encode_special_tokens = False
    pair.check(texts, parse_special=True)


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece_exact_from_a_vocab_txt(
    tmp_path: Path, words: list[str], lowercase: bool
) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    library = BertWordPieceTokenizer(str(path), lowercase=lowercase)
    library._tokenizer.encode_special_tokens = True
    texts = generated(9, 2000, words)
    rows = _wordpiece.WordPiece.from_vocab(path, lowercase=lowercase).encode_batch(texts)
    expected = [token for text in texts for token in library.encode(text).ids]
    assert rows.ids.tolist() == expected


def test_wordpiece_unicode_tables_are_those_of_the_library() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "kernels" / "generate_bert_unicode.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
