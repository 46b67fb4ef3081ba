"""Remote tiers in training: what answers are to calibration, tuning and evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, Fault, by_words
from remotes import remote_tier
from topics import TOPICS

from sprat import remote as chats
from sprat.asked_manifest import Remote
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.calibration import confidences, log_scores, spread, tempered
from sprat.endpoint_config import EndpointConfig
from sprat.endpoints.opening import open_endpoint
from sprat.errors import ConfigError, DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Silent
from sprat.store import Store
from sprat.train.add_tier import add_tier, read_record, remote
from sprat.train.asked import Ask, OpenTier
from sprat.train.asked_labels import log_probabilities
from sprat.train.asked_tiers import tier_opener
from sprat.train.data import Dataset
from sprat.train.head import Embed, train_classifier, train_tier
from sprat.train.prepare import prepare
from sprat.train.thresholds import Aim
from sprat.train.tune import score_tiers, tune
from sprat.values import Classification, ClassifyResult, Label, LabelScore, Timings

Rows = Callable[..., Dataset]
LABELS = tuple(sorted(TOPICS))
ASKED = Remote(model="big", labels=tuple(map(Label, LABELS)))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chats, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    """It names the first topic that a word of the text is of, else says something else."""
    words = {word: (topic, -0.1) for topic in LABELS for word in TOPICS[topic].split()}
    with ChatServer(answer=by_words(words), usage=(20, 2)) as server:
        yield server


def opener(chat: ChatServer, folder: Path, **changes: Any) -> OpenTier:
    config = EndpointConfig(**{"url": chat.url, "model": "big", "attempts": 1, **changes})
    return tier_opener(Store(folder), lambda: open_endpoint("far", config, folder))


def asking(asked: Remote = ASKED) -> tuple[BundleManifest, int]:
    """A bundle whose second tier asks that."""
    tiers = [
        {
            "name": "head",
            "base": {"name": "words", "digest": "0" * 64},
            "weights": "head.safetensors",
            "calibration": None,
            "evaluation": {"n": 1, "metrics": {}},
        },
        remote_tier(LABELS, asks=asked.model_dump(mode="json")),
    ]
    facts = {"kind": "classify", "train_rows": 1, "created": "", "made_by": "", "files": ()}
    document = {"name": "tickets", "labels": LABELS, "tiers": tiers, **facts}
    return BundleManifest.model_validate(document), 1


def rows(*texts: str, label: str = LABELS[0]) -> Dataset:
    return Dataset(texts, (label,) * len(texts), tuple(range(1, len(texts) + 1)), "rows.jsonl")


def test_asked_remote_answers_are_spread(chat: ChatServer, tmp_path: Path) -> None:
    first = {label: TOPICS[label].split()[0] for label in LABELS}
    data = rows(first[LABELS[0]], first[LABELS[1]], "nothing of that kind")
    with opener(chat, tmp_path)(*asking()) as ask:
        logs_nk = log_probabilities(ask, LABELS, data, Silent())
    sure = math.exp(-0.1)
    wanted = [spread(0, sure, len(LABELS)), spread(1, sure, len(LABELS))]
    np.testing.assert_allclose(np.exp(logs_nk[:2]), wanted, rtol=1e-5)
    # No label is a wrong one, and hardly surer than chance.
    assert logs_nk[2].argmax() != 0
    assert np.exp(logs_nk[2].max()) < 1.02 / len(LABELS)


def test_asked_remote_row_that_fails_names_its_line(chat: ChatServer, tmp_path: Path) -> None:
    data = rows("a", "b")
    with opener(chat, tmp_path, concurrency=1)(*asking()) as ask:
        chat.faults = [Fault(), Fault(400)]
        with pytest.raises(
            DataError, match=r"rows\.jsonl:2: endpoint far failed \(INVALID_INPUT\)"
        ):
            log_probabilities(ask, LABELS, data, Silent())


def test_asked_remote_of_another_model_sends_nothing(chat: ChatServer, tmp_path: Path) -> None:
    other = ASKED.model_copy(update={"model": "small"})
    opened = opener(chat, tmp_path)(*asking(other))
    with pytest.raises(ConfigError, match="expected small"), opened:
        raise AssertionError("asked all the same")
    assert chat.bodies == []


def test_asked_remote_endpoint_that_says_nothing_names_a_line(
    chat: ChatServer, tmp_path: Path
) -> None:
    chat.faults = [Fault(401), Fault(401)]
    opened = opener(chat, tmp_path)(*asking())
    with pytest.raises(DataError, match=r"rows\.jsonl:1: endpoint far failed"), opened as ask:
        log_probabilities(ask, LABELS, rows("a", "b"), Silent())


def test_asked_remote_needs_an_endpoint(tmp_path: Path) -> None:
    opened = tier_opener(Store(tmp_path))(*asking())
    with pytest.raises(InvalidInput, match="tickets: expected --endpoint for tier remote"), opened:
        raise AssertionError("opened all the same")


@pytest.fixture(scope="module")
def made(dataset: Rows, embed: Embed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one head with its report."""
    folder = tmp_path_factory.mktemp("bundle")
    base = ModelRef(name="words", digest="0" * 64)
    train_classifier(
        prepare(dataset(150, seed=3)),
        [lambda given, bar: train_tier(given, bar, name="head", base=base, embed=embed)],
        name="tickets",
        out=folder,
    )
    return folder


