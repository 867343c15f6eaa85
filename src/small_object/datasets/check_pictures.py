"""Draws the worst cases that the check of a data set found, side by side on one picture."""

from __future__ import annotations

import io
import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from small_object.datasets.findings import Finding
from small_object.datasets.images import read_pixels

TILES = 24
TILE, CAPTION, COLUMNS = (400, 250), 70, 4
COLOURS = {"error": (200, 0, 0), "warning": (190, 100, 0), "advice": (0, 80, 190)}


def draw_sheet(findings: Sequence[Finding]) -> bytes | None:
    """Draw the worst cases side by side: one of each kind in the order of the findings, then a second one of each.

    Returns:
        A JPEG; None where there is nothing to show.
    """
    kinds = defaultdict(list)
    for finding in findings:
        if finding.image and len(kinds[finding.kind]) < TILES:
            kinds[finding.kind].append(finding)
    chosen = [finding for turn in zip_longest(*kinds.values()) for finding in turn if finding][:TILES]
    if not chosen:
        return None
    width, height = TILE[0], TILE[1] + CAPTION
    columns = min(COLUMNS, len(chosen))
    sheet = Image.new("RGB", (columns * (width + 8) + 8, math.ceil(len(chosen) / columns) * (height + 8) + 8), "white")
    for number, finding in enumerate(chosen):
        row, column = divmod(number, columns)
        sheet.paste(_draw_tile(finding), (8 + column * (width + 8), 8 + row * (height + 8)))
    data = io.BytesIO()
    sheet.save(data, "JPEG", quality=90)
    return data.getvalue()


def _draw_tile(finding: Finding) -> Image.Image:
    """Draw one case: the box in its surroundings, the whole image or the two images of a pair, and what is wrong."""
    width, height = TILE
    tile = Image.new("RGB", (width, height + CAPTION), (235, 235, 235))
    shown = [path for path in (finding.image, finding.other) if path]
    for number, path in enumerate(shown):
        room = (width // len(shown) - 2 * (len(shown) - 1), height)
        tile.paste(_view(path, finding.box, room), (number * (width - room[0]), 0))
    draw, font, colour = ImageDraw.Draw(tile), ImageFont.load_default(13), COLOURS[finding.level]
    location = finding.location if len(finding.location) < 58 else f"...{finding.location[-55:]}"
    texts = [f"{finding.level}: {finding.kind}", location, *textwrap.wrap(finding.message, 62)[:2]]
    for number, text in enumerate(texts):
        draw.text((4, height + 2 + 16 * number), text, colour if number == 0 else (0, 0, 0), font)
    return tile


def _view(path: str, box: tuple[float, ...] | None, room: tuple[int, int]) -> Image.Image:
    """Show an image, or the part of it around a box (xyxy in pixels) with that box drawn, in the middle of a room."""
    image, (width, height) = read_pixels(path), room
    grey = Image.new("RGB", room, (200, 200, 200))
    if image is None:
        ImageDraw.Draw(grey).text((10, 10), "no picture", (0, 0, 0), ImageFont.load_default(16))
        return grey
    high, wide = image.shape[:2]
    image = np.ascontiguousarray(np.broadcast_to(image[..., :3], (high, wide, 3)))
    if box is None or min(box) < -max(wide, high) or max(box) > 2 * max(wide, high):  # nowhere near
        scale = min(width / wide, height / high)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        image = cv2.resize(image, (max(1, int(wide * scale)), max(1, int(high * scale))), interpolation=how)
        grey.paste(Image.fromarray(image[..., ::-1]), ((width - image.shape[1]) // 2, (height - image.shape[0]) // 2))
        return grey
    x0, y0, x1, y1 = box
    scale = min(width / max(2.5 * (x1 - x0), 60), height / max(2.5 * (y1 - y0), 60 * height / width))
    shift = np.array([width / 2 - (x0 + x1) / 2 * scale, height / 2 - (y0 + y1) / 2 * scale])
    matrix = np.column_stack([np.eye(2) * scale, shift])
    image = cv2.warpAffine(image, matrix, room, borderValue=(200, 200, 200))
    grey.paste(Image.fromarray(image[..., ::-1]))
    corners = (np.array(box).reshape(2, 2) * scale + shift).round().astype(int)
    corners.sort(0)  # where a box has a negative size
    outline = [*(corners[0] - 2).tolist(), *(corners[1] + 2).tolist()]
    ImageDraw.Draw(grey).rectangle(outline, outline=(255, 0, 0), width=2)
    return grey
