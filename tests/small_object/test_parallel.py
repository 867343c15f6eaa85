"""Functions on many items in threads: results in order, the first error is raised."""

import os
import threading
import time

import pytest

from small_object.parallel import ReadAhead, map_threads


def test_results_come_in_order_from_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    together = threading.Barrier(2, timeout=10)

    def square(number: int) -> int:
        together.wait()
        return number**2

    assert list(map_threads(square, range(6), "squares")) == [0, 1, 4, 9, 16, 25]


def test_no_thread_runs_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    running = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            running.wait(10)
            raise ValueError("first")
        running.set()
        time.sleep(0.2)
        running.clear()

    with pytest.raises(ValueError, match="first"):
        list(map_threads(work, range(9), "work"))
    assert not running.is_set()


def test_what_is_read_ahead_is_used_once() -> None:
    calls: list[str] = []
    read = ReadAhead(lambda file, flags: calls.append(file) or f"{file}{flags}{len(calls)}")
    for _ in range(2):  # the second time changes nothing
        read.start("a", flags=1)
    assert read("a", flags=1) == "a11" and calls == ["a"]
    assert read("a", flags=1) == "a12" and read("b", flags=2) == "b23"
    read.start("c", flags=1)
    assert read("c", flags=2).startswith("c2")  # not what was prepared
    read.clear()
    assert read("c", flags=1).startswith("c1") and calls.count("c") in {2, 3}
    failing = ReadAhead(int)
    failing.start("x")
    with pytest.raises(ValueError, match="'x'"):
        failing("x")


def test_the_caller_reads_what_no_thread_has_started() -> None:
    """So it waits for no thread that a fork left behind."""
    hold, read = threading.Event(), ReadAhead(lambda file: file == "first" and hold.wait(10))
    read.start("first")
    read.start("second")
    assert read("second") is False
    hold.set()
    assert read("first")
