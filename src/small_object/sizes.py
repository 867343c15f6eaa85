"""Average precision and recall by object size, computed by faster-coco-eval (https://pypi.org/project/faster-coco-eval).

The conventions are COCO's (https://cocodataset.org/#detection-eval). Sizes are box areas in pixels of the original
image. For a size range, objects outside it are ignored, not missed. So are predictions that match them, and predictions
outside the range that match nothing. AP has 101 recall points and is the mean over IoU 0.50:0.95; AR is the mean recall
over these. Unlike in COCO, a box at a limit belongs only to the larger group, and up to `max_det` predictions per class
and image count, instead of 100.
"""

import gc
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from ultralytics.utils import LOGGER, plt_settings

COCO_SMALL, COCO_LARGE = 32**2, 96**2
"""COCO's limits on the box area in square pixels: small is below the first, large is at least the second."""

Ranges: TypeAlias = dict[str, tuple[float, float]]

SIZE_GROUPS: Ranges = {
    "very tiny": (0, 8**2),
    "tiny": (8**2, 16**2),
    "small": (16**2, COCO_SMALL),
    "medium": (COCO_SMALL, COCO_LARGE),
    "large": (COCO_LARGE, float("inf")),
}
"""Limits on the box area by group in square pixels; the second limit is exclusive.

The first three are AI-TOD's (https://doi.org/10.1109/ICPR48806.2021.9413340) and together COCO's small; the last two
are COCO's (https://cocodataset.org/#detection-eval).
"""


def size_group(area: np.ndarray) -> np.ndarray:
    """Return the index in `SIZE_GROUPS` of each box by its area in square pixels; any shape, int64.

    Example:
        >>> [list(SIZE_GROUPS)[group] for group in size_group(np.array([50, 100, 5000]))]
        ['very tiny', 'tiny', 'medium']
    """
    return np.searchsorted([low for low, _ in SIZE_GROUPS.values()][1:], area, side="right")


def box_sides(labels: Iterable[Mapping[str, Any]], imgsz: int | None = None, tile: float = math.inf) -> np.ndarray:
    """Return the width and height of each box of a data set, shape (N, 2), in pixels of its image or of the input.

    Args:
        labels: Per image, `bboxes`, normalised xywh, shape (N, 4), and `shape`, the original (height, width).
        imgsz: Side of the input, to which the longer side of an image or a tile is scaled; None: pixels of the image.
        tile: Side in pixels of the tiles into which larger images are cut first.
    """
    sides = [np.zeros((0, 2))]
    for label in labels:
        scale = imgsz / min(max(label["shape"]), tile) if imgsz else 1.0
        sides.append(np.asarray(label["bboxes"], float)[:, 2:] * label["shape"][::-1] * scale)
    return np.concatenate(sides)


COCO_SMALL_NAME = "COCO small"
SIZE_RANGES: Ranges = {**SIZE_GROUPS, COCO_SMALL_NAME: (0, COCO_SMALL)}
"""The size groups and COCO's small, which is the first three together; limits as in `SIZE_GROUPS`."""

SCORES = {"ap": "AP", "ap50": "AP50", "ar": "AR"}
# In publications `AP_small` means COCO's small, so the key of the group called small states its limits.
_KEY_NAMES = {"small": "small16-32", COCO_SMALL_NAME: "small"}
SIZE_KEYS = {
    (score, name): f"metrics/{label}_{_KEY_NAMES.get(name, name.replace(' ', '_'))}(B)"
    for name in SIZE_RANGES
    for score, label in SCORES.items()
}
"""Keys of the results of all classes by score and size range, e.g. `metrics/AP50_very_tiny(B)`."""

BY_OBJECT = "all, by object"
UPRIGHT_TASKS = frozenset({"detect", "segment", "pose"})  # those with upright boxes


def measures_size(args: SimpleNamespace) -> bool:
    """Return whether a run measures accuracy by object size, by its arguments `size_metrics` and `task`."""
    return bool(getattr(args, "size_metrics", False)) and args.task in UPRIGHT_TASKS


