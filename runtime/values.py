"""The values that requests, answers and the client share: plain, frozen, without behaviour.

Arrays are numpy; times are seconds unless the name says otherwise. Nothing here imports
from the rest of sprat, so every layer may use it.

Over 500 lines, because what each verb takes and gives stands side by side here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]

Truncation = Literal["refuse", "truncate"]
Scoring = Literal["constrained", "full"]
FinishReason = Literal["stop", "length"]
QuestionKind = Literal["choice", "score", "yes_no"]
GrammarKind = Literal["json_schema", "regex", "lark"]
LongInput = Literal["refuse", "chunk"]
Degraded = Literal["no_time", "overload", "failure"]
OnFailure = Literal["abstain", "answer", "error"]
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
    correct_prior : bool
        Divide each probability by the one that the label gets without a text, then normalize.
    adapter : str
        Name of a LoRA adapter of the model; empty for none.
    """

    model: str
    labels: tuple[Label, ...]
    instructions: str = ""
    scoring: Scoring = "constrained"
    normalize_length: bool = False
    correct_prior: bool = False
    adapter: str = ""


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
class Effort:
    """How far a request may go through the tiers of a task; None leaves it to the task.

    Attributes
    ----------
    max_tier : int or None
        The last tier that may answer, from 0, the cheapest. It abstains as the last tier would.
    accept_at : float or None
        Least confidence of an answer, in [0, 1], instead of the threshold of every tier. 0 takes
        the answer of the first one.
    budget_ms : float or None
        Milliseconds, above 0, within which the answer is wanted. A tier behind the first is only
        asked if it can answer in time; the first one always is.
    """

    max_tier: int | None = None
    accept_at: float | None = None
    budget_ms: float | None = None


@dataclass(frozen=True, slots=True)
class TierAnswer:
    """What one tier of a cascade said of a text.

    Attributes
    ----------
    tier : int
        Which one, from 0.
    label : str
        Its most probable label, whether it was accepted or not; of a moderate task the
        category that it would flag, or ``allow``; empty of an extract or transform task.
    confidence : float or None
        Calibrated probability, in [0, 1], that its answer is right; None without calibration.
    cpu_ms : float or None
        CPU milliseconds that it took here; None where the server does not say. No part of
        comparisons.
    """

    tier: int
    label: str
    confidence: float | None
    cpu_ms: float | None = field(default=None, compare=False)


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
        The best labels, best first; empty where a remote tier named none.
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
    degraded : str or None
        Why a better tier was not heard although this one was not sure enough: ``no_time`` was
        left for it, it had more to do than it takes on (``overload``), or a ``failure``. The task
        says whether it abstains then.
    tiers : tuple of TierAnswer
        Of a cascade: every tier that was heard, in order.
    cpu_ms : float or None
        CPU milliseconds of the text in all tiers that were heard: the wall time of each batch or
        decode times its threads, shared by tokens. None where the server does not say. No part
        of comparisons.
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
    degraded: Degraded | None = None
    tiers: tuple[TierAnswer, ...] = ()
    cpu_ms: float | None = field(default=None, compare=False)


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
    """Answers in input order; ``None`` where ``errors`` names the index.

    ``request_id`` is what feedback names the call by; empty where the server logs none.
    """

    items: tuple[Classification | None, ...]
    errors: tuple[ItemError, ...]
    model: str
    model_version: str
    task_version: str
    calibrated: bool
    timings: Timings
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """A target that a request brings itself.

    Attributes
    ----------
    name, description : str
        As in `Label`.
    target : str
        Where such texts go; empty: as ``name``.
    """

    name: str
    description: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class RouteSet:
    """Targets of a request's own; attributes as in `LabelSet`."""

    model: str
    destinations: tuple[Destination, ...]
    instructions: str = ""
    scoring: Scoring = "constrained"
    normalize_length: bool = False
    correct_prior: bool = False
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Routing:
    """Where one text goes, and why: the classification's label is a destination's name.

    Where the classification abstained, ``target`` is the default of the task, or empty.
    """

    target: str
    classification: Classification


@dataclass(frozen=True, slots=True)
class RouteResult:
    """Targets in input order; ``None`` where ``errors`` names the index.

    ``request_id`` is what feedback names the call by; empty where the server logs none.
    """

    items: tuple[Routing | None, ...]
    errors: tuple[ItemError, ...]
    model: str
    model_version: str
    task_version: str
    calibrated: bool
    timings: Timings
    request_id: str = ""


