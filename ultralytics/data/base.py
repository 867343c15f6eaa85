"""Lets training continue when an image can no longer be read; keeps caches of 16-bit images apart by their scale."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics.data.base import BaseDataset as StockBaseDataset
from ultralytics.utils import LOGGER
from ultralytics.utils.ops import xywh2xyxy

from small_object.errors import UserError
from small_object.ignore import paint_regions, read_regions
from small_object.images import read_bits

MAX_UNREADABLE = 0.1  # fraction of the images; training stops if more are unreadable


class BaseDataset(StockBaseDataset):
    """Upstream's data set. In training, other images replace those that become unreadable after the scan.

    Upstream's scan leaves out corrupt images with a warning, but an image that becomes corrupt later ends training. It
    still ends a validation, because results on fewer images can't be compared with earlier ones.
    """

    _unreadable: frozenset[int] = frozenset()

    @property
    def npy_files(self) -> list[Path]:
        """Files of the cache on disk; with `SMALL_OBJECT_BITS`, their names hold it, since it scales the pixels."""
        return self._npy_files

    @npy_files.setter
    def npy_files(self, files: list[Path]) -> None:
        bits = read_bits()
        self._npy_files = [file.with_suffix(f".{bits}-bit.npy") for file in files] if bits else files

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """Return upstream's image, its original and its new (height, width). In training, ignore regions are grey."""
        is_cached = self.ims[i] is not None  # and painted
        image, original, size = super().load_image(i, *args, **kwargs)
        if self.augment and not is_cached and len(regions := read_regions(self.im_files[i])):
            sides = np.array(size[::-1] * 2)
            paint_regions(image, regions * sides, xywh2xyxy(self.labels[i]["bboxes"]) * sides)
        return image, original, size

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Return an image with its labels; see upstream. In training, another image replaces one that can't be read."""
        if type(self).get_image_and_label is not BaseDataset.get_image_and_label:  # adds data of the index
            return super().get_image_and_label(index)
        return self._get_readable(index, super().get_image_and_label)

    def _get_readable(self, index: int, get: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
        """Return `get(index)`; in training, use the next index whose image can be read.

        Args:
            index: Index of the image.
            get: Raises an OSError or OpenCV's error where an image can't be read.

        Raises:
            UserError: If an image can't be read in a validation, or too many can't be read in training.
        """
        while True:
            try:
                return get(index)
            except (OSError, cv2.error) as error:  # upstream's, for a broken and for an empty file
                file = self.im_files[index]
                if not self.augment:
                    raise UserError(f"{file}: can no longer be read; repair it or remove it from the data") from error
                if index not in self._unreadable:
                    self._unreadable = self._unreadable | {index}
                    LOGGER.warning(f"{self.prefix}{file}: can no longer be read; another image replaces it")
                if len(self._unreadable) > max(1, MAX_UNREADABLE * self.ni):
                    raise UserError(f"{file}: {len(self._unreadable)} images can no longer be read") from error
                others = (i % self.ni for i in range(index + 1, index + self.ni))
                index = next(i for i in others if i not in self._unreadable)
