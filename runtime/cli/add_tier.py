"""``sprat add-tier``: a model behind the last tier of a bundle, here or remote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sprat.cli.begin import begin, read_task_file
from sprat.cli.bundles import write
from sprat.cli.endpoints import ConfigFile, EndpointName, EndpointUse, Restart, endpoint_use
from sprat.cli.evaluate_moderator import show_moderation
from sprat.cli.labelled import read_labelled
from sprat.cli.labels_file import LabelsFile, read_labels_file
from sprat.cli.output import Json, print_json, progress
from sprat.cli.reports import show_report, show_rewriting, show_task
from sprat.errors import InvalidInput
from sprat.values import Label

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sprat.asked_manifest import AnyLanguage, AnyRemote
    from sprat.bundle_manifest import BundleManifest
    from sprat.manifest import ModelRef
    from sprat.store import Store
    from sprat.train.add_tier import Added
    from sprat.train.asked_kinds import AnyAskedKind

ASKS = "What the model is asked; absent: as the adapter was trained"
REWRITES = "Transform tasks"


def add_tier(
    bundle: Annotated[str, typer.Argument(help="A bundle by name, or by a path with /.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Rows like those of the bundle's training: JSONL or CSV with `text` and `label`, "
            "or `labels` of a moderate task, or `text`, `target` and other inputs of a transform "
            "task; or JSONL with `text` and `spans` of an extract task. One part calibrates the "
            "tier, the other evaluates it. Never what the adapter or other tiers were trained on.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="A generative model in the store.")
    ] = None,
    endpoint: EndpointName = None,
    config: ConfigFile = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="A LoRA adapter of the model, in the store.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Of the tier. Absent: `language`, or `remote`."),
    ] = None,
    new: Annotated[
        bool,
        typer.Option(
            "--new",
            help="Begin a transform task with this tier, which says what the task is.",
            rich_help_panel=REWRITES,
        ),
    ] = False,
    task: Annotated[
        Path | None,
        typer.Option(
            "--task",
            help="TOML file with a table `[tasks.NAME]` of kind transform, as in the "
            "configuration: model, adapter, prompt, grammar, sampling. In the place of --model.",
            rich_help_panel=REWRITES,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            help="What to do, with `{text}`, and `{NAME}` for other fields of the rows. Absent: "
            "as --task says or the adapter was trained, else as the tier before is asked.",
            rich_help_panel=REWRITES,
        ),
    ] = None,
    right_at: Annotated[
        float | None,
        typer.Option(
            "--right-at",
            help="With --new: least edit similarity of a right answer to its target, up to 1. "
            "Absent: 1, an exact match.",
            rich_help_panel=REWRITES,
        ),
    ] = None,
    instructions: Annotated[
        str | None,
        typer.Option(
            "--instructions", help="What the texts are, and what is asked.", rich_help_panel=ASKS
        ),
    ] = None,
    labels_file: LabelsFile = None,
    scoring: Annotated[
        Literal["constrained", "full"] | None,
        typer.Option(
            "--scoring",
            help="How probabilities of labels come from those of tokens: only at the tokens where "
            "labels part, or of all tokens of a label and its end.",
            rich_help_panel=ASKS,
        ),
    ] = None,
    normalize_length: Annotated[
        bool | None,
        typer.Option(
            "--normalize-length/--no-normalize-length",
            help="With full scoring: compare means over tokens, not sums.",
            rich_help_panel=ASKS,
        ),
    ] = None,
    correct_prior: Annotated[
        bool | None,
        typer.Option(
            "--correct-prior/--no-correct-prior",
            help="Divide out what the model prefers without a text.",
            rich_help_panel=ASKS,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            help="Of extract and transform tasks: most tokens of an answer. Absent: as the "
            "adapter was trained; else 128, and 256 to rewrite.",
            rich_help_panel=ASKS,
        ),
    ] = None,
    votes: Annotated[
        int | None,
        typer.Option(
            "--votes",
            min=1,
            help="With --endpoint: answers for each text; their agreement is the confidence. "
            "Absent: one, with the probability that the endpoint reports.",
            rich_help_panel=ASKS,
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            help="Of a moderate task: when texts are flagged and blocked, as for `sprat train`. "
            "Absent: flagged where F1 is best, never blocked.",
        ),
    ] = None,
    clean_label: Annotated[
        str | None,
        typer.Option("--clean-label", help="Of a moderate task: the label of clean texts."),
    ] = None,
    held_out: Annotated[
        float, typer.Option("--held-out", help="Share of the rows to evaluate on.")
    ] = 0.5,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Write to this bundle instead: a name, or a path with /."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of parts and resampling.")] = 0,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Put a language model behind the last tier of a bundle, for texts that no other is sure of.

    A model of this machine says how probable each label is as its answer; it generates nothing. One
    behind an endpoint writes a label, and says how probable that was; or it is a task of another
    sprat server. Its probabilities are calibrated on one part of the rows and judged on the other,
    so that the tier has a confidence like any other. Then tune the thresholds of all tiers
    together: until then the last tier of this machine answers alone.

    Of an extract task the model writes the bundle's fields as JSON: a schema of its fields, or that
    of the adapter, says how. What it writes counts as far as it stands in the text. How probable
    all of it was is calibrated, absent fields included.

    Of a moderate task a model of this machine answers yes or no about each category, or names one
    of the labels that its adapter was trained on, which are the categories and one for clean texts;
    one behind an endpoint lists all categories that apply. Thresholds are chosen anew for its
    probabilities: bring the --policy of the training.

    Only with --endpoint anything leaves this process: to that address go the texts, the labels with
    their descriptions and the instructions, or the prompt with its inputs, nothing else. A server
    asks it only where the configuration of a task names it: `tiers.remote.endpoint`. What it
    answered is kept until the bundle is written: after a failure the same command asks only for
    the rest.

        sprat train tickets.jsonl --base smollm2-135m --kind classify -o tickets-lora
        sprat add-tier tickets --model smollm2-135m --adapter tickets-lora --data traffic.jsonl
        sprat tune tickets --data more-traffic.jsonl
        sprat add-tier bookings --model smollm2-135m --labels-file fields.json --data rows.jsonl
        sprat add-tier tickets --endpoint big --config sprat.toml --data traffic.jsonl

    With --new it begins a bundle of kind transform. Its tiers all rewrite texts: a small model and
    a larger one, or one model under a prompt and under an adapter. An answer is right where it is
    as wanted (--right-at); how sure a tier is comes from how probable the answer's tokens were.

        sprat add-tier dates --new --task dates.toml --data rows.jsonl
        sprat add-tier dates --model larger --name larger --data rows.jsonl
        sprat tune dates --data traffic.jsonl --max-error 0.05
    """
    from sprat.bundle import Bundle
    from sprat.store import Store
    from sprat.train import add_tier as adding
    from sprat.train.asked_tiers import tier_opener

    if sum(each is not None for each in (model, task, endpoint)) != 1:
        raise InvalidInput("expected one of --model, --task and --endpoint", field="model")
    asks: dict[str, Any] = {
        "instructions": instructions,
        "scoring": scoring,
        "normalize_length": normalize_length,
        "correct_prior": correct_prior,
        "max_tokens": max_tokens,
        "votes": votes,
        "prompt": prompt,
    }
    _check_options(endpoint is not None, adapter, asks)

    store = Store()
    if task is not None:
        if adapter is not None:
            raise InvalidInput("--adapter: expected none beside --task", field="adapter")
        asks["task"] = read_task_file(task)
        model, adapter = asks["task"].model, asks["task"].adapter or None
    record: BaseModel
    if new:
        refused: dict[str, object] = {"--out": out, "--labels-file": labels_file}
        about: dict[str, Any] = {"model": model, "adapter": adapter, "right_at": right_at}
        opened, record = begin(store, bundle, **about, refused=refused, asks=asks)
        out = bundle
    else:
        if right_at is not None:
            raise InvalidInput("--right-at: expected --new beside it", field="right-at")
        opened = Bundle.open(store, bundle)
        record = adding.read_record(store.bundle(bundle)[1], opened.manifest)
    entries = [] if labels_file is None else read_labels_file(labels_file)
    labels = [Label(each.name, each.description) for each in entries]
    use = endpoint_use(endpoint, config, store, restart=restart)
    base, asked = _question(store, opened.manifest, model, adapter, use, labels, asks)
    rows = read_labelled(data, opened.manifest, clean_label)
    if adapter is not None:
        adding.check_unseen(store, adapter, rows)
    try:
        with progress("add-tier") as bar:
            added = adding.add_tier(
                *(opened, record, rows, asked),
                base=base,
                name=name,
                kind=_kind(opened.manifest, policy),
                open_tier=tier_opener(store, None if use is None else use.open),
                held_out=held_out,
                seed=seed,
                progress=bar,
            )
        report = added.record.model_dump_json(indent=2) + "\n"
        manifest = write(store, added.bundle, report, task=bundle, out=out)
        if use is not None:
            use.done()
    finally:
        if use is not None:
            use.close()
    if as_json:
        print_json(_document(manifest, added))
        return
    _show(added)
    names = ", ".join(tier.name for tier in manifest.tiers)
    typer.echo(f"{manifest.name}: version {manifest.version}, tiers {names}")
    if new:
        typer.echo("Put a better tier behind it: the same command with --name, without --new.")
        return
    if opened.manifest.tuning is not None:
        typer.echo("Thresholds that were tuned for fewer tiers are gone.")
    who = "last tier" if use is None else "last tier that is not remote"
    typer.echo(f"Until `sprat tune {manifest.name}` the {who} answers alone.")


