"""What quantizing costs and gains: quality against the published weights, size and speed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sprat.benchmarks import bundle, data
from sprat.benchmarks.harness import Cell, Context, Figure, Outcome, Table, figure
from sprat.budget import detect
from sprat.manifest import MODEL_MANIFEST, ModelManifest, read
from sprat.progress import Silent
from sprat.pull import pull
from sprat.quantize import gate_rows
from sprat.quantize.choose import Trial
from sprat.quantize.choose_encoder import EncoderTrial
from sprat.quantize.choose_language import LanguageTrial

QUICK_TEXTS = 8
LEAST_AGREEMENT = 0.993
MOST_ACCURACY_DROP = 0.003
COLUMNS = (
    *("weights", "MB", "cosine: mean", "1st percentile", "same answer", "accuracy"),
    *("KL: mean", "99th percentile", "same top token", "perplexity"),
    *("texts/s", "prompt tokens/s", "answer tokens/s"),
)
_KEYS = (
    *("cosine_mean", "cosine_p1", "agreement", "accuracy"),
    *("kl_mean", "kl_p99", "same_top", "perplexity"),
    *("texts_per_s", "prompt_tokens_per_s", "answer_tokens_per_s"),
)


@dataclass(frozen=True, slots=True)
class _Tried:
    """A type of weights, what it is called in the table, and what was measured."""

    title: str
    size_bytes: int
    measured: dict[str, float]

    def row(self) -> tuple[Cell, ...]:
        return (
            self.title,
            self.size_bytes / 1e6,
            *(self.measured.get(key) for key in _KEYS),
        )


def run(context: Context) -> Outcome:
    """Compare the encoder's types of weights, then the language model's."""
    encoder = pull(bundle.ENCODER, context.store)
    generator = pull(bundle.GENERATOR, context.store)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        task, rows, guide = _material(context, folder)
        tried = _encoder(context, encoder, folder, rows, task)
        figures = _judged(tried)
        tried += _language_model(context, generator, folder, rows, guide)
    return Outcome(
        parameters={
            "texts": rows.path and Path(rows.path).name,
            "text_count": len(rows.texts),
            "threads": detect().threads,
            "encoder": encoder.name,
            "generator": generator.name,
        },
        method=(
            f"{encoder.name} against its float32 weights, by the answers of a classifier trained "
            f"on the int8 form; {generator.name} against f16 of its published Q4_1 weights, after "
            f"every token of the texts alone. {len(rows.texts)} texts of {Path(rows.path).name}. "
            "Guided types were rounded by an importance matrix of the training texts. Speeds are "
            "those that `sprat quantize --to auto` goes by: a prompt of 256 tokens, an answer of "
            "32, all compute threads."
        ),
        figures=tuple(figures),
        table=Table(columns=COLUMNS, rows=tuple(each.row() for each in tried)),
        raw={each.title: each.measured for each in tried},
    )


def _material(context: Context, folder: Path) -> tuple[str, gate_rows.GateRows, gate_rows.GateRows]:
    """A task, rows that it was not trained on, and the training texts."""
    public = None if context.quick else data.public(context.checkout)
    if public is not None:
        context.say(f"train on {public[0].name}")
        task = bundle.train_on(context.store, folder, *public)
        train, test = public
    else:
        task = bundle.train(context.store, folder)
        train, test = data.ticket_files()
    rows, guide = gate_rows.read(test), gate_rows.read(train)
    if context.quick:
        assert rows.rows is not None
        few = rows.rows.take(range(QUICK_TEXTS))
        rows = gate_rows.GateRows(few.texts, few, rows.path, rows.sha256)
    return task, rows, guide


def _encoder(
    context: Context,
    manifest: ModelManifest,
    folder: Path,
    rows: gate_rows.GateRows,
    task: str,
) -> list[_Tried]:
    work = folder / "encoder"
    _, source = context.store.model(manifest.name)
    trial = EncoderTrial(manifest, source, context.store, work, rows, task, Silent())
    names = {name: f"{manifest.name} {name}" for name in ("float32", "int8", "int8_unsaturated")}
    return [_try(context, trial, work, name, title) for name, title in names.items()]


def _language_model(
    context: Context,
    manifest: ModelManifest,
    folder: Path,
    rows: gate_rows.GateRows,
    guide: gate_rows.GateRows,
) -> list[_Tried]:
    _, source = context.store.model(manifest.name)
    plain = gate_rows.GateRows(rows.texts, None, rows.path, rows.sha256)
    if context.quick:
        guide = gate_rows.GateRows(guide.texts[:QUICK_TEXTS], None, guide.path, guide.sha256)
    tried: list[_Tried] = []
    settings: Sequence[tuple[str, gate_rows.GateRows | None, tuple[str, ...]]] = (
        ("", None, ("q8_0", "q4_0", "iq4_nl")),
        (" guided", guide, ("q4_0", "iq4_nl")),
    )
    if context.quick:
        settings = [(suffix, calibration, names[:1]) for suffix, calibration, names in settings]
    for suffix, calibration, names in settings:
        work = folder / f"language{suffix.strip()}"
        trial = LanguageTrial(manifest, source, work, plain, calibration, Silent())
        for name in names:
            title = f"{manifest.name} {name}{suffix}"
            tried.append(_try(context, trial, work, name, title))
    return tried


def _try(context: Context, trial: Trial, work: Path, name: str, title: str) -> _Tried:
    folder = work / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    trial.make(name, folder)
    measured = trial.figures(name) | trial.speeds(name)
    context.say(title)
    manifest = read(folder / MODEL_MANIFEST, ModelManifest)
    size = sum(file.size for file in manifest.files if file.path.startswith(manifest.weights))
    return _Tried(title, size, measured)


def _judged(tried: Sequence[_Tried]) -> list[Figure]:
    """The goals: of the int8 form that is served."""
    (served,) = (each.measured for each in tried if each.title.endswith(" int8"))
    return [
        figure(
            "agreement",
            "int8 encoder, same answer as float32",
            "",
            [served["agreement"]],
            at_least=LEAST_AGREEMENT,
        ),
        figure(
            "accuracy_drop",
            "int8 encoder, accuracy lost to float32",
            "",
            [served["accuracy_drop"]],
            at_most=MOST_ACCURACY_DROP,
        ),
    ]
