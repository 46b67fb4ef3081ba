"""``sprat label`` and ``sprat synthesize``: training rows from a larger model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sprat.cli.labels_file import LabelsFile, read_labels_file
from sprat.cli.output import Json, TlsCa, print_json, print_table, progress
from sprat.errors import InvalidInput
from sprat.values import Label

if TYPE_CHECKING:
    from sprat.train.label import Labelling
    from sprat.train.synthesize import SeededLabel, Tally

Labels = Annotated[
    str | None, typer.Option("--labels", help="Labels to choose from, separated by commas.")
]
Model = Annotated[
    str, typer.Option("--model", help="With an endpoint: the model, as the endpoint calls it.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", help="File with the endpoint's key. Absent: the variable SPRAT_API_KEY."
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds of one request to an endpoint.")
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", min=1, max=64, help="Requests to an endpoint side by side.")
]
Votes = Annotated[
    int,
    typer.Option(
        "--votes",
        min=1,
        help="Answers of an endpoint for each text; their agreement is the confidence. 1: the "
        "probability that it reports.",
    ),
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Begin anew instead of going on where a run stopped.")
]


def label(
    data: Annotated[Path, typer.Argument(help="JSONL or CSV with a `text` in every row.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL with the labelled rows.")],
    teacher: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="TASK_OR_ENDPOINT",
            help="A bundle by name or path; with --labels a generative model; or the URL of an "
            "OpenAI-compatible endpoint, such as http://127.0.0.1:8080/v1.",
        ),
    ],
    labels: Labels = None,
    labels_file: LabelsFile = None,
    instructions: Annotated[
        str, typer.Option("--instructions", help="With labels: what is asked of the texts.")
    ] = "",
    keep_above: Annotated[
        float, typer.Option("--keep-above", min=0, max=1, help="Drop rows less sure than this.")
    ] = 0.8,
    review: Annotated[
        Path | None,
        typer.Option("--review", help="Write the dropped rows here, for people to label."),
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="With a bundle: cut texts that are too long.")
    ] = False,
    model: Model = "",
    key_file: KeyFile = None,
    tls_ca: TlsCa = None,
    votes: Votes = 1,
    timeout_s: Timeout = 60.0,
    concurrency: Concurrency = 4,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Label texts with a larger model, and keep what it is sure of.

    The rows that are kept are what `sprat train` takes; the others can go to a file for people,
    least sure first, where a `label` is to be filled in. A bundle's confidence is calibrated; that
    of a language model is a score by its own lights: look at some rows before you trust it. Where
    rows have a label already, the report says how often the teacher agrees; it is not sent.

    Only with a URL anything leaves this process: to that address go the texts, the labels with
    their descriptions and the instructions, nothing else. `http` is accepted for this machine only.

    Run the same command again after an interruption: it goes on, from OUT.part. OUT is written in
    one piece at the end.

        sprat label texts.jsonl --with tickets --keep-above 0.9 --review unsure.jsonl -o out.jsonl
        sprat label texts.jsonl --with http://127.0.0.1:8080/v1 --model big --labels a,b -o o.jsonl
    """
    from sprat.cli.teachers import EndpointOptions, Teachers
    from sprat.train.label import label as run_label
    from sprat.train.label import read_unlabelled

    rows = read_unlabelled(data)
    given = [each.label for each in _labels(labels, labels_file)]
    if instructions and not given:
        raise InvalidInput("--instructions: expected labels beside it", field="instructions")
    asked = {
        "labels": [asdict(each) for each in given],
        "instructions": instructions,
        "votes": votes,
        "truncate": truncate,
    }
    options = EndpointOptions(model, key_file, tls_ca, timeout_s, concurrency)
    with Teachers([teacher], options) as teachers, progress("label") as bar:
        labeller = teachers.labeller(
            teacher,
            given,
            instructions=instructions,
            votes=votes,
            truncation="truncate" if truncate else "refuse",
        )
        result = run_label(
            rows,
            labeller,
            out,
            asked=asked,
            keep_above=keep_above,
            review=review,
            restart=restart,
            progress=bar,
        )
    if as_json:
        print_json(asdict(result))
    else:
        _show_labelling(result, out, review)


