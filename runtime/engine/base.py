"""What an engine is to the rest of sprat: two small interfaces, one per kind of model.

An engine executes; it has no threads, queues or policies of its own. `sprat.scheduler` decides
what runs when, and hands every call the number of compute threads that it holds permits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from sprat.values import (
    FinishReason,
    FloatArray,
    Grammar,
    IntArray,
    Message,
    Sampling,
    Scoring,
    TokenChoice,
)


class EncoderEngine(Protocol):
    """Token ids in, sentence vectors out, or the states of the tokens."""

    dimension: int
    max_tokens: int
    alone_threads: int
    """Compute threads on which a short text runs fastest while nothing else does."""

    def encode(self, rows: Sequence[IntArray], *, threads: int) -> FloatArray:
        """Run one batch on the calling thread.

        Several threads may call at once, as many as the engine was made with workers.

        Parameters
        ----------
        rows : sequence of int32[T_i]
            Token ids of each text, special tokens included, 1 <= T_i <= max_tokens.
        threads : int
            Most compute threads to use: 1, or up to ``alone_threads``.

        Returns
        -------
        float32[B, dimension]
            Pooled, L2-normalized vectors in the order of ``rows``.
        """
        ...

    def states(self, rows: Sequence[IntArray], *, threads: int) -> list[FloatArray]:
        """Run one batch on the calling thread; what `encode` would pool.

        Returns
        -------
        list of float32[T_i, H]
            The last layer's state of each token, in the order of ``rows``. H is the model's own
            width.
        """
        ...

    def close(self) -> None:
        """Release the weights. No call may be running."""
        ...


class CompiledGrammar(Protocol):
    """A grammar as `GenerativeEngine.compile` made it: only that engine looks inside."""


@dataclass(frozen=True, slots=True)
class Start:
    """A sequence for `GenerativeEngine.start`.

    Attributes
    ----------
    sequence : int
        The caller's identifier, unique among the live sequences.
    prompt : int32[T]
        Prompt tokens, 1 <= T < context_length.
    shared : int
        First tokens of the prompt that other prompts begin with too, in [0, T): they may be decoded
        once and kept.
    grammar : CompiledGrammar or None
        What the answer must look like.
    lookup : bool
        Whether tokens may be guessed from prompt and answer, and several checked at a time.
    logprobs : int or None
        How many of the most probable tokens to report beside each one; None reports nothing.
    adapter : str
        Name of the LoRA adapter to work under; empty for none.
    """

    sequence: int
    prompt: IntArray
    sampling: Sampling
    shared: int = 0
    grammar: CompiledGrammar | None = None
    lookup: bool = False
    logprobs: int | None = None
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step brought for one sequence.

    Attributes
    ----------
    text : str
        New whole code points that no stop string can still cut off; may be empty.
    tokens : int
        Tokens that the answer grew by, an end token included.
    finish_reason : str or None
        Set on the last progress of a sequence; its cells are free by then.
    error : str or None
        The engine could not go on with this sequence; the others are unharmed.
    complete : bool
        With ``finish_reason``: the answer ended by itself, and satisfies the grammar.
    logprobs : tuple of TokenChoice
        The tokens, where they were asked for, without an end token. Those that the grammar left no
        choice about have a logprob of 0.
    cached : int
        Prompt tokens that were decoded before, for another sequence; once, with the first progress.
    forced : int
        Of ``tokens``, those that the grammar left no choice about.
    drafted, accepted : int
        Tokens that were guessed, and those of them that were right.
    """

    sequence: int
    text: str
    tokens: int
    finish_reason: FinishReason | None = None
    error: str | None = None
    complete: bool = False
    logprobs: tuple[TokenChoice, ...] = ()
    cached: int = 0
    forced: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """A prompt and the options that may follow it, for `ChoiceEngine.start`.

    Attributes
    ----------
    prompt : int32[T]
        Prompt tokens, from 1.
    shared : int
        First tokens of the prompt that other prompts begin with too, in [0, T): they are decoded
        once and kept.
    options : tuple of int32[T_i]
        Tokens of each option, from 1 to `MOST_OPTION_TOKENS`.
    scoring : {"constrained", "full"}
        See `sprat.engine.label_trie.LabelTrie`.
    normalize_length : bool
        With ``full`` scoring: compare means over tokens instead of sums.
    common : int
        0, or the first tokens of the prompt, in (shared, T), that other choices about the same text
        begin with too: they are decoded once, and forgotten with the last live one of these.
    is_pruned : bool
        Whether improbable options may stay untold apart, see `Chosen.pruned`.
    adapter : str
        Name of the LoRA adapter to work under; empty for none.
    """

    prompt: IntArray
    shared: int
    options: tuple[IntArray, ...]
    scoring: Scoring = "constrained"
    normalize_length: bool = False
    common: int = 0
    is_pruned: bool = True
    adapter: str = ""


