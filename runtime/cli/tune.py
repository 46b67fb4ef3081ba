"""``sprat tune``: thresholds of a cascade from labelled rows, of a file or of what was served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.bundle_manifest import REPORT
from sprat.cli.bundles import write
from sprat.cli.embedding import compute_opener, embed_opener, state_opener
from sprat.cli.endpoints import ConfigFile, EndpointName, EndpointUse, Restart, endpoint_use
from sprat.cli.labelled import read_labelled
from sprat.cli.logged import LoggedAs, Since, read_log, sentence
from sprat.cli.output import Bar, Json, print_json, print_table, progress, write_file
from sprat.cli.report_page import check_folder
from sprat.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from sprat.bundle import Bundle
    from sprat.bundle_manifest import BundleManifest
    from sprat.manifest import Interval
    from sprat.store import Store
    from sprat.train.head import OpenEmbed
    from sprat.train.rate import Rows
    from sprat.train.tagger import OpenStates
    from sprat.train.thresholds import Aim
    from sprat.train.tune import Tuned
    from sprat.train.window_vectors import OpenCompute
    from sprat.tuning_manifest import LoggedRows

MAX_LOSS = 0.5
AIMS = "Aims: one of them"


def tune(
    task: Annotated[str, typer.Argument(help="A bundle by name, or by a path with /.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Rows like those of the training, best of real traffic; never what the tiers were "
            "trained on: JSONL or CSV with `text` and `label`, or `labels` of a moderate task, or "
            "`target` and other inputs of a transform task; JSONL with `text` and `spans` of an "
            "extract task.",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            help="Instead, a decision log with texts (`log.store_text = true`): its rows with "
            "feedback, and but for --max-error its shadowed rows.",
        ),
    ] = None,
    since: Since = None,
    logged_as: LoggedAs = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            "--max-loss",
            help=f"Least cost, at most so many points of accuracy below the best tier alone. "
            f"Without another aim: {MAX_LOSS}.",
            rich_help_panel=AIMS,
        ),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            "--max-error",
            help="At most this share of the answers is wrong, such as 0.05; what is less sure is "
            "not answered.",
            rich_help_panel=AIMS,
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            help="The best answers for so many CPU milliseconds a text.",
            rich_help_panel=AIMS,
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            "--delta",
            help="With --max-error: how probable it may be that the share is higher. Absent: 0.1.",
            rich_help_panel=AIMS,
        ),
    ] = None,
    endpoint: EndpointName = None,
    config: ConfigFile = None,
    remote_cost_ms: Annotated[
        float | None,
        typer.Option(
            "--remote-cost-ms",
            min=0.001,
            help="With --endpoint: what an answer of it costs in CPU milliseconds, as its price "
            "by that of this CPU. Absent: the CPU time that asking takes here.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Write to this bundle instead: a name, or a path with /."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be chosen, and write nothing.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Write a page with the curve of cost and quality to this file; it opens offline.",
        ),
    ] = None,
    clean_label: Annotated[
        str | None,
        typer.Option("--clean-label", help="Of a moderate task: the label of clean texts."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of halves and resampling.")] = 0,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Choose when each tier of a task may answer, from what the tiers make of labelled rows.

    Texts of which a tier is sure enough are answered by it; the others go on to the next one, which
    is better and costs more. All thresholds are chosen together on one half of the rows and
    verified on the other one, whose figures are shown. Tiers that do not pay are left out. Where
    there are too few rows, or the aim cannot be reached, it says so and writes nothing. What tiers
    cost was measured by `sprat bench --tiers`, or is measured here.

        sprat train train.jsonl --tiers static,head -o tickets
        sprat tune tickets --data traffic.jsonl --max-loss 0.5

    An answer of a moderate task is right where all categories of the row are flagged and no other,
    one of an extract task where all of its spans are found and no other (of a tier that asks for
    fields, where all of their strings are), one of a transform task where it is as the bundle says
    (`sprat add-tier --right-at`).

    A log's rows with feedback have that as their label; rows of a moderate task the categories that
    feedback confirms, or the one that it names; of other kinds a log has no right answers. People
    rather correct than confirm, so these rows alone make tiers look worse than they are: let people
    also confirm answers, or have a share of the traffic shadowed. A random sample of shadowed rows,
    and of rows that the last tier answered, then comes beside them with the last tier's answer as
    their label, which overstates what is lost against it, and never understates it.

        sprat tune tickets --log decisions.db --since 30d --max-loss 0.5

    What an endpoint answers is kept until thresholds are written: after a failure, a --dry-run or
    an aim that cannot be reached the next run asks only for the rest.
    """
    from sprat import costs
    from sprat.bundle import Bundle
    from sprat.store import Store
    from sprat.train.asked_tiers import tier_opener
    from sprat.train.tune import tune as tune_bundle

    aim = _aim(max_loss, max_error, max_cost, delta)
    check_folder(html)
    store = Store()
    bundle = Bundle.open(store, task)
    rows, logged = _rows(
        bundle,
        task,
        data,
        log,
        aim,
        clean_label=clean_label,
        since=since,
        logged_as=logged_as,
        seed=seed,
    )
    known, why_not = costs.find(store, bundle.manifest, texts=rows.texts)
    use = endpoint_use(endpoint, config, store, restart=restart)
    is_remote = any(tier.remote is not None for tier in bundle.manifest.tiers)
    if is_remote != (use is not None):
        expected = "expected the endpoint of tier remote" if is_remote else "no tier is remote"
        raise InvalidInput(f"--endpoint: {expected}", field="endpoint")
    if remote_cost_ms is not None and use is None:
        raise InvalidInput("--remote-cost-ms: no tier is remote", field="remote_cost_ms")
    try:
        with progress("tune") as bar:
            tuned = tune_bundle(
                bundle,
                rows,
                aim,
                open_embed=_opener(store, bar, bundle),
                open_tier=tier_opener(store, None if use is None else use.open),
                remote_cost_ms=_remote_cost(remote_cost_ms, use),
                engine_of=lambda model: store.model(model)[0].engine,
                logged=logged,
                costs=known,
                seed=seed,
                progress=bar,
            )
        if html is not None:
            from sprat.train.page_tuning import tuning_page

            write_file(html, tuning_page(tuned, rows))
        manifest = None
        if not dry_run:
            report = (store.bundle(task)[1] / REPORT).read_text("utf-8")
            manifest = write(store, tuned.bundle, report, task=task, out=out)
            if use is not None:
                use.done()
    finally:
        if use is not None:
            use.close()
    if as_json:
        print_json({**_document(tuned, manifest), "cost_note": why_not})
    else:
        _show(tuned)
        typer.echo(_origin(tuned.tuning.cost_date, why_not))
        typer.echo(
            "Nothing was written."
            if manifest is None
            else f"{manifest.name}: version {manifest.version}"
        )


