"""A language tier of a moderator on real models: a static one, then SmolLM2, on SMS spam."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from servers import GENERATOR, sprat, start_server

from sprat import Client
from sprat.asked_manifest import Categories
from sprat.bundle import Bundle
from sprat.bundle_manifest import AskedModeration
from sprat.calibration import category_chances
from sprat.store import Store
from sprat.values import QuestionSet

pytestmark = pytest.mark.timeout(300)

NAME = "spam"
CLEAN = "We walked along the river and talked about the garden and what to cook tonight. "
TRAIN_ROWS, ADD_ROWS = 300, 100


@pytest.fixture(scope="module")
def made(
    store: Store,
    minilm_static: str,
    smollm: Path,
    shared_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A moderator on a static model, and a language model that was asked about some more rows."""
    folder = tmp_path_factory.mktemp("moderators")
    lines = (shared_data / "sms_spam.train.jsonl").read_text("utf-8").splitlines(True)
    parts = {"train": lines[:TRAIN_ROWS], "rows": lines[TRAIN_ROWS : TRAIN_ROWS + ADD_ROWS]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(part), "utf-8")
    (folder / NAME).mkdir()
    out, clean = folder / "heads", ("--clean-label", "ham")
    for given in (
        (
            "train",
            str(folder / "train.jsonl"),
            "--kind",
            "moderate",
            "--base",
            minilm_static,
            *clean,
        ),
        ("add-tier", str(out), "--model", GENERATOR, "--data", str(folder / "rows.jsonl"), *clean),
    ):
        to = out if given[0] == "train" else folder / NAME / NAME
        done = sprat(store, *given, "-o", str(to))
        assert done.returncode == 0, done.stderr
    return folder / NAME / NAME


def test_language_categories_are_calibrated_on_a_real_model(made: Path) -> None:
    report = json.loads((made / "report.json").read_text())["asked"]["language"]
    tier = Bundle.load(made).manifest.tiers[-1]
    assert isinstance(tier.moderation, AskedModeration)
    (odds,) = tier.moderation.odds
    assert odds.slope >= 0
    (category,) = report["evaluation"]["categories"]
    # By its own lights a small model says yes or no as it likes; calibrated it knows that.
    assert category["ece"]["value"] < category["ece_noise"] + 0.2
    assert report["training"]["calibration"]["not_sound"] == 0


def test_language_categories_are_served_behind_real_heads(
    store: Store, made: Path, shared_data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "sprat.toml"
    config.write_text(
        f'[tasks.{NAME}]\nbundle = "{made}"\ntiers.head.accept_at = 0.97\n[models."{GENERATOR}"]\n'
    )
    lines = (shared_data / "sms_spam.test.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:40]]
    tier = Bundle.load(made).manifest.tiers[-1]
    assert isinstance(tier.language, Categories)
    assert isinstance(tier.moderation, AskedModeration)
    questions = tier.language.spec(GENERATOR)
    assert isinstance(questions, QuestionSet)
    long = CLEAN * 80
    assert len(long) > 2 * tier.language.window
    server = start_server(store, tmp_path, "--config", str(config))
    try:
        with Client(server.address) as client:
            result = client.moderate(NAME, texts)
            asked = [
                (text, item)
                for text, item in zip(texts, result.items, strict=True)
                if item and item.tier == 1
            ]
            assert 0 < len(asked) < len(texts)
            plain = client.decide(questions, [text for text, _ in asked])
            (scanned,) = client.moderate(NAME, [long], accept_at=1.0).items
    finally:
        assert server.stop() == 0
    for (_, item), decision in zip(asked, plain.items, strict=True):
        assert decision is not None
        (answer,) = decision.answers
        (yes,) = [score.score for score in answer.scores if score.label == "yes"]
        (expected,) = category_chances(np.array([[yes]]), tier.moderation.odds)[0]
        # What else is in a batch moves quantized weights a little.
        assert item.categories[0].probability == pytest.approx(expected, abs=0.1)
    assert scanned is not None
    assert (scanned.tier, scanned.abstained) == (1, True)
    assert scanned.chunks >= 3
    (found,) = scanned.categories
    assert 0 <= found.start < found.end <= len(long)
    assert found.end - found.start <= tier.language.window
    log = server.log.read_text()
    assert "river" not in log
