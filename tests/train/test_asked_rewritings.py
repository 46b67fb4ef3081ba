"""Tiers that rewrite, on a real model: what is calibrated is what is served."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sprat.asked_manifest import RemoteRewriting, Rewriting
from sprat.bundle_manifest import BundleManifest, ReportSummary, TierManifest, Transform
from sprat.errors import DataError, InvalidInput
from sprat.inprocess import Runtime
from sprat.manifest import ModelRef
from sprat.progress import Silent
from sprat.store import Store
from sprat.train.add_tier import add_tier, language
from sprat.train.asked_rewritings import AskedRewritings, SaidOfTexts
from sprat.train.asked_tiers import tier_opener
from sprat.train.begin import begin_transform
from sprat.train.calibrate import CalibrationFit
from sprat.train.evaluate_transform import Rewritten
from sprat.train.sureness import SurenessFit
from sprat.train.wanted import Wanted, read_wanted
from sprat.values import Grammar, Label, Sampling, TransformSpec

CITIES = ("Berlin", "Paris", "Madrid", "Rome", "Vienna", "Prague", "Lisbon", "Oslo", "Dublin")
NAMES = ("Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Henry", "Irene", "Jonas")
FORMS = (
    "{a} sent the parcel {n} to {b} in {city}.",
    "Order {n} of {a} goes to {city}; call {b}.",
    "{b} from {city} paid invoice {n}, said {a}.",
    "In {city}, {a} met {b} about ticket {n}.",
)
KIND = AskedRewritings()


def cities(path: Path, count: int, seed: int) -> Wanted:
    """Texts with a city each: the model names it about half of the time."""
    rng = random.Random(seed)
    with path.open("w") as file:
        for _ in range(count):
            a, b = rng.sample(NAMES, 2)
            city = rng.choice(CITIES)
            text = rng.choice(FORMS).format(a=a, b=b, city=city, n=rng.randint(1000, 9999))
            file.write(json.dumps({"text": text, "target": city}) + "\n")
    return read_wanted(path)


def manifest(**transform: Any) -> BundleManifest:
    """A bundle without tiers."""
    return BundleManifest.model_construct(
        name="b", kind="transform", labels=(), tiers=(), transform=Transform(**transform)
    )


def wanted(*targets: str) -> Wanted:
    texts = tuple(f"text {n}" for n in range(len(targets)))
    return Wanted(
        texts, targets, ({},) * len(targets), tuple(range(2, 2 + len(targets))), "r.jsonl"
    )


def test_asked_rewritings_on_a_real_model(store: Store, smollm: Path, tmp_path: Path) -> None:
    rows = cities(tmp_path / "rows.jsonl", 80, 1)
    task = TransformSpec(
        "smollm2-135m",
        "{text}\nName the city in this text.",
        Grammar("regex", "|".join(CITIES)),
        Sampling(max_tokens=8),
    )
    bundle, record = begin_transform(store, "cities", model="smollm2-135m", task=task)
    base, asks = language(store, bundle.manifest, model="smollm2-135m", task=task)
    added = add_tier(
        bundle, record, rows, asks, base=base, open_tier=tier_opener(store), progress=Silent()
    )
    (tier,) = added.bundle.manifest.tiers
    assert added.bundle.manifest.train_rows == 40
    figures = tier.evaluation.metrics
    assert 0.2 < figures["right"].value < 0.9
    # A token that is hardly probable tells of a wrong answer.
    assert tier.sureness is not None
    assert tier.sureness.weights[0] > 0
    assert figures["auroc"].value >= 0.5
    path = tmp_path / "cities"
    path.mkdir()
    added.bundle.save(path, report=added.record.model_dump_json())
    # One at a time: what shares a batch moves an answer of a quantized model.
    few = [rows.take([row]) for row in range(8)]
    with tier_opener(store)(added.bundle.manifest, 0) as ask:
        said = [KIND.say(added.bundle.manifest, ask, each, Silent()) for each in few]
    with Runtime(tasks=[str(path)], store=store) as runtime:
        served = [list(runtime.transform("cities", each.texts[0])) for each in few]
    for chunks, own in zip(served, said, strict=True):
        assert "".join(chunk.text for chunk in chunks) == own.answers[0].text
        sure_n = own.confidences(tier)
        assert sure_n is not None
        assert chunks[-1].confidence == pytest.approx(sure_n[0], abs=1e-6)


def test_asked_rewritings_of_answers_that_are_cut_have_no_confidence() -> None:
    rows = wanted(*("yes", "no") * 20)
    answers = tuple(Rewritten("yes", n % 4 > 0) for n in range(40))
    logprobs = tuple((-0.1 - n % 2,) for n in range(40))
    said = SaidOfTexts(answers, logprobs, np.zeros(40))
    tier = _tier(Rewriting(prompt="{text}"))
    fit = KIND.fit(manifest(), said, rows, tier, seed=0)
    assert isinstance(fit, SurenessFit)
    # Of 40 texts every other one is yes, and every fourth was cut.
    assert (fit.rows, fit.right) == (30, 10)
    fitted = KIND.fitted(tier, fit)
    confidence_n, answer_n, right_n = KIND.rate(manifest(), said, rows, fitted)
    assert answer_n is None
    assert (confidence_n[::4] == 0).all()
    assert (confidence_n[1::4] > 0).all()
    assert right_n.tolist() == [n % 2 == 0 and n % 4 > 0 for n in range(40)]
    report = KIND.evaluate(manifest(), said, rows, fitted, seed=0)
    assert (report.incomplete, report.metrics["right"].value) == (10, 0.25)


def test_asked_rewritings_of_a_task_elsewhere_are_as_sure_as_it_says() -> None:
    rows = wanted(*("yes", "no") * 20)
    answers = tuple(Rewritten("yes") for _ in range(40))
    said = SaidOfTexts(answers, ((),) * 40, np.tile([0.9, 0.3], 20))
    tier = _tier(RemoteRewriting(model="task", task_version="abc"))
    assert KIND.unfitted(tier).sureness is None
    fit = KIND.fit(manifest(), said, rows, tier, seed=0)
    assert isinstance(fit, CalibrationFit)
    fitted = KIND.fitted(tier, fit)
    assert fitted.sureness is None
    confidence_n = said.confidences(fitted)
    assert confidence_n is not None
    assert confidence_n[0] > 0.9 > 0.1 > confidence_n[1]


def _tier(asked: Rewriting | RemoteRewriting) -> TierManifest:
    is_local = isinstance(asked, Rewriting)
    return TierManifest(
        name="t",
        base=ModelRef(name="m", digest="0" * 64) if is_local else None,
        language=asked if is_local else None,
        remote=None if is_local else asked,
        calibration=None,
        evaluation=ReportSummary(n=1, metrics={}),
    )


def test_asked_rewritings_without_sound_answers_say_so() -> None:
    rows = wanted(*["yes"] * 40)
    said = SaidOfTexts((Rewritten("ye", False),) * 40, ((-0.1,),) * 40, np.zeros(40))
    with pytest.raises(DataError, match="found 0 of 40; raise max_tokens"):
        KIND.fit(manifest(), said, rows, _tier(Rewriting(prompt="{text}")), seed=0)


@pytest.mark.parametrize(
    ("grammar", "target", "line"),
    [
        (Grammar("regex", "[0-9]+"), "12a", 3),
        (Grammar("lark", 'start: "a" | "b"'), "c", 3),
        (Grammar("json_schema", '{"type":"object"}'), "[]", 3),
    ],
)
def test_asked_rewritings_name_targets_that_do_not_fit(
    grammar: Grammar, target: str, line: int
) -> None:
    good = {"regex": "1", "lark": "a", "json_schema": '{ "a": 1 }'}[grammar.kind]
    KIND.check(manifest(grammar=grammar), wanted(good))
    with pytest.raises(
        DataError, match=rf"r.jsonl:{line}: target: does not fit the {grammar.kind}"
    ):
        KIND.check(manifest(grammar=grammar), wanted(good, target))
    KIND.check(manifest(), wanted(target))


def test_asked_rewritings_are_split_without_a_text_in_common() -> None:
    rows = wanted(*["x"] * 30)
    twice = Wanted(rows.texts * 2, rows.targets * 2, rows.inputs * 2, tuple(range(60)), "r.jsonl")
    first, second = KIND.split(twice, 0.5, seed=0)
    assert len(first) == len(second) == 30
    assert not set(first.texts) & set(second.texts)
    with pytest.raises(InvalidInput, match="held_out"):
        KIND.split(twice, 1.0, seed=0)


def test_asked_rewritings_ask_what_was_said_last() -> None:
    bundle = manifest(inputs=("tone",), grammar=Grammar("regex", "a|b"))
    task = TransformSpec("m", "{tone}: {text}", None, Sampling(max_tokens=7), lookup=False)
    asked = KIND.language(bundle, adapter=None, trained=None, labels=(), task=task)
    assert asked == Rewriting(prompt=task.prompt, sampling=task.sampling, lookup=False)
    changed = KIND.language(
        bundle, adapter=None, trained=task, labels=(), prompt="{text} {tone}", max_tokens=3
    )
    assert (changed.prompt, changed.sampling.max_tokens) == ("{text} {tone}", 3)
    before = bundle.model_copy(update={"tiers": (_tier(asked),)})
    remote = KIND.remote(before, model="big", task_version="", labels=())
    assert (remote.prompt, remote.sampling) == (task.prompt, task.sampling)
    peer = KIND.remote(before, model="there", task_version="abc", labels=())
    assert (peer.prompt, peer.task_version) == ("", "abc")
    schema = manifest(grammar=Grammar("json_schema", '{"type":"object","maxProperties":2}'))
    same = TransformSpec(
        "m", "{text}", Grammar("json_schema", '{"maxProperties": 2, "type": "object"}')
    )
    KIND.language(schema, adapter=None, trained=same, labels=())
    for grammar in (Grammar("json_schema", '{"type": "object"}'), Grammar("regex", "a")):
        with pytest.raises(InvalidInput, match="grammar: expected that of the bundle, the same"):
            KIND.language(schema, adapter=None, trained=replace(same, grammar=grammar), labels=())
    for labels, prompt, field in (
        ((), "{text}", "prompt"),
        ((), "{text} {tone} {more}", "prompt"),
        ((), "{tone}", "prompt"),
        ((Label("a"),), "{text} {tone}", "labels"),
    ):
        with pytest.raises(InvalidInput) as caught:
            KIND.language(bundle, adapter=None, trained=None, labels=labels, prompt=prompt)
        assert caught.value.field == field
