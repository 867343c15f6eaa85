"""Runs upstream's own tests with this fork off and on: python -m tests.upstream.own_tests, or make upstream.

The tests come from the source archive of the installed version, which is downloaded from the package index. Each side
gets an environment of its own, because upstream writes the runs of its tests next to its package. `stand_ins.py` makes
the weights and data sets that most tests need; what else they would download fails on both sides.
A section of docs/compatibility.md is written at the end.
"""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.common import ROOT, commit, markdown_table
from tests.upstream.environments import create_environment, run_tests, write_section

SIDES = {"off": "0", "on": "1"}  # the overlay, and the value of ULTRALYTICS_OVERLAY
LEFT_OUT = "tests/test_cli.py::test_special_modes"  # resets upstream's settings for all tests after it


def fetch(version: str, folder: Path) -> None:
    """Download the source archive of a version of Ultralytics and unpack its tests into `folder`.

    Raises:
        subprocess.CalledProcessError: If the archive can't be downloaded.
    """
    options = ("--no-deps", "--no-binary", "ultralytics", "-d", str(folder))
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", *options]
    subprocess.run([*pip, f"ultralytics=={version}"], check=True)
    with tarfile.open(next(folder.glob("ultralytics-*.tar.gz"))) as archive:
        wanted = [entry for entry in archive if entry.name.startswith(f"ultralytics-{version}/tests/")]
        for entry in wanted:
            entry.name = entry.name.partition("/")[2]
        archive.extractall(folder, wanted, filter="data")


def run_side(side: str, folder: Path, version: str, tests: Sequence[str], limit: float) -> dict[str, str]:
    """Run upstream's tests in a folder with the overlay off or on; return their outcomes by id.

    A test that takes more than `limit` seconds or crashes ends its worker process; pytest-xdist starts another.
    """
    fetch(version, folder)
    python = create_environment(folder / "env", version)
    environment = {
        "ULTRALYTICS_OVERLAY": SIDES[side],
        "YOLO_CONFIG_DIR": str(folder / "config"),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "OMP_NUM_THREADS": "1",  # both sides run at the same time
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",  # for the command `yolo`
    }
    stand_ins = [python, ROOT / "tests/upstream/stand_ins.py", folder]
    subprocess.run(stand_ins, cwd=folder, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n", encoding="utf-8")
    options = ["-c", "pytest.ini", "-n", "1", "--timeout-method=thread", f"--timeout={limit}"]
    options += [f"--basetemp={folder / 'tmp'}", f"--deselect={LEFT_OUT}", "-k", " or ".join(tests), "tests"]
    return run_tests([python, *options], folder, folder / "report.jsonl", **environment)


def differing(off: dict[str, str], on: dict[str, str]) -> list[str]:
    """Return the ids of the tests whose outcomes differ."""
    return [test for test in {**off, **on} if off.get(test) != on.get(test)]


def document(off: dict[str, str], on: dict[str, str], version: str) -> str:
    """Return the text of the section."""
    different = differing(off, on)
    counts = Counter(outcome.partition(":")[0] for test, outcome in off.items() if test not in different)
    rows = [[f"`{test}`", str(off.get(test)), str(on.get(test))] for test in different]
    failed = Counter(off[test] for test in off.keys() - different if off[test].startswith("failed"))
    lines = markdown_table(["test", "overlay off", "overlay on"], rows) if rows else []
    lines += ["", "Failures on both sides:", "", *(f"- {kind}: {count}" for kind, count in sorted(failed.items()))]
    text = "\n".join(lines)
    return f"""\
`make upstream` ran the tests of Ultralytics {version} with this fork off and on (commit {commit()}, Python
{platform.python_version()}, torch {torch.__version__}), offline, with untrained weights and synthetic data sets. Tests
that need more, a GPU or a package that is not installed fail or are skipped. Two outcomes are the same if the result
and the kind of exception agree. `{LEFT_OUT}` is not run.

On both sides {counts["passed"]} passed, {counts["failed"]} failed, {counts["skipped"]} were skipped;
{len(different)} differ.

{text.strip()}
"""


def main(argv: list[str] | None = None) -> int:
    """Compare both sides; return 1 if a test differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tests", nargs="+", default=[], metavar="NAME", help="only tests with this in their name")
    parser.add_argument("--limit", type=float, default=180, metavar="SECONDS", help="time that a test may take")
    args = parser.parse_args(argv)
    version = importlib.metadata.version("ultralytics")
    with tempfile.TemporaryDirectory(prefix="upstream-") as folder, ThreadPoolExecutor(len(SIDES)) as pool:
        places = [Path(folder).resolve() / side for side in SIDES]
        try:
            off, on = pool.map(lambda s, place: run_side(s, place, version, args.tests, args.limit), SIDES, places)
        except subprocess.CalledProcessError as error:
            reason = "the package index must be reachable" if "pip" in error.cmd else "see above"
            sys.exit(f"own_tests: {' '.join(map(str, error.cmd))} failed; {reason}")
    write_section("Upstream's own tests", document(off, on, version))
    different = differing(off, on)
    for test in different:
        print(f"differs: {test}; to see whether it does so again: --tests NAME")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
