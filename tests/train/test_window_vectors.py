"""Windows of too many tokens are judged in training and tuning as they are served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from doubles import moderator, no_leaked_threads
from hypothesis import given
from hypothesis import strategies as st

from sprat.bundle import Bundle
from sprat.head import Head
from sprat.inprocess import Runtime
from sprat.store import Store
from sprat.train.categories import CategoryData
from sprat.train.rate import rate_categories
from sprat.train.window_vectors import WindowVectors
from sprat.values import FloatArray, IntArray

WINDOW, OVERLAP = 1024, 256
CALM, RUDE = "calm weather in the garden today", "you stupid ugly fool, you idiot"
DIGITS = " ".join(str(number % 10) for number in range(300))
LONG = (f"{CALM} {DIGITS} {RUDE} {RUDE} {RUDE}", f"{RUDE} {DIGITS} {CALM} {CALM} {CALM}")
"""One window in characters, and more than 256 tokens."""
SHORT = ("a late parcel", RUDE)


def words(texts: Sequence[str]) -> tuple[FloatArray, IntArray]:
    """How long a text is; more than 4 words are cut."""
    counts = np.array([len(text.split()) for text in texts], np.int32)
    return np.array([[len(text)] for text in texts], np.float32), np.maximum(counts - 4, 0)


@given(st.lists(st.text(alphabet="ab \n", min_size=1).filter(str.strip), min_size=1, max_size=4))
def test_window_vectors_leave_nothing_out_and_cut_nothing(texts: list[str]) -> None:
    vectors = WindowVectors(words)
    windows, starts_n = vectors.windows(texts, 20, 5)
    assert all(len(window.split()) <= 4 and window.strip() for window in windows)
    edges = [*starts_n.tolist(), len(windows)]
    for text, start, end in zip(texts, edges, edges[1:], strict=False):
        own = windows[start:end]
        assert own, "each text has a window"
        assert all(window in text for window in own)
        assert {letter for letter in text if letter.strip()} == {
            letter for window in own for letter in window if letter.strip()
        }
    assert vectors.of(windows).tolist() == [[len(window)] for window in windows]


def test_window_vectors_compute_each_text_once() -> None:
    seen: list[str] = []

    def compute(texts: Sequence[str]) -> tuple[FloatArray, IntArray]:
        seen.extend(texts)
        return words(texts)

    vectors = WindowVectors(compute)
    vectors.add(["a a a a a a", "b", "b"])
    vectors.windows(["a a a a a a", "b", "c"], 30, 5)
    vectors.windows(["a a a a a a", "c"], 30, 5)
    assert len(seen) == len(set(seen))
    assert vectors.is_cut("a a a a a a")
    assert not vectors.is_cut("b")


@pytest.fixture(scope="module")
def made(store: Store, minilm: Path) -> Bundle:
    """Two categories, rude and calm, from sentence vectors alone."""
    base, _ = store.model(minilm.name)
    with Runtime(models=[base.name], store=store) as runtime:
        rude, calm = runtime.embed(base.name, [RUDE, CALM]).vectors
    bundle = moderator(base, thresholds=[{"flag_at": 0.5}] * 2)
    (tier,) = bundle.manifest.tiers
    assert tier.moderation is not None
    settings = tier.moderation.model_copy(
        update={"window": WINDOW, "overlap": OVERLAP, "ngram_buckets": 0}
    )
    tier = tier.model_copy(update={"moderation": settings})
    head = Head(5 * np.stack([rude - calm, calm - rude]), np.full(2, -1, np.float32))
    return Bundle(bundle.manifest.model_copy(update={"tiers": (tier,)}), (head,))


def test_window_vectors_of_a_long_window_are_those_that_are_served(
    made: Bundle, store: Store, tmp_path: Path
) -> None:
    made.save(tmp_path, report="{}")
    texts = (*LONG, *SHORT)
    model = made.manifest.tiers[0].model.name
    with no_leaked_threads(), Runtime(tasks=[str(tmp_path)], store=store) as runtime:

        def compute(texts: Sequence[str]) -> tuple[FloatArray, IntArray]:
            result = runtime.embed(model, texts, truncation="truncate")
            return result.vectors, result.dropped_tokens

        answers = runtime.moderate("moderator", texts).items
        rows = CategoryData(texts, (("zed",),) * len(texts), (1, 2, 3, 4), "rows.jsonl")
        confidence_n, _, right_n = rate_categories(made, 0, rows, compute)
        cut_wd, dropped = compute(LONG)
    for row, answer in enumerate(answers):
        assert answer is not None
        assert answer.confidence == pytest.approx(confidence_n[row], abs=0.03)
        flagged = [each.category for each in answer.categories if each.action != "allow"]
        assert right_n[row] == (flagged == ["zed"])
        assert (answer.chunks > 1) == (row < len(LONG))
    # A cut window hides what it ends with.
    first = answers[0]
    assert first is not None
    assert first.categories[0].action == "flag"
    assert dropped.min() > 40
    assert made.heads[0].probabilities(cut_wd)[0, 0] < 0.1
