"""Batches: every row once, within the budget, nobody starves, tokens add up."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprat.batching import MIN_TOKENS, TOKEN_BUDGET, Batch, EncodeQueue, EncodeWork
from sprat.errors import EngineError

lengths_lists = st.lists(st.integers(1, 600), min_size=1, max_size=12)


def work(*lengths: int, deadline: float = math.inf) -> EncodeWork:
    rows = [np.zeros(n, np.int32) for n in lengths]
    return EncodeWork(rows, np.zeros((len(rows), 4), np.float32), deadline, lambda _: None)


def queue(*works: EncodeWork, capacity: int = 10**6, workers: int = 1) -> EncodeQueue:
    made = EncodeQueue(capacity, workers)
    for each in works:
        made.add(each)
    return made


def tokens(batch: Batch) -> int:
    return sum(len(each.rows[i]) for each, indices in batch for i in indices)


def count(batch: Batch) -> int:
    return sum(len(indices) for _, indices in batch)


# -- one request -----------------------------------------------------------------------------


def test_batching_work_starts_with_its_longest_row_and_keeps_ties_in_order() -> None:
    each = work(5, 9, 5, 9, 1)
    assert each.take(1000) == [1, 3, 0, 2, 4]
    assert each.is_taken
    assert each.tokens_left == 0


def test_batching_work_gives_at_least_one_row() -> None:
    each = work(400, 100)
    assert each.take(1) == [0]
    assert not each.is_taken
    assert each.next_length == 100
    assert each.take(0) == [1]
    assert each.take(10) == []


def test_batching_work_is_dead_when_cancelled_or_failed() -> None:
    assert not work(1).is_dead
    cancelled, failed = work(1), work(1)
    cancelled.cancelled = True
    assert cancelled.is_dead
    failed.error = EngineError("broken")
    assert failed.is_dead


# -- the queue -------------------------------------------------------------------------------


def test_batching_empty_queue_gives_no_batch() -> None:
    empty = queue()
    assert empty.pop() == []
    assert not empty
    assert empty.tokens == 0


def test_batching_lone_text_is_one_batch() -> None:
    each = work(7)
    assert queue(each, workers=4).pop() == [(each, [0])]


def test_batching_small_requests_share_a_batch() -> None:
    works = [work(8) for _ in range(8)]
    (batch, rest) = (q := queue(*works)).pop(), q.pop()
    assert batch == [(each, [0]) for each in works]
    assert rest == []


def test_batching_one_request_is_shared_out_over_workers() -> None:
    each = work(*[20] * 10)
    shared = queue(each, workers=2)
    assert [tokens(shared.pop()) for _ in range(5)] == [100, 40, 20, 20, 20]


def test_batching_does_not_split_into_crumbs() -> None:
    each = work(*[MIN_TOKENS // 4] * 4)
    assert count(queue(each, workers=8).pop()) == 4


def test_batching_never_exceeds_the_token_budget() -> None:
    each = work(*[10] * 1000)
    assert tokens(queue(each).pop()) == TOKEN_BUDGET // 10 * 10


def test_batching_row_above_the_budget_goes_alone() -> None:
    shared = queue(work(TOKEN_BUDGET + 1, 1), work(1))
    assert [count(shared.pop()), count(shared.pop())] == [1, 2]


def test_batching_small_request_behind_a_huge_one_is_in_the_next_batch() -> None:
    huge, small = work(*[64] * 1000), work(5)
    shared = queue(huge, workers=2)
    shared.pop()
    shared.add(small)
    shared.pop()
    assert any(each is small for each, _ in shared.pop())


def test_batching_huge_requests_take_turns() -> None:
    works = [work(*[128] * 16) for _ in range(3)]
    shared = queue(*works)
    served = [shared.pop()[0][0] for _ in range(6)]
    assert served == works * 2


def test_batching_has_room_up_to_the_capacity() -> None:
    limited = queue(capacity=100)
    assert limited.has_room(10**9), "an empty queue takes any work"
    limited.add(work(60))
    assert limited.has_room(40)
    assert not limited.has_room(41)
    limited.pop()
    assert limited.has_room(10**9)


def test_batching_drop_dead_takes_cancelled_failed_and_expired_work() -> None:
    cancelled, failed, expired, late, fine = (
        work(10),
        work(20, 20),
        work(30, deadline=5.0),
        work(40, deadline=5.1),
        work(50),
    )
    shared = queue(cancelled, failed, expired, late, fine)
    assert shared.drop_dead(4.0) == []
    cancelled.cancelled = True
    failed.error = EngineError("broken")
    assert shared.drop_dead(5.0) == [cancelled, failed, expired]
    assert shared.tokens == 90
    assert shared.drop_dead(6.0) == [late]
    assert [each for each, _ in shared.pop()] == [fine]
    assert shared.tokens == 0


def test_batching_drop_dead_counts_only_what_still_waits() -> None:
    each = work(*[400] * 3)
    shared = queue(each)
    shared.pop()
    each.cancelled = True
    assert shared.drop_dead(0.0) == [each]
    assert shared.tokens == 0


class CancelledInBetween(EncodeWork):
    """Cancelled by another thread between two looks at it."""

    looks = 0

    @property
    def is_dead(self) -> bool:
        self.looks += 1
        return self.looks > 1


def test_batching_work_cancelled_while_others_are_dropped_is_not_lost() -> None:
    racing = CancelledInBetween(
        [np.zeros(7, np.int32)], np.zeros((1, 4), np.float32), math.inf, print
    )
    dead = work(3)
    dead.cancelled = True
    shared = queue(dead, racing)
    dropped = shared.drop_dead(0.0) + shared.drop_dead(0.0)
    assert dropped == [dead, racing]
    assert shared.tokens == 0


# -- properties ------------------------------------------------------------------------------


def check_budget(shared: EncodeQueue, batch: Batch, waiting: int) -> None:
    share = math.ceil(waiting / shared.workers)
    budget = min(TOKEN_BUDGET, max(MIN_TOKENS, share))
    assert tokens(batch) <= budget or count(batch) == 1
    assert all(indices for _, indices in batch)


@given(st.lists(lengths_lists, max_size=8), st.integers(1, 4))
def test_batching_every_row_is_in_exactly_one_batch(
    requests: list[list[int]], workers: int
) -> None:
    works = [work(*lengths) for lengths in requests]
    shared = queue(*works, workers=workers)
    seen: Counter[tuple[int, int]] = Counter()
    while shared:
        waiting = shared.tokens
        assert waiting == sum(each.tokens_left for each in works)
        batch = shared.pop()
        assert batch
        assert len({id(each) for each, _ in batch}) == len(batch)
        check_budget(shared, batch, waiting)
        seen.update((works.index(each), i) for each, indices in batch for i in indices)
    assert shared.tokens == 0
    assert all(each.is_taken for each in works)
    expected = {(w, i) for w, lengths in enumerate(requests) for i in range(len(lengths))}
    assert seen == Counter(expected)


@given(st.lists(lengths_lists, min_size=1, max_size=8), st.integers(1, 4))
def test_batching_nobody_waits_longer_than_the_requests_before_it(
    requests: list[list[int]], workers: int
) -> None:
    """The i-th request in the queue is in the (i + 1)-th batch at the latest."""
    works = [work(*lengths) for lengths in requests]
    shared = queue(*works, workers=workers)
    served: set[int] = set()
    for turn in range(len(works)):
        served.update(works.index(each) for each, _ in shared.pop())
        assert turn in served


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), lengths_lists),
        st.tuples(st.just("pop"), st.none()),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("drop"), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(operations, st.integers(1, 3))
def test_batching_tokens_add_up_whatever_happens(
    steps: list[tuple[str, object]], workers: int
) -> None:
    shared = queue(workers=workers)
    waiting: list[EncodeWork] = []
    for verb, argument in steps:
        if verb == "add":
            assert isinstance(argument, list)
            each = work(*argument)
            shared.add(each)
            waiting.append(each)
        elif verb == "pop":
            shared.pop()
            waiting = [each for each in waiting if not each.is_taken]
        elif verb == "cancel" and waiting:
            assert isinstance(argument, int)
            waiting[argument % len(waiting)].cancelled = True
        elif verb == "drop":
            dropped = {id(each) for each in shared.drop_dead(0.0)}
            assert dropped == {id(each) for each in waiting if each.cancelled}
            waiting = [each for each in waiting if not each.cancelled]
        assert len(shared) == len(waiting)
        assert shared.tokens == sum(each.tokens_left for each in waiting)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_batching_rows_of_like_length_share_a_batch(workers: int) -> None:
    """Padding is waste: longest first, the spread within a batch stays small."""
    rng = np.random.default_rng(7)
    each = work(*rng.integers(4, 200, 256).tolist())
    shared = queue(each, workers=workers)
    padded = real = 0
    while shared:
        batch = shared.pop()
        lengths = [len(each.rows[i]) for i in batch[0][1]]
        padded += max(lengths) * len(lengths)
        real += sum(lengths)
    assert padded < 1.1 * real
