"""BERT's tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference import bert_unicode
from sprat.kernels.reference.wordpiece_settings import WordPieceSettings

MAX_THREADS = 256


class Ragged(NamedTuple):
    """Rows of tokens, one behind the other: row b is ``ids[offsets[b]:offsets[b + 1]]``.

    Attributes
    ----------
    ids : int32[N]
        Token ids, special tokens included.
    offsets : int64[B + 1]
        Where rows start; the last one is N.
    spans : int32[N, 2]
        Start and end of each token in its text, in code points; 0 and 0 for the special tokens
        around a row.
    dropped : int64[B]
        Tokens that were cut from the row: 0 of a whole row, -1 where they were not counted.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    spans: npt.NDArray[np.int32]
    dropped: npt.NDArray[np.int64]


class Character(NamedTuple):
    """A character of normalized text and the index of what it comes from."""

    text: str
    at: int


class WordPiece:
    """BERT's tokenizer: normalizer, splitting into words, words into pieces.

    Ids and spans are exactly those of the ``tokenizers`` library for the same settings, with
    ``encode_special_tokens`` set. In this order:

    1. `clean_text` removes control, format and private-use characters and U+FFFD, and turns white
       space into spaces.
    2. `handle_chinese_chars` puts spaces around Chinese characters.
    3. `strip_accents` decomposes characters (NFD) and removes nonspacing marks.
    4. `lowercase` maps each character on its own, whatever stands around it.
    5. White space separates words; each punctuation character is a word.
    6. A word becomes the longest token of the vocabulary that it starts with, then the longest
       that its rest starts with, of those with the `prefix`, and so on. Where there is none, or
       in a word of more than `max_word_chars`, the whole word becomes the unknown token.

    Any number of threads may use one instance at once.

    Parameters
    ----------
    settings : WordPieceSettings
        The vocabulary and the rules.

    References
    ----------
    Devlin et al., "BERT", NAACL 2019; Song et al., "Fast WordPiece Tokenization", EMNLP 2021.

    Examples
    --------
    >>> words = ["[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "!"]
    >>> vocabulary = {word: index for index, word in enumerate(words)}
    >>> settings = WordPieceSettings(vocabulary, unknown=0, before=(1,), after=(2,))
    >>> rows = WordPiece(settings).encode_batch(["Unaffable!", "\u00fcn"])
    >>> rows.ids.tolist(), rows.offsets.tolist()
    ([1, 3, 4, 5, 6, 2, 1, 3, 2], [0, 6, 9])
    >>> rows.spans[:4].tolist()
    [[0, 0], [0, 2], [2, 5], [5, 9]]
    """

    __slots__ = ("_pieces", "_settings", "_tokens")

    def __init__(self, settings: WordPieceSettings) -> None:
        if not isinstance(settings, WordPieceSettings):
            raise TypeError(f"settings: expected WordPieceSettings, got {type(settings).__name__}")
        self._settings = settings
        self._pieces = dict(settings.vocabulary)
        self._tokens = {token_id: token for token, token_id in self._pieces.items()}

    @classmethod
    def from_tokenizer_json(cls, path: str | os.PathLike[str]) -> WordPiece:
        """Make one as the tokenizer.json of the ``tokenizers`` library says.

        The same as ``WordPiece(WordPieceSettings.from_tokenizer_json(path))``.

        Raises
        ------
        OSError, ValueError
            As `WordPieceSettings.from_tokenizer_json` does.
        """
        return cls(WordPieceSettings.from_tokenizer_json(path))

    @classmethod
    def from_vocab(
        cls,
        path: str | os.PathLike[str],
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
    ) -> WordPiece:
        """Make one from a vocab.txt.

        The same as ``WordPiece(WordPieceSettings.from_vocab(path, ...))``.

        Raises
        ------
        OSError, ValueError
            As `WordPieceSettings.from_vocab` does.
        """
        return cls(
            WordPieceSettings.from_vocab(
                path,
                lowercase=lowercase,
                strip_accents=strip_accents,
                clean_text=clean_text,
                handle_chinese_chars=handle_chinese_chars,
            )
        )

    def encode_batch(
        self,
        texts: Sequence[str],
        max_tokens: int | None = None,
        threads: int | None = None,
        *,
        count_dropped: bool = False,
        parse_special: bool = False,
    ) -> Ragged:
        """Encode texts.

        Parameters
        ----------
        texts : sequence of str
            Any text without surrogates, the empty one too.
        max_tokens : int, optional
            Most tokens of a row, special ones included. A longer row keeps its beginning and the
            special tokens behind it. By default rows are whole.
        threads : int, optional
            Threads that share the work, in [1, 256]; by default the caller's alone.
        count_dropped : bool, default False
            Count the tokens that `max_tokens` drops. That reads a text to its end, in constant
            memory; else reading stops soon after the row is full.
        parse_special : bool, default False
            Read special tokens, such as a literal ``[SEP]``, as such. By default they are text
            like any other.

        Returns
        -------
        Ragged
            New arrays.

        Raises
        ------
        TypeError
            An argument of another type.
        ValueError
            A surrogate in a text, even in a part that is dropped; a text of 2**31 code points or
            more; a number out of range.

        Notes
        -----
        The native twin gives the GIL up where the texts are longer than 2,048 code points
        together, about 20 microseconds of work: below that, waiting to get it back costs more.
        """
        texts = _checked_texts(texts)
        around = len(self._settings.before) + len(self._settings.after)
        if max_tokens is not None:
            _check_int("max_tokens", max_tokens)
            if max_tokens < around:
                raise ValueError(
                    f"max_tokens: expected at least {around}, the number of special tokens,"
                    f" got {max_tokens}"
                )
        if threads is not None:
            _check_int("threads", threads)
            if not 1 <= threads <= MAX_THREADS:
                raise ValueError(f"threads: expected 1 to {MAX_THREADS}, got {threads}")
        for name, flag in (("count_dropped", count_dropped), ("parse_special", parse_special)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name}: expected bool, got {type(flag).__name__}")

        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        offsets, dropped = [0], []
        before = [(token_id, 0, 0) for token_id in self._settings.before]
        after = [(token_id, 0, 0) for token_id in self._settings.after]
        for text in texts:
            tokens = [*self._encode(text, parse_special)]
            room = len(tokens) if max_tokens is None else max_tokens - around
            excess = max(0, len(tokens) - room)
            for token_id, start, end in [*before, *tokens[:room], *after]:
                ids.append(token_id)
                spans.append((start, end))
            offsets.append(len(ids))
            dropped.append(excess if count_dropped or not excess else -1)
        return Ragged(
            np.array(ids, np.int32),
            np.array(offsets, np.int64),
            np.array(spans, np.int32).reshape(-1, 2),
            np.array(dropped, np.int64),
        )

    def tokens(self, ids: npt.NDArray[np.int32]) -> tuple[str, ...]:
        """Look up what ids stand for, for people.

        Parameters
        ----------
        ids : int32[T]
            Any ids.

        Returns
        -------
        tuple of str
            The vocabulary's entry for each; empty where there is none.
        """
        return tuple(self._tokens.get(token_id, "") for token_id in ids.tolist())

    def _encode(self, text: str, parse_special: bool) -> Iterator[tuple[int, int, int]]:
        start = 0
        if parse_special:
            longest_first = sorted(self._settings.special, key=len, reverse=True)
            at = 0
            while at < len(text):
                found = next((each for each in longest_first if text.startswith(each, at)), None)
                if found is None:
                    at += 1
                    continue
                yield from self._encode_part(text[start:at], start)
                start, at = at, at + len(found)
                yield self._settings.special[found], start, at
                start = at
        yield from self._encode_part(text[start:], start)

    def _encode_part(self, text: str, offset: int) -> Iterator[tuple[int, int, int]]:
        characters = [Character(each, at) for at, each in enumerate(text, offset)]
        for word in _words(_normalized(characters, self._settings)):
            yield from self._pieces_of(word)

    def _pieces_of(self, word: list[Character]) -> list[tuple[int, int, int]]:
        unknown = [(self._settings.unknown, word[0].at, word[-1].at + 1)]
        if len(word) > self._settings.max_word_chars:
            return unknown
        text = "".join(each.text for each in word)
        pieces: list[tuple[int, int, int]] = []
        start = 0
        while start < len(word):
            prefix = self._settings.prefix if start else ""
            for end in range(len(word), start, -1):
                token_id = self._pieces.get(prefix + text[start:end])
                if token_id is not None:
                    break
            else:
                return unknown
            pieces.append((token_id, word[start].at, word[end - 1].at + 1))
            start = end
        return pieces


