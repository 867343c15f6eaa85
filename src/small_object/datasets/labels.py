"""Label files in YOLO's format: one object per line, `class cx cy w h` as fractions of the image's sides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ultralytics.utils.metrics import bbox_ioa
from ultralytics.utils.ops import segments2boxes, xywh2xyxy, xyxy2xywhn

from small_object.datasets.findings import LEFT_OUT, Fault
from small_object.errors import UserError

TOLERANCE = 0.01  # beyond 0..1 that training accepts
ROUNDING = 1e-6  # of a number in a label file
INVISIBLE = -0.005  # coordinate of a keypoint that is labelled by two values; training accepts -0.01 and more
EDGE = 0.5  # pixels by which rounding may move a box out of the image or away from another
NEAR_IOU = 0.95
NO_OBJECT = {"not-numbers", "wrong-fields", "broken-class", "unknown-class", "no-size", "duplicate-box"}
"""Faults of a line that leave no object in it."""


@dataclass
class LabelLine:
    """One line of a label file."""

    number: int  # from 1
    values: tuple[float, ...] = ()  # its numbers; empty if they can't be read
    xywh: tuple[float, ...] = ()  # its box as fractions, or the box around its polygon; empty if it can't be read
    keypoints: tuple[str, ...] = ()  # fields after its box that training on boxes ignores
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_polygon(self) -> bool:
        """Whether it is a polygon."""
        return len(self.values) > 5

    @property
    def xyxy(self) -> np.ndarray:
        """The box `xywh` as corners (4,)."""
        return xywh2xyxy(np.array(self.xywh))

    def has(self, *kinds: str) -> bool:
        """Return whether it has a fault of one of the kinds."""
        return any(fault.kind in kinds for fault in self.faults)


def parse_lines(
    text: str, num_classes: int | None = None, size: tuple[int, int] | None = None, num_fields: int = 5
) -> list[LabelLine]:
    """Read the label lines that are not blank as training does, and find the faults of each.

    If one fault of a line causes another, only the first is reported. Without `num_classes`, the class and the box are
    not checked; without the image's `size` (width and height in pixels), nothing that needs it is. For `num_fields` see
    `DataSet`.
    """
    rows = enumerate(text.removeprefix("\ufeff").splitlines(), 1)
    lines = [_parse_line(number, fields, num_fields) for number, row in rows if (fields := row.split())]
    read = [line for line in lines if line.xywh]
    if num_classes is not None:
        for line in read:
            line.faults += _find_faults(line, num_classes, size)
        _find_repeats([line for line in lines if not line.has(*NO_OBJECT)], size)
    if odd := next((line for line in read if line.is_polygon != read[0].is_polygon), None):
        what = "polygon among boxes" if odd.is_polygon else "box among polygons"
        odd.faults.append(Fault("mixed-labels", f"is a {what}: {LEFT_OUT}"))
    return lines


def _parse_line(number: int, fields: Sequence[str], num_fields: int) -> LabelLine:
    """Read the numbers of one line."""
    values: tuple[float, ...] = ()
    keypoints: tuple[str, ...] = ()
    if len(fields) == num_fields:
        fields, keypoints = fields[:5], tuple(fields[5:])
    for text in fields:
        try:
            values += (float(text),)
        except ValueError:
            values += (math.nan,)
        if not math.isfinite(values[-1]):
            message = f"has `{text[:30]}`, which is not a finite number: {LEFT_OUT}"
            return LabelLine(number, faults=[Fault("not-numbers", message)])
    if len(values) == 5:
        return LabelLine(number, values, values[1:], keypoints)
    if len(values) > 6 and len(values) % 2:
        polygon = np.array(values[1:]).reshape(-1, 2)
        return LabelLine(number, values, tuple(segments2boxes([polygon])[0].tolist()))
    return LabelLine(number, faults=[Fault("wrong-fields", f"has {len(values)} fields, not 5: {LEFT_OUT}")])


def _find_faults(line: LabelLine, num_classes: int, size: tuple[int, int] | None) -> list[Fault]:
    """Find the faults of a line's class and box."""
    faults = []
    cls = line.values[0]
    if cls % 1:
        faults.append(Fault("broken-class", f"has class {cls:g}, which is not whole: {LEFT_OUT}"))
    elif not 0 <= cls < num_classes:
        message = f"has class {cls:.0f}; `names` has 0 to {num_classes - 1}: {LEFT_OUT}"
        faults.append(Fault("unknown-class", message))
    low, high = min(line.xywh), max(line.xywh)
    w, h = line.xywh[2:]
    is_far = low < -TOLERANCE or high > 1 + TOLERANCE
    if min(w, h) <= 0:
        why = LEFT_OUT if is_far or min(w, h) < 0 else "which no prediction can match"
        faults.append(Fault("no-size", f"has a box of {w:g} x {h:g}: {why}"))
    elif is_far:
        worst = low if -low > high - 1 else high
        faults.append(Fault("outside", f"has {worst:g}, beyond 0..1 by more than {TOLERANCE:.0%}: {LEFT_OUT}"))
    elif low < -ROUNDING or high > 1 + ROUNDING:
        message = f"has {low if low < 0 else high:g}, beyond 0..1; training tolerates up to {TOLERANCE:.0%}"
        faults.append(Fault("leaves-image", message))
    elif size:
        x, y = line.xywh[:2]
        beyond = max(size[0] * max(w / 2 - x, x + w / 2 - 1), size[1] * max(h / 2 - y, y + h / 2 - 1))
        if beyond > EDGE:
            faults.append(Fault("leaves-image", f"has a box that leaves the image by {beyond:.1f} pixels"))
    return faults


