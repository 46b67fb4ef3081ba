"""Engines without weights, for tests: sprat's own and yours.

Both keep the contracts of `sprat.engine.base` and answer the same for the same input, in any
batch. They can be slow on purpose and fail on purpose.

Examples
--------
>>> import numpy as np
>>> engine = FakeEncoder(dimension=4)
>>> first, second = engine.encode([np.array([1, 2], np.int32)] * 2, threads=1)
>>> bool((first == second).all())
True
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.engine.base import Choice, Chosen, CompiledGrammar, Progress, Start
from sprat.engine.stream import TextStream
from sprat.errors import EngineError, InvalidInput
from sprat.values import (
    FinishReason,
    FloatArray,
    Grammar,
    IntArray,
    Message,
    TokenChoice,
    TokenLogprob,
)

BEGIN, END = 256, 257
"""Token ids of `FakeGenerator` beyond the 256 bytes: start of a text, end of an answer."""

_SPECIAL = {"<begin>": BEGIN, "<end>": END}


class FakeEncoder:
    """An `EncoderEngine` whose vectors depend on nothing but the token ids.

    Each id has a fixed direction and a row is the normalized sum of its ids' directions, so that
    rows that share ids are close and rows with the same ids are equal.

    Parameters
    ----------
    dimension : int, default 16
        Length of a vector.
    max_tokens : int, default 512
        Longest row.
    delay_s : float, default 0
        What every call takes, in seconds.
    failing_calls : collection of int, default ()
        Which calls, counted from 0, raise `EngineError` (after the delay).

    Attributes
    ----------
    batches : list of int
        Rows of each call so far, in the order in which the calls came.
    closed : bool
        Whether `close` was called; then calls raise `EngineError`.
    """

    def __init__(
        self,
        *,
        dimension: int = 16,
        max_tokens: int = 512,
        delay_s: float = 0.0,
        failing_calls: Collection[int] = (),
    ) -> None:
        self.dimension = dimension
        self.max_tokens = max_tokens
        self.alone_threads = 1
        self.batches: list[int] = []
        self.closed = False
        self._delay_s = delay_s
        self._failing_calls = failing_calls
        self._calls = itertools.count()
        self._frequencies = np.sqrt(np.arange(2, dimension + 2))

    def encode(self, rows: Sequence[IntArray], *, threads: int) -> FloatArray:
        """Run one batch; see `EncoderEngine.encode`.

        Raises
        ------
        EngineError
            A failing call, a closed engine, no rows, or a row that is empty or too long.
        """
        self._check(rows)
        sums = np.stack([self._directions(row).sum(axis=0) for row in rows])
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        return sums.astype(np.float32)

    def states(self, rows: Sequence[IntArray], *, threads: int) -> list[FloatArray]:
        """Run one batch, the direction of each id as its state; see `EncoderEngine.states`.

        Raises
        ------
        EngineError
            As `encode`; both count as calls.
        """
        self._check(rows)
        return [self._directions(row).astype(np.float32) for row in rows]

    def _check(self, rows: Sequence[IntArray]) -> None:
        call = next(self._calls)
        self.batches.append(len(rows))
        if self.closed:
            raise EngineError("the fake encoder is closed")
        time.sleep(self._delay_s)
        if call in self._failing_calls:
            raise EngineError(f"the fake encoder was told to fail on call {call}")
        lengths = [len(row) for row in rows]
        if not 1 <= min(lengths, default=0) <= max(lengths) <= self.max_tokens:
            raise EngineError(
                f"expected rows of 1 to {self.max_tokens} tokens, got {len(rows)} rows of "
                f"{min(lengths, default=0)} to {max(lengths, default=0)}"
            )

    def _directions(self, row: IntArray) -> npt.NDArray[np.float64]:
        directions: npt.NDArray[np.float64] = np.cos(np.outer(row + 1.0, self._frequencies))
        return directions

    def close(self) -> None:
        """Make every later call fail."""
        self.closed = True


@dataclass(slots=True)
class _Sequence:
    start: Start
    prompt_left: int
    answer: list[int]
    stream: TextStream
    output_tokens: int = 0


class FakeChooser:
    """A `ChoiceEngine` that counts: options weigh 1, and 8 more for each time they are mentioned.

    What counts is the prompt behind what it shares with others. Every step finishes every choice.
    """

    def __init__(self) -> None:
        self.step_tokens: dict[int, int] = {}
        self._live: dict[int, Choice] = {}

    def has_room(self, choice: Choice) -> bool:
        """Always."""
        return True

    def start(self, number: int, choice: Choice) -> None:
        """Take a choice on."""
        self._live[number] = choice

    def stop(self, number: int) -> None:
        """Drop a choice."""
        self._live.pop(number, None)

    def step(self, *, max_tokens: int, threads: int) -> list[Chosen]:
        """Finish every choice."""
        self.step_tokens = {number: len(each.prompt) for number, each in self._live.items()}
        chosen = []
        for number, choice in self._live.items():
            text = choice.prompt[choice.shared :].tobytes()
            weights = np.array([1 + 8 * text.count(option.tobytes()) for option in choice.options])
            probabilities = (weights / weights.sum()).astype(np.float32)
            chosen.append(Chosen(number, probabilities, decoded_tokens=len(choice.prompt)))
        self._live.clear()
        return chosen


class FakeGenerator:
    """A `GenerativeEngine` that answers with its prompt, or with a scripted text.

    Its tokens are the bytes of UTF-8, so that an answer takes one step a byte and code points
    come in pieces; ``<begin>`` and ``<end>`` are its special tokens.

    Parameters
    ----------
    answer : str or None, default None
        What every sequence answers; None repeats its prompt without special tokens.
    logprob : float, default -0.5
        What every token is reported with, where `Start` asks for that.
    context_length : int, default 2048
        Most tokens of a sequence.
    sequence_limit : int, default 8
        Most live sequences.
    delay_s : float, default 0
        What every step with work takes, in seconds.
    failing_steps : collection of int, default ()
        Which steps with work, counted from 0, raise `EngineError` (after the delay).

    Attributes
    ----------
    steps : int
        Steps with work so far.
    closed : bool
        Whether `close` was called.
    """

    def __init__(
        self,
        *,
        answer: str | None = None,
        logprob: float = -0.5,
        context_length: int = 2048,
        sequence_limit: int = 8,
        delay_s: float = 0.0,
        failing_steps: Collection[int] = (),
    ) -> None:
        self.context_length = context_length
        self.sequence_limit = sequence_limit
        self.answer_prefixes = self.choice_prefixes = 0
        self.adapters: frozenset[str] = frozenset()
        self.step_tokens: dict[int, int] = {}
        self.steps = 0
        self.closed = False
        self._answer = answer
        self._logprob = logprob
        self._delay_s = delay_s
        self._failing_steps = failing_steps
        self._live: dict[int, _Sequence] = {}
        self._chooser = FakeChooser()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> IntArray:
        """Bytes of a text, after ``BEGIN`` with ``add_special``."""
        ids = [BEGIN] if add_special else []
        while text:
            found = [(text.find(name), name) for name in _SPECIAL if parse_special and name in text]
            at, name = min(found, default=(len(text), ""))
            ids.extend(text[:at].encode())
            if name:
                ids.append(_SPECIAL[name])
            text = text[at + len(name) :]
        return np.array(ids, np.int32)

    def token_texts(self, ids: IntArray) -> tuple[str, ...]:
        """Each token as text; half a code point is U+FFFD."""
        names = {token: name for name, token in _SPECIAL.items()}
        return tuple(
            names.get(token) or bytes([token]).decode(errors="replace") for token in ids.tolist()
        )

    def chat_tokens(self, messages: Sequence[Message]) -> IntArray:
        """One ``role: content`` line for each message, then ``assistant:``."""
        text = "".join(f"{m.role}: {m.content}\n" for m in messages) + "assistant:"
        return self.tokenize(text, add_special=True, parse_special=False)

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """Refuse: it knows no grammars.

        Raises
        ------
        InvalidInput
            Always.
        """
        raise InvalidInput("grammar: the fake generator takes none", field="grammar")

    def most_choice_tokens(self, options: Sequence[IntArray]) -> int:
        """All of the context, whatever the options."""
        return self.context_length

    def chooser(self) -> FakeChooser:
        """The one chooser of this engine."""
        return self._chooser

    def has_room(self, tokens: int, adapter: str = "") -> bool:
        """Whether a sequence is free and ``tokens`` fit into the context."""
        return len(self._live) < self.sequence_limit and tokens <= self.context_length

    def start(self, start: Start) -> None:
        """Take in a sequence.

        Raises
        ------
        EngineError
            The identifier is in use, no sequence is free, or the prompt leaves no room.
        InvalidInput
            A stop string is empty.
        """
        if start.sequence in self._live or len(self._live) >= self.sequence_limit:
            raise EngineError(f"sequence {start.sequence} is in use, or none is free")
        if not 1 <= len(start.prompt) < self.context_length:
            raise EngineError(
                f"expected a prompt of 1 to {self.context_length - 1} tokens, "
                f"got {len(start.prompt)}"
            )
        text = self._answer
        if text is None:
            text = bytes(i for i in start.prompt.tolist() if i < BEGIN).decode(errors="replace")
        self._live[start.sequence] = _Sequence(
            start, len(start.prompt), [*text.encode(), END], TextStream(start.sampling.stop)
        )

    def stop(self, sequence: int) -> None:
        """Drop a sequence. Unknown ones are ignored."""
        self._live.pop(sequence, None)

    def busy(self) -> bool:
        """Whether any sequence is live."""
        return bool(self._live)

    def step(self, *, max_tokens: int, threads: int) -> list[Progress]:
        """One token for every running sequence, then prompts; see `GenerativeEngine.step`.

        Raises
        ------
        EngineError
            A failing step, or a closed engine.
        """
        if self.closed:
            raise EngineError("the fake generator is closed")
        if not self._live:
            return []
        number, self.steps = self.steps, self.steps + 1
        time.sleep(self._delay_s)
        if number in self._failing_steps:
            raise EngineError(f"the fake generator was told to fail on step {number}")
        # Stable: in order of arrival within the running and within the waiting.
        order = sorted(self._live.values(), key=lambda s: s.prompt_left > 0)
        progress = []
        self.step_tokens = {}
        for sequence in order:
            taken = min(max_tokens, max(1, sequence.prompt_left))
            if not taken:
                break
            max_tokens -= taken
            self.step_tokens[sequence.start.sequence] = taken
            sequence.prompt_left = max(0, sequence.prompt_left - taken)
            if not sequence.prompt_left:
                progress.append(self._sample(sequence))
        return progress

    def _sample(self, sequence: _Sequence) -> Progress:
        start, stream = sequence.start, sequence.stream
        token = sequence.answer[sequence.output_tokens]
        sequence.output_tokens += 1
        text = "" if token == END else stream.feed(bytes([token]))
        left = self.context_length - len(start.prompt)
        finish_reason: FinishReason | None = None
        if token == END or stream.stopped:
            finish_reason = "stop"
        elif sequence.output_tokens >= min(start.sampling.max_tokens, left):
            finish_reason = "length"
        if finish_reason is not None:
            text += stream.flush()
            self.stop(start.sequence)
        logprobs: tuple[TokenChoice, ...] = ()
        if start.logprobs is not None and token != END:
            logprobs = (TokenChoice(TokenLogprob(bytes([token]), self._logprob)),)
        return Progress(
            start.sequence,
            text,
            1,
            finish_reason,
            complete=finish_reason == "stop",
            logprobs=logprobs,
        )

    def close(self) -> None:
        """Drop every sequence and make every later step fail."""
        self._live.clear()
        self.closed = True
