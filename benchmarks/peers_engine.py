"""The engine alone against llama-bench, each in a process of its own.

``python -m sprat.benchmarks.peers_engine MODEL PROMPT ANSWER THREADS`` is sprat's side of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from sprat import measure
from sprat.benchmarks.harness import figure
from sprat.benchmarks.peers_arena import Arena
from sprat.benchmarks.peers_match import Played
from sprat.engine.llama import LlamaEngine
from sprat.errors import SetupError
from sprat.quantize.speed import answer_rate, prompt_rate

PROMPT_TOKENS = 512
ANSWER_TOKENS = 64


def engine(arena: Arena) -> Played:
    """Prompt and answer of one sequence, in turn."""
    prompt, answer = (64, 8) if arena.context.quick else (PROMPT_TOKENS, ANSWER_TOKENS)
    mine, other = [], []
    for number in range(1, arena.context.rounds + 1):
        settings = {"prompt": prompt, "answer": answer, "threads": arena.threads}
        mine.append(ours(arena.model, **settings))
        other.append(theirs(arena.programs, arena.model, **settings))
        arena.context.say(
            f"engine alone, {arena.weights}: round {number}: "
            f"{mine[-1][0] / other[-1][0]:.3f} and {mine[-1][1] / other[-1][1]:.3f} of llama-bench"
        )
    figures, rows, raw = [], [], {}
    for index, (name, title) in enumerate(
        (("prompt", f"prompt of {prompt} tokens"), ("answer", f"answer of {answer} tokens"))
    ):
        rates = [[each[index] for each in side] for side in (mine, other)]
        raw[name] = {"sprat": rates[0], "llama-bench": rates[1]}
        figures.append(
            figure(
                f"engine_{name}_{arena.weights.lower()}",
                f"engine alone, {title}, {arena.weights}: tokens/s, share of llama-bench",
                "",
                [a / b for a, b in zip(*rates, strict=True)],
                at_least=0.98,
            )
        )
        medians = map(measure.median, rates)
        rows.append((f"engine alone, {title}", arena.weights, "tokens/s", *medians, None))
    return Played(tuple(figures), tuple(rows), raw)


def ours(model: Path, *, prompt: int, answer: int, threads: int) -> tuple[float, float]:
    """Tokens a second of sprat's engine.

    Parameters
    ----------
    model : Path
        GGUF file.
    prompt : int
        Tokens of a prompt that is decoded in one step.
    answer : int
        Greedy tokens of one sequence.
    threads : int
        Compute threads.

    Returns
    -------
    float, float
        Of the prompt, of the answer.

    Raises
    ------
    SetupError
        The process failed.
    """
    module = [sys.executable, "-m", "sprat.benchmarks.peers_engine", str(model)]
    rates = json.loads(_run([*module, str(prompt), str(answer), str(threads)]))
    return float(rates[0]), float(rates[1])


def theirs(
    programs: Path, model: Path, *, prompt: int, answer: int, threads: int
) -> tuple[float, float]:
    """Tokens a second of llama-bench; as `ours`."""
    command = [
        *(str(programs / "llama-bench"), "-m", str(model), "-o", "json", "-r", "1"),
        *("-p", str(prompt), "-n", str(answer), "-t", str(threads), "-fa", "0"),
    ]
    return read_llama_bench(_run(command))


def read_llama_bench(text: str) -> tuple[float, float]:
    """Rates of prompt and answer from what ``llama-bench -o json`` prints.

    Raises
    ------
    SetupError
        It says something else.
    """
    try:
        rows = json.loads(text)
        (prompt,) = (float(row["avg_ts"]) for row in rows if row["n_prompt"] and not row["n_gen"])
        (answer,) = (float(row["avg_ts"]) for row in rows if row["n_gen"] and not row["n_prompt"])
    except (ValueError, KeyError, TypeError):
        raise SetupError(
            "llama-bench did not say one rate for the prompt and one for the answer"
        ) from None
    return prompt, answer


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or ["it said nothing"]
        raise SetupError(f"{Path(command[0]).name} failed: {reason[-1]}")
    return done.stdout


def main() -> None:
    """Warm up as llama-bench does, measure once, and print the rates."""
    model, *numbers = sys.argv[1:]
    prompt, answer, threads = map(int, numbers)
    engine = LlamaEngine(
        Path(model), context_length=prompt + answer, sequence_limit=1, threads=threads
    )
    try:
        prompt_rate(engine, prompt, prompt, threads)
        rates = (
            prompt_rate(engine, prompt, prompt, threads),
            answer_rate(engine, 1, answer, threads),
        )
    finally:
        engine.close()
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
