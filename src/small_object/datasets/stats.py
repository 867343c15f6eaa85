"""How small the objects of a data set are: counts by class and size as a table, as JSON and as one picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image
from ultralytics.data.base import BaseDataset
from ultralytics.data.utils import exif_size, img2label_paths
from ultralytics.utils import LOGGER, NUM_THREADS, TQDM, colorstr, plt_settings
from ultralytics.utils.patches import imread

from small_object.datasets.labels import read_labels
from small_object.datasets.layout import read_data_yaml
from small_object.errors import UserError
from small_object.files import staging_dir
from small_object.sizes import SIZE_GROUPS, size_group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTILES = (5, 25, 50, 75, 95)
THIN = 4
"""Pixels: one cell of a head at stride 4, the finest of this fork's models."""
THIN_SHARE = 0.05
SHOWN = 12
"""Classes that the table and the picture name; the rarer ones are summed up there, and are all in `stats.json`."""


@dataclass(frozen=True)
class ClassStats:
    """Objects of one class.

    Attributes:
        name: Name of the class.
        objects: Their number.
        share: Their share of all objects, 0 to 1.
        sizes: Number of objects by size group, in original pixels.
        sizes_at_imgsz: The same in the pixels of the resized image.
    """

    name: str
    objects: int
    share: float
    sizes: dict[str, int]
    sizes_at_imgsz: dict[str, int]


@dataclass(frozen=True)
class SplitStats:
    """Objects of one split, or of all.

    Attributes:
        images: Number of images.
        empty: Number of images without objects.
        objects: Number of objects.
        per_image: Minimum, median, mean and maximum of the objects in an image; empty without images.
        sizes: Number of objects by size group, in original pixels.
        sizes_at_imgsz: The same in the pixels of the resized image.
        coco: Number of objects that are small, medium and large to COCO, in original pixels.
        coco_at_imgsz: The same in the pixels of the resized image.
        side: Quantiles (percent: value) of √area, in original pixels; empty without objects.
        side_at_imgsz: The same in the pixels of the resized image.
        aspect: Quantiles (percent: value) of width / height, of boxes that have both; empty without such.
        thin: Share of objects with a side under `THIN` pixels in the resized image, 0 to 1.
        imgsz_for_thin: Smallest multiple of 32 as `imgsz` that leaves at most `THIN_SHARE` of such objects; None
            without objects, or where too many boxes have no width or no height.
        classes: The same counts by class, in the order of the class indices.
    """

    images: int
    empty: int
    objects: int
    per_image: dict[str, float]
    sizes: dict[str, int]
    sizes_at_imgsz: dict[str, int]
    coco: dict[str, int]
    coco_at_imgsz: dict[str, int]
    side: dict[int, float]
    side_at_imgsz: dict[int, float]
    aspect: dict[int, float]
    thin: float
    imgsz_for_thin: int | None
    classes: list[ClassStats]


@dataclass(frozen=True)
class Stats:
    """What is known of the objects of a data set.

    Attributes:
        data: The data set's YAML file.
        imgsz: Length that the longest side of an image is resized to, pixels.
        total: All splits together; an image in several splits counts once.
        splits: Each split by its name: train, val and, where the YAML has it, test.
        skipped: Images that were left out, with the reason.
    """

    data: str
    imgsz: int
    total: SplitStats
    splits: dict[str, SplitStats]
    skipped: dict[str, str]

    def table(self) -> str:
        """Return the numbers as a text of at most 110 columns."""
        return "\n".join(_table(self))


