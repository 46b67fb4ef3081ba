from __future__ import annotations

import json
from pathlib import Path

import pytest

from sprat.benchmarks import peers_engine
from sprat.errors import SetupError

PROMPT = {"n_prompt": 512, "n_gen": 0, "avg_ts": 532.5}
ANSWER = {"n_prompt": 0, "n_gen": 64, "avg_ts": 130.25}


@pytest.mark.parametrize("rows", [[PROMPT, ANSWER], [ANSWER, PROMPT]])
def test_peers_engine_reads_the_rates_of_llama_bench(rows: list[dict[str, float]]) -> None:
    assert peers_engine.read_llama_bench(json.dumps(rows)) == (532.5, 130.25)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        json.dumps([PROMPT]),
        json.dumps([PROMPT, PROMPT, ANSWER]),
        json.dumps([PROMPT, {"n_prompt": 0, "n_gen": 64}]),
        json.dumps([PROMPT, {**ANSWER, "avg_ts": None}]),
    ],
)
def test_peers_engine_refuses_what_llama_bench_does_not_say(text: str) -> None:
    with pytest.raises(SetupError, match="llama-bench did not say one rate for the prompt"):
        peers_engine.read_llama_bench(text)


def test_peers_engine_measures_sprats_in_a_process_of_its_own(smollm: Path) -> None:
    prompt, answer = peers_engine.ours(smollm / "model.gguf", prompt=32, answer=4, threads=1)
    assert prompt > 0
    assert answer > 0


def test_peers_engine_says_why_a_process_failed(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"failed: .*none\.gguf: missing"):
        peers_engine.ours(tmp_path / "none.gguf", prompt=8, answer=2, threads=1)
