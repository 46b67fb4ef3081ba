"""How good a moderator gets: spam among SMS, on a frozen encoder and on a static model.

Trained as ``sprat train --kind moderate`` does it and asked as a server is asked. Test rows are
only ever evaluated on.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sprat.benchmarks import bundle, data
from sprat.benchmarks.harness import Context, Figure, Outcome, Table, figure
from sprat.build_static import distilled
from sprat.bundle import write_bundle
from sprat.bundle_manifest import BundleManifest
from sprat.errors import SetupError
from sprat.inprocess import Runtime
from sprat.manifest import ModelRef
from sprat.pull import pull
from sprat.store import Store
from sprat.train.categories import CategoryData, read_categories
from sprat.train.evaluate_categories import ModerationReport, evaluate_categories
from sprat.train.moderate import train_moderator, train_moderator_tier
from sprat.train.moderation_record import TierModeration
from sprat.train.prepare_categories import PreparedCategories, prepare_categories
from sprat.values import FloatArray, IntArray

CLEAN = "ham"
BATCH = 256
DIMENSION = 256
"""Of the static model's vectors."""
QUICK_ROWS = 400
GOAL = 0.955
FIGURES = ("precision", "recall", "f1", "average_precision", "ece")


def run(context: Context) -> Outcome:
    """Train a moderator on each model, evaluate it on the test rows."""
    train, test = (_rows(context, part) for part in ("train", "test"))
    prepared = prepare_categories(train, test=test)
    pull(bundle.ENCODER, context.store)
    static = f"{bundle.ENCODER}-static"
    distilled(bundle.ENCODER, static, context.store, dimension=DIMENSION, quantization="int8")
    figures: list[Figure] = []
    rows: list[tuple[str | float, ...]] = []
    reports: dict[str, ModerationReport] = {}
    for title, model in (("encoder", bundle.ENCODER), ("static", static)):
        context.say(f"train on {model}")
        started = time.perf_counter()
        report, tier = _train_and_ask(prepared, model, context.store)
        reports[title] = report
        (spam,) = report.categories
        figures.append(
            figure(f"f1_{title}", f"F1 of spam, {model}", "", [spam.f1.value], at_least=GOAL)
        )
        features = "vectors and n-grams" if tier.ngrams else "vectors"
        rows.append(
            (
                model,
                features,
                *(round(getattr(spam, name).value, 4) for name in FIGURES),
                f"{spam.f1.low:.3f} to {spam.f1.high:.3f}",
                round(time.perf_counter() - started, 1),
            )
        )
    return Outcome(
        parameters={"train_rows": len(train), "test_rows": len(test), "window": prepared.window[0]},
        method=(
            "Logistic regression on frozen features; features, regularization, calibration and "
            "threshold (best expected F1) by cross-validation within the training rows. Test rows "
            "are answered by the moderate task as a server has it, in windows."
        ),
        figures=tuple(figures),
        table=Table(
            columns=("model", "features", *FIGURES, "95 % of F1", "seconds, embedding included"),
            rows=tuple(rows),
        ),
        raw={name: report.model_dump(mode="json") for name, report in reports.items()},
    )


def _rows(context: Context, part: str) -> CategoryData:
    path = data.find(f"sms_spam.{part}.jsonl", context.checkout)
    if path is None:
        raise SetupError(
            f"sms_spam.{part}.jsonl is not on this machine; SPRAT_TEST_DATA names its folder"
        )
    rows = read_categories(path, clean_label=CLEAN)
    return rows.take(range(QUICK_ROWS)) if context.quick else rows


def _train_and_ask(
    prepared: PreparedCategories, model: str, store: Store
) -> tuple[ModerationReport, TierModeration]:
    """The evaluation of the served bundle, and how its heads came about."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "spam"
        done: list[TierModeration] = []
        with Runtime(models=[model], store=store) as runtime:

            def build(work: Path) -> BundleManifest:
                manifest, _ = store.model(model)
                tier = functools.partial(
                    train_moderator_tier,
                    name="static" if manifest.engine == "static" else "head",
                    base=ModelRef(name=manifest.name, digest=manifest.digest),
                    compute=functools.partial(_compute, runtime, model),
                )
                written = train_moderator(prepared, [tier], name="spam", out=work)
                done.extend(written.record.tiers.values())
                return written.manifest

            bundle = write_bundle(out, build)
        (settings,) = (tier.moderation for tier in bundle.tiers)
        assert settings is not None
        probabilities = []
        with Runtime(tasks=[str(out)], store=store) as runtime:
            for start in range(0, len(prepared.test), BATCH):
                result = runtime.moderate("spam", prepared.test.texts[start : start + BATCH])
                for item in result.items:
                    assert item is not None
                    probabilities.append([each.probability for each in item.categories])
    report = evaluate_categories(
        np.array(probabilities),
        prepared.test.truth(bundle.labels),
        names=bundle.labels,
        flag_at=[each.flag_at for each in settings.thresholds],
    )
    return report, done[0]


def _compute(runtime: Runtime, model: str, texts: Sequence[str]) -> tuple[FloatArray, IntArray]:
    parts = [
        runtime.embed(model, texts[start : start + BATCH], truncation="truncate")
        for start in range(0, len(texts), BATCH)
    ]
    return (
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.dropped_tokens for part in parts]),
    )
