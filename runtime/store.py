"""The store: verified models, bundles and adapters on this machine.

::

    SPRAT_HOME/
        models/<name>/model.json ...
        bundles/<name>/bundle.json ...
        adapters/<name>/adapter.json ...
        costs/<name>.json   what the tiers of a bundle cost here: see `sprat.costs`
        tmp/         folders under construction, or on their way out
        downloads/   parts of interrupted downloads, by name; kept for a week to be resumed
        locks/       one lock a name, held by whoever changes it
        endpoints/   what endpoints with a cap were asked for today; see `sprat.endpoints.spending`

A folder appears under its name only when it is complete and on disk. Readers take no lock and
write nothing, so a store may be read-only. Whoever changes a name holds its lock; what a killed
process left in ``tmp`` is swept by the next change, once nobody holds the name.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import platformdirs

from sprat.bundle_manifest import BUNDLE_MANIFEST, BundleManifest
from sprat.errors import CorruptFile, InvalidInput, NotFound, StoreError
from sprat.manifest import (
    ADAPTER_MANIFEST,
    MODEL_MANIFEST,
    NAME_PATTERN,
    AdapterManifest,
    ModelManifest,
    read,
    verify,
)

DOWNLOADS_KEPT_S = 7 * 24 * 3600
"""How long the parts of an interrupted download wait to be resumed."""

Manifest = TypeVar("Manifest", ModelManifest, BundleManifest, AdapterManifest)


@dataclass(frozen=True, slots=True)
class _Shelf(Generic[Manifest]):
    """One of the kinds of things in a store."""

    kind: str
    folder: str
    file: str
    manifest: type[Manifest]


_MODELS = _Shelf("model", "models", MODEL_MANIFEST, ModelManifest)
_BUNDLES = _Shelf("bundle", "bundles", BUNDLE_MANIFEST, BundleManifest)
_ADAPTERS = _Shelf("adapter", "adapters", ADAPTER_MANIFEST, AdapterManifest)
_KINDS = {"models": "a model", "bundles": "a bundle", "adapters": "an adapter"}


def home() -> Path:
    """Where sprat keeps its files: ``SPRAT_HOME``, by default the user's data folder."""
    return Path(os.environ.get("SPRAT_HOME") or platformdirs.user_data_path("sprat"))