def test_asked_remote_tier_is_added_calibrated_and_judged(
    made: Path, dataset: Rows, chat: ChatServer, tmp_path: Path
) -> None:
    bundle = Bundle.load(made)
    asked = remote(
        bundle.manifest, model="big", labels=[Label(LABELS[1], "the second")], instructions="Sort."
    )
    assert isinstance(asked, Remote)
    data = dataset(120, seed=4)
    added = add_tier(
        *(bundle, read_record(made, bundle.manifest), data, asked),
        open_tier=opener(chat, tmp_path / "spent", concurrency=8),
        progress=Silent(),
    )
    added.bundle.save(tmp_path, report=added.record.model_dump_json())
    tier = Bundle.load(tmp_path).manifest.tiers[-1]
    assert (tier.name, tier.base, tier.weights, tier.remote) == ("remote", None, "", asked)
    assert asked.labels[0] == Label(LABELS[1], "the second")
    assert sorted(label.name for label in asked.labels) == list(LABELS)
    assert len(chat.bodies) == 120
    assert added.report.n == 60
    assert read_record(tmp_path, added.bundle.manifest).tiers["remote"].evaluation == added.report
    assert tier.calibration is not None
    assert tier.calibration.ceiling == pytest.approx(61 / 62)
    with pytest.raises(InvalidInput, match="has a tier remote already"):
        add_tier(
            *(added.bundle, added.record, data, asked),
            open_tier=opener(chat, tmp_path),
            progress=Silent(),
        )


@contextmanager
def knowing(truth: dict[str, str], asked: list[str]) -> Iterator[Ask]:
    """Answers as an endpoint that knows all rows."""

    def ask(rows: Dataset) -> ClassifyResult:
        asked.extend(rows.texts)
        named = [truth[text] for text in rows.texts]
        items = [Classification(name, None, (LabelScore(name, 0.9),)) for name in named]
        return ClassifyResult(tuple(items), (), "big", "", "", False, Timings())

    yield ask


def with_remote_tier(bundle: Bundle) -> Bundle:
    asks = ASKED.model_dump(mode="json")
    document = bundle.manifest.model_dump(mode="json")
    document["tiers"].append(remote_tier(LABELS, asks=asks))
    return Bundle(type(bundle.manifest).model_validate(document), bundle.heads)


def tuned_with(
    made: Path, embed: Embed, data: Dataset, aim: Aim, *, blind: bool, **options: Any
) -> tuple[Any, list[str]]:
    truth = dict(zip(data.texts, data.labels, strict=True))
    asked: list[str] = []

    @contextmanager
    def open_embed(name: str) -> Iterator[Embed]:
        yield (lambda texts: 0 * embed(texts)) if blind else embed

    given = {"open_tier": lambda bundle, place: knowing(truth, asked), **options}
    return tune(
        with_remote_tier(Bundle.load(made)),
        data,
        aim,
        open_embed=open_embed,
        engine_of=lambda name: "ct2",
        progress=Silent(),
        **given,
    ), asked


def test_asked_remote_tier_is_tuned_at_the_cost_that_is_given(
    made: Path, embed: Embed, dataset: Rows
) -> None:
    data = dataset(1200, seed=11)
    tuned, asked = tuned_with(
        *(made, embed, data, Aim("loss", 0.1)), blind=False, remote_cost_ms=lambda: 50.0
    )
    assert asked == list(data.texts), "each row is paid for once"
    assert tuned.scores[-1].cost_ms == tuned.tuning.cost_ms["remote"] == 50.0
    logs = log_scores(np.array([spread(0, 0.9, len(LABELS))]))
    best = tempered(np.exp(logs), 1.0).max(axis=1)
    calibration = tuned.bundle.manifest.tiers[-1].calibration
    np.testing.assert_allclose(tuned.scores[-1].confidence_n, confidences(best, calibration)[0])
    assert tuned.scores[-1].is_right_n.all()


def test_asked_remote_tier_costs_its_cpu_time_where_nothing_is_given(
    made: Path, embed: Embed, dataset: Rows
) -> None:
    data = dataset(300, seed=14)
    truth = dict(zip(data.texts, data.labels, strict=True))

    @contextmanager
    def open_embed(name: str) -> Iterator[Embed]:
        yield embed

    *_, last = score_tiers(
        with_remote_tier(Bundle.load(made)),
        data,
        open_embed=open_embed,
        engine_of=lambda name: "ct2",
        open_tier=lambda bundle, place: knowing(truth, []),
        progress=Silent(),
    )
    assert 0 < last.cost_ms < 50
    assert last.engine == "remote"


def test_asked_remote_tier_never_gets_every_text(made: Path, embed: Embed, dataset: Rows) -> None:
    with pytest.raises(DataError, match="every text would be sent to tier remote"):
        tuned_with(*(made, embed, dataset(1200, seed=12), Aim("loss", 0.01)), blind=True)


def test_asked_remote_tier_needs_what_asks_it(made: Path, embed: Embed, dataset: Rows) -> None:
    with pytest.raises(InvalidInput, match="tier remote needs open_tier"):
        tuned_with(
            *(made, embed, dataset(300, seed=13), Aim("loss", 0.05)), blind=False, open_tier=None
        )
