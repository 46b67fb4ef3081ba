"""Tags to spans: decoding, confidences, features, and files that are checked."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from tagged import DIMENSION, read_words

from sprat.errors import CorruptFile, EngineError
from sprat.tagger import (
    SHAPES,
    Indicators,
    Tagger,
    all_read,
    log_odds,
    shapes,
    tags_of,
    window,
    with_marks,
)
from sprat.values import TokenStates

FIELDS = ("name", "time")
TAGS = tags_of(FIELDS)


def word_tagger(scores: dict[str, dict[str, float]], *, many: tuple[str, ...] = ()) -> Tagger:
    """A tagger that knows words by their ids: ``scores`` of tags by word, 0 of all others."""
    ids = {word: int(read_words([word])[0].ids[0]) for word in scores}
    vocabulary = np.array(sorted(ids.values()), np.int32)
    indicators = np.zeros((Indicators(vocabulary, FIELDS).count, len(TAGS)), np.float32)
    own = len(vocabulary) + SHAPES + 2  # features of the token itself lie behind its neighbour's
    for word, tags in scores.items():
        for tag, score in tags.items():
            row = own + vocabulary.tolist().index(ids[word])
            indicators[row, TAGS.index(tag)] = score
    size = len(TAGS)
    return Tagger(
        FIELDS,
        frozenset(many),
        states=np.zeros((1, DIMENSION, size), np.float32),
        bias=np.eye(1, size, dtype=np.float32)[0] * 5,
        vocabulary=vocabulary,
        indicators=indicators,
        transitions=np.zeros((size, size), np.float32),
        start=np.zeros(size, np.float32),
        end=np.zeros(size, np.float32),
    )


SEVEN = {"seven": {"B-time": 20, "S-time": 8}, "pm": {"E-time": 20}, "ada": {"S-name": 12}}


def tag(tagger: Tagger, *texts: str) -> list[list[tuple[str, str]]]:
    found = tagger.tag(texts, read_words(texts), [()] * len(texts))
    return [
        [(span.field, text[span.start : span.end]) for span in spans]
        for text, spans in zip(texts, found, strict=True)
    ]


def test_tagger_finds_spans_in_texts_of_different_lengths() -> None:
    tagger = word_tagger(SEVEN)
    assert tag(tagger, "at seven pm, it is Ada", "seven", "", "nothing here") == [
        [("time", "seven pm"), ("name", "Ada")],
        [("time", "seven")],
        [],
        [],
    ]
    assert tag(tagger) == []


def test_tagger_scores_say_how_much_speaks_against_a_span() -> None:
    sure, unsure = (word_tagger({"ada": {"S-name": s}}) for s in (15, 6))
    (strong,), (weak,) = (t.tag(["Ada"], read_words(["Ada"]), [()])[0] for t in (sure, unsure))
    # Of the tags that a lone token may have, O weighs 5 and S-time 0.
    assert weak.score == pytest.approx(np.exp(6) / (np.exp(6) + np.exp(5) + 1), rel=1e-5)
    assert 0.99 < strong.score <= 1
    assert weak.score < strong.score


def test_tagger_keeps_the_surest_span_of_fields_that_a_text_has_once() -> None:
    scores = {**SEVEN, "bea": {"S-name": 8}}
    assert tag(word_tagger(scores), "Bea and Ada at seven") == [
        [("name", "Ada"), ("time", "seven")]
    ]
    assert tag(word_tagger(scores, many=("name",)), "Bea and Ada at seven") == [
        [("name", "Bea"), ("name", "Ada"), ("time", "seven")]
    ]


def test_tagger_confidence_follows_the_temperature() -> None:
    tagger = word_tagger(SEVEN)
    assert tagger.confidence(0.9) == pytest.approx(0.9)
    hot, cold = (replace(tagger, temperature=t) for t in (4.0, 0.25))
    assert 0.5 < hot.confidence(0.9) < 0.9 < cold.confidence(0.9) < 1
    assert hot.confidence(0.1) == pytest.approx(1 - hot.confidence(0.9))
    assert replace(tagger, shift=np.log(2)).confidence(0.5) == pytest.approx(2 / 3)
    for score in (0.0, 1.0):
        assert abs(cold.confidence(score) - score) < 1e-9
        assert np.isfinite(log_odds(score))


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("7", [0, 1, 10]),
        ("12345", [0, 4, 14]),
        ("7pm", [5, 12]),
        ("PM", [6, 7, 9, 11]),
        ("Ada", [6, 9, 12]),
        ("?", [8, 10]),
        ("wonderful", [9, 15]),
        ("", [8, 10]),
    ],
)
def test_tagger_shapes(token: str, expected: list[int]) -> None:
    assert shapes(token) == expected
    assert max(expected) < SHAPES


def test_tagger_indicators_have_a_row_for_each_feature() -> None:
    text = "Ada, 7pm"
    (tokens,) = read_words([text])
    features = Indicators(np.unique(tokens.ids), FIELDS)

    def of(*requested: str) -> set[tuple[int, int]]:
        return set(zip(*features.of(text, tokens, requested), strict=True))

    found = of("time")
    assert {row for row, _ in found} == {0, 1, 2}
    assert max(column for _, column in found) < features.count
    only = found - of()
    assert only
    assert only < of("time", "name")
    # What nobody was trained on has no feature but its looks.
    unknown = Indicators(np.array([], np.int32), FIELDS)
    assert len(unknown.of(text, tokens, [])[0]) == len(of()) - 7


def test_tagger_window_puts_zeros_beyond_the_text() -> None:
    states = np.array([[1, 2], [3, 4]], np.float32)
    assert window(states, 1).tolist() == states.tolist()
    assert window(states, 3).tolist() == [[0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 0, 0]]
    assert window(states[:0], 3).shape == (0, 6)


def test_tagger_spans_end_behind_combining_marks() -> None:
    text = "Zoe\u0308 \u2764\ufe0f"
    assert with_marks(text, 3) == 4
    assert with_marks(text, 4) == 4
    assert with_marks(text, 6) == 7
    assert with_marks("ab", 1) == 1


def test_tagger_refuses_states_that_are_not_finite() -> None:
    (tokens,) = read_words(["Ada"])
    broken = TokenStates(tokens.ids, tokens.spans, tokens.states * np.nan)
    with pytest.raises(EngineError, match="not all states are finite"):
        word_tagger(SEVEN).tag(["Ada"], [broken], [()])


def test_tagger_chance_is_that_of_all_tags_together() -> None:
    tagger = word_tagger(SEVEN)
    texts = ["seven pm", "seven", "ada at seven", "hello", ""]
    tokens = read_words(texts)
    found = all_read(tagger.read(texts, tokens, [()] * len(texts)))
    tags = range(len(TAGS))
    for text, given, reading in zip(texts, tokens, found, strict=True):
        if not len(given.ids):
            assert (reading.spans, reading.chance) == ([], 1.0)
            continue
        scores = tagger.emissions(text, given, ()).astype(np.float64)
        transitions, start, end = tagger._chain
        weights = []
        for path in itertools.product(tags, repeat=len(given.ids)):
            total = start[path[0]] + end[path[-1]]
            total += sum(scores[at, tag] for at, tag in enumerate(path))
            total += sum(transitions[one, other] for one, other in itertools.pairwise(path))
            weights.append(np.exp(total))
        assert reading.chance == pytest.approx(max(weights) / sum(weights), rel=1e-5)
        assert all(reading.chance <= span.score for span in reading.spans)


def test_tagger_text_without_finite_states_does_not_disturb_the_others() -> None:
    tagger = word_tagger(SEVEN)
    texts = ["seven pm", "ada", "seven pm"]
    tokens = read_words(texts)
    tokens[1] = replace(tokens[1], states=tokens[1].states * np.nan)
    first, broken, last = tagger.read(texts, tokens, [()] * 3)
    assert broken is None
    assert first == last
    assert first is not None
    assert [span.field for span in first.spans] == ["time"]


def test_tagger_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tagger.safetensors"
    made = word_tagger(SEVEN, many=("name",))
    made.save(path)
    loaded = Tagger.load(path, fields=FIELDS, many=["name"], temperature=2.0)
    assert (loaded.fields, loaded.many, loaded.temperature) == (FIELDS, {"name"}, 2.0)
    text = "at seven pm, it is Ada"
    assert tag(loaded, text) == tag(made, text)
    assert loaded.dimension == DIMENSION


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bias": np.zeros(8, np.float32)}, r"bias: expected F32\[9\], found F32\[8\]"),
        ({"bias": np.zeros(9, np.float64)}, r"bias: expected F32\[9\], found F64\[9\]"),
        ({"bias": np.full(9, np.nan, np.float32)}, "bias: not all values are finite"),
        ({"states": np.zeros((2, 4, 9), np.float32)}, "states: a window of 2 tokens"),
        ({"states": np.zeros((1, 0, 9), np.float32)}, "of 0 elements"),
        ({"states": np.zeros((4, 9), np.float32)}, r"states: expected F32\[W, H, 9\]"),
        ({"vocabulary": np.array([3, 2, 5], np.int32)}, "vocabulary: ids do not ascend"),
        ({"vocabulary": np.array([2, 3], np.int32)}, "indicators: expected 0 or .* rows, found"),
        ({"end": None}, "expected tensors bias, end, .*, found bias, indicators"),
    ],
)
def test_tagger_refuses_other_files(
    tmp_path: Path, changes: dict[str, np.ndarray | None], said: str
) -> None:
    path = tmp_path / "tagger.safetensors"
    word_tagger(SEVEN).save(path)
    tensors = {**safetensors.numpy.load_file(path), **changes}
    safetensors.numpy.save_file({k: v for k, v in tensors.items() if v is not None}, path)
    with pytest.raises(CorruptFile, match=said):
        Tagger.load(path, fields=FIELDS, many=(), temperature=1.0)


def test_tagger_refuses_files_of_other_fields_and_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "tagger.safetensors"
    word_tagger(SEVEN).save(path)
    with pytest.raises(CorruptFile, match=r"states: expected F32\[W, H, 5\], found F32\[1, 3"):
        Tagger.load(path, fields=("name",), many=(), temperature=1.0)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptFile, match="not a safetensors file"):
        Tagger.load(path, fields=FIELDS, many=(), temperature=1.0)