@dataclass(frozen=True)
class _Objects:
    """What is read of a data set: M images with N objects.

    `box` is cx, cy as shares and w, h in original pixels; `longest` is the longest side of an object's image, pixels.
    """

    files: list[str]  # (M,)
    splits: dict[str, np.ndarray]  # indices of images
    image: np.ndarray  # (N,) index of the object's image
    cls: np.ndarray  # (N,)
    box: np.ndarray  # (N, 4)
    longest: np.ndarray  # (N,)

    def side(self, imgsz: int | None = None) -> np.ndarray:
        """Return √area (N,), in original pixels or, as training resizes the longest side, in those at `imgsz`."""
        scale = 1 if imgsz is None else imgsz / self.longest
        return np.sqrt(self.box[:, 2] * self.box[:, 3]) * scale


def stats(data: str | Path, imgsz: int = 640, out: str | Path | None = None) -> Stats:
    """Count the objects of a data set by class and size, in original pixels and as a model sees them at `imgsz`.

    Prints a table and writes `stats.json` and `stats.png`. Labels are read as training does and images by their
    headers; only the few images that the picture shows pieces of are decoded. Files that cannot be read or that
    training would refuse are named in a warning and left out.

    Args:
        data: YAML file of the data set, as for training: a missing set is made where it has a `download:`.
        imgsz: Image size of the training that the data is for, pixels.
        out: Folder of the two files, `runs/stats/<name of the YAML>` under the working folder by default.

    Returns:
        The numbers.

    Raises:
        UserError: If the YAML cannot be used, a split's folder or list is missing, or there is no image at all.
        OSError: If the files cannot be written.

    Examples:
        >>> from small_object.datasets.stats import stats
        >>> found = stats("datasets/ASS1-demo/ASS1-demo.yaml", imgsz=640)
        >>> found.total.objects == sum(found.total.sizes_at_imgsz.values())
        True
    """
    if imgsz < 1:
        raise UserError(f"imgsz must be at least 1 pixel, not {imgsz}")
    info = read_data_yaml(data)
    names = [info["names"][index] for index in range(info["nc"])]
    paths = {split: info[split] for split in ("train", "val", "test") if info.get(split)}
    file = Path(info["yaml_file"])
    objects, skipped = _read(data, file, paths, len(names))
    for number, (image, why) in enumerate(skipped.items()):
        if number == 10:
            LOGGER.warning(f"{len(skipped) - number} more images are left out, see stats.json")
            break
        LOGGER.warning(f"{image} is left out: {why}; find all such: python datasets/prepare.py --check {data}")
    everything = np.arange(len(objects.files))
    found = Stats(
        str(file),
        imgsz,
        _count(objects, everything, names, imgsz),
        {split: _count(objects, images, names, imgsz) for split, images in objects.splits.items()},
        skipped,
    )
    LOGGER.info(found.table())
    out = Path(out) if out is not None else Path("runs/stats") / file.stem
    with staging_dir(out) as made:
        text = json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n"
        (made / "stats.json").write_text(text, encoding="utf-8")
        _draw(found, objects, made / "stats.png")
        for path in list(made.iterdir()):
            path.replace(out / path.name)
    LOGGER.info(f"\nwritten: {out / 'stats.png'} and {out / 'stats.json'}")
    return found


# Reading --------------------------------------------------------------------------------------------------------------


