"""Safe extraction of archives: zip and tar with the standard library, 7z and rar with libarchive.

Pooch's own `Unzip` and `Untar` are not used: they don't support 7z and rar, follow links out of the folder before
Python 3.12, and accept a truncated tar.
"""

import errno
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from small_object.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz", ".7z", ".rar")  # that `extract` reads
JUNK = {"__MACOSX", ".DS_Store", "Thumbs.db"}  # added by macOS and Windows, like names that start with "._"
CHUNK = 1 << 20
MIN_BOMB, BOMB_RATIO = 1 << 30, 100  # bytes and ratio; an archive must not exceed both when unpacked

Member = tuple[str, bool, Iterable[bytes]]  # name, whether it is a regular file, content


def extract(archive: Path, into: Path) -> None:
    """Extract the files of an archive, whose format is recognised by its content.

    The archive is refused if a member would land outside the folder, is a link or a device, is encrypted or occurs
    twice, or if the unpacked size is absurd. Files that macOS and Windows add are left out.

    Args:
        archive: The archive.
        into: A missing folder; after a failure the caller removes it.

    Raises:
        UserError: If the file is not an archive, is refused, is damaged, or can't be read or written here.
    """
    try:
        into.mkdir(parents=True)
        _write_members(_read_members(archive), into, max(MIN_BOMB, BOMB_RATIO * archive.stat().st_size))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if isinstance(error, UserError):
            what = reason
        elif isinstance(error, NotImplementedError) or "encrypted" in reason:
            what = f"is packed in a way that cannot be read here: repack it as a plain zip ({reason})"
        elif isinstance(error, OSError) and error.errno and (error.filename or error.errno != errno.EINVAL):
            what = f"cannot be extracted into {into} ({reason})"
        else:  # on damaged data the libraries raise errors of many types, OSError included
            what = f"is damaged or incomplete: fetch it again ({type(error).__name__}: {reason})"
        raise UserError(f"{archive} {what}") from error


def _write_members(members: Iterable[Member], into: Path, limit: int) -> None:
    """Write the members that are files."""
    for name, is_file, content in members:
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        # Windows drops dots and spaces at the end of a name, so ".. " is another ".."
        outside = name.startswith(("/", "\\")) or any(not p.strip(". ") or re.match("[A-Za-z]:", p) for p in parts)
        if outside or not parts or not is_file or "\0" in name:
            reason = "would be written outside the folder" if outside else "is not a regular file"
            raise UserError(f"is refused: its member {name[:200]!r} {reason}")
        if any(part in JUNK or part.startswith("._") for part in parts):
            continue
        path = into.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:  # never over another member
            for chunk in content:
                limit -= len(chunk)
                if limit < 0:
                    raise UserError(f"is refused: it unpacks to more than {BOMB_RATIO} times its size")
                file.write(chunk)


def _read_members(archive: Path) -> Iterator[Member]:
    """Choose the reader by the first bytes."""
    with archive.open("rb") as file:
        head = file.read(4)
    if head.startswith(b"PK"):
        return _read_zip(archive)
    return _read_with_libarchive(archive) if head in (b"7z\xbc\xaf", b"Rar!") else _read_tar(archive)


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(stream.read, CHUNK), b"")


def _read_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if not info.filename.endswith(("/", "\\")):
                with opened.open(info) as stream:
                    yield info.filename, stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG), _chunks(stream)


def _read_tar(archive: Path) -> Iterator[Member]:
    if not tarfile.is_tarfile(archive):
        raise UserError("is not a zip, tar, 7z or rar archive, or is damaged: fetch it again")
    with tarfile.open(archive) as opened:
        for info in opened:
            stream = opened.extractfile(info) if info.isreg() else None
            if not info.isdir():
                yield info.name, info.isreg(), _chunks(stream) if stream else ()
        opened.fileobj.seek(opened.offset)
        if opened.fileobj.read(512) != bytes(512):  # tarfile also takes a broken header for the end
            raise EOFError("the tar has no end")
        while opened.fileobj.read(CHUNK):  # up to the checksum of the compression
            pass


def _read_with_libarchive(archive: Path) -> Iterator[Member]:
    try:
        import libarchive
    except (ImportError, OSError, TypeError, AttributeError) as error:  # all but the first: no system library
        advice = "pip install libarchive-c; on Linux also apt install libarchive13"
        raise UserError(f"can only be read with libarchive ({error}): {advice}") from error
    with libarchive.file_reader(str(archive)) as opened:
        for entry in opened:
            if entry.pathname is None:
                raise UserError("has names that this locale cannot hold: set LC_ALL=C.UTF-8")
            if not entry.isdir:
                yield entry.pathname, entry.isreg and not entry.linkpath, entry.get_blocks()
