"""`sprat decide` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from servers import GENERATOR, Server, sprat

from sprat.store import Store

QUESTIONS: list[dict[str, Any]] = [
    {"name": "urgent", "text": "Is it urgent?", "kind": "yes_no"},
    {
        "name": "topic",
        "text": "What is it about?",
        "kind": "choice",
        "options": ["card", {"name": "cash", "description": "notes and coins"}],
    },
    {"name": "mood", "text": "How angry?", "kind": "score", "options": ["calm", "cross"]},
]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(QUESTIONS))
    return path


@pytest.mark.parametrize("served", [True, False])
def test_decide_with_and_without_a_server(
    store: Store, smollm: Path, server: Server, questions: Path, served: bool
) -> None:
    where = ("--server", server.address) if served else ()
    arguments = ("decide", GENERATOR, "I need cash.", "--questions", str(questions), *where)
    done = sprat(store, *arguments, "--ask", "polite: Is it polite?", "--json", "--correct-prior")
    assert done.returncode == 0, done.stderr
    (item,) = json.loads(done.stdout)["items"]
    names = {a["question"]: [s["label"] for s in a["scores"]] for a in item["answers"]}
    assert names == {
        "urgent": ["yes", "no"],
        "topic": ["card", "cash"],
        "mood": ["calm", "cross"],
        "polite": ["yes", "no"],
    }
    levels = [answer["expected_level"] for answer in item["answers"]]
    assert [level is None for level in levels] == [True, True, False, True]


def test_decide_reads_lines_and_shows_a_table(store: Store, server: Server) -> None:
    arguments = ("decide", GENERATOR, "--ask", "polite: Is it polite?", "--server", server.address)
    done = sprat(store, *arguments, input="Please.\n\nNow!\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("polite") == 2


BAD: list[tuple[object, str]] = [
    ({"name": "a"}, "expected a list of questions, got dict"),
    ([{"name": "a", "kind": "yes_no"}], "questions[0]: expected an object with name: str"),
    ([{**QUESTIONS[0], "more": 1}], "questions[0]: expected an object"),
    ([QUESTIONS[0], {**QUESTIONS[1], "options": [3]}], "questions[1].options[0]"),
    ([{**QUESTIONS[0], "kind": "maybe"}], "questions[0].kind: expected yes_no, choice or score"),
]


@pytest.mark.parametrize(("document", "message"), BAD)
def test_decide_refuses_bad_question_files(
    store: Store, tmp_path: Path, document: object, message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    done = sprat(store, "decide", GENERATOR, "x", "--questions", str(path))
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "questions with --questions or --ask"),
        (("--ask", "no colon?"), "--ask: expected `name: Question?`"),
        (("--questions", "/nowhere.json"), "cannot be read as JSON"),
    ],
)
def test_decide_refuses(store: Store, arguments: tuple[str, ...], message: str) -> None:
    done = sprat(store, "decide", GENERATOR, "x", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
