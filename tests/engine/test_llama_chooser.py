"""The chooser on a real model: exact on F16, up to what batch shape alone changes; no leaks.

One file, because all of it stands on one model in F16 and on the oracle. That shares no code with
the chooser: a context of one sequence, every option after the whole prompt, and the formulas of
`sprat.engine.label_trie` written out.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from sprat.engine import llama_chooser
from sprat.engine.base import MOST_OPTION_TOKENS, Choice, Chosen, Start
from sprat.engine.llama import LlamaEngine
from sprat.engine.llama_chooser import (
    BATCH_TOKENS,
    CHOICES,
    PREFIXES,
    SEQUENCES,
    TEXTS,
    Chooser,
)
from sprat.errors import EngineError, InputTooLong, InvalidInput, SpratError
from sprat.values import IntArray, Sampling, Scoring

LABELS = 8
MESSAGES = 12
CELLS = 4096
TOLERANCE = 2e-3
CROWD = 5e-3
"""The same among others. What they are makes no difference, but cells that they take move ours, and
attention adds up cells in the order of their places: on F16 that alone moves a probability by up to
0.003."""
TIE = 4e-3
HEAD = "<|im_start|>system\nClassify what a customer of a bank writes. The labels:\n{}<|im_end|>\n"
USER = "<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"


# -- choices ---------------------------------------------------------------------------------


class Task:
    """Labels, and the prompts of a text for them."""

    def __init__(self, engine: LlamaEngine, labels: Sequence[str]) -> None:
        self._engine = engine
        self.options = tuple(self._ids(label, special=False) for label in labels)
        self.head = HEAD.format("".join(f"- {label}\n" for label in labels)) + USER
        self.shared = len(self._ids(self.head)) - 1

    def _ids(self, text: str, *, special: bool = True) -> IntArray:
        return self._engine.tokenize(text, add_special=False, parse_special=special)

    def choice(self, text: str, scoring: Scoring = "constrained", **fields: Any) -> Choice:
        prompt = self._ids(self.head + text + TAIL)
        made = {"shared": self.shared, "options": self.options, "scoring": scoring, **fields}
        return Choice(prompt, **made)


@pytest.fixture(scope="module")
def engine(f16: Path) -> Iterator[LlamaEngine]:
    made = LlamaEngine(f16, context_length=1024, sequence_limit=2, choice_cells=CELLS, threads=2)
    yield made
    made.close()


@pytest.fixture
def chooser(engine: LlamaEngine) -> Iterator[Chooser]:
    made = engine.chooser()
    yield made
    check_nothing_is_left(made)


@pytest.fixture(scope="module")
def messages(shared_data: Path) -> list[dict[str, str]]:
    lines = (shared_data / "banking77.test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def task(engine: LlamaEngine, messages: list[dict[str, str]]) -> Task:
    return Task(engine, sorted({message["label"] for message in messages})[:LABELS])


@pytest.fixture(scope="module")
def small(engine: LlamaEngine) -> Task:
    """Labels of one and of several tokens; some begin others."""
    return Task(engine, ["card", "card lost", "card lost abroad", "transfer", "cash machine"])


@pytest.fixture(scope="module")
def texts(messages: list[dict[str, str]]) -> list[str]:
    return [message["text"] for message in messages[:: len(messages) // MESSAGES]][:MESSAGES]


def check_nothing_is_left(chooser: Chooser) -> None:
    """No request, no fork and no cell but those of kept prefixes."""
    assert not chooser.busy
    kept, texts = chooser._prefixes._kept, chooser._prefixes._texts
    assert not any(prefix.users for prefix in (*kept.taken.values(), *texts.taken.values()))
    chooser._prefixes.drop_texts()
    done = {prefix.sequence: prefix.done for prefix in kept.taken.values()}
    assert sorted([*done, *kept.free]) == list(range(PREFIXES))
    assert sorted(texts.free) == list(range(PREFIXES, PREFIXES + TEXTS))
    first = PREFIXES + TEXTS
    assert sorted(chooser._free_sequences) == list(range(first, first + CHOICES))
    for sequence in range(SEQUENCES):
        last = llama_cpp.llama_memory_seq_pos_max(chooser._memory, sequence)
        assert last == done.get(sequence, 0) - 1


def run(
    chooser: Chooser, choices: Sequence[Choice], *, beside: int = CHOICES, max_tokens: int = 64
) -> list[Chosen]:
    """What becomes of choices, at most ``beside`` at a time."""
    waiting = list(enumerate(choices))
    found: dict[int, Chosen] = {}
    live = 0
    while waiting or chooser.busy:
        while waiting and live < beside and chooser.has_room(waiting[0][1]):
            chooser.start(*waiting.pop(0))
            live += 1
        for chosen in chooser.step(max_tokens=max_tokens, threads=2):
            assert chosen.error is None
            found[chosen.number] = chosen
            live -= 1
    return [found[number] for number in range(len(choices))]


def one(chooser: Chooser, choice: Choice, *, max_tokens: int = 64) -> Chosen:
    return run(chooser, [choice], max_tokens=max_tokens)[0]


# -- the oracle ------------------------------------------------------------------------------


class Oracle:
    """A context with one sequence, in which each option is decoded alone."""

    def __init__(self, engine: LlamaEngine) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 1024, 1024, 256, 1
        params.n_outputs_max = 64
        params.n_threads = params.n_threads_batch = 2
        params.flash_attn_type = 0
        self._context = llama_cpp.llama_init_from_model(engine._model, params)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._size = engine._vocabulary.size
        self._end = engine._vocabulary.end_id

    def close(self) -> None:
        llama_cpp.llama_free(self._context)

    def _decode(self, ids: Sequence[int], position: int, *, outputs: Sequence[int]) -> Any:
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for at, token in enumerate(ids):
            batch.token[at], batch.pos[at] = token, position + at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = at in outputs
        assert llama_cpp.llama_decode(self._context, batch) == 0
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

    def __call__(self, choice: Choice) -> dict[Scoring, np.ndarray[Any, Any]]:
        """Probabilities of the options, by either formula."""
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


def _log_share(logits: np.ndarray[Any, Any], at: int) -> float:
    most = logits.max()
    return float(logits[at] - most - np.log(np.exp(logits - most).sum()))


@pytest.fixture(scope="module")
def oracle(engine: LlamaEngine) -> Iterator[Oracle]:
    made = Oracle(engine)
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected(
    oracle: Oracle, task: Task, texts: list[str]
) -> list[dict[Scoring, np.ndarray[Any, Any]]]:
    return [oracle(task.choice(text)) for text in texts]


def check(chosen: Chosen, right: np.ndarray[Any, Any], tolerance: float = CROWD) -> None:
    assert chosen.probabilities.dtype == np.float32
    assert chosen.probabilities.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(chosen.probabilities, right, atol=tolerance)
    if np.diff(np.sort(right)[-2:]) > TIE:
        assert chosen.probabilities.argmax() == right.argmax()


# -- exactness -------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", ["constrained", "full"])
@pytest.mark.parametrize("beside", [1, 8])
def test_llama_chooser_equals_one_option_at_a_time(
    chooser: Chooser,
    task: Task,
    texts: list[str],
    expected: list[dict[Scoring, np.ndarray[Any, Any]]],
    scoring: Scoring,
    beside: int,
) -> None:
    chooser._forget_all()
    count = MESSAGES if beside > 1 else MESSAGES // 4
    choices = [task.choice(text, scoring) for text in texts[:count]]
    found = run(chooser, choices, beside=beside)
    for chosen, right in zip(found, expected[:count], strict=True):
        check(chosen, right[scoring], CROWD if beside > 1 else TOLERANCE)
        assert chosen.pruned == 0 or scoring == "constrained"
        assert 0 <= chosen.pruned < 0.02


def test_llama_chooser_neighbours_make_no_difference(chooser: Chooser, small: Task) -> None:
    """Two neighbours of the same length: the same to the last bit."""
    found = []
    for start in (100, 300):
        chooser._forget_all()
        one(chooser, filler(small, 61, shared=60, start=start))
        choices = [filler(small, 40, shared=0, start=start), small.choice("I need cash", "full")]
        found.append(run(chooser, choices)[1].probabilities)
    np.testing.assert_array_equal(found[0], found[1])


def test_llama_chooser_labels_that_others_begin_with(
    chooser: Chooser, small: Task, oracle: Oracle, texts: list[str]
) -> None:
    constrained = [small.choice(text, "constrained") for text in texts[:3]]
    full = [small.choice(text, "full") for text in texts[:3]]
    found = run(chooser, constrained + full)
    for index, choice in enumerate(constrained):
        right = oracle(choice)
        check(found[index], right["constrained"])
        check(found[index + 3], right["full"])


def test_llama_chooser_new_prefixes_side_by_side(
    chooser: Chooser, task: Task, small: Task, oracle: Oracle, texts: list[str]
) -> None:
    """Two tasks whose prefixes nobody has decoded, two requests each, all from the first step on.

    The step that ends a prefix is not the one in which the second request forks it.
    """
    chooser._forget_all()
    choices = [each.choice(text) for text in texts[:2] for each in (task, small)]
    found = run(chooser, choices)
    for chosen, choice in zip(found, choices, strict=True):
        check(chosen, oracle(choice)["constrained"])
    assert [chosen.cached_tokens for chosen in found] == [0, 0, task.shared, small.shared]


def test_llama_chooser_forked_prefix_equals_the_whole_prompt(
    chooser: Chooser, small: Task, texts: list[str]
) -> None:
    whole = [one(chooser, small.choice(text, "full", shared=0)) for text in texts[:4]]
    forked = [one(chooser, small.choice(text, "full")) for text in texts[:4]]
    for with_prefix, without in zip(forked, whole, strict=True):
        np.testing.assert_allclose(with_prefix.probabilities, without.probabilities, atol=CROWD)
        assert without.cached_tokens == 0
        assert without.decoded_tokens >= with_prefix.decoded_tokens
    assert all(chosen.cached_tokens == small.shared for chosen in forked[1:])


def test_llama_chooser_small_steps_change_nothing(
    chooser: Chooser, task: Task, texts: list[str], expected: list[dict[Scoring, Any]]
) -> None:
    choices = [task.choice(text) for text in texts[:3]]
    found = run(chooser, choices, max_tokens=MOST_OPTION_TOKENS)
    for chosen, right in zip(found, expected[:3], strict=True):
        check(chosen, right["constrained"])
    chosen = one(chooser, task.choice(texts[0], "full"), max_tokens=10_000)
    check(chosen, expected[0]["full"])


def test_llama_chooser_length_normalization_compares_means(
    chooser: Chooser, small: Task, texts: list[str]
) -> None:
    choice = small.choice(texts[0], "full")
    sums = np.log(one(chooser, choice).probabilities.astype(np.float64))
    means = one(chooser, small.choice(texts[0], "full", normalize_length=True)).probabilities
    assert means.sum() == pytest.approx(1, abs=1e-5)
    # Up to a constant, the sums are the means times the number of tokens.
    lengths = np.array([len(option) + 1 for option in choice.options])
    scaled = np.log(means.astype(np.float64)) * lengths
    normal = np.linalg.lstsq(
        np.stack([lengths, np.ones(len(lengths))], axis=1), sums - scaled, rcond=None
    )
    np.testing.assert_allclose(normal[1], 0, atol=1e-2)


# -- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", ["constrained", "full"])
def test_llama_chooser_256_options_go_in_waves(
    chooser: Chooser, small: Task, scoring: Scoring
) -> None:
    """More places to end in than sequences: forks are used again and again."""
    animals = ["bream", "carp", "eel", "perch", "pike", "roach", "ruffe", "sprat"]
    names = [f"{one} {two} {three}" for one in animals for two in animals for three in animals]
    labels = Task(small._engine, names[:256])
    choice = Choice(
        small.choice("x").prompt, small.shared, labels.options, scoring, normalize_length=False
    )
    prompt = choice.prompt
    others = [small.choice("Where is my card?"), small.choice("I need cash")]
    alone = run(chooser, others)
    found = run(chooser, [choice, *others])
    assert len(found[0].probabilities) == 256
    assert found[0].probabilities.sum() == pytest.approx(1, abs=1e-4)
    if scoring == "full":
        assert found[0].decoded_tokens > len(prompt) - small.shared + SEQUENCES
    for chosen, right in zip(found[1:], alone, strict=True):
        np.testing.assert_allclose(chosen.probabilities, right.probabilities, atol=CROWD)


def test_llama_chooser_waves_equal_one_option_at_a_time(
    chooser: Chooser, small: Task, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_chooser, "SEQUENCES", chooser._first_fork + 2)
    for scoring, right in oracle(small.choice("My card was swallowed")).items():
        check(one(chooser, small.choice("My card was swallowed", scoring)), right)


def test_llama_chooser_longest_options(chooser: Chooser, small: Task, oracle: Oracle) -> None:
    """Several that take a step each, among others that go on beside them."""
    prompt = small.choice("My card was swallowed")
    start = prompt.options[1][:1]
    options = tuple(
        np.concatenate([start, np.full(MOST_OPTION_TOKENS - 1, small.options[3][0] + extra)])
        for extra in range(3)
    )
    choice = Choice(prompt.prompt, small.shared, tuple(o.astype(np.int32) for o in options), "full")
    found = run(chooser, [choice, prompt, choice], max_tokens=MOST_OPTION_TOKENS)
    check(found[0], oracle(choice)["full"])
    check(found[1], oracle(prompt)["constrained"])
    np.testing.assert_allclose(found[2].probabilities, found[0].probabilities, atol=CROWD)


def test_llama_chooser_gives_up_the_prefix_that_was_not_used_for_longest(
    chooser: Chooser, engine: LlamaEngine
) -> None:
    chooser._forget_all()
    tasks = [Task(engine, ["yes", "no", f"maybe {extra}"]) for extra in range(PREFIXES + 1)]
    for each in tasks[:PREFIXES]:
        assert one(chooser, each.choice("Well?")).cached_tokens == 0
    assert one(chooser, tasks[0].choice("Well?")).cached_tokens == tasks[0].shared
    assert one(chooser, tasks[PREFIXES].choice("Well?")).cached_tokens == 0
    assert one(chooser, tasks[0].choice("Well?")).cached_tokens == tasks[0].shared
    assert one(chooser, tasks[1].choice("Well?")).cached_tokens == 0


def test_llama_chooser_prefixes_in_use_keep_others_out(
    chooser: Chooser, engine: LlamaEngine
) -> None:
    tasks = [Task(engine, ["yes", "no", f"never {extra}"]) for extra in range(PREFIXES + 1)]
    for number, each in enumerate(tasks[:PREFIXES]):
        chooser.start(number, each.choice("Well?"))
    last = tasks[PREFIXES].choice("Well?")
    assert not chooser.has_room(last)
    with pytest.raises(EngineError, match="no room for a prompt"):
        chooser.start(99, last)
    assert chooser.has_room(tasks[0].choice("So?"))
    assert chooser.has_room(Choice(last.prompt, 0, last.options))
    while chooser.busy:
        chooser.step(max_tokens=64, threads=2)
    assert one(chooser, last).error is None


def filler(small: Task, length: int, *, shared: int, start: int = 1000) -> Choice:
    """A prompt of some length; each ``start`` has tokens of its own."""
    prompt = (start + np.arange(length) % 7).astype(np.int32)
    return Choice(prompt, shared, small.options)


@pytest.mark.parametrize("shared", [0, 10])
def test_llama_chooser_kept_prefixes_make_way_for_prompts(
    engine: LlamaEngine, small: Task, shared: int
) -> None:
    """Prefixes that nobody uses are no reason to refuse, and in nobody's way."""
    chooser = make(engine, cells=256)
    try:
        for start in (100, 200):
            one(chooser, filler(small, 101, shared=100, start=start))
        run(chooser, [filler(small, 225, shared=shared, start=300)])
        assert len(chooser._prefixes._kept.taken) == (shared > 0)
        # The same where the prompt's own prefix is among those that are kept.
        one(chooser, filler(small, 151, shared=150, start=100))
        one(chooser, filler(small, 51, shared=50, start=300))
        run(chooser, [filler(small, 200, shared=50, start=300)])
        check_nothing_is_left(chooser)
    finally:
        chooser.close()