Action = Literal["allow", "flag", "block"]


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """How sure it is that a text belongs to a category, and what follows.

    Attributes
    ----------
    probability : float
        In [0, 1]: the highest among the text's windows.
    action : {"allow", "flag", "block"}
        By the category's own thresholds.
    start, end : int
        Characters of the text, from ``start`` to before ``end``: the window that scored highest; of
        a flagged category a sentence or a few words of it, where these reach the threshold by
        themselves. A tier that asks a model names the window; one that asks a chat endpoint
        all of the text, which it is sent whole.
    """

    category: str
    probability: float
    action: Action
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Moderation:
    """What to do about one text.

    Attributes
    ----------
    action : {"allow", "flag", "block"}
        The strictest one of all categories; ``flag`` when abstained.
    category : str
        The category that it is due to, the most probable one among those that ask for it; empty
        when allowed or abstained.
    categories : tuple of CategoryScore
        All of them, in the order of the task.
    chunks : int
        Windows that the text was scanned in; 1 when it was not cut.
    input_tokens : int
        Tokens that the model read: what windows share counts for each of them.
    confidence : float or None
        Calibrated probability, in [0, 1], that the text is flagged for the right categories and no
        other; None without calibration.
    abstained, tier, escalated, degraded, tiers, cpu_ms
        As in `Classification`.
    """

    action: Action
    category: str
    categories: tuple[CategoryScore, ...]
    chunks: int = 1
    input_tokens: int = 0
    confidence: float | None = None
    abstained: bool = False
    tier: int = 0
    escalated: bool = False
    degraded: Degraded | None = None
    tiers: tuple[TierAnswer, ...] = ()
    cpu_ms: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ModerateResult:
    """Answers in input order; ``None`` where ``errors`` names the index.

    ``request_id`` is what feedback names the call by; empty where the server logs none.
    """

    items: tuple[Moderation | None, ...]
    errors: tuple[ItemError, ...]
    model: str
    model_version: str
    task_version: str
    calibrated: bool
    timings: Timings
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a text.

    Attributes
    ----------
    name : str
        How the result calls it, unique in its set.
    text : str
        The question.
    kind : {"choice", "score", "yes_no"}
        One of 2 to 256 options; one of 2 to 10 levels, low to high; or yes or no.
    options : tuple of Label
        Of a choice or score; empty for ``yes_no``.
    """

    name: str
    text: str
    kind: QuestionKind
    options: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions of a request's own, for a generative model to answer.

    Attributes
    ----------
    model : str
        Name of a generative model.
    questions : tuple of Question
        1 to 32.
    instructions : str
        What the texts are; empty for a general sentence.
    correct_prior, adapter
        As in `LabelSet`.
    """

    model: str
    questions: tuple[Question, ...]
    instructions: str = ""
    correct_prior: bool = False
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Attributes
    ----------
    question : str
        Its name.
    option : str
        The most probable option; ``yes`` or ``no`` for a ``yes_no`` question.
    scores : tuple of LabelScore
        Every option, in the order of the question.
    expected_level : float or None
        Of a ``score`` question: the mean of the levels 0, 1, ... by their probabilities.
    pruned : float
        As in `Classification`.
    """

    question: str
    option: str
    scores: tuple[LabelScore, ...]
    expected_level: float | None = None
    pruned: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The answers about one text.

    Attributes
    ----------
    answers : tuple of Answer
        One for each question, in order.
    input_tokens : int
        Tokens that the model read: what the questions share counts once.
    cached_tokens : int
        Of these, those that were read before, for another text.
    """

    answers: tuple[Answer, ...]
    input_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class DecideResult:
    """Decisions in input order; ``None`` where ``errors`` names the index.

    ``request_id`` is what feedback names the call by; empty where the server logs none.
    """

    items: tuple[Decision | None, ...]
    errors: tuple[ItemError, ...]
    model: str
    model_version: str
    task_version: str
    calibrated: bool
    timings: Timings
    request_id: str = ""


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


