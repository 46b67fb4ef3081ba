"""The page of a comparison: what stands on it, with rows and without."""

from __future__ import annotations

from collections import Counter

from sprat.drift import Counts, Reference, compare
from sprat.train.page_drift import MOST_LABELS, drift_page
from sprat.tuning_manifest import TierTraffic, Traffic
from sprat.values import Drift

TRAFFIC = Traffic(
    rows=1000,
    tiers=(TierTraffic(name="static", edges=(0.5,), counts=(400, 600), passed_on=400),),
    labels={"<refund>": 500, "delivery": 500},
)
COUNTS = Counts([(0.5,)], 1000, [[900, 100]], [900], Counter({"<refund>": 250, "": 750}))


def test_page_drift_shows_where_rows_lie_now_and_lay_before() -> None:
    drift = compare(Reference(TRAFFIC), COUNTS)
    page = drift_page(drift, title="tickets", facts={"Task": "t"}, counted=(TRAFFIC, COUNTS))
    assert page.startswith("<!doctype html>")
    assert "DRIFTED: traffic is not what the task was evaluated on" in page
    assert "Confidence of static" in page
    assert "0.0000 to 0.5000" in page
    assert "+50.0 points" in page
    assert "&lt;refund&gt;" in page
    assert "<refund>" not in page
    assert page.index("(none)") < page.index("delivery") < page.index("&lt;refund&gt;")


def test_page_drift_of_a_server_has_figures_alone() -> None:
    page = drift_page(compare(Reference(TRAFFIC), COUNTS), title="tickets", facts={})
    assert "static: passed on" in page
    assert "Confidence of static" not in page
    nothing = drift_page(Drift("unknown", 0, note="tune it"), title="tickets", facts={})
    assert "nothing to compare with: tune it" in nothing


def test_page_drift_shows_the_labels_that_moved_most() -> None:
    names = [f"label {at:03}" for at in range(100)]
    traffic = Traffic(rows=100, tiers=(), labels=dict.fromkeys(names, 1))
    moved = Counter({name: 10 if name == "label 099" else 1 for name in names})
    counts = Counts([], 109, [], [], moved)
    page = drift_page(
        compare(Reference(traffic), counts), title="tickets", facts={}, counted=(traffic, counts)
    )
    assert page.count("label 0") == MOST_LABELS
    assert "label 099" in page
