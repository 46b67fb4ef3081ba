"""Language tiers behind the others: what they are asked, their calibration, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lora
import pytest
from asking import Asked
from tiny_models import CHAT_TEMPLATE, encoder_files, gguf_file, write_files

from sprat import adapter
from sprat.asked_manifest import Language
from sprat.bundle import Bundle
from sprat.bundle_manifest import REPORT, BundleManifest, Route
from sprat.errors import (
    CorruptFile,
    DataError,
    InvalidInput,
    NotFound,
    StaleAdapter,
)
from sprat.manifest import Interval, ModelRef
from sprat.progress import Silent
from sprat.pull import pull
from sprat.store import Store
from sprat.train.add_tier import (
    LEAST_TEXTS,
    Added,
    add_tier,
    check_unseen,
    language,
    read_record,
)
from sprat.train.data import Dataset
from sprat.train.head import Embed, train_classifier, train_tier
from sprat.train.prepare import prepare
from sprat.train.record import LanguageRecord, TrainingRecord
from sprat.train.task_file import task_files
from sprat.tuning_manifest import Tuning
from sprat.values import ExtractSpec, Label, LabelSet

Rows = Callable[..., Dataset]
LABELS = ("billing", "delivery", "technical")
MODEL = ModelRef(name="small", digest="1" * 64)
ASKS = Language(labels=tuple(map(Label, LABELS)))


@pytest.fixture(scope="module")
def made(dataset: Rows, embed: Embed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one head with its report."""
    folder = tmp_path_factory.mktemp("bundle")
    base = ModelRef(name="words", digest="0" * 64)
    train_classifier(
        prepare(dataset(150, seed=3)),
        [lambda rows, bar: train_tier(rows, bar, name="head", base=base, embed=embed)],
        name="tickets",
        out=folder,
    )
    return folder


def add(folder: Path, data: Dataset, asked: Asked | None = None, **changes: Any) -> Added:
    options: dict[str, Any] = {"base": MODEL, "progress": Silent(), **changes}
    bundle = options.pop("bundle", None) or Bundle.load(folder)
    opener = Asked() if asked is None else asked
    record = read_record(folder, Bundle.load(folder).manifest)
    return add_tier(bundle, record, data, ASKS, open_tier=opener.open, **options)


def test_add_tier_calibrates_on_one_part_and_evaluates_on_the_other(
    made: Path, dataset: Rows, tmp_path: Path
) -> None:
    data = replace(dataset(400, seed=4), sha256="7" * 64)
    asked = Asked()
    added = add(made, data, asked)
    (opened,) = asked.opened
    assert (opened.base, opened.language) == (MODEL, ASKS)
    assert sum(asked.calls) == 400
    assert max(asked.calls) > 1, "batched"
    *_, tier = added.bundle.manifest.tiers
    assert (tier.name, tier.base, tier.language, tier.weights) == ("language", MODEL, ASKS, "")
    record = added.record.tiers["language"]
    assert isinstance(record.training, LanguageRecord)
    assert record.training.calibrated_on.rows + record.training.evaluated_on.rows == 400
    assert record.training.calibrated_on.sha256 == "7" * 64
    assert tier.calibration == record.training.calibration.calibration
    assert tier.calibration is not None
    # Each of the two words speaks for its topic 50 times as much as it should.
    assert tier.calibration.temperature > 1.2
    rows = record.training.calibrated_on.rows
    assert tier.calibration.ceiling == pytest.approx((rows + 1) / (rows + 2))
    report = added.report
    assert report.n == record.training.evaluated_on.rows == tier.evaluation.n
    assert tier.evaluation.metrics["accuracy"].value == report.accuracy
    assert tier.traffic is not None
    assert (tier.traffic.rows, sum(tier.traffic.labels.values())) == (report.n, report.n)
    assert report.accuracy > 0.75
    assert report.ece < report.ece_noise + 0.1
    saved = added.bundle.save(tmp_path, report=added.record.model_dump_json())
    assert Bundle.load(tmp_path).manifest == saved
    assert read_record(tmp_path, saved) == added.record
    assert list(read_record(tmp_path, saved).tiers) == ["head", "language"]
    again = add(made, data)
    assert again.bundle.manifest == added.bundle.manifest, "the same rows and seed"
    other = add(made, data, seed=1).record.tiers["language"].training
    assert isinstance(other, LanguageRecord)
    assert other.evaluated_on.lines != record.training.evaluated_on.lines


