"""Between threads and the event loop: results to it, blocking work off it, a loop of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sprat.budget import ComputePermits
from sprat.errors import EngineError, NotReady, SpratError, describe

log = logging.getLogger(__name__)

T = TypeVar("T")


class Mailbox:
    """Carries calls from scheduler threads to one event loop; many calls share one wake-up.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Where the calls run, in the order of `post`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._is_scheduled = False

    def post(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have ``call(*arguments)`` run on the loop. Any thread may post; never blocks."""
        # Append before looking at the flag, clear it before draining: no call is left behind.
        self._calls.append((call, arguments))
        if not self._is_scheduled:
            self._is_scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                log.debug("the event loop is closed; a result is dropped")

    def _deliver(self) -> None:
        self._is_scheduled = False
        try:
            while self._calls:
                call, arguments = self._calls.popleft()
                call(*arguments)
        finally:
            # One that raised does not hold back those behind it.
            if self._calls:
                self._loop.call_soon(self._deliver)


class LoopThread:
    """An event loop on a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="sprat-loop", daemon=True
        )
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises
        ------
        NotReady
            When the loop is closed.
        """
        if self._loop.is_closed():
            coroutine.close()
            raise NotReady("this was closed before")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and its thread."""
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class ComputePool:
    """Runs short blocking work, such as tokenizing long texts, off the event loop under permits.

    Attributes
    ----------
    threads : int
        How many permits there are: the CPU budget.
    """

    def __init__(self, permits: ComputePermits) -> None:
        self.threads = permits.permits
        self._permits = permits
        self._threads = ThreadPoolExecutor(self.threads, thread_name_prefix="sprat-pool")

    async def run(self, owner: str, call: Callable[[], T]) -> T:
        """Run ``call`` on a pool thread holding one permit of ``owner``.

        Raises
        ------
        NotReady
            When the pool is closed.
        """
        try:
            future = self._threads.submit(self._hold_and_call, owner, call)
        except RuntimeError:
            raise NotReady("models are being unloaded") from None
        return await asyncio.wrap_future(future)

    def _hold_and_call(self, owner: str, call: Callable[[], T]) -> T:
        with self._permits.hold(owner):
            return call()

    def close(self) -> None:
        """Finish what waits and runs, then end the threads."""
        self._threads.shutdown(wait=True)


def as_sprat_error(name: str, error: BaseException | None) -> SpratError:
    """What callers are told of an exception of an engine; what is no `SpratError` is logged."""
    if isinstance(error, SpratError):
        return error
    assert error is not None
    log.error("model %s failed on a batch: %s", name, describe(error))
    return EngineError(f"model {name} failed on a batch ({type(error).__name__})")
