"""The assigner whose overlap of small objects has a share of the NWD, and where that share and the scale come from."""

import math

import pytest
import torch
from torchvision.ops import complete_box_iou_loss
from ultralytics.utils.tal import TaskAlignedAssigner

IMGSZ, STRIDES, CLASSES = 96, (4, 8, 16, 32), 3


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


def slow_overlap(truth: list[float], predicted: list[float], share: float, c: float) -> float:
    w, h = truth[2] - truth[0], truth[3] - truth[1]
    size = math.sqrt(w * h)
    share *= 1 if size <= 16 else 0 if size >= 32 else (32 - size) / 16
    dw, dh = predicted[2] - predicted[0] - w, predicted[3] - predicted[1] - h
    dx, dy = (sum(predicted[i::2]) / 2 - sum(truth[i::2]) / 2 for i in (0, 1))
    distance = math.sqrt(dx**2 + dy**2 + (dw / 2) ** 2 + (dh / 2) ** 2)
    ciou = max(1 - complete_box_iou_loss(*torch.tensor([truth, predicted], dtype=torch.float64)).item(), 0)
    return (1 - share) * ciou + share * math.exp(-distance / c)


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


@pytest.mark.parametrize("topk2", [10, 1])
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_assignment_against_a_slow_reference(seed, share, topk2):
    arguments = scene([3, 3, 10, 12, 20, 26, 40, 3], seed, torch.float64)
    sizes = {"num_classes": CLASSES, "stride": list(STRIDES), "topk": 10, "topk2": topk2}
    assigner = TaskAlignedAssigner(**sizes, alpha=0.5, beta=6.0)
    assigner.nwd_assign, assigner.nwd_c = share, 9.0
    labels, boxes, scores, positive, index = assigner(**arguments)
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
