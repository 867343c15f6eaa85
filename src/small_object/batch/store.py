"""Where an archive's images come from, and where what is found in them goes."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER
from ultralytics.utils.patches import imread

from small_object.errors import UserError
from small_object.files import replacing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

S3 = "s3://"
SUMMARY = b"archive"  # key of a part's metadata

SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        ("class", pa.string()),
        ("class_id", pa.int32()),
        ("score", pa.float32()),
        *((name, pa.float32()) for name in ("x1", "y1", "x2", "y2")),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("width", "height", "tiles_run", "tiles_skipped")),
    ]
)
"""A row a detection, boxes xyxy in pixels of the image; of an image without, one row whose class to y2 are null."""


class UnreadableError(Exception):
    """An image that can't be read; the message says why."""


@functools.lru_cache(maxsize=64)
def _bucket(bucket: str, options: str) -> pa.fs.FileSystem:
    return pa.fs.FileSystem.from_uri(f"{S3}{bucket}{options and '?' + options}")[0]


def _s3(url: str) -> tuple[pa.fs.FileSystem, str]:
    """Return the file system of an S3 URL, with pyarrow's options after a `?`, and the path in it."""
    path, _, options = url.removeprefix(S3).rpartition("?")
    if not path or "=" not in options:  # a `?` in a key
        path, options = url.removeprefix(S3), ""
    return _bucket(path.partition("/")[0], options), path.rstrip("/")


@dataclass(frozen=True)
class Source:
    """The images of an archive: a folder, a list of files and S3 URLs (.txt, one a line), or an S3 prefix.

    Args:
        text: The folder, list or URL, as an absolute path where it is one.

    Raises:
        UserError: If it is none of these.
    """

    text: str

    def __post_init__(self) -> None:
        if "://" in self.text:
            if not self.text.startswith(S3):
                raise UserError(f"--source {self.text}: only folders, lists and {S3} can be read")
        elif not Path(self.text).exists():
            raise UserError(f"--source {self.text}: no such folder, list or {S3} prefix")
        elif Path(self.text).is_file() and Path(self.text).suffix.lower() != ".txt":
            raise UserError(f"--source {self.text}: must be a folder, a .txt with an image a line, or an {S3} prefix")

    def names(self) -> tuple[list[str], dict[str, str]]:
        """Return the images' names, sorted, and those that can't be used, with the reason.

        A name is the path in the folder, with `/`; the line of the list; or the URL without options.

        Raises:
            UserError: If there are none, or the list or prefix can't be read.
        """
        if self.text.startswith(S3):
            found = list(self._keys())
        elif Path(self.text).is_dir():
            found = list(self._files())
        else:
            try:
                lines = Path(self.text).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"--source {self.text}: can't be read as a UTF-8 text: {error}") from error
            found = list({line.strip(): None for line in lines if line.strip()})
        found.sort()
        bad = {name: "its name is not UTF-8; rename it" for name in found if not _utf8(name)}
        names = [name for name in found if name not in bad] if bad else found
        if not found:
            raise UserError(f"--source {self.text}: holds no image ({', '.join(sorted(IMG_FORMATS))})")
        return names, {ascii(name)[1:-1]: reason for name, reason in bad.items()}

    def _files(self) -> Iterator[str]:
        for folder, _, files in os.walk(self.text):
            for name in files:
                if name.rpartition(".")[-1].lower() in IMG_FORMATS:
                    yield Path(folder, name).relative_to(self.text).as_posix()

    def _keys(self) -> Iterator[str]:
        try:
            system, path = _s3(self.text)
            folders = [path]
            while folders:  # a folder at a time: pyarrow can't list in pieces
                for info in system.get_file_info(pa.fs.FileSelector(folders.pop())):
                    if info.type == pa.fs.FileType.Directory:
                        folders.append(info.path)
                    elif info.path.rpartition(".")[-1].lower() in IMG_FORMATS:
                        yield S3 + info.path
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"--source {self.text}: {_one_line(error)}") from error

    def read(self, name: str, flags: int) -> np.ndarray:
        """Return an image as `yolo predict` reads it, (H, W, C), BGR.

        Args:
            name: Its name, see `names`.
            flags: OpenCV's flags for reading.

        Raises:
            UnreadableError: If it can't be read.
        """
        try:
            if self.text.startswith(S3) or name.startswith(S3):
                return self._read_url(name, flags)
            base = Path(self.text)
            return _decode(base / name if base.is_dir() else base.parent / name, flags)
        except FileNotFoundError as error:
            raise UnreadableError("no such file") from error
        except (OSError, pa.ArrowException, cv2.error, MemoryError) as error:
            raise UnreadableError(_one_line(getattr(error, "strerror", None) or error)) from error

    def _read_url(self, url: str, flags: int) -> np.ndarray:
        if self.text.startswith(S3):
            system, path = _s3(self.text)[0], url.removeprefix(S3)
        else:
            system, path = _s3(url)
        with system.open_input_file(path) as stream:
            content = stream.read()
        with tempfile.TemporaryDirectory() as folder:  # upstream's reader goes by a file's name
            file = Path(folder, "image" + PurePosixPath(path).suffix)
            file.write_bytes(content)
            return _decode(file, flags)


