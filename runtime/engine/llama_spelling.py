"""A known answer as the tokens in which the engine would have made it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.engine.llama_grammar import Matcher
from sprat.engine.llama_vocab import Vocabulary
from sprat.errors import InvalidInput
from sprat.values import IntArray


@dataclass(frozen=True, slots=True)
class Spelling:
    """The tokens of an answer.

    Attributes
    ----------
    ids : int32[T]
        The token that ends the answer among them, where one is needed.
    is_chosen : bool[T]
        Whether the model chooses a token; the grammar forces the others.
    """

    ids: IntArray
    is_chosen: npt.NDArray[np.bool_]


def spell(vocabulary: Vocabulary, text: str, end: int, matcher: Matcher | None) -> Spelling:
    """Spell an answer.

    Tokens that a grammar forces may cut a text elsewhere than its own tokens do; what follows them
    is then tokenized anew, as the model would go on.

    Parameters
    ----------
    text : str
        The whole answer.
    end : int
        The token that ends an answer.
    matcher : Matcher, optional
        A grammar at its start.

    Raises
    ------
    InvalidInput
        The grammar does not allow this answer. Field: ``answer``.
    """
    wanted = vocabulary.continuation(text).tolist()
    if matcher is None:
        ids = np.array([*wanted, end], np.int32)
        return Spelling(ids, np.ones(len(ids), bool))
    taken: list[int] = []
    is_chosen: list[bool] = []
    while not matcher.is_over:
        token = wanted.pop(0) if wanted else end
        is_allowed = matcher.is_complete if token == end else matcher.count_allowed([token]) == 1
        if not is_allowed:
            raise InvalidInput("answer: the grammar does not allow it", field="answer")
        taken.append(token)
        is_chosen.append(True)
        if token == end:
            break
        matcher.take(token)
        forced = matcher.take_forced(len(text) + 1)
        taken += forced
        is_chosen += [False] * len(forced)
        wanted = _rest(vocabulary, wanted, forced)
    if wanted:
        raise InvalidInput("answer: the grammar ends before it does", field="answer")
    return Spelling(np.array(taken, np.int32), np.array(is_chosen, bool))


def _rest(vocabulary: Vocabulary, wanted: list[int], forced: list[int]) -> list[int]:
    """What is left of the wanted tokens behind the forced ones."""
    if wanted[: len(forced)] == forced:
        return wanted[len(forced) :]
    text = b"".join(map(vocabulary.piece, wanted))
    start = b"".join(map(vocabulary.piece, forced))
    if not text.startswith(start):
        raise InvalidInput("answer: the grammar does not allow it", field="answer")
    try:
        rest = text[len(start) :].decode()
    except UnicodeDecodeError:
        raise InvalidInput("answer: the grammar cuts a character in two", field="answer") from None
    tokens: list[int] = vocabulary.continuation(rest).tolist()
    return tokens
