"""Where the shares of the NWD in the box loss and in the assignment, and its scale, come from."""

import copy
from pathlib import Path

import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel, torch_safe_load
from ultralytics.utils import YAML
from ultralytics.utils.loss import BboxLoss, RotatedBboxLoss
from ultralytics.utils.tal import RotatedTaskAlignedAssigner, TaskAlignedAssigner

from tests.helpers.common import QUICK, TINY_MODEL, build_batch, write_data, write_tree

CLASSES = 3


@pytest.fixture(scope="module")
def built() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel("yolo11n.yaml", nc=CLASSES, verbose=False)


def with_arguments(model: torch.nn.Module, keys: dict | None = None, **arguments) -> torch.nn.Module:
    """Return a copy of the model with keys in its YAML and with training arguments."""
    model = copy.deepcopy(model)
    model.args = get_cfg(overrides=arguments)
    model.yaml |= keys or {}
    return model


@pytest.mark.parametrize("key", ["nwd", "nwd_assign"])
@pytest.mark.parametrize(
    ("in_yaml", "argument", "expected"),
    [(0.5, None, 0.5), (0.5, 0.2, 0.2), (0.5, 0.0, 0), (None, None, 0), (None, 0.7, 0.7), (0, 1, 1)],
)
def test_share_comes_from_the_argument_then_the_yaml(built, key, in_yaml, argument, expected):
    criterion = with_arguments(built, {key: in_yaml}, **{key: argument}).init_criterion()
    shares = {"nwd": criterion.bbox_loss.nwd, "nwd_assign": criterion.assigner.nwd_assign}
    assert shares == {"nwd": 0, "nwd_assign": 0} | {key: expected}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(DetectionModel, "yolo26n.yaml"), (SegmentationModel, "yolo11n-seg.yaml"), (PoseModel, "yolo11n-pose.yaml")],
)
def test_losses_of_other_models(kind, name):
    criterion = with_arguments(kind(name, nc=CLASSES, verbose=False), nwd=0.4, nwd_assign=0.5, nwd_c=6).init_criterion()
    for part in (criterion.one2many, criterion.one2one) if name == "yolo26n.yaml" else (criterion,):
        assert (type(part.bbox_loss), part.bbox_loss.nwd, part.bbox_loss.nwd_c) == (BboxLoss, 0.4, 6)
        assert (type(part.assigner), part.assigner.nwd_assign, part.assigner.nwd_c) == (TaskAlignedAssigner, 0.5, 6)


def test_loss_of_rotated_boxes_is_left_alone():
    model = OBBModel("yolo11n-obb.yaml", nc=CLASSES, verbose=False)
    values = []
    for share in (0.0, 1.0):
        model.args = get_cfg(overrides={"nwd": share, "nwd_assign": share})
        model.criterion = model.init_criterion()
        assert type(model.criterion.assigner) is RotatedTaskAlignedAssigner
        assert type(model.criterion.bbox_loss) is RotatedBboxLoss
        with torch.no_grad():
            values.append(model.eval().loss(build_batch("obb"))[0])
    assert torch.equal(*values)
    assert values[0][0] > 0


@pytest.mark.parametrize(("dtype", "objects"), [(torch.float32, 0), (torch.bfloat16, 4), (torch.float16, 4)])
def test_loss_under_autocast_and_without_objects(built, dtype, objects):
    model = with_arguments(built, nwd=0.5, nwd_assign=0.5).train()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        total, _ = model.loss(build_batch(objects=objects))
    total.sum().backward()
    assert total.isfinite().all()
    assert (total[0] > 0) == bool(objects)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


MEAN_SIZE = (30 * 20) ** 0.5 * 64 / 96  # of the boxes of `write_data`, in images whose longer side is scaled to 64


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_data(tmp_path / "set", ("plane", "truck"), {"train": 4, "val": 2})


def build_trainer(dataset: Path, **arguments) -> DetectionTrainer:
    write_tree(dataset.parent, {"tiny.yaml": TINY_MODEL})
    overrides = {"model": str(dataset.with_name("tiny.yaml")), "data": str(dataset), "amp": False}
    return DetectionTrainer(overrides=QUICK | overrides | {"project": str(dataset.parent / "runs")} | arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({"nwd": 0.5}, MEAN_SIZE), ({"nwd": 0.5, "nwd_c": 7}, 7), ({}, None), ({"nwd": 0.5, "rect": True}, MEAN_SIZE)],
)
def test_trainer_sets_the_scale(dataset, arguments, expected):
    trainer = build_trainer(dataset, **arguments)
    trainer._setup_train()
    models = trainer.model, trainer.ema.ema
    assert [getattr(model, "nwd_c", None) for model in models] == [expected and pytest.approx(expected, rel=1e-5)] * 2


def test_training_with_nwd_in_the_assignment_alone(dataset, caplog):
    trainer, seen = build_trainer(dataset, nwd_assign=0.25), []
    trainer.add_callback("on_val_end", lambda _: seen.append(trainer.ema.ema.criterion))
    trainer.add_callback("on_fit_epoch_end", lambda t: seen.extend([t.model.criterion, t.ema.ema.criterion]))
    trainer.train()
    assert len(seen) >= 2
    for criterion in seen:  # of the model in training and of the averaged one, whose loss the validation reports
        assert (criterion.assigner.nwd_assign, criterion.assigner.nwd_c) == (0.25, pytest.approx(MEAN_SIZE, rel=1e-5))
        assert criterion.bbox_loss.nwd == 0
    (line,) = [record.getMessage() for record in caplog.records if "NWD:" in record.getMessage()]
    assert f"share 0.25 of the assignment of small objects, C = {MEAN_SIZE:.2f} px (the mean size of the" in line
    assert "box loss" not in line
    assert YAML.load(trainer.save_dir / "args.yaml")["nwd_assign"] == 0.25
    checkpoint, _ = torch_safe_load(trainer.last, safe_only=True)  # refuses classes that upstream does not know
    assert checkpoint["train_args"]["nwd_assign"] == 0.25
