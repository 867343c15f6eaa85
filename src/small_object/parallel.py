"""Runs a function on many items in threads, or on the next items ahead of time."""

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from ultralytics.utils import TQDM

T = TypeVar("T")
R = TypeVar("R")


def map_threads(function: Callable[[T], R], items: Collection[T], desc: str) -> Iterator[R]:
    """Call a function for each item in one thread per CPU; yield the results in the items' order.

    Threads are enough for reading files and decoding images, which don't hold Python's lock. A progress bar shows
    `desc`. The first exception of the function is raised. After it, or when the caller stops, no thread is left that
    still runs the function.
    """
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield from TQDM(pool.map(function, items), desc=desc, total=len(items), unit="image", leave=False)
    finally:
        pool.shutdown(cancel_futures=True)


class ReadAhead(Generic[R]):
    """A function of a file and options, whose results threads can prepare while the caller is busy."""

    def __init__(self, function: Callable[..., R], threads: int = 1) -> None:
        self._function, self._pool = function, ThreadPoolExecutor(threads)
        self._coming: dict[tuple[Any, ...], Future[R]] = {}

    def start(self, file: str, **options: Any) -> None:
        """Start to prepare the result for a file, which `__call__` returns once, unless that has started."""
        key = (file, *sorted(options.items()))
        self._coming[key] = self._coming.get(key) or self._pool.submit(self._function, file, **options)

    def __call__(self, file: str, **options: Any) -> R:
        """Return the result for a file."""
        coming = self._coming.pop((file, *sorted(options.items())), None)
        if coming is None or coming.cancel():  # not started, perhaps since a fork left the threads behind
            return self._function(file, **options)
        return coming.result()

    def clear(self) -> None:
        """Forget all prepared results."""
        for coming in self._coming.values():
            coming.cancel()
        self._coming.clear()
