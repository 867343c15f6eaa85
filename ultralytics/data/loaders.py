"""Reads videos past corrupt frames, at which upstream stops, and reads images of any name ahead of use."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ultralytics.data.loaders import IMG_FORMATS, PIL_FALLBACK_SUFFIXES
from ultralytics.data.loaders import LoadImagesAndVideos as StockLoadImagesAndVideos
from ultralytics.data.loaders import glob as stock_glob
from ultralytics.data.loaders import imread as stock_imread
from ultralytics.utils import LOGGER

from small_object.images import find_nested_image, literal_glob, resolve_names
from small_object.parallel import ReadAhead
from small_object.video import Capture, openable_name

imread = ReadAhead(stock_imread)
glob = SimpleNamespace(glob=literal_glob, escape=stock_glob.escape)  # upstream's loaders look it up here


class LoadImagesAndVideos(StockLoadImagesAndVideos):
    """Upstream's reader of image and video files. It names files that it can't read, and continues.

    A list of files keeps its order, images before videos. As in stock, images in subfolders are not read; a warning
    says so.

    Attributes:
        unreadable: Files that could not be read so far. A warning has named each of them with the reason.
    """

    def __init__(self, path: str | Path | Sequence[str | Path], *args: Any, **kwargs: Any) -> None:
        self.unreadable: list[str] = []
        if isinstance(path, (str, Path)) and Path(path).suffix.lower() == ".txt":
            path, self.unreadable = resolve_names(Path(path))
        super().__init__(path, *args, **kwargs)
        if isinstance(path, (list, tuple)):
            files = [str(Path(file).absolute()) for file in path]
            if sorted(files) == sorted(self.files):  # no folders, patterns or other files among them
                self.files = sorted(files, key=lambda file: file.rpartition(".")[-1].lower() not in IMG_FORMATS)
        elif os.path.isdir(path) and (nested := find_nested_image(path, IMG_FORMATS)):  # noqa: PTH112 - any name
            advice = f"source='{path}/**/*.*' reads all"
            LOGGER.warning(f"{path}: images in its subfolders, such as {nested}, are not read; {advice}")

    def __iter__(self) -> Any:
        imread.clear()
        return super().__iter__()

    def __next__(self) -> tuple[list[str], list[np.ndarray], list[str]]:
        """Return the next batch, see upstream. The batch after it is decoded while this one runs."""
        batch = super().__next__()
        for file in self.files[self.count : min(self.count + self.bs, self.ni)]:
            if Path(file).suffix.lower() not in PIL_FALLBACK_SUFFIXES:  # their readers are not thread-safe
                imread.start(file, flags=self.cv2_flag)
        return batch

    def close(self) -> None:
        """Release open files; see upstream."""
        imread.clear()
        super().close()

    def _append_image(self, paths: list, imgs: list, info: list, path: str, im0: np.ndarray | None, idx: int) -> None:
        if im0 is None:
            self.unreadable.append(path)
        else:
            super()._append_image(paths, imgs, info, path, im0, idx)

    def _new_video(self, path: str) -> None:
        with suppress(FileNotFoundError), openable_name(path) as name:
            super()._new_video(name)
        if not self.cap.isOpened() and hasattr(self, "count"):  # not in the constructor: iteration opens it again
            LOGGER.warning(f"{path}: can't be read as a video; it may be damaged")
            self.unreadable.append(path)
        self.cap = Capture(self.cap, path, self)