def test_add_tier_of_a_router(made: Path, dataset: Rows) -> None:
    plain = Bundle.load(made)
    route = Route(targets=dict.fromkeys(LABELS, "ops"))
    update = {"kind": "route", "route": route}
    routed = replace(plain, manifest=plain.manifest.model_copy(update=update))
    assert add(made, dataset(120, seed=4), bundle=routed).bundle.manifest.route == route


def test_add_tier_takes_away_thresholds_that_were_tuned_without_it(
    made: Path, dataset: Rows
) -> None:
    plain = Bundle.load(made)
    figure = Interval(value=0.5, low=0.4, high=0.6)
    tuning = Tuning(
        rule="loss",
        limit=0.01,
        delta=0.1,
        data_sha256="",
        chosen_on=1,
        verified_on=1,
        cost_ms={},
        best_tier="head",
        shares={},
        cost_ratio=figure,
        loss_points=figure,
        coverage=figure,
        wrong=figure,
    )
    for given, left in ((None, 0.7), (tuning, 0.0)):
        (tier,) = plain.manifest.tiers
        tiers = (tier.model_copy(update={"accept_at": 0.7}),)
        manifest = plain.manifest.model_copy(update={"tiers": tiers, "tuning": given})
        added = add(made, dataset(120, seed=4), bundle=replace(plain, manifest=manifest))
        first, last = added.bundle.manifest.tiers
        assert (first.accept_at, last.accept_at) == (left, 0.0)
        assert added.bundle.manifest.tuning is None


def test_add_tier_refuses_rows_that_do_not_do(made: Path, dataset: Rows) -> None:
    def refused(data: Dataset, match: str, asked: Asked | None = None) -> None:
        opener = Asked() if asked is None else asked
        with pytest.raises(DataError, match=match):
            add(made, data, opener)
        if asked is None:
            assert opener.opened == [], "nothing is loaded for rows that do not do"

    refused(dataset(LEAST_TEXTS - 1, seed=4), f"expected {LEAST_TEXTS} or more different texts")
    data = dataset(100, seed=4)
    refused(data.take([0] * 100), "or more different texts, found 1")
    foreign = replace(data, labels=("refunds", *data.labels[1:]))
    refused(foreign, "label: unknown.*\n.*known labels: 'billing', 'delivery', 'technical'")
    few = replace(data, labels=("billing", "delivery", *["technical"] * 98))
    refused(few, "expected 3 or more different texts of each label, found fewer of 'billing'")
    long = replace(data, texts=(*data.texts[:70], "endless", *data.texts[71:]))
    refused(long, "tickets.jsonl:71: text: 99 tokens", Asked(too_long="endless"))


def test_add_tier_refuses_bundles_that_cannot_have_one(made: Path, dataset: Rows) -> None:
    data = dataset(120, seed=4)
    twice = add(made, data).bundle
    with pytest.raises(InvalidInput, match="tickets: has a tier language already"):
        add(made, data, bundle=twice)
    with pytest.raises(InvalidInput, match="seed: expected 0 or more, got -1"):
        add(made, data, seed=-1)
    with pytest.raises(InvalidInput, match="held_out: expected above 0 and below 1"):
        add(made, data, held_out=1.0)


def test_add_tier_needs_the_report_of_a_classifier(made: Path, tmp_path: Path) -> None:
    manifest = Bundle.load(made).manifest
    assert isinstance(read_record(made, manifest), TrainingRecord)
    for content in (None, "{}", "nonsense"):
        if content is not None:
            (tmp_path / REPORT).write_text(content)
        with pytest.raises(CorruptFile, match="not the report of a bundle of kind classify"):
            read_record(tmp_path, manifest)


# -- what is asked ---------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a generative model, another, an encoder, and an adapter of the first."""
    store = Store(tmp_path / "home")
    content = gguf_file(tmp_path, context_length=1024, chat_template=CHAT_TEMPLATE)
    for name, tail in (("tiny", content[-4:]), ("other", b"\0\0\0\0")):
        (tmp_path / f"{name}.gguf").write_bytes(content[:-4] + tail)
        pull(str(tmp_path / f"{name}.gguf"), store)
    pull(str(write_files(tmp_path / "encoder", encoder_files())), store)
    lora.write_adapter(tmp_path / "polite.gguf", lora.pairs(tmp_path / "tiny.gguf"))
    adapter.add(tmp_path / "polite.gguf", store, base="tiny")
    return store


