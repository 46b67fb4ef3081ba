from __future__ import annotations

from dataclasses import replace

import pytest
from llamas import STORIES, generate, tokens

from sprat.engine.base import Start
from sprat.engine.llama import LlamaEngine
from sprat.errors import (
    InvalidInput,
)
from sprat.values import Sampling


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
        ("top_p", 0.0),
        ("repeat_penalty", 0.0),
    ],
)
def test_llama_refuses_sampling_out_of_range(engine: LlamaEngine, field: str, value: float) -> None:
    sampling = replace(Sampling(), **{field: value})
    with pytest.raises(InvalidInput) as caught:
        engine.start(Start(0, tokens(engine, "Hi"), sampling))
    assert caught.value.field == f"sampling.{field}"
    assert not engine.busy()
