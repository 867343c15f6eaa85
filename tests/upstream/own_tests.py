"""Runs upstream's own tests with this fork off and on: python -m tests.upstream.own_tests, or make upstream.

The tests come from the source archive of the installed version, which is downloaded from the package index. Each side
gets an environment of its own, because upstream writes the runs of its tests next to its package. Weights, data sets
and videos that the tests would download are replaced by stand-ins (`stand_ins.py`), so most tests run offline.
docs/upstream_tests.md is written at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.common import ROOT, commit, markdown_table, write_text
from tests.upstream.environments import Outcome, create_environment, read_report

DOCUMENT = ROOT / "docs/upstream_tests.md"
SIDES = {"off": "0", "on": "1"}  # the overlay, and the value of ULTRALYTICS_OVERLAY
# Tests that are not run, by the beginning of their ids, and why.
LEFT_OUT = {"tests/test_python.py::test_data_annotator": "takes minutes: the untrained model gives SAM 300 boxes"}
# Tests whose outcome differs because this fork means it to, and why.
EXPECTED: dict[str, str] = {}
REPORT = "report.jsonl"
CONFTEST = """
def pytest_collection_modifyitems(items):  # this test resets upstream's settings for all tests after it
    items.sort(key=lambda item: item.nodeid == "tests/test_cli.py::test_special_modes")
"""


def fetch(version: str, folder: Path) -> Path:
    """Download the source archive of a version of Ultralytics and unpack its tests; return their folder.

    Raises:
        subprocess.CalledProcessError: If the archive can't be downloaded.
    """
    options = ("--no-deps", "--no-binary", "ultralytics", "-d", str(folder))
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", *options]
    subprocess.run([*pip, f"ultralytics=={version}"], check=True)
    with tarfile.open(next(folder.glob("ultralytics-*.tar.gz"))) as archive:
        wanted = [entry for entry in archive if entry.name.startswith(f"ultralytics-{version}/tests/")]
        archive.extractall(folder, wanted, filter="data")
    return folder / f"ultralytics-{version}" / "tests"


def side_python(folder: Path) -> Path:
    """Return the Python of the environment in a side's folder."""
    return folder / ("env/Scripts/python.exe" if os.name == "nt" else "env/bin/python")


def variables(folder: Path, side: str) -> dict[str, str]:
    """Return the environment variables of a run in `folder` with the overlay off or on."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith(("PYTEST_", "YOLO_"))}
    return kept | {
        "ULTRALYTICS_OVERLAY": SIDES[side],
        "YOLO_CONFIG_DIR": str(folder / "config"),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "TORCH_HOME": str(folder / "torch"),
        "OMP_NUM_THREADS": "1",  # both sides run at the same time
        "PATH": f"{side_python(folder).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # for the command `yolo`
    }


def prepare(folder: Path, tests: Path) -> None:
    """Make in `folder` what the tests need: themselves and the stand-ins."""
    shutil.copytree(tests, folder / "tests")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n", encoding="utf-8")
    (folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    command = [sys.executable, str(ROOT / "tests/upstream/stand_ins.py"), str(folder)]
    subprocess.run(command, env=variables(folder, "off"), cwd=folder, check=True, stdout=subprocess.DEVNULL)


def prepare_side(prepared: Path, folder: Path, side: str, version: str) -> None:
    """Copy what was prepared, add an environment, and point upstream's settings at the copy."""
    shutil.copytree(prepared, folder)
    create_environment(folder / "env", version)
    settings = [f"{name}_dir={folder / name}" for name in ("weights", "datasets", "runs")]
    code = "from ultralytics.cfg import entrypoint; entrypoint()"
    command = [str(side_python(folder)), "-c", code, "settings", *settings]
    subprocess.run(command, env=variables(folder, side), cwd=folder, check=True, stdout=subprocess.DEVNULL)


def is_overlay_active(folder: Path, side: str) -> bool:
    """Tell whether a Python in `folder` imports this fork's files."""
    code = "import sys; sys.exit(not any(type(finder).__name__ == 'OverlayFinder' for finder in sys.meta_path))"
    command = [str(side_python(folder)), "-c", code]
    return subprocess.run(command, env=variables(folder, side), cwd=folder, check=False).returncode == 0


def pytest_command(folder: Path, tests: Sequence[str], limit: float) -> list[str]:
    """Return the command that runs the tests in a side's folder.

    A test that takes more than `limit` seconds or crashes ends its worker process; pytest-xdist starts another.
    """
    options = "-c pytest.ini -q -p no:cacheprovider -n 1 --continue-on-collection-errors --tb=short"
    command = [str(side_python(folder)), "-m", "pytest", *options.split(), "--timeout-method=thread"]
    command += [f"--timeout={limit}", f"--basetemp={folder / 'tmp'}", f"--report-log={folder / REPORT}"]
    command += [f"--deselect={test}" for test in LEFT_OUT]
    return [*command, *(["-k", " or ".join(tests)] if tests else []), "tests"]


