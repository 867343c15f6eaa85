"""Runs a function on many items in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from multiprocessing.pool import ThreadPool
from typing import TypeVar

from ultralytics.utils import TQDM

T = TypeVar("T")
R = TypeVar("R")


def map_threads(function: Callable[[T], R], items: Collection[T], desc: str) -> Iterator[R]:
    """Call a function for each item in one thread per CPU, and yield the results in the items' order.

    Threads are enough for what waits for files or decodes images: neither holds Python's lock. A progress bar shows
    `desc`. The first exception that the function raises is raised.
    """
    with ThreadPool(os.cpu_count()) as pool:
        yield from TQDM(pool.imap(function, items), desc=desc, total=len(items), unit="image", leave=False)
