"""What the tiers of a bundle cost on this machine: measured for ``sprat bench``, and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from sprat.cli.output import print_json, print_table, progress
from sprat.errors import InvalidInput


def bench_tiers(task: str, data: Path | None, seconds: float, *, as_json: bool) -> None:
    """Measure the tiers of a bundle, keep what they cost, and show it."""
    from sprat import costs
    from sprat.benchmarks import tier_costs
    from sprat.benchmarks.data import Texts, tickets
    from sprat.bundle import Bundle
    from sprat.store import Store
    from sprat.train.rows import read_records

    store = Store()
    bundle = Bundle.open(store, task)
    transform = bundle.manifest.transform
    names = () if transform is None else transform.inputs
    texts, inputs = tickets(), {}
    if data is not None:
        rows = [row for _, row in read_records(data, ("text", *names))]
        texts = Texts("given", tuple(str(row["text"]) for row in rows))
        inputs = {str(row["text"]): {name: str(row[name]) for name in names} for row in rows}
    elif names:
        raise InvalidInput(
            f"--data: expected rows with the inputs of {bundle.manifest.name}: {', '.join(names)}",
            field="data",
        )
    with progress("bench") as bar:
        measured = tier_costs.run(
            bundle, store, texts, inputs=inputs, seconds=seconds, progress=bar
        )
    costs.save(store, measured)
    if as_json:
        print_json(measured.to_json())
        return
    show_costs(measured.to_json())
    for tier in bundle.manifest.tiers:
        if tier.remote is not None:
            typer.echo(
                f"Tier {tier.name} is remote: what it costs, the prices of its endpoint say."
            )


def show_costs(costs: dict[str, Any]) -> None:
    """Costs, as `sprat.costs.Costs.to_json` gives them, as a table for people."""
    columns = ["tier", "model", "tokens", "CPU-ms", "", "of-the-last", "p50-ms", "texts/s"]
    print_table(
        columns,
        [
            (
                tier["name"],
                f"{tier['base']['name']} ({tier['engine']}, {tier['quantization']})",
                f"{tier['tokens']:.1f}",
                _number(tier["cpu_ms"]["value"]),
                f"{_number(tier['cpu_ms']['low'])} to {_number(tier['cpu_ms']['high'])}",
                _number(tier["cost_ratio"]),
                _number(tier["latency_ms"]["value"]),
                _number(tier["texts_per_s"]["value"]),
            )
            for tier in costs["tiers"]
        ],
        title=f"Costs of a text on this machine, {costs['measured'][:10]}",
        right="tokens CPU-ms of-the-last p50-ms texts/s",
    )
    sizes = ", ".join(f"{tier['texts_per_call']} ({tier['name']})" for tier in costs["tiers"])
    typer.echo(
        f"{costs['cpu']}, {costs['threads']} compute threads; {costs['texts']} texts "
        f"({costs['source']}) of {costs['characters']:.0f} characters. Medians of "
        f"{costs['rounds']} rounds, beside CPU-ms the lowest and highest; p50-ms of calls of one "
        f"text, the others of up to {sizes}."
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
