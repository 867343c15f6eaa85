"""Tells a model about its training data before the first step."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import product
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from ultralytics.utils import LOGGER, RANK, colorstr
from ultralytics.utils.loss import model_setting
from ultralytics.utils.torch_utils import unwrap_model

from small_object.nwd import mean_box_size
from small_object.sizes import UPRIGHT_TASKS, box_sides
from small_object.slicing.dataset import add_shape, object_size

TINY = 4  # pixels: a cell of the finest grid, at stride 4
BRANCHES = "cv2", "cv3", "one2one_cv2", "one2one_cv3"  # of a head: boxes and classes
POSITIVES = 5.0
"""Sum of the target scores of an object: about 0.5 for each of its ten candidates."""

Labels = Sequence[Mapping[str, Any]]


def fit_to_data(model: Any, dataset: Any, args: SimpleNamespace) -> None:
    """Tell a model the size of its training objects, for the loss, the assignment, the head and `slice=auto`.

    Args:
        model: Model about to be trained, with its task in `args`.
        dataset: Upstream's training set, or one of tiles.
        args: Arguments of the training.
    """
    datasets = getattr(dataset, "datasets", [dataset])  # of upstream's YOLOConcatDataset
    labels = [add_shape(label) for each in datasets for label in getattr(each, "labels", ())]
    if not labels:
        return
    tile = max(getattr(dataset, "tile", (math.inf,)))
    model = unwrap_model(model)
    student = getattr(model, "student_model", model)  # distillation: the student builds the loss
    lines = []
    if args.task in UPRIGHT_TASKS:  # their losses hold a BboxLoss
        lines.append(set_nwd_scale(student, labels, args, tile))
        if model_setting(student, "head_init") and hasattr(student.model[-1], "bias_init"):
            lines.append(init_head(student.model[-1], labels, args.imgsz, tile))
    model.object_size = object_size(labels)  # saved in checkpoints for `slice=auto`
    model.train_scale = median(args.imgsz / min(max(label["shape"]), tile) for label in labels)
    model.tiles_only = tile < math.inf and args.slice_full_ratio == 0  # decides an unset `slice_full`
    if RANK not in {-1, 0}:
        return
    for line in filter(None, lines):
        LOGGER.info(line)
    sides = box_sides(labels, args.imgsz, tile).min(1)
    if args.task == "detect" and (tiny := int((sides < TINY).sum())):
        LOGGER.warning(
            f"{tiny} of {len(sides)} training boxes are less than {TINY} px wide or high at imgsz={args.imgsz}; "
            f"augmentation drops those of min_box={args.min_box:g} px or less. Use slice= or a larger imgsz="
        )


def set_nwd_scale(model: Any, labels: Labels, args: SimpleNamespace, tile: float) -> str:
    """Set the scale `nwd_c` of a model whose loss uses the NWD, in input pixels; return a line for the log."""
    places = {"box loss": "nwd", "assignment of small objects": "nwd_assign"}
    shares = {place: model_setting(model, key) for place, key in places.items()}
    used = " and ".join(f"share {share:g} of the {place}" for place, share in shares.items() if share)
    if not used:
        return ""
    if args.nwd_c is None:
        model.nwd_c = mean_box_size(labels, args.imgsz, tile)
        source = "the mean size of the training boxes in input pixels"
    else:
        model.nwd_c = float(args.nwd_c)
        source = "argument nwd_c"
    return f"{colorstr('NWD:')} {used}, C = {model.nwd_c:.2f} px ({source})"


@torch.no_grad()
def init_head(head: Any, labels: Labels, imgsz: int, tile: float) -> str:
    """Initialise what took no weights of a detection head with the mean size and the frequency of the training objects.

    Upstream starts all 16 bins of a distance equally, a mean of 7.5 strides to each side. At stride 8 that is a box of
    120 px, whose IoU with an object of 20 px is 0.03. The class scores of fine levels also start far below those of
    coarse levels, so that coarse levels win the first assignments. Here, bin k starts at -k·ln(1 + 1/m), a geometric
    distribution with the mean m: half the mean size of the objects in strides, at least 1. All levels start with the
    same class score: the expected number of positive anchors divided by the number of anchors. Biases that are no
    longer at upstream's start values come from loaded weights, and stay.

    Args:
        head: Upstream's `Detect` or a subclass.
        labels: Labels of the training set, see `box_sides`.
        imgsz: Side of the input in pixels.
        tile: Longer side of the tiles in pixels; infinite without slicing.

    Returns:
        A line for the log; empty if all biases come from loaded weights.
    """
    unused = deepcopy(head)
    unused.bias_init()
    size = mean_box_size(labels, imgsz, tile)
    density = sum(len(x["bboxes"]) * min(1.0, tile**2 / math.prod(x["shape"])) for x in labels) / max(1, len(labels))
    anchors = sum((imgsz / stride) ** 2 for stride in head.stride.tolist())
    score = min(max(POSITIVES * density / anchors / head.nc, 1e-6), 0.5)
    bins = torch.arange(head.reg_max, dtype=torch.float32)
    num_new = 0
    for name, (level, stride) in product(BRANCHES, enumerate(head.stride.tolist())):
        branches = getattr(head, name, None)
        if branches is None or not torch.equal(branches[level][-1].bias, getattr(unused, name)[level][-1].bias):
            continue
        num_new += 1
        bias = branches[level][-1].bias
        if name.endswith("cv3"):
            bias[: head.nc] = math.log(score / (1 - score))
        else:
            mean = max(size / 2 / stride, 1.0)
            start = -bins * math.log(1 + 1 / mean) if head.reg_max > 1 else torch.tensor([mean])
            bias.copy_(start.repeat(4))
    values = f"boxes of {size:.1f} px and class scores of {score:.2g}, as in the data"
    return f"{colorstr('head:')} {num_new} branches without weights start with {values}" if num_new else ""
