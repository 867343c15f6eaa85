"""Saves PyTorch files in one step, so that none is ever half of one."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from ultralytics.utils.patches import torch_save as stock_torch_save


def torch_save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> None:
    """Save an object; a file is written beside its place and then moved there.

    Args:
        obj: What to save.
        f: A path or an open file.
        *args: See `torch.save`.
        **kwargs: Likewise.

    Raises:
        OSError: If the file can't be written; an older one is as it was. (PyTorch itself would raise a RuntimeError
            that does not say that the disk is full.)
    """
    path = Path(os.path.realpath(f)) if isinstance(f, (str, os.PathLike)) else None
    if path is None or (path.exists() and not path.is_file()):  # an open file, or a device
        stock_torch_save(obj, f, *args, **kwargs)
        return
    from small_object.files import replacing  # which imports ultralytics.utils, and that this module

    buffer = io.BytesIO()
    stock_torch_save(obj, buffer, *args, **kwargs)
    with replacing(path) as new:
        new.write_bytes(buffer.getbuffer())
