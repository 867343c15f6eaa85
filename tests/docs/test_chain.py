"""The published commands, one after the other, on data of a few tiny images."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.common import write_data

ROOT = Path(__file__).resolve().parents[2]
YOLO11 = "ultralytics/cfg/models/11/yolo11.yaml"
SMALL = ("epochs=1", "imgsz=64", "batch=2", "device=cpu", "plots=False", "seed=0")


def run(folder: Path, *command: str, **environment: str) -> str:
    """Run a command in a folder and return what it printed; fail where it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Run the five published commands, made small; return the folder and what each of them printed."""
    folder = tmp_path_factory.mktemp("chain")
    write_data(folder / "datasets/ASS1", ("airplane", "person", "truck"), {"train": 4, "val": 2})
    write_data(folder / "datasets/ASS2", ("airplane", "truck"), {"train": 4, "val": 2})
    for script in ("predict1.py", "predict2.py"):
        shutil.copy(ROOT / script, folder)
    yolo = str(Path(sys.executable).with_name("yolo"))
    train = (yolo, "detect", "train", f"model={YOLO11}")
    ass1, ass2 = ("data=datasets/ASS1/ASS1.yaml", "data=datasets/ASS2/ASS2.yaml")
    first, second = "runs/ASS1/yolo11n/weights/best.pt", "runs/ASS2/yolo11n/weights/best.pt"
    printed = [
        run(folder, *train, ass1, *SMALL, "pretrained=False", "project=runs/ASS1", "name=yolo11n"),
        run(folder, *train, ass2, *SMALL, f"pretrained={first}", "project=runs/ASS2", "name=yolo11n"),
        run(folder, yolo, "detect", "val", f"model={second}", ass2, "imgsz=64", "project=runs/val", "name=ASS2_val"),
        run(folder, sys.executable, "predict1.py"),
        run(folder, sys.executable, "predict2.py"),
    ]
    return folder, printed


def test_runs_lie_where_the_commands_put_them(chain: tuple[Path, list[str]]) -> None:
    folder, _ = chain
    assert {path.name for path in (folder / "runs").iterdir()} == {"ASS1", "ASS2", "val", "predict"}
    assert (folder / "runs/ASS1/yolo11n/weights/best.pt").is_file()
    assert (folder / "runs/val/ASS2_val").is_dir()
    for data in ("ASS1", "ASS2"):
        saved = sorted(path.name for path in (folder / "runs/predict" / data / "yolo11n").iterdir())
        assert [Path(name).stem for name in saved] == ["0", "1"]


def test_the_trained_model_is_ours_and_mixes_nwd(chain: tuple[Path, list[str]]) -> None:
    folder, printed = chain
    state = torch.load(folder / "runs/ASS1/yolo11n/weights/best.pt", weights_only=False)
    blocks = [type(module).__name__ for module in state["model"].modules()]
    assert (blocks.count("ScreeningFusion"), blocks.count("LightDetect")) == (3, 1)
    size = np.sqrt(30 * 20) * 64 / 96  # every box is 30x20 px in an image whose longer side is scaled to 64
    shares = "share 0.5 of the box loss and share 0.5 of the assignment of small objects"
    assert f"{shares}, C = {size:.2f} px" in printed[0]
    assert "nwd" not in (folder / "runs/ASS1/yolo11n/args.yaml").read_text()


def test_fine_tuning_takes_every_tensor_but_the_class_layers(chain: tuple[Path, list[str]]) -> None:
    folder, printed = chain
    three, two = (
        torch.load(folder / f"runs/{data}/yolo11n/weights/best.pt", weights_only=False)["model"].state_dict()
        for data in ("ASS1", "ASS2")
    )
    differ = [name for name in two if two[name].shape != three[name].shape]
    assert differ
    assert all(re.fullmatch(r"model\.\d+\.cv3\.\d\.2\.(weight|bias)", name) for name in differ)
    taken, of = map(int, re.findall(r"Transferred (\d+)/(\d+) items from pretrained weights", printed[1])[-1])
    assert of == len(two)
    # Upstream also takes the rows of class layers whose class has the same name in both data sets.
    assert taken in {of - len(differ), of}


def test_predict_scripts_print_a_row_for_each_model(chain: tuple[Path, list[str]]) -> None:
    _, printed = chain
    for text, classes in ((printed[3], "airplane  person  truck"), (printed[4], "airplane  truck  full  gained")):
        header = next(line for line in text.splitlines() if line.startswith("model "))
        row = next(line for line in text.splitlines() if line.startswith("yolo11n "))
        assert classes.split() == header.split()[2:-2]
        assert row.split()[1] == "2"


def test_checkpoint_loads_under_restricted_loading(chain: tuple[Path, list[str]]) -> None:
    folder, _ = chain
    code = "from ultralytics import YOLO; print(YOLO('runs/ASS2/yolo11n/weights/best.pt').names)"
    assert "{0: 'airplane', 1: 'truck'}" in run(folder, sys.executable, "-c", code, ULTRALYTICS_SAFE_LOAD="1")
