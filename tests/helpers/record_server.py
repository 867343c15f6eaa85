"""A local server that stands in for a Zenodo record, and for a mirror of one."""

import hashlib
import json
import threading
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote


class RecordServer:
    """A record with some files, to be used as a context manager.

    Attributes:
        files: Content by name.
        url: Address of the mirror, for `ASS_RECORD_URL`.
        api: Address of Zenodo's REST API of records, in which the record has the number 10969885.
        log: The paths that were asked for.
        cuts: How many answers with a file break off half-way.
        wrong_md5: List checksums of something else.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.log: list[str] = []
        self.cuts = 0
        self.wrong_md5 = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._http.daemon_threads = True
        base = f"http://127.0.0.1:{self._http.server_port}"
        self.url, self.api = f"{base}/files/", f"{base}/records"

    def __enter__(self) -> "RecordServer":
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str) -> bytes | None:
        """Return the content at a path."""
        self.log.append(path)
        md5 = {n: "md5:" + hashlib.md5(b"" if self.wrong_md5 else data).hexdigest() for n, data in self.files.items()}
        if path == "/records/10969885":
            files = [{"key": n, "checksum": md5[n], "links": {"self": self.url + quote(n)}} for n in self.files]
            return json.dumps({"id": 10969885, "files": files}).encode()
        if path == "/files/registry.txt":
            return "".join(f'"{name}" {value}\n' for name, value in md5.items()).encode()
        return self.files.get(path.removeprefix("/files/"))


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, record: RecordServer, *args: object) -> None:
        self.record = record
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        data = self.record.answer(unquote(self.path))
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        cut = self.record.cuts > 0 and self.path.endswith(".zip")
        self.record.cuts -= cut
        with suppress(OSError):  # the client went away
            self.wfile.write((data or b"")[: len(data or b"") // 2 if cut else None])
