"""Runs upstream's own tests with this fork off and on: python tests/upstream/own_tests.py, or make upstream.

The tests come from the source archive of the installed version, which is fetched from the package index. Each side gets
an environment of its own, as upstream writes the runs of its tests beside its package. Weights, data sets and videos
that the tests would download are replaced by stand-ins (`upstream_stand_ins.py`), so most run offline.
docs/upstream_tests.md is written when all have run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event

import torch
from ultralytics.utils import LOGGER

from benchmarks.compare import commit
from small_object.files import replacing
from tests.upstream.compat import environment

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/upstream_tests.md"
SIDES = {"off": "0", "on": "1"}  # the overlay, and the value of ULTRALYTICS_OVERLAY
LIMIT = 180.0  # seconds that a test may take
# Tests that are not run, by the beginning of their ids, and why.
LEFT_OUT = {
    "tests/test_python.py::test_data_annotator": "takes about three minutes: the untrained model gives SAM 300 boxes"
}
# Tests whose outcome differs because this fork means it to, and why.
EXPECTED: dict[str, str] = {}
# It sets the settings back to upstream's defaults, for all tests after it.
LAST = "tests/test_cli.py::test_special_modes"


@dataclass(frozen=True)
class Outcome:
    """What became of a test: `result` as pytest names it, the exception's kind and its first line."""

    result: str
    kind: str = ""
    said: str = ""

    def same(self, other: Outcome) -> bool:
        """Tell whether two outcomes agree; what an exception says may differ, by a path or a figure."""
        return (self.result, self.kind) == (other.result, other.kind)

    def __str__(self) -> str:
        """Return the outcome in a few words."""
        return " ".join(part for part in (self.result, self.kind and f"`{self.kind}`", self.said[:160]) if part)


def fetch(version: str, folder: Path) -> Path:
    """Fetch the source archive of a version of Ultralytics and unpack its tests.

    Returns:
        The folder `tests`.

    Raises:
        subprocess.CalledProcessError: The archive can't be had.
    """
    options = ("--no-deps", "--no-binary", "ultralytics", "-d", str(folder))
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", *options]
    subprocess.run([*pip, f"ultralytics=={version}"], check=True)
    with tarfile.open(next(folder.glob("ultralytics-*.tar.gz"))) as archive:
        top = f"ultralytics-{version}"
        for member in archive:
            parts = PurePosixPath(member.name).parts
            if member.isfile() and parts[:2] == (top, "tests") and ".." not in parts:
                file = folder / member.name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.extractfile(member).read())
    return folder / top / "tests"


def python(folder: Path) -> Path:
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
        "UPSTREAM_RECORD": str(folder / "record.jsonl"),
        "OMP_NUM_THREADS": "1",  # the sides run at the same time
        "PATH": f"{python(folder).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # for the command `yolo`
    }


def prepare(folder: Path, tests: Path) -> None:
    """Make in `folder` all that the tests need: themselves, the stand-ins, and the plugin that records."""
    folder.mkdir()
    shutil.copytree(tests, folder / "tests")
    shutil.copy(ROOT / "tests/upstream/record.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n", encoding="utf-8")
    command = [sys.executable, str(ROOT / "tests/upstream/stand_ins.py"), str(folder)]
    subprocess.run(command, env=variables(folder, "off"), cwd=folder, check=True, stdout=subprocess.DEVNULL)


def copy(prepared: Path, folder: Path, side: str, version: str) -> None:
    """Copy what was prepared, add an environment, and point upstream's settings at the copy."""
    shutil.copytree(prepared, folder)
    environment(folder / "env", version)
    places = [f"{name}_dir={folder / name}" for name in ("weights", "datasets", "runs")]
    command = [str(python(folder)), "-c", "from ultralytics.cfg import entrypoint; entrypoint()", "settings", *places]
    subprocess.run(command, env=variables(folder, side), cwd=folder, check=True, stdout=subprocess.DEVNULL)


def overlay_is_on(folder: Path, side: str) -> bool:
    """Tell whether a Python in `folder` finds a module that only this fork has."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('small_object.nwd') is None)"
    command = [str(python(folder)), "-c", code]
    return subprocess.run(command, env=variables(folder, side), cwd=folder, check=False).returncode == 0


def pytest_command(folder: Path) -> list[str]:
    """Return the command that runs pytest in a side's folder, less what it shall run."""
    return [str(python(folder)), "-m", "pytest", "-c", "pytest.ini", "-q", "-p", "no:cacheprovider"]


def collect(folder: Path, side: str) -> list[str]:
    """Return the ids of the tests that pytest finds."""
    command = [*pytest_command(folder), "--collect-only", "tests"]
    own = {"env": variables(folder, side), "cwd": folder, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, **own)
    if done.returncode:
        sys.exit(f"upstream_tests.py: upstream's tests can't be collected with the overlay {side}:\n{done.stdout}")
    return [line for line in done.stdout.splitlines() if line.startswith("tests/") and "::" in line]


