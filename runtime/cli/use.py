"""``sprat classify``, ``sprat embed``, ``sprat generate``: with or without a server."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from sprat.cli.connect import connect, task_name
from sprat.cli.output import (
    Json,
    Server,
    TlsCa,
    Token,
    print_json,
    print_request,
    print_table,
    read_texts,
)
from sprat.cli.tiers import AcceptAt, BudgetMs, MaxTier, refuse, with_tiers
from sprat.errors import InvalidInput
from sprat.values import (
    Chunk,
    ClassifyResult,
    Effort,
    Label,
    LabelSet,
    Message,
    Sampling,
    TokenChoice,
    TokenLogprob,
)

Texts = Annotated[
    list[str] | None, typer.Argument(help="Texts. Absent: one a line on stdin.", show_default=False)
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut texts that are too long instead of refusing them.")
]


def classify(
    task: Annotated[
        str,
        typer.Argument(
            help="A task of the server; without one, a bundle by name or path. "
            "With --labels, a generative model."
        ),
    ],
    texts: Texts = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Labels to choose from, separated by commas."),
    ] = None,
    instructions: Annotated[
        str, typer.Option("--instructions", help="With --labels: what is asked of the texts.")
    ] = "",
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="How many scores to show.")] = 3,
    truncate: Truncate = False,
    max_tier: MaxTier = None,
    accept_at: AcceptAt = None,
    budget_ms: BudgetMs = None,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Give each text one label: of a trained task, or of your own with a generative model."""
    given = read_texts(texts)
    if labels is not None:
        if truncate:
            raise InvalidInput("--truncate: texts are never cut with --labels", field="truncate")
        refuse(Effort(max_tier, accept_at, budget_ms), "--labels")
        label_set = LabelSet(
            task, tuple(Label(name.strip()) for name in labels.split(",")), instructions
        )
        with connect(server, models=[task], token=token, tls_ca=tls_ca) as verbs:
            result = verbs.choose(label_set, given, top_k=top_k)
        _report(result, as_json=as_json)
        return
    if instructions:
        raise InvalidInput("--instructions: expected --labels beside it", field="instructions")
    with connect(server, tasks=[task], token=token, tls_ca=tls_ca) as verbs:
        result = verbs.classify(
            task_name(task, server),
            given,
            top_k=top_k,
            truncation="truncate" if truncate else "refuse",
            max_tier=max_tier,
            accept_at=accept_at,
            budget_ms=budget_ms,
        )
    _report(result, as_json=as_json)


def _report(result: ClassifyResult, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(result))
        return
    rows: list[tuple[object, ...]] = []
    for index, item in enumerate(result.items):
        if item is None:
            continue
        others = ", ".join(f"{s.label} {s.score:.3f}" for s in item.scores[1:])
        confidence = item.confidence
        if confidence is None:
            confidence = item.scores[0].score if item.scores else 0.0
        rows.append((index, "(abstained)" if item.abstained else item.label, confidence, others))
    columns = ["text", "label", "confidence" if result.calibrated else "score", "next"]
    found = [item for item in result.items if item is not None]
    print_table(*with_tiers(columns, rows, found), right="text confidence score")
    print_request(result.request_id)


