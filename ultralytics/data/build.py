"""Reads a list of image and video files in batches, like a folder. Upstream opens all of them at once, as images."""

from pathlib import Path
from typing import Any

from ultralytics.data.build import IMG_FORMATS, VID_FORMATS
from ultralytics.data.build import check_source as stock_check_source


def check_source(source: Any) -> tuple[Any, bool, bool, bool, bool, bool]:
    """Return a source; then whether it is a webcam, a screenshot, images in memory, a loader or a tensor."""
    if isinstance(source, (list, tuple)) and source and all(map(_is_file, source)):
        return list(source), False, False, False, False, False
    return stock_check_source(source)


def _is_file(source: Any) -> bool:
    """Return whether a source is the path of an image or a video file, which need not exist."""
    if not isinstance(source, (str, Path)) or str(source).lower().startswith(("https://", "http://")):
        return False
    return Path(source).suffix[1:].lower() in IMG_FORMATS | VID_FORMATS
