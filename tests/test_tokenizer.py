from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tracemalloc
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from sprat.errors import CorruptFile, InvalidInput
from sprat.kernels import implementation
from sprat.tokenizer import Tokenizer, check_text

CLS, SEP = 101, 102


def library(minilm: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(minilm / "tokenizer.json"))


@pytest.fixture(scope="module", params=["sprat", "tokenizers"])
def tokenizer(request: pytest.FixtureRequest, minilm: Path) -> Tokenizer:
    """One tokenizer on either backend: nobody can tell them apart."""
    if request.param == "tokenizers":
        return Tokenizer(library(minilm))
    return Tokenizer.from_file(minilm / "tokenizer.json")


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    (ids,) = tokenizer.encode_batch([text])
    assert ids.dtype == np.int32
    return [int(token) for token in ids]


def test_tokenizer_encodes_with_special_tokens(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode_batch(["A sprat is a small fish."])
    assert ids.tolist() == [CLS, 1037, 11867, 8609, 2003, 1037, 2235, 3869, 1012, SEP]
    assert tokenizer.tokens(ids) == (
        *("[CLS]", "a", "sp", "##rat", "is", "a", "small", "fish", ".", "[SEP]"),
    )


def test_tokenizer_keeps_the_order_and_adds_no_padding(tokenizer: Tokenizer) -> None:
    texts = ["one", "one two three", "one two"]
    rows = tokenizer.encode_batch(texts)
    assert [len(row) for row in rows] == [3, 5, 4]
    assert [row.tolist() for row in rows] == [encode(tokenizer, text) for text in texts]
    assert tokenizer.encode_batch([]) == []
    # Rows may be written to; no row shares memory with another.
    rows[0][:] = 0
    assert rows[1][0] == CLS


def test_tokenizer_truncates_nothing_on_its_own(tokenizer: Tokenizer) -> None:
    # The file asks for 128 tokens, cut or padded.
    assert len(encode(tokenizer, "word " * 1000)) == 1002


def test_tokenizer_reads_no_markup_in_texts(tokenizer: Tokenizer) -> None:
    ids = encode(tokenizer, "[CLS] a [SEP] b [MASK] [PAD] [UNK]")
    assert ids[0] == CLS
    assert ids[-1] == SEP
    assert not {0, 100, CLS, SEP, 103} & set(ids[1:-1])


@pytest.mark.parametrize(
    ("text", "same_as"),
    [("a\0b", "ab"), ("\0a\x07 b\x7f", "a b"), ("caf\u00e9", "cafe"), ("a\u200bb\ufeff", "ab")],
)
def test_tokenizer_leaves_control_characters_to_the_normalizer(
    tokenizer: Tokenizer, text: str, same_as: str
) -> None:
    check_text(text, field="text")
    assert encode(tokenizer, text) == encode(tokenizer, same_as)


@pytest.mark.parametrize("text", ["\ufffd", "\u0301"])
def test_tokenizer_gives_special_tokens_alone_where_nothing_is_left(
    tokenizer: Tokenizer, text: str
) -> None:
    check_text(text, field="text")
    assert encode(tokenizer, text) == [CLS, SEP]


def test_tokenizer_encodes_a_megabyte(tokenizer: Tokenizer) -> None:
    text = "word " * 200_000
    check_text(text, field="text")
    (ids,) = tokenizer.encode_batch([text])
    assert len(ids) == 200_002
    (ids,), dropped = tokenizer.encode_within([text], 256)
    assert (len(ids), dropped) == (256, [200_002 - 256])


@pytest.mark.skipif(implementation == "reference", reason="the twin takes no care of memory")
def test_tokenizer_keeps_no_more_than_the_limit_of_a_megabyte(minilm: Path) -> None:
    tokenizer = Tokenizer.from_file(minilm / "tokenizer.json")
    text = "word " * 200_000
    tracemalloc.start()
    tokenizer.encode_within([text], 256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_tokenizer_encodes_the_same_on_several_threads(tokenizer: Tokenizer) -> None:
    texts = [f"text number {i} of many" for i in range(200)]
    expected = [encode(tokenizer, text) for text in texts]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda text: encode(tokenizer, text), texts)) == expected


