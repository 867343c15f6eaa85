"""Splits frames into training and validation so that frames that look alike are on the same side.

Consecutive frames of a surveillance camera differ little. On both sides, they would validate a model on its training
data. So frames that look alike form groups, and a group is never divided. Groups go to validation in the order of a
hash of their content, and are then moved until each class and each object size has its share there. The result depends
only on the files' content and names, not on their order, the machine or chance.
"""

import csv
import hashlib
import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from ultralytics.utils import LOGGER, TQDM

from small_object.datasets.dataset import SPLITS, Sample, write_labels
from small_object.datasets.images import difference_hash, near_pairs
from small_object.datasets.labels import parse_labels
from small_object.errors import UserError
from small_object.images import UnreadableImageError, read_bits, read_pixels, scale_to_8_bit
from small_object.parallel import map_threads
from small_object.sizes import SIZE_GROUPS, size_group
from small_object.slicing.groups import connected

# scikit-learn's StratifiedGroupKFold and imagehash don't fit: the former balances one label per image, not objects by
# class and size; the results of both may change with a release; and a split must need no extra package.
VAL_SHARE = 0.2
ALIKE_BITS = (24, 12, 6, 3, 0)  # of 256 that similar frames may differ in; the next number if a group is too large
MAX_EXCHANGES = 500  # groups tried in exchange for one
MAX_GROUP = 0.25  # of the validation side's images
MAX_CLASS = 1000  # labels of higher classes don't count


@dataclass(frozen=True)
class Frame:
    """The facts about an image that the split needs."""

    name: str  # file name in the data set
    content: str  # SHA-256 of the file, hex
    dhash: np.ndarray  # perceptual hash (256,), bool; the bits of `content` if the image can't be read
    objects: np.ndarray  # number of objects by class and size group (classes, 5), int64


def read_frames(samples: Sequence[Sample]) -> list[Frame]:
    """Read the facts about each image. Labels and images that can't be read count as no objects."""
    frames = list(map_threads(_read_frame, samples, "comparing images"))
    num_classes = max((len(frame.objects) for frame in frames), default=0)
    return [replace(f, objects=np.pad(f.objects, ((0, num_classes - len(f.objects)), (0, 0)))) for f in frames]


def _read_frame(sample: Sample) -> Frame:
    content = hashlib.sha256(sample.image.read_bytes())
    image = None
    with suppress(UnreadableImageError):
        image = scale_to_8_bit(read_pixels(sample.image, cv2.IMREAD_GRAYSCALE), read_bits() or 16)[..., 0]
    rows = np.zeros((0, 5))
    try:
        rows = parse_labels(sample.text, f"labels of {sample.image.name}")
    except UserError as error:
        LOGGER.warning(str(error))
    rows = rows[np.isin(rows[:, 0], np.arange(MAX_CLASS)) & np.isfinite(rows).all(1)]
    classes = rows[:, 0].astype(np.int64)
    objects = np.zeros((1 + classes.max(initial=0), len(SIZE_GROUPS)), np.int64)
    if image is not None:
        np.add.at(objects, (classes, size_group(rows[:, 3] * rows[:, 4] * image.size)), 1)
    bits = np.unpackbits(np.frombuffer(content.digest(), np.uint8)).astype(bool)  # unlike any other image's
    return Frame(sample.name, content.hexdigest(), bits if image is None else difference_hash(image), objects)