MOST_OPTION_TOKENS = 32
"""Longest option: it is decoded in one step."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What became of a `Choice`.

    Attributes
    ----------
    number : int
        The caller's identifier.
    probabilities : float32[K]
        Of each option; empty on an error.
    pruned : float
        Probability on options that were not told apart, in [0, 1].
    cached_tokens : int
        Of the prompt's ``shared`` tokens, those that were decoded before, for another request.
    decoded_tokens : int
        Tokens that were decoded for this request.
    error : str or None
        Why there is no answer.
    """

    number: int
    probabilities: FloatArray = field(default_factory=lambda: np.empty(0, np.float32))
    pruned: float = 0.0
    cached_tokens: int = 0
    decoded_tokens: int = 0
    error: str | None = None


class ChoiceEngine(Protocol):
    """Prompts and options in, probabilities out. The owner's thread alone calls it."""

    step_tokens: dict[int, int]
    """Tokens that the last step decoded, by the number of the choice that they were for. What
    several share counts for the one that had it decoded."""

    def has_room(self, choice: Choice) -> bool:
        """Whether `start` would take it now: not while others are live under another adapter."""
        ...

    def start(self, number: int, choice: Choice) -> None:
        """Take a choice on; ``number`` is unique among the live ones.

        Raises
        ------
        InvalidInput
            Two options are the same to the model.
        EngineError
            There is no room.
        """
        ...

    def stop(self, number: int) -> None:
        """Drop a choice; one that is not live is ignored."""
        ...

    def step(self, *, max_tokens: int, threads: int) -> list[Chosen]:
        """Decode at most ``max_tokens`` tokens, from `MOST_OPTION_TOKENS`.

        Returns
        -------
        list of Chosen
            What is finished or failed, and so live no more.
        """
        ...


class GenerativeEngine(Protocol):
    """A step machine over many sequences.

    One owner thread calls everything but ``tokenize``, ``token_texts``, ``chat_tokens``,
    ``compile`` and ``most_choice_tokens``, which any thread may call.
    """

    context_length: int
    """Most tokens, prompt and answer together, of one sequence."""
    sequence_limit: int
    """Most live sequences."""
    answer_prefixes: int
    """Most beginnings of prompts that are kept for answers; see `Start.shared`."""
    choice_prefixes: int
    """Those that are kept for choices; see `Choice.shared`."""
    adapters: frozenset[str]
    """Names of the LoRA adapters that sequences and choices can work under."""
    step_tokens: dict[int, int]
    """Tokens that the last step decoded, by the sequence that they were for."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> IntArray:
        """Tokens of a text: int32[T]. Special-token text is only special if asked."""
        ...

    def token_texts(self, ids: IntArray) -> tuple[str, ...]:
        """Each token as text, for people (invalid UTF-8 becomes U+FFFD)."""
        ...

    def chat_tokens(self, messages: Sequence[Message]) -> IntArray:
        """The prompt that the model's own chat template makes of a chat: int32[T].

        Special-token text in a message's content is not special.
        """
        ...

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """Prepare a grammar for `Start`; one that was compiled lately is there already.

        Raises
        ------
        InvalidInput
            It is malformed, allows nothing, or is too large. Field: ``grammar``.
        """
        ...

    def most_choice_tokens(self, options: Sequence[IntArray]) -> int:
        """Longest prompt that a `Choice` with these options can have."""
        ...

    def chooser(self) -> ChoiceEngine:
        """What makes choices with this model; made, and memory taken, at the first call.

        Raises
        ------
        EngineError
            It cannot be made, mostly for want of memory.
        """
        ...

    def has_room(self, tokens: int, adapter: str = "") -> bool:
        """Whether a sequence that may grow to ``tokens`` can start now.

        Not while others are live under another adapter.
        """
        ...

    def start(self, start: Start) -> None:
        """Take in a sequence; its first tokens are decoded by the next steps."""
        ...

    def stop(self, sequence: int) -> None:
        """Drop a sequence and free its cells at once. Unknown ones are ignored."""
        ...

    def busy(self) -> bool:
        """Whether any sequence is live."""
        ...

    def step(self, *, max_tokens: int, threads: int) -> list[Progress]:
        """Decode one batch of at most ``max_tokens`` tokens on ``threads`` compute threads.

        Running answers go first, one token each, then slices of prompts. Where a prompt or a
        decode step is complete, the next token is sampled.
        """
        ...

    def close(self) -> None:
        """Free context and weights."""
        ...
