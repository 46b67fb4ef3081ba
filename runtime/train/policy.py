"""What a moderator does about each category, as the person who trains it asks for."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sprat.bundle_manifest import Thresholds
from sprat.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EVERY = "*"
"""Stands for every category that a policy does not name."""


class Rule(BaseModel):
    """How a threshold comes about; at most one field is set.

    Attributes
    ----------
    at : float or None
        The threshold itself, a probability.
    min_precision : float or None
        The lowest threshold from which so large a share of what reaches it belongs to the category.
    min_recall : float or None
        The highest threshold that so large a share of the category's texts reaches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: float | None = Field(default=None, gt=0, le=1)
    min_precision: float | None = Field(default=None, gt=0, le=1)
    min_recall: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _has_one_way(self) -> Rule:
        if sum(value is not None for value in (self.at, self.min_precision, self.min_recall)) > 1:
            raise ValueError("expected one of at, min_precision and min_recall")
        return self

    def threshold(
        self, where: str, probability_n: npt.NDArray[np.float64], truth_n: npt.NDArray[np.bool_]
    ) -> float:
        """The threshold that the rule asks for; without a field the one of `best_f1`.

        Parameters
        ----------
        where : str
            Path of the rule, for errors.
        probability_n : float64[N]
            Calibrated probabilities of rows that the head has not seen.
        truth_n : bool[N]
            Whether the rows belong to the category; one at least does.

        Raises
        ------
        ConfigError
            When no threshold gives that precision.
        """
        if self.at is not None:
            return self.at
        if self.min_precision is not None:
            return _at_precision(where, self.min_precision, probability_n, truth_n)
        if self.min_recall is not None:
            found = np.sort(probability_n[truth_n])[::-1]
            return float(found[int(np.ceil(self.min_recall * len(found) - 1e-9)) - 1])
        return best_f1(probability_n)


class CategoryPolicy(BaseModel):
    """When texts of a category are flagged, and when they are blocked.

    Attributes
    ----------
    flag : Rule
        Absent: where F1 is best.
    block : Rule or None
        Absent: never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    flag: Rule = Rule()
    block: Rule | None = None

    @model_validator(mode="after")
    def _block_says_when(self) -> CategoryPolicy:
        if self.block == Rule():
            raise ValueError("block: expected one of at, min_precision and min_recall")
        return self


@dataclass(frozen=True, slots=True)
class Policy:
    """A `CategoryPolicy` for each category; `EVERY` for those without one of their own."""

    categories: dict[str, CategoryPolicy] = field(default_factory=dict)

    def check(self, names: Sequence[str]) -> None:
        """Refuse a policy for categories that no row has.

        Raises
        ------
        ConfigError
        """
        for name in self.categories:
            if name != EVERY and name not in names:
                raise ConfigError(name, f"no row has this category; there are {', '.join(names)}")

    def thresholds(
        self, name: str, probability_n: npt.NDArray[np.float64], truth_n: npt.NDArray[np.bool_]
    ) -> Thresholds:
        """Thresholds of a category by its rules; see `Rule.threshold`.

        Raises
        ------
        ConfigError
            When a rule cannot be kept, or texts would be blocked before they are flagged.
        """
        asked = self.categories.get(name, self.categories.get(EVERY, CategoryPolicy()))
        flag_at = asked.flag.threshold(f"{name}.flag", probability_n, truth_n)
        block_at = None
        if asked.block is not None:
            block_at = asked.block.threshold(f"{name}.block", probability_n, truth_n)
            if block_at < flag_at:
                if asked.flag != Rule():
                    raise ConfigError(
                        f"{name}.block",
                        f"blocks from {block_at:.3f}, but flags from {flag_at:.3f} only",
                    )
                # Nobody asked for this flag: what is blocked is flagged as well.
                flag_at = block_at
        return Thresholds(flag_at=flag_at, block_at=block_at)


def read_policy(path: Path) -> Policy:
    """Read a policy: a table for each category, as TOML or JSON.

    ::

        [insult]
        flag = {min_recall = 0.95}
        block = {min_precision = 0.99}

        ["*"]
        flag = {at = 0.5}

    Raises
    ------
    ConfigError
        When it cannot be read or says something else; it names the path of the first wrong value.
    """
    try:
        source = path.read_text(encoding="utf-8")
        document = tomllib.loads(source) if path.suffix.lower() == ".toml" else json.loads(source)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError("--policy", f"{path} cannot be read: {reason}") from None
    return policy_of(document, where=str(path))


def policy_of(document: Any, *, where: str) -> Policy:
    """A policy from plain values; see `read_policy`."""
    if not isinstance(document, dict):
        raise ConfigError("--policy", f"{where}: expected a table for each category")
    categories = {}
    for name, table in document.items():
        try:
            categories[name] = CategoryPolicy.model_validate(table)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = ".".join([name, *map(str, first["loc"])])
            raise ConfigError(path, f"{where}: {first['msg']}") from None
    return Policy(categories)


def best_f1(probability_n: npt.NDArray[np.float64]) -> float:
    """The threshold at which F1 is expected to be best, by the probabilities themselves.

    With calibrated probabilities that is half of the best F1 (Lipton et al., 2014). All rows have
    a say in it; the threshold at which F1 on the rows happened to be best hangs on a few of them.

    Parameters
    ----------
    probability_n : float64[N]
        Calibrated; N from 1.

    Returns
    -------
    float
        In (0, 0.5].
    """
    ordered = np.sort(probability_n)[::-1]
    expected = 2 * np.cumsum(ordered) / (np.arange(1, len(ordered) + 1) + ordered.sum())
    return float(expected.max()) / 2


def _at_precision(
    where: str,
    least: float,
    probability_n: npt.NDArray[np.float64],
    truth_n: npt.NDArray[np.bool_],
) -> float:
    order = np.argsort(-probability_n, kind="stable")
    ordered, truth = probability_n[order], truth_n[order]
    precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    # Rows of one probability reach a threshold together.
    is_cut = np.append(np.diff(ordered) != 0, True)
    found = np.flatnonzero(is_cut & (precision >= least - 1e-9))
    if not len(found):
        raise ConfigError(
            where,
            f"no threshold has a precision of {least:g} on out-of-fold scores, "
            f"{precision[is_cut].max():.3f} at most",
        )
    return float(ordered[found[-1]])
