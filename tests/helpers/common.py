"""Tiny models, data sets and processes that many tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

TINY_MODEL = """
nc: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, DualConv, [16, 2]]
  - [-1, 1, C3k2DWR, [16, False]]
  - [-1, 1, DualConv, [16, 2]]
head:
  - [[2, 3], 1, Detect, [nc]]
"""
"""A model YAML of our blocks that trains in a moment; a data set's number of classes takes the place of `nc`."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    """Write text files by their path in a folder; return the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def write_data(folder: Path, names: tuple[str, ...], images: dict[str, int]) -> Path:
    """Write a data set of 96x72 px images with one bright rectangle each; return its YAML."""
    rng = np.random.default_rng(len(names))
    for split, count in images.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 60, (72, 96, 3), dtype=np.uint8)
            x, y = rng.integers(4, 40, 2)
            image[y : y + 20, x : x + 30] = 220
            cv2.imwrite(str(folder / f"images/{split}/{i}.png"), image)
            label = f"{i % len(names)} {(x + 15) / 96:.6f} {(y + 10) / 72:.6f} {30 / 96:.6f} {20 / 72:.6f}\n"
            (folder / f"labels/{split}/{i}.txt").write_text(label)
    file = folder / f"{folder.name}.yaml"
    file.write_text(f"train: images/train\nval: images/val\nnames: {list(names)}\n")
    return file
