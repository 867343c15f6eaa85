import importlib
import importlib.metadata
import importlib.resources
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import ultralytics

import ultralytics_overlay
from tests.helpers.common import Run, write_tree
from ultralytics_overlay import OverlayFinder, UpstreamMismatch

TOY = "toybox"

UPSTREAM = {
    "__init__.py": "TRACE = ['upstream']",
    "mod.py": "def f():\n    return 1\n\ndef g():\n    return f()\n\ndef h():\n    return 'upstream only'\n",
    "plain.py": "X = 1",
    "broken.py": "Y = 1",
    "note.txt": "a resource",
    "sub/__init__.py": "NAMES = ['a']\nfrom .deep import Z",
    "sub/deep.py": "Z = 1",
}
OVERLAY = {
    "__init__.py": f"from {TOY} import TRACE\nTRACE.append('overlay')",
    "mod.py": f"from {TOY}.mod import f as stock_f\n\ndef f():\n    return stock_f() + 10\n",
    "broken.py": "import there_is_no_such_module",
    "fresh.py": f"from {TOY}.plain import X\nFRESH = X + 1",
    "sub/__init__.py": f"from {TOY}.sub import NAMES as S\nfrom {TOY}.sub.added import B\nNAMES = [*S, B]",
    "sub/added.py": "B = 'b'",
    "newpack/__init__.py": "P = 'p'",
    "newpack/inner.py": f"from {TOY}.newpack import P\nQ = P + 'q'",
    "bare/thing.py": "T = 't'",  # a folder without __init__.py
}


@pytest.fixture
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OverlayFinder]:
    write_tree(tmp_path / "site" / TOY, UPSTREAM)
    finder = OverlayFinder(str(write_tree(tmp_path / "over", OVERLAY)), package=TOY)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    importlib.invalidate_caches()
    yield finder
    for name in [name for name in sys.modules if name.split(".")[0] == TOY]:
        del sys.modules[name]


def load(name: str = "") -> ModuleType:
    return importlib.import_module(f"{TOY}.{name}" if name else TOY)


def test_overlay_file_runs_after_upstreams_in_the_same_module(finder: OverlayFinder) -> None:
    mod = load("mod")
    assert mod.stock_f() == 1
    assert mod.f() == 11
    assert mod.g() == 11  # upstream's function sees ours
    assert mod.h() == "upstream only"


def test_packages_may_have_an_overlay_and_new_modules_are_found(finder: OverlayFinder) -> None:
    assert load().TRACE == ["upstream", "overlay"]
    sub = load("sub")
    assert (sub.NAMES, sub.Z) == (["a", "b"], 1)
    assert load("fresh").FRESH == 2
    assert load("sub.added").B == "b"
    assert load("newpack.inner").Q == "pq"
    assert load("bare.thing").T == "t"
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'there_is_no_such_module'$"):
        load("broken")
    for name in ("", "mod", "sub", "plain"):  # upstream's file, even where the overlay has one too
        assert Path(load(name).__spec__.origin).is_relative_to(Path(finder.folder).parent / "site")


def test_reload_runs_both_files_again(finder: OverlayFinder) -> None:
    mod = load("mod")
    mod.f = mod.stock_f = None
    (Path(finder.folder) / "mod.py").write_text(OVERLAY["mod.py"].replace("+ 10", "+ 1000"))
    assert importlib.reload(mod) is mod
    assert (mod.stock_f(), mod.f()) == (1, 1001)  # once over upstream's, not over our own
    assert importlib.reload(load()).TRACE == ["upstream", "overlay"]


def test_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toychest").mkdir()  # as the root's `ultralytics/`: a folder of that name is not the package
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("toychest", "toychest_absent"):
        monkeypatch.setattr(sys, "meta_path", [OverlayFinder(str(tmp_path), package=name), *sys.meta_path])
        with pytest.raises(ModuleNotFoundError, match=rf"'{name}' is not installed .*pip install ") as caught:
            importlib.import_module(name)
        assert caught.value.name == name