@dataclass
class SizeScores:
    """Scores by the names of `SIZE_RANGES`, of one class or as means over the classes with objects of that size.

    Attributes:
        counts: Number of objects.
        ap: AP, 0..1; NaN without objects, as for the other scores.
        ap50: AP at IoU 0.50, 0..1.
        ar: Average recall, 0..1.
    """

    counts: dict[str, int]
    ap: dict[str, float]
    ap50: dict[str, float]
    ar: dict[str, float]


@dataclass
class SizeMetrics(SizeScores):
    """Accuracy by object size: of all classes in its own attributes, of each class in `per_class`.

    Attributes:
        names: Class names by class index.
        per_class: Scores by class index, of the classes that have objects.

    Example:
        >>> metrics = YOLO("yolo11n.pt").val(data="coco8.yaml")  # doctest: +SKIP
        >>> metrics.size.ap50["tiny"], metrics.size.ap["COCO small"]  # doctest: +SKIP
    """

    names: dict[int, str]
    per_class: dict[int, SizeScores] = field(repr=False)

    @property
    def by_object(self) -> SizeScores:
        """Means over the classes, weighted by their number of objects, so that rare classes count less."""
        return _average(self.per_class.values(), self.counts, by_object=True)

    def results(self) -> dict[str, float]:
        """Return the scores of all classes by `SIZE_KEYS`; -1 without objects, as in COCO."""
        scores = {key: getattr(self, score)[name] for (score, name), key in SIZE_KEYS.items()}
        return {key: -1.0 if np.isnan(value) else value for key, value in scores.items()}

    def summary(self) -> list[dict[str, Any]]:
        """Return a row for each class and size range: first the mean of all classes, then the mean by object.

        A row has the keys Class, Size, Area (in pixels), Objects, AP, AP50 and AR; scores are NaN without objects.
        """
        classes = [("all", self), (BY_OBJECT, self.by_object)]
        classes += [(self.names.get(c, str(c)), scores) for c, scores in self.per_class.items()]
        return [
            {"Class": label, "Size": name, "Area": area_limits(name), "Objects": scores.counts[name]}
            | {column: round(getattr(scores, score)[name], 5) for score, column in SCORES.items()}
            for label, scores in classes
            for name in SIZE_RANGES
        ]

    def table(self, per_class: bool = False) -> str:
        """Return the scores as text, in columns as wide as in Ultralytics' own table.

        With `per_class`, rows follow for each class and size with objects.
        """
        rows = self.summary()
        first, others = rows[: len(SIZE_RANGES)], rows[len(SIZE_RANGES) :]
        if not per_class:
            others = [row for row in others if row["Class"] == BY_OBJECT and row["Size"] == COCO_SMALL_NAME]
        lines = [list(rows[0])]
        for row in first + [row for row in others if row["Objects"]]:
            *labels, ap, ap50, ar = row.values()
            lines.append([*labels, *("-" if np.isnan(score) else f"{score:.3g}" for score in (ap, ap50, ar))])
        return "\n".join(f"{line[0]:>22}" + "".join(f"{cell!s:>11}" for cell in line[1:]) for line in lines)


def area_limits(name: str, square: str = "^2") -> str:
    """Return the limits of a size range in square pixels, e.g. `8^2-16^2`."""
    low, high = SIZE_RANGES[name]
    if low == 0:
        return f"<{high**0.5:g}{square}"
    return f">={low**0.5:g}{square}" if np.isinf(high) else f"{low**0.5:g}{square}-{high**0.5:g}{square}"


