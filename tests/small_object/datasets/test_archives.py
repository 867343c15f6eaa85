"""Extraction of archives: what comes out of good ones, what is refused, and that nothing stays behind then."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import shutil
import stat
import struct
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from small_object.datasets import archives
from small_object.datasets.archives import extract, is_archive
from small_object.errors import UserError

FORMATS = ("zip", "tar", "7z", "rar")
PACKED = ("tar.gz", "tar.bz2", "tar.xz")
REPEAT = b"airplane person truck " * 200
NOISE = b"".join(zlib.crc32(bytes([i % 256, i // 256])).to_bytes(4, "little") for i in range(2000))  # does not compress


@dataclass
class Entry:
    """A member to write: its content is the target, if it is a link."""

    name: str
    data: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    hard: bool = False  # a hard link
    locked: bool = False  # encrypted
    size: int | None = None  # what the header says, if it lies
    method: int = 0  # of rar


def folder(name: str) -> Entry:
    return Entry(name, mode=stat.S_IFDIR | 0o755)


def link(name: str, target: str) -> Entry:
    return Entry(name, target.encode(), stat.S_IFLNK | 0o777)


# Writers --------------------------------------------------------------------------------------------------------------


def write_zip(path: Path, entries: list[Entry]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name + "/" * stat.S_ISDIR(entry.mode))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, entry.mode << 16
            out.writestr(info, entry.data)
        for entry, info in zip(entries, out.infolist(), strict=True):  # the central directory is written at the end
            info.flag_bits |= entry.locked
            info.file_size = info.file_size if entry.size is None else entry.size


def write_tar(path: Path, entries: list[Entry], mode: str = "") -> None:
    types = {
        stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE,
    }  # fmt: skip
    with tarfile.open(path, f"w:{mode}", format=tarfile.GNU_FORMAT) as out:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mode, info.type = stat.S_IMODE(entry.mode), types[stat.S_IFMT(entry.mode)]
            if entry.hard or info.issym():
                info.type, info.linkname = tarfile.LNKTYPE if entry.hard else tarfile.SYMTYPE, entry.data.decode()
            info.size = len(entry.data) if info.isreg() else 0
            out.addfile(info, io.BytesIO(entry.data))


def write_7z(path: Path, entries: list[Entry], mode: str = "w", **options: object) -> None:
    py7zr = pytest.importorskip("py7zr")
    with py7zr.SevenZipFile(path, mode, **options) as out:
        for entry in entries:
            if stat.S_ISDIR(entry.mode):
                out.write(path.parent, "member")
            else:
                out.writestr(entry.data, "member")
            info = out.header.files_info.files[-1]  # py7zr would not write such names
            info["filename"], folder = entry.name, 0x10 * stat.S_ISDIR(entry.mode)
            info["attributes"] = entry.mode << 16 | 0x8000 | folder
            if entry.size is not None:
                out.header.main_streams.substreamsinfo.unpacksizes[-1] = entry.size


def vint(value: int) -> bytes:
    head = b""
    while value > 127:
        head, value = head + bytes([value & 127 | 128]), value >> 7
    return head + bytes([value])


def rar_block(kind: int, fields: bytes, data: bytes = b"", extra: bytes = b"") -> bytes:
    sizes = (vint(len(extra)) if extra else b"") + (vint(len(data)) if data else b"")
    head = vint(kind) + vint(bool(extra) + 2 * bool(data)) + sizes + fields + extra
    head = vint(len(head)) + head
    return struct.pack("<I", zlib.crc32(head)) + head + data


def write_rar(path: Path, entries: list[Entry], before: bytes = b"") -> None:
    """Write a RAR 5 archive; members are stored, and those with a method only say that they are compressed."""
    blocks = [b"Rar!\x1a\x07\x01\x00", before, rar_block(1, vint(0))]
    for entry in entries:
        name, data, extra = entry.name.encode(), entry.data, b""
        if entry.hard or stat.S_ISLNK(entry.mode):
            extra, data = vint(5) + vint(4 if entry.hard else 1) + vint(0) + vint(len(data)) + data, b""
        if entry.locked:
            extra = vint(1) + vint(0) + vint(0) + b"\x0f" + bytes(32)
        fields = vint(4 + stat.S_ISDIR(entry.mode)) + vint(len(data) if entry.size is None else entry.size)
        fields += vint(entry.mode) + struct.pack("<I", zlib.crc32(data)) + vint(entry.method << 7) + vint(1)
        blocks.append(rar_block(2, fields + vint(len(name)) + name, data, extra and vint(len(extra)) + extra))
    path.write_bytes(b"".join(blocks) + rar_block(5, vint(0)))


def write(path: Path, kind: str, *entries: Entry) -> Path:
    """Write an archive of the kind, whatever the name."""
    if kind == "rar":
        pytest.importorskip("rarfile")
    if kind.startswith("tar"):
        write_tar(path, list(entries), kind[4:])
    else:
        {"zip": write_zip, "7z": write_7z, "rar": write_rar}[kind](path, list(entries))
    return path


# Readers --------------------------------------------------------------------------------------------------------------


def tree(root: Path) -> dict[str, bytes | None]:
    """Read all files and folders (None) by their paths."""
    return {p.relative_to(root).as_posix(): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}


def refusal(archive: Path) -> str:
    """Extract into a missing and into an empty folder; both must fail with one line, and stay as they were."""
    out = archive.parent / "out"
    with pytest.raises(UserError) as missing:
        extract(archive, out / "deep" / "er")
    assert not (out / "deep" / "er").exists()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    around = set(archive.parent.rglob("*"))
    with pytest.raises(UserError) as empty:
        extract(archive, out)
    assert set(archive.parent.rglob("*")) == around
    out.rmdir()
    for error in (missing, empty):
        assert "\n" not in str(error.value) and str(archive) in str(error.value)
    return str(empty.value)


# Good archives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS + PACKED)
def test_what_was_packed_comes_out(tmp_path: Path, kind: str) -> None:
    big = NOISE * 300  # longer than a chunk
    assert len(big) > 2 * archives.CHUNK
    files = {"data.yaml": REPEAT, "images/train/a b.jpg": NOISE, "images/zürich.jpg": big, "empty.txt": b"", "z": b"z"}
    entries = [folder("images"), folder("labels/none"), *(Entry(name, data) for name, data in files.items())]
    archive = write(tmp_path / "set.bin", kind, *entries)
    extract(archive, tmp_path / "new" / "set")
    folders = ["images", "images/train", "labels", "labels/none"]
    assert tree(tmp_path / "new" / "set") == files | dict.fromkeys(folders)
    (tmp_path / "there").mkdir()
    extract(archive, tmp_path / "there")
    assert tree(tmp_path / "there") == files | dict.fromkeys(folders)


def test_archives_are_told_by_their_names() -> None:
    for name in ("a.zip", "a.tar", "a.tar.gz", "A.TGZ", "a.tar.bz2", "a.tar.xz", "a.txz", "a.7z", "b/a.RAR"):
        assert is_archive(name) and is_archive(Path(name))
    for name in ("a", "zip", "a.zip.txt", "a.gz", "a.yaml", "a.zip/b"):
        assert not is_archive(name)


@pytest.mark.parametrize("kind", FORMATS + PACKED)
def test_the_content_decides_the_kind_and_not_the_name(tmp_path: Path, kind: str) -> None:
    extract(write(tmp_path / ("a.rar" if kind == "zip" else "a.zip"), kind, Entry("a", b"a")), tmp_path / "out")
    assert tree(tmp_path / "out") == {"a": b"a"}


def test_an_old_tar_without_a_magic_number_is_read(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.tar", "tar", Entry("a", b"a")).read_bytes())
    data[257:265] = bytes(8)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "a.tar").write_bytes(data)
    extract(tmp_path / "a.tar", tmp_path / "out")
    assert tree(tmp_path / "out") == {"a": b"a"}


@pytest.mark.parametrize("kind", FORMATS)
def test_names_that_differ_in_case_are_two_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / "case").touch()
    if (tmp_path / "CASE").exists():
        pytest.skip("the file system does not tell case")
    extract(write(tmp_path / "a", kind, Entry("a.jpg", b"small"), Entry("A.jpg", b"large")), tmp_path / "out")
    assert tree(tmp_path / "out") == {"a.jpg": b"small", "A.jpg": b"large"}


@pytest.mark.parametrize("kind", FORMATS)
def test_modes_are_those_of_new_files(tmp_path: Path, kind: str) -> None:
    entries = Entry("run", b"#!", stat.S_IFREG | 0o6777), Entry("shut", b"", stat.S_IFREG), folder("open")
    entries[2].mode = stat.S_IFDIR | 0o7777
    extract(write(tmp_path / "a", kind, *entries), tmp_path / "out")
    (tmp_path / "new").touch()
    (tmp_path / "newer").mkdir()
    for name, like in (("run", "new"), ("shut", "new"), ("open", "newer")):
        assert (tmp_path / "out" / name).stat().st_mode == (tmp_path / like).stat().st_mode


@pytest.mark.parametrize("kind", FORMATS)
def test_junk_is_left_out(tmp_path: Path, kind: str) -> None:
    junk = ("__MACOSX/a.jpg", "images/__MACOSX/b", "._a", "images/._a.jpg", ".DS_Store", "images/Thumbs.db")
    entries = [folder("__MACOSX"), *(Entry(name, name.encode()) for name in junk), Entry("a", b"a")]
    extract(write(tmp_path / "a", kind, *entries[:4], Entry("b", b"b"), *entries[4:]), tmp_path / "out")
    assert tree(tmp_path / "out") == {"a": b"a", "b": b"b"}


@pytest.mark.parametrize("kind", FORMATS)
def test_backslashes_and_needless_parts_of_names_are_understood(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "a", kind, Entry("a\\b.jpg", b"1"), Entry("./a//c.jpg", b"2"), Entry("d.", b"3"))
    extract(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a": None, "a/b.jpg": b"1", "a/c.jpg": b"2", "d.": b"3"}


def test_a_7z_of_several_blocks_is_read(tmp_path: Path) -> None:
    for number in range(4):
        entries = [Entry(f"{number}/{i}", b"" if i == 3 else NOISE[i * number :]) for i in range(6)]
        write_7z(tmp_path / "a.7z", [*entries, Entry(f"._{number}", REPEAT)], "a" if number else "w")
    extract(tmp_path / "a.7z", tmp_path / "out")
    files = {f"{n}/{i}": b"" if i == 3 else NOISE[i * n :] for n in range(4) for i in range(6)}
    assert tree(tmp_path / "out") == files | dict.fromkeys("0123")


@pytest.mark.parametrize("blocks", [1, 20])
def test_a_7z_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    py7zr = pytest.importorskip("py7zr")
    noise = random.Random(0).randbytes(100 << 15)
    files = {str(i): noise[i << 15 : (i + 1) << 15] for i in range(100)}
    entries = [Entry(name, data) for name, data in files.items()]
    fast = [{"id": py7zr.FILTER_LZMA2, "preset": 0}]
    for block in range(blocks):
        write_7z(tmp_path / "a.7z", entries[block::blocks], "a" if block else "w", filters=fast)
    real, peaks = py7zr.SevenZipFile.extract, []

    def measure(*args: object, **options: object) -> None:
        tracemalloc.start()
        real(*args, **options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    monkeypatch.setattr(py7zr.SevenZipFile, "extract", measure)
    extract(tmp_path / "a.7z", tmp_path / "out")
    assert peaks[0] < 1 << 21
    assert tree(tmp_path / "out") == files


# Refused members ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "a/..", "/evil", "C:/evil", "C:evil", "..\\evil", "a\\..\\b", "\\evil", "a/.. /b"],
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    message = refusal(write(tmp_path / "a", kind, Entry("good", b"good"), Entry(name, b"evil")))
    assert message.endswith("would be written outside the folder") and ("evil" in message or "a" in name)


@pytest.mark.parametrize("kind", FORMATS)
def test_links_are_refused_wherever_they_point(tmp_path: Path, kind: str) -> None:
    for target in ("/etc/passwd", "../..", "good", "sub/good"):
        message = refusal(write(tmp_path / "a", kind, Entry("good", b"good"), link("sub/l", target)))
        assert message.endswith("its member 'sub/l' is a link")


@pytest.mark.parametrize("kind", ["tar", "rar"])
def test_hard_links_are_refused(tmp_path: Path, kind: str) -> None:
    for target in ("/etc/passwd", "good"):
        message = refusal(write(tmp_path / "a", kind, Entry("good", b"good"), Entry("l", target.encode(), hard=True)))
        assert message.endswith("its member 'l' is a link")


def test_junctions_of_windows_are_refused(tmp_path: Path) -> None:
    py7zr = pytest.importorskip("py7zr")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as out:
        out.writestr(b"C:\\Windows", "l")
        out.header.files_info.files[-1]["attributes"] = stat.FILE_ATTRIBUTE_REPARSE_POINT
    assert refusal(tmp_path / "a.7z").endswith("its member 'l' is a link")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFCHR])
def test_devices_and_pipes_are_refused(tmp_path: Path, kind: str, mode: int) -> None:
    message = refusal(write(tmp_path / "a", kind, Entry("good", b"good"), Entry("dev", mode=mode | 0o666)))
    assert message.endswith("its member 'dev' is neither a file nor a folder")


@pytest.mark.parametrize("kind", ["zip", "rar"])
def test_encrypted_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.delattr(archives._Plan, "create")
    message = refusal(write(tmp_path / "a", kind, Entry("good", b"good"), Entry("x", b"secret", locked=True)))
    assert "is encrypted: unpack it by hand" in message and ("'x'" in message or kind == "rar")


@pytest.mark.parametrize("names", [False, True])
def test_an_encrypted_7z_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: bool) -> None:
    monkeypatch.delattr(archives._Plan, "create")
    write_7z(tmp_path / "a.7z", [Entry("x", b"secret")], password="pass", header_encryption=names)
    assert "is encrypted" in refusal(tmp_path / "a.7z")


def test_a_rar_with_encrypted_names_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("rarfile")
    write_rar(tmp_path / "a.rar", [Entry("x", b"x")], rar_block(4, vint(0) + vint(0) + b"\x0f" + bytes(16)))
    assert "is encrypted" in refusal(tmp_path / "a.rar")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.warns(UserWarning, match="Duplicate") if kind == "zip" else contextlib.nullcontext():
        archive = write(tmp_path / "a", kind, Entry("x/y", b"1"), Entry("x//./y", b"2"), Entry("x/y", b"3"))
    assert refusal(archive).endswith("its member 'x//./y' is in it twice")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_without_a_name_is_refused_and_the_root_itself_is_not(tmp_path: Path, kind: str) -> None:
    extract(write(tmp_path / "a", kind, folder("."), Entry("x", b"x")), tmp_path / "out1")
    assert tree(tmp_path / "out1") == {"x": b"x"}
    assert refusal(write(tmp_path / "a", kind, Entry("."))).endswith("has no name")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_name_that_is_both_file_and_folder_is_refused(tmp_path: Path, kind: str) -> None:
    for names in (("x", "x/y"), ("x/y", "x")):
        archive = write(tmp_path / "a", kind, *(Entry(name, name.encode()) for name in names))
        assert "cannot be extracted into" in refusal(archive)


@pytest.mark.parametrize("kind", FORMATS)
def test_names_that_are_too_long_are_refused(tmp_path: Path, kind: str) -> None:
    assert "cannot be extracted into" in refusal(
        write(tmp_path / "a", kind, Entry("good", b""), Entry("x" * 300, b"x"))
    )
    assert refusal(write(tmp_path / "a", kind, Entry("x/" * 2050 + "x"))).endswith("has a name that no file can have")


def test_a_header_of_absurd_length_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "CHUNK", 1 << 16)
    for kind in ("tar", "tar.gz"):
        assert "absurd length" in refusal(write(tmp_path / "a", kind, Entry("x/" * (1 << 16))))


# Sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "7z", "rar", *PACKED])
def test_bombs_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 1 << 16)
    monkeypatch.setattr(archives, "BOMB_RATIO", 4)
    monkeypatch.delattr(archives._Plan, "create")
    bomb = Entry("b", bytes(1 << 20))
    if kind == "rar":  # nothing here can write a compressed one
        bomb = Entry("b", b"x", size=1 << 20, method=3)
    assert "'b' takes it to" in refusal(write(tmp_path / "bomb", kind, Entry("a", NOISE), bomb))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_large_but_not_absurd_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    files = {"a": NOISE, "b": REPEAT}
    archive = write(tmp_path / "a", kind, *(Entry(name, data) for name, data in files.items()))
    for limit, ratio in ((1, 100), (1 << 30, 0)):
        monkeypatch.setattr(archives, "BOMB_BYTES", limit)
        monkeypatch.setattr(archives, "BOMB_RATIO", ratio)
        extract(archive, tmp_path / str(limit))
        assert tree(tmp_path / str(limit)) == files


def test_a_packed_bomb_is_not_unpacked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 1 << 16)
    write(tmp_path / "a.tgz", "tar.gz", Entry("a", bytes(1 << 24)))
    data = (tmp_path / "a.tgz").read_bytes()
    (tmp_path / "a.tgz").write_bytes(data[: len(data) // 2])  # so it would be found damaged
    assert "'a' takes it to" in refusal(tmp_path / "a.tgz")


@pytest.mark.parametrize("kind", FORMATS)
def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    archive = write(tmp_path / "a", kind, *(Entry(str(i)) for i in range(4)))
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    assert "more than 3 members" in refusal(archive)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
    extract(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", FORMATS)
def test_what_does_not_fit_on_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    archive = write(tmp_path / "a", kind, Entry("x", NOISE * 10), Entry("y", NOISE * 10), Entry("._junk", NOISE * 100))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: path.stat() and usage(20 * len(NOISE) - 1))
    assert "it needs 0.0 GB" in refusal(archive) and "0.0 GB free" in refusal(archive)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: path.stat() and usage(20 * len(NOISE)))
    extract(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "7z", "rar"])
@pytest.mark.parametrize("more", [-100, 100])
def test_sizes_that_are_not_true_are_found(tmp_path: Path, kind: str, more: int) -> None:
    # a 7z holds the size of all but the last of a block
    archive = write(tmp_path / "a", kind, Entry("x", NOISE, size=len(NOISE) + more), Entry("good", REPEAT))
    assert "is damaged or incomplete: fetch it again" in refusal(archive)


@pytest.mark.parametrize(
    "given, wanted", [(b"eleven byte", "longer"), (b"nine byte", "shorter"), (None, "x did not come out")]
)
def test_no_reader_can_write_more_or_less_than_it_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bytes | None, wanted: str
) -> None:
    class Liar:
        archive = tmp_path / "a"

        def members(self) -> Iterator[archives._Member]:
            yield archives._Member("x", 10, "file")

        def unpack(self, plan: archives._Plan) -> None:
            if given is not None:
                plan.fill(0, io.BytesIO(given))

    (tmp_path / "a").write_bytes(b"anything")
    monkeypatch.setattr(archives, "_reader", lambda _: Liar())
    assert "is damaged or incomplete" in refusal(tmp_path / "a") and wanted in refusal(tmp_path / "a")


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS + PACKED)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_archives_that_are_cut_off_are_found(tmp_path: Path, kind: str, part: float) -> None:
    archive = write(tmp_path / "a", kind, *(Entry(f"{i}.jpg", NOISE[i:]) for i in range(20)))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * part)])
    assert "is damaged or incomplete: fetch it again" in refusal(archive)


@pytest.mark.parametrize("kind", ["zip", "7z", "rar", *PACKED])
def test_even_the_last_byte_is_missed(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "a", kind, Entry("a.jpg", NOISE))
    archive.write_bytes(archive.read_bytes()[:-1])
    assert "is damaged or incomplete: fetch it again" in refusal(archive)


def test_a_tar_that_ends_between_two_members_is_found(tmp_path: Path) -> None:
    archive = write(tmp_path / "a", "tar", Entry("a", b"a"), Entry("b", b"b"))
    data = archive.read_bytes()
    for end in (1024, 2048, 2048 + 511):
        archive.write_bytes(data[:end])
        assert "is damaged or incomplete: fetch it again" in refusal(archive)
    archive.write_bytes(data[: 2048 + 1024])  # the end mark, but no padding
    extract(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "7z", "rar", *PACKED])
def test_a_flipped_bit_is_found(tmp_path: Path, kind: str) -> None:
    archive = write(tmp_path / "a", kind, Entry("a.jpg", NOISE), Entry("b.jpg", NOISE[5:]))
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 4
    archive.write_bytes(data)
    assert "is damaged or incomplete: fetch it again" in refusal(archive)


def test_a_broken_header_within_a_tar_is_not_its_end(tmp_path: Path) -> None:
    archive = write(tmp_path / "a", "tar", Entry("a", b"a"), Entry("b", b"b"), Entry("c", b"c"))
    data = bytearray(archive.read_bytes())
    data[1024] ^= 4
    archive.write_bytes(data)
    assert "is damaged or incomplete: fetch it again" in refusal(archive)


def test_a_zip_whose_members_begin_before_it_is_damaged(tmp_path: Path) -> None:
    archive = write(tmp_path / "a", "zip", Entry("a", b"a"))
    data = bytearray(archive.read_bytes())
    data[-6:-2] = struct.pack("<I", struct.unpack("<I", data[-6:-2])[0] + 20)
    archive.write_bytes(data)
    assert "is damaged or incomplete: fetch it again" in refusal(archive)


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    for content in (b"<!DOCTYPE html><html>Quota exceeded</html>", b"\n <html>" + bytes(600), b"", NOISE, bytes(1024)):
        (tmp_path / "a.zip").write_bytes(content)
        message = refusal(tmp_path / "a.zip")
        assert "is not a zip, tar, 7z or rar archive" in message and ("web page" in message) == (b"<" in content[:9])
    for path in (tmp_path / "none.zip", tmp_path):
        with pytest.raises(UserError, match="is not a file"):
            extract(path, tmp_path / "out")


def test_a_compression_that_python_cannot_read_is_named(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.zip", "zip", Entry("a", b"a"))
    data = bytearray(archive.read_bytes())
    for at in (8, data.index(b"PK\1\2") + 10):
        data[at : at + 2] = struct.pack("<H", 9)  # deflate64, which Windows uses for large files
    archive.write_bytes(data)
    assert "is packed in a way that cannot be read here: unpack it by hand" in refusal(archive)


def test_a_compression_that_py7zr_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    py7zr = pytest.importorskip("py7zr")

    def fail(*_: object, **__: object) -> None:
        raise py7zr.UnsupportedCompressionMethodError(b"", "BCJ2 filter is not supported")

    archive = write(tmp_path / "a.7z", "7z", Entry("a", b"a"))
    monkeypatch.setattr(py7zr.SevenZipFile, "extract", fail)
    assert "unpack it by hand" in refusal(archive) and "BCJ2" in refusal(archive)


def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")  # as of the same name, for a file system that does not tell case
    with pytest.raises(FileExistsError):
        archives._Plan(tmp_path, [tmp_path / "a"], [1]).fill(0, io.BytesIO(b"b"))
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.zip", "zip", Entry("a", b"a"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    for into in (tmp_path / "out", tmp_path / "out" / "mine"):
        with pytest.raises(UserError, match="is not an empty folder"):
            extract(archive, into)
    assert tree(tmp_path / "out") == {"mine": b"mine"}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("number, wanted", [(errno.ENOSPC, "is full"), (errno.EIO, "cannot be extracted into")])
def test_a_disk_that_fails_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int, wanted: str
) -> None:
    archive = write(tmp_path / "a", kind, folder("f"), *(Entry(f"s/{i}", NOISE) for i in range(3)))
    real = archives._Output.write

    def fail(self: archives._Output, data: bytes) -> int:
        if self.file.name.endswith("2"):
            raise OSError(number, os.strerror(number))
        return real(self, data)

    monkeypatch.setattr(archives._Output, "write", fail)
    assert wanted in refusal(archive)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    archive = write(tmp_path / "a", kind, Entry("a", b"a"))
    monkeypatch.setattr(archives._Output, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Optional packages and programs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, package", [("7z", "py7zr"), ("rar", "rarfile")])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, package: str) -> None:
    archive = write(tmp_path / "a", kind, Entry("a", b"a"))
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pip install {package}" in refusal(archive)


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder in which programs are looked for, still empty."""
    rarfile = pytest.importorskip("rarfile")
    path = tmp_path_factory.mktemp("programs")
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setattr(rarfile, "CURRENT_SETUP", None)
    return path


