"""Keeps freed memory once a model is to run on the CPU, so that the next pass need not fetch it again."""

from typing import Any

import torch
from ultralytics.utils.torch_utils import select_device as stock_select_device

from small_object.memory import keep_freed_memory


def select_device(*args: Any, **kwargs: Any) -> torch.device:
    """Return upstream's choice of a device."""
    device = stock_select_device(*args, **kwargs)
    if device.type == "cpu":
        keep_freed_memory()
    return device
