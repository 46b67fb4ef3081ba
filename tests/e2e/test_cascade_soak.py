"""A cascade under traffic, its last tier failing: real processes, every reply checked."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from servers import sprat
from tiny_models import encoder_files, write_files

from sprat.benchmarks.cascade_soak import Soak, measure_soak
from sprat.benchmarks.harness import Context
from sprat.benchmarks.scripted_chat import WAYS
from sprat.benchmarks.workbench import Workbench
from sprat.pull import pull
from sprat.store import Store

TOPICS = {"delivery": ("parcel", "late"), "money": ("refund", "broken")}
WORDS = ("parcel", "late", "refund", "broken", "xyz")


def test_cascade_soak_loses_and_confuses_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    pull(str(write_files(tmp_path / "tiny", encoder_files())), store)
    rows = [
        {"text": " ".join(words), "label": label}
        for label, known in TOPICS.items()
        for length in (1, 2, 3, 4)
        for words in itertools.product(known, repeat=length)
    ]
    data, out = tmp_path / "rows.jsonl", tmp_path / "tickets"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = sprat(
        store, "train", str(data), "--base", "tiny", "--tiers", "static,head", "-o", str(out)
    )
    assert done.returncode == 0, done.stderr
    said: list[str] = []
    sent = [
        {"text": " ".join(words), "label": "money" if number % 3 else "delivery"}
        for number, words in enumerate(itertools.product(WORDS, repeat=3))
    ]
    tally, subject, counts = measure_soak(
        Context(store, None, True, said.append),
        Workbench(tmp_path, store.root),
        out,
        sent,
        Soak(rate=150, seconds=3),
    )
    assert tally.faults == []
    assert (tally.lost, tally.wrong, tally.broken) == (0, 0, 0)
    assert tally.calls == len(tally.latencies_ms) == 450
    assert tally.texts == tally.answered + tally.failed
    assert sorted(tally.by_tier) == [0, 1, 2], "each tier answers some"
    assert tally.degraded["failure"] > 0
    assert tally.failed > 0, "where on_failure is error"
    assert sum(counts.get(way, 0) for way in WAYS) > 0
    assert set(subject.tasks.values()) == {"abstain", "answer", "error"}
