"""Files that a training writes for stock Ultralytics."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from ultralytics import YOLO

from small_object.arguments import DEFAULTS
from tests.helpers.common import QUICK, STOCK_MODEL, write_data


@pytest.mark.slow
def test_stock_resumes_a_stock_model_and_takes_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "stock.yaml").write_text(STOCK_MODEL.format(1))
    data = write_data(tmp_path / "set", ("a",), {"train": 4, "val": 2})
    model = YOLO(tmp_path / "stock.yaml")
    model.add_callback("on_fit_epoch_end", lambda trainer: setattr(trainer, "stop", trainer.epoch == 0))
    options = QUICK | {"data": str(data), "epochs": 2, "nbs": 4}
    saved = []
    model.add_callback("on_model_save", lambda trainer: saved.append(trainer.last.read_bytes()))
    model.train(**options, project=str(tmp_path), name="run", slice_overlap=0.3)
    arguments = yaml.safe_load((tmp_path / "run/args.yaml").read_text())
    assert DEFAULTS.keys() & arguments == {"slice_overlap"}  # which is not at its default
    model.train(**options, project=str(tmp_path), name="plain")
    (tmp_path / "plain/weights/last.pt").write_bytes(saved[-1])  # as if it had been killed after the first epoch
    assert not DEFAULTS.keys() & torch.load(tmp_path / "plain/weights/last.pt", weights_only=False)["train_args"]
    code = """
from ultralytics import YOLO
YOLO("plain/weights/last.pt").train(resume=True)
assert len(open("plain/results.csv").readlines()) == 3
YOLO("stock.yaml").train(cfg="plain/args.yaml", epochs=1, resume=False)
"""
    environment = os.environ | {"ULTRALYTICS_OVERLAY": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
