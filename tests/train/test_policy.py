"""Thresholds by rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sprat.errors import ConfigError
from sprat.train.policy import Policy, Rule, best_f1, policy_of, read_policy

PROBABILITY = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
TRUTH = np.array([0, 0, 1, 0, 0, 1, 1, 0, 1], np.bool_)


def test_policy_precision_takes_the_lowest_threshold_that_keeps_it() -> None:
    # From the best: right, wrong, right, right (3 of 4), wrong, wrong, right (4 of 7), ...
    assert Rule(min_precision=0.75).threshold("x", PROBABILITY, TRUTH) == 0.6
    assert Rule(min_precision=0.57).threshold("x", PROBABILITY, TRUTH) == 0.3
    assert Rule(min_precision=1.0).threshold("x", PROBABILITY, TRUTH) == 0.9


def test_policy_precision_does_not_split_a_tie() -> None:
    probability, truth = np.array([0.9, 0.9, 0.1]), np.array([True, False, True])
    assert Rule(min_precision=0.6).threshold("x", probability, truth) == 0.1
    with pytest.raises(
        ConfigError, match=r"x\.flag: no threshold has a precision of 0\.7 .* 0\.667"
    ):
        Rule(min_precision=0.7).threshold("x.flag", probability, truth)


def test_policy_recall_takes_the_highest_threshold_that_keeps_it() -> None:
    assert Rule(min_recall=0.75).threshold("x", PROBABILITY, TRUTH) == 0.6
    assert Rule(min_recall=0.76).threshold("x", PROBABILITY, TRUTH) == 0.3
    assert Rule(min_recall=0.01).threshold("x", PROBABILITY, TRUTH) == 0.9


def test_policy_best_f1_is_best_among_rows_that_the_probabilities_are_right_about() -> None:
    rng = np.random.default_rng(0)
    probability = rng.beta(0.3, 1.2, 40_000)
    truth = rng.random(40_000) < probability

    def f1(threshold: float) -> float:
        found = probability >= threshold
        return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))

    best = max(f1(each) for each in np.linspace(0.02, 0.98, 97))
    assert f1(best_f1(probability)) > best - 0.002
    assert best_f1(probability) == pytest.approx(best / 2, abs=0.02)


def test_policy_file_names_categories_and_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        'spam = {flag = {min_recall = 1}, block = {at = 0.95}}\n["*"]\nflag = {at = 0.7}\n'
    )
    policy = read_policy(path)
    spam = policy.thresholds("spam", PROBABILITY, TRUTH)
    assert (spam.flag_at, spam.block_at) == (0.3, 0.95)
    other = policy.thresholds("other", PROBABILITY, TRUTH)
    assert (other.flag_at, other.block_at) == (0.7, None)
    path = tmp_path / "policy.json"
    path.write_text('{"spam": {"flag": {"at": 0.2}}}')
    assert read_policy(path).thresholds("spam", PROBABILITY, TRUTH).flag_at == 0.2
    with pytest.raises(ConfigError, match="spam: no row has this category; there are insult"):
        read_policy(path).check(("insult",))
    policy_of({"*": {}}, where="here").check(("insult",))


def test_policy_flags_what_it_blocks() -> None:
    found = policy_of({"x": {"block": {"at": 0.2}}}, where="").thresholds("x", PROBABILITY, TRUTH)
    assert (found.flag_at, found.block_at) == (0.2, 0.2)
    both = policy_of({"x": {"flag": {"at": 0.5}, "block": {"at": 0.4}}}, where="")
    with pytest.raises(ConfigError, match=r"x\.block: blocks from 0\.400, but flags from 0\.500"):
        both.thresholds("x", PROBABILITY, TRUTH)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected a table for each category"),
        ({"x": 3}, "^x: "),
        ({"x": {"flag": {"at": 2}}}, r"^x\.flag\.at: "),
        ({"x": {"flag": {"at": 0.5, "min_recall": 0.5}}}, "expected one of at"),
        ({"x": {"block": {}}}, "block: expected one of at"),
        ({"x": {"flags": {}}}, r"^x\.flags: "),
    ],
)
def test_policy_errors_name_the_path(document: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        policy_of(document, where="policy.toml")


def test_policy_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_policy(path)
    path.write_text("x = {")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy(path)


def test_policy_of_nothing_flags_and_blocks_nothing() -> None:
    found = Policy().thresholds("x", PROBABILITY, TRUTH)
    assert (found.flag_at, found.block_at) == (best_f1(PROBABILITY), None)
