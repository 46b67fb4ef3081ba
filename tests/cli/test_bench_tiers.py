"""``sprat bench --tiers`` on bundles that are no classifiers; see also `test_tune`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers import sprat
from tagged import make_bookings, write_encoder, write_rows
from tiny_models import encoder_files, write_files

from sprat.pull import pull
from sprat.store import Store

ROUTES = {"delivery": "queue://parcels", "money": "queue://billing"}
WORDS = {"delivery": ("parcel", "late"), "money": ("refund", "broken")}


def bench(store: Store, bundle: Path) -> str:
    """The table, of the tickets of the demo."""
    done = sprat(store, "bench", "--tiers", str(bundle), "--seconds", "0.5")
    assert done.returncode == 0, done.stderr
    assert "Costs of a text on this machine" in done.stdout
    assert "sprat demo tickets" in done.stdout
    kept = json.loads((store.root / "costs" / f"{bundle.name}.json").read_text())
    assert [tier["name"] for tier in kept["tiers"]] == ["head"]
    return done.stdout


def test_bench_tiers_of_an_extract_task(tmp_path: Path) -> None:
    store, out = Store(tmp_path / "home"), tmp_path / "bookings"
    pull(str(write_encoder(tmp_path / "tiny")), store)
    rows = write_rows(tmp_path / "train.jsonl", make_bookings(80))
    done = sprat(store, "train", str(rows), "--kind", "extract", "--base", "tiny", "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert "tiny (ct2, " in bench(store, out)


@pytest.mark.parametrize("kind", ["route", "moderate"])
def test_bench_tiers_of_other_kinds(tmp_path: Path, kind: str) -> None:
    store, out = Store(tmp_path / "home"), tmp_path / kind
    pull(str(write_files(tmp_path / "tiny", encoder_files())), store)
    data = tmp_path / "rows.jsonl"
    texts = [
        (f"{first} {second} {number}", label)
        for label, (first, second) in WORDS.items()
        for number in range(40)
    ]
    made = [
        {"text": text, "labels": [label]} if kind == "moderate" else {"text": text, "label": label}
        for text, label in texts
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in made))
    more = []
    if kind == "route":
        targets = tmp_path / "routes.json"
        targets.write_text(json.dumps(ROUTES))
        more = ["--targets", str(targets)]
    done = sprat(store, "train", str(data), "--kind", kind, "--base", "tiny", *more, "-o", str(out))
    assert done.returncode == 0, done.stderr
    bench(store, out)
