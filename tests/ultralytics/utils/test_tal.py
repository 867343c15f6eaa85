"""The assigner whose overlap of small objects has a share of the NWD, and where that share and the scale come from."""

import copy
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics.cfg import check_cfg, get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel, torch_safe_load
from ultralytics.utils import LOGGER, YAML, tal
from ultralytics.utils import loss as losses
from ultralytics.utils.loss import BboxLoss, E2ELoss
from ultralytics.utils.tal import RotatedTaskAlignedAssigner, StockTaskAlignedAssigner, TaskAlignedAssigner, size_fade

from small_object.nwd import DEFAULT_C, nwd

IMGSZ, STRIDES, CLASSES = 96, (4, 8, 16, 32), 3


def configured(share: float, c: float = DEFAULT_C, kind: type = TaskAlignedAssigner, **arguments) -> torch.nn.Module:
    assigner = kind(**{"num_classes": CLASSES, "alpha": 0.5, "beta": 6.0, "stride": list(STRIDES)} | arguments)
    assigner.nwd_assign, assigner.nwd_c = share, c
    return assigner


def pairs(n: int, smallest: float, largest: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return n boxes of objects and boxes nearby of similar sizes, xyxy, float64."""
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(40, 200, (n, 2)), rng.uniform(smallest, largest, (n, 2))
    near, near_size = centre + rng.normal(0, 0.4, (n, 2)) * size, size * rng.uniform(0.6, 1.6, (n, 2))
    boxes = (np.concatenate((c - s / 2, c + s / 2), 1) for c, s in ((centre, size), (near, near_size)))
    truth, predicted = map(torch.from_numpy, boxes)
    return truth, predicted


def anchors() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the centres of the anchors in pixels, (A, 2), and their strides, (A,)."""
    points, strides = [], []
    for s in STRIDES:
        y, x = torch.meshgrid(*[torch.arange(s / 2, IMGSZ, s)] * 2, indexing="ij")
        points.append(torch.stack((x.flatten(), y.flatten()), 1))
        strides.append(torch.full((len(points[-1]),), float(s)))
    return torch.cat(points), torch.cat(strides)


def scene(sizes: list[float], seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return the assigner's arguments for 2 images with square objects; the second image's last is padding."""
    g = torch.Generator().manual_seed(seed)
    points, strides = anchors()
    n = len(points)
    side = torch.tensor(sizes).view(1, -1, 1) * torch.tensor([1.0, 1.0])
    centre = torch.rand(2, len(sizes), 2, generator=g) * (IMGSZ - 48) + 24
    truth = torch.cat((centre - side / 2, centre + side / 2), -1)
    mask = torch.ones(2, len(sizes), 1)
    mask[1, -1] = 0
    middle = points + torch.randn(2, n, 2, generator=g) * strides[:, None] / 2
    half = strides[:, None] * (torch.rand(2, n, 2, generator=g) * 1.5 + 0.5)
    return {
        "pd_scores": torch.rand(2, n, CLASSES, generator=g).to(dtype),
        "pd_bboxes": torch.cat((middle - half, middle + half), -1).to(dtype),
        "anc_points": points.to(dtype),
        "gt_labels": torch.randint(0, CLASSES, (2, len(sizes), 1), generator=g).float(),
        "gt_bboxes": (truth * mask).to(dtype),
        "mask_gt": mask,
    }


def assert_equal(ours: tuple[torch.Tensor, ...], stock: tuple[torch.Tensor, ...]) -> None:
    assert len(ours) == len(stock) == 5
    for a, b in zip(ours, stock, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


# --- slow references -------------------------------------------------------------------------------------------------


def slow_ciou(a: list[float], b: list[float]) -> float:
    """CIoU of two xyxy boxes (arXiv 1911.08287), at least 0."""
    (wa, ha), (wb, hb) = ((x[2] - x[0], x[3] - x[1]) for x in (a, b))
    cut = [max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1)]
    hull = [max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1)]
    apart = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
    iou = cut[0] * cut[1] / (wa * ha + wb * hb - cut[0] * cut[1])
    v = 4 / math.pi**2 * (math.atan(wa / ha) - math.atan(wb / hb)) ** 2
    aspect = v * v / (1 - iou + v) if v else 0.0
    return max(iou - (apart[0] ** 2 + apart[1] ** 2) / (hull[0] ** 2 + hull[1] ** 2) - aspect, 0)


def slow_overlap(truth: list[float], predicted: list[float], share: float, c: float) -> float:
    w, h = truth[2] - truth[0], truth[3] - truth[1]
    size = math.sqrt(w * h)
    share *= 1 if size <= 16 else 0 if size >= 32 else (32 - size) / 16
    dw, dh = predicted[2] - predicted[0] - w, predicted[3] - predicted[1] - h
    dx, dy = (sum(predicted[i::2]) / 2 - sum(truth[i::2]) / 2 for i in (0, 1))
    distance = math.sqrt(dx**2 + dy**2 + (dw / 2) ** 2 + (dh / 2) ** 2)
    return (1 - share) * slow_ciou(truth, predicted) + share * math.exp(-distance / c)


def slow_assignment(
    scores: list, boxes: list, points: list, labels: list, truths: list, share: float, c: float, topk: int, topk2: int
) -> dict[int, tuple[int, float]]:
    """Return the object and the score that each positive anchor of one image is trained towards."""
    overlap, metric, claims = [], [], []
    for label, truth in zip(labels, truths, strict=True):
        middle = [(truth[i] + truth[i + 2]) / 2 for i in (0, 1)]
        # Upstream enlarges sides below the second stride, before 8.4.150 only those below the first: none lie between.
        side = [s if (s := truth[i + 2] - truth[i]) >= STRIDES[1] else STRIDES[1] for i in (0, 1)]
        inside = [a for a, p in enumerate(points) if all(abs(p[i] - middle[i]) < side[i] / 2 for i in (0, 1))]
        overlap.append({a: slow_overlap(truth, boxes[a], share, c) for a in inside})
        metric.append({a: scores[a][label] ** 0.5 * o**6 for a, o in overlap[-1].items()})
        best = sorted(inside, key=metric[-1].__getitem__, reverse=True)[:topk]
        assert all(metric[-1][a] > 0 for a in best)  # else upstream's choice among those at 0 is any
        claims.append(best)
    owned: list[list[int]] = [[] for _ in truths]
    for anchor in {a for best in claims for a in best}:
        owners = [g for g, best in enumerate(claims) if anchor in best]
        if len(owners) > 1:
            owners = [max(range(len(truths)), key=lambda g: overlap[g].get(anchor, 0))]
        owned[owners[0]].append(anchor)
    targets = {}
    for g, mine in enumerate(owned):
        if topk2 != topk:
            mine = sorted(mine, key=metric[g].__getitem__, reverse=True)[:topk2]
        for a in mine:
            best = max(metric[g][b] for b in mine), max(overlap[g][b] for b in mine)
            targets[a] = g, metric[g][a] * best[1] / (best[0] + 1e-9)
    return targets


# --- the overlap -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1, 1, 1), (16, 16, 1), (64, 4, 1), (20, 20, 0.75), (36, 16, 0.5), (31, 31, 1 / 16), (32, 32, 0), (500, 900, 0)],
)
def test_fade_by_hand(width, height, expected):
    box = torch.tensor([[70.0, 30, 70 + width, 30 + height]], dtype=torch.float64)
    assert size_fade(box).item() == pytest.approx(expected, abs=1e-12)
    assert size_fade(box.float()).item() == pytest.approx(expected, abs=1e-6)


def test_fade_never_rises_with_size():
    side = torch.linspace(0, 100, 2001)
    fade = size_fade(torch.stack((side, side, 2 * side, 2 * side), 1))
    assert (fade.diff() <= 0).all()
    assert (fade.diff() < 0).sum() > 300  # no step: the overlap of an object that grows does not jump
    assert fade.diff().abs().max() < 0.01
    assert (fade[0].item(), fade[-1].item()) == (1, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fade_of_half_precision_boxes(dtype):
    boxes = torch.tensor([[0, 0, 1024, 1024], [0, 0, 24, 24], [512, 512, 516, 516], [8, 8, 8, 8]]).to(dtype)
    assert size_fade(boxes).tolist() == [0, 0.5, 1, 1]  # 1024 squared overflows float16


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_overlap_against_a_slow_reference(share):
    truth, predicted = pairs(300, 2, 60)
    overlap = configured(share, 9.0).iou_calculation(truth, predicted)
    expected = [slow_overlap(*boxes, share, 9.0) for boxes in zip(truth.tolist(), predicted.tolist(), strict=True)]
    np.testing.assert_allclose(overlap.numpy(), expected, atol=1e-6)
    assert 0 <= overlap.min() <= overlap.max() <= 1


def test_overlap_of_a_tiny_object_is_the_nwd_with_a_share_of_1():
    truth, predicted = pairs(100, 2, 16)
    overlap = configured(1.0, 5.0).iou_calculation(truth, predicted)
    torch.testing.assert_close(overlap, nwd(truth, predicted, 5.0))
    assert not torch.allclose(overlap, configured(0.0).iou_calculation(truth, predicted))


def test_overlap_of_a_large_object_is_upstreams_to_the_last_bit():
    truth, predicted = (boxes.float() for boxes in pairs(300, 33, 150))
    overlap = configured(1.0, 50.0).iou_calculation(truth, predicted)
    assert torch.equal(overlap, configured(1.0, kind=StockTaskAlignedAssigner).iou_calculation(truth, predicted))
    assert overlap.count_nonzero() > 200


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_overlap_has_upstreams_type(dtype):
    truth, predicted = (boxes.to(dtype) - 30 for boxes in pairs(50, 4, 25))
    overlap = configured(0.7).iou_calculation(truth, predicted)
    assert overlap.dtype == dtype
    if dtype.itemsize > 2:
        return
    expected = configured(0.7).iou_calculation(truth.double(), predicted.double())
    torch.testing.assert_close(overlap.double(), expected, atol=0.05, rtol=0)


def test_overlap_reads_no_value_back():  # which on a GPU would wait for it
    truth, predicted = torch.zeros(2, 50, 4, device="meta")
    assert configured(0.5).iou_calculation(truth, predicted).shape == (50,)


# --- the assignment --------------------------------------------------------------------------------------------------

MIXED = [3, 3, 10, 12, 20, 26, 40, 3]


@pytest.mark.parametrize("topk2", [None, 1])
@pytest.mark.parametrize("sizes", [MIXED, [3, 3, 3], [40, 50]], ids=str)
def test_without_nwd_the_assignment_is_upstreams_to_the_last_bit(sizes, topk2):
    assert TaskAlignedAssigner is not StockTaskAlignedAssigner
    stock = configured(0.0, kind=StockTaskAlignedAssigner, topk2=topk2)(**scene(sizes))
    assert stock[3].any()
    for assigner in (TaskAlignedAssigner(CLASSES), configured(0.0, 3.0, topk2=topk2)):
        assert assigner.nwd_assign == 0
    assert_equal(assigner(**scene(sizes)), stock)


@pytest.mark.parametrize("topk2", [None, 1])
def test_scene_of_large_objects_is_assigned_as_upstream_does(topk2):
    sizes = [32, 33, 40, 48]
    stock = configured(1.0, kind=StockTaskAlignedAssigner, topk2=topk2)(**scene(sizes))
    assert_equal(configured(1.0, 40.0, topk2=topk2)(**scene(sizes)), stock)
    assert stock[2].sum() > 0
    with_small = scene([*sizes, 12])
    assert not torch.equal(
        configured(1.0, 40.0)(**with_small)[2], configured(1.0, kind=StockTaskAlignedAssigner)(**with_small)[2]
    )


@pytest.mark.parametrize("topk2", [10, 1])
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_assignment_against_a_slow_reference(seed, share, topk2):
    arguments = scene(MIXED, seed, torch.float64)
    labels, boxes, scores, positive, index = configured(share, 9.0, topk=10, topk2=topk2)(**arguments)
    as_lists = {key: value.tolist() for key, value in arguments.items()}
    contested = 0
    for i in range(2):
        n = int(arguments["mask_gt"][i].sum())
        truths, classes = as_lists["gt_bboxes"][i][:n], [int(c) for (c,) in as_lists["gt_labels"][i][:n]]
        expected = slow_assignment(
            as_lists["pd_scores"][i], as_lists["pd_bboxes"][i], as_lists["anc_points"], classes, truths, share, 9.0,
            10, topk2,
        )  # fmt: skip
        assert set(positive[i].nonzero().flatten().tolist()) == set(expected)
        contested += 10 * n - len(expected)
        total = 0.0
        for anchor, (g, score) in expected.items():
            assert (index[i, anchor].item(), labels[i, anchor].item()) == (g, classes[g])
            assert boxes[i, anchor].tolist() == truths[g]
            assert scores[i, anchor, classes[g]].item() == pytest.approx(score, rel=1e-4, abs=1e-9)
            total += score
        assert scores[i].sum().item() == pytest.approx(total, rel=1e-4)
    assert contested > 0


def shifted(shifts: list[float], size: float = 6.0) -> dict[str, torch.Tensor]:
    """Return a scene of one tiny object whose candidates predict its box moved by `shifts`, each at another angle."""
    arguments = scene([size, size])
    points = arguments["anc_points"]
    truth = torch.tensor([41.0, 41, 41 + size, 41 + size])
    arguments["gt_bboxes"][:], arguments["mask_gt"][:, 1], arguments["gt_labels"][:] = truth, 0, 1
    arguments["pd_scores"][:] = 0.3
    inside = ((points - truth[:2] > 0) & (truth[2:] - points > 0)).all(1).nonzero().flatten()
    enlarged = (((points - (truth[:2] + truth[2:]) / 2).abs() < STRIDES[1] / 2).all(1)).nonzero().flatten()
    arguments["pd_bboxes"][:] = torch.tensor([0.0, 0, 1, 1])
    assert set(inside.tolist()) <= set(enlarged.tolist())
    assert len(enlarged) == len(shifts)
    for anchor, shift, angle in zip(enlarged.tolist(), shifts, range(len(shifts)), strict=True):
        arguments["pd_bboxes"][:, anchor] = truth + shift * torch.tensor([math.cos(angle), math.sin(angle)] * 2)
    return arguments | {"enlarged": enlarged}


@pytest.mark.parametrize("c", [6.0, 40.0])
def test_tiny_object_that_no_prediction_overlaps_gets_its_nearest(c):
    shifts = [17.0, 9.0, 23.0, 13.0, 11.0]
    arguments = shifted(shifts)
    candidates = arguments.pop("enlarged").tolist()
    stock = configured(0.0, kind=StockTaskAlignedAssigner, topk=3)(**arguments)
    assert stock[2].sum() == 0  # no anchor is trained towards the object

    for share in (0.4, 1.0):
        _, _, scores, positive, _ = configured(share, c, topk=3)(**arguments)
        nearest = [candidates[i] for i in np.argsort(shifts)[:3]]
        assert sorted(positive[0].nonzero().flatten().tolist()) == sorted(nearest)
        towards = scores[0, nearest, 1]
        assert (towards.diff() < 0).all()
        best = share * math.exp(-9 / c)
        expected = [best * math.exp(-6 * (d - 9) / c) for d in sorted(shifts)[:3]]
        metric = 0.3**0.5 * best**6  # beside upstream's eps
        np.testing.assert_allclose(towards, np.array(expected) * metric / (metric + 1e-9), rtol=1e-4)
        assert scores.sum(-1).count_nonzero() == positive.sum() == 6


def test_anchor_between_two_tiny_objects_goes_to_the_nearer():
    arguments = scene([3, 3])
    arguments["pd_scores"][:], arguments["mask_gt"][:] = 0.5, 1
    arguments["gt_bboxes"][:] = torch.tensor([[40.0, 44, 43, 47], [46, 44, 49, 47]])
    shared = (arguments["anc_points"] == 44).all(1).nonzero().item()  # of stride 8, 0.5 px nearer to the first
    for centre, owner in ((44.4, 0), (44.6, 1)):  # overlaps neither
        arguments["pd_bboxes"][:, shared] = torch.tensor([centre - 0.5, 45, centre + 0.5, 46])
        _, _, scores, positive, index = configured(1.0)(**arguments)
        assert positive[:, shared].all()
        assert (index[:, shared] == owner).all()
        assert (scores[:, shared].sum(-1) > 0).all()
        assert configured(0.0)(**arguments)[2][:, shared].sum() == 0


# --- where the share and the scale come from -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel("yolo11n.yaml", nc=CLASSES, verbose=False)


@pytest.fixture(scope="module")
def end_to_end() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel("yolo26n.yaml", nc=CLASSES, verbose=False)


def with_arguments(model: torch.nn.Module, key: float | None = None, **arguments) -> torch.nn.Module:
    """Return a copy of the model with the share `key` in its YAML and with training arguments."""
    model = copy.deepcopy(model)
    model.args = get_cfg(overrides=arguments)
    if key is not None:
        model.yaml["nwd_assign"] = key
    return model


def batch() -> dict[str, torch.Tensor]:
    """Return 2 images of 64 px with 2 objects each, of 3 to 16 px."""
    g = torch.Generator().manual_seed(1)
    centre, size = torch.rand(4, 2, generator=g) * 0.6 + 0.2, torch.rand(4, 2, generator=g) * 0.2 + 0.05
    return {
        "img": torch.rand(2, 3, 64, 64, generator=g),
        "batch_idx": torch.tensor([0.0, 0, 1, 1]),
        "cls": torch.randint(0, CLASSES, (4, 1), generator=g).float(),
        "bboxes": torch.cat((centre, size), 1),
        "resized_shape": [(64, 64)] * 2,
    }


def trained(model: torch.nn.Module, steps: int = 2) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the losses of each step, and the last gradients and the weights after it."""
    model = model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        total, _ = model.loss(batch())
        total.sum().backward()
        optimizer.step()
        values.append(total.detach())
    return values, [p.grad for p in model.parameters() if p.grad is not None] + list(model.state_dict().values())


@pytest.mark.parametrize("name", ["built", "end_to_end"])
def test_training_without_nwd_is_upstreams_to_the_last_bit(name, request, monkeypatch):
    model = request.getfixturevalue(name)
    ours = [trained(with_arguments(model)), trained(with_arguments(model, 0.7, nwd_assign=0.0, nwd_c=4))]
    mixed = trained(with_arguments(model, nwd_assign=0.5), steps=1)
    monkeypatch.setattr(losses, "TaskAlignedAssigner", StockTaskAlignedAssigner)
    model = with_arguments(model)
    stock = trained(model)
    parts = [model.criterion] if name == "built" else [model.criterion.one2many, model.criterion.one2one]
    assert {type(part.assigner) for part in parts} == {StockTaskAlignedAssigner}
    for values, tensors in ours:
        assert all(torch.equal(a, b) for a, b in zip(values, stock[0], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(tensors, stock[1], strict=True))
    assert stock[0][0][0] > 0
    assert mixed[0][0].isfinite().all()
    assert mixed[0][0][0] != stock[0][0][0]


@pytest.mark.parametrize(
    ("key", "argument", "expected"),
    [(0.5, None, 0.5), (0.5, 0.2, 0.2), (0.5, 0, 0), (0.5, 0.0, 0), (None, None, 0), (None, 0.7, 0.7), (0, 1, 1)],
)
def test_share_comes_from_the_argument_then_the_yaml(built, key, argument, expected):
    arguments = {} if argument is None else {"nwd_assign": argument}
    criterion = with_arguments(built, key, **arguments).init_criterion()
    assert type(criterion.assigner) is TaskAlignedAssigner
    assert criterion.assigner.nwd_assign == expected
    assert criterion.bbox_loss.nwd == 0


def test_scale_is_the_box_losss(built):
    model = with_arguments(built, nwd_assign=0.5, nwd=0.5)
    for expected, given in ((DEFAULT_C, {}), (21, {"nwd_c": 21.0})):
        vars(model).update(given)  # as the trainer sets it
        criterion = model.init_criterion()
        assert criterion.assigner.nwd_c == criterion.bbox_loss.nwd_c == expected
    model.args = get_cfg(overrides={"nwd_c": 4})
    assert model.init_criterion().assigner.nwd_c == 4


def test_both_losses_of_an_end_to_end_model(end_to_end):
    criterion = with_arguments(end_to_end, nwd_assign=0.5, nwd_c=6).init_criterion()
    assert type(criterion) is E2ELoss
    for part in (criterion.one2many, criterion.one2one):
        assert (type(part.assigner), part.assigner.nwd_assign, part.assigner.nwd_c) == (TaskAlignedAssigner, 0.5, 6)
    assert criterion.one2many.assigner.topk2 != criterion.one2one.assigner.topk2


@pytest.mark.parametrize(("kind", "name"), [(SegmentationModel, "yolo11n-seg.yaml"), (PoseModel, "yolo11n-pose.yaml")])
def test_losses_of_masks_and_keypoints(kind, name):
    model = with_arguments(kind(name, nc=CLASSES, verbose=False), nwd_assign=0.5, nwd_c=6)
    assigner = model.init_criterion().assigner
    assert (type(assigner), assigner.nwd_assign, assigner.nwd_c) == (TaskAlignedAssigner, 0.5, 6)


def test_assigners_that_do_not_compare_boxes_alone_are_left_alone():
    others = StockTaskAlignedAssigner.__subclasses__()
    assert {TaskAlignedAssigner, RotatedTaskAlignedAssigner} <= set(others)
    for other in set(others) - {TaskAlignedAssigner}:
        assert vars(tal)[other.__name__] is other
        assert not hasattr(other, "nwd_assign")


def test_loss_of_rotated_boxes_is_left_alone():
    model = OBBModel("yolo11n-obb.yaml", nc=CLASSES, verbose=False)
    data = batch() | {"bboxes": torch.cat((batch()["bboxes"], torch.full((4, 1), 0.3)), 1)}
    values = []
    for share in (0.0, 1.0):
        model.args = get_cfg(overrides={"nwd_assign": share})
        model.criterion = model.init_criterion()
        assert type(model.criterion.assigner) is RotatedTaskAlignedAssigner
        with torch.no_grad():
            values.append(model.eval().loss(data)[0])
    assert torch.equal(*values)
    assert values[0][0] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_under_autocast(built, dtype):
    model = with_arguments(built, nwd_assign=0.5).train()
    with torch.autocast("cpu", dtype):
        total, _ = model.loss(batch())
    total.sum().backward()
    assert total.isfinite().all()
    assert total[0] > 0
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("value", [2, -0.1, "0.5", "much", True, math.nan])
@pytest.mark.parametrize("hard", [True, False])
def test_errors_are_upstreams(value, hard):
    outcomes = []
    for name in ("nwd_assign", "mosaic"):
        try:
            check_cfg({name: value}, hard)
            outcomes.append(None)
        except (TypeError, ValueError) as error:
            outcomes.append((type(error), str(error).replace(name, "")))
    assert outcomes[0] == outcomes[1]
    if hard and value is not True:
        assert outcomes[0] is not None
        with pytest.raises(outcomes[0][0], match="nwd_assign"):
            get_cfg(overrides={"nwd_assign": value})


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), rng.integers(0, 255, (64, 64, 3), np.uint8))
        (tmp_path / f"labels/{i}.txt").write_text("0 0.5 0.5 0.125 0.125\n1 0.3 0.3 0.25 0.25\n")
    file = tmp_path / "set.yaml"
    file.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [plane, truck]\n")
    return file


def test_training_with_nwd_in_the_assignment_alone(dataset, caplog):
    overrides = {"model": "yolo11n.yaml", "data": str(dataset), "imgsz": 64, "epochs": 1, "batch": 2, "workers": 0}
    overrides |= {"plots": False, "project": str(dataset.parent / "runs"), "device": "cpu", "nwd_assign": 0.25}
    trainer = DetectionTrainer(overrides=overrides)
    seen = []
    trainer.add_callback("on_val_end", lambda _: seen.append(trainer.ema.ema.criterion))
    trainer.add_callback("on_fit_epoch_end", lambda t: seen.extend([t.model.criterion, t.ema.ema.criterion]))
    LOGGER.addHandler(caplog.handler)
    try:
        trainer.train()
    finally:
        LOGGER.removeHandler(caplog.handler)

    assert len(seen) >= 2
    for criterion in seen:  # of the model in training and of the averaged one, whose loss the validation reports
        assert (criterion.assigner.nwd_assign, criterion.assigner.nwd_c) == (0.25, pytest.approx(12))
        assert type(criterion.bbox_loss) is BboxLoss
        assert criterion.bbox_loss.nwd == 0
    lines = [record.getMessage() for record in caplog.records if "NWD:" in record.getMessage()]
    assert len(lines) == 1
    assert "share 0.25 of the assignment of small objects, C = 12.00 px (the mean size of the" in lines[0]
    assert "box loss" not in lines[0]
    assert YAML.load(trainer.save_dir / "args.yaml")["nwd_assign"] == 0.25
    checkpoint, _ = torch_safe_load(trainer.last, safe_only=True)  # refuses classes that upstream does not know
    assert checkpoint["train_args"]["nwd_assign"] == 0.25
