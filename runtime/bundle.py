"""A bundle: the folder that holds a trained task, checked when it is read.

::

    bundle.json        manifest: labels, tiers, their figures, sha256 of the others
    head.safetensors   of each tier, by its name: weight float32[K, D], bias float32[K]; of an
                       extract task see `sprat.tagger.Tagger`
    report.json        the whole evaluation
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sprat import manifest as manifests
from sprat.asked_manifest import RemoteRewriting, Rewriting
from sprat.bundle_manifest import (
    BUNDLE_MANIFEST,
    REPORT,
    BundleManifest,
    Calibration,
    Moderation,
    TierManifest,
    Transform,
)
from sprat.errors import CorruptFile, InvalidInput, NotFound, StaleBundle, StoreError
from sprat.head import Head
from sprat.manifest import AdapterManifest, ModelManifest, ModelRef
from sprat.store import Store
from sprat.tagger import Tagger
from sprat.text.template import TEXT, Template


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A trained task.

    Attributes
    ----------
    manifest : BundleManifest
    heads : tuple of Head
        One for each tier of the manifest that has weights, in its order: the first ones. None of an
        extract task.
    taggers : tuple of Tagger
        One for each tier of an extract task.
    """

    manifest: BundleManifest
    heads: tuple[Head, ...] = ()
    taggers: tuple[Tagger, ...] = ()

    @classmethod
    def open(cls, store: Store, name: str) -> Bundle:
        """Read a bundle of a store, to be used with the models and adapters that are there.

        Parameters
        ----------
        name : str
            In the store, or a path with a slash.

        Raises
        ------
        NotFound
            It is not there, or a model or an adapter of one of its tiers.
        CorruptFile, StaleBundle
            As `load`.
        """
        manifest, folder = store.bundle(name)
        return cls.load(
            folder,
            bases={ref.name: store.model(ref.name)[0] for ref in manifest.bases},
            adapters={ref.name: store.adapter(ref.name)[0] for ref in manifest.adapters},
        )

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        bases: Mapping[str, ModelManifest] | None = None,
        adapters: Mapping[str, AdapterManifest] | None = None,
    ) -> Bundle:
        """Read a bundle and check all of it.

        Parameters
        ----------
        bases : mapping of str to ModelManifest, optional
            The models that it is to be used with, by name: those of all its tiers.
        adapters : mapping of str to AdapterManifest, optional
            The same of adapters.

        Raises
        ------
        CorruptFile
            A file is missing or is not what the manifest says, or a head does not fit it.
        StaleBundle
            A tier was made with another version of its model or its adapter.
        """
        manifest = manifests.read(folder / BUNDLE_MANIFEST, BundleManifest)
        for tier in manifest.tiers:
            _check_versions(folder, tier, bases, adapters)
        if manifest.transform is not None:
            _check_prompts(folder, manifest.transform, manifest.tiers)
        fitted = [tier for tier in manifest.tiers if tier.weights]
        listed = {entry.path for entry in manifest.files}
        for tier in fitted:
            if tier.weights not in listed:
                raise CorruptFile(
                    str(folder / BUNDLE_MANIFEST), f"files: {tier.weights} is not listed"
                )
        manifests.verify(folder, manifest.files)
        if manifest.extract is not None:
            taggers = tuple(_read_tagger(folder, manifest, tier) for tier in fitted)
            bundle = cls(manifest, taggers=taggers)
        else:
            heads = tuple(_read_head(folder, manifest, tier) for tier in fitted)
            bundle = cls(manifest, heads)
        if bases is not None:
            for tier, part in zip(fitted, bundle._parts, strict=True):
                _check_dimension(folder, tier, part, bases[tier.model.name])
        return bundle

    @property
    def _parts(self) -> tuple[Head | Tagger, ...]:
        """What each tier with weights has."""
        return self.taggers or self.heads

    def named(self, name: str) -> Bundle:
        """The same under another name."""
        return replace(self, manifest=self.manifest.model_copy(update={"name": name}))

    def alone(self, tier: str) -> Bundle:
        """The same with one of its tiers only, which answers everything.

        Raises
        ------
        NotFound
            There is no such tier: with those that there are.
        """
        names: list[str] = [each.name for each in self.manifest.tiers]
        if tier not in names:
            raise NotFound("tier", tier, tuple(names))
        place = names.index(tier)
        only = self.manifest.tiers[place].model_copy(update={"accept_at": 0.0})
        return replace(
            self,
            manifest=self.manifest.model_copy(update={"tiers": (only,), "tuning": None}),
            # Those without weights are the last ones.
            heads=self.heads[place : place + 1],
            taggers=self.taggers[place : place + 1],
        )

    def save(self, folder: Path, *, report: str) -> BundleManifest:
        """Write the bundle into an empty folder.

        Parameters
        ----------
        report : str
            The evaluation as JSON.

        Returns
        -------
        BundleManifest
            With the files that were written.
        """
        fitted = [tier for tier in self.manifest.tiers if tier.weights]
        for tier, part in zip(fitted, self._parts, strict=True):
            part.save(folder / tier.weights)
        (folder / REPORT).write_text(report, encoding="utf-8")
        manifest = self.manifest.model_copy(update={"files": manifests.list_files(folder)})
        manifests.write(folder / BUNDLE_MANIFEST, manifest)
        return manifest


