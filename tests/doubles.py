"""Engines that tests can hold up, break and look into; deterministic, and as strict as real ones.

Real models are used where answers matter; these stand where *when* and *whether* is the question.
Over 500 lines, because they stand for the engines of one model each and share their clockwork.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.config import LimitsConfig
from sprat.engine.base import Choice, Chosen, CompiledGrammar, Progress, Start
from sprat.errors import InvalidInput
from sprat.head import Head
from sprat.manifest import FileEntry, ModelManifest
from sprat.model import EmbeddingModel, EncoderModel, GenerativeModel
from sprat.registry import Registry
from sprat.scheduler import ComputePool, EncodeScheduler, GenerateScheduler
from sprat.service import Service
from sprat.tasks.category_heads_tier import CategoryHeadsTier
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.head_tier import HeadTier
from sprat.tasks.moderate import ModerateTask
from sprat.tasks.tier import Part
from sprat.text.ngrams import ngram_features
from sprat.tokenizer import Tokenizer
from sprat.values import FinishReason, FloatArray, Grammar, IntArray, Message

WAIT_S = 10.0
"""Bound of every wait in a test; only failures take this long."""


def until(condition: Callable[[], object], what: str = "the condition never came true") -> None:
    """Wait, bounded, until a condition holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.001)


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait, bounded, until a condition holds; the event loop runs meanwhile."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.001)


@contextmanager
def no_leaked_threads() -> Iterator[None]:
    """Fail when threads that were started inside are alive afterwards."""
    before = set(threading.enumerate())
    yield
    until(
        lambda: not [t for t in threading.enumerate() if t not in before and t.name[:5] == "sprat"],
        "threads are left behind",
    )


def vector(row: IntArray | Sequence[int], dimension: int = 4) -> FloatArray:
    """What the `Encoder` below answers for one row of tokens: a unit vector of its own."""
    made = np.random.default_rng(np.asarray(row).tolist()).standard_normal(dimension)
    return (made / np.linalg.norm(made)).astype(np.float32)


class Encoder:
    """An `EncoderEngine` with a gate in front of the forward pass.

    Attributes
    ----------
    gate : threading.Event
        Passes wait for it; open at first.
    calls : list of (int, list of list of int)
        Threads and rows of each pass, in the order of their start.
    failure : callable or None
        Called with the rows of a pass; what it returns is raised.
    """

    def __init__(self, *, dimension: int = 4, max_tokens: int = 512) -> None:
        self.dimension = dimension
        self.max_tokens = max_tokens
        # As many as there are permits.
        self.alone_threads = 256
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[tuple[int, list[list[int]]]] = []
        self.failure: Callable[[list[list[int]]], Exception | None] | None = None
        self.closed = False
        self.most_threads = 0
        self._running = 0
        self._lock = threading.Lock()

    def encode(self, rows: Sequence[IntArray], *, threads: int) -> FloatArray:
        return np.stack([vector(row, self.dimension) for row in self._pass(rows, threads)])

    def states(self, rows: Sequence[IntArray], *, threads: int) -> list[FloatArray]:
        return [
            np.stack([vector([token], self.dimension) for token in row])
            for row in self._pass(rows, threads)
        ]

    def _pass(self, rows: Sequence[IntArray], threads: int) -> list[list[int]]:
        lists = [row.tolist() for row in rows]
        assert lists
        assert all(1 <= len(row) <= self.max_tokens for row in lists)
        assert not self.closed, "a closed engine was used"
        with self._lock:
            self.calls.append((threads, lists))
            self._running += threads
            self.most_threads = max(self.most_threads, self._running)
        try:
            assert self.gate.wait(WAIT_S), "the gate stayed shut"
            error = self.failure and self.failure(lists)
            if error:
                raise error
            return lists
        finally:
            with self._lock:
                self._running -= threads

    @property
    def rows(self) -> list[list[int]]:
        """All rows of all passes."""
        return [row for _, rows in self.calls for row in rows]

    def close(self) -> None:
        assert not self._running, "closed while a pass was running"
        assert not self.closed, "closed twice"
        self.closed = True


