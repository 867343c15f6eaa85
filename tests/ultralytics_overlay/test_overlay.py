from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import inspect
import json
import pkgutil
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
import ultralytics
from ultralytics.utils import remove_colorstr

import ultralytics_overlay
from tests.helpers.common import Run
from ultralytics_overlay import OverlayFinder, OverlayLoader, UpstreamMismatch

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


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OverlayFinder]:
    write(tmp_path / "site" / TOY, UPSTREAM)
    finder = OverlayFinder(str(write(tmp_path / "over", OVERLAY)), package=TOY)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    importlib.invalidate_caches()
    yield finder
    for name in [name for name in sys.modules if name.split(".")[0] == TOY]:
        del sys.modules[name]


def load(name: str = "") -> ModuleType:
    return importlib.import_module(f"{TOY}.{name}" if name else TOY)


def test_toy_is_without_overlay_when_there_is_no_finder(finder: OverlayFinder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if f is not finder])
    assert load("mod").f() == 1
    with pytest.raises(ModuleNotFoundError):
        load("fresh")


def test_overlay_file_runs_after_upstreams_in_the_same_module(finder: OverlayFinder) -> None:
    mod = load("mod")
    assert mod.stock_f() == 1
    assert mod.f() == 11
    assert mod.g() == 11  # upstream's function sees ours
    assert mod.h() == "upstream only"
    assert vars(mod)["g"].__globals__ is vars(mod) is mod.f.__globals__


def test_packages_may_have_an_overlay(finder: OverlayFinder) -> None:
    assert load().TRACE == ["upstream", "overlay"]
    sub = load("sub")
    assert (sub.NAMES, sub.Z) == (["a", "b"], 1)


def test_new_modules_and_packages_are_found(finder: OverlayFinder) -> None:
    assert load("fresh").FRESH == 2
    assert load("sub.added").B == "b"
    assert load("newpack.inner").Q == "pq"
    assert load("bare.thing").T == "t"


@pytest.mark.parametrize("name", ["plain", "sub.deep", "fresh", "newpack", "newpack.inner"])
def test_only_what_both_have_is_wrapped(finder: OverlayFinder, name: str) -> None:
    assert type(load(name).__spec__.loader) is SourceFileLoader


@pytest.mark.parametrize("name", ["", "mod", "sub"])
def test_what_both_have_is_wrapped(finder: OverlayFinder, name: str) -> None:
    spec = load(name).__spec__
    assert isinstance(spec.loader, OverlayLoader)
    assert Path(spec.origin).is_relative_to(Path(finder.folder).parent / "site")


@pytest.mark.parametrize("name", ["json", "os.path", TOY + "es", TOY + "es.mod", "mod"])
def test_names_outside_the_package_are_left_alone(finder: OverlayFinder, name: str) -> None:
    assert finder.find_spec(name) is None


def test_unknown_submodule_is_not_found(finder: OverlayFinder) -> None:
    with pytest.raises(ModuleNotFoundError, match=rf"^No module named '{TOY}\.nothing'$"):
        load("nothing")


def test_reload_runs_both_files_again(finder: OverlayFinder) -> None:
    mod = load("mod")
    mod.f = mod.stock_f = None
    (Path(finder.folder) / "mod.py").write_text(OVERLAY["mod.py"].replace("+ 10", "+ 1000"))
    assert importlib.reload(mod) is mod
    assert (mod.stock_f(), mod.f()) == (1, 1001)  # once over upstream's, not over our own
    assert importlib.reload(load()).TRACE == ["upstream", "overlay"]


def test_sources_and_resources(finder: OverlayFinder) -> None:
    mod = load("mod")
    assert inspect.getsource(mod.h) == "def h():\n    return 'upstream only'\n"
    assert inspect.getsource(mod.f) == "def f():\n    return stock_f() + 10\n"
    assert inspect.getsource(mod) == UPSTREAM["mod.py"]
    assert importlib.resources.files(TOY).joinpath("note.txt").read_text() == "a resource"
    assert pkgutil.get_data(TOY, "note.txt") == b"a resource"
    assert {m.name for m in pkgutil.iter_modules(load().__path__)} >= {"mod", "plain", "fresh", "sub", "newpack"}


