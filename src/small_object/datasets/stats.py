"""Counts the objects of a data set by class and size, as a table, as JSON and as a picture."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ultralytics.utils import LOGGER

from small_object.datasets.dataset import DataSet, Entry, load_dataset, readable_path
from small_object.datasets.images import scan_image
from small_object.datasets.labels import read_labels
from small_object.errors import UserError
from small_object.files import default_folder, replacing, write_file
from small_object.images import UnreadableImageError, read_bits, readable_name
from small_object.parallel import map_threads
from small_object.sizes import COCO_SMALL, SIZE_GROUPS, size_group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILES = (5, 25, 50, 75, 95)
STRIDE = 4  # pixels per cell of the finest head; an object with a shorter side is thin
MAX_THIN = 0.05  # fraction of the objects that may be thin at a suggested size
MAX_SHOWN = 12  # classes that the table and the picture show
MAX_WARNINGS = 10
ORIGINAL, AT_IMGSZ = "#33597f", "#e0813a"
SPLIT_COLOURS = {"train": "#3f7f75", "val": "#8fc1b5", "test": "#c9cf9a"}


@dataclass(frozen=True)
class ObjectStats:
    """Statistics of objects; `*_at_imgsz` is in pixels of the resized image."""

    name: str  # of their class or split
    objects: int
    sizes: dict[str, int]  # objects by size group, in original pixels
    sizes_at_imgsz: dict[str, int]
    coco_small: float  # fraction of objects that are small by COCO's limits, 0..1, in original pixels
    coco_small_at_imgsz: float
    side: dict[int, float]  # quantiles (percent: value) of √area, in original pixels; empty without objects
    side_at_imgsz: dict[int, float]
    thin: float  # fraction of objects with a side under `STRIDE` pixels in the resized image, 0..1
    imgsz_for_thin: int | None  # smallest multiple of 32 with at most `MAX_THIN` of them, if there is one

    def advice(self) -> str:
        """Return from which image size few objects are thin."""
        if self.thin <= MAX_THIN:
            return ""
        if self.imgsz_for_thin is None:
            return "; many have no width or height"
        return f"; from imgsz {self.imgsz_for_thin}, at most {MAX_THIN:.0%}"


@dataclass(frozen=True)
class SplitStats(ObjectStats):
    """Statistics of one split, or of all."""

    images: int
    empty: int  # images without objects
    classes: list[ObjectStats]  # in the order of the class indices

    def shown_classes(self) -> list[int]:
        """Return the indices of the classes to show, the most frequent ones."""
        order = sorted(range(len(self.classes)), key=lambda i: -self.classes[i].objects)
        return sorted(order[:MAX_SHOWN])


@dataclass(frozen=True)
class Stats:
    """Statistics of a data set."""

    data: str  # the data set's YAML file
    imgsz: int  # length that the longest side of an image is resized to, pixels
    total: SplitStats  # all splits together; an image in several splits counts once
    splits: dict[str, SplitStats]  # train, val and, where the YAML has it, test
    skipped: dict[str, str]  # images left out, with the reason

    def title(self) -> str:
        """Return the data set's name with the numbers of objects and images."""
        name = shorten(readable_name(Path(self.data).name), 40)
        return f"{name}: {self.total.objects:,} objects in {self.total.images:,} images"

    def table(self) -> str:
        """Return the numbers as text with at most 110 columns."""
        return "\n".join(line.rstrip() for line in _table_lines(self))


def stats(data: str | Path, imgsz: int = 640, out: str | Path | None = None) -> Stats:
    """Count the objects of a data set by class and size, in original pixels and as a model sees them at `imgsz`.

    Prints a table and writes `stats.json` and `stats.png`. Labels are read, and images checked, as in training's
    scan. A warning names files that can't be read or that training would refuse; they are left out.

    Args:
        data: YAML file of the data set, as for training: a missing set is created if it has a `download:`.
        imgsz: Input size of the training in pixels.
        out: Folder of the two files, `runs/stats/<name of the YAML>` in the current directory by default.

    Returns:
        The numbers.

    Raises:
        UserError: If the YAML can't be used, a split's folder or list is missing, or there are no images.
        OSError: If the files can't be written.

    Examples:
        >>> found = stats("datasets/ASS1-demo/ASS1-demo.yaml", imgsz=640)
        >>> found.total.objects == sum(found.total.sizes_at_imgsz.values())
        True
    """
    if imgsz < 1:
        raise UserError(f"imgsz must be at least 1 pixel, not {imgsz}")
    dataset = load_dataset(data, allow_empty=True)
    skipped = {f.location: f.message for f in dataset.findings if f.kind in ("missing-image", "ignored-line")}
    images = []
    read = map_threads(partial(_read_entry, dataset=dataset, bits=read_bits()), dataset.entries, "reading labels")
    for entry, result in zip(dataset.entries, read, strict=True):
        if isinstance(result, str):
            skipped[readable_path(entry.file)] = result
        else:
            images.append((result, entry.splits))
    for image, why in list(skipped.items())[:MAX_WARNINGS]:
        LOGGER.warning(f"{image} is left out: {why}; find all such: small-object check {data}")
    if len(skipped) > MAX_WARNINGS:
        LOGGER.warning(f"{len(skipped) - MAX_WARNINGS} more images are left out, see stats.json")
    found = Stats(str(dataset.yaml), imgsz, *count_dataset(images, dataset, imgsz), skipped)
    LOGGER.info(found.table())
    out = Path(out) if out is not None else default_folder("stats", dataset.yaml)
    write_file(out / "stats.json", readable_name(json.dumps(asdict(found), indent=2, ensure_ascii=False)) + "\n")
    with replacing(out / "stats.png") as new:
        draw_stats(found, new)
    LOGGER.info(f"\nwritten: {out / 'stats.png'} and {out / 'stats.json'}")
    return found


