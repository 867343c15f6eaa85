"""Splits frames into training and validation so that frames that look alike never stand on both sides.

Frames of one surveillance camera that follow each other differ little: spread over both sides they would let a model be
validated on what it was trained on. So frames that look alike form groups, and a group stays whole. Groups are put on
the validation side in the order of a hash of their content, then moved until every class and every size of objects has
its share there. The result depends on the files' content and names alone: not on their order, the machine or chance.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from ultralytics.utils import LOGGER, TQDM

from small_object.datasets.dataset import SPLITS, Sample, put_in_place, write_samples
from small_object.datasets.image_hash import difference_hash, near_pairs
from small_object.errors import UserError
from small_object.sizes import SIZE_GROUPS, size_group
from small_object.slicing.groups import connected

VAL_SHARE = 0.2
ALIKE = (
    24,
    12,
    6,
    3,
    0,
)  # bits of 256 in which frames that look alike may differ; the next where a group gets too large
EXCHANGES = 500  # groups that are tried in exchange for one
LARGEST = 0.25  # of the validation side's images: the most in one group


@dataclass(frozen=True)
class Frame:
    """What the split needs to know of an image.

    Attributes:
        name: File name in the data set.
        content: SHA-256 of the file, hex.
        look: Perceptual hash (256,), bool; None where the image cannot be read.
        objects: Number of objects by class and size group (classes, 5), int64.
    """

    name: str
    content: str
    look: np.ndarray | None
    objects: np.ndarray


def read_frame(sample: Sample, classes: int) -> Frame:
    """Read what the split needs to know of an image.

    Args:
        sample: The image; label lines that cannot be read, and images that cannot, count as without objects.
        classes: Number of classes.
    """
    data = sample.image.read_bytes()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    objects = np.zeros((classes, len(SIZE_GROUPS)), np.int64)
    look = None
    if image is not None:
        look = difference_hash(image)
        try:
            labels = sample.labels
        except UserError as error:
            LOGGER.warning(str(error))
            labels = np.zeros((0, 5))
        labels = labels[np.isin(labels[:, 0], np.arange(classes)) & np.isfinite(labels).all(1)]
        areas = labels[:, 3] * labels[:, 4] * image.shape[0] * image.shape[1]
        np.add.at(objects, (labels[:, 0].astype(np.int64), size_group(areas)), 1)
    return Frame(sample.name, hashlib.sha256(data).hexdigest(), look, objects)


def group_frames(frames: Sequence[Frame], largest: int) -> list[list[int]]:
    """Group frames that look alike, directly or through others.

    A group with too many frames is grouped again by a stricter measure. Where even frames of the same look are too
    many (a camera that never moves), they are cut into runs in the order of their names, which is that of time: then
    only the frames at a cut have a neighbour on the other side. Files of the same content always stay together.

    Args:
        frames: The frames.
        largest: Most frames in a group.

    Returns:
        Indices of the frames of each group, in the order of the hash of its content.
    """
    done: list[list[int]] = []
    todo = [list(range(len(frames)))]
    for distance in ALIKE:
        parts = [part for group in todo for part in _alike(frames, group, distance)]
        todo = [part for part in parts if len(part) > largest]
        done += [part for part in parts if len(part) <= largest]
    for group in todo:
        copies: dict[str, list[int]] = {}
        for i in sorted(group, key=lambda i: (_in_order(frames[i].name), frames[i].content)):
            copies.setdefault(frames[i].content, []).append(i)
        run: list[int] = []
        for same in copies.values():
            if run and len(run) + len(same) > largest:
                done.append(run)
                run = []
            run = run + same
        done.append(run)
    done = [sorted(group, key=lambda i: (frames[i].content, frames[i].name)) for group in done]
    return sorted(done, key=lambda group: _digest(*(frames[i].content for i in group)))


def _in_order(name: str) -> list[tuple[int, str]]:
    """Order names as people do: frame9 before frame10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.casefold())]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _alike(frames: Sequence[Frame], members: list[int], distance: int) -> list[list[int]]:
    """Group some of the frames by their look; those of the same content belong together whether readable or not."""
    number: dict[str, int] = {}
    label = np.array([number.setdefault(frames[i].content, len(number)) for i in members])
    seen = np.array([k for k, i in enumerate(members) if frames[i].look is not None], np.int64)
    if len(seen):
        for left, right, _ in near_pairs(np.array([frames[members[k]].look for k in seen]), distance):
            label = connected(len(number), label[seen[left]], label[seen[right]])[label]
    groups = defaultdict(list)
    for i, k in zip(members, label.tolist(), strict=True):
        groups[k].append(i)
    return list(groups.values())


