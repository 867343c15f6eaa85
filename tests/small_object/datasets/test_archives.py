"""Extraction of archives: the content of good ones, and the reasons for refusing others."""

import contextlib
import errno
import io
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import pytest

from small_object.datasets.archives import extract
from small_object.errors import UserError
from tests.helpers.common import read_files

FORMATS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "7z", "rar")
NOISE = b"".join(zlib.crc32(bytes([i % 256, i // 256])).to_bytes(4, "little") for i in range(2000))  # does not compress


@dataclass
class Entry:
    """A member to write; of a link, the content is the target."""

    name: str
    data: bytes = b""
    mode: int = stat.S_IFREG | 0o644


def link(name: str, target: str = "/etc/passwd") -> Entry:
    return Entry(name, target.encode(), stat.S_IFLNK | 0o777)


def write_zip(path: Path, entries: list[Entry]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, entry.mode << 16
            out.writestr(info, entry.data)


def write_tar(path: Path, entries: list[Entry], mode: str) -> None:
    types = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFIFO: tarfile.FIFOTYPE}
    with tarfile.open(path, f"w:{mode}") as out:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type = types[stat.S_IFMT(entry.mode)]
            info.size, info.linkname = (len(entry.data), "") if info.isreg() else (0, entry.data.decode())
            out.addfile(info, io.BytesIO(entry.data))


def write_7z(path: Path, entries: list[Entry]) -> None:
    libarchive = pytest.importorskip("libarchive")
    with libarchive.file_writer(str(path), "7zip") as out:
        for entry in entries:
            out.add_file_from_memory(entry.name, len(entry.data), entry.data)


def write_rar(path: Path, entries: list[Entry]) -> None:
    """Write a RAR 5 archive of stored members, which no package can."""
    pytest.importorskip("libarchive")

    def vint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + vint(value >> 7)

    def block(kind: int, fields: bytes, data: bytes | None = None) -> bytes:
        head = vint(kind) + (vint(0) if data is None else vint(2) + vint(len(data))) + fields
        head = vint(len(head)) + head
        return struct.pack("<I", zlib.crc32(head)) + head + (data or b"")

    blocks = [b"Rar!\x1a\x07\x01\x00", block(1, vint(0))]
    for entry in entries:
        name, data = entry.name.encode(), entry.data
        fields = vint(4) + vint(len(data)) + vint(entry.mode) + struct.pack("<I", zlib.crc32(data))
        blocks.append(block(2, fields + vint(0) + vint(1) + vint(len(name)) + name, data))
    path.write_bytes(b"".join(blocks) + block(5, vint(0)))


def write(path: Path, kind: str, *entries: Entry) -> Path:
    """Write an archive of a kind under any name."""
    if kind.startswith("tar"):
        write_tar(path, list(entries), kind[4:])
    else:
        {"zip": write_zip, "7z": write_7z, "rar": write_rar}[kind](path, list(entries))
    return path


def refusal(archive: Path) -> str:
    """Extract an archive, which must fail with one line and write nothing but into the folder."""
    before = set(archive.parent.rglob("*"))
    with pytest.raises(UserError) as error:
        extract(archive, archive.parent / "out")
    shutil.rmtree(archive.parent / "out")
    assert set(archive.parent.rglob("*")) == before
    assert "\n" not in str(error.value) and str(error.value).startswith(str(archive))
    return str(error.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_packed_comes_out_whatever_the_name_of_the_archive(tmp_path: Path, kind: str) -> None:
    files = {"data.yaml": b"a" * 5000, "images/train/a b.jpg": NOISE, "images/zürich.jpg": NOISE * 300, "z": b"z"}
    extract(write(tmp_path / "set.zip", kind, *(Entry(*file) for file in files.items())), tmp_path / "new/set")
    assert read_files(tmp_path / "new/set") == files


@pytest.mark.parametrize("kind", ["zip", "tar", "7z", "rar"])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    archive = write(tmp_path / "a", kind, Entry("good", b"good"), Entry(name, b"evil"))
    with contextlib.suppress(UserError):
        extract(archive, tmp_path / "out")
    assert {path for path in read_files(tmp_path) if not path.startswith("out/")} == {"a"}
    assert not Path("/evil").exists()


@pytest.mark.parametrize("kind", ["tar", "rar"])
def test_a_link_out_of_the_folder_does_not_lead_a_file_out(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "a", kind, link("l", str(tmp_path)), Entry("l/evil", b"evil"))
    with contextlib.suppress(UserError):
        extract(archive, tmp_path / "out")
    assert {path for path in read_files(tmp_path) if not path.startswith("out/")} == {"a"}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_truncated_archive_is_found(tmp_path: Path, kind: str, part: float) -> None:
    archive = write(tmp_path / "a", kind, *(Entry(f"{i}.jpg", NOISE[i:]) for i in range(20)))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * part)])
    assert "fetch it again" in refusal(archive)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz", "7z"])
def test_a_flipped_bit_is_found(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "a", kind, Entry("a.jpg", NOISE), Entry("b.jpg", NOISE[5:]))
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 4
    archive.write_bytes(data)
    assert "fetch it again" in refusal(archive)


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    for content in (b"<!DOCTYPE html><html>Quota exceeded</html>", b"", NOISE):
        (tmp_path / "a.zip").write_bytes(content)
        assert "fetch it again" in refusal(tmp_path / "a.zip")


@pytest.mark.parametrize("field, value", [("method", 9), ("flags", 1)])  # deflate64, which Windows uses; encrypted
def test_a_zip_that_python_cannot_read_is_named(tmp_path: Path, field: str, value: int) -> None:
    archive = write(tmp_path / "a.zip", "zip", Entry("a", b"a"))
    data = bytearray(archive.read_bytes())
    offset = {"flags": 0, "method": 2}[field]
    for at in (6 + offset, data.index(b"PK\1\2") + 8 + offset):
        data[at : at + 2] = struct.pack("<H", value)
    archive.write_bytes(data)
    assert "repack it as a plain zip" in refusal(archive)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(shutil, "copyfileobj", full)  # of zipfile
    assert "No space left on device" in refusal(write(tmp_path / "a", "zip", Entry("a", b"a")))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path / "a", "7z", Entry("a", b"a"))
    monkeypatch.setitem(sys.modules, "libarchive", None)
    assert "pip install libarchive-c" in refusal(archive)
