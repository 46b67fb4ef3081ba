"""How fast a language model is on this machine: prompt and answer tokens a second."""

from __future__ import annotations

import time

from sprat.engine.base import GenerativeEngine, Start
from sprat.errors import SetupError
from sprat.values import IntArray, Sampling

STEP_TOKENS = 512


def prompt_rate(engine: GenerativeEngine, tokens: int, step_tokens: int, threads: int) -> float:
    """Prompt tokens a second of one sequence.

    Parameters
    ----------
    tokens : int
        Length of the prompt.
    step_tokens : int
        Most tokens of a step of the engine.
    """
    text = " ".join(f"{number} herrings" for number in range(tokens))
    ids = engine.tokenize(text, add_special=True, parse_special=False)[:tokens]
    engine.start(Start(0, ids, Sampling(max_tokens=1)))
    started = time.perf_counter()
    while engine.busy():
        engine.step(max_tokens=step_tokens, threads=threads)
    return len(ids) / (time.perf_counter() - started)


def answer_rate(engine: GenerativeEngine, count: int, tokens: int, threads: int) -> float:
    """Answer tokens a second of all sequences together, while all of them are live.

    Parameters
    ----------
    count : int
        Sequences side by side.
    tokens : int
        Of each answer.

    Raises
    ------
    SetupError
        An answer ended before half of its tokens.
    """
    for sequence in range(count):
        engine.start(Start(sequence, _story(engine, sequence), Sampling(max_tokens=tokens + 2)))
    waiting = set(range(count))
    while waiting:
        waiting -= {
            p.sequence for p in engine.step(max_tokens=STEP_TOKENS, threads=threads) if p.tokens
        }
    made = 0
    started = time.perf_counter()
    for _ in range(tokens):
        progress = engine.step(max_tokens=STEP_TOKENS, threads=threads)
        made += sum(each.tokens for each in progress)
        if any(each.finish_reason or each.error for each in progress):
            break
    elapsed = time.perf_counter() - started
    for sequence in range(count):
        engine.stop(sequence)
    if made < count * tokens // 2:
        raise SetupError(f"an answer ended after {made // count} of {tokens} tokens")
    return made / elapsed


def writing_rate(engine: GenerativeEngine, tokens: int, threads: int) -> float:
    """Answer tokens a second of one sequence, for models whose answers may be short too.

    Parameters
    ----------
    tokens : int
        At least so many are timed, over as many answers as it takes.

    Raises
    ------
    SetupError
        So many answers had no token after the first one.
    """
    made, elapsed = 0, 0.0
    for number in range(tokens):
        engine.start(Start(0, _story(engine, number), Sampling(max_tokens=tokens + 1)))
        is_first = True
        while engine.busy():
            started = time.perf_counter()
            progress = engine.step(max_tokens=STEP_TOKENS, threads=threads)
            count = sum(each.tokens for each in progress)
            # The first token ends the prompt, which is another figure.
            if not is_first:
                elapsed += time.perf_counter() - started
                made += count
            is_first = is_first and not count
        if made >= tokens:
            return made / elapsed
    raise SetupError(f"{tokens} answers had {made} tokens after their first ones")


def _story(engine: GenerativeEngine, number: int) -> IntArray:
    """A prompt that a small model goes on with for long."""
    text = f"Once upon a time, in the year {1900 + number}, a fisherman"
    return engine.tokenize(text, add_special=True, parse_special=False)