def read_record(file: Path) -> tuple[dict[str, Outcome], str]:
    """Return the outcomes in a record and the test that started last."""
    outcomes: dict[str, Outcome] = {}
    last = ""
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        entry = json.loads(line)
        last = entry["test"]
        if "outcome" in entry:
            outcomes[last] = Outcome(entry["outcome"], entry["kind"], entry["said"])
    return outcomes, last


def run(tests: Sequence[str], folder: Path, side: str, limit: float, stop: Event | None = None) -> dict[str, Outcome]:
    """Run tests in `folder`, in their order in one process, until `stop` is set; return their outcomes by id.

    A test that takes more than `limit` seconds, or takes the process down, is ended; the rest goes on in a new process.
    """
    outcomes: dict[str, Outcome] = {}
    record = folder / "record.jsonl"
    stop = stop or Event()
    while not stop.is_set() and (left := [test for test in tests if test not in outcomes]):
        record.unlink(missing_ok=True)
        (folder / "left.txt").write_text("\n".join(left), encoding="utf-8")
        command = [*pytest_command(folder), "--tb=short", "-p", "upstream_record", f"--basetemp={folder / 'tmp'}"]
        command.append("@left.txt")
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, env=variables(folder, side), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            end = "crashed"
            try:
                size, since = -1, time.monotonic()
                while process.poll() is None and not stop.wait(0.2):
                    if (now := record.stat().st_size if record.exists() else 0) != size:
                        size, since = now, time.monotonic()
                    elif time.monotonic() - since > limit:
                        end = "timed out"
                        break
            finally:  # also what the tests started
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seen, last = read_record(record)
        outcomes |= seen
        # A test without outcome was under way; where none is, pytest did not come to the tests.
        if any(test not in outcomes for test in left):
            outcomes.setdefault(last if last in left else next(t for t in left if t not in outcomes), Outcome(end))
    for test, outcome in outcomes.items():
        said = outcome.said.replace(str(folder), "...")
        outcomes[test] = Outcome(outcome.result, outcome.kind, re.sub(r"/\S*/(?=[^/\s]+)", ".../", said))
    return outcomes


def differing(off: Mapping[str, Outcome], on: Mapping[str, Outcome]) -> list[str]:
    """Return the ids of the tests whose outcomes don't agree."""
    absent = Outcome("not found")
    return [test for test in {**off, **on} if not off.get(test, absent).same(on.get(test, absent))]


def short(tests: Iterable[str]) -> str:
    """Return the names of test functions, each with the number of its cases where it has several."""
    counts = Counter(test.partition("::")[2].partition("[")[0] for test in tests)
    return ", ".join(f"`{name}`" + (f" ({count})" if count > 1 else "") for name, count in counts.items())


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


@dataclass
class Comparison:
    """What both sides gave: outcomes by test id, and those of the tests that differed once more, on their own."""

    off: dict[str, Outcome]
    on: dict[str, Outcome]
    off_again: dict[str, Outcome]
    on_again: dict[str, Outcome]
    left_out: list[str]

    @property
    def different(self) -> list[str]:
        """Tests that differed both times."""
        return differing(self.off_again, self.on_again)

    @property
    def unsteady(self) -> list[str]:
        """Tests that differed once, and agreed when they ran again."""
        return [test for test in differing(self.off, self.on) if test not in self.different]

    def alike(self, *results: str) -> list[str]:
        """Return the tests that had one of these results on both sides."""
        apart = set(differing(self.off, self.on))
        return [test for test, outcome in self.off.items() if outcome.result in results and test not in apart]

    def document(self, command: str, version: str) -> str:
        """Return the text of docs/upstream_tests.md."""
        passed, skipped = self.alike("passed"), self.alike("skipped")
        failed = self.alike("failed", "error", "timed out", "crashed")
        groups = {"passed": passed, "failed": failed, "skipped": skipped}
        groups |= {"different": self.different, "unsteady": self.unsteady}
        files = list(dict.fromkeys(test.partition("::")[0] for test in self.off))
        counts = [
            [file, *(sum(test.startswith(f"{file}::") for test in tests) for tests in groups.values())]
            for file in files
        ]
        counts.append(["all", *(len(tests) for tests in groups.values())])
        reasons: dict[str, list[str]] = {}
        for test in skipped:
            reasons.setdefault(self.off[test].said, []).append(test)
        parts = [
            f"""\
# Upstream's own tests

The tests of Ultralytics {version}, from its source archive, with this fork's overlay off and on. Written by
`{command}` (commit {commit()}, Python {platform.python_version()}, torch {torch.__version__}),
which runs them offline in two copies of one folder. Untrained weights, drawn data sets and drawn videos stand in for
what the tests would download; a test that needs trained weights, or something else that is not at hand, fails alike on
both sides. An outcome is the result and, for a failure, the kind of exception.
""",
            table(["file", "passed alike", "failed alike", "skipped alike", "different", "differed once"], counts),
            "\n## Differences\n",
            table(
                ["test", "overlay off", "overlay on", "reason"],
                (
                    [f"`{test}`", self.off_again.get(test), self.on_again.get(test), EXPECTED.get(test, "**none**")]
                    for test in self.different
                ),
            )
            if self.different
            else "None.",
            "\n## Differed once\n\nThey agreed when they ran again.\n" if self.unsteady else "",
            table(
                ["test", "overlay off", "overlay on"],
                ([f"`{test}`", self.off.get(test), self.on.get(test)] for test in self.unsteady),
            )
            if self.unsteady
            else "",
            "\n## Passed alike\n",
            *(
                f"- `{file}`: {short(test for test in passed if test.startswith(file + '::'))}"
                for file in files
                if any(test.startswith(f"{file}::") for test in passed)
            ),
            "\n## Failed alike\n\nThey ran up to the same failure.\n",
            table(["test", "outcome"], ([f"`{test}`", self.off[test]] for test in failed)),
            "\n## Skipped alike\n",
            table(["reason", "tests"], ([reason, short(tests)] for reason, tests in reasons.items())),
        ]
        if self.left_out:
            why = {
                test: next(why for start, why in LEFT_OUT.items() if test.startswith(start)) for test in self.left_out
            }
            parts += ["\n## Not run\n", table(["test", "reason"], ([f"`{test}`", why[test]] for test in why))]
        return "\n".join(part for part in parts if part) + "\n"


