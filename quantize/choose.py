"""Quantize a model of the store, and keep the result only if it passes its gate.

Candidates are made inside the folder of the model that is to be, as a store of their own: they are
judged as they would be served, and whatever goes wrong takes all of them along.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sprat.errors import ConfigError, CorruptFile, InvalidInput, StoreError, UnsupportedModel
from sprat.manifest import (
    MODEL_MANIFEST,
    GateFigure,
    GateReport,
    ModelManifest,
    list_files,
    read,
    sha256_file,
    write,
)
from sprat.progress import Progress, Silent
from sprat.quantize import gate
from sprat.quantize.gate_rows import GateRows
from sprat.store import Store

AUTO = "auto"
ENCODER_TYPES = ("int8", "int8_unsaturated", "float32")
LANGUAGE_TYPES = ("q8_0", "q4_0", "iq4_nl")
TYPES = (*ENCODER_TYPES, *LANGUAGE_TYPES, AUTO)
"""What `quantize` makes; `AUTO` tries all of a kind."""

ROOM = 6
"""Bytes needed for each of the published weights: reference and candidates."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to quantize, and by what to judge it.

    Attributes
    ----------
    base : str
        A model in the store that still has its published weights.
    to : str
        One of `TYPES`.
    name : str
        Of the new model.
    rows : GateRows
        What it is judged on.
    task : str or None
        For an encoder: a bundle whose answers are compared; a tier of it stands on ``base``.
    calibration : GateRows or None
        For types of 4 bits: texts that guide the rounding; not those it is judged on.
    limits : mapping of str to float
        In the place of the defaults of `sprat.quantize.gate`, by the name of the figure.
    replace : bool
        Over a model of that name.
    """

    base: str
    to: str
    name: str
    rows: GateRows
    task: str | None = None
    calibration: GateRows | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """One type of weights that was tried.

    Attributes
    ----------
    quantization : str
        One of `TYPES`.
    size_bytes : int
        Of its weights.
    figures : tuple of GateFigure
        As judged.
    speeds : dict of str to float
        By name; empty where they were not measured.
    """

    quantization: str
    size_bytes: int
    figures: tuple[GateFigure, ...]
    speeds: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every limit was kept."""
        return all(figure.is_met for figure in self.figures)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it.

    Attributes
    ----------
    manifest : ModelManifest or None
        The new model; None where no candidate passed, and nothing was kept.
    candidates : tuple of Candidate
        All that were tried.
    """

    manifest: ModelManifest | None
    candidates: tuple[Candidate, ...]


class Trial(Protocol):
    """What differs between encoders and language models. Made with its reference."""

    reference: str
    """Type of weights that all are compared with."""

    tokens: int
    """Tokens of the texts that were compared; 0 where they are not counted."""

    task: str | None
    """Name and version of the bundle whose answers are compared."""

    def make(self, quantization: str, folder: Path) -> None:
        """Write a candidate, with its manifest, into an empty folder."""

    def figures(self, quantization: str) -> dict[str, float]:
        """How near a candidate is to the reference."""

    def speeds(self, quantization: str) -> dict[str, float]:
        """How fast it is here, by name."""

    def slowness(self, speeds: Mapping[str, float]) -> float:
        """What the fastest has the least of."""

    def add_source(self, folder: Path) -> None:
        """Put the published weights into the model's folder, where its kind keeps them."""


class _Failed(Exception):
    """No candidate passed: ends the change of the store."""


def quantize(request: Request, store: Store, progress: Progress | None = None) -> Outcome:
    """Make a quantized model that passed its gate, or nothing.

    Parameters
    ----------
    request : Request
        What to make.
    store : Store
        Where the base is, and where the model goes.
    progress : Progress, optional
        Told of phases, texts and tokens.

    Raises
    ------
    NotFound
        The base or the bundle is not in the store.
    InvalidInput
        A type that this kind of model does not have, or a limit of no figure.
    ConfigError
        The new name is the base's, or it and the request do not fit each other.
    UnsupportedModel
        The base has no published weights to start from.
    CorruptFile, StaleBundle, DataError, EngineError
        Something it needs cannot be used.
    StoreError
        There is a model of that name, or the store cannot be written.
    """
    progress = Silent() if progress is None else progress
    base, folder = store.model(request.base, check=True)
    _check(request, base, store)
    types = _types(request, base)
    limits = {each: _limits(request, base, each) for each in types}
    candidates: list[Candidate] = []
    made = False

    def build(target: Path) -> None:
        nonlocal made
        published = sum(f.size for f in base.files if f.path == _published(base))
        store.require_space(published * ROOM)
        work = target / "trial"
        trial = _trial(request, base, folder, store, work, progress)
        for each in types:
            candidates.append(_try(trial, each, limits[each], request.limits, work, progress))
        chosen = _choose(trial, candidates, request.to, progress)
        for path in _folder(work, chosen.quantization).iterdir():
            path.rename(target / path.name)
        shutil.rmtree(work)
        trial.add_source(target)
        written = read(target / MODEL_MANIFEST, ModelManifest)
        report = GateReport(
            base=base.name,
            reference=trial.reference,
            data=request.rows.sha256,
            calibration=request.calibration.sha256 if request.calibration else None,
            task=trial.task,
            texts=len(request.rows.texts),
            tokens=trial.tokens,
            figures=chosen.figures,
            speeds=chosen.speeds,
        )
        kept = base.source_weights and (target / base.source_weights).is_file()
        update = {
            "name": request.name,
            "source_weights": base.source_weights if kept else None,
            "gate": report,
            "files": list_files(target, exclude=[MODEL_MANIFEST]),
        }
        write(target / MODEL_MANIFEST, written.model_copy(update=update))
        made = True

    try:
        manifest, _ = store.add_model(
            request.name,
            build,
            replace=request.replace,
            on_wait=lambda: progress.phase(f"wait for another change of {request.name}"),
        )
    except _Failed:
        return Outcome(None, tuple(candidates))
    if not made:
        raise StoreError(f"model {request.name} is there already; replace it explicitly")
    return Outcome(manifest, tuple(candidates))


