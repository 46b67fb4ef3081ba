"""A remote tier on a real llama.cpp server: SmolLM2 answers what a head is not sure of."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from doubles import bundle
from remotes import with_remote
from servers import start_server
from tiny_models import encoder_files, write_files

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.client import Client
from sprat.pull import pull
from sprat.store import Store

TASK = "tickets"
LABELS = ("parcel", "refund", "praise")
TEXTS = ("praise", "refund", "What is the capital of France?", "It is parcel")
NEEDS = ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return dict(json.load(response))


@pytest.fixture(scope="module")
def url(store: Store, smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A llama.cpp server of SmolLM2-135M on loopback."""
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        pytest.skip(f"llama-cpp-python[server] is not installed: {missing[0]} is missing")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    weights = store.model("smollm2-135m")[0].weights
    log = tmp_path_factory.mktemp("llama") / "log"
    command = [
        *(sys.executable, "-m", "llama_cpp.server", "--model", str(smollm / weights)),
        *("--port", str(port), "--n_ctx", "1024", "--n_threads", "2", "--verbose", "false"),
        # Else there are no log-probabilities.
        *("--logits_all", "true"),
    ]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{url}/models", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def own(tmp_path: Path) -> Store:
    """A store with a head that is never sure, and a remote tier that asks SmolLM2."""
    store = Store(tmp_path / "home")
    pull(str(write_files(tmp_path / "tiny-encoder", encoder_files())), store)
    made = bundle(store.model("tiny-encoder")[0], accept_at=1.0)
    document = made.manifest.model_dump(mode="json") | {"labels": LABELS}
    head = Bundle(BundleManifest.model_validate(document), made.heads)
    tiered = with_remote(head, asks={"model": "smollm2"}).named(TASK)
    store.add_bundle(TASK, lambda path: tiered.save(path, report="{}"))
    return store


def test_remote_model_answers_as_the_server_does(own: Store, url: str, tmp_path: Path) -> None:
    config = tmp_path / "sprat.toml"
    config.write_text(
        f'[endpoints.llama]\nurl = "{url}"\nmodel = "smollm2"\ntimeout_s = 120\nconcurrency = 2\n'
        f'daily_requests = {len(TEXTS)}\n[tasks.{TASK}]\nbundle = "{TASK}"\n'
        'tiers = { remote = { endpoint = "llama" } }\n'
    )
    server = start_server(own, tmp_path, "--config", str(config))
    try:
        with Client(server.address, timeout_s=300) as client:
            items = client.classify(TASK, TEXTS).items
            (late,) = client.classify(TASK, TEXTS[:1]).items
            (info,) = client.list_tasks()
    finally:
        assert server.stop() == 0
    prompt = "\n".join(
        [
            "Classify the text that the user sends.",
            "Answer with one of these labels and nothing else:",
            *(f"- {label}" for label in LABELS),
        ]
    )
    named = []
    for text, item in zip(TEXTS, items, strict=True):
        messages = [{"role": "system", "content": prompt}, {"role": "user", "content": text}]
        body = {"messages": messages, "temperature": 0, "max_tokens": 22}
        said = post(url, body)["choices"][0]["message"]["content"].strip("-. ").lower()
        assert item is not None
        assert (item.tier, item.degraded) == (1, None)
        assert item.input_tokens > 40
        assert item.confidence is not None
        if said in LABELS:
            assert (item.label, item.abstained) == (said, False)
            assert 0 < item.confidence < 1
        else:
            assert (item.label, item.abstained, item.confidence) == ("", True, 0.0)
        named.append(item.label)
    # The model is weak; that it names a label for some and none for others is what is wanted here.
    assert set(named) & set(LABELS)
    assert "" in named
    far = info.tiers[1]
    assert far.endpoint is not None
    assert far.endpoint.tokens_today > 160
    assert (far.endpoint.state, far.endpoint.requests_today) == ("closed", len(TEXTS))
    assert late is not None
    assert (late.degraded, late.abstained) == ("overload", True)
    assert not any(text in server.log.read_text() for text in TEXTS)
