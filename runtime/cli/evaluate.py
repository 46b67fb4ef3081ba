"""``sprat eval``: how good a bundle is on labelled rows, alone or beside another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sprat.cli import comparisons
from sprat.cli.embedding import embed_opener
from sprat.cli.endpoints import ConfigFile, EndpointName, EndpointUse, Restart, endpoint_use
from sprat.cli.evaluate_adapter import evaluate_adapter
from sprat.cli.evaluate_moderator import evaluate_moderator
from sprat.cli.evaluate_rewriting import evaluate_rewritings
from sprat.cli.evaluate_spans import evaluate_extract
from sprat.cli.limits import as_json as limits_json
from sprat.cli.limits import check, judge
from sprat.cli.output import Bar, Json, print_json, progress
from sprat.cli.report_page import check_folder, write_report
from sprat.cli.reports import show_cascade, show_report
from sprat.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from sprat.bundle import Bundle
    from sprat.store import Store
    from sprat.train.assess import Assessment
    from sprat.train.data import Dataset

LIMITS = "Limits: exit with status 1 when one is missed"

Tier = Annotated[
    str | None,
    typer.Option(
        "--tier",
        help="Tier to evaluate, by itself. Absent: what is served, which is a cascade where "
        "several tiers have thresholds, and else the last tier.",
    ),
]


def evaluate(
    bundle: Annotated[
        str,
        typer.Argument(
            help="A bundle by name, or by a path with /; or a LoRA adapter that `sprat train` made."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="JSONL or CSV with `text` and `label`, `labels` of a moderate task, or `target` "
            "and other inputs of a transform task; or JSONL with `text` and `spans` of an extract "
            "task. Of an adapter: rows like those "
            "of its training. None that was trained on."
        ),
    ],
    tier: Tier = None,
    endpoint: EndpointName = None,
    config: ConfigFile = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Another bundle or adapter of the same kind: which one is better on these rows, "
            "or neither?",
        ),
    ] = None,
    out_of_scope_label: Annotated[
        str | None,
        typer.Option(
            "--out-of-scope-label",
            help="Label of rows that belong to none of the bundle's labels: does it stay unsure?",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=0,
            max=1,
            help="Confidence from which on an answer counts as sure, of labels and rewritten "
            "texts. Absent: 0.9.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a report with plots to this file; it opens offline."),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            "--min-accuracy",
            help="Of classifiers: share of the rows that are answered rightly.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    min_macro_f1: Annotated[
        float | None,
        typer.Option(
            "--min-macro-f1",
            help="Of classifiers and moderate tasks: mean F1 of labels or categories.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    min_micro_f1: Annotated[
        float | None,
        typer.Option(
            "--min-micro-f1",
            help="Of extract and moderate tasks: F1 of all spans, fields or categories.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    min_exact_match: Annotated[
        float | None,
        typer.Option(
            "--min-exact-match",
            help="Of transform tasks, of extract tasks with a cascade or a tier that asks, and of "
            "adapters for the two: share of answers that are as wanted.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_ece: Annotated[
        float | None,
        typer.Option(
            "--max-ece",
            help="Calibration error: how far confidences are from the share that is right.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_whole_ece: Annotated[
        float | None,
        typer.Option(
            "--max-whole-ece",
            help="Of moderate and extract tasks: calibration error of the confidence in whole "
            "answers.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_wrong_above: Annotated[
        float | None,
        typer.Option(
            "--max-wrong-above",
            help="Share of all rows that are answered wrongly with --threshold or more.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    clean_label: Annotated[
        str | None,
        typer.Option("--clean-label", help="Of a moderate task: the label of clean texts."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resampling.")] = 0,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Evaluate a bundle on labelled rows, each figure with its 95 % interval.

    Quality (accuracy, macro-F1, per label), calibration (ECE, Brier score, log-likelihood), and
    what thresholds are worth (risk and coverage, sure and wrong answers). With limits it is a gate
    for continuous integration:

        sprat eval tickets new.jsonl --min-accuracy 0.93 --max-ece 0.03

    Of a cascade, whose tiers have thresholds in the bundle, figures and limits are those of the
    answers that a server gives: a row that no tier is sure enough of has none, and is not right.
    Beside them: how many rows each tier is asked and answers, what that costs, and each tier by
    itself (all of it with `--tier`). Of a single tier every answer counts, also those below its
    threshold.

    `--against` compares two bundles, or two adapters, row by row: the exact McNemar test says
    whether the difference could be luck. Of moderate and extract tasks a row is right where
    everything in it is found and nothing else, of transform where the answer is as wanted; beside
    that, intervals of the differences of F1 or similarity come from resamples of the rows.

    Of a moderate task: precision, recall, average precision and calibration of each category; the
    page of `--html` shows what other thresholds would do. Of an extract task: micro-F1 of exact
    spans, precision, recall, and the same of each field; where a tier asks a model or an endpoint,
    the same of strings, since it does not say which of two equal places it means. Of a transform
    task: exact match, edit similarity, and how well confidences tell right answers from wrong ones
    (AUROC).

    An adapter is judged as the server would use it: by llama.cpp, on the model and with the task
    that it was trained for. Its scores are the model's own: `--max-ece` says how far
    they are from being probabilities.
    """
    from sprat.bundle import Bundle
    from sprat.store import Store
    from sprat.train.assess import compare_assessments
    from sprat.train.data import read
    from sprat.train.evaluate import SURE
    from sprat.train.evaluate_cascade import CascadeReport

    limits = {
        "min-accuracy": min_accuracy,
        "min-macro-f1": min_macro_f1,
        "min-micro-f1": min_micro_f1,
        "min-exact-match": min_exact_match,
        "max-ece": max_ece,
        "max-whole-ece": max_whole_ece,
        "max-wrong-above": max_wrong_above,
    }
    store = Store()
    check_folder(html)
    if _is_adapter(store, bundle):
        for option, value in (
            ("tier", tier),
            ("endpoint", endpoint),
            ("restart", restart or None),
            ("out-of-scope-label", out_of_scope_label),
            ("clean-label", clean_label),
        ):
            if value is not None:
                raise InvalidInput(f"--{option}: expected a bundle, not an adapter", field=option)
        if against is not None and not _is_adapter(store, against):
            raise InvalidInput(
                f"--against: expected an adapter, as {bundle} is, but {against} is a bundle",
                field="against",
            )
        evaluate_adapter(
            [bundle] if against is None else [bundle, against],
            data,
            store,
            limits=limits,
            threshold=threshold,
            html=html,
            seed=seed,
            as_json=as_json,
        )
        return
    if against is not None and _is_adapter(store, against):
        raise InvalidInput(
            f"--against: expected a bundle, as {bundle} is, but {against} is an adapter",
            field="against",
        )
    kind = store.bundle(bundle)[0].kind
    names = [bundle] if against is None else [bundle, against]
    _check_same_kind(store, kind, names)
    if kind in ("moderate", "extract"):
        for option, given in (
            ("out-of-scope-label", out_of_scope_label),
            ("threshold", threshold),
        ):
            if given is not None:
                raise InvalidInput(
                    f"--{option}: expected a classify or route task, not {kind}", field=option
                )
    if kind == "moderate":
        evaluate_moderator(
            names,
            data,
            store,
            tier=tier,
            use=endpoint_use(endpoint, config, store, restart=restart),
            clean_label=clean_label,
            limits=limits,
            html=html,
            seed=seed,
            as_json=as_json,
        )
        return
    if clean_label is not None:
        raise InvalidInput("--clean-label: expected a moderate task", field="clean-label")
    if kind == "extract":
        evaluate_extract(
            [Bundle.open(store, name) for name in names],
            data,
            store,
            tier=tier,
            use=endpoint_use(endpoint, config, store, restart=restart),
            limits=limits,
            html=html,
            seed=seed,
            as_json=as_json,
        )
        return
    if kind == "transform":
        if out_of_scope_label is not None:
            raise InvalidInput(
                "--out-of-scope-label: expected a classify or route task, not transform",
                field="out-of-scope-label",
            )
        evaluate_rewritings(
            [Bundle.open(store, name) for name in names],
            data,
            store,
            tier=tier,
            use=endpoint_use(endpoint, config, store, restart=restart),
            limits=limits,
            threshold=threshold,
            html=html,
            seed=seed,
            as_json=as_json,
        )
        return
    rows = read(data)
    loaded = [Bundle.open(store, name) for name in names]
    first = loaded[0] if tier is None else loaded[0].alone(tier)
    use = endpoint_use(endpoint, config, store, restart=restart)
    try:
        with progress("eval") as bar:
            assessed = [
                _assess(
                    *(store, each, rows, use, bar),
                    out_of_scope_label=out_of_scope_label,
                    threshold=SURE if threshold is None else threshold,
                    seed=seed,
                )
                for each in (first, *loaded[1:])
            ]
        if use is not None:
            use.done()
    finally:
        if use is not None:
            use.close()
    report = assessed[0].report
    comparison = None if against is None else compare_assessments(*assessed, seed=seed)
    gates = check(report.summary(), limits)
    if html is not None:
        write_report(html, report, loaded[0].manifest, rows, tier=tier)
    if as_json:
        document = report.model_dump(mode="json")
        if comparison is not None:
            document["against"] = comparisons.as_json(
                loaded[1].manifest, assessed[1].report, comparison
            )
        document["gates"] = limits_json(gates)
        print_json(document)
    else:
        if isinstance(report, CascadeReport):
            show_cascade(report)
        else:
            show_report(report)
        if comparison is not None:
            comparisons.show_metrics(
                [each.report for each in assessed], [each.manifest.name for each in loaded]
            )
            comparisons.show_rows(comparison)
    judge(gates)


