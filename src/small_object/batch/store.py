"""Reads the images of a batch job and stores its results: folders, lists and S3."""

import functools
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER
from ultralytics.utils.patches import read_image

from small_object.coco import detection_rows, encode_rows, image_id
from small_object.errors import UserError, one_line
from small_object.files import make_writable, replacing
from small_object.images import SURROGATE, UnreadableImageError, find_files, read_names, utf8_name

S3 = "s3://"
ESCAPED = re.compile("%([89A-F][0-9A-F])")  # see `readable_name`
TILES = "tiles_run", "tiles_skipped"
CORNERS = "x1", "y1", "x2", "y2"
SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        ("class", pa.string()),
        ("class_id", pa.int32()),
        ("score", pa.float32()),
        *((name, pa.float32()) for name in CORNERS),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("width", "height", *TILES)),
    ]
)
"""One row per detection, boxes xyxy in pixels of the image; without any, one row with null from class to y2."""


@functools.lru_cache(maxsize=64)
def _open_bucket(bucket: str, options: str) -> pa.fs.FileSystem:
    return pa.fs.FileSystem.from_uri(f"{S3}{bucket}{options and '?' + options}")[0]


def open_s3(url: str) -> tuple[pa.fs.FileSystem, str]:
    """Return the file system of an S3 URL, which may have pyarrow's options after a `?`, and the path in it."""
    path, options = _split_url(url)
    return _open_bucket(path.partition("/")[0], options), path.rstrip("/")


def _split_url(url: str) -> tuple[str, str]:
    """Split a URL or file into the path, which starts with the bucket of a URL, and pyarrow's options."""
    path, _, options = url.removeprefix(S3).rpartition("?")
    has_options = url.startswith(S3) and path and "=" in options  # else a `?` in a name
    return (path, options) if has_options else (url.removeprefix(S3), "")


class Source:
    """The images of a batch job: a folder, a list of files and S3 URLs (.txt, one per line), or an S3 prefix.

    The name of an image in the results is its path in the folder, with `/`; its line of the list; or its URL without
    options. Bytes that are not UTF-8 are written as `%XX`.

    Args:
        text: Absolute path of the folder or list, or URL.
    """

    def __init__(self, text: str) -> None:
        self.text, path = text, Path(text)
        self._is_s3, self._is_folder = text.startswith(S3), path.is_dir()
        self._folder = path if self._is_folder else path.parent
        if "://" in text and not self._is_s3:
            raise UserError(f"--source {text}: only folders, lists and {S3} can be read")
        if not self._is_s3 and not path.exists():
            raise UserError(f"--source {text}: no such folder, list or {S3} prefix")
        if not self._is_s3 and not self._is_folder and path.suffix.lower() != ".txt":
            raise UserError(f"--source {text}: must be a folder, a .txt with one image per line, or an {S3} prefix")

    def names(self) -> tuple[list[str], dict[str, str]]:
        """Return the sorted names of the images, and the names that can't be used, with the reason."""
        try:
            if self._is_s3:
                names = list(self._list_s3())
            elif self._is_folder:
                start = len(os.path.join(self.text, ""))  # noqa: PTH118
                names = [file[start:].replace(os.sep, "/") for file in find_files(self.text, IMG_FORMATS)]
            else:
                names = list(dict.fromkeys(read_names(Path(self.text))))
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"--source {self.text}: can't be read: {one_line(error)}") from error
        if not names:
            raise UserError(f"--source {self.text}: holds no image ({', '.join(sorted(IMG_FORMATS))})")
        unusable = {}
        if odd := [name for name in names if SURROGATE.search(name)]:
            stored = set(names).difference(odd)
            for name in odd:
                if (text := utf8_name(name)) in stored:
                    unusable[ascii(name)[1:-1]] = f"would be stored as {text}, the name of another image; rename it"
                stored.add(text)
            names = list(stored)
        names.sort()
        return names, unusable

    def _list_s3(self) -> Iterator[str]:
        system, path = open_s3(self.text)
        folders = [path]
        while folders:  # one at a time, since pyarrow returns a whole listing at once
            for info in system.get_file_info(pa.fs.FileSelector(folders.pop())):
                if info.base_name.startswith("."):  # as of a folder
                    continue
                if info.type == pa.fs.FileType.Directory:
                    folders.append(info.path)
                elif info.path.rpartition(".")[-1].lower() in IMG_FORMATS:
                    yield S3 + info.path

    def read(self, name: str, flags: int) -> np.ndarray:
        """Return an image as `read_image` does, or raise UnreadableImageError."""
        try:
            if not name.startswith(S3):
                return read_image(self._find_file(name), flags)
            system, path = open_s3(self.text if self._is_s3 else name)
            if self._is_s3:
                path = name.removeprefix(S3)
            with tempfile.TemporaryDirectory() as folder:  # upstream's reader depends on a file's name
                file = Path(folder, "image" + PurePosixPath(path).suffix)
                with system.open_input_file(path) as stream:
                    file.write_bytes(stream.read())
                return read_image(file, flags)
        except UnreadableImageError:
            raise
        except (OSError, pa.ArrowException) as error:  # of S3
            raise UnreadableImageError(f"can't be opened: {one_line(error)}") from error

    def _find_file(self, name: str) -> Path:
        file = self._folder / os.fsdecode(name.encode())
        if ESCAPED.search(name) and not file.exists():
            raw = re.sub(ESCAPED.pattern.encode(), lambda match: bytes.fromhex(match[1].decode()), name.encode())
            file = self._folder / os.fsdecode(raw)
        return file