def group_frames(frames: Sequence[Frame], max_size: int) -> list[list[int]]:
    """Group frames that look alike, directly or via others.

    A group of more than `max_size` frames is grouped again by a stricter measure. If even frames with equal hashes are
    too many (a fixed camera), they are cut into runs in the order of their names, which is that of time. Then only the
    frames at a cut have a neighbour on the other side. Files with the same content always stay together.

    Returns:
        Indices of the frames of each group, in the order of the hash of its content.
    """
    by_content: dict[str, list[int]] = defaultdict(list)
    for i in sorted(range(len(frames)), key=lambda i: (_natural_key(frames[i].name), frames[i].content)):
        by_content[frames[i].content].append(i)
    copies = list(by_content.values())  # from here, groups hold indices of these
    sizes = np.array([len(group) for group in copies])
    looks = np.array([frames[group[0]].dhash for group in copies])
    done: list[list[int]] = []
    large = [list(range(len(copies)))]
    for max_bits in ALIKE_BITS:
        parts = [part for group in large for part in _find_alike(group, looks, max_bits)]
        large = [part for part in parts if sizes[part].sum() > max_size]
        done += [part for part in parts if sizes[part].sum() <= max_size]
    for group in large:
        done.append([])
        for k in group:
            if done[-1] and sizes[[*done[-1], k]].sum() > max_size:
                done.append([])
            done[-1].append(k)
    groups = [[i for k in group for i in copies[k]] for group in done]
    groups = [sorted(group, key=lambda i: (frames[i].content, frames[i].name)) for group in groups]
    hashes = [hashlib.sha256("\n".join(frames[i].content for i in group).encode()).digest() for group in groups]
    return [group for _, group in sorted(zip(hashes, groups, strict=True))]


def _find_alike(group: Sequence[int], looks: np.ndarray, max_bits: int) -> list[list[int]]:
    """Divide the indices of hashes into groups that differ in few bits, directly or via others."""
    label = np.arange(len(group))
    hashes = looks[group]
    for left, right, _ in near_pairs(hashes, hashes, max_bits):
        label = connected(len(group), label[left], label[right])[label]
    parts: dict[int, list[int]] = defaultdict(list)
    for k, number in zip(group, label.tolist(), strict=True):
        parts[number].append(k)
    return list(parts.values())


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names naturally: frame9 before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.casefold())]