def test_other_import_errors_pass_unchanged(finder: OverlayFinder) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'there_is_no_such_module'$"):
        load("broken")


def test_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toychest").mkdir()  # as the root's `ultralytics/`: a folder of that name is not the package
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("toychest", "toychest_absent"):
        monkeypatch.setattr(sys, "meta_path", [OverlayFinder(str(tmp_path), package=name), *sys.meta_path])
        with pytest.raises(ModuleNotFoundError, match=rf"'{name}' is not installed .*pip install ") as caught:
            importlib.import_module(name)
        assert caught.value.name == name


def test_install_happens_once() -> None:
    before = list(sys.meta_path)
    assert sum(isinstance(f, OverlayFinder) for f in before) == 1
    ultralytics_overlay.install()
    assert sys.meta_path == before


def test_install_refuses_when_too_late_or_without_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ultralytics" in sys.modules
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, OverlayFinder)])
    with pytest.raises(ImportError, match="imported before"):
        ultralytics_overlay.install()
    monkeypatch.setattr(ultralytics_overlay, "FOLDER", "")
    with pytest.raises(ImportError, match="reinstall"):
        ultralytics_overlay.install()
    monkeypatch.setenv("ULTRALYTICS_OVERLAY", "0")
    ultralytics_overlay.install()
    assert not any(isinstance(f, OverlayFinder) for f in sys.meta_path)


def test_finder_is_first_at_start_and_nothing_heavy_is_loaded(run: Run, tmp_path: Path) -> None:
    code = "import json, sys; print(json.dumps([type(sys.meta_path[0]).__name__, sorted(sys.modules)]))"
    first, modules = json.loads(run("-c", code, cwd=tmp_path).stdout)
    assert first == "OverlayFinder"
    assert "ultralytics_overlay" in modules
    assert not {"torch", "ultralytics", "numpy"} & set(modules)


def test_start_costs_less_than_5_ms(run: Run, tmp_path: Path) -> None:
    cached = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}  # compiled by the first run
    microseconds = []
    for _ in range(5):
        done = run("-X", "importtime", "-c", "", cwd=tmp_path, **cached)
        found = re.findall(r"import time: +\d+ \| +(\d+) \| +ultralytics_overlay$", done.stderr, re.MULTILINE)
        assert len(found) == 1
        microseconds.append(int(found[0]))
    assert min(microseconds) < 5000


STATE = """
import sys
import ultralytics.nn.modules as modules
from ultralytics.utils import DEFAULT_CFG_DICT
finders = [f for f in sys.meta_path if type(f).__name__ == "OverlayFinder"]
print(len(finders), hasattr(modules, "DWR"), "nwd" in DEFAULT_CFG_DICT, flush=True)
"""
STATE_OF_BOTH = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1]], check=True)\n" + STATE


@pytest.mark.parametrize(("switch", "state"), [({}, "1 True True"), ({"ULTRALYTICS_OVERLAY": "0"}, "0 False False")])
def test_switch_holds_for_a_process_and_its_children(run: Run, tmp_path: Path, switch: dict, state: str) -> None:
    done = run("-c", STATE_OF_BOTH, STATE, cwd=tmp_path, **switch)
    assert done.stdout.splitlines()[-2:] == [state, state], done.stderr