class Output:
    """The folder or S3 prefix of the results: `parts/*.parquet` and some JSON files.

    Args:
        text: Absolute path or S3 URL.
    """

    def __init__(self, text: str) -> None:
        self.text, self._is_s3 = text, "://" in text
        self._system, self._base = pa.fs.LocalFileSystem(), utf8_name(text)
        try:
            if self._is_s3:
                self._system, self._base = open_s3(text)
            elif Path(text).exists() and not Path(text).is_dir():
                raise UserError(f"--out {text}: must be a folder")
            elif ESCAPED.search(self._base) and not ESCAPED.search(text):
                raise UserError(f"--out {text}: its name is not UTF-8; give another")
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"--out {text}: {one_line(error)}") from error

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file chunk by chunk, but in one step: a reader sees the old content or the new."""
        if self._is_s3:
            stream = self._system.open_output_stream(f"{self._base}/{name}")
            for chunk in chunks:
                stream.write(chunk)
            stream.close()  # makes the object appear; a `with` would do so even after a failure
        else:
            file = Path(self.text, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as new, new.open("wb") as stream:
                stream.writelines(chunks)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if there is no such file."""
        with suppress(FileNotFoundError), self._system.open_input_file(f"{self._base}/{name}") as stream:
            return bytes(stream.read())
        return None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file in one step."""
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        self.write(name, [text.encode(errors="backslashreplace")])  # paths that are not UTF-8, as JSON escapes them

    @contextmanager
    def lock(self, run: str) -> Iterator[None]:
        """Lock the folder for a run.

        The file `run` names the run. Workers check it before they write a part, see `is_locked_by`, so the workers of
        an earlier run stop writing. On a disk, but not on S3, a second running process is refused as well.
        """
        with ExitStack() as stack:
            if not self._is_s3:
                make_writable(Path(self.text))
                try:
                    stack.enter_context(FileLock(Path(self.text, "lock")).acquire(timeout=0))
                except Timeout as error:
                    raise UserError(f"--out {self.text}: another job is writing to it; wait until it ends") from error
                except (OSError, NotImplementedError) as error:  # the file system has no locks
                    LOGGER.warning(f"--out {self.text}: can't be locked ({error}); start no other job on it")
            self.write("run", [run.encode()])
            stack.callback(self.write, "run", [b""])  # workers of an interrupted job may still be running
            yield

    def is_locked_by(self, run: str) -> bool:
        """Return whether a run holds the lock."""
        return self.read("run") == run.encode()

    def parts(self) -> list[str]:
        """Return the names of the Parquet files; remove half-written ones of killed processes."""
        selector = pa.fs.FileSelector(f"{self._base}/parts", allow_not_found=True)
        names = sorted(info.base_name for info in self._system.get_file_info(selector))
        for name in names:
            if name.startswith("."):  # see `replacing`
                self._system.delete_file(f"{self._base}/parts/{name}")
        return [f"parts/{name}" for name in names if name.endswith(".parquet") and not name.startswith(".")]

    def scan(self) -> tuple[pa.ChunkedArray, Counter[str], Counter[str]]:
        """Return the content of all parts. A damaged part is removed with a warning, so its images count as not done.

        Returns:
            The names of the images, once per part that holds them; the number of detections by class; and the totals of
            `TILES`.
        """
        images, detections, tiles, names = [], Counter[str](), Counter[str](), self.parts()
        with ThreadPoolExecutor(8) as pool:
            for name, part in zip(names, pool.map(self._read_part, names), strict=True):
                if part is None:
                    LOGGER.warning(f"--out {self.text}: removed the damaged {name}; its images will run again")
                    self._system.delete_file(f"{self._base}/{name}")
                else:
                    images.append(part[0])
                    detections.update(part[1])
                    tiles.update(part[2])
        return pa.chunked_array(images, pa.large_string()), detections, tiles

    def _read_part(self, name: str) -> tuple[pa.Array, dict[str, int], dict[str, int]] | None:
        columns, path = ["image", "class"], f"{self._base}/{name}"
        try:
            with pq.ParquetFile(path, filesystem=self._system, read_dictionary=columns) as file:
                table = file.read([*columns, *TILES]).unify_dictionaries().combine_chunks()
        except pa.ArrowInvalid:
            return None
        if table.num_columns < len(columns) + len(TILES) or not table.num_rows:
            raise UserError(f"--out {self.text}: {name} was not written by a batch job; move it elsewhere")
        image, classes = (table[column].chunk(0) for column in columns)
        first = np.flatnonzero(np.diff(image.indices.to_numpy(), prepend=-1))  # rows of an image follow one another
        detections = {row["values"]: row["counts"] for row in classes.drop_null().value_counts().to_pylist()}
        tiles = {column: int(table[column].to_numpy()[first].sum()) for column in TILES}
        return image.unique().dictionary_decode().cast(pa.large_string()), detections, tiles

    def write_part(self, name: str, columns: dict[str, list[Any]]) -> None:
        """Write a part, with a name without folder and suffix, and the columns of `SCHEMA`."""
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, SCHEMA), buffer)
        self.write(f"parts/{name}.parquet", [buffer.getvalue().to_pybytes()])

    def encode_predictions(self) -> Iterator[bytes]:
        """Yield the detections of all parts as COCO's results in JSON, holding one part in memory at a time.

        `file_name` is an image's name in the source.
        """
        is_first = True
        yield b"["
        for part in self.parts():
            with pq.ParquetFile(f"{self._base}/{part}", filesystem=self._system) as file:
                table = file.read(["image", "class_id", "score", *CORNERS])
            table = table.filter(pc.is_valid(table["score"]))
            images = table["image"].to_pylist()
            columns = {name: torch.tensor(table[name].to_numpy()) for name in table.column_names[1:]}
            names = {name: (image_id(_split_url(name)[0]), name) for name in set(images)}
            boxes = torch.stack([columns[name] for name in CORNERS], 1)
            found = {"bboxes": boxes, "conf": columns["score"], "cls": columns["class_id"]}
            rows = detection_rows(found, [names[name] for name in images])
            yield encode_rows(rows, is_first)
            is_first &= not rows
        yield b"]\n"
