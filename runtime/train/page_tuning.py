"""What `sprat tune` found, as a page: figures, the curve of cost and quality, what is passed on."""

from __future__ import annotations

import numpy as np

from sprat.train import plots
from sprat.train.page_parts import document, figures, pictures, section, table
from sprat.train.rate import Rows, row_names
from sprat.train.thresholds import ABSTAINED, cost_curve
from sprat.train.tune import Tuned
from sprat.tuning_manifest import Tuning

MOST_LABELS = 30

_CURVE = (
    "Each point of the line is a choice of thresholds that is the most accurate for its cost on "
    "the rows of the choice; shown is what it does on the others."
)
_ESCALATED = "Rows that the first tier passes on, by label: the hard ones."


def tuning_page(tuned: Tuned, data: Rows) -> str:
    """The page, without a text of any row.

    Parameters
    ----------
    data : Dataset, CategoryData or SpanDataset
        The rows that it was tuned on.
    """
    tuning, chosen = tuned.tuning, tuned.chosen
    verified = [tier.take(chosen.verified) for tier in tuned.scores]
    (best,) = (tier for tier in verified if tier.name == tuning.best_tier)
    curve = plots.cost_curve(
        [(p.cost_ms / best.cost_ms, p.accuracy) for p in cost_curve(tuned.scores, chosen.verified)],
        (tuning.cost_ratio.value, float(chosen.answers.is_right_n.mean())),
        [(t.name, t.cost_ms / best.cost_ms, float(t.is_right_n.mean())) for t in verified],
    )
    manifest = tuned.bundle.manifest
    return document(
        [
            figures(
                tuning.verified_on,
                (
                    ("Cost", tuning.cost_ratio, f"Share of {tuning.best_tier} alone."),
                    ("Points lost", tuning.loss_points, f"Of accuracy, below {tuning.best_tier}."),
                    ("Answered", tuning.coverage, ""),
                    ("Wrong", tuning.wrong, "Share of the answers."),
                ),
            ),
            _tiers(tuned),
            pictures([("Cost and quality", _CURVE, curve)]),
            _escalated(tuned, data),
        ],
        title=f"{manifest.name}: thresholds",
        facts={
            "Bundle": f"{manifest.name}, version {manifest.version}, {manifest.kind}",
            "Aim": _aim(tuning),
            "Data": f"{len(data):,} rows, sha256 {data.sha256[:12]}; thresholds chosen on "
            f"{tuning.chosen_on:,}, verified on {tuning.verified_on:,}",
        },
    )


def _aim(tuning: Tuning) -> str:
    if tuning.rule == "loss":
        return f"at most {100 * tuning.limit:g} points less accurate than the best tier alone"
    if tuning.rule == "error":
        sure = 1 - tuning.delta
        return f"at most {tuning.limit:.4g} of the answers wrong, with probability {sure:.4g}"
    return f"at most {tuning.limit:g} CPU ms a text"


def _tiers(tuned: Tuned) -> str:
    rows = []
    for tier, accept_at in zip(tuned.scores, tuned.chosen.thresholds, strict=True):
        accepts = "left out" if accept_at is None else f"{accept_at:.4f}" if accept_at else "always"
        share = tuned.tuning.shares[tier.name]
        accuracy = float(tier.is_right_n.mean())
        rows.append((tier.name, f"{tier.cost_ms:.3g}", f"{accuracy:.4f}", accepts, f"{share:.1%}"))
    columns = ("tier", "CPU ms a text", "accuracy alone", "answers from", "answers")
    about = "A tier that does not pay is left out. CPU time is that of the machine of the tuning."
    return section("Tiers", about, table(columns, rows, right=(1, 2, 3, 4)))


def _escalated(tuned: Tuned, data: Rows) -> str:
    answers = tuned.chosen.answers
    first = next(i for i, each in enumerate(tuned.chosen.thresholds) if each is not None)
    names = row_names(data)
    labels = np.array([names[row] for row in tuned.chosen.verified.tolist()])
    is_on_n = (answers.tier_n != first) | (answers.tier_n == ABSTAINED)
    rows = []
    for label in sorted(set(labels.tolist())):
        of_n = labels == label
        rows.append((float(is_on_n[of_n].mean()), label, int(is_on_n[of_n].sum()), int(of_n.sum())))
    rows.sort(key=lambda row: (-row[0], row[1]))
    cells = [
        (label, f"{share:.1%}", str(count), str(total))
        for share, label, count, total in rows[:MOST_LABELS]
    ]
    columns = ("label", "passed on", "rows", "of")
    return section("What is passed on", _ESCALATED, table(columns, cells, right=(1, 2, 3)))
