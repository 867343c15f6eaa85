"""The layout of a data set, `images/{train,val}` and `labels/{train,val}`, and how one comes to be in its place."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import TQDM, YAML

from small_object.datasets.labels import parse_labels
from small_object.errors import UserError

SPLITS = ("train", "val")
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Sample:
    """An image with its labels.

    Attributes:
        image: File of the image.
        name: File name that it gets in a data set, unique there, whatever the case.
        text: Its label lines in YOLO's format, empty for an image without objects.
    """

    image: Path
    name: str
    text: str

    @cached_property
    def labels(self) -> np.ndarray:
        """Objects (N, 5): class, cx, cy, w, h as shares; see `parse_labels` for what it raises."""
        return parse_labels(self.text, f"labels of {self.image.name}")


def read_data_yaml(data: str | Path) -> dict[str, Any]:
    """Read the YAML file of a data set as training does, which makes a missing set that has a `download:`.

    Args:
        data: The file.

    Returns:
        Upstream's dictionary: `train`, `val` and `test` with full paths, `names`, `nc`, `path`, `yaml_file` and more.

    Raises:
        UserError: If the file cannot be used, or the images are missing and cannot be made.
    """
    try:
        if Path(data).suffix in {".yaml", ".yml"} and Path(data).is_file():
            nc = YAML.load(data).get("nc")
            if isinstance(nc, (int, float)) and nc > MAX_CLASSES:  # upstream would name that many, until memory is full
                raise UserError(f"{data}: `nc` must be the number of classes, at most {MAX_CLASSES}")
        info = check_det_dataset(data)
    except UserError:
        raise
    except Exception as error:  # upstream's own are of many types, and a `download:` script may raise any
        why = str(error.args[0]) if error.args else type(error).__name__
        why = " ".join(why.partition("\nNote dataset")[0].replace("❌", "").split())
        raise UserError(why if str(data) in why else f"{data}: {why}") from error
    if type(channels := info["channels"]) is not int or channels < 1:
        raise UserError(f"{data}: `channels` must be the number of an image's channels, from 1, not {channels!r}")
    return info


def write_samples(samples: Sequence[Sample], sides: Sequence[str], made: Path, move: bool = False) -> None:
    """Write images and labels of a data set into a folder that `making` gave.

    Args:
        samples: Images with their labels.
        sides: `train` or `val` for each.
        made: The folder; gets `images/{train,val}` and `labels/{train,val}`.
        move: Move the images instead of copying them.
    """
    for kind in ("images", "labels"):
        for side in SPLITS:
            (made / kind / side).mkdir(parents=True, exist_ok=True)
    for sample, side in TQDM(
        zip(samples, sides, strict=True), desc="laying out", total=len(samples), unit="image", leave=False
    ):
        image = made / "images" / side / sample.name
        if move:
            sample.image.replace(image)
        else:
            shutil.copyfile(sample.image, image)
        (made / "labels" / side / sample.name).with_suffix(".txt").write_text(sample.text, encoding="utf-8")


def unique_names(images: Sequence[Path], base: Path) -> list[str]:
    """Name images after their files, with folders in front where the stem alone, whatever its case, is not unique."""
    names = [path.name for path in images]
    for depth in range(1, 64):
        count: dict[str, int] = defaultdict(int)
        for name in names:
            count[Path(name).stem.casefold()] += 1
        clash = [i for i, name in enumerate(names) if count[Path(name).stem.casefold()] > 1]
        if not clash:
            break
        for i in clash:
            folders = images[i].relative_to(base).parts[:-1]
            own = images[i].name if depth <= len(folders) else f"{images[i].stem}_{i}{images[i].suffix}"
            names[i] = "_".join((*folders[-depth:], own))
    return names


def put_in_place(made: Path, root: Path) -> None:
    """Move what `made` holds (`labels`, other files, `images` last) to `root`, with all of the old back on failure.

    Without `images/` a set counts as missing, so a process that is killed in between leaves one that is made anew.
    """
    names = sorted((path.name for path in made.iterdir()), key=lambda name: (name == "images", name))
    aside: list[tuple[Path, Path]] = []
    try:
        for name in reversed(names):
            if (root / name).exists():
                old = made / f"old-{name}"
                (root / name).rename(old)
                aside.append((old, root / name))
        for name in names:
            (made / name).rename(root / name)
    except BaseException:
        for old, home in aside:
            if home.is_dir():
                shutil.rmtree(home)
            old.replace(home)
        raise
    for split in SPLITS:  # lists of the old images that training may have left
        for cache in root.glob(f"labels/{split}.cache*"):
            with suppress(FileNotFoundError):
                cache.unlink()