def test_install_happens_once_and_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(sys.meta_path)
    assert sum(isinstance(f, OverlayFinder) for f in before) == 1
    ultralytics_overlay.install()
    assert sys.meta_path == before
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, OverlayFinder)])
    assert "ultralytics" in sys.modules
    with pytest.raises(ImportError, match="imported before"):
        ultralytics_overlay.install()
    monkeypatch.setattr(ultralytics_overlay, "FOLDER", str(tmp_path / "gone"))
    with pytest.raises(ImportError, match=r"gone is missing\. Reinstall"):
        ultralytics_overlay.install()
    monkeypatch.setenv("ULTRALYTICS_OVERLAY", "0")
    ultralytics_overlay.install()
    assert not any(isinstance(f, OverlayFinder) for f in sys.meta_path)


def test_start_is_cheap_and_loads_nothing_heavy(run: Run, tmp_path: Path) -> None:
    cached = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}  # compiled by the first run
    times = []
    for _ in range(5):
        code = "import sys; print(*[type(finder).__name__ for finder in sys.meta_path])"
        done = run("-X", "importtime", "-c", code, cwd=tmp_path, **cached)
        assert "OverlayFinder" in done.stdout.split()
        own = {name: int(time) for time, name in re.findall(r"(\d+) \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE)}
        assert not {"torch", "ultralytics", "numpy"} & own.keys()
        times.append(own["ultralytics_overlay"] + own["ultralytics_overlay_start"])
    assert min(times) < 5000


STATE = """
import subprocess, sys
kinds = [type(f).__name__ for f in sys.meta_path]
if sys.argv[1:]:
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
else:
    import ultralytics.nn.modules as modules
    from ultralytics.utils import DEFAULT_CFG_DICT
    print(hasattr(modules, "DWR"), "nwd" in DEFAULT_CFG_DICT)
print(kinds.count("OverlayFinder"))
"""


@pytest.mark.parametrize(("switch", "state"), [("1", "True True 1 1"), ("0", "False False 0 0")])
def test_switch_holds_for_a_process_and_its_children(run: Run, tmp_path: Path, switch: str, state: str) -> None:
    done = run("-c", STATE, STATE, cwd=tmp_path, ULTRALYTICS_OVERLAY=switch)
    assert " ".join(done.stdout.split()) == state, done.stderr


IMPORT_ALL = """
import ultralytics
assert ultralytics.__file__.startswith(__import__("os").getcwd()), ultralytics.__file__
try:
    from ultralytics import YOLO
    from ultralytics.models.yolo.detect import DetectionTrainer
except ImportError as error:
    print(type(error).__name__, error, sep="\\n")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "files", "named"),
    [
        ("base_modules", ["nn/tasks.py"], "ultralytics.nn.tasks.parse_model"),
        ("index", ["data/base.py"], "ultralytics.data.base.BaseDataset.get_image_and_label"),
        ("_do_train", ["engine/trainer.py"], "ultralytics.engine.trainer.BaseTrainer._do_train` is gone"),
        ("get_dataloader", ["engine/trainer.py", "models/yolo/detect/train.py"], "get_dataloader"),
    ],
)
def test_upstream_of_another_shape_is_refused(
    run: Run, root: Path, tmp_path: Path, old: str, files: list[str], named: str
) -> None:
    """A name is renamed in some of upstream's files; the error names it."""
    copied = shutil.copytree(
        Path(ultralytics.__file__).parent, tmp_path / "ultralytics", ignore=shutil.ignore_patterns("assets", "*.pyc")
    )
    for path in (copied / file for file in files):
        changed, count = re.subn(rf"\b{old}\b", f"{old}_renamed", path.read_text(encoding="utf-8"))
        assert count
        path.write_text(changed, encoding="utf-8")
    done = run("-c", IMPORT_ALL, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    kind, message = (done.stdout or done.stderr).splitlines()  # one line
    assert kind == UpstreamMismatch.__name__
    assert f"ultralytics {importlib.metadata.version('ultralytics')} is installed" in message
    supported = re.search(r'"ultralytics(>=[\d.]+),(<[\d.]+)"', (root / "pyproject.toml").read_text())
    assert supported is not None and all(part in message for part in (*supported.groups(), named)), message
