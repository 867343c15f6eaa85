"""What a model is told of its training data."""

import numpy as np
import pytest
import torch
from ultralytics.nn.modules import Detect

from small_object.training import init_head

LABELS = [  # 20 and 40 px at an input of 320 px; three objects in two images
    {"bboxes": np.array([[0.5, 0.5, 1 / 16, 1 / 16], [0.2, 0.2, 1 / 16, 1 / 16]]), "shape": (640, 640)},
    {"bboxes": np.array([[0.5, 0.5, 0.25, 0.25]]), "shape": (320, 160)},
]


def build_head(reg_max: int = 16, end2end: bool = False) -> Detect:
    head = Detect(nc=2, reg_max=reg_max, end2end=end2end, ch=(16, 16))
    head.stride = torch.tensor([4.0, 32.0])
    head.bias_init()
    return head


@pytest.mark.parametrize("end2end", [False, True])
def test_the_head_predicts_the_mean_object_at_its_frequency(end2end: bool) -> None:
    head = build_head(end2end=end2end)
    line = init_head(head, LABELS, 320, float("inf"))
    size = (20 + 20 + np.sqrt(0.25 * 160 * 0.25 * 320)) / 3
    assert f"boxes of {size:.1f} px" in line
    score = 5 * 1.5 / (80**2 + 10**2) / 2  # 5 positives for each of 1.5 objects, over all anchors and two classes
    for boxes, classes in ((head.cv2, head.cv3), *([(head.one2one_cv2, head.one2one_cv3)] if end2end else [])):
        for box, kind, mean in zip(boxes, classes, (size / 8, 1.0), strict=True):  # at least a stride
            bins = box[-1].bias.view(4, 16).softmax(1)
            ratio = bins[:, 1:] / bins[:, :-1]
            torch.testing.assert_close(ratio, torch.full_like(ratio, mean / (1 + mean)))  # geometric, of this mean
            torch.testing.assert_close(kind[-1].bias.sigmoid(), torch.full((2,), score))


def test_loaded_branches_stay() -> None:
    head = build_head()
    loaded = [head.cv2[0][-1].bias, head.cv3[1][-1].bias]
    for bias in loaded:
        bias.data[0] += 0.25
    before = [bias.clone() for bias in loaded]
    assert " 2 branches" in init_head(head, LABELS, 320, float("inf"))
    assert all(map(torch.equal, loaded, before))
    assert head.cv2[1][-1].bias[1] < head.cv2[1][-1].bias[0] and head.cv3[0][-1].bias.unique().numel() == 1
    assert init_head(head, LABELS, 320, float("inf")) == ""


def test_distances_without_bins_and_tiles() -> None:
    head = build_head(reg_max=1)
    init_head(head, LABELS[:1], 320, 320)  # tiles of half the side show objects of 40 px, at a quarter of the number
    assert head.cv2[0][-1].bias.tolist() == [5.0] * 4 and head.cv2[1][-1].bias.tolist() == [1.0] * 4
    expected = torch.full((2,), 5 * 0.5 / (80**2 + 10**2) / 2)
    torch.testing.assert_close(head.cv3[0][-1].bias.sigmoid(), expected)
