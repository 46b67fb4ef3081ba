"""Clients of a sprat server: `Client` blocks, `AsyncClient` awaits; the same methods and results.

Results are `sprat.values`; vectors are numpy arrays. What the server raises is raised here as the
same class of `sprat.errors`, with the same facts.
"""

from sprat.client.aio import AsyncClient
from sprat.client.blocking import Client
from sprat.client.channel import DEFAULT_TIMEOUT_S, SERVICE_CONFIG, to_error

__all__ = ["DEFAULT_TIMEOUT_S", "SERVICE_CONFIG", "AsyncClient", "Client", "to_error"]
