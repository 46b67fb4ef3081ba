from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from llamas import ANSWER, CONTEXT, STORIES, generate, long_prompt, run, text_of, tokens

from sprat.engine import llama_lib
from sprat.engine.base import Start
from sprat.engine.llama import LlamaEngine
from sprat.values import Message, Sampling


def test_llama_greedy_answer_is_that_of_plain_llama_cpp(exact: LlamaEngine, f16: Path) -> None:
    library = llama_lib.load()
    model = library.llama_model_load_from_file(
        str(f16).encode(), library.llama_model_default_params()
    )
    context = library.llama_init_from_model(model, library.llama_context_default_params())
    row, answer = tokens(exact, STORIES[0]).tolist(), []
    for _ in range(ANSWER):
        ids = (ctypes.c_int32 * len(row))(*row)
        assert library.llama_decode(context, library.llama_batch_get_one(ids, len(row))) == 0
        logits = np.ctypeslib.as_array(library.llama_get_logits_ith(context, -1), (49152,))
        row = [int(logits.argmax())]
        answer += row
    library.llama_free(context)
    library.llama_model_free(model)
    assert generate(exact, STORIES[0])[0] == "".join(exact.token_texts(np.array(answer)))


def test_llama_eight_together_answer_as_each_alone(exact: LlamaEngine, alone: list[str]) -> None:
    for number, story in enumerate(STORIES):
        exact.start(Start(number, tokens(exact, story), Sampling(max_tokens=ANSWER)))
    progress = run(exact, max_tokens=512)
    assert [text_of(progress[n]) for n in range(8)] == alone
    assert all(p[-1].finish_reason == "length" for p in progress.values())


def test_llama_answers_beside_prompts_answer_as_each_alone(
    exact: LlamaEngine, alone: list[str]
) -> None:
    seen: dict[int, str] = dict.fromkeys(range(8), "")
    waiting = list(enumerate(STORIES))
    while waiting or exact.busy():
        if waiting:
            number, story = waiting.pop(0)
            exact.start(Start(number, tokens(exact, story), Sampling(max_tokens=ANSWER)))
        for progress in exact.step(max_tokens=16, threads=2):
            seen[progress.sequence] += progress.text
    assert list(seen.values()) == alone


@pytest.mark.parametrize("dropped", [0, 3, 7])
def test_llama_stop_of_one_of_eight_leaves_the_others_as_they_were(
    exact: LlamaEngine, alone: list[str], dropped: int
) -> None:
    for number, story in enumerate(STORIES):
        exact.start(Start(number, tokens(exact, story), Sampling(max_tokens=ANSWER)))
    seen: dict[int, str] = dict.fromkeys(range(8), "")
    for step in range(100):
        if step == 6:
            exact.stop(dropped)
            seen.pop(dropped)
        for progress in exact.step(max_tokens=64, threads=2):
            seen[progress.sequence] += progress.text
    assert seen == {n: text for n, text in enumerate(alone) if n != dropped}


def test_llama_long_prompt_in_slices_is_the_prompt_as_a_whole(exact: LlamaEngine) -> None:
    prompt = long_prompt(exact, 300)
    whole, _ = generate(exact, prompt, slice_tokens=512, max_tokens=8)
    sliced, last = generate(exact, prompt, slice_tokens=37, max_tokens=8)
    assert sliced == whole
    assert last.finish_reason == "length"


def test_llama_answer_does_not_depend_on_threads(exact: LlamaEngine, alone: list[str]) -> None:
    exact.start(Start(0, tokens(exact, STORIES[0]), Sampling(max_tokens=ANSWER)))
    seen = [p for t in range(ANSWER + 1) for p in exact.step(max_tokens=64, threads=1 + t % 2)]
    assert text_of(seen) == alone[0]


def test_llama_progress_counts_tokens(engine: LlamaEngine) -> None:
    engine.start(Start(5, tokens(engine, STORIES[0]), Sampling(max_tokens=7)))
    progress = run(engine)[5]
    assert [p.tokens for p in progress] == [1] * 7
    assert [p.finish_reason for p in progress] == [None] * 6 + ["length"]
    assert not any(p.error for p in progress)


def test_llama_answers_a_chat_and_stops_by_itself(engine: LlamaEngine) -> None:
    prompt = engine.chat_tokens([Message("user", "Say only: yes")])
    text, last = generate(engine, prompt, max_tokens=200)
    assert last.finish_reason == "stop"
    assert last.tokens == 1
    assert text
    assert "<|im_end|>" not in text