@dataclass(frozen=True, slots=True, eq=False)
class TokenStates:
    """What an encoder made of the tokens of one text; special tokens are left out.

    Attributes
    ----------
    ids : int32[T]
        T may be 0: of some texts a normalizer leaves nothing.
    spans : int32[T, 2]
        Start and end of each token in code points of the text.
    states : float32[T, H]
        The last layer's state of each token.
    chunks : int
        Parts that the text was cut into; 1 when it was not.
    """

    ids: IntArray
    spans: IntArray
    states: FloatArray
    chunks: int = 1


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
class Grammar:
    """What an answer must look like.

    Attributes
    ----------
    kind : {"json_schema", "regex", "lark"}
        Language of ``source``.
    source : str
        A JSON Schema as JSON; a regular expression of Rust's regex crate, without look-around; or a
        Lark grammar as llguidance reads them.
    """

    kind: GrammarKind
    source: str


@dataclass(frozen=True, slots=True)
class ExtractSpec:
    """Fields of a request's own, for a generative model to fill.

    Attributes
    ----------
    model : str
        Name of a generative model.
    schema : str
        JSON Schema of an object, as JSON. Objects that list properties and say nothing of others
        have no others: see `sprat.text.schema.Schema`.
    instructions : str
        What the texts are and what to look for; empty for a general sentence.
    require_grounding : bool
        Withhold a value with a string that does not stand in the text (enums and constants may).
    max_tokens : int
        Most tokens of one value, from 1.
    adapter : str
        As in `LabelSet`.
    """

    model: str
    schema: str
    instructions: str = ""
    require_grounding: bool = False
    max_tokens: int = 512
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A leaf of an extracted value: a string, a number, a boolean or null.

    Attributes
    ----------
    path : str
        JSON Pointer (RFC 6901), such as ``/items/0/name``.
    score : float
        Probability, in [0, 1], of the leaf by the model's lights, among all that the schema allows.
    start, end : int or None
        Characters of the text, from ``start`` to before ``end``, where the leaf stands.
    grounded : bool
        Whether a string stands in the text, up to case and white space.
    confidence : float or None
        Calibrated probability, in [0, 1], that field, start and end are right; None where nothing
        was calibrated, as with generative models.
    """

    path: str
    score: float
    start: int | None = None
    end: int | None = None
    grounded: bool = False
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was found in one text.

    Attributes
    ----------
    value : dict or None
        None when it is not complete, or abstained.
    json : str
        The same as JSON without white space; empty where ``value`` is None.
    fields : tuple of Field
        Every leaf, in the order of the value; also of one that was withheld.
    complete : bool
        False when the value did not end within ``max_tokens``, is nested more than 30 deep, or has
        a number beyond the range of float64.
    abstained : bool
        A string did not stand in the text, and ``require_grounding`` asked for it; or the
        confidence did not reach the task's threshold.
    input_tokens, cached_tokens, output_tokens, forced_tokens : int
        Read; of these, read before for another text; generated; of these, those that the schema
        left no choice about.
    chunks : int
        Parts that the text was cut into; 1 when it was not.
    confidence : float or None
        Calibrated probability, in [0, 1], that every field is right and none is missing; None
        without calibration.
    tier, escalated, degraded, tiers, cpu_ms
        As in `Classification`.
    """

    value: dict[str, Any] | None
    json: str
    fields: tuple[Field, ...]
    complete: bool = True
    abstained: bool = False
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    forced_tokens: int = 0
    chunks: int = 1
    confidence: float | None = None
    tier: int = 0
    escalated: bool = False
    degraded: Degraded | None = None
    tiers: tuple[TierAnswer, ...] = ()
    cpu_ms: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ExtractResult:
    """Values in input order; ``None`` where ``errors`` names the index.

    ``request_id`` is what feedback names the call by; empty where the server logs none.
    """

    items: tuple[Extraction | None, ...]
    errors: tuple[ItemError, ...]
    model: str
    model_version: str
    task_version: str
    timings: Timings
    calibrated: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """A rewriting of a request's own, for a generative model.

    Attributes
    ----------
    model : str
        Name of a generative model.
    prompt : str
        What to do, with ``{text}`` where the text goes and ``{NAME}`` for each other input; ``{{``
        and ``}}`` are braces.
    grammar : Grammar or None
        None: any text.
    sampling : Sampling
        How tokens are chosen.
    lookup : bool
        Guess tokens from what the prompt and the answer say already, and check several in one pass;
        never changes an answer's distribution.
    adapter : str
        As in `LabelSet`.
    """

    model: str
    prompt: str
    grammar: Grammar | None = None
    sampling: Sampling = Sampling()
    lookup: bool = True
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How probable a token was.

    Attributes
    ----------
    token : bytes
        What it adds to the answer.
    logprob : float
        Natural logarithm of its probability by the model, before temperature and filters; under a
        grammar, among the tokens that it allows.
    """

    token: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A token of an answer, and the most probable ones at its place, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


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
        Read and generated.
    sequence : int
        Which of several answers.
    logprobs : tuple of TokenChoice
        Tokens since the last chunk, where they were asked for.
    complete : bool
        The answer ended by itself, and satisfies the grammar where there is one.
    cached_tokens, forced_tokens, drafted_tokens, accepted_tokens : int
        Of the prompt, read before for another answer; generated without a choice, because of the
        grammar; guessed from prompt and answer; guessed right.
    cpu_ms : float or None
        CPU milliseconds of the answer, as in `Classification`. No part of comparisons.
    confidence : float or None
        Calibrated probability, in [0, 1], that the answer is right; None without calibration.
    calibrated : bool
        Whether answers of the task have a confidence.
    abstained, tier, escalated, degraded, tiers
        As in `Classification`. Who abstained has no text.
    request_id : str
        As in `ClassifyResult`.
    """

    text: str
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    sequence: int = 0
    logprobs: tuple[TokenChoice, ...] = ()
    complete: bool = False
    cached_tokens: int = 0
    forced_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    cpu_ms: float | None = field(default=None, compare=False)
    timings: Timings = field(default_factory=Timings)
    model: str = ""
    model_version: str = ""
    task_version: str = ""
    confidence: float | None = None
    calibrated: bool = False
    abstained: bool = False
    tier: int = 0
    escalated: bool = False
    degraded: Degraded | None = None
    tiers: tuple[TierAnswer, ...] = ()
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class TransformResult:
    """The answer of a transform task as a cascade gives it: one last chunk, with all of its text.

    The others as in `ClassifyResult`.
    """

    items: tuple[Chunk | None, ...]
    errors: tuple[ItemError, ...]
    model: str
    model_version: str
    task_version: str
    calibrated: bool
    timings: Timings
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class PrefixUse:
    """What keeping the static parts of prompts has saved since the model was loaded.

    Attributes
    ----------
    requests : int
        Answers and choices that were finished.
    hits : int
        Of these, those that found a part of their prompt decoded.
    saved_tokens : int
        Prompt tokens that were not decoded again.
    """

    requests: int = 0
    hits: int = 0
    saved_tokens: int = 0

    def count(self, cached_tokens: int) -> PrefixUse:
        """The same with one more request, which found so many tokens decoded."""
        return PrefixUse(
            self.requests + 1, self.hits + (cached_tokens > 0), self.saved_tokens + cached_tokens
        )


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
    prefix_use : PrefixUse or None
        Of a generative model.
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
    prefix_use: PrefixUse | None = None


