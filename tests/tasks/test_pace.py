"""How long a tier takes: means by size, guesses for sizes never seen, and second chances."""

from __future__ import annotations

import pytest

from sprat.tasks.pace import TESTS, WEIGHT, Pace


def test_pace_that_knows_nothing_stands_in_nobodys_way() -> None:
    pace = Pace()
    assert pace.seconds(1) == pace.seconds(1000) == 0
    assert pace.fits(64, 1e-9, now=0.0)


def settled() -> Pace:
    """One that has its first call behind it."""
    pace = Pace()
    pace.learn(1, 77.0, now=0.0)
    return pace


def test_pace_forgets_the_first_call() -> None:
    pace = settled()
    assert pace.seconds(1) == 77.0
    pace.learn(16, 1.6, now=0.0)
    assert pace.seconds(16) == 1.6
    assert pace.seconds(1) == pytest.approx(0.1), "as the nearest size says"
    pace.learn(1, 0.3, now=0.0)
    assert (pace.seconds(1), pace.seconds(16)) == (0.3, 1.6)


def test_pace_is_a_running_mean_by_size() -> None:
    pace = settled()
    pace.learn(5, 1.0, now=0.0)
    pace.learn(7, 2.0, now=0.0)
    pace.learn(8, 9.0, now=0.0)
    assert pace.seconds(4) == pytest.approx(1 + WEIGHT)
    assert pace.seconds(15) == 9.0


def test_pace_guesses_from_the_nearest_size() -> None:
    pace = settled()
    pace.learn(1, 0.01, now=0.0)
    pace.learn(64, 0.1, now=0.0)
    assert pace.seconds(3) == pytest.approx(0.02)
    assert pace.seconds(32) == pytest.approx(0.05)
    assert pace.seconds(500) == pytest.approx(0.4)


def test_pace_says_no_only_where_it_does_not_fit() -> None:
    pace = Pace()
    pace.learn(1, 0.5, now=100.0)
    assert pace.fits(1, 0.5, now=100.0)
    assert not pace.fits(1, 0.4, now=100.0)


@pytest.mark.parametrize("left_s", [0.0, -1.0])
def test_pace_without_time_nothing_fits(left_s: float) -> None:
    assert not Pace().fits(1, left_s, now=0.0)


@pytest.mark.parametrize("left_s", [0.001, 0.1, 0.4])
def test_pace_tries_again_after_a_while_once(left_s: float) -> None:
    pace = Pace()
    pace.learn(1, 0.5, now=100.0)
    pause_s = left_s / TESTS
    assert not pace.fits(1, left_s, now=100.0 + 0.99 * pause_s)
    assert pace.fits(1, left_s, now=100.0 + 1.01 * pause_s)
    assert not pace.fits(1, left_s, now=100.0 + 1.02 * pause_s)


def test_pace_of_other_sizes_does_not_keep_one_from_being_tried() -> None:
    pace = Pace()
    pace.learn(1, 0.1, now=0.0)
    tried = 0
    for second in range(100):
        pace.learn(1, 0.1, now=float(second))
        tried += pace.fits(64, 0.2, now=float(second))
    assert tried == 4, "every 20 s"
    pace.learn(64, 0.15, now=100.0)
    assert pace.fits(64, 0.2, now=100.0)


def test_pace_of_a_call_that_was_given_up_is_at_least_its_time() -> None:
    pace = Pace()
    pace.learn_at_least(1, 0.3, now=0.0)
    assert pace.seconds(1) == 0.3
    pace.learn_at_least(1, 0.1, now=0.0)
    assert pace.seconds(1) == 0.3
