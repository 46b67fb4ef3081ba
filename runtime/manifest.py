"""The documents that sprat writes beside weights: what a model, a bundle or an adapter is.

All of them list every file with its size and sha256; `verify` checks them. A manifest is JSON, read
strictly: an unknown or missing field is an error that names it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sprat.errors import CorruptFile

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
MODEL_MANIFEST = "model.json"
BUNDLE_MANIFEST = "bundle.json"
ADAPTER_MANIFEST = "adapter.json"
REPORT = "report.json"
"""The whole evaluation of a bundle; answers do not depend on it."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Document):
    """One file: POSIX path below the folder of the manifest, size in bytes, sha256."""

    path: str
    size: int = Field(ge=0)
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if not value or path.is_absolute() or ".." in path.parts or "\\" in value:
            raise ValueError("must be a relative path without '..'")
        return value


class GateFigure(_Document):
    """One figure of a gate.

    Attributes
    ----------
    name : str
        See `sprat.quantize.gate` for what each is.
    value : float
        Of the quantized model.
    at_least, at_most : float or None
        What it must be, where it has a limit: one of the two.
    """

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the value keeps the limit; a value that is no number keeps none."""
        least, most = self.at_least, self.at_most
        return (least is None or self.value >= least) and (most is None or self.value <= most)


class GateReport(_Document):
    """How near a quantized model is to the weights that it was made from.

    Attributes
    ----------
    base : Name
        The model in the store whose published weights were quantized.
    reference : str
        The type of weights that it was compared with, such as ``float32`` or ``f16``.
    data : str
        Sha256 of the file of texts or rows that it was compared on.
    calibration : str or None
        Sha256 of the file that guided the rounding of its weights.
    task : str or None
        Name and version of the bundle whose answers were compared.
    texts, tokens : int
        How many there were; tokens are 0 for an encoder.
    figures : tuple of GateFigure
        All of them were met.
    speeds : dict of str to float
        What was measured here to choose it among others; empty where it was the only one.
    """

    base: str
    reference: str
    data: Sha256
    calibration: Sha256 | None = None
    task: str | None = None
    texts: int = Field(ge=1)
    tokens: int = Field(ge=0)
    figures: tuple[GateFigure, ...] = Field(min_length=1)
    speeds: dict[str, float] = {}


class ModelManifest(_Document):
    """What a model in the store is. Written as ``model.json`` in its folder.

    Attributes
    ----------
    weights : str
        The file (GGUF, the table of a static model) or folder (CTranslate2) that the engine opens,
        below the model's folder.
    source_weights : str or None
        The published weights that ``weights`` was made from, where they were kept.
    pooling : {"mean", "cls"} or None
        How token vectors become a sentence vector; None for generative models.
    max_tokens : int
        Longest input, special tokens included (encoder); trained context (generative); tokens that
        are read of a text (static).
    dimension : int
        Length of a sentence vector; 0 for generative models.
    licence : str
        The model's own licence, as an SPDX identifier where there is one.
    source : str
        Where the files came from, for people.
    gate : GateReport or None
        How near it is to what it was made from, for a model that ``sprat quantize`` made.
    """

    format: Literal[1] = 1
    name: Name
    kind: Literal["encoder", "generative"]
    engine: Literal["ct2", "llama", "static"]
    architecture: str
    quantization: str
    weights: str
    source_weights: str | None = None
    pooling: Literal["mean", "cls"] | None = None
    max_tokens: int = Field(ge=1)
    dimension: int = Field(ge=0)
    licence: str
    source: str
    gate: GateReport | None = None
    files: tuple[FileEntry, ...]

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> ModelManifest:
        if self.kind == "encoder" and (
            self.engine not in ("ct2", "static") or self.pooling is None or self.dimension == 0
        ):
            raise ValueError("an encoder needs engine ct2 or static, a pooling and a dimension")
        if self.kind == "generative" and (
            self.engine != "llama" or self.pooling is not None or self.dimension != 0
        ):
            raise ValueError("a generative model needs engine llama, no pooling and dimension 0")
        return self

    @property
    def digest(self) -> str:
        """Sha256 over the paths and digests of the files that the engine and the tokenizer read."""
        return digest_of(f for f in self.files if f.path != self.source_weights)

    @property
    def version(self) -> str:
        """The first 12 hex digits of `digest`."""
        return self.digest[:12]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


class ModelRef(_Document):
    """A model that a bundle or an adapter was made with."""

    name: Name
    digest: Sha256


class Interval(_Document):
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class ReportSummary(_Document):
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


class Calibration(_Document):
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
        [0, 1] and ascending; linear between them, level outside. Empty: the two are the same.
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


class Extract(_Document):
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


class Thresholds(_Document):
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


class Moderation(_Document):
    """How a tier of a moderate task reads texts, and when it acts.

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


TierName = Literal["static", "head", "finetune"]


class TierManifest(_Document):
    """One tier of a bundle: a model and what the task needs on it.

    Attributes
    ----------
    name : str
        How it was trained: a head on a static model, on a frozen encoder, or on one that was
        fine-tuned for the task.
    base : ModelRef
        The model whose vectors the head was fitted on.
    weights : str
        The safetensors file of the head, below the bundle's folder.
    calibration : Calibration or None
        Without it answers carry scores, but no confidence.
    accept_at : float
        Least confidence of an answer; below it the tier abstains. 0 never abstains.
    evaluation : ReportSummary
        On held-out rows that neither the head nor the calibration has seen.
    moderation : Moderation or None
        Of a tier of a moderate task, whose head gives calibrated logits: nothing else scales them.
    """

    name: TierName
    base: ModelRef
    weights: str
    calibration: Calibration | None
    accept_at: float = Field(default=0.0, ge=0, le=1)
    evaluation: ReportSummary
    moderation: Moderation | None = None


