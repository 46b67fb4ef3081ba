"""Model files from a Hugging Face hub.

Everything that `huggingface_hub` reads from the environment holds: HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE, proxies. A file that is in its cache already is copied from there. Downloads do not
go through the cache: they are kept once, in the store, and a part of one survives a killed process.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sprat.catalog import HubRepository
from sprat.errors import CorruptFile, DownloadError, SpratError
from sprat.manifest import sha256_file
from sprat.progress import Progress

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds.

    Attributes
    ----------
    commit : str
        What its revision stands for now.
    files : tuple of str
        Paths of all its files.
    licence : str
        As its model card states it.
    """

    commit: str
    files: tuple[str, ...]
    licence: str


def look_up(repository: HubRepository) -> Listing:
    """Ask the hub what a repository holds.

    Raises
    ------
    DownloadError
        The hub cannot be asked, or does not know it.
    """
    with _hub_errors(repository):
        from huggingface_hub import HfApi

        info = HfApi().model_info(repository.repository, revision=repository.revision)
        files = tuple(sibling.rfilename for sibling in info.siblings or ())
        licence = (info.card_data.get("license") if info.card_data else None) or "not stated"
        return Listing(info.sha or repository.revision or "main", files, str(licence))


def fetch(
    repository: HubRepository,
    commit: str,
    names: Mapping[str, str],
    out: Path,
    *,
    partials: Path,
    reserve: Callable[[int], None],
    progress: Progress,
) -> None:
    """Download files.

    Parameters
    ----------
    repository : HubRepository
        Where.
    commit : str
        Revision, used in place of the repository's own.
    names : mapping of str to str
        From the path in the repository to the one below ``out``.
    out : Path
        Existing folder to write to.
    partials : Path
        Existing folder, on the same file system, for parts that a later call resumes.
    reserve : callable
        Called once with the size of all files, in bytes, before the first is downloaded.

    Raises
    ------
    DownloadError
        The hub cannot deliver a file.
    CorruptFile
        A file is not what the hub announced.
    """
    with _hub_errors(repository):
        from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        headers = build_hf_headers(library_name="sprat")
        wanted: list[tuple[str, Path, str, HfFileMetadata]] = []
        for name, below in names.items():
            target = out / below
            target.parent.mkdir(parents=True, exist_ok=True)
            cached = try_to_load_from_cache(repository.repository, name, revision=commit)
            if isinstance(cached, str):
                shutil.copyfile(cached, target)
                continue
            url = hf_hub_url(repository.repository, name, revision=commit)
            announced = get_hf_file_metadata(url, headers=headers)
            wanted.append((url, target, name, announced))
        total = sum(announced.size or 0 for *_, announced in wanted)
        reserve(total)
        progress.phase(f"download {repository.repository}", total)
        for url, target, name, announced in wanted:
            _download(url, target, name, announced, headers, partials, progress)


def _download(
    url: str,
    target: Path,
    name: str,
    announced: HfFileMetadata,
    headers: dict[str, str],
    partials: Path,
    progress: Progress,
) -> None:
    # Retries and resumes within a call, and goes on from `resume_size`; the functions that the
    # package documents start every call over.
    from huggingface_hub.file_download import http_get

    etag = announced.etag or ""
    if not re.fullmatch(r"[\w-]+", etag):
        raise DownloadError(f"{name}: no usable ETag; is HF_ENDPOINT a hub?")
    part = partials / f"{etag}.part"
    try:
        with part.open("ab") as stream:
            if announced.size is not None and stream.tell() > announced.size:
                stream.seek(0)
                stream.truncate()
            there = stream.tell()
            progress.advance(there)
            http_get(
                url,
                stream,
                resume_size=there,
                headers=headers,
                expected_size=announced.size,
                tqdm_class=_bar(progress),
            )
        # Large files are named by the sha256 of their content.
        if _SHA256.fullmatch(etag) and (found := sha256_file(part)) != etag:
            raise CorruptFile(
                name, f"the hub announced sha256 {etag[:12]}..., sent {found[:12]}..."
            )
    except BaseException as error:
        if isinstance(error, SpratError) or _is_local(error):
            part.unlink(missing_ok=True)
        raise
    part.replace(target)


def _bar(progress: Progress) -> Any:
    """What `http_get` takes for a tqdm class: reports to ``progress``, shows nothing."""

    class Bar:
        def __init__(self, **_: object) -> None:
            pass

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, size: float | None = 1) -> None:
            progress.advance(int(size or 0))

    return Bar


def _is_local(error: BaseException) -> bool:
    """An error of this machine's disk; those of the network carry no errno, or are connections'."""
    return (
        isinstance(error, OSError)
        and error.errno is not None
        and not isinstance(error, ConnectionError | TimeoutError)
    )


@contextmanager
def _hub_errors(repository: HubRepository) -> Iterator[None]:
    # Read when the package is imported: sprat tells nobody what it runs on.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        yield
    except SpratError:
        raise
    except Exception as error:
        if _is_local(error):
            raise
        raise DownloadError(_reason(error, repository)) from error


def _reason(error: Exception, repository: HubRepository) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, errors.GatedRepoError):
        return "gated: accept its terms on the hub, then set HF_TOKEN"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return "no such repository, or HF_TOKEN does not give access to it"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no revision {repository.revision}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"nothing at {error.response.request.url}"
    if status is not None:
        return f"the hub answered HTTP {status}"
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
