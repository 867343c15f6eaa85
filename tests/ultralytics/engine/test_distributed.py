"""Training on several GPUs as upstream starts it, with two processes on the CPU instead of the GPUs."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.engine import trainer
from ultralytics.utils import YAML

from benchmarks.common import ROOT
from tests.helpers.common import read_csv, write_data
from tests.helpers.ddp_on_cpu import Record

MODEL = ROOT / "ultralytics/cfg/models/11/yolo11.yaml"
SMALL = {"imgsz": 64, "batch": 4, "workers": 0, "amp": False, "deterministic": True}


def train(model: Path, folder: Path, seen: Record, **options: Any) -> YOLO:
    """Train on the devices 0 and 1 through the public interface; upstream starts a process for each."""
    folder.mkdir(exist_ok=True)
    seen.folder.mkdir()
    it = YOLO(model)
    seen.add_to(it)
    it.train(device="0,1", **options)
    return it


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"seen{rank}.json").read_text()) for rank in (0, 1)]


def assert_equal_models(folder: Path) -> None:
    """Compare the two processes' weights, and their averages with buffers, which upstream shares before validations."""
    first, second = (torch.load(folder / f"state{rank}.pt") for rank in (0, 1))
    parameters = [name for name in first["model"] if not re.search(r"running_|num_batches", name)]
    assert len(parameters) > 100
    assert all(torch.equal(first["model"][name], second["model"][name]) for name in parameters)
    assert any(not torch.equal(first["model"][name], second["model"][name]) for name in first["model"]), "own images"
    assert all(torch.equal(value, second["ema"][name]) for name, value in first["ema"].items())


def validate_alone(run: Path, data: Path, folder: Path, fed: bool, **options: Any) -> dict[str, Any]:
    """Validate the best weights of a run in this process; return what was seen."""
    seen, model = Record(folder, fed=fed), YOLO(run / "weights/best.pt")
    seen.add_to(model)
    options |= {"imgsz": 64, "batch": 4, "device": "cpu", "workers": 0, "project": str(folder), "name": "one"}
    model.val(data=str(data), **options)
    return json.loads(json.dumps(seen.seen, default=float))


def rows(run: Path) -> list[int]:
    return [int(row["epoch"]) for row in read_csv(run / "results.csv")]


@pytest.fixture(scope="module", autouse=True)
def two_gpus() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "select_device", lambda *args, **kwargs: torch.device("cuda:0"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "set", ("a", "b"), {"train": 6, "val": 5})


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two epochs; return the folder of the run `run` and of what was seen."""
    folder = tmp_path_factory.mktemp("plain")
    options = {"data": str(data), "epochs": 2, "nwd": 0.3, "project": str(folder), "name": "run", "mosaic": 0.0}
    train(MODEL, folder, Record(folder / "seen", fed=True), **SMALL, **options)
    return folder


def test_each_process_trains_the_fork_with_our_arguments(plain: Path) -> None:
    for seen in told(plain / "seen"):
        assert (seen["backend"], seen["world"], seen["kind"]) == ("gloo", 2, "DistributedDataParallel")
        assert seen["args"]["nwd"] == 0.3
        # every box is 30x20 px in an image whose longer side is scaled to 64
        assert seen["nwd_c"] == pytest.approx(np.sqrt(30 * 20) * 64 / 96, rel=1e-4)
    assert YAML.load(plain / "run/args.yaml")["nwd"] == 0.3
    model = YOLO(plain / "run/weights/best.pt").model
    assert model.object_size == pytest.approx(np.sqrt(30 * 20), rel=1e-4)  # which `slice=auto` asks for
    assert type(model.model[-1]).__name__ == "LightDetect"
    assert_equal_models(plain / "seen")


def test_each_process_has_its_share_of_the_images(plain: Path) -> None:
    seen = told(plain / "seen")
    assert seen[0]["random"] != seen[1]["random"]
    first, second = ([[i for at, i in own["samples"] if at == epoch] for epoch in (0, 1)] for own in seen)
    for epoch in (0, 1):
        assert len(first[epoch]) == len(second[epoch]) == 3
        assert sorted(first[epoch] + second[epoch]) == list(range(6))
    assert first[0] != first[1] or second[0] != second[1]


def test_the_first_process_alone_writes(plain: Path) -> None:
    first, second = told(plain / "seen")
    assert first["saved"] == [[0, ["best.pt", "last.pt"]], [1, ["best.pt", "last.pt"]]], "none is left half-written"
    assert second["saved"] == []
    assert sorted(file.name for file in (plain / "run/weights").iterdir()) == ["best.pt", "last.pt"]
    assert rows(plain / "run") == [1, 2]
    assert (plain / "run/size_metrics.png").is_file()


def test_two_processes_validate_as_one(plain: Path, data: Path, tmp_path: Path) -> None:
    first, _ = told(plain / "seen")
    assert len(first["validations"]) == 3  # after each epoch, and at the end
    alone = validate_alone(plain / "run", data, tmp_path, fed=True, plots=True)
    one = alone["validations"][-1]
    assert np.sum(one["matrix"]) > 5
    assert first["validations"][-1] == one and first["boxes"] == alone["boxes"]
    assert one["images"] == 5 and 0.1 < one["results"]["metrics/mAP50(B)"] < 1
    assert 0 < one["results"]["metrics/AP_small(B)"] < 1


@pytest.fixture(scope="module")
def sliced(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on slices; kill the first process in the second epoch's checkpoint, then in the last validation."""
    folder = tmp_path_factory.mktemp("sliced")
    options = {"data": str(data), "epochs": 3, "slice": 64, "mosaic": 0.0, "plots": False, "optimizer": "SGD"}
    options |= {"project": str(folder), "name": "run", "slice_full_ratio": 0.0, "slice_empty": 0.0}
    last = folder / "run/weights/last.pt"
    with pytest.raises(subprocess.CalledProcessError):
        train(MODEL, folder, Record(folder / "killed", kill=1), **SMALL, **options)
    assert rows(folder / "run") == [1, 2]
    staged, *files = sorted(file.name for file in last.parent.iterdir())
    assert staged.startswith(".staging-") and files == ["best.pt", "last.pt"]
    assert torch.load(last, weights_only=False)["epoch"] == 0
    with pytest.raises(subprocess.CalledProcessError):
        train(last, folder, Record(folder / "resumed", kill="at the end"), resume=True)
    assert torch.load(last, weights_only=False)["epoch"] == 2
    train(last, folder, Record(folder / "ended"), resume=True)
    return folder


def test_a_resumed_run_starts_after_the_last_checkpoint(sliced: Path) -> None:
    assert rows(sliced / "run") == [1, 2, 3]
    assert [epoch for epoch, _ in told(sliced / "resumed")[0]["saved"]] == [1, 2]
    for seen in told(sliced / "resumed"):
        assert seen["args"]["slice"] == 64
    assert_equal_models(sliced / "killed")
    assert_equal_models(sliced / "resumed")


def test_tiles_of_all_processes_are_counted(sliced: Path, data: Path, tmp_path: Path) -> None:
    one = validate_alone(sliced / "run", data, tmp_path, fed=False, plots=False, slice=64)
    first, second = told(sliced / "ended")
    assert first["samples"] == second["samples"] == first["saved"] == [], "only the validation was left"
    assert sorted(file.name for file in (sliced / "run/weights").iterdir()) == ["best.pt", "last.pt"]
    assert one["validations"][0]["tiles"] == [20, 0], "4 of each image"
    assert (first["validations"], first["boxes"]) == (one["validations"], one["boxes"])
    assert all(found for _, found in first["boxes"])