def test_llama_chooser_counts_cells_to_the_last(engine: LlamaEngine, small: Task) -> None:
    chooser = make(engine, cells=256)
    try:
        room = 256 - llama_chooser.option_cells(small.options)
        assert chooser.has_room(filler(small, room, shared=0))
        assert not chooser.has_room(filler(small, room + 1, shared=0))
        assert not chooser.has_room(filler(small, room + 1, shared=room))
        run(chooser, [filler(small, room, shared=0), filler(small, room, shared=50)])
        # Side by side as far as the prompts and a batch of options fit.
        halves = [filler(small, 130, shared=50, start=start) for start in (100, 100, 300)]
        chooser.start(0, halves[0])
        assert chooser.has_room(halves[1])
        assert not chooser.has_room(halves[2])
        chooser.stop(0)
        check_nothing_is_left(chooser)
        assert len(run(chooser, halves)) == 3
        check_nothing_is_left(chooser)
    finally:
        chooser.close()


def test_llama_chooser_takes_as_many_as_there_are_places(chooser: Chooser, small: Task) -> None:
    for number in range(CHOICES):
        chooser.start(number, small.choice(f"Number {number}"))
    assert not chooser.has_room(small.choice("One more"))
    finished: list[int] = []
    while chooser.busy:
        finished += [chosen.number for chosen in chooser.step(max_tokens=64, threads=2)]
    assert sorted(finished) == list(range(CHOICES))
    assert finished[0] == 0