def _read(data: str | Path, file: Path, paths: dict[str, Any], classes: int) -> tuple[_Objects, dict[str, str]]:
    """Read the images' sizes and labels; give the reason for each image that is left out."""
    found: dict[str, list[str]] = {}
    for split, path in paths.items():
        reader = SimpleNamespace(prefix=colorstr(f"{split}: "), fraction=1.0)
        try:
            found[split] = BaseDataset.get_img_files(reader, path)  # type: ignore[arg-type]
        except FileNotFoundError as error:
            if not isinstance(error.__cause__, AssertionError):  # that one says that there are no images
                why = str(error.__cause__ or error).removeprefix(reader.prefix)
                raise UserError(f"{data}: `{split}` cannot be read: {why}") from error
            found[split] = []
    files = list(dict.fromkeys(image for images in found.values() for image in images))
    if not files:
        raise UserError(f"{data}: no images in {', '.join(str(path) for path in paths.values()) or 'any split'}")
    kept, sizes, labels, skipped = [], [], [], {}
    with ThreadPool(NUM_THREADS) as pool:
        rows = pool.imap(partial(_read_one, classes=classes), zip(files, img2label_paths(files), strict=True), 16)
        progress = TQDM(rows, desc=f"reading {file.name}", total=len(files), leave=False)
        for row, image in zip(progress, files, strict=True):
            if isinstance(row, str):
                skipped[image] = row
            else:
                kept.append(image)
                sizes.append(row[0])
                labels.append(row[1])
    size = np.array(sizes, np.float64).reshape(-1, 2)
    label = np.concatenate([np.zeros((0, 5)), *labels])
    image = np.repeat(np.arange(len(kept)), [len(rows) for rows in labels])
    # shares have six decimals in most label files: 8 pixels must come back as 8 and not as 7.9999, which is tiny
    sides = (label[:, 3:] * size[image]).round(2)
    index = {image: number for number, image in enumerate(kept)}
    splits = {
        split: np.array(sorted({index[image] for image in images if image in index}), np.int64)
        for split, images in found.items()
    }
    box = np.concatenate([label[:, 1:3], sides], 1)
    return _Objects(kept, splits, image, label[:, 0].astype(np.int64), box, size[image].max(1, initial=0)), skipped


def _read_one(files: tuple[str, str], classes: int) -> tuple[tuple[int, int], np.ndarray] | str:
    """Return an image's (width, height) and its objects (N, 5), or why it has to be left out."""
    image, label = files
    try:
        with Image.open(image) as header:
            # to look for the orientation at a PNG's end would decode it all, and training doesn't find one there either
            ahead = header.format != "PNG" or "exif" in header.info
            size = exif_size(header) if ahead else header.size
    except Exception as error:  # decoders raise what they like
        return f"the image cannot be read ({' '.join(str(error).split())})"
    try:
        rows = read_labels(label) if Path(label).is_file() else np.zeros((0, 5))
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{label}: {error.strerror or error}"
    # what training refuses, with its tolerance
    box, cls = rows[:, 1:], rows[:, 0]
    if not np.isfinite(rows).all() or (box < -0.01).any() or (box > 1.01).any() or (box[:, 2:] < 0).any():
        return f"{label}: a box is outside of the image"
    if ((cls < 0) | (cls >= classes) | (cls % 1 != 0)).any():
        return f"{label}: a class is not one of 0 to {classes - 1}"
    return size, rows


# Counting -------------------------------------------------------------------------------------------------------------


def _count(objects: _Objects, images: np.ndarray, names: Sequence[str], imgsz: int) -> SplitStats:
    """Return the numbers of some images."""
    mine = np.isin(objects.image, images)
    cls, box, longest = objects.cls[mine], objects.box[mine], objects.longest[mine]
    per_image = np.bincount(objects.image, minlength=len(objects.files))[images]
    w, h = box[:, 2], box[:, 3]
    # divided last, so that parts of whole pixels that make up a group's limit are not a rounding error below it
    area, area_at = w * h, w * h * imgsz**2 / longest**2
    counts, counts_at = (
        np.bincount(cls * len(SIZE_GROUPS) + size_group(a), minlength=len(names) * len(SIZE_GROUPS)).reshape(
            len(names), -1
        )
        for a in (area, area_at)
    )
    n, both = len(cls), (w > 0) & (h > 0)
    with np.errstate(divide="ignore"):
        needed = np.sort(THIN * longest / np.minimum(w, h))[::-1]  # imgsz from which on an object isn't thin
    limit = needed[int(THIN_SHARE * n)] if n else np.inf
    return SplitStats(
        images=len(images),
        empty=int((per_image == 0).sum()),
        objects=n,
        per_image={
            name: round(float(of(per_image)), 3)
            for name, of in (("min", np.min), ("median", np.median), ("mean", np.mean), ("max", np.max))
            if len(images)
        },
        sizes=_groups(counts.sum(0)),
        sizes_at_imgsz=_groups(counts_at.sum(0)),
        coco=_coco(counts.sum(0)),
        coco_at_imgsz=_coco(counts_at.sum(0)),
        side=_quantiles(np.sqrt(area)),
        side_at_imgsz=_quantiles(np.sqrt(area_at)),
        aspect=_quantiles(w[both] / h[both]),
        thin=float((needed > imgsz).mean()) if n else 0.0,
        imgsz_for_thin=int(np.ceil(limit / 32)) * 32 if np.isfinite(limit) else None,
        classes=[
            ClassStats(name, int(row.sum()), float(row.sum() / max(n, 1)), _groups(row), _groups(row_at))
            for name, row, row_at in zip(names, counts, counts_at, strict=True)
        ],
    )


