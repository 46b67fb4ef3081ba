"""The HTML report: whole by itself, well-formed, and without a text of the data."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from sprat.bundle_manifest import Calibration
from sprat.train import plots
from sprat.train.evaluate import evaluate
from sprat.train.page import TITLES, page
from sprat.train.report import METRICS, SCOPE_METRICS, Report

NASTY = '</script><img src="https://example.org/x"> & "quoted"'


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
    text = page(report, title="t", facts={}, learning=([10, 20, 40], [0.5, 0.6, 0.8]))
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