def run_side(tests: Sequence[str], folder: Path, side: str, limit: float) -> dict[str, Outcome]:
    """Run upstream's tests in a side's folder; return their outcomes by id."""
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            pytest_command(folder, tests, limit), env=variables(folder, side), cwd=folder, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait()
        finally:  # also end what the tests started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if not (folder / REPORT).is_file():
        sys.exit(f"own_tests: pytest did not start: {(folder / 'log.txt').read_text(encoding='utf-8')}")
    outcomes = read_report(folder / REPORT)
    for test, outcome in outcomes.items():
        message = re.sub(r"/\S*/(?=[^/\s]+)", ".../", outcome.message.replace(str(folder), "..."))
        outcomes[test] = Outcome(outcome.result, outcome.kind, message)
    return outcomes


def differing(off: Mapping[str, Outcome], on: Mapping[str, Outcome]) -> list[str]:
    """Return the ids of the tests whose outcomes don't agree."""
    absent = Outcome("not found")
    return [test for test in {**off, **on} if not off.get(test, absent).agrees(on.get(test, absent))]


def short_names(tests: Iterable[str]) -> str:
    """Return the names of test functions, each with the number of its cases if it has several."""
    counts = Counter(test.partition("::")[2].partition("[")[0] for test in tests)
    return ", ".join(f"`{name}`" + (f" ({count})" if count > 1 else "") for name, count in counts.items())


def section(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a section of the document with a table."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return f"\n## {title}\n\n" + ("\n".join(markdown_table(header, cells)) if rows else "None.") + "\n"


def document(off: Mapping[str, Outcome], on: Mapping[str, Outcome], command: str, version: str) -> str:
    """Return the text of docs/upstream_tests.md."""
    different = differing(off, on)
    groups: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for test in off.keys() - set(different):
        groups[off[test].result if off[test].result in groups else "failed"].append(test)
    groups = {name: sorted(tests) for name, tests in groups.items()} | {"different": different}
    files = sorted({test.partition("::")[0] for test in off})
    counts = [
        [file, *(sum(t.partition("::")[0] == file for t in tests) for tests in groups.values())] for file in files
    ]
    counts.append(["all", *map(len, groups.values())])
    reasons: dict[str, list[str]] = {}
    for test in groups["skipped"]:
        reasons.setdefault(off[test].message, []).append(test)
    about = f"commit {commit()}, Python {platform.python_version()}, torch {torch.__version__}"
    head = ["test", "overlay off", "overlay on", "reason"]
    return f"""\
# Upstream's own tests

The tests of Ultralytics {version}, from its source archive, with this fork's overlay off and on. `{command}`
wrote this page ({about}). It runs the tests offline in two copies of one folder.
Untrained weights and synthetic data sets and videos replace what the tests would download. A test that needs trained
weights, or a package that is not installed, fails on both sides. Two outcomes are the same if the result and the kind
of exception agree.
""" + "".join((
        section("Counts", ["file", "passed on both", "failed on both", "skipped on both", "different"], counts),
        section("Differences", head, [[f"`{t}`", off.get(t), on.get(t), EXPECTED.get(t, "none")] for t in different]),
        section("Failed on both sides", ["test", "outcome"], [[f"`{test}`", off[test]] for test in groups["failed"]]),
        section("Skipped on both sides", ["reason", "tests"], [[r, short_names(t)] for r, t in reasons.items()]),
        section("Not run", ["test", "reason"], [[f"`{test}`", reason] for test, reason in LEFT_OUT.items()]),
    ))  # fmt: skip


def compare(folder: Path, version: str, tests: Sequence[str], limit: float) -> list[dict[str, Outcome]]:
    """Run the tests on both sides at the same time; return the outcomes of each side by test id."""
    prepare(folder / "prepared", fetch(version, folder))
    for side in SIDES:
        prepare_side(folder / "prepared", folder / side, side, version)
    if [is_overlay_active(folder / side, side) for side in SIDES] != [False, True]:
        sys.exit("own_tests: ULTRALYTICS_OVERLAY does not switch this fork; install it: pip install -e .")
    with ThreadPoolExecutor(len(SIDES)) as pool:
        return list(pool.map(lambda side: run_side(tests, folder / side, side, limit), SIDES))


def main(argv: list[str] | None = None) -> int:
    """Compare both sides; return 1 if a test differs for no stated reason."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tests", nargs="+", default=[], metavar="NAME", help="only tests with this in their name")
    parser.add_argument("--limit", type=float, default=180, metavar="SECONDS", help="time that a test may take")
    args = parser.parse_args(argv)
    version = importlib.metadata.version("ultralytics")
    try:
        with tempfile.TemporaryDirectory(prefix="upstream-") as folder:
            off, on = compare(Path(folder).resolve(), version, args.tests, args.limit)
    except subprocess.CalledProcessError as error:
        reason = "the package index must be reachable" if "download" in error.cmd else "see above"
        sys.exit(f"own_tests: {' '.join(map(str, error.cmd))} failed; {reason}")
    command = " ".join(["python -m tests.upstream.own_tests", *(["--tests", *args.tests] if args.tests else [])])
    write_text(DOCUMENT, document(off, on, command if args.tests else "make upstream", version))
    print(f"written: {DOCUMENT}")
    unexplained = [test for test in differing(off, on) if test not in EXPECTED]
    for test in unexplained:
        print(f"differs for no stated reason: {test}; to see whether it does so again: --tests NAME")
    return int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
