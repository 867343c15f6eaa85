"""Reads videos past corrupt frames."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from ultralytics.utils import LOGGER

from small_object.images import readable_name


@contextmanager
def openable_name(path: str) -> Iterator[str]:
    """Yield a path to a video that OpenCV can open: it crashes on a name that is not UTF-8."""
    if readable_name(path) == path:
        yield path
        return
    with TemporaryDirectory() as folder:
        link = Path(folder, f"video{Path(path).suffix}")
        link.symlink_to(Path(path).absolute())
        yield str(link)


class Capture:
    """A video file whose corrupt frames can be grabbed but not retrieved.

    OpenCV's `grab` fails at a corrupt frame as at the end, but continues after the frame when called again. Corrupt
    frames count, so later frames keep their numbers.

    Args:
        video: The opened file.
        path: Its name.
        loader: The reader, whose `frame` is advanced past skipped frames.
    """

    def __init__(self, video: cv2.VideoCapture, path: str, loader: Any) -> None:
        self._video, self._path, self._loader = video, path, loader
        self._count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        self._number = 0  # of the last frame grabbed, from 1
        self._corrupt = 0  # number of corrupt frames from here; the one after them has been grabbed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._video, name)

    def grab(self) -> bool:
        """Move to the next frame; return False at the end."""
        if self._corrupt:
            self._corrupt -= 1
        elif not self._video.grab():
            left = range(1, self._count - self._number)
            self._corrupt = next((tried for tried in left if self._video.grab()), 0)
            if not self._corrupt:
                return False
        self._number += 1
        return True

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        """Return whether the frame can be read, and the frame (H, W, 3), BGR."""
        success, image = (False, None) if self._corrupt else self._video.retrieve()
        if not success or image is None:
            LOGGER.warning(f"{self._path}: frame {self._number} of {self._count} is corrupt and skipped")
            self._loader.frame += 1
        return success, image
