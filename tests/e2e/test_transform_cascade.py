"""A cascade that rewrites texts, on a real model and a real server: two prompts, one after another.

A second, larger model is not at hand: the tiers are the same one with a short and a long prompt.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import rewritings
from doubles import WAIT_S
from rewritings import language_tier
from servers import GENERATOR, Server, sprat, start_server

from sprat import Client, Runtime
from sprat.client import AsyncClient
from sprat.decisions import read_decisions
from sprat.errors import DeadlineExceeded, InvalidInput
from sprat.store import Store
from sprat.values import Chunk, Sampling, TransformSpec

pytestmark = pytest.mark.timeout(600)

NAME, ACCEPT_AT = "capitals", 0.287
TEXTS = ("France", "Japan", "Mali", "Italy", "Peru")
"""Of some the first tier is surer than of others."""

PROMPTS = (
    "What is the capital of {text}? One word.",
    "Name the capital city of the country {text}.",
)
SAMPLING = {"max_tokens": 12}


@dataclass(frozen=True)
class Served:
    """A server of the cascade, and what it was made of."""

    server: Server
    store: Store
    bundle: Path
    log: Path


@pytest.fixture(scope="module")
def served(
    store: Store, smollm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(NAME)
    base = store.model(GENERATOR)[0]
    made = rewritings.bundle(
        *(
            language_tier(base, name, accept_at=accept_at, asks={"prompt": prompt, **sampling})
            for name, prompt, accept_at, sampling in (
                ("terse", PROMPTS[0], ACCEPT_AT, {"sampling": SAMPLING}),
                ("wordy", PROMPTS[1], 0.0, {"sampling": SAMPLING}),
            )
        ),
        name=NAME,
    )
    bundle = folder / NAME
    bundle.mkdir()
    made.save(bundle, report="{}")
    log = folder / "decisions.db"
    server = start_server(store, folder, "--task", str(bundle), "--log", str(log))
    yield Served(server, store, bundle, log)
    assert server.stop() == 0
    for text in TEXTS:
        assert text not in server.log.read_text()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.server.address) as client:
        yield client


def said(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_transform_cascade_answers_by_the_first_prompt_that_is_sure(
    client: Client, served: Served
) -> None:
    before = client.list_tasks()[0].tiers
    tiers = set()
    for text in TEXTS:
        chunks = list(client.transform(NAME, text))
        last = chunks[-1]
        (cheap,) = client.transform(NAME, text, max_tier=0, accept_at=1.0)
        assert (cheap.abstained, cheap.text) == (True, "")
        assert cheap.confidence is not None
        assert last.tiers[0].confidence == pytest.approx(cheap.confidence, abs=0.05)
        assert (last.escalated, last.abstained, last.degraded) == (last.tier > 0, False, None)
        assert [heard.tier for heard in last.tiers] == list(range(last.tier + 1))
        assert last.confidence == last.tiers[-1].confidence
        assert last.cpu_ms == pytest.approx(sum(heard.cpu_ms or 0 for heard in last.tiers))
        assert last.cpu_ms
        assert (len(chunks) == 1) == (last.tier == 0), "what may be replaced is held back"
        spec = TransformSpec(GENERATOR, PROMPTS[last.tier], sampling=Sampling(**SAMPLING))
        assert said(chunks) == said(list(client.transform(spec, text)))
        tiers.add(last.tier)
    assert tiers == {0, 1}
    after = client.list_tasks()[0].tiers
    assert [tier.name for tier in after] == ["terse", "wordy"]
    assert after[0].accept_at == pytest.approx(ACCEPT_AT)
    assert after[0].asked - before[0].asked == 2 * len(TEXTS)
    assert [tier.missed for tier in after] == [0, 0]


def test_transform_cascade_answers_the_same_in_process(client: Client, served: Served) -> None:
    with Runtime(tasks=[str(served.bundle)], store=served.store) as runtime:
        (model,) = runtime.list_models()
        assert model.prefix_use is not None
        assert model.prefix_use.requests == 0, "warming up is given up at its first token"
        assert next(iter(runtime.transform(NAME, "Peru", max_tier=0))).cached_tokens > 5
        for text in TEXTS[:3]:
            here, there = (list(verbs.transform(NAME, text)) for verbs in (runtime, client))
            assert said(here) == said(there)
            assert here[-1].tier == there[-1].tier
            assert here[-1].task_version == there[-1].task_version


def test_transform_cascade_side_by_side_keeps_texts_apart(client: Client, served: Served) -> None:
    alone = [said(list(client.transform(NAME, text, accept_at=0.0))) for text in TEXTS]

    async def ask_all() -> list[str]:
        async with AsyncClient(served.server.address) as verbs:

            async def ask(text: str) -> str:
                return said([chunk async for chunk in verbs.transform(NAME, text, accept_at=0.0)])

            return list(await asyncio.gather(*(ask(text) for text in TEXTS)))

    together = asyncio.run(asyncio.wait_for(ask_all(), WAIT_S * 6))
    # Batches move logits of quantized weights: most answers stay, and none is another text's.
    assert sum(one == other for one, other in zip(alone, together, strict=True)) >= 3
    for text, answer in zip(TEXTS, together, strict=True):
        assert [other for other in TEXTS if other in answer] in ([text], [])


def test_transform_cascade_takes_what_the_request_asks(client: Client) -> None:
    (hurried,) = client.transform(NAME, "Mali", accept_at=1.0, budget_ms=1e-3)
    assert (hurried.tier, hurried.degraded, hurried.abstained) == (0, "no_time", True)
    *_, cheap = client.transform(NAME, "Mali", accept_at=0.0)
    assert (cheap.tier, cheap.abstained) == (0, False)
    with pytest.raises(InvalidInput, match="accept_at"):
        list(client.transform(NAME, "Mali", accept_at=2.0))
    with pytest.raises(InvalidInput, match="only tasks of bundles"):
        list(client.transform(TransformSpec(GENERATOR, "{text}"), "Mali", max_tier=0))
    with pytest.raises(InvalidInput, match=r"no placeholder \{tone\}"):
        list(client.transform(NAME, "Mali", inputs={"tone": "kind"}))
    with pytest.raises(DeadlineExceeded):
        list(client.transform(NAME, "Mali", timeout_s=0.001))


def test_transform_cascade_survives_callers_that_leave(client: Client) -> None:
    for _ in range(5):
        chunks = client.transform(NAME, "Mali", accept_at=0.0)
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
    assert list(client.transform(NAME, "France"))[-1].finish_reason


def test_transform_cascade_is_logged_without_a_text(client: Client, served: Served) -> None:
    *_, last = client.transform(NAME, "Mali", accept_at=0.0)
    assert last.request_id
    client.feedback(last.request_id, "wrong")
    with pytest.raises(InvalidInput, match="right, wrong"):
        client.feedback(last.request_id, "Bamako")
    rows = {row.request_id: row for row in read_decisions(served.log, task=NAME)}
    row = rows[last.request_id]
    assert (row.kind, row.text, row.feedback, row.tier) == ("transform", None, "wrong", 0)
    assert row.confidence == pytest.approx(last.confidence)
    assert [heard.name for heard in row.tiers] == ["terse"]


def test_transform_cascade_by_command(served: Served) -> None:
    where = ("--server", served.server.address)
    done = sprat(served.store, "transform", NAME, "Mali", *where, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["tier"], answer["escalated"], answer["calibrated"]) == (1, True, True)
    assert answer["text"]
    done = sprat(served.store, "transform", NAME, "Mali", *where, "--accept-at", "0.99")
    assert (done.returncode, done.stdout) == (0, "\n")
    assert "abstained, tier 1, confidence 0." in done.stderr
    assert "request " in done.stderr
    done = sprat(served.store, "transform", str(served.bundle), "Mali", "--max-tier", "0")
    assert done.returncode == 0, done.stderr
    assert "abstained, tier 0" in done.stderr


def test_transform_cascade_is_explained(served: Served) -> None:
    where = ("--server", served.server.address)
    done = sprat(served.store, "explain", NAME, "Mali", *where, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    first, last = report["tiers"]
    assert (first["tier"], first["decision"]) == ("terse", "passes on")
    assert first["confidence"] < first["accept_at"]
    assert (last["tier"], last["decision"]) == ("wordy", "answers")
    assert first["cpu_ms"] > 0
    assert report["answer"]["text"]
    done = sprat(served.store, "explain", NAME, "France", *where)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


def test_transform_cascade_command_says_what_is_of_no_use(served: Served) -> None:
    for arguments, message in (
        (("--prompt", "{text}", "--max-tier", "0"), "expected none beside --prompt"),
        (("--regex", "a+"), "expected --prompt beside it"),
        (("--input", "tone"), "expected NAME=VALUE"),
    ):
        done = sprat(served.store, "transform", GENERATOR, "Mali", *arguments)
        assert done.returncode != 0
        assert message in done.stderr
