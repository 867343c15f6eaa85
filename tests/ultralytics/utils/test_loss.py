"""The box loss with a share of the normalised Wasserstein distance."""

import pytest
import torch
from torchvision.ops import complete_box_iou_loss
from ultralytics.utils.loss import BboxLoss, StockBboxLoss

from small_object.nwd import nwd

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
        nwd_term = 1 - nwd(a, b, c).item()
        weight = arguments["target_scores"][image, anchor].sum().item()
        total += weight * ((1 - share) * ciou_term + share * nwd_term)
        strides.add(s)
    assert strides == {4, 8, 16, 32}
    assert box.item() == pytest.approx(total / arguments["target_scores_sum"].item(), rel=1e-4)
    assert torch.equal(distance, StockBboxLoss(reg_max)(**arguments)[1])


@pytest.mark.parametrize("reg_max", [16, 1])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_no_positive_anchor_gives_zero(share, reg_max):
    values, gradients = run(configured(share, 9.0, reg_max), case(reg_max, positives=False))
    assert [v.item() for v in values] == [0, 0]
    assert all(g.isfinite().all() and g.abs().max() == 0 for g in gradients)
