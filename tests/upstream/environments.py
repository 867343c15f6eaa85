"""Environments with a version of Ultralytics of their own, and the outcomes of tests that run in them."""

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.common import ROOT
from small_object.files import write_file

DOCUMENT = ROOT / "docs/compatibility.md"
OPTIONS = ("-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", "--tb=short")


def create_environment(folder: Path, version: str) -> Path:
    """Create an environment with a version of Ultralytics, this checkout and otherwise this environment's packages.

    Returns:
        Its Python.
    """
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = next(folder.rglob("site-packages"))
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", f"ultralytics=={version}"]
    subprocess.run(pip, check=True)  # pip also makes the `yolo` command
    # The order matters: the environment's own packages, this checkout, then the shared packages.
    shared = "\n".join(path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"})
    (site / "fork.pth").write_text(f"{ROOT / 'src'}\n{shared}\n", encoding="utf-8")
    overlay = (ROOT / "src/ultralytics_overlay.pth").read_text(encoding="utf-8")
    (site / "ultralytics_overlay.pth").write_text(overlay, encoding="utf-8")
    return python


def run_tests(command: list[str | Path], folder: Path, report: Path, **environment: str) -> dict[str, str]:
    """Run pytest in a folder, with its log next to the report; return the outcomes by test id."""
    log, env = report.with_suffix(".txt"), os.environ | environment
    with log.open("w", encoding="utf-8") as file:
        pytest = [command[0], "-m", "pytest", *OPTIONS, f"--report-log={report}", *command[1:]]
        subprocess.run(pytest, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False)
    if not report.is_file():
        sys.exit(f"pytest did not start: {log.read_text(encoding='utf-8')}")
    outcomes = {}
    for line in report.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("when") == "call" or entry.get("outcome") in {"failed", "skipped"}:
            outcomes[entry["nodeid"]] = describe(entry["outcome"], entry["longrepr"])
    return outcomes


def write_section(title: str, text: str) -> None:
    """Replace a section of docs/compatibility.md."""
    old = DOCUMENT.read_text(encoding="utf-8")
    new = re.sub(rf"(?ms)^## {title}\n.*?(?=^## |\Z)", lambda _: f"## {title}\n\n{text.strip()}\n\n", old)
    write_file(DOCUMENT, f"{new.rstrip()}\n")
    print(f"written: {DOCUMENT}")


def describe(outcome: str, details: dict | list | str | None) -> str:
    """Return passed, skipped, or failed with the kind of exception."""
    if outcome != "failed":
        return outcome
    message = details["reprcrash"]["message"] if isinstance(details, dict) else str(details)
    kinds = re.findall(r"\b[A-Z]\w*(?:Error|Exception)\b|\bcrashed\b", message)
    return f"failed: {kinds[0] if isinstance(details, dict) else kinds[-1]}" if kinds else "failed"
