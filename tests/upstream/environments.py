"""Environments with a version of Ultralytics of their own, and what pytest reports from them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT

ERROR_LINE = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b):? ?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a test: `result` is passed, failed, skipped or crashed; then the exception and its first line."""

    result: str
    kind: str = ""
    message: str = ""

    def agrees(self, other: Outcome) -> bool:
        """Tell whether result and exception are the same; messages may differ by a path or a number."""
        return (self.result, self.kind) == (other.result, other.kind)

    def __str__(self) -> str:
        return " ".join(part for part in (self.result, self.kind and f"`{self.kind}`", self.message[:160]) if part)


def create_environment(folder: Path, version: str) -> Path:
    """Create an environment with a version of Ultralytics, this checkout and otherwise this environment's packages.

    Returns:
        Its Python.
    """
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", f"ultralytics=={version}"]
    subprocess.run(pip, check=True)  # pip also makes the `yolo` command
    # The order matters: the environment's own packages, this checkout, then the shared packages.
    shared = "\n".join(path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"})
    (site / "fork.pth").write_text(f"{ROOT / 'src'}\n{shared}\n", encoding="utf-8")
    overlay = (ROOT / "src/ultralytics_overlay.pth").read_text(encoding="utf-8")
    (site / "ultralytics_overlay.pth").write_text(overlay, encoding="utf-8")
    return python


def read_report(file: Path) -> dict[str, Outcome]:
    """Return the outcomes in a file of `pytest --report-log` by test id, and those of files that can't be collected."""
    outcomes = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("when") == "call" or entry.get("outcome") in {"failed", "skipped"}:
            outcomes[entry["nodeid"]] = read_outcome(entry)
    return outcomes


def read_outcome(entry: dict[str, Any]) -> Outcome:
    """Return the outcome of a test report. For a failed command it names the last error that the command wrote."""
    details = entry["longrepr"]
    if entry["outcome"] == "passed":
        return Outcome("passed")
    if isinstance(details, list):
        return Outcome("skipped", "", details[2].removeprefix("Skipped: "))
    if isinstance(details, str):
        crashed = re.match(r"worker '\w+' crashed", details)
        return Outcome("crashed") if crashed else Outcome("failed", "collection", details.strip().splitlines()[-1])
    message = details["reprcrash"]["message"].partition("\n")[0]
    found = re.match(r"(?:\w+\.)*(\w+)(?:: |$)(.*)", message)
    kind, message = found.groups() if found else ("AssertionError", message)
    written = "\n".join(text for _, text in entry["sections"])
    if kind == "CalledProcessError" and (lines := ERROR_LINE.findall(written)):
        kind, message = f"{kind}: {lines[-1][0]}", lines[-1][1]
    return Outcome(entry["outcome"], kind, message)
