"""An adapter from rows: examples, LoRA, a GGUF file, and what it is worth to the server.

What is evaluated is the adapter in its file under llama.cpp, asked as a named task of the server
would be, on rows that training has not seen. torch has no part in it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from sprat import budget
from sprat.adapter import WEIGHTS
from sprat.bundle_manifest import ReportSummary
from sprat.config import Config
from sprat.engine.llama import LlamaEngine
from sprat.errors import InvalidInput
from sprat.inprocess import Runtime
from sprat.manifest import (
    ADAPTER_MANIFEST,
    AdapterManifest,
    ModelManifest,
    ModelRef,
    list_files,
    write,
)
from sprat.progress import Progress
from sprat.quantize import gguf_lora
from sprat.store import Store
from sprat.train import agreement, lora_model
from sprat.train.adapter_rows import Rows, Spec, make_examples, read_rows, with_labels
from sprat.train.checks import Conflicts, DataReport
from sprat.train.evaluate_task import TaskAnswers, TaskReport, ask
from sprat.train.examples import Example
from sprat.train.loop import LoopState
from sprat.train.lora import LoraSettings, fit
from sprat.train.prepare_rows import prepare_rows
from sprat.train.provenance import LORA, Provenance
from sprat.train.task_file import task_config, task_files
from sprat.values import ExtractSpec, LabelSet, TransformSpec

REPORT = "report.json"
_TRIAL = "trial"

_KINDS: dict[type, str] = {
    LabelSet: "classify",
    ExtractSpec: "extract",
    TransformSpec: "transform",
}

MOST_TOKENS = 2048
"""Longest example: what a sequence of the training engine holds."""


class AdapterReport(BaseModel):
    """How an adapter was made and what it is worth; without any text of the rows.

    Attributes
    ----------
    kind : str
        ``classify``, ``extract`` or ``transform``.
    provenance : Provenance
        Rows that were learned, that said when to stop, and that ``evaluation`` is on; seed and
        versions.
    settings : LoraSettings
        How it was trained.
    losses : tuple of float
        Validation loss before training and after each pass, in nats a row.
    best_pass : int
        Where it was least, which is what was kept; 0 is the model without an adapter.
    apart_before, apart_after : float
        See `sprat.train.agreement.distance`.
    data : DataReport
        What was found in the rows.
    evaluation : TaskReport
        On held-out rows.
    without_leaked : ReportSummary or None
        On those that repeat no training row, exactly or nearly; None where none does, or all do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    base: ModelRef
    provenance: Provenance
    settings: LoraSettings
    losses: tuple[float, ...]
    best_pass: int
    apart_before: float
    apart_after: float
    data: DataReport
    evaluation: TaskReport
    without_leaked: ReportSummary | None

    @property
    def notes(self) -> list[str]:
        """What was found in the rows, for people."""
        return self.data.messages("labels" if self.kind == "classify" else "answers")


@dataclass(frozen=True, slots=True, eq=False)
class TrainedAdapter:
    """An adapter that was written.

    Attributes
    ----------
    report : AdapterReport
        The content of its ``report.json``.
    state : LoopState
        How the training went.
    test : Rows
        What it was evaluated on.
    """

    manifest: AdapterManifest
    report: AdapterReport
    state: LoopState
    test: Rows


def train_adapter(
    data: Path,
    spec: Spec,
    store: Store,
    *,
    name: str,
    settings: LoraSettings,
    test: Path | None = None,
    held_out: float = 0.2,
    conflicts: Conflicts = "refuse",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress,
) -> TrainedAdapter:
    """Train an adapter, evaluate it and add it to the store: all of it, or nothing.

    Parameters
    ----------
    data : Path
        Rows: see `sprat.train.adapter_rows.read_rows`.
    spec : LabelSet, ExtractSpec or TransformSpec
        What the model is asked; its ``adapter`` is ignored. Without labels, those of the rows are
        taken.
    name : str
        Of the adapter in the store.
    test : Path, optional
        Held-out rows. Absent: ``held_out``, a share of the rows in (0, 1), is held out.
    conflicts : {"refuse", "drop", "keep"}
        See `sprat.train.prepare_rows.prepare_rows`.
    resume : bool
        Go on where an interrupted training of the same rows and settings ended.
    overwrite : bool
        Replace an adapter of that name.

    Raises
    ------
    SetupError
        torch and its companions are not installed, or there is nothing of this kind to resume.
    NotFound, CorruptFile
        The base is not here, or not as it should be.
    InvalidInput
        The base is not generative, or a number or a part of the spec cannot be used.
    UnsupportedModel
        Adapters cannot be trained for this base.
    DataError
        Rows cannot be used: their lines.
    StoreError
        The store cannot be written, or the name is taken.
    """
    lora_model.require()
    settings.check()
    base, folder = store.model(spec.model, check=True)
    if base.engine != "llama":
        raise InvalidInput(
            f"base: expected a generative model, but {spec.model} is an {base.kind}", field="base"
        )
    gguf_lora.read_base(folder / base.weights)
    if isinstance(spec, LabelSet):
        spec = with_labels(spec, data)
    spec = replace(spec, adapter=name)
    kind = _KINDS[type(spec)]
    prepared = prepare_rows(
        read_rows(data, spec),
        kind=kind,
        test=None if test is None else read_rows(test, spec),
        held_out=held_out,
        conflicts=conflicts,
        seed=settings.seed,
    )
    train, valid, held = prepared.train, prepared.validation, prepared.test
    if isinstance(spec, LabelSet):
        held.dataset().targets([label.name for label in spec.labels])
    made: list[tuple[AdapterReport, LoopState]] = []

    def build(out: Path) -> None:
        work = _Work(base, folder, spec, name, settings, progress)
        # Those of the test rows are for what they show before anything is learned: bad ones.
        learned, judged, _ = (work.examples(rows) for rows in (train, valid, held))
        facts, state = work.learn(
            learned, judged, out / WEIGHTS, checkpoint=store.partial_downloads(name), resume=resume
        )
        answers = work.answers(held, out)
        fresh = np.flatnonzero(~prepared.is_leaked_m).tolist()
        without_leaked = None
        if 0 < len(fresh) < len(held):
            without_leaked = answers.take(fresh).judge(seed=settings.seed).summary()
        report = AdapterReport(
            kind=kind,
            base=ModelRef(name=base.name, digest=base.digest),
            provenance=Provenance.of(
                train, held, seed=settings.seed, validation=valid, libraries=LORA
            ),
            settings=settings,
            losses=tuple(state.losses),
            best_pass=state.best,
            apart_before=facts[0],
            apart_after=facts[1],
            data=prepared.report,
            evaluation=answers.judge(seed=settings.seed),
            without_leaked=without_leaked,
        )
        (out / REPORT).write_text(report.model_dump_json(indent=1), encoding="utf-8")
        for file, content in task_files(spec, name).items():
            (out / file).write_text(content, encoding="utf-8")
        write(out / ADAPTER_MANIFEST, work.manifest(out, source=f"trained on {data.name}"))
        made.append((report, state))

    manifest, _ = store.add_adapter(name, build, replace=overwrite)
    return TrainedAdapter(manifest, *made[0], held)


