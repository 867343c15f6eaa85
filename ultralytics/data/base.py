"""Lets a training continue when an image can no longer be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from ultralytics.data.base import BaseDataset as StockBaseDataset
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import xywh2xyxy

from small_object.errors import UserError
from small_object.ignore import paint_regions, read_regions
from ultralytics_overlay import require_parameters

require_parameters(StockBaseDataset.get_image_and_label, "index")
require_parameters(StockBaseDataset.load_image, "i")

MAX_UNREADABLE = 0.1  # as a share of the images; more are no accident


class BaseDataset(StockBaseDataset):
    """Upstream's data set. Images that became unreadable after its scan are named, and others take their places.

    Upstream's scan leaves out corrupt images with a warning, too, but one that becomes so in the middle of a training
    ends it. In a validation it still does: its figures would be of other images than those before.
    """

    _unreadable: frozenset[int] = frozenset()

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """Return upstream's image, its original and its new (height, width); in training with grey ignore regions."""
        image, original, size = super().load_image(i, *args, **kwargs)
        if self.augment and len(regions := read_regions(self.im_files[i])):
            sides = np.array(size[::-1] * 2)
            paint_regions(image, regions * sides, xywh2xyxy(self.labels[i]["bboxes"]) * sides)
        return image, original, size

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Return an image with its labels, in a training those of another image if it can't be read; see upstream."""
        if type(self).get_image_and_label is not BaseDataset.get_image_and_label:  # adds more for the same index
            return super().get_image_and_label(index)
        return self._get_readable(index, super().get_image_and_label)

    def _get_readable(self, index: int, get: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
        """Return what `get` returns for an index or, in a training, for the next one whose image can be read.

        Args:
            index: Index of the image.
            get: Raises an OSError or OpenCV's error where an image can't be read.

        Raises:
            UserError: If it can't be read, in a validation, or if too many can't.
        """
        while True:
            try:
                return get(index)
            except (OSError, cv2.error) as error:  # upstream's, for a broken and for an empty file
                file = self.im_files[index]
                if not self.augment:
                    raise UserError(f"{file}: can't be read any more; repair it or take it out of the data") from error
                if index not in self._unreadable:
                    self._unreadable = self._unreadable | {index}
                    LOGGER.warning(f"{self.prefix}{file}: can't be read any more; another image takes its place")
                if len(self._unreadable) > max(1, MAX_UNREADABLE * self.ni):
                    raise UserError(f"{file}: {len(self._unreadable)} images can't be read any more") from error
                index = next(
                    i % self.ni for i in range(index + 1, index + self.ni) if i % self.ni not in self._unreadable
                )