def as_name(text: str) -> str:
    """The last part of a path or repository as a name in the store."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.rpartition("/")[2].lower()).strip("._-")
    return name[:48].rstrip("._-") or "model"


class Store:
    """Models, bundles and adapters by name. A name belongs to one of them only.

    Parameters
    ----------
    root : Path, optional
        Folder of the store; it is made when something is first added. Absent: `home`.

    Examples
    --------
    >>> manifest, folder = Store().model("minilm-l6", check=True)  # doctest: +SKIP
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (home() if root is None else root).absolute()

    @property
    def embeddings(self) -> Path:
        """Folder of `sprat.train.features.EmbeddingCache`: what is in it can be made again."""
        return self.root / "cache" / "embeddings"

    @property
    def endpoints(self) -> Path:
        """Folder of what endpoints were asked for today: see `sprat.endpoints.spending`."""
        return self.root / "endpoints"

    @property
    def answers(self) -> Path:
        """Folder of what endpoints answered in stopped runs: see `sprat.train.kept_answers`."""
        return self.root / "answers"

    def costs(self, bundle: str) -> Path:
        """File of `sprat.costs` of a bundle; it goes with the bundle."""
        return self.root / "costs" / f"{bundle}.json"

    def model(self, name: str, *, check: bool = False) -> tuple[ModelManifest, Path]:
        """A model and its folder.

        Parameters
        ----------
        check : bool
            Verify the sha256 of every file that the engine and the tokenizer read.

        Raises
        ------
        NotFound
            With the names that are here.
        CorruptFile
            The manifest, or with ``check`` a file, is not what it should be.
        """
        manifest, folder = self._get(_MODELS, name)
        if check:
            verify(folder, (f for f in manifest.files if f.path != manifest.source_weights))
        return manifest, folder

    def bundle(self, name: str | Path, *, check: bool = False) -> tuple[BundleManifest, Path]:
        """A bundle and its folder.

        Parameters
        ----------
        name : str or Path
            A name in the store, or a path: a `Path`, or a string with a slash.
        check : bool
            Verify the sha256 of every file.

        Raises
        ------
        NotFound
            With the names that are here.
        CorruptFile
            The manifest, or with ``check`` a file, is not what it should be.
        """
        if isinstance(name, str) and "/" not in name:
            manifest, folder = self._get(_BUNDLES, name)
        else:
            folder = Path(name)
            if not folder.exists():
                raise NotFound("bundle", str(name))
            manifest = read(folder / BUNDLE_MANIFEST, BundleManifest)
        if check:
            verify(folder, manifest.files)
        return manifest, folder

    def adapter(self, name: str, *, check: bool = False) -> tuple[AdapterManifest, Path]:
        """An adapter and its folder.

        Parameters
        ----------
        check : bool
            Verify the sha256 of every file.

        Raises
        ------
        NotFound
            With the names that are here.
        CorruptFile
            The manifest, or with ``check`` a file, is not what it should be.
        """
        manifest, folder = self._get(_ADAPTERS, name)
        if check:
            verify(folder, manifest.files)
        return manifest, folder

    def models(self) -> list[tuple[ModelManifest, Path]]:
        """Every model with its folder, sorted by name."""
        return [self._get(_MODELS, name) for name in self._names(_MODELS.folder)]

    def bundles(self) -> list[tuple[BundleManifest, Path]]:
        """Every bundle with its folder, sorted by name."""
        return [self._get(_BUNDLES, name) for name in self._names(_BUNDLES.folder)]

    def adapters(self) -> list[tuple[AdapterManifest, Path]]:
        """Every adapter with its folder, sorted by name."""
        return [self._get(_ADAPTERS, name) for name in self._names(_ADAPTERS.folder)]

    def add_model(
        self,
        name: str,
        build: Callable[[Path], object],
        *,
        replace: bool = False,
        on_wait: Callable[[], None] = lambda: None,
    ) -> tuple[ModelManifest, Path]:
        """Add a model: all of it, or nothing.

        A model of that name that is there already, or that another process adds meanwhile, is
        returned as it is unless ``replace``: models are reproducible.

        Parameters
        ----------
        build : callable
            Writes the model's files and its ``model.json`` into the empty folder it is given.
        on_wait : callable
            Called once when another process is changing the same name.

        Raises
        ------
        StoreError
            The store cannot be written, or the name belongs to a bundle or an adapter.
        """
        return self._add(_MODELS, name, build, replace=replace, keep=True, on_wait=on_wait)

    def add_bundle(
        self, name: str, build: Callable[[Path], object], *, replace: bool = False
    ) -> tuple[BundleManifest, Path]:
        """Add a bundle: all of it, or nothing.

        Parameters
        ----------
        build : callable
            Writes the bundle's files and its ``bundle.json`` into the empty folder it is given.

        Raises
        ------
        StoreError
            The store cannot be written, the name belongs to a model or an adapter, or the bundle
            is there already and ``replace`` is not set.
        """
        return self._add(_BUNDLES, name, build, replace=replace, keep=False, on_wait=lambda: None)

    def add_adapter(
        self, name: str, build: Callable[[Path], object], *, replace: bool = False
    ) -> tuple[AdapterManifest, Path]:
        """Add an adapter: all of it, or nothing.

        Parameters
        ----------
        build : callable
            Writes the adapter's file and its ``adapter.json`` into the empty folder it is given.

        Raises
        ------
        StoreError
            The store cannot be written, the name belongs to a model or a bundle, or the adapter is
            there already and ``replace`` is not set.
        """
        return self._add(_ADAPTERS, name, build, replace=replace, keep=False, on_wait=lambda: None)

    def remove(self, name: str) -> None:
        """Remove a model or a bundle. A server that has it loaded goes on with it.

        Raises
        ------
        NotFound
            With the names that are here.
        StoreError
            The store cannot be written.
        """
        self._remove("model or bundle", name, (_MODELS.folder, _BUNDLES.folder))

    def remove_adapter(self, name: str) -> None:
        """Remove an adapter. A server that has it loaded goes on with it.

        Raises
        ------
        NotFound
            With the names that are here.
        StoreError
            The store cannot be written.
        """
        self._remove("adapter", name, (_ADAPTERS.folder,))

    def _remove(self, kind: str, name: str, folders: Sequence[str]) -> None:
        _check_name(name)
        known = tuple(known for folder in folders for known in self._names(folder))
        if name not in known:
            raise NotFound(kind, name, known)
        with self._changing(name, lambda: None):
            for folder in folders:
                target = self.root / folder / name
                if target.is_dir():
                    trash = self._scratch(name)
                    target.rename(trash)
                    shutil.rmtree(trash)
            self.costs(name).unlink(missing_ok=True)

    def partial_downloads(self, name: str) -> Path:
        """Folder for parts of a download, kept until ``name`` is added, or for a week.

        So is the state of a training, which may be resumed as well. Only for the ``build`` of
        `add_model` and its like, which holds the name's lock.
        """
        folder = self._downloads(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def require_space(self, size: int) -> None:
        """Check that ``size`` bytes can be written.

        Raises
        ------
        StoreError
            With what is needed and what is free.
        """
        free = _free(self.root)
        if free < size:
            raise StoreError(
                f"{self.root}: {_megabytes(size)} needed, {_megabytes(free)} free",
                metadata={"needed_bytes": str(size), "free_bytes": str(free)},
            )

    def _names(self, folder: str) -> tuple[str, ...]:
        try:
            entries = [e for e in (self.root / folder).iterdir() if e.is_dir()]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._failure(error) from error
        return tuple(sorted(e.name for e in entries if re.fullmatch(NAME_PATTERN, e.name)))

    def _get(self, shelf: _Shelf[Manifest], name: str) -> tuple[Manifest, Path]:
        _check_name(name)
        folder = self.root / shelf.folder / name
        try:
            there = folder.is_dir()
        except OSError as error:
            raise self._failure(error) from error
        if not there:
            raise NotFound(shelf.kind, name, self._names(shelf.folder))
        return self._read(shelf, name, folder), folder

    def _read(self, shelf: _Shelf[Manifest], name: str, folder: Path) -> Manifest:
        manifest = read(folder / shelf.file, shelf.manifest)
        if manifest.name != name:
            raise CorruptFile(
                str(folder / shelf.file), f"name: expected {name!r}, found {manifest.name!r}"
            )
        return manifest

    def _add(
        self,
        shelf: _Shelf[Manifest],
        name: str,
        build: Callable[[Path], object],
        *,
        replace: bool,
        keep: bool,
        on_wait: Callable[[], None],
    ) -> tuple[Manifest, Path]:
        _check_name(name)
        target = self.root / shelf.folder / name
        with self._changing(name, on_wait):
            for folder, kind in _KINDS.items():
                if folder != shelf.folder and (self.root / folder / name).exists():
                    raise StoreError(f"{name} is the name of {kind}; choose another")
            if target.exists() and not replace:
                if keep:
                    return self._get(shelf, name)
                raise StoreError(f"{shelf.kind} {name} is there already; replace it explicitly")
            work = self._scratch(name)
            try:
                work.mkdir()
                build(work)
                manifest = self._read(shelf, name, work)
                _flush(work)
                self._move_in(work, target)
                shutil.rmtree(self._downloads(name), ignore_errors=True)
            finally:
                shutil.rmtree(work, ignore_errors=True)
                # Stays where parts of a download are in it.
                with suppress(OSError):
                    self._downloads(name).rmdir()
        return manifest, target

    def _downloads(self, name: str) -> Path:
        return self.root / "downloads" / name

    def _scratch(self, name: str) -> Path:
        return self.root / "tmp" / f"{name}.{secrets.token_hex(6)}"

    def _move_in(self, work: Path, target: Path) -> None:
        """Put ``work`` in the place of ``target``; of a kill in between, `_sweep` takes care."""
        target.parent.mkdir(exist_ok=True)
        old = self.root / "tmp" / f"{target.name}.{target.parent.name}"
        replaced = target.exists()
        if replaced:
            target.rename(old)
        try:
            work.rename(target)
        except OSError:
            if replaced:
                old.rename(target)
            raise
        _flush_path(target.parent)
        shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def _changing(self, name: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of ``name``; what the disk refuses becomes a StoreError."""
        # Costs 50 ms to import, which a server that only reads does not pay.
        from filelock import FileLock, Timeout

        try:
            for folder in ("locks", "tmp"):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._lock_path(name))
            try:
                lock.acquire(blocking=False)
            except Timeout:
                on_wait()
                lock.acquire()
            try:
                self._sweep(name)
                yield
            finally:
                lock.release()
        except OSError as error:
            raise self._failure(error) from error

    def _lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"

    def _sweep(self, mine: str) -> None:
        """Clear what killed processes left, for every name whose lock is ours or free."""
        from filelock import FileLock, Timeout

        left = [(e, e.name.rpartition(".")) for e in (self.root / "tmp").iterdir()]
        stale = [(entry, name, suffix) for entry, (name, _, suffix) in left]
        downloads = self.root / "downloads"
        if downloads.is_dir():
            oldest = time.time() - DOWNLOADS_KEPT_S
            stale += [(e, e.name, "") for e in downloads.iterdir() if e.stat().st_mtime < oldest]
        for entry, name, suffix in stale:
            if name == mine:
                self._clear(entry, name, suffix)
                continue
            try:
                with FileLock(self._lock_path(name), blocking=False):
                    self._clear(entry, name, suffix)
            except Timeout:
                continue

    def _clear(self, entry: Path, name: str, suffix: str) -> None:
        # The old folder of a replacement that was killed before the new one took its place.
        home_shelf = self.root / suffix / name
        if suffix in _KINDS and not home_shelf.exists():
            entry.rename(home_shelf)
        else:
            shutil.rmtree(entry, ignore_errors=True)

    def _failure(self, error: OSError) -> StoreError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(f"{self.root}: no space left ({_megabytes(_free(self.root))} free)")
        return StoreError(f"{error.filename or self.root}: {error.strerror or error}")


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidInput(
            f"{name!r} cannot be a name in the store: expected up to 64 of a-z, 0-9, '.', '_' and "
            "'-', the first a letter or digit",
            field="name",
        )


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _flush(folder: Path) -> None:
    """Bring every file and folder below ``folder`` to disk."""
    for parent, _, files in os.walk(folder):
        for file in files:
            _flush_path(Path(parent, file))
        _flush_path(Path(parent))


def _flush_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