@dataclass
class Chooser:
    """A `ChoiceEngine` on which an option weighs 1, and 8 more each time the prompt has it.

    Attributes
    ----------
    gate : threading.Event
        Steps wait for it; open at first.
    places : int
        Most live choices.
    cells : int
        Longest prompt.
    steps_each : int
        Steps that a choice takes.
    started, stopped : list of str
        Own parts of the prompts, in order.
    on_start, on_step : callable or None
        Called before a start or a step; may raise.
    odd : dict of int to Chosen
        What the next step reports for a choice instead.
    """

    gate: threading.Event = field(default_factory=threading.Event)
    places: int = 8
    cells: int = 1000
    steps_each: int = 1
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    slices: list[tuple[int, int]] = field(default_factory=list)
    live: dict[int, tuple[Choice, int]] = field(default_factory=dict)
    on_start: Callable[[Choice], None] | None = None
    on_step: Callable[[], None] | None = None
    odd: dict[int, Chosen] = field(default_factory=dict)
    step_tokens: dict[int, int] = field(default_factory=dict)
    owner: int | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def has_room(self, choice: Choice) -> bool:
        self._check_owner()
        if any(other.adapter != choice.adapter for other, _ in self.live.values()):
            return False
        return len(self.live) < self.places and len(choice.prompt) <= self.cells

    def start(self, number: int, choice: Choice) -> None:
        self._check_owner()
        assert number not in self.live
        assert 0 <= choice.shared < len(choice.prompt)
        if self.on_start:
            self.on_start(choice)
        self.started.append(own(choice))
        self.live[number] = choice, self.steps_each

    def stop(self, number: int) -> None:
        self._check_owner()
        if dropped := self.live.pop(number, None):
            self.stopped.append(own(dropped[0]))

    def step(self, *, max_tokens: int, threads: int) -> list[Chosen]:
        self._check_owner()
        assert self.live, "a step without work"
        assert self.gate.wait(WAIT_S), "the gate stayed shut"
        self.slices.append((max_tokens, threads))
        if self.on_step:
            self.on_step()
        self.step_tokens = {number: len(own(each)) for number, (each, _) in self.live.items()}
        made = []
        for number, (choice, left) in list(self.live.items()):
            self.live[number] = choice, left - 1
            if number in self.odd:
                made.append(self.odd.pop(number))
            elif left == 1:
                made.append(Chosen(number, chances(choice), cached_tokens=choice.shared))
            else:
                continue
            del self.live[number]
        return made

    def _check_owner(self) -> None:
        if self.owner is None:
            self.owner = threading.get_ident()
        assert self.owner == threading.get_ident(), "used by another thread than its owner"


def own(choice: Choice) -> str:
    """What of a prompt is not shared."""
    return "".join(map(chr, choice.prompt[choice.shared :].tolist()))


def chances(choice: Choice) -> FloatArray:
    """What the `Chooser` answers."""
    options = ["".join(map(chr, option.tolist())) for option in choice.options]
    weights = np.array([1 + 8 * own(choice).count(option) for option in options])
    shares: FloatArray = (weights / weights.sum()).astype(np.float32)
    return shares


@dataclass
class Live:
    """A live sequence of the `Generator` below."""

    start: Start
    done: int = 0