def test_llama_chooser_stopped_requests_leave_nothing(
    chooser: Chooser, small: Task, oracle: Oracle, texts: list[str]
) -> None:
    """One is dropped after each number of steps: in its prefix, its prompt, its options."""
    right = oracle(small.choice(texts[1]))["constrained"]
    for steps in range(8):
        if steps % 2:
            chooser._forget_all()
        chooser.start(0, small.choice(texts[0], "full"))
        chooser.start(1, small.choice(texts[1]))
        found: list[Chosen] = []
        for _ in range(steps):
            found += chooser.step(max_tokens=MOST_OPTION_TOKENS, threads=2)
        chooser.stop(0)
        chooser.stop(0)
        while chooser.busy:
            found += chooser.step(max_tokens=64, threads=2)
        check(next(c for c in found if c.number == 1), right)
        check_nothing_is_left(chooser)


def test_llama_chooser_thirty_rounds_leave_nothing(chooser: Chooser, small: Task) -> None:
    """Tasks come and go, some requests are dropped half way."""
    rng = np.random.default_rng(4)
    choices = [
        filler(small, length, shared=shared, start=start)
        for start in (100, 200, 300, 400)
        for length, shared in ((4, 0), (8, 5), (12, 5))
    ]
    for _ in range(30):
        for number in range(int(rng.integers(1, 3))):
            choice = choices[rng.integers(len(choices))]
            if chooser.has_room(choice):
                chooser.start(number, choice)
        if rng.random() < 0.3:
            chooser.step(max_tokens=64, threads=2)
            chooser.stop(0)
        while chooser.busy:
            assert not any(c.error for c in chooser.step(max_tokens=256, threads=2))
        check_nothing_is_left(chooser)


