"""The HTML report: whole by itself, well-formed, and without a text of the data."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Literal
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from sprat.bundle_manifest import Calibration
from sprat.manifest import Interval
from sprat.tagger import Span
from sprat.train import page_extract_cascade, page_findings, plots
from sprat.train.curve import CurvePoint, LearningCurve
from sprat.train.evaluate import evaluate
from sprat.train.evaluate_categories import ModerationReport, evaluate_categories
from sprat.train.evaluate_extract import ExtractReport, FieldReport, value_findings
from sprat.train.evaluate_extract_cascade import TierFound, evaluate_extract_cascade
from sprat.train.evaluate_spans import SpanReport, evaluate_spans
from sprat.train.evaluate_transform import TransformReport
from sprat.train.evaluate_whole import evaluate_whole
from sprat.train.page import TITLES, page
from sprat.train.report import METRICS, SCOPE_METRICS, Report
from sprat.train.spans import GoldSpan, SpanDataset

NASTY = '</script><img src="https://example.org/x"> & "quoted"'
CURVE = LearningCurve(
    metric="accuracy",
    points=tuple(CurvePoint(rows=n, value=v) for n, v in ((10, 0.5), (20, 0.6), (40, 0.8))),
    more_rows=80,
    expected=Interval(value=0.9, low=0.8, high=1.0),
    gain=Interval(value=0.1, low=0.0, high=0.2),
)


def report_of(k: int, *, n: int = 400, out_of_scope: bool = False) -> Report:
    rng = np.random.default_rng(k)
    targets = rng.integers(0, k, n).astype(np.int32)
    logits = (rng.normal(0, 1, (n, k)) + 3 * np.eye(k)[targets]).astype(np.float32)
    return evaluate(
        logits,
        targets,
        labels=[NASTY, *(f"label {i}" for i in range(1, k))],
        lines=range(1, n + 1),
        calibration=Calibration(temperature=1.0),
        out_of_scope=logits[:50] / 3 if out_of_scope else None,
        threshold=0.5,
    )


class Parser(HTMLParser):
    """Notes the elements of a page, their attributes, and whether all are closed in order."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Parser:
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.parametrize("k", [2, 5, 77])
def test_page_is_well_formed_and_loads_nothing(k: int) -> None:
    parser = parsed(page(report_of(k), title=NASTY, facts={"Bundle": NASTY}))
    assert not {"img", "link", "iframe", "object", "base"} & set(parser.tags)
    assert parser.tags.count("script") == parser.tags.count("style") == 1
    assert not {"src", "href", "xlink:href", "onclick", "style"} & {
        name for name, _ in parser.attributes
    }
    assert ("http-equiv", "Content-Security-Policy") in parser.attributes
    assert any(value.startswith("default-src 'none'") for _, value in parser.attributes)


def test_page_escapes_labels_and_names() -> None:
    text = page(report_of(4), title=NASTY, facts={NASTY: NASTY})
    assert NASTY not in text
    assert "<img" not in text
    assert text.count("</script>") == 1


def test_page_style_and_script_point_nowhere() -> None:
    text = page(report_of(3), title="t", facts={})
    for tag in ("style", "script"):
        content = text[text.index(f"<{tag}>") : text.index(f"</{tag}>")]
        assert not re.search(r"url\(|@import|https?:|//", content)


def test_page_shows_every_figure_with_its_interval() -> None:
    report = report_of(4, out_of_scope=True)
    text = page(report, title="t", facts={"Data": "x.jsonl"})
    assert set(TITLES) == {*METRICS, *SCOPE_METRICS}
    for name in (*METRICS, *SCOPE_METRICS):
        assert f"<td>{TITLES[name]}</td>" in text
        assert f"{getattr(report, name):.4f}" in text
        assert "{:.4f} to {:.4f}".format(*report.intervals[name]) in text
    assert "<dt>Data</dt><dd>x.jsonl</dd>" in text
    assert "Out of scope" not in page(report_of(4), title="t", facts={})


def test_page_plots_what_is_there() -> None:
    report = report_of(4)
    assert parsed(page(report, title="t", facts={})).tags.count("svg") == 3
    text = page(report, title="t", facts={}, learning=CURVE)
    assert parsed(text).tags.count("svg") == 4
    assert "40 rows: 0.800" in text


