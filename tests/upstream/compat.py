"""Runs the contract tests with the pinned and the newest Ultralytics: python -m tests.upstream.compat, or make compat.

Each version gets an environment of its own, which shares all other packages with this one; they are downloaded from the
package index. A section of docs/compatibility.md is written at the end.
"""

import argparse
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from packaging.specifiers import SpecifierSet

from benchmarks.common import ROOT, markdown_table
from tests.upstream.environments import create_environment, run_tests, write_section

# The tests of every patch, and those that compare stock models with the overlay on and off.
CONTRACT = ("tests/ultralytics", "tests/upstream/test_replaced.py", "tests/upstream/test_stock.py")
COLUMNS = ("version", "passed", "failed", "skipped", "what failed")


def supported_versions() -> SpecifierSet:
    """Return the supported versions of Ultralytics as this project's metadata states them."""
    requirements = importlib.metadata.requires("small-object-detection") or []
    return SpecifierSet(next(r for r in requirements if r.startswith("ultralytics")).removeprefix("ultralytics"))


def newest_version() -> str:
    """Return the newest supported version on the package index."""
    command = [sys.executable, "-m", "pip", "index", "versions", "ultralytics", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    versions = re.search(r"^Available versions: (.*)$", listed, re.M)[1].split(", ")  # the newest first
    return next(version for version in versions if version in supported_versions())


def try_version(version: str, tests: list[str]) -> list[str]:
    """Run the contract tests with one version; return its row of the table."""
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        python = create_environment(Path(folder) / "env", version)
        outcomes = run_tests([python, *tests], ROOT, Path(folder) / "report.jsonl")
    counts = Counter(outcome.partition(":")[0] for outcome in outcomes.values())
    failed = [f"`{test}`: {outcome}" for test, outcome in outcomes.items() if outcome.startswith("failed")]
    return [version, *(str(counts[name]) for name in COLUMNS[1:4]), "; ".join(failed) or "nothing"]


def main(argv: list[str] | None = None) -> int:
    """Try the versions and write the document; return 1 if a test failed with one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--versions", nargs="+", metavar="VERSION", help="default: the pinned and the newest one")
    parser.add_argument("--tests", nargs="+", default=CONTRACT, metavar="PATH", help="tests to run")
    args = parser.parse_args(argv)
    try:
        pinned = re.search(r"^ultralytics==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M)[1]
        versions = args.versions or dict.fromkeys([pinned, newest_version()])
        rows = [try_version(version, list(args.tests)) for version in versions]
    except subprocess.CalledProcessError as error:
        sys.exit(f"compat: {' '.join(map(str, error.cmd))} failed; the package index must be reachable")
    table = "\n".join(markdown_table(COLUMNS, rows))
    text = f"""\
Ultralytics `{supported_versions()}` is supported. `make compat` tests every patch, each version in an
environment of its own.

{table}
"""
    print(table)
    write_section("Tests of every patch", text)
    return int(any(row[2] != "0" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
