from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Truncation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUNCATION_UNSPECIFIED: _ClassVar[Truncation]
    TRUNCATION_REFUSE: _ClassVar[Truncation]
    TRUNCATION_END: _ClassVar[Truncation]

class Scoring(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORING_UNSPECIFIED: _ClassVar[Scoring]
    SCORING_CONSTRAINED: _ClassVar[Scoring]
    SCORING_FULL: _ClassVar[Scoring]

class Degraded(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEGRADED_UNSPECIFIED: _ClassVar[Degraded]
    DEGRADED_NO_TIME: _ClassVar[Degraded]
    DEGRADED_OVERLOAD: _ClassVar[Degraded]
    DEGRADED_FAILURE: _ClassVar[Degraded]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_ALLOW: _ClassVar[Action]
    ACTION_FLAG: _ClassVar[Action]
    ACTION_BLOCK: _ClassVar[Action]

class QuestionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUESTION_KIND_UNSPECIFIED: _ClassVar[QuestionKind]
    QUESTION_KIND_CHOICE: _ClassVar[QuestionKind]
    QUESTION_KIND_SCORE: _ClassVar[QuestionKind]
    QUESTION_KIND_YES_NO: _ClassVar[QuestionKind]

class LongInput(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LONG_INPUT_UNSPECIFIED: _ClassVar[LongInput]
    LONG_INPUT_REFUSE: _ClassVar[LongInput]
    LONG_INPUT_CHUNK: _ClassVar[LongInput]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_TOO_FEW: _ClassVar[Verdict]
    VERDICT_STABLE: _ClassVar[Verdict]
    VERDICT_WATCH: _ClassVar[Verdict]
    VERDICT_DRIFTED: _ClassVar[Verdict]
TRUNCATION_UNSPECIFIED: Truncation
TRUNCATION_REFUSE: Truncation
TRUNCATION_END: Truncation
SCORING_UNSPECIFIED: Scoring
SCORING_CONSTRAINED: Scoring
SCORING_FULL: Scoring
DEGRADED_UNSPECIFIED: Degraded
DEGRADED_NO_TIME: Degraded
DEGRADED_OVERLOAD: Degraded
DEGRADED_FAILURE: Degraded
ACTION_UNSPECIFIED: Action
ACTION_ALLOW: Action
ACTION_FLAG: Action
ACTION_BLOCK: Action
QUESTION_KIND_UNSPECIFIED: QuestionKind
QUESTION_KIND_CHOICE: QuestionKind
QUESTION_KIND_SCORE: QuestionKind
QUESTION_KIND_YES_NO: QuestionKind
LONG_INPUT_UNSPECIFIED: LongInput
LONG_INPUT_REFUSE: LongInput
LONG_INPUT_CHUNK: LongInput
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
VERDICT_UNSPECIFIED: Verdict
VERDICT_TOO_FEW: Verdict
VERDICT_STABLE: Verdict
VERDICT_WATCH: Verdict
VERDICT_DRIFTED: Verdict

class Timings(_message.Message):
    __slots__ = ("tokenize_ns", "queue_ns", "infer_ns", "total_ns")
    TOKENIZE_NS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NS_FIELD_NUMBER: _ClassVar[int]
    INFER_NS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    tokenize_ns: int
    queue_ns: int
    infer_ns: int
    total_ns: int
    def __init__(self, tokenize_ns: _Optional[int] = ..., queue_ns: _Optional[int] = ..., infer_ns: _Optional[int] = ..., total_ns: _Optional[int] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("index", "reason", "message")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: str
    message: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("name", "description")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class LabelSet(_message.Message):
    __slots__ = ("model", "labels", "instructions", "scoring", "normalize_length", "correct_prior", "adapter")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    SCORING_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CORRECT_PRIOR_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    instructions: str
    scoring: Scoring
    normalize_length: bool
    correct_prior: bool
    adapter: str
    def __init__(self, model: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., instructions: _Optional[str] = ..., scoring: _Optional[_Union[Scoring, str]] = ..., normalize_length: _Optional[bool] = ..., correct_prior: _Optional[bool] = ..., adapter: _Optional[str] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("task", "texts", "top_k", "truncation", "partial_results", "label_set", "max_tier", "accept_at", "budget_ms")
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_RESULTS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SET_FIELD_NUMBER: _ClassVar[int]
    MAX_TIER_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_AT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    task: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    top_k: int
    truncation: Truncation
    partial_results: bool
    label_set: LabelSet
    max_tier: int
    accept_at: float
    budget_ms: float
    def __init__(self, task: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., top_k: _Optional[int] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., partial_results: _Optional[bool] = ..., label_set: _Optional[_Union[LabelSet, _Mapping]] = ..., max_tier: _Optional[int] = ..., accept_at: _Optional[float] = ..., budget_ms: _Optional[float] = ...) -> None: ...

class TierAnswer(_message.Message):
    __slots__ = ("tier", "label", "confidence", "cpu_ms")
    TIER_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    tier: int
    label: str
    confidence: float
    cpu_ms: float
    def __init__(self, tier: _Optional[int] = ..., label: _Optional[str] = ..., confidence: _Optional[float] = ..., cpu_ms: _Optional[float] = ...) -> None: ...

class LabelScore(_message.Message):
    __slots__ = ("label", "score")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    label: str
    score: float
    def __init__(self, label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("label", "confidence", "scores", "abstained", "tier", "escalated", "input_tokens", "dropped_tokens", "cached_tokens", "pruned", "degraded", "tiers", "cpu_ms")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    ABSTAINED_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ESCALATED_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRUNED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    label: str
    confidence: float
    scores: _containers.RepeatedCompositeFieldContainer[LabelScore]
    abstained: bool
    tier: int
    escalated: bool
    input_tokens: int
    dropped_tokens: int
    cached_tokens: int
    pruned: float
    degraded: Degraded
    tiers: _containers.RepeatedCompositeFieldContainer[TierAnswer]
    cpu_ms: float
    def __init__(self, label: _Optional[str] = ..., confidence: _Optional[float] = ..., scores: _Optional[_Iterable[_Union[LabelScore, _Mapping]]] = ..., abstained: _Optional[bool] = ..., tier: _Optional[int] = ..., escalated: _Optional[bool] = ..., input_tokens: _Optional[int] = ..., dropped_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., pruned: _Optional[float] = ..., degraded: _Optional[_Union[Degraded, str]] = ..., tiers: _Optional[_Iterable[_Union[TierAnswer, _Mapping]]] = ..., cpu_ms: _Optional[float] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("results", "errors", "model", "task_version", "calibrated", "timings", "request_id")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TASK_VERSION_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Classification]
    errors: _containers.RepeatedCompositeFieldContainer[ItemError]
    model: ModelVersion
    task_version: str
    calibrated: bool
    timings: Timings
    request_id: str
    def __init__(self, results: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[ItemError, _Mapping]]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., task_version: _Optional[str] = ..., calibrated: _Optional[bool] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Destination(_message.Message):
    __slots__ = ("name", "description", "target")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    target: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class RouteSet(_message.Message):
    __slots__ = ("model", "destinations", "instructions", "scoring", "normalize_length", "correct_prior", "adapter")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DESTINATIONS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    SCORING_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CORRECT_PRIOR_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    destinations: _containers.RepeatedCompositeFieldContainer[Destination]
    instructions: str
    scoring: Scoring
    normalize_length: bool
    correct_prior: bool
    adapter: str
    def __init__(self, model: _Optional[str] = ..., destinations: _Optional[_Iterable[_Union[Destination, _Mapping]]] = ..., instructions: _Optional[str] = ..., scoring: _Optional[_Union[Scoring, str]] = ..., normalize_length: _Optional[bool] = ..., correct_prior: _Optional[bool] = ..., adapter: _Optional[str] = ...) -> None: ...

class RouteRequest(_message.Message):
    __slots__ = ("task", "texts", "top_k", "partial_results", "route_set", "truncation", "max_tier", "accept_at", "budget_ms")
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_RESULTS_FIELD_NUMBER: _ClassVar[int]
    ROUTE_SET_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    MAX_TIER_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_AT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    task: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    top_k: int
    partial_results: bool
    route_set: RouteSet
    truncation: Truncation
    max_tier: int
    accept_at: float
    budget_ms: float
    def __init__(self, task: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., top_k: _Optional[int] = ..., partial_results: _Optional[bool] = ..., route_set: _Optional[_Union[RouteSet, _Mapping]] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., max_tier: _Optional[int] = ..., accept_at: _Optional[float] = ..., budget_ms: _Optional[float] = ...) -> None: ...

class Routing(_message.Message):
    __slots__ = ("target", "classification")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    target: str
    classification: Classification
    def __init__(self, target: _Optional[str] = ..., classification: _Optional[_Union[Classification, _Mapping]] = ...) -> None: ...

class RouteResponse(_message.Message):
    __slots__ = ("results", "errors", "model", "task_version", "calibrated", "timings", "request_id")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TASK_VERSION_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Routing]
    errors: _containers.RepeatedCompositeFieldContainer[ItemError]
    model: ModelVersion
    task_version: str
    calibrated: bool
    timings: Timings
    request_id: str
    def __init__(self, results: _Optional[_Iterable[_Union[Routing, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[ItemError, _Mapping]]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., task_version: _Optional[str] = ..., calibrated: _Optional[bool] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ModerateRequest(_message.Message):
    __slots__ = ("task", "texts", "partial_results", "max_tier", "accept_at", "budget_ms")
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_RESULTS_FIELD_NUMBER: _ClassVar[int]
    MAX_TIER_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_AT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    task: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    partial_results: bool
    max_tier: int
    accept_at: float
    budget_ms: float
    def __init__(self, task: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., partial_results: _Optional[bool] = ..., max_tier: _Optional[int] = ..., accept_at: _Optional[float] = ..., budget_ms: _Optional[float] = ...) -> None: ...

class CategoryScore(_message.Message):
    __slots__ = ("category", "probability", "action", "start", "end")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    category: str
    probability: float
    action: Action
    start: int
    end: int
    def __init__(self, category: _Optional[str] = ..., probability: _Optional[float] = ..., action: _Optional[_Union[Action, str]] = ..., start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Moderation(_message.Message):
    __slots__ = ("action", "category", "categories", "chunks", "input_tokens", "confidence", "abstained", "tier", "escalated", "degraded", "tiers", "cpu_ms")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    ABSTAINED_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ESCALATED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    action: Action
    category: str
    categories: _containers.RepeatedCompositeFieldContainer[CategoryScore]
    chunks: int
    input_tokens: int
    confidence: float
    abstained: bool
    tier: int
    escalated: bool
    degraded: Degraded
    tiers: _containers.RepeatedCompositeFieldContainer[TierAnswer]
    cpu_ms: float
    def __init__(self, action: _Optional[_Union[Action, str]] = ..., category: _Optional[str] = ..., categories: _Optional[_Iterable[_Union[CategoryScore, _Mapping]]] = ..., chunks: _Optional[int] = ..., input_tokens: _Optional[int] = ..., confidence: _Optional[float] = ..., abstained: _Optional[bool] = ..., tier: _Optional[int] = ..., escalated: _Optional[bool] = ..., degraded: _Optional[_Union[Degraded, str]] = ..., tiers: _Optional[_Iterable[_Union[TierAnswer, _Mapping]]] = ..., cpu_ms: _Optional[float] = ...) -> None: ...

class ModerateResponse(_message.Message):
    __slots__ = ("results", "errors", "model", "task_version", "calibrated", "timings", "request_id")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TASK_VERSION_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Moderation]
    errors: _containers.RepeatedCompositeFieldContainer[ItemError]
    model: ModelVersion
    task_version: str
    calibrated: bool
    timings: Timings
    request_id: str
    def __init__(self, results: _Optional[_Iterable[_Union[Moderation, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[ItemError, _Mapping]]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., task_version: _Optional[str] = ..., calibrated: _Optional[bool] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("name", "text", "kind", "options")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    text: str
    kind: QuestionKind
    options: _containers.RepeatedCompositeFieldContainer[Label]
    def __init__(self, name: _Optional[str] = ..., text: _Optional[str] = ..., kind: _Optional[_Union[QuestionKind, str]] = ..., options: _Optional[_Iterable[_Union[Label, _Mapping]]] = ...) -> None: ...

class QuestionSet(_message.Message):
    __slots__ = ("model", "questions", "instructions", "correct_prior", "adapter")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    CORRECT_PRIOR_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    instructions: str
    correct_prior: bool
    adapter: str
    def __init__(self, model: _Optional[str] = ..., questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., instructions: _Optional[str] = ..., correct_prior: _Optional[bool] = ..., adapter: _Optional[str] = ...) -> None: ...

class DecideRequest(_message.Message):
    __slots__ = ("task", "texts", "partial_results", "question_set")
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_RESULTS_FIELD_NUMBER: _ClassVar[int]
    QUESTION_SET_FIELD_NUMBER: _ClassVar[int]
    task: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    partial_results: bool
    question_set: QuestionSet
    def __init__(self, task: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., partial_results: _Optional[bool] = ..., question_set: _Optional[_Union[QuestionSet, _Mapping]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("question", "option", "scores", "expected_level", "pruned")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    OPTION_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_LEVEL_FIELD_NUMBER: _ClassVar[int]
    PRUNED_FIELD_NUMBER: _ClassVar[int]
    question: str
    option: str
    scores: _containers.RepeatedCompositeFieldContainer[LabelScore]
    expected_level: float
    pruned: float
    def __init__(self, question: _Optional[str] = ..., option: _Optional[str] = ..., scores: _Optional[_Iterable[_Union[LabelScore, _Mapping]]] = ..., expected_level: _Optional[float] = ..., pruned: _Optional[float] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("answers", "input_tokens", "cached_tokens")
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    input_tokens: int
    cached_tokens: int
    def __init__(self, answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., input_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("results", "errors", "model", "task_version", "calibrated", "timings", "request_id")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TASK_VERSION_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Decision]
    errors: _containers.RepeatedCompositeFieldContainer[ItemError]
    model: ModelVersion
    task_version: str
    calibrated: bool
    timings: Timings
    request_id: str
    def __init__(self, results: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[ItemError, _Mapping]]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., task_version: _Optional[str] = ..., calibrated: _Optional[bool] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExtractSpec(_message.Message):
    __slots__ = ("model", "schema", "instructions", "require_grounding", "max_tokens", "adapter")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    REQUIRE_GROUNDING_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    schema: str
    instructions: str
    require_grounding: bool
    max_tokens: int
    adapter: str
    def __init__(self, model: _Optional[str] = ..., schema: _Optional[str] = ..., instructions: _Optional[str] = ..., require_grounding: _Optional[bool] = ..., max_tokens: _Optional[int] = ..., adapter: _Optional[str] = ...) -> None: ...

class ExtractRequest(_message.Message):
    __slots__ = ("task", "texts", "long_input", "partial_results", "spec", "requested", "max_tier", "accept_at", "budget_ms")
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    LONG_INPUT_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_RESULTS_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    MAX_TIER_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_AT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    task: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    long_input: LongInput
    partial_results: bool
    spec: ExtractSpec
    requested: _containers.RepeatedScalarFieldContainer[str]
    max_tier: int
    accept_at: float
    budget_ms: float
    def __init__(self, task: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., long_input: _Optional[_Union[LongInput, str]] = ..., partial_results: _Optional[bool] = ..., spec: _Optional[_Union[ExtractSpec, _Mapping]] = ..., requested: _Optional[_Iterable[str]] = ..., max_tier: _Optional[int] = ..., accept_at: _Optional[float] = ..., budget_ms: _Optional[float] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("path", "score", "start", "end", "grounded", "confidence")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    GROUNDED_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    path: str
    score: float
    start: int
    end: int
    grounded: bool
    confidence: float
    def __init__(self, path: _Optional[str] = ..., score: _Optional[float] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., grounded: _Optional[bool] = ..., confidence: _Optional[float] = ...) -> None: ...

class Extraction(_message.Message):
    __slots__ = ("value", "json", "fields", "complete", "abstained", "input_tokens", "cached_tokens", "output_tokens", "forced_tokens", "chunks", "confidence", "tier", "escalated", "degraded", "tiers", "cpu_ms")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    ABSTAINED_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FORCED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ESCALATED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    value: _struct_pb2.Struct
    json: str
    fields: _containers.RepeatedCompositeFieldContainer[Field]
    complete: bool
    abstained: bool
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    forced_tokens: int
    chunks: int
    confidence: float
    tier: int
    escalated: bool
    degraded: Degraded
    tiers: _containers.RepeatedCompositeFieldContainer[TierAnswer]
    cpu_ms: float
    def __init__(self, value: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., json: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[Field, _Mapping]]] = ..., complete: _Optional[bool] = ..., abstained: _Optional[bool] = ..., input_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., forced_tokens: _Optional[int] = ..., chunks: _Optional[int] = ..., confidence: _Optional[float] = ..., tier: _Optional[int] = ..., escalated: _Optional[bool] = ..., degraded: _Optional[_Union[Degraded, str]] = ..., tiers: _Optional[_Iterable[_Union[TierAnswer, _Mapping]]] = ..., cpu_ms: _Optional[float] = ...) -> None: ...

class ExtractResponse(_message.Message):
    __slots__ = ("results", "errors", "model", "task_version", "timings", "calibrated", "request_id")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TASK_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Extraction]
    errors: _containers.RepeatedCompositeFieldContainer[ItemError]
    model: ModelVersion
    task_version: str
    timings: Timings
    calibrated: bool
    request_id: str
    def __init__(self, results: _Optional[_Iterable[_Union[Extraction, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[ItemError, _Mapping]]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., task_version: _Optional[str] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., calibrated: _Optional[bool] = ..., request_id: _Optional[str] = ...) -> None: ...

class Grammar(_message.Message):
    __slots__ = ("json_schema", "regex", "lark")
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    LARK_FIELD_NUMBER: _ClassVar[int]
    json_schema: str
    regex: str
    lark: str
    def __init__(self, json_schema: _Optional[str] = ..., regex: _Optional[str] = ..., lark: _Optional[str] = ...) -> None: ...

class TransformSpec(_message.Message):
    __slots__ = ("model", "prompt", "grammar", "sampling", "lookup", "adapter")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    GRAMMAR_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    LOOKUP_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    model: str
    prompt: str
    grammar: Grammar
    sampling: Sampling
    lookup: bool
    adapter: str
    def __init__(self, model: _Optional[str] = ..., prompt: _Optional[str] = ..., grammar: _Optional[_Union[Grammar, _Mapping]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., lookup: _Optional[bool] = ..., adapter: _Optional[str] = ...) -> None: ...

class TransformRequest(_message.Message):
    __slots__ = ("task", "text", "inputs", "spec", "max_tier", "accept_at", "budget_ms")
    class InputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    MAX_TIER_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_AT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    task: str
    text: str
    inputs: _containers.ScalarMap[str, str]
    spec: TransformSpec
    max_tier: int
    accept_at: float
    budget_ms: float
    def __init__(self, task: _Optional[str] = ..., text: _Optional[str] = ..., inputs: _Optional[_Mapping[str, str]] = ..., spec: _Optional[_Union[TransformSpec, _Mapping]] = ..., max_tier: _Optional[int] = ..., accept_at: _Optional[float] = ..., budget_ms: _Optional[float] = ...) -> None: ...

class TransformResponse(_message.Message):
    __slots__ = ("text", "finish_reason", "complete", "prompt_tokens", "cached_tokens", "output_tokens", "forced_tokens", "drafted_tokens", "accepted_tokens", "model", "task_version", "timings", "confidence", "calibrated", "abstained", "tier", "escalated", "degraded", "tiers", "cpu_ms", "request_id")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FORCED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DRAFTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TASK_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    ABSTAINED_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ESCALATED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    text: str
    finish_reason: FinishReason
    complete: bool
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    forced_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    model: ModelVersion
    task_version: str
    timings: Timings
    confidence: float
    calibrated: bool
    abstained: bool
    tier: int
    escalated: bool
    degraded: Degraded
    tiers: _containers.RepeatedCompositeFieldContainer[TierAnswer]
    cpu_ms: float
    request_id: str
    def __init__(self, text: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., complete: _Optional[bool] = ..., prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., forced_tokens: _Optional[int] = ..., drafted_tokens: _Optional[int] = ..., accepted_tokens: _Optional[int] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., task_version: _Optional[str] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., confidence: _Optional[float] = ..., calibrated: _Optional[bool] = ..., abstained: _Optional[bool] = ..., tier: _Optional[int] = ..., escalated: _Optional[bool] = ..., degraded: _Optional[_Union[Degraded, str]] = ..., tiers: _Optional[_Iterable[_Union[TierAnswer, _Mapping]]] = ..., cpu_ms: _Optional[float] = ..., request_id: _Optional[str] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("model", "texts", "truncation", "partial_results")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_RESULTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    truncation: Truncation
    partial_results: bool
    def __init__(self, model: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., truncation: _Optional[_Union[Truncation, str]] = ..., partial_results: _Optional[bool] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("vectors", "dimension", "input_tokens", "dropped_tokens", "errors", "model", "timings")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    vectors: bytes
    dimension: int
    input_tokens: _containers.RepeatedScalarFieldContainer[int]
    dropped_tokens: _containers.RepeatedScalarFieldContainer[int]
    errors: _containers.RepeatedCompositeFieldContainer[ItemError]
    model: ModelVersion
    timings: Timings
    def __init__(self, vectors: _Optional[bytes] = ..., dimension: _Optional[int] = ..., input_tokens: _Optional[_Iterable[int]] = ..., dropped_tokens: _Optional[_Iterable[int]] = ..., errors: _Optional[_Iterable[_Union[ItemError, _Mapping]]] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: Role
    content: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., content: _Optional[str] = ...) -> None: ...

class Chat(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "stop")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    REPEAT_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, max_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., repeat_penalty: _Optional[float] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token", "logprob")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    logprob: float
    def __init__(self, token: _Optional[bytes] = ..., logprob: _Optional[float] = ...) -> None: ...

class TokenChoice(_message.Message):
    __slots__ = ("chosen", "top")
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    chosen: TokenLogprob
    top: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, chosen: _Optional[_Union[TokenLogprob, _Mapping]] = ..., top: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("model", "prompt", "chat", "sampling", "adapter", "sequences", "logprobs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    model: str
    prompt: str
    chat: Chat
    sampling: Sampling
    adapter: str
    sequences: int
    logprobs: int
    def __init__(self, model: _Optional[str] = ..., prompt: _Optional[str] = ..., chat: _Optional[_Union[Chat, _Mapping]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., adapter: _Optional[str] = ..., sequences: _Optional[int] = ..., logprobs: _Optional[int] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("text", "finish_reason", "prompt_tokens", "output_tokens", "model", "timings", "sequence", "logprobs", "cached_tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    output_tokens: int
    model: ModelVersion
    timings: Timings
    sequence: int
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenChoice]
    cached_tokens: int
    def __init__(self, text: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., prompt_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., sequence: _Optional[int] = ..., logprobs: _Optional[_Iterable[_Union[TokenChoice, _Mapping]]] = ..., cached_tokens: _Optional[int] = ...) -> None: ...

class TokenizeRequest(_message.Message):
    __slots__ = ("model", "texts")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class Tokens(_message.Message):
    __slots__ = ("ids", "pieces")
    IDS_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    pieces: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., pieces: _Optional[_Iterable[str]] = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ("results", "max_tokens", "model", "timings")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Tokens]
    max_tokens: int
    model: ModelVersion
    timings: Timings
    def __init__(self, results: _Optional[_Iterable[_Union[Tokens, _Mapping]]] = ..., max_tokens: _Optional[int] = ..., model: _Optional[_Union[ModelVersion, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class FeedbackRequest(_message.Message):
    __slots__ = ("request_id", "item", "label")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    item: int
    label: str
    def __init__(self, request_id: _Optional[str] = ..., item: _Optional[int] = ..., label: _Optional[str] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LogUse(_message.Message):
    __slots__ = ("written", "lost")
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    written: int
    lost: int
    def __init__(self, written: _Optional[int] = ..., lost: _Optional[int] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("name", "state", "requests_today", "tokens_today", "spent_today")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_TODAY_FIELD_NUMBER: _ClassVar[int]
    TOKENS_TODAY_FIELD_NUMBER: _ClassVar[int]
    SPENT_TODAY_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    requests_today: int
    tokens_today: int
    spent_today: float
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., requests_today: _Optional[int] = ..., tokens_today: _Optional[int] = ..., spent_today: _Optional[float] = ...) -> None: ...

class Tier(_message.Message):
    __slots__ = ("name", "accept_at", "asked", "answered", "missed", "endpoint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_AT_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    accept_at: float
    asked: int
    answered: int
    missed: int
    endpoint: Endpoint
    def __init__(self, name: _Optional[str] = ..., accept_at: _Optional[float] = ..., asked: _Optional[int] = ..., answered: _Optional[int] = ..., missed: _Optional[int] = ..., endpoint: _Optional[_Union[Endpoint, _Mapping]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("name", "kind", "labels", "models", "calibrated", "accept_at", "version", "thresholds", "tiers", "unconfigured", "drift", "log")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    UNCONFIGURED_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    models: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    calibrated: bool
    accept_at: float
    version: str
    thresholds: _containers.RepeatedCompositeFieldContainer[CategoryThresholds]
    tiers: _containers.RepeatedCompositeFieldContainer[Tier]
    unconfigured: _containers.RepeatedScalarFieldContainer[str]
    drift: Drift
    log: LogUse
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., models: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ..., calibrated: _Optional[bool] = ..., accept_at: _Optional[float] = ..., version: _Optional[str] = ..., thresholds: _Optional[_Iterable[_Union[CategoryThresholds, _Mapping]]] = ..., tiers: _Optional[_Iterable[_Union[Tier, _Mapping]]] = ..., unconfigured: _Optional[_Iterable[str]] = ..., drift: _Optional[_Union[Drift, _Mapping]] = ..., log: _Optional[_Union[LogUse, _Mapping]] = ...) -> None: ...

class DriftFigure(_message.Message):
    __slots__ = ("what", "tier", "rows", "verdict", "share", "low", "high", "expected", "psi", "chance", "ks", "p")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    PSI_FIELD_NUMBER: _ClassVar[int]
    CHANCE_FIELD_NUMBER: _ClassVar[int]
    KS_FIELD_NUMBER: _ClassVar[int]
    P_FIELD_NUMBER: _ClassVar[int]
    what: str
    tier: str
    rows: int
    verdict: Verdict
    share: float
    low: float
    high: float
    expected: float
    psi: float
    chance: float
    ks: float
    p: float
    def __init__(self, what: _Optional[str] = ..., tier: _Optional[str] = ..., rows: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., share: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., expected: _Optional[float] = ..., psi: _Optional[float] = ..., chance: _Optional[float] = ..., ks: _Optional[float] = ..., p: _Optional[float] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("verdict", "rows", "figures", "note", "reference", "reference_rows")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_ROWS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    rows: int
    figures: _containers.RepeatedCompositeFieldContainer[DriftFigure]
    note: str
    reference: str
    reference_rows: int
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., rows: _Optional[int] = ..., figures: _Optional[_Iterable[_Union[DriftFigure, _Mapping]]] = ..., note: _Optional[str] = ..., reference: _Optional[str] = ..., reference_rows: _Optional[int] = ...) -> None: ...

class CategoryThresholds(_message.Message):
    __slots__ = ("category", "flag_at", "block_at")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    FLAG_AT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_AT_FIELD_NUMBER: _ClassVar[int]
    category: str
    flag_at: float
    block_at: float
    def __init__(self, category: _Optional[str] = ..., flag_at: _Optional[float] = ..., block_at: _Optional[float] = ...) -> None: ...

class ListTasksResponse(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    def __init__(self, tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PrefixUse(_message.Message):
    __slots__ = ("requests", "hits", "saved_tokens")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    SAVED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    requests: int
    hits: int
    saved_tokens: int
    def __init__(self, requests: _Optional[int] = ..., hits: _Optional[int] = ..., saved_tokens: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "kind", "engine", "version", "architecture", "quantization", "tokenizer", "max_tokens", "dimension", "licence", "size_bytes", "prefix_use")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREFIX_USE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    engine: str
    version: str
    architecture: str
    quantization: str
    tokenizer: str
    max_tokens: int
    dimension: int
    licence: str
    size_bytes: int
    prefix_use: PrefixUse
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., engine: _Optional[str] = ..., version: _Optional[str] = ..., architecture: _Optional[str] = ..., quantization: _Optional[str] = ..., tokenizer: _Optional[str] = ..., max_tokens: _Optional[int] = ..., dimension: _Optional[int] = ..., licence: _Optional[str] = ..., size_bytes: _Optional[int] = ..., prefix_use: _Optional[_Union[PrefixUse, _Mapping]] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...