def _groups(counts: np.ndarray) -> dict[str, int]:
    return dict(zip(SIZE_GROUPS, counts.tolist(), strict=True))


def _coco(counts: np.ndarray) -> dict[str, int]:
    very_tiny, tiny, small, medium, large = counts.tolist()
    return {"small": very_tiny + tiny + small, "medium": medium, "large": large}


def _quantiles(values: np.ndarray) -> dict[int, float]:
    if not len(values):
        return {}
    return dict(zip(QUANTILES, np.percentile(values, QUANTILES).round(3).tolist(), strict=True))


# The table ------------------------------------------------------------------------------------------------------------


def _table(found: Stats) -> Iterator[str]:
    """Give the lines of `Stats.table`."""
    total, n = found.total, found.total.objects
    name = _cut(Path(found.data).name, 40)
    yield f"{name}: {_many(n, 'object')} in {_many(total.images, 'image')}; imgsz {found.imgsz}"
    if found.skipped:
        yield f"{_many(len(found.skipped), 'image')} left out"
    parts = {**found.splits, "all": total} if len(found.splits) > 1 else dict(found.splits) or {"all": total}
    if sum(part.images for part in found.splits.values()) > total.images:
        yield "images are in more than one split; they count once in all"

    yield ""
    yield f"{'':18}{'images':>8}{'empty':>8}{'objects':>9}   in an image:{'min':>6}{'median':>8}{'mean':>8}{'max':>7}"
    for name, part in parts.items():
        row = f"{name:18}{_short(part.images):>8}{_short(part.empty):>8}{_short(part.objects):>9}{'':15}"
        if (per := part.per_image) and part.objects:
            row += f"{per['min']:6.0f}{per['median']:8.4g}{per['mean']:8.1f}{per['max']:7.0f}"
        yield row.rstrip()

    yield ""
    yield f"{'':35} {'original pixels':-^35}   {f'at imgsz {found.imgsz}':-^35}"
    limits = ["<8²", "<16²", "<32²", "<96²", "≥96²"]
    groups = [f"{name.replace('very ', 'v.')}" for name in SIZE_GROUPS]
    for heads, left in ((groups, f"{'class':18}{'objects':>9}{'share':>8}"), (limits, "")):
        line = "".join(f"{head:>7}" for head in heads)
        yield f"{left:36}{line}   {line}"

    def row(name: str, objects: int, sizes: list[int], sizes_at: list[int]) -> str:
        numbers, numbers_at = ("".join(f"{_short(v):>7}" for v in values) for values in (sizes, sizes_at))
        return f"{_cut(name, 18):18}{_short(objects):>9}{objects / max(n, 1):>8.1%} {numbers}   {numbers_at}"

    for name, indices in _shown(total):
        classes = [total.classes[i] for i in indices]
        sizes = np.sum([[*c.sizes.values()] for c in classes], 0).tolist()
        sizes_at = np.sum([[*c.sizes_at_imgsz.values()] for c in classes], 0).tolist()
        yield row(name, sum(c.objects for c in classes), sizes, sizes_at)
    for name, part in parts.items():
        yield row(f"- {name}", part.objects, [*part.sizes.values()], [*part.sizes_at_imgsz.values()])
    if n:
        shares, shares_at = (
            "".join(f"{v / n:7.1%}" for v in sizes.values()) for sizes in (total.sizes, total.sizes_at_imgsz)
        )
        yield f"{'- all, share':36}{shares}   {shares_at}"
        yield ""
        yield f"{'':35}" + "".join(f"{f'{q} %':>9}" for q in QUANTILES) + "  of the objects have at most"
        for name, values in (
            ("√area, original pixels", total.side),
            (f"√area at imgsz {found.imgsz}, pixels", total.side_at_imgsz),
            ("width / height", total.aspect),
        ):
            yield f"{name:35}" + "".join(f"{v:>9.{2 if 'height' in name else 1}f}" for v in values.values())
        yield ""
        for name, coco in (("original pixels", total.coco), (f"at imgsz {found.imgsz}", total.coco_at_imgsz)):
            yield f"{f'COCO, {name}:':35}" + ", ".join(f"{k} {v} ({v / n:.1%})" for k, v in coco.items())
        thin = f"thinner than {THIN} px at imgsz {found.imgsz}:"
        yield f"{thin:35}{total.thin:.1%} (a cell of a head at stride {THIN}){_advice(total)}"


