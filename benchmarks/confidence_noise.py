"""``python -m sprat.benchmarks.confidence_noise MODEL.gguf ...``: how batches move confidences.

What shares its batch moves what a quantized model says, and a confidence that is near a threshold
then is above it in one batch and below it in another: `sprat.calibration.least_confidence` keeps a
band clear above thresholds. This measures, in log-odds, how far the calibrated confidences of a
language tier move between a text alone and eight side by side, and what different bands leave.
A minute or so for each file, by hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sprat.benchmarks import data, harness
from sprat.benchmarks.exactness import CONTEXT, SIDE_BY_SIDE, Prompts, run
from sprat.bundle_manifest import Calibration
from sprat.calibration import confidences, log_scores, tempered
from sprat.engine.llama import LlamaEngine
from sprat.train.calibrate import fit_calibration
from sprat.train.data import Dataset, read
from sprat.values import FloatArray

INTENTS = (
    *("card_arrival", "lost_or_stolen_card", "exchange_rate"),
    *("cash_withdrawal_charge", "transfer_timing", "top_up_failed"),
)
"""Of BANKING77: 40 test texts each."""

BANDS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
NEAR = 0.5
"""Log-odds from a threshold within which an answer counts as near it."""

Odds = npt.NDArray[np.float64]


def measure(path: Path, rows: Dataset, *, orders: int) -> list[str]:
    """What the confidences of one model do, a line each.

    Parameters
    ----------
    orders : int
        How often all texts are asked about side by side, each time in another order.
    """
    engine = LlamaEngine(path, context_length=CONTEXT, sequence_limit=1, threads=2)
    try:
        chooser = engine.chooser()
        prompts = Prompts(engine, [name.replace("_", " ") for name in INTENTS])
        choices = [prompts.choice(text) for text in rows.texts]
        alone = run(chooser, choices, beside=1)
        together = []
        for seed in range(orders):
            order = np.random.default_rng(seed).permutation(len(choices)).tolist()
            found = run(chooser, [choices[at] for at in order], beside=SIDE_BY_SIDE)
            together.append([found[order.index(at)] for at in range(len(choices))])
    finally:
        engine.close()
    fit = fit_calibration(log_scores(np.array(alone)), rows.targets(INTENTS), seed=0)
    lines = [f"temperature {fit.calibration.temperature:.2f} by the labels of the rows"]
    for name, calibration in (
        ("calibrated", fit.calibration),
        ("at temperature 1", Calibration(temperature=1.0)),
    ):
        odds_n = _odds(alone, calibration)
        others = [_odds(found, calibration) for found in together]
        moved = np.concatenate([np.abs(other_n - odds_n) for other_n in others])
        lines.append(
            f"{name}: log-odds move by {np.median(moved):.3f} (median), "
            f"{np.quantile(moved, 0.99):.3f} (99th percentile), {moved.max():.3f} (most)"
        )
        for band in BANDS:
            lines.append(f"{name}, band {band:g}: {_flips(odds_n, others, band)}")
    return lines


def _odds(found: Sequence[FloatArray], calibration: Calibration) -> Odds:
    """Log-odds of the confidence in each best answer."""
    shares_nk = tempered(np.array(found), calibration.temperature)
    confidence_n = confidences(shares_nk.max(axis=1), calibration)
    odds_n: Odds = np.log(confidence_n) - np.log1p(-confidence_n)
    return odds_n


def _flips(alone_n: Odds, others: Sequence[Odds], band: float) -> str:
    """What happens at thresholds where there are answers: at each answer's confidence alone."""
    near = accepted = below = 0
    for threshold in alone_n:
        is_near_n = np.abs(alone_n - threshold) <= NEAR
        for other_n in others:
            for first_n, second_n in ((alone_n, other_n), (other_n, alone_n)):
                is_accepted_n = is_near_n & (first_n >= threshold + band)
                near += int(is_near_n.sum())
                accepted += int(is_accepted_n.sum())
                below += int((is_accepted_n & (second_n < threshold)).sum())
    return (
        f"of {near} answers near a threshold {accepted} are accepted in a batch, {below} of these "
        f"({below / max(1, accepted):.2%}) are below the threshold in the other"
    )


def main() -> None:
    """Print what each model does."""
    parser = argparse.ArgumentParser(
        prog="python -m sprat.benchmarks.confidence_noise",
        description="How far what shares its batch moves confidences of language tiers.",
    )
    parser.add_argument("models", nargs="+", type=Path, help="GGUF files of ChatML models")
    parser.add_argument("--texts", type=int, default=200, help="how many texts")
    parser.add_argument("--orders", type=int, default=2, help="how often side by side")
    given = parser.parse_args()
    files = data.public(harness.checkout())
    if files is None:
        parser.error(f"no {data.PUBLIC}; set SPRAT_TEST_DATA to its folder")
    every = read(files[1])
    rows = every.take([at for at, label in enumerate(every.labels) if label in INTENTS])
    step = len(rows) / min(given.texts, len(rows))
    rows = rows.take([int(at * step) for at in range(min(given.texts, len(rows)))])
    print(f"{len(rows)} texts of BANKING77, {len(INTENTS)} labels", flush=True)
    for path in given.models:
        for each in measure(path, rows, orders=given.orders):
            print(f"{path.name}: {each}", flush=True)


if __name__ == "__main__":
    main()
