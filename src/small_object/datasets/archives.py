"""Safe extraction of data set archives: zip, tar (plain, gz, bz2, xz), 7z and rar.

An archive comes from the internet or from a user, so nothing in it is trusted: its listing is checked as a whole before
the first byte is written, and then no member gets more bytes than the listing said. Each format has a small reader that
lists the members and streams them in the archive's order; all checks and all writing are common.

    extract(Path("ASS1.zip"), Path("datasets/ASS1"))
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import importlib
import io
import lzma
import re
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any, Protocol

from ultralytics.utils import LOGGER, TQDM

from small_object.errors import UserError

__all__ = ("extract", "is_archive")

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz", ".7z", ".rar")
MAX_MEMBERS = 1_000_000
MAX_NAME = 4096  # characters in a member's name
BOMB_BYTES, BOMB_RATIO = 1 << 30, 100  # what unpacks to more bytes than the one and more times its size than the other
REFUSED = {
    "link": "is a link",
    "special": "is neither a file nor a folder",
    "encrypted": "is encrypted: unpack it by hand, with its password",
}
CHUNK = 1 << 20  # bytes read at once
JUNK = {"__MACOSX", ".DS_Store", "Thumbs.db"}  # what macOS and Windows leave behind; so are names in "._"


def is_archive(path: Path | str) -> bool:
    """Tell by its name whether a file is an archive that `extract` reads."""
    return str(path).lower().endswith(SUFFIXES)


def extract(archive: Path, into: Path) -> None:
    """Extract an archive of a kind told by its content, whatever its name.

    Junk of macOS and Windows is left out, and backslashes in names separate folders. The archive is refused as a whole
    if a member would land outside the folder, is a link (hard or symbolic, wherever it points: data sets have none), a
    device or a pipe, is encrypted, or has the name of another (which of them counts is a guess), and if it unpacks to
    absurdly much or to more than the disk has free. Names that differ in case are different names, if the file system
    agrees. Files and folders get the usual modes of new ones.

    Args:
        archive (Path): The archive; of a rar in several volumes the first.
        into (Path): An empty or missing folder. After a failure it is again as it was.

    Raises:
        UserError: The file is no archive, or is refused, damaged or cannot be read or written here.
    """
    archive, into = Path(archive).absolute(), Path(into).absolute()
    if not archive.is_file():
        raise UserError(f"{archive} is not a file")
    if into.exists() and not (into.is_dir() and next(into.iterdir(), None) is None):
        raise UserError(f"{into} is not an empty folder: {archive.name} is only extracted into an empty or a new one")
    made = not into.exists()
    with _one_line(archive, into):
        reader = _reader(archive)
        LOGGER.info(f"Reading {archive}")  # a packed tar has to be unpacked to be listed, which takes a while
        plan = _check(reader, into)
        into.mkdir(parents=True, exist_ok=True)
        try:
            for folder in plan.folders:
                folder.mkdir(parents=True, exist_ok=True)
            with TQDM(total=plan.total, desc=f"Extracting {archive.name}", unit="B", unit_divisor=1024) as plan.bar:
                reader.unpack(plan)
            missing = next((path for path in plan.paths if path and not path.is_file()), None)
            if missing:
                raise ValueError(f"{missing.name} did not come out")
        except BaseException:
            with contextlib.suppress(OSError):
                for entry in [into] if made else list(into.iterdir()):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            raise


# What all formats have in common --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Member:
    """One entry of a listing; `kind` is "file", "folder" or one of REFUSED."""

    name: str
    size: int
    kind: str


class _Output:
    """A member on its way to disk, which gets no more bytes than the listing said."""

    def __init__(self, file: IO[bytes], size: int, bar: TQDM) -> None:
        self.file, self.left, self.bar = file, size, bar

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("a member is longer than the listing says")
        self.bar.update(len(data))
        return self.file.write(data)

    def seek(self, *_: int) -> int:  # at a member's end py7zr calls this and, depending on its version, `close`
        return 0

    def close(self) -> None:
        pass


@dataclass
class _Plan:
    """Where each member of the listing goes (None: nowhere), its size, and the folders to make."""

    into: Path
    paths: list[Path | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    bar: TQDM | None = None

    @property
    def total(self) -> int:
        return sum(size for path, size in zip(self.paths, self.sizes, strict=True) if path)

    @contextlib.contextmanager
    def create(self, index: int) -> Iterator[_Output]:
        """Create the file of a member that goes somewhere; it must be filled within the context."""
        path = self.paths[index]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:  # never over another, whatever the file system takes for the same name
            output = _Output(file, self.sizes[index], self.bar)
            yield output
        if output.left:
            raise ValueError("a member is shorter than the listing says")

    def fill(self, index: int, source: IO[bytes]) -> None:
        with self.create(index) as output:
            shutil.copyfileobj(source, output, CHUNK)


class _Reader(Protocol):
    """Reads one format: lists the members and, in the same order, fills the files of those that go somewhere."""

    archive: Path

    def members(self) -> Iterator[_Member]: ...

    def unpack(self, plan: _Plan) -> None: ...


@contextlib.contextmanager
def _one_line(archive: Path, into: Path) -> Iterator[None]:
    """Turn every error into one line for the user."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # On damaged data the libraries raise whatever their parsers stumble over: an OSError without a number, for one,
        # or the one for a seek to a place that is none.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if isinstance(error, NotImplementedError):
            message = f"{archive} is packed in a way that cannot be read here: unpack it by hand ({reason})"
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{archive} cannot be extracted: the disk of {into} is full"
        elif isinstance(error, OSError) and error.errno and (error.errno != errno.EINVAL or error.filename):
            message = f"{archive} cannot be extracted into {into} ({reason})"
        else:
            message = f"{archive} is damaged or incomplete: fetch it again ({reason})"
        raise UserError(message) from error