def synthesize(
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL with the rows.")],
    writer: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="MODEL_OR_ENDPOINT",
            help="Who writes: a generative model, or the URL of an OpenAI-compatible endpoint.",
        ),
    ],
    per_label: Annotated[int, typer.Option("--per-label", min=1, help="Rows of each label.")],
    labels: Labels = None,
    labels_file: LabelsFile = None,
    about: Annotated[
        str,
        typer.Option(
            "--about", help="What the texts are, such as `messages of customers to a bank`."
        ),
    ] = "",
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="TASK_OR_MODEL",
            help="Who labels each text again: a bundle, or a generative model. Absent: the writer.",
        ),
    ] = None,
    agree_above: Annotated[
        float,
        typer.Option("--agree-above", min=0, max=1, help="Drop texts that the judge doubts more."),
    ] = 0.5,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.01, max=10, help="Of the writer.")
    ] = 0.9,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of prompts and sampling.")] = 0,
    model: Model = "",
    key_file: KeyFile = None,
    tls_ca: TlsCa = None,
    votes: Votes = 1,
    timeout_s: Timeout = 60.0,
    concurrency: Concurrency = 4,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Let a larger model write training rows, and keep those that it recognizes again.

    Texts that repeat another, or nearly, are dropped, and so are those that the judge does not give
    their label again. Every row says in `origin` that a model wrote it. Read some before you
    train on them, and evaluate on real rows (`sprat train --test`).

    Only with a URL anything leaves this process: to that address go the labels with their
    descriptions and examples, --about, and what it wrote itself.

    Run the same command again after an interruption: it goes on, from OUT.part. OUT is written in
    one piece at the end.

        sprat synthesize --labels-file labels.json --with smollm2-135m --per-label 50 -o out.jsonl
    """
    from sprat.cli.teachers import EndpointOptions, Teachers
    from sprat.train.synthesize import synthesize as run_synthesize

    seeded = _labels(labels, labels_file)
    if not seeded:
        raise InvalidInput("expected --labels or --labels-file", field="labels")
    given = [each.label for each in seeded]
    judge = writer if judge is None else judge
    options = EndpointOptions(model, key_file, tls_ca, timeout_s, concurrency)
    with Teachers([writer, judge], options) as teachers, progress("synthesize") as bar:
        tallies = run_synthesize(
            seeded,
            teachers.writer(writer),
            teachers.labeller(judge, given, votes=votes, judging=True),
            out,
            per_label=per_label,
            about=about,
            agree_above=agree_above,
            temperature=temperature,
            seed=seed,
            restart=restart,
            progress=bar,
        )
    if as_json:
        print_json({name: asdict(tally) for name, tally in tallies.items()})
    else:
        _show_tallies(tallies, per_label, out)


def _labels(names: str | None, path: Path | None) -> list[SeededLabel]:
    """The labels of either option; none where neither is given."""
    from sprat.train.synthesize import SeededLabel

    if names is not None and path is not None:
        raise InvalidInput("expected one of --labels and --labels-file", field="labels")
    if names is not None:
        return [SeededLabel(Label(name.strip())) for name in names.split(",")]
    if path is None:
        return []
    return [
        SeededLabel(Label(each.name, each.description), each.examples)
        for each in read_labels_file(path)
    ]


def _show_labelling(result: Labelling, out: Path, review: Path | None) -> None:
    print_table(
        ["label", "rows"], list(result.by_label.items()), title=f"Rows in {out}", right="rows"
    )
    dropped = "dropped" if review is None else f"in {review}"
    typer.echo(
        f"{result.kept} of {result.rows} rows kept; {result.unsure} unsure and {result.failed} "
        f"failed are {dropped}"
    )
    if not result.calibrated:
        typer.echo(
            "The confidences are not calibrated: look at some rows before you train on them."
        )
    if result.agreement is not None:
        kept = "" if result.kept_agreement is None else f", {result.kept_agreement:.1%} where kept"
        typer.echo(f"{result.gold} rows had a label; the same in {result.agreement:.1%}{kept}")


def _show_tallies(tallies: dict[str, Tally], per_label: int, out: Path) -> None:
    columns = ["label", "kept", "malformed", "repeated", "disagreed", "unsure"]
    rows: list[Sequence[Any]] = [
        (name, *(getattr(tally, column) for column in columns[1:]))
        for name, tally in tallies.items()
    ]
    print_table(columns, rows, title="Texts written", right=" ".join(columns[1:]))
    total = sum(min(tally.kept, per_label) for tally in tallies.values())
    typer.echo(f"{total} rows in {out}")
    few = [name for name, tally in tallies.items() if tally.kept < per_label]
    if few:
        typer.echo(
            f"fewer than {per_label} of {len(few)} labels: {', '.join(few[:10])}"
            + (" and more" if len(few) > 10 else "")
            + ". Describe them better (--labels-file), or use a better model.",
            err=True,
        )