def choose(groups: np.ndarray, share: float) -> np.ndarray:
    """Choose the groups that go to validation.

    Args:
        groups: What each group holds of each thing that is to be shared out, (groups, things), whole numbers; the
            first thing is the number of images.
        share: Share of each thing that validation should get, above 0 and below 1.

    Returns:
        Whether each group is chosen (groups,), bool: at least one and, of several, not all.

    The choice starts with the first groups and is improved by moving and exchanging single groups while that brings
    the sum of (got - wanted)² / wanted down. It is computed in whole numbers, so that every machine finds the same.
    """
    scale = 1000
    parts = round(share * scale)
    groups = groups[:, groups.sum(0) > 0].astype(np.int64)
    totals = groups.sum(0)
    weights = np.maximum(10**9 // totals, 1)
    weights[0] *= 10  # the share of images matters most

    def cost(got: np.ndarray) -> np.ndarray:
        gap = got * scale - totals * parts
        return ((gap // 8) ** 2 // scale * weights).sum(-1)

    chosen = np.cumsum(groups[:, 0]) * scale <= totals[0] * parts
    chosen[0] = True
    if len(groups) > 1:
        chosen[-1] = False
    got = groups[chosen].sum(0)
    best = int(cost(got))
    for _ in range(20):
        before = best
        for i in range(len(groups)):
            step = -groups[i] if chosen[i] else groups[i]
            # alone (0), or in exchange for a group of the other side
            others = np.flatnonzero(chosen != chosen[i])[:EXCHANGES]
            steps = np.vstack([step[None], step - np.where(chosen[i], -1, 1) * groups[others]])
            costs = cost(got + steps)
            if chosen.sum() + (-1 if chosen[i] else 1) in (0, len(groups)):
                costs[0] = best
            j = int(costs.argmin())
            if costs[j] < best:
                best, got = int(costs[j]), got + steps[j]
                chosen[i] = not chosen[i]
                if j:
                    chosen[others[j - 1]] = not chosen[others[j - 1]]
        if best == before:
            break
    return chosen


def split_frames(frames: Sequence[Frame], share: float = VAL_SHARE) -> tuple[list[str], list[int]]:
    """Split frames into training and validation.

    Args:
        frames: The frames.
        share: Share of validation.

    Returns:
        The side, `train` or `val`, and the number of its group for each frame.
    """
    if not frames:
        return [], []
    groups = group_frames(frames, max(1, int(len(frames) * share * LARGEST)))
    things = []
    for group in groups:
        objects = np.sum([frames[i].objects for i in group], axis=0)
        empty = sum(not frames[i].objects.any() for i in group)
        things.append([len(group), empty, *objects.sum(1), *objects.sum(0), *objects.ravel()])
    sides, numbers = [""] * len(frames), [0] * len(frames)
    for number, (group, val) in enumerate(zip(groups, choose(np.array(things), share), strict=True)):
        for i in group:
            sides[i], numbers[i] = SPLITS[int(val)], number
    return sides, numbers


def read_split(file: str | Path, frames: Sequence[Frame]) -> list[str]:
    """Read the side of each frame from a split file: CSV with the columns `image` and `split`, or also `sha256`.

    Args:
        file: The split file; an image is found by its content where there is `sha256`, else by its name.
        frames: The frames.

    Returns:
        `train` or `val` for each frame.

    Raises:
        UserError: If the file cannot be read, has another side or misses a frame.
    """
    file = Path(file)
    by_content: dict[str, str] = {}
    by_name: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), 2):
                if not row.get("image") or row.get("split") not in SPLITS:
                    raise UserError(f"{file}:{number}: needs the columns `image` and `split`, the latter train or val")
                for key, sides in ((row.get("sha256"), by_content), (row["image"].casefold(), by_name)):
                    if key and sides.setdefault(key, row["split"]) != row["split"]:
                        raise UserError(f"{file}:{number}: {row['image']} stands on both sides; keep it on one")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as a split ({error}); see --split") from None
    sides = [by_content.get(f.content) or by_name.get(f.name.casefold(), "") for f in frames]
    if missing := [frame.name for frame, side in zip(frames, sides, strict=True) if not side]:
        raise UserError(f"{file}: has no row for {len(missing)} of {len(frames)} images, such as {missing[0]}")
    if len(set(sides)) < 2 <= len(frames):
        raise UserError(f"{file}: puts every image into {sides[0]}; both sides need some")
    return sides


def place(
    samples: Sequence[Sample],
    root: Path,
    made: Path,
    sides: Sequence[str] | None = None,
    split: str | Path | None = None,
    move: bool = False,
) -> list[str]:
    """Split a data set, lay it out with its `split.csv` and put it in its place.

    Args:
        samples: Images with their labels.
        root: Folder of the data set.
        made: Folder to build in, from `staging_dir(root)`; what lies in its folder `set` goes along.
        sides: A published split: `train` or `val` for each sample.
        split: A split file, which goes before `sides`; see `read_split`. Without both, `split_frames` decides.
        move: Move the images instead of copying them.

    Returns:
        `train` or `val` for each sample.

    Raises:
        UserError: If the split file cannot be used.
    """
    classes = 1 + max((int(c) for s in samples for c in _classes(s)), default=0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = pool.map(lambda sample: read_frame(sample, classes), samples)
        frames = list(TQDM(jobs, desc="comparing images", total=len(samples), unit="image", leave=False))
    ours, groups = split_frames(frames)
    if sides and (leak := _leak(frames, sides)):
        LOGGER.warning(f"the published split is not used: {leak} is on both of its sides")
        sides = None
    chosen = read_split(split, frames) if split else list(sides or ours)
    new = made / "set"
    new.mkdir(exist_ok=True)
    write_samples(samples, chosen, new, move)
    with (new / "split.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image", "split", "group", "sha256"))
        rows = zip(frames, chosen, groups, strict=True)
        writer.writerows(sorted((f.name, side, group, f.content) for f, side, group in rows))
    put_in_place(new, root)
    _report(frames, chosen, "given" if split else "published" if sides else "ours", len(set(groups)))
    return chosen


def _leak(frames: Sequence[Frame], sides: Sequence[str]) -> str:
    """Name a frame whose content is on both sides, if there is one."""
    first: dict[str, str] = {}
    return next(
        (f.name for f, side in zip(frames, sides, strict=True) if first.setdefault(f.content, side) != side), ""
    )


def _classes(sample: Sample) -> list[float]:
    """List the class of each object; of lines that cannot be read, none."""
    try:
        return [c for c in sample.labels[:, 0].tolist() if 0 <= c < 10_000 and c == int(c)]
    except UserError:
        return []


def _report(frames: Sequence[Frame], sides: Sequence[str], whose: str, groups: int) -> None:
    """Say how the objects are shared out."""
    val = np.array([side == "val" for side in sides])
    objects = np.array([frame.objects for frame in frames])

    def share(part: np.ndarray) -> str:
        return f"{100 * part[val].sum() / part.sum():.0f} %" if part.sum() else "none"

    LOGGER.info(
        f"split ({whose}): {int((~val).sum())} training and {int(val.sum())} validation images, {groups} groups of "
        f"frames that look alike; validation has of the objects by class {', '.join(map(share, objects.sum(2).T))}, "
        f"by size {', '.join(f'{n} {share(part)}' for n, part in zip(SIZE_GROUPS, objects.sum(1).T, strict=True))}"
    )
