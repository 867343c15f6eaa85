"""Training, validation and prediction on a stand-in for a GPU, which fails where an operation mixes devices."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from benchmarks.common import ROOT
from tests.helpers.common import HEADS, QUICK, Run, build_detector, draw_blocks, write_data

SOURCE = ROOT / "tests/helpers/cuda.c"
SLICED = {"imgsz": 64, "slice": 128, "conf": 0.01, "verbose": False}


def mix(folder: Path) -> None:
    on_gpu, on_cpu = torch.ones(2, device="cuda:0"), torch.ones(2)
    assert (on_gpu + on_cpu.to(on_gpu.device)).tolist() == [2, 2]
    for wrong in (lambda: on_gpu + on_cpu, lambda: torch.cat((on_cpu, on_gpu)), lambda: on_cpu[on_gpu > 0]):
        with pytest.raises(RuntimeError, match="same device"):
            wrong()
    with pytest.raises(RuntimeError, match="numpy"):
        on_gpu.numpy()


def predict(folder: Path) -> None:
    image = draw_blocks(300, 200, 20, 20)
    for task in HEADS:
        model, found = build_detector(folder, 2, task=task), []
        for device in ("cuda:0", "cpu"):
            result = model.predict(image, device=device, slice_skip=0.001, **SLICED)[0]
            boxes = result.obb if task == "obb" else result.boxes
            assert boxes.data.device == torch.device(device)
            found.append(boxes.data.cpu())
        assert torch.allclose(*found, atol=1e-3) and len(found[0]) > 100, task


def train(folder: Path) -> None:
    data = write_data(folder / "data", ("thing",), {"train": 4, "val": 2})
    for name, options in {"yolo11n-light-smallob": {"slice": 64}, "yolo11n-hsfpn-dwr-smallob": {"paste": 1}}.items():
        model = YOLO(f"{name}.yaml")
        options |= {"nwd": 0.5, "nwd_assign": 0.5, "head_init": True, "amp": False, "project": str(folder)}
        model.train(data=str(data), **QUICK | options | {"device": 0})
        assert next(model.trainer.model.parameters()).device == torch.device("cuda:0")
        model.val(data=str(data), device=0, plots=False, project=str(folder), **SLICED | {"slice": 64})


@pytest.mark.skipif(
    sys.platform != "linux" or not torch.version.cuda or not shutil.which("cc"),
    reason="needs PyTorch for CUDA on Linux, and cc",
)
@pytest.mark.parametrize("work", [mix, predict, train])
def test_on_a_gpu(work: Callable[[Path], None], tmp_path: Path, run: Run) -> None:
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, SOURCE], check=True)
    code = (
        f"from tests.helpers.gpu import install; install(); import {__name__} as it; it.{work.__name__}(it.Path('.'))"
    )
    done = run("-c", code, cwd=tmp_path, LD_PRELOAD=str(library), PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr[-2000:]
