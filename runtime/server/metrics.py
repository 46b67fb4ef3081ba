"""Metrics of a running server for Prometheus: what is measured anyhow, read at each scrape.

Nothing is counted here, and nothing happens between scrapes. The event loop accepts a scrape; a
thread of its own answers it, and has the loop read the figures, one task at a time, so that
requests wait for one at most. Never any text: labels are names of the configuration and of bundles.

Of 100 cascades of two tiers with 77 labels each, all of their windows full, a scrape takes 0.2 to
0.4 s of CPU and has 0.84 MB. Some 0.1 s of it are `sprat.drift.compare`, on the loop, 1.1 ms at a
time. The rest is the page: its thread takes turns with the loop, which waits 6 to 16 ms for it, and
57 to 66 ms in the scrape that sets off a full garbage collection (one of the first five).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NamedTuple, get_args
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

import sprat
from sprat.config import ServerConfig
from sprat.drift import DRIFTED, WATCH
from sprat.errors import ConfigError, describe
from sprat.server import listen
from sprat.service import Service
from sprat.values import (
    BreakerState,
    DriftFigure,
    EndpointInfo,
    ModelInfo,
    TaskInfo,
    TierInfo,
    Verdict,
)

log = logging.getLogger(__name__)

WHERE = "server.metrics"
PATH = "/metrics"
READ_S = 5.0
"""How long a scrape waits for the event loop; Prometheus itself gives up after 10 s."""

CLIENT_S = 5.0
"""How long a scrape may take to send its request, or to read on."""

MOST_SCRAPES = 8
"""Side by side, each with a thread; more are hung up on."""


class Family(NamedTuple):
    """What is measured of several things that differ in their labels.

    Attributes
    ----------
    name : str
        A counter ends in ``_total``; the others are gauges.
    labels : tuple of str
    meaning : str
        The help text.
    """

    name: str
    labels: tuple[str, ...]
    meaning: str

    def empty(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Without samples."""
        make = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        return make(self.name, self.meaning, labels=self.labels)


_TIER = ("task", "tier")
_FIGURE = ("task", "figure", "tier")

FAMILIES = (
    Family("sprat_build_info", ("version",), "1; the version of sprat"),
    Family("sprat_compute_threads", (), "compute threads that may run at once: the CPU budget"),
    Family("sprat_task_info", ("task", "kind", "version"), "1; a task that is served"),
    Family("sprat_task_accept_at_ratio", ("task",), "least confidence of an answer; else abstain"),
    Family("sprat_task_tier_accept_at_ratio", _TIER, "below, the next tier; of the last, abstain"),
    Family("sprat_task_tier_asked_texts_total", _TIER, "texts that the tier gave an answer for"),
    Family(
        "sprat_task_tier_answered_texts_total",
        _TIER,
        "texts whose answer is the tier's own, abstentions included",
    ),
    Family("sprat_task_tier_missed_texts_total", _TIER, "texts passed on to the tier in vain"),
    Family(
        "sprat_task_log_rows_total",
        ("task", "outcome"),
        "rows of the decision log, `written` or `lost`",
    ),
    Family("sprat_task_drift_rows", ("task",), "newest answers that are compared"),
    Family(
        "sprat_task_drift_verdict",
        ("task", "verdict"),
        "1 for the worst verdict of the figures, 0 for the others",
    ),
    Family(
        "sprat_task_drift_figure_verdict",
        (*_FIGURE, "verdict"),
        "1 for the verdict on a figure, 0 for the others; `drifted` of `error` or `loss`: the "
        "guarantee no longer holds",
    ),
    Family("sprat_task_drift_figure_rows", _FIGURE, "answers that are known of a figure"),
    Family("sprat_task_drift_psi", _FIGURE, "population stability index"),
    Family("sprat_task_drift_psi_by_chance", _FIGURE, "what of the index so few rows give"),
    Family(
        "sprat_drift_psi_limit",
        ("verdict",),
        "index beyond chance from which on a figure is on `watch` or has `drifted`",
    ),
    Family("sprat_task_drift_ks", _FIGURE, "Kolmogorov-Smirnov statistic of confidences"),
    Family("sprat_task_drift_p", _FIGURE, "probability of such a difference without drift"),
    Family("sprat_task_drift_share_ratio", _FIGURE, "share that is passed on, agreed, wrong, lost"),
    Family("sprat_task_drift_share_low_ratio", _FIGURE, "lower end of its 95 % interval"),
    Family("sprat_task_drift_share_high_ratio", _FIGURE, "upper end of its 95 % interval"),
    Family(
        "sprat_task_drift_expected_ratio",
        _FIGURE,
        "that share among the rows of the reference; of `error` and `loss` the limit",
    ),
    Family(
        "sprat_endpoint_breaker",
        ("endpoint", "state"),
        "1 for the state of the circuit breaker, 0 for the others",
    ),
    Family("sprat_endpoint_today_requests", ("endpoint",), "requests of this day (UTC)"),
    Family("sprat_endpoint_today_tokens", ("endpoint",), "tokens of this day, read and written"),
    Family("sprat_endpoint_today_money", ("endpoint",), "spent this day, by the configured prices"),
    Family("sprat_model_info", ("model", "kind", "engine", "version"), "1; a loaded model"),
    Family("sprat_model_prefix_requests_total", ("model",), "answers and choices finished"),
    Family("sprat_model_prefix_hits_total", ("model",), "of these, with a part already decoded"),
    Family("sprat_model_prefix_saved_tokens_total", ("model",), "prompt tokens not decoded again"),
)
"""Every metric of our own; those of the process are prometheus_client's."""