@dataclass(frozen=True, slots=True)
class CategoryThresholds:
    """From which probabilities on a moderate task acts, for one category.

    Attributes
    ----------
    flag_at : float
        Least probability of a text that is flagged, above 0.
    block_at : float or None
        Least probability of one that is blocked, not below ``flag_at``; None blocks nothing.
    """

    category: str
    flag_at: float
    block_at: float | None


BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """The endpoint that a tier asks.

    Attributes
    ----------
    name : str
        In the configuration of the server.
    state : {"closed", "open", "half_open"}
        Of its circuit breaker: it is asked; it failed lately and is not; one request is under way
        to see.
    requests_today, tokens_today : int
        Of this day (UTC), by all that share its cap; what is under way counts with the most that it
        can take.
    spent_today : float
        Money, by the prices of the configuration; 0 without any.
    """

    name: str
    state: BreakerState
    requests_today: int
    tokens_today: int
    spent_today: float


@dataclass(frozen=True, slots=True)
class TierInfo:
    """A tier of a cascade, and what it has done since the task was loaded.

    Attributes
    ----------
    name : str
        As in the bundle.
    accept_at : float
        Its threshold: see `sprat.tasks.cascade.Escalation`.
    asked : int
        Texts that it gave an answer for, sure or not.
    answered : int
        Texts whose answer is its own, abstentions included.
    missed : int
        Texts that were passed on to it in vain: see `Classification.degraded`.
    endpoint : EndpointInfo or None
        Of a remote tier.
    """

    name: str
    accept_at: float
    asked: int = 0
    answered: int = 0
    missed: int = 0
    endpoint: EndpointInfo | None = None