def _kind(bundle: BundleManifest, policy: Path | None) -> AnyAskedKind:
    """What such a tier is to the kind of the bundle, and when it is to act."""
    from sprat.train.asked_categories import AskedCategories
    from sprat.train.asked_kinds import asked_kind
    from sprat.train.policy import read_policy

    if policy is None:
        return asked_kind(bundle)
    if bundle.kind != "moderate":
        raise InvalidInput("--policy: expected a moderate task", field="policy")
    return AskedCategories(read_policy(policy))


LOCAL = ("scoring", "normalize_length", "correct_prior")
"""What only a model of this machine can be asked to do."""


def _check_options(remote: bool, adapter: str | None, asks: dict[str, Any]) -> None:
    """Refuse options that mean nothing where the model is."""
    given = [_option(name) for name in LOCAL if asks[name] is not None]
    if adapter is not None:
        given.insert(0, "--adapter")
    if remote and given:
        raise InvalidInput(f"{given[0]}: expected --model beside it", field="endpoint")
    if not remote and asks["votes"] is not None:
        raise InvalidInput("--votes: expected --endpoint beside it", field="votes")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _question(
    store: Store,
    bundle: BundleManifest,
    model: str | None,
    adapter: str | None,
    use: EndpointUse | None,
    labels: list[Label],
    asks: dict[str, Any],
) -> tuple[ModelRef | None, AnyLanguage | AnyRemote]:
    """What the tier asks, and its model where that is one of this machine."""
    from sprat.train import add_tier as adding

    if use is None:
        assert model is not None
        return adding.language(store, bundle, model=model, adapter=adapter, labels=labels, **asks)
    task_version = use.task_version(bundle)
    if task_version and (labels or any(asks.values())):
        raise InvalidInput(
            "--labels-file, --instructions, --max-tokens, --votes: expected none for a sprat "
            "server, whose task knows what it asks",
            field="endpoint",
        )
    asked = adding.remote(bundle, model=use.model, task_version=task_version, labels=labels, **asks)
    return None, asked


def _show(added: Added) -> None:
    from sprat.train.evaluate_categories import ModerationReport
    from sprat.train.evaluate_rewriting import RewritingReport
    from sprat.train.report import Report

    if isinstance(added.report, Report):
        show_report(added.report)
    elif isinstance(added.report, ModerationReport):
        moderation = added.bundle.manifest.tiers[-1].moderation
        assert moderation is not None  # the manifest of a moderate bundle has it
        show_moderation(added.report, [each.block_at for each in moderation.thresholds])
    elif isinstance(added.report, RewritingReport):
        show_rewriting(added.report)
    else:
        show_task(added.report)


def _document(manifest: BundleManifest, added: Added) -> dict[str, object]:
    tier = manifest.tiers[-1]
    return {
        "name": manifest.name,
        "version": manifest.version,
        "tier": tier.model_dump(mode="json"),
        "evaluation": added.report.model_dump(mode="json"),
    }
