"""Splitting of long texts."""

# ruff: noqa: RUF001, RUF002 - marks that look like others are what it is about

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt

from sprat.kernels.reference.checks import check_array, check_int

_ENDS = ".!?…"  # of a sentence, when white space follows
_WIDE_ENDS = "。！？．｡"  # of a sentence, whatever follows
_CLOSING = ")]}\"'”’»›」』）］｝】》〉〕"
_OPENING = "([{“‘«‹「『（［｛【《〈〔"
_CLOSING_TOO = "“‘«‹"  # after `_ENDS` only: the way of other languages to close
_NEVER_FIRST = frozenset(_CLOSING + _ENDS + _WIDE_ENDS + ",;:、，；：·・ー々\u3099\u309a")
_NEVER_LAST = frozenset(_OPENING)
_UNSPACED = re.compile(  # ideographs and kana: no white space between words
    "[\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001aff0-\U0001b16f"
    "\U00020000-\U0003ffff]"
)
_SPACE = re.compile(r"\s*")
_CANDIDATE = re.compile(
    rf"(?P<wide>[{_WIDE_ENDS}][{re.escape(_CLOSING)}]*)?"
    rf"(?P<end>[{_ENDS}][{re.escape(_CLOSING + _CLOSING_TOO)}]*(?=\s))?"
    r"(?P<space>\s*)"
)
_LINE_END = re.compile(r"\r\n|\r|\n")


def chunk(
    text: str, spans: npt.NDArray[np.int32], max_tokens: int, overlap_tokens: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    r"""Split a text into windows of whole words that end with a sentence where they can.

    Works on the tokens of any tokenizer. Between the end q of one token and the start p of the
    next, a sentence begins if the text before it, white space from p on included, ends with

    - one of ``. ! ? …``, any closing quotes and brackets, and white space;
    - one of ``。 ！ ？ ． ｡``, any closing quotes and brackets, and white space or none; without it
      only if neither a closing nor an ending mark follows;
    - a blank line: white space with two line ends (``\n``, ``\r`` or ``\r\n``).

    A word begins where a sentence does; where white space lies between the tokens or is the
    character before q or the one at p; and between an ideograph or kana and its neighbour, unless
    the neighbour is a mark that may not be separated from it (a comma, a bracket). Nothing begins
    where the two tokens share a character.

    The first window starts at token 0. A window that starts at s ends with the text if at most
    `max_tokens` = T are left. Else it ends in (s + T // 2, s + T], where the last sentence of this
    range begins; if none does, where the last word before s + T does; if one word is longer than
    that, at s + T. Every window ends after the one before it. With e the end of a window, the next
    one starts where the first word in [e - `overlap_tokens`, e] begins, so that neighbours share
    `overlap_tokens` tokens or up to a word fewer; it starts later if the word at e would not fit
    else, and inside of a word only if e lies inside of it.

    Parameters
    ----------
    text : str
        The whole text.
    spans : int32[N, 2]
        Start and end of each token in `text`, in characters, without special tokens; both ascend,
        tokens may share characters or have none. C-contiguous; read-only arrays are accepted.
    max_tokens : int
        T, the most tokens of a window, in [1, 2**31 - 1].
    overlap_tokens : int
        The most tokens that neighbours share, in [0, `max_tokens` - 1].

    Returns
    -------
    tokens : int64[C, 2]
        First token of each window and the one past its last. Each token is in some window; starts
        and ends ascend strictly. No window without tokens.
    characters : int32[C, 2]
        The same windows as characters of `text`.

    Raises
    ------
    TypeError
        An argument of another type or dtype.
    ValueError
        An array of another shape or layout, a span beyond the text or before its forerunner, or a
        number out of range.

    Examples
    --------
    >>> import numpy as np
    >>> text = "It rains. We stay in. They do not."
    >>> words = [(0, 2), (3, 9), (10, 12), (13, 17), (18, 21), (22, 26), (27, 29), (30, 34)]
    >>> tokens, characters = chunk(text, np.array(words, dtype=np.int32), 6, 3)
    >>> tokens.tolist()
    [[0, 5], [2, 8]]
    >>> [text[start:end] for start, end in characters]
    ['It rains. We stay in.', 'We stay in. They do not.']
    """
    if not isinstance(text, str):
        raise TypeError(f"text: expected str, got {type(text).__name__}")
    check_array("spans", spans, np.int32, 2)
    if spans.shape[1] != 2:
        raise ValueError(f"spans: expected 2 columns, got {spans.shape[1]}")
    check_int("max_tokens", max_tokens, 1, 2**31 - 1)
    check_int("overlap_tokens", overlap_tokens, 0, max_tokens - 1)
    ranges: list[list[int]] = spans.tolist()
    ahead = [0, 0]
    for i, (start, end) in enumerate(ranges):
        if not 0 <= start <= end <= len(text):
            raise ValueError(
                f"spans[{i}]: expected 0 <= start <= end <= {len(text)}, got [{start}, {end}]"
            )
        if start < ahead[0] or end < ahead[1]:
            raise ValueError(
                f"spans[{i}]: expected a start and an end not before those of the span ahead,"
                f" got [{start}, {end}] after [{ahead[0]}, {ahead[1]}]"
            )
        ahead = [start, end]

    words, sentences = _beginnings(text, ranges)
    windows: list[tuple[int, int]] = []
    start = end = 0
    while end < len(ranges):
        if end > 0:
            following = words[bisect_right(words, end)]
            earliest = max(end - overlap_tokens, start + 1)
            if following - end <= max_tokens:
                earliest = max(earliest, following - max_tokens)
            word = words[bisect_left(words, earliest)]
            start = word if word <= end else earliest
        limit = start + max_tokens
        if limit >= len(ranges):
            end = len(ranges)
        else:
            sentence = sentences[bisect_right(sentences, limit) - 1]
            word = words[bisect_right(words, limit) - 1]
            if sentence > max(end, start + max_tokens // 2):
                end = sentence
            else:
                end = word if word > end else limit
        windows.append((start, end))
    characters = [(ranges[first][0], ranges[last - 1][1]) for first, last in windows]
    return (
        np.array(windows, dtype=np.int64).reshape(-1, 2),
        np.array(characters, dtype=np.int32).reshape(-1, 2),
    )


def _beginnings(text: str, ranges: list[list[int]]) -> tuple[list[int], list[int]]:
    """Tokens at which words and sentences begin, with the start and the end of the text."""
    places = _sentences(text)
    words, sentences = {0, len(ranges)}, {0, len(ranges)}
    for i in range(1, len(ranges)):
        before, at = ranges[i - 1][1], ranges[i][0]
        if at < before:
            continue
        beyond = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        if beyond in places:
            sentences.add(i)
            words.add(i)
        around = text[max(before - 1, 0) : at + 1]
        if any(character.isspace() for character in around):
            words.add(i)
        elif before > 0 and at < len(text):
            last, first = text[before - 1], text[at]
            unspaced = _UNSPACED.match(last) or _UNSPACED.match(first)
            if unspaced and last not in _NEVER_LAST and first not in _NEVER_FIRST:
                words.add(i)
    return sorted(words), sorted(sentences)


def _sentences(text: str) -> set[int]:
    """Places in the text, beyond any white space, where a sentence begins."""
    places = set()
    for found in _CANDIDATE.finditer(text):
        space, after = found["space"], text[found.end() : found.end() + 1]
        if space:
            ended = found["wide"] or found["end"] or len(_LINE_END.findall(space)) >= 2
        else:
            ended = found["wide"] and not (after and after in _CLOSING + _ENDS + _WIDE_ENDS)
        if ended:
            places.add(found.end())
    return places
