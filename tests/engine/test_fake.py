from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sprat.engine.base import EncoderEngine, GenerativeEngine, Progress, Start
from sprat.engine.fake import BEGIN, END, FakeEncoder, FakeGenerator
from sprat.errors import EngineError, InvalidInput
from sprat.values import FinishReason, IntArray, Message, Sampling


def row(*ids: int) -> IntArray:
    return np.array(ids, np.int32)


def test_fake_encoder_is_an_encoder_engine() -> None:
    engine: EncoderEngine = FakeEncoder(dimension=5, max_tokens=7)
    assert (engine.dimension, engine.max_tokens) == (5, 7)


def test_fake_encoder_gives_normalized_vectors_in_order() -> None:
    engine = FakeEncoder(dimension=8)
    rows = [row(1, 2, 3), row(4), row(30_000, 2), row(2**31 - 1)]
    vectors = engine.encode(rows, threads=1)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(engine.encode(rows[::-1], threads=2)[::-1], vectors)
    for one, vector in zip(rows, vectors, strict=True):
        np.testing.assert_array_equal(FakeEncoder(dimension=8).encode([one], threads=1)[0], vector)


def test_fake_encoder_puts_rows_that_share_tokens_close_together() -> None:
    one, near, far = FakeEncoder(dimension=64).encode(
        [row(1, 2, 3, 4, 5, 6), row(1, 2, 3, 4, 5, 99), row(50, 60, 70, 80, 90, 100)], threads=1
    )
    assert one @ near > 0.7 > one @ far
    assert not np.array_equal(one, near)


def test_fake_encoder_fails_on_the_calls_it_was_told_to() -> None:
    engine = FakeEncoder(failing_calls={1})
    engine.encode([row(1)], threads=1)
    with pytest.raises(EngineError, match="told to fail on call 1"):
        engine.encode([row(1), row(2)], threads=1)
    engine.encode([row(1)], threads=1)
    assert engine.batches == [1, 2, 1]


def test_fake_encoder_takes_the_time_it_was_told_to() -> None:
    started = time.perf_counter()
    FakeEncoder(delay_s=0.05).encode([row(1)], threads=1)
    assert time.perf_counter() - started >= 0.05


def test_fake_encoder_can_run_on_several_threads() -> None:
    engine = FakeEncoder(delay_s=0.001)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: engine.encode([row(i)], threads=1)[0], range(40)))
    np.testing.assert_array_equal(
        np.stack(found), FakeEncoder().encode([row(i) for i in range(40)], threads=1)
    )
    assert engine.batches == [1] * 40


@pytest.mark.parametrize("rows", [[], [row()], [row(1), row(1, 2, 3, 4, 5)]])
def test_fake_encoder_refuses_what_a_real_one_refuses(rows: list[IntArray]) -> None:
    with pytest.raises(EngineError, match="expected rows of 1 to 4 tokens"):
        FakeEncoder(max_tokens=4).encode(rows, threads=1)


def test_fake_encoder_is_of_no_use_after_close() -> None:
    engine = FakeEncoder()
    engine.close()
    assert engine.closed
    with pytest.raises(EngineError, match="closed"):
        engine.encode([row(1)], threads=1)


def generate(
    engine: FakeGenerator, prompt: str, *, max_tokens: int = 99, stop: tuple[str, ...] = ()
) -> tuple[list[str], FinishReason, int]:
    """Pieces of text, why it ended, and sampled tokens of one answer."""
    ids = engine.tokenize(prompt, add_special=True, parse_special=False)
    engine.start(Start(7, ids, Sampling(max_tokens=max_tokens, stop=stop)))
    pieces, tokens = [], 0
    while True:
        for progress in engine.step(max_tokens=64, threads=1):
            assert progress.sequence == 7
            pieces.append(progress.text)
            tokens += progress.tokens
            if progress.finish_reason is not None:
                assert not engine.busy()
                return pieces, progress.finish_reason, tokens


def test_fake_generator_is_a_generative_engine() -> None:
    engine: GenerativeEngine = FakeGenerator(context_length=32, sequence_limit=3)
    assert (engine.context_length, engine.sequence_limit) == (32, 3)
    assert not engine.busy()
    assert engine.step(max_tokens=8, threads=1) == []


def test_fake_generator_repeats_its_prompt() -> None:
    assert generate(FakeGenerator(), "abc") == (["a", "b", "c", ""], "stop", 4)


def test_fake_generator_says_what_it_was_told_to() -> None:
    pieces, reason, tokens = generate(FakeGenerator(answer="höß"), "abc")
    # One token a byte, whole code points only.
    assert pieces == ["h", "", "ö", "", "ß", ""]
    assert (reason, tokens) == ("stop", 6)
    assert generate(FakeGenerator(answer=""), "abc") == ([""], "stop", 1)


def test_fake_generator_ends_at_the_limits() -> None:
    assert generate(FakeGenerator(), "abcdef", max_tokens=2) == (["a", "b"], "length", 2)
    assert generate(FakeGenerator(), "ö", max_tokens=1) == (["\ufffd"], "length", 1)
    # BEGIN and three bytes leave two tokens of six.
    assert generate(FakeGenerator(context_length=6), "abc") == (["a", "b"], "length", 2)