@dataclass
class Generator:
    """A `GenerativeEngine` that answers with the prompt's own code points, again and again.

    Attributes
    ----------
    gate : threading.Event
        Steps wait for it; open at first.
    cells : int
        Tokens of all live sequences together.
    started, stopped : list of int
        Sequences, in order.
    on_start, on_step : callable or None
        Called before a start or a step; may raise.
    repeat : int
        How often each code point is said.
    odd : dict of int to Progress
        What the next step reports for a sequence instead.
    on_chooser : callable or None
        Called when ``choices`` are asked for; may raise.
    """

    context_length: int = 64
    sequence_limit: int = 8
    cells: int = 256
    gate: threading.Event = field(default_factory=threading.Event)
    started: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    slices: list[tuple[int, int]] = field(default_factory=list)
    live: dict[int, Live] = field(default_factory=dict)
    on_start: Callable[[Start], None] | None = None
    on_step: Callable[[], None] | None = None
    repeat: int = 1
    odd: dict[int, Progress] = field(default_factory=dict)
    choices: Chooser = field(default_factory=Chooser)
    on_chooser: Callable[[], object] | None = None
    adapters: frozenset[str] = frozenset({"red", "blue"})
    step_tokens: dict[int, int] = field(default_factory=dict)
    answer_prefixes: int = 0
    choice_prefixes: int = 0
    closed: bool = False
    owner: int | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> IntArray:
        assert not parse_special, "input text is never read as special tokens"
        return np.array([0] * add_special + [ord(c) for c in text], np.int32)

    def token_texts(self, ids: IntArray) -> tuple[str, ...]:
        return tuple(chr(i) for i in ids.tolist())

    def chat_tokens(self, messages: Sequence[Message]) -> IntArray:
        return self.tokenize(
            "".join(f"<{m.role}>{m.content}" for m in messages),
            add_special=True,
            parse_special=False,
        )

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        raise InvalidInput("grammar: no good", field="grammar")

    def most_choice_tokens(self, options: Sequence[IntArray]) -> int:
        return self.context_length - max(map(len, options))

    def chooser(self) -> Chooser:
        self._check_owner()
        if self.on_chooser:
            self.on_chooser()
        return self.choices

    def has_room(self, tokens: int, adapter: str = "") -> bool:
        self._check_owner()
        if any(other.start.adapter != adapter for other in self.live.values()):
            return False
        taken = sum(len(s.start.prompt) + s.start.sampling.max_tokens for s in self.live.values())
        return len(self.live) < self.sequence_limit and taken + tokens <= self.cells

    def start(self, start: Start) -> None:
        self._check_owner()
        assert start.sequence not in self.live
        assert 1 <= len(start.prompt) < self.context_length
        if self.on_start:
            self.on_start(start)
        assert self.has_room(1, start.adapter), "another adapter is in use"
        self.started.append(start.sequence)
        self.live[start.sequence] = Live(start)

    def stop(self, sequence: int) -> None:
        self._check_owner()
        if self.live.pop(sequence, None):
            self.stopped.append(sequence)

    def busy(self) -> bool:
        return bool(self.live)

    def step(self, *, max_tokens: int, threads: int) -> list[Progress]:
        self._check_owner()
        assert self.gate.wait(WAIT_S), "the gate stayed shut"
        self.slices.append((max_tokens, threads))
        if self.on_step:
            self.on_step()
        made = []
        for number, sequence in list(self.live.items()):
            if number in self.odd:
                del self.live[number]
                made.append(self.odd.pop(number))
                continue
            letters = [chr(i) for i in sequence.start.prompt.tolist() if i]
            text = letters[sequence.done % len(letters)]
            sequence.done += 1
            finish: FinishReason | None = None
            if text in sequence.start.sampling.stop:
                text, finish = "", "stop"
            elif sequence.done >= sequence.start.sampling.max_tokens:
                finish = "length"
            if finish:
                del self.live[number]
            made.append(Progress(number, text * self.repeat, 1, finish))
        return made

    def close(self) -> None:
        self._check_owner()
        assert not self.closed, "closed twice"
        self.closed = True

    def _check_owner(self) -> None:
        if self.owner is None:
            self.owner = threading.get_ident()
        assert self.owner == threading.get_ident(), "used by another thread than its owner"


# -- what stands around the engines: all of it real ------------------------------------------

