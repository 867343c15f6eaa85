"""The content of an installation, and its messages if it can't work."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import ultralytics

from tests.helpers.common import Run

PIP_OPTIONS = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q")
SCRIPTS = "Scripts" if sys.platform == "win32" else "bin"
STOCK, OURS = 2624080, 1618352  # parameters of stock YOLO11n and of our yolo11.yaml at scale n, with 80 classes
PROBE = """
from ultralytics import YOLO
for model in ("yolo11n.yaml", "ultralytics/cfg/models/11/yolo11n.yaml"):
    print(sum(p.numel() for p in YOLO(model).model.parameters()), flush=True)
"""


def pip(run: Run, python: Path, *args: str | Path) -> None:
    """Run this Python's pip for another one, whose environment need not have it."""
    done = run("-m", "pip", "--python", python, args[0], *PIP_OPTIONS, *args[1:], cwd=python.parent)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def python(run: Run, tmp_path: Path) -> Path:
    """Return the Python of a new environment that has the dependencies of this one, but not this project."""
    assert run("-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path).returncode == 0
    python = tmp_path / "env" / SCRIPTS / "python"
    site = next((tmp_path / "env").rglob("site-packages"))
    (site / "outer.pth").write_text(str(Path(ultralytics.__file__).parents[1]))  # its own .pth files are not read
    return python


@pytest.fixture(scope="module")
def wheel(run: Run, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run("-m", "pip", "wheel", *PIP_OPTIONS, "-w", folder, root, cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("src", "ultralytics"):
        shutil.copytree(root / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, folder)
    return folder


def test_wheel_holds_all_that_is_used(wheel: Path, root: Path) -> None:
    def list_files(folder: str, prefix: str) -> set[str]:
        files = {p for p in (root / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts}
        return {prefix + p.relative_to(root / folder).as_posix() for p in files}

    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        scripts = archive.read(next(n for n in archive.namelist() if n.endswith("entry_points.txt"))).decode()
    data = {f"ultralytics_overlay/datasets/{name}/{name}.yaml" for name in ("ASS1", "ASS2", "ASS1-demo", "ASS2-demo")}
    assert names == {
        "ultralytics_overlay.pth",
        "ultralytics_overlay_start.py",
        "ultralytics_overlay/__init__.py",
        *data,
        *list_files("ultralytics", "ultralytics_overlay/ultralytics/"),
        *list_files("src/small_object", "small_object/"),
    }
    assert {"small_object/py.typed", "small_object/default.yaml", "small_object/compare/page.html"} <= names
    assert "small-object = small_object.cli:main" in scripts


FROM_WHEEL = """
import sys
from ultralytics.data.utils import check_det_dataset
for name in ("datasets/ASS1-demo/ASS1-demo.yaml", "ASS2-demo.yaml", "ASS1-demo"):
    try:
        check_det_dataset(name, autodownload=False)
    except FileNotFoundError as error:
        print(str(error).strip().splitlines()[0])
"""


def test_wheel_in_a_fresh_environment(run: Run, wheel: Path, python: Path, tmp_path: Path) -> None:
    pip(run, python, "install", wheel)
    work = tmp_path / "work"
    work.mkdir()
    done = run("-c", PROBE + FROM_WHEEL, cwd=work, program=python)
    stock, ours, *missing = [line for line in done.stdout.splitlines() if line]
    assert (int(stock), int(ours)) == (STOCK, OURS), done.stderr
    for name, line in zip(("ASS1-demo", "ASS2-demo", "ASS1-demo"), missing, strict=True):
        assert line.endswith(f"missing path '{(work / 'datasets' / name).resolve() / 'images' / 'val'}'")
    assert sorted(p.name for p in work.rglob("*.yaml")) == ["ASS1-demo.yaml", "ASS2-demo.yaml"]
    done = run("--help", cwd=work, program=python.with_name("small-object"))
    assert (done.returncode, done.stderr) == (0, "")


def check_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Check that a probe built stock's model, as asked, and then refused ours instead of building stock's."""
    assert (done.returncode, done.stdout.split()) == (1, [str(STOCK)]), done.stderr
    reason, refusal = done.stderr.splitlines()
    assert refusal == f"ultralytics/cfg/models/11/yolo11n.yaml cannot be used: {reason}"
    assert all(part in reason for part in ("small-object-detection is not active: ", *parts)), reason


def test_checkout_that_moved(run: Run, python: Path, checkout: Path, tmp_path: Path) -> None:
    pip(run, python, "install", "-e", checkout)
    moved = checkout.rename(tmp_path / "moved")
    check_refused(run("-c", PROBE, cwd=moved, program=python), str(checkout), "Reinstall", "uninstall")
    assert len(run("-c", "", cwd=tmp_path, program=python).stderr.splitlines()) == 1
    assert run("-c", "", cwd=tmp_path, program=python, ULTRALYTICS_OVERLAY="0").stderr == ""


KERNEL = f"""
import importlib, subprocess, sys
subprocess.run([sys.argv[1], *"-m pip --python".split(), sys.executable, "install", *{PIP_OPTIONS}, *sys.argv[2:]])
importlib.invalidate_caches()
{PROBE}
"""


def test_kernel_that_was_running(run: Run, python: Path, wheel: Path, tmp_path: Path) -> None:
    check_refused(run("-c", KERNEL, sys.executable, wheel, cwd=tmp_path, program=python), "Restart Python", "kernel")
