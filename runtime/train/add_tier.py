"""Put a tier that asks a model behind the last one of a bundle: calibrated, and judged."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from sprat import adapter as adapters
from sprat.asked_manifest import AnyLanguage, AnyRemote
from sprat.bundle import Bundle
from sprat.bundle_manifest import (
    FITTED_TIERS,
    REPORT,
    TIER_NAME,
    BundleManifest,
    ReportSummary,
    TierManifest,
)
from sprat.errors import CorruptFile, DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Progress
from sprat.store import Store
from sprat.train.asked import AskedRows, OpenTier
from sprat.train.asked_kinds import AnyAskedKind, asked_kind
from sprat.train.provenance import DataSource
from sprat.train.record import LanguageRecord
from sprat.train.split import same_texts
from sprat.train.task_file import TASK, read_task
from sprat.train.traffic import answer_names, traffic_of_tier
from sprat.values import Label

LEAST_TEXTS = 50
"""Different texts that a calibration and an evaluation need together. From so few the intervals are
wide, and the ceiling of the confidences is low."""


@dataclass(frozen=True, slots=True, eq=False)
class Added:
    """A bundle with one tier more.

    Attributes
    ----------
    bundle : Bundle
    record : BaseModel
        The content of its ``report.json``.
    report : Report, ExtractReport or RewritingReport
        How good the tier is by itself.
    """

    bundle: Bundle
    record: BaseModel
    report: Any


def language(
    store: Store,
    bundle: BundleManifest,
    *,
    model: str,
    adapter: str | None = None,
    labels: Sequence[Label] = (),
    **asks: Any,
) -> tuple[ModelRef, AnyLanguage]:
    """What a tier asks, from what was given, and what its adapter was trained to be asked.

    An adapter that `sprat train` made knows what it was asked in training: labels in its own order,
    or a schema, and instructions. They count where nothing else is given: another prompt is another
    task to it.

    Parameters
    ----------
    bundle : BundleManifest
        What gets the tier.
    model, adapter : str
        Names in the store.
    labels : sequence of Label
        Labels of the bundle with what describes them; those that are left out have no description.
    **asks
        What else is said, of the options of the kind; None is not given.

    Raises
    ------
    NotFound
        There is no such model or adapter.
    StaleAdapter
        The adapter was made for another model.
    InvalidInput
        The model is none that can be asked, the adapter is one for another kind of task, labels
        are not those of the bundle, or its kind does not know an option.
    """
    kind = asked_kind(bundle)
    base, ref, trained = resolve(store, model, adapter)
    asked = kind.language(
        bundle, adapter=ref, trained=trained, labels=labels, **_given(bundle, kind, asks)
    )
    return base, asked


def resolve(store: Store, model: str, adapter: str | None) -> tuple[ModelRef, ModelRef | None, Any]:
    """A generative model, an adapter of it, and the spec that this was trained to be asked.

    See `language` for what is raised. The spec is None where nothing says it.
    """
    base, _ = store.model(model)
    if base.kind != "generative":
        raise InvalidInput(
            f"model: expected a generative model, but {model} is an {base.kind}", field="model"
        )
    trained, ref = None, None
    if adapter is not None:
        manifest, folder = store.adapter(adapter)
        adapters.check_base(manifest, folder, base)
        ref = ModelRef(name=manifest.name, digest=manifest.digest)
        if (folder / TASK).is_file():
            trained = read_task(folder, manifest.name).spec()
    return ModelRef(name=base.name, digest=base.digest), ref, trained


def remote(
    bundle: BundleManifest,
    *,
    model: str,
    task_version: str = "",
    labels: Sequence[Label] = (),
    **asks: Any,
) -> AnyRemote:
    """What a remote tier asks.

    Parameters
    ----------
    bundle, labels, **asks
        As in `language`.
    model, task_version
        See `sprat.asked_manifest.Remote`.

    Raises
    ------
    InvalidInput
        Labels are not those of the bundle, or its kind does not know an option.
    """
    kind = asked_kind(bundle)
    given = _given(bundle, kind, asks)
    return kind.remote(bundle, model=model, task_version=task_version, labels=labels, **given)


def _given(bundle: BundleManifest, kind: AnyAskedKind, asks: Mapping[str, Any]) -> dict[str, Any]:
    """What is said about a question, if the kind knows it."""
    given = {name: value for name, value in asks.items() if value is not None}
    for name in given:
        if name not in kind.options:
            raise InvalidInput(
                f"{name}: a task of kind {bundle.kind} is not asked so; expected "
                + ", ".join(sorted(kind.options)),
                field=name,
            )
    return given


def check_unseen(store: Store, adapter: str, data: AskedRows) -> None:
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
    record: Any,
    data: AskedRows,
    asks: AnyLanguage | AnyRemote,
    *,
    base: ModelRef | None = None,
    name: str | None = None,
    kind: AnyAskedKind | None = None,
    open_tier: OpenTier,
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
        Of a kind of `sprat.train.asked_kinds.ASKED`; without a tier where it was just begun, see
        `sprat.train.begin`.
    record : object
        What its ``report.json`` says; see `read_record`.
    data : Dataset, SpanDataset or Wanted
        Rows that neither the adapter nor the other tiers were trained on.
    asks : Language, Remote or another class of `sprat.asked_manifest`
        See `language` and `remote`.
    base : ModelRef, optional
        The model of a language tier; absent: a remote one.
    name : str, optional
        Of the tier; absent: ``language`` or ``remote``.
    kind : AskedKind, optional
        What such tiers are to the kind of the bundle; absent: see `asked_kind`.
    open_tier : callable
        See `sprat.train.asked.OpenTier`.
    held_out : float
        Share of the rows to evaluate on, above 0 and below 1.
    seed : int
        Of the parts and of resampling, at least 0.

    Raises
    ------
    InvalidInput
        The bundle has such a tier, or a number is out of range.
    DataError
        Rows have labels or fields that the bundle does not have, are too few, or cannot be
        answered.
    """
    manifest = bundle.manifest
    kind = asked_kind(manifest) if kind is None else kind
    name = _name(manifest, name, "remote" if base is None else "language")
    if seed < 0:
        raise InvalidInput(f"seed: expected 0 or more, got {seed}", field="seed")
    kind.check(manifest, data)
    found = int(same_texts(data.texts).max()) + 1
    if found < LEAST_TEXTS:
        raise DataError(
            data.path, 0, f"expected {LEAST_TEXTS} or more different texts, found {found}"
        )
    fitted, judged = kind.split(data, held_out, seed=seed)
    tier = TierManifest(
        name=name,
        base=base,
        language=None if base is None else cast(AnyLanguage, asks),
        remote=cast(AnyRemote, asks) if base is None else None,
        calibration=None,
        evaluation=ReportSummary(n=len(judged), metrics={}),
    )
    appended = _appended(manifest, tier)
    with open_tier(appended, len(manifest.tiers)) as ask:
        progress.phase(f"ask about {len(data)} rows", total=len(data))
        fitted_said, judged_said = (
            kind.say(manifest, ask, rows, progress) for rows in (fitted, judged)
        )
    fit = kind.fit(manifest, fitted_said, fitted, tier, seed=seed)
    tier = kind.fitted(tier, fit)
    progress.phase(f"evaluate on {len(judged)} rows")
    report = kind.evaluate(manifest, judged_said, judged, tier, seed=seed)
    training = LanguageRecord(
        calibrated_on=DataSource.of(fitted),
        evaluated_on=DataSource.of(judged),
        seed=seed,
        calibration=fit,
    )
    confidence_n, answer_n, _ = kind.rate(manifest, judged_said, judged, tier)
    names = answer_names(manifest)
    answers = () if answer_n is None else (names[at] for at in answer_n.tolist())
    traffic = traffic_of_tier(name, confidence_n, answers)
    tier = tier.model_copy(update={"evaluation": report.summary(), "traffic": traffic})
    if not manifest.tiers:
        manifest = manifest.model_copy(update={"train_rows": len(fitted)})
    return Added(
        replace(bundle, manifest=_appended(manifest, tier)),
        kind.recorded(record, name, report, training),
        report,
    )