def test_page_table_of_labels_is_sortable() -> None:
    text = page(report_of(5), title="t", facts={})
    table = text[text.index('<table class="sortable">') :]
    table = table[: table.index("</table>")]
    assert table.count("<button>") == 7
    assert table.count("<tr>") == 6


def test_page_of_answers_that_are_all_right() -> None:
    targets = np.array([0, 1] * 5, np.int32)
    report = evaluate(
        (9 * np.eye(2)[targets]).astype(np.float32),
        targets,
        labels=["a", "b"],
        lines=range(10),
        calibration=Calibration(temperature=1.0),
    )
    text = page(report, title="t", facts={})
    parsed(text)
    assert "No answer is wrong." in text
    assert "No answer with a confidence of 0.9 or more is wrong." in text


@pytest.mark.parametrize("k", [2, 21, 77])
def test_plots_confusion_matrix_holds_every_row_once(k: int) -> None:
    report = report_of(k)
    root = ET.fromstring(plots.confusion(report.labels, report.confusions))
    cells = [e for e in root.iter("rect") if e.get("class") in ("hit", "miss")]
    counts = {"hit": 0, "miss": 0}
    places = set()
    for cell in cells:
        found = re.search(r": (\d+) of \d+$", str(cell.findtext("title")))
        assert found is not None
        counts[str(cell.get("class"))] += int(found[1])
        places.add((cell.get("x"), cell.get("y")))
        assert 0 < float(str(cell.get("fill-opacity"))) <= 1
    assert len(places) == len(cells)
    assert counts["hit"] == round(report.accuracy * report.n)
    assert sum(counts.values()) == report.n


def test_plots_stay_inside_of_their_frame() -> None:
    report = report_of(5)
    for svg in (
        plots.reliability(report.reliability),
        plots.risk_coverage(report.risk_coverage, report.risk_points),
        plots.learning_curve([12, 770], [0.31, 0.84]),
        plots.learning_curve([5], [1.0]),
        *(
            svg
            for each in moderation_report().categories
            for svg in (
                plots.reliability(each.reliability),
                plots.thresholds(each.by_threshold, 0.5),
            )
        ),
    ):
        root = ET.fromstring(svg)
        _, _, width, height = map(float, str(root.get("viewBox")).split())
        for each in root.iter():
            for name, limit in (("x", width), ("x1", width), ("x2", width), ("cx", width)):
                assert 0 <= float(each.get(name, 0)) <= limit
            for name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(each.get(name, 0)) <= height
            for pair in str(each.get("points", "")).split():
                x, y = map(float, pair.split(","))
                assert 0 <= x <= width
                assert 0 <= y <= height


def moderation_report() -> ModerationReport:
    rng = np.random.default_rng(1)
    probability = rng.beta(0.5, 1.0, (300, 2))
    truth = rng.random((300, 2)) < probability
    return evaluate_categories(
        probability,
        truth,
        names=(NASTY, "spam"),
        flag_at=(0.5, 0.4),
        confidence_n=probability.max(axis=1),
    )


def span_report(found: int) -> SpanReport:
    class Judge:
        fields = (NASTY, "time")

        def confidence(self, score: float) -> float:
            return score

    data = SpanDataset(
        ("x" * 20,) * 40, ((GoldSpan(0, 4, NASTY),),) * 40, ((),) * 40, tuple(range(40)), "rows"
    )
    spans = [
        [Span(NASTY, 0, 4 + row % 2, 0.1 + row / 80)] if row < found else [] for row in range(40)
    ]
    sure = np.linspace(0.2, 0.9, 40) if found else None
    return evaluate_spans(spans, data, Judge(), confidence_n=sure)  # type: ignore[arg-type]


