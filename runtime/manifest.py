"""The documents that sprat writes beside weights: what a model or an adapter is.

That of a bundle is `sprat.bundle_manifest`. All of them list every file with its size and sha256;
`verify` checks them. A manifest is JSON, read strictly: an unknown or missing field is an error
that names it.
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
ADAPTER_MANIFEST = "adapter.json"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """A document that is read strictly, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Manifest):
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class FileEntry(Manifest):
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


class GateFigure(Manifest):
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


class GateReport(Manifest):
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


class ModelManifest(Manifest):
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


class ModelRef(Manifest):
    """A model that a bundle or an adapter was made with, or the adapter that a bundle was."""

    name: Name
    digest: Sha256


class AdapterManifest(Manifest):
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
    def digest(self) -> str:
        """Sha256 over its weights and the digest of its base."""
        weights = (f for f in self.files if f.path == self.weights)
        return digest_of(weights, extra=self.base.digest)

    @property
    def version(self) -> str:
        """The first 12 hex digits of `digest`."""
        return self.digest[:12]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


Kind = TypeVar("Kind", bound=Manifest)


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


def read(path: Path, kind: type[Kind]) -> Kind:
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


def write(path: Path, document: Manifest) -> None:
    """Write a manifest as indented JSON with a final newline."""
    path.write_text(document.model_dump_json(indent=2) + "\n", encoding="utf-8")