def _shown(part: SplitStats) -> list[tuple[str, list[int]]]:
    """Return the classes to name with their indices: the most frequent ones, then the others together."""
    order = sorted(range(len(part.classes)), key=lambda i: -part.classes[i].objects)
    if len(order) <= SHOWN:
        return [(c.name, [i]) for i, c in enumerate(part.classes)]
    return [(part.classes[i].name, [i]) for i in order[:SHOWN]] + [(f"{len(order) - SHOWN} others", order[SHOWN:])]


def _advice(part: SplitStats) -> str:
    """Say from which image size on few objects are thin."""
    if part.thin <= THIN_SHARE:
        return ""
    if part.imgsz_for_thin is None:
        return "; many have no width or height"
    return f"; from imgsz {part.imgsz_for_thin} on at most {THIN_SHARE:.0%}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _short(count: int) -> str:
    """Return a count in at most six characters."""
    return str(count) if count < 1_000_000 else f"{count / 1e6:.4g}M"


def _cut(name: str, length: int) -> str:
    """Shorten a name in its middle, as names of classes often differ at the end."""
    return name if len(name) <= length else f"{name[: length - 6]}…{name[-5:]}"


# The picture ----------------------------------------------------------------------------------------------------------

ORIGINAL, AT_IMGSZ, GREY = "#33597f", "#e0813a", "#6b7280"
SPLIT_COLOURS = {"train": "#3f7f75", "val": "#8fc1b5", "test": "#c9cf9a"}
TILES = 9