class _Work:
    """One training."""

    def __init__(
        self,
        base: ModelManifest,
        folder: Path,
        spec: Spec,
        name: str,
        settings: LoraSettings,
        progress: Progress,
    ) -> None:
        self._base = base
        self._folder = folder
        self._path = folder / base.weights
        self._spec = spec
        self._name = name
        self._settings = settings
        self._progress = progress
        self._threads = budget.detect().threads

    def _engine(self, adapters: dict[str, Path] | None = None) -> LlamaEngine:
        return LlamaEngine(
            self._path,
            context_length=MOST_TOKENS,
            sequence_limit=1,
            threads=self._threads,
            adapters=adapters,
        )

    def examples(self, rows: Rows) -> list[Example]:
        self._progress.phase("make examples")
        engine = self._engine()
        try:
            return make_examples(rows, self._spec, engine, most_tokens=MOST_TOKENS)
        finally:
            engine.close()

    def learn(
        self,
        train: list[Example],
        valid: list[Example],
        out: Path,
        *,
        checkpoint: Path,
        resume: bool,
    ) -> tuple[tuple[float, float], LoopState]:
        """Train and write the adapter; how far torch and llama.cpp are apart before and after."""
        self._progress.phase("read the model")
        settings = self._settings
        model = lora_model.LoraModel(
            self._path,
            rank=settings.rank,
            alpha=settings.alpha,
            seed=settings.seed,
            threads=self._threads,
            bf16=settings.bf16,
        )
        prompts = [example.prompt for example in valid]

        def apart(adapters: dict[str, Path], what: str) -> float:
            self._progress.phase("compare torch with llama.cpp")
            engine = self._engine(adapters)
            try:
                found = agreement.distance(model, engine, prompts, adapter="".join(adapters))
            finally:
                engine.close()
            agreement.check(found, what)
            return found

        before = apart({}, str(self._path))
        state = fit(
            model,
            train,
            valid,
            settings,
            checkpoint=checkpoint,
            base=self._base.digest,
            resume=resume,
            progress=self._progress,
        )
        base = gguf_lora.read_base(self._path)
        gguf_lora.write(out, base, model.pairs(), alpha=settings.alpha)
        return (before, apart({self._name: out}, f"adapter {self._name}")), state

    def manifest(self, folder: Path, *, source: str) -> AdapterManifest:
        return AdapterManifest(
            name=self._name,
            kind="lora",
            base=ModelRef(name=self._base.name, digest=self._base.digest),
            weights=WEIGHTS,
            rank=self._settings.rank,
            alpha=self._settings.alpha,
            licence="not stated",
            source=source,
            files=list_files(folder),
        )

    def answers(self, held: Rows, out: Path) -> TaskAnswers:
        """What the adapter that lies in ``out`` answers, as a named task of a server."""
        trial = out / _TRIAL
        adapter = trial / "adapters" / self._name
        adapter.mkdir(parents=True)
        shutil.copyfile(out / WEIGHTS, adapter / WEIGHTS)
        write(adapter / ADAPTER_MANIFEST, self.manifest(adapter, source="on trial"))
        (trial / "models").mkdir()
        (trial / "models" / self._base.name).symlink_to(self._folder, target_is_directory=True)
        try:
            config = Config(tasks={self._name: task_config(self._spec)})
            with Runtime(config=config, store=Store(trial)) as runtime:
                return ask(runtime, self._name, self._spec, held, self._progress)
        finally:
            shutil.rmtree(trial)
