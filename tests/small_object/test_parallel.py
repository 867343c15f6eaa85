"""Functions on many items in threads: results in order, the first error is raised."""

import os
import threading

import pytest

from small_object.parallel import map_threads


def test_results_come_in_order_from_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    together = threading.Barrier(2, timeout=10)

    def square(number: int) -> int:
        together.wait()
        return number**2

    assert list(map_threads(square, range(6), "squares")) == [0, 1, 4, 9, 16, 25]