def _find_repeats(lines: Sequence[LabelLine], size: tuple[int, int] | None) -> None:
    """Find lines that repeat an earlier one nearly, or exactly as training compares them (in float32)."""
    first: dict[bytes, int] = {}
    different = []
    for line in lines:
        number = first.setdefault(np.clip(line.values, -1e38, 1e38).astype(np.float32).tobytes(), line.number)
        if number == line.number:
            different.append(line)
        else:
            line.faults.append(Fault("duplicate-box", f"repeats line {number}; training removes it"))
    if size and len(different) > 1:
        boxes = np.array([line.xyxy for line in different]).clip(0, 1) * (*size, *size)
        for later, earlier in near_duplicates(boxes, np.array([line.values[0] for line in different])):
            message = f"nearly repeats the box of line {different[earlier].number}"
            different[later].faults.append(Fault("near-duplicate-box", message))


def near_duplicates(boxes: np.ndarray, classes: np.ndarray) -> list[tuple[int, int]]:
    """Find boxes (N, 4), xyxy in pixels, that nearly repeat an earlier one of their class: one object labelled twice.

    They have an IoU of at least 0.95, or all four edges within half a pixel. Rounding alone takes two boxes of a few
    pixels below that IoU, while the boxes of two visible objects are further apart. Boxes without area match none.

    Returns:
        Index of each such box, and of an earlier box that is not itself such a box.
    """
    found: dict[int, int] = {}
    solid = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    for later in np.flatnonzero(solid).tolist():
        near: np.ndarray = bbox_ioa(boxes[later : later + 1], boxes[:later], iou=True)[0] >= NEAR_IOU
        near |= (np.abs(boxes[later] - boxes[:later]) <= EDGE).all(1)
        near &= (classes[later] == classes[:later]) & solid[:later]
        near[list(found)] = False
        if near.any():
            found[later] = int(near.argmax())
    return list(found.items())


def parse_labels(text: str, source: str | Path, num_classes: int | None = None, num_fields: int = 5) -> np.ndarray:
    """Read label lines as training does: polygons (more than six fields) become the boxes around them.

    Repeated objects and boxes without a size are left out, but without `num_classes` the values are unchecked. `source`
    is the file's name in errors.

    Returns:
        Objects (N, 5): class, cx, cy, w, h as fractions, float64.

    Raises:
        UserError: If training leaves the whole image out because of a line.

    Example:
        >>> parse_labels("2 0.2 0.4 0.2 0.4", "a.txt").tolist()
        [[2.0, 0.2, 0.4, 0.2, 0.4]]
    """
    lines = parse_lines(text, num_classes, num_fields=num_fields)
    for line in lines:
        for fault in line.faults:
            if fault.message.endswith(LEFT_OUT):
                raise UserError(f"{source}:{line.number}: {fault.message}; write class cx cy w h")
    rows = [(line.values[0], *line.xywh) for line in lines if not line.has(*NO_OBJECT)]
    return np.array(rows, np.float64).reshape(-1, 5)


def read_labels(file: str | Path, num_classes: int | None = None, num_fields: int = 5) -> np.ndarray:
    """Read a label file, see `parse_labels`.

    Raises:
        UserError: If it is not text, or training would not read one of its lines.
        OSError: If the file cannot be opened.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not a text file in UTF-8; write one line per object: class cx cy w h") from None
    return parse_labels(text, file, num_classes, num_fields)


def yolo_lines(
    boxes: np.ndarray, classes: np.ndarray, width: int, height: int, points: Sequence[np.ndarray] = (),
    num_values: int = 3,
) -> str:  # fmt: skip
    """Return boxes (N, 4), xyxy in pixels, and class indices (N,) as label lines of an image of this size.

    For other kinds of objects, `points` has the polygon of each, shape (P, 2), written instead of its box, or its
    keypoints, shape (K, 3), written after it by `num_values` values each: x and y in pixels, visibility.

    Example:
        >>> yolo_lines(np.array([[10, 20, 30, 60]]), np.array([2]), width=100, height=100).strip()
        '2 0.200000 0.400000 0.200000 0.400000'
    """
    lines, rows = [], xyxy2xywhn(boxes.astype(float), width, height).tolist()
    for i, (cls, values) in enumerate(zip(classes.tolist(), rows, strict=True)):
        if len(points):
            own = points[i] / (width, height, 1)[: points[i].shape[1]]
            values = values if own.shape[1] == 3 else []
            if values and num_values == 2:
                own = np.where(own[:, 2:] > 0, own, INVISIBLE)[:, :2]
            values += own.ravel().tolist()
        lines.append(f"{cls} " + " ".join(f"{v:.6f}" for v in values) + "\n")
    return "".join(lines)
