"""A language tier on real models: MiniLM, then SmolLM2, on the demo's tickets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from servers import GENERATOR, TASK, sprat, start_server

from sprat import Client
from sprat.bundle import Bundle
from sprat.calibration import tempered
from sprat.store import Store

ACCEPT_AT = 0.9


@pytest.fixture(scope="module")
def made(
    store: Store,
    bundle: Path,
    smollm: Path,
    tickets: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The classifier of the tickets, and a language model that knows nothing of them behind it."""
    out = tmp_path_factory.mktemp("tiers") / TASK
    done = sprat(
        store,
        *("add-tier", str(bundle), "--model", GENERATOR, "--data", str(tickets[1])),
        *("--instructions", "Say which desk a message to a shop is for.", "-o", str(out)),
    )
    assert done.returncode == 0, done.stderr
    return out


def test_language_tier_is_calibrated_on_a_real_model(made: Path) -> None:
    report = json.loads((made / "report.json").read_text())["tiers"]["language"]
    manifest = Bundle.load(made).manifest
    # By its own lights a small model is far too sure; calibrated it is no worse than a guess.
    (calibration,) = [tier.calibration for tier in manifest.tiers if tier.name == "language"]
    assert calibration is not None
    assert calibration.temperature > 1
    assert report["evaluation"]["nll"] < math.log(len(manifest.labels)) + 0.2
    assert report["evaluation"]["ece"] < report["evaluation"]["ece_noise"] + 0.2


def test_language_tier_answers_behind_a_real_head(
    store: Store, made: Path, tickets: tuple[Path, Path], tmp_path: Path
) -> None:
    config = tmp_path / "sprat.toml"
    config.write_text(
        f'[tasks.{TASK}]\nbundle = "{made}"\ntiers = {{ head = {{ accept_at = {ACCEPT_AT} }} }}\n'
    )
    texts = [json.loads(line)["text"] for line in tickets[1].read_text("utf-8").splitlines()]
    manifest = Bundle.load(made).manifest
    language = manifest.tiers[-1].language
    calibration = manifest.tiers[-1].calibration
    assert language is not None
    assert calibration is not None
    server = start_server(store, tmp_path, "--config", str(config), "--model", GENERATOR)
    with Client(server.address) as client:
        result = client.classify(TASK, texts)
        tiers = [item.tier for item in result.items if item]
        asked = [text for text, tier in zip(texts, tiers, strict=True) if tier == 1]
        plain = client.choose(language.spec(GENERATOR), asked)
    assert server.stop() == 0
    assert len(tiers) == len(texts)
    assert 0 < len(asked) < len(texts)
    head = [item for item in result.items if item and item.tier == 0]
    escalated = [item for item in result.items if item and item.tier == 1]
    assert min(item.confidence or 0.0 for item in head) >= ACCEPT_AT
    agreed = 0
    for item, alone in zip(escalated, plain.items, strict=True):
        assert alone is not None
        given = {score.label: score.score for score in alone.scores}
        expected = tempered(
            np.array([[given[label] for label in manifest.labels]], np.float32),
            calibration.temperature,
        )
        # Quantized weights answer a little differently in another batch.
        assert item.confidence == pytest.approx(float(expected.max()), abs=0.15)
        agreed += item.label == alone.label
        first, last = item.tiers
        assert 0 < (first.cpu_ms or 0) < (last.cpu_ms or 0)
        assert item.cpu_ms == pytest.approx((first.cpu_ms or 0) + (last.cpu_ms or 0))
    assert agreed >= 0.8 * len(asked)
