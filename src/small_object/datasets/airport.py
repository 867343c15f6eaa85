"""ASS1 and ASS2, the airport data sets: fetched from their public record, paired, put in class order and laid out."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER, YAML

from small_object.datasets.archives import extract, is_archive
from small_object.datasets.layout import SPLITS, Sample, unique_names
from small_object.datasets.record import RECORD_URL, RecordFile, fetch, list_files
from small_object.datasets.split import place
from small_object.errors import UserError
from small_object.files import staging_dir

PAGE = "https://zenodo.org/records/10969885"


@dataclass(frozen=True)
class AirportSet:
    """What is known of a set from its publication.

    Attributes:
        images: Number of images.
        objects: Number of objects by class name, in the order of the class indices.
    """

    images: int
    objects: dict[str, int]


SETS = {
    "ASS1": AirportSet(2000, {"airplane": 3466, "person": 2994, "truck": 1911}),
    "ASS2": AirportSet(100, {"airplane": 2341, "truck": 6073}),
}
SAME_CLASS = {"aircraft": "airplane", "plane": "airplane", "aeroplane": "airplane", "people": "person"}
SIDE_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "val"}
ROLE_NAMES = {"images", "image", "imgs", "img", "jpegimages", "labels", "label", "txt", "yolo", "annotations"}
NO_LABELS = {"classes", "obj", "predefined_classes", "readme", "license", "licence", "notes", "train", "val", "test"}


def cache_folder() -> Path:
    """Return where archives are kept: the environment's `ASS_CACHE`, else a folder of the user's cache."""
    if folder := os.environ.get("ASS_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "small-object-detection"


def prepare(
    name: str,
    root: str | Path | None = None,
    archive: str | Path | None = None,
    split: str | Path | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Fetch a data set where it is missing, lay it out and split it.

    Nothing is left half-made: killed at any moment and started again, it ends as if it had not been.

    Args:
        name: `ASS1` or `ASS2`.
        root: Folder of the data set, `datasets/<name>` under the working folder by default; gets
            `images/{train,val}`, `labels/{train,val}` and `split.csv`.
        archive: Archive to take instead of the record's.
        split: Split file to follow instead of the published split or ours, see `frame_split.read_split`.
        cache: Folder that keeps the archives; see `cache_folder`. The record's address can be changed by the
            environment's `ASS_RECORD_URL`, to a mirror that speaks the same API.
        overwrite: Replace images that are there already.

    Returns:
        The folder.

    Raises:
        UserError: If the name is unknown, the archive cannot be had or used, or the split file does not fit.

    Examples:
        >>> from small_object.datasets.airport import prepare
        >>> prepare("ASS2", archive="ASS2.zip").name
        'ASS2'
    """
    if name not in SETS:
        raise UserError(f"no data set named '{name}': choose {' or '.join(SETS)}")
    root = Path(root) if root is not None else Path("datasets") / name
    if (root / "images").exists() and not overwrite:
        LOGGER.info(f"{name} is in {root.absolute()} already; --overwrite makes it anew")
        return root
    if split and not Path(split).is_file():
        raise UserError(f"--split: no file {split}")
    if archive and not Path(archive).is_file():
        raise UserError(f"--archive: no file {archive}")
    try:
        archives = [Path(archive)] if archive else fetch_archives(name, Path(cache or cache_folder()))
    except UserError as error:
        raise UserError(
            f"{name}: {error}; until then the made-up demo set stands in: data=datasets/{name}-demo/{name}-demo.yaml"
        ) from error
    with staging_dir(root) as made:
        parts = {}
        for file in archives:
            LOGGER.info(f"extracting {file}")
            raw = made / "raw" / file.name
            extract(file, raw)
            parts[file.name] = raw
        samples, sides = read_archives(name, parts)
        place(samples, root, made, sides, split, move=True)
    LOGGER.info(
        f"{name} is in {root.absolute()}; check it: python datasets/prepare.py --check {root / f'{name}.yaml'}"
        + ("" if archive else f"\nits archive stays in {archives[0].parent}, delete it or keep it for another run")
    )
    return root


def fetch_archives(name: str, cache: Path) -> list[Path]:
    """Fetch the archives of a data set from the record into a folder, unless they are there.

    Raises:
        UserError: If the record or a file of it cannot be had.
    """
    url = os.environ.get("ASS_RECORD_URL") or RECORD_URL
    return [fetch(file, cache) for file in choose_files(name, list_files(url, cache))]


