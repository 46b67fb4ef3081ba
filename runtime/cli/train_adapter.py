"""``sprat train`` with a generative base: a LoRA adapter from examples, and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.cli.output import print_json, print_table, progress, read_file
from sprat.cli.report_page import check_folder, write_report
from sprat.cli.reports import show_task, show_without_leaked
from sprat.train.checks import Conflicts

if TYPE_CHECKING:
    from sprat.train.adapt import AdapterReport
    from sprat.train.adapter_rows import Spec

KINDS = ("classify", "extract", "transform")
PANEL = "Generative bases (LoRA)"

Instructions = Annotated[
    str,
    typer.Option(
        "--instructions",
        help="What the texts are and what is asked, for classify and extract; the task that is "
        "served has to say the same.",
        rich_help_panel=PANEL,
    ),
]
SchemaFile = Annotated[
    Path | None,
    typer.Option(
        "--schema",
        help="File: JSON Schema of what extract is to find, or of what transform writes.",
        rich_help_panel=PANEL,
    ),
]
RequireGrounding = Annotated[
    bool,
    typer.Option(
        "--require-grounding",
        help="Withhold values with strings that the text does not have.",
        rich_help_panel=PANEL,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        help="What transform is to do, with `{text}`, and `{NAME}` for other fields of the rows.",
        rich_help_panel=PANEL,
    ),
]
Rank = Annotated[
    int | None,
    typer.Option(
        "--rank",
        min=1,
        max=256,
        help="Of the adapter's matrices. Absent: 8.",
        rich_help_panel=PANEL,
    ),
]
Bf16 = Annotated[
    bool,
    typer.Option(
        "--bf16",
        help="Multiply in bfloat16 while training: several times as fast on CPUs with AMX, slower "
        "on others.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRequest:
    """What the command line says; its help says what each option means."""

    data: Path
    out: str
    kind: str
    base: str
    test: Path | None
    held_out: float
    conflicts: Conflicts
    instructions: str
    schema: Path | None
    require_grounding: bool
    prompt: str | None
    epochs: int | None
    rank: int | None
    learning_rate: float | None
    bf16: bool
    resume: bool
    seed: int
    replace: bool
    html: Path | None
    as_json: bool

    def spec(self) -> Spec:
        """What the model is asked; labels are those of the rows."""
        from sprat.values import ExtractSpec, Grammar, LabelSet, TransformSpec

        if self.kind == "classify":
            return LabelSet(self.base, (), self.instructions)
        schema = None if self.schema is None else read_file(self.schema, "--schema")
        if self.kind == "extract":
            if schema is None:
                raise typer.BadParameter("extract needs one", param_hint="--schema")
            return ExtractSpec(
                self.base, schema, self.instructions, require_grounding=self.require_grounding
            )
        if self.kind != "transform":
            raise typer.BadParameter(
                f"expected one of {', '.join(KINDS)} for a generative base, got {self.kind}",
                param_hint="--kind",
            )
        if self.prompt is None:
            raise typer.BadParameter("transform needs one", param_hint="--prompt")
        grammar = None if schema is None else Grammar("json_schema", schema)
        return TransformSpec(self.base, self.prompt, grammar)


def train_adapter(request: AdapterRequest) -> None:
    """Train an adapter and report."""
    from sprat.store import Store
    from sprat.train import adapt
    from sprat.train.lora import LoraSettings
    from sprat.train.task_file import read_task, task_table

    if "/" in request.out:
        raise typer.BadParameter(
            "an adapter goes to the store: expected a name, got a path", param_hint="--out"
        )
    check_folder(request.html)
    store = Store()
    given = {
        "rank": request.rank,
        "epochs": request.epochs,
        "learning_rate": request.learning_rate,
    }
    settings = LoraSettings(
        seed=request.seed,
        bf16=request.bf16,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    with progress("train") as bar:
        trained = adapt.train_adapter(
            request.data,
            request.spec(),
            store,
            name=request.out,
            settings=settings,
            test=request.test,
            held_out=request.held_out,
            conflicts=request.conflicts,
            resume=request.resume,
            overwrite=request.replace,
            progress=bar,
        )
    manifest, report, state = trained.manifest, trained.report, trained.state
    if request.html is not None:
        write_report(request.html, report.evaluation, manifest, trained.test)
    if request.as_json:
        print_json(
            {
                "name": manifest.name,
                "version": manifest.version,
                "seconds": round(state.seconds, 1),
                **report.model_dump(mode="json"),
            }
        )
        return
    typer.echo(
        f"{manifest.name}: LoRA of rank {manifest.rank} for {manifest.base.name}, version "
        f"{manifest.version}, from {report.provenance.train.rows} rows in {state.seconds:.0f} s"
    )
    _show(report)
    folder = store.adapter(manifest.name)[1]
    typer.echo(f"To serve it, add this to sprat.toml ({folder}):\n")
    typer.echo(task_table(read_task(folder, manifest.name).spec(), manifest.name, folder))


def _show(report: AdapterReport) -> None:
    for note in report.notes:
        typer.echo(f"note: {note}")
    print_table(
        ["pass", "validation loss", ""],
        [
            (number, loss, "kept" if number == report.best_pass else "")
            for number, loss in enumerate(report.losses)
        ],
        right="pass",
    )
    show_task(report.evaluation)
    if report.without_leaked is not None:
        show_without_leaked(report.without_leaked)
