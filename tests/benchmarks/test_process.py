from __future__ import annotations

from pathlib import Path

import pytest

from sprat.benchmarks.process import EmptyServerProcess, ServerProcess
from sprat.client import Client
from sprat.errors import SetupError
from sprat.store import Store


def test_process_is_a_server_that_is_ready(
    store: Store, minilm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a user's own server; this one must not read the file.
    monkeypatch.setenv("SPRAT_SERVER__TOKEN_FILE", "/no/such/file")
    with ServerProcess(store.root, models=["minilm-l6"]) as server:
        with Client(server.address) as client:
            client.wait_until_ready(timeout_s=1.0)
            assert [each.name for each in client.list_models()] == ["minilm-l6"]
        usage = server.usage()
        assert 0 < server.load_s < server.ready_s
        assert usage.cpu_s is not None
        assert usage.cpu_s > 0
        assert usage.memory is not None
        assert usage.memory.resident > 20e6
    assert not Path(server.address.removeprefix("unix:")).parent.exists()


def test_process_that_does_not_start_says_why(store: Store) -> None:
    with pytest.raises(
        SetupError, match=r"the server ended with status 1 before it was ready: .*no-such-model"
    ):
        ServerProcess(store.root, models=["no-such-model"])


def test_process_of_empty_server_answers_classify() -> None:
    with EmptyServerProcess() as server, Client(server.address) as client:
        result = client.classify("any", ["text"])
        assert len(result.items) == 1
        assert result.items[0] is not None
        assert result.items[0].label == "label-0"
