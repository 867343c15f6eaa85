"""The commands that run tests with other versions of upstream, and upstream's own tests, without downloading any."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks.common import ROOT
from tests.upstream import compat, environments, own_tests

TESTS = """
import os, time
import pytest

@pytest.fixture
def broken():
    yield
    raise OSError("no such thing")

def test_passes(): pass
def test_side(): assert os.environ["ULTRALYTICS_OVERLAY"] == "0", "on"
def test_fails(): raise KeyError("a")
def test_skips(): pytest.skip("not today")
def test_teardown(broken): pass
def test_hangs(): time.sleep(60)
def test_crashes(): os._exit(3)
"""
OUTCOMES = {
    "passes": "passed", "side": "passed", "fails": "failed: KeyError", "skips": "skipped", "hangs": "failed: crashed",
    "teardown": "failed: OSError", "crashes": "failed: crashed",
}  # fmt: skip


def test_the_newest_version_is_the_newest_supported_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all((ROOT / path).exists() for path in compat.CONTRACT)
    listed = "ultralytics (99.0)\nAvailable versions: 99.0, 8.4.190, 8.3.0\n"
    monkeypatch.setattr(compat.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, listed))
    assert compat.newest_version() == "8.4.190"


def test_the_document_has_a_row_per_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compat, "create_environment", lambda folder, version: Path(sys.executable))
    monkeypatch.setattr(environments, "DOCUMENT", document := tmp_path / "compatibility.md")
    document.write_text("# Title\n\n## Tests of every patch\n\nbefore\n\n## Upstream's own tests\n\nkept\n")
    file = tmp_path / "test_it.py"
    file.write_text("import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('no')\n")
    (tmp_path / "test_bad.py").write_text("import there_is_no_such_module\n")
    assert compat.main(["--versions", "8.4.190", "8.4.200", "--tests", str(tmp_path)]) == 1
    text = document.read_text()
    assert text.endswith("\n\n## Upstream's own tests\n\nkept\n") and "before" not in text
    rows = [line for line in text.splitlines() if line.startswith("| 8.4.")]
    assert [row.split(" | ")[:4] for row in rows] == [[f"| {v}", "1", "2", "1"] for v in ("8.4.190", "8.4.200")]
    assert "test_b`: failed" in rows[0] and "test_bad.py`: failed: ModuleNotFoundError" in rows[0]


def test_an_environment_has_its_own_version_and_this_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for `pip install` writes the package, as the package index is not reachable."""
    real = subprocess.run

    def run(command: list, *args: object, **options: object) -> object:
        if "install" not in command:
            return real(command, *args, **options)
        assert command[-1] == "ultralytics==8.4.200"
        package = next(Path(command[0]).parents[1].rglob("site-packages")) / "ultralytics"
        package.mkdir()
        return (package / "__init__.py").write_text("__version__ = '8.4.200'\n")

    monkeypatch.setattr(environments.subprocess, "run", run)
    python = environments.create_environment(tmp_path, "8.4.200")
    code = "import sys, ultralytics, torch, pytest; print(ultralytics.__version__, type(sys.meta_path[0]).__name__)"
    done = real([python, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["8.4.200", "OverlayFinder"]


def test_upstreams_tests_run_on_both_sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for `pip download` writes the archive, as the package index is not reachable."""
    real = subprocess.run

    def run(command: list, *args: object, **options: object) -> object:
        if "stand_ins.py" in str(command[1]):
            return None
        if "download" not in command:
            return real(command, *args, **options)
        (folder := Path(command[command.index("-d") + 1])).mkdir()
        with tarfile.open(folder / "ultralytics-9.9.9.tar.gz", "w:gz") as archive:
            for name in ("tests/test_it.py", "ultralytics/a.py"):
                (entry := tarfile.TarInfo(f"ultralytics-9.9.9/{name}")).size = len(TESTS)
                archive.addfile(entry, io.BytesIO(TESTS.encode()))
        return None

    monkeypatch.setattr(own_tests.subprocess, "run", run)
    monkeypatch.setattr(own_tests, "create_environment", lambda folder, version: Path(sys.executable))
    monkeypatch.setattr(own_tests.importlib.metadata, "version", lambda name: "9.9.9")
    monkeypatch.setattr(environments, "DOCUMENT", document := tmp_path / "it.md")
    document.write_text("## Upstream's own tests\n")
    ran: list[dict[str, str]] = []
    monkeypatch.setattr(own_tests, "run_tests", lambda *a, **k: ran.append(environments.run_tests(*a, **k)) or ran[-1])
    assert own_tests.main(["--limit", "6"]) == 1
    assert sorted(ran, key=lambda side: side["tests/test_it.py::test_side"] != "passed") == [
        {f"tests/test_it.py::test_{name}": outcome for name, outcome in each.items()}
        for each in (OUTCOMES, OUTCOMES | {"side": "failed: AssertionError"})
    ]
    text = document.read_text()
    assert "On both sides 1 passed, 4 failed, 1 were skipped;\n1 differ" in text
    assert "test_side` | passed | failed: AssertionError |" in text
    assert "- failed: crashed: 2\n" in text
    assert own_tests.differing({"a": "passed"}, {"a": "passed", "b": "skipped"}) == ["b"]
