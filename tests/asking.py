"""A language model that reads topics off words, for tests that need none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from topics import TOPICS

from sprat.bundle_manifest import BundleManifest, TierManifest
from sprat.train.asked import Ask
from sprat.train.data import Dataset
from sprat.values import Classification, ClassifyResult, ItemError, LabelScore, Timings


@dataclass
class Asked:
    """Opens answers in which a topic weighs 1, and ``weight`` times as much with each of its words.

    Attributes
    ----------
    too_long : str
        A text that has this is too long.
    opened : list of TierManifest
        What was opened.
    calls : list of int
        Texts of each call.
    """

    weight: float = 50.0
    too_long: str = "\0"
    opened: list[TierManifest] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    @contextmanager
    def open(self, bundle: BundleManifest, place: int) -> Iterator[Ask]:
        self.opened.append(bundle.tiers[place])
        yield self._answers(bundle.labels)

    def _answers(self, labels: Sequence[str]) -> Callable[[Dataset], ClassifyResult]:
        def answer(text: str) -> Classification:
            words = text.split()
            found = [sum(word in TOPICS[label].split() for word in words) for label in labels]
            weights = self.weight ** np.array(found, float)
            shares = dict(zip(labels, (weights / weights.sum()).tolist(), strict=True))
            ranked = sorted(shares, key=lambda label: -shares[label])
            scores = tuple(LabelScore(label, shares[label]) for label in ranked)
            return Classification(ranked[0], None, scores)

        def ask(rows: Dataset) -> ClassifyResult:
            texts = rows.texts
            self.calls.append(len(texts))
            long = [index for index, text in enumerate(texts) if self.too_long in text]
            return ClassifyResult(
                tuple(None if index in long else answer(text) for index, text in enumerate(texts)),
                tuple(
                    ItemError(index, "INPUT_TOO_LONG", f"texts[{index}]: 99 tokens, at most 9")
                    for index in long
                ),
                *("model", "version", "", False, Timings()),
            )

        return ask