class Route(_Document):
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


class BundleManifest(_Document):
    """What a bundle is. Written as ``bundle.json`` in its folder.

    Attributes
    ----------
    labels : tuple of str
        In the order of the rows of every head; none empty, no two alike. The fields of an extract
        task.
    tiers : tuple of TierManifest
        From the cheapest to the best, each another one.
    route : Route or None
        Of bundles of kind route only.
    extract : Extract or None
        Of an extract task.
    """

    format: Literal[2] = 2
    name: Name
    kind: Literal["classify", "route", "moderate", "extract"]
    labels: tuple[str, ...] = Field(min_length=1)
    tiers: tuple[TierManifest, ...] = Field(min_length=1)
    route: Route | None = None
    extract: Extract | None = None
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
        for what in ("name", "weights"):
            if len({getattr(tier, what) for tier in value}) < len(value):
                raise ValueError(f"tiers: no two may have the same {what}")
        return value

    @model_validator(mode="after")
    def _moderation_fits(self) -> BundleManifest:
        if self.kind not in ("moderate", "extract") and len(self.labels) < 2:
            raise ValueError(f"a bundle of kind {self.kind} needs 2 or more labels")
        for tier in self.tiers:
            if (tier.moderation is None) == (self.kind == "moderate"):
                raise ValueError("a tier has the section moderation if the kind is moderate")
            if tier.moderation is not None and len(tier.moderation.thresholds) != len(self.labels):
                raise ValueError(
                    f"tier {tier.name}: {len(tier.moderation.thresholds)} thresholds for "
                    f"{len(self.labels)} labels"
                )
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

    @property
    def version(self) -> str:
        """The first 12 hex digits of the digest over all that answers depend on."""
        answers = [*self.labels]
        if self.route is not None:
            answers += [self.route.default_target]
            answers += [self.route.targets[label] for label in self.labels]
        if self.extract is not None:
            answers += [repr(self.extract)]
        for tier in self.tiers:
            answers += [tier.name, tier.base.digest, tier.weights]
            answers += [repr(tier.calibration), repr(tier.accept_at), repr(tier.moderation)]
        return digest_of((f for f in self.files if f.path != REPORT), extra="\0".join(answers))[:12]


class AdapterManifest(_Document):
    """What an adapter is. Written as ``adapter.json`` in its folder.

    Attributes
    ----------
    base : ModelRef
        The model that it was made for; it is never used on another.
    weights : str
        The GGUF file that the engine opens, below the adapter's folder.
    rank : int
        Of its largest pair of matrices.
    alpha : float
        Each product of a pair is multiplied by ``alpha / rank`` and added to the base's matrix.
    licence : str
        Its own licence, as an SPDX identifier where there is one.
    source : str
        Where the file came from, for people.
    """

    format: Literal[1] = 1
    name: Name
    kind: Literal["lora"]
    base: ModelRef
    weights: str
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0, allow_inf_nan=False)
    licence: str
    source: str
    files: tuple[FileEntry, ...]

    @property
    def version(self) -> str:
        """The first 12 hex digits of the digest over its weights and its base."""
        weights = (f for f in self.files if f.path == self.weights)
        return digest_of(weights, extra=self.base.digest)[:12]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


Document = TypeVar("Document", bound=_Document)


def digest_of(files: Iterable[FileEntry], *, extra: str = "") -> str:
    """Sha256, in hex, over sorted ``path sha256`` lines and ``extra``."""
    lines = sorted(f"{f.path} {f.sha256}\n" for f in files)
    return hashlib.sha256(("".join(lines) + extra).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Sha256, in hex, of a file's bytes."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def list_files(folder: Path, *, exclude: Sequence[str] = ()) -> tuple[FileEntry, ...]:
    """Entries for every regular file below ``folder``, sorted by path."""
    entries = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder).as_posix()
        if relative not in exclude:
            entries.append(
                FileEntry(path=relative, size=path.stat().st_size, sha256=sha256_file(path))
            )
    return tuple(entries)


def verify(folder: Path, files: Iterable[FileEntry]) -> None:
    """Check that every listed file is there with its size and sha256.

    Raises
    ------
    CorruptFile
        For the first file that is missing, cut or changed.
    """
    for entry in files:
        path = folder / entry.path
        if not path.is_file():
            raise CorruptFile(str(path), "missing; pull or train it again")
        size = path.stat().st_size
        if size != entry.size:
            raise CorruptFile(str(path), f"expected {entry.size} bytes, found {size}")
        found = sha256_file(path)
        if found != entry.sha256:
            raise CorruptFile(
                str(path), f"expected sha256 {entry.sha256[:12]}..., found {found[:12]}..."
            )


def read(path: Path, kind: type[Document]) -> Document:
    """Read a manifest.

    Raises
    ------
    CorruptFile
        When it is missing, not JSON, or has a wrong, missing or unknown field.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CorruptFile(str(path), "missing") from None
    except OSError as error:
        raise CorruptFile(str(path), f"cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise CorruptFile(str(path), f"{where}: {first['msg']}") from None


def write(path: Path, document: _Document) -> None:
    """Write a manifest as indented JSON with a final newline."""
    path.write_text(document.model_dump_json(indent=2) + "\n", encoding="utf-8")
