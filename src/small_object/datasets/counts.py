"""Counts the objects of a data set by class and size, and prints them as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from small_object.datasets.labels import count_sizes
from small_object.sizes import SIZE_GROUPS

QUANTILES = (5, 25, 50, 75, 95)
STRIDE = 4  # pixels of a cell of the finest head; an object with a shorter side is thin
MAX_THIN = 0.05  # share of the objects that may be thin at a suggested size
MAX_SHOWN = 12  # classes that the table and the picture name; the rarer ones are summed up there


@dataclass(frozen=True)
class ClassStats:
    """Objects of one class."""

    name: str
    objects: int
    share: float  # of all objects, 0 to 1
    sizes: dict[str, int]  # objects by size group, in original pixels
    sizes_at_imgsz: dict[str, int]  # the same in the pixels of the resized image


@dataclass(frozen=True)
class SplitStats:
    """Objects of one split, or of all; `*_at_imgsz` is in the pixels of the resized image."""

    images: int
    empty: int  # images without objects
    objects: int
    per_image: dict[str, float]  # min, median, mean and max of the objects in an image; empty without images
    sizes: dict[str, int]  # objects by size group, in original pixels
    sizes_at_imgsz: dict[str, int]
    coco: dict[str, int]  # objects that are small, medium and large to COCO, in original pixels
    coco_at_imgsz: dict[str, int]
    side: dict[int, float]  # quantiles (percent: value) of √area, in original pixels; empty without objects
    side_at_imgsz: dict[int, float]
    aspect: dict[int, float]  # quantiles of width / height, of boxes that have both; empty without such
    thin: float  # share of objects with a side under `STRIDE` pixels in the resized image, 0 to 1
    imgsz_for_thin: int | None  # smallest multiple of 32 that leaves at most `MAX_THIN` of such, if there is one
    classes: list[ClassStats]  # in the order of the class indices

    def shown_classes(self) -> list[tuple[str, list[int]]]:
        """Return the classes to name with their indices: the most frequent ones, then the others together."""
        order = sorted(range(len(self.classes)), key=lambda i: -self.classes[i].objects)
        if len(order) <= MAX_SHOWN:
            return [(cls.name, [i]) for i, cls in enumerate(self.classes)]
        others = (f"{len(order) - MAX_SHOWN} others", order[MAX_SHOWN:])
        return [*((self.classes[i].name, [i]) for i in order[:MAX_SHOWN]), others]

    def advice(self) -> str:
        """Say from which image size on few objects are thin."""
        if self.thin <= MAX_THIN:
            return ""
        if self.imgsz_for_thin is None:
            return "; many have no width or height"
        return f"; from imgsz {self.imgsz_for_thin} on at most {MAX_THIN:.0%}"


@dataclass(frozen=True)
class Stats:
    """What is known of the objects of a data set."""

    data: str  # the data set's YAML file
    imgsz: int  # length that the longest side of an image is resized to, pixels
    total: SplitStats  # all splits together; an image in several splits counts once
    splits: dict[str, SplitStats]  # train, val and, where the YAML has it, test
    skipped: dict[str, str]  # images that were left out, with the reason

    def title(self, length: int) -> str:
        """Return the data set's name, of at most some characters, with the numbers of objects and images."""
        total = self.total
        name = shorten(Path(self.data).name, length)
        return f"{name}: {with_unit(total.objects, 'object')} in {with_unit(total.images, 'image')}"

    def table(self) -> str:
        """Return the numbers as a text of at most 110 columns."""
        return "\n".join(line.rstrip() for line in _table(self))


@dataclass(frozen=True)
class Objects:
    """What is read of a data set: M images with N objects."""

    files: list[str]  # of the images (M,)
    splits: dict[str, np.ndarray]  # indices of the images by split
    image: np.ndarray  # index of each object's image (N,)
    cls: np.ndarray  # classes (N,)
    box: np.ndarray  # cx, cy as shares and w, h in original pixels (N, 4)
    longest: np.ndarray  # longest side of each object's image in pixels (N,)


def count_objects(objects: Objects, images: np.ndarray, names: Sequence[str], imgsz: int) -> SplitStats:
    """Count the objects of some images, given by their indices."""
    mine = np.isin(objects.image, images)
    cls, longest, (w, h) = objects.cls[mine], objects.longest[mine], objects.box[mine, 2:].T
    per_image = np.bincount(objects.image, minlength=len(objects.files))[images]
    # divided last, so that parts of whole pixels that make up a group's limit are not a rounding error below it
    area, area_at = w * h, w * h * imgsz**2 / longest**2
    counts, counts_at = count_sizes(cls, area, len(names)), count_sizes(cls, area_at, len(names))
    total, has_area = len(cls), (w > 0) & (h > 0)
    with np.errstate(divide="ignore"):
        needed = STRIDE * longest / np.minimum(w, h)  # imgsz from which on an object isn't thin
    return SplitStats(
        images=len(images),
        empty=int((per_image == 0).sum()),
        objects=total,
        per_image={
            name: round(float(function(per_image)), 3)
            for name, function in (("min", np.min), ("median", np.median), ("mean", np.mean), ("max", np.max))
            if len(images)
        },
        sizes=_by_group(counts.sum(0)),
        sizes_at_imgsz=_by_group(counts_at.sum(0)),
        coco=_by_coco_size(counts.sum(0)),
        coco_at_imgsz=_by_coco_size(counts_at.sum(0)),
        side=_quantiles(np.sqrt(area)),
        side_at_imgsz=_quantiles(np.sqrt(area_at)),
        aspect=_quantiles(w[has_area] / h[has_area]),
        thin=float((needed > imgsz).mean()) if total else 0.0,
        imgsz_for_thin=suggest_imgsz(needed),
        classes=[
            ClassStats(name, int(row.sum()), float(row.sum() / max(total, 1)), _by_group(row), _by_group(row_at))
            for name, row, row_at in zip(names, counts, counts_at, strict=True)
        ],
    )


