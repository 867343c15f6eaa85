"""The tool that runs upstream's tests on both sides, with small tests in place of upstream's."""

import io
import shutil
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.upstream import own_tests as upstream_tests
from tests.upstream import stand_ins as upstream_stand_ins
from tests.upstream.own_tests import Comparison, Outcome

ROOT = Path(__file__).resolve().parents[2]

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
def test_skips(): pytest.skip("not today")
def test_teardown(broken): pass
def test_command(): subprocess.run([sys.executable, "-c", "import no_such_module"], check=True)
def test_hangs(): time.sleep(60)
def test_crashes(): os._exit(3)
@pytest.mark.parametrize("x", ["a b", "c"])
def test_after(x): pass
"""


def test_a_hang_or_a_crash_loses_no_other_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(upstream_tests, "python", lambda folder: Path(sys.executable))
    for side in upstream_tests.SIDES:
        (tmp_path / side / "tests").mkdir(parents=True)
        (tmp_path / side / "tests/test_it.py").write_text(TESTS)
        (tmp_path / side / "pytest.ini").write_text("[pytest]\n")
        shutil.copy(ROOT / "tests/upstream/record.py", tmp_path / side)
    assert [upstream_tests.overlay_is_on(tmp_path / side, side) for side in ("off", "on")] == [False, True]
    tests = upstream_tests.collect(tmp_path / "on", "on")
    assert len(tests) == 10
    off, on = upstream_tests.run_sides(tests, tmp_path, "", limit=8).values()
    results = {test.removeprefix("tests/test_it.py::test_"): (o.result, o.kind, o.said) for test, o in off.items()}
    assert results == {
        "passes": ("passed", "", ""),
        "side": ("passed", "", ""),
        "fails": ("failed", "KeyError", "'a'"),
        "skips": ("skipped", "", "not today"),
        "teardown": ("error", "OSError", "no such thing"),
        "command": ("failed", "CalledProcessError: ModuleNotFoundError", "No module named 'no_such_module'"),
        "hangs": ("timed out", "", ""),
        "crashes": ("crashed", "", ""),
        "after[a b]": ("passed", "", ""),
        "after[c]": ("passed", "", ""),
    }
    assert upstream_tests.differing(off, on) == ["tests/test_it.py::test_side"]


def test_a_difference_needs_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    off = {
        "f.py::test_a[1]": Outcome("passed"),
        "f.py::test_a[2]": Outcome("passed"),
        "f.py::test_b": Outcome("passed"),
    }
    off |= {"f.py::test_c": Outcome("failed", "OSError", "a | b"), "f.py::test_d": Outcome("skipped", "", "no GPU")}
    on = off | {"f.py::test_a[2]": Outcome("timed out"), "f.py::test_c": Outcome("failed", "OSError", "other words")}
    del on["f.py::test_b"]
    result = Comparison(off, on, {t: off[t] for t in ("f.py::test_a[2]", "f.py::test_b")}, {}, ["g.py::test_slow"])
    result.on_again = {"f.py::test_a[2]": Outcome("passed")}
    assert (result.different, result.unsteady) == (["f.py::test_b"], ["f.py::test_a[2]"])
    assert result.alike("passed") == ["f.py::test_a[1]"] and result.alike("failed") == ["f.py::test_c"]

    monkeypatch.setattr(upstream_tests, "compare", lambda *args: result)
    monkeypatch.setattr(upstream_tests, "DOCUMENT", tmp_path / "it.md")
    monkeypatch.setattr(upstream_tests, "LEFT_OUT", {"g.py::": "takes an hour"})
    assert upstream_tests.main([]) == 1
    text = (tmp_path / "it.md").read_text()
    assert "| f.py | 1 | 1 | 1 | 1 | 1 |\n| all | 1 | 1 | 1 | 1 | 1 |" in text and "**none**" in text
    assert "`f.py::test_c` | failed `OSError` a \\| b" in text and "`g.py::test_slow` | takes an hour" in text
    monkeypatch.setattr(upstream_tests, "EXPECTED", {"f.py::test_b": "it is meant so"})
    assert upstream_tests.main([]) == 0
    assert "it is meant so" in (tmp_path / "it.md").read_text()
    with pytest.raises(SystemExit, match="is there already"):
        upstream_tests.main(["--folder", str(tmp_path)])


def test_only_the_tests_are_unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package index is not at hand: a stand-in for `pip download` writes the archive."""

    def download(command: list[str], **_: object) -> None:
        assert command[-1] == "ultralytics==9.9.9"
        with tarfile.open(tmp_path / "ultralytics-9.9.9.tar.gz", "w:gz") as archive:
            for name in ("tests/test_a.py", "ultralytics/a.py"):
                (entry := tarfile.TarInfo(f"ultralytics-9.9.9/{name}")).size = 1
                archive.addfile(entry, io.BytesIO(b"#"))

    monkeypatch.setattr(upstream_tests.subprocess, "run", download)
    tests = upstream_tests.fetch("9.9.9", tmp_path)
    assert [path.name for path in tests.parent.rglob("*") if path.is_file()] == ["test_a.py"]


def test_labels_of_the_stand_ins_lie_on_what_is_drawn(tmp_path: Path) -> None:
    upstream_stand_ins.draw_data(tmp_path)
    width, height = upstream_stand_ins.SIZE
    for name in ("coco8", "coco8-seg", "coco8-pose", "dota8"):
        for index in range(1, 5):
            image = cv2.imread(str(tmp_path / f"{name}/images/val/{index:012d}.jpg"))
            ys, xs = np.nonzero(image[..., 0] > 130)
            values = (tmp_path / f"{name}/labels/val/{index:012d}.txt").read_text().split()
            numbers = np.array(values[1:], float)
            if name in {"coco8", "coco8-pose"}:
                x, y, w, h = numbers[:4] * [width, height, width, height]
                box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                assert len(values) == (5 if name == "coco8" else 5 + 17 * 3)
            else:
                corners = numbers.reshape(4, 2) * [width, height]
                box = (*corners.min(0), *corners.max(0))
            assert box == pytest.approx((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), abs=1.5)
    assert len(list((tmp_path / "imagenet10").rglob("*.jpg"))) == 20
