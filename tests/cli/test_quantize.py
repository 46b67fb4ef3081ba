from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from servers import ENCODER, sprat
from tiny_models import encoder_files, gguf_file, write_files

from sprat.pull import pull
from sprat.store import Store


@pytest.fixture
def own(tmp_path: Path) -> Store:
    """A store with a tiny encoder and a tiny language model."""
    store = Store(tmp_path / "home")
    pull(str(write_files(tmp_path / "enc", encoder_files())), store)
    (tmp_path / "lm.gguf").write_bytes(gguf_file(tmp_path, context_length=512))
    pull(str(tmp_path / "lm.gguf"), store, name="lm")
    return store


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("late parcel\nbroken parcel\nrefund\n")
    return str(path)


def test_quantize_prints_figures_and_keeps_the_report(own: Store, texts: str) -> None:
    done = sprat(own, "quantize", "enc", "--to", "int8_unsaturated", "-o", "enc-8", "--gate", texts)
    assert done.returncode == 0, done.stderr
    assert "cosine_mean" in done.stdout
    assert ">= 0.995" in done.stdout
    assert "enc-8: int8_unsaturated, version " in done.stdout
    assert "int8_unsaturated (gated)" in sprat(own, "models").stdout
    models = json.loads(sprat(own, "models", "--json").stdout)["models"]
    (report,) = (model["gate"] for model in models if model["name"] == "enc-8")
    assert report["base"] == "enc"
    assert [figure["name"] for figure in report["figures"]] == ["cosine_mean", "cosine_p1"]
    embedded = sprat(own, "embed", "enc-8", "late parcel", "--json")
    assert embedded.returncode == 0, embedded.stderr


def test_quantize_failed_gate_is_a_table_and_status_1(own: Store, texts: str) -> None:
    asked = ("quantize", "lm", "--to", "q4_0", "-o", "lm-4", "--gate", texts)
    done = sprat(own, *asked, "--limit", "kl_mean=1e-9", "--limit", "same_top=0")
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if "kl_mean" in line)
    assert line.split()[-1] == "missed"
    assert "same_top" in done.stdout
    assert done.stderr.startswith("error: the gate failed and nothing was kept (q4_0: kl_mean")
    assert [manifest.name for manifest, _ in own.models()] == ["enc", "lm"]
    report = json.loads(sprat(own, *asked, "--limit", "kl_mean=1e-9", "--json").stdout)
    assert report["model"] is None
    (candidate,) = report["candidates"]
    assert candidate["passed"] is False
    assert {f["name"]: f["met"] for f in candidate["figures"]}["kl_mean"] is False


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--limit", "kl_mean"), 2, "expected FIGURE=NUMBER, got kl_mean"),
        (("--limit", "kl_mean=small"), 2, "expected FIGURE=NUMBER"),
        (("--limit", "kl=1"), 1, "error: limit kl: no such figure; there are cosine_mean"),
        (
            ("--to", "int9"),
            1,
            "error: to: expected int8, int8_unsaturated, float32 or auto for enc",
        ),
        (("--calibrate", "no.txt"), 1, "error: no.txt: cannot be read"),
    ],
)
def test_quantize_wrong_usage(
    own: Store, texts: str, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = sprat(own, "quantize", "enc", "-o", "made", "--gate", texts, *arguments)
    assert done.returncode == status
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_quantize_real_encoder_by_the_answers_of_a_bundle(
    store: Store, bundle: Path, tickets: tuple[Path, Path], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(store.root / "models" / ENCODER, home / "models" / ENCODER)
    own = Store(home)
    asked = ("--to", "int8_unsaturated", "-o", "minilm-8", "--task", str(bundle), "--json")
    done = sprat(own, "quantize", ENCODER, "--gate", str(tickets[1]), *asked)
    report = json.loads(done.stdout)
    (candidate,) = report["candidates"]
    figures = {figure["name"]: figure["value"] for figure in candidate["figures"]}
    assert figures["cosine_mean"] > 0.99
    assert figures["agreement"] > 0.95
    assert abs(figures["accuracy_drop"]) < 0.05
    assert done.returncode == (0 if candidate["passed"] else 1)
