"""The documents that sprat writes beside weights: what a model, a bundle or an adapter is.

All of them list every file with its size and sha256; `verify` checks them. A manifest is JSON, read
strictly: an unknown or missing field is an error that names it.
"""

from __future__ import annotations

import hashlib
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


class ModelManifest(_Document):
    """What a model in the store is. Written as ``model.json`` in its folder.

    Attributes
    ----------
    weights : str
        The file (GGUF) or folder (CTranslate2) that the engine opens, below the model's folder.
    source_weights : str or None
        The published weights that ``weights`` was made from, where they were kept.
    pooling : {"mean", "cls"} or None
        How token vectors become a sentence vector; None for generative models.
    max_tokens : int
        Longest input, special tokens included (encoder); trained context (generative).
    dimension : int
        Length of a sentence vector; 0 for generative models.
    licence : str
        The model's own licence, as an SPDX identifier where there is one.
    source : str
        Where the files came from, for people.
    """

    format: Literal[1] = 1
    name: Name
    kind: Literal["encoder", "generative"]
    engine: Literal["ct2", "llama"]
    architecture: str
    quantization: str
    weights: str
    source_weights: str | None = None
    pooling: Literal["mean", "cls"] | None = None
    max_tokens: int = Field(ge=1)
    dimension: int = Field(ge=0)
    licence: str
    source: str
    files: tuple[FileEntry, ...]

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> ModelManifest:
        if self.kind == "encoder" and (
            self.engine != "ct2" or self.pooling is None or self.dimension == 0
        ):
            raise ValueError("an encoder needs engine ct2, a pooling and a dimension")
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
        By name: ``accuracy``, ``macro_f1`` and ``ece`` of a classifier.
    """

    n: int = Field(ge=1)
    metrics: dict[str, Interval]


class Calibration(_Document):
    """What makes confidences of a tier's scores; fitted on scores of rows that it has not seen.

    Attributes
    ----------
    temperature : float
        Logits are divided by it before softmax.
    """

    temperature: float = Field(ge=1e-3, le=1e3)


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
    """

    name: Literal["static", "head", "finetune"]
    base: ModelRef
    weights: str
    calibration: Calibration | None
    accept_at: float = Field(default=0.0, ge=0, le=1)
    evaluation: ReportSummary


class BundleManifest(_Document):
    """What a bundle is. Written as ``bundle.json`` in its folder.

    Attributes
    ----------
    labels : tuple of str
        In the order of the rows of every head; none empty, no two alike.
    tiers : tuple of TierManifest
        From the cheapest to the best, each another one.
    """

    format: Literal[2] = 2
    name: Name
    kind: Literal["classify"]
    labels: tuple[str, ...] = Field(min_length=2)
    tiers: tuple[TierManifest, ...] = Field(min_length=1)
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

    @property
    def version(self) -> str:
        """The first 12 hex digits of the digest over all that answers depend on."""
        answers = [*self.labels]
        for tier in self.tiers:
            answers += [tier.name, tier.base.digest, tier.weights]
            answers += [repr(tier.calibration), repr(tier.accept_at)]
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
        """The first 12 hex digits of the digest over its files and its base."""
        return digest_of(self.files, extra=self.base.digest)[:12]

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
