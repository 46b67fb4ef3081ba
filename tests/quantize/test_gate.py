from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from sprat.errors import EngineError, InvalidInput
from sprat.manifest import GateFigure
from sprat.quantize import gate
from sprat.quantize.gate import Answers, TokenFigures

Logits = npt.NDArray[np.float32]


def answers(labels: list[int], confidence: list[float]) -> Answers:
    return Answers(np.array(labels, np.int32), np.array(confidence))


def test_gate_compare_vectors_of_the_same_model() -> None:
    vectors = np.eye(3, 8, dtype=np.float32)
    assert gate.compare_vectors(vectors, vectors) == {"cosine_mean": 1.0, "cosine_p1": 1.0}


def test_gate_compare_vectors_sees_one_bad_text() -> None:
    reference = np.tile(np.eye(1, 4, dtype=np.float32), (10, 1))
    turned = reference.copy()
    turned[3] = [0.6, 0.8, 0, 0]
    figures = gate.compare_vectors(reference, turned)
    assert figures["cosine_mean"] == pytest.approx(0.96)
    # Linear between the lowest, 0.6, and the next, 1.0: 9 steps, of which 1 % are 0.09.
    assert figures["cosine_p1"] == pytest.approx(0.6 + 0.09 * 0.4)


@pytest.mark.parametrize(
    "vectors", [np.zeros((0, 4)), np.zeros((2, 3)), np.full((2, 4), np.nan)], ids=str
)
def test_gate_compare_vectors_refuses_what_is_no_vector(vectors: npt.NDArray[np.float64]) -> None:
    reference = np.zeros((len(vectors), 4), np.float32)
    with pytest.raises(EngineError, match=r"expected vectors|not all vectors are finite"):
        gate.compare_vectors(reference, vectors.astype(np.float32))


def test_gate_compare_answers_by_hand() -> None:
    targets = np.array([0, 1, 2, 0], np.int32)
    reference = answers([0, 1, 2, 1], [0.95, 0.8, 0.9, 0.99])
    found = answers([0, 1, 0, 1], [0.95, 0.8, 0.9, 0.5])
    figures = gate.compare_answers(reference, found, targets, threshold=0)
    assert figures["agreement"] == 0.75
    assert (figures["accuracy"], figures["accuracy_drop"]) == (0.5, 0.25)
    # Four rows, a bin each: |0.5 - 0| + |0.8 - 1| + |0.9 - 0| + |0.95 - 1|, over 4.
    assert figures["ece"] == pytest.approx((0.5 + 0.2 + 0.9 + 0.05) / 4)
    assert figures["ece_rise"] == pytest.approx(figures["ece"] - (0.05 + 0.2 + 0.1 + 0.99) / 4)
    # Of the reference the last row is wrong above 0.9; of the other the third one.
    assert (figures["wrong_above"], figures["wrong_above_rise"]) == (0.25, 0.0)
    strict = gate.compare_answers(reference, found, targets, threshold=0.95)
    assert (strict["wrong_above"], strict["wrong_above_rise"]) == (0.0, -0.25)


def test_gate_compare_answers_without_labels_is_agreement_alone() -> None:
    found = answers([1, 1], [0.5, 0.5])
    assert gate.compare_answers(found, found, None, threshold=0.5) == {"agreement": 1.0}


def test_gate_calibration_error_has_bins_of_equally_many() -> None:
    # 30 rows, 2 a bin, one right of each pair: confidence 0.5 is perfect, 0.7 is 0.2 off.
    labels = np.tile(np.array([0, 1], np.int32), 15)
    targets = np.zeros(30, np.int32)
    for confidence, error in ((0.5, 0.0), (0.7, 0.2)):
        found = Answers(labels, np.full(30, confidence))
        assert gate.calibration_error(found, targets) == pytest.approx(error)


def blocks(logits: Logits, size: int) -> Iterator[Logits]:
    for start in range(0, len(logits), size):
        yield logits[start : start + size].copy()


def draw(seed: int, tokens: int = 40, vocabulary: int = 17) -> Logits:
    return np.random.default_rng(seed).normal(0, 3, (tokens, vocabulary)).astype(np.float32)


def log_p(logits: Logits) -> npt.NDArray[np.float64]:
    wide = logits.astype(np.float64)
    result: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return result


