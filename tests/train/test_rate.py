"""What tiers of each kind make of labelled rows, and bundles of them tuned."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moderated import messages, uncut
from tagged import make_bookings, read_words

from sprat.bundle import Bundle
from sprat.calibration import chance_of_actions, confidences
from sprat.errors import DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Silent
from sprat.tagger import Reading, Span, Tagger
from sprat.text.ngrams import with_ngrams
from sprat.text.windows import windows
from sprat.train import moderate
from sprat.train.categories import CategoryData
from sprat.train.features import Compute
from sprat.train.head import Embed
from sprat.train.moderate import train_moderator, train_moderator_tier
from sprat.train.page_tuning import tuning_page
from sprat.train.prepare_categories import prepare_categories
from sprat.train.prepare_spans import prepare_spans
from sprat.train.rate import BLOCK, rate_categories, rate_spans, row_names
from sprat.train.spans import GoldSpan, SpanDataset
from sprat.train.tagger import train_tagger, train_tagger_tier
from sprat.train.thresholds import Aim
from sprat.train.tune import tune
from sprat.values import FloatArray, TokenStates


@pytest.fixture(scope="module")
def computes(embeds: dict[str, Embed]) -> dict[str, Compute]:
    return {name: uncut(embed) for name, embed in embeds.items()}


@pytest.fixture(scope="module")
def moderator(computes: dict[str, Compute], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    prepared = prepare_categories(messages(150))
    tiers = [
        functools.partial(
            train_moderator_tier,
            name=name,
            base=ModelRef(name=model, digest="0" * 64),
            compute=computes[model],
        )
        for name, model in (("static", "coarse"), ("head", "fine"))
    ]
    out = tmp_path_factory.mktemp("moderator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moderate, "NGRAM_BUCKETS", 256)  # They are not what is tested here.
        train_moderator(prepared, tiers, name="abuse", out=out)  # type: ignore[arg-type]
    return Bundle.load(out)


def coarse_words(texts: Sequence[str]) -> list[TokenStates]:
    """States that tell little, of tokens that all look alike."""
    return [
        replace(each, states=each.states[:, :2].copy(), ids=np.ones_like(each.ids))
        for each in read_words(texts)
    ]


def fine_words(texts: Sequence[str]) -> list[TokenStates]:
    for _ in range(8):
        made = read_words(texts)
    return made


STATES = {"coarse": coarse_words, "fine": fine_words}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    prepared = prepare_spans(make_bookings(100), test=make_bookings(40, seed=1))
    tiers = [
        functools.partial(
            train_tagger_tier,
            name=name,
            base=ModelRef(name=model, digest="0" * 64),
            states=STATES[model],
        )
        for name, model in (("head", "coarse"), ("finetune", "fine"))
    ]
    out = tmp_path_factory.mktemp("tagger")
    train_tagger(prepared, tiers, name="bookings", out=out)  # type: ignore[arg-type]
    return Bundle.load(out)


def opened(models: dict[str, Any]) -> Any:
    @contextmanager
    def open_model(model: str) -> Iterator[Any]:
        yield models[model]

    return open_model


def distinct(rows: int, *, seed: int) -> SpanDataset:
    """Bookings of which no two texts are alike: each ends with a word of its own.

    Many are written without capitals, which is all that a coarse look at names sees.
    """
    made = make_bookings(rows, seed=seed)
    letters = str.maketrans("0123456789", "abcdefghij")
    texts = tuple(
        f"{text if row % 3 else text.lower()} x{str(row).translate(letters)}"
        for row, text in enumerate(made.texts)
    )
    return replace(made, texts=texts)


def test_rate_categories_counts_rows_whose_flags_are_all_right(
    moderator: Bundle, embeds: dict[str, Embed]
) -> None:
    rows = messages(80, seed=5)
    confidence_n, _, right_n = rate_categories(moderator, 1, rows, uncut(embeds["fine"]))
    tier, head = moderator.manifest.tiers[1], moderator.heads[1]
    settings = tier.moderation
    assert settings is not None
    assert tier.whole is not None
    windows = [rows.texts[row][: settings.window] for row in range(len(rows))]
    assert windows == list(rows.texts), "no text is cut"
    vectors = embeds["fine"](rows.texts)
    probability_nk = head.probabilities(with_ngrams(vectors, rows.texts, settings.ngram_buckets))
    for row, (probability_k, own) in enumerate(zip(probability_nk, rows.categories, strict=True)):
        flagged = {
            name
            for name, chance, limits in zip(
                moderator.manifest.labels, probability_k, settings.thresholds, strict=True
            )
            if chance >= limits.flag_at
        }
        assert right_n[row] == (flagged == set(own))
    chance_n = chance_of_actions(probability_nk, settings.thresholds)
    np.testing.assert_allclose(confidence_n, confidences(chance_n, tier.whole), atol=1e-9)
    assert right_n.mean() > 0.9


def test_rate_categories_reads_long_texts_in_windows(
    moderator: Bundle, embeds: dict[str, Embed]
) -> None:
    settings = moderator.manifest.tiers[1].moderation
    assert settings is not None
    rows = messages(40, seed=6)
    clean = "garden river weather dinner walk music morning friend " * (settings.window // 20)
    hidden = tuple(f"{clean} {text} {clean}" for text in rows.texts)
    long = replace(rows, texts=hidden)
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> FloatArray:
        seen.extend(texts)
        return embeds["fine"](texts)

    _, _, right_n = rate_categories(moderator, 1, long, uncut(embed))
    cut = [windows(text, settings.window, settings.overlap) for text in hidden]
    assert sum(map(len, cut)) > BLOCK
    assert len(seen) == len(set(seen))
    assert max(map(len, seen)) <= settings.window
    assert right_n.mean() > 0.6


def test_rate_spans_counts_rows_where_all_is_found_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tagger: Bundle
) -> None:
    gold = (GoldSpan(0, 3, "name"), GoldSpan(4, 5, "time"))
    rows = SpanDataset(("Ada 7",) * 4, (gold, gold, gold, ()), ((),) * 4, (1, 2, 3, 4), "rows")
    spans = [Span(each.field, each.start, each.end, 0.5) for each in gold]
    found = [
        Reading(spans, 0.9),
        Reading(spans[:1], 0.8),
        Reading([*spans[:1], replace(spans[1], field="people")], 0.7),
        Reading([], 0.6),
    ]
    monkeypatch.setattr(Tagger, "read", lambda *_: found)
    confidence_n, _, right_n = rate_spans(tagger, 1, rows, fine_words)
    assert right_n.tolist() == [True, False, False, True]
    assert (np.diff(confidence_n) <= 0).all()


@pytest.mark.parametrize("aim", [Aim("loss", 0.03), Aim("error", 0.1)])
def test_tune_chooses_thresholds_of_moderators(
    moderator: Bundle, computes: dict[str, Compute], aim: Aim, tmp_path: Path
) -> None:
    rows = messages(500, seed=9)
    tuned = tune(
        moderator,
        rows,
        aim,
        open_embed=opened(computes),
        engine_of=lambda model: "ct2",
        progress=Silent(),
    )
    tuning = tuned.tuning
    assert tuning.cost_ms["static"] < tuning.cost_ms["head"]
    assert [tier.name for tier in tuned.scores] == ["static", "head"]
    saved = tuned.bundle.save(tmp_path, report="{}")
    assert Bundle.load(tmp_path).manifest == saved
    assert len(tuned.bundle.heads) == len(saved.tiers)
    if aim.rule == "loss":
        assert tuning.loss_points.value <= 3
        assert tuning.coverage.value == 1
    else:
        assert tuning.wrong.value <= 0.1
    page = tuning_page(tuned, rows)
    assert "insult" in page
    assert "garden" not in page


def test_tune_chooses_thresholds_of_taggers(tagger: Bundle, tmp_path: Path) -> None:
    rows = distinct(500, seed=9)
    tuned = tune(
        tagger,
        rows,
        Aim("loss", 0.02),
        open_embed=opened(STATES),
        engine_of=lambda model: "ct2",
        progress=Silent(),
    )
    tuning = tuned.tuning
    assert tuning.best_tier == "finetune"
    assert tuning.loss_points.value <= 2
    head, last = tuned.bundle.manifest.tiers
    assert 0 < head.accept_at <= 1
    assert last.accept_at == 0
    assert 0 < tuning.shares["head"] <= 1
    assert tuning.cost_ratio.value < 1
    assert len(tuned.bundle.taggers) == 2
    saved = tuned.bundle.save(tmp_path, report="{}")
    assert Bundle.load(tmp_path).manifest == saved
    page = tuning_page(tuned, rows)
    assert "name + time" in page
    assert "Ada" not in page


def test_tune_leaves_out_taggers_that_do_not_pay(tagger: Bundle) -> None:
    same = {"coarse": fine_words, "fine": fine_words}
    twice = Bundle(tagger.manifest, taggers=(tagger.taggers[1],) * 2)
    rows = distinct(300, seed=11)
    tuned = tune(
        twice,
        rows,
        Aim("loss", 0.02),
        open_embed=opened(same),
        engine_of=lambda model: "ct2",
        progress=Silent(),
    )
    assert len(tuned.bundle.taggers) == len(tuned.bundle.manifest.tiers) == 1


def test_tune_refuses_moderators_and_taggers_that_cannot_be_tuned(
    moderator: Bundle, tagger: Bundle, computes: dict[str, Compute]
) -> None:
    def refused(bundle: Bundle, rows: Any, models: Any, error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            tune(
                bundle,
                rows,
                Aim("loss", 0.1),
                open_embed=opened(models),
                engine_of=lambda model: "ct2",
                progress=Silent(),
            )

    single = Bundle(
        tagger.manifest.model_copy(update={"tiers": tagger.manifest.tiers[:1]}),
        taggers=tagger.taggers[:1],
    )
    refused(single, make_bookings(200), STATES, InvalidInput, "--tiers head,finetune")
    for bundle, rows, models in (
        (moderator, messages(200), computes),
        (tagger, make_bookings(200), STATES),
    ):
        first, last = bundle.manifest.tiers
        assert first.calibration is not None
        spans_only = first.calibration.model_copy(update={"isotonic": ()})
        blind = first.model_copy(update={"calibration": spans_only})
        bare = replace(bundle, manifest=bundle.manifest.model_copy(update={"tiers": (blind, last)}))
        refused(bare, rows, models, InvalidInput, f"tier {first.name} is not calibrated")
    strange = CategoryData(("a",) * 200, (("gossip",),) * 200, tuple(range(1, 201)), "rows")
    refused(moderator, strange, computes, DataError, "known categories: 'insult', 'threat'")
    spans = ((GoldSpan(0, 1, "place"),),) * 200
    other = SpanDataset(("a",) * 200, spans, ((),) * 200, tuple(range(1, 201)), "rows")
    refused(tagger, other, STATES, DataError, "known fields: 'name', 'people', 'time'")


def test_rate_row_names_hold_no_text(dataset: Any) -> None:
    assert set(row_names(dataset(30))) == {"billing", "delivery", "technical"}
    assert set(row_names(messages(30))) == {"(clean)", "insult", "threat", "insult + threat"}
    assert set(row_names(make_bookings(10))) == {
        "(nothing)",
        "name + time",
        "people",
        "people + time",
        "time",
    }
