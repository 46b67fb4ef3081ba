"""Tasks in the configuration: a bundle, or what a generative model is asked, by kind.

``kind`` says which; a task without one is a bundle's. What they say is checked against their model
when it is loaded, by the same rules as requests: see `sprat.tasks.named`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    model_validator,
)

from sprat.values import (
    Destination,
    ExtractSpec,
    Grammar,
    GrammarKind,
    Label,
    LabelSet,
    OnFailure,
    Question,
    QuestionSet,
    RouteSet,
    Sampling,
    Scoring,
    TransformSpec,
)

NEVER = "never"
"""Where a threshold stands: none."""

FOLDER = "folder"
"""Key of the validation context: the folder that paths of files are relative to."""


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _named(value: Any) -> Any:
    """A name alone as a table."""
    return {"name": value} if isinstance(value, str) else value


def _with_named_options(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("options"), list):
        return {**value, "options": [_named(option) for option in value["options"]]}
    return value


def _schema(value: Any, info: ValidationInfo) -> Any:
    """A table as JSON; the path of a file as what is in it."""
    if isinstance(value, str):
        folder: Path = (info.context or {}).get(FOLDER, Path())
        path = folder / value
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise ValueError(f"{path} cannot be read: not UTF-8") from None
    if not isinstance(value, dict):
        raise ValueError("expected a table, or the path of a JSON file")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("holds a value that JSON does not have") from None


def _grammar(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, Grammar):
        return value
    kinds = get_args(GrammarKind)
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= {*kinds}:
        raise ValueError(f"expected a table with one of {', '.join(kinds)}")
    ((kind, source),) = value.items()
    if kind == "json_schema":
        source = _schema(source, info)
    if not isinstance(source, str):
        raise ValueError(f"{kind}: expected text")
    return Grammar(kind, source)


def _never(value: Any) -> Any:
    """The word for no threshold as what stands for none."""
    return None if value == NEVER else value


class ThresholdsConfig(Section):
    """When a moderate task acts, for one category; what is not given is as in the bundle."""

    flag_at: Annotated[
        float | None,
        Field(gt=0, le=1, description="flag from this probability on; absent: as in the bundle"),
    ] = None
    block_at: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description=f'block from this probability on, or `"{NEVER}"`; absent: as in the bundle',
        ),
        BeforeValidator(_never),
    ] = None

    def over(self, flag_at: float, block_at: float | None) -> tuple[float, float | None]:
        """What counts where a bundle says ``flag_at`` and ``block_at``; None blocks nothing."""
        is_given = "block_at" in self.model_fields_set
        return (
            flag_at if self.flag_at is None else self.flag_at,
            self.block_at if is_given else block_at,
        )


class TierConfig(Section):
    """A tier of a task that a bundle answers."""

    accept_at: Annotated[
        float | None,
        Field(ge=0, le=1, description="least confidence of an answer; absent: as in the bundle"),
    ] = None
    endpoint: Annotated[
        str, Field(description="of a remote tier: which endpoint it asks; empty: it is left out")
    ] = ""

    @model_validator(mode="after")
    def _says_something(self) -> TierConfig:
        if self.accept_at is None and not self.endpoint:
            raise ValueError("expected accept_at or endpoint")
        return self


class TaskConfig(Section):
    """A task that a bundle answers."""

    bundle: Annotated[str, Field(description="name of a bundle in the store, or a path")]
    accept_at: Annotated[
        float | None,
        Field(ge=0, le=1, description="abstain below this confidence; absent: as in the bundle"),
    ] = None
    thresholds: Annotated[
        Mapping[str, ThresholdsConfig],
        Field(
            description="of a moderate bundle: by category a table with `flag_at` and `block_at`; "
            "absent: as in the bundle; not beside a least confidence, which holds for those"
        ),
    ] = {}
    tiers: Annotated[
        dict[str, TierConfig],
        Field(
            description="tables by tier, as `{ static = { accept_at = 0.9 } }`: below, the next "
            "tier is asked; 0 leaves a tier out; absent: as in the bundle. A remote tier is asked "
            "if it has an `endpoint`"
        ),
    ] = {}
    on_failure: Annotated[
        OnFailure,
        Field(
            description="if the next tier of a cascade has no time, no room, or fails: `abstain`, "
            "`answer` with what the tier before said, or `error`"
        ),
    ] = "abstain"


class _ModelTask(Section):
    """What every task of a generative model says."""

    model: Annotated[str, Field(description="name of a generative model in the store")]
    adapter: Annotated[
        str, Field(description="LoRA adapter in the store, loaded with the model; empty: none")
    ] = ""


class _ChoiceTask(_ModelTask):
    instructions: Annotated[
        str, Field(description="what the texts are and what is asked; empty: a general sentence")
    ] = ""
    correct_prior: Annotated[
        bool, Field(description="divide out what the model prefers without a text")
    ] = False


class _LabelTask(_ChoiceTask):
    scoring: Annotated[Scoring, Field(description="`constrained` or `full`")] = "constrained"
    normalize_length: Annotated[
        bool, Field(description="compare means over tokens; with `full` scoring only")
    ] = False


class ClassifyTaskConfig(_LabelTask):
    """A task that gives texts labels."""

    kind: Literal["classify"] = "classify"
    labels: Annotated[
        tuple[Annotated[Label, BeforeValidator(_named)], ...],
        Field(description="2 to 256: names, or tables with `name` and `description`"),
    ]

    def spec(self) -> LabelSet:
        """As a request would bring it."""
        return LabelSet(
            self.model,
            self.labels,
            self.instructions,
            self.scoring,
            self.normalize_length,
            self.correct_prior,
            self.adapter,
        )


class RouteTaskConfig(_LabelTask):
    """A task that says where texts go."""

    kind: Literal["route"] = "route"
    destinations: Annotated[
        tuple[Annotated[Destination, BeforeValidator(_named)], ...],
        Field(description="2 to 256: names, or tables with `name`, `description` and `target`"),
    ]

    def spec(self) -> RouteSet:
        """As a request would bring it."""
        return RouteSet(
            self.model,
            self.destinations,
            self.instructions,
            self.scoring,
            self.normalize_length,
            self.correct_prior,
            self.adapter,
        )


class DecideTaskConfig(_ChoiceTask):
    """A task that answers questions about texts."""

    kind: Literal["decide"] = "decide"
    questions: Annotated[
        tuple[Annotated[Question, BeforeValidator(_with_named_options)], ...],
        Field(
            description="1 to 32 tables with `name`, `text`, `kind` (`yes_no`, `choice`, `score`) "
            "and `options`, which are as labels are"
        ),
    ]

    def spec(self) -> QuestionSet:
        """As a request would bring it."""
        return QuestionSet(
            self.model, self.questions, self.instructions, self.correct_prior, self.adapter
        )


class ExtractTaskConfig(_ModelTask):
    """A task that fills the fields of a schema from texts."""

    kind: Literal["extract"] = "extract"
    source: Annotated[
        str,
        BeforeValidator(_schema),
        Field(
            alias="schema",
            description="JSON Schema of an object: a table, or the path of a JSON file beside "
            "this one",
        ),
    ]
    instructions: Annotated[
        str, Field(description="what the texts are and what is asked; empty: a general sentence")
    ] = ""
    require_grounding: Annotated[
        bool, Field(description="withhold values with strings that do not stand in the text")
    ] = False
    max_tokens: Annotated[int, Field(description="most tokens of one value, from 1")] = 512

    def spec(self) -> ExtractSpec:
        """As a request would bring it."""
        return ExtractSpec(
            self.model,
            self.source,
            self.instructions,
            self.require_grounding,
            self.max_tokens,
            self.adapter,
        )


class TransformTaskConfig(_ModelTask):
    """A task that rewrites texts."""

    kind: Literal["transform"] = "transform"
    prompt: Annotated[
        str, Field(description="what to do, with `{text}` and `{NAME}` where inputs go")
    ]
    grammar: Annotated[
        Grammar | None,
        BeforeValidator(_grammar),
        Field(
            description="a table with one of `regex`, `lark` and `json_schema`, which is as "
            "`schema` is; absent: any text"
        ),
    ] = None
    sampling: Annotated[
        Sampling,
        Field(
            description="a table with `max_tokens`, `temperature`, `top_k`, `top_p`, `min_p`, "
            "`repeat_penalty`, `seed`, `stop`; absent: greedy, 256 tokens"
        ),
    ] = Sampling()
    lookup: Annotated[bool, Field(description="guess tokens from the text: faster")] = True

    def spec(self) -> TransformSpec:
        """As a request would bring it."""
        return TransformSpec(
            self.model, self.prompt, self.grammar, self.sampling, self.lookup, self.adapter
        )


ModelTaskConfig = (
    ClassifyTaskConfig
    | RouteTaskConfig
    | DecideTaskConfig
    | ExtractTaskConfig
    | TransformTaskConfig
)
MODEL_TASKS = get_args(ModelTaskConfig)
KINDS = tuple(str(each.model_fields["kind"].default) for each in MODEL_TASKS)


def _kind(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get("kind", "bundle")
    return getattr(value, "kind", "bundle")


AnyTaskConfig = Annotated[
    Annotated[TaskConfig, Tag("bundle")]
    | Annotated[ClassifyTaskConfig, Tag("classify")]
    | Annotated[RouteTaskConfig, Tag("route")]
    | Annotated[DecideTaskConfig, Tag("decide")]
    | Annotated[ExtractTaskConfig, Tag("extract")]
    | Annotated[TransformTaskConfig, Tag("transform")],
    Discriminator(
        _kind,
        custom_error_type="task_kind",
        custom_error_message=f"expected {', '.join(KINDS)}; none for a bundle",
    ),
]
