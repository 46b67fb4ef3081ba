"""What tiers without weights ask: a generative model of this machine, or an endpoint."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pydantic import Field, model_validator

from sprat.manifest import Manifest, ModelRef
from sprat.values import (
    ExtractSpec,
    Grammar,
    Label,
    LabelSet,
    Question,
    QuestionSet,
    Sampling,
    Scoring,
    TransformSpec,
)


class Language(Manifest):
    """What a language tier asks its model about a text.

    Attributes
    ----------
    labels : tuple of Label
        Those of the bundle, in the order in which the model reads them.
    instructions, scoring, normalize_length, correct_prior
        As in `sprat.values.LabelSet`.
    adapter : ModelRef or None
        The LoRA adapter that the model answers under.
    """

    labels: tuple[Label, ...]
    instructions: str = ""
    scoring: Scoring = "constrained"
    normalize_length: bool = False
    correct_prior: bool = False
    adapter: ModelRef | None = None

    def spec(self, model: str) -> LabelSet:
        """The same as a request would bring it, for the model of that name."""
        return LabelSet(
            model,
            self.labels,
            self.instructions,
            self.scoring,
            self.normalize_length,
            self.correct_prior,
            "" if self.adapter is None else self.adapter.name,
        )

    def check(self, labels: Sequence[str], many: Collection[str]) -> None:
        """See `QUESTIONS`."""
        _check_labels(self.labels, labels)


class Remote(Manifest):
    """What a remote tier asks an endpoint about a text. Which endpoint: the configuration says it.

    Attributes
    ----------
    model : str
        As the endpoint calls it; of another sprat server the task.
    task_version : str
        Of that task; empty of a chat endpoint, whose models have no digest.
    labels : tuple of Label
        Those of the bundle, in the order in which a model reads them.
    instructions : str
        As in `sprat.values.LabelSet`.
    votes : int
        Answers for each text; see `sprat.endpoints.votes.Voting`.
    """

    model: str = Field(min_length=1)
    task_version: str = ""
    labels: tuple[Label, ...]
    instructions: str = ""
    votes: int = Field(default=1, ge=1)

    def check(self, labels: Sequence[str], many: Collection[str]) -> None:
        """See `QUESTIONS`."""
        _check_labels(self.labels, labels)


class Categories(Manifest):
    """What a language tier asks its model about a text that is to be moderated.

    Without ``clean`` each category is a yes-or-no question of its own, so that a text may belong to
    several. With it the model is asked once, for one of the categories or none of them: what an
    adapter knows that was trained on labels.

    Attributes
    ----------
    categories : tuple of Label
        The labels of the bundle, in the order in which the model reads them.
    clean : Label or None
        What the model answers about a text of no category.
    instructions, adapter
        As in `Language`.
    scoring, normalize_length, correct_prior
        As in `sprat.values.LabelSet`, and only with ``clean``: yes and no are single tokens, and
        what the model prefers without a text is the calibration's matter.
    window : int
        Characters of the windows that longer texts are scanned in.
    overlap : int
        Most characters that neighbouring windows share.
    """

    categories: tuple[Label, ...]
    clean: Label | None = None
    instructions: str = ""
    scoring: Scoring = "constrained"
    normalize_length: bool = False
    correct_prior: bool = False
    adapter: ModelRef | None = None
    window: int = Field(ge=1)
    overlap: int = Field(ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Categories:
        if self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} is not below window {self.window}")
        if self.clean is None and (
            self.scoring != "constrained" or self.normalize_length or self.correct_prior
        ):
            raise ValueError("scoring, normalize_length and correct_prior: expected clean beside")
        if self.clean is not None and self.clean.name in {label.name for label in self.categories}:
            raise ValueError(f"clean: {self.clean.name!r} is a category")
        return self

    def spec(self, model: str) -> LabelSet | QuestionSet:
        """The same as a request would bring it, for the model of that name."""
        adapter = "" if self.adapter is None else self.adapter.name
        if self.clean is None:
            questions = tuple(
                Question(label.name, f"Is it {label.name}? {label.description}".rstrip(), "yes_no")
                for label in self.categories
            )
            return QuestionSet(model, questions, self.instructions, adapter=adapter)
        return LabelSet(
            model,
            (*self.categories, self.clean),
            self.instructions,
            self.scoring,
            self.normalize_length,
            self.correct_prior,
            adapter,
        )

    def check(self, labels: Sequence[str], many: Collection[str]) -> None:
        """See `QUESTIONS`."""
        _check_labels(self.categories, labels)


class RemoteCategories(Manifest):
    """What a remote tier asks an endpoint about a text that is to be moderated.

    Attributes
    ----------
    categories : tuple of Label
        The labels of the bundle, in the order in which a model reads them. A text may belong to
        several.
    model, task_version, instructions, votes
        As in `Remote`.
    """

    model: str = Field(min_length=1)
    task_version: str = ""
    categories: tuple[Label, ...]
    instructions: str = ""
    votes: int = Field(default=1, ge=1)

    def check(self, labels: Sequence[str], many: Collection[str]) -> None:
        """See `QUESTIONS`."""
        _check_labels(self.categories, labels)


class Fields(Manifest):
    """What a language tier of an extract task asks its model about a text.

    Attributes
    ----------
    json_schema : str
        JSON Schema of an object whose properties are the fields of the bundle; see `check_fields`.
    instructions : str
        As in `sprat.values.ExtractSpec`.
    max_tokens : int
        Most tokens of an answer. Values are words of the text, and a small model that finds none
        may write on without an end.
    adapter : ModelRef or None
        The LoRA adapter that the model answers under.
    """

    json_schema: str
    instructions: str = ""
    max_tokens: int = Field(default=128, ge=1)
    adapter: ModelRef | None = None

    def spec(self, model: str) -> ExtractSpec:
        """The same as a request would bring it, for the model of that name."""
        return ExtractSpec(
            model,
            self.json_schema,
            self.instructions,
            max_tokens=self.max_tokens,
            adapter="" if self.adapter is None else self.adapter.name,
        )

    def check(self, labels: Sequence[str], many: Collection[str]) -> None:
        """See `QUESTIONS`."""
        check_fields(self.json_schema, labels, many)


class RemoteFields(Manifest):
    """What a remote tier of an extract task asks an endpoint about a text.

    Attributes
    ----------
    model, task_version, instructions, votes
        As in `Remote`.
    json_schema, max_tokens
        As in `Fields`. A sprat server, whose task knows them, is not told.
    """

    model: str = Field(min_length=1)
    task_version: str = ""
    json_schema: str
    instructions: str = ""
    max_tokens: int = Field(default=128, ge=1)
    votes: int = Field(default=1, ge=1)

    def check(self, labels: Sequence[str], many: Collection[str]) -> None:
        """See `QUESTIONS`."""
        check_fields(self.json_schema, labels, many)


class Rewriting(Manifest):
    """What a language tier of a transform task asks its model about a text.

    Attributes
    ----------
    prompt : str
        As in `sprat.values.TransformSpec`; its placeholders are ``{text}`` and the task's inputs.
    sampling : Sampling
        How tokens are chosen.
    lookup : bool
        As in `sprat.values.TransformSpec`.
    adapter : ModelRef or None
        The LoRA adapter that the model answers under.
    """

    prompt: str = Field(min_length=1)
    sampling: Sampling = Sampling()
    lookup: bool = True
    adapter: ModelRef | None = None

    def spec(self, model: str, grammar: Grammar | None) -> TransformSpec:
        """The same as a request would bring it, for the model of that name.

        Parameters
        ----------
        grammar : Grammar or None
            What answers of the task have to fit.
        """
        return TransformSpec(
            model,
            self.prompt,
            grammar,
            self.sampling,
            self.lookup,
            "" if self.adapter is None else self.adapter.name,
        )

    def check(self, labels: Sequence[str], many: Collection[str]) -> None:
        """See `QUESTIONS`: that there are none, the bundle says itself."""


class RemoteRewriting(Manifest):
    """What a remote tier of a transform task asks an endpoint about a text.

    Attributes
    ----------
    model, task_version
        As in `Remote`.
    prompt : str
        As in `Rewriting`; empty of another sprat server, whose task has its own.
    sampling : Sampling
        How a model behind a chat endpoint chooses tokens; see
        `sprat.remote.ChatEndpoint.complete`. A sprat server, whose task knows it, is not told.
    """

    model: str = Field(min_length=1)
    task_version: str = ""
    prompt: str = ""
    sampling: Sampling = Sampling()

    def check(self, labels: Sequence[str], many: Collection[str]) -> None:
        """See `QUESTIONS`: that there are none, the bundle says itself."""


AnyLanguage = Language | Categories | Fields | Rewriting
"""What language tiers ask, by kind of task."""

AnyRemote = Remote | RemoteCategories | RemoteFields | RemoteRewriting
"""What remote tiers ask, by kind of task."""

QUESTIONS: dict[str, tuple[type[AnyLanguage], type[AnyRemote]]] = {
    "classify": (Language, Remote),
    "route": (Language, Remote),
    "moderate": (Categories, RemoteCategories),
    "extract": (Fields, RemoteFields),
    "transform": (Rewriting, RemoteRewriting),
}
"""By kind of bundle, what its language tier and its remote tier ask.