@plt_settings({"font.size": 9.5})
def _draw(found: Stats, objects: _Objects, file: Path) -> None:
    """Draw `stats.png`, 1600x1000 pixels."""
    from matplotlib.figure import Figure  # here, as it is slow to import

    total, imgsz = found.total, found.imgsz
    figure = Figure(figsize=(16, 10), dpi=100, facecolor="white")
    grid = figure.add_gridspec(2, 3, left=0.075, right=0.975, top=0.85, bottom=0.325, hspace=0.48, wspace=0.24)
    name = _cut(Path(found.data).name, 60)
    head = f"{name}: {_many(total.objects, 'object')} in {_many(total.images, 'image')}"
    figure.text(0.03, 0.965, _plain(head), size=18, weight="bold", va="center")
    if total.objects:
        text = (
            f"Resized to {imgsz} px, half of the objects have a side (√area) under {total.side_at_imgsz[50]:.1f} px; "
            f"in the original images under {total.side[50]:.1f} px.\nAt {imgsz} px, {total.thin:.1%} are thinner than "
            f"{THIN} px, one cell of a head at stride {THIN}{_advice(total)}."
        )
        figure.text(0.03, 0.945, text, size=11, color=GREY, va="top", linespacing=1.4)
    axes = [figure.add_subplot(grid[row, column]) for row in range(2) for column in range(3)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.yaxis.get_major_locator().set_params(integer=True)
    _draw_classes(axes[0], found)
    _draw_sizes(axes[1], found)
    _draw_sides(axes[2], objects, imgsz)
    _draw_density(axes[3], objects)
    _draw_aspect(axes[4], objects.box[:, 2:])
    _draw_centres(axes[5], objects.box[:, :2])
    _draw_pieces(figure, found, objects)
    figure.savefig(file, format="png")


def _plain(text: str) -> str:
    """Keep matplotlib from reading `$` in a name as a formula."""
    return text.replace("$", r"\$")


def _draw_classes(ax: Axes, found: Stats) -> None:
    """Draw bars of the objects by class, one colour a split."""
    shown, total = _shown(found.total), max(found.total.objects, 1)
    at, left = np.arange(len(shown)), np.zeros(len(shown))
    for split, part in found.splits.items():
        counts = [sum(part.classes[i].objects for i in indices) for _, indices in shown]
        ax.barh(at, counts, 0.75, left, color=SPLIT_COLOURS[split], label=f"{split} ({part.objects:,})")
        left += counts
    for y, (_, indices) in enumerate(shown):
        count = sum(found.total.classes[i].objects for i in indices)
        ax.annotate(f"{count:,} ({count / total:.1%})", (left[y], y), (4, 0), textcoords="offset points", va="center")
    ax.set(title="Objects by class and split", xlim=(0, max(1, left.max() * 1.3)))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_yticks(at, [_plain(_cut(name, 14)) for name, _ in shown])
    ax.set_ylim(max(len(shown), 2) - 0.4, -0.6)  # the first class is on top
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, frameon=False, borderaxespad=0.2)


def _draw_sizes(ax: Axes, found: Stats) -> None:
    """Draw bars of the objects by size group, before and after resizing."""
    total, at = max(found.total.objects, 1), np.arange(len(SIZE_GROUPS))
    for shift, colour, label, sizes in (
        (-0.21, ORIGINAL, "original pixels", found.total.sizes),
        (0.21, AT_IMGSZ, f"at imgsz {found.imgsz}", found.total.sizes_at_imgsz),
    ):
        counts = list(sizes.values())
        ax.bar(at + shift, counts, 0.4, color=colour, label=label)
        for x, count in zip(at + shift, counts, strict=True):
            text = f"{count if count < 10_000 else f'{count / 1000:.0f}k'}\n{count / total:.0%}"
            ax.annotate(text, (x, count), (0, 2), textcoords="offset points", ha="center", size=8, linespacing=0.95)
    limits = ("< 8²", "8² to 16²", "16² to 32²", "32² to 96²", "≥ 96² px")
    ax.set_xticks(at, [f"{name}\n{limit}" for name, limit in zip(SIZE_GROUPS, limits, strict=True)])
    top = max(*found.total.sizes.values(), *found.total.sizes_at_imgsz.values(), 1)
    ax.set(title="Objects by size (box area)", ylabel="objects", ylim=(0, top * 1.45))
    ax.tick_params(axis="x", length=0)
    ax.legend(loc="upper center", ncols=2, frameon=False)