def give(programs: Path, name: str, output: bytes, code: int = 0) -> None:
    """Put a program there that writes the given bytes, whatever the archive."""
    (programs / "output").write_bytes(output)
    show = f"open({str(programs / 'output')!r}, 'rb').read()"
    (programs / name).write_text(
        f"#!{sys.executable}\nimport sys\n"
        "if {'p', '-x'} & {*sys.argv} and '--' not in sys.argv:\n"  # bsdtar takes that for the archive
        f"    sys.stdout.buffer.write({show})\n    sys.exit({code})\n"
    )
    (programs / name).chmod(0o755)


def test_stored_members_of_a_rar_need_no_program(tmp_path: Path, programs: Path) -> None:
    extract(write(tmp_path / "a", "rar", Entry("a", b"a")), tmp_path / "out")
    assert tree(tmp_path / "out") == {"a": b"a"}


def test_a_missing_program_for_rar_is_named(tmp_path: Path, programs: Path) -> None:
    assert "apt install unar" in refusal(write(tmp_path / "a", "rar", Entry("a", b"a"), Entry("b", b"b", method=3)))


COMPRESSED = folder("f"), Entry("a", b"1" * 9, method=3), Entry("._", b"2" * 9, method=3), Entry("f/b", NOISE, method=5)


@pytest.mark.parametrize("program", ["unrar", "bsdtar"])
def test_compressed_members_of_a_rar_are_cut_from_one_stream(tmp_path: Path, programs: Path, program: str) -> None:
    give(programs, program, b"1" * 9 + b"2" * 9 + NOISE)
    extract(write(tmp_path / "a.rar", "rar", *COMPRESSED), tmp_path / "out")
    assert tree(tmp_path / "out") == {"a": b"1" * 9, "f": None, "f/b": NOISE}


@pytest.mark.parametrize(
    "output, code", [(b"1" * 9 + b"2" * 9, 0), (b"1" * 8 + b"2" * 10 + NOISE, 0), (b"1" * 9 + b"2" * 9 + NOISE * 99, 0),
    (b"1" * 9 + b"2" * 9 + NOISE, 3), (b"", 1)],
)  # fmt: skip
def test_a_program_that_does_not_get_it_right_is_named(
    tmp_path: Path, programs: Path, output: bytes, code: int
) -> None:
    give(programs, "unrar", output, code)
    message = refusal(write(tmp_path / "a.rar", "rar", *COMPRESSED))
    assert "cannot be read by unrar: fetch it again, or try another program" in message
