"""The service: shutting down in the right order, and a budget that says what it is."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest
from doubles import (
    ENCODER,
    GENERATOR,
    TASK,
    WAIT_S,
    Encoder,
    Generator,
    make_service,
    no_leaked_threads,
)

from sprat.budget import ComputePermits
from sprat.config import ComputeConfig, Config, LogConfig, ModelConfig
from sprat.decisions import read_decisions
from sprat.errors import ConfigError, NotFound, NotReady
from sprat.service import Service
from sprat.store import Store
from sprat.values import IntArray


class SlowTokenizer(Generator):
    """Tokenizes when told to; notices when the model is gone by then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> IntArray:
        self.begun.set()
        assert self.may_end.wait(WAIT_S)
        assert not self.closed, "tokenized with a model that is gone"
        return super().tokenize(text, add_special=add_special, parse_special=parse_special)


async def test_service_close_waits_for_what_uses_a_model_off_its_thread() -> None:
    """Freeing llama.cpp's vocabulary under a tokenizing thread would end the process."""
    generator = SlowTokenizer()
    with no_leaked_threads():
        service = make_service(Encoder(), generator)
        call = asyncio.ensure_future(service.tokenize(GENERATOR, ["ab"]))
        await asyncio.to_thread(generator.begun.wait, WAIT_S)
        closing = asyncio.ensure_future(service.close())
        await asyncio.sleep(0.02)
        assert not generator.closed
        generator.may_end.set()
        assert len((await asyncio.wait_for(call, WAIT_S)).items[0].ids) == 3
        await asyncio.wait_for(closing, WAIT_S)
    assert generator.closed


async def test_service_after_close_is_not_ready() -> None:
    service = make_service(Encoder(), Generator())
    await service.close()
    with pytest.raises(NotReady):
        await service.embed(ENCODER, ["a"])
    with pytest.raises(NotReady):
        await service.tokenize(ENCODER, ["a"])
    with pytest.raises(NotReady):
        await service.embed(ENCODER, ["a " * 3000], truncation="truncate")


async def test_service_open_of_an_empty_store(tmp_path: Path) -> None:
    with no_leaked_threads():
        service = await Service.open(Config(), Store(tmp_path))
        assert service.list_tasks() == ()
        assert service.list_models() == ()
        await service.close()


async def test_service_open_that_fails_leaves_no_threads(tmp_path: Path) -> None:
    with no_leaked_threads(), pytest.raises(NotFound):
        await Service.open(Config(models={"nothing": ModelConfig()}), Store(tmp_path))


async def test_service_open_with_a_log_that_cannot_be_leaves_no_threads(tmp_path: Path) -> None:
    config = Config(log=LogConfig(path=str(tmp_path)))
    with no_leaked_threads(), pytest.raises(ConfigError, match=r"log\.path: .* Is a directory"):
        await Service.open(config, Store(tmp_path / "home"))


async def test_service_close_writes_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    with no_leaked_threads():
        service = make_service(Encoder(), Generator())
        await service.keep_decisions(LogConfig(path=str(path)), ComputePermits(2))
        await service.classify(TASK, ["a", "b"])
        await service.close()
    assert len(list(read_decisions(path, task=TASK))) == 2


async def test_service_warns_of_more_threads_than_cores(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sprat"):
        service = await Service.open(Config(compute=ComputeConfig(threads=4096)), Store(tmp_path))
        await service.close()
    assert "compute threads: 4096" in caplog.text
    assert "compute.threads is 4096, but this process has only" in caplog.text


async def test_service_says_its_budget_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sprat"):
        await (await Service.open(Config(), Store(tmp_path))).close()
    assert "physical cores" in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
