"""`sprat label` and `sprat synthesize` as a user runs them: bundles, models, endpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from chat_server import ChatServer, Fault, by_words, user_text
from servers import GENERATOR, TASK, environment, sprat
from typer.testing import CliRunner

from sprat.cli import distil
from sprat.errors import SpratError
from sprat.store import Store
from sprat.train.data import read

RULES = {"parcel": "shipping", "invoice": "billing", "refund": ("billing", -1.0)}


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(by_words(RULES)) as server:
        yield server


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "where is my parcel?"}\n{"text": "the invoice is wrong"}\n')
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def refusal(store: Store, *arguments: str) -> str:
    """What a command says that is refused, in this process."""
    app = typer.Typer()
    app.command()(distil.label)
    app.command()(distil.synthesize)
    result = CliRunner().invoke(app, arguments, env={"SPRAT_HOME": str(store.root)})
    assert isinstance(result.exception, SpratError), result.output
    return result.exception.message


def test_label_with_a_bundle_then_train_on_it(
    store: Store, bundle: Path, tickets: tuple[Path, Path], tmp_path: Path
) -> None:
    """The whole way: a teacher labels what a student then learns."""
    train, test = tickets
    out, review, student = tmp_path / "out.jsonl", tmp_path / "review.jsonl", tmp_path / "student"
    done = sprat(
        store,
        *("label", str(train), "--with", str(bundle), "--keep-above", "0.5"),
        *("--review", str(review), "-o", str(out), "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["calibrated"]
    assert report["rows"] == len(lines(out)) + len(lines(review)) == report["gold"]
    assert report["kept_agreement"] >= report["agreement"] > 0.8
    assert lines(out)[0]["origin"]["labelled_by"].startswith(f"{TASK}@")
    done = sprat(store, "train", str(out), "--test", str(test), "-o", str(student), "--json")
    assert done.returncode == 0, done.stderr
    assert store.bundle(student)[0].labels == tuple(sorted({row["label"] for row in lines(out)}))


def test_label_with_a_generative_model(
    store: Store, smollm: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    done = sprat(
        store,
        *("label", str(texts), "--with", GENERATOR, "--labels", "shipping, billing"),
        *("--keep-above", "0", "-o", str(out)),
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2 rows kept" in done.stdout
    assert "not calibrated" in done.stdout
    for row in lines(out):
        assert row["label"] in ("shipping", "billing")
        assert 0.5 <= row["confidence"] <= 1
        assert row["origin"]["labelled_by"].startswith(f"{GENERATOR}@")


def label_remotely(
    store: Store, chat: ChatServer, texts: Path, out: Path, *more: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "sprat",
                "label",
                str(texts),
                "--with",
                chat.url,
                "-o",
                str(out),
            ),
            *("--model", "big", "--labels", "shipping,billing", *more),
        ],
        env={**environment(store), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_label_with_an_endpoint(
    store: Store, chat: ChatServer, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    done = label_remotely(store, chat, texts, out, SPRAT_API_KEY="k-1")
    assert done.returncode == 0, done.stderr
    assert [row["label"] for row in lines(out)] == ["shipping", "billing"]
    assert chat.headers[0]["Authorization"] == "Bearer k-1"
    assert {user_text(body) for body in chat.bodies} == {
        "where is my parcel?",
        "the invoice is wrong",
    }


def test_label_goes_on_after_the_endpoint_was_down(
    store: Store, chat: ChatServer, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    chat.faults = [Fault(), Fault(401)]
    done = label_remotely(store, chat, texts, out, "--concurrency", "1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("status 401")
    assert not out.exists()
    done = label_remotely(store, chat, texts, out, "--concurrency", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 2
    assert len(chat.bodies) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--with", "http://192.0.2.1/v1", "--model", "m", "--labels", "a,b"], "http is for this"),
        (["--with", "https://192.0.2.1/v1", "--labels", "a,b"], "expected --model"),
        (["--with", "http://127.0.0.1:9", "--model", "m"], "expected --labels"),
        (["--with", "nothing"], "no bundle named 'nothing'"),
        (["--with", "./nothing"], "no bundle named './nothing'"),
        (["--with", GENERATOR], "expected --labels"),
        (["--with", GENERATOR, "--labels", "a,a"], "labels[1]: the same"),
        (["--with", GENERATOR, "--labels", "a,b", "--labels-file", "x"], "expected one of"),
        (["--with", GENERATOR, "--labels-file", "nothing.json"], "cannot be read"),
        (["--with", GENERATOR, "--instructions", "Sort."], "expected labels beside it"),
    ],
)
def test_label_says_what_is_missing(
    store: Store, smollm: Path, texts: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "out.jsonl"
    assert message in refusal(store, "label", str(texts), "-o", str(out), *arguments)
    assert not out.exists()


def test_label_refuses_labels_for_a_bundle(
    store: Store, bundle: Path, texts: Path, tmp_path: Path
) -> None:
    arguments = ("--with", str(bundle), "--labels", "a,b", "-o", str(tmp_path / "out.jsonl"))
    assert "has labels of its own" in refusal(store, "label", str(texts), *arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"a": 1}', "valid list"),
        ('[{"name": 7}, "b"]', "[0].name"),
        ('["a", {"name": "b", "describtion": "x"}]', "[1].describtion"),
    ],
)
def test_label_names_what_is_wrong_with_a_labels_file(
    store: Store, smollm: Path, texts: Path, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    arguments = ("--with", GENERATOR, "--labels-file", str(path), "-o", str(tmp_path / "out"))
    assert message in refusal(store, "label", str(texts), *arguments)


def test_synthesize_with_an_endpoint_and_a_bundle_as_judge(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(
        '[{"name": "shipping", "description": "parcels", "examples": ["Where is it?"]}, "billing"]'
    )
    written = {
        "this kind:\n- shipping": "Where is my parcel?\nMy package is late, where is it?\n"
        "The courier never came with my delivery",
        "this kind:\n- billing": "I was charged twice this month\nRefund my last payment please\n"
        "Where is my parcel that you sent?",
    }
    out = tmp_path / "rows.jsonl"
    with ChatServer(by_words(written)) as chat:
        done = sprat(
            store,
            *("synthesize", "--labels-file", str(labels), "--with", chat.url, "--model", "big"),
            *("--judge", str(bundle), "--per-label", "2", "--about", "messages to a shop"),
            *("-o", str(out), "--json"),
        )
    assert done.returncode == 0, done.stderr
    assert [row["label"] for row in lines(out)] == ["shipping"] * 2 + ["billing"] * 2
    assert all(row["calibrated"] for row in lines(out))
    assert lines(out)[0]["origin"]["judged_by"].startswith(f"{TASK}@")
    assert json.loads(done.stdout)["shipping"]["repeated"] > 0
    assert read(out).labels[0] == "shipping"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--with", GENERATOR], "expected --labels or --labels-file"),
        (["--with", "BUNDLE", "--labels", "a,b"], "is a bundle; expected a generative model"),
        (["--with", GENERATOR, "--judge", "BUNDLE", "--labels", "x,billing"], "know the label 'x'"),
    ],
)
def test_synthesize_says_what_is_missing(
    store: Store, smollm: Path, bundle: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [str(bundle) if each == "BUNDLE" else each for each in arguments]
    out = tmp_path / "rows.jsonl"
    assert message in refusal(store, "synthesize", "--per-label", "1", "-o", str(out), *given)
    assert list(tmp_path.iterdir()) == []
