"""Tiers that ask for fields: those of extract tasks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sprat.asked_manifest import Fields, RemoteFields, check_fields, fields_schema
from sprat.bundle_manifest import BundleManifest, Calibration, TierManifest
from sprat.calibration import confidences
from sprat.errors import DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Progress
from sprat.scheduler import Mailbox
from sprat.tagger import Span
from sprat.tasks.extract_task import ExtractTask
from sprat.train.asked import Ask, AskedKind, Rated, Result, answers, described
from sprat.train.calibrate import CalibrationFit
from sprat.train.confidence import with_whole
from sprat.train.evaluate_extract import ExtractReport, evaluate_extract
from sprat.train.evaluate_whole import WHOLE_ECE, evaluate_whole
from sprat.train.prepare_spans import split_spans
from sprat.train.record import LanguageRecord
from sprat.train.spans import GoldSpan, SpanDataset
from sprat.train.tagger import ExtractRecord, ValuesRecord
from sprat.values import Extraction, ExtractSpec, Label


@dataclass(frozen=True, slots=True, eq=False)
class SaidOfFields:
    """What a tier says of N rows.

    Attributes
    ----------
    found : tuple of Extraction
        As if the tier were alone: without a value where the answer is not sound.
    chance_n : float64[N]
        Probability in [0, 1] of each answer by the tier's own lights; 0 where it is not sound.
    """

    found: tuple[Extraction, ...]
    chance_n: npt.NDArray[np.float64]

    @property
    def is_sound_n(self) -> npt.NDArray[np.bool_]:
        """Whether each answer is one at all: see `sprat.tasks.extract_tier.Extracted`."""
        return np.array([each.value is not None for each in self.found], np.bool_)


class AskedFields(
    AskedKind[SpanDataset, SaidOfFields, CalibrationFit, ExtractReport, ExtractRecord]
):
    """See `AskedKind`.

    An answer is right where it has the fields of the row with the same strings, and no others: a
    model that writes does not say which of two equal places it means. Where every string stands in
    its text once this is the rule of taggers, `sprat.train.fit_tagger.is_whole`; elsewhere it asks
    for less.
    """

    record = ExtractRecord
    options = frozenset({"instructions", "max_tokens", "votes"})
    uncalibrated = Calibration(temperature=1.0, isotonic=((0.0, 0.0), (1.0, 1.0)))

    def language(
        self,
        bundle: BundleManifest,
        *,
        adapter: ModelRef | None,
        trained: Any,
        labels: Sequence[Label],
        **asks: Any,
    ) -> Fields:
        """The schema of the adapter, else one of the fields of the bundle."""
        if trained is None:
            schema = _schema(bundle, labels)
            return Fields(json_schema=schema, adapter=adapter, **asks)
        name = "" if adapter is None else adapter.name
        if not isinstance(trained, ExtractSpec):
            raise InvalidInput(
                f"adapter: expected one for extract, but {name} was trained for another kind of "
                "task",
                field="adapter",
            )
        if labels:
            raise InvalidInput(
                f"labels: expected none beside adapter {name}, which knows its own schema",
                field="labels",
            )
        try:
            check_fields(trained.schema, bundle.labels, _many(bundle))
        except ValueError as error:
            raise InvalidInput(f"adapter: {name}: {error}", field="adapter") from None
        told = {"instructions": trained.instructions, "max_tokens": trained.max_tokens, **asks}
        return Fields(json_schema=trained.schema, adapter=adapter, **told)

    def remote(
        self,
        bundle: BundleManifest,
        *,
        model: str,
        task_version: str,
        labels: Sequence[Label],
        **asks: Any,
    ) -> RemoteFields:
        """A schema of the fields of the bundle."""
        schema = _schema(bundle, labels)
        return RemoteFields(model=model, task_version=task_version, json_schema=schema, **asks)

    def check(self, bundle: BundleManifest, rows: SpanDataset) -> None:
        """Refuse rows with other fields."""
        rows.check_fields(bundle.labels)

    def split(
        self, rows: SpanDataset, held_out: float, *, seed: int
    ) -> tuple[SpanDataset, SpanDataset]:
        """Each field in both parts, as far as it goes."""
        return split_spans(rows, held_out, seed=seed)

    async def call(self, task: ExtractTask, rows: SpanDataset, mailbox: Mailbox) -> Result:
        """All fields, whatever was asked for."""
        return await task.run(rows.texts, long_input="chunk", partial=True, mailbox=mailbox)

    def say(
        self, bundle: BundleManifest, ask: Ask, rows: SpanDataset, progress: Progress
    ) -> SaidOfFields:
        """Its answers, and how probable they are."""
        found = tuple(answers(ask, rows, progress))
        chances = [0.0 if each.value is None else each.confidence for each in found]
        return SaidOfFields(found, np.array(chances, np.float64))

    def fit(
        self,
        bundle: BundleManifest,
        said: SaidOfFields,
        rows: SpanDataset,
        tier: TierManifest,
        *,
        seed: int,
    ) -> CalibrationFit:
        """A curve for the answers that are sound; of others the confidence is 0.

        Raises
        ------
        DataError
            No answer is.
        """
        is_sound_n = said.is_sound_n
        if not is_sound_n.any():
            raise DataError(
                rows.path,
                0,
                f"none of {len(rows)} answers holds: they do not come to an end, do not fit the "
                "fields, or say what does not stand in the text",
            )
        right_n = _is_right(said, rows)[is_sound_n]
        chance_n = said.chance_n[is_sound_n]
        calibration = with_whole(Calibration(temperature=1.0), chance_n, right_n, seed=seed)
        return CalibrationFit(calibration, len(right_n))

    def evaluate(
        self,
        bundle: BundleManifest,
        said: SaidOfFields,
        rows: SpanDataset,
        tier: TierManifest,
        *,
        seed: int,
    ) -> ExtractReport:
        """Compare strings, field by field and as wholes, and confidences with what is right."""
        wanted = values(rows.texts, rows.spans, _many(bundle))
        report = evaluate_extract(said.found, wanted, lines=rows.lines, needs_value=True, seed=seed)
        if tier.whole is None:
            return report
        sure_n, _, right_n = self.rate(bundle, said, rows, tier)
        whole = evaluate_whole(sure_n, right_n, seed=seed)
        figures = {**report.metrics, WHOLE_ECE: whole.ece}
        return report.model_copy(update={"metrics": figures, "whole": whole})

    def rate(
        self,
        bundle: BundleManifest,
        said: SaidOfFields,
        rows: SpanDataset,
        tier: TierManifest,
    ) -> Rated:
        """Whether the fields are right."""
        assert tier.whole is not None
        sure_n = np.where(said.is_sound_n, confidences(said.chance_n, tier.whole), 0.0)
        return sure_n, None, _is_right(said, rows)

    def recorded(
        self, record: ExtractRecord, name: str, report: ExtractReport, training: LanguageRecord
    ) -> ExtractRecord:
        """Beside the taggers."""
        made = ValuesRecord(evaluation=report, training=training)
        return record.model_copy(update={"asked": {**record.asked, name: made}})


def _many(bundle: BundleManifest) -> tuple[str, ...]:
    assert bundle.extract is not None
    return bundle.extract.many


def _schema(bundle: BundleManifest, labels: Sequence[Label]) -> str:
    return fields_schema(described(bundle, (), labels), _many(bundle))


def values(
    texts: Sequence[str], spans: Sequence[Sequence[GoldSpan | Span]], many: Sequence[str]
) -> tuple[str, ...]:
    """What spans of texts say, as JSON.

    Parameters
    ----------
    many : sequence of str
        Fields that have a list. Any other has one, too, where a text has several spans of it: no
        answer can say that.
    """
    made = []
    for text, own in zip(texts, spans, strict=True):
        found: dict[str, list[str]] = {}
        for span in own:
            found.setdefault(span.field, []).append(text[span.start : span.end])
        value = {
            field: strings if field in many or len(strings) > 1 else strings[0]
            for field, strings in found.items()
        }
        made.append(json.dumps(value, ensure_ascii=False))
    return tuple(made)


def _is_right(said: SaidOfFields, rows: SpanDataset) -> npt.NDArray[np.bool_]:
    """Whether each answer has the strings of its row, and no others: bool[N]."""
    return np.array(
        [
            own.value is not None
            and _strings(own.value)
            == Counter((span.field, text[span.start : span.end]) for span in spans)
            for own, text, spans in zip(said.found, rows.texts, rows.spans, strict=True)
        ],
        np.bool_,
    )


def _strings(value: Mapping[str, str | list[str]]) -> Counter[tuple[str, str]]:
    return Counter(
        (field, string)
        for field, given in value.items()
        for string in ([given] if isinstance(given, str) else given)
    )