def choose_files(name: str, files: Sequence[RecordFile]) -> list[RecordFile]:
    """Choose the record's archives that may hold a data set.

    Args:
        name: `ASS1` or `ASS2`.
        files: The record's files, in any order.

    Returns:
        The archives that bear the set's name; where none does, all that bear no other set's, since their content tells.

    Raises:
        UserError: If there are none.
    """
    archives = [file for file in files if is_archive(file.name)]
    if named := [file for file in archives if _set_of(file.name) == name]:
        return named
    if not (nameless := [file for file in archives if _set_of(file.name) is None]):
        listed = ", ".join(file.name for file in files) or "nothing"
        raise UserError(f"the record holds no archive of {name}, but {listed}; get it from {PAGE}, pass --archive PATH")
    return nameless


def _set_of(text: str) -> str | None:
    """Return the data set that a file or folder name names, `ASS-1` and `ass_1` included, or None."""
    found = {f"ASS{digit}" for digit in re.findall(r"ass[\W_]*([12])(?!\d)", text.casefold())}
    return found.pop() if len(found) == 1 else None


# From archive to samples ----------------------------------------------------------------------------------------------


def read_archives(name: str, parts: dict[str, Path]) -> tuple[list[Sample], list[str] | None]:
    """Find the samples of a data set among extracted archives.

    Args:
        name: `ASS1` or `ASS2`.
        parts: Folder of each archive's content, by the archive's name.

    Returns:
        The samples in this fork's class order, and the published split, `train` or `val` for each, where there is one.

    Raises:
        UserError: If no image, or no label, of the set is found.
    """
    files = [(part, path) for part, folder in parts.items() for path in _files(folder)]
    named = {path: _set_of(str(path.relative_to(parts[part]).parent)) or _set_of(part) for part, path in files}
    if name in named.values():  # folders or archives tell which set is whose
        files = [(part, path) for part, path in files if named[path] == name]
    else:
        files = [(part, path) for part, path in files if named[path] is None]
    paths = [path for _, path in files]
    images = [path for path in paths if path.suffix[1:].lower() in IMG_FORMATS]
    texts = [path for path in paths if path.suffix.lower() == ".txt" and path.stem.casefold() not in NO_LABELS]
    if not images:
        raise UserError(f"{', '.join(parts)}: holds no image of {name}; is it the right archive?")
    base = next(iter(parts.values())).parent
    pairs = pair(images, texts, base)
    samples = [
        Sample(image, new, pairs[image].read_text(encoding="utf-8-sig", errors="replace") if image in pairs else "")
        for image, new in zip(images, unique_names(images, base), strict=True)
    ]
    if not any(sample.text.strip() for sample in samples):
        raise UserError(f"{', '.join(parts)}: holds {len(images)} images of {name} and no label of them in YOLO format")
    if name not in named.values() and (other := _judge(samples)) != name:
        raise UserError(f"{', '.join(parts)}: holds {other} by its classes, not {name}; is it the right archive?")
    for number, what in (
        (len(images) - len(pairs), "images without a label file, taken as images without objects"),
        (len(set(texts) - set(pairs.values())), "label files without an image, left out"),
    ):
        if number:
            LOGGER.warning(f"{name}: {number} {what}")
    samples = in_class_order(name, samples, _class_names(paths))
    return samples, _published_split(images, paths, base)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def pair(images: Sequence[Path], texts: Sequence[Path], base: Path) -> dict[Path, Path]:
    """Pair images with label files by their stem; of several, those whose folders have the most in common.

    Args:
        images: Image files under `base`.
        texts: Label files under `base`.
        base: Folder of both.

    Returns:
        Label file by image; no label file twice.
    """
    by_stem: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for kind, paths in enumerate((images, texts)):
        for path in paths:
            by_stem[path.stem.casefold()][kind].append(path)
    pairs: dict[Path, Path] = {}
    for left, right in by_stem.values():
        near = sorted(((_apart(a, b, base), a, b) for a in left for b in right), key=lambda n: (n[0], str(n[1:])))
        used: set[Path] = set()
        for _, image, text in near:
            if image not in pairs and text not in used:
                pairs[image] = text
                used.add(text)
    return pairs


def _apart(a: Path, b: Path, base: Path) -> int:
    """Count the folders that only one of two files is in, roles such as `images` and `labels` aside."""
    one, two = (
        [part.casefold() for part in path.relative_to(base).parent.parts if part.casefold() not in ROLE_NAMES]
        for path in (a, b)
    )
    same = 0
    while same < min(len(one), len(two)) and one[same] == two[same]:
        same += 1
    return len(one) + len(two) - 2 * same


