"""What the README shows of named tasks, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sprat.config import load
from sprat.endpoints.opening import open_endpoint
from sprat.inprocess import Runtime
from sprat.store import Store
from sprat.task_config import TaskConfig

README = Path(__file__).parents[2] / "README.md"
TEXT = "Where is order 1234? I wait since May!"
SCHEMA = '{"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}'


def test_readme_remote_tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text("utf-8").split("### Cascades")[1].split("\n### ")[0]
    (example,) = (
        each
        for each in re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
        if "[endpoints.big]" in each
    )
    (tmp_path / "sprat.toml").write_text(example, "utf-8")
    monkeypatch.setenv("BIG_KEY", "k-1")
    config = load(tmp_path / "sprat.toml")
    task = config.tasks["tickets"]
    assert isinstance(task, TaskConfig)
    assert task.tiers["remote"].endpoint == "big"
    assert open_endpoint("big", config.endpoints["big"], tmp_path).name == "big"


def test_readme_tasks_of_a_generative_model(store: Store, smollm: Path, tmp_path: Path) -> None:
    section = README.read_text("utf-8").split("### Tasks for a generative model")[1]
    (example,) = re.findall(r"```toml\n(.*?)```", section.split("\n### ")[0], re.DOTALL)
    (tmp_path / "sprat.toml").write_text(example, "utf-8")
    (tmp_path / "order.json").write_text(SCHEMA, "utf-8")
    with Runtime(config=load(tmp_path / "sprat.toml"), store=store) as runtime:
        (decision,) = runtime.decide("triage", [TEXT]).items
        (order,) = runtime.extract("orders", [TEXT]).items
    assert decision is not None
    assert [answer.question for answer in decision.answers] == ["urgent", "mood"]
    assert order is not None
    assert order.abstained or order.value["order"] in TEXT