def test_page_of_a_moderator() -> None:
    report = moderation_report()
    curve = CURVE.model_copy(update={"metric": "mean_average_precision"})
    text = page(report, title=NASTY, facts={"Data": "x.jsonl"}, learning=curve)
    parser = parsed(text)
    assert NASTY not in text
    # Reliability of whole answers, that and thresholds of both categories, and the learning curve.
    assert parser.tags.count("svg") == 6
    assert report.whole is not None
    assert f"Perfect confidences would show {report.whole.ece_noise:.3f} on so few rows." in text
    assert "Mean average precision on the same test rows" in text
    for name, each in report.summary().metrics.items():
        assert f"<td>{page_findings.TITLES[name]}</td>" in text
        assert f"{each.low:.4f} to {each.high:.4f}" in text
    for category in report.categories:
        for figure in (category.precision, category.recall, category.ece):
            assert f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})" in text
        # The first and highest threshold of the table.
        assert f"{category.by_threshold[0].at:.4f}" in text
    table = text[text.index("Precision and recall by threshold") :]
    assert 2 * 8 <= table.count("<tr>") <= 1 + 2 * page_findings.SHOWN_THRESHOLDS


def test_page_of_a_tagger() -> None:
    report = span_report(40)
    text = page(report, title=NASTY, facts={})
    parser = parsed(text)
    assert NASTY not in text
    # Of spans, and of whole answers.
    assert parser.tags.count("svg") == 2
    assert "<td>Calibration error (ECE) of whole answers</td>" in text
    for name, (low, high) in report.intervals.items():
        assert f"<td>{page_findings.TITLES[name]}</td>" in text
        assert f"{low:.4f} to {high:.4f}" in text
    for field in report.fields:
        assert f'<td class="right">{field.precision:.3f}</td>' in text
    assert f"20 of them wrong: {report.misplaced} overlap" in text


def test_page_of_a_tagger_that_finds_nothing() -> None:
    parser = parsed(page(span_report(0), title="t", facts={}))
    assert parser.tags.count("svg") == 0


@pytest.mark.parametrize("by", ["spans", "strings"])
def test_page_of_an_extract_cascade(by: Literal["spans", "strings"]) -> None:
    wanted = [json.dumps({NASTY: "a"})] * 4
    found = (*wanted[:3], None)
    tiers = [
        TierFound("head", "ct2", 0.8, found, np.array([0.9, 0.5, 0.9, 0.0]), 1.0),
        TierFound("remote", "remote", 0.0, found, np.array([0.9, 0.7, 0.9, 0.0]), 5.0),
        TierFound(NASTY, "ct2", None, found, None, 2.0),
    ]
    report, _ = evaluate_extract_cascade(
        tiers,
        lambda given: value_findings([each or "" for each in given], wanted, needs_value=True),
        by=by,
        lines=(17, 18, 19, 23),
    )
    text = page(report, title=NASTY, facts={"Data": "x.jsonl"})
    parser = parsed(text)
    assert NASTY not in text
    # Whole answers, and cost against quality.
    assert parser.tags.count("svg") == 2
    for name, each in report.metrics.items():
        assert f"<td>{page_extract_cascade.TITLES[name]}</td>" in text
        assert f"{each.low:.4f} to {each.high:.4f}" in text
    assert "<td>remote</td>" in text
    assert "left out" in text
    assert "share of head alone" in text
    assert ("at exactly the right place" in text) == (by == "spans")
    assert '<td class="right">23</td>' in text
    assert "No answer is other than wanted" not in text


def test_page_of_answers() -> None:
    metrics = {name: Interval(value=0.5, low=0.4, high=0.6) for name in ("micro_f1", "exact_match")}
    field = FieldReport(field=NASTY, precision=0.125, recall=1, f1=0.5, support=3, predicted=4)
    extract = ExtractReport(
        n=9,
        incomplete=1,
        abstained=2,
        strings=4,
        grounded=3,
        metrics=metrics,
        fields=(field,),
        wrong_lines=(17, 23),
    )
    text = page(extract, title=NASTY, facts={})
    parsed(text)
    assert NASTY not in text
    assert "<td>Answers as wanted</td>" in text
    assert '<td class="right">0.125</td>' in text
    assert '<td class="right">23</td>' in text
    whole = evaluate_whole(np.linspace(0.2, 0.9, 9), np.arange(9) > 4)
    sure = extract.model_copy(
        update={"whole": whole, "metrics": {**metrics, "whole_ece": whole.ece}}
    )
    text = page(sure, title="t", facts={})
    assert parsed(text).tags.count("svg") == 1
    assert f"would show {whole.ece_noise:.3f} on so few rows." in text
    transform = TransformReport(n=9, incomplete=0, metrics=metrics, wrong_lines=())
    text = page(transform, title="t", facts={})
    parsed(text)
    assert "No answer is other than wanted." in text
