"""``sprat inspect``: the model card of a bundle, a model or an adapter."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sprat.cli.costs import show_costs
from sprat.cli.logged import sentence
from sprat.cli.output import Json, megabytes, print_json, print_table
from sprat.tuning_manifest import LoggedRows

SHOWN_LABELS = 12


def inspect(
    name: Annotated[
        str,
        typer.Argument(help="A bundle, model or adapter by name, or a bundle by a path with /."),
    ],
    as_json: Json = False,
) -> None:
    """Print a model card: what it is, what it was made from, how good it is, its licences.

    Of a bundle and of an adapter that was trained here it shows the sha256 of the files of rows and
    of the lines that were trained on and evaluated on, the seed and the versions: what it takes to
    make it again. Of a bundle it shows what its tiers cost on this machine, where
    `sprat bench --tiers` has measured that.

    The sha256 of every file is checked on the way.
    """
    from sprat.card import card
    from sprat.store import Store

    found = card(Store(), name)
    if as_json:
        print_json(found)
    elif found["type"] == "model":
        _show_model(found)
    elif found["type"] == "adapter":
        _show_adapter(found)
    else:
        _show_bundle(found)


def _show_model(card: dict[str, Any]) -> None:
    facts = [
        ("name", card["name"]),
        ("kind", f"{card['kind']} on engine {card['engine']}"),
        ("architecture", f"{card['architecture']}, {card['quantization']}"),
        ("longest input", f"{card['max_tokens']} tokens"),
        ("size", megabytes(card["size_bytes"])),
        ("version", card["version"]),
        ("digest", card["digest"]),
        ("licence", card["licence"]),
        ("source", card["source"]),
    ]
    print_table(["model", ""], facts)
    _show_gate(card)
    print_table(["file", "sha256"], [(f["path"], f["sha256"]) for f in card["files"]])


def _show_bundle(card: dict[str, Any]) -> None:
    trained = "calibrated" if card["transform"] else "trained"
    print_table(
        ["bundle", ""],
        [
            ("name", card["name"]),
            ("kind", card["kind"]),
            ("version", card["version"]),
            *_answers(card),
            (f"{trained} on", f"{card['train_rows']} rows"),
            ("made", f"{card['created']} by {card['made_by']}"),
        ],
    )
    _show_provenance(card)
    for place, tier in enumerate(card["tiers"], 1):
        _show_tier(card, tier, is_last=place == len(card["tiers"]))
    _show_tuning(card["tuning"])
    if card["costs"] is not None:
        show_costs(card["costs"])
    elif card["costs_note"]:
        typer.echo(f"Costs of `sprat bench --tiers` here are {card['costs_note']}.")
    _show_files(card)


def _answers(card: dict[str, Any]) -> list[tuple[str, str]]:
    """What a bundle answers: labels, or texts."""
    transform = card["transform"]
    if transform is None:
        labels = card["labels"]
        more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
        return [("labels", f"{len(labels)}: {', '.join(labels[:SHOWN_LABELS])}{more}")]
    grammar = transform["grammar"]
    at = transform["right_at"]
    return [
        ("inputs", ", ".join(("text", *transform["inputs"]))),
        ("answers", "any text" if grammar is None else f"that fit a {grammar['kind']}"),
        ("right", "as wanted" if at == 1 else f"from an edit similarity of {at:g} on"),
    ]


def _show_adapter(card: dict[str, Any]) -> None:
    base, report = card["base"], card["report"]
    facts = [
        ("name", card["name"]),
        ("kind", f"{card['kind']} of rank {card['rank']}, alpha {card['alpha']:g}"),
        ("model", f"{base['name']}, digest {base['digest']}"),
        ("size", megabytes(card["size_bytes"])),
        ("version", card["version"]),
        ("source", card["source"]),
    ]
    if report is not None:
        facts.append(("task", report["kind"]))
    print_table(["adapter", ""], facts)
    _show_provenance(card)
    if report is not None:
        evaluation = report["evaluation"]
        # Those of a classifier stand by themselves, with their intervals beside them.
        metrics = evaluation.get("metrics") or {
            name: {"value": evaluation[name], "low": low, "high": high}
            for name, (low, high) in evaluation["intervals"].items()
        }
        _show_metrics(metrics, f"On {evaluation['n']} held-out rows")
    if not card["models"][base["name"]]["card"]:
        typer.echo("This version of the model is not on this machine.")
    _show_files(card)


def _show_metrics(metrics: dict[str, dict[str, float]], title: str) -> None:
    print_table(
        ["metric", "value", "95 % interval"],
        [
            (metric, figure["value"], f"{figure['low']:.3f} to {figure['high']:.3f}")
            for metric, figure in metrics.items()
        ],
        title=title,
        right="value",
    )


def _show_files(card: dict[str, Any]) -> None:
    print_table(["file", "sha256"], [(f["path"], f["sha256"]) for f in card["files"]])
    for licence in card["licences"]:
        typer.echo(f"Licence of {licence}")


def _show_provenance(card: dict[str, Any]) -> None:
    provenance = (card["report"] or {}).get("provenance")
    if provenance is None:
        return
    print_table(
        ["data", "rows", "sha256 of the file", "sha256 of their lines"],
        [
            (part, source["rows"], source["sha256"], source.get("lines", ""))
            for part in ("train", "validation", "test")
            if (source := provenance.get(part))
        ],
        right="rows",
    )
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    typer.echo(f"Seed {provenance['seed']}; {versions}.")


def _show_tier(card: dict[str, Any], tier: dict[str, Any], *, is_last: bool) -> None:
    evaluation = tier["evaluation"]
    title = f"Tier {tier['name']}, on {evaluation['n']} held-out rows"
    _show_metrics(evaluation["metrics"], title)
    typer.echo(f"Confidence: {_calibration(tier, is_last=is_last)}")
    if (asked := tier["remote"]) is not None:
        _show_remote(asked)
        return
    model = card["models"][tier["base"]["name"]]
    _show_ref("Model", tier["base"], model)
    asks = tier["language"]
    if asks is not None:
        if asks["adapter"] is not None:
            _show_ref("Adapter", asks["adapter"], card["adapters"][asks["adapter"]["name"]])
        typer.echo(f"Asked{_how(asks)}: {_what(asks)}")
    if model["card"]:
        _show_gate(model["card"])


def _how(asks: dict[str, Any]) -> str:
    if "sampling" in asks:
        return f", for {asks['sampling']['max_tokens']} tokens at most"
    return f", with {asks['scoring']} scoring" if "scoring" in asks else ""


def _what(asks: dict[str, Any]) -> str:
    """What a model is told: instructions, or of a transform task the prompt."""
    return asks.get("instructions") or asks.get("prompt") or "(general)"


def _show_remote(asked: dict[str, Any]) -> None:
    """What is sent to the endpoint that the configuration of a task names."""
    version = asked["task_version"]
    what = f"task {asked['model']}, version {version}" if version else f"model {asked['model']}"
    typer.echo(f"Remote: {what}, if the configuration names an endpoint")
    if not version:
        votes = "once" if asked.get("votes", 1) == 1 else f"{asked['votes']} times"
        typer.echo(f"Asked {votes}: {_what(asked)}")


def _show_ref(what: str, ref: dict[str, str], found: dict[str, Any]) -> None:
    where = "" if found["card"] else "; this version is not on this machine"
    typer.echo(f"{what}: {ref['name']}, digest {ref['digest']}{where}")


def _show_tuning(tuning: dict[str, Any] | None) -> None:
    """What showed that the thresholds do."""
    if tuning is None:
        return
    best = tuning["best_tier"]
    print_table(
        ["thresholds", "value", "95 % interval"],
        [
            (
                what,
                each["value"],
                f"{each['low']:.3f} to {each['high']:.3f}",
            )
            for name, what in (
                ("cost_ratio", f"cost, share of {best} alone"),
                ("loss_points", f"points of accuracy below {best}"),
                ("coverage", "share that is answered"),
                ("wrong", "share of the answers that is wrong"),
            )
            for each in [tuning[name]]
        ],
        title=f"Thresholds for {tuning['rule']} <= {tuning['limit']:g}, on "
        f"{tuning['verified_on']} rows that had no part in the choice",
        right="value",
    )
    shares = ", ".join(f"{name} {share:.1%}" for name, share in tuning["shares"].items())
    typer.echo(f"Answers by tier: {shares}. Data: sha256 {tuning['data_sha256'] or 'unknown'}.")
    if tuning["cost_date"] is not None:
        typer.echo(f"CPU times: of `sprat bench --tiers`, {tuning['cost_date'][:10]}.")
    if tuning["logged"] is not None:
        typer.echo(sentence(LoggedRows(**tuning["logged"])))


def _calibration(tier: dict[str, Any], *, is_last: bool) -> str:
    calibration = tier["calibration"]
    if calibration is None:
        return "none, scores are not calibrated."
    curve = calibration["isotonic"]
    method = f"temperature {calibration['temperature']:.3f}"
    if (sureness := tier["sureness"]) is not None:
        quantiles = ", ".join(f"{each:g}" for each in sureness["quantiles"])
        method = f"quantiles {quantiles} of log-probabilities, a curve of {len(curve)} knots"
    elif curve:
        method += f", then an isotonic curve of {len(curve)} knots"
    accept = tier["accept_at"]
    if is_last:
        below = f"abstains below {accept:g}" if accept else "never abstains"
    else:
        below = f"passes on below {accept:g}" if accept else "not asked, having no threshold"
    return f"{method}, at most {calibration['ceiling']:.4f}; {below}."


def _show_gate(card: dict[str, Any]) -> None:
    """How near a quantized model is to what it was made from."""
    gate = card.get("gate")
    if gate is None:
        return
    print_table(
        ["gate", "value", "limit"],
        [(figure["name"], figure["value"], _limit(figure)) for figure in gate["figures"]],
        title=f"Gate of {card['name']} against {gate['base']} in {gate['reference']}",
        right="value",
    )


def _limit(figure: dict[str, Any]) -> str:
    if figure["at_least"] is not None:
        return f"at least {figure['at_least']:g}"
    return "" if figure["at_most"] is None else f"at most {figure['at_most']:g}"
