"""The auxiliary head: YOLO11's own head, which only trains the rest of the model."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG

from small_object.errors import UserError
from small_object.training import fit_to_data
from tests.helpers.common import QUICK, write_data

BACKBONE = [
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "C3k2", [16]],
    [-1, 1, "Conv", [32, 3, 2]],
    [-1, 1, "Conv", [32, 3, 2]],
    [-1, 1, "Conv", [48, 3, 2]],
]
WEIGHT = 0.3


def build(
    head: str = "LightDetect", seed: int = 0, levels: tuple[int, ...] = (2, 3, 4), **keys: object
) -> DetectionModel:
    """Return a model with a head at strides 4, 8 and 16, or at some of them."""
    torch.manual_seed(seed)
    rows = {"backbone": BACKBONE, "head": [[[*levels], 1, head, ["nc"]]]}
    model = DetectionModel({"nc": 2, **rows, **keys}, verbose=False)
    model.args, model.names = SimpleNamespace(**vars(DEFAULT_CFG)), {0: "a", 1: "b"}
    return model


def adopt(model: DetectionModel, other: DetectionModel, prefix: str = "") -> DetectionModel:
    """Give a model the weights of another one; its head takes the branches whose names start with `prefix`."""
    state = {name.replace(f".{prefix}cv", ".cv"): x for name, x in other.state_dict().items() if f".{prefix}cv" in name}
    missing, _ = model.load_state_dict({**other.state_dict(), **state}, strict=False)
    assert not missing
    return model


@pytest.fixture
def model() -> DetectionModel:
    return build(aux_head=WEIGHT)


def test_prediction_is_that_of_the_model_without_it(model: DetectionModel) -> None:
    plain, image = adopt(build(seed=1), model), torch.rand(1, 3, 64, 64)
    assert sum(p.numel() for p in model.parameters()) > 2 * sum(p.numel() for p in plain.parameters())
    torch.testing.assert_close(model.eval()(image)[0], plain.eval()(image)[0], rtol=0, atol=0)
    fused, plain_fused = (deepcopy(each).fuse(verbose=False) for each in (model, plain))
    assert {*fused.state_dict()} == {*plain_fused.state_dict()}
    torch.testing.assert_close(fused(image)[0], plain_fused(image)[0], rtol=0, atol=0)


def test_the_loss_adds_that_of_a_model_with_the_full_head(model: DetectionModel) -> None:
    boxes = torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.7, 0.6, 0.1, 0.1], [0.5, 0.5, 0.6, 0.4]])
    batch = {"img": torch.rand(2, 3, 64, 64), "cls": torch.tensor([0.0, 1, 1]), "batch_idx": torch.tensor([0.0, 0, 1])}
    batch["bboxes"] = boxes
    parts = adopt(build(seed=1), model), adopt(build("Detect", seed=2), model, "aux.")
    total, light, full = (each.train().loss(batch)[0] for each in (model, *parts))
    torch.testing.assert_close(total, light + WEIGHT * full)
    assert full.min() > 0
    total.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_it_starts_as_a_stock_head_does(model: DetectionModel) -> None:
    stock = build("Detect")
    label = {"bboxes": torch.tensor([[0.5, 0.5, 0.25, 0.25]]).numpy(), "shape": (64, 64)}
    model.args.head_init = stock.args.head_init = True
    for each in (model, stock):
        each.args.imgsz, each.args.task = 64, "detect"
    for _ in range(2):
        for name in ("cv2", "cv3"):
            pairs = zip(getattr(model.model[-1].aux, name), getattr(stock.model[-1], name), strict=True)
            assert all(torch.equal(a[-1].bias, b[-1].bias) for a, b in pairs)
        for each in (model, stock):
            fit_to_data(each, SimpleNamespace(labels=[label | {"cls": torch.zeros(1, 1).numpy()}]), each.args)


@pytest.mark.parametrize("names", [{0: "a", 1: "b"}, {0: "b", 1: "a"}])
@pytest.mark.parametrize("levels", [(3, 4), (2, 3, 4)])
def test_it_takes_the_weights_of_a_stock_head(
    names: dict[int, str], levels: tuple[int, ...], model: DetectionModel
) -> None:
    stock = build("Detect", seed=3, levels=levels)
    stock.names = names
    model.load(stock, verbose=False)
    check_aux(model, names, stock.model[-1], missing=3 - len(levels))


@pytest.mark.parametrize("names", [{0: "a", 1: "b"}, {0: "b", 1: "a"}])
def test_it_takes_the_weights_of_another_one(names: dict[int, str], model: DetectionModel) -> None:
    other = build(aux_head=WEIGHT, seed=3)
    other.names = names
    model.load(other, verbose=False)
    check_aux(model, names, other.model[-1].aux)


def check_aux(model: DetectionModel, names: dict[int, str], head: Detect, missing: int = 0) -> None:
    """Check that an auxiliary head has the weights of a head that lacks the first levels, with scores by class name."""
    taken, order = model.model[-1].aux.state_dict(), [[*names.values()].index(name) for name in model.names.values()]
    for name, tensor in head.state_dict().items():
        branch, level, *rest = name.split(".")
        if branch.startswith("cv"):
            is_score = branch == "cv3" and rest[0] == "2"
            own = taken[".".join([branch, str(int(level) + missing), *rest])]
            assert torch.equal(own, tensor[order] if is_score else tensor), name


def test_the_argument_adds_and_removes_it(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ("a",), {"train": 2, "val": 1})
    (tmp_path / "tiny.yaml").write_text(
        "nc: 1\naux_head: 0\nbackbone: [[-1, 1, Conv, [8, 3, 4]]]\nhead: [[[0], 1, LightDetect, [nc]]]\n"
    )
    options = QUICK | {"data": str(data), "project": str(tmp_path), "val": False}
    weights = tmp_path / "tiny.yaml"
    for name, given, expected in (("on", 0.5, True), ("kept", None, True), ("off", 0.0, False)):
        model = YOLO(weights)
        model.train(name=name, aux_head=given, **options)
        weights = tmp_path / name / "weights/last.pt"
        assert hasattr(YOLO(weights).model.model[-1], "aux") is expected, name


def test_other_heads_have_none() -> None:
    for keys in ({"head": "Detect"}, {"end2end": True}):
        with pytest.raises(UserError, match="`aux_head` needs the head LightDetect without end2end"):
            build(aux_head=0.5, **keys)
    with pytest.raises(UserError, match="key `aux_head`: 'aux_head=-1' is an invalid value"):
        build(aux_head=-1)
    with pytest.raises(UserError, match=r"aux_head=0\.5: only detection models with the head LightDetect"):
        fit_to_data(build("Detect"), SimpleNamespace(labels=[]), SimpleNamespace(aux_head=0.5))
    assert isinstance(build("Detect", aux_head=0).model[-1], Detect)
