"""Generates the demo data sets ASS1-demo (surface cameras) and ASS2-demo (panoramas) of synthetic airport scenes.

They replace the real sets, with the same classes and the same shares of classes and object sizes. Each image has its
own random stream, so a set is the same each time it is generated.

    small-object scenes ASS1-demo --train 500 --val 100 --out datasets/ASS1-demo
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from ultralytics.utils import LOGGER, YAML

from small_object.datasets.dataset import SPLITS, new_dataset, write_labels
from small_object.datasets.labels import yolo_lines
from small_object.errors import UserError
from small_object.parallel import map_threads
from small_object.scenes.layout import panorama_scene, surface_scene
from small_object.scenes.render import render_scene
from small_object.scenes.scene import Scene


@dataclass(frozen=True)
class DemoSet:
    """A demo set; `shares` or else `objects` defines what an image shows."""

    key: int  # of its random streams
    width: int
    height: int
    names: tuple[str, ...]
    train: int  # default number of images
    val: int
    shares: dict[str, tuple[float, float, float]] | None = None  # of small, medium and large objects, in all objects
    density: float = 0.0  # mean number of objects in an image
    empty: float = 0.0  # share of images without objects
    objects: dict[str, float] = field(default_factory=dict)  # mean number of objects in an image, of any size


# Of ASS1's 8,371 objects 41.4 % are airplanes, 35.8 % persons and 22.8 % trucks; 39.4 % are small and 15.6 % large.
# Large ones are airplanes and near trucks, so the bins of the classes differ, but keep those sums.
DEMO_SETS = {
    "ASS1-demo": DemoSet(
        1, 1280, 720, ("airplane", "person", "truck"), 160, 40,
        shares={"airplane": (0.107, 0.189, 0.118), "person": (0.213, 0.140, 0.005), "truck": (0.074, 0.121, 0.033)},
        density=8371 / 2000, empty=0.03,
    ),
    "ASS2-demo": DemoSet(
        2, 3840, 1080, ("airplane", "truck"), 24, 8, objects={"airplane": 23.41, "truck": 60.73},
    ),
}  # fmt: skip


def _apportion(total: int, shares: np.ndarray) -> np.ndarray:
    """Split `total` into integers in proportion to `shares`."""
    return np.diff(np.round(total * np.cumsum(shares) / shares.sum()).astype(int), prepend=0)


def plan_split(demo: DemoSet, split: str, count: int, seed: int = 0) -> list[list[tuple[str, int]]]:
    """Decide which objects each image of a split gets, so that the shares hold for the split as a whole.

    Returns:
        The objects of each image as (class name, size): 0 small, 1 medium, 2 large, -1 any.
    """
    rng = np.random.default_rng([seed, demo.key, SPLITS.index(split)])
    plan: list[list[tuple[str, int]]] = [[] for _ in range(count)]
    if demo.shares is None:
        spread = rng.uniform(0.8, 1.2, count)
        for name, mean in demo.objects.items():
            for image, n in zip(plan, _apportion(round(mean * count), spread), strict=True):
                image += [(name, -1)] * int(n)
        return plan
    total = round(demo.density * count)
    bins = [(name, size) for name in demo.names for size in range(3)]
    amounts = _apportion(total, np.array([demo.shares[n][s] for n, s in bins]))
    deck = [b for b, n in zip(bins, amounts, strict=True) for _ in range(int(n))]
    weights = rng.gamma(3.5, size=count)
    weights[rng.permutation(count)[: int(demo.empty * count)]] = 0
    cards = iter(rng.permutation(len(deck)))
    for image, n in zip(plan, _apportion(total, weights), strict=True):
        image += [deck[next(cards)] for _ in range(int(n))]
    return plan


def build_scene(demo: DemoSet, split: str, index: int, wanted: list[tuple[str, int]], seed: int = 0) -> Scene:
    """Lay out the scene of one image of a set; `wanted` is its item of `plan_split`."""
    rng = np.random.default_rng([seed, demo.key, SPLITS.index(split), index])
    if demo.shares is None:
        return panorama_scene(demo.width, demo.height, Counter(name for name, _ in wanted), rng)
    return surface_scene(demo.width, demo.height, demo.names, wanted, rng)


def _write_image(planned: tuple[int, list[tuple[str, int]]], root: Path, demo: DemoSet, split: str, seed: int) -> None:
    """Render one image, given by its index and objects; its labels are those of the visible parts."""
    index, wanted = planned
    scene = build_scene(demo, split, index, wanted, seed)
    image, boxes, classes = render_scene(scene, np.random.default_rng([seed, demo.key, SPLITS.index(split), index, 1]))
    stem = f"{split}_{index:05d}"
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    (root / "images" / split / f"{stem}.jpg").write_bytes(data.tobytes())
    write_labels(root, split, f"{stem}.jpg", yolo_lines(boxes, classes, demo.width, demo.height))


def make_demo(
    name: str, root: str | Path | None = None, train: int | None = None, val: int | None = None, seed: int = 0,
    overwrite: bool = False,
) -> Path:  # fmt: skip
    """Generate a demo set: `images/{train,val}/*.jpg`, `labels/{train,val}/*.txt` in YOLO's format and `<name>.yaml`.

    The set is built in a temporary folder and moved into place when it is complete.

    Args:
        name: "ASS1-demo" or "ASS2-demo".
        root: Folder of the set, by default `datasets/<name>` in the current directory.
        train: Number of training images, by default the set's.
        val: Number of validation images, by default the set's.
        seed: Another seed gives another set.
        overwrite: Replace existing images.

    Returns:
        The folder.

    Raises:
        UserError: If the name or a number can't be used, or other images exist and `overwrite` is not set.

    Example:
        >>> make_demo("ASS1-demo", "datasets/my-demo", train=2, val=1).name
        'my-demo'
    """
    if name not in DEMO_SETS:
        raise UserError(f"no demo set named '{name}': choose {' or '.join(DEMO_SETS)}")
    demo = DEMO_SETS[name]
    counts = {"train": demo.train if train is None else train, "val": demo.val if val is None else val}
    for split, count in counts.items():
        if count < 1:
            raise UserError(f"{split} must be at least 1 image, not {count}")
    if seed < 0:
        raise UserError(f"seed must not be negative, got {seed}")
    root = Path(root) if root is not None else Path("datasets") / name
    if (root / "images").exists() and not overwrite:
        found = {split: len(list((root / "images" / split).glob("*.jpg"))) for split in SPLITS}
        if found == counts:
            LOGGER.info(f"{name} is already in {root}: {found['train']} training and {found['val']} validation images")
            return root
        raise UserError(
            f"{root / 'images'} holds {found['train']} training and {found['val']} validation images, not "
            f"{counts['train']} and {counts['val']}: pass --overwrite (overwrite=True) to replace them"
        )
    with new_dataset(root, SPLITS) as made:
        for split, count in counts.items():
            write = partial(_write_image, root=made, demo=demo, split=split, seed=seed)
            list(map_threads(write, list(enumerate(plan_split(demo, split, count, seed))), f"{name} {split}"))
        if not (root / f"{name}.yaml").exists():
            data = {split: f"images/{split}" for split in SPLITS} | {"names": dict(enumerate(demo.names))}
            header = "# Synthetic airport scenes. Paths are relative to this file's folder.\n"
            YAML.save(made / f"{name}.yaml", data, header)
    LOGGER.info(f"{name} is in {root}: {counts['train']} training and {counts['val']} validation images")
    return root
