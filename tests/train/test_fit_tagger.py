"""Fitting a tagger: its gradient, what it learns, its calibration, its alignment with tokens."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from tagged import make_bookings, read_words
from threadpoolctl import threadpool_info

from sprat.errors import SetupError
from sprat.tagger import Span, tags_of
from sprat.train import fit_tagger as fitting
from sprat.train.fit_tagger import (
    FittedTagger,
    TaggedRows,
    align,
    fit_platt,
    fit_tagger,
    is_whole,
)
from sprat.train.spans import GoldSpan, SpanDataset
from sprat.values import TokenStates

FIELDS = ("name", "people", "time")
NONE = np.zeros((0,), np.int32)


def rows_of(data: SpanDataset) -> TaggedRows:
    return TaggedRows(data.texts, tuple(read_words(data.texts)), data.spans, data.requested)


def fit(data: SpanDataset) -> FittedTagger:
    folds = np.arange(len(data), dtype=np.int32) % 3
    return fit_tagger(rows_of(data), folds, fields=FIELDS, many=())


@pytest.fixture(scope="module")
def fitted() -> FittedTagger:
    return fit(make_bookings(100))


def test_fit_tagger_gradient_is_that_of_its_loss() -> None:
    design = fitting._Design(rows_of(make_bookings(15)), FIELDS, ())
    part = fitting._Part(design, np.arange(15) % 2 == 0)
    rng = np.random.default_rng(0)
    flat = rng.normal(0, 0.3, sum(map(np.prod, design._sizes)))
    for _ in range(5):
        way = rng.normal(0, 1, len(flat))
        way /= np.linalg.norm(way)

        def loss(step: float, way: np.ndarray = way) -> float:
            weights = fitting._Weights.split(flat + step * way, design._sizes)
            return part.loss(weights, 0.5)[0]

        gradient = part.loss(fitting._Weights.split(flat, design._sizes), 0.5)[1]
        slope = (loss(1e-3) - loss(-1e-3)) / 2e-3
        assert gradient @ way == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_fit_tagger_finds_spans_of_new_texts(fitted: FittedTagger) -> None:
    test = make_bookings(60, seed=1)
    found = fitted.tagger.tag(test.texts, read_words(test.texts), test.requested)
    right = sum(
        GoldSpan(s.start, s.end, s.field) in gold
        for spans, gold in zip(found, test.spans, strict=True)
        for s in spans
    )
    true, predicted = sum(map(len, test.spans)), sum(map(len, found))
    assert 2 * right / (true + predicted) > 0.95
    assert fitted.calibration_spans > 80
    assert fitted.unreachable_spans == 0


def test_fit_tagger_judges_whole_answers_to_every_row(fitted: FittedTagger) -> None:
    assert fitted.chance_n.shape == fitted.right_n.shape == (100,)
    assert ((fitted.chance_n > 0) & (fitted.chance_n <= 1)).all()
    assert fitted.right_n.mean() > 0.8
    span = Span("time", 0, 4, 0.9)
    gold = GoldSpan(0, 4, "time")
    assert is_whole([span], [gold])
    assert is_whole([], [])
    for found, wanted in (([span], []), ([], [gold]), ([span], [GoldSpan(0, 4, "name")])):
        assert not is_whole(found, wanted)


def test_fit_tagger_learns_what_was_requested(fitted: FittedTagger) -> None:
    found = fitted.tagger.tag(["5"] * 2, read_words(["5"] * 2), [["people"], ["time"]])
    assert [[span.field for span in spans] for spans in found] == [["people"], ["time"]]


def test_fit_tagger_chooses_the_penalty_with_the_best_likelihood(fitted: FittedTagger) -> None:
    best = min(fitted.candidates, key=lambda each: each.nll)
    assert fitted.chosen == best
    assert len(fitted.candidates) >= 3 or best.penalty in (
        fitting.PENALTIES[0],
        fitting.PENALTIES[-1],
    )


def test_fit_tagger_gives_the_same_weights_again(fitted: FittedTagger) -> None:
    again = fit(make_bookings(100))
    for name in ("states", "indicators", "transitions", "start", "end", "bias"):
        assert (getattr(fitted.tagger, name) == getattr(again.tagger, name)).all(), name
    assert again.tagger.temperature == fitted.tagger.temperature
    assert again.tagger.shift == fitted.tagger.shift


@pytest.mark.parametrize(("temperature", "shift"), [(1.0, 0.0), (0.5, 1.0), (3.0, -0.5)])
def test_fit_tagger_platt_finds_the_line_that_odds_follow(temperature: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(1, 2, 20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-log_odds / temperature - shift))
    found = fit_platt(log_odds, right)
    assert found == pytest.approx((temperature, shift), abs=0.1)


def test_fit_tagger_platt_of_few_spans_is_never_certain() -> None:
    for right in (True, False):
        temperature, shift = fit_platt(np.full(3, 8.0), np.full(3, right))
        confidence = 1 / (1 + np.exp(-8 / temperature - shift))
        assert confidence == pytest.approx(0.8 if right else 0.2, abs=0.01)
    # Where surer ones are wrong more often, all are alike.
    temperature, _ = fit_platt(np.array([-3.0, -2.0, 2.0, 3.0] * 9), np.array([1, 1, 0, 0] * 9) > 0)
    assert temperature == pytest.approx(50)


def test_fit_tagger_doubts_itself_where_spans_mean_nothing() -> None:
    data = make_bookings(60)
    rng = np.random.default_rng(0)
    # Lone numbers at random: people or time, with nothing that tells which.
    noise = SpanDataset(
        tuple(str(n) for n in rng.integers(1, 12, 60)),
        tuple((GoldSpan(0, 1, str(rng.choice(["people", "time"]))),) for _ in range(60)),
        ((),) * 60,
        tuple(range(60)),
        "noise.jsonl",
    )
    texts = (*data.texts, *noise.texts)
    mixed = SpanDataset(
        texts,
        (*data.spans, *noise.spans),
        (((),) * 60) * 2,
        tuple(range(120)),
        "mixed.jsonl",
    )
    tagger = fit(mixed).tagger
    (spans,) = tagger.tag(["5"], read_words(["5"]), [()])
    assert all(tagger.confidence(span.score) < 0.85 for span in spans)


def test_fit_tagger_takes_rows_without_tokens_and_without_spans() -> None:
    data = make_bookings(40)
    rows = rows_of(data)
    empty = TokenStates(NONE, NONE.reshape(0, 2), np.zeros((0, 32), np.float32))
    rows = TaggedRows(
        (*rows.texts, "\u00ad", "hello"),
        (*rows.tokens, empty, *read_words(["hello"])),
        (*rows.spans, (GoldSpan(0, 1, "name"),), ()),
        (*rows.requested, (), ()),
    )
    folds = np.arange(42, dtype=np.int32) % 2
    fitted = fit_tagger(rows, folds, fields=FIELDS, many=())
    assert fitted.unreachable_spans == 1
    assert fitted.tagger.tag(["\u00ad"], [empty], [()]) == [[]]


@pytest.mark.parametrize(
    ("text", "spans", "pieces", "tags", "missed"),
    [
        ("at 7 pm", [(3, 7, "time")], [(0, 2), (3, 4), (5, 7)], ["O", "B-time", "E-time"], 0),
        ("at 7pm", [(3, 6, "time")], [(0, 2), (3, 6)], ["O", "S-time"], 0),
        (
            "a b c d",
            [(0, 5, "name")],
            [(0, 1), (2, 3), (4, 5), (6, 7)],
            "B-name I-name E-name O",
            0,
        ),
        # Inside of a token; two in one token; of a character without a token.
        ("7pm", [(0, 1, "time")], [(0, 3)], ["S-time"], 1),
        ("7pm", [(0, 1, "time"), (1, 3, "name")], [(0, 3)], ["S-time"], 2),
        ("\U0001f600 7", [(0, 1, "name"), (2, 3, "time")], [(2, 3)], ["S-time"], 1),
        # A mark that the tokenizer dropped belongs to the token before it.
        ("Zoe\u0308!", [(0, 4, "name")], [(0, 3), (4, 5)], ["S-name", "O"], 0),
    ],
)
def test_fit_tagger_aligns_spans_with_tokens(
    text: str,
    spans: list[tuple[int, int, str]],
    pieces: list[tuple[int, int]],
    tags: list[str] | str,
    missed: int,
) -> None:
    expected = tags.split() if isinstance(tags, str) else tags
    places = np.array(pieces, np.int32)
    made, lost = align(text, [GoldSpan(*each) for each in spans], places, FIELDS)
    assert [tags_of(FIELDS)[tag] for tag in made] == expected
    assert lost == missed


class Watch:
    """A `Progress` that notes what it is told, and on how many threads."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.threads: set[int] = set()

    def phase(self, text: str, total: int | None = None) -> None:
        self.phases.append(text)
        self.threads.update(pool["num_threads"] for pool in threadpool_info())

    def advance(self, size: int) -> None:
        raise AssertionError("nothing is counted")


