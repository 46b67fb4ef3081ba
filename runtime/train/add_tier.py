"""Put a tier that asks a model behind the last one of a classifier: calibrated, and judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sprat import adapter as adapters
from sprat.asked_manifest import Language, Remote
from sprat.bundle import Bundle
from sprat.bundle_manifest import REPORT, BundleManifest, TierManifest, TierName
from sprat.errors import CorruptFile, DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Progress
from sprat.store import Store
from sprat.train.asked import Ask, OpenAsk, log_probabilities
from sprat.train.asked_remote import OpenRemote
from sprat.train.calibrate import fit_calibration
from sprat.train.data import Dataset
from sprat.train.evaluate import evaluate
from sprat.train.provenance import DataSource
from sprat.train.record import LanguageRecord, TierRecord, TrainingRecord
from sprat.train.report import Report
from sprat.train.split import same_texts, split
from sprat.train.task_file import TASK, read_task
from sprat.values import Label, LabelSet

LEAST_TEXTS = 50
"""Different texts that a calibration and an evaluation need together. From so few the intervals are
wide, and the ceiling of the confidences is low."""


@dataclass(frozen=True, slots=True, eq=False)
class Added:
    """A bundle with one tier more.

    Attributes
    ----------
    bundle : Bundle
    record : TrainingRecord
        The content of its ``report.json``.
    """

    bundle: Bundle
    record: TrainingRecord

    @property
    def report(self) -> Report:
        """How good the tier is by itself."""
        return self.record.tiers[self.bundle.manifest.tiers[-1].name].evaluation


def language(
    store: Store,
    bundle: BundleManifest,
    *,
    model: str,
    adapter: str | None = None,
    labels: Sequence[Label] = (),
    **asks: Any,
) -> tuple[ModelRef, Language]:
    """What a tier asks, from what was given, and what its adapter was trained to be asked.

    An adapter that `sprat train` made has labels in its own order, instructions and scoring. They
    count where nothing else is given: another prompt is another task to it.

    Parameters
    ----------
    bundle : BundleManifest
        What gets the tier.
    model, adapter : str
        Names in the store.
    labels : sequence of Label
        Labels of the bundle with what describes them; those that are left out have no description.
    **asks
        ``instructions``, ``scoring``, ``normalize_length``, ``correct_prior`` of a `LabelSet`; None
        is not given.

    Raises
    ------
    NotFound
        There is no such model or adapter.
    StaleAdapter
        The adapter was made for another model.
    InvalidInput
        The model is none that can be asked, the adapter is one for another kind of task, or labels
        are not those of the bundle.
    """
    base, _ = store.model(model)
    if base.kind != "generative":
        raise InvalidInput(
            f"model: expected a generative model, but {model} is an {base.kind}", field="model"
        )
    spec, ref = LabelSet(model, ()), None
    if adapter is not None:
        manifest, folder = store.adapter(adapter)
        adapters.check_base(manifest, folder, base)
        ref = ModelRef(name=manifest.name, digest=manifest.digest)
        if (folder / TASK).is_file():
            trained = read_task(folder, manifest.name).spec()
            if not isinstance(trained, LabelSet):
                raise InvalidInput(
                    f"adapter: expected one for classify, but {adapter} was trained for another "
                    "kind of task",
                    field="adapter",
                )
            spec = trained
    spec = replace(spec, **{name: value for name, value in asks.items() if value is not None})
    return ModelRef(name=base.name, digest=base.digest), Language(
        labels=_described(bundle, spec.labels, labels),
        instructions=spec.instructions,
        scoring=spec.scoring,
        normalize_length=spec.normalize_length,
        correct_prior=spec.correct_prior,
        adapter=ref,
    )


def remote(
    bundle: BundleManifest,
    *,
    model: str,
    task_version: str = "",
    labels: Sequence[Label] = (),
    instructions: str = "",
    votes: int = 1,
) -> Remote:
    """What a remote tier asks.

    Parameters
    ----------
    bundle, labels
        As in `language`.
    model, task_version, instructions, votes
        See `sprat.asked_manifest.Remote`.

    Raises
    ------
    InvalidInput
        Labels are not those of the bundle.
    """
    return Remote(
        model=model,
        task_version=task_version,
        labels=_described(bundle, (), labels),
        instructions=instructions,
        votes=votes,
    )


def _described(
    bundle: BundleManifest, trained: Sequence[Label], given: Sequence[Label]
) -> tuple[Label, ...]:
    """The labels of a bundle: those that an adapter knows, then others, as they are described."""
    described = {label.name: label for label in (*trained, *given)}
    if len({label.name for label in given}) < len(given):
        raise InvalidInput("labels: expected no two of the same name", field="labels")
    unknown = sorted(described.keys() - set(bundle.labels))
    if unknown:
        raise InvalidInput(
            f"labels: {', '.join(map(repr, unknown))} not among those of bundle {bundle.name}: "
            + ", ".join(map(repr, bundle.labels)),
            field="labels",
        )
    others = (Label(name) for name in bundle.labels if name not in described)
    return (*described.values(), *others)


def check_unseen(store: Store, adapter: str, data: Dataset) -> None:
    """Refuse rows that an adapter was trained on: it would look better than it is.

    Raises
    ------
    DataError
        The adapter was trained here, on rows of this very file.
    CorruptFile
        Its report is none.
    """
    path = store.adapter(adapter)[1] / REPORT
    if not path.is_file():
        return
    try:
        seen = json.loads(path.read_bytes())["provenance"]["train"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CorruptFile(str(path), "not the report of a training") from None
    if data.sha256 and data.sha256 == seen:
        raise DataError(
            data.path, 0, f"adapter {adapter} was trained on rows of this file; bring others"
        )


def add_tier(
    bundle: Bundle,
    record: TrainingRecord,
    data: Dataset,
    *,
    base: ModelRef | None = None,
    language: Language | None = None,
    open_ask: OpenAsk | None = None,
    remote: Remote | None = None,
    open_remote: OpenRemote | None = None,
    held_out: float = 0.5,
    seed: int = 0,
    progress: Progress,
) -> Added:
    """Append a language tier to a bundle, or a remote one.

    It is calibrated on one part of the rows and evaluated on the other; no text is in both.
    Thresholds that were tuned for fewer tiers are taken away, so that the new tier answers alone
    until it is tuned.

    Parameters
    ----------
    bundle : Bundle
        Of kind classify or route.
    record : TrainingRecord
        What its ``report.json`` says.
    data : Dataset
        Rows that neither the adapter nor the other tiers were trained on.
    base, language, open_ask
        Of a language tier: see `language` and `sprat.train.asked.OpenAsk`.
    remote, open_remote
        Of a remote one: see `remote` and `sprat.train.asked_remote.OpenRemote`.
    held_out : float
        Share of the rows to evaluate on, above 0 and below 1.
    seed : int
        Of the parts and of resampling, at least 0.

    Raises
    ------
    InvalidInput
        The bundle is of another kind or has such a tier, or a number is out of range.
    DataError
        Rows have labels that the bundle does not have, are too few, or cannot be answered.
    """
    manifest = bundle.manifest
    name: TierName = "language" if remote is None else "remote"
    _check(manifest, name, seed)
    data.targets(manifest.labels)
    found = int(same_texts(data.texts).max()) + 1
    if found < LEAST_TEXTS:
        raise DataError(
            data.path, 0, f"expected {LEAST_TEXTS} or more different texts, found {found}"
        )
    fitted, judged = split(data, held_out, seed=seed)
    asking: AbstractContextManager[Ask]
    if remote is None:
        assert base is not None
        assert language is not None
        assert open_ask is not None
        asking = open_ask(language.spec(base.name))
    else:
        assert open_remote is not None
        asking = open_remote(remote)
    with asking as ask:
        progress.phase(f"ask about {len(data)} rows", total=len(data))
        fitted_nk, judged_mk = (
            log_probabilities(ask, manifest.labels, rows, progress) for rows in (fitted, judged)
        )
    fit = fit_calibration(fitted_nk, fitted.targets(manifest.labels), seed=seed)
    progress.phase(f"evaluate on {len(judged)} rows")
    report = evaluate(
        judged_mk,
        judged.targets(manifest.labels),
        labels=manifest.labels,
        lines=judged.lines,
        calibration=fit.calibration,
        seed=seed,
    )
    tier = TierManifest(
        name=name,
        base=base,
        language=language,
        remote=remote,
        calibration=fit.calibration,
        evaluation=report.summary(),
    )
    training = LanguageRecord(
        calibrated_on=DataSource.of(fitted),
        evaluated_on=DataSource.of(judged),
        seed=seed,
        calibration=fit,
    )
    made = TierRecord(evaluation=report, without_leaked=None, training=training)
    return Added(
        replace(bundle, manifest=_appended(manifest, tier)),
        record.model_copy(update={"tiers": {**record.tiers, name: made}}),
    )


def read_record(folder: Path) -> TrainingRecord:
    """What the ``report.json`` of a classifier or router says.

    Raises
    ------
    CorruptFile
        It is none.
    """
    path = folder / REPORT
    try:
        return TrainingRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise CorruptFile(str(path), "not the report of a classifier") from None


def _check(manifest: BundleManifest, name: TierName, seed: int) -> None:
    if manifest.kind not in ("classify", "route"):
        raise InvalidInput(
            f"{manifest.name}: expected a classify or route task, not {manifest.kind}",
            field="bundle",
        )
    if any(tier.name == name for tier in manifest.tiers):
        raise InvalidInput(f"{manifest.name}: has a tier {name} already", field="bundle")
    if seed < 0:
        raise InvalidInput(f"seed: expected 0 or more, got {seed}", field="seed")


def _appended(manifest: BundleManifest, tier: TierManifest) -> BundleManifest:
    tiers = manifest.tiers
    if manifest.tuning is not None:
        tiers = tuple(each.model_copy(update={"accept_at": 0.0}) for each in tiers)
    return manifest.model_copy(update={"tiers": (*tiers, tier), "tuning": None})