def suggest_imgsz(needed: np.ndarray) -> int | None:
    """Return the smallest multiple of 32 as `imgsz` that is large enough for 95 % of the objects.

    Args:
        needed: `imgsz` that each object needs (N,).

    Returns:
        The size; None without objects, or where no size is large enough.
    """
    limit = np.sort(needed)[-1 - int(MAX_THIN * len(needed))] if len(needed) else np.inf
    return 32 * int(np.ceil(limit / 32)) if np.isfinite(limit) else None


def _by_group(counts: np.ndarray) -> dict[str, int]:
    return dict(zip(SIZE_GROUPS, counts.tolist(), strict=True))


def _by_coco_size(counts: np.ndarray) -> dict[str, int]:
    *small, medium, large = counts.tolist()
    return {"small": sum(small), "medium": medium, "large": large}


def _quantiles(values: np.ndarray) -> dict[int, float]:
    if not len(values):
        return {}
    return dict(zip(QUANTILES, np.percentile(values, QUANTILES).round(3).tolist(), strict=True))


def _table(found: Stats) -> Iterator[str]:
    """Yield the lines of `Stats.table`."""
    total, imgsz = found.total, found.imgsz
    yield f"{found.title(40)}; imgsz {imgsz}"
    if found.skipped:
        yield f"{with_unit(len(found.skipped), 'image')} left out"
    parts = found.splits if len(found.splits) == 1 else {**found.splits, "all": total}
    if sum(part.images for part in found.splits.values()) > total.images:
        yield "images are in more than one split; they count once in all"

    yield f"\n{'':18}{'images':>8}{'empty':>8}{'objects':>9}   in an image:{'min':>6}{'median':>8}{'mean':>8}{'max':>7}"
    for name, part in parts.items():
        row = f"{name:18}{format_count(part.images):>8}{format_count(part.empty):>8}{format_count(part.objects):>9}"
        if (per := part.per_image) and part.objects:
            row += f"{'':15}{per['min']:6.0f}{per['median']:8.4g}{per['mean']:8.1f}{per['max']:7.0f}"
        yield row

    yield f"\n{'':35} {'original pixels':-^35}   {f'at imgsz {imgsz}':-^35}"
    groups = "".join(f"{name.replace('very ', 'v.'):>7}" for name in SIZE_GROUPS)
    limits = "".join(f"{limit:>7}" for limit in ("<8²", "<16²", "<32²", "<96²", "≥96²"))
    yield f"{'class':18}{'objects':>9}{'share':>8} {groups}   {groups}"
    yield f"{'':36}{limits}   {limits}"
    rows: list[tuple[str, Sequence[ClassStats | SplitStats]]] = [
        (name, [total.classes[i] for i in indices]) for name, indices in total.shown_classes()
    ]
    for name, group in rows + [(f"- {name}", [part]) for name, part in parts.items()]:
        objects = sum(part.objects for part in group)
        sizes = np.sum([list(part.sizes.values()) for part in group], 0).tolist()
        sizes_at = np.sum([list(part.sizes_at_imgsz.values()) for part in group], 0).tolist()
        columns = ("".join(f"{format_count(count):>7}" for count in counts) for counts in (sizes, sizes_at))
        share = objects / max(total.objects, 1)
        yield f"{shorten(name, 18):18}{format_count(objects):>9}{share:>8.1%} {'   '.join(columns)}"
    if not total.objects:
        return
    shares = (
        "".join(f"{count / total.objects:7.1%}" for count in sizes.values())
        for sizes in (total.sizes, total.sizes_at_imgsz)
    )
    yield f"{'- all, share':36}{'   '.join(shares)}"

    yield f"\n{'':35}" + "".join(f"{f'{percent} %':>9}" for percent in QUANTILES) + "  of the objects have at most"
    for name, decimals, values in (
        ("√area, original pixels", 1, total.side),
        (f"√area at imgsz {imgsz}, pixels", 1, total.side_at_imgsz),
        ("width / height", 2, total.aspect),
    ):
        yield f"{name:35}" + "".join(f"{value:>9.{decimals}f}" for value in values.values())
    yield ""
    for name, coco in (("original pixels", total.coco), (f"at imgsz {imgsz}", total.coco_at_imgsz)):
        counts = ", ".join(f"{size} {count} ({count / total.objects:.1%})" for size, count in coco.items())
        yield f"{f'COCO, {name}:':35}{counts}"
    thin = f"thinner than {STRIDE} px at imgsz {imgsz}:"
    yield f"{thin:35}{total.thin:.1%} (a cell of a head at stride {STRIDE}){total.advice()}"


def with_unit(count: int, unit: str) -> str:
    """Return a count with its unit, in the plural where it is one."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def format_count(count: int) -> str:
    """Return a count in at most six characters."""
    return str(count) if count < 1_000_000 else f"{count / 1e6:.4g}M"


def shorten(name: str, length: int) -> str:
    """Shorten a name in its middle, as names of classes often differ at the end."""
    return name if len(name) <= length else f"{name[: length - 6]}…{name[-5:]}"
