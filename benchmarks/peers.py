"""Work of language models through gRPC, against other servers of the same GGUF file.

llama-server is built by `sprat.benchmarks.peers_build`; llama-cpp-python's own server takes part
where its packages are installed (``pip install 'llama-cpp-python[server]'``).
"""

from __future__ import annotations

import tempfile
from ctypes import byref
from pathlib import Path
from typing import Any, Literal

from sprat.benchmarks import bundle, data, peers_build, peers_work
from sprat.benchmarks.harness import Cell, Context, Figure, Outcome, Table
from sprat.benchmarks.peers_answers import ANSWER_TOKENS, STREAMS, answers
from sprat.benchmarks.peers_arena import Arena
from sprat.benchmarks.peers_choices import CLIENTS, classify, interleaved
from sprat.benchmarks.peers_decide import decide
from sprat.benchmarks.peers_engine import PROMPT_TOKENS, engine
from sprat.benchmarks.peers_extract import extract
from sprat.benchmarks.peers_match import COLUMNS
from sprat.benchmarks.peers_rewrite import invent, rewrite
from sprat.benchmarks.peers_servers import python_server_lacks
from sprat.budget import detect
from sprat.engine import llama_lib
from sprat.errors import SetupError
from sprat.pull import pull
from sprat.store import Store

MATCHES = (classify, interleaved, decide, extract, answers, rewrite, invent, engine)


def run(context: Context) -> Outcome:
    """All matches on Q8_0."""
    return play_all(context, "Q8_0")


def play_all(context: Context, weights: Literal["Q8_0", "Q4_0"]) -> Outcome:
    """All matches on weights of one type."""
    programs = peers_build.find(context.store)
    lacking = python_server_lacks()
    if lacking:
        context.say(f"llama-cpp-python's server is left out: no {', '.join(lacking)}")
    source = data.load(context.checkout)
    threads = detect().threads
    pull(bundle.GENERATOR, context.store)
    figures: list[Figure] = []
    rows: list[tuple[Cell, ...]] = []
    raw: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sprat-bench-") as folder:
        store = context.store if weights == "Q8_0" else q4_0(context.store, Path(folder))
        manifest, model = store.model(bundle.GENERATOR)
        arena = Arena(context, source, store, weights, model / manifest.weights, programs, threads)
        for match in MATCHES:
            played = match(arena)
            figures += played.figures
            rows += played.rows
            raw[match.__name__] = played.raw
    return Outcome(
        parameters={
            "texts": source.source,
            "model": bundle.GENERATOR,
            "weights": weights,
            "llama_cpp_python": peers_build.version(),
            "threads": threads,
            "rounds": context.rounds,
            "choice_clients": CLIENTS,
            "streams": STREAMS,
            "python_server_lacks": list(lacking),
        },
        method=(
            f"{bundle.GENERATOR} as {weights}, the same file for all; sprat through gRPC on a Unix "
            "socket, the others through HTTP on loopback, all clients in one more process on the "
            "same cores. "
            "llama-server is of the source package of the installed llama-cpp-python, built for "
            "this machine: prompt cache on, flash attention off, a slot for each client. Classify: "
            f"{len(peers_work.LABELS)} labels, a static prompt of some 290 tokens, {source.source} "
            "texts; the same prompt for all, for the others a grammar of the labels. Decide: "
            "llama-server is asked question by question, the text first. Extract: the same chat "
            "and schema for all. Rewriting: texts chosen by the share of their answer that is "
            "copied, four words or more in a row. Answers: raw prompts of some 55 tokens whose "
            f"answers do not end within {ANSWER_TOKENS} greedy tokens. The engine alone, against "
            f"llama-bench: one step of {PROMPT_TOKENS} tokens, then tokens one by one. Every "
            "answer is checked; a server that no goal is about is left out where one is not valid. "
            "Median of rounds, each ratio within one round."
            + (" llama-cpp-python's server was not installed." if lacking else "")
        ),
        figures=tuple(figures),
        table=Table(columns=COLUMNS, rows=tuple(rows)),
        raw=raw,
    )


def q4_0(store: Store, folder: Path) -> Store:
    """A store below ``folder`` with the generator as Q4_0, made of the published file.

    Raises
    ------
    SetupError
        llama.cpp cannot make it.
    """
    _, model = store.model(bundle.GENERATOR)
    (published,) = (model / "source").glob("*.gguf")
    made = folder / "q4_0.gguf"
    lib = llama_lib.load()
    params = lib.llama_model_quantize_default_params()
    params.ftype = lib.LLAMA_FTYPE_MOSTLY_Q4_0
    params.allow_requantize = True
    if lib.llama_model_quantize(bytes(published), bytes(made), byref(params)):
        raise SetupError(f"llama.cpp cannot make Q4_0 of {published.name}")
    target = Store(folder / "store")
    pull(str(made), target, name=bundle.GENERATOR)
    return target