def _reader(archive: Path) -> _Reader:
    """Choose the reader by the first bytes."""
    with archive.open("rb") as file:
        head = file.read(512)
    kinds: dict[bytes, Callable[[Path], _Reader]] = {
        b"PK\3\4": _Zip, b"PK\5\6": _Zip, b"7z\xbc\xaf\x27\x1c": _SevenZip, b"Rar!\x1a\x07": _Rar,
        b"\x1f\x8b": lambda path: _Tar(path, gzip.open), b"BZh": lambda path: _Tar(path, bz2.open),
        b"\xfd7zXZ\0": lambda path: _Tar(path, lzma.open),
    }  # fmt: skip
    for magic, kind in kinds.items():
        if head.startswith(magic):
            return kind(archive)
    with contextlib.suppress(tarfile.HeaderError):
        if head[257:262] != b"ustar":  # an old tar has no magic, but a checksum
            tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        return _Tar(archive, open)
    page = "; it looks like a web page: fetch it again" if head.lstrip().startswith(b"<") else ""
    raise UserError(f"{archive} is not a zip, tar, 7z or rar archive{page}")


def _check(reader: _Reader, into: Path) -> _Plan:
    """Check the listing as it comes, so that an endless one does no harm, and plan where its members go."""
    archive, plan, seen, total = reader.archive, _Plan(into), set(), 0
    limit = max(BOMB_BYTES, BOMB_RATIO * archive.stat().st_size)
    for member in reader.members():
        refused = f"{archive} is refused: its member {member.name[:200]!r} "
        parts = _parts(member.name, refused)
        path: Path | None = into.joinpath(*parts)
        if any(part in JUNK or part.startswith("._") for part in parts):
            path = None
        elif member.kind == "folder":
            plan.folders.append(path)
            path = None
        elif member.kind != "file":
            raise UserError(refused + REFUSED[member.kind])
        elif path in seen or not parts:
            raise UserError(refused + ("is in it twice" if parts else "has no name"))
        if member.size < 0:
            raise ValueError("a member of negative size")
        seen.add(path)
        plan.paths.append(path)
        plan.sizes.append(member.size)
        total += member.size
        if len(plan.paths) > MAX_MEMBERS:
            raise UserError(f"{archive} is refused: it has more than {MAX_MEMBERS:,} members")
        if total > limit:
            raise UserError(f"{refused}takes it to {total / 1e9:.1f} GB unpacked, over {BOMB_RATIO} times its size")
    free = shutil.disk_usage(next(p for p in (into, *into.parents) if p.exists())).free
    if plan.total > free:
        need = f"{plan.total / 1e9:.1f} GB on the disk of {into}, which has {free / 1e9:.1f} GB free"
        raise UserError(f"{archive} cannot be extracted: it needs {need}")
    return plan