def embed(
    model: Annotated[str, typer.Argument(help="An encoder, such as minilm-l6.")],
    texts: Texts = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the vectors to this .npy file.")
    ] = None,
    truncate: Truncate = False,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Turn texts into L2-normalized sentence vectors; show how similar they are."""
    given = read_texts(texts)
    with connect(server, models=[model], token=token, tls_ca=tls_ca) as verbs:
        result = verbs.embed(model, given, truncation="truncate" if truncate else "refuse")
    if out is not None:
        np.save(out, result.vectors)
    if as_json:
        print_json(
            {
                "model": result.model,
                "model_version": result.model_version,
                "input_tokens": result.input_tokens.tolist(),
                "dropped_tokens": result.dropped_tokens.tolist(),
                "vectors": result.vectors.tolist(),
                "timings": asdict(result.timings),
            }
        )
        return
    similarity = result.vectors @ result.vectors.T
    columns = ["cosine", *(str(i) for i in range(len(given)))]
    print_table(
        columns,
        [(i, *(float(value) for value in row)) for i, row in enumerate(similarity)],
        right=" ".join(columns),
    )


def generate(
    model: Annotated[str, typer.Argument(help="A generative model, such as smollm2-135m.")],
    prompt: Annotated[
        str | None, typer.Argument(help="What to say. Absent: stdin.", show_default=False)
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="Instructions that stand before the chat.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without a chat template.")
    ] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Most tokens.")] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, max=10, help="0 is greedy.")
    ] = 0.0,
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="Keep the k best; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option("--top-p", help="Keep this probability, (0, 1].")] = 1.0,
    min_p: Annotated[
        float, typer.Option("--min-p", min=0, max=1, help="Keep this share of the best.")
    ] = 0.0,
    repeat_penalty: Annotated[
        float, typer.Option("--repeat-penalty", help="Weaken recent tokens; 1 is off.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option("--seed", help="Repeat a sampled answer.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="End before this string; may be repeated.")
    ] = None,
    adapter: Annotated[
        str, typer.Option("--adapter", help="A LoRA adapter of the model; see `sprat adapters`.")
    ] = "",
    sequences: Annotated[
        int, typer.Option("--sequences", "-n", min=1, help="Answers to make side by side.")
    ] = 1,
    logprobs: Annotated[
        int | None,
        typer.Option(
            "--logprobs",
            min=0,
            max=20,
            help="With --json: the log-probability of each token, and of so many best ones.",
        ),
    ] = None,
    server: Server = None,
    token: Token = None,
    tls_ca: TlsCa = None,
    as_json: Json = False,
) -> None:
    """Stream an answer to stdout."""
    text = sys.stdin.read() if prompt is None else prompt
    sampling = Sampling(
        max_tokens, temperature, top_k, top_p, min_p, repeat_penalty, seed, tuple(stop or ())
    )
    given: str | list[Message] = text
    if not raw:
        given = [Message("user", text)]
        if system is not None:
            given.insert(0, Message("system", system))
    if logprobs is not None and not as_json:
        raise InvalidInput("--logprobs: expected --json beside it", field="logprobs")
    answers = [_Answer() for _ in range(sequences)]
    with connect(server, models=[model], token=token, tls_ca=tls_ca) as verbs:
        chunks = verbs.generate(
            model, given, sampling, adapter=adapter, sequences=sequences, logprobs=logprobs
        )
        for chunk in chunks:
            answers[chunk.sequence].add(chunk)
            if not as_json and sequences == 1:
                typer.echo(chunk.text, nl=False)
                sys.stdout.flush()
    if as_json:
        documents = [answer.document() for answer in answers]
        print_json(documents[0] if sequences == 1 else documents)
    elif sequences == 1:
        typer.echo()
    else:
        for index, answer in enumerate(answers):
            typer.echo(f"--- {index}\n{answer.text}")


class _Answer:
    """One answer as its chunks come."""

    def __init__(self) -> None:
        self.text = ""
        self._logprobs: list[TokenChoice] = []
        self._last = Chunk("")

    def add(self, chunk: Chunk) -> None:
        self.text += chunk.text
        self._logprobs += chunk.logprobs
        self._last = chunk

    def document(self) -> dict[str, Any]:
        """All of it, for programs. A token's bytes are text, invalid UTF-8 as U+FFFD."""
        return {
            **asdict(self._last),
            "text": self.text,
            "logprobs": [
                {**_token(choice.chosen), "top": [_token(each) for each in choice.top]}
                for choice in self._logprobs
            ],
        }


def _token(value: TokenLogprob) -> dict[str, Any]:
    return {"token": value.token.decode("utf-8", "replace"), "logprob": value.logprob}