def test_llama_answer_ends_before_a_stop_string_that_spans_tokens(engine: LlamaEngine) -> None:
    whole, _ = generate(engine, STORIES[1])
    at = len(whole) // 2
    stop = whole[at : at + 6]
    text, last = generate(engine, STORIES[1], stop=("never there", stop))
    assert text == whole[: whole.index(stop)]
    assert last.finish_reason == "stop"


def test_llama_answer_that_ends_inside_of_a_stop_string_shows_it(engine: LlamaEngine) -> None:
    whole, _ = generate(engine, STORIES[1])
    text, last = generate(engine, STORIES[1], stop=(whole[-3:] + "#",))
    assert text == whole
    assert last.finish_reason == "length"


def test_llama_answer_ends_where_the_context_does(engine: LlamaEngine) -> None:
    prompt = long_prompt(engine, CONTEXT - 5)
    engine.start(Start(0, prompt, Sampling(max_tokens=1000)))
    progress = run(engine, max_tokens=512)[0]
    assert len(progress) == 5
    assert progress[-1].finish_reason == "length"


def test_llama_prompt_of_one_token_less_than_the_context_gets_one_token(
    engine: LlamaEngine,
) -> None:
    _, last = generate(engine, long_prompt(engine, CONTEXT - 1), slice_tokens=512)
    assert (last.tokens, last.finish_reason) == (1, "length")


def test_llama_code_points_are_whole(engine: LlamaEngine) -> None:
    prompt = tokens(engine, "🐟🐠🐡🦈🐟🐠🐡🦈🐟🐠🐡🦈🐟🐠🐡🦈🐟🐠🐡🦈🐟")
    engine.start(Start(0, prompt, Sampling(max_tokens=24)))
    progress = run(engine)[0]
    assert "🐡" in text_of(progress)
    assert "" in [p.text for p in progress]
    assert "\ufffd" not in text_of(progress[:-1])


def test_llama_prompts_take_turns_and_answers_go_on_beside_them(engine: LlamaEngine) -> None:
    engine.start(Start(0, tokens(engine, STORIES[0]), Sampling(max_tokens=100)))
    engine.step(max_tokens=64, threads=2)
    for number in (1, 2):
        engine.start(Start(number, long_prompt(engine, 300), Sampling(max_tokens=1)))
    decoded = []
    for _ in range(4):
        progress = engine.step(max_tokens=64, threads=2)
        assert [p.sequence for p in progress] == [0]
        decoded.append((engine._live[1].position, engine._live[2].position))
    assert decoded == [(63, 0), (63, 63), (126, 63), (126, 126)]


def test_llama_short_prompt_leaves_the_rest_of_its_turn_to_the_next(engine: LlamaEngine) -> None:
    engine.start(Start(0, long_prompt(engine, 10), Sampling(max_tokens=9)))
    engine.start(Start(1, long_prompt(engine, 100), Sampling(max_tokens=9)))
    assert [p.sequence for p in engine.step(max_tokens=64, threads=2)] == [0]
    assert engine._live[1].position == 54
    assert engine.step_tokens == {0: 10, 1: 54}


def test_llama_step_keeps_to_its_tokens_and_serves_all_in_turn(engine: LlamaEngine) -> None:
    for number in range(8):
        engine.start(Start(number, tokens(engine, STORIES[number]), Sampling(max_tokens=99)))
    while any(len(s.ids) > 1 for s in engine._live.values()):
        engine.step(max_tokens=512, threads=2)
    served = [p.sequence for _ in range(4) for p in engine.step(max_tokens=2, threads=2)]
    assert sorted(served) == list(range(8))


def test_llama_crowd_of_answers_does_not_keep_a_prompt_out(engine: LlamaEngine) -> None:
    for number in range(7):
        engine.start(Start(number, tokens(engine, "Hi"), Sampling(max_tokens=99)))
    while len(engine._running) < 7:
        engine.step(max_tokens=64, threads=2)
    engine.start(Start(7, tokens(engine, "Hi"), Sampling(max_tokens=99)))
    for _ in range(len(engine._live[7].ids)):
        progress = engine.step(max_tokens=4, threads=2)
        assert len(progress) in (3, 4)
    assert 7 in {p.sequence for p in progress}


def test_llama_step_without_work_does_nothing(engine: LlamaEngine) -> None:
    assert engine.step(max_tokens=64, threads=2) == []