@pytest.fixture
def manifest(made: Path) -> BundleManifest:
    return Bundle.load(made).manifest


def train_for(store: Store, spec: LabelSet | ExtractSpec) -> None:
    """Say of the adapter what it was trained for, as a training does."""
    folder = store.adapter("polite")[1]
    for file, content in task_files(spec, "polite").items():
        (folder / file).write_text(content, encoding="utf-8")


def test_add_tier_asks_what_was_given(store: Store, manifest: BundleManifest) -> None:
    base, asks = language(
        store,
        manifest,
        model="tiny",
        adapter="polite",
        labels=[Label("technical", "what breaks")],
        instructions="Whose is it?",
        scoring="full",
        normalize_length=True,
    )
    assert base.digest == store.model("tiny")[0].digest
    assert isinstance(asks, Language)
    assert asks.labels == (Label("technical", "what breaks"), Label("billing"), Label("delivery"))
    assert (asks.instructions, asks.scoring, asks.normalize_length) == (
        "Whose is it?",
        "full",
        True,
    )
    assert asks.adapter is not None
    assert asks.adapter.digest == store.adapter("polite")[0].digest
    plain = language(store, manifest, model="tiny")[1]
    assert plain == Language(labels=tuple(map(Label, LABELS)))


def test_add_tier_asks_as_its_adapter_was_trained(store: Store, manifest: BundleManifest) -> None:
    labels = (Label("technical", "breaks"), Label("billing"), Label("delivery"))
    train_for(store, LabelSet("tiny", labels, "Which?", scoring="full", adapter="polite"))
    _, asks = language(store, manifest, model="tiny", adapter="polite")
    assert isinstance(asks, Language)
    assert (asks.labels, asks.instructions, asks.scoring) == (labels, "Which?", "full")
    given = {"instructions": "Who?", "scoring": "constrained", "correct_prior": True}
    _, changed = language(
        store,
        manifest,
        model="tiny",
        adapter="polite",
        labels=[Label("billing", "money")],
        **given,
    )
    assert isinstance(changed, Language)
    assert changed.labels == (labels[0], Label("billing", "money"), labels[2])
    assert {name: getattr(changed, name) for name in given} == given


def test_add_tier_refuses_what_cannot_be_asked(store: Store, manifest: BundleManifest) -> None:
    def refused(error: type[Exception], match: str, **given: Any) -> None:
        with pytest.raises(error, match=match):
            language(store, manifest, **{"model": "tiny", **given})

    refused(NotFound, "no model named 'nothing'", model="nothing")
    refused(InvalidInput, "expected a generative model, but encoder is an enc", model="encoder")
    refused(NotFound, "no adapter named 'nothing'", adapter="nothing")
    refused(StaleAdapter, "made for tiny", model="other", adapter="polite")
    refused(InvalidInput, "'refunds' not among those of bundle tickets", labels=[Label("refunds")])
    refused(InvalidInput, "max_tokens: a task of kind classify is not asked so", max_tokens=9)
    refused(InvalidInput, "no two of the same name", labels=[Label("billing"), Label("billing")])
    train_for(store, LabelSet("tiny", (Label("a"), Label("b")), adapter="polite"))
    refused(InvalidInput, "'a', 'b' not among those of bundle tickets", adapter="polite")
    schema = '{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}'
    train_for(store, ExtractSpec("tiny", schema, adapter="polite"))
    refused(InvalidInput, "polite was trained for another kind of task", adapter="polite")


def test_add_tier_refuses_the_rows_of_the_adapter(store: Store, dataset: Rows) -> None:
    data = replace(dataset(60), sha256="5" * 64)
    check_unseen(store, "polite", data)
    path = store.adapter("polite")[1] / REPORT
    for sha256, is_seen in (("6" * 64, False), ("5" * 64, True)):
        path.write_text(json.dumps({"provenance": {"train": {"sha256": sha256}}}))
        if not is_seen:
            check_unseen(store, "polite", data)
            continue
        with pytest.raises(DataError, match="adapter polite was trained on rows of this file"):
            check_unseen(store, "polite", data)
    for content in ("nonsense", "[]", "{}"):
        path.write_text(content)
        with pytest.raises(CorruptFile, match="not the report of a training"):
            check_unseen(store, "polite", data)