def _rows(
    bundle: Bundle,
    task: str,
    data: Path | None,
    log: Path | None,
    aim: Aim,
    *,
    clean_label: str | None,
    since: str | None,
    logged_as: str | None,
    seed: int,
) -> tuple[Rows, LoggedRows | None]:
    """Labelled rows of a file or of a log."""
    if data is not None and log is None:
        if since is not None or logged_as is not None:
            raise InvalidInput("--since and --logged-as: expected --log beside them", field="log")
        return read_labelled(data, bundle.manifest, clean_label), None
    if log is None or data is not None:
        raise InvalidInput("expected one of --data and --log", field="data")
    from sprat.train.logged import labelled

    decisions = read_log(log, task, logged_as=logged_as, since=since)
    return labelled(decisions, bundle.manifest, aim.rule, log, seed=seed)


def _remote_cost(given_ms: float | None, use: EndpointUse | None) -> Callable[[], float] | None:
    """What an answer of an endpoint costs: what was said, or what asking took."""
    if given_ms is not None:
        return lambda: given_ms
    return None if use is None else use.cost_ms


def _opener(store: Store, bar: Bar, bundle: Bundle) -> OpenEmbed | OpenStates | OpenCompute:
    """What loads the models of a bundle's tiers."""
    if bundle.manifest.kind == "extract":
        return state_opener(store, bar)
    if bundle.manifest.kind == "moderate":
        return compute_opener(store, bar)
    return embed_opener(store, bar)