def read_record(folder: Path, manifest: BundleManifest) -> Any:
    """What the ``report.json`` of a bundle says: the record of its `AskedKind`.

    Raises
    ------
    CorruptFile
        It is none.
    """
    path, kind = folder / REPORT, asked_kind(manifest)
    try:
        return kind.record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        what = f"not the report of a bundle of kind {manifest.kind}"
        raise CorruptFile(str(path), what) from None


def _name(manifest: BundleManifest, given: str | None, default: str) -> str:
    """The name of a tier, if it can be had."""
    name = default if given is None else given
    if not re.fullmatch(TIER_NAME, name) or name in FITTED_TIERS:
        raise InvalidInput(
            f"name: expected 1 to 32 of a to z, 0 to 9 and -, a letter first, and none of "
            f"{', '.join(FITTED_TIERS)}",
            field="name",
        )
    if any(tier.name == name for tier in manifest.tiers):
        raise InvalidInput(
            f"{manifest.name}: has a tier {name} already; call this one otherwise", field="name"
        )
    return name


def _appended(manifest: BundleManifest, tier: TierManifest) -> BundleManifest:
    tiers = manifest.tiers
    if manifest.tuning is not None:
        tiers = tuple(each.model_copy(update={"accept_at": 0.0}) for each in tiers)
    return manifest.model_copy(update={"tiers": (*tiers, tier), "tuning": None})