def test_fit_tagger_keeps_to_its_threads_and_tells_what_it_does() -> None:
    watch = Watch()
    data = make_bookings(20)
    folds = np.arange(20, dtype=np.int32) % 2
    fitted = fit_tagger(rows_of(data), folds, fields=FIELDS, many=(), progress=watch)
    assert watch.threads == {1}
    assert len(watch.phases) == len(fitted.candidates) + 1
    assert watch.phases[0].endswith("on 2 folds")
    assert watch.phases[-1] == "fit the tagger on 20 rows"


def test_fit_tagger_judges_itself_on_rows_without_a_fold_by_others_alone() -> None:
    good, bad = make_bookings(80), make_bookings(20, seed=2)
    # Rows with a fold say that there is nothing to find: that decides, but teaches nothing.
    silent = replace(bad, spans=((),) * 20)
    texts = (*good.texts, *silent.texts)
    rows = TaggedRows(
        texts,
        tuple(read_words(texts)),
        (*good.spans, *silent.spans),
        (*good.requested, *silent.requested),
    )
    watch = Watch()
    folds = np.repeat(np.array([-1, 0], np.int32), (80, 20))
    fitted = fit_tagger(rows, folds, fields=FIELDS, many=(), progress=watch)
    assert watch.phases[0].endswith("on 20 rows")
    assert watch.phases[-1] == "fit the tagger on 80 rows"
    test = make_bookings(30, seed=1)
    found = fitted.tagger.tag(test.texts, read_words(test.texts), test.requested)
    spans = [span for each in found for span in each]
    assert len(spans) > 20
    assert all(fitted.tagger.confidence(span.score) < 0.2 for span in spans)


@pytest.mark.parametrize("module", ["scipy.optimize", "scipy.sparse", "threadpoolctl"])
def test_fit_tagger_says_what_to_install(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    folds = np.arange(20, dtype=np.int32) % 2
    with pytest.raises(SetupError, match=r"pip install 'sprat\[train\]'"):
        fit_tagger(rows_of(make_bookings(20)), folds, fields=FIELDS, many=())