def _parts(name: str, refused: str) -> list[str]:
    """Split a member's name into folders and file; refuse one that could lead elsewhere, on whatever system."""
    name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    # Windows drops dots and spaces at the end of a name, so ".. " is another ".."
    if name.startswith("/") or any(not part.strip(". ") or re.match("[A-Za-z]:", part) for part in parts):
        raise UserError(f"{refused}would be written outside the folder")
    if "\0" in name or len(name) > MAX_NAME:
        raise UserError(f"{refused}has a name that no file can have")
    return parts


def _package(name: str, archive: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{archive} can only be read with the package {name}: pip install {name}") from None


def _encrypted(archive: Path) -> UserError:
    return UserError(f"{archive} {REFUSED['encrypted']}")


def _kind(mode: int) -> str:
    """Tell a member's kind by its Unix mode; one without a type is a file."""
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "special")


# The formats ----------------------------------------------------------------------------------------------------------


@dataclass
class _Zip:
    archive: Path

    def members(self) -> Iterator[_Member]:
        with zipfile.ZipFile(self.archive) as opened:
            if min((info.header_offset for info in opened.infolist()), default=opened.start_dir):
                # an archive begins with a member; where the rest is missing, one inside it can pass for its listing
                raise ValueError("its listing leaves out its beginning")
            for info in opened.infolist():
                kind = "folder" if info.filename.endswith(("/", "\\")) else _kind(info.external_attr >> 16)
                yield _Member(info.filename, info.file_size, "encrypted" if info.flag_bits & 1 else kind)

    def unpack(self, plan: _Plan) -> None:
        with zipfile.ZipFile(self.archive) as opened:
            for index, info in enumerate(opened.infolist()):
                if plan.paths[index]:
                    with opened.open(info) as source:
                        plan.fill(index, source)


class _TarBytes:
    """The unpacked bytes of a tar: keeps the last block read, and reads no header of absurd length into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.seek, self.tell, self.last = file, file.seek, file.tell, b""

    def read(self, size: int) -> bytes:
        if size > CHUNK:
            raise ValueError("a header of absurd length")
        self.last = self.file.read(size)
        return self.last


@dataclass
class _Tar:
    archive: Path
    opener: Callable[..., Any]

    def _walk(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        """Go through the archive once, without a step back, for which a packed one would have to start anew."""
        with self.opener(self.archive, "rb") as file:
            data = _TarBytes(file)
            with tarfile.open(fileobj=data, mode="r:") as opened:
                while info := opened.next():
                    opened.members.clear()  # it keeps all that it has seen
                    yield opened, info
            if len(data.last) < 512 or data.last.strip(b"\0"):  # tarfile takes a broken header for the end as well
                raise EOFError("it has no end")
            for _ in range(64):  # padding, and then the checksum of the compression
                if not file.read(CHUNK):
                    break

    def members(self) -> Iterator[_Member]:
        for _, info in self._walk():
            kind = "link" if info.issym() or info.islnk() else "folder" if info.isdir() else "special"
            yield _Member(info.name, info.size, "file" if info.isreg() else kind)

    def unpack(self, plan: _Plan) -> None:
        for index, (opened, info) in enumerate(self._walk()):
            if plan.paths[index]:
                with opened.extractfile(info) as source:
                    plan.fill(index, source)


class _SevenZipBytes(io.FileIO):
    """Gives py7zr little at once: it reads a piece for each member, and whatever that doesn't need stays in memory."""

    most = -1

    def read(self, size: int = -1) -> bytes:
        return super().read(size if self.most < 0 else min(size, self.most))


