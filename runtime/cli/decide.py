"""The `decide` command."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from sprat.cli.connect import connect, require_server
from sprat.cli.output import (
    Json,
    Server,
    TlsCa,
    Token,
    print_json,
    print_request,
    print_table,
    read_texts,
)
from sprat.cli.use import Texts
from sprat.errors import InvalidInput
from sprat.values import DecideResult, Label, Question, QuestionKind, QuestionSet


def decide(
    model: Annotated[
        str,
        typer.Argument(
            help="A generative model, such as smollm2-135m; or a decide task of the server."
        ),
    ],
    texts: Texts = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions",
            help="JSON file: a list of `{name, text, kind, options}`. kind is `yes_no`, `choice` "
            "or `score`; an option is a name or `{name, description}`.",
        ),
    ] = None,
    ask: Annotated[
        list[str] | None,
        typer.Option("--ask", help="A yes-or-no question, as `name: Question?`; may be repeated."),
    ] = None,
    instructions: Annotated[str, typer.Option("--instructions", help="What the texts are.")] = "",
    correct_prior: Annotated[
        bool,
        typer.Option("--correct-prior", help="Divide out what the model says without a text."),
    ] = False,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Answer several questions about each text, with a probability for every option."""
    asked = (*(_read(questions) if questions else ()), *map(_yes_no, ask or ()))
    if not asked:
        require_server(server, "questions with --questions or --ask")
    given = read_texts(texts)
    spec = QuestionSet(model, asked, instructions, correct_prior) if asked else model
    with connect(server, models=[model], token=token, tls_ca=tls_ca) as verbs:
        result = verbs.decide(spec, given)
    if as_json:
        print_json(asdict(result))
    else:
        _report(result)


def _report(result: DecideResult) -> None:
    rows = []
    for index, item in enumerate(result.items):
        for answer in item.answers if item else ():
            best = max(answer.scores, key=lambda score: score.score)
            others = ", ".join(f"{s.label} {s.score:.3f}" for s in answer.scores if s is not best)
            level = "" if answer.expected_level is None else f"{answer.expected_level:.2f}"
            rows.append((index, answer.question, answer.option, best.score, level, others))
    print_table(
        ["text", "question", "answer", "score", "level", "others"], rows, right="text score level"
    )
    print_request(result.request_id)


def _yes_no(given: str) -> Question:
    name, colon, text = given.partition(":")
    if not colon or not name.strip() or not text.strip():
        raise InvalidInput("--ask: expected `name: Question?`", field="ask")
    return Question(name.strip(), text.strip(), "yes_no")


def _read(path: Path) -> tuple[Question, ...]:
    """The questions of a file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: cannot be read as JSON ({error})", field="questions") from None
    if not isinstance(document, list):
        raise InvalidInput(
            f"{path}: expected a list of questions, got {type(document).__name__}",
            field="questions",
        )
    return tuple(_question(each, f"questions[{i}]", path) for i, each in enumerate(document))


def _question(given: Any, field: str, path: Path) -> Question:
    _object(given, {"name": str, "text": str, "kind": str}, {"options": list}, field, path)
    kind: QuestionKind = given["kind"]
    if kind not in get_args(QuestionKind):
        raise InvalidInput(f"{path}: {field}.kind: expected yes_no, choice or score", field=field)
    options = []
    for index, each in enumerate(given.get("options", ())):
        option = {"name": each} if isinstance(each, str) else each
        where = f"{field}.options[{index}]"
        _object(option, {"name": str}, {"description": str}, where, path)
        options.append(Label(**option))
    return Question(given["name"], given["text"], kind, tuple(options))


def _object(
    given: Any, needed: dict[str, type], others: dict[str, type], field: str, path: Path
) -> None:
    """Refuse what is no object with these keys."""
    keys = needed | others
    good = isinstance(given, dict) and needed.keys() <= given.keys() <= keys.keys()
    if not good or not all(isinstance(value, keys[key]) for key, value in given.items()):
        shape = ", ".join(f"{key}: {kind.__name__}" for key, kind in needed.items())
        more = ", ".join(f"{key}: {kind.__name__}" for key, kind in others.items())
        raise InvalidInput(
            f"{path}: {field}: expected an object with {shape}, and perhaps {more}", field=field
        )