def run_sides(tests: Sequence[str], folder: Path, suffix: str, limit: float) -> dict[str, dict[str, Outcome]]:
    """Run tests on both sides at the same time, in folders named after the side and a suffix."""
    start = time.monotonic()
    stop = Event()
    with ThreadPoolExecutor(len(SIDES)) as pool:
        runs = {side: pool.submit(run, tests, folder / f"{side}{suffix}", side, limit, stop) for side in SIDES}
        try:
            sides = {side: done.result() for side, done in runs.items()}
        finally:  # after Ctrl-C; else both have ended
            stop.set()
    for side, outcomes in sides.items():
        counts = Counter(outcome.result for outcome in outcomes.values())
        LOGGER.info(f"  overlay {side}: {', '.join(f'{n} {result}' for result, n in counts.items())}")
    LOGGER.info(f"  {(time.monotonic() - start) / 60:.0f} minutes")
    return sides


def compare(folder: Path, version: str, chosen: Sequence[str], limit: float) -> Comparison:
    """Run the tests on both sides, and those that differ once more, each time in fresh copies."""
    LOGGER.info(f"ultralytics {version}")
    prepare(folder / "prepared", fetch(version, folder))
    for side in SIDES:
        copy(folder / "prepared", folder / side, side, version)
    if [overlay_is_on(folder / side, side) for side in SIDES] != [False, True]:
        sys.exit("upstream_tests.py: ULTRALYTICS_OVERLAY does not switch this fork; install it: pip install -e .")
    found = dict.fromkeys(collect(folder / "off", "off") + collect(folder / "on", "on"))
    tests = [test for test in found if not chosen or any(part in test for part in chosen)]
    left_out = [test for test in tests if test.startswith(tuple(LEFT_OUT))]
    tests = sorted((test for test in tests if test not in left_out), key=lambda test: test == LAST)
    if not tests:
        sys.exit(f"upstream_tests.py: no test's id has {' or '.join(chosen)} in it")
    first, again = run_sides(tests, folder, "", limit), {side: {} for side in SIDES}
    if unequal := differing(first["off"], first["on"]):
        LOGGER.info(f"  {len(unequal)} differ and run again: {', '.join(unequal)}")
        for side in SIDES:
            copy(folder / "prepared", folder / f"{side}-again", side, version)
        again = run_sides(unequal, folder, "-again", limit)
    return Comparison(first["off"], first["on"], again["off"], again["on"], left_out)


def main(argv: list[str] | None = None) -> int:
    """Compare both sides; return 1 if a test differs for no stated reason."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tests", nargs="+", default=[], metavar="PART", help="only tests with this in their id")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help="time that a test may take")
    parser.add_argument("--folder", type=Path, help="new folder to work in, which stays; default: one that is removed")
    args = parser.parse_args(argv)
    version = importlib.metadata.version("ultralytics")
    try:
        if args.folder:
            args.folder.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="upstream-") as temporary:
            folder = (args.folder or Path(temporary)).resolve()
            result = compare(folder, version, args.tests, args.limit)
    except FileExistsError:
        sys.exit(f"upstream_tests.py: --folder {args.folder} is there already; name a new one")
    except subprocess.CalledProcessError as error:
        what = "the package index must be at hand" if "download" in error.cmd else "see above"
        sys.exit(f"upstream_tests.py: {' '.join(map(str, error.cmd))} failed; {what}")
    command = (
        "make upstream" if not args.tests else f"python tests/upstream/own_tests.py --tests {' '.join(args.tests)}"
    )
    with replacing(DOCUMENT) as new:
        new.write_text(result.document(command, version), encoding="utf-8")
    LOGGER.info(f"written: {DOCUMENT}")
    unexplained = [test for test in result.different if test not in EXPECTED]
    for test in unexplained:
        LOGGER.error(f"differs for no stated reason: {test}")
    for test in set(EXPECTED) & set(result.off) - set(result.different):
        LOGGER.warning(f"does not differ, though a reason is stated: {test}")
    return int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
