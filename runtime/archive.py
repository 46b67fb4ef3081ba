"""Taking known files out of an archive that nobody vouches for."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sprat.errors import CorruptFile
from sprat.manifest import FileEntry

BLOCK = 1 << 20


def extract(archive: Path, folder: str, files: Sequence[FileEntry], out: Path) -> None:
    """Unpack just ``files``, and only if the whole archive looks sane.

    Contents are not hashed: `sprat.manifest.verify` does that.

    Parameters
    ----------
    archive : Path
        A zip file, such as a wheel.
    folder : str
        Folder inside the archive that the files' paths count from.
    files : sequence of FileEntry
        What to take out. A member of another size is refused before it is unpacked.
    out : Path
        Existing folder to write to.

    Raises
    ------
    CorruptFile
        The archive is cut or malformed, lacks a file, or has a member that points outside of it,
        is there twice, or unpacks to another size than it declares.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(archive, opened)
            for entry in files:
                _unpack(archive, opened, members.get(f"{folder}/{entry.path}"), entry, out)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise CorruptFile(str(archive), f"not a whole zip file ({error})") from None


def _members(archive: Path, opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in opened.infolist():
        name = member.filename
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise CorruptFile(str(archive), f"member {name!r} points outside of the archive")
        if name in members:
            raise CorruptFile(str(archive), f"member {name!r} is there twice")
        members[name] = member
    return members


def _unpack(
    archive: Path,
    opened: zipfile.ZipFile,
    member: zipfile.ZipInfo | None,
    entry: FileEntry,
    out: Path,
) -> None:
    if member is None:
        raise CorruptFile(str(archive), f"has no member for {entry.path}")
    what = f"member {member.filename!r}"
    mode = member.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise CorruptFile(str(archive), f"{what} is a link or a special file")
    if member.flag_bits & 1 or member.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):
        raise CorruptFile(str(archive), f"{what} is encrypted or packed in an unknown way")
    if member.file_size != entry.size:
        raise CorruptFile(
            str(archive), f"{what}: expected {entry.size} bytes, declared are {member.file_size}"
        )
    target = out / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.size
    with opened.open(member) as packed, target.open("wb") as unpacked:
        # One byte more than may be left shows a member that is larger than it declares.
        while block := packed.read(min(BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise CorruptFile(str(archive), f"{what} is larger than it declares")
            unpacked.write(block)
    if left:
        raise CorruptFile(str(archive), f"{what} is {left} bytes smaller than it declares")
