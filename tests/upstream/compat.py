"""Runs the contract tests with the pinned and the newest Ultralytics: python -m tests.upstream.compat, or make compat.

Each version gets an environment of its own, which shares all other packages with this one; they are downloaded from the
package index. docs/compatibility.md is written at the end.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from packaging.specifiers import SpecifierSet

from benchmarks.common import ROOT, commit, markdown_table, write_text
from tests.upstream.environments import create_environment, read_report

DOCUMENT = ROOT / "docs/compatibility.md"
# The tests of every patch, and those that compare stock models with the overlay on and off.
CONTRACT = ("tests/ultralytics", "tests/upstream/test_replaced.py", "tests/upstream/test_stock.py")
COLUMNS = ("version", "passed", "failed", "skipped", "seconds of tests", "what failed")


def supported_versions() -> SpecifierSet:
    """Return the supported versions of Ultralytics as this project's metadata states them."""
    requirements = importlib.metadata.requires("small-object-detection") or []
    return SpecifierSet(next(r for r in requirements if r.startswith("ultralytics")).removeprefix("ultralytics"))


def pinned_version() -> str:
    """Return the version in requirements.txt."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return re.search(r"^ultralytics==(\S+)", text, re.M)[1]


def newest_version() -> str:
    """Return the newest supported version on the package index."""
    command = [sys.executable, "-m", "pip", "index", "versions", "ultralytics", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    versions = re.search(r"^Available versions: (.*)$", listed, re.M)[1].split(", ")  # the newest first
    return next(version for version in versions if version in supported_versions())


def try_version(version: str, tests: list[str]) -> dict[str, str]:
    """Run the contract tests with one version; return its row of the table."""
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        python, report = create_environment(Path(folder) / "env", version), Path(folder) / "report.jsonl"
        start = time.monotonic()
        options = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--report-log={report}"]
        subprocess.run([python, "-m", "pytest", *options, *tests], cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        outcomes = read_report(report)
    counts = Counter(outcome.result for outcome in outcomes.values())
    failed = [
        f"`{test}`: {outcome}" for test, outcome in outcomes.items() if outcome.result not in {"passed", "skipped"}
    ]
    numbers = counts["passed"], len(failed), counts["skipped"], round(time.monotonic() - start)
    return dict(zip(COLUMNS, (version, *map(str, numbers), "; ".join(failed) or "nothing"), strict=True))


def document(rows: list[dict[str, str]], command: str) -> str:
    """Return the text of docs/compatibility.md."""
    table = "\n".join(markdown_table(COLUMNS, [list(row.values()) for row in rows]))
    about = f"commit {commit()}, Python {platform.python_version()}, torch {torch.__version__}"
    return f"""\
# Compatibility

Ultralytics `{supported_versions()}` is supported, and nothing older. `{command}` wrote this page ({about}).
It runs the tests of every patch, each version in an environment of its own.

{table}

With an unsupported version, or one in which a patched name has moved, an import ends with one line that names it; see
[Upgrading Ultralytics](upgrading.md).
"""


def main(argv: list[str] | None = None) -> int:
    """Try the versions; return 1 if a test failed with one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--versions", nargs="+", metavar="VERSION", help="default: the pinned and the newest one")
    parser.add_argument("--tests", nargs="+", default=CONTRACT, metavar="PATH", help="tests to run")
    args = parser.parse_args(argv)
    rows = []
    try:
        for version in args.versions or dict.fromkeys([pinned_version(), newest_version()]):
            rows.append(try_version(version, list(args.tests)))
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"compat: {' '.join(map(str, error.cmd))} failed; the package index must be reachable")
    write_text(DOCUMENT, document(rows, "make compat" if argv is None else "python -m tests.upstream.compat"))
    print(f"written: {DOCUMENT}")
    return int(any(row["failed"] != "0" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
