"""The normalised Wasserstein distance (NWD), the box loss that uses it, and where its share and scale come from."""

import copy
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, complete_box_iou_loss
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, OBBModel
from ultralytics.utils import loss as losses
from ultralytics.utils.loss import BboxLoss, E2ELoss, RotatedBboxLoss, StockBboxLoss, v8DetectionLoss

from small_object.nwd import DEFAULT_C, mean_box_size, nwd

MODEL = Path(__file__).parents[3] / "ultralytics/cfg/models/11/yolo11n.yaml"  # scale n of yolo11.yaml
DIRECTIONS = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]


def random_boxes(rng: np.random.Generator, *shape: int, size: float = 600) -> np.ndarray:
    """Return boxes, xyxy, with corners in 0..2 * size."""
    corner = rng.uniform(0, size, (*shape, 2))
    return np.concatenate((corner, corner + rng.uniform(1, size, (*shape, 2))), -1)


def reference(a: np.ndarray, b: np.ndarray, c: float) -> np.ndarray:
    """NWD of xyxy boxes: the Wasserstein distance of N((cx, cy), diag(w²/4, h²/4))."""
    gaussian_a, gaussian_b = (
        np.stack(
            ((x1 + x2) / 2, (y1 + y2) / 2, np.sqrt((x2 - x1) ** 2 / 4), np.sqrt((y2 - y1) ** 2 / 4)), -1
        )  # means and standard deviations
        for x1, y1, x2, y2 in (np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0))
    )
    return np.exp(-np.sqrt(((gaussian_a - gaussian_b) ** 2).sum(-1)) / c)


# --- nwd -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box1", "box2", "c", "expected"),
    [
        ((0, 0, 10, 10), (3, 4, 13, 14), 5, math.exp(-1)),  # moved by (3, 4)
        ((0, 0, 10, 10), (-6, 8, 4, 18), 20, math.exp(-0.5)),  # moved by (-6, 8)
        ((10, 20, 30, 50), (7, 16, 33, 54), 5, math.exp(-1)),  # w + 2 * 3 and h + 2 * 4 about the same centre
        ((10, 20, 30, 50), (15, 20, 25, 50), 10, math.exp(-0.5)),  # w - 2 * 5
        ((0, 0, 10, 10), (0, 0, 10, 10), 1, 1),
        ((0, 0, 4, 4), (2, 0, 10, 4), 2, math.exp(-math.sqrt(20) / 2)),  # moved by 4 and w + 2 * 2
    ],
)
def test_nwd_by_hand(box1, box2, c, expected):
    box1, box2 = torch.tensor(box1, dtype=torch.float64), torch.tensor(box2, dtype=torch.float64)
    for a, b in ((box1, box2), (box2, box1)):
        assert nwd(a, b, c).item() == pytest.approx(expected, rel=1e-12)
        assert nwd(a.float(), b.float(), c).item() == pytest.approx(expected, rel=1e-6)


def test_nwd_against_numpy():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 500), random_boxes(rng, 500)
    expected = reference(a, b, 300.0)
    assert expected.std() > 0.05
    similarity = nwd(torch.from_numpy(a), torch.from_numpy(b), 300.0)
    assert similarity.dtype == torch.float64
    np.testing.assert_allclose(similarity.numpy(), expected, rtol=1e-12)


def test_nwd_of_xywh_boxes():
    rng = np.random.default_rng(1)
    a, b = (torch.from_numpy(random_boxes(rng, 50)) for _ in range(2))
    as_xywh = [torch.cat(((x[:, :2] + x[:, 2:]) / 2, x[:, 2:] - x[:, :2]), 1) for x in (a, b)]
    torch.testing.assert_close(nwd(*as_xywh, 100.0, xywh=True), nwd(a, b, 100.0))
    assert not torch.allclose(nwd(*as_xywh, 100.0), nwd(a, b, 100.0))


def test_nwd_broadcasts():
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 5), random_boxes(rng, 7)
    similarity = nwd(torch.from_numpy(a)[:, None], torch.from_numpy(b), 200.0)
    assert similarity.shape == (5, 7)
    np.testing.assert_allclose(similarity, [[reference(x, y, 200.0) for y in b] for x in a])
    assert nwd(torch.zeros(0, 4), torch.zeros(0, 4), 1.0).shape == (0,)


