"""Client of a Zenodo record: its list of files, and downloads that go on where they stopped.

What comes from the record is not trusted: a file gets its name only when its size and md5 are those of the listing.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

import requests
from ultralytics.utils import LOGGER, TQDM
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import TimeoutError as LateError
from urllib3.util import Retry

from small_object.errors import UserError
from small_object.files import replacing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ("RECORD_URL", "RecordFile", "fetch", "list_files")

RECORD_URL = "https://zenodo.org/api/records/10969885"
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces of an answer
TRIES = 5  # failures in a row, without a new byte, until it is given up
BASE_DELAY, MAX_DELAY = 1.0, 60.0  # seconds until the next try: the first wait, doubled each time up to the last
RESERVE = 100_000_000  # bytes of disk to leave free
CHUNK = 1 << 20
T = TypeVar("T")
_md5 = partial(hashlib.md5, usedforsecurity=False)


class _Passing(Exception):
    """A failure that may be over at the next try, and the seconds that the server asks to wait until then."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _Unreachable(UserError):
    """A failure that did not pass."""


@dataclass(frozen=True)
class RecordFile:
    """One file of a record: its plain name, size in bytes, md5 in lower-case hex and where it is.

    Raises:
        UserError: If one of them can't be used, such as a name with a folder in it.
    """

    name: str
    size: int
    md5: str
    url: str

    def __post_init__(self) -> None:
        name = self.name if isinstance(self.name, str) and self.name.isprintable() else ""
        if name in {"", ".", ".."} or set(name) & set("/\\:"):
            wrong = f"the file name {self.name!r} is not a plain name"
        elif type(self.size) is not int or self.size < 0:
            wrong = f"{name} has no size in bytes, but {self.size!r}"
        elif not re.fullmatch("[0-9a-f]{32}", str(self.md5)):
            wrong = f"{name} has no md5, but {self.md5!r}"
        elif not re.match("https?://[^/]", str(self.url), re.IGNORECASE):
            wrong = f"the link of {name} is neither http nor https"
        else:
            return
        raise UserError(f"{self.url}: refused, {wrong}: {_by_hand(self.url)}")


def list_files(url: str = RECORD_URL, cache: Path | None = None) -> list[RecordFile]:
    """Ask a record for its files.

    Args:
        url (str): The record in the REST API.
        cache (Path | None): Folder that keeps the answer for when the record can't be reached.

    Returns:
        (list[RecordFile]): The files, in the record's order.

    Raises:
        UserError: If the record can't be reached and no answer is kept, or its answer can't be used.
    """
    kept = None if cache is None else Path(cache) / f"record-{_md5(url.encode()).hexdigest()[:8]}.json"

    def ask() -> bytes:
        with _get(url) as response:
            return response.content

    try:
        answer = _persist(url, ask, 2 if kept and kept.exists() else TRIES)  # a record hardly ever changes
    except _Unreachable as error:
        if kept:
            with suppress(OSError, ValueError):
                files = _parse(url, kept.read_bytes())
                LOGGER.warning(f"{url}: {error.__cause__}; the listing kept in {kept} is used")
                return files
        raise
    files = _parse(url, answer)
    if kept:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as new:
                new.write_bytes(answer)
        except OSError as error:
            LOGGER.warning(f"{kept}: the listing of {url} could not be kept: {error.strerror}")
    return files


def fetch(file: RecordFile, folder: Path) -> Path:
    """Download a file of a record, or what is missing of it; one that is there already costs no request.

    Args:
        file (RecordFile): An item of `list_files`.
        folder (Path): Where to put it; until it is complete it is called `<name>.part` there.

    Returns:
        (Path): `folder/<name>`, of the right size and md5.

    Raises:
        UserError: If it can't be downloaded or written, or its md5 is wrong; what came is then called `<name>.bad`.
    """
    target, part, bad = (Path(folder) / f"{file.name}{suffix}" for suffix in ("", ".part", ".bad"))
    try:
        if _is_complete(file, target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part) as stream:
            if _is_complete(file, target):  # another process had it meanwhile
                stream.close()
                part.unlink(missing_ok=True)
                return target
            md5 = _download(file, stream)
            whole = md5 == file.md5 and os.fstat(stream.fileno()).st_size == file.size
            if not fcntl:
                stream.close()  # Windows renames no open file; elsewhere the lock holds until the file has its name
            if whole and target.exists():
                LOGGER.warning(f"{target} is not the record's file: it is put aside as {bad}")
                target.replace(bad)
            part.replace(target if whole else bad)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        what = "make room and start again (what came is kept)" if full else "mend that or choose another folder"
        raise UserError(f"{file.url}: cannot write {part}: {error.strerror or error}: {what}") from error
    if not whole:
        raise UserError(
            f"{file.url}: what came has md5 {md5}, but the record says {file.md5}: it is put aside as {bad}; start "
            f"again to download it afresh, or {_by_hand(file.url)}"
        )
    return target


# The record's answers -------------------------------------------------------------------------------------------------


def _by_hand(url: Any) -> str:
    """Say how to do without the API."""
    record = re.match("https?://[^/]+/api/records/[^/?#]+", str(url))
    page = (record[0] if record else RECORD_URL).replace("/api/records/", "/records/")
    return f"get the archive by hand from {page} and pass --archive PATH"