@pytest.mark.parametrize("where", ["root", "elsewhere"])
def test_python_m_sees_the_overlay(run: Run, root: Path, tmp_path: Path, where: str) -> None:
    cwd = {"root": root, "elsewhere": tmp_path}[where]
    done = run("-m", "ultralytics.cfg.__init__", "nwdd=1", cwd=cwd)
    assert done.returncode == 1
    assert "'nwdd' is not a valid YOLO argument. Similar arguments are i.e. ['nwd'" in remove_colorstr(done.stderr)
    done = run("-m", "ultralytics.cfg.__init__", "nwdd=1", cwd=cwd, ULTRALYTICS_OVERLAY="0")
    assert "'nwdd' is not a valid YOLO argument." in remove_colorstr(done.stderr)
    assert "['nwd'" not in done.stderr


WORKERS = """
import multiprocessing
from torch.utils.data import DataLoader, Dataset

def probe(connection=None):
    import ultralytics.nn.modules.dwr as dwr
    name = dwr.DWR.__module__
    return connection.send(name) if connection else name

class Probe(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return probe() + " " + multiprocessing.current_process().name

if __name__ == "__main__":
    print(*next(iter(DataLoader(Probe(), num_workers=1, multiprocessing_context="spawn"))))
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=probe, args=(send,))
    process.start()
    print(receive.recv() if receive.poll(60) else "nothing")
    process.join()
"""


