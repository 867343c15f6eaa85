"""Runs a function on many items in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from multiprocessing.pool import ThreadPool
from typing import TypeVar

from ultralytics.utils import TQDM

T = TypeVar("T")
R = TypeVar("R")


def map_threads(
    function: Callable[[T], R], items: Collection[T], desc: str, unit: str = "image", threads: int | None = None
) -> Iterator[R]:
    """Call a function for each item in threads, with a progress bar, and yield the results in the items' order.

    Threads are enough for what waits for files or decodes images: neither holds Python's lock.

    Args:
        function: Takes an item.
        items: The items.
        desc: What the progress bar says.
        unit: What the progress bar counts.
        threads: Number of threads, one per CPU by default.

    Raises:
        Exception: The first that the function raises.
    """
    with ThreadPool(threads or os.cpu_count()) as pool:
        yield from TQDM(pool.imap(function, items), desc=desc, total=len(items), unit=unit, leave=False)