# -- refusals and failures -------------------------------------------------------------------


def make(engine: LlamaEngine, *, cells: int = 512, end: int | None = None) -> Chooser:
    return Chooser(
        engine._lib,
        engine._model,
        cells=cells,
        end=engine._vocabulary.end_id if end is None else end,
        vocabulary_size=engine._vocabulary.size,
        threads=2,
    )


def test_llama_chooser_needs_a_token_that_ends_an_answer(engine: LlamaEngine) -> None:
    with pytest.raises(EngineError, match="no token that ends an answer"):
        make(engine, end=-1)


def test_llama_chooser_without_memory_says_so(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._lib, "llama_init_from_model", lambda *_: None)
    with pytest.raises(EngineError, match="cannot make a context of 512 tokens"):
        make(engine)


def ids(*tokens: int) -> IntArray:
    return np.array(tokens, np.int32)


@pytest.mark.parametrize(
    ("choice", "kind", "message"),
    [
        (Choice(ids(), 0, (ids(1), ids(2))), EngineError, "a prompt of more than the 0 tokens"),
        (Choice(ids(1, 2), 2, (ids(1), ids(2))), EngineError, "more than the 2 tokens that it"),
        (Choice(ids(1, 2), -1, (ids(1), ids(2))), EngineError, "more than the -1 tokens"),
        (Choice(ids(1), 0, ()), EngineError, "options of 1 to 32 tokens, got 0"),
        (Choice(ids(1), 0, (ids(1), ids(*range(33)))), EngineError, "options of 1 to 32 .*got 33"),
        (Choice(ids(1), 0, (ids(1), ids())), InvalidInput, r"labels\[1\]: has no tokens"),
        (Choice(ids(1), 0, (ids(1), ids(1))), InvalidInput, r"labels\[1\]: the model reads it"),
        (Choice(ids(-1), 0, (ids(1), ids(2))), EngineError, "token ids from 0 to"),
        (Choice(ids(1), 0, (ids(1), ids(10**6))), EngineError, "token ids from 0 to"),
        (Choice(np.ones(9999, np.int32), 0, (ids(1), ids(2))), EngineError, "no room for a prompt"),
    ],
)
def test_llama_chooser_refuses_what_would_fail_everybody(
    chooser: Chooser, small: Task, choice: Choice, kind: type[SpratError], message: str
) -> None:
    good = small.choice("Where is my card?")
    chooser.start(7, good)
    with pytest.raises(kind, match=message):
        chooser.start(8, choice)
    with pytest.raises(EngineError, match="choice 7 is live already"):
        chooser.start(7, good)
    (chosen,) = finish(chooser)
    assert (chosen.number, chosen.error) == (7, None)


