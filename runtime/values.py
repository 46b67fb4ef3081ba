"""The values that requests, answers and the client share: plain, frozen, without behaviour.

Arrays are numpy; times are seconds unless the name says otherwise. Nothing here imports
from the rest of sprat, so every layer may use it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

Truncation = Literal["refuse", "truncate"]
Scoring = Literal["constrained", "full"]
FinishReason = Literal["stop", "length"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one call went, in nanoseconds of wall time.

    Attributes
    ----------
    tokenize_ns, queue_ns, infer_ns, total_ns : int
        Text to tokens; waiting for a batch; the forward passes; the call as a whole.
    """

    tokenize_ns: int = 0
    queue_ns: int = 0
    infer_ns: int = 0
    total_ns: int = 0


@dataclass(frozen=True, slots=True)
class Label:
    """A label that a request brings itself.

    Attributes
    ----------
    name : str
        What the model would answer, and how the result calls it.
    description : str
        When it applies; empty for none.
    """

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels of a request's own, for a generative model to choose from.

    Attributes
    ----------
    model : str
        Name of a generative model.
    labels : tuple of Label
        2 to 256, no two alike.
    instructions : str
        What the texts are, and what is asked of them; empty for a general sentence.
    scoring : {"constrained", "full"}
        How probabilities come from tokens: see `sprat.engine.label_trie.LabelTrie`.
    normalize_length : bool
        With ``full`` scoring: compare means over the tokens of a label and its end instead of
        sums, so that long labels lose nothing by their length. Else refused.
    """

    model: str
    labels: tuple[Label, ...]
    instructions: str = ""
    scoring: Scoring = "constrained"
    normalize_length: bool = False


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label and what the model says of it.

    Attributes
    ----------
    label : str
        A label of the task.
    score : float
        Probability in [0, 1] by the model's own lights; calibrated where the answer says so.
    """

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer for one text.

    Attributes
    ----------
    label : str
        The most probable label; empty when abstained.
    confidence : float or None
        Calibrated probability, in [0, 1], that ``label`` is right; None without calibration.
    scores : tuple of LabelScore
        The best labels, best first.
    abstained : bool
        The confidence did not reach the task's threshold.
    tier : int
        Which tier answered, from 0.
    escalated : bool
        An earlier tier was not sure enough.
    input_tokens : int
        Tokens of the text, special tokens included, after any truncation.
    dropped_tokens : int
        Tokens that truncation removed; 0 unless the request allowed it.
    cached_tokens : int
        Of ``input_tokens``, those that were read before, for another text (generative models).
    pruned : float
        Probability in [0, 1] on labels that were not told apart (generative models): it is spread
        evenly over them.
    """

    label: str
    confidence: float | None
    scores: tuple[LabelScore, ...]
    abstained: bool = False
    tier: int = 0
    escalated: bool = False
    input_tokens: int = 0
    dropped_tokens: int = 0
    cached_tokens: int = 0
    pruned: float = 0.0


@dataclass(frozen=True, slots=True)
class ItemError:
    """One failed input of a call that asked for partial results.

    Attributes
    ----------
    index : int
        Which input, from 0.
    reason, message : str
        As in `sprat.errors`.
    """

    index: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """Answers in input order; ``None`` where ``errors`` names the index."""

    items: tuple[Classification | None, ...]
    errors: tuple[ItemError, ...]
    model: str
    model_version: str
    task_version: str
    calibrated: bool
    timings: Timings


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """Sentence vectors in input order.

    Attributes
    ----------
    vectors : float32[N, D]
        L2-normalized; a row of NaN where ``errors`` names the index.
    input_tokens, dropped_tokens : int32[N]
        As in `Classification`.
    """

    vectors: FloatArray
    input_tokens: IntArray
    dropped_tokens: IntArray
    errors: tuple[ItemError, ...]
    model: str
    model_version: str
    timings: Timings


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The tokens of one text."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenizeResult:
    """Tokens of texts in input order; ``max_tokens`` is the model's limit."""

    items: tuple[Tokenized, ...]
    max_tokens: int
    model: str
    model_version: str
    timings: Timings


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Attributes
    ----------
    max_tokens : int
        Most tokens to generate, from 1.
    temperature : float
        0 is greedy; else logits are divided by it. Range [0, 10].
    top_k : int
        Keep the k best tokens; 0 keeps all.
    top_p : float
        Keep the smallest set of tokens whose probability reaches it. Range (0, 1].
    min_p : float
        Keep tokens with at least this share of the best one's probability. Range [0, 1].
    repeat_penalty : float
        Divides positive (multiplies negative) logits of recent tokens; 1 is off. Range (0, 10].
    seed : int or None
        Makes sampling repeatable in one and the same batch composition; None draws one.
    stop : tuple of str
        Generation ends before the first of these; they are not part of the answer.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a generated answer; the last one carries ``finish_reason`` and the totals.

    Attributes
    ----------
    text : str
        Whole code points only; concatenated chunks are the answer.
    finish_reason : str or None
        ``stop`` (end token or stop string) or ``length`` (``max_tokens`` or context);
        None before the last chunk.
    prompt_tokens, output_tokens : int
        So far.
    """

    text: str
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    timings: Timings = field(default_factory=Timings)
    model: str = ""
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as callers see it.

    Attributes
    ----------
    kind : str
        ``encoder`` or ``generative``.
    engine, quantization, architecture, tokenizer : str
        For people: ``ct2``, ``int8``, ``bert``, ``tokenizers``.
    version : str
        First 12 hex digits of the digest over the model's files.
    max_tokens : int
        Longest input (encoder) or context (generative).
    dimension : int
        Length of a vector; 0 for generative models.
    """

    name: str
    kind: Literal["encoder", "generative"]
    engine: str
    version: str
    architecture: str
    quantization: str
    tokenizer: str
    max_tokens: int
    dimension: int
    licence: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as callers see it.

    Attributes
    ----------
    models : tuple of (str, str)
        Name and version of the model of each tier.
    accept_at : float
        Least confidence of an answer; 0 never abstains.
    version : str
        First 12 hex digits of the digest over the task's bundle.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    models: tuple[tuple[str, str], ...]
    calibrated: bool
    accept_at: float
    version: str