@pytest.mark.parametrize("size", [1, 7, 40, 100])
def test_gate_token_figures_follow_the_definitions(size: int) -> None:
    reference, other = draw(1), draw(1) + 0.3 * draw(2)
    ids = np.random.default_rng(3).integers(0, 17, 40, dtype=np.int32)
    figures = TokenFigures()
    figures.add(ids, blocks(reference, size), blocks(other, size))
    found = figures.result()
    p, q = log_p(reference), log_p(other)
    divergence = [
        sum(math.exp(a) * (a - b) for a, b in zip(*rows, strict=True))
        for rows in zip(p, q, strict=True)
    ]
    assert found["kl_mean"] == pytest.approx(np.mean(divergence), abs=1e-5)
    assert found["kl_p99"] == pytest.approx(np.quantile(divergence, 0.99), abs=1e-5)
    assert found["same_top"] == np.mean(p.argmax(axis=1) == q.argmax(axis=1))
    losses = [[-rows[at, ids[at + 1]] for at in range(39)] for rows in (p, q)]
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses[1])), rel=1e-5)
    rise = math.exp(np.mean(losses[1])) / math.exp(np.mean(losses[0])) - 1
    assert found["perplexity_rise"] == pytest.approx(rise, abs=1e-5)
    assert figures.tokens == 40


def test_gate_token_figures_of_the_same_model() -> None:
    figures = TokenFigures()
    for seed in range(3):
        ids = np.arange(10, dtype=np.int32)
        figures.add(ids, [draw(seed, 10)], [draw(seed, 10)])
    found = figures.result()
    assert (found["kl_mean"], found["kl_p99"], found["same_top"]) == (0, 0, 1)
    assert found["perplexity_rise"] == 0


def test_gate_token_figures_bear_large_logits() -> None:
    figures = TokenFigures()
    logits = np.array([[1e4, -1e4, 0, 0]] * 2, np.float32)
    figures.add(np.array([0, 0], np.int32), [logits], [logits])
    assert figures.result()["perplexity"] == 1.0


def test_gate_token_figures_refuse_nonsense() -> None:
    figures = TokenFigures()
    with pytest.raises(EngineError, match="no text has more than one token"):
        figures.result()
    figures.add(np.zeros(1, np.int32), [draw(0, 1)], [draw(0, 1)])
    with pytest.raises(EngineError, match="no text has more than one token"):
        figures.result()
    broken = draw(0, 2)
    broken[1, 3] = np.nan
    with pytest.raises(EngineError, match="not all logits are finite"):
        figures.add(np.zeros(2, np.int32), [draw(0, 2)], [broken])


def test_gate_judge_knows_which_side_is_good() -> None:
    limits = {"same_top": 0.9, "kl_mean": 0.05}
    figures = {"same_top": 0.9, "kl_mean": 0.05, "perplexity": 12.0}
    judged = gate.judge(figures, limits)
    assert judged == (
        GateFigure(name="same_top", value=0.9, at_least=0.9),
        GateFigure(name="kl_mean", value=0.05, at_most=0.05),
        GateFigure(name="perplexity", value=12.0),
    )
    assert all(figure.is_met for figure in judged)  # at the limit is kept
    missed = gate.judge({"same_top": 0.89, "kl_mean": 0.051}, limits)
    assert not any(figure.is_met for figure in missed)


def test_gate_judge_keeps_no_limit_with_nan() -> None:
    judged = gate.judge({"same_top": math.nan, "kl_mean": math.nan}, gate.LANGUAGE_LIMITS)
    assert not any(figure.is_met for figure in judged)


def test_gate_judge_refuses_to_judge_nothing() -> None:
    with pytest.raises(InvalidInput, match="none of the figures has one"):
        gate.judge({"perplexity": 3.0}, {"kl_mean": 1.0})
    with pytest.raises(InvalidInput, match="limit accuracy_drop: there is no such figure without"):
        gate.judge({"kl_mean": 0.0}, {"kl_mean": 1.0}, asked=["accuracy_drop"])


def test_gate_limits_replace_the_defaults() -> None:
    known = gate.FIGURES_OF_LANGUAGE_MODELS
    limits = gate.limits_of(gate.LANGUAGE_LIMITS, {"kl_mean": 1.0, "accuracy": 0.8}, known)
    assert (limits["kl_mean"], limits["accuracy"], limits["same_top"]) == (1.0, 0.8, 0.93)
    with pytest.raises(InvalidInput, match="limit cosine_mean: no such figure; there are kl_mean"):
        gate.limits_of(gate.LANGUAGE_LIMITS, {"cosine_mean": 1.0}, known)
    with pytest.raises(InvalidInput, match="expected a number, got nan"):
        gate.limits_of(gate.LANGUAGE_LIMITS, {"kl_mean": math.nan}, known)


@pytest.mark.parametrize(
    ("limits", "figures"),
    [
        (gate.ENCODER_LIMITS, gate.FIGURES_OF_ENCODERS),
        (gate.LANGUAGE_LIMITS, gate.FIGURES_OF_LANGUAGE_MODELS),
        (gate.LANGUAGE_LIMITS_4_BIT, gate.FIGURES_OF_LANGUAGE_MODELS),
    ],
)
def test_gate_defaults_are_limits_of_figures(
    limits: dict[str, float], figures: tuple[str, ...]
) -> None:
    assert limits.keys() <= set(figures)