def finish(chooser: Chooser) -> list[Chosen]:
    found: list[Chosen] = []
    while chooser.busy:
        found += chooser.step(max_tokens=64, threads=2)
    return found


@pytest.mark.parametrize(
    ("max_tokens", "threads", "message"),
    [(31, 2, "max_tokens: expected at least 32, got 31"), (64, 0, "threads"), (64, 513, "threads")],
)
def test_llama_chooser_refuses_steps_that_lead_nowhere(
    chooser: Chooser, small: Task, max_tokens: int, threads: int, message: str
) -> None:
    chooser.start(0, small.choice("Where is my card?"))
    with pytest.raises(EngineError, match=message):
        chooser.step(max_tokens=max_tokens, threads=threads)
    (chosen,) = finish(chooser)
    assert chosen.error is None


def test_llama_chooser_step_without_work_is_nothing(chooser: Chooser) -> None:
    assert chooser.step(max_tokens=64, threads=2) == []


@pytest.mark.parametrize("steps", range(3))
def test_llama_chooser_failed_batch_fails_who_is_live_and_nobody_later(
    chooser: Chooser, small: Task, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    choice = small.choice("My card was swallowed. " * 6, "full")
    right = one(chooser, choice).probabilities
    for number in range(3):
        chooser.start(number, choice)
    for _ in range(steps):
        assert not chooser.step(max_tokens=MOST_OPTION_TOKENS, threads=2)
    with monkeypatch.context() as patch:
        patch.setattr(chooser, "_decode", lambda *_: 2)
        failed = chooser.step(max_tokens=64, threads=2)
    assert [chosen.number for chosen in failed] == [0, 1, 2]
    assert all("cannot decode" in str(chosen.error) for chosen in failed)
    assert not chooser._prefixes._kept.taken
    check_nothing_is_left(chooser)
    again = one(chooser, choice)
    np.testing.assert_allclose(again.probabilities, right, atol=CROWD)
    assert again.cached_tokens == 0


def test_llama_chooser_lone_tokens_have_company(
    chooser: Chooser, small: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = chooser._decode

    def decode(batch: Any, threads: int) -> int:
        sizes.append(len(batch.ids))
        return real(batch, threads)

    monkeypatch.setattr(chooser, "_decode", decode)
    one(chooser, filler(small, 2, shared=1, start=500))
    assert sizes[:2] == [2, 2]


def test_llama_chooser_unforeseen_failure_leaves_nothing(
    chooser: Chooser, small: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    chooser.start(0, small.choice("My card was swallowed"))

    def broken(*_: Any) -> None:
        raise ValueError("no logits")

    with monkeypatch.context() as patch:
        patch.setattr(llama_chooser, "_log_shares", broken)
        with pytest.raises(ValueError, match="no logits"):
            while chooser.busy:
                chooser.step(max_tokens=64, threads=2)
    check_nothing_is_left(chooser)


def test_llama_chooser_logits_that_are_no_numbers_fail_their_request(
    chooser: Chooser, small: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = llama_chooser._log_shares
    calls: list[int] = []

    def sick(trie: Any, node: int, logits_v: Any) -> Any:
        calls.append(node)
        return real(trie, node, logits_v * np.float32("nan") if len(calls) == 1 else logits_v)

    monkeypatch.setattr(llama_chooser, "_log_shares", sick)
    for number in range(2):
        chooser.start(number, small.choice("My card was swallowed"))
    found = {chosen.number: chosen for chosen in finish(chooser)}
    assert found[0].error == "the model's logits are not finite"
    assert found[1].error is None


# -- the engine around it --------------------------------------------------------------------


def test_llama_chooser_answers_are_generated_beside_it(
    engine: LlamaEngine, chooser: Chooser, small: Task, oracle: Oracle
) -> None:
    """Two contexts on the same weights do not see each other."""
    prompt = engine.tokenize("Once upon a time", add_special=True, parse_special=False)

    def story() -> str:
        engine.start(Start(0, prompt, Sampling(max_tokens=8)))
        text = ""
        while engine.busy():
            text += "".join(p.text for p in engine.step(max_tokens=64, threads=2))
            found.extend(chooser.step(max_tokens=64, threads=2))
        return text

    found: list[Chosen] = []
    alone = story()
    choice = small.choice("My card was swallowed")
    chooser.start(1, choice)
    assert story() == alone
    found += finish(chooser)
    check(found[0], oracle(choice)["constrained"])


def test_llama_chooser_is_made_once_and_with_the_first_choice(f16: Path) -> None:
    engine = LlamaEngine(f16, context_length=64, sequence_limit=1, threads=2)
    try:
        assert engine._chooser is None
        assert engine.chooser() is engine.chooser()
    finally:
        engine.close()


def test_llama_chooser_longest_prompt_follows_from_cells_and_context(
    engine: LlamaEngine, small: Task
) -> None:
    longest = max(map(len, small.options))
    assert engine.most_choice_tokens(small.options) == 1024 - longest
    tight = LlamaEngine.__new__(LlamaEngine)
    tight._choice_cells, tight.context_length = 512, 1024
    many = (ids(*range(MOST_OPTION_TOKENS)),) * 256
    assert tight.most_choice_tokens(many) == 512 - BATCH_TOKENS
    tight.context_length = 16
    assert tight.most_choice_tokens(many) == 0
    assert InputTooLong(field="texts[0]", tokens=9, limit=0).limit == 0