class SizeRecords:
    """Collects the boxes of a validation image by image and scores them by object size.

    Attributes:
        images: Per image its objects, xyxy and class, shape (N, 5), and its predictions, xyxy, confidence and class,
            shape (M, 6); float32, in pixels of the original image. The index in the list is the image's id.

    Example:
        >>> records, box = SizeRecords(), np.array([[10, 10, 20, 20]])
        >>> records.add((480, 640), box, np.array([0]), box, np.array([0.9]), np.array([0]))
        >>> records.evaluate({0: "person"}, max_det=300).ap50["tiny"]
        1.0
    """

    def __init__(self) -> None:
        self.images: list[tuple[np.ndarray, np.ndarray]] = []

    def add(
        self, shape: tuple[int, int], targets: np.ndarray, target_cls: np.ndarray,
        boxes: np.ndarray, conf: np.ndarray, cls: np.ndarray,
    ) -> None:  # fmt: skip
        """Add an image.

        Args:
            shape: Height and width of the original image in pixels; all boxes are clipped to it.
            targets: Objects, xyxy in pixels of the original image, shape (N, 4).
            target_cls: Their classes, shape (N,).
            boxes: Predictions, likewise, shape (M, 4).
            conf: Their confidences, 0..1, shape (M,).
            cls: Their classes, shape (M,).
        """
        limits = (shape[1], shape[0]) * 2
        objects = np.column_stack((np.clip(targets, 0, limits), target_cls))
        predictions = np.column_stack((np.clip(boxes, 0, limits), conf, cls))
        self.images.append((objects.astype(np.float32), predictions.astype(np.float32)))

    def evaluate(self, names: dict[int, str], max_det: int, ranges: Ranges = SIZE_RANGES) -> SizeMetrics:
        """Score the collected boxes.

        Args:
            names: Class names by class index.
            max_det: Maximum number of predictions per class and image that count, the most confident first.
            ranges: Limits on the box area by name.
        """
        objects = _join([image[0] for image in self.images], 5)
        predictions = _join([image[1] for image in self.images], 6)
        collecting = gc.isenabled()
        gc.disable()  # it would rescan the library's many dictionaries, a third of the time
        try:
            per_class = {
                c: _evaluate_class(objects[objects[:, -1] == c], predictions[predictions[:, -1] == c], max_det, ranges)
                for c in np.unique(objects[:, -1]).astype(int).tolist()
            }
        finally:
            if collecting:
                gc.enable()
        mean = _average(per_class.values(), ranges, by_object=False)
        return SizeMetrics(**vars(mean), names=dict(names), per_class=per_class)


def _average(classes: Collection[SizeScores], sizes: Iterable[str], by_object: bool) -> SizeScores:
    """Return the means over the classes with objects of a size, weighted by their number of objects or equally."""
    counts = {name: sum(scores.counts[name] for scores in classes) for name in sizes}
    means = {score: dict.fromkeys(counts, math.nan) for score in SCORES}
    for name in counts:
        having = [scores for scores in classes if scores.counts[name]]
        weights = [scores.counts[name] if by_object else 1 for scores in having]
        for score in SCORES if having else ():
            values = [getattr(scores, score)[name] for scores in having]
            means[score][name] = float(np.average(values, weights=weights))
    return SizeScores(counts, **means)


def _join(images: list[np.ndarray], columns: int) -> np.ndarray:
    """Return the rows of all images as one array, with the index of their image in front."""
    rows = np.concatenate([np.zeros((0, columns)), *images])
    return np.column_stack((np.repeat(np.arange(len(images)), [len(image) for image in images]), rows))