WORDS = ["[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]
ENCODER, GENERATOR, TASK = "enc", "gen", "letters"
LABELS = ("first", "second", "third")
MAX_TOKENS = 16


def tokenizer() -> Tokenizer:
    """One token a letter between white space, between ``[CLS]`` (1) and ``[SEP]`` (2)."""
    backend = tokenizers.Tokenizer(
        WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = WhitespaceSplit()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return Tokenizer(backend)


def ids(text: str) -> list[int]:
    """The tokens of a text of letters."""
    return [1, *(WORDS.index(word) if word in WORDS else 0 for word in text.split()), 2]


def manifest(name: str, **changes: Any) -> ModelManifest:
    """A manifest for an engine of this module; an encoder's unless it says otherwise."""
    fields: dict[str, Any] = {
        "name": name,
        "kind": "encoder",
        "engine": "ct2",
        "architecture": "bert",
        "quantization": "int8",
        "weights": "int8",
        "pooling": "mean",
        "max_tokens": MAX_TOKENS,
        "dimension": 4,
        "licence": "Apache-2.0",
        "source": "tests",
        "files": (FileEntry(path="int8/model.bin", size=10, sha256="a" * 64),),
    }
    return ModelManifest(**{**fields, **changes})


def generator_manifest(name: str = GENERATOR) -> ModelManifest:
    """A manifest for the `Generator`."""
    return manifest(
        name, kind="generative", engine="llama", architecture="llama", pooling=None, dimension=0
    )


def bundle(base: ModelManifest, *, accept_at: float = 0.0, calibrated: bool = True) -> Bundle:
    """A head with one row for each of the first dimensions."""
    figure = {"value": 0.9, "low": 0.8, "high": 1.0}
    made = BundleManifest.model_validate(
        {
            "name": TASK,
            "kind": "classify",
            "labels": LABELS,
            "tiers": [
                {
                    "name": "head",
                    "base": {"name": base.name, "digest": base.digest},
                    "weights": "head.safetensors",
                    "calibration": {"temperature": 0.5} if calibrated else None,
                    "accept_at": accept_at,
                    "evaluation": {"n": 9, "metrics": {"accuracy": figure}},
                }
            ],
            "train_rows": 30,
            "created": "2025-01-01T00:00:00Z",
            "made_by": "tests",
            "files": [{"path": "head.safetensors", "size": 1, "sha256": "b" * 64}],
        }
    )
    weight = np.eye(len(LABELS), base.dimension, dtype=np.float32)
    bias = np.array([0.1, 0.0, -0.1], np.float32)
    return Bundle(made, (Head(weight, bias, 0.5 if calibrated else 1.0),))


def moderator(
    base: ModelManifest, *, thresholds: Sequence[dict[str, float]], buckets: int = 4096
) -> Bundle:
    """Two categories: texts with a z, and texts with a q."""
    figure = {"value": 0.9, "low": 0.8, "high": 1.0}
    made = BundleManifest.model_validate(
        {
            "name": "moderator",
            "kind": "moderate",
            "labels": ("zed", "quirk"),
            "tiers": [
                {
                    "name": "head",
                    "base": {"name": base.name, "digest": base.digest},
                    "weights": "head.safetensors",
                    "calibration": {"temperature": 1.0, "isotonic": ((0.0, 0.0), (1.0, 1.0))},
                    "evaluation": {"n": 9, "metrics": {"micro_f1": figure}},
                    "moderation": {
                        "window": 120,
                        "overlap": 30,
                        "ngram_buckets": buckets,
                        "thresholds": thresholds,
                    },
                }
            ],
            "train_rows": 30,
            "created": "2025-01-01T00:00:00Z",
            "made_by": "tests",
            "files": [{"path": "head.safetensors", "size": 1, "sha256": "b" * 64}],
        }
    )
    weight = np.zeros((2, base.dimension + buckets), np.float32)
    for row, letter in enumerate("zq"):
        weight[row, base.dimension + _bucket(letter, buckets)] = 60
    return Bundle(made, (Head(weight, np.array([-5, -5], np.float32)),))


def moderate_task(
    name: str,
    made: Bundle,
    model: EncoderModel,
    pool: ComputePool,
    *,
    accept_at: float = 0.0,
    **options: Any,
) -> ModerateTask:
    """The task of a moderator of one tier."""
    part = Part(0, CategoryHeadsTier.of(made, 0, model, pool), accept_at)
    return ModerateTask(name, made.manifest, [part], **options)


def _bucket(letter: str, buckets: int) -> int:
    """Where a letter by itself goes: what is common to texts that share only that letter."""
    one, other, neither = (
        set(np.flatnonzero(ngram_features([text], buckets)[0]).tolist())
        for text in (f"{letter}b", f"c{letter}d", "b c d")
    )
    (found,) = (one & other) - neither
    return int(found)


def encoder_model(
    engine: Encoder, permits: ComputePermits, pool: ComputePool, *, capacity: int = 100_000
) -> EncoderModel:
    """A loaded encoder on an engine of this module."""
    scheduler = EncodeScheduler(ENCODER, engine, permits, capacity=capacity)
    return EncoderModel(manifest(ENCODER), tokenizer(), scheduler, pool)


def generative_model(
    engine: Generator, permits: ComputePermits, pool: ComputePool, *, capacity: int = 100_000
) -> GenerativeModel:
    """A loaded generative model on an engine of this module."""
    scheduler = GenerateScheduler(GENERATOR, lambda: engine, permits, capacity=capacity)
    return GenerativeModel(generator_manifest(), scheduler, pool)


def classify_task(
    name: str, bundle: Bundle, model: EmbeddingModel, *, accept_at: float | None = None
) -> ClassifyTask:
    """The last tier of a bundle as a task."""
    tier = HeadTier.of(bundle, len(bundle.manifest.tiers) - 1, model)
    last = bundle.manifest.tiers[-1]
    least = last.accept_at if accept_at is None else accept_at
    parts = [Part(len(bundle.manifest.tiers) - 1, tier, least)]
    return ClassifyTask(name, bundle.manifest, parts)


def make_service(
    encoder: Encoder,
    generator: Generator,
    *,
    threads: int = 2,
    capacity: int = 100_000,
    limits: LimitsConfig | None = None,
) -> Service:
    """A service with one encoder, one generative model and one classify task."""
    permits = ComputePermits(threads)
    pool = ComputePool(permits)
    encodes = encoder_model(encoder, permits, pool, capacity=capacity)
    generates = generative_model(generator, permits, pool, capacity=capacity)
    task = classify_task(TASK, bundle(encodes.manifest, accept_at=0.4), encodes)
    registry = Registry({ENCODER: encodes, GENERATOR: generates}, {TASK: task})
    return Service(registry, pool, LimitsConfig() if limits is None else limits)


@asynccontextmanager
async def serving(encoder: Encoder, generator: Generator, **options: Any) -> AsyncIterator[Service]:
    """The service of `make_service`, closed at the end."""
    with no_leaked_threads():
        service = make_service(encoder, generator, **options)
        try:
            yield service
        finally:
            encoder.gate.set()
            generator.gate.set()
            generator.choices.gate.set()
            await service.close()