def choose_groups(groups: np.ndarray) -> np.ndarray:
    """Choose the groups that go to validation.

    The choice starts with the first groups. Single groups are moved and exchanged as long as that lowers the sum of
    (got - wanted)² / wanted. The sum is computed in integers, so that every machine finds the same.

    Args:
        groups: Counts in each group of each kind of thing to balance, (groups, kinds), integers; the first kind is
            images.

    Returns:
        Whether each group is chosen (groups,), bool: at least one and, if there are several, not all.
    """
    scale = 1000
    parts = round(VAL_SHARE * scale)
    groups = groups[:, groups.sum(0) > 0].astype(np.int64)
    totals = groups.sum(0)
    weights = np.maximum(10**9 // totals, 1)
    weights[0] *= 10  # the number of images matters most

    def cost(got: np.ndarray) -> np.ndarray:
        gap = got * scale - totals * parts
        return np.asarray(((gap // 8) ** 2 // scale * weights).sum(-1))

    chosen: np.ndarray = np.cumsum(groups[:, 0]) * scale <= totals[0] * parts
    chosen[0] = True
    if len(groups) > 1:
        chosen[-1] = False
    got = groups[chosen].sum(0)
    best = int(cost(got))
    for _ in range(20):
        before = best
        for i in range(len(groups)):
            sign = -1 if chosen[i] else 1
            others = np.flatnonzero(chosen != chosen[i])[:MAX_EXCHANGES]
            steps = sign * (groups[i] - np.vstack([np.zeros_like(groups[:1]), groups[others]]))  # the first is a move
            costs = cost(got + steps)
            if chosen.sum() + sign in (0, len(groups)):
                costs[0] = best
            j = int(costs.argmin())
            if costs[j] < best:
                best, got = int(costs[j]), got + steps[j]
                chosen[[i, *others[j - 1 : j]]] ^= True
        if best == before:
            break
    return chosen


def split_frames(frames: Sequence[Frame]) -> tuple[list[str], list[int]]:
    """Return the side, `train` or `val`, and the group number of each frame."""
    groups = group_frames(frames, max(1, int(len(frames) * VAL_SHARE * MAX_GROUP)))
    things = []
    for group in groups:
        objects = np.sum([frames[i].objects for i in group], axis=0)
        empty = sum(not frames[i].objects.any() for i in group)
        things.append([len(group), empty, *objects.sum(1), *objects.sum(0), *objects.ravel()])
    sides, numbers = [""] * len(frames), [0] * len(frames)
    for number, (group, val) in enumerate(zip(groups, choose_groups(np.array(things)), strict=True)):
        for i in group:
            sides[i], numbers[i] = SPLITS[int(val)], number
    return sides, numbers


def read_split(file: str | Path, frames: Sequence[Frame]) -> list[str]:
    """Read the side of each frame, `train` or `val`, from a split file: CSV with the columns `image` and `split`.

    With a column `sha256`, an image is found by its content, else by its name.

    Raises:
        UserError: If the file can't be read, has another side or misses a frame.
    """
    side: dict[str | None, str] = {}
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), 2):
                if not row.get("image") or row.get("split") not in SPLITS:
                    raise UserError(f"{file}:{number}: needs the columns `image` and `split`, the latter train or val")
                for key in filter(None, (row.get("sha256"), row["image"].casefold())):
                    if side.setdefault(key, row["split"]) != row["split"]:
                        raise UserError(f"{file}:{number}: {row['image']} is on both sides; keep it on one")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as a split ({error}); see --split") from None
    sides = [side.get(f.content) or side.get(f.name.casefold(), "") for f in frames]
    if missing := [frame.name for frame, known in zip(frames, sides, strict=True) if not known]:
        raise UserError(f"{file}: has no row for {len(missing)} of {len(frames)} images, such as {missing[0]}")
    if len(set(sides)) < 2 <= len(frames):
        raise UserError(f"{file}: puts every image into {sides[0]}; both sides need images")
    return sides


def write_dataset(
    samples: Sequence[Sample], root: Path, split: str | Path | None = None, move: bool = False
) -> list[str]:
    """Split a data set and write its images, its labels and `split.csv`.

    Args:
        samples: Images with their labels and, if there is a published split, their sides.
        root: Folder to write to, from `new_dataset`.
        split: A split file, which takes precedence; see `read_split`. Without either, `split_frames` decides.
        move: Move the images instead of copying them.

    Returns:
        The side of each sample.
    """
    frames = read_frames(samples)
    sides, groups = split_frames(frames)
    source = "ours"
    if split:
        source, sides = "given", read_split(split, frames)
    elif any(sample.side for sample in samples):
        source, sides = "published", [sample.side for sample in samples]
        train, val = ({f.content for f, s in zip(frames, sides, strict=True) if s == side} for side in SPLITS)
        if train & val:
            LOGGER.warning("the published split is kept, but it has the same image on both sides")
    for folder in (root / kind / side for kind in ("images", "labels") for side in {*SPLITS, *sides}):
        folder.mkdir(parents=True)
    for sample, side in zip(TQDM(samples, desc="writing images", unit="image", leave=False), sides, strict=True):
        (shutil.move if move else shutil.copyfile)(sample.image, root / "images" / side / sample.name)
        write_labels(root, side, sample.name, sample.text, sample.regions)
    with (root / "split.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = zip([f.name for f in frames], sides, groups, [f.content for f in frames], strict=True)
        csv.writer(stream).writerows([("image", "split", "group", "sha256"), *sorted(rows)])
    chosen = np.array(sides) == "val"
    objects = np.array([frame.objects.sum(1) for frame in frames])
    shares = 100 * objects[chosen].sum(0) / np.maximum(objects.sum(0), 1)
    test = f"{sides.count('test')} test images, " if "test" in sides else ""
    LOGGER.info(
        f"split ({source}): {sides.count('train')} training and {sides.count('val')} validation images, "
        f"{test}{len(set(groups))} groups of frames that look alike; objects in validation by class: "
        + ", ".join(f"{share:.0f} %" for share in shares)
    )
    return sides
