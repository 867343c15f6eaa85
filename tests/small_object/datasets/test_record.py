"""The client of the record, against a local server that speaks the same API and fails on demand."""

from __future__ import annotations

import email.utils
import errno
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from small_object.datasets import record
from small_object.datasets.record import RECORD_URL, RecordFile, fetch, list_files
from small_object.errors import UserError
from tests.helpers.record_server import RecordServer

DATA = random.Random(0).randbytes(300_001)
MD5 = hashlib.md5(DATA).hexdigest()
needs_lock = pytest.mark.skipif(record.fcntl is None, reason="no flock on this system")


@pytest.fixture
def server() -> Iterator[RecordServer]:
    with RecordServer({"a.zip": DATA}) as one:
        yield one


@pytest.fixture
def file(server: RecordServer) -> RecordFile:
    return RecordFile("a.zip", len(DATA), MD5, f"{server.url}/files/a.zip/content")


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Don't wait between tries; note what would have been waited."""
    noted: list[float] = []
    monkeypatch.setattr(record, "sleep", noted.append)
    monkeypatch.setenv("NO_PROXY", "*")
    return noted


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is logged."""
    lines: list[str] = []
    monkeypatch.setattr(record, "LOGGER", SimpleNamespace(info=lines.append, warning=lines.append))
    return lines


def complaint(call: Callable[..., Any], *args: Any) -> str:
    """Make a call that must fail, and return what it says."""
    with pytest.raises(UserError) as caught:
        call(*args)
    text = str(caught.value)
    assert "\n" not in text and "http" in text
    return text


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def ranges(server: RecordServer) -> list[str | None]:
    return [request.range for request in server.log]


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# The listing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old_form", [False, True])
def test_a_listing_gives_name_size_md5_and_link(server: RecordServer, old_form: bool, tmp_path: Path) -> None:
    server.files["two words.txt"] = b"hello"
    server.old_form = old_form
    first, second = list_files(server.url)
    assert first == RecordFile("a.zip", 300_001, MD5, f"{server.url}/files/a.zip/content")
    assert (second.name, second.size, second.md5) == ("two words.txt", 5, "5d41402abc4b2a76b9719d911017c592")
    assert fetch(second, tmp_path).read_bytes() == b"hello"


def test_a_listing_as_zenodo_writes_it(server: RecordServer) -> None:
    link = f"{RECORD_URL}/files/ASS1.zip/content"
    entry = {"id": "x", "key": "ASS1.zip", "size": 2_000_000_000, "checksum": f"md5:{MD5}", "links": {"self": link}}
    server.listing = json.dumps({"created": "2024", "id": 10969885, "files": [entry], "links": {}}).encode()
    assert list_files(server.url) == [RecordFile("ASS1.zip", 2_000_000_000, MD5, link)]


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "/a", "a/b", "a\\b", "C:a", "a\0b", "a\nb", None, 3])
def test_a_name_that_leaves_the_folder_is_refused(server: RecordServer, name: Any) -> None:
    entry = {"key": name, "size": 1, "checksum": f"md5:{MD5}", "links": {"self": f"{server.url}/files/a"}}
    server.listing = json.dumps({"files": [entry]}).encode()
    text = complaint(list_files, server.url)
    assert server.url in text and "name" in text and "--archive PATH" in text
    complaint(RecordFile, name, 1, MD5, server.url)


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1}, {"size": "12"}, {"size": None}, {"checksum": f"sha256:{MD5}{MD5}"}, {"checksum": "md5:"},
        {"checksum": None}, {"links": {}}, {"links": None}, {"links": {"self": "ftp://127.0.0.1/a"}},
        {"links": {"self": "file:///etc/passwd"}}, {"links": {"self": "/etc/passwd"}}, {"links": {"self": None}},
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_used_is_refused(server: RecordServer, change: dict[str, Any]) -> None:
    entry = {"key": "a.zip", "size": 1, "checksum": f"md5:{MD5}", "links": {"self": f"{server.url}/files/a"}}
    server.listing = json.dumps({"files": [entry | change]}).encode()
    assert "--archive PATH" in complaint(list_files, server.url)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"[]", b"{}", b'{"files": []}', b'{"files": 3}', b"1"])
def test_an_answer_that_is_no_listing_is_refused(server: RecordServer, body: bytes) -> None:
    server.listing = body
    text = complaint(list_files, server.url)
    assert server.url in text and ("not JSON" in text or "no files" in text) and "--archive PATH" in text
    assert len(server.log) == 1


def test_the_listing_is_kept_for_when_the_record_cannot_be_reached(
    server: RecordServer, tmp_path: Path, said: list[str]
) -> None:
    cache = tmp_path / "cache"
    wanted = list_files(server.url, cache)
    assert len(names(cache)) == 1 and not said
    server.statuses = itertools.repeat(503)
    assert list_files(server.url, cache) == wanted
    assert len(server.log) == 3  # two tries are enough where there is something to go on with
    assert server.url in said[-1] and "503" in said[-1] and str(cache) in said[-1]
    server.statuses = itertools.repeat(0)
    assert list_files(server.url, cache) == wanted and "cut" in said[-1]
    server.__exit__()
    assert list_files(server.url, cache) == wanted and "no connection" in said[-1]
    assert "no connection" in complaint(list_files, server.url)
    assert "no connection" in complaint(list_files, server.url.replace("records/1", "records/2"), cache)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_kept_listing_does_not_hide_a_refusal(server: RecordServer, tmp_path: Path, status: int) -> None:
    list_files(server.url, tmp_path)
    server.statuses = itertools.repeat(status)
    assert str(status) in complaint(list_files, server.url, tmp_path)


def test_a_new_listing_replaces_the_kept_one_and_a_bad_one_does_not(server: RecordServer, tmp_path: Path) -> None:
    list_files(server.url, tmp_path)
    server.files["b"] = b"b"
    wanted = list_files(server.url, tmp_path)
    server.listing = b"nothing"
    complaint(list_files, server.url, tmp_path)
    server.statuses = itertools.repeat(500)
    assert list_files(server.url, tmp_path) == wanted and len(wanted) == 2
    (kept,) = tmp_path.iterdir()
    kept.write_text("nothing")
    assert "500" in complaint(list_files, server.url, tmp_path)


def test_a_cache_that_cannot_be_written_does_not_matter(server: RecordServer, tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "taken").touch()
    assert len(list_files(server.url, tmp_path / "taken")) == 1
    assert "could not be kept" in said[-1]


# A download -----------------------------------------------------------------------------------------------------------


def test_a_file_is_downloaded_once(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert fetch(file, folder) == folder / "a.zip"
    assert (folder / "a.zip").read_bytes() == DATA
    assert names(folder) == {"a.zip"} and server.sent == len(DATA)
    assert fetch(file, folder) == folder / "a.zip"
    assert len(server.log) == 1


def test_an_empty_file(server: RecordServer, tmp_path: Path) -> None:
    server.files = {"empty": b""}
    (file,) = list_files(server.url)
    assert fetch(file, tmp_path).read_bytes() == b"" and names(tmp_path) == {"empty"}


def test_a_cut_download_goes_on_from_where_it_stopped(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    server.cuts = iter([100_000, 50_000])
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-"]
    assert server.sent == len(DATA)


def test_progress_resets_the_count_of_tries(
    server: RecordServer, file: RecordFile, tmp_path: Path, waits: list[float]
) -> None:
    server.cuts = itertools.repeat(20_000)
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert len(server.log) == 16 and server.sent == len(DATA)
    assert waits == [record.BASE_DELAY] * 15


def test_without_progress_it_gives_up(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA[:77])
    server.cuts = itertools.repeat(0)
    text = complaint(fetch, file, tmp_path)
    assert file.url in text and "cut" in text and "77 bytes" in text and "--archive PATH" in text
    assert len(server.log) == record.TRIES
    assert (tmp_path / "a.zip.part").read_bytes() == DATA[:77]


def test_a_later_call_goes_on_with_the_partial_file(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA[:123_457])
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == ["bytes=123457-"] and server.sent == len(DATA) - 123_457
    assert names(tmp_path) == {"a.zip"}


def test_a_partial_file_with_all_bytes_costs_no_request(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA)
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert not server.log and names(tmp_path) == {"a.zip"}


def test_a_partial_file_that_is_too_large_is_dropped(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA + b"x")
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == [None]


def test_a_server_without_ranges_sends_the_whole_file_again(
    server: RecordServer, file: RecordFile, tmp_path: Path
) -> None:
    server.ignore_range = True
    server.cuts = iter([100_000])
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == [None, "bytes=100000-"] and server.sent == 100_000 + len(DATA)


def test_a_server_without_ranges_that_always_cuts_is_given_up(
    server: RecordServer, file: RecordFile, tmp_path: Path
) -> None:
    server.ignore_range = True
    server.cuts = iter([100_000, 50_000] * 10)
    assert "cut" in complaint(fetch, file, tmp_path)
    assert len(server.log) == record.TRIES


@pytest.mark.parametrize(
    "answer", ["bytes 0-300000/300001", "bytes 99-300000/300001", "bytes 100-300000/9", "bytes */300001", "", "100-"]
)
def test_another_range_than_asked_for_starts_over(
    server: RecordServer, file: RecordFile, tmp_path: Path, answer: str
) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA[:100])
    server.content_range = answer
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == ["bytes=100-", None]


def test_a_range_without_the_total_is_right(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA[:100])
    server.content_range = "bytes 100-300000/*"
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == ["bytes=100-"]


def test_a_refused_range_starts_over(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA[:100])
    server.statuses = iter([416])
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == ["bytes=100-", None]


@pytest.mark.parametrize("there", [0, 200_000, 290_000])
@pytest.mark.parametrize("size", [250_000, 310_000])
def test_a_file_of_another_size_than_listed_is_refused_in_bounded_tries(
    server: RecordServer, file: RecordFile, tmp_path: Path, there: int, size: int
) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA[:there])
    server.files["a.zip"] = (DATA + DATA)[:size]
    text = complaint(fetch, file, tmp_path)
    assert f"{size} bytes" in text and "300001" in text
    assert len(server.log) <= record.TRIES + 1 and "a.zip" not in names(tmp_path)


def test_a_wrong_md5_puts_the_file_aside(server: RecordServer, tmp_path: Path) -> None:
    server.wrong_md5 = True
    (file,) = list_files(server.url)
    (tmp_path / "a.zip.bad").write_bytes(b"older")
    text = complaint(fetch, file, tmp_path)
    assert MD5 in text and file.md5 in text and file.md5 != MD5 and str(tmp_path / "a.zip.bad") in text
    assert file.url in text and names(tmp_path) == {"a.zip.bad"}
    assert (tmp_path / "a.zip.bad").read_bytes() == DATA


def test_after_a_wrong_md5_it_is_downloaded_afresh(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    damaged = b"x" * 1000 + DATA[1000:]
    assert hashlib.md5(damaged).hexdigest() in complaint(fetch, file, tmp_path)
    assert (tmp_path / "a.zip.bad").read_bytes() == damaged
    server.log.clear()
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == [None]


def test_another_file_of_that_name_is_put_aside(
    server: RecordServer, file: RecordFile, tmp_path: Path, said: list[str]
) -> None:
    for content in (b"mine", b"y" * len(DATA)):
        (tmp_path / "a.zip").write_bytes(content)
        assert fetch(file, tmp_path).read_bytes() == DATA
        assert (tmp_path / "a.zip.bad").read_bytes() == content
        assert str(tmp_path / "a.zip.bad") in said[-1]


# Failures that may pass -----------------------------------------------------------------------------------------------


def test_passing_failures_are_tried_again_after_longer_and_longer(
    server: RecordServer, file: RecordFile, tmp_path: Path, waits: list[float], said: list[str]
) -> None:
    server.statuses = iter([503, 429, 0, 500])
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert waits == [1, 2, 4, 8] and len(said) == 4
    waits.clear()
    server.statuses = iter([502, 408, 0, 504])
    assert len(list_files(server.url)) == 1 and waits == [1, 2, 4, 8]


@pytest.mark.parametrize("retry_after, wait", [("7", 7), ("0", 1), ("100000", 60), ("soon", 1), ("", 1), ("-3", 1)])
def test_the_wait_that_the_server_asks_for(
    server: RecordServer, waits: list[float], said: list[str], retry_after: str, wait: float
) -> None:
    server.statuses, server.headers = iter([429]), {"Retry-After": retry_after}
    list_files(server.url)
    assert waits == [wait] and "429" in said[0]


def test_the_wait_until_a_date(server: RecordServer, waits: list[float]) -> None:
    server.statuses = iter([503])
    server.headers = {"Retry-After": email.utils.formatdate(time.time() + 30, usegmt=True)}
    list_files(server.url)
    assert waits == [pytest.approx(29, abs=2)]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_out_of_order(
    server: RecordServer, file: RecordFile, tmp_path: Path, status: int, waits: list[float]
) -> None:
    server.statuses = itertools.repeat(status)
    for url, call in ((server.url, lambda: list_files(server.url)), (file.url, lambda: fetch(file, tmp_path))):
        server.log.clear()
        waits.clear()
        text = complaint(call)
        assert text.startswith(url) and str(status) in text and "later" in text and "--archive PATH" in text
        assert len(server.log) == record.TRIES == len(waits) + 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_final(server: RecordServer, file: RecordFile, tmp_path: Path, status: int) -> None:
    server.statuses = itertools.repeat(status)
    for url, call in ((server.url, lambda: list_files(server.url)), (file.url, lambda: fetch(file, tmp_path))):
        server.log.clear()
        text = complaint(call)
        assert text.startswith(url) and str(status) in text
        assert f"{server.base}/records/1 and pass --archive PATH" in text
        assert len(server.log) == 1


@pytest.mark.parametrize("status", [204, 206, 301, 400, 416])
def test_an_unexpected_answer_is_final(server: RecordServer, file: RecordFile, tmp_path: Path, status: int) -> None:
    server.statuses = itertools.repeat(status)
    assert str(status) in complaint(fetch, file, tmp_path)
    assert len(server.log) == 1


def test_a_redirection_is_followed_over_http_only(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(DATA[:100])
    server.statuses = iter([302, None, 302])
    server.headers = {"Location": file.url}
    assert fetch(replace(file, url=f"{server.base}/elsewhere"), tmp_path).read_bytes() == DATA
    assert ranges(server) == ["bytes=100-"] * 2
    server.headers = {"Location": "file:///etc/hosts"}
    assert "--archive PATH" in complaint(fetch, file, tmp_path / "other")


def test_the_page_to_get_the_archive_from() -> None:
    text = complaint(RecordFile, "", 1, MD5, f"{RECORD_URL}/files/a/content")
    assert " https://zenodo.org/records/10969885 " in text
    text = complaint(RecordFile, "", 1, MD5, "http://127.0.0.1/elsewhere")
    assert " https://zenodo.org/records/10969885 " in text


def test_a_server_that_does_not_answer(
    server: RecordServer, file: RecordFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "TIMEOUT", (1, 0.1))
    monkeypatch.setattr(record, "TRIES", 2)
    server.hang = True
    for url, call in ((server.url, lambda: list_files(server.url)), (file.url, lambda: fetch(file, tmp_path))):
        text = complaint(call)
        assert text.startswith(url) and "time-out" in text and "--archive PATH" in text
    assert len(server.log) == 4


def test_a_download_that_stalls_goes_on(
    server: RecordServer, file: RecordFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(record, "TIMEOUT", (1, 0.2))
    server.stall = 100_000
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]
    assert len(said) == 3 and all("time-out" in line for line in said) and server.sent == len(DATA)


def test_no_network(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    server.__exit__()
    for url, call in ((server.url, lambda: list_files(server.url)), (file.url, lambda: fetch(file, tmp_path))):
        text = complaint(call)
        assert text.startswith(url) and "no connection" in text
        assert f"{server.base}/records/1 and pass --archive PATH" in text


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/api/records/1", "file:///etc/hosts", "records/1", "http://", ""])
def test_an_address_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(UserError, match="--archive PATH"):
        list_files(url)


# The disk and other processes -----------------------------------------------------------------------------------------


def test_free_disk_is_checked_before_anything_is_asked(
    server: RecordServer, file: RecordFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, free = namedtuple("usage", "total used free"), 2_340_000_000
    monkeypatch.setattr(record.shutil, "disk_usage", lambda folder: usage(0, 0, free))
    text = complaint(fetch, replace(file, size=5_000_000_000), tmp_path)
    assert file.url in text and "5.10 GB" in text and "2.34 GB" in text
    assert not server.log
    (tmp_path / "a.zip.part").write_bytes(DATA[:100_000])
    free = 200_001 + record.RESERVE - 1
    complaint(fetch, file, tmp_path)
    assert not server.log and size_of(tmp_path / "a.zip.part") == 100_000
    free += 1  # just the bytes that are missing, and the reserve
    assert fetch(file, tmp_path).read_bytes() == DATA


def test_a_disk_that_gets_full_keeps_the_part(
    server: RecordServer, file: RecordFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            room = 123_456 - os.fstat(self.fileno()).st_size
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data[:room])

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *args, **kwargs: Full(path, "a+"))
        text = complaint(fetch, file, tmp_path)
    assert file.url in text and os.strerror(errno.ENOSPC) in text and "kept" in text
    assert (tmp_path / "a.zip.part").read_bytes() == DATA[:123_456]
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == [None, "bytes=123456-"]


def test_a_write_that_takes_a_part_of_the_bytes(
    server: RecordServer, file: RecordFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:5000])

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *args, **kwargs: Short(path, "a+"))
        fetch(file, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == DATA and len(server.log) == 1


def test_a_folder_that_cannot_be_written(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    text = complaint(fetch, file, tmp_path / "taken")
    assert str(tmp_path / "taken") in text and "folder" in text and not server.log
    assert "too long" in complaint(fetch, replace(file, name="a" * 300), tmp_path)


def start(file: RecordFile, folder: Path) -> multiprocessing.process.BaseProcess:
    """Fetch in a process of its own, forked because it then need not import everything again."""
    process = multiprocessing.get_context("fork").Process(target=fetch, args=(file, folder))
    process.start()
    return process


def start_two(
    file: RecordFile, folder: Path, said: list[str], size: int
) -> tuple[multiprocessing.process.BaseProcess, threading.Thread]:
    """Fetch in a process, which stalls at a size of the partial file, and in a thread that waits for it."""
    process = start(file, folder)
    until(lambda: size_of(folder / "a.zip.part") == size)
    thread = threading.Thread(target=fetch, args=(file, folder))
    thread.start()
    until(lambda: bool(said))
    return process, thread


@needs_lock
def test_a_killed_process_is_gone_on_from(server: RecordServer, file: RecordFile, tmp_path: Path) -> None:
    part = tmp_path / "a.zip.part"
    server.stall = 80_000
    for count in (1, 2, 3):
        process = start(file, tmp_path)
        until(lambda count=count: size_of(part) >= count * 80_000)
        process.kill()
        process.join()
        assert part.read_bytes() == DATA[: count * 80_000] and names(tmp_path) == {"a.zip.part"}
    server.stall = None
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert ranges(server) == [None, "bytes=80000-", "bytes=160000-", "bytes=240000-"] and server.sent == len(DATA)
    assert names(tmp_path) == {"a.zip"}


@needs_lock
def test_two_processes_at_once_download_it_once(
    server: RecordServer, file: RecordFile, tmp_path: Path, said: list[str]
) -> None:
    server.stall = 80_000
    process, second = start_two(file, tmp_path, said, 80_000)
    assert "waiting for another process" in said[0]
    server.resume()
    second.join(20)
    process.join(20)
    assert process.exitcode == 0 and not second.is_alive()
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert names(tmp_path) == {"a.zip"} and len(server.log) == 1 and server.sent == len(DATA)


@needs_lock
def test_a_waiting_process_downloads_afresh_what_the_first_puts_aside(
    server: RecordServer, file: RecordFile, tmp_path: Path, said: list[str]
) -> None:
    damaged = bytes(10) + DATA[10:]
    (tmp_path / "a.zip.part").write_bytes(damaged[:1000])
    server.stall = 80_000
    process, second = start_two(file, tmp_path, said, 81_000)
    server.resume()
    second.join(20)
    process.join(20)
    assert process.exitcode == 1 and names(tmp_path) == {"a.zip", "a.zip.bad"}
    assert (tmp_path / "a.zip").read_bytes() == DATA and (tmp_path / "a.zip.bad").read_bytes() == damaged


@needs_lock
def test_a_waiting_process_goes_on_when_the_first_is_killed(
    server: RecordServer, file: RecordFile, tmp_path: Path, said: list[str]
) -> None:
    server.stall = 80_000
    process, second = start_two(file, tmp_path, said, 80_000)
    server.stall = None
    process.kill()
    process.join()
    second.join(20)
    assert (tmp_path / "a.zip").read_bytes() == DATA and names(tmp_path) == {"a.zip"}
    assert ranges(server) == [None, "bytes=80000-"] and server.sent == len(DATA)


def test_without_locks_it_works_as_well(
    server: RecordServer, file: RecordFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "fcntl", None)
    server.cuts = iter([100])
    assert fetch(file, tmp_path).read_bytes() == DATA and names(tmp_path) == {"a.zip"}


def test_without_locks_a_second_process_cannot_spoil_the_file(
    server: RecordServer, file: RecordFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "fcntl", None)
    server.stall = 80_000
    results: list[str] = []

    def first() -> None:
        results.append(complaint(fetch, file, tmp_path))

    thread = threading.Thread(target=first)
    thread.start()
    until(lambda: size_of(tmp_path / "a.zip.part") == 80_000)
    with (tmp_path / "a.zip.part").open("ab") as stream:
        stream.write(b"from elsewhere")
    server.resume()
    thread.join(20)
    assert len(results) == 1 and names(tmp_path) == {"a.zip.bad"}


# Looks and costs ------------------------------------------------------------------------------------------------------


def test_the_progress_bar_counts_bytes(
    server: RecordServer, file: RecordFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []

    class Bar(record.TQDM):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, file=io.StringIO(), **kwargs)
            bars.append(self)

        def close(self) -> None:
            self.last = self.n  # closing brings it down to the total
            super().close()

    monkeypatch.setattr(record, "TQDM", Bar)
    (tmp_path / "a.zip.part").write_bytes(DATA[:100_000])
    server.cuts = iter([50_000])
    fetch(file, tmp_path)
    server.ignore_range = True
    server.cuts = iter([50_000])
    (tmp_path / "a.zip").unlink()
    fetch(file, tmp_path)
    assert len(bars) == 2
    for bar in bars:
        assert (bar.desc, bar.last, bar.total, bar.closed) == ("a.zip", len(DATA), len(DATA), True)
        assert bar.is_bytes and bar.unit_divisor == 1024 and "293.0KB" in bar.file.getvalue()


def test_memory_does_not_grow_with_the_file(server: RecordServer, tmp_path: Path) -> None:
    large = tmp_path / "large"
    piece = random.Random(1).randbytes(1 << 20)
    with large.open("wb") as stream:
        for index in range(30):
            stream.write(bytes([index]) + piece[1:])
    server.files = {"large": large}
    (file,) = list_files(server.url)
    assert file.size == 30 << 20
    tracemalloc.start()
    try:
        got = fetch(file, tmp_path / "got")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10e6
    assert hashlib.md5(got.read_bytes()).hexdigest() == hashlib.md5(large.read_bytes()).hexdigest()


def test_the_server_serves_a_folder_from_the_command_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(DATA)
    command = [sys.executable, str(root / "tests" / "record_server.py"), str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            (file,) = list_files(process.stdout.readline().strip())
            assert fetch(file, tmp_path / "got").read_bytes() == DATA
        finally:
            process.terminate()