_Sample = tuple[str, tuple[str, ...], "float | None"]


class ServiceCollector(Collector):
    """Reads a service at each scrape. Made on the event loop that the service lives on.

    Attributes
    ----------
    service : Service or None
        None while models are loaded.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.service: Service | None = None

    def describe(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Every family, for the registry."""
        return [family.empty() for family in FAMILIES]

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Every family with its samples. For any thread but that of the loop.

        Raises
        ------
        TimeoutError
            The loop did not read in `READ_S`.
        RuntimeError
            It is closed.
        """
        reading = self._read()
        try:
            pending = asyncio.run_coroutine_threadsafe(reading, self._loop)
        except RuntimeError:
            reading.close()
            raise
        try:
            samples = pending.result(READ_S)
        finally:
            pending.cancel()
        made = {family.name: family.empty() for family in FAMILIES}
        for name, labels, value in samples:
            if value is not None:
                made[name].add_metric(labels, value)
        return made.values()

    async def _read(self) -> list[_Sample]:
        samples: list[_Sample] = [("sprat_build_info", (sprat.__version__,), 1)]
        samples += [
            ("sprat_drift_psi_limit", ("watch",), WATCH),
            ("sprat_drift_psi_limit", ("drifted",), DRIFTED),
        ]
        if (service := self.service) is None:
            return samples
        samples.append(("sprat_compute_threads", (), service.threads))
        endpoints: dict[str, EndpointInfo] = {}
        for name in tuple(service.registry.tasks):
            tiers = service.task_tiers(name)
            samples += _of_task(service.task_info(name), tiers)
            endpoints |= {t.endpoint.name: t.endpoint for t in tiers if t.endpoint is not None}
            await asyncio.sleep(0)
        for endpoint in endpoints.values():
            samples += _of_endpoint(endpoint)
        for model in service.list_models():
            samples += _of_model(model)
        return samples


def _of_task(task: TaskInfo, tiers: Iterable[TierInfo]) -> Iterator[_Sample]:
    yield "sprat_task_info", (task.name, task.kind, task.version), 1
    yield "sprat_task_accept_at_ratio", (task.name,), task.accept_at
    for tier in tiers:
        place = (task.name, tier.name)
        yield "sprat_task_tier_accept_at_ratio", place, tier.accept_at
        yield "sprat_task_tier_asked_texts_total", place, tier.asked
        yield "sprat_task_tier_answered_texts_total", place, tier.answered
        yield "sprat_task_tier_missed_texts_total", place, tier.missed
    if task.log is not None:
        yield "sprat_task_log_rows_total", (task.name, "written"), task.log.written
        yield "sprat_task_log_rows_total", (task.name, "lost"), task.log.lost
    if task.drift is not None:
        yield "sprat_task_drift_rows", (task.name,), task.drift.rows
        for each in get_args(Verdict):
            yield "sprat_task_drift_verdict", (task.name, each), each == task.drift.verdict
        for figure in task.drift.figures:
            yield from _of_figure(task.name, figure)


def _of_figure(task: str, figure: DriftFigure) -> Iterator[_Sample]:
    place = (task, figure.what, figure.tier)
    for each in get_args(Verdict):
        yield "sprat_task_drift_figure_verdict", (*place, each), each == figure.verdict
    yield "sprat_task_drift_figure_rows", place, figure.rows
    yield "sprat_task_drift_psi", place, figure.psi
    yield "sprat_task_drift_psi_by_chance", place, figure.chance
    yield "sprat_task_drift_ks", place, figure.ks
    yield "sprat_task_drift_p", place, figure.p
    yield "sprat_task_drift_share_ratio", place, figure.share
    yield "sprat_task_drift_share_low_ratio", place, figure.low
    yield "sprat_task_drift_share_high_ratio", place, figure.high
    yield "sprat_task_drift_expected_ratio", place, figure.expected


def _of_endpoint(endpoint: EndpointInfo) -> Iterator[_Sample]:
    for state in get_args(BreakerState):
        yield "sprat_endpoint_breaker", (endpoint.name, state), state == endpoint.state
    yield "sprat_endpoint_today_requests", (endpoint.name,), endpoint.requests_today
    yield "sprat_endpoint_today_tokens", (endpoint.name,), endpoint.tokens_today
    yield "sprat_endpoint_today_money", (endpoint.name,), endpoint.spent_today


def _of_model(model: ModelInfo) -> Iterator[_Sample]:
    yield "sprat_model_info", (model.name, model.kind, model.engine, model.version), 1
    if (use := model.prefix_use) is not None:
        yield "sprat_model_prefix_requests_total", (model.name,), use.requests
        yield "sprat_model_prefix_hits_total", (model.name,), use.hits
        yield "sprat_model_prefix_saved_tokens_total", (model.name,), use.saved_tokens


@contextmanager
def served(config: ServerConfig) -> Iterator[ServiceCollector]:
    """Answer scrapes at ``config.metrics`` from the running loop; yields what reads the service.

    Raises
    ------
    ConfigError
        The address cannot be used, or can be reached from other machines.
    """
    address = listen.parse_tcp(config.metrics, WHERE)
    if not (address.is_loopback or config.insecure):
        raise ConfigError(
            WHERE,
            f"{address} can be reached from other machines, and metrics have neither TLS nor "
            "tokens: a loopback address needed (or --insecure, on a network that you trust)",
        )
    collector = ServiceCollector()
    registry = CollectorRegistry()
    registry.register(collector)
    # CPU time, memory and open files, as every dashboard knows them.
    ProcessCollector(registry=registry)
    try:
        server = _Server(address)
    except OSError as error:
        raise ConfigError(WHERE, f"{address} cannot be bound: {error.strerror}") from None
    server.set_app(_application(make_wsgi_app(registry)))
    loop = asyncio.get_running_loop()
    loop.add_reader(server, server.handle_request)
    log.info("metrics on http://%s:%d%s", address.host, server.server_port, PATH)
    try:
        yield collector
    finally:
        loop.remove_reader(server)
        server.server_close()


def _application(exposition: Callable[..., Any]) -> Callable[..., Iterable[bytes]]:
    """The metrics under their path only, and a plain answer where they cannot be had."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == PATH:
            try:
                found: Iterable[bytes] = exposition(environ, start_response)
                return found
            except Exception as error:
                log.warning("a scrape of the metrics failed: %s", describe(error))
                status, text = "503 Service Unavailable", b"the server is busy or stops\n"
        else:
            status, text = "404 Not Found", f"expected {PATH}\n".encode()
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text]

    return answer


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Not a line for each scrape."""


class _Server(ThreadingMixIn, WSGIServer):
    """Has a thread of its own for each scrape; `handle_request` never waits."""

    daemon_threads = True
    timeout = 0

    def __init__(self, address: listen.TcpAddress) -> None:
        found = socket.getaddrinfo(
            address.host.strip("[]"), address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self.address_family, *_, place = found[0]
        self._open: set[Any] = set()
        super().__init__((str(place[0]), int(place[1])), _Handler)
        self.socket.setblocking(False)

    def server_bind(self) -> None:
        """Bind without a look-up of the host's name, which may go over the network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more."""
        return len(self._open) < MOST_SCRAPES

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """What every request ends with."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or sent nothing."""
        log.debug("a scrape of the metrics was cut off")
