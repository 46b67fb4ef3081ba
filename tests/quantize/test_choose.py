from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import CHAT_TEMPLATE, WORDS, encoder_files, gguf_file, write_files

from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest, Calibration, ReportSummary, TierManifest
from sprat.errors import (
    ConfigError,
    CorruptFile,
    DataError,
    InvalidInput,
    NotFound,
    SpratError,
    StaleBundle,
    StoreError,
    UnsupportedModel,
)
from sprat.head import Head
from sprat.manifest import Interval, ModelRef
from sprat.pull import pull
from sprat.quantize import gate_rows
from sprat.quantize.choose import Outcome, Request, quantize
from sprat.quantize.choose_encoder import EncoderTrial
from sprat.quantize.choose_language import LanguageTrial
from sprat.store import Store

LOOSE = {"kl_mean": 9.0, "kl_p99": 9.0, "same_top": 0.0, "perplexity_rise": 9.0}
LOOSE_TASK = {
    "cosine_mean": 0.9,
    "agreement": 0.0,
    "accuracy_drop": 1.0,
    "ece_rise": 1.0,
    "wrong_above_rise": 1.0,
}
TEXTS = [f"{a} {b} {c}" for a in WORDS[4:] for b in WORDS[4:] for c in WORDS[4:]]
LABELS = ("money", "post")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a tiny encoder and a tiny language model."""
    folder = tmp_path_factory.mktemp("origin")
    store = Store(folder / "home")
    pull(str(write_files(folder / "enc", encoder_files())), store)
    (folder / "lm.gguf").write_bytes(
        gguf_file(folder, context_length=512, chat_template=CHAT_TEMPLATE)
    )
    pull(str(folder / "lm.gguf"), store, quantization="q8_0", name="lm")
    return store.root


@pytest.fixture
def store(origin: Path, tmp_path: Path) -> Store:
    shutil.copytree(origin, tmp_path / "home")
    return Store(tmp_path / "home")


def rows_file(folder: Path, *, labelled: bool, name: str = "rows") -> Path:
    if labelled:
        path = folder / f"{name}.jsonl"
        rows = [json.dumps({"text": text, "label": LABELS["refund" not in text]}) for text in TEXTS]
        path.write_text("\n".join(rows))
    else:
        path = folder / f"{name}.txt"
        path.write_text("\n".join(TEXTS))
    return path


def request(store: Store, base: str, to: str, *, labelled: bool = False, **fields: Any) -> Request:
    rows = gate_rows.read(rows_file(store.root.parent, labelled=labelled))
    return Request(**{"base": base, "to": to, "name": "made", "rows": rows, **fields})


def add_bundle(store: Store, *, digest: str | None = None, base: str = "enc") -> None:
    """A bundle of a random head that knows two labels."""
    encoder = store.model("enc")[0]
    one = Interval(value=1.0, low=1.0, high=1.0)
    tier = TierManifest(
        name="head",
        base=ModelRef(name=base, digest=digest or encoder.digest),
        weights="head.safetensors",
        calibration=Calibration(temperature=1.0),
        evaluation=ReportSummary(n=1, metrics={"accuracy": one}),
    )
    manifest = BundleManifest(
        name="tickets",
        kind="classify",
        labels=LABELS,
        tiers=(tier,),
        train_rows=4,
        created="2026-01-01",
        made_by="a test",
        files=(),
    )
    draw = np.random.default_rng(5)
    weight = draw.normal(0, 9, (2, encoder.dimension)).astype(np.float32)
    bundle = Bundle(manifest, (Head(weight, np.zeros(2, np.float32)),))
    store.add_bundle("tickets", lambda folder: bundle.save(folder, report="{}"))


def names(store: Store) -> list[str]:
    return [manifest.name for manifest, _ in store.models()]


def assert_nothing_left(store: Store) -> None:
    assert names(store) == ["enc", "lm"]
    assert list((store.root / "tmp").iterdir()) == []


def figures_of(outcome: Outcome) -> dict[str, float]:
    (candidate,) = outcome.candidates
    return {figure.name: figure.value for figure in candidate.figures}


@pytest.mark.parametrize("to", ["int8", "int8_unsaturated", "float32"])
def test_choose_quantizes_an_encoder(store: Store, to: str) -> None:
    outcome = quantize(request(store, "enc", to), store)
    manifest, folder = store.model("made", check=True)
    assert manifest == outcome.manifest
    assert manifest.quantization == to
    assert (manifest.pooling, manifest.dimension) == ("mean", 32)
    report = manifest.gate
    assert report is not None
    assert (report.base, report.reference, report.texts) == ("enc", "float32", len(TEXTS))
    assert [figure.name for figure in report.figures] == ["cosine_mean", "cosine_p1"]
    least = {"int8": 0.999, "int8_unsaturated": 0.999, "float32": 1 - 1e-6}[to]
    assert report.figures[0].value >= least
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *("model.json", "tokenizer.json", "source/model.safetensors", "source/config.json"),
        *("ct2/model.bin", "ct2/config.json", "ct2/vocabulary.json"),
    }
    assert list((store.root / "tmp").iterdir()) == []


def test_choose_int8_is_what_pull_makes(store: Store) -> None:
    made = quantize(request(store, "enc", "int8"), store).manifest
    assert made is not None
    assert made.digest == store.model("enc")[0].digest


def test_choose_judges_the_answers_of_a_task(store: Store) -> None:
    add_bundle(store)
    outcome = quantize(
        request(store, "enc", "int8", labelled=True, task="tickets", limits=LOOSE_TASK), store
    )
    assert outcome.manifest is not None
    report = outcome.manifest.gate
    assert report is not None
    bundle = store.bundle("tickets")[0]
    assert report.task == f"tickets {bundle.version}"
    figures = figures_of(outcome)
    assert {"agreement", "accuracy", "ece", "wrong_above", "wrong_above_rise"} <= figures.keys()
    assert figures["agreement"] >= 0.9
    # The file has labels, so the same rows without a task have only cosines.
    plain = request(store, "enc", "int8", labelled=True, name="plain")
    assert set(figures_of(quantize(plain, store))) == {"cosine_mean", "cosine_p1"}


@pytest.mark.parametrize("to", ["q8_0", "q4_0", "iq4_nl"])
def test_choose_quantizes_a_language_model(store: Store, to: str) -> None:
    outcome = quantize(request(store, "lm", to, limits=LOOSE), store)
    manifest, folder = store.model("made", check=True)
    assert manifest == outcome.manifest
    assert (manifest.quantization, manifest.weights, manifest.source_weights) == (
        to,
        "model.gguf",
        None,
    )
    assert sorted(path.name for path in folder.iterdir()) == ["model.gguf", "model.json"]
    report = manifest.gate
    assert report is not None
    assert (report.reference, report.texts) == ("f16", len(TEXTS))
    # Of every text its bytes, the token that begins it, and the space that this tokenizer adds.
    assert report.tokens == sum(len(text) + 2 for text in TEXTS)
    figures = figures_of(outcome)
    assert 0 < figures["kl_mean"] < 0.1
    assert figures["kl_mean"] < figures["kl_p99"]
    assert figures["same_top"] > 0.5
    assert 200 < figures["perplexity"] < 320  # random weights over 260 tokens


def test_choose_8_bits_are_nearer_than_4(store: Store) -> None:
    kl = [
        figures_of(quantize(request(store, "lm", to, limits=LOOSE, name=to), store))["kl_mean"]
        for to in ("q8_0", "q4_0")
    ]
    assert 20 * kl[0] < kl[1]


def test_choose_asks_a_language_model_for_labels(store: Store) -> None:
    limits = {**LOOSE, "accuracy_drop": 1.0}
    outcome = quantize(request(store, "lm", "q8_0", labelled=True, limits=limits), store)
    figures = figures_of(outcome)
    assert figures["agreement"] >= 0.9
    assert 0 <= figures["accuracy"] <= 1
    assert outcome.manifest is not None


def test_choose_calibrates_with_other_texts(store: Store, tmp_path: Path) -> None:
    plain = quantize(request(store, "lm", "q4_0", limits=LOOSE, name="plain"), store)
    (tmp_path / "calibrate.txt").write_text("\n".join(TEXTS[::-1]))
    calibration = gate_rows.read(tmp_path / "calibrate.txt")
    asked = request(store, "lm", "q4_0", limits=LOOSE, calibration=calibration)
    made = quantize(asked, store)
    assert plain.manifest is not None
    assert made.manifest is not None
    assert made.manifest.gate is not None
    assert made.manifest.gate.calibration == calibration.sha256
    assert made.manifest.digest != plain.manifest.digest


@pytest.mark.parametrize(
    ("base", "to", "limits"),
    [
        ("enc", "int8_unsaturated", {"cosine_mean": 1.1}),
        ("lm", "q4_0", {**LOOSE, "kl_mean": 1e-9}),
        ("lm", "auto", {**LOOSE, "same_top": 1.1}),
        ("enc", "auto", {"cosine_p1": 1.1}),
    ],
)
def test_choose_keeps_nothing_when_the_gate_fails(
    store: Store, base: str, to: str, limits: dict[str, float]
) -> None:
    outcome = quantize(request(store, base, to, limits=limits), store)
    assert outcome.manifest is None
    assert not any(candidate.passed for candidate in outcome.candidates)
    missed = {f.name for c in outcome.candidates for f in c.figures if not f.is_met}
    assert len(missed) == 1
    assert missed < set(limits) or missed == set(limits)
    assert_nothing_left(store)


def test_choose_failed_gate_leaves_the_model_that_was_there(store: Store) -> None:
    before = quantize(request(store, "enc", "int8"), store).manifest
    again = request(store, "enc", "float32", limits={"cosine_mean": 1.1}, replace=True)
    assert quantize(again, store).manifest is None
    assert store.model("made", check=True)[0] == before


def test_choose_auto_takes_the_fastest_encoder_that_passes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = {"int8": 3.0, "int8_unsaturated": 9.0, "float32": 2.0}
    monkeypatch.setattr(
        EncoderTrial, "speeds", lambda self, quantization: {"texts_per_s": pace[quantization]}
    )
    chosen = quantize(request(store, "enc", "auto"), store)
    assert chosen.manifest is not None
    assert chosen.manifest.quantization == "int8_unsaturated"
    assert chosen.manifest.gate is not None
    assert chosen.manifest.gate.speeds == {"texts_per_s": 9.0}
    # A limit that only float32 keeps: the slowest, and the only one whose speed is of interest.
    cosines = {c.quantization: c.figures[0].value for c in chosen.candidates}
    closest = max(cosines["int8"], cosines["int8_unsaturated"])
    assert closest < cosines["float32"]
    limits = {"cosine_mean": (closest + cosines["float32"]) / 2}
    strict = quantize(request(store, "enc", "auto", limits=limits, replace=True), store)
    assert strict.manifest is not None
    assert strict.manifest.quantization == "float32"
    measured = {c.quantization for c in strict.candidates if c.speeds}
    assert measured == {"float32"}


def test_choose_auto_weighs_reading_and_writing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 256 tokens to read and 32 to write: 1.6 s, 2.3 s and 1.8 s.
    pace = {"q8_0": (200.0, 100.0), "q4_0": (128.0, 100.0), "iq4_nl": (640.0, 23.0)}

    def speeds(self: LanguageTrial, quantization: str) -> dict[str, float]:
        prompt, answer = pace[quantization]
        return {"prompt_tokens_per_s": prompt, "answer_tokens_per_s": answer}

    monkeypatch.setattr(LanguageTrial, "speeds", speeds)
    chosen = quantize(request(store, "lm", "auto", limits=LOOSE), store)
    assert chosen.manifest is not None
    assert chosen.manifest.quantization == "q8_0"


@pytest.mark.parametrize("base", ["enc", "lm"])
def test_choose_auto_measures_this_machine(store: Store, base: str) -> None:
    chosen = quantize(request(store, base, "auto", limits=LOOSE if base == "lm" else {}), store)
    assert chosen.manifest is not None
    for candidate in chosen.candidates:
        assert all(speed > 0 for speed in candidate.speeds.values())
    assert chosen.manifest.gate is not None
    assert chosen.manifest.gate.speeds in [c.speeds for c in chosen.candidates]


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"base": "nobody", "to": "int8"}, NotFound, "no model named 'nobody'"),
        (
            {"base": "enc", "to": "q4_0"},
            InvalidInput,
            "expected int8, int8_unsaturated, float32 or auto",
        ),
        ({"base": "lm", "to": "int8"}, InvalidInput, "expected q8_0, q4_0, iq4_nl or auto"),
        ({"base": "lm", "to": "q3_k"}, InvalidInput, "got 'q3_k'"),
        ({"base": "enc", "to": "int8", "name": "enc"}, ConfigError, "the model itself"),
        ({"base": "enc", "to": "int8", "name": "lm"}, StoreError, "lm is there already"),
        ({"base": "enc", "to": "int8", "name": "No"}, InvalidInput, "cannot be a name"),
        ({"base": "enc", "to": "int8", "task": "none"}, NotFound, "no bundle named 'none'"),
        ({"base": "lm", "to": "q8_0", "task": "none"}, ConfigError, "stands on an encoder"),
        ({"base": "enc", "to": "int8", "limits": {"kl_mean": 1.0}}, InvalidInput, "no such figure"),
        ({"base": "lm", "to": "q8_0", "limits": {"ece": 1.0}}, InvalidInput, "no such figure"),
        ({"base": "enc", "to": "int8", "limits": {"ece": 1.0}}, InvalidInput, "without labels"),
    ],
)
def test_choose_refuses_what_does_not_fit(
    store: Store, fields: dict[str, Any], error: type[SpratError], said: str
) -> None:
    with pytest.raises(error) as caught:
        quantize(request(store, **fields), store)
    assert said in str(caught.value)
    assert names(store) == ["enc", "lm"]
    if (store.root / "tmp").is_dir():
        assert list((store.root / "tmp").iterdir()) == []


def test_choose_refuses_to_calibrate_with_the_gate(store: Store) -> None:
    asked = request(store, "lm", "q4_0")
    with pytest.raises(ConfigError, match="the same file"):
        quantize(Request(**{**_fields(asked), "calibration": asked.rows}), store)
    other = gate_rows.read(rows_file(store.root.parent, labelled=True, name="other"))
    with pytest.raises(ConfigError, match="only weights of language models"):
        quantize(request(store, "enc", "int8", calibration=other), store)


def _fields(asked: Request) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in asked.__dataclass_fields__}


def test_choose_starts_from_published_weights_only(store: Store) -> None:
    quantize(request(store, "enc", "float32"), store)
    with pytest.raises(UnsupportedModel, match="quantized already; start from enc"):
        quantize(request(store, "made", "int8", name="again"), store)


def test_choose_refuses_a_bundle_of_another_model(store: Store) -> None:
    add_bundle(store, base="other")
    with pytest.raises(ConfigError, match="tickets stands on other, not on enc"):
        quantize(request(store, "enc", "int8", task="tickets"), store)
    store.remove("tickets")
    add_bundle(store, digest="0" * 64)
    with pytest.raises(StaleBundle, match="made with another version of enc"):
        quantize(request(store, "enc", "int8", task="tickets"), store)
    assert_nothing_left(store)


def test_choose_refuses_labels_that_the_task_lacks(store: Store, tmp_path: Path) -> None:
    add_bundle(store)
    (tmp_path / "odd.jsonl").write_text('{"text": "late parcel", "label": "weather"}\n')
    rows = gate_rows.read(tmp_path / "odd.jsonl")
    with pytest.raises(DataError, match="label: unknown"):
        quantize(request(store, "enc", "int8", task="tickets", rows=rows), store)
    assert_nothing_left(store)


@pytest.mark.parametrize(
    ("base", "file"), [("enc", "source/model.safetensors"), ("lm", "source/lm.gguf")]
)
def test_choose_refuses_changed_published_weights(store: Store, base: str, file: str) -> None:
    path = store.root / "models" / base / file
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    to = "int8" if base == "enc" else "q8_0"
    with pytest.raises(CorruptFile, match="its sha256 is not that of the manifest"):
        quantize(request(store, base, to), store)
    assert_nothing_left(store)


@pytest.mark.parametrize("base", ["enc", "lm"])
def test_choose_on_a_full_disk_leaves_nothing(store: Store, base: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    asked = request(store, base, "int8" if base == "enc" else "q8_0")
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            quantize(asked, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_nothing_left(store)


def test_choose_without_room_says_what_is_needed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(store.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StoreError, match="needed"):
        quantize(request(store, "enc", "int8"), store)
    assert_nothing_left(store)


@pytest.fixture
def read_only(store: Store) -> Store:
    """A file stands where the store keeps its locks; root may write anywhere else."""
    shutil.rmtree(store.root / "locks")
    (store.root / "locks").write_text("in the way")
    return store


def test_choose_store_that_cannot_be_written(read_only: Store) -> None:
    with pytest.raises(StoreError):
        quantize(request(read_only, "enc", "int8"), read_only)
    assert names(read_only) == ["enc", "lm"]


KILLED = """
import os, sys
from pathlib import Path
from sprat.quantize import choose, gate_rows
from sprat.quantize.choose_encoder import EncoderTrial
from sprat.store import Store

def stall(self, quantization):
    print("half-way", flush=True)
    sys.stdin.read()

EncoderTrial.figures = stall
rows = gate_rows.read(Path(sys.argv[2]))
choose.quantize(choose.Request("enc", "int8", "made", rows), Store(Path(sys.argv[1])))
"""


def test_choose_killed_half_way_leaves_nothing(store: Store) -> None:
    texts = rows_file(store.root.parent, labelled=False)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.root), str(texts)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ.copy(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"half-way\n"
    assert list((store.root / "tmp").iterdir()) != []
    process.kill()
    process.communicate()
    assert names(store) == ["enc", "lm"]
    # What it left is swept by the next change of the store.
    outcome = quantize(request(store, "enc", "int8"), store)
    assert outcome.manifest is not None
    assert list((store.root / "tmp").iterdir()) == []


def test_choose_interrupted_by_the_user_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: EncoderTrial, quantization: str) -> dict[str, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(EncoderTrial, "figures", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quantize(request(store, "enc", "int8"), store)
    assert_nothing_left(store)


def test_choose_is_quick_to_refuse(store: Store) -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidInput):
        quantize(request(store, "enc", "int9"), store)
    assert time.perf_counter() - started < 5
