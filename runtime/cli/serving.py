"""``sprat serve``, ``sprat token``, ``sprat bench``: the server, and what it can do here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from sprat.cli.output import Json, print_json, print_table, progress


def serve(
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="A bundle to serve, by name or path; may be repeated."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model to serve; may be repeated."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file; see the README.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="`unix:PATH` or `HOST:PORT`. Absent: this user's socket."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help="PEM file of the server.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option("--tls-client-ca", help="Ask clients for a certificate (mTLS).")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="Hashes of bearer tokens; see `sprat token`."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow TCP beyond loopback without TLS and token.")
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            help="`HOST:PORT` of metrics for Prometheus, at /metrics: texts by tier, drift, "
            "endpoints. Port 0: a free one, see -v. Absent: none.",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Keep a decision log in this file; see `sprat log`."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Compute threads. Absent: measured.")
    ] = None,
) -> None:
    """Serve tasks and models over gRPC until SIGTERM or Ctrl-C, then drain.

    By default only this user can connect, through a Unix socket. Prints `ready ADDRESS` on stdout
    when everything is loaded.
    """
    from sprat.config import load
    from sprat.server.app import serve as run_server
    from sprat.store import Store

    store = Store()
    flags: dict[str, Any] = {
        "server.listen": listen,
        "server.tls_certificate": tls_certificate,
        "server.tls_key": tls_key,
        "server.tls_client_ca": tls_client_ca,
        "server.token_file": token_file,
        "server.insecure": insecure or None,
        "server.metrics": metrics,
        "log.path": None if log is None else str(log),
        "compute.threads": threads,
    }
    loaded = load(config, flags=flags)
    named = loaded.with_served(
        models=model or (), bundles={store.bundle(b)[0].name: b for b in task or ()}
    )
    if not named.models and not named.tasks:
        raise typer.BadParameter("name at least one --task or --model, or a --config that does")

    def on_ready(address: str, seconds: float) -> None:
        typer.echo(f"ready {address} ({seconds:.2f} s)")

    asyncio.run(run_server(named, store, on_ready=on_ready))


def token(
    path: Annotated[Path, typer.Argument(help="Token file; the hash is added to it.")],
) -> None:
    """Make a bearer token: its hash goes into the file, the token itself is printed once."""
    from sprat.errors import ConfigError
    from sprat.server.auth import hash_token, new_token

    made = new_token()
    try:
        path.touch(mode=0o600)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(hash_token(made) + "\n")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written: {error.strerror}") from None
    typer.echo(made)


def bench(
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="A bundle to measure, by name or path.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A generative model to measure.")
    ] = None,
    tiers: Annotated[
        str | None,
        typer.Option("--tiers", help="A bundle whose tiers to measure, each by itself; see above."),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option("--texts", help="One text a line, like your traffic. Absent: demo tickets."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="With --tiers: JSONL or CSV with `text`, like your traffic. Absent: demo tickets.",
        ),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option("--concurrency", help="Calls in flight, separated by commas. Absent: 1,4,8."),
    ] = None,
    texts_per_call: Annotated[
        int | None, typer.Option("--texts-per-call", min=1, help="Texts in one call. Absent: 1.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.5, help="How long each row is measured.")
    ] = 5.0,
    as_json: Json = False,
) -> None:
    """Size this machine: requests/s, latency, CPU and memory of a real server under load.

    Starts a server of its own and a client in another process on the same cores.

    With --tiers it measures what each tier of a bundle costs: CPU time of a text in calls of many,
    against the last tier; the latency of a single text; texts/s. That depends on how long texts
    are: give it rows like your traffic. The costs are kept on this machine, where `sprat tune` uses
    them and `sprat inspect` shows them, until models, versions or the machine change.

        sprat bench --task tickets
        sprat bench --tiers tickets --data traffic.jsonl
    """
    from sprat.benchmarks import sizing
    from sprat.cli.costs import bench_tiers
    from sprat.store import Store

    if sum(each is not None for each in (task, model, tiers)) != 1:
        raise typer.BadParameter("name one --task, one --model or one --tiers")
    if tiers is not None:
        if any(each is not None for each in (texts, concurrency, texts_per_call)):
            raise typer.BadParameter(
                "--texts, --concurrency, --texts-per-call: expected none beside --tiers"
            )
        bench_tiers(tiers, data, seconds, as_json=as_json)
        return
    if data is not None:
        raise typer.BadParameter("--data: expected --tiers beside it; texts are --texts")
    try:
        levels = [int(part) for part in (concurrency or "1,4,8").split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected numbers separated by commas, got {concurrency}", param_hint="--concurrency"
        ) from None
    lines = None
    if texts is not None:
        lines = [line for line in texts.read_text("utf-8").splitlines() if line.strip()]
    with progress("bench", total=len(levels)) as bar:
        report = sizing.run(
            task=task,
            model=model,
            store=Store(),
            texts=lines,
            concurrency=levels,
            texts_per_call=1 if texts_per_call is None else texts_per_call,
            seconds=seconds,
            progress=lambda: bar.advance(1),
        )
    if as_json:
        print_json(report.to_json())
    else:
        print_table(*report.table(), right=" ".join(report.table()[0]))