def _read_entry(entry: Entry, dataset: DataSet, bits: int | None) -> np.ndarray | str:
    """Return an image's objects, see `count_dataset`, or why it must be left out."""
    try:
        size, labels = scan_image(entry.file, bits), np.zeros((0, 5))
        if entry.label.is_file():
            labels = read_labels(entry.label, len(dataset.names), dataset.num_fields)
        return np.insert(labels[:, [0, 3, 4]] * (1, *size), 3, max(size), axis=1)
    except UnreadableImageError as error:
        return f"the image {error}"
    except UserError as error:
        return readable_name(str(error))
    except OSError as error:
        return f"{readable_path(entry.label)}: {error.strerror or error}"


def count_dataset(
    images: Sequence[tuple[np.ndarray, Sequence[str]]], dataset: DataSet, imgsz: int
) -> tuple[SplitStats, dict[str, SplitStats]]:
    """Count the objects of a data set in all its splits together and in each.

    Args:
        images: For each image its objects (N, 4), as class, width, height and longest side of the image in pixels, and
            its splits.
        dataset: The data set.
        imgsz: Number of pixels to which the longest side of an image is resized.
    """
    total = _count_split("all", [objects for objects, _ in images], dataset.class_titles, imgsz)
    by_split = {}
    for split in dataset.splits:
        own = [objects for objects, splits in images if split in splits]
        by_split[split] = _count_split(split, own, dataset.class_titles, imgsz)
    return total, by_split


def _count_split(name: str, images: Sequence[np.ndarray], classes: Sequence[str], imgsz: int) -> SplitStats:
    """Count the objects of some images."""
    objects = np.concatenate([np.zeros((0, 4)), *images])
    objects = objects.round(2)  # of labels with six decimals: 8 pixels must not come back as 7.9999, which is very tiny
    return SplitStats(
        **vars(_count_objects(name, objects, imgsz)),
        images=len(images),
        empty=sum(not len(own) for own in images),
        classes=[_count_objects(cls, objects[objects[:, 0] == i], imgsz) for i, cls in enumerate(classes)],
    )


def _count_objects(name: str, objects: np.ndarray, imgsz: int) -> ObjectStats:
    """Count objects by size."""
    sides, longest = objects[:, 1:3], objects[:, 3]
    # divided last, so that an area exactly at a group's limit is not rounded below it
    area = sides.prod(1)
    area_at_imgsz = area * imgsz**2 / longest**2
    with np.errstate(divide="ignore"):
        needed = STRIDE * longest / sides.min(1)  # minimum imgsz at which an object isn't thin
    number = max(len(area), 1)
    return ObjectStats(
        name=name,
        objects=len(area),
        sizes=_by_group(area),
        sizes_at_imgsz=_by_group(area_at_imgsz),
        coco_small=int((area < COCO_SMALL).sum()) / number,
        coco_small_at_imgsz=int((area_at_imgsz < COCO_SMALL).sum()) / number,
        side=_quantiles(np.sqrt(area)),
        side_at_imgsz=_quantiles(np.sqrt(area_at_imgsz)),
        thin=int((needed > imgsz).sum()) / number,
        imgsz_for_thin=_suggest_imgsz(needed),
    )


def _suggest_imgsz(needed: np.ndarray) -> int | None:
    """Return the smallest multiple of 32 that is enough for 95 % of the objects, None if there is none."""
    limit = np.sort(needed)[-1 - int(MAX_THIN * len(needed))] if len(needed) else np.inf
    return 32 * int(np.ceil(limit / 32)) if np.isfinite(limit) else None


def _by_group(areas: np.ndarray) -> dict[str, int]:
    return dict(zip(SIZE_GROUPS, np.bincount(size_group(areas), minlength=len(SIZE_GROUPS)).tolist(), strict=True))


def _quantiles(values: np.ndarray) -> dict[int, float]:
    if not len(values):
        return {}
    return dict(zip(QUANTILES, np.percentile(values, QUANTILES).round(3).tolist(), strict=True))