@pytest.mark.parametrize("backend", ["Tokenizer.from_file(path)", "Tokenizer(library(path))"])
def test_tokenizer_starts_no_threads_of_its_own(minilm: Path, backend: str) -> None:
    program = (
        "import os, sys; from pathlib import Path; from sprat.tokenizer import Tokenizer\n"
        "from tokenizers import Tokenizer as Library\n"
        "path, library = Path(sys.argv[1]), lambda path: Library.from_file(str(path))\n"
        f"tokenizer = {backend}\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "tokenizer.encode_batch(['some text'] * 500)\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}

    def threads(**extra: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", program, str(minilm / "tokenizer.json")],
            check=True,
            capture_output=True,
            text=True,
            env=environment | extra,
        )
        return int(done.stdout)

    assert threads() == 0
    if "library" in backend:
        # An operator's own choice stands, and shows that the count above means something.
        assert threads(TOKENIZERS_PARALLELISM="true") > 0


def test_tokenizer_is_named_after_its_backend_and_model(minilm: Path) -> None:
    assert Tokenizer.from_file(minilm / "tokenizer.json").name == "sprat (WordPiece)"
    assert Tokenizer(library(minilm)).name == "tokenizers (WordPiece)"


def test_tokenizer_leaves_other_kinds_to_the_library(minilm: Path, tmp_path: Path) -> None:
    document = json.loads((minilm / "tokenizer.json").read_bytes())
    document["pre_tokenizer"] = {"type": "Whitespace"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    other = Tokenizer.from_file(path)
    assert other.name == "tokenizers (WordPiece)"
    (ids,) = other.encode_batch(["a [SEP]"])
    assert ids[-1] == SEP
    assert SEP not in ids[:-1]


def test_tokenizer_has_no_text_for_an_id_outside_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokens(np.array([CLS, 30522], np.int32)) == ("[CLS]", "")


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"\xff\xfe", b'{"model": {}}'])
def test_tokenizer_refuses_a_malformed_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptFile, match=re.escape(str(path))):
        Tokenizer.from_file(path)


def test_tokenizer_refuses_the_real_file_cut_anywhere(minilm: Path, tmp_path: Path) -> None:
    content = (minilm / "tokenizer.json").read_bytes()
    path = tmp_path / "tokenizer.json"
    for size in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:size])
        with pytest.raises(CorruptFile, match="not a tokenizer"):
            Tokenizer.from_file(path)


@pytest.mark.parametrize(
    "text", ["a", " a ", "\0a", "1", "!", "é", "日本", "🐟", "\U000f0000", "a\n", "\u200d👩"]
)
def test_tokenizer_check_text_accepts_what_can_be_seen(text: str) -> None:
    check_text(text, field="texts[0]")


