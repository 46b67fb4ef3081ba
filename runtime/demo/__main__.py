"""``make demo``: pull, train two tiers, tune them, serve, classify, embed, generate, stop.

Runs the commands that a user would run, and talks to the server over gRPC. Exit status 0 says that
all of it worked.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

from sprat.cli.output import print_table
from sprat.client import Client
from sprat.store import Store
from sprat.values import Message, Sampling

ENCODER = "minilm-l6"
GENERATOR = "smollm2-135m"
BUNDLE = "demo-tickets"
SENTENCES = ("My parcel has not arrived yet.", "Where is the package that I ordered?")
QUESTION = "In one sentence: what is a sprat?"
LEAST_ACCURACY = 0.6
TUNING_ROWS = 180
"""Training tickets that choose the threshold of the small tier instead."""
MAX_LOSS = "3"
"""Points of accuracy that the small tier may cost."""


def main() -> int:
    """Run the demo; 0 when every step worked."""
    started = time.perf_counter()
    with (
        as_file(files("sprat.demo") / "tickets.train.jsonl") as train,
        as_file(files("sprat.demo") / "tickets.test.jsonl") as test,
        tempfile.TemporaryDirectory(prefix="sprat-demo-") as folder,
    ):
        _sprat("pull", ENCODER)
        _sprat("pull", GENERATOR)
        rows = train.read_text("utf-8").splitlines(keepends=True)
        part, tuning = Path(folder, "tickets.train.jsonl"), Path(folder, "tickets.tuning.jsonl")
        part.write_text("".join(rows[:-TUNING_ROWS]), "utf-8")
        tuning.write_text("".join(rows[-TUNING_ROWS:]), "utf-8")
        _sprat(
            *("train", str(part), "--kind", "classify", "--base", ENCODER),
            *("--tiers", "static,head", "--test", str(test), "-o", BUNDLE, "--replace"),
        )
        _sprat("tune", BUNDLE, "--data", str(tuning), "--max-loss", MAX_LOSS)
        address = f"unix:{folder}/sprat.sock"
        with _server(address), Client(address) as client:
            accuracy = _classify(client, test)
            _embed(client)
            _generate(client)
        print("The server stopped cleanly.")
    print(f"Done in {time.perf_counter() - started:.1f} s.")
    if accuracy < LEAST_ACCURACY:
        print(f"error: accuracy below {LEAST_ACCURACY}: something is broken", file=sys.stderr)
        return 1
    return 0


def _sprat(*arguments: str) -> None:
    shown = (Path(each).name if each.endswith(".jsonl") else each for each in arguments)
    print(f"\n$ sprat {' '.join(shown)}", flush=True)
    subprocess.run([sys.executable, "-m", "sprat", *arguments], check=True)


@contextlib.contextmanager
def _server(address: str) -> Iterator[None]:
    """A server process; its clean end is part of the demo."""
    arguments = ["serve", "--task", BUNDLE, "--model", GENERATOR, "--listen", address]
    print(f"\n$ sprat {' '.join(arguments)} &", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "sprat", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        if not ready.startswith("ready "):
            raise SystemExit(f"error: the server ended with status {process.wait()}")
        print(ready, end="", flush=True)
        yield
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=30)
        if status != 0:
            raise SystemExit(f"error: the server ended with status {status}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _classify(client: Client, test: Path) -> float:
    rows = [json.loads(line) for line in test.read_text("utf-8").splitlines()]
    table = []
    right = 0
    small: list[bool] = []
    for number, row in enumerate(rows, 1):
        started = time.perf_counter()
        result = client.classify(BUNDLE, [row["text"]])
        elapsed = (time.perf_counter() - started) * 1e3
        item = result.items[0]
        assert item is not None
        assert item.confidence is not None
        is_right = item.label == row["label"]
        right += is_right
        if item.tier == 0:
            small.append(is_right)
        mark = "" if is_right else f"expected {row['label']}"
        table.append((number, item.label, item.confidence, item.tier, f"{elapsed:.1f}", mark))
    columns = ("ticket", "label", "confidence", "tier", "ms", "")
    print_table(
        columns, table, title=f"{len(rows)} tickets through gRPC", right="ticket confidence tier ms"
    )
    accuracy = right / len(rows)
    print(
        f"Accuracy {accuracy:.3f} ({right} of {len(rows)}) on sprat's own demo tickets: "
        "this proves the plumbing, not a model."
    )
    _show_savings(small, len(rows))
    return accuracy


def _show_savings(small: list[bool], count: int) -> None:
    """What the first tier took off the second; whether it is right stands in ``small``."""
    tuning = Store().bundle(BUNDLE)[0].tuning
    assert tuning is not None
    if tuning.shares.keys() != {"static", "head"} or not small:
        print("The small tier does not pay on these tickets.")
        return
    passed_on = 1 - len(small) / count
    cost = tuning.cost_ms["static"] + passed_on * tuning.cost_ms["head"]
    print(
        f"The small tier (static) answered {len(small)} of {count}, {sum(small)} of them rightly; "
        f"the encoder read the others. CPU time of both tiers: {cost / tuning.cost_ms['head']:.0%} "
        "of what the encoder alone would take."
    )


def _embed(client: Client) -> None:
    first, second = client.embed(ENCODER, SENTENCES).vectors
    print(f"\nCosine similarity {first @ second:.3f}: {SENTENCES[0]!r} and {SENTENCES[1]!r}")


def _generate(client: Client) -> None:
    print(f"\n{GENERATOR}, asked {QUESTION!r}, says:", flush=True)
    tokens = 0
    started = time.perf_counter()
    for chunk in client.generate(GENERATOR, [Message("user", QUESTION)], Sampling(max_tokens=64)):
        print(chunk.text, end="", flush=True)
        tokens = chunk.output_tokens
    print(f"\n({tokens} tokens, {tokens / (time.perf_counter() - started):.0f} tokens/s)\n")
    if not tokens:
        raise SystemExit("error: the generator answered nothing")


if __name__ == "__main__":
    # Buffered output of ours and of the commands would mix in the wrong order.
    os.environ["PYTHONUNBUFFERED"] = "1"
    sys.exit(main())
