"""What a bundle is: its kind, labels and tiers, and how good each of them is."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from sprat.asked_manifest import QUESTIONS, AnyLanguage, AnyRemote, RemoteRewriting
from sprat.manifest import FileEntry, Interval, Manifest, ModelRef, Name, digest_of
from sprat.tuning_manifest import Traffic, Tuning
from sprat.values import Grammar

BUNDLE_MANIFEST = "bundle.json"
REPORT = "report.json"
"""The whole evaluation of a bundle; answers do not depend on it."""


class ReportSummary(Manifest):
    """The held-out figures of a tier; the whole report stands in ``report.json``.

    Attributes
    ----------
    n : int
        Rows.
    metrics : dict of str to Interval
        By name; those of a classifier are `sprat.train.report.METRICS`.
    """

    n: int = Field(ge=1)
    metrics: dict[str, Interval]


class Calibration(Manifest):
    """What makes confidences of a tier's scores; fitted on scores of rows that it has not seen.

    Attributes
    ----------
    temperature : float
        Logits are divided by it before softmax; the log-odds of a span before the logistic
        function.
    shift : float
        Added to the log-odds of a span after that; 0 for labels.
    isotonic : tuple of (float, float)
        Knots of the curve from the probability of the best label to the confidence in it, both in
        [0, 1] and ascending; linear between them, level outside. Empty: the two are the same. Of a
        moderate or extract task the curve is that of whole answers, and where it is empty they have
        no confidence.
    ceiling : float
        No confidence is higher: (n + 1) / (n + 2) for a calibration on n rows.
    """

    temperature: float = Field(ge=1e-3, le=1e3)
    shift: float = Field(default=0.0, ge=-100, le=100)
    isotonic: tuple[tuple[float, float], ...] = ()
    ceiling: float = Field(default=1.0, gt=0, le=1)

    @field_validator("isotonic")
    @classmethod
    def _ascends(cls, value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        if not all(0 <= number <= 1 for knot in value for number in knot):
            raise ValueError("isotonic: expected probabilities, in [0, 1]")
        if any(a >= c or b > d for (a, b), (c, d) in itertools.pairwise(value)):
            raise ValueError("isotonic: expected ascending knots")
        return value


class Extract(Manifest):
    """How an extract task answers.

    Attributes
    ----------
    many : tuple of str
        Labels, which are fields here, that a text may have several of: a list in the value. Of the
        others the most probable span is the value.
    requested : bool
        Whether training rows said which fields had been asked for; otherwise saying so has no
        effect that was learned.
    """

    many: tuple[str, ...] = ()
    requested: bool = False


class Thresholds(Manifest):
    """From which probabilities on a moderator acts, for one category.

    Attributes
    ----------
    flag_at : float
        Least probability of a text that is flagged.
    block_at : float or None
        Least probability of one that is blocked, not below ``flag_at``; None blocks nothing.
    """

    flag_at: float = Field(gt=0, le=1)
    block_at: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _blocks_what_is_flagged(self) -> Thresholds:
        if self.block_at is not None and self.block_at < self.flag_at:
            raise ValueError(f"block_at {self.block_at:g} is below flag_at {self.flag_at:g}")
        return self


class Moderation(Manifest):
    """How a tier of a moderate task with heads reads texts, and when it acts.

    Attributes
    ----------
    window : int
        Characters of the windows that longer texts are scanned in.
    overlap : int
        Most characters that neighbouring windows share.
    ngram_buckets : int
        Columns of the head, behind those of the sentence vector, that take n-grams of characters;
        a power of two, or 0 for none. See `sprat.text.ngrams`.
    thresholds : tuple of Thresholds
        One for each label.
    """

    window: int = Field(ge=1)
    overlap: int = Field(ge=0)
    ngram_buckets: int = Field(ge=0, le=1 << 20)
    thresholds: tuple[Thresholds, ...]

    @model_validator(mode="after")
    def _numbers_fit(self) -> Moderation:
        if self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} is not below window {self.window}")
        if self.ngram_buckets == 1 or self.ngram_buckets & (self.ngram_buckets - 1):
            raise ValueError(f"ngram_buckets {self.ngram_buckets} is no power of two")
        return self


class Odds(Manifest):
    """How the probability of a category comes from what a model says of it (Platt, 1999).

    Attributes
    ----------
    slope, offset : float
        The log-odds of what the model says are multiplied by one, and the other is added.
    """

    slope: float = Field(ge=0, le=1e3)
    offset: float = Field(ge=-1e3, le=1e3)


class AskedModeration(Manifest):
    """When a tier of a moderate task acts that asks a model.

    Attributes
    ----------
    odds : tuple of Odds
        The calibration of each label's probabilities.
    thresholds : tuple of Thresholds
        One for each label.
    """

    odds: tuple[Odds, ...]
    thresholds: tuple[Thresholds, ...]

    @model_validator(mode="after")
    def _is_of_the_same_labels(self) -> AskedModeration:
        if len(self.odds) != len(self.thresholds):
            raise ValueError(f"{len(self.odds)} odds, but {len(self.thresholds)} thresholds")
        return self


class Transform(Manifest):
    """What all tiers of a transform task have in common.

    Attributes
    ----------
    inputs : tuple of str
        Placeholders of the prompts besides ``{text}``, in any order; no two alike.
    grammar : Grammar or None
        What every answer has to fit; None: any text.
    right_at : float
        Least edit similarity to the wanted text, in (0, 1], with which an answer counted as right
        in the calibration; 1: an exact match. See `sprat.train.evaluate_transform`.
    """

    inputs: tuple[str, ...] = ()
    grammar: Grammar | None = None
    right_at: float = Field(default=1.0, gt=0, le=1)

    @field_validator("inputs")
    @classmethod
    def _inputs_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "text" in value or len(set(value)) < len(value):
            raise ValueError("inputs: expected different names other than text")
        return value


class Sureness(Manifest):
    """How probable a tier's rewriting is by its own lights: `calibration.chance_of_rewriting`.

    Attributes
    ----------
    quantiles : tuple of float
        Which quantiles of the log-probabilities of an answer's tokens count; each in [0, 1].
    weights : tuple of float
        One for each of them.
    bias : float
    """

    quantiles: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=1)
    weights: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    bias: float = Field(allow_inf_nan=False)

    @model_validator(mode="after")
    def _numbers_fit(self) -> Sureness:
        if len(self.weights) != len(self.quantiles):
            raise ValueError(f"{len(self.weights)} weights for {len(self.quantiles)} quantiles")
        return self


TIER_NAME = r"^[a-z][a-z0-9-]{0,31}$"
TierName = Annotated[str, Field(pattern=TIER_NAME)]
FITTED_TIERS = ("static", "head", "finetune")
"""Names of the tiers that have weights: how they were made."""


class TierManifest(Manifest):
    """One tier of a bundle: a model and what the task needs on it.

    Attributes
    ----------
    name : str
        ``static``, ``head`` or ``finetune`` where there are weights: a head on a static model, on
        a frozen encoder, or on one that was fine-tuned for the task. Any other of a generative
        model that is asked, here or remotely.
    base : ModelRef or None
        The model whose vectors the head was fitted on, or that is asked; None of a remote tier.
    weights : str
        The safetensors file of the head, below the bundle's folder; empty of a tier that is asked.
    language : Language, Categories, Fields, Rewriting or None
        Of a language tier only, in the place of weights: what the kind of the task asks.
    remote : Remote, RemoteCategories, RemoteFields, RemoteRewriting or None
        Of a remote tier only, in the place of weights and base.
    calibration : Calibration or None
        Without it answers carry scores, but no confidence.
    accept_at : float
        Least confidence of an answer. Below it the last tier abstains, and 0 never does. An earlier
        tier passes on to the next one, and with 0 takes no part: it would answer everything.
    evaluation : ReportSummary
        On held-out rows that neither the head nor the calibration has seen.
    moderation : Moderation, AskedModeration or None
        Of a tier of a moderate task. Its head gives calibrated logits: nothing else scales them.
    sureness : Sureness or None
        Of a calibrated tier of a transform task. A remote one without it has the confidences of the
        task that it asks in the place of chances.
    traffic : Traffic or None
        What the rows of the evaluation looked like to it; None without a calibration, and from
        before this was kept.
    """

    name: TierName
    base: ModelRef | None = None
    weights: str = ""
    language: AnyLanguage | None = None
    remote: AnyRemote | None = None
    calibration: Calibration | None
    accept_at: float = Field(default=0.0, ge=0, le=1)
    evaluation: ReportSummary
    moderation: Moderation | AskedModeration | None = None
    sureness: Sureness | None = None
    traffic: Traffic | None = None

    @property
    def whole(self) -> Calibration | None:
        """The calibration of whole answers, which are no labels, where there is one."""
        return self.calibration if self.calibration and self.calibration.isotonic else None

    @model_validator(mode="after")
    def _has_what_its_name_says(self) -> TierManifest:
        if bool(self.weights) + (self.language is not None) + (self.remote is not None) != 1:
            raise ValueError("a tier has either weights or the section of what is asked")
        if bool(self.weights) != (self.name in FITTED_TIERS):
            raise ValueError(f"a tier has weights if its name is one of {', '.join(FITTED_TIERS)}")
        if (self.base is None) != (self.remote is not None):
            raise ValueError("a tier has a base if it is not remote")
        return self

    @property
    def model(self) -> ModelRef:
        """``base`` of a tier that is not remote."""
        assert self.base is not None
        return self.base

    @property
    def model_name(self) -> str:
        """What answers, for people."""
        return self.model.name if self.remote is None else f"{self.remote.model} (remote)"


class Route(Manifest):
    """Where texts go.

    Attributes
    ----------
    targets : dict of str to str
        A target (queue, team, model, endpoint) for each label; labels may share one.
    default_target : str
        Where texts go for which no label is sure enough; empty: nowhere.
    """

    targets: dict[str, Annotated[str, Field(min_length=1)]]
    default_target: str = ""


_LEAST_LABELS = {"classify": 2, "route": 2, "moderate": 1, "extract": 1, "transform": 0}


class BundleManifest(Manifest):
    """What a bundle is. Written as ``bundle.json`` in its folder.

    Attributes
    ----------
    labels : tuple of str
        In the order of the rows of every head; none empty, no two alike. The fields of an extract
        task; none of a transform task.
    tiers : tuple of TierManifest
        From the cheapest to the best, each another one; those with weights come first. The first is
        not remote.
    route : Route or None
        Of bundles of kind route only.
    extract : Extract or None
        Of an extract task.
    transform : Transform or None
        Of a transform task.
    tuning : Tuning or None
        Where the thresholds of the tiers come from.
    """

    format: Literal[2] = 2
    name: Name
    kind: Literal["classify", "route", "moderate", "extract", "transform"]
    labels: tuple[str, ...]
    tiers: tuple[TierManifest, ...] = Field(min_length=1)
    route: Route | None = None
    extract: Extract | None = None
    transform: Transform | None = None
    tuning: Tuning | None = None
    train_rows: int = Field(ge=1)
    created: str
    made_by: str
    files: tuple[FileEntry, ...]

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value or len(set(value)) < len(value):
            raise ValueError("labels must be different and not empty")
        return value

    @field_validator("tiers")
    @classmethod
    def _tiers_differ(cls, value: tuple[TierManifest, ...]) -> tuple[TierManifest, ...]:
        names = [tier.name for tier in value]
        weights = [tier.weights for tier in value if tier.weights]
        for what, each in (("name", names), ("weights", weights)):
            if len(set(each)) < len(each):
                raise ValueError(f"tiers: no two may have the same {what}")
        if any(tier.weights for tier in value[len(weights) :]):
            raise ValueError("tiers: those with weights come first")
        if value[0].remote is not None:
            raise ValueError("tiers: the first may not be remote")
        return value

    @model_validator(mode="after")
    def _moderation_fits(self) -> BundleManifest:
        least = _LEAST_LABELS[self.kind]
        if len(self.labels) < least:
            raise ValueError(f"a bundle of kind {self.kind} needs {least} or more labels")
        for tier in self.tiers:
            if (tier.moderation is None) == (self.kind == "moderate"):
                raise ValueError("a tier has the section moderation if the kind is moderate")
            if tier.moderation is None:
                continue
            if isinstance(tier.moderation, Moderation) != bool(tier.weights):
                raise ValueError(
                    f"tier {tier.name}: moderation: expected odds if it has no weights"
                )
            if len(tier.moderation.thresholds) != len(self.labels):
                raise ValueError(
                    f"tier {tier.name}: {len(tier.moderation.thresholds)} thresholds for "
                    f"{len(self.labels)} labels"
                )
        return self

    @model_validator(mode="after")
    def _questions_fit(self) -> BundleManifest:
        for tier in self.tiers:
            asked = tier.language or tier.remote
            if asked is None:
                continue
            if not isinstance(asked, QUESTIONS[self.kind]):
                raise ValueError(f"tier {tier.name}: expected what a task of kind {self.kind} asks")
            try:
                asked.check(self.labels, () if self.extract is None else self.extract.many)
            except ValueError as error:
                raise ValueError(f"tier {tier.name}: {error}") from None
        return self

    @model_validator(mode="after")
    def _route_fits(self) -> BundleManifest:
        if (self.kind == "route") != (self.route is not None):
            raise ValueError("route: expected for kind route, and for no other")
        if self.route is not None and self.route.targets.keys() != set(self.labels):
            raise ValueError("route.targets: expected one for each label")
        return self

    @model_validator(mode="after")
    def _extract_fits(self) -> BundleManifest:
        if (self.kind == "extract") != (self.extract is not None):
            raise ValueError("extract: expected for kind extract, and for no other")
        if self.extract is not None and not set(self.extract.many) <= set(self.labels):
            raise ValueError("extract.many: expected labels of the bundle")
        return self

    @model_validator(mode="after")
    def _transform_fits(self) -> BundleManifest:
        if (self.kind == "transform") != (self.transform is not None):
            raise ValueError("transform: expected for kind transform, and for no other")
        if self.transform is None:
            if any(tier.sureness is not None for tier in self.tiers):
                raise ValueError(f"a tier of a bundle of kind {self.kind} has no sureness")
            return self
        if self.labels:
            raise ValueError("labels: expected none for kind transform")
        for tier in self.tiers:
            if tier.weights:
                raise ValueError(f"a bundle of kind {self.kind} has no {tier.name} tier")
            far = tier.remote
            if isinstance(far, RemoteRewriting) and bool(far.prompt) == bool(far.task_version):
                raise ValueError(
                    f"tier {tier.name}: expected a prompt, or the version of a task, which has its "
                    "own"
                )
            if tier.sureness is not None and tier.remote and tier.remote.task_version:
                raise ValueError(f"tier {tier.name}: a task has a confidence, and no sureness")
            if tier.calibration is None:
                if tier.sureness is not None:
                    raise ValueError(f"tier {tier.name}: sureness needs a calibration")
            elif tier.sureness is None and not (tier.remote and tier.remote.task_version):
                raise ValueError(f"tier {tier.name}: a calibration needs sureness")
            elif tier.whole is None:
                raise ValueError(f"tier {tier.name}: calibration: expected an isotonic curve")
        return self

    @property
    def answering(self) -> tuple[int, ...]:
        """Places of the tiers that answer: those with a threshold, and the last one.

        With several it is a cascade.
        """
        last = len(self.tiers) - 1
        return tuple(
            place for place, tier in enumerate(self.tiers) if tier.accept_at > 0 or place == last
        )

    @property
    def bases(self) -> tuple[ModelRef, ...]:
        """The models of its tiers that are not remote."""
        return tuple(tier.base for tier in self.tiers if tier.base is not None)

    @property
    def adapters(self) -> tuple[ModelRef, ...]:
        """Those of its language tiers."""
        asked = [tier.language for tier in self.tiers if tier.language is not None]
        return tuple(each.adapter for each in asked if each.adapter is not None)

    @property
    def version(self) -> str:
        """The first 12 hex digits of the digest over all that answers depend on."""
        answers = [*self.labels]
        if self.route is not None:
            answers += [self.route.default_target]
            answers += [self.route.targets[label] for label in self.labels]
        if self.extract is not None:
            answers += [repr(self.extract)]
        if self.transform is not None:
            answers += [repr(self.transform)]
        for tier in self.tiers:
            answers += [tier.name, "" if tier.base is None else tier.base.digest, tier.weights]
            answers += [repr(tier.calibration), repr(tier.accept_at), repr(tier.moderation)]
            answers += [
                repr(each)
                for each in (tier.language, tier.remote, tier.sureness)
                if each is not None
            ]
        return digest_of((f for f in self.files if f.path != REPORT), extra="\0".join(answers))[:12]
