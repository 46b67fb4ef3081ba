"""Grammars for answers: llguidance says which tokens may come next, and which must.

A grammar is compiled once for a vocabulary; every answer gets a copy, which costs microseconds. A
mask costs 10 to 250 microseconds for a vocabulary of 49,152.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.engine.llama_vocab import Vocabulary
from sprat.errors import InvalidInput
from sprat.values import Grammar

MOST_BYTES = 64 * 1024
"""Longest source of a grammar."""

KEPT = 64
"""Most compiled grammars that are kept."""

WORD_BITS = 32
_LONGEST_REASON = 300
# Forbids what would make answers that the schema does not describe, whatever a schema itself asks.
_JSON_OPTIONS: Any = {"whitespace_flexible": False, "lenient": False}


class Compiler:
    """Compiles grammars for one vocabulary. Any thread may call it.

    Parameters
    ----------
    vocabulary : Vocabulary
        Outlives this object. It is handed to llguidance at the first grammar, which takes most of a
        second.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._compile = functools.lru_cache(maxsize=KEPT)(self._compile_anew)

    def compile(self, grammar: Grammar) -> LlamaGrammar:
        """Compile a grammar, or find the one that was compiled lately.

        Raises
        ------
        InvalidInput
            It is malformed, too large, or plainly allows nothing. Field: ``grammar``.
        """
        size = len(grammar.source.encode("utf-8", "replace"))
        if not 1 <= size <= MOST_BYTES:
            raise InvalidInput(
                f"grammar: expected 1 to {MOST_BYTES} bytes, got {size}", field="grammar"
            )
        return self._compile(grammar)

    def _compile_anew(self, grammar: Grammar) -> LlamaGrammar:
        matcher = _begin(self._tokenizer, grammar)
        if not matcher.is_error():
            # What allows nothing often shows at the first token only.
            first = LlamaGrammar(matcher, self._vocabulary.size).matcher()
            if not first.mask().any():
                raise _refused(grammar, "it allows no answer")
        if matcher.is_error():
            raise _refused(grammar, matcher.get_error())
        return LlamaGrammar(matcher, self._vocabulary.size)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper

        wrapped = TokenizerWrapper(_Tokenizer(self._vocabulary))
        return LLTokenizer(
            wrapped,
            n_vocab=self._vocabulary.size,
            eos_token=self._vocabulary.end_ids,
            slices=LLTokenizer.json_slices(),
        )


class _Tokenizer:
    """A vocabulary in the form that llguidance takes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.end_ids[0]
        self.bos_token_id = None
        specials = {*vocabulary.control_ids.tolist()}
        # Its own mark for tokens that no text can make.
        self.tokens = [
            b"\xff" + vocabulary.raw(token) if token in specials else vocabulary.piece(token)
            for token in range(vocabulary.size)
        ]
        self.special_token_ids: list[int] = []

    def __call__(self, text: bytes) -> list[int]:
        # What a grammar forces goes on behind other tokens.
        ids: list[int] = self._vocabulary.continuation(text.decode("utf-8", "replace")).tolist()
        return ids


class LlamaGrammar:
    """A compiled grammar.

    Parameters
    ----------
    template : llguidance.LLMatcher
        At its start; only ever copied.
    vocabulary_size : int
        Number of logits.
    """

    def __init__(self, template: Any, vocabulary_size: int) -> None:
        self._template = template
        self._vocabulary_size = vocabulary_size

    def matcher(self) -> Matcher:
        """Begin an answer."""
        return Matcher(self._template.deep_copy(), self._vocabulary_size)


class Checker:
    """Whether texts fit a grammar that no model here has written them under.

    Parameters
    ----------
    grammar : Grammar

    Raises
    ------
    InvalidInput
        It is malformed. Field: ``grammar``.

    Examples
    --------
    >>> digits = Checker(Grammar("regex", "[0-9]{3}"))
    >>> digits.fits("123"), digits.fits("12")
    (True, False)
    """

    def __init__(self, grammar: Grammar) -> None:
        from llguidance import LLTokenizer

        self._template = _begin(LLTokenizer("byte"), grammar)
        if self._template.is_error():
            raise _refused(grammar, self._template.get_error())

    def fits(self, text: str) -> bool:
        """Whether all of a text is what the grammar allows; JSON has no white space between tokens.

        A text that the grammar becomes too complex for does not fit.
        """
        matcher = self._template.deep_copy()
        tokens = list(text.encode("utf-8", "replace"))
        if matcher.validate_tokens(tokens) < len(tokens):
            return False
        matcher.consume_tokens(tokens)
        return bool(not matcher.is_error() and matcher.is_accepting())


class Matcher:
    """Where one answer is in its grammar.

    Parameters
    ----------
    matcher : llguidance.LLMatcher
        At its start.
    vocabulary_size : int
        Number of logits.
    """

    def __init__(self, matcher: Any, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._size = vocabulary_size

    def mask(self) -> npt.NDArray[np.int32]:
        """What may come next, as `sprat.kernels.mask_logits` takes it: int32[ceil(V / 32)].

        All zero when the grammar allows nothing, or became too complex.
        """
        mask_w = np.zeros(-(-self._size // WORD_BITS), np.int32)
        if not self._matcher.is_error():
            self._matcher.unsafe_compute_mask_ptr(mask_w.ctypes.data, mask_w.nbytes)
        if self._matcher.is_error():
            mask_w[:] = 0
        return mask_w

    def take(self, token: int) -> None:
        """Move on by a token that the mask allowed."""
        self._matcher.consume_token(token)

    def take_forced(self, most: int) -> list[int]:
        """Move on by the tokens that must come now, ``most`` of them at most, and return them."""
        tokens = list(self._matcher.compute_ff_tokens())[:most]
        if tokens:
            self._matcher.consume_tokens(tokens)
        return tokens

    def count_allowed(self, tokens: list[int]) -> int:
        """How many of these tokens may come next, one after the other."""
        return int(self._matcher.validate_tokens(tokens))

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return bool(not self._matcher.is_error() and self._matcher.is_accepting())

    @property
    def is_over(self) -> bool:
        """Whether nothing but an end may come."""
        return bool(self._matcher.is_stopped())

    @property
    def has_failed(self) -> bool:
        """Whether the grammar became too complex to go on, or never ends."""
        return bool(self._matcher.is_error())


def _begin(tokenizer: Any, grammar: Grammar) -> Any:
    """A matcher at the start of a grammar, which may turn out to be an error.

    Raises
    ------
    InvalidInput
        It is malformed.
    """
    from llguidance import LLMatcher, LLParserLimits

    try:
        if grammar.kind == "json_schema":
            source = LLMatcher.grammar_from_json_schema(grammar.source, overrides=_JSON_OPTIONS)
        elif grammar.kind == "regex":
            source = LLMatcher.grammar_from_regex(grammar.source)
        else:
            source = LLMatcher.grammar_from_lark(grammar.source)
    except ValueError as error:
        raise _refused(grammar, str(error)) from None
    limits = LLParserLimits(verbose_errors=False)
    return LLMatcher(tokenizer, source, log_level=0, limits=limits)


def _refused(grammar: Grammar, reason: str) -> InvalidInput:
    # The first line says what is wrong; further ones repeat the grammar.
    line = reason.strip().partition("\n")[0][:_LONGEST_REASON]
    return InvalidInput(f"grammar: not a usable {grammar.kind}: {line}", field="grammar")
