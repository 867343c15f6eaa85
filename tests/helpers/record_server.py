"""A local server that speaks the REST API of a Zenodo record, with faults to switch on.

    python tests/record_server.py FOLDER --port 0

serves every file of a folder as a record and prints the record's URL.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

CHUNK = 1 << 16


@dataclass
class Request:
    """One request as the server saw it; `sent` counts the bytes of a file that were sent for it."""

    path: str
    range: str | None
    status: int = 0
    sent: int = 0


class RecordServer:
    """A record with some files, to be used as a context manager.

    Its attributes can be changed at any time. Those that are iterators are asked once a request, and an exhausted one
    is no fault: `iter([503, 503])` fails twice, `itertools.repeat(503)` for ever.

    Attributes:
        files: Name to content, or to the path of a file, which is then read piece by piece.
        log: The requests so far.
        statuses: Answer a request with this status and nothing else, hang up for 0; None lets one pass.
        headers: Headers of those, such as `Retry-After`.
        cuts: Cut the connection after so many bytes of a file; None lets one pass.
        stall: Send nothing more of a file after so many bytes, until `resume` is called.
        ignore_range: Answer with the whole file, whatever range was asked for.
        content_range: Send this instead of the right `Content-Range`.
        wrong_md5: List checksums of something else.
        hang: Don't answer at all.
        listing: Send this instead of the listing.
        old_form: List the files in the API's older form.
        base: The links' scheme, host and port.
    """

    def __init__(self, files: Mapping[str, bytes | Path], port: int = 0) -> None:
        self.files = dict(files)
        self.log: list[Request] = []
        self.statuses: Iterator[int | None] = iter(())
        self.headers: dict[str, str] = {}
        self.cuts: Iterator[int | None] = iter(())
        self.stall: int | None = None
        self.ignore_range = self.wrong_md5 = self.hang = self.old_form = False
        self.content_range: str | None = None
        self.listing: bytes | None = None
        self.lock = threading.Lock()
        self._go_on = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"record": self}))
        self._http.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._http.server_port}"
        self.url = f"{self.base}/api/records/1"

    def __enter__(self) -> RecordServer:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.resume()
        self._http.shutdown()
        self._http.server_close()

    @property
    def sent(self) -> int:
        """Bytes of files sent so far."""
        return sum(request.sent for request in self.log)

    def resume(self) -> None:
        """Let stalled and hanging answers go on, and stall no more."""
        self.stall, self.hang = None, False
        self._go_on.set()

    def wait(self) -> None:
        """Return when `resume` is called."""
        self._go_on.wait()

    def make_listing(self) -> bytes:
        """The answer to a request for the record."""
        entries = []
        for name, content in self.files.items():
            md5, size = hashlib.md5(b"something else" if self.wrong_md5 else b""), 0
            for piece in _pieces(content, 0):
                md5.update(piece)
                size += len(piece)
            link = f"{self.base}/api/records/1/files/{quote(name)}"
            if self.old_form:
                links = {"self": link, "download": f"{link}/content"}
                entries.append({"filename": name, "filesize": size, "checksum": md5.hexdigest(), "links": links})
            else:
                links = {"self": f"{link}/content"}
                entries.append({"key": name, "size": size, "checksum": f"md5:{md5.hexdigest()}", "links": links})
        return json.dumps({"id": 1, "metadata": {"title": "A record"}, "files": entries}).encode()


def _pieces(content: bytes | Path, start: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        for at in range(start, len(content), CHUNK):
            yield content[at : at + CHUNK]
        return
    with content.open("rb") as stream:
        stream.seek(start)
        while piece := stream.read(CHUNK):
            yield piece


class _Handler(BaseHTTPRequestHandler):
    record: RecordServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client went away
            super().handle()

    def do_GET(self) -> None:
        record = self.record
        seen = Request(self.path, self.headers["Range"])
        with record.lock:
            record.log.append(seen)
            status = next(record.statuses, None)
        try:
            if record.hang:
                record.wait()
            if record.hang or status == 0:
                self.close_connection = True
            elif status is not None:
                self._answer(seen, status, record.headers)
            else:
                self._serve(seen)
        except OSError:  # the client went away
            self.close_connection = True

    def _answer(self, seen: Request, status: int, headers: Mapping[str, str] | None = None, length: int = 0) -> None:
        seen.status = status
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _serve(self, seen: Request) -> None:
        record = self.record
        path = urlsplit(self.path).path
        if path == "/api/records/1":
            body = record.make_listing() if record.listing is None else record.listing
            self._answer(seen, 200, {"Content-Type": "application/json"}, len(body))
            self.wfile.write(body)
            return
        found = re.fullmatch("/api/records/1/files/([^/]+)/content", path)
        if not found or unquote(found[1]) not in record.files:
            self._answer(seen, 404)
            return
        content = record.files[unquote(found[1])]
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-", seen.range or "")
        start = int(asked[1]) if asked and not record.ignore_range else None
        if start is not None and start >= size:
            self._answer(seen, 416, {"Content-Range": f"bytes */{size}"})
        elif start is not None:
            where = f"bytes {start}-{size - 1}/{size}" if record.content_range is None else record.content_range
            self._answer(seen, 206, {"Content-Range": where}, size - start)
            self._send(seen, content, start)
        else:
            self._answer(seen, 200, {}, size)
            self._send(seen, content, 0)

    def _send(self, seen: Request, content: bytes | Path, start: int) -> None:
        record = self.record
        with record.lock:
            cut = next(record.cuts, None)
        for piece in _pieces(content, start):
            end = len(piece) if cut is None else min(len(piece), cut - seen.sent)
            if record.stall is not None and seen.sent + end >= record.stall:
                first = record.stall - seen.sent
                self._write(seen, piece[:first])
                record.wait()
                piece, end = piece[first:], end - first
            self._write(seen, piece[:end])
            if seen.sent == cut:
                self.close_connection = True
                return

    def _write(self, seen: Request, data: bytes) -> None:
        seen.sent += len(data)  # first, so that a client that has them finds them counted
        try:
            self.wfile.write(data)
        except OSError:
            seen.sent -= len(data)
            raise


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serve every file of a folder as a Zenodo record.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    args = parser.parse_args(argv)
    files = {path.name: path for path in sorted(args.folder.iterdir()) if path.is_file()}
    with RecordServer(files, args.port) as server:
        print(server.url, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
