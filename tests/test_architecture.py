"""Rules about where code lives and how it is imported."""

import re
from pathlib import Path

import pytest
import ultralytics

from tests.helpers.common import Run

CORE = [  # works without the overlay
    "small_object.nwd",
    "small_object.sizes",
    "small_object.errors",
    "small_object.files",
    "small_object.slicing.tiling",
    "small_object.slicing.merge",
    "small_object.slicing.slicer",
    "small_object.datasets.dataset",
    "small_object.datasets.labels",
]
MAX_FILE_LINES = 600
# A new capability may raise the limits; what is there gets shorter.
MAX_LINES = {("ultralytics", "src"): 11991, ("ultralytics",): 1983, ("tests",): 13008}
IMPORT_FIRST = """
import importlib, os, sys
import cv2, torch, torchvision
print([type(finder).__name__ for finder in sys.meta_path].count("OverlayFinder"), flush=True)
for name in sys.argv[1:]:
    if not os.fork():
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(name, error, flush=True)
        os._exit(0)
    os.wait()
"""


def test_overlay_changes_upstream_files_only(root: Path) -> None:
    upstream = Path(ultralytics.__file__).parent
    paths = [p.relative_to(root / "ultralytics") for p in (root / "ultralytics").rglob("*") if p.is_file()]
    new = [p.as_posix() for p in paths if "__pycache__" not in p.parts and not (upstream / p).is_file()]
    assert not [path for path in new if not path.startswith(("nn/modules", "cfg/models"))]


@pytest.mark.parametrize("switch", ["0", "1"])
def test_modules_can_be_imported_first(run: Run, root: Path, tmp_path: Path, switch: str) -> None:
    """The core works without the overlay too; with it, modules that patches import load upstream and its patches."""
    modules = set(CORE)
    for path in (root / "ultralytics").rglob("*.py") if switch == "1" else ():
        modules |= set(re.findall(r"^ *(?:from|import) (small_object\S+)", path.read_text(encoding="utf-8"), re.M))
    assert switch == "0" or len(modules) > 12
    done = run("-c", IMPORT_FIRST, *sorted(modules), cwd=tmp_path, ULTRALYTICS_OVERLAY=switch)
    assert (done.returncode, done.stdout.strip()) == (0, switch), done.stderr


def test_files_and_packages_stay_small(root: Path) -> None:
    lines = {}
    for folder in {folder for folders in MAX_LINES for folder in folders}:
        for path in (root / folder).rglob("*.py"):
            lines[path.relative_to(root).as_posix()] = path.read_bytes().count(b"\n")
    assert not [path for path, count in lines.items() if count > MAX_FILE_LINES and not path.startswith("tests")]
    for folders, limit in MAX_LINES.items():
        assert sum(count for path, count in lines.items() if path.startswith(folders)) <= limit, folders
