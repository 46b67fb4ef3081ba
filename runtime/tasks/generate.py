"""Generate: check what was asked, then stream the answer."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence

from sprat.errors import InvalidInput
from sprat.model import GenerativeModel
from sprat.scheduler import Mailbox
from sprat.values import Chunk, Message, Sampling

MAX_STOP_STRINGS = 16
MAX_STOP_BYTES = 256
MOST_SEQUENCES = 16
MOST_LOGPROBS = 20


def run(
    model: GenerativeModel,
    prompt: str | Sequence[Message],
    sampling: Sampling,
    *,
    adapter: str = "",
    sequences: int = 1,
    logprobs: int | None = None,
    deadline: float = math.inf,
    mailbox: Mailbox,
) -> AsyncGenerator[Chunk, None]:
    """Stream an answer. See `sprat.model.GenerativeModel.generate` for the errors.

    Raises
    ------
    InvalidInput
        For a parameter out of its range, or a chat without messages.
    """
    check(sampling)
    if not 1 <= sequences <= MOST_SEQUENCES:
        raise InvalidInput(
            f"sequences: expected 1 to {MOST_SEQUENCES}, got {sequences}", field="sequences"
        )
    if logprobs is not None and not 0 <= logprobs <= MOST_LOGPROBS:
        raise InvalidInput(
            f"logprobs: expected 0 to {MOST_LOGPROBS}, got {logprobs}", field="logprobs"
        )
    if not isinstance(prompt, str) and not prompt:
        raise InvalidInput("chat.messages: expected at least one", field="chat.messages")
    return model.generate(
        prompt,
        sampling,
        adapter=adapter,
        sequences=sequences,
        logprobs=logprobs,
        deadline=deadline,
        mailbox=mailbox,
    )


def check(sampling: Sampling) -> None:
    """Check the ranges that `sprat.values.Sampling` states.

    Raises
    ------
    InvalidInput
        Names the first parameter out of its range, the range, and what came.
    """
    _range("max_tokens", sampling.max_tokens, 1, 2**20)
    _range("temperature", sampling.temperature, 0, 10)
    _range("top_k", sampling.top_k, 0, 2**20)
    _range("top_p", sampling.top_p, 0, 1, open_low=True)
    _range("min_p", sampling.min_p, 0, 1)
    _range("repeat_penalty", sampling.repeat_penalty, 0, 10, open_low=True)
    if sampling.seed is not None:
        _range("seed", sampling.seed, 0, 2**32 - 1)
    if len(sampling.stop) > MAX_STOP_STRINGS:
        raise InvalidInput(
            f"sampling.stop: expected at most {MAX_STOP_STRINGS} strings, got {len(sampling.stop)}",
            field="sampling.stop",
        )
    for index, stop in enumerate(sampling.stop):
        where = f"sampling.stop[{index}]"
        try:
            size = len(stop.encode())
        except UnicodeEncodeError:
            raise InvalidInput(f"{where}: holds a lone surrogate", field=where) from None
        if not 1 <= size <= MAX_STOP_BYTES:
            raise InvalidInput(
                f"{where}: expected 1 to {MAX_STOP_BYTES} bytes, got {size}", field=where
            )


def _range(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if (low < value if open_low else low <= value) and value <= high:
        return
    bracket = "(" if open_low else "["
    raise InvalidInput(
        f"sampling.{name}: expected {bracket}{low}, {high}], got {value}", field=f"sampling.{name}"
    )
