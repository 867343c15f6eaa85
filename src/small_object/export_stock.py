"""Writes weights of this fork as a checkpoint that stock Ultralytics loads."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import Conv, Detect, DualConv, LightDetect
from ultralytics.nn.tasks import torch_safe_load

from small_object.arguments import DEFAULTS
from small_object.errors import UserError, explain, one_line
from small_object.files import replacing

ROW_ATTRIBUTES = "i", "f", "type", "np"  # set by `parse_model` for each row


def export_stock(weights: Path, out: Path) -> None:
    """Write a checkpoint of a detection model with which stock Ultralytics predicts, validates and exports.

    A `DualConv` becomes a 3x3 `Conv` that computes the same, and a `LightDetect` becomes a `Detect` with its light
    branches. Training from it in stock Ultralytics builds full box branches and takes the weights that fit.

    Raises:
        UserError: If a file can't be loaded or written, or the model has a block that no stock module can replace.
    """
    try:
        ckpt, _ = torch_safe_load(str(weights))
    except Exception as error:
        why = explain(error) or one_line(error)
        raise UserError(why if weights.name in why else f"{weights}: {why}") from error
    for key in ("ema", "model"):
        if ckpt.get(key) is not None:
            ckpt[key] = replace_blocks(ckpt[key], weights)
    ckpt["train_args"] = {k: v for k, v in (ckpt.get("train_args") or {}).items() if k not in DEFAULTS}
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as new:
        torch.save(ckpt, new)


def replace_blocks(model: Any, file: Path) -> Any:
    """Replace this fork's blocks in a model with stock modules that compute the same; return the model."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is DualConv:
                setattr(parent, name, to_conv(child))
            elif type(child) is LightDetect:
                child.__class__ = Detect
                child.type = "ultralytics.nn.modules.head.Detect"
    ours = {DualConv.__module__, LightDetect.__module__, "ultralytics.nn.modules.dwr", "ultralytics.nn.modules.hsfpn"}
    if left := sorted({type(module).__name__ for module in model.modules() if type(module).__module__ in ours}):
        raise UserError(f"{file}: stock Ultralytics has no {', '.join(left)}; export it with `yolo export`")
    for part in ("backbone", "head"):
        model.yaml[part] = [stock_row(row) for row in model.yaml[part]]
    model.args = {k: v for k, v in dict(getattr(model, "args", None) or {}).items() if k not in DEFAULTS}
    return model


def stock_row(row: list[Any]) -> list[Any]:
    """Return a row of a model YAML with a stock module instead of `DualConv` or `LightDetect`."""
    source, repeats, name, arguments = row
    if name == "DualConv":
        c2, stride = (*arguments, 1)[:2]
        return [source, repeats, "Conv", [c2, 3, stride]]
    return [source, repeats, "Detect" if name == "LightDetect" else name, arguments]


@torch.no_grad()
def to_conv(dual: DualConv) -> Conv:
    """Return a `Conv` equal to a `DualConv`: one dense 3x3 kernel holds its grouped and its 1x1 kernel."""
    grouped, point = dual.conv.weight, dual.cv2.weight
    c2, c1 = point.shape[:2]
    conv = Conv(c1, c2, 3, dual.conv.stride[0], act=dual.act)
    kernel = nn.functional.pad(point.float(), (1, 1, 1, 1))
    groups = dual.conv.groups
    connected = torch.kron(torch.eye(groups), torch.ones(c2 // groups, c1 // groups)).bool()
    kernel[connected] += grouped.float().flatten(0, 1)
    conv.conv.weight = nn.Parameter(kernel.to(grouped.dtype), requires_grad=grouped.requires_grad)
    conv.bn = dual.bn
    for name in ROW_ATTRIBUTES:
        if hasattr(dual, name):
            setattr(conv, name, getattr(dual, name))
    return conv.train(dual.training)
