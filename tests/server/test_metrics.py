"""Metrics as a monitoring system sees them: what they say, and when they cannot be had."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.error
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from doubles import (
    ENCODER,
    GENERATOR,
    TASK,
    WAIT_S,
    Encoder,
    Generator,
    eventually,
    make_service,
    serving,
)
from scraping import Page, address_in, scraped

import sprat
from sprat.config import ServerConfig
from sprat.drift import DRIFTED, WATCH
from sprat.errors import ConfigError
from sprat.server import metrics
from sprat.server.metrics import FAMILIES, ServiceCollector, served
from sprat.service import Service
from sprat.values import (
    Drift,
    DriftFigure,
    EndpointInfo,
    LogUse,
    PrefixUse,
    Sampling,
    TaskInfo,
    TierInfo,
)

LOOPBACK = ServerConfig(metrics="127.0.0.1:0")
ENDPOINT = EndpointInfo("far", "half_open", 7, 900, 0.25)
CASCADE = TaskInfo(
    name="cascade",
    kind="route",
    labels=("money", "secret-label"),
    models=(("a", "1"), ("b", "2")),
    calibrated=True,
    accept_at=0.5,
    version="0123456789ab",
    tiers=(
        TierInfo("static", 0.9, asked=10, answered=6, missed=0),
        TierInfo("remote", 0.5, asked=3, answered=3, missed=1, endpoint=ENDPOINT),
    ),
    log=LogUse(written=8, lost=2),
    drift=Drift(
        "drifted",
        2000,
        (
            DriftFigure("confidence", "static", 2000, "watch", psi=0.2, chance=0.01, ks=0.1, p=0.0),
            DriftFigure("error", "", 40, "drifted", 0.3, 0.2, 0.4, expected=0.1, p=0.001),
        ),
    ),
)


@dataclass
class Known:
    """A task of which only the facts matter."""

    info: TaskInfo


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    generator = Generator(context_length=100_000, cells=10**9)
    async with serving(Encoder(), generator, threads=3) as made:
        made.registry.tasks["cascade"] = Known(CASCADE)  # type: ignore[assignment]
        yield made


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "sprat")


async def test_metrics_have_every_family_with_its_help(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with served(LOOPBACK) as collector:
        collector.service = service
        status, page = await scraped(address_in(caplog.text))
    assert status == 200
    families = Page(page).families
    for each in FAMILIES:
        family = families[each.name.removesuffix("_total")]
        assert family.documentation == each.meaning
        assert family.type == ("counter" if each.name.endswith("_total") else "gauge")
        assert family.samples, each.name
        assert all(sorted(s.labels) == sorted(each.labels) for s in family.samples), each.name
    process = {name for name in families if name.startswith("process_")}
    assert {"process_cpu_seconds", "process_resident_memory_bytes"} <= process
    assert families.keys() - process == {f.name.removesuffix("_total") for f in FAMILIES}
    assert "secret-label" not in page


async def test_metrics_say_what_the_tasks_say(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with served(LOOPBACK) as collector:
        collector.service = service
        _, page = await scraped(address_in(caplog.text))
    value = Page(page)
    version = service.task_info(TASK).version
    assert value("sprat_build_info", version=sprat.__version__) == 1
    assert value("sprat_compute_threads") == 3
    assert value("sprat_task_info", task=TASK, kind="classify", version=version) == 1
    assert value("sprat_task_accept_at_ratio", task=TASK) == 0.4
    assert value("sprat_task_drift_verdict", task=TASK, verdict="unknown") == 1
    first, second = {"task": "cascade", "tier": "static"}, {"task": "cascade", "tier": "remote"}
    assert value("sprat_task_tier_accept_at_ratio", **first) == 0.9
    assert value("sprat_task_tier_asked_texts_total", **first) == 10
    assert value("sprat_task_tier_answered_texts_total", **first) == 6
    assert value("sprat_task_tier_missed_texts_total", **second) == 1
    assert value("sprat_task_log_rows_total", task="cascade", outcome="written") == 8
    assert value("sprat_task_log_rows_total", task="cascade", outcome="lost") == 2
    assert value("sprat_task_drift_rows", task="cascade") == 2000
    verdicts = ["stable", "watch", "drifted", "too_few", "unknown"]
    told = [value("sprat_task_drift_verdict", task="cascade", verdict=each) for each in verdicts]
    assert told == [0, 0, 1, 0, 0]
    spread = {"task": "cascade", "figure": "confidence", "tier": "static"}
    assert value("sprat_task_drift_figure_verdict", **spread, verdict="watch") == 1
    assert value("sprat_task_drift_figure_verdict", **spread, verdict="drifted") == 0
    assert value("sprat_task_drift_figure_rows", **spread) == 2000
    assert value("sprat_task_drift_psi", **spread) == 0.2
    assert value("sprat_task_drift_psi_by_chance", **spread) == 0.01
    assert value("sprat_task_drift_ks", **spread) == 0.1
    assert value("sprat_task_drift_p", **spread) == 0.0
    assert value("sprat_task_drift_share_ratio", **spread) is None
    assert value("sprat_drift_psi_limit", verdict="watch") == WATCH
    assert value("sprat_drift_psi_limit", verdict="drifted") == DRIFTED
    error = {"task": "cascade", "figure": "error", "tier": ""}
    assert value("sprat_task_drift_psi", **error) is None
    assert value("sprat_task_drift_share_ratio", **error) == 0.3
    assert value("sprat_task_drift_share_low_ratio", **error) == 0.2
    assert value("sprat_task_drift_share_high_ratio", **error) == 0.4
    assert value("sprat_task_drift_expected_ratio", **error) == 0.1
    states = [
        value("sprat_endpoint_breaker", endpoint="far", state=each)
        for each in ("closed", "open", "half_open")
    ]
    assert states == [0, 0, 1]
    assert value("sprat_endpoint_today_requests", endpoint="far") == 7
    assert value("sprat_endpoint_today_tokens", endpoint="far") == 900
    assert value("sprat_endpoint_today_money", endpoint="far") == 0.25


async def test_metrics_of_models_follow_what_they_do(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("requests", "hits", "saved_tokens")
    with served(LOOPBACK) as collector:
        collector.service = service
        address = address_in(caplog.text)
        for asked in range(2):
            page = Page((await scraped(address))[1])
            use = service.registry.model(GENERATOR).prefix_use  # type: ignore[union-attr]
            assert isinstance(use, PrefixUse)
            assert use.requests == asked
            for name in names:
                metric = f"sprat_model_prefix_{name}_total"
                assert page(metric, model=GENERATOR) == getattr(use, name)
                assert page(metric, model=ENCODER) is None
            chunks = service.generate(GENERATOR, "some prompt", Sampling(max_tokens=2))
            assert [chunk async for chunk in chunks]


async def test_metrics_count_the_texts_of_a_single_tier(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    await service.classify(TASK, ["a", "b", "c"])
    with served(LOOPBACK) as collector:
        collector.service = service
        page = Page((await scraped(address_in(caplog.text)))[1])
    assert service.task_info(TASK).tiers == ()
    for name, count in (("asked", 3), ("answered", 3), ("missed", 0)):
        assert page(f"sprat_task_tier_{name}_texts_total", task=TASK, tier="head") == count
    assert page("sprat_task_tier_accept_at_ratio", task=TASK, tier="head") == 0.4


async def test_metrics_are_read_one_task_at_a_time(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """So that requests wait for one at most."""
    turns: list[str] = []

    class Told:
        @property
        def info(self) -> TaskInfo:
            turns.append("task")
            asyncio.get_running_loop().call_soon(turns.append, "others")
            return CASCADE

    for number in range(3):
        service.registry.tasks[f"told{number}"] = Told()  # type: ignore[assignment]
    with served(LOOPBACK) as collector:
        collector.service = service
        assert (await scraped(address_in(caplog.text)))[0] == 200
    assert turns == ["task", "task", "others", "others"] * 3


async def test_metrics_of_one_endpoint_of_many_tiers_stand_once(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    twice = replace(CASCADE, name="twice")
    service.registry.tasks["twice"] = Known(twice)  # type: ignore[assignment]
    with served(LOOPBACK) as collector:
        collector.service = service
        _, page = await scraped(address_in(caplog.text))
    assert page.count("sprat_endpoint_today_tokens{") == 1
    assert page.count("sprat_task_tier_missed_texts_total{") == 5  # with the task of one tier


async def test_metrics_are_chosen_by_name(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with served(LOOPBACK) as collector:
        collector.service = service
        path = "/metrics?name[]=sprat_compute_threads"
        _, page = await scraped(address_in(caplog.text), path)
    assert Page(page).samples == {("sprat_compute_threads", frozenset()): 3}


async def test_metrics_while_loading_are_those_of_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with served(LOOPBACK):
        status, page = await scraped(address_in(caplog.text))
    assert status == 200
    assert Page(page).names == {"sprat_build_info", "sprat_drift_psi_limit"}


@pytest.mark.parametrize("path", ["/", "/metrics/", "/favicon.ico", "/metrics.json"])
async def test_metrics_have_one_path(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with served(LOOPBACK):
        assert await scraped(address_in(caplog.text), path) == (404, "expected /metrics\n")


async def test_metrics_of_a_busy_loop_come_when_it_is_free(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with served(LOOPBACK) as collector:
        collector.service = service
        scraping = asyncio.ensure_future(scraped(address_in(caplog.text)))
        for _ in range(5):
            await asyncio.sleep(0.01)
            time.sleep(0.05)
        status, _ = await asyncio.wait_for(scraping, WAIT_S)
    assert status == 200


async def test_metrics_that_the_loop_does_not_read_fail_in_time(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "READ_S", 0.05)
    never = asyncio.Event()

    async def read(collector: ServiceCollector) -> list[Any]:
        await never.wait()
        return []

    with monkeypatch.context() as patch, served(LOOPBACK) as collector:
        collector.service = service
        address = address_in(caplog.text)
        patch.setattr(ServiceCollector, "_read", read)
        assert await scraped(address) == (503, "the server is busy or stops\n")
        patch.undo()
        # The next one is not held up by it.
        assert (await scraped(address))[0] == 200
    assert "a scrape of the metrics failed: TimeoutError at" in caplog.text


async def test_metrics_that_cannot_be_read_fail_without_a_word_of_it(
    service: Service, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        @property
        def info(self) -> TaskInfo:
            raise RuntimeError("some text")

    service.registry.tasks["broken"] = Broken()  # type: ignore[assignment]
    with served(LOOPBACK) as collector:
        collector.service = service
        assert (await scraped(address_in(caplog.text)))[0] == 503
    assert "RuntimeError at test_metrics.py" in caplog.text
    assert "some text" not in caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_metrics_of_a_closed_loop_fail_at_once() -> None:
    async def make() -> ServiceCollector:
        return ServiceCollector()

    collector = asyncio.run(make())
    with pytest.raises(RuntimeError, match="closed"):
        collector.collect()


async def test_metrics_of_a_service_that_is_closing_and_closed_are_its_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = make_service(Encoder(), Generator(context_length=100_000, cells=10**9))
    await service.classify(TASK, ["a", "b"])
    with served(LOOPBACK) as collector:
        collector.service = service
        address = address_in(caplog.text)
        closing = asyncio.ensure_future(service.close())
        during = Page((await scraped(address))[1])
        await closing
        after = Page((await scraped(address))[1])
    for page in (during, after):
        assert page("sprat_task_tier_answered_texts_total", task=TASK, tier="head") == 2


async def test_metrics_end_with_their_server(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with served(LOOPBACK) as collector:
        collector.service = service
        address = address_in(caplog.text)
        assert (await scraped(address))[0] == 200
    with pytest.raises(urllib.error.URLError, match="refused"):
        await scraped(address)


async def test_metrics_of_a_client_that_says_nothing_hold_up_nobody(
    service: Service,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics._Handler, "timeout", 0.2)
    caplog.set_level("DEBUG", "sprat")
    with served(LOOPBACK) as collector:
        collector.service = service
        address = address_in(caplog.text)
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), WAIT_S):
            assert (await scraped(address))[0] == 200
            await eventually(lambda: "was cut off" in caplog.text, "the client is waited for")
    assert "Traceback" not in capfd.readouterr().err


async def test_metrics_of_many_clients_that_say_nothing_take_few_threads(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    def waiting() -> int:
        return sum("process_request" in thread.name for thread in threading.enumerate())

    with served(LOOPBACK) as collector, ExitStack() as stack:
        collector.service = service
        address = address_in(caplog.text)
        host, _, port = address.partition(":")
        for _ in range(metrics.MOST_SCRAPES):
            client = await asyncio.to_thread(socket.create_connection, (host, int(port)), WAIT_S)
            stack.enter_context(client)
        await eventually(lambda: waiting() == metrics.MOST_SCRAPES, "not all are served")
        with pytest.raises(OSError, match=r"closed|reset"):
            await scraped(address)
        stack.close()
        await eventually(lambda: waiting() == 0, "threads are left behind")
        assert (await scraped(address))[0] == 200


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.168.1.5:0", "example.org:9501"])
async def test_metrics_beyond_loopback_are_refused(address: str) -> None:
    config = ServerConfig(metrics=address, token_file="tokens")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="neither TLS nor tokens") as caught, served(config):
        pass
    assert caught.value.path == "server.metrics"
    assert address in caught.value.message


async def test_metrics_beyond_loopback_may_be_allowed(caplog: pytest.LogCaptureFixture) -> None:
    with served(ServerConfig(metrics="0.0.0.0:0", insecure=True)):
        port = address_in(caplog.text).rpartition(":")[2]
        assert (await scraped(f"127.0.0.1:{port}"))[0] == 200


@pytest.mark.parametrize("address", ["9501", "unix:/run/metrics", "localhost:", "::1:9501"])
async def test_metrics_at_no_address_are_refused(address: str) -> None:
    with (
        pytest.raises(ConfigError, match="expected HOST:PORT") as caught,
        served(ServerConfig(metrics=address)),
    ):
        pass
    assert caught.value.path == "server.metrics"
    assert repr(address) in caught.value.message


async def test_metrics_open_no_connection_and_look_up_no_name(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a name is looked up")

    for name in ("getfqdn", "gethostbyaddr", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    with served(LOOPBACK) as collector:
        collector.service = service
        assert (await scraped(address_in(caplog.text)))[0] == 200
