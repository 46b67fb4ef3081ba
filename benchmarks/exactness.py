"""``python -m sprat.benchmarks.exactness MODEL.gguf ...``: choices against a naive oracle, by hand.

How far probabilities are from those of an oracle that shares no code with the chooser, over many
texts. Minutes for each file; the test suite does the same with few texts.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import llama_cpp
import numpy as np

from sprat.benchmarks import data, harness
from sprat.engine.base import Choice
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_chooser import Chooser
from sprat.values import FloatArray, IntArray, Scoring

CONTEXT = 1024
LABELS = ("card", "card lost", "card lost abroad", "transfer", "cash machine", "exchange rate")
CUES = ("about", "urgent", "angry")
HEAD = "<|im_start|>system\nClassify what a customer of a bank writes. The labels:\n{}<|im_end|>\n"
USER = "<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"
SIDE_BY_SIDE = 8


class Oracle:
    """A context with one sequence, in which each option is decoded alone.

    Parameters
    ----------
    engine : LlamaEngine
        Whose weights are used; it outlives this object.
    """

    def __init__(self, engine: LlamaEngine) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = CONTEXT, CONTEXT, 256, 1
        params.n_outputs_max = 64
        params.n_threads = params.n_threads_batch = 2
        params.flash_attn_type = 0
        self._context = llama_cpp.llama_init_from_model(engine._model, params)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._size = engine._vocabulary.size
        self._end = engine._vocabulary.end_id

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_free(self._context)

    def __call__(self, choice: Choice) -> dict[Scoring, FloatArray]:
        """Probabilities of the options, by either formula of `sprat.engine.label_trie`."""
        llama_cpp.llama_memory_seq_rm(self._memory, 0, -1, -1)
        prompt = choice.prompt.tolist()
        first = self._decode(prompt, 0, outputs=[len(prompt) - 1])
        ended = [(*option.tolist(), self._end) for option in choice.options]
        full, constrained = [], []
        for whole in ended:
            option = whole[:-1]
            # Never a lone token: other kernels compute it, and round differently.
            rows = first + self._decode(whole, len(prompt), outputs=range(len(option)))
            llama_cpp.llama_memory_seq_rm(self._memory, 0, len(prompt), -1)
            full.append(sum(_log_share(row, whole[at]) for at, row in enumerate(rows)))
            log = 0.0
            for at, row in enumerate(rows):
                allowed = sorted({other[at] for other in ended if other[:at] == whole[:at]})
                log += _log_share(row[allowed], allowed.index(whole[at]))
            constrained.append(log)
        powers = np.exp(np.array(full) - max(full))
        return {"full": powers / powers.sum(), "constrained": np.exp(constrained)}

    def _decode(self, ids: Sequence[int], position: int, *, outputs: Sequence[int]) -> Any:
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for at, token in enumerate(ids):
            batch.token[at], batch.pos[at] = token, position + at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = at in outputs
        status = llama_cpp.llama_decode(self._context, batch)
        assert status == 0, f"llama_decode: {status}"
        rows = [
            np.ctypeslib.as_array(
                ctypes.cast(
                    llama_cpp.llama_get_logits_ith(self._context, at),
                    ctypes.POINTER(ctypes.c_float),
                ),
                (self._size,),
            ).astype(np.float64)
            for at in outputs
        ]
        llama_cpp.llama_batch_free(batch)
        return rows


def _log_share(logits: Any, at: int) -> float:
    most = logits.max()
    return float(logits[at] - most - np.log(np.exp(logits - most).sum()))


class Prompts:
    """Choices about texts: among the labels, or as questions that share their text."""

    def __init__(self, engine: LlamaEngine, labels: Sequence[str]) -> None:
        self._engine = engine
        self.options = tuple(self._ids(label, special=False) for label in labels)
        self.head = HEAD.format("".join(f"- {label}\n" for label in labels)) + USER
        self.shared = len(self._ids(self.head)) - 1

    def _ids(self, text: str, *, special: bool = True) -> IntArray:
        return self._engine.tokenize(text, add_special=False, parse_special=special)

    def choice(self, text: str, scoring: Scoring = "constrained", **fields: Any) -> Choice:
        """The text among the labels."""
        prompt = self._ids(self.head + text + TAIL)
        made = {"shared": self.shared, "options": self.options, "scoring": scoring, **fields}
        return Choice(prompt, **made)

    def questions(self, text: str, cues: Sequence[str] = CUES) -> list[Choice]:
        """Several questions about the text, each named by a cue."""
        about = self.choice(text)
        return [
            Choice(
                np.concatenate([about.prompt, self._ids(f"{cue}:")]),
                self.shared,
                self.options,
                common=len(about.prompt),
            )
            for cue in cues
        ]


def run(
    chooser: Chooser, choices: Sequence[Choice], *, beside: int, max_tokens: int = 64
) -> list[FloatArray]:
    """Probabilities of choices, at most ``beside`` at a time."""
    waiting = list(enumerate(choices))
    found: dict[int, FloatArray] = {}
    live = 0
    while waiting or live:
        while waiting and live < beside and chooser.has_room(waiting[0][1]):
            chooser.start(*waiting.pop(0))
            live += 1
        for chosen in chooser.step(max_tokens=max_tokens, threads=2):
            assert chosen.error is None, chosen.error
            found[chosen.number] = chosen.probabilities
            live -= 1
    return [found[number] for number in range(len(choices))]


def measure(path: Path, texts: Sequence[str]) -> list[str]:
    """A line for each kind of choice, alone and side by side with others."""
    engine = LlamaEngine(path, context_length=CONTEXT, sequence_limit=1, threads=2)
    oracle = Oracle(engine)
    try:
        chooser = engine.chooser()
        prompts = Prompts(engine, LABELS)
        right = [oracle(prompts.choice(text)) for text in texts]
        lines = []
        for scoring in get_args(Scoring):
            choices = [prompts.choice(text, scoring) for text in texts]
            expected = [each[scoring] for each in right]
            for beside in (1, SIDE_BY_SIDE):
                found = run(chooser, choices, beside=beside)
                lines.append(f"{scoring}, {beside} at a time: {_compared(found, expected)}")
        questions = [choice for text in texts for choice in prompts.questions(text)]
        asked = run(chooser, questions, beside=SIDE_BY_SIDE)
        expected = [oracle(choice)["constrained"] for choice in questions]
        lines.append(f"questions, {SIDE_BY_SIDE} at a time: {_compared(asked, expected)}")
        return lines
    finally:
        oracle.close()
        engine.close()


def _compared(found: Sequence[FloatArray], expected: Sequence[FloatArray]) -> str:
    pairs = list(zip(found, expected, strict=True))
    apart = max(float(np.abs(one - other).max()) for one, other in pairs)
    same = sum(one.argmax() == other.argmax() for one, other in pairs)
    return f"at most {apart:.4f} apart, same best option {same} of {len(found)}"


def main() -> None:
    """Print how far each model is from its oracle."""
    parser = argparse.ArgumentParser(
        prog="python -m sprat.benchmarks.exactness",
        description="Compares choices with a naive oracle on ChatML models.",
    )
    parser.add_argument("models", nargs="+", type=Path, help="GGUF files")
    parser.add_argument("--texts", type=int, default=200, help="how many texts")
    given = parser.parse_args()
    texts = data.load(harness.checkout())
    print(f"{given.texts} texts of {texts.source}", flush=True)
    every = len(texts.texts) // given.texts or 1
    for path in given.models:
        for each in measure(path, texts.texts[::every][: given.texts]):
            print(f"{path.name}: {each}", flush=True)


if __name__ == "__main__":
    main()
