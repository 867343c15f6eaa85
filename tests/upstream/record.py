"""A pytest plugin for upstream's tests: writes a line of JSON when a test starts and one when it has an outcome.

A report that pytest writes at the end of a run, such as JUnit's, is lost when a test hangs or takes the process down.
`upstream_tests.py` puts this file beside the tests and names the file to write to in UPSTREAM_RECORD.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ERROR_LINE = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b):? ?(.*)$", re.MULTILINE)


def record(**line: str) -> None:
    """Append a line to the record."""
    with Path(os.environ["UPSTREAM_RECORD"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def reason(error: BaseException, report: pytest.TestReport) -> tuple[str, str]:
    """Return the kind of an exception and the first line of what it says.

    For a command that failed they are those of the command: the last error that it wrote.
    """
    kind, said = type(error).__name__, str(error).strip().partition("\n")[0]
    if kind == "CalledProcessError" and (lines := ERROR_LINE.findall(report.capstderr + report.capstdout)):
        return f"{kind}: {lines[-1][0]}", lines[-1][1]
    return kind, said


def pytest_runtest_logstart(nodeid: str) -> None:
    """Record that a test starts."""
    record(test=nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo
) -> Iterator[None]:  # yields once, as pytest's wrappers do
    """Record what became of a test: of its call, or of what was set up for it or taken down after it."""
    report = yield
    if report.skipped:
        said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        record(test=item.nodeid, outcome="skipped", kind="", said=said.removeprefix("Skipped: "))
    elif report.failed:
        kind, said = reason(call.excinfo.value, report)
        record(test=item.nodeid, outcome="failed" if report.when == "call" else "error", kind=kind, said=said)
    elif report.when == "call":
        record(test=item.nodeid, outcome="passed", kind="", said="")
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Record a file whose tests can't be collected."""
    if report.failed:
        last = str(report.longrepr).strip().splitlines()[-1]
        record(test=report.nodeid, outcome="error", kind="in collection", said=last.removeprefix("E").strip())