@dataclass
class _SevenZip:
    archive: Path

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        py7zr = _package("py7zr", self.archive)
        try:  # given a file that is open, py7zr starts no threads
            with _SevenZipBytes(self.archive) as file, py7zr.SevenZipFile(file) as opened:
                yield opened
        except py7zr.PasswordRequired:
            raise _encrypted(self.archive) from None
        except py7zr.UnsupportedCompressionMethodError as error:
            raise NotImplementedError(error) from error

    def members(self) -> Iterator[_Member]:
        with self._open() as opened:
            if opened.needs_password():
                raise _encrypted(self.archive)
            for info in opened.list():
                kind = "link" if info.is_symlink else "folder" if info.is_directory else "special"
                yield _Member(info.filename, info.uncompressed, "file" if info.is_file else kind)

    def unpack(self, plan: _Plan) -> None:
        indices = {path: index for index, path in enumerate(plan.paths) if path}
        with self._open() as opened, contextlib.ExitStack() as current:
            opened.fp.most, block = 4096, None

            def create(filename: str) -> _Output:
                nonlocal block
                current.close()  # the member before is complete
                index, before = indices[Path(filename)], block
                block = opened.files[index].folder or before  # an empty file is in no block
                if before not in (None, block):
                    before.decompressor = None  # py7zr keeps one for each block
                return current.enter_context(plan.create(index))

            names = [name for name, path in zip(opened.getnames(), plan.paths, strict=True) if path]
            opened.extract(plan.into, names, factory=SimpleNamespace(create=create))


@dataclass
class _Rar:
    archive: Path

    def members(self) -> Iterator[_Member]:
        rarfile = _package("rarfile", self.archive)
        with rarfile.RarFile(self.archive, errors="strict") as opened:
            if opened.needs_password():
                raise _encrypted(self.archive)
            for info in opened.infolist():
                kind = _kind(info.mode) if info.host_os == rarfile.RAR_OS_UNIX else "file"
                kind = "link" if info.file_redir or info.is_symlink() else "folder" if info.is_dir() else kind
                yield _Member(info.filename, info.file_size, kind)
                if kind == "file" and info.compress_type != rarfile.RAR_M0:
                    self._command()

    def _command(self) -> list[str]:
        """Find a program that unpacks all members, one after the other, to its standard output."""
        rarfile = _package("rarfile", self.archive)
        try:
            command = rarfile.tool_setup().open_cmdline(None, str(self.archive))
            return [part for part in command if part != "--"]  # bsdtar takes it for the archive's name
        except rarfile.RarCannotExec:
            raise UserError(f"{self.archive} needs a program that unpacks rar: apt install unar") from None

    def unpack(self, plan: _Plan) -> None:
        rarfile = _package("rarfile", self.archive)
        with rarfile.RarFile(self.archive, errors="strict") as opened:
            files = [(i, info) for i, info in enumerate(opened.infolist()) if info.is_file()]
            if any(info.compress_type != rarfile.RAR_M0 for _, info in files):
                return self._unpack_by(self._command(), files, plan)
            for index, info in files:
                if plan.paths[index]:
                    with opened.open(info) as source:
                        plan.fill(index, source)

    def _unpack_by(self, command: list[str], files: list[tuple[int, Any]], plan: _Plan) -> None:
        """Cut up one stream of all files: rarfile starts a program for each, which in a solid archive begins anew."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, **pipes) as process:
            what = "fetch it again, or try another program (apt install unar)"
            failed = UserError(f"{self.archive} cannot be read by {command[0]}: {what}")
            try:
                for index, info in files:
                    left, crc = info.file_size, 0
                    with plan.create(index) if plan.paths[index] else contextlib.nullcontext() as output:
                        while left and (data := process.stdout.read(min(left, CHUNK))):
                            left, crc = left - len(data), zlib.crc32(data, crc)
                            if output:
                                output.write(data)
                        if left or info.CRC not in (None, crc):
                            raise failed
                if process.stdout.read(1) or process.wait():
                    raise failed
            finally:
                process.kill()
