"""A cascade of two tiny, real tiers, trained by the command."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from servers import TASK, sprat
from tiny_models import encoder_files, write_files

from sprat.pull import pull
from sprat.store import Store

TOPICS = {"delivery": ("parcel", "late"), "money": ("refund", "broken")}
WORDS = ("parcel", "late", "refund", "xyz")
TEXTS = [" ".join(words) for words in itertools.product(WORDS, repeat=2)]
"""Some of one topic, some of both, and some of none: sure and not so sure."""

ACCEPT_AT = 0.7
"""Of the first tier: it answers some of the texts, and passes on the others."""


def trained(folder: Path) -> tuple[Store, Path]:
    """A store with the models of a cascade of a static tier and a head, and its bundle."""
    store = Store(folder / "home")
    pull(str(write_files(folder / "tiny", encoder_files())), store)
    rows = [
        {"text": " ".join(words), "label": label}
        for label, known in TOPICS.items()
        for length in (1, 2, 3, 4)
        for words in itertools.product(known, repeat=length)
    ]
    data, out = folder / "rows.jsonl", folder / TASK
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = sprat(
        store, "train", str(data), "--base", "tiny", "--tiers", "static,head", "-o", str(out)
    )
    assert done.returncode == 0, done.stderr
    return store, out


def task_config(bundle: Path) -> str:
    """The cascade as a task in TOML."""
    return (
        f'[tasks.{TASK}]\nbundle = "{bundle}"\non_failure = "answer"\n'
        f"tiers = {{ static = {{ accept_at = {ACCEPT_AT} }} }}\n"
    )
