"""``sprat drift``: whether traffic is still what a task was tuned on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sprat.cli.connect import connect
from sprat.cli.logged import LoggedAs, Since, moment, read_log
from sprat.cli.output import Json, RunningServer, TlsCa, Token, print_json, print_table, write_file
from sprat.cli.report_page import check_folder
from sprat.errors import InvalidInput, NotFound
from sprat.values import Drift

if TYPE_CHECKING:
    from sprat.drift import Counts
    from sprat.tuning_manifest import Traffic


def drift(
    task: Annotated[
        str,
        typer.Argument(help="A task of the server; with --log, its bundle by name, or path with /"),
    ],
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Compare what is in this decision log, instead of a server's."),
    ] = None,
    since: Since = None,
    logged_as: LoggedAs = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page to this file; it opens offline."),
    ] = None,
    server: RunningServer = "default",
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Say whether traffic is still what a task was tuned on, or evaluated on if it has one tier.

    Compared are the confidences of each tier, how many texts it passes on, and the shares of the
    labels; of a server the newest answers, of a log all that it has of this version of the task.
    With a decision log also what only later shows: whether earlier tiers agree with the last one
    (shadowed rows), and whether the bound of `sprat tune` still holds (rows with feedback, of a
    server the last 5,000).

    A figure is on `watch` from a population stability index of 0.1 on and has `DRIFTED` from 0.25
    on, beyond what chance gives on so few rows, and if chance explains it in 1 % of all comparisons
    at most. Then tune again with newer rows.

        sprat drift tickets
        sprat drift tickets --log decisions.db --since 7d || mail -s drift ops < /dev/null

    Exit status: 0, or 1 if something has drifted or the command failed.
    """
    check_folder(html)
    if log is None:
        if since is not None or logged_as is not None:
            raise InvalidInput("--since and --logged-as: expected --log beside them", field="log")
        found, facts, counted = _of_server(task, server, token, tls_ca)
    else:
        found, facts, counted = _of_log(task, log, since, logged_as)
    if html is not None:
        from sprat.train.page_drift import drift_page

        write_file(html, drift_page(found, title=task, facts=_facts(found, facts), counted=counted))
    if as_json:
        print_json({**facts, **asdict(found)})
    else:
        _show(found, facts)
    if found.verdict == "drifted":
        raise typer.Exit(1)


def _of_server(
    task: str, server: str, token: str | None, tls_ca: str | None
) -> tuple[Drift, dict[str, Any], None]:
    with connect(server, token=token, tls_ca=tls_ca) as verbs:
        known = {info.name: info for info in verbs.list_tasks()}
    if task not in known:
        raise NotFound("task", task, tuple(known))
    info = known[task]
    if info.drift is None:
        raise InvalidInput(
            f"task {task} is of no bundle: there are no rows to compare its answers with",
            field="task",
        )
    return info.drift, {"task": task, "version": info.version}, None


def _of_log(
    task: str, log: Path, since: str | None, logged_as: str | None
) -> tuple[Drift, dict[str, Any], tuple[Traffic, Counts]]:
    from sprat.drift import compare
    from sprat.drift_log import count, reference_of, require_rows
    from sprat.store import Store

    manifest, _ = Store().bundle(task, check=True)
    compared_with = reference_of(manifest)
    decisions = read_log(log, task, logged_as=logged_as, since=since)
    counted = count(decisions, manifest, compared_with)
    require_rows(counted, manifest, log)
    facts = {
        "task": Path(task).name if logged_as is None else logged_as,
        "version": manifest.version,
        "since": counted.since,
        "until": counted.until,
        "other_versions": dict(counted.other_versions),
        "other_thresholds": counted.other_ways,
    }
    found = compare(compared_with, counted.counts)
    return found, facts, (compared_with.traffic, counted.counts)


def _show(found: Drift, facts: dict[str, Any]) -> None:
    from sprat.drift import COLUMNS, VERDICTS, cells

    if found.figures:
        print_table(
            COLUMNS,
            map(cells, found.figures),
            title=", ".join(f"{name}: {value}" for name, value in _facts(found, facts).items()),
            right="rows now PSI KS",
        )
    note = f": {found.note}" if found.note else ""
    typer.echo(f"{VERDICTS[found.verdict]}{note}")


def _facts(found: Drift, facts: dict[str, Any]) -> dict[str, str]:
    """What was compared with what, for people."""
    shown = {"Task": f"{facts['task']}, version {facts['version']}"}
    if facts.get("since") is not None:
        shown["Answers"] = f"{moment(facts['since'])} to {moment(facts['until'])}"
    if found.reference is not None:
        shown["Compared with"] = f"{found.reference_rows:,} rows of the {found.reference}"
    left_out = []
    if others := facts.get("other_versions"):
        left_out.append(f"{sum(others.values()):,} of other versions")
    if others := facts.get("other_thresholds"):
        left_out.append(f"{others:,} with thresholds of the request's own")
    if left_out:
        shown["Left out"] = " and ".join(left_out)
    return shown
