"""Evaluations as tables: of classifiers, of cascades, and of tasks of generative models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from sprat.cli.output import print_table

if TYPE_CHECKING:
    from sprat.bundle_manifest import ReportSummary
    from sprat.manifest import Interval
    from sprat.train.evaluate_cascade import CascadeReport, TierShare
    from sprat.train.evaluate_extract import ExtractReport
    from sprat.train.evaluate_extract_cascade import ExtractCascadeReport
    from sprat.train.evaluate_rewriting import RewritingReport
    from sprat.train.evaluate_task import TaskReport
    from sprat.train.evaluate_transform import TransformReport
    from sprat.train.evaluate_whole import WholeReport
    from sprat.train.report import Report

SHOWN_CONFUSIONS = 5

_IN_CASCADE = ("accept_at", "cpu_ms", "asked", "answers", "right")
_ALONE = ("accuracy", "macro_f1", "ece")
_EXTRACT_ALONE = ("micro_f1", "exact_match", "whole_ece")
_REWRITING_ALONE = ("exact_match", "edit_similarity", "ece", "auroc")


def show_report(report: Report) -> None:
    """Print the figures of a classifier, its labels and what it confuses."""
    _show_metrics(report.n, report.summary().metrics)
    _show_labels(report)
    for point in report.risk_points:
        typer.echo(
            f"Accepting from {point.accept_at:.3f} answers {point.coverage:.1%} of the rows with "
            f"{point.risk:.2%} wrong."
        )
    _show_sure(report)


def show_cascade(report: CascadeReport) -> None:
    """Print the figures of what a cascade answers, and its tiers beside it."""
    _show_metrics(report.n, report.summary().metrics)
    alone = {name: each.summary().metrics for name, each in report.tiers.items()}
    _show_tiers(report.shares, alone, _ALONE)
    _show_labels(report)
    typer.echo(
        f"{report.coverage:.1%} of the rows are answered, {report.wrong:.2%} of these wrongly, for "
        f"{report.cost_ratio:.1%} of the CPU time of {report.best_tier} alone."
    )
    _show_sure(report)


def _show_tiers(
    shares: Sequence[TierShare], alone: Mapping[str, Mapping[str, Interval]], shown: Sequence[str]
) -> None:
    """Print what each tier does, and some figures of what it does by itself."""
    print_table(
        ["tier", *_IN_CASCADE, *shown],
        [
            (
                share.name,
                "left out" if share.accept_at is None else share.accept_at,
                f"{share.cost_ms:.3g}",
                *(share.asked, share.answers, share.accuracy),
                *(own[name].value if name in own else "" for name in shown),
            )
            for share in shares
            for own in [alone[share.name]]
        ],
        title=f"Tiers in the cascade; by themselves: {', '.join(shown)}",
        right=" ".join([*_IN_CASCADE, *shown]),
    )


def _show_labels(report: Report | CascadeReport) -> None:
    print_table(
        ["label", "precision", "recall", "f1", "rows"],
        [(r.label, r.precision, r.recall, r.f1, r.support) for r in report.labels],
        right="precision recall f1 rows",
    )
    if report.confusions:
        print_table(
            ["rows of", "answered as", "how many"],
            [(c.label, c.predicted, c.count) for c in report.confusions[:SHOWN_CONFUSIONS]],
            right="how many",
        )


def _show_sure(report: Report | CascadeReport) -> None:
    typer.echo(
        f"{report.above:.1%} of the rows are answered with a confidence of {report.threshold:g} or "
        f"more, {report.wrong_above:.2%} wrongly. Perfect confidences would show an ECE of "
        f"{report.ece_noise:.3f} on so few rows."
    )


def show_without_leaked(summary: ReportSummary) -> None:
    """Print the first figures of the test rows that repeat no training row."""
    figures = ", ".join(
        f"{name} {each.value:.3f} ({each.low:.3f} to {each.high:.3f})"
        for name, each in list(summary.metrics.items())[:3]
    )
    typer.echo(f"Without rows that repeat a training row ({summary.n}): {figures}")


def show_task(report: TaskReport) -> None:
    """Print the figures of a task of a generative model, whatever kind it is of."""
    from sprat.train.evaluate_extract import ExtractReport
    from sprat.train.report import Report

    if isinstance(report, Report):
        show_report(report)
    elif isinstance(report, ExtractReport):
        _show_extract(report)
    else:
        show_transform(report)


def show_rewriting(report: RewritingReport) -> None:
    """Print the figures of what a bundle of kind transform answers, and its tiers beside it."""
    show_transform(report)
    if report.tiers:
        alone = {name: each.metrics for name, each in report.tiers.items()}
        _show_tiers(report.shares, alone, _REWRITING_ALONE)
    _show_noise(report.whole)


def show_transform(report: TransformReport) -> None:
    """Print the figures of rewritten texts."""
    _show_metrics(report.n, report.metrics)
    if report.incomplete:
        typer.echo(f"{report.incomplete} of {report.n} answers did not end by themselves.")
    if report.wrong_lines:
        typer.echo(
            f"farthest from what was wanted: lines {', '.join(map(str, report.wrong_lines))}"
        )


def show_extract_cascade(report: ExtractCascadeReport) -> None:
    """Print the figures of what a cascade finds, and its tiers beside it."""
    _show_metrics(report.n, report.metrics)
    alone = {name: each.metrics for name, each in report.tiers.items()}
    _show_tiers(report.shares, alone, _EXTRACT_ALONE)
    _show_fields(report)
    figures = report.metrics
    typer.echo(
        f"{figures['coverage'].value:.1%} of the rows are answered, {figures['wrong'].value:.2%} "
        f"of these not rightly as a whole, for {figures['cost_ratio'].value:.1%} of the CPU time "
        f"of {report.best_tier} alone. What counts is {report.by}."
    )
    _show_noise(report.whole)
    _show_wrong(report)


def _show_extract(report: ExtractReport) -> None:
    _show_metrics(report.n, report.metrics)
    _show_fields(report)
    typer.echo(
        f"{report.grounded} of {report.strings} strings stand in their text; {report.abstained} "
        f"values were withheld, {report.incomplete} did not end."
    )
    _show_wrong(report)


def _show_fields(report: ExtractReport | ExtractCascadeReport) -> None:
    print_table(
        ["field", "precision", "recall", "f1", "there"],
        [(r.field, r.precision, r.recall, r.f1, r.support) for r in report.fields],
        right="precision recall f1 there",
    )


def _show_wrong(report: ExtractReport | ExtractCascadeReport) -> None:
    if report.wrong_lines:
        lines = ", ".join(map(str, report.wrong_lines))
        typer.echo(f"Not what was wanted, or not all of it: lines {lines}.")


def _show_noise(whole: WholeReport | None) -> None:
    if whole is not None:
        typer.echo(
            f"Perfect confidences would show an ECE of {whole.ece_noise:.3f} on so few rows."
        )


def _show_metrics(n: int, metrics: Mapping[str, Interval]) -> None:
    print_table(
        ["metric", "value", "95 % interval"],
        [
            (name, each.value, f"{each.low:.3f} to {each.high:.3f}")
            for name, each in metrics.items()
        ],
        title=f"Evaluation on {n} held-out rows",
        right="value",
    )
