"""The static tier, the whole way: distilled from the real encoder, trained on, served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import model2vec
import numpy as np
import pytest
from servers import Server, sprat, start_server

from sprat import Client
from sprat.errors import InputTooLong, TaskNotSupported
from sprat.store import Store

pytestmark = pytest.mark.timeout(400)  # The first run of all distils the model.

TASK = "tickets-static"


@pytest.fixture(scope="module")
def server(
    store: Store,
    minilm_static: str,
    tickets: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("static")
    out = folder / TASK
    train, test = tickets
    done = sprat(
        store,
        *("train", str(train), "--kind", "classify", "--base", minilm_static),
        *("--test", str(test), "-o", str(out), "--json"),
    )
    assert done.returncode == 0, done.stderr
    server = start_server(store, folder, "--task", str(out), "--model", minilm_static)
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def test_static_task_answers_held_out_tickets(client: Client, tickets: tuple[Path, Path]) -> None:
    rows = [json.loads(line) for line in tickets[1].read_text("utf-8").splitlines()]
    result = client.classify(TASK, [row["text"] for row in rows])
    assert result.calibrated
    labels = [item.label for item in result.items if item is not None]
    right = sum(label == row["label"] for label, row in zip(labels, rows, strict=True))
    assert right / len(rows) > 0.6
    assert result.timings.infer_ns > 0


def test_static_vectors_are_those_of_the_library(
    client: Client, store: Store, minilm_static: str
) -> None:
    texts = ["Where is my parcel?", "I was charged twice!", "caf\u00e9 \u9b5a"]
    result = client.embed(minilm_static, texts)
    library = model2vec.StaticModel.from_pretrained(store.model(minilm_static)[1])
    np.testing.assert_allclose(result.vectors, library.encode(texts), atol=1e-5)


def test_static_vectors_rank_paraphrases_above_others(client: Client, minilm_static: str) -> None:
    texts = ["My parcel has not arrived", "the package never came", "I love your app"]
    one, other, unlike = client.embed(minilm_static, texts).vectors
    assert one @ other > one @ unlike + 0.1


def test_static_model_is_listed_and_tokenizes(client: Client, minilm_static: str) -> None:
    (info,) = [each for each in client.list_models() if each.name == minilm_static]
    assert (info.kind, info.engine, info.architecture) == ("encoder", "static", "model2vec")
    assert (info.quantization, info.dimension, info.max_tokens) == ("int8", 384, 512)
    (tokenized,) = client.tokenize(minilm_static, ["a small fish"]).items
    assert tokenized.tokens == ("a", "small", "fish")


def test_static_model_refuses_what_it_cannot_do(client: Client, minilm_static: str) -> None:
    with pytest.raises(InputTooLong, match="700 tokens, at most 512 are accepted"):
        client.embed(minilm_static, ["fish " * 700])
    cut = client.embed(minilm_static, ["fish " * 700], truncation="truncate")
    assert cut.dropped_tokens.tolist() == [188]
    with pytest.raises(TaskNotSupported):
        list(client.generate(minilm_static, "fish"))


def test_static_command_says_what_it_made(store: Store, minilm_static: str) -> None:
    done = sprat(store, "static", "minilm-l6", "-o", minilm_static)
    assert done.returncode == 0, done.stderr
    assert "minilm-l6-static: distilled from minilm-l6 " in done.stdout
    assert "384 dimensions, int8" in done.stdout
    report = json.loads(sprat(store, "models", "--json").stdout)
    (found,) = [m for m in report["models"] if m["name"] == minilm_static]
    assert (found["engine"], found["tokenizer"]) == ("static", "sprat (WordPiece)")
    refused = sprat(store, "static", minilm_static, "-o", "again")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: minilm-l6-static is static already")
    assert sprat(store, "static", "minilm-l6", "-o", "x", "--dimension", "0").returncode == 2
