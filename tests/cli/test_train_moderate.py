"""What ``sprat train --kind moderate`` makes of its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers import sprat
from train_requests import train_request

from sprat.cli.train_moderate import policy_asked, train_moderate
from sprat.cli.train_request import TrainRequest
from sprat.errors import ConfigError, InvalidInput
from sprat.store import Store


def request(**changes: Any) -> TrainRequest:
    return train_request("moderate", **changes)


def test_train_moderate_options_make_a_policy() -> None:
    policy = policy_asked(
        request(min_recall=("0.9", "insult=0.8"), block_precision=("0.99", "threat=0.95"))
    ).categories
    assert policy["*"].flag.min_recall == 0.9
    assert policy["insult"].flag.min_recall == 0.8
    # What holds for all holds where a category says nothing else.
    assert policy["insult"].block is not None
    assert policy["insult"].block.min_precision == 0.99
    assert policy["threat"].flag.min_recall == 0.9
    assert policy["threat"].block is not None
    assert policy["threat"].block.min_precision == 0.95
    assert policy_asked(request()).categories == {}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"min_recall": ("much",)}, InvalidInput, "--min-recall: expected a number or CATEGORY="),
        ({"min_recall": ("x=",)}, InvalidInput, "--min-recall: expected a number"),
        ({"min_precision": ("1.5",)}, ConfigError, r"\*\.flag\.min_precision"),
        ({"min_recall": ("1",), "min_precision": ("1",)}, ConfigError, "expected one of at"),
        (
            {"policy": Path("p.toml"), "min_recall": ("1",)},
            InvalidInput,
            "--min-recall: expected none beside --policy",
        ),
    ],
)
def test_train_moderate_refuses_a_policy_that_is_none(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        policy_asked(request(**changes))


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"targets": Path("t.json")}, "targets"),
        ({"default": "nobody"}, "default"),
        ({"tiers": ("finetune",)}, "tiers finetune"),
        ({"epochs": 3}, "epochs"),
    ],
)
def test_train_moderate_refuses_options_of_others(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(InvalidInput, match=f"--{option}: a moderate task has none"):
        train_moderate(request(**changes))


@pytest.mark.usefixtures("minilm")
def test_train_refuses_options_of_moderate_for_others(store: Store, tmp_path: Path) -> None:
    done = sprat(store, "train", "rows.jsonl", "--clean-label", "ham", "-o", str(tmp_path / "b"))
    assert done.returncode == 1
    assert "--clean-label: expected --kind moderate beside it" in done.stderr