@pytest.mark.parametrize("k", [0.01, 3.0, 1000.0])
def test_nwd_depends_on_the_ratio_to_c(k):
    rng = np.random.default_rng(3)
    a, b = (torch.from_numpy(random_boxes(rng, 50)) for _ in range(2))
    torch.testing.assert_close(nwd(k * a, k * b, k * 150.0), nwd(a, b, 150.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nwd_of_half_precision_boxes_in_a_large_image(dtype):
    rng = np.random.default_rng(4)
    a, b = (torch.from_numpy(random_boxes(rng, 100, size=640)).to(dtype) for _ in range(2))
    a[0], b[0] = torch.tensor([0.0, 0, 1280, 1280]), torch.tensor([1279.0, 1279, 1280, 1280])  # overflows if squared
    similarity = nwd(a, b, 400.0)
    assert similarity.dtype == torch.float32
    np.testing.assert_allclose(similarity, reference(a.double().numpy(), b.double().numpy(), 400.0), rtol=1e-5)


@pytest.mark.parametrize("xywh", [False, True])
@pytest.mark.parametrize("box", [(3.0, 4.0, 13.0, 24.0), (0.0, 0.0, 0.0, 0.0), (1279.5, 640.25, 1280.0, 641.0)])
def test_nwd_of_identical_boxes(box, xywh):
    predicted = torch.tensor(box, requires_grad=True)
    similarity = nwd(predicted, torch.tensor(box), 5.0, xywh)
    similarity.backward()
    assert similarity.item() == 1
    assert predicted.grad.tolist() == [0, 0, 0, 0]


def test_nwd_of_boxes_without_a_size():
    predicted = torch.tensor([[5.0, 5, 5, 5], [5, 5, 9, 5]], requires_grad=True)
    similarity = nwd(predicted, torch.tensor([[8.0, 9, 8, 9], [5, 5, 5, 5]]), 5.0)
    similarity.sum().backward()
    torch.testing.assert_close(similarity, torch.tensor([-1, -math.sqrt(8) / 5]).exp())
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("target_size", [(4.0, 12.0), (12.0, 4.0)])
def test_gradient_leads_to_a_target_that_does_not_overlap(direction, target_size):
    predicted = torch.tensor([[46.0, 46, 54, 54]], requires_grad=True)
    centre, size = 50 + 30 * torch.tensor(direction, dtype=torch.float32), torch.tensor(target_size)
    target = torch.cat((centre - size / 2, centre + size / 2))[None]

    iou = box_iou(predicted, target)
    (overlap_gradient,) = torch.autograd.grad(iou.sum(), predicted)
    assert iou.item() == 0
    assert overlap_gradient.abs().max() == 0

    (gradient,) = torch.autograd.grad((1 - nwd(predicted, target, 12.0)).sum(), predicted)
    moved = (predicted - 0.1 * gradient).detach()[0]
    step = (moved[:2] + moved[2:]) / 2 - 50
    assert torch.equal(step.sign(), torch.tensor(direction, dtype=torch.float32))
    growth = moved[2:] - moved[:2] - 8
    assert torch.equal(growth.sign(), (size - 8).sign())


# --- BboxLoss --------------------------------------------------------------------------------------------------------

IMGSZ = (96, 64)


def case(reg_max: int = 16, positives: bool = True, dtype: torch.dtype = torch.float32, seed: int = 0):
    """Return the arguments of `BboxLoss.forward` for 2 images of 96 x 64 px at strides 4, 8, 16 and 32."""
    g = torch.Generator().manual_seed(seed)
    points, strides = [], []
    for s in (4, 8, 16, 32):
        y, x = torch.meshgrid(*(torch.arange(side // s) + 0.5 for side in IMGSZ), indexing="ij")
        points.append(torch.stack((x.flatten(), y.flatten()), 1))
        strides.append(torch.full((points[-1].shape[0], 1), float(s)))
    points, strides = torch.cat(points), torch.cat(strides)
    n = len(points)

    def boxes():
        lt, rb = (torch.rand(2, n, 2, generator=g) * 4 + 0.2 for _ in range(2))
        return torch.cat((points - lt, points + rb), -1)

    fg_mask = torch.rand(2, n, generator=g) < 0.1
    fg_mask[0, -1] = True  # one at stride 32 at least
    fg_mask &= positives
    scores = torch.rand(2, n, 3, generator=g) * fg_mask[..., None]
    return {
        "pred_dist": torch.randn(2, n, 4 * reg_max, generator=g).to(dtype).requires_grad_(),
        "pred_bboxes": boxes().to(dtype).requires_grad_(),
        "anchor_points": points,
        "target_bboxes": boxes(),
        "target_scores": scores,
        "target_scores_sum": scores.sum().clamp(min=1),
        "fg_mask": fg_mask,
        "imgsz": torch.tensor(IMGSZ, dtype=torch.float32),
        "stride": strides,
    }


def run(loss, arguments):
    """Return the two losses and the gradients of their sum."""
    values = loss(**arguments)
    leaves = arguments["pred_dist"], arguments["pred_bboxes"]
    return [v.detach() for v in values], torch.autograd.grad(sum(values), leaves, allow_unused=True)


def configured(share: float, c: float, reg_max: int = 16) -> BboxLoss:
    loss = BboxLoss(reg_max)
    loss.nwd, loss.nwd_c = share, c
    return loss


@pytest.mark.parametrize("reg_max", [16, 1])
def test_without_nwd_the_loss_is_upstreams_to_the_last_bit(reg_max):
    assert BboxLoss is not StockBboxLoss
    for loss in (BboxLoss(reg_max), configured(0.0, 3.0, reg_max)):
        values, gradients = run(loss, case(reg_max))
        stock_values, stock_gradients = run(StockBboxLoss(reg_max), case(reg_max))
        assert all(torch.equal(a, b) for a, b in zip(values, stock_values, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(gradients, stock_gradients, strict=True))
        assert values[0] > 0
        assert gradients[1].abs().max() > 0


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("reg_max", [16, 1])
def test_loss_against_a_slow_reference(share, reg_max):
    c = 9.0
    arguments = case(reg_max)
    box, distance = configured(share, c, reg_max)(**arguments)

    predicted, target = arguments["pred_bboxes"].detach().double(), arguments["target_bboxes"].double()
    total, strides = 0.0, set()
    for image, anchor in arguments["fg_mask"].nonzero().tolist():
        s = arguments["stride"][anchor].item()
        a, b = predicted[image, anchor] * s, target[image, anchor] * s
        ciou_term = complete_box_iou_loss(a, b).item()
        nwd_term = 1 - reference(a.numpy(), b.numpy(), c)
        weight = arguments["target_scores"][image, anchor].sum().item()
        total += weight * ((1 - share) * ciou_term + share * nwd_term)
        strides.add(s)
    assert strides == {4, 8, 16, 32}
    assert box.item() == pytest.approx(total / arguments["target_scores_sum"].item(), rel=1e-4)
    assert torch.equal(distance, StockBboxLoss(reg_max)(**arguments)[1])


def test_gradient_of_the_mixed_loss_is_the_derivative():
    arguments = case()
    for key, value in arguments.items():
        if value.is_floating_point():
            arguments[key] = value.detach().double()
    loss = configured(1.0, 9.0)

    def box_loss(boxes):
        return loss(**{**arguments, "pred_bboxes": boxes})[0]

    boxes = arguments["pred_bboxes"].requires_grad_()
    (gradient,) = torch.autograd.grad(box_loss(boxes), boxes)
    image, anchor = arguments["fg_mask"].nonzero()[0].tolist()
    for i in range(4):
        step = torch.zeros_like(boxes)
        step[image, anchor, i] = 1e-6
        numeric = (box_loss(boxes + step) - box_loss(boxes - step)) / 2e-6
        assert gradient[image, anchor, i].item() == pytest.approx(numeric.item(), rel=1e-5)
    assert gradient[~arguments["fg_mask"]].abs().max() == 0


@pytest.mark.parametrize("reg_max", [16, 1])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_no_positive_anchor_gives_zero(share, reg_max):
    values, gradients = run(configured(share, 9.0, reg_max), case(reg_max, positives=False))
    assert [v.item() for v in values] == [0, 0]
    assert all(g.isfinite().all() and g.abs().max() == 0 for g in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predictions(dtype):
    arguments = case(dtype=dtype)
    values, gradients = run(configured(0.5, 9.0), arguments)
    full = {k: v.detach().float().requires_grad_() if k.startswith("pred") else v for k, v in arguments.items()}
    expected, _ = run(configured(0.5, 9.0), full)
    assert all(g.isfinite().all() for g in gradients)
    assert values[0].item() == pytest.approx(expected[0].item(), rel=0.02)


# --- where the share and the scale come from -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel(str(MODEL), nc=3, verbose=False)


def batch(objects: int = 4) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    centre, size = torch.rand(objects, 2, generator=g) * 0.6 + 0.2, torch.rand(objects, 2, generator=g) * 0.2 + 0.05
    return {
        "img": torch.rand(2, 3, 64, 64, generator=g),
        "batch_idx": (torch.arange(objects) % 2).sort().values,
        "cls": torch.randint(0, 3, (objects, 1), generator=g).float(),
        "bboxes": torch.cat((centre, size), 1),
        "resized_shape": [(64, 64)] * 2,
    }


def with_arguments(model: torch.nn.Module, key: float | None = None, **arguments) -> torch.nn.Module:
    """Return a copy of the model with the share `key` in its YAML and with training arguments."""
    model = copy.deepcopy(model)
    model.args = get_cfg(overrides=arguments)
    model.yaml.pop("nwd", None)
    if key is not None:
        model.yaml["nwd"] = key
    return model


@pytest.mark.parametrize(
    ("key", "argument", "expected"),
    [(0.5, None, 0.5), (0.5, 0.2, 0.2), (0.5, 0, 0), (0.5, 0.0, 0), (None, None, 0), (None, 0.7, 0.7), (0, 1, 1)],
)
def test_share_comes_from_the_argument_then_the_yaml(built, key, argument, expected):
    arguments = {} if argument is None else {"nwd": argument}
    assert with_arguments(built, key, **arguments).init_criterion().bbox_loss.nwd == expected


def test_scale_comes_from_the_argument_then_the_model(built):
    model = with_arguments(built, 0.5)
    assert model.init_criterion().bbox_loss.nwd_c == DEFAULT_C
    model.nwd_c = 21.0
    assert model.init_criterion().bbox_loss.nwd_c == 21
    model.args = get_cfg(overrides={"nwd_c": 4})
    assert model.init_criterion().bbox_loss.nwd_c == 4


def losses_and_gradients(model, data):
    model = model.train()
    total, items = model.loss(data)
    total.sum().backward()
    return total.detach(), items, [p.grad for p in model.parameters() if p.grad is not None]


def test_model_without_nwd_has_upstreams_loss_to_the_last_bit(built, monkeypatch):
    ours = losses_and_gradients(with_arguments(built, 0.5, nwd=0.0), batch())
    mixed = losses_and_gradients(with_arguments(built, 0.5), batch())
    monkeypatch.setattr(losses, "BboxLoss", StockBboxLoss)
    model = with_arguments(built)
    stock = losses_and_gradients(model, batch())
    assert type(model.criterion.bbox_loss) is StockBboxLoss
    assert torch.equal(ours[0], stock[0])
    assert ours[0][0] > 0
    assert all(torch.equal(a, b) for a, b in zip(ours[2], stock[2], strict=True))
    assert mixed[0][0] != stock[0][0]
    assert torch.equal(mixed[0][1:], stock[0][1:])


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_batch_without_objects(built, share):
    total, _, gradients = losses_and_gradients(with_arguments(built, share), batch(0))
    assert total.isfinite().all()
    assert total[0] == 0  # the box loss
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


def test_both_losses_of_an_end_to_end_model():
    model = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    model.args = get_cfg(overrides={"nwd": 0.5, "nwd_c": 6})
    criterion = model.init_criterion()
    assert type(criterion) is E2ELoss
    for part in (criterion.one2many, criterion.one2one):
        assert (type(part.bbox_loss), part.bbox_loss.nwd, part.bbox_loss.nwd_c) == (BboxLoss, 0.5, 6)
    total, _ = model.train().loss(batch())
    total.sum().backward()
    assert total.isfinite().all()


def test_loss_of_rotated_boxes_is_left_alone():
    model = OBBModel("yolo11n-obb.yaml", nc=3, verbose=False)
    data = batch() | {"bboxes": torch.cat((batch()["bboxes"], torch.full((4, 1), 0.3)), 1)}
    values = []
    for share in (0.0, 0.9):
        model.args = get_cfg(overrides={"nwd": share})
        criterion = model.init_criterion()
        assert type(criterion.bbox_loss) is RotatedBboxLoss
        model.criterion = criterion
        with torch.no_grad():
            values.append(model.eval().loss(data)[0])
    assert torch.equal(*values)
    assert values[0][0] > 0


# --- the scale C of a data set ---------------------------------------------------------------------------------------


def test_mean_box_size_against_numpy():
    rng = np.random.default_rng(0)
    labels, sizes = [], []
    for shape, n in (((480, 640), 5), ((1080, 1920), 9), ((2000, 300), 1), ((333, 333), 0), ((64, 64), 3)):
        boxes = rng.uniform(0.01, 0.5, (n, 4)).astype(np.float32)
        labels.append({"shape": shape, "bboxes": boxes})
        gain = min(320 / shape[0], 320 / shape[1])  # letterbox
        sizes += [math.sqrt(float(w) * shape[1] * gain * float(h) * shape[0] * gain) for _, _, w, h in boxes]
    assert mean_box_size(labels, 320) == pytest.approx(np.mean(sizes), rel=1e-9)
    assert mean_box_size(labels, 640) == pytest.approx(2 * np.mean(sizes), rel=1e-9)
    assert mean_box_size(labels, 320, tile=10_000) == mean_box_size(labels, 320)
    longest = max(max(label["shape"]) for label in labels)
    assert mean_box_size([label for label in labels if max(label["shape"]) == longest], 64, tile=32) == pytest.approx(
        mean_box_size([label for label in labels if max(label["shape"]) == longest], 64) * longest / 32
    )


@pytest.mark.parametrize("labels", [[], [{"shape": (480, 640), "bboxes": np.zeros((0, 4), np.float32)}]])
def test_mean_box_size_without_boxes(labels):
    assert mean_box_size(labels, 640) == DEFAULT_C


IMAGES = {"a": (40, 80), "b": (100, 50), "c": (64, 64), "d": (30, 90)}  # (height, width)
LABELS = {"a": [(0, 0.5, 0.5, 0.2, 0.4)], "b": [(1, 0.3, 0.3, 0.1, 0.1), (0, 0.6, 0.6, 0.5, 0.25)], "c": []}
LABELS["d"] = [(1, 0.5, 0.5, 0.05, 0.3)]


@pytest.fixture
def dataset(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name, (height, width) in IMAGES.items():
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), rng.integers(0, 255, (height, width, 3), np.uint8))
        lines = (" ".join(map(str, row)) for row in LABELS[name])
        (tmp_path / f"labels/{name}.txt").write_text("\n".join(lines))
    file = tmp_path / "set.yaml"
    file.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [plane, truck]\n")
    return file


@pytest.mark.parametrize("arguments", [{}, {"nwd_c": 7}, {"nwd": 0, "nwd_assign": 0}, {"rect": True}], ids=str)
def test_trainer_sets_the_scale(dataset, arguments):
    overrides = {"model": str(MODEL), "data": str(dataset), "imgsz": 64, "epochs": 1, "batch": 2, "workers": 0}
    overrides |= {"plots": False, "project": str(dataset.parent / "runs"), "device": "cpu", "amp": False}
    trainer = DetectionTrainer(overrides=overrides | arguments)
    trainer._setup_train()
    models = trainer.model, trainer.ema.ema
    if "nwd" in arguments:
        assert not any(hasattr(model, "nwd_c") for model in models)
        return
    sizes = [
        64 / max(IMAGES[name]) * math.sqrt(w * IMAGES[name][1] * h * IMAGES[name][0])
        for name in IMAGES
        for _, _, _, w, h in LABELS[name]
    ]
    expected = arguments.get("nwd_c", np.mean(sizes))
    assert [model.nwd_c for model in models] == pytest.approx([expected] * 2, rel=1e-5)
    criterion = trainer.model.init_criterion()
    assert isinstance(criterion, v8DetectionLoss)
    assert (criterion.bbox_loss.nwd, criterion.bbox_loss.nwd_c) == (0.5, pytest.approx(expected, rel=1e-5))