def _evaluate_class(objects: np.ndarray, predictions: np.ndarray, max_det: int, ranges: Ranges) -> SizeScores:
    """Score one class, given its rows of all images, see `_join`."""
    from faster_coco_eval import COCO, COCOeval_faster

    # Labels have six decimals and pass through float32: rounding puts a box of 32x32 px into the right group.
    area = np.round(objects[:, 3:5] - objects[:, 1:3], 2).prod(1)
    images = np.union1d(objects[:, 0], predictions[:, 0]).astype(int).tolist()
    truth = COCO(_dataset(images, objects, area, np.ones(len(objects))))
    size = (predictions[:, 3:5] - predictions[:, 1:3]).prod(1)
    found = COCO(_dataset(images, predictions, size, predictions[:, 5]))
    evaluator = COCOeval_faster(truth, found, iouType="bbox", print_function=LOGGER.debug)
    evaluator.params.maxDets = [max_det]
    # In COCO both limits belong to a range; here the upper one belongs to the next range.
    evaluator.params.areaRng = [[float(low), float(np.nextafter(high, 0))] for low, high in ranges.values()]
    evaluator.params.areaRngLbl = list(ranges)
    evaluator.evaluate()
    evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, 0, :, 0]  # (IoU, recall, ranges)
    recall = evaluator.eval["recall"][:, 0, :, 0]  # (IoU, ranges)
    counts = np.array([((low <= area) & (area < high)).sum() for low, high in ranges.values()])
    scores = np.stack((precision.mean((0, 1)), precision[0].mean(0), recall.mean(0)))  # IoU 0.50 comes first
    rows = counts, *np.where(counts > 0, scores, np.nan)
    return SizeScores(*(dict(zip(ranges, row.tolist(), strict=True)) for row in rows))


def _dataset(images: list[int], rows: np.ndarray, area: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    """Return boxes of one class as a COCO data set. Ids start at 1, since 0 marks a box without a match."""
    ltwh = np.column_stack((rows[:, 1:3], rows[:, 3:5] - rows[:, 1:3]))
    columns = zip(rows[:, 0].astype(int).tolist(), ltwh.tolist(), area.tolist(), score.tolist(), strict=True)
    return {
        "images": [{"id": image} for image in images],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 1, "bbox": box, "area": a, "score": s, "iscrowd": 0}
            for i, (image, box, a, s) in enumerate(columns, 1)
        ],
    }


def drop_size_columns(table: str) -> str:
    """Return the text of a `results.csv` without the columns of `SIZE_KEYS`."""
    rows = [line.split(",") for line in table.splitlines()]
    kept = [i for i, column in enumerate(rows[0]) if column not in SIZE_KEYS.values()] if rows else []
    if not rows or len(kept) == len(rows[0]):
        return table
    return "\n".join(",".join(row[i] for i in kept if i < len(row)) for row in rows)


@plt_settings()  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
def plot_size_metrics(size: SizeMetrics, path: Path, on_plot: Callable[[Path], Any] | None = None) -> None:
    """Plot AP50 and recall of all classes by size group to `path`; call `on_plot` with it."""
    import matplotlib.pyplot as plt  # slow to import

    figure, ax = plt.subplots(figsize=(9, 5), tight_layout=True)
    positions = np.arange(len(SIZE_GROUPS))
    for shift, scores, label, color in (
        (-0.2, size.ap50, "AP50 (average precision at IoU 0.50)", "#0b6fb8"),
        (0.2, size.ar, "AR (recall, mean over IoU 0.50 to 0.95)", "#f0a030"),
    ):
        heights = [scores[name] for name in SIZE_GROUPS]
        bars = ax.bar(positions + shift, np.nan_to_num(heights), 0.38, label=label, color=color)
        ax.bar_label(bars, ["" if np.isnan(height) else f"{height:.3f}" for height in heights], padding=2)
    ticks = []
    for x, name in enumerate(SIZE_GROUPS):
        ticks.append(f"{name}\n{area_limits(name, '²').replace('>=', '≥')} px\nn = {size.counts[name]:,}")
        if not size.counts[name]:
            ax.text(x, 0.02, "no objects", ha="center", color="gray")
    ax.set_xticks(positions, ticks)
    ax.set(ylim=(0, 1.25), yticks=np.linspace(0, 1, 6))  # the legend stands above the bars
    ax.set(title="Accuracy by object size, all classes", xlabel="box area in the original image, and number of objects")
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
    ax.legend(loc="upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=200)
    plt.close(figure)
    if on_plot:
        on_plot(path)
