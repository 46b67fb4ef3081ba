"""WordPiece on both implementations: settings, ids, spans, limits, and what is refused.

One file, because all of it stands on the small vocabularies below.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import agree
from hypothesis import given
from hypothesis import strategies as st

from sprat.kernels import _wordpiece, reference
from sprat.kernels.reference import Ragged, WordPieceSettings

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", "'", "un", "##aff", "##able", "a", "##a"),
    *("b", "##b", "e", "##e", "\u00e9", "i", "##\u0307", "\u4e00", "\u8c48", "\u1112", "##\u1161"),
    *("##\u11ab", "##\u302e", "##\U0001d165", "\U0001d157", "\U0001f41f", ";", "<", "##ss", "##"),
    *("S", "##S", "\u03c3", "##\u03c3", "the", "##t", "o", "##of", "of", "##ofe", "##f", "[", "]"),
    *("##fx", "##\u1112"),
]
UNK, CLS, SEP = 1, 2, 3
SETTINGS = WordPieceSettings(
    {word: index for index, word in enumerate(WORDS)},
    unknown=UNK,
    before=(CLS,),
    after=(SEP,),
    special={word: index for index, word in enumerate(WORDS[:5])},
)
# Characters that something happens to, or that stand beside such.
ODD = (
    "a\u00e9\u0130\u00df\u03a3\u03c2\u01c5\u1e69\u0344\u0f73\u0f75\u0301\u0323\u0334\u0345\u302a"
    "\u302e\u302f\U0001d15e\U0001d160\U0001d165\U0001d16e\u4e00\ufa10\uf900\u2f00\ud55c\uae00\uac00"
    "\u1112\u1161\u11ab\u0958\u0cca\u0dddab \t\n\r\x0b\x00\x07\x7f\x85\xa0\u3000\u2028\u200b\u200d"
    "\ufeff\ufffd\u00ad\ue000\U000e0001\u037e\u226e\u1fef\u00b4!'[]#$+<=>^`|~\u2014\u3002\U0001f41f"
    "\u0378\U0010ffff\ufffe"
)


def same(got: Ragged, expected: Ragged) -> None:
    for name, one, other in zip(Ragged._fields, got, expected, strict=True):
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        assert one.flags.c_contiguous
        assert one.flags.writeable
        np.testing.assert_array_equal(one, other, err_msg=name)


class EveryWordPiece:
    """`WordPiece` of every implementation, called alike."""

    def __init__(self, *arguments: Any, method: str | None = None, **options: Any) -> None:
        def made(module: Any) -> Callable[[], Any]:
            kind = module.WordPiece
            call = kind if method is None else getattr(kind, method)
            return lambda: call(*arguments, **options)

        self.native, self._specified = agree(made(_wordpiece), made(reference))

    def encode_batch(self, *arguments: Any, **options: Any) -> Ragged:
        got, expected = agree(
            lambda: self.native.encode_batch(*arguments, **options),
            lambda: self._specified.encode_batch(*arguments, **options),
        )
        same(got, expected)
        return expected

    def tokens(self, ids: Any) -> tuple[str, ...]:
        got, expected = self.native.tokens(ids), self._specified.tokens(ids)
        assert got == expected
        return expected

    def pieces(self, text: str, **options: Any) -> list[str]:
        """The tokens of one text, without the special ones around it."""
        return [*self.tokens(self.encode_batch([text], **options).ids)][1:-1]


@pytest.fixture(scope="module")
def wordpiece() -> EveryWordPiece:
    return EveryWordPiece(SETTINGS)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        (" \t\n", []),
        ("Unaffable!", ["un", "##aff", "##able", "!"]),
        ("unaffx a", ["[UNK]", "a"]),
        ("theofe", ["the", "##ofe"]),
        ("ofx", ["[UNK]"]),  # The longest piece is taken, though "o", "##fx" would fit.
        ("oofe of", ["o", "##ofe", "of"]),
        ("E\u0301\u00e9", ["e", "##e"]),
        ("a\u4e00b", ["a", "\u4e00", "b"]),
        ("a\uf900b", ["a", "\u8c48", "b"]),
        ("\ud55c", ["\u1112", "##\u1161", "##\u11ab"]),
        ("a\0b\u200ba", ["a", "##b", "##a"]),
        ("a\u037eb a\u226eb", ["a", ";", "b", "a", "<", "b"]),
        ("\u03a3\u03c3 \u03c2", ["\u03c3", "##\u03c3", "[UNK]"]),
        ("\U0001f41f", ["\U0001f41f"]),
        ("[SEP]", ["[", "[UNK]", "]"]),
    ],
)
def test_wordpiece_encodes(wordpiece: EveryWordPiece, text: str, pieces: list[str]) -> None:
    assert wordpiece.pieces(text) == pieces


def test_wordpiece_spans_point_into_the_text(wordpiece: EveryWordPiece) -> None:
    text = "\u200b Un\u00adaffab\u0301le!\U0001f41f\u4e00"
    rows = wordpiece.encode_batch([text])
    found = [text[start:end] for start, end in rows.spans[1:-1].tolist()]
    assert found == ["Un", "\u00adaff"[1:], "ab\u0301le", "!", "\U0001f41f", "\u4e00"]
    assert rows.spans[[0, -1]].tolist() == [[0, 0], [0, 0]]


def test_wordpiece_rows_are_whole_and_in_order(wordpiece: EveryWordPiece) -> None:
    rows = wordpiece.encode_batch(["a b", "", "unaffable"])
    assert rows.offsets.tolist() == [0, 4, 6, 11]
    assert rows.dropped.tolist() == [0, 0, 0]
    empty = wordpiece.encode_batch([])
    assert empty.offsets.tolist() == [0]
    assert empty.spans.shape == (0, 2)


@pytest.mark.parametrize("flags", [*itertools.product([False, True], repeat=4)])
@pytest.mark.parametrize(("prefix", "longest"), [("##", 100), ("", 2), ("a", 0), ("#!", 3)])
def test_wordpiece_settings_all_agree(flags: tuple[bool, ...], prefix: str, longest: int) -> None:
    clean, chinese, strip, lower = flags
    every = EveryWordPiece(
        replace(
            SETTINGS,
            prefix=prefix,
            max_word_chars=longest,
            clean_text=clean,
            handle_chinese_chars=chinese,
            strip_accents=strip,
            lowercase=lower,
        )
    )
    pairs = ["".join(pair) for pair in itertools.product(ODD, "a\u0301\u302e\U0001d15e!", ODD[::7])]
    every.encode_batch([*ODD, *(f"a{each}b" for each in ODD), *pairs])


@given(
    st.lists(
        st.lists(
            st.one_of(
                st.sampled_from(ODD),
                st.sampled_from(["unaffable", "[SEP]", " ", "ab" * 60]),
                st.characters(exclude_categories=["Cs"]),
            )
        ).map("".join),
        max_size=4,
    ),
    st.one_of(st.none(), st.integers(2, 12)),
    st.booleans(),
    st.booleans(),
)
def test_wordpiece_property_native_does_as_specified(
    wordpiece: EveryWordPiece, texts: list[str], limit: int | None, count: bool, special: bool
) -> None:
    rows = wordpiece.encode_batch(texts, limit, 2, count_dropped=count, parse_special=special)
    whole = wordpiece.encode_batch(texts, parse_special=special)
    for index in range(len(texts)):
        row = rows.ids[rows.offsets[index] : rows.offsets[index + 1]]
        full = whole.ids[whole.offsets[index] : whole.offsets[index + 1]]
        excess = max(0, len(full) - (limit or len(full)))
        assert row.tolist() == [*full[: len(row) - 1], SEP]
        assert len(row) + excess == len(full)
        assert rows.dropped[index] == (excess if count or not excess else -1)


@pytest.mark.parametrize("length", [99, 100, 101])
def test_wordpiece_long_words_are_unknown(wordpiece: EveryWordPiece, length: int) -> None:
    known = ["a", *["##a"] * (length - 1)]
    assert wordpiece.pieces("a" * length) == (known if length <= 100 else ["[UNK]"])
    # Counted after normalization: a Hangul syllable is three characters, a mark none.
    assert wordpiece.pieces("a\u0301" * length) == (known if length <= 100 else ["[UNK]"])
    assert len(wordpiece.pieces("\ud55c" * 33 + "a")) == 100
    assert wordpiece.pieces("\ud55c" * 33 + "aa") == ["[UNK]"]


def test_wordpiece_parses_special_tokens_only_when_asked(wordpiece: EveryWordPiece) -> None:
    text = "a[SEP]b [MASK] [SE[PAD]]"
    assert not {0, 3, 4} & {*wordpiece.encode_batch([text]).ids[1:-1].tolist()}
    rows = wordpiece.encode_batch([text], parse_special=True)
    assert wordpiece.tokens(rows.ids)[1:-1] == (
        *("a", "[SEP]", "b", "[MASK]", "[", "[UNK]", "[PAD]", "]"),
    )
    assert [text[a:b] for a, b in rows.spans[1:-1].tolist()] == [
        *("a", "[SEP]", "b", "[MASK]", "[", "SE", "[PAD]", "]"),
    ]


def test_wordpiece_stops_early(wordpiece: EveryWordPiece) -> None:
    # Time tells it: a million times as long, and the arrays as small.
    long = "unaffable " * 100_000
    rows = wordpiece.native.encode_batch([long] * 1000, 16)
    assert rows.offsets[-1] == 16_000
    assert set(rows.dropped.tolist()) == {-1}
    counted = wordpiece.native.encode_batch([long], 16, count_dropped=True)
    assert counted.dropped.tolist() == [300_002 - 16]


@pytest.mark.parametrize("threads", [None, 1, 2, 3, 256])
def test_wordpiece_threads_change_nothing(wordpiece: EveryWordPiece, threads: int | None) -> None:
    texts = ["", "a" * 3000, "unaffable " * 50, "x", "\u4e00" * 100, "of", "b"]
    for count in range(len(texts) + 1):
        wordpiece.encode_batch(texts[:count], threads=threads)


def test_wordpiece_is_shared_by_threads(wordpiece: EveryWordPiece) -> None:
    texts = ["unaffable " * 300] * 20
    expected = wordpiece.native.encode_batch(texts)
    results: list[Ragged] = []
    workers = [
        threading.Thread(target=lambda: results.append(wordpiece.native.encode_batch(texts)))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    for result in results:
        same(result, expected)


class Word(str):
    """A str that is a little more."""


def test_wordpiece_takes_every_kind_of_sequence_and_str(wordpiece: EveryWordPiece) -> None:
    expected = wordpiece.encode_batch(["a b", "a b"])

    class Texts(Sequence[str]):
        def __getitem__(self, index: Any) -> Any:
            return ("a b", Word("a b"))[index]

        def __len__(self) -> int:
            return 2

    for texts in (("a b", "a b"), Texts(), [Word("a b")] * 2):
        same(wordpiece.encode_batch(texts), expected)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("text", TypeError, "texts: expected a sequence of str, got str"),
        (None, TypeError, "texts: expected a sequence of str, got NoneType"),
        ({"a"}, TypeError, "texts: expected a sequence of str, got set"),
        (iter(["a"]), TypeError, "texts: expected a sequence of str, got list_iterator"),
        (["a", b"b"], TypeError, "texts[1]: expected str, got bytes"),
        (b"ab", TypeError, "texts[0]: expected str, got int"),
        (["\ud800", None], TypeError, "texts[1]: expected str, got NoneType"),
        (["a", "b\ud800"], ValueError, "texts[1]: half a surrogate pair at index 1, which is not"),
        (["\udfffa\ud800"], ValueError, "texts[0]: half a surrogate pair at index 0, which is"),
        (["a", "\U0001f41f" * 99 + "\udc00"], ValueError, "texts[1]: half a surrogate pair at in"),
        (["a" * 100 + "\ud800"], ValueError, "texts[0]: half a surrogate pair at index 100"),
    ],
)
def test_wordpiece_refuses_other_texts(
    wordpiece: EveryWordPiece, texts: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        wordpiece.encode_batch(texts, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_tokens": "5"}, TypeError, "max_tokens: expected int or None, got str"),
        ({"max_tokens": 5.0}, TypeError, "max_tokens: expected int or None, got float"),
        ({"max_tokens": True}, TypeError, "max_tokens: expected int or None, got bool"),
        ({"max_tokens": 1}, ValueError, "max_tokens: expected at least 2, the number of special"),
        ({"max_tokens": -(2**70)}, ValueError, "max_tokens: expected at least 2, the number of"),
        ({"threads": 1.0}, TypeError, "threads: expected int or None, got float"),
        ({"threads": False}, TypeError, "threads: expected int or None, got bool"),
        ({"threads": 0}, ValueError, "threads: expected 1 to 256, got 0"),
        ({"threads": 257}, ValueError, "threads: expected 1 to 256, got 257"),
        ({"threads": 2**70}, ValueError, f"threads: expected 1 to 256, got {2**70}"),
        ({"count_dropped": 1}, TypeError, "count_dropped: expected bool, got int"),
        ({"parse_special": None}, TypeError, "parse_special: expected bool, got NoneType"),
    ],
)
def test_wordpiece_refuses_other_options(
    wordpiece: EveryWordPiece, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        wordpiece.encode_batch(["a"], **options)


def test_wordpiece_takes_any_large_limit(wordpiece: EveryWordPiece) -> None:
    for limit in (4, 2**31, 2**62, 2**63, 2**64, 2**100):
        assert wordpiece.encode_batch(["a b"], limit).dropped.tolist() == [0]


def test_wordpiece_has_no_text_for_an_unknown_id(wordpiece: EveryWordPiece) -> None:
    assert wordpiece.tokens(np.array([CLS, 999, -1], np.int32)) == ("[CLS]", "", "")


def test_wordpiece_takes_no_other_settings() -> None:
    for settings in (None, {"vocabulary": {}}, "vocab.txt"):
        with pytest.raises(TypeError, match=r"^settings: expected WordPieceSettings, got"):
            EveryWordPiece(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": {"a": 0, "b": 0}}, "vocabulary: expected one token an id, got 'a' and"),
        ({"vocabulary": {"a": -1}}, "vocabulary: expected an id in [0, 2147483648), got -1"),
        ({"vocabulary": {"a": 2**31}}, "vocabulary: expected an id in [0, 2147483648), got 21474"),
        ({"vocabulary": {"a": True}}, "vocabulary: expected an id in [0, 2147483648), got True"),
        ({"vocabulary": {b"a": 0}}, "vocabulary: expected a string, got b'a'"),
        ({"vocabulary": {"\ud800": 0}}, "vocabulary: expected text, got half a surrogate pair"),
        ({"unknown": None}, "unknown: expected an id in [0, 2147483648), got None"),
        ({"prefix": None}, "prefix: expected a string, got None"),
        ({"max_word_chars": -1}, "max_word_chars: expected an int in [0, 2147483648), got -1"),
        ({"max_word_chars": 2**31}, "max_word_chars: expected an int in [0, 2147483648), got 2"),
        ({"before": (0, -1)}, "before[1]: expected an id in [0, 2147483648), got -1"),
        ({"lowercase": 1}, "lowercase: expected true or false, got 1"),
        ({"special": {"[XXX]": 9}}, "special['[XXX]']: expected a token of the vocabulary and"),
        ({"special": {"[SEP]": 9}}, "special['[SEP]']: expected a token of the vocabulary and"),
    ],
)
def test_wordpiece_settings_refuse(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        replace(SETTINGS, **{"special": {}, **changes})


def test_wordpiece_takes_the_largest_ids_and_words() -> None:
    every = EveryWordPiece(
        WordPieceSettings({"a" * 5000: 2**31 - 1, "": 7}, unknown=0, max_word_chars=2**31 - 1)
    )
    rows = every.encode_batch(["a" * 5000, "a" * 4999, ""])
    assert rows.ids.tolist() == [2**31 - 1, 0]
    assert rows.offsets.tolist() == [0, 1, 2, 2]
    assert every.encode_batch(["a"], 0).dropped.tolist() == [-1]


# -- files ----------------------------------------------------------------------------------


def document(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json; ``a__b=c`` changes b of a."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    made: dict[str, Any] = {
        "version": "1.0",
        "truncation": {"max_length": 4},
        "padding": None,
        "added_tokens": [
            {"id": index, "content": word, "special": True, **special}
            for index, word in enumerate(WORDS[:5])
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [CLS], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [SEP], "tokens": ["[SEP]"]},
            },
        },
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: index for index, word in enumerate(WORDS)},
        },
    }
    for path, value in changes.items():
        *parents, name = path.split("__")
        target: Any = made
        for parent in parents:
            target = target[int(parent)] if isinstance(target, list) else target[parent]
        target[name] = value
    return made


def from_document(path: Path, content: dict[str, Any]) -> EveryWordPiece:
    path.write_text(json.dumps(content), encoding="utf-8")
    return EveryWordPiece(path, method="from_tokenizer_json")


def test_wordpiece_reads_a_tokenizer_json(tmp_path: Path, wordpiece: EveryWordPiece) -> None:
    read = from_document(tmp_path / "t.json", document())
    texts = ["Unaffable \u00c9a!", "[SEP]"]
    same(read.encode_batch(texts), wordpiece.encode_batch(texts))
    same(
        read.encode_batch(texts, parse_special=True),
        wordpiece.encode_batch(texts, parse_special=True),
    )


@pytest.mark.parametrize(
    ("changes", "text", "pieces"),
    [
        ({"normalizer__lowercase": False}, "S\u00e9", ["[UNK]"]),
        ({"normalizer__lowercase": False}, "\u00e9", ["\u00e9"]),
        ({"normalizer__strip_accents": False}, "\u00c9", ["\u00e9"]),
        ({"normalizer__lowercase": False, "normalizer__strip_accents": True}, "\u00e9", ["e"]),
        ({"normalizer__clean_text": False}, "a\x07", ["[UNK]"]),
        ({"normalizer__handle_chinese_chars": False}, "a\u4e00", ["[UNK]"]),
        ({"model__max_input_chars_per_word": 1}, "ab a", ["[UNK]", "a"]),
        ({"model__continuing_subword_prefix": "o"}, "af", ["a", "of"]),
        ({"model__unk_token": "!"}, "zz", ["!"]),
    ],
)
def test_wordpiece_heeds_a_tokenizer_json(
    tmp_path: Path, changes: dict[str, Any], text: str, pieces: list[str]
) -> None:
    assert from_document(tmp_path / "t.json", document(**changes)).pieces(text) == pieces


@pytest.mark.parametrize(
    ("processor", "ids"),
    [
        (None, [10]),
        ({"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}, [2, 10, 3]),
        (
            {
                "type": "TemplateProcessing",
                "single": [
                    {"Sequence": {"id": "A"}},
                    {"SpecialToken": {"id": "x"}},
                    {"SpecialToken": {"id": "x"}},
                ],
                "special_tokens": {"x": {"ids": [7, 8]}},
            },
            [10, 7, 8, 7, 8],
        ),
    ],
)
def test_wordpiece_heeds_the_post_processor(tmp_path: Path, processor: Any, ids: list[int]) -> None:
    every = from_document(tmp_path / "t.json", document(post_processor=processor))
    assert every.encode_batch(["a"]).ids.tolist() == ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": None}, "normalizer: expected BertNormalizer, got None"),
        ({"normalizer__type": "NFC"}, "normalizer: expected BertNormalizer, got NFC"),
        ({"normalizer__lowercase": None}, "normalizer.lowercase: expected true or false, got No"),
        ({"pre_tokenizer__type": "Whitespace"}, "pre_tokenizer: expected BertPreTokenizer, got W"),
        ({"model__type": "BPE"}, "model: expected WordPiece, got BPE"),
        ({"model__unk_token": "[XXX]"}, "model.vocab[model.unk_token]: expected an id in"),
        ({"model__unk_token": None}, "model.unk_token: expected a string, got None"),
        ({"model__vocab": []}, "model.vocab: expected an object, got list"),
        ({"model__vocab__a": 0}, "vocabulary: expected one token an id, got '[PAD]' and 'a'"),
        ({"model__max_input_chars_per_word": 1.5}, "max_word_chars: expected an int in [0, 214"),
        ({"model__continuing_subword_prefix": 7}, "model.continuing_subword_prefix: expected a"),
        ({"post_processor__type": "RobertaProcessing"}, "post_processor: expected TemplateProc"),
        ({"post_processor__single": None}, "post_processor.single: expected a list"),
        ({"post_processor__single": []}, "post_processor.single: expected sequence A once"),
        ({"post_processor__single": [{}]}, "post_processor.single[0]: expected a special token"),
        (
            {"post_processor__single": [{"Sequence": {"id": "B"}}]},
            "post_processor.single[0]: expected sequence A",
        ),
        ({"post_processor__special_tokens": {}}, "post_processor.single[0]: expected an object"),
        (
            {"post_processor__special_tokens__[CLS]": {"ids": 1}},
            "post_processor.special_tokens['[CLS]'].ids: expected a list",
        ),
        (
            {"post_processor": {"type": "BertProcessing", "cls": ["[CLS]"]}},
            "post_processor.cls: expected a token and its id",
        ),
        ({"post_processor": "none"}, "post_processor: expected an object, got str"),
        ({"added_tokens": {}}, "added_tokens: expected a list, got dict"),
        ({"added_tokens": [7]}, "added_tokens[0]: expected an object, got int"),
        ({"added_tokens__0__special": False}, "added_tokens[0]: expected a special token, got"),
        ({"added_tokens__1__lstrip": True}, "added_tokens[1].lstrip: expected false, got True"),
        ({"added_tokens__1__normalized": True}, "added_tokens[1].normalized: expected false"),
        ({"added_tokens__4__content": "[NEW]"}, "special['[NEW]']: expected a token of the"),
        ({"added_tokens__4__id": 9}, "special['[MASK]']: expected a token of the vocabulary and"),
        ({"added_tokens__4__content": None}, "added_tokens[4].content: expected a string"),
    ],
)
def test_wordpiece_refuses_what_it_does_not_do(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        from_document(tmp_path / "t.json", document(**changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file: expected JSON"),
        (b"{", "file: expected JSON"),
        (b"\xff{}", "file: expected JSON"),
        (b"[" * 100_000, "file: expected JSON"),
        (b"[]", "file: expected an object, got list"),
        (b"{}", "normalizer: expected BertNormalizer, got None"),
    ],
)
def test_wordpiece_refuses_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        EveryWordPiece(path, method="from_tokenizer_json")
    with pytest.raises(FileNotFoundError):
        EveryWordPiece(tmp_path / "absent.json", method="from_tokenizer_json")


def test_wordpiece_reads_a_vocab_txt(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    lines = ["[UNK] ", "[CLS]\r", "[SEP]", "\u00e9\u3000", "e", "", "E\x1f", "##e", "e"]
    path.write_bytes("\n".join(lines).encode() + b"\n")
    plain = EveryWordPiece(path, method="from_vocab")
    assert plain.encode_batch(["E e\u0301"]).ids.tolist() == [1, 8, 8, 2]
    cased = EveryWordPiece(path, method="from_vocab", lowercase=False)
    assert cased.encode_batch(["\u00e9 E ee"]).ids.tolist() == [1, 3, 0, 8, 7, 2]
    kept = EveryWordPiece(path, method="from_vocab", strip_accents=False)
    assert kept.encode_batch(["\u00c9"]).ids.tolist() == [1, 3, 2]
    for missing in ("[UNK]", "[CLS]", "[SEP]"):
        path.write_text("\n".join(each for each in WORDS if each != missing), encoding="utf-8")
        with pytest.raises(ValueError, match=rf"^vocab: expected {re.escape(missing)} in the"):
            EveryWordPiece(path, method="from_vocab")
    path.write_bytes(b"[UNK]\n\xff")
    with pytest.raises(ValueError, match="utf-8"):
        EveryWordPiece(path, method="from_vocab")
