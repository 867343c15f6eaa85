"""Writes files in one step."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from small_object.errors import UserError


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a path to write to. At the end it replaces a file, which need not exist; after a failure it is removed.

    A reader of the file sees the old content or the new, never a part.
    """
    new = file.with_name(f".{os.getpid()}-{file.name}")  # the suffix stays, since some writers depend on it
    try:
        yield new
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def write_file(file: Path, content: str | bytes) -> None:
    """Write a file in one step, text in UTF-8; create its folder if it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as new:
        new.write_bytes(content.encode() if isinstance(content, str) else content)


def default_folder(command: str, source: str | Path) -> Path:
    """Return `runs/COMMAND/NAME` for results on a data YAML or images; `data.yaml` and `*.jpg` go by their folder."""
    path = Path(source).absolute()
    return Path("runs", command, path.parent.name if path.stem in {"data", "*"} else path.stem)


def make_writable(folder: Path) -> None:
    """Make a folder for results if it is missing.

    Raises:
        UserError: If it can't be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: can't be written: {error.strerror}") from error


@contextmanager
def staging_dir(root: Path) -> Iterator[Path]:
    """Yield a folder inside `root` to build in. Remove it afterwards, and any that killed processes left."""
    import psutil  # here, so that importing a model needs no more packages than upstream

    for old in root.glob(".staging-*"):
        pid = old.name.rpartition("-")[2]
        if not pid.isdecimal() or not psutil.pid_exists(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    made = root / f".staging-{os.getpid()}"
    shutil.rmtree(made, ignore_errors=True)  # an earlier process may have had this number
    made.mkdir(parents=True)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def cut_results(file: Path, epochs: int) -> None:
    """Keep only the complete rows of the first epochs in a `results.csv`."""
    if not file.exists():
        return
    header, *rows = file.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [row for row in rows if row.endswith("\n") and row.count(",") == header.count(",")]
    kept = [row for row in whole if int(float(row.partition(",")[0])) <= epochs]
    if len(kept) < len(rows):
        write_file(file, "".join([header, *kept]))
