"""Tiers of extract tasks on the same texts: beside each other, and together."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fields import with_remote_fields
from tagged import make_bookings, read_words

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.errors import DataError
from sprat.manifest import ModelRef
from sprat.progress import Silent
from sprat.train.asked import Ask
from sprat.train.assess_spans import (
    SpanAssessment,
    assess_extract_cascade,
    assess_tagger,
    compare_tiers,
)
from sprat.train.evaluate_extract_cascade import ExtractCascadeReport
from sprat.train.evaluate_spans import SpanReport
from sprat.train.prepare_spans import prepare_spans
from sprat.train.spans import GoldSpan, SpanDataset
from sprat.train.tagger import States, train_tagger, train_tagger_tier
from sprat.values import Extraction, ExtractResult, Timings

TEST = make_bookings(60, seed=1, path="test.jsonl")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Taggers; the second one never learned what tells what a lone number is."""
    rows = make_bookings(80)
    blind = replace(rows, requested=((),) * len(rows))
    made = []
    for data in (rows, blind):
        folder = tmp_path_factory.mktemp("bundle")
        prepared = prepare_spans(data, test=TEST, conflicts="keep")
        base = ModelRef(name="words", digest="a" * 64)
        tier = functools.partial(train_tagger_tier, name="head", base=base, states=read_words)
        train_tagger(prepared, [tier], name="bookings", out=folder)
        made.append(Bundle.load(folder))
    return made


@pytest.fixture(scope="module")
def assessed(bundles: list[Bundle]) -> list[SpanAssessment]:
    """What they find in the same test rows."""
    return [assess_tagger(bundle, TEST, states=read_words) for bundle in bundles]


def test_compare_tiers_agrees_with_both_reports(assessed: list[SpanAssessment]) -> None:
    first, second = (each.report for each in assessed)
    result = compare_tiers(TEST, *assessed)
    assert result.micro_f1.first == pytest.approx(first.micro_f1)
    assert result.micro_f1.second == pytest.approx(second.micro_f1)
    assert result.rows.n == 60
    right = result.rows.both_right + result.rows.only_first
    assert right / 60 == pytest.approx(first.whole_rows)
    assert [each.name for each in result.parts] == [each.label for each in first.fields]
    assert [each.first for each in result.parts] == pytest.approx([f.f1 for f in first.fields])
    for each in result.rows.disagreements:
        # Fields and places, no words of the texts.
        assert "table" not in each.label + each.first + each.second
    assert compare_tiers(TEST, *assessed) == result


def test_compare_tiers_with_itself_is_no_difference(assessed: list[SpanAssessment]) -> None:
    result = compare_tiers(TEST, assessed[0], assessed[0])
    assert result.rows.p_value == 1
    assert result.rows.disagreements == ()
    assert (result.micro_f1.difference.low, result.micro_f1.difference.high) == (0, 0)


def with_thresholds(bundle: Bundle, *accept_at: float) -> Bundle:
    tiers = zip(bundle.manifest.tiers, accept_at, strict=True)
    changed = tuple(tier.model_copy(update={"accept_at": at}) for tier, at in tiers)
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"tiers": changed}))


def cascaded(bundles: list[Bundle], first: float, last: float = 0.0) -> Bundle:
    """The blind tagger, then the other one."""
    many, few = bundles
    second = many.manifest.tiers[0].model_copy(
        update={"name": "finetune", "weights": "finetune.safetensors"}
    )
    manifest = many.manifest.model_copy(update={"tiers": (few.manifest.tiers[0], second)})
    both = replace(many, manifest=manifest, taggers=(*few.taggers, *many.taggers))
    return with_thresholds(both, first, last)


@contextmanager
def open_words(model: str) -> Iterator[States]:
    assert model == "words"
    yield read_words


@contextmanager
def open_nothing(manifest: BundleManifest, place: int) -> Iterator[Ask]:
    raise AssertionError(f"tier {place} asks nobody")
    yield


def opener(answer: Callable[[str], dict[str, str] | None]) -> Callable[..., object]:
    """Answers to each text, as probable as 0.9 where there is one."""

    @contextmanager
    def open_tier(manifest: BundleManifest, place: int) -> Iterator[Ask]:
        def item(text: str) -> Extraction:
            value = answer(text)
            given = "" if value is None else json.dumps(value)
            return Extraction(value, given, (), confidence=0.9)

        def ask(rows: SpanDataset) -> ExtractResult:
            items = tuple(map(item, rows.texts))
            return ExtractResult(items, (), "big", "1", "1", Timings(0, 0, 0, 0))

        assert manifest.tiers[place].remote is not None
        yield ask

    return open_tier


def assess(bundle: Bundle, data: SpanDataset = TEST, **options: object) -> SpanAssessment:
    given = {"open_tier": open_nothing, "engine_of": lambda model: "static", **options}
    return assess_extract_cascade(
        bundle,
        data,
        open_states=open_words,
        progress=Silent(),
        **given,  # type: ignore[arg-type]
    )


