"""Draws the worst cases that the check of a data set found, side by side on one picture."""

from __future__ import annotations

import io
import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from small_object.datasets.findings import Finding
from small_object.datasets.images import read_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_TILES, MAX_COLUMNS = 24, 4
TILE = 400, 320  # pixels, of which the image takes the upper 250
COLOURS = {"error": "#c80000", "warning": "#be6400", "advice": "#0050be"}


def draw_sheet(findings: Sequence[Finding]) -> bytes | None:
    """Draw the worst cases side by side: one of each kind in the order of the findings, then a second one of each.

    Returns:
        A JPEG; None where there is nothing to show.
    """
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.image and len(kinds[finding.kind]) < MAX_TILES:
            kinds[finding.kind].append(finding)
    chosen = [finding for turn in zip_longest(*kinds.values()) for finding in turn if finding][:MAX_TILES]
    if not chosen:
        return None
    from matplotlib.figure import Figure  # here, as it is slow to import

    columns = min(MAX_COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(columns * TILE[0] / 100, rows * TILE[1] / 100), dpi=100)
    for number, finding in enumerate(chosen):
        row, column = divmod(number, columns)
        left, top = (column + 0.01) / columns, 1 - row / rows
        shown = [file for file in (finding.image, finding.other) if file]
        for i, file in enumerate(shown):
            width = 0.98 / columns / len(shown)
            _draw_image(
                figure.add_axes((left + i * width, top - 0.79 / rows, width * 0.98, 0.77 / rows)), file, finding
            )
        location = finding.location if len(finding.location) < 58 else f"...{finding.location[-55:]}"
        lines = [location, *textwrap.wrap(finding.message, 58)[:2]]
        kind = f"{finding.level}: {finding.kind}"
        style: dict[str, Any] = {"size": 8.5, "va": "top", "parse_math": False}
        figure.text(left, top - 0.8 / rows, kind, color=COLOURS[finding.level], **style)
        figure.text(left, top - 0.85 / rows, "\n".join(lines), **style)
    data = io.BytesIO()
    figure.savefig(data, format="jpeg")
    return data.getvalue()


def _draw_image(ax: Axes, file: str, finding: Finding) -> None:
    """Show an image, or the part of it around the finding's box with that box."""
    from matplotlib.patches import Rectangle

    ax.set(xticks=[], yticks=[], facecolor="#c8c8c8")
    image = read_pixels(file)
    if image is None:
        ax.text(0.05, 0.9, "no picture", transform=ax.transAxes)
        return
    height, width = image.shape[:2]
    image = np.broadcast_to(image[..., :3], (height, width, 3))[..., ::-1]
    scale = min(1.0, 2 * TILE[0] / max(width, height))
    if finding.box is None or min(finding.box) < -max(width, height) or max(finding.box) > 2 * max(width, height):
        ax.imshow(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        return
    x, y = np.sort(np.reshape(finding.box, (2, 2)), 0).T  # where a box has a negative size
    half = np.array([1.25 * max(x[1] - x[0], 24, (y[1] - y[0]) * 1.3), 0])
    half[1] = half[0] / 1.3
    centre = np.array([x.mean(), y.mean()])
    (x0, y0), (x1, y1) = (np.clip(centre + sign * half, 0, (width, height)).astype(int) for sign in (-1, 1))
    if x1 > x0 and y1 > y0:
        ax.imshow(image[y0:y1, x0:x1], extent=(x0, x1, y1, y0), aspect="auto", interpolation="nearest")
    ax.set(xlim=centre[0] + half[0] * np.array([-1, 1]), ylim=centre[1] + half[1] * np.array([1, -1]), aspect="equal")
    ax.add_patch(Rectangle((x[0], y[0]), x[1] - x[0], y[1] - y[0], fill=False, edgecolor="red", linewidth=2))