def _check_int(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected int or None, got {type(value).__name__}")


def _checked_texts(texts: object) -> tuple[str, ...]:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TypeError(f"texts: expected a sequence of str, got {type(texts).__name__}")
    checked = tuple(texts)
    for index, text in enumerate(checked):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}]: expected str, got {type(text).__name__}")
        if len(text) >= 2**31:
            raise ValueError(f"texts[{index}]: expected less than 2**31 code points")
    for index, text in enumerate(checked):
        for at, each in enumerate(text):
            if "\ud800" <= each <= "\udfff":
                raise ValueError(
                    f"texts[{index}]: half a surrogate pair at index {at}, which is not text"
                )
    return checked


def _normalized(characters: list[Character], settings: WordPieceSettings) -> list[Character]:
    if settings.clean_text:
        characters = [
            Character(" ", each.at) if each.text in _set("white") else each
            for each in characters
            if each.text not in _set("dropped")
        ]
    if settings.handle_chinese_chars:
        characters = [
            Character(part, each.at)
            for each in characters
            for part in ((" ", each.text, " ") if each.text in _set("chinese") else each.text)
        ]
    if settings.strip_accents:
        characters = [each for each in _decomposed(characters) if each.text not in _set("marks")]
    if settings.lowercase:
        lower = _mapping("lower")
        characters = [
            Character(part, each.at)
            for each in characters
            for part in lower.get(each.text, each.text)
        ]
    return characters