def _utf8(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _decode(file: Path, flags: int) -> np.ndarray:
    with file.open("rb") as stream:  # upstream's reader does not say why it can't
        if not stream.read(1):
            raise UnreadableError("empty file")
    image = imread(file, flags)
    if image is None:
        raise UnreadableError("not an image that can be decoded")
    return image


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


@dataclass
class Totals:
    """What some images hold.

    Attributes:
        images: Number of images.
        detections: Number of detections by class name.
        tiles_run: Number of tiles that were run.
        tiles_skipped: Number of tiles that were skipped.
    """

    images: int = 0
    detections: Counter[str] = field(default_factory=Counter)
    tiles_run: int = 0
    tiles_skipped: int = 0

    def add(self, other: Totals) -> None:
        """Count others, too."""
        self.images += other.images
        self.detections.update(other.detections)
        self.tiles_run += other.tiles_run
        self.tiles_skipped += other.tiles_skipped


class Output:
    """The folder, or S3 prefix, that takes what is found: `parts/*.parquet` and some JSON files.

    Args:
        text: Absolute path or S3 URL.

    Raises:
        UserError: If it can't be used.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._system: pa.fs.FileSystem | None = None
        try:
            if "://" in text:
                self._system, self._base = _s3(text)
            elif Path(text).exists() and not Path(text).is_dir():
                raise UserError(f"--out {text}: must be a folder")
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"--out {text}: {_one_line(error)}") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file in one step: whoever reads it sees the old content or the new."""
        if self._system is not None:  # an object appears when its stream is closed
            stream = self._system.open_output_stream(f"{self._base}/{name}")
            stream.write(content)
            stream.close()
            return
        file = Path(self.text, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as new:
            new.write_bytes(content)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, None if there is none."""
        with suppress(FileNotFoundError):
            if self._system is None:
                return Path(self.text, name).read_bytes()
            with self._system.open_input_file(f"{self._base}/{name}") as stream:
                return stream.read()
        return None

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the content of a JSON file, None if there is none, or none that can be read."""
        with suppress(ValueError):
            return json.loads(self.read(name) or b"null")
        return None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file in one step."""
        self.write(name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def _delete(self, name: str) -> None:
        if self._system is None:
            Path(self.text, name).unlink(missing_ok=True)
        else:
            self._system.delete_file(f"{self._base}/{name}")

    @contextmanager
    def lock(self, run: str) -> Iterator[None]:
        """Take the folder for a run.

        The file `run` names the run: `owned_by` asks for it before each part is written, so that what is left of an
        earlier run writes no more. On S3 that is all; on a disk another living process is refused as well.

        Args:
            run: The run's id.

        Raises:
            UserError: If another process writes into the folder.
        """
        held = None
        if self._system is None:
            Path(self.text).mkdir(parents=True, exist_ok=True)
            held = (Path(self.text) / "lock").open("a")
            try:
                if fcntl is not None:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                held.close()
                raise UserError(f"--out {self.text}: another job writes into it now; wait for its end") from error
            except OSError as error:
                LOGGER.warning(f"--out {self.text}: can't be locked ({error}); start no other job on it")
        try:
            self.write("run", run.encode())
            try:
                yield
            finally:
                self.write("run", b"")  # workers of a job that was interrupted may not have ended yet
        finally:
            if held is not None:
                held.close()  # which unlocks it

    def owned_by(self, run: str) -> bool:
        """Return whether the folder is this run's, see `lock`."""
        return self.read("run") == run.encode()

    def parts(self) -> list[str]:
        """Return the names of the Parquet files; what was left half-written is removed."""
        if self._system is None:
            folder = Path(self.text, "parts")
            names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
            for name in names:
                if name.startswith("."):  # of `replacing`, killed
                    (folder / name).unlink(missing_ok=True)
        else:
            selector = pa.fs.FileSelector(f"{self._base}/parts", allow_not_found=True)
            names = sorted(info.base_name for info in self._system.get_file_info(selector))
        return [f"parts/{name}" for name in names if name.endswith(".parquet") and not name.startswith(".")]

    def scan(self) -> tuple[pa.ChunkedArray, Totals]:
        """Return the names of the images in all parts, each as often as parts hold it, and what they hold.

        A part that can't be read is removed, with a warning: its images are no longer done.
        """
        totals, names = Totals(), []
        with ThreadPoolExecutor(8) as pool:
            for name, part in self._read_all(pool):
                if part is None:
                    LOGGER.warning(f"--out {self.text}: {name} is damaged and removed; its images are run again")
                    self._delete(name)
                else:
                    names.append(part[0])
                    totals.add(part[1])
        return pa.chunked_array(names, pa.large_string()), totals

    def _read_all(self, pool: ThreadPoolExecutor) -> Iterable[tuple[str, tuple[pa.Array, Totals] | None]]:
        parts = self.parts()
        return zip(parts, pool.map(self._read_part, parts), strict=True)

    def _read_part(self, name: str) -> tuple[pa.Array, Totals] | None:
        where = f"{self._base}/{name}" if self._system is not None else str(Path(self.text, name))
        try:
            with pq.ParquetFile(where, filesystem=self._system, read_dictionary=["image"]) as file:
                images = file.read(["image"]).column(0).unique().dictionary_decode().cast(pa.large_string())
                summary = json.loads(file.schema_arrow.metadata[SUMMARY])
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError):
            return None
        return images, Totals(len(images), Counter(summary["detections"]), *summary["tiles"])

    def write_part(self, name: str, columns: dict[str, list], totals: Totals) -> None:
        """Write a Parquet file.

        Args:
            name: Its name, without folder and suffix.
            columns: Its columns, see `SCHEMA`.
            totals: What its images hold.
        """
        tiles = totals.tiles_run, totals.tiles_skipped
        summary = {SUMMARY: json.dumps({"detections": totals.detections, "tiles": tiles})}
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, SCHEMA.with_metadata(summary)), buffer)
        self.write(f"parts/{name}.parquet", buffer.getvalue().to_pybytes())
