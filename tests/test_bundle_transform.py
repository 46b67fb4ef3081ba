"""Bundles that rewrite texts: what their manifest says, and what makes no sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rewritings
from doubles import generator_manifest
from rewritings import SURENESS, language_tier, remote_tier, rewriting

from sprat.asked_manifest import RemoteRewriting, Rewriting
from sprat.bundle import Bundle
from sprat.bundle_manifest import BUNDLE_MANIFEST, BundleManifest
from sprat.errors import CorruptFile
from sprat.values import Grammar, Sampling, TransformSpec

MODEL = generator_manifest()


def test_bundle_transform_is_the_same_after_writing(tmp_path: Path) -> None:
    small = language_tier(MODEL, asks={"sampling": {"max_tokens": 9, "stop": ["."]}})
    second = language_tier(MODEL, "language-2", asks={"prompt": "{text}!", "lookup": False})
    made = rewritings.bundle(
        *(small, second, remote_tier()),
        transform={"grammar": {"kind": "regex", "source": "[a-z]+"}},
    )
    made.save(tmp_path, report="{}")
    found = Bundle.load(tmp_path, bases={MODEL.name: MODEL}).manifest
    assert found == made.manifest.model_copy(update={"files": found.files})
    assert [tier.name for tier in found.tiers] == ["language", "language-2", "remote"]
    assert isinstance(found.tiers[0].language, Rewriting)
    assert isinstance(found.tiers[2].remote, RemoteRewriting)
    assert found.transform is not None
    assert found.tiers[0].language.spec("m", found.transform.grammar) == TransformSpec(
        *("m", "Repeat: {text}", Grammar("regex", "[a-z]+"), Sampling(max_tokens=9, stop=(".",)))
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["tiers"][0]["language"].update(prompt="Other: {text}"),
        lambda document: document["tiers"][0]["language"].update(sampling={"temperature": 0.5}),
        lambda document: document["tiers"][0].update(sureness={**SURENESS, "bias": 2.0}),
        lambda document: document["tiers"][0].update(accept_at=0.5),
        lambda document: document.update(transform={"right_at": 0.9}),
        lambda document: document.update(transform={"grammar": {"kind": "regex", "source": "a"}}),
    ],
)
def test_bundle_transform_version_follows_what_answers_depend_on(
    change: Callable[[dict[str, Any]], object],
) -> None:
    document = json.loads(json.dumps(rewriting(language_tier(MODEL))))
    before = BundleManifest.model_validate(document).version
    change(document)
    assert BundleManifest.model_validate(document).version != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(labels=["a"]), "labels: expected none"),
        (lambda document: document.pop("transform"), "transform: expected for kind transform"),
        (
            lambda document: document.update(kind="extract", labels=["a"], extract={}),
            "expected what a task of kind extract asks",
        ),
        (lambda document: document["transform"].update(inputs=["text"]), "other than text"),
        (lambda document: document["transform"].update(inputs=["a", "a"]), "different names"),
        (lambda document: document["transform"].update(right_at=0.0), "right_at"),
        (
            lambda document: document["transform"].update(grammar={"kind": "yaml", "source": ""}),
            "grammar.kind",
        ),
        (lambda document: document["tiers"][0]["language"].pop("prompt"), "tiers.0.language"),
        (
            lambda document: document["tiers"][0]["language"].update(sampling={"x": 1}),
            "tiers.0.language",
        ),
        (lambda document: document["tiers"][0].update(name="head"), "weights if its name"),
        (lambda document: document["tiers"][0].update(name="Language"), "name"),
        (lambda document: document["tiers"][0].update(name="l" * 33), "name"),
        (
            lambda document: document["tiers"][0].update(
                name="head", weights="head.safetensors", language=None
            ),
            "a bundle of kind transform has no head tier",
        ),
        (
            lambda document: document["tiers"].append(language_tier(MODEL)),
            "no two may have the same name",
        ),
        (
            lambda document: document["tiers"][0].update(
                language={"labels": [{"name": "a"}, {"name": "b"}]}
            ),
            "expected what a task of kind transform asks",
        ),
        (lambda document: document["tiers"].insert(0, remote_tier()), "first may not be remote"),
        (
            lambda document: document["tiers"].append(remote_tier(asks={"task_version": "1"})),
            "a prompt, or the version of a task",
        ),
        (
            lambda document: document["tiers"].append(remote_tier(asks={"prompt": ""})),
            "a prompt, or the version of a task",
        ),
        (lambda document: document["tiers"][0].pop("sureness"), "a calibration needs sureness"),
        (
            lambda document: document["tiers"][0].update(calibration=None),
            "sureness needs a calibration",
        ),
        (
            lambda document: document["tiers"][0].update(calibration={"temperature": 1.0}),
            "an isotonic curve",
        ),
        (lambda document: document["tiers"][0]["sureness"].update(weights=[1.0]), "1 weights"),
        (
            lambda document: document["tiers"][0]["sureness"].update(quantiles=[0.5, 1.5]),
            "quantiles",
        ),
        (
            lambda document: document["tiers"][0].update(
                sureness={"quantiles": [], "weights": [], "bias": 0.0}
            ),
            "quantiles",
        ),
    ],
)
def test_bundle_transform_that_makes_no_sense_is_corrupt(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    document = json.loads(json.dumps(rewriting(language_tier(MODEL))))
    change(document)
    (tmp_path / BUNDLE_MANIFEST).write_text(json.dumps(document))
    with pytest.raises(CorruptFile, match=message):
        Bundle.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda document: document["tiers"][0]["language"].update(prompt="no place for it"),
            "tier language: prompt: expected the placeholder {text}",
        ),
        (
            lambda document: document["tiers"][0]["language"].update(prompt="{text} {tone}"),
            r"tier language: prompt: expected the placeholders {text}; found {text}, {tone}",
        ),
        (
            lambda document: document["transform"].update(inputs=["tone"]),
            r"tier language: prompt: expected the placeholders {text}, {tone}; found {text}",
        ),
    ],
)
def test_bundle_transform_prompts_have_the_inputs_of_the_task(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    document = json.loads(json.dumps(rewriting(language_tier(MODEL))))
    change(document)
    (tmp_path / BUNDLE_MANIFEST).write_text(json.dumps(document))
    with pytest.raises(CorruptFile, match=message):
        Bundle.load(tmp_path)


def test_bundle_transform_peer_has_the_confidences_of_its_task(tmp_path: Path) -> None:
    asks = {"prompt": "", "task_version": "0123456789ab"}
    document = rewriting(language_tier(MODEL), remote_tier(asks=asks, sureness=None))
    tier = BundleManifest.model_validate(document).tiers[1]
    assert tier.sureness is None
    assert tier.whole is not None


def test_bundle_labels_have_no_sureness() -> None:
    document = rewriting(language_tier(MODEL))
    asks = {"labels": [{"name": "a"}, {"name": "b"}]}
    document.update(kind="classify", labels=["a", "b"], transform=None)
    document["tiers"][0]["language"] = asks
    with pytest.raises(ValueError, match="has no sureness"):
        BundleManifest.model_validate(document)


def test_bundle_labels_may_have_two_language_tiers() -> None:
    asks = {"labels": [{"name": "a"}, {"name": "b"}]}
    tiers = [
        {**language_tier(MODEL, name, sureness=None), "language": asks} for name in ("one", "two")
    ]
    document = {**rewriting(*tiers), "kind": "classify", "labels": ["a", "b"], "transform": None}
    manifest = BundleManifest.model_validate(document)
    assert [tier.name for tier in manifest.tiers] == ["one", "two"]