@pytest.mark.parametrize(
    "text", [" ", "\t\r\n", "\u00a0\u2003\u3000", "\0", "\x07\x9f", "\u200b\ufeff", "\u00ad \u202e"]
)
def test_tokenizer_check_text_refuses_what_cannot_be_seen(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^texts\[3\]: holds no visible character$") as caught:
        check_text(text, field="texts[3]")
    assert caught.value.field == "texts[3]"


def test_tokenizer_check_text_refuses_an_empty_text() -> None:
    with pytest.raises(InvalidInput, match=r"^texts\[3\]: is empty$"):
        check_text("", field="texts[3]")


@pytest.mark.parametrize("text", [b"bytes", None, 5, ["text"]])
def test_tokenizer_check_text_refuses_other_types(text: Any) -> None:
    with pytest.raises(InvalidInput, match="prompt: expected text, got"):
        check_text(text, field="prompt")


@pytest.mark.parametrize(
    ("text", "index"), [("\ud800", 0), ("ab\udfff", 2), ("\ud83d\ude00", 0), ("é\udc80x\ud800", 1)]
)
def test_tokenizer_check_text_names_the_place_of_a_surrogate(text: str, index: int) -> None:
    with pytest.raises(InvalidInput, match=f"prompt: half a surrogate pair at index {index}") as e:
        check_text(text, field="prompt")
    assert e.value.metadata == {"field": "prompt", "index": str(index)}
    assert str(e.value).isascii()


def test_tokenizer_check_text_knows_what_is_invisible() -> None:
    invisible = ("Cc", "Cf", "Zl", "Zp", "Zs")
    for code in (*range(0x10000), *range(0xE0000, 0xE0200)):
        category = unicodedata.category(chr(code))
        if category == "Cs":
            continue
        try:
            check_text(chr(code), field="t")
        except InvalidInput:
            # Unassigned ones stand within ranges of invisible characters.
            assert category in invisible or category == "Cn"
        else:
            # Newer versions of Unicode may hold more format characters than the ranges.
            assert category not in invisible or (category == "Cf" and code not in (0xAD, 0x200B))


@given(st.text(), st.sampled_from(["", "visible "]))
def test_tokenizer_check_text_and_encoding_agree(
    tokenizer: Tokenizer, text: str, head: str
) -> None:
    text = head + text
    try:
        check_text(text, field="text")
    except InvalidInput:
        assert not text.isprintable() or not text.strip()
    else:
        assert encode(tokenizer, text)[-1] == SEP


@pytest.mark.parametrize("limit", [2, 3, 10, 11, 12, 50])
def test_tokenizer_encode_within_cuts_to_the_beginning_and_the_end(
    tokenizer: Tokenizer, limit: int
) -> None:
    texts = ["of " * 9, "", "of " * 8, "unaffable " * 20, "of"]
    whole = tokenizer.encode_batch(texts)
    rows, dropped = tokenizer.encode_within(texts, limit)
    for full, row, cut in zip(whole, rows, dropped, strict=True):
        assert row.dtype == np.int32
        assert row.tolist() == [*full[: len(row) - 1].tolist(), SEP]
        assert len(row) == min(len(full), limit)
        assert cut == len(full) - len(row)
    assert tokenizer.encode_within([], limit) == ([], [])


def test_tokenizer_cut_rows_are_what_the_library_makes(tokenizer: Tokenizer, minilm: Path) -> None:
    expected = library(minilm)
    expected.no_padding()
    expected.enable_truncation(16)
    text = "The first rule of the crossing was never to fight the river, nor to wait for it."
    (ids,), _ = tokenizer.encode_within([text], 16)
    assert ids.tolist() == expected.encode(text).ids


# -- where tokens stand ----------------------------------------------------------------------


def test_tokenizer_spans_are_code_points_of_the_text(tokenizer: Tokenizer) -> None:
    text = "\ufeffTable for Zoe\u0308 \U0001f600\r\nat\u00a07:30pm"
    ((ids, spans),) = tokenizer.encode_spans([text])
    assert ids.tolist() == encode(tokenizer, text)
    assert (spans.dtype, spans.shape) == (np.int32, (len(ids), 2))
    assert spans[0].tolist() == spans[-1].tolist() == [0, 0]
    found = [text[start:end] for start, end in spans[1:-1].tolist()]
    assert "".join(found).replace("\u0308", "") == "TableforZoe\U0001f600at7:30pm"
    assert found[-4:] == ["7", ":", "30", "pm"]


def test_tokenizer_spans_of_texts_of_any_length(tokenizer: Tokenizer) -> None:
    texts = ["a", "\u00ad", "long text " * 400]
    encoded = tokenizer.encode_spans(texts)
    assert [ids.tolist() for ids, _ in encoded] == [encode(tokenizer, text) for text in texts]
    assert [len(spans) for _, spans in encoded] == [3, 2, 802]
    assert tokenizer.encode_spans([]) == []