def _draw_sides(ax: Axes, objects: _Objects, imgsz: int) -> None:
    """Draw how √area is spread, before and after resizing."""
    sides, sides_at = (np.maximum(side, 0.5) for side in (objects.side(), objects.side(imgsz)))
    low, high = _range(np.concatenate([sides, sides_at]), (4, 128))
    bins = np.geomspace(low, high, 45)
    for side, colour, label in ((sides, ORIGINAL, "original"), (sides_at, AT_IMGSZ, f"at imgsz {imgsz}")):
        ax.hist(side, bins, color=colour, alpha=0.25)
        ax.hist(side, bins, color=colour, histtype="step", linewidth=1.6, label=label)
    ax.set(title="Side of the objects, √area", xlabel="pixels (lines: limits of the size groups)", ylabel="objects")
    ax.set_ylim(0, max(1, ax.get_ylim()[1] * 1.2))  # room for the legend
    limits = [np.sqrt(limit) for limit, _ in list(SIZE_GROUPS.values())[1:]]
    for limit in limits:
        ax.axvline(limit, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    _log_axis(ax, low, high)
    ax.legend(loc="upper center", ncols=2, framealpha=1, edgecolor="white")


def _draw_density(ax: Axes, objects: _Objects) -> None:
    """Draw how many objects an image holds."""
    counts = np.bincount(objects.image, minlength=len(objects.files))
    top = int(counts.max(initial=0))
    step = int(np.ceil((top + 1) / 40))
    ax.hist(counts, np.arange(0, top + step + 1, step) - 0.5, color=ORIGINAL, rwidth=0.9)
    about = ""
    if len(counts):
        mean = counts.mean()
        ax.axvline(mean, color=AT_IMGSZ, linewidth=1.6)
        about = f" (mean {mean:.1f}, median {np.median(counts):g})"
    ax.set(title=f"Objects in an image{about}", xlabel="objects in an image", ylabel="images")
    ax.set_xlim(-0.8, max(top, 4) + step)
    ax.xaxis.get_major_locator().set_params(integer=True)


def _draw_aspect(ax: Axes, sides: np.ndarray) -> None:
    """Draw how width / height is spread."""
    sides = sides[(sides > 0).all(1)]
    aspect = sides[:, 0] / sides[:, 1]
    low, high = _range(aspect, (0.5, 2))
    high = max(high, 1 / low)
    ax.hist(aspect, np.geomspace(1 / high, high, 45), color=ORIGINAL)
    ax.axvline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set(title="Shape of the boxes", xlabel="width / height (left: upright, right: lying)", ylabel="objects")
    ax.set_ylim(0, max(1, ax.get_ylim()[1]))
    _log_axis(ax, 1 / high, high)


def _draw_centres(ax: Axes, centres: np.ndarray) -> None:
    """Draw where in the images the objects are."""
    x, y = centres.clip(0, 1).T * 100
    counts, _, _ = np.histogram2d(y, x, bins=(18, 32), range=((0, 100), (0, 100)))
    image = ax.imshow(counts, cmap="Blues", extent=(0, 100, 100, 0), aspect="auto", vmin=0, vmax=max(1, counts.max()))
    ax.figure.colorbar(image, ax=ax, label="objects", fraction=0.05, pad=0.02).locator.set_params(integer=True)
    ax.set(title="Where the centres of the objects are", xlabel="% of the image's width", ylabel="% of its height")


def _range(values: np.ndarray, least: tuple[float, float]) -> tuple[float, float]:
    """Return the limits of a log axis for some values."""
    return min(least[0], values.min(initial=least[0]) / 1.1), max(least[1], values.max(initial=least[1]) * 1.1)


def _log_axis(ax: Axes, low: float, high: float) -> None:
    """Give the x axis powers of two, as few as there is room for, in plain numbers."""
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    powers = [power for power in powers if power % (1 + len(powers) // 12) == 0]
    ax.set_xscale("log", base=2)
    ax.set_xlim(low, high)
    ax.set_xticks([2.0**power for power in powers], [f"{2**k}" if k >= 0 else f"1/{2**-k}" for k in powers])
    ax.minorticks_off()


def _draw_pieces(figure: Figure, found: Stats, objects: _Objects) -> None:
    """Draw a row of objects of median size, pixel by pixel as they are after resizing."""
    from matplotlib.patches import Rectangle

    classes = [(name, indices[0]) for name, indices in _shown(found.total)[:SHOWN]]
    many = max(1, TILES // max(sum(found.total.classes[index].objects > 0 for _, index in classes), 1))
    groups = [(name, picks) for name, index in classes if (picks := _median_objects(objects, index, many))]
    head = "What the model sees: objects of median size, pixel by pixel"
    figure.text(0.03, 0.24, head if groups else "No objects", size=13, weight="bold")
    if groups:
        text = f"pieces of images resized to {found.imgsz} px; 4x: a pixel is drawn as 4 by 4; framed: the label's box"
        figure.text(0.97, 0.24, text, color=GREY, ha="right")
    room = 0.948 / max(TILES, sum(len(picks) for _, picks in groups))
    left, tile = 0.03, int((room - 0.008) * 1600)
    for name, picks in groups:
        sides = objects.box[picks, 2:] * found.imgsz / objects.longest[picks, None]
        need = max(16, 1.15 * sides.max())
        times = int(tile / need) or tile / need  # whole, so that all pixels are drawn equally large
        window, shown = int(tile / times), f"{times:.2g}x"
        width = window * times / 1600
        head = _plain(_cut(name, int(room * len(picks) * 1600 / 9.5) - 5 * (many > 1)))
        figure.text(left, 0.212, f"{head}, {shown}" if many > 1 else head, weight="bold")
        for pick, (w, h) in zip(picks, sides, strict=True):
            ax = figure.add_axes((left, 0.203 - width * 1.6, width, width * 1.6))
            piece, (x, y) = _piece(objects, pick, found.imgsz, window)
            ax.imshow(piece, interpolation="nearest" if times >= 1 else "antialiased")
            frame = (x - w / 2 - 1, y - h / 2 - 1), w + 1, h + 1  # around the box, so that all its pixels are seen
            ax.add_patch(Rectangle(*frame, fill=False, edgecolor=AT_IMGSZ, linewidth=1))
            ax.set(xticks=[], yticks=[])
            ax.set_xlabel(f"{w:.0f} x {h:.0f} px" + (f"\n{shown}" if many == 1 else ""), labelpad=3)
            left += room


def _median_objects(objects: _Objects, cls: int, many: int) -> list[int]:
    """Return indices of objects of a class whose size is nearest to its median, from different images where it can."""
    mine = np.flatnonzero((objects.cls == cls) & (objects.box[:, 2:] > 0).all(1))
    side = (objects.box[mine, 2:].prod(1) ** 0.5) / objects.longest[mine]
    mine = mine[np.argsort(abs(side - np.median(side)), kind="stable")] if len(mine) else mine
    _, firsts = np.unique(objects.image[mine], return_index=True)
    first = np.isin(np.arange(len(mine)), firsts)
    return np.concatenate([mine[first], mine[~first]])[:many].tolist()


def _piece(objects: _Objects, pick: int, imgsz: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a square (window, window, 3) RGB of a resized image around an object, and the object's centre in it."""
    piece = np.full((window, window, 3), 114, np.uint8)  # what letterboxing puts around an image
    image = imread(objects.files[objects.image[pick]])
    if image is None:  # the header could be read, but not the rest
        return piece, np.full(2, window / 2)
    height, width = image.shape[:2]
    ratio = imgsz / max(height, width)
    size = min(math.ceil(width * ratio), imgsz), min(math.ceil(height * ratio), imgsz)
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) if ratio != 1 else image
    centre = objects.box[pick, :2] * size
    x, y = np.round(centre - window / 2).astype(int)
    inside = image[max(y, 0) : max(y + window, 0), max(x, 0) : max(x + window, 0), ::-1]
    top, left = max(-y, 0), max(-x, 0)
    piece[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return piece, centre - (x, y)
