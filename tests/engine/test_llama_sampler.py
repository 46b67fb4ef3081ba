from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from llamas import ANSWER, STORIES, generate, run, text_of, tokens

from sprat.engine.base import Start
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_sampler import PENALTY_WINDOW, Sampler, choose
from sprat.errors import (
    InvalidInput,
)
from sprat.values import IntArray, Sampling

NOTHING = np.array([], np.int32)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.5, "top_k": 1},
        {"temperature": 1.5, "min_p": 1.0},
        {"temperature": 1.5, "top_p": 1e-6},
        {"temperature": 1e-9},
        {"temperature": 1e-4},
    ],
)
def test_llama_sampling_that_leaves_one_token_is_greedy(
    engine: LlamaEngine, sampling: dict[str, float]
) -> None:
    assert generate(engine, STORIES[2], seed=7, **sampling)[0] == generate(engine, STORIES[2])[0]


@pytest.mark.parametrize("top_k", [2**31, 2**32 + 1, 2**70])
def test_llama_top_k_beyond_the_vocabulary_keeps_all(engine: LlamaEngine, top_k: int) -> None:
    free, _ = generate(engine, STORIES[2], temperature=1.5, seed=7)
    assert generate(engine, STORIES[2], temperature=1.5, seed=7, top_k=top_k)[0] == free


@pytest.mark.parametrize("seed", [0, 42, -1, 2**32 - 1, 2**70])
def test_llama_same_seed_same_answer(engine: LlamaEngine, seed: int) -> None:
    answers = {
        generate(engine, STORIES[3], temperature=1.0, seed=seed, max_tokens=10)[0] for _ in range(2)
    }
    assert len(answers) == 1


@pytest.mark.parametrize("seeds", [(1, 2), (None, None)])
def test_llama_other_seed_other_answer(
    engine: LlamaEngine, seeds: tuple[int | None, int | None]
) -> None:
    one, other = (generate(engine, STORIES[3], temperature=1.5, seed=seed)[0] for seed in seeds)
    assert one != other


def test_llama_repeat_penalty_counts_the_prompt_even_when_greedy(engine: LlamaEngine) -> None:
    prompt = "red blue red blue red blue red blue red blue"
    plain, _ = generate(engine, prompt, max_tokens=4)
    penalized, _ = generate(engine, prompt, max_tokens=4, repeat_penalty=5.0)
    assert plain == " blue blue blue blue"
    assert "blue" not in penalized


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", float("nan")),
        ("repeat_penalty", 0.0),
        ("repeat_penalty", float("inf")),
    ],
)
def test_llama_refuses_sampling_out_of_range(engine: LlamaEngine, field: str, value: float) -> None:
    sampling = replace(Sampling(), **{field: value})
    with pytest.raises(InvalidInput) as caught:
        engine.start(Start(0, tokens(engine, "Hi"), sampling))
    assert caught.value.field == f"sampling.{field}"
    assert not engine.busy()


def sampler(prompt: IntArray = NOTHING, **sampling: object) -> Sampler:
    return Sampler(replace(Sampling(), **sampling), prompt)


def test_llama_choose_gives_each_row_its_own_settings() -> None:
    logits_bv = np.log(np.array([[1, 4, 3, 2]] * 3, np.float32))
    samplers = [
        sampler(),
        sampler(temperature=1.0, top_k=2, seed=5),
        sampler(repeat_penalty=9.0, prompt=np.array([1], np.int32)),
    ]
    seen = [choose(samplers, logits_bv.copy()) for _ in range(40)]
    assert {row[0] for row in seen} == {1}
    assert {row[1] for row in seen} == {1, 2}
    # The penalty makes room for the next best, until all are equally recent.
    assert [row[2] for row in seen[:2]] == [2, 3]


def test_llama_penalty_forgets_what_left_its_window() -> None:
    logits_bv = np.array([[3, 2, 1]], np.float32)
    prompt = np.array([0] + [2] * (PENALTY_WINDOW - 1), np.int32)
    penalized = sampler(prompt, repeat_penalty=2.0)
    assert choose([penalized], logits_bv.copy()) == [1]
    assert choose([penalized], logits_bv.copy()) == [0]


def test_llama_choose_leaves_the_logits_alone_without_a_penalty() -> None:
    logits_bv = np.array([[3, 2, 1]], np.float32)
    before = logits_bv.copy()
    choose([sampler(np.array([0], np.int32), temperature=0.5)], logits_bv)
    np.testing.assert_array_equal(logits_bv, before)


def test_llama_same_seed_draws_the_same_beside_others() -> None:
    logits_bv = np.zeros((3, 1000), np.float32)
    alone, beside = sampler(temperature=1.0, seed=11), sampler(temperature=1.0, seed=11)
    others = [sampler(temperature=2.0), sampler()]
    for _ in range(5):
        assert choose([alone], logits_bv[:1]) == choose([*others, beside], logits_bv)[2:]


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1e300},
        {"temperature": 1e-300},
        {"temperature": 1.0, "top_p": 1e-300},
        {"temperature": 1.0, "min_p": 1e-300},
        {"repeat_penalty": 1e-300},
        {"repeat_penalty": 1e300},
    ],
)
def test_llama_settings_beyond_float32_are_its_ends(sampling: dict[str, float]) -> None:
    logits_bv = np.array([[3, 2, 1]], np.float32)
    assert choose([sampler(np.array([1], np.int32), **sampling)], logits_bv) != [None]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_llama_row_without_usable_logits_harms_no_other(temperature: float, value: float) -> None:
    logits_bv = np.log(np.array([[1, 4, 3, 2]] * 3, np.float32))
    logits_bv[1] = value
    chosen = choose([sampler(temperature=temperature, top_k=1) for _ in range(3)], logits_bv)
    assert chosen == [1, None, 1]


def test_llama_sequence_without_usable_logits_ends_and_no_other(
    exact: LlamaEngine, alone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (lane,) = exact._lanes
    logits = lane.logits
    for number in range(3):
        exact.start(Start(number, tokens(exact, STORIES[number]), Sampling(max_tokens=ANSWER)))
    spoilt = []

    def spoil(count: int) -> np.ndarray:
        found = logits(count)
        if count == 3 and not spoilt:
            found[1] = np.nan
            spoilt.append(True)
        return found

    monkeypatch.setattr(lane, "logits", spoil)
    progress = run(exact)
    assert progress[1][-1].error == (
        "there is no token to choose: the model's logits are not finite"
    )
    assert [text_of(progress[n]) for n in (0, 2)] == [alone[0], alone[2]]
