"""How near a quantized model is to its reference, and whether that is near enough.

Figures of an encoder, from the sentence vectors of both:

``cosine_mean``, ``cosine_p1``
    Cosine of the two vectors of a text: mean, and 1st percentile.
``agreement``
    Share of the texts that a task's head answers with the same label on both.
``accuracy``, ``accuracy_drop``
    Share of right answers, and what is lost of the reference's. Below 0 where it is more.
``ece``, ``ece_rise``
    Expected calibration error of the task's confidences, and what it is more than the reference's.
``wrong_above``, ``wrong_above_rise``
    Share of the texts that are answered wrongly at or above the task's threshold (0.9 where it has
    none), and what it is more than the reference's.

Figures of a language model, from the logits of both after every token of the texts:

``kl_mean``, ``kl_p99``
    Kullback-Leibler divergence of the next token's distribution from the reference's, in nats:
    mean, and 99th percentile.
``same_top``
    Share of the tokens after which both find the same next token the most probable.
``perplexity``, ``perplexity_rise``
    Of the texts, and what it is more than the reference's, as a share of that.
``accuracy``, ``accuracy_drop``, ``agreement``
    As above, where the texts have labels: chosen by the model itself among all of them.

References
----------
Kullback and Leibler, 1951, "On Information and Sufficiency". Dutta et al., 2024, "Accuracy is Not
All You Need" (arXiv 2407.09141): why agreement and divergence are asked for, beside accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sprat.errors import EngineError, InvalidInput
from sprat.manifest import GateFigure
from sprat.train import metrics
from sprat.values import FloatArray, IntArray

SURE = 0.9
"""Confidence from which on an answer counts as sure, for a task without a threshold."""

ENCODER_LIMITS = {
    "cosine_mean": 0.995,
    "cosine_p1": 0.98,
    "agreement": 0.98,
    "accuracy_drop": 0.005,
    "ece_rise": 0.01,
    "wrong_above_rise": 0.005,
}
LANGUAGE_LIMITS = {
    "kl_mean": 0.01,
    "kl_p99": 0.1,
    "same_top": 0.93,
    "perplexity_rise": 0.02,
    "accuracy_drop": 0.005,
}
LANGUAGE_LIMITS_4_BIT = {
    "kl_mean": 0.05,
    "kl_p99": 0.5,
    "same_top": 0.9,
    "perplexity_rise": 0.05,
    "accuracy_drop": 0.01,
}
"""Defaults. A figure that cannot be had, for want of labels or of a task, is not judged.

