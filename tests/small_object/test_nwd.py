"""The normalised Wasserstein distance (NWD) and its scale."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from small_object.nwd import DEFAULT_C, mean_box_size, nwd

DIRECTIONS = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]


def random_boxes(rng: np.random.Generator, *shape: int, size: float = 600) -> np.ndarray:
    """Return boxes, xyxy, with corners in 0..2 * size."""
    corner = rng.uniform(0, size, (*shape, 2))
    return np.concatenate((corner, corner + rng.uniform(1, size, (*shape, 2))), -1)


def reference(a: np.ndarray, b: np.ndarray, c: float) -> np.ndarray:
    """NWD of xyxy boxes: the Wasserstein distance of N((cx, cy), diag(w²/4, h²/4)), by how these differ."""
    means = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    deviations = (a[..., 2:] - a[..., :2] - b[..., 2:] + b[..., :2]) / 2
    return np.exp(-np.sqrt((means**2 + deviations**2).sum(-1)) / c)


def test_nwd_against_numpy():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 500), random_boxes(rng, 500)
    expected = reference(a, b, 300.0)
    assert expected.std() > 0.05
    similarity = nwd(torch.from_numpy(a)[:9, None], torch.from_numpy(b), 300.0)
    assert similarity.dtype == torch.float64
    np.testing.assert_allclose(similarity.numpy(), [reference(box[None], b, 300.0) for box in a[:9]], rtol=1e-12)
    assert nwd(torch.zeros(0, 4), torch.zeros(0, 4), 1.0).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nwd_of_half_precision_boxes_in_a_large_image(dtype):
    rng = np.random.default_rng(4)
    a, b = (torch.from_numpy(random_boxes(rng, 100, size=640)).to(dtype) for _ in range(2))
    a[0], b[0] = torch.tensor([0.0, 0, 1280, 1280]), torch.tensor([1279.0, 1279, 1280, 1280])  # overflows if squared
    similarity = nwd(a, b, 400.0)
    assert similarity.dtype == torch.float32
    np.testing.assert_allclose(similarity, reference(a.double().numpy(), b.double().numpy(), 400.0), rtol=1e-5)


@pytest.mark.parametrize("box", [(3.0, 4.0, 13.0, 24.0), (0.0, 0.0, 0.0, 0.0), (1279.5, 640.25, 1280.0, 641.0)])
def test_nwd_of_identical_boxes(box):
    predicted = torch.tensor(box, requires_grad=True)
    similarity = nwd(predicted, torch.tensor(box), 5.0)
    similarity.backward()
    assert similarity.item() == 1
    assert predicted.grad.tolist() == [0, 0, 0, 0]


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
    large = [label for label in labels if label["shape"] == (2000, 300)]
    assert mean_box_size(large, 64, tile=32) == pytest.approx(mean_box_size(large, 64) * 2000 / 32)


@pytest.mark.parametrize("labels", [[], [{"shape": (480, 640), "bboxes": np.zeros((0, 4), np.float32)}]])
def test_mean_box_size_without_boxes(labels):
    assert mean_box_size(labels, 640) == DEFAULT_C