Each class has ``check``, which is given the labels of the bundle, and those that a text may have
several values of, and raises ValueError where it asks for something else."""


def fields_schema(fields: Iterable[Label], many: Collection[str]) -> str:
    """The schema for the fields of an extract task.

    A field that a text does not have is null, or an empty list. All are required: some endpoints
    take no other schemas, and then the answer says of each field that it is not there.

    Parameters
    ----------
    fields : iterable of Label
        With what describes them.
    many : collection of str
        Fields that a text may have several of.

    Returns
    -------
    str
        JSON.
    """
    properties: dict[str, dict[str, Any]] = {}
    for field in fields:
        is_many = field.name in many
        node = {"type": "array", "items": {"type": "string"}} if is_many else {}
        properties[field.name] = node or {"type": ["string", "null"]}
        if field.description:
            properties[field.name]["description"] = field.description
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return json.dumps(schema, ensure_ascii=False)


def check_fields(schema: str, fields: Collection[str], many: Collection[str]) -> None:
    """Check that a schema is one of an object with exactly these fields.

    Each is a string, or null where it may be absent; one of ``many`` is an array of strings.

    Raises
    ------
    ValueError
        It is not: what was expected, and where.
    """
    try:
        root = json.loads(schema)
    except ValueError:
        raise ValueError("schema: expected JSON") from None
    properties = root.get("properties") if isinstance(root, dict) else None
    if not isinstance(properties, dict) or root.get("type") != "object":
        raise ValueError("schema: expected that of an object with properties")
    if sorted(properties) != sorted(fields):
        raise ValueError(
            "schema: expected the fields of the bundle, "
            f"{', '.join(sorted(fields))}; found {', '.join(sorted(properties)) or 'none'}"
        )
    for name, node in properties.items():
        if name in many:
            items = node.get("items") if isinstance(node, dict) else None
            if not isinstance(items, dict) or node.get("type") != "array" or not _is_string(items):
                raise ValueError(f"schema.properties.{name}: expected an array of strings")
        elif not _is_string(node):
            raise ValueError(f"schema.properties.{name}: expected a string")


def _is_string(node: Any) -> bool:
    """Whether a schema takes strings, and perhaps null, but nothing else."""
    given = node.get("type") if isinstance(node, dict) else None
    return given == "string" or (isinstance(given, list) and {"string"} <= set(given) <= _STRINGS)


_STRINGS = {"string", "null"}


def _check_labels(asked: Iterable[Label], labels: Iterable[str]) -> None:
    if sorted(label.name for label in asked) != sorted(labels):
        raise ValueError("expected the labels of the bundle")