Stock int8 of MiniLM-L6 keeps those of encoders, and q8_0 of SmolLM2-135M the first of language
models, with room to spare. Its 4-bit types do not come near theirs: see the case ``quantization``
of `sprat.benchmarks`."""

AT_LEAST = ("cosine_mean", "cosine_p1", "agreement", "same_top", "accuracy")
"""Figures of which more is better; of all others, less is."""

FIGURES_OF_ENCODERS = (
    *("cosine_mean", "cosine_p1", "agreement", "accuracy", "accuracy_drop"),
    *("ece", "ece_rise", "wrong_above", "wrong_above_rise"),
)
FIGURES_OF_LANGUAGE_MODELS = (
    *("kl_mean", "kl_p99", "same_top", "perplexity", "perplexity_rise"),
    *("accuracy", "accuracy_drop", "agreement"),
)

_Floats = npt.NDArray[np.float64]


def limits_of(
    defaults: Mapping[str, float], given: Mapping[str, float], known: Sequence[str]
) -> dict[str, float]:
    """The default limits, with those that were given in their place.

    Raises
    ------
    InvalidInput
        There is no such figure, or the limit is no number.
    """
    for name, limit in given.items():
        if name not in known:
            raise InvalidInput(
                f"limit {name}: no such figure; there are {', '.join(known)}", field="limit"
            )
        if not np.isfinite(limit):
            raise InvalidInput(f"limit {name}: expected a number, got {limit}", field="limit")
    return {**defaults, **given}


def judge(
    figures: Mapping[str, float], limits: Mapping[str, float], *, asked: Iterable[str] = ()
) -> tuple[GateFigure, ...]:
    """The figures, each with its limit where it has one.

    Parameters
    ----------
    asked : iterable of str
        Figures that must be there: a limit that nothing is compared with must not pass.

    Raises
    ------
    InvalidInput
        A figure is not there, or none of them has a limit.
    """
    if missing := [name for name in asked if name not in figures]:
        raise InvalidInput(
            f"limit {missing[0]}: there is no such figure without labels, and for an encoder "
            f"without a task; there are {', '.join(figures)}",
            field="limit",
        )
    judged = tuple(
        GateFigure(
            name=name,
            value=value,
            at_least=limits.get(name) if name in AT_LEAST else None,
            at_most=None if name in AT_LEAST else limits.get(name),
        )
        for name, value in figures.items()
    )
    if all(each.at_least is None and each.at_most is None for each in judged):
        raise InvalidInput("limit: none of the figures has one", field="limit")
    return judged


def compare_vectors(reference_nd: FloatArray, vectors_nd: FloatArray) -> dict[str, float]:
    """Cosines of the vectors of N texts, both L2-normalized: float32[N, D].

    Raises
    ------
    EngineError
        The shapes differ, there are no rows, or a vector is not finite.
    """
    if reference_nd.shape != vectors_nd.shape or not len(vectors_nd):
        raise EngineError(f"expected vectors {reference_nd.shape}, got {vectors_nd.shape}")
    cosines = np.einsum("nd,nd->n", reference_nd, vectors_nd, dtype=np.float64)
    if not np.isfinite(cosines).all():
        raise EngineError("not all vectors are finite")
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_p1": float(np.quantile(cosines, 0.01)),
    }


@dataclass(frozen=True, slots=True)
class Answers:
    """What a task answers on N texts.

    Attributes
    ----------
    labels : int32[N]
        Indices of the best labels.
    confidence : float64[N]
        In them; see `sprat.head.Head.rank`.
    """

    labels: IntArray
    confidence: _Floats


def compare_answers(
    reference: Answers, answers: Answers, targets_n: IntArray | None, *, threshold: float
) -> dict[str, float]:
    """Figures of a task, on the reference and on the quantized model.

    Parameters
    ----------
    targets_n : int32[N] or None
        Right labels; without them there is agreement alone.
    threshold : float
        Confidence from which on an answer counts as sure; 0: `SURE`.
    """
    figures = compare_labels(reference.labels, answers.labels, targets_n)
    if targets_n is None:
        return figures
    threshold = threshold or SURE
    figures["ece"] = calibration_error(answers, targets_n)
    figures["ece_rise"] = figures["ece"] - calibration_error(reference, targets_n)
    figures["wrong_above"] = _wrong_above(answers, targets_n, threshold)
    figures["wrong_above_rise"] = figures["wrong_above"] - _wrong_above(
        reference, targets_n, threshold
    )
    return figures


def compare_labels(
    reference_n: IntArray, answers_n: IntArray, targets_n: IntArray | None
) -> dict[str, float]:
    """Agreement of N answers, and their accuracy where the right labels are known."""
    figures = {"agreement": float((reference_n == answers_n).mean())}
    if targets_n is not None:
        accuracy = float((answers_n == targets_n).mean())
        figures["accuracy"] = accuracy
        figures["accuracy_drop"] = float((reference_n == targets_n).mean()) - accuracy
    return figures


def calibration_error(answers: Answers, targets_n: IntArray) -> float:
    """Expected calibration error; see `sprat.train.metrics.calibration_error`."""
    order = np.argsort(answers.confidence, kind="stable")
    gap_n = (answers.confidence - (answers.labels == targets_n))[order]
    return float(metrics.calibration_error(gap_n[None, :])[0])


def _wrong_above(answers: Answers, targets_n: IntArray, threshold: float) -> float:
    return float(((answers.labels != targets_n) & (answers.confidence >= threshold)).mean())


class TokenFigures:
    """Sums up how two language models differ, text by text.

    Examples
    --------
    >>> figures = TokenFigures()
    >>> same = np.zeros((2, 4), np.float32)
    >>> figures.add(np.array([0, 1], np.int32), [same], [same])
    >>> figures.result()["perplexity"]
    4.0
    """

    def __init__(self) -> None:
        self._divergences: list[_Floats] = []
        self._same: list[npt.NDArray[np.bool_]] = []
        self._losses: list[_Floats] = []
        self._reference_losses: list[_Floats] = []

    def add(
        self,
        ids: IntArray,
        reference: Iterable[FloatArray],
        quantized: Iterable[FloatArray],
    ) -> None:
        """Count one text.

        Parameters
        ----------
        ids : int32[T]
            Its tokens.
        reference, quantized : iterable of float32[N, V]
            Logits after each token, in blocks of the same sizes that add up to T. A block is used
            before the next one is asked for.

        Raises
        ------
        EngineError
            Logits are not finite.
        """
        start = 0
        for expected, found in zip(reference, quantized, strict=True):
            log_p, log_q = log_softmax(expected), log_softmax(found)
            divergences = (np.exp(log_p) * (log_p - log_q)).sum(axis=1, dtype=np.float64)
            if not np.isfinite(divergences).all():
                raise EngineError("not all logits are finite")
            # Rounding can make the divergence of equal distributions negative.
            self._divergences.append(np.maximum(divergences, 0))
            self._same.append(expected.argmax(axis=1) == found.argmax(axis=1))
            following = ids[start + 1 : start + 1 + len(log_p)]
            every = np.arange(len(following))
            self._reference_losses.append(-log_p[every, following].astype(np.float64))
            self._losses.append(-log_q[every, following].astype(np.float64))
            start += len(log_p)

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        return sum(map(len, self._divergences))

    def result(self) -> dict[str, float]:
        """The figures.

        Raises
        ------
        EngineError
            There were fewer than two tokens in every text.
        """
        if not sum(map(len, self._losses)):
            raise EngineError("no text has more than one token")
        divergences = np.concatenate(self._divergences)
        loss = float(np.concatenate(self._losses).mean())
        reference_loss = float(np.concatenate(self._reference_losses).mean())
        return {
            "kl_mean": float(divergences.mean()),
            "kl_p99": float(np.quantile(divergences, 0.99)),
            "same_top": float(np.concatenate(self._same).mean()),
            "perplexity": float(np.exp(loss)),
            "perplexity_rise": float(np.expm1(loss - reference_loss)),
        }


def log_softmax(logits_nv: FloatArray) -> FloatArray:
    """Logarithm of the probabilities: float32[N, V]."""
    shifted: FloatArray = logits_nv - logits_nv.max(axis=1, keepdims=True)
    sums = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    shifted -= np.log(sums).astype(np.float32)
    return shifted
