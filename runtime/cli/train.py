"""``sprat train``: a bundle or an adapter from examples. Each kind of task has its trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sprat.cli.output import Json
from sprat.cli.train_adapter import (
    AdapterRequest,
    Bf16,
    Instructions,
    Prompt,
    Rank,
    RequireGrounding,
    SchemaFile,
    train_adapter,
)
from sprat.cli.train_heads import train_heads
from sprat.cli.train_moderate import train_moderate
from sprat.cli.train_request import TrainRequest
from sprat.cli.train_tagger import train_tagger
from sprat.errors import InvalidInput
from sprat.train.checks import Conflicts
from sprat.train.fit import ClassWeights

KINDS: dict[str, Callable[[TrainRequest], None]] = {
    "classify": train_heads,
    "route": train_heads,
    "extract": train_tagger,
    "moderate": train_moderate,
}
"""What trains each kind: it writes the bundle that the command line asks for, and reports."""

ROWS = "Training rows"
ROUTES = "Route tasks"
MODERATE = "Moderate tasks"
FINDINGS = "What the rows tell"
TUNING = "Training with torch"


def train(
    data: Annotated[
        Path,
        typer.Argument(
            help="JSONL or CSV with `text` and `label`: 4 or more different texts of each label, "
            "better 20. A moderate task takes `labels` as well: all categories of the text, none "
            'for a clean one. An extract task takes JSONL with `text`, `spans`: [{"field", '
            '"start", "end", "text"?}] and `requested`?, a list of fields. With a generative base '
            "see below."
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Name in the store; of a bundle also a path with /.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help=f"Kind of task: {', '.join(KINDS)}; with a generative base classify, extract, "
            "transform.",
        ),
    ] = "classify",
    base: Annotated[
        str, typer.Option("--base", help="Encoder or generative model in the store.")
    ] = "minilm-l6",
    tiers: Annotated[
        str,
        typer.Option(
            "--tiers",
            help="What to train, from the cheapest to the best, separated by commas: `static` (a "
            "head on a static model), `head` (one on the encoder), `finetune` (one on an encoder "
            "of its own, trained for this task; needs torch: `pip install 'sprat[finetune]'`). Of "
            "`extract`: a tagger instead of a head, and no `static`; of `moderate`: no `finetune`.",
        ),
    ] = "head",
    static_base: Annotated[
        str | None,
        typer.Option(
            "--static-base",
            help="Model of the tier `static`. Absent: BASE-static, which is distilled from the "
            "encoder if it is not there.",
        ),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Held-out rows. Absent: a share of the data is held out."),
    ] = None,
    held_out: Annotated[
        float, typer.Option("--held-out", min=0.05, max=0.5, help="Share that is held out.")
    ] = 0.2,
    conflicts: Annotated[
        Conflicts,
        typer.Option(
            "--conflicts",
            help="What to do with texts that have several labels, or answers of an adapter: "
            "`refuse` the file, `drop` all rows of such a text, or `keep` them. Of `extract`: with "
            "texts whose spans overlap; `keep` trains on the longest.",
            rich_help_panel=ROWS,
        ),
    ] = "refuse",
    class_weights: Annotated[
        ClassWeights,
        typer.Option(
            "--class-weights",
            help="`balanced`: every label counts the same, however few rows it has; finds more of "
            "the rare ones. `none`: every row counts the same.",
            rich_help_panel=ROWS,
        ),
    ] = "none",
    accept_at: Annotated[
        float,
        typer.Option(
            "--accept-at",
            min=0,
            max=1,
            help="Least confidence of an answer; below: abstain. With several --tiers, of each: "
            "those before the last pass on what is below.",
        ),
    ] = 0.0,
    targets: Annotated[
        Path | None,
        typer.Option(
            "--targets",
            help="JSON or TOML file: a target (queue, team, model, endpoint) for each label. "
            "Absent: the label itself.",
            rich_help_panel=ROUTES,
        ),
    ] = None,
    default: Annotated[
        str | None,
        typer.Option(
            "--default",
            help="Target of texts below --accept-at. Absent: such texts go nowhere.",
            rich_help_panel=ROUTES,
        ),
    ] = None,
    clean_label: Annotated[
        str | None,
        typer.Option(
            "--clean-label",
            help="The label that says that a text is clean, such as `ham`.",
            rich_help_panel=MODERATE,
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            help="TOML or JSON file: for each category when to flag and when to block, as in "
            "`spam = {flag = {min_recall = 0.95}, block = {at = 0.99}}`.",
            rich_help_panel=MODERATE,
        ),
    ] = None,
    min_precision: Annotated[
        list[str] | None,
        typer.Option(
            "--min-precision",
            metavar="[CATEGORY=]P",
            help="Flag so that a share of P of what is flagged is right, and as much as possible "
            "then. Absent: where F1 is best.",
            rich_help_panel=MODERATE,
        ),
    ] = None,
    min_recall: Annotated[
        list[str] | None,
        typer.Option(
            "--min-recall",
            metavar="[CATEGORY=]R",
            help="Flag a share of R of the category's texts, and as little else as possible.",
            rich_help_panel=MODERATE,
        ),
    ] = None,
    block_precision: Annotated[
        list[str] | None,
        typer.Option(
            "--block-precision",
            metavar="[CATEGORY=]P",
            help="Block so that a share of P of what is blocked is right. Absent: block nothing.",
            rich_help_panel=MODERATE,
        ),
    ] = None,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Would more examples help? Measures growing shares of the rows, and says what "
            "twice as many would bring: accuracy, or mean average precision of a moderate task.",
            rich_help_panel=FINDINGS,
        ),
    ] = False,
    suspects: Annotated[
        Path | None,
        typer.Option(
            "--suspects",
            help="Write the training rows whose label is probably wrong to this JSONL file, the "
            "most probable first. Of a moderate task: for each category the rows that probably "
            "miss it, or have it wrongly.",
            rich_help_panel=FINDINGS,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Write the evaluation with plots to this file; it opens offline.",
            rich_help_panel=FINDINGS,
        ),
    ] = None,
    no_cache: Annotated[
        bool,
        typer.Option("--no-cache", help="Neither use nor keep embeddings in the store."),
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of splits, training and resampling.")
    ] = 0,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite what is there.")] = False,
    instructions: Instructions = "",
    schema: SchemaFile = None,
    require_grounding: RequireGrounding = False,
    prompt: Prompt = None,
    rank: Rank = None,
    bf16: Bf16 = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            help="Most passes over the rows; training ends early where it no longer helps. Absent: "
            "6; of `extract` on an encoder 15.",
            rich_help_panel=TUNING,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            help="The highest. Absent: 0.0001 for an encoder, 0.001 for LoRA.",
            rich_help_panel=TUNING,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a training that was interrupted, by the same command.",
            rich_help_panel=TUNING,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a task from labelled rows, calibrate it, and evaluate it on held-out rows.

    A classifier is a multinomial logistic regression on the sentence vectors of a frozen encoder.
    Its regularization and its calibration are chosen on out-of-fold scores, so that no row is spent
    on them alone.

    An extract task finds spans by a conditional random field on the states of the encoder's tokens;
    `requested` lists the fields that a text was asked for, where that is known. With the tier
    `finetune` the encoder is trained first, on all but a tenth of the rows, which says when to stop
    and calibrates.

    With a generative base, a LoRA adapter of it is trained instead, for tasks of kind classify,
    extract (rows with `text` and `value` or `spans`) or transform (`text` and `target`), and
    evaluated as the server would use it. That needs torch: `pip install 'sprat[finetune]'`.

    Rows of every kind are checked first: repeated texts, answers that contradict each other, wrong
    encodings, test rows that were trained on. What is wrong is named with its lines.
    """
    from sprat.store import Store

    of_bundles = (
        ("tiers", tiers != "head"),
        ("static-base", static_base),
        ("class-weights", class_weights != "none"),
        ("accept-at", accept_at),
        ("targets", targets),
        ("default", default),
        ("clean-label", clean_label),
        ("policy", policy),
        ("min-precision", min_precision),
        ("min-recall", min_recall),
        ("block-precision", block_precision),
        ("learning-curve", learning_curve),
        ("suspects", suspects),
        ("no-cache", no_cache),
    )
    of_adapters = (
        ("instructions", instructions),
        ("schema", schema),
        ("require-grounding", require_grounding),
        ("prompt", prompt),
        ("rank", rank),
        ("bf16", bf16),
    )
    is_generative = Store().model(base)[0].kind == "generative"
    for option, is_given in of_bundles if is_generative else of_adapters:
        if is_given:
            kinds = ("an encoder", "a generative model")
            expected, found = kinds if is_generative else kinds[::-1]
            raise InvalidInput(
                f"--{option}: expected {expected} as the base, but {base} is {found}", field=option
            )
    if is_generative:
        train_adapter(
            AdapterRequest(
                data=data,
                out=out,
                kind=kind,
                base=base,
                test=test,
                held_out=held_out,
                conflicts=conflicts,
                instructions=instructions,
                schema=schema,
                require_grounding=require_grounding,
                prompt=prompt,
                epochs=epochs,
                rank=rank,
                learning_rate=learning_rate,
                bf16=bf16,
                resume=resume,
                seed=seed,
                replace=replace,
                html=html,
                as_json=as_json,
            )
        )
        return
    if kind == "transform":
        raise InvalidInput(
            f"--kind transform: expected a generative model as the base, but {base} is an encoder",
            field="kind",
        )
    if kind not in KINDS:
        raise typer.BadParameter(
            f"expected one of {', '.join(KINDS)}, got {kind}", param_hint="--kind"
        )
    if kind != "moderate":
        for option, value in (
            ("clean-label", clean_label),
            ("policy", policy),
            ("min-precision", min_precision),
            ("min-recall", min_recall),
            ("block-precision", block_precision),
        ):
            if value:
                raise InvalidInput(f"--{option}: expected --kind moderate beside it", field=option)
    KINDS[kind](
        TrainRequest(
            data=data,
            out=out,
            kind=kind,
            base=base,
            tiers=tuple(name.strip() for name in tiers.split(",")),
            static_base=static_base,
            test=test,
            held_out=held_out,
            conflicts=conflicts,
            class_weights=class_weights,
            accept_at=accept_at,
            targets=targets,
            default=default,
            learning_curve=learning_curve,
            suspects=suspects,
            html=html,
            cache=not no_cache,
            epochs=epochs,
            learning_rate=learning_rate,
            resume=resume,
            seed=seed,
            replace=replace,
            clean_label=clean_label,
            policy=policy,
            min_precision=tuple(min_precision or ()),
            min_recall=tuple(min_recall or ()),
            block_precision=tuple(block_precision or ()),
            as_json=as_json,
        )
    )
