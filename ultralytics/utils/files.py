"""Writes files in one step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a path beside a file to write to, which takes the file's place at the end, or is gone after a failure.

    Args:
        file: The file, there or not. Whoever reads it sees the old content or the new, never a part.

    Example:
        >>> with replacing(Path("results.csv")) as new:
        ...     written = new.write_text("...")
    """
    new = file.with_name(f".{os.getpid()}-{file.name}")  # the suffix stays: some writers go by it
    try:
        yield new
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
