"""``sprat train`` with a generative base, as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from servers import sprat

from sprat import config
from sprat.inprocess import Runtime
from sprat.manifest import sha256_file
from sprat.pull import pull
from sprat.store import Store

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="needs torch: pip install 'sprat[finetune]'",
)


@pytest.fixture
def store(tiny: Path, tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    pull(str(tiny), store, name="tiny")
    return store


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"{label} {n}", "label": label} for n in range(8) for label in ("ab", "cd")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@needs_torch
def test_train_adapter_is_served_by_the_task_that_it_prints(store: Store, labelled: Path) -> None:
    given = ("train", str(labelled), "--base", "tiny", "-o", "letters", "--instructions", "Which?")
    done = sprat(store, *given, "--epochs", "2", "--rank", "2", "--learning-rate", "0.01")
    assert done.returncode == 0, done.stderr
    manifest, folder = store.adapter("letters", check=True)
    assert (manifest.rank, manifest.base.digest) == (2, store.model("tiny")[0].digest)
    assert {entry.path for entry in manifest.files} == {"adapter.gguf", "report.json", "task.toml"}
    assert "Evaluation on 4 held-out rows" in done.stdout
    task = (folder / "task.toml").read_text()
    assert task in done.stdout
    (labelled.parent / "sprat.toml").write_text(task)
    loaded = config.load(labelled.parent / "sprat.toml")
    with Runtime(config=loaded, store=store) as runtime:
        (item,) = runtime.classify("letters", ["ab 9"]).items
    assert item is not None
    assert {score.label for score in item.scores} == {"ab", "cd"}
    report = json.loads((folder / "report.json").read_text())
    provenance = report["provenance"]
    assert [provenance[part]["rows"] for part in ("train", "validation", "test")] == [10, 2, 4]
    card = sprat(store, "inspect", "letters")
    assert card.returncode == 0, card.stderr
    for part in ("train", "validation", "test"):
        assert provenance[part]["lines"] in card.stdout
    assert sha256_file(labelled) in card.stdout
    assert f"torch {provenance['versions']['torch']}" in card.stdout
    assert "macro_f1" in card.stdout
    shown = json.loads(sprat(store, "inspect", "letters", "--json").stdout)
    assert (shown["type"], shown["version"], shown["report"]) == (
        "adapter",
        manifest.version,
        report,
    )
    assert not [text for text in ("ab 1", "cd 1") if text in (folder / "report.json").read_text()]
    # What is left of the training is gone, and so is the trial.
    assert list((store.root / "tmp").iterdir()) == []
    assert not (store.root / "downloads" / "letters").exists()
    assert "is there already" in sprat(store, *given).stderr


@needs_torch
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--kind", "route"), "expected one of classify, extract, transform"),
        (("--kind", "extract"), "extract needs one"),
        (("--kind", "transform"), "transform needs one"),
        (("--learning-rate", "0"), "learning_rate: expected a number above 0"),
    ],
)
def test_train_adapter_says_what_is_missing(
    given: tuple[str, ...], message: str, store: Store, labelled: Path
) -> None:
    done = sprat(store, "train", str(labelled), "--base", "tiny", "-o", "a", *given)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert store.adapters() == []


def test_train_adapter_without_torch_names_the_command_that_installs_it(
    store: Store, labelled: Path
) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[0] = 'sprat'; "
        "from sprat.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(labelled), "--base", "tiny", "-o", "a"],
        env={"SPRAT_HOME": str(store.root), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: training an adapter needs torch; install it with: "
        "pip install 'sprat[llama,finetune]'\n"
    )
    assert store.adapters() == []