def _table_lines(found: Stats) -> Iterator[str]:
    total, imgsz = found.total, found.imgsz
    yield f"{found.title()}; imgsz {imgsz}"
    if found.skipped:
        yield f"{len(found.skipped):,} images left out"
    if sum(part.images for part in found.splits.values()) > total.images:
        yield "some images are in several splits; they count once in all"
    parts = [*found.splits.values(), total]
    for part in parts:
        mean = part.objects / max(part.images, 1)
        yield f"{part.name}: {part.images:,} images, {part.empty:,} without objects, {mean:.1f} objects in an image"

    yield f"\n{'':23}  {'original pixels':-^41}   {f'at imgsz {imgsz}':-^41}"
    names = "".join(f"{name.replace('very ', 'v.'):>7}" for name in (*SIZE_GROUPS, "median"))
    limits = "".join(f"{limit:>7}" for limit in ("<8²", "<16²", "<32²", "<96²", "≥96²", "√area"))
    yield f"{'':16}{'objects':>7} {names}  {names}"
    yield f"{'':23} {limits}  {limits}"
    for row in [*(total.classes[i] for i in total.shown_classes()), *parts]:
        blocks = []
        for sizes, side in ((row.sizes, row.side), (row.sizes_at_imgsz, row.side_at_imgsz)):
            median = f"{side[50]:>7.1f}" if side else ""
            blocks.append("".join(f"{count:>7}" for count in sizes.values()) + median)
        name = shorten(row.name, 16) if row not in parts else f"- {row.name}"
        yield f"{name:16}{row.objects:>7} {blocks[0]:42}  {blocks[1]}"
    if len(total.classes) > MAX_SHOWN:
        yield f"{len(total.classes) - MAX_SHOWN} rarer classes: see stats.json"
    if total.objects:
        yield f"\nsmall by COCO's limits: {total.coco_small:.1%}, at imgsz {imgsz} {total.coco_small_at_imgsz:.1%}"
        yield f"thinner than {STRIDE} px, a cell at stride {STRIDE}, at imgsz {imgsz}: {total.thin:.1%}{total.advice()}"


def draw_stats(found: Stats, file: Path) -> None:
    """Draw `stats.png`: objects by class and split, and by size before and after resizing."""
    from matplotlib.figure import Figure  # here, since it is slow to import

    figure = Figure(figsize=(14, 6), dpi=100, layout="constrained")
    title = f"{found.title()}; at imgsz {found.imgsz} {found.total.thin:.1%} are thinner than {STRIDE} px"
    figure.suptitle(title, size=14, weight="bold", parse_math=False)
    axes = figure.subplots(1, 2)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    _draw_classes(axes[0], found)
    _draw_sizes(axes[1], found)
    figure.savefig(file, format="png")


def _draw_classes(ax: "Axes", found: Stats) -> None:
    """Draw bars of the objects by class, one colour per split."""
    shown, total = found.total.shown_classes(), found.total
    rows, left = np.arange(len(shown)), np.zeros(len(shown))
    for split, part in found.splits.items():
        counts = [part.classes[i].objects for i in shown]
        bars = ax.barh(rows, counts, 0.75, left, color=SPLIT_COLOURS[split], label=f"{split} ({part.objects:,})")
        left += counts
    texts = [f"{n:,.0f} ({n / max(total.objects, 1):.1%})" for n in left]
    ax.bar_label(bars, texts, padding=4)
    ax.set(title="Objects by class and split", xlim=(0, max(1, left.max() * 1.35)))
    ax.set_ylim(max(len(shown), 2) - 0.4, -0.6)  # the first class is on top
    ax.set_yticks(rows, [shorten(total.classes[i].name, 14) for i in shown], parse_math=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3, frameon=False)


def _draw_sizes(ax: "Axes", found: Stats) -> None:
    """Draw bars of the objects by size group, before and after resizing."""
    total, columns = found.total, np.arange(len(SIZE_GROUPS))
    for shift, colour, label, sizes in (
        (-0.21, ORIGINAL, "original pixels", total.sizes),
        (0.21, AT_IMGSZ, f"at imgsz {found.imgsz}", total.sizes_at_imgsz),
    ):
        bars = ax.bar(columns + shift, list(sizes.values()), 0.4, color=colour, label=label)
        ax.bar_label(bars, [f"{n / max(total.objects, 1):.0%}" for n in sizes.values()], padding=2)
    limits = ("< 8²", "8² to 16²", "16² to 32²", "32² to 96²", "≥ 96² px")
    ax.set_xticks(columns, [f"{name}\n{limit}" for name, limit in zip(SIZE_GROUPS, limits, strict=True)])
    ax.set(title="Objects by size (box area)", ylabel="objects")
    ax.margins(y=0.2)  # room for the legend
    ax.legend(loc="upper center", ncols=2, frameon=False)


def shorten(name: str, length: int) -> str:
    """Shorten a name in its middle, since class names often differ at the end."""
    return name if len(name) <= length else f"{name[: length - 6]}…{name[-5:]}"
