"""From the configuration of an endpoint to the endpoint."""

from __future__ import annotations

import os
from pathlib import Path

from sprat.endpoint_config import EndpointConfig
from sprat.endpoints.base import Endpoint
from sprat.endpoints.breaker import Breaker
from sprat.endpoints.chat import ChatService
from sprat.endpoints.guard import Guard
from sprat.endpoints.spending import Caps, Prices, Spending
from sprat.errors import ConfigError
from sprat.remote import is_loopback, is_url, read_key

_FIELDS = {"endpoint": "url", "--tls-ca": "ca", "key": "key_file"}
"""Where what `sprat.remote` calls so stands in the configuration."""


def open_endpoint(name: str, config: EndpointConfig, folder: Path) -> Endpoint:
    """Make an endpoint; nothing is sent yet.

    Parameters
    ----------
    name : str
        In the configuration.
    folder : Path
        Where its spending is kept, if there is a cap on it.

    Raises
    ------
    ConfigError
        Something of it cannot be used, its key is missing, or nothing bounds what it may cost.
    CorruptFile
        What was kept of its spending cannot be read.
    """
    caps = Caps(config.daily_requests, config.daily_tokens, config.daily_spend)
    spending = Spending(
        name,
        folder / f"{name}.json" if caps else None,
        caps=caps,
        prices=Prices(config.input_price, config.output_price),
    )
    guard = Guard(
        name,
        breaker=Breaker(name),
        spending=spending,
        most_open=config.concurrency + config.queue,
    )
    key = _key(name, config)
    if not is_url(config.url):
        # It brings gRPC along.
        from sprat.endpoints.peer import PeerService

        return PeerService(name, config, guard, key)
    try:
        service = ChatService(name, config, guard, key)
    except ConfigError as error:
        raise ConfigError(
            f"endpoints.{name}.{_FIELDS.get(error.path, 'url')}",
            error.message.removeprefix(f"{error.path}: "),
        ) from None
    if not caps and not is_loopback(config.url):
        raise ConfigError(
            f"endpoints.{name}",
            "expected daily_requests, daily_tokens or daily_spend: nothing else bounds what a day "
            "may cost",
        )
    return service


def _key(name: str, config: EndpointConfig) -> str | None:
    if config.key_file is not None:
        return read_key(config.key_file, where=f"endpoints.{name}.key_file")
    if not config.key_variable:
        return None
    if config.key_variable not in os.environ:
        raise ConfigError(
            f"endpoints.{name}.key_variable", f"the environment has no {config.key_variable}"
        )
    return read_key(None, config.key_variable)