def _is_adapter(store: Store, name: str) -> bool:
    """Whether a name is that of an adapter and not of a bundle; NotFound where it is neither."""
    try:
        store.bundle(name)
        return False
    except NotFound as error:
        if "/" in name:
            raise
        known = error.known
    try:
        store.adapter(name)
        return True
    except NotFound as error:
        raise NotFound("bundle or adapter", name, (*known, *error.known)) from None


def _check_same_kind(store: Store, kind: str, names: Sequence[str]) -> None:
    """Refuse bundles whose answers are of another sort than those of ``kind``."""
    for name in names:
        other = store.bundle(name)[0].kind
        if other != kind and {other, kind} != {"classify", "route"}:
            raise InvalidInput(
                f"--against: expected a bundle of kind {kind}, but {name} is of kind {other}",
                field="against",
            )


def _assess(
    store: Store,
    bundle: Bundle,
    rows: Dataset,
    use: EndpointUse | None,
    bar: Bar,
    **options: Any,
) -> Assessment:
    """Evaluate what a bundle answers: its cascade, or its last tier."""
    from sprat.train.asked_tiers import tier_opener
    from sprat.train.assess import assess, assess_cascade

    *_, last = tiers = bundle.manifest.tiers
    open_embed = embed_opener(store, bar)
    open_tier = tier_opener(store, None if use is None else use.open)
    if len(bundle.manifest.answering) > 1:
        return assess_cascade(
            bundle,
            rows,
            engines=[
                "remote" if each.remote is not None else store.model(each.model.name)[0].engine
                for each in tiers
            ],
            open_embed=open_embed,
            open_tier=open_tier,
            remote_cost_ms=None if use is None else use.cost_ms,
            progress=bar,
            **options,
        )
    if last.weights:
        with open_embed(last.model.name) as embed:
            return assess(bundle, rows, embed=embed, **options)
    with open_tier(bundle.manifest, len(tiers) - 1) as ask:
        bar.phase(f"ask about {len(rows)} texts", total=len(rows))
        return assess(bundle, rows, ask=ask, progress=bar, **options)
