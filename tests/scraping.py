"""Scrapes of metrics over HTTP, as a monitoring system makes them."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

WAIT_S = 30.0

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def address_in(log: str) -> str:
    """Where the log of a server says that its metrics are, as ``HOST:PORT``."""
    found = re.search(r"metrics on http://(\S+)/metrics", log)
    assert found is not None, log
    return found[1]


def scrape(address: str, path: str = "/metrics") -> tuple[int, str]:
    """Status and body of a request."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}{path}", timeout=WAIT_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def scraped(address: str, path: str = "/metrics") -> tuple[int, str]:
    """The same, while the loop goes on."""
    return await asyncio.to_thread(scrape, address, path)


class Page:
    """What a scrape has: ``page("sprat_task_drift_rows", task="tickets")``; None for nothing."""

    def __init__(self, text: str) -> None:
        self.families = {each.name: each for each in text_string_to_metric_families(text)}
        self.samples: Samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, frozenset(labels.items())))

    @property
    def names(self) -> set[str]:
        """Of what has samples, without those of the process."""
        return {name for name, _ in self.samples if not name.startswith("process_")}
