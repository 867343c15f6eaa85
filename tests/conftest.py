import atexit
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.helpers.command_server import Server
from tests.helpers.common import Run

# Upstream reads these when it is first imported: its settings lie in a folder of this run, and nothing is downloaded.
_config = Path(tempfile.mkdtemp(prefix="yolo-config-"))
atexit.register(shutil.rmtree, _config, ignore_errors=True)
os.environ.update(YOLO_CONFIG_DIR=str(_config), YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="true")
_matplotlib = importlib.util.find_spec("matplotlib")
assert _matplotlib is not None and _matplotlib.origin is not None
(_config / "Ultralytics").mkdir()
shutil.copy(  # a missing Arial.ttf would be downloaded
    Path(_matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", _config / "Ultralytics/Arial.ttf"
)


SLOW = {  # files in which all tests take seconds; others mark single tests
    "test_commands.py", "test_wheel.py", "test_compat.py", "test_faults.py", "test_distributed.py",
    "test_fuzz.py", "test_compare.py", "test_modes.py", "test_export.py", "test_sliced_prediction.py", "test_docs.py",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they need; start with the slow files, so that no process is left with one at the end."""
    for item in items:
        if item.path.name in SLOW:
            item.add_marker("slow")
        if item.path.parent.name == "batch":
            item.add_marker("ray")
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
    items.sort(key=lambda item: not {"slow", "ray"} & {mark.name for mark in item.iter_markers()})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape file names that are not UTF-8 in a test's output: pytest-xdist can't send them."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def run() -> Run:
    """Return a function that runs a program, by default this Python, and returns what it wrote."""

    def call(
        *args: str | Path, cwd: Path, program: str | Path = sys.executable, **env: str
    ) -> subprocess.CompletedProcess[str]:
        mine = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "ULTRALYTICS_OVERLAY"}}
        mine = {k: v for k, v in mine.items() if not k.startswith("PYTEST_")} | env
        return subprocess.run(
            [str(program), *map(str, args)], cwd=cwd, env=mine, capture_output=True, text=True, timeout=300
        )

    return call


@pytest.fixture(scope="session")
def server() -> Server:
    """Return a runner of `yolo`, `small-object` and Python commands that saves the seconds of importing PyTorch."""
    return Server()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Keep to one thread: the models are tiny, and threads that wait for each other are slow on a busy machine."""
    import torch  # here, after the environment above is set

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