def _parse(url: str, answer: bytes) -> list[RecordFile]:
    """Read a listing, in the API's present form or the older one."""
    try:
        record = json.loads(answer)
    except ValueError as error:
        raise UserError(f"{url}: the answer is not JSON: is this a record's API? Else {_by_hand(url)}") from error
    entries = record.get("files") if isinstance(record, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{url}: no files in the answer: is this a public record's API? Else {_by_hand(url)}")
    files = []
    for entry in entries:
        try:
            name, size = ("key", "size") if "key" in entry else ("filename", "filesize")
            link = "download" if "download" in entry["links"] else "self"  # beside "download", "self" is not the file
            md5 = entry["checksum"].removeprefix("md5:").lower()
            files.append(RecordFile(entry[name], entry[size], md5, entry["links"][link]))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{url}: a file without name, size, md5 or link: {_by_hand(url)}") from error
    return files


@contextmanager
def _get(url: str, start: int = 0) -> Iterator[requests.Response]:
    """Ask for a URL from a byte on; what fails, also while it is read, is raised as `_Passing` or UserError."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            status = response.status_code
            if status in {408, 429} or status >= 500:
                wait = 0.0
                with suppress(HTTPError, ValueError, OverflowError):
                    wait = Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
                raise _Passing(f"the server is busy or out of order ({status})", wait)
            if status != 200 and not (start and status in {206, 416}):
                what = {401: "access is refused", 403: "access is refused", 404: "it is not there"}.get(status)
                raise UserError(f"{url}: {what or 'unexpected answer'} ({status}): {_by_hand(url)}")
            yield response
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, HTTPError) as error:
        causes = (error, error.args[0] if error.args else None)
        if any(isinstance(e, (requests.Timeout, LateError)) for e in causes):
            what = "time-out, no answer came"
        elif any(isinstance(e, ProtocolError) for e in causes):
            what = "the connection was cut"
        else:
            what = "no secure connection" if isinstance(error, requests.exceptions.SSLError) else "no connection"
        raise _Passing(what) from error
    except requests.RequestException as error:
        raise UserError(f"{url}: it cannot be asked for ({error}): {_by_hand(url)}") from error


def _persist(url: str, attempt: Callable[[], T], tries: int, reached: Callable[[], int] = lambda: 0) -> T:
    """Try until it works, or has failed `tries` times in a row without getting further than before."""
    best, failures = reached(), 0
    while True:
        try:
            return attempt()
        except _Passing as error:
            if reached() > best:
                best, failures = reached(), 0
            failures += 1
            if failures >= tries:
                kept = f" (the {reached()} bytes that came are kept)" if reached() else ""
                advice = f"check the network and try again later{kept}, or {_by_hand(url)}"
                raise _Unreachable(f"{url}: {error}, {failures} times in a row: {advice}") from error
            delay = min(max(BASE_DELAY * 2 ** (failures - 1), error.wait), MAX_DELAY)
            LOGGER.warning(f"{url}: {error}; next try in {delay:g} s")
            sleep(delay)


# The file on disk -----------------------------------------------------------------------------------------------------


def _is_complete(file: RecordFile, path: Path) -> bool:
    if not path.exists() or path.stat().st_size != file.size:
        return False
    md5 = _md5()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            md5.update(chunk)
    return md5.hexdigest() == file.md5


@contextmanager
def _alone(part: Path) -> Iterator[io.FileIO]:
    """Open a partial file, where the system can lock it for one process at a time; a lock dies with its process."""
    mine = False
    while not mine:
        with part.open("a+b", buffering=0) as stream:  # unbuffered: what is counted as written is in the file
            if fcntl:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    LOGGER.info(f"{part}: waiting for another process that downloads it")
                    fcntl.flock(stream, fcntl.LOCK_EX)
                except OSError:  # a file system without locks
                    pass
            with suppress(FileNotFoundError):  # else the other process gave it another name while this one waited
                mine = os.path.samestat(part.stat(), os.fstat(stream.fileno()))
            if mine:
                yield stream


def _download(file: RecordFile, stream: io.FileIO) -> str:
    """Bring a partial file to its full size; return the md5 of what is in it."""
    done, md5 = 0, _md5()
    bar = TQDM(total=file.size, desc=file.name, unit="B", unit_scale=True, unit_divisor=1024)

    def count(chunk: bytes) -> None:
        nonlocal done
        md5.update(chunk)
        done += len(chunk)
        bar.update(len(chunk))

    def restart() -> None:
        nonlocal done, md5
        stream.truncate(0)
        done, md5 = 0, _md5()
        bar.update(-bar.n)

    def attempt() -> None:
        with _get(file.url, done) as response:
            if response.status_code == 200:
                length = response.headers.get("Content-Length", "")
                if length.isdecimal() and int(length) != file.size:
                    raise _Passing(f"the server has {length} bytes of it, but the record says {file.size}")
                if done:
                    restart()
            elif response.status_code == 416 or not re.fullmatch(
                rf"bytes {done}-\d+/({file.size}|\*)", response.headers.get("Content-Range", "")
            ):
                restart()
                raise _Passing("the server cannot go on from where the download stopped, so it starts over")
            read = getattr(response.raw, "read1", response.raw.read)  # read1 holds no bytes back that a cut would lose
            while done < file.size:
                chunk = read(min(CHUNK, file.size - done))
                if not chunk:
                    raise _Passing("the connection was cut")
                while chunk:
                    written = stream.write(chunk)  # less than all of it when the disk gets full
                    count(chunk[:written])
                    chunk = chunk[written:]

    with bar:
        if os.fstat(stream.fileno()).st_size > file.size:
            restart()
        stream.seek(0)
        while chunk := stream.read(CHUNK):
            count(chunk)
        if done < file.size:
            folder = Path(stream.name).parent
            need, free = file.size - done + RESERVE, shutil.disk_usage(folder).free
            if free < need:
                sizes = f"{need / 1e9:.2f} GB in {folder}, where {free / 1e9:.2f} GB are free"
                raise UserError(f"{file.url}: the download needs {sizes}: make room or choose another folder")
            _persist(file.url, attempt, TRIES, lambda: done)
    return md5.hexdigest()
