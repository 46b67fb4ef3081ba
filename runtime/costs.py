"""What the tiers of bundles cost on this machine: measured by ``sprat bench --tiers``, kept here.

Bundles travel, costs do not: each bundle has a file ``costs/<name>.json`` below the root of the
store, which says what it holds for, down to the versions of what computes. Costs that do not hold
here and now are never used.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from sprat import manifest as manifests
from sprat import measure
from sprat.bundle_manifest import BundleManifest, TierManifest
from sprat.errors import CorruptFile, StoreError
from sprat.manifest import Interval, Manifest, ModelRef, Name
from sprat.store import Store

PACKAGES = ("sprat", "ctranslate2", "llama-cpp-python", "tokenizers", "numpy")
"""Packages whose versions move costs."""

SAME_LENGTH = 1.25
"""Costs hold for texts whose mean length in characters differs by this factor at most."""


class TierCost(Manifest):
    """What one tier costs. Intervals are from the lowest to the highest round.

    Attributes
    ----------
    name : str
        Of the tier.
    base : ModelRef
        Its model.
    asked : str
        Sha256 of what a language tier asks its model; empty of others.
    engine, quantization : str
        Of the model.
    tokens : float
        Mean of the texts, by the model's own tokenizer, as many as it reads.
    texts_per_call : int
        Of the calls that ``cpu_ms`` and ``texts_per_s`` are of.
    cpu_ms : Interval
        CPU milliseconds of a text, in calls of many.
    texts_per_s : Interval
        One such call after another.
    latency_ms : Interval
        Of calls of one text, one after another: medians.
    """

    name: str
    base: ModelRef
    asked: str = ""
    engine: str
    quantization: str
    tokens: float = Field(gt=0)
    texts_per_call: int = Field(ge=1)
    cpu_ms: Interval
    texts_per_s: Interval
    latency_ms: Interval

    @field_validator("cpu_ms", "texts_per_s", "latency_ms")
    @classmethod
    def _is_positive(cls, value: Interval) -> Interval:
        if not 0 < value.low <= value.value <= value.high < math.inf:
            raise ValueError("expected an interval of numbers above 0, around its value")
        return value


class Costs(Manifest):
    """What the tiers of a bundle cost, and what that holds for.

    Attributes
    ----------
    bundle : Name
    labels : int
        Of the bundle; 0 of a transform task.
    measured : str
        When: UTC, ISO 8601.
    cpu : str
        Model of the CPU.
    threads : int
        Compute threads.
    versions : dict of str to str
        Of `PACKAGES`.
    source : str
        Where the texts came from, for people.
    texts : int
    characters : float
        Mean of a text.
    rounds : int
    tiers : tuple of TierCost
        Those that are not remote, in the order of the bundle.
    """

    format: Literal[1] = 1
    bundle: Name
    labels: int = Field(ge=0)
    measured: str
    cpu: str
    threads: int = Field(ge=1)
    versions: dict[str, str]
    source: str
    texts: int = Field(ge=1)
    characters: float = Field(gt=0)
    rounds: int = Field(ge=1)
    tiers: tuple[TierCost, ...] = Field(min_length=1)

    @property
    def cpu_ms(self) -> dict[str, float]:
        """CPU milliseconds of a text, by tier."""
        return {tier.name: tier.cpu_ms.value for tier in self.tiers}

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; ``cost_ratio`` is CPU time against that of the last tier."""
        document = self.model_dump(mode="json")
        for tier in document["tiers"]:
            tier["cost_ratio"] = tier["cpu_ms"]["value"] / self.tiers[-1].cpu_ms.value
        return document

    def differs(self, bundle: BundleManifest) -> str:
        """Why they do not hold for a bundle on this machine; empty where they do."""
        machine = measure.machine()
        if (self.cpu, self.threads) != (machine["cpu"], machine["threads"]):
            return (
                f"of another machine ({self.cpu}, {self.threads} compute threads; here "
                f"{machine['cpu']}, {machine['threads']})"
            )
        versions = measure.versions(PACKAGES)
        for package in sorted(versions.keys() | self.versions.keys()):
            old, new = self.versions.get(package, "none"), versions.get(package, "none")
            if old != new:
                return f"of another version of {package} ({old}, now {new})"
        if self.labels != len(bundle.labels):
            return f"of a bundle of {self.labels} labels, not of {len(bundle.labels)}"
        known = {tier.name: tier for tier in self.tiers}
        for tier in local_tiers(bundle):
            if tier.name not in known:
                return f"without tier {tier.name}"
            then = known[tier.name]
            if (then.base.digest, then.asked) != (tier.model.digest, asked(bundle, tier)):
                return f"of another model of tier {tier.name}, or it is asked something else"
        return ""

    def differs_in_length(self, texts: Sequence[str]) -> str:
        """Why they do not hold for texts; empty where they do, and where there is no text."""
        if not texts:
            return ""
        mean = max(1.0, sum(map(len, texts)) / len(texts))
        if max(mean / self.characters, self.characters / mean) <= SAME_LENGTH:
            return ""
        return f"on texts of {self.characters:.0f} characters, not of {mean:.0f} as these"


def local_tiers(bundle: BundleManifest) -> tuple[TierManifest, ...]:
    """The tiers that compute on this machine; what others cost, their prices say."""
    return tuple(tier for tier in bundle.tiers if tier.remote is None)


def asked(bundle: BundleManifest, tier: TierManifest) -> str:
    """See `TierCost.asked`."""
    if tier.language is None:
        return ""
    given = tier.language.model_dump_json()
    if bundle.transform is not None:
        given += bundle.transform.model_dump_json()
    return hashlib.sha256(given.encode()).hexdigest()


def save(store: Store, costs: Costs) -> Path:
    """Write costs in the place of those that were known of the bundle.

    Raises
    ------
    StoreError
        The store cannot be written.
    """
    path = store.costs(costs.bundle)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            manifests.write(partial, costs)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror or error}") from error
    return path


def find(
    store: Store, bundle: BundleManifest, *, texts: Sequence[str] = ()
) -> tuple[Costs | None, str]:
    """The costs of a bundle's tiers that hold on this machine.

    Parameters
    ----------
    texts : sequence of str
        What they are wanted for; empty: no matter how long texts are.

    Returns
    -------
    costs : Costs or None
        None where there are none that hold.
    why_not : str
        Why those that are here do not; empty where they do, and where none are here.
    """
    path = store.costs(bundle.name)
    if not os.path.exists(path):
        return None, ""
    try:
        costs = manifests.read(path, Costs)
    except CorruptFile as error:
        return None, f"unusable ({error.message})"
    why_not = costs.differs(bundle) or costs.differs_in_length(texts)
    return (None, why_not) if why_not else (costs, "")
