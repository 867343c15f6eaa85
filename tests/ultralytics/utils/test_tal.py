"""The assigner whose overlap of small objects has a share of the NWD, and where that share and the scale come from."""

import math

import numpy as np
import pytest
import torch
from ultralytics.utils.tal import StockTaskAlignedAssigner, TaskAlignedAssigner, size_fade

from small_object.nwd import DEFAULT_C

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
        # upstream enlarges sides below the second stride
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


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1, 1, 1), (16, 16, 1), (64, 4, 1), (20, 20, 0.75), (36, 16, 0.5), (31, 31, 1 / 16), (32, 32, 0), (500, 900, 0)],
)
def test_fade_by_hand(width, height, expected):
    box = torch.tensor([[70.0, 30, 70 + width, 30 + height]], dtype=torch.float64)
    assert size_fade(box).item() == pytest.approx(expected, abs=1e-12)
    assert size_fade(box.float()).item() == pytest.approx(expected, abs=1e-6)
    half = torch.tensor([[0, 0, 1024, 1024], [0, 0, 24, 24], [512, 512, 516, 516], [8, 8, 8, 8]], dtype=torch.float16)
    assert size_fade(half).tolist() == [0, 0.5, 1, 1]  # 1024 squared overflows


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_overlap_against_a_slow_reference(share):
    truth, predicted = pairs(300, 2, 60)
    overlap = configured(share, 9.0).iou_calculation(truth, predicted)
    expected = [slow_overlap(*boxes, share, 9.0) for boxes in zip(truth.tolist(), predicted.tolist(), strict=True)]
    np.testing.assert_allclose(overlap.numpy(), expected, atol=1e-6)
    assert 0 <= overlap.min() <= overlap.max() <= 1


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
