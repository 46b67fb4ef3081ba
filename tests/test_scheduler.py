"""What carries calls between threads and event loops: mailbox, loop thread, compute pool."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
from doubles import WAIT_S, no_leaked_threads, until
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.budget import ComputePermits
from sprat.errors import (
    QueueFull,
)
from sprat.scheduler import (
    ComputePool,
    LoopThread,
    Mailbox,
)

# -- mailbox ---------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_scheduler_mailbox_delivers_every_call_in_the_order_of_each_poster(
    counts: list[int],
) -> None:
    async def main() -> list[tuple[int, int]]:
        mailbox = Mailbox(asyncio.get_running_loop())
        got: list[tuple[int, int]] = []
        everything = asyncio.Event()

        def receive(poster: int, number: int) -> None:
            got.append((poster, number))
            if len(got) == sum(counts):
                everything.set()

        def post(poster: int, count: int) -> None:
            for number in range(count):
                mailbox.post(receive, poster, number)
                if number % 7 == poster % 7:
                    time.sleep(0)

        threads = [threading.Thread(target=post, args=each) for each in enumerate(counts)]
        for thread in threads:
            thread.start()
        if sum(counts):
            await asyncio.wait_for(everything.wait(), WAIT_S)
        for thread in threads:
            thread.join()
        return got

    got = asyncio.run(main())
    for poster, count in enumerate(counts):
        assert [number for p, number in got if p == poster] == list(range(count))


async def test_scheduler_mailbox_wakes_a_sleeping_loop_for_each_lone_call() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    for _ in range(100):
        arrived = asyncio.Event()
        thread = threading.Thread(target=mailbox.post, args=(arrived.set,))
        thread.start()
        await asyncio.wait_for(arrived.wait(), WAIT_S)
        thread.join()


async def test_scheduler_mailbox_shares_wake_ups() -> None:
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(loop)
    got: list[int] = []
    for number in range(100):
        mailbox.post(got.append, number)
    assert got == [], "calls run on the loop, not inside post"
    await asyncio.sleep(0)
    assert got == list(range(100))


async def test_scheduler_mailbox_call_that_posts_is_served_too() -> None:
    mailbox = Mailbox(asyncio.get_running_loop())
    arrived = asyncio.Event()
    mailbox.post(mailbox.post, arrived.set)
    await asyncio.wait_for(arrived.wait(), WAIT_S)


async def test_scheduler_mailbox_call_that_raises_holds_nobody_back() -> None:
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(loop)
    noticed: list[object] = []
    loop.set_exception_handler(lambda _, context: noticed.append(context["exception"]))
    arrived = asyncio.Event()

    def broken() -> None:
        raise KeyError

    mailbox.post(broken)
    mailbox.post(arrived.set)
    await asyncio.wait_for(arrived.wait(), WAIT_S)
    assert len(noticed) == 1


def test_scheduler_mailbox_of_a_closed_loop_drops_quietly() -> None:
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop)
    loop.close()
    mailbox.post(pytest.fail, "must not run")


# -- loop thread and pool --------------------------------------------------------------------


def test_scheduler_loop_thread_runs_coroutines_and_raises_their_errors() -> None:
    async def give(value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def fail() -> None:
        raise QueueFull("full")

    with no_leaked_threads():
        loop = LoopThread()
        assert [loop.run(give(i)) for i in range(3)] == [0, 1, 2]
        with pytest.raises(QueueFull):
            loop.run(fail())
        assert loop.run(give(7)) == 7
        loop.close()


def test_scheduler_loop_thread_serves_many_threads() -> None:
    async def double(value: int) -> int:
        await asyncio.sleep(0)
        return 2 * value

    loop = LoopThread()
    got: dict[int, int] = {}

    def call(value: int) -> None:
        got[value] = loop.run(double(value))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    loop.close()
    assert got == {i: 2 * i for i in range(20)}


def test_scheduler_loop_thread_close_ends_its_helper_threads() -> None:
    before = set(threading.enumerate())
    loop = LoopThread()
    loop.run(asyncio.to_thread(lambda: None))
    loop.close()
    until(lambda: set(threading.enumerate()) <= before, "a thread is left behind")


def test_scheduler_loop_thread_close_closes_open_generators() -> None:
    ended = threading.Event()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.set()

    stream = numbers()

    async def first() -> int:
        return await anext(stream)

    loop = LoopThread()
    assert loop.run(first()) == 1
    loop.close()
    assert ended.is_set()


async def test_scheduler_pool_runs_under_a_permit() -> None:
    permits = ComputePermits(1)
    pool = ComputePool(permits)
    with permits.hold("other"):
        call = asyncio.ensure_future(pool.run("m", lambda: 42))
        await asyncio.sleep(0.02)
        assert not call.done()
    assert await asyncio.wait_for(call, WAIT_S) == 42
    pool.close()


async def test_scheduler_pool_passes_errors_on_and_survives() -> None:
    pool = ComputePool(ComputePermits(1))

    def fail() -> None:
        raise QueueFull("full")

    with pytest.raises(QueueFull):
        await pool.run("m", fail)
    assert await pool.run("m", lambda: 1) == 1
    with no_leaked_threads():
        pool.close()