def report_of(assessment: SpanAssessment) -> ExtractCascadeReport:
    assert isinstance(assessment.report, ExtractCascadeReport)
    return assessment.report


def test_assess_extract_cascade_of_taggers_agrees_with_each_of_them(
    bundles: list[Bundle], assessed: list[SpanAssessment]
) -> None:
    many, few = assessed
    assert isinstance(many.report, SpanReport)
    assert isinstance(few.report, SpanReport)
    made = assess(cascaded(bundles, 0.6))
    report = report_of(made)
    assert report.by == "spans"
    for name, alone in (("head", few.report), ("finetune", many.report)):
        figures = report.tiers[name].metrics
        assert figures["micro_f1"].value == pytest.approx(alone.micro_f1)
        assert figures["exact_match"].value == pytest.approx(alone.whole_rows)
        assert alone.whole is not None
        assert figures["whole_ece"].value == pytest.approx(alone.whole.ece.value)
    head, last = report.shares
    assert 0 < head.answers < 1
    assert head.answers + last.answers == pytest.approx(1)
    assert report.metrics["coverage"].value == 1
    # Every answer is that of one of the two.
    for own, one, other in zip(made.found, few.found, many.found, strict=True):
        assert own in (one, other)
    beside = compare_tiers(TEST, made, many)
    assert beside.micro_f1.first == pytest.approx(report.metrics["micro_f1"].value)
    right = beside.rows.both_right + beside.rows.only_first
    assert right / 60 == pytest.approx(report.metrics["exact_match"].value)
    assert not any(name in report.model_dump_json() for name in ("Ada", "table"))


@pytest.mark.parametrize(("first", "answers"), [(1e-9, "head"), (1.0, "finetune")])
def test_assess_extract_cascade_at_the_ends_is_one_of_its_tiers(
    bundles: list[Bundle], assessed: list[SpanAssessment], first: float, answers: str
) -> None:
    made = assess(cascaded(bundles, first))
    assert made.found == assessed[1 if answers == "head" else 0].found


def test_assess_extract_cascade_that_abstains_is_not_right_where_nothing_is_there(
    bundles: list[Bundle], assessed: list[SpanAssessment]
) -> None:
    made = assess(cascaded(bundles, 1.0, 1.0))
    assert set(made.found) == {""}
    report = report_of(made)
    assert (report.metrics["coverage"].value, report.metrics["exact_match"].value) == (0, 0)
    assert not all(TEST.spans)
    beside = compare_tiers(TEST, made, assessed[0])
    assert beside.rows.both_right + beside.rows.only_first == 0


def test_assess_extract_cascade_with_a_tier_that_asks_is_judged_by_strings(
    bundles: list[Bundle],
) -> None:
    # No two texts are alike: it knows what each of them has.
    data = replace(TEST, texts=tuple(f"{text} x{at}" for at, text in enumerate(TEST.texts)))
    wanted = {
        text: {span.field: text[span.start : span.end] for span in spans}
        for text, spans in zip(data.texts, data.spans, strict=True)
    }
    properties = {name: {"type": "string"} for name in bundles[1].manifest.labels}
    schema = json.dumps({"type": "object", "properties": properties})
    bundle = with_remote_fields(bundles[1], json_schema=schema)
    # But it does not say what is in thanks.
    open_tier = opener(lambda text: None if "thanks" in text else wanted[text])
    cascade = with_thresholds(bundle, 0.7, 0.0)
    made = assess(cascade, data, open_tier=open_tier, remote_cost_ms=lambda: 70.0)
    report = report_of(made)
    assert (report.by, report.best_tier, made.findings) == ("strings", "remote", None)
    assert report.tiers["remote"].metrics["precision"].value == 1
    alone = assess_tagger(bundles[1], data, states=read_words)
    few = alone.report
    assert isinstance(few, SpanReport)
    # Strings ask for no more than places.
    assert report.tiers["head"].metrics["exact_match"].value >= few.whole_rows
    head, remote = report.shares
    assert remote.cost_ms == 70
    assert head.cost_ms < 70
    assert 0 < remote.answers <= remote.asked == pytest.approx(1 - head.answers)
    assert report.metrics["exact_match"].value > few.whole_rows
    withheld = [text for text, own in zip(data.texts, made.found, strict=True) if not own]
    assert withheld
    assert all("thanks" in text for text in withheld)
    assert report.metrics["coverage"].value == pytest.approx(1 - len(withheld) / 60)
    # What it finds can stand beside a tagger's.
    beside = compare_tiers(data, made, alone)
    assert beside.rows.only_first > beside.rows.only_second


def test_assess_extract_cascade_refuses_other_fields(bundles: list[Bundle]) -> None:
    data = SpanDataset(("shop",), ((GoldSpan(0, 4, "shop"),),), ((),), (3,), "rows.jsonl")
    with pytest.raises(DataError, match="known fields"):
        assess(cascaded(bundles, 0.5), data)
