"""From rows with several labels to a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from moderated import WORDS, messages, uncut

from sprat.bundle import Bundle
from sprat.errors import ConfigError, DataError, InvalidInput
from sprat.manifest import ModelRef
from sprat.progress import Silent
from sprat.train.categories import CategoryData
from sprat.train.head import Embed
from sprat.train.moderate import train_moderator, train_moderator_tier
from sprat.train.policy import policy_of
from sprat.train.prepare_categories import PreparedCategories, prepare_categories
from sprat.train.suspects import rank_rows
from sprat.values import FloatArray

BASE = ModelRef(name="words", digest="a" * 64)


def train(
    prepared: PreparedCategories, out: Path, embed: Embed, **options: object
) -> tuple[Bundle, dict[str, object]]:
    def tier(rows: PreparedCategories, progress: object) -> object:
        return train_moderator_tier(
            rows,
            progress,
            name="head",
            base=BASE,
            compute=uncut(embed),
            **options,  # type: ignore[arg-type]
        )

    out.mkdir()
    train_moderator(prepared, [tier], name="abuse", out=out)  # type: ignore[list-item]
    return Bundle.load(out), json.loads((out / "report.json").read_text())


def test_moderate_learns_categories_that_come_together(tmp_path: Path, embed: Embed) -> None:
    prepared = prepare_categories(messages(400))
    bundle, report = train(prepared, tmp_path / "b", embed)
    manifest = bundle.manifest
    assert (manifest.kind, manifest.labels) == ("moderate", ("insult", "threat"))
    (tier,) = manifest.tiers
    assert tier.moderation is not None
    assert [each.block_at for each in tier.moderation.thresholds] == [None, None]
    assert tier.whole is not None
    assert tier.whole.ceiling == pytest.approx(321 / 322, abs=0.001)
    assert tier.accept_at == 0
    assert tier.evaluation.metrics["macro_f1"].value > 0.95
    assert tier.evaluation.n == len(prepared.test) == pytest.approx(80, abs=3)
    evaluation = report["tiers"]["head"]["evaluation"]  # type: ignore[index]
    assert [each["category"] for each in evaluation["categories"]] == ["insult", "threat"]
    whole = evaluation["whole"]
    assert whole["ece"] == tier.evaluation.metrics["whole_ece"].model_dump()
    assert whole["ece"]["value"] < whole["ece_noise"] + 0.1
    assert sum(each["n"] for each in whole["reliability"]) == tier.evaluation.n
    assert "garden" not in (tmp_path / "b" / "report.json").read_text()


def test_moderate_takes_ngrams_where_they_help(tmp_path: Path, embed: Embed) -> None:
    # Vectors of lower-case words cannot see who shouts.
    bundle, report = train(prepare_categories(messages(300, shouted=True)), tmp_path / "b", embed)
    (tier,) = bundle.manifest.tiers
    assert tier.moderation is not None
    assert tier.moderation.ngram_buckets > 0
    assert bundle.heads[0].dimension == 256 + tier.moderation.ngram_buckets
    insult = report["tiers"]["head"]["evaluation"]["categories"][0]  # type: ignore[index]
    assert insult["f1"]["value"] > 0.95


def test_moderate_leaves_ngrams_where_they_do_not_help(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, np.pi / 2, 300)
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    # What the letters say is chance; what the vectors say is all that there is to know.
    texts = tuple("".join(rng.choice(list("abcdefgh "), 30)) for _ in angles)
    found = rng.random(300) < 1 / (1 + np.exp(12 * (0.8 - angles)))
    categories = tuple(("rude",) if each else () for each in found)
    data = CategoryData(texts, categories, tuple(range(1, 301)), "rows.jsonl")
    known = dict(zip(texts, vectors, strict=True))

    def embed(texts: Sequence[str]) -> FloatArray:
        return np.stack([known[text] for text in texts])

    bundle, _ = train(prepare_categories(data), tmp_path / "b", embed)
    (tier,) = bundle.manifest.tiers
    assert tier.moderation is not None
    assert tier.moderation.ngram_buckets == 0
    assert bundle.heads[0].dimension == 2


def test_moderate_is_reproducible(tmp_path: Path, embed: Embed) -> None:
    made = [
        train(prepare_categories(messages(120), seed=seed), tmp_path / str(number), embed)[
            0
        ].manifest
        for number, seed in enumerate((1, 1, 2))
    ]
    assert made[0].version == made[1].version != made[2].version


def test_moderate_keeps_the_policy(tmp_path: Path, embed: Embed) -> None:
    policy = policy_of(
        {"insult": {"flag": {"at": 0.3}, "block": {"at": 0.8}}, "*": {"flag": {"min_recall": 1}}},
        where="",
    )
    prepared = prepare_categories(messages(200))
    bundle, _ = train(prepared, tmp_path / "b", embed, policy=policy)
    (tier,) = bundle.manifest.tiers
    assert tier.moderation is not None
    insult, threat = tier.moderation.thresholds
    assert (insult.flag_at, insult.block_at) == (0.3, 0.8)
    assert threat.block_at is None
    with pytest.raises(ConfigError, match="spam: no row has this category"):
        train(prepared, tmp_path / "c", embed, policy=policy_of({"spam": {}}, where=""))


def test_moderate_windows_are_as_long_as_usual_texts() -> None:
    data = messages(300)
    room, overlap = prepare_categories(data).window
    longest = max(map(len, data.texts))
    assert 64 <= room <= max(64, longest)
    assert overlap == room // 4
    huge = CategoryData(
        tuple(text * 60 for text in data.texts), data.categories, data.lines, data.path
    )
    assert prepare_categories(huge).window == (1024, 256)


def test_moderate_learns_from_texts_longer_than_a_window(tmp_path: Path, embed: Embed) -> None:
    data = messages(200)
    filler = " ".join([*WORDS[""].split()] * 20)
    texts = [f"{text} {filler} {filler}" for text in data.texts]
    long = CategoryData(tuple(texts), data.categories, data.lines, data.path)
    assert min(map(len, texts)) > 2 * 1024
    bundle, _ = train(prepare_categories(long), tmp_path / "b", embed)
    assert bundle.manifest.tiers[0].evaluation.metrics["macro_f1"].value > 0.6


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([()] * 20, "expected categories, found none in 20 rows"),
        (
            [("x",)] * 3 + [()] * 17,
            "4 or more different texts of category 'x', found 3 in lines 1",
        ),
        ([("x",)] * 20, "category 'x', found 0; rows of clean texts have no labels"),
    ],
)
def test_moderate_refuses_rows_that_do_not_suffice(
    categories: list[tuple[str, ...]], message: str
) -> None:
    texts = tuple(f"text number {number}" for number in range(20))
    data = CategoryData(texts, tuple(categories), tuple(range(1, 21)), "rows.jsonl")
    with pytest.raises(DataError, match=message):
        prepare_categories(data)


def test_moderate_refuses_the_same_text_with_other_categories() -> None:
    data = messages(100)
    texts = (*data.texts, data.texts[0].upper())
    rows = CategoryData(texts, (*data.categories, ()), (*data.lines, 101), data.path)
    with pytest.raises(
        DataError, match=r"rows\.jsonl:1: the same text with other labels in line 101"
    ):
        prepare_categories(rows)
    assert len(prepare_categories(rows, conflicts="keep").train) > 70
    dropped = prepare_categories(rows, conflicts="drop")
    assert dropped.report.dropped_lines == (1, 101)


def test_moderate_refuses_a_test_file_with_other_categories() -> None:
    test = CategoryData(("a",), (("spam",),), (7,), "test.jsonl")
    with pytest.raises(DataError, match=r"test\.jsonl:7: labels: unknown"):
        prepare_categories(messages(60), test=test)


def test_moderate_says_how_it_does_without_leaked_rows(tmp_path: Path, embed: Embed) -> None:
    data = messages(150)
    test = messages(60, seed=9)
    leaking = CategoryData(
        (*test.texts, data.texts[0]),
        (*test.categories, data.categories[0]),
        (*test.lines, 61),
        "test.jsonl",
    )
    prepared = prepare_categories(data, test=leaking)
    assert prepared.report.leaked.count == 1
    _, report = train(prepared, tmp_path / "b", embed)
    without = report["tiers"]["head"]["without_leaked"]  # type: ignore[index]
    assert without["n"] == 60


@pytest.mark.parametrize(
    ("options", "field"), [({"held_out": 0.0}, "held_out"), ({"seed": -1}, "seed")]
)
def test_moderate_refuses_numbers_out_of_range(options: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        prepare_categories(messages(60), **options)  # type: ignore[arg-type]
    assert raised.value.field == field


def test_moderate_refuses_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="name"):
        train_moderator(prepare_categories(messages(60)), [], name="No Name", out=tmp_path)


def test_moderate_tells_what_it_does(embed: Embed) -> None:
    class Log(Silent):
        def __init__(self) -> None:
            self.phases: list[str] = []

        def phase(self, text: str, total: int | None = None) -> None:
            self.phases.append(text)

    log = Log()
    train_moderator_tier(
        prepare_categories(messages(60)), log, name="head", base=BASE, compute=uncut(embed)
    )
    assert log.phases[0].startswith("embed ")
    assert any("insult: try C=" in phase for phase in log.phases)
    assert log.phases[-1].startswith("evaluate on ")


def flipped(data: CategoryData, category: str, share: float) -> tuple[CategoryData, set[int]]:
    """The same rows, a share of them with the wrong word on a category; and their lines."""
    rng = np.random.default_rng(0)
    rows = set(rng.choice(len(data), round(share * len(data)), replace=False).tolist())
    categories = tuple(
        tuple(sorted({*names} ^ {category})) if row in rows else names
        for row, names in enumerate(data.categories)
    )
    return (
        CategoryData(data.texts, categories, data.lines, data.path),
        {data.lines[row] for row in rows},
    )


def test_moderate_ranks_flipped_labels_first(embed: Embed) -> None:
    data, lines = flipped(messages(400), "threat", 0.05)
    prepared = prepare_categories(data)
    tier = train_moderator_tier(prepared, Silent(), name="head", base=BASE, compute=uncut(embed))
    column = prepared.names.index("threat")
    p_n = tier.refits.out_of_fold[:, column]
    truth_n = prepared.train.truth(prepared.names)[:, column]
    order = rank_rows(np.column_stack([1 - p_n, p_n]), truth_n.astype(np.int32))
    ranked = [prepared.train.lines[row] for row in order]
    planted = lines & set(ranked)
    assert len(planted) >= 12
    assert len(planted & set(ranked[: len(ranked) // 10])) >= len(planted) / 2


def test_moderate_names_suspects_of_each_category(tmp_path: Path, embed: Embed) -> None:
    data, lines = flipped(messages(400), "threat", 0.05)
    prepared = prepare_categories(data)

    def tier(rows: PreparedCategories, progress: Silent) -> object:
        return train_moderator_tier(rows, progress, name="head", base=BASE, compute=uncut(embed))

    written = train_moderator(prepared, [tier], name="abuse", out=tmp_path)  # type: ignore[list-item]
    assert set(written.suspects) == {"insult", "threat"}
    found = written.suspects["threat"]
    planted = lines & set(prepared.train.lines)
    assert len(planted & {each.line for each in found}) >= len(planted) / 2
    assert sum(each.line in lines for each in found[:5]) >= 4
    for each in found:
        assert {each.label, each.suggested} == {"threat", "not threat"}
        assert each.confidence < 0.5 < each.suggested_confidence
        assert each.text == data.texts[each.line - 1]
    assert not lines & {each.line for each in written.suspects["insult"][:3]}
    # The report has lines, and no texts.
    saved = json.loads((tmp_path / "report.json").read_text())
    assert [each["line"] for each in saved["suspects"]["threat"]] == [each.line for each in found]
    assert "text" not in saved["suspects"]["threat"][0]
    assert saved["learning_curve"] is None


def test_moderate_learning_curve_ends_at_the_evaluation(tmp_path: Path, embed: Embed) -> None:
    prepared = prepare_categories(messages(300, seed=4))

    def tier(rows: PreparedCategories, progress: Silent) -> object:
        return train_moderator_tier(rows, progress, name="head", base=BASE, compute=uncut(embed))

    written = train_moderator(
        prepared,
        [tier],  # type: ignore[list-item]
        name="abuse",
        out=tmp_path,
        with_learning_curve=True,
    )
    curve = written.record.learning_curve
    assert curve is not None
    assert curve.metric == "mean_average_precision"
    assert curve.points[-1].rows == len(prepared.train)
    whole = written.record.tiers["head"].evaluation.mean_average_precision.value
    assert curve.points[-1].value == pytest.approx(whole, abs=0.01)
    assert curve.points[0].value < curve.points[-1].value
    assert curve.message().startswith("Mean average precision ")