Verdict = Literal["stable", "watch", "drifted", "too_few", "unknown"]
"""What is made of a comparison with the rows of a reference: see `sprat.drift`."""

DriftSubject = Literal["confidence", "passed_on", "labels", "agreement", "error", "loss"]

DriftReference = Literal["tuning", "evaluation"]
"""Which rows answers are compared with: those that the thresholds were verified on, or those that a
tier was evaluated on."""


@dataclass(frozen=True, slots=True)
class DriftFigure:
    """One thing that is compared with the rows that a bundle was tuned or evaluated on.

    Attributes
    ----------
    what : DriftSubject
        ``confidence``: of the answers of a tier. ``passed_on``: share of the rows that a tier was
        not sure enough of. ``labels``: shares of the answers. ``agreement``: share of the answers
        of earlier tiers that are those of the last one. ``error``: share of the answers that are
        wrong. ``loss``: by how much the share of right answers is below the last tier's.
    tier : str
        Empty: of the whole cascade.
    rows : int
        That are known of it.
    verdict : Verdict
    share : float or None
        The share itself. None for ``confidence`` and ``labels``, which have many.
    low, high : float or None
        Its 95 % interval.
    expected : float or None
        The share among the rows of the reference; of ``error`` and ``loss``, the limit.
    psi : float or None
        Population stability index, at least 0; None for ``error`` and ``loss``.
    chance : float or None
        What of it so few rows give by chance.
    ks : float or None
        Kolmogorov-Smirnov statistic, in [0, 1]; of ``confidence`` only.
    p : float or None
        Probability of such a difference without drift, in [0, 1].
    """

    what: DriftSubject
    tier: str
    rows: int
    verdict: Verdict
    share: float | None = None
    low: float | None = None
    high: float | None = None
    expected: float | None = None
    psi: float | None = None
    chance: float | None = None
    ks: float | None = None
    p: float | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """How far traffic is from the rows that a bundle was tuned or evaluated on.

    Attributes
    ----------
    verdict : Verdict
        The worst of the figures.
    rows : int
        Answers that were compared; of a server, the newest ones.
    figures : tuple of DriftFigure
    note : str
        What to do about it; empty if nothing.
    reference : DriftReference or None
        None: there is nothing to compare with.
    reference_rows : int
        How many rows these were.
    """

    verdict: Verdict
    rows: int
    figures: tuple[DriftFigure, ...] = ()
    note: str = ""
    reference: DriftReference | None = None
    reference_rows: int = 0


@dataclass(frozen=True, slots=True)
class LogUse:
    """What became of a task's rows of the decision log since the server started.

    Attributes
    ----------
    written, lost : int
        Texts whose answers are in the file; and are not, because it could not be written, or more
        came than it takes.
    """

    written: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as callers see it.

    Attributes
    ----------
    labels : tuple of str
        What it may answer; of a decide task the names of its questions, of an extract task its
        fields, as far as the schema lists them; else empty.
    models : tuple of (str, str)
        Name and version of the model of each tier.
    accept_at : float
        Least confidence of an answer, in a cascade of the last tier; 0 never abstains.
    version : str
        First 12 hex digits of the digest over the task's bundle and the thresholds that the
        configuration puts in the place of its own; or over what it asks and the versions of model
        and adapter.
    thresholds : tuple of CategoryThresholds
        What counts for each label of a moderate task; empty of other kinds.
    tiers : tuple of TierInfo
        Of a cascade: one for each of ``models``.
    unconfigured : tuple of str
        Remote tiers of its bundle that are not asked, since the configuration names no endpoint for
        them.
    log : LogUse or None
        None where the server keeps no decision log, or not of tasks of this kind.
    drift : Drift or None
        Of a task of a bundle.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    models: tuple[tuple[str, str], ...]
    calibrated: bool
    accept_at: float
    version: str
    thresholds: tuple[CategoryThresholds, ...] = ()
    tiers: tuple[TierInfo, ...] = ()
    unconfigured: tuple[str, ...] = ()
    log: LogUse | None = None
    drift: Drift | None = None