def _check_versions(
    folder: Path,
    tier: TierManifest,
    bases: Mapping[str, ModelManifest] | None,
    adapters: Mapping[str, AdapterManifest] | None,
) -> None:
    """Refuse a tier whose model or adapter is another one than it was made with."""
    asked: list[tuple[ModelRef, ModelManifest | AdapterManifest]] = []
    if bases is not None and tier.base is not None:
        asked.append((tier.base, bases[tier.base.name]))
    if adapters is not None and tier.language is not None and tier.language.adapter is not None:
        asked.append((tier.language.adapter, adapters[tier.language.adapter.name]))
    for made_with, found in asked:
        if found.digest != made_with.digest:
            remedy = "train the bundle" if tier.weights else "add the tier"
            raise StaleBundle(
                str(folder),
                f"tier {tier.name} was made with {made_with.name} version "
                f"{made_with.digest[:12]}, but {found.name} here is version {found.version}; "
                f"{remedy} again",
            )


def _check_prompts(folder: Path, task: Transform, tiers: Iterable[TierManifest]) -> None:
    """Refuse prompts without a place for each input of their task, or with another one."""
    wanted = {TEXT, *task.inputs}
    for tier in tiers:
        asked = tier.language or tier.remote
        assert isinstance(asked, Rewriting | RemoteRewriting)
        if not asked.prompt:
            continue
        where = str(folder / BUNDLE_MANIFEST)
        try:
            found = {*Template(asked.prompt).names}
        except InvalidInput as error:
            raise CorruptFile(where, f"tier {tier.name}: {error.message}") from None
        if found != wanted:
            shown, there = (
                ", ".join(f"{{{name}}}" for name in sorted(names)) for names in (wanted, found)
            )
            raise CorruptFile(
                where, f"tier {tier.name}: prompt: expected the placeholders {shown}; found {there}"
            )


def _read_head(folder: Path, manifest: BundleManifest, tier: TierManifest) -> Head:
    temperature = 1.0 if tier.calibration is None else tier.calibration.temperature
    return Head.load(folder / tier.weights, rows=len(manifest.labels), temperature=temperature)


def _read_tagger(folder: Path, manifest: BundleManifest, tier: TierManifest) -> Tagger:
    assert manifest.extract is not None
    calibration = tier.calibration or Calibration(temperature=1.0)
    return Tagger.load(
        folder / tier.weights,
        fields=manifest.labels,
        many=manifest.extract.many,
        temperature=calibration.temperature,
        shift=calibration.shift,
    )


def _check_dimension(
    folder: Path, tier: TierManifest, part: Head | Tagger, base: ModelManifest
) -> None:
    ngrams = tier.moderation.ngram_buckets if isinstance(tier.moderation, Moderation) else 0
    if part.dimension != base.dimension + ngrams:
        weight = "weight" if isinstance(part, Head) else "states"
        raise CorruptFile(
            str(folder / tier.weights),
            f"{weight}: {part.dimension} columns, but vectors of {base.name} have "
            f"{base.dimension} elements" + (f", and there are {ngrams} n-grams" if ngrams else ""),
        )


def write_bundle(
    path: Path, build: Callable[[Path], object], *, replace: bool = False
) -> BundleManifest:
    """Write a bundle to a path outside the store: all of it, or nothing.

    Parameters
    ----------
    path : Path
        Folder to make; its parent exists.
    build : callable
        Writes the bundle into the empty folder it is given, which stands beside ``path``.
    replace : bool
        Overwrite a bundle that is there already; nothing else is ever overwritten.

    Raises
    ------
    StoreError
        When something is in the way, or the folder cannot be written.
    """
    path = path.absolute()
    if not path.parent.is_dir():
        raise StoreError(f"{path.parent} is no folder; make it first")
    _check_free(path, replace)
    token = secrets.token_hex(6)
    work, old = (path.with_name(f".{path.name}.{token}.{part}") for part in ("new", "old"))
    try:
        try:
            work.mkdir()
            build(work)
            manifest = manifests.read(work / BUNDLE_MANIFEST, BundleManifest)
            for file in (*work.iterdir(), work):
                _flush(file)
            _check_free(path, replace)
            if path.exists():
                path.rename(old)
            work.rename(path)
            _flush(path.parent)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror or error}") from error
    return manifest


def _check_free(path: Path, replace: bool) -> None:
    if not os.path.lexists(path):
        return
    if not (path / BUNDLE_MANIFEST).is_file():
        raise StoreError(f"{path} is there already and is not a bundle; choose another path")
    if not replace:
        raise StoreError(f"{path} is there already; replace it explicitly")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
