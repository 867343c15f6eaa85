from __future__ import annotations

import atexit
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from packaging.version import Version

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

TINY_MODEL = """
nc: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, DualConv, [16, 2]]
  - [-1, 1, C3k2DWR, [16, False]]
  - [-1, 1, DualConv, [16, 2]]
head:
  - [[2, 3], 1, Detect, [nc]]
"""
"""A model YAML of our blocks that trains in a moment; a data set's number of classes takes the place of `nc`."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def upstream_before(version: str) -> bool:
    """Return whether the installed version of upstream is older than `version`."""
    return Version(importlib.metadata.version("ultralytics")) < Version(version)


def write_data(folder: Path, names: tuple[str, ...], images: dict[str, int]) -> Path:
    """Write a data set of 96x72 px images with one bright rectangle each; return its YAML."""
    rng = np.random.default_rng(len(names))
    for split, count in images.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 60, (72, 96, 3), dtype=np.uint8)
            x, y = rng.integers(4, 40, 2)
            image[y : y + 20, x : x + 30] = 220
            cv2.imwrite(str(folder / f"images/{split}/{i}.png"), image)
            label = f"{i % len(names)} {(x + 15) / 96:.6f} {(y + 10) / 72:.6f} {30 / 96:.6f} {20 / 72:.6f}\n"
            (folder / f"labels/{split}/{i}.txt").write_text(label)
    file = folder / f"{folder.name}.yaml"
    file.write_text(f"train: images/train\nval: images/val\nnames: {list(names)}\n")
    return file


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


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Keep to one thread: the models are tiny, and threads that wait for each other are slow on a busy machine."""
    import torch  # here, after the environment above is set

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
