"""`sprat train` as a user runs it: what it checks, what it says, what it writes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from servers import sprat
from tiny_models import encoder_files, write_files

from sprat.bundle import Bundle
from sprat.bundle_manifest import REPORT
from sprat.pull import pull
from sprat.store import Store
from sprat.train.record import TrainingRecord


def few(tickets: tuple[Path, Path], rows: int = 120) -> list[dict[str, str]]:
    return [json.loads(line) for line in tickets[0].read_text("utf-8").splitlines()[:rows]]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_train_says_what_it_found_and_would_do_next(
    store: Store, minilm: Path, tickets: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = few(tickets)
    labels = sorted({row["label"] for row in rows})
    wrong = rows[7]
    wrong["label"] = next(label for label in labels if label != wrong["label"])
    data = write(tmp_path / "rows.jsonl", [*rows, {**rows[3], "text": rows[3]["text"].upper()}])
    test = write(tmp_path / "test.jsonl", [*few(tickets)[:5], *few(tickets, 160)[120:]])
    suspects = tmp_path / "suspects.jsonl"
    arguments = ("train", str(data), "--test", str(test), "-o", str(tmp_path / "b"))
    done = sprat(
        store, *arguments, "--learning-curve", "--suspects", str(suspects), "--accept-at", "0.3"
    )
    assert done.returncode == 0, done.stderr
    assert "note: 1 training rows repeat another: lines 121 (4)" in done.stdout
    assert "note: 5 of 45 test rows repeat a training row: lines 1 (1), 2 (2)," in done.stdout
    assert "Without rows that repeat a training row (40)" in done.stdout
    assert "more examples" in done.stdout
    assert "may have a wrong label" in done.stdout
    found = [json.loads(line) for line in suspects.read_text("utf-8").splitlines()]
    lines = data.read_text("utf-8").splitlines()
    assert all(json.loads(lines[s["line"] - 1])["text"] == s["text"] for s in found)
    assert 8 in [s["line"] for s in found]
    made = Bundle.load(tmp_path / "b")
    assert made.manifest.tiers[0].accept_at == 0.3
    record = TrainingRecord.model_validate_json((tmp_path / "b" / REPORT).read_text())
    assert [s.line for s in record.suspects] == [s["line"] for s in found]
    assert record.data.leaked.count == 5
    assert record.learning_curve is not None


def test_train_again_embeds_nothing_and_makes_the_same_bundle(
    store: Store, minilm: Path, tickets: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [{**row, "text": f"{row['text']} {tmp_path}"} for row in few(tickets, 60)]
    data = write(tmp_path / "rows.jsonl", rows)
    before = set(store.embeddings.glob("*/*"))
    arguments = ("train", str(data), "-o", str(tmp_path / "b"), "--json")
    first = sprat(store, *arguments)
    assert first.returncode == 0, first.stderr
    (kept,) = set(store.embeddings.glob("*/*")) - before
    again = sprat(store, *arguments, "--replace", anew=True)
    assert again.returncode == 0, again.stderr
    assert set(store.embeddings.glob("*/*")) - before == {kept}
    assert json.loads(again.stdout) == json.loads(first.stdout)
    kept.unlink()


def test_train_without_cache_keeps_no_embeddings(
    store: Store, minilm: Path, tickets: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [{**row, "text": f"{row['text']} {tmp_path}"} for row in few(tickets, 60)]
    data = write(tmp_path / "rows.jsonl", rows)
    before = set(store.embeddings.glob("*/*"))
    done = sprat(store, "train", str(data), "-o", str(tmp_path / "b"), "--no-cache")
    assert done.returncode == 0, done.stderr
    assert set(store.embeddings.glob("*/*")) == before


def test_train_tiers_each_on_its_own_model(tmp_path: Path) -> None:
    """The static model is distilled from the encoder on the way, and then found."""
    store = Store(tmp_path / "home")
    pull(str(write_files(tmp_path / "tiny", encoder_files())), store)
    topics = {"delivery": ("parcel", "late"), "money": ("refund", "broken")}
    rows = [
        {"text": " ".join(words), "label": label}
        for label, known in topics.items()
        for length in (1, 2, 3)
        for words in itertools.product(known, repeat=length)
    ]
    data = write(tmp_path / "rows.jsonl", rows)
    arguments = ("train", str(data), "--base", "tiny", "--tiers")
    out = ("head,static", "-o", str(tmp_path / "b"), "--class-weights", "balanced")
    done = sprat(store, *arguments, *out)
    assert done.returncode == 0, done.stderr
    assert "Tiers, from the cheapest to the best" in done.stdout
    static, head = Bundle.load(tmp_path / "b").manifest.tiers
    assert (static.name, static.base.name) == ("static", "tiny-static")
    assert (head.name, head.base.name) == ("head", "tiny")
    model, _ = store.model("tiny-static")
    assert (model.engine, model.digest) == ("static", static.base.digest)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "bundle.json",
        "head.safetensors",
        "report.json",
        "static.safetensors",
    ]
    out = ("static", "-o", str(tmp_path / "c"), "--static-base", "tiny-static")
    named = sprat(store, *arguments, *out)
    assert named.returncode == 0, named.stderr
    (only,) = Bundle.load(tmp_path / "c").manifest.tiers
    assert (only.name, only.base) == ("static", static.base)


CONFLICT = [{"text": "Where is it?", "label": "a"}, {"text": "where is it? ", "label": "b"}]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": f"t{i}", "label": "a"} for i in range(9)], (), "expected 2 or more labels"),
        (
            [{"text": f"t{i}", "label": "ab"[i > 5]} for i in range(9)],
            (),
            "'b': 3 in lines 7, 8, 9",
        ),
        ([{"text": "t"}], (), "rows.jsonl:1: label: missing"),
        (CONFLICT, (), "rows.jsonl:1: the same text with other labels in line 2"),
        (CONFLICT, ("--conflicts", "keep"), "expected 4 or more different texts"),
        (CONFLICT, ("--conflicts", "drop"), "found 0 in 0 rows"),
        (CONFLICT, ("--targets", "t.json"), "--targets: expected --kind route"),
        (CONFLICT, ("--kind", "route", "--default", "x"), "expected --accept-at beside it"),
        (CONFLICT, ("--suspects", "nowhere/s.jsonl"), "nowhere is no folder"),
    ],
)
def test_train_refuses_rows_and_options_by_name_and_writes_nothing(
    store: Store,
    minilm: Path,
    tmp_path: Path,
    rows: list[dict[str, str]],
    options: tuple[str, ...],
    message: str,
) -> None:
    data = write(tmp_path / "rows.jsonl", rows)
    done = sprat(store, "train", str(data), "-o", str(tmp_path / "b"), *options, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Where is it" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    "options",
    [
        ("--kind", "translate"),
        ("--tiers", "head,large"),
        ("--conflicts", "guess"),
        ("--class-weights", "heavy"),
        ("--accept-at", "1.5"),
    ],
)
def test_train_wrong_usage_is_status_2(
    store: Store, tickets: tuple[Path, Path], options: tuple[str, ...]
) -> None:
    done = sprat(store, "train", str(tickets[0]), "-o", "never", *options)
    assert done.returncode == 2
    assert options[0] in done.stderr