def test_fake_generator_shows_nothing_of_a_stop_string() -> None:
    pieces, reason, _ = generate(FakeGenerator(answer="yes. END more"), "?", stop=("END", "more"))
    assert ("".join(pieces), reason) == ("yes. ", "stop")
    with pytest.raises(InvalidInput, match="stop"):
        generate(FakeGenerator(), "a", stop=("",))


def test_fake_generator_reads_special_tokens_only_if_asked() -> None:
    engine = FakeGenerator()
    text = "a<begin><end>b"
    plain = engine.tokenize(text, add_special=False, parse_special=False)
    assert plain.dtype == np.int32
    assert plain.tolist() == list(text.encode())
    marked = engine.tokenize(text, add_special=True, parse_special=True)
    assert marked.tolist() == [BEGIN, ord("a"), BEGIN, END, ord("b")]
    assert engine.token_texts(marked) == ("<begin>", "a", "<begin>", "<end>", "b")
    assert engine.token_texts(row(0xC3, 0)) == ("\ufffd", "\0")


def test_fake_generator_renders_a_chat() -> None:
    engine = FakeGenerator()
    ids = engine.chat_tokens([Message("system", "Be brief."), Message("user", "<end>")])
    assert "".join(engine.token_texts(ids)) == "<begin>system: Be brief.\nuser: <end>\nassistant:"
    assert END not in ids


def start(engine: FakeGenerator, sequence: int, prompt: str) -> None:
    ids = engine.tokenize(prompt, add_special=False, parse_special=False)
    engine.start(Start(sequence, ids, Sampling()))


def test_fake_generator_decodes_answers_first_and_prompts_in_slices() -> None:
    engine = FakeGenerator(answer="xyz")
    start(engine, 1, "ab")
    assert engine.step(max_tokens=4, threads=1) == [Progress(1, "x", 1)]
    start(engine, 2, "abcdef")
    # One token for the answer, three of six of the prompt.
    assert engine.step(max_tokens=4, threads=1) == [Progress(1, "y", 1)]
    assert engine.step(max_tokens=4, threads=1) == [Progress(1, "z", 1), Progress(2, "x", 1)]
    assert engine.steps == 3


def test_fake_generator_answers_the_same_beside_others() -> None:
    engine = FakeGenerator()
    answers = dict.fromkeys(range(4), "")
    for number in answers:
        start(engine, number, f"prompt {number}")
    while engine.busy():
        for progress in engine.step(max_tokens=5, threads=1):
            answers[progress.sequence] += progress.text
    assert answers == {number: f"prompt {number}" for number in range(4)}


def test_fake_generator_drops_a_stopped_sequence() -> None:
    engine = FakeGenerator()
    start(engine, 1, "abc")
    start(engine, 2, "def")
    engine.stop(1)
    engine.stop(99)
    assert {p.sequence for p in engine.step(max_tokens=9, threads=1)} == {2}


def test_fake_generator_has_room_within_its_limits() -> None:
    engine = FakeGenerator(context_length=8, sequence_limit=1)
    assert engine.has_room(8)
    assert not engine.has_room(9)
    start(engine, 1, "abc")
    assert not engine.has_room(1)
    engine.stop(1)
    assert engine.has_room(1)


@pytest.mark.parametrize(
    ("sequence", "prompt", "said"),
    [
        (1, "a", "sequence 1 is in use"),
        (3, "a", "none is free"),
        (2, "", "expected a prompt of 1 to 7 tokens, got 0"),
        (2, "abcdefgh", "expected a prompt of 1 to 7 tokens, got 8"),
    ],
)
def test_fake_generator_refuses_what_a_real_one_refuses(
    sequence: int, prompt: str, said: str
) -> None:
    engine = FakeGenerator(context_length=8, sequence_limit=2 if sequence != 3 else 1)
    start(engine, 1, "ab")
    with pytest.raises(EngineError, match=said):
        start(engine, sequence, prompt)


def test_fake_generator_fails_on_the_steps_it_was_told_to() -> None:
    engine = FakeGenerator(failing_steps=[1], delay_s=0.02)
    start(engine, 1, "ab")
    started = time.perf_counter()
    engine.step(max_tokens=9, threads=1)
    assert time.perf_counter() - started >= 0.02
    with pytest.raises(EngineError, match="told to fail on step 1"):
        engine.step(max_tokens=9, threads=1)
    assert engine.busy()
    assert engine.step(max_tokens=9, threads=1) == [Progress(1, "b", 1)]


def test_fake_generator_is_of_no_use_after_close() -> None:
    engine = FakeGenerator()
    start(engine, 1, "ab")
    engine.close()
    assert engine.closed
    assert not engine.busy()
    with pytest.raises(EngineError, match="closed"):
        engine.step(max_tokens=9, threads=1)


def test_fake_arguments_are_named() -> None:
    for engine in (FakeEncoder, FakeGenerator):
        make: Any = engine
        with pytest.raises(TypeError):
            make(4)


def test_fake_encoder_states_are_those_of_the_tokens() -> None:
    engine = FakeEncoder(dimension=6, failing_calls={1})
    rows = [row(1, 2, 3), row(2)]
    first, second = engine.states(rows, threads=1)
    assert (first.shape, first.dtype, second.shape) == ((3, 6), np.float32, (1, 6))
    np.testing.assert_array_equal(first[1:2], second)
    with pytest.raises(EngineError, match="told to fail on call 1"):
        engine.states(rows, threads=1)
    with pytest.raises(EngineError, match="rows of 1 to 512 tokens"):
        engine.states([row()], threads=1)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.states(rows, threads=1)