def _decomposed(characters: list[Character]) -> list[Character]:
    """NFD, with the places that the library gives to marks that change their order.

    The n-th character of the result comes from the n-th of the input, not counting what
    decomposition adds: that shares the place of what stands in front of it.
    """
    mappings, ranks = _mapping("decompositions"), _ranks()
    order: list[tuple[str, bool]] = []
    marks: list[tuple[str, bool]] = []
    for each in characters:
        parts = mappings.get(each.text) or _hangul(each.text) or each.text
        for index, part in enumerate(parts):
            if part not in ranks:
                order += sorted(marks, key=lambda mark: ranks[mark[0]])
                marks = []
            (marks if part in ranks else order).append((part, index > 0))
    order += sorted(marks, key=lambda mark: ranks[mark[0]])
    decomposed: list[Character] = []
    places = iter(characters)
    for part, added in order:
        decomposed.append(Character(part, decomposed[-1].at if added else next(places).at))
    return decomposed


def _hangul(text: str) -> str:
    """Decompose a Hangul syllable (Unicode Standard, section 3.12); empty for anything else."""
    if not "\uac00" <= text <= "\ud7a3":
        return ""
    lead, rest = divmod(ord(text) - 0xAC00, 21 * 28)
    vowel, tail = divmod(rest, 28)
    return chr(0x1100 + lead) + chr(0x1161 + vowel) + (chr(0x11A7 + tail) if tail else "")


def _words(characters: list[Character]) -> Iterator[list[Character]]:
    word: list[Character] = []
    for each in characters:
        apart = each.text in _set("punctuation")
        if (apart or each.text in _set("white")) and word:
            yield word
            word = []
        if apart:
            yield [each]
        elif each.text not in _set("white"):
            word.append(each)
    if word:
        yield word


@cache
def _set(name: str) -> frozenset[str]:
    found: set[str] = set()
    for item in getattr(bert_unicode, name.upper()).split():
        first, last = (int(code, 16) for code in item.split("-"))
        found.update(map(chr, range(first, last + 1)))
    return frozenset(found)


@cache
def _mapping(name: str) -> dict[str, str]:
    items = (item.split("=") for item in getattr(bert_unicode, name.upper()).split())
    return {
        chr(int(code, 16)): "".join(chr(int(each, 16)) for each in parts.split("+"))
        for code, parts in items
    }


@cache
def _ranks() -> dict[str, int]:
    ranks: dict[str, int] = {}
    for item in bert_unicode.RANKS.split():
        codes, rank = item.split("=")
        first, last = (int(code, 16) for code in codes.split("-"))
        ranks.update((chr(code), int(rank)) for code in range(first, last + 1))
    return ranks