def test_spawned_workers_see_the_overlay(run: Run, tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    done = run("workers.py", cwd=tmp_path)
    loader, process = done.stdout.splitlines()
    name, worker = loader.split()
    assert name == process == "ultralytics.nn.modules.dwr", done.stderr
    assert worker != "MainProcess"


@pytest.fixture(scope="module")
def wheel(run: Run, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    done = run("-m", "pip", "wheel", *options, "-w", folder, root, cwd=folder)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_overlay_beside_upstream(wheel: Path, root: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith("ultralytics/")]  # it would overwrite upstream's
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "ultralytics_overlay",
        "ultralytics_overlay.pth",
    }
    ours = {
        p.relative_to(root).as_posix()
        for p in (root / "ultralytics").rglob("*")
        if p.suffix in {".py", ".yaml", ".html"}
    }
    inside = "ultralytics_overlay/"
    assert {n.removeprefix(inside) for n in names if n.startswith(f"{inside}ultralytics/")} == ours


FROM_WHEEL = """
import json, sys
import ultralytics_overlay
from ultralytics.nn.modules import DWR, DualConv
from ultralytics.nn.tasks import DetectionModel
files = [sys.modules[DWR.__module__].__file__, ultralytics_overlay.__file__, ultralytics_overlay.FOLDER]
model = DetectionModel("yolo11n-smallob.yaml", verbose=False)
print(json.dumps([files, sum(isinstance(m, DualConv) for m in model.modules()), model.stride.tolist()]))
"""


def test_wheel_in_a_fresh_environment(run: Run, wheel: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    assert run("-m", "venv", fresh, cwd=tmp_path).returncode == 0
    scripts = fresh / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / "python"
    options = ("--no-deps", "--no-index", "--disable-pip-version-check")
    done = run("-m", "pip", "install", *options, wheel, cwd=tmp_path, program=python)
    assert done.returncode == 0, done.stderr
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run("-c", where, cwd=tmp_path, program=python).stdout.strip())
    assert (site / "ultralytics_overlay.pth").is_file()
    # The dependencies of this environment, without its editable install of this project.
    (site / "outer.pth").write_text("\n".join(path for path in sys.path if Path(path).name.endswith("-packages")))
    done = run("-c", FROM_WHEEL, cwd=tmp_path, program=python)
    assert done.returncode == 0, done.stderr
    files, strides_by_dualconv, strides = json.loads(done.stdout.splitlines()[-1])
    assert all(Path(file).is_relative_to(site) for file in files), files
    assert strides_by_dualconv == 7
    assert strides == [4, 8, 16, 32]


def rename(old: str, new: str, *names: str, within: str = "") -> dict:
    return {"old": old, "new": new, "names": names, "within": within}


# What changes upstream, and the name that the error must give.
MOVES = {
    "set of modules": (rename("base_modules", "width_modules", "nn/tasks.py"), "parse_model", "base_modules"),
    "parameter of the box loss": (
        rename("stride", "strides", "utils/loss.py", within="class BboxLoss"),
        "ultralytics.utils.loss.BboxLoss.forward",
        "'stride'",
    ),
    "box loss": (rename("BboxLoss", "BoxLoss", "utils/loss.py"), "ultralytics.utils.loss", "'BboxLoss'"),
    "parameter of get_save_dir": (
        rename("args", "run", "cfg/__init__.py", within="def get_save_dir"),
        "ultralytics.cfg.get_save_dir",
        "'args'",
    ),
    "parameter of the trainer's loader": (
        rename("mode", "split", "models/yolo/detect/train.py", within="    def get_dataloader"),
        "DetectionTrainer.get_dataloader",
        "'mode'",
    ),
    "method of the trainer": (
        rename("get_dataloader", "make_loader", "engine/trainer.py", "models/yolo/detect/train.py"),
        "DetectionTrainer",
        "get_dataloader",
    ),
    "block": (
        rename("C3k2", "C3kTwo", "nn/modules/block.py", "nn/modules/__init__.py", "nn/tasks.py"),
        "ultralytics.nn.modules.block",
        "'C3k2'",
    ),
    "method of the reader of videos": (
        rename("_new_video", "_open", "data/loaders.py"),
        "LoadImagesAndVideos",
        "_new_video",
    ),
    "nothing": (rename("", ""), "", ""),
}
IMPORT_ALL = """
import ultralytics
assert ultralytics.__file__.startswith(__import__("os").getcwd()), ultralytics.__file__
try:
    from ultralytics import YOLO
    from ultralytics.models.yolo.detect import DetectionTrainer
except ImportError as error:
    print(type(error).__name__, error, sep="\\n")
else:
    print("imported")
"""


def apply(move: dict, package: Path) -> None:
    for name in move["names"]:
        path = package / name
        text = path.read_text(encoding="utf-8")
        start = text.index(f"\n{move['within']}") if move["within"] else 0
        end = re.compile(r"^(class|def|@)", re.MULTILINE).search(text, start + 2) if move["within"] else None
        stop = end.start() if end else len(text)
        changed, count = re.subn(rf"\b{move['old']}\b", move["new"], text[start:stop])
        assert count, name
        path.write_text(text[:start] + changed + text[stop:], encoding="utf-8")


@pytest.fixture(scope="module")
def reports(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return what an import of each changed upstream prints."""
    upstream = Path(ultralytics.__file__).parent

    def ignore(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if (Path(folder) / n).is_file() and Path(n).suffix not in {".py", ".yaml"}]

    def report(case: str) -> list[str]:
        folder = tmp_path_factory.mktemp("upstream")
        apply(MOVES[case][0], Path(shutil.copytree(upstream, folder / "ultralytics", ignore=ignore)))
        done = run("-c", IMPORT_ALL, cwd=folder, PYTHONPATH=str(folder))
        return (done.stdout or done.stderr).splitlines()

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MOVES, pool.map(report, MOVES), strict=True))


@pytest.mark.parametrize("case", MOVES)
def test_upstream_of_another_shape_is_refused(reports: dict[str, list[str]], root: Path, case: str) -> None:
    _, *names = MOVES[case]
    if case == "nothing":
        assert reports[case] == ["imported"]
        return
    kind, message = reports[case]  # one line
    assert kind == UpstreamMismatch.__name__
    assert issubclass(UpstreamMismatch, ImportError)
    assert f"ultralytics {importlib.metadata.version('ultralytics')} is installed" in message
    supported = re.search(r'"ultralytics(>=[\d.]+),(<[\d.]+)"', (root / "pyproject.toml").read_text())
    assert supported is not None
    for part in (*supported.groups(), *names):
        assert part in message
