"""The command that runs upstream's tests on both sides, with small tests in place of upstream's."""

import io
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.upstream import own_tests
from tests.upstream.environments import Outcome

TESTS = """
import os, subprocess, sys, time
import pytest

@pytest.fixture
def broken():
    yield
    raise OSError("no such thing")

def test_passes(): pass
def test_side(): assert os.environ["ULTRALYTICS_OVERLAY"] == "0", "on"
def test_fails(): raise KeyError("a")
def test_asserts(): assert 1 == 2
def test_skips(): pytest.skip("not today")
def test_teardown(broken): pass
def test_command(): subprocess.run([sys.executable, "-c", "import no_such_module"], check=True)
def test_hangs(): time.sleep(60)
def test_crashes(): os._exit(3)
@pytest.mark.parametrize("x", ["a b", "c"])
def test_after(x): pass
"""


def test_outcomes_of_both_sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(own_tests, "side_python", lambda folder: Path(sys.executable))
    for side in own_tests.SIDES:
        (tmp_path / side / "tests").mkdir(parents=True)
        (tmp_path / side / "tests/test_it.py").write_text(TESTS)
        (tmp_path / side / "tests/test_file.py").write_text("import no_such_module")
        (tmp_path / side / "pytest.ini").write_text("[pytest]\n")
    assert [own_tests.is_overlay_active(tmp_path / side, side) for side in ("off", "on")] == [False, True]
    with ThreadPoolExecutor(2) as pool:
        off, on = pool.map(lambda side: own_tests.run_side([], tmp_path / side, side, limit=6), own_tests.SIDES)
    results = {test.removeprefix("tests/test_").removeprefix("it.py::test_"): o for test, o in off.items()}
    assert results == {
        "passes": Outcome("passed"),
        "side": Outcome("passed"),
        "fails": Outcome("failed", "KeyError", "'a'"),
        "asserts": Outcome("failed", "AssertionError", "assert 1 == 2"),
        "skips": Outcome("skipped", "", "not today"),
        "teardown": Outcome("failed", "OSError", "no such thing"),
        "command": Outcome("failed", "CalledProcessError: ModuleNotFoundError", "No module named 'no_such_module'"),
        "hangs": Outcome("crashed"),
        "crashes": Outcome("crashed"),
        "after[a b]": Outcome("passed"),
        "after[c]": Outcome("passed"),
        "file.py": Outcome("failed", "collection", "E   ModuleNotFoundError: No module named 'no_such_module'"),
    }
    assert own_tests.differing(off, on) == ["tests/test_it.py::test_side"]


def test_a_difference_needs_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    off = {f"f.py::test_{name}": Outcome("passed") for name in ("a[1]", "a[2]", "b")}
    off |= {"f.py::test_c": Outcome("failed", "OSError", "a | b"), "f.py::test_d": Outcome("skipped", "", "no GPU")}
    on = off | {"f.py::test_a[2]": Outcome("crashed"), "f.py::test_c": Outcome("failed", "OSError", "other words")}
    del on["f.py::test_b"]
    monkeypatch.setattr(own_tests, "compare", lambda *args: (off, on))
    monkeypatch.setattr(own_tests, "DOCUMENT", tmp_path / "it.md")
    assert own_tests.main([]) == 1
    text = (tmp_path / "it.md").read_text()
    assert "| f.py | 1 | 1 | 1 | 2 |\n| all | 1 | 1 | 1 | 2 |" in text and "| passed | None | none |" in text
    assert "`f.py::test_c` | failed `OSError` a \\| b" in text and "| no GPU | `test_d` |" in text
    monkeypatch.setattr(own_tests, "EXPECTED", {"f.py::test_b": "it is meant so", "f.py::test_a[2]": "this too"})
    assert own_tests.main([]) == 0
    assert "it is meant so" in (tmp_path / "it.md").read_text()


def test_only_the_tests_are_unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for `pip download` writes the archive, as the package index is not reachable."""

    def download(command: list[str], **_: object) -> None:
        assert command[-1] == "ultralytics==9.9.9"
        with tarfile.open(tmp_path / "ultralytics-9.9.9.tar.gz", "w:gz") as archive:
            for name in ("tests/test_a.py", "ultralytics/a.py"):
                (entry := tarfile.TarInfo(f"ultralytics-9.9.9/{name}")).size = 1
                archive.addfile(entry, io.BytesIO(b"#"))

    monkeypatch.setattr(own_tests.subprocess, "run", download)
    tests = own_tests.fetch("9.9.9", tmp_path)
    assert [path.name for path in tests.parent.rglob("*") if path.is_file()] == ["test_a.py"]
