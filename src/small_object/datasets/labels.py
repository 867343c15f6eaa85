"""Label files in YOLO's format: one object a line, `class cx cy w h` as shares of the image's sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ultralytics.utils.ops import segments2boxes

from small_object.errors import UserError


def yolo_lines(boxes: np.ndarray, classes: np.ndarray, width: int, height: int) -> str:
    """Write boxes as label lines.

    Args:
        boxes: Boxes (N, 4), xyxy in pixels.
        classes: Class indices (N,).
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        One line an object.

    Example:
        >>> yolo_lines(np.array([[10, 20, 30, 60]]), np.array([2]), width=100, height=100).strip()
        '2 0.200000 0.400000 0.200000 0.400000'
    """
    lines = []
    for cls, (x0, y0, x1, y1) in zip(classes.tolist(), boxes.astype(np.float64).tolist(), strict=True):
        values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        lines.append(f"{cls} " + " ".join(f"{v:.6f}" for v in values) + "\n")
    return "".join(lines)


def parse_labels(text: str, source: str | Path) -> np.ndarray:
    """Read label lines as training does: polygons (more than six fields) become the boxes around them.

    Args:
        text: Content of a label file.
        source: Name of the file, for the errors.

    Returns:
        Objects (N, 5): class, cx, cy, w, h as shares, float64. The values are not checked further.

    Raises:
        UserError: If a line has too few or too many fields or holds something other than numbers, or if some lines are
            boxes and some polygons.

    Example:
        >>> parse_labels("2 0.2 0.4 0.2 0.4", "a.txt").tolist()
        [[2.0, 0.2, 0.4, 0.2, 0.4]]
    """
    rows: list[list[float]] = []
    polygons = None
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            values = [float(field) for field in fields]
        except ValueError:
            raise UserError(f"{source}:{number}: `{line.strip()[:80]}` must be numbers: class cx cy w h") from None
        if len(values) != 5 and not (len(values) > 6 and len(values) % 2):
            raise UserError(f"{source}:{number}: `{line.strip()[:80]}` must have 5 fields (class cx cy w h)")
        if polygons not in (None, len(values) > 5):
            raise UserError(f"{source}:{number}: boxes and polygons in one file; write only boxes, or only polygons")
        if polygons := len(values) > 5:
            polygon = np.array(values[1:]).reshape(-1, 2)
            values = [values[0], *segments2boxes([polygon])[0].tolist()]
        rows.append(values)
    return np.array(rows, np.float64).reshape(-1, 5)


def read_labels(file: str | Path) -> np.ndarray:
    """Read a label file, see `parse_labels`.

    Raises:
        UserError: If it is no text, or a line of it cannot be read.
        OSError: If the file cannot be opened.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not a text file in UTF-8; write one line an object: class cx cy w h") from None
    return parse_labels(text, file)
