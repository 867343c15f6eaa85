"""Adds counts of slicing to results, and draws lines and labels that hide no small objects."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from ultralytics.engine.results import Results as StockResults
from ultralytics.utils.plotting import Annotator as StockAnnotator
from ultralytics.utils.plotting import colors

LINE_WIDTH = 2  # pixels; upstream's grows with the image: in a 4K frame its 9 px would cover an object of 8 px
MAX_HIDDEN = 0.25  # fraction of a box that a label may hide


class Annotator(StockAnnotator):
    """Draws labels above, below or beside their boxes; one that would hide an object is left out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._labels: list[tuple[np.ndarray, str, Any, Any]] = []

    def box_label(self, box: Any, label: str = "", color: Any = (128,) * 3, txt_color: Any = (255,) * 3) -> None:
        """Draw a box, xyxy or corners (n, 2) in pixels, and keep its label until all boxes are known; see upstream."""
        super().box_label(box, "", color, txt_color)
        points = np.asarray(box, dtype=float).reshape(-1, 2)
        self._labels.append((np.concatenate((points.min(0), points.max(0))), label, color, txt_color))

    def result(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the labels and return the image; see upstream."""
        self._to_numpy()
        image_wh = np.array(self.im.size if self.pil else self.im.shape[1::-1])
        taken = np.array([box for box, *_ in self._labels]).reshape(-1, 4)
        areas = (taken[:, 2:] - taken[:, :2]).prod(1).clip(1)
        for (x1, y1, x2, y2), label, *colours in reversed(self._labels):  # the last box has the highest score
            if label:
                w, h = self.font.getsize(label) if self.pil else cv2.getTextSize(label, 0, self.sf, self.tf)[0]
                up, right = np.array([0, h + 3]), np.array([w, 0])  # with upstream's padding
                corners = np.array([(x1, y1), (x1, y2), (x2, y1), (x1 - w, y1)]) + up * [[0], [1], [1], [1]]
                corners = corners.clip(up, np.maximum(image_wh - right, up))  # of labels, lower left
                places = np.hstack((corners - up, corners + right))[:, None]
                low, high = places[..., :2].min((0, 1)), places[..., 2:].max((0, 1))
                near = ((taken[:, :2] < high) & (taken[:, 2:] > low)).all(1)
                shared = np.minimum(places[..., 2:], taken[near, 2:]) - np.maximum(places[..., :2], taken[near, :2])
                hidden = (shared.clip(0).prod(2) / areas[near]).max(1, initial=0)
                best = hidden.argmin()
                if hidden[best] <= MAX_HIDDEN:
                    super().box_label([*corners[best], *corners[best]], label, *colours)
                    taken, areas = np.vstack((taken, places[best])), np.append(areas, 1)  # labels don't overlap
        self._labels = []
        return super().result(*args, **kwargs)


class Results(StockResults):
    """Upstream's results of an image with two counts of slicing, which indexing, `cpu()` and trackers keep.

    Attributes:
        tiles: Number of tiles run and number of tiles skipped; None if only the whole image was run.
        num_full: Number of objects found in the whole image, 0 without `slice_full`; None if only that was run.
    """

    tiles: tuple[int, int] | None = None
    num_full: int | None = None

    def new(self) -> Results:
        """Return results of the same image without objects."""
        result = super().new()
        result.tiles, result.num_full = self.tiles, self.num_full
        return result

    def plot(self, conf: bool = True, line_width: float | None = None, *args: Any, **kwargs: Any) -> Any:
        """Draw the results into the image, with lines of 2 px unless `line_width` is given; see upstream."""
        if hasattr(self.masks, "paint") and not args and kwargs.get("masks", True):  # crops of a sliced image
            image = np.array(self.orig_img if kwargs.get("img") is None else kwargs["img"])
            if image.shape[2] != 3:  # as upstream draws them
                image = np.repeat(image, 3, 2) if image.shape[2] == 1 else np.ascontiguousarray(image[..., :3])
            boxes, number = self.boxes, range(len(self))[::-1]
            index = boxes.cls if kwargs.get("color_mode") != "instance" else boxes.id if boxes.is_track else number
            self.masks.paint(image, [colors(int(i), True) for i in index])
            kwargs |= {"img": image, "masks": False}
        return super().plot(conf, line_width or LINE_WIDTH, *args, **kwargs)