def _counts(samples: Sequence[Sample]) -> dict[int, int]:
    """Count objects by class index; label lines that cannot be read are left to the check of the set."""
    count: dict[int, int] = defaultdict(int)
    for sample in samples:
        for line in sample.text.splitlines():
            first = line.split(maxsplit=1)[:1]
            if first and re.fullmatch(r"\d{1,4}(\.0*)?", first[0]):
                count[int(float(first[0]))] += 1
    return dict(sorted(count.items()))


def _judge(samples: Sequence[Sample]) -> str:
    """Tell the set by the number of its classes."""
    return "ASS1" if len(_counts(samples)) > 2 else "ASS2"


def _class_names(paths: Sequence[Path]) -> list[str] | None:
    """Return the class names that the archive states, in the order of their indices."""
    for path in paths:
        try:
            if path.name.casefold() in {"classes.txt", "predefined_classes.txt", "obj.names"}:
                return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            if path.suffix.lower() in {".yaml", ".yml"}:
                names = YAML.load(path).get("names")
                if names:
                    return [str(names[i]) for i in range(len(names))]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            LOGGER.warning(f"{path.name} in the archive is not understood ({error}): class names are not taken from it")
    return None


def in_class_order(name: str, samples: Sequence[Sample], stated: list[str] | None) -> list[Sample]:
    """Put labels into this fork's class order, and print how the counts differ from the published ones.

    The order follows the names that the archive states; without any, the counts: where they are the published ones in
    another order, the classes are in that order.

    Args:
        name: `ASS1` or `ASS2`.
        samples: The samples as published.
        stated: Class names that the archive states, in the order of their indices, or None.

    Returns:
        The samples, with other class indices where needed.
    """
    known = SETS[name].objects
    names = list(known)
    found = _counts(samples)
    order: dict[int, int] = {}
    if stated is not None:
        plain = [SAME_CLASS.get(n, n) for n in (s.casefold().strip() for s in stated)]
        plain = [SAME_CLASS.get(n.removesuffix("s"), n if n in names else n.removesuffix("s")) for n in plain]
        order = {i: names.index(n) for i, n in enumerate(plain) if n in names}
        reason = f"the archive states the classes {', '.join(stated)}"
    elif sorted(found.values()) == sorted(known.values()):
        order = {i: list(known.values()).index(count) for i, count in found.items()}
        reason = "the counts are the published ones in another order"
    if all(i in order for i in found) and any(i != j for i, j in order.items() if i in found):
        LOGGER.info(f"{name}: classes put in order, since {reason}")
        samples = [Sample(s.image, s.name, _renumber(s.text, order)) for s in samples]
        found = _counts(samples)
    same = len(samples) == SETS[name].images
    lines = [f"  images    {len(samples):6} found, {SETS[name].images:6} published"]
    for i in sorted({*range(len(names)), *found}):
        label, count = (names[i], known[names[i]]) if i < len(names) else (f"class {i}", 0)
        same &= found.get(i, 0) == count
        lines.append(f"  {label:9} {found.get(i, 0):6} found, {count:6} published")
    if same:
        LOGGER.info(f"{name}: {len(samples)} images, their objects by class as published")
    else:
        LOGGER.warning("\n".join([f"{name}: differs from its publication", *lines]))
    if wrong := [i for i in found if i >= len(names)]:
        LOGGER.warning(f"{name}: class {wrong[0]} has no name, training would leave out its images: see --check")
    return list(samples)


def _renumber(text: str, order: dict[int, int]) -> str:
    lines = []
    for line in text.splitlines():
        cls, *rest = line.split(maxsplit=1)
        number = order.get(int(float(cls))) if re.fullmatch(r"\d{1,4}(\.0*)?", cls) else None
        lines.append(line if number is None else " ".join((str(number), *rest)))
    return "".join(f"{line}\n" for line in lines)


def _published_split(images: Sequence[Path], paths: Sequence[Path], base: Path) -> list[str] | None:
    """Return the side of each image where the archive splits them by folders or by lists; `test` counts as `val`."""
    by_folder = []
    for path in images:
        sides = {SIDE_NAMES.get(part.casefold()) for part in path.relative_to(base).parts[:-1]} - {None}
        by_folder.append(sides.pop() if len(sides) == 1 else None)
    if set(by_folder) == set(SPLITS):
        return by_folder
    lists: dict[str, str] = {}
    for path in paths:
        side = SIDE_NAMES.get(path.stem.casefold()) if path.suffix.lower() == ".txt" else None
        if side:
            for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
                stem = Path(line.strip().replace("\\", "/")).stem.casefold()
                if lists.setdefault(stem, side) != side:
                    return None  # on both sides: no split
    by_list = [lists.get(path.stem.casefold()) for path in images]
    return by_list if set(by_list) == set(SPLITS) else None
