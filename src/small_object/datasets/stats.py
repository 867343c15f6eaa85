"""How small the objects of a data set are: counts by class and size as a table, as JSON and as one picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from ultralytics.utils import LOGGER

from small_object.datasets.counts import Stats, count_dataset, gather_objects
from small_object.datasets.dataset import DataSet, Entry, load_dataset, readable_path
from small_object.datasets.images import scan_image
from small_object.datasets.labels import read_labels
from small_object.datasets.stats_plot import draw_stats
from small_object.errors import UserError
from small_object.files import staging_dir
from small_object.images import UnreadableImageError, read_bits, readable_name
from small_object.parallel import map_threads

MAX_WARNINGS = 10


def stats(data: str | Path, imgsz: int = 640, out: str | Path | None = None) -> Stats:
    """Count the objects of a data set by class and size, in original pixels and as a model sees them at `imgsz`.

    Prints a table and writes `stats.json` and `stats.png`. Labels are read, and images checked, as by training's
    scan. Files that cannot be read or that training would refuse are named in a warning and left out.

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
    dataset = load_dataset(data, allow_empty=True)
    skipped = {f.location: f.message for f in dataset.findings if f.kind in ("missing-image", "ignored-line")}
    splits, sizes, rows = [], [], []
    read = map_threads(partial(_read_entry, dataset=dataset, bits=read_bits()), dataset.entries, "reading labels")
    for entry, result in zip(dataset.entries, read, strict=True):
        if isinstance(result, str):
            skipped[readable_path(entry.file)] = result
        else:
            splits.append(entry.splits)
            sizes.append(result[0])
            rows.append(result[1][:, [0, 3, 4]] * (1, *result[0]))
    for image, why in list(skipped.items())[:MAX_WARNINGS]:
        LOGGER.warning(f"{image} is left out: {why}; find all such: small-object check {data}")
    if len(skipped) > MAX_WARNINGS:
        LOGGER.warning(f"{len(skipped) - MAX_WARNINGS} more images are left out, see stats.json")
    objects = gather_objects(rows, sizes)
    found = Stats(str(dataset.yaml), imgsz, *count_dataset(objects, splits, dataset, imgsz), skipped)
    LOGGER.info(found.table())
    out = Path(out) if out is not None else Path("runs/stats") / dataset.yaml.stem
    with staging_dir(out) as made:
        text = readable_name(json.dumps(asdict(found), indent=2, ensure_ascii=False)) + "\n"
        (made / "stats.json").write_text(text, encoding="utf-8")
        draw_stats(found, made / "stats.png")
        for path in list(made.iterdir()):
            path.replace(out / path.name)
    LOGGER.info(f"\nwritten: {out / 'stats.png'} and {out / 'stats.json'}")
    return found


def _read_entry(entry: Entry, dataset: DataSet, bits: int | None) -> tuple[tuple[int, int], np.ndarray] | str:
    """Return an image's (width, height) and its objects (N, 5), or why it has to be left out."""
    try:
        size = scan_image(entry.file, bits)
        if not entry.label.is_file():
            return size, np.zeros((0, 5))
        rows = read_labels(entry.label, len(dataset.names), dataset.num_fields)
        _, first = np.unique(rows.astype(np.float32), axis=0, return_index=True)  # as training drops repeated lines
        rows = rows[np.sort(first)]
        return size, rows[(rows[:, 3:] > 0).all(1)]
    except UnreadableImageError as error:
        return f"the image {error}"
    except UserError as error:
        return readable_name(str(error))
    except OSError as error:
        return f"{readable_path(entry.label)}: {error.strerror or error}"