def _check(request: Request, base: ModelManifest, store: Store) -> None:
    if request.name == base.name:
        raise ConfigError("out", f"{base.name} is the model itself; choose another name")
    if base.gate is not None:
        raise UnsupportedModel(
            f"{base.name} was quantized already; start from {base.gate.base}, which it is made from"
        )
    if base.kind == "encoder" and base.source_weights is None:
        raise UnsupportedModel(f"{base.name}: its published weights were not kept; pull it again")
    if base.engine not in ("ct2", "llama"):
        raise UnsupportedModel(
            f"{base.name}: models of engine {base.engine} are not quantized here"
        )
    if request.task is not None and base.kind != "encoder":
        raise ConfigError(
            "task", "a bundle stands on an encoder; give a language model rows with labels"
        )
    if request.calibration is not None:
        if base.kind == "encoder":
            raise ConfigError("calibrate", "only weights of language models are rounded by texts")
        if request.calibration.sha256 == request.rows.sha256:
            raise ConfigError("calibrate", "the same file as for the gate would flatter the result")
    if not request.replace and request.name in {model.name for model, _ in store.models()}:
        raise StoreError(f"model {request.name} is there already; replace it explicitly")


def _types(request: Request, base: ModelManifest) -> tuple[str, ...]:
    of_kind = ENCODER_TYPES if base.kind == "encoder" else LANGUAGE_TYPES
    if request.to == AUTO:
        return of_kind
    if request.to not in of_kind:
        kind = "an encoder" if base.kind == "encoder" else "a language model"
        raise InvalidInput(
            f"to: expected {', '.join(of_kind)} or {AUTO} for {base.name}, {kind}; "
            f"got {request.to!r}",
            field="to",
        )
    return (request.to,)


def _limits(request: Request, base: ModelManifest, quantization: str) -> dict[str, float]:
    if base.kind == "encoder":
        return gate.limits_of(gate.ENCODER_LIMITS, request.limits, gate.FIGURES_OF_ENCODERS)
    defaults = gate.LANGUAGE_LIMITS if quantization == "q8_0" else gate.LANGUAGE_LIMITS_4_BIT
    return gate.limits_of(defaults, request.limits, gate.FIGURES_OF_LANGUAGE_MODELS)


def _published(base: ModelManifest) -> str:
    return base.source_weights or base.weights


def _folder(work: Path, quantization: str) -> Path:
    return work / "models" / quantization


def _trial(
    request: Request,
    base: ModelManifest,
    folder: Path,
    store: Store,
    work: Path,
    progress: Progress,
) -> Trial:
    source = folder / _published(base)
    entry = next(f for f in base.files if f.path == _published(base))
    # The store checks what is served; this is what it was made from.
    if sha256_file(source) != entry.sha256:
        raise CorruptFile(str(source), "its sha256 is not that of the manifest; pull it again")
    if base.kind == "encoder":
        from sprat.quantize.choose_encoder import EncoderTrial

        return EncoderTrial(base, folder, store, work, request.rows, request.task, progress)
    from sprat.quantize.choose_language import LanguageTrial

    return LanguageTrial(base, folder, work, request.rows, request.calibration, progress)


def _try(
    trial: Trial,
    quantization: str,
    limits: Mapping[str, float],
    asked: Iterable[str],
    work: Path,
    progress: Progress,
) -> Candidate:
    folder = _folder(work, quantization)
    folder.mkdir(parents=True, exist_ok=True)
    progress.phase(f"make {quantization}")
    trial.make(quantization, folder)
    manifest = read(folder / MODEL_MANIFEST, ModelManifest)
    figures = gate.judge(trial.figures(quantization), limits, asked=asked)
    size = sum(f.size for f in manifest.files if f.path.startswith(manifest.weights))
    return Candidate(quantization, size, figures)


def _choose(trial: Trial, candidates: list[Candidate], to: str, progress: Progress) -> Candidate:
    """The candidate to keep; speeds are added to ``candidates`` where they decide."""
    if to != AUTO:
        if not candidates[0].passed:
            raise _Failed
        return candidates[0]
    for index, each in enumerate(candidates):
        if each.passed:
            progress.phase(f"measure the speed of {each.quantization}")
            speeds = trial.speeds(each.quantization)
            candidates[index] = Candidate(each.quantization, each.size_bytes, each.figures, speeds)
    passed = [each for each in candidates if each.passed]
    if not passed:
        raise _Failed
    return min(passed, key=lambda each: trial.slowness(each.speeds))