def _aim(
    max_loss: float | None, max_error: float | None, max_cost: float | None, delta: float | None
) -> Aim:
    from sprat.train.thresholds import Aim

    if sum(each is not None for each in (max_loss, max_error, max_cost)) > 1:
        raise InvalidInput("expected one of --max-loss, --max-error and --max-cost", field="aim")
    if delta is not None and max_error is None:
        raise InvalidInput("--delta: expected --max-error beside it", field="delta")
    if max_error is not None:
        return Aim("error", max_error, 0.1 if delta is None else delta)
    if max_cost is not None:
        return Aim("cost", max_cost)
    return Aim("loss", (MAX_LOSS if max_loss is None else max_loss) / 100)


def _document(tuned: Tuned, manifest: BundleManifest | None) -> dict[str, object]:
    tuning = tuned.tuning
    return {
        **tuning.model_dump(mode="json"),
        "cost_ratio": tuning.cost_ratio.value,
        "loss_points": tuning.loss_points.value,
        "intervals": {
            name: getattr(tuning, name).model_dump()
            for name in ("cost_ratio", "loss_points", "coverage", "wrong")
        },
        "coverage": tuning.coverage.value,
        "wrong": tuning.wrong.value,
        "accept_at": {
            tier.name: accept_at
            for tier, accept_at in zip(tuned.scores, tuned.chosen.thresholds, strict=True)
        },
        "n": tuning.verified_on,
        "version": None if manifest is None else manifest.version,
    }


def _show(tuned: Tuned) -> None:
    tuning = tuned.tuning
    if tuning.logged is not None:
        typer.echo(sentence(tuning.logged))
    rows = []
    for tier, accept_at in zip(tuned.scores, tuned.chosen.thresholds, strict=True):
        accepts = "left out: it does not pay" if accept_at is None else f"{accept_at:.4f}"
        if accept_at == 0:
            accepts = "always"
        right = float(tier.is_right_n.mean())
        rows.append((tier.name, f"{tier.cost_ms:.3g}", right, accepts, tuning.shares[tier.name]))
    print_table(
        ["tier", "CPU ms a text", "accuracy alone", "answers from", "answers"],
        rows,
        title=f"Chosen on {tuning.chosen_on} rows, verified on {tuning.verified_on}",
        right="CPU ms a text accuracy alone answers from answers",
    )
    print_table(
        ["on the rows it was verified on", "value", "95 % interval"],
        [
            (f"cost, share of {tuning.best_tier} alone", *_interval(tuning.cost_ratio)),
            (f"points of accuracy below {tuning.best_tier}", *_interval(tuning.loss_points)),
            ("share that is answered", *_interval(tuning.coverage)),
            ("share of the answers that is wrong", *_interval(tuning.wrong)),
        ],
        right="value",
    )


def _origin(cost_date: str | None, why_not: str) -> str:
    """Where costs come from."""
    if cost_date is not None:
        return f"CPU times: of `sprat bench --tiers`, {cost_date[:10]}."
    others = f"; those of `sprat bench --tiers` are {why_not}" if why_not else ""
    return f"CPU times: measured while the rows were scored{others}."


def _interval(given: Interval) -> tuple[float, str]:
    return given.value, f"{given.low:.3f} to {given.high:.3f}"
