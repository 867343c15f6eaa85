"""Reads videos past corrupt frames, where upstream takes the first for the end, and images of any file name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from ultralytics.data.loaders import IMG_FORMATS
from ultralytics.data.loaders import LoadImagesAndVideos as StockLoadImagesAndVideos
from ultralytics.data.loaders import glob as stock_glob
from ultralytics.utils import LOGGER

from small_object.errors import UserError
from small_object.images import read_names, readable_name
from ultralytics_overlay import require_parameters

require_parameters(StockLoadImagesAndVideos._new_video, "path")
require_parameters(StockLoadImagesAndVideos._append_image, "paths", "imgs", "info", "path", "im0", "idx")


def _glob(pattern: str, **options: Any) -> list[str]:
    """Return the files of a pattern, or the one file whose name it is: file names may hold `*`."""
    if os.path.exists(pattern):  # noqa: PTH110
        return [pattern]
    return stock_glob.glob(pattern, **options)


glob = SimpleNamespace(glob=_glob, escape=stock_glob.escape)  # upstream's loaders look it up here


class LoadImagesAndVideos(StockLoadImagesAndVideos):
    """Upstream's reader of image and video files, which names what it can't read and continues after it.

    A list of files keeps its order, images before videos. Images in a folder's subfolders are not read, as in stock,
    but mentioned.

    Attributes:
        unreadable: Files that could not be read so far; a warning has named each with the reason.
    """

    def __init__(self, path: str | Path | Sequence[str | Path], *args: Any, **kwargs: Any) -> None:
        """Open the files; see upstream's arguments."""
        self.unreadable: list[str] = []
        if isinstance(path, (str, Path)) and Path(path).suffix.lower() == ".txt":
            path = self._read_list(Path(path))
        super().__init__(path, *args, **kwargs)
        if isinstance(path, (list, tuple)):
            files = [str(Path(file).absolute()) for file in path]
            if sorted(files) == sorted(self.files):  # no folders, patterns or other files among them
                self.files = sorted(files, key=lambda file: file.rpartition(".")[-1].lower() not in IMG_FORMATS)
        elif os.path.isdir(path) and (nested := _find_nested_image(path)):  # noqa: PTH112 - any name
            LOGGER.warning(
                f"{path}: images in its subfolders, such as {nested}, are not read; source='{path}/**/*.*' reads all"
            )

    def _read_list(self, file: Path) -> list[str]:
        """Return the files and patterns of a list, in upstream's order; name those that are missing.

        Raises:
            UserError: If all are.
        """
        found = []
        for name in sorted(read_names(file)):
            for path in (name, str(file.parent / name)):  # relative to the working folder or to the list
                if glob.glob(str(Path(path).absolute()), recursive=True) if "*" in path else os.path.exists(path):  # noqa: PTH110
                    found.append(path)
                    break
            else:
                LOGGER.warning(f"{file}: {name}: no such file")
                self.unreadable.append(name)
        if not found:
            raise UserError(f"{file}: names no file that there is")
        return found

    def _append_image(self, paths: list, imgs: list, info: list, path: str, im0: np.ndarray | None, idx: int) -> None:
        if im0 is None:
            self.unreadable.append(path)
        else:
            super()._append_image(paths, imgs, info, path, im0, idx)

    def _new_video(self, path: str) -> None:
        with TemporaryDirectory() as folder, suppress(FileNotFoundError):
            video = path
            if readable_name(path) != path:  # OpenCV crashes on a name that is not UTF-8
                video = f"{folder}/video{Path(path).suffix}"
                Path(video).symlink_to(Path(path).absolute())
            super()._new_video(video)
        if not self.cap.isOpened() and hasattr(
            self, "count"
        ):  # the constructor opens a video that iteration opens again
            LOGGER.warning(f"{path}: is no video that can be read, or damaged")
            self.unreadable.append(path)
        self.cap = Capture(self.cap, path, self)


def _find_nested_image(folder: str | Path) -> str | None:
    """Return an image in a subfolder, relative to the folder, or None."""
    for path, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if Path(path) != Path(folder):
            for file in files:
                if file.rpartition(".")[-1].lower() in IMG_FORMATS and not file.startswith("."):
                    return os.path.relpath(os.path.join(path, file), folder)  # noqa: PTH118
    return None


class Capture:
    """A video file that hands out its corrupt frames as frames that can't be retrieved.

    OpenCV's `grab` fails at a corrupt frame as at the end, but continues after it when it is called again. Frames are
    counted as the file states them, so those after a corrupt one keep their numbers.

    Args:
        video: The opened file.
        path: Its name.
        loader: The reader, of which `frame` is counted on past a frame that is left out.
    """

    def __init__(self, video: cv2.VideoCapture, path: str, loader: StockLoadImagesAndVideos) -> None:
        self._video, self._path, self._loader = video, path, loader
        self._count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        self._number = 0  # of the last frame grabbed, from 1
        self._corrupt = 0  # frames from this one on that are corrupt; the one after them has been grabbed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._video, name)

    def grab(self) -> bool:
        """Go to the next frame; return False at the end."""
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
