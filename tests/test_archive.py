from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from sprat.archive import extract
from sprat.errors import CorruptFile
from sprat.manifest import FileEntry

CONTENT = b"weights " * 1000


def entry(path: str = "w.bin", content: bytes = CONTENT) -> FileEntry:
    return FileEntry(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def archive(tmp_path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return path


def refuse(path: Path, out: Path, reason: str) -> None:
    with pytest.raises(CorruptFile, match=reason) as caught:
        extract(path, "m", [entry()], out)
    assert caught.value.path == str(path)
    assert not list(out.parent.glob("*.bin")), "nothing may be written outside"


def test_archive_extract_takes_what_is_wanted_and_nothing_else(tmp_path: Path, out: Path) -> None:
    wanted = [entry("w.bin"), entry("deep/er/x.json", b"{}")]
    path = archive(
        tmp_path, ("m/w.bin", CONTENT), ("m/deep/er/x.json", b"{}"), ("m/other.py", b"print()")
    )
    extract(path, "m", wanted, out)
    assert (out / "w.bin").read_bytes() == CONTENT
    assert (out / "deep/er/x.json").read_bytes() == b"{}"
    assert len([p for p in out.rglob("*") if p.is_file()]) == 2


@pytest.mark.parametrize("name", ["../w.bin", "m/../../w.bin", "/w.bin", "m\\..\\w.bin", "C:w.bin"])
def test_archive_extract_refuses_members_that_point_outside(
    tmp_path: Path, out: Path, name: str
) -> None:
    path = archive(tmp_path, ("m/w.bin", CONTENT), (name, CONTENT))
    refuse(path, out, "points outside")


def test_archive_extract_refuses_a_link(tmp_path: Path, out: Path) -> None:
    link = zipfile.ZipInfo("m/w.bin")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refuse(archive(tmp_path, (link, b"/etc/passwd")), out, "link or a special file")


def test_archive_extract_refuses_a_device(tmp_path: Path, out: Path) -> None:
    device = zipfile.ZipInfo("m/w.bin")
    device.external_attr = (stat.S_IFCHR | 0o666) << 16
    refuse(archive(tmp_path, (device, CONTENT)), out, "link or a special file")


def test_archive_extract_refuses_another_size_before_unpacking(tmp_path: Path, out: Path) -> None:
    bomb = b"\0" * 50_000_000
    path = archive(tmp_path, ("m/w.bin", bomb))
    assert path.stat().st_size < 100_000
    refuse(path, out, "expected 8000 bytes, declared are 50000000")
    assert not (out / "w.bin").exists()


def patch_declared_size(path: Path, size: int) -> None:
    """Let the central directory claim another unpacked size."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)


@pytest.mark.parametrize("true", [b"\0" * 20_000_000, CONTENT[:-10]], ids=["larger", "smaller"])
def test_archive_extract_refuses_a_lie_about_the_size(
    tmp_path: Path, out: Path, true: bytes
) -> None:
    path = archive(tmp_path, ("m/w.bin", true))
    patch_declared_size(path, len(CONTENT))
    refuse(path, out, "whole zip|than it declares")
    if (out / "w.bin").exists():
        assert (out / "w.bin").stat().st_size <= len(CONTENT)


def test_archive_extract_refuses_a_name_that_is_there_twice(tmp_path: Path, out: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive(tmp_path, ("m/w.bin", CONTENT), ("m/w.bin", CONTENT))
    refuse(path, out, "there twice")


def test_archive_extract_names_a_missing_member(tmp_path: Path, out: Path) -> None:
    refuse(archive(tmp_path, ("w.bin", CONTENT)), out, r"no member for w\.bin")


def test_archive_extract_refuses_encryption_and_unknown_packing(tmp_path: Path, out: Path) -> None:
    path = archive(tmp_path, ("m/w.bin", CONTENT))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refuse(path, out, "encrypted")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("m/w.bin", CONTENT)
    refuse(path, out, "unknown way")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_archive_extract_refuses_what_is_cut(tmp_path: Path, out: Path, keep: float) -> None:
    path = archive(tmp_path, ("m/w.bin", CONTENT))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    refuse(path, out, "not a whole zip file")


def test_archive_extract_notices_a_flipped_bit(tmp_path: Path, out: Path) -> None:
    path = archive(tmp_path, ("m/w.bin", CONTENT))
    data = bytearray(path.read_bytes())
    data[50] ^= 0x10
    path.write_bytes(data)
    refuse(path, out, "not a whole zip file|than it declares")
