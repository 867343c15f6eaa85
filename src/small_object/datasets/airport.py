"""Fetches the airport data sets ASS1 and ASS2 from their public record, pairs files, orders classes and splits."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ultralytics.data.utils import IMG_FORMATS
from ultralytics.utils import LOGGER, YAML

from small_object.datasets.archives import SUFFIXES, extract
from small_object.datasets.dataset import SPLIT_WORDS, SPLITS, Sample, new_dataset, unique_names
from small_object.datasets.split import write_dataset
from small_object.errors import UserError
from small_object.images import read_names

DOI = "10.5281/zenodo.10969885"
PAGE = "https://zenodo.org/records/10969885"
# As published: objects by class, in the order of the class indices, and the number of images.
SETS = {"ASS1": {"airplane": 3466, "person": 2994, "truck": 1911}, "ASS2": {"airplane": 2341, "truck": 6073}}
NUM_IMAGES = {"ASS1": 2000, "ASS2": 100}
CLASS_ALIASES = {"aircraft": "airplane", "plane": "airplane", "aeroplane": "airplane", "people": "person"}
SPLIT_NAMES = SPLIT_WORDS | {"test": "val"}
KIND_FOLDERS = {"images", "image", "imgs", "img", "jpegimages", "labels", "label", "txt", "yolo", "annotations"}
NO_LABELS = {"classes", "obj", "predefined_classes", "readme", "license", "licence", "notes", "train", "val", "test"}
CLASS_INDEX = re.compile(r"^[ \t]*(\d{1,4})(?:\.0*)?(?=\s|$)", re.MULTILINE)


def prepare(
    name: str,
    root: str | Path | None = None,
    archive: str | Path | None = None,
    split: str | Path | None = None,
    cache: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Fetch a data set if it is missing, and split it.

    It never leaves a partial data set: after a kill at any moment, a second run gives the result of the first.

    Args:
        name: `ASS1` or `ASS2`.
        root: Folder of the data set, `datasets/<name>` in the current directory by default; gets
            `images/{train,val}`, `labels/{train,val}` and `split.csv`.
        archive: Archive to use instead of the record's.
        split: Split file to follow instead of the published split or ours, see `read_split`.
        cache: Folder that keeps the archives; see `fetch_archives`.
        overwrite: Replace existing images.

    Returns:
        The folder.

    Raises:
        UserError: If the name is unknown, the archive can't be fetched or used, or the split file does not fit.

    Examples:
        >>> prepare("ASS2", archive="ASS2.zip").name
        'ASS2'
    """
    if name not in SETS:
        raise UserError(f"no data set named '{name}': choose {' or '.join(SETS)}")
    root = Path(root) if root is not None else Path("datasets") / name
    if (root / "images").exists() and not overwrite:
        LOGGER.info(f"{name} is already in {root.absolute()}; --overwrite replaces it")
        return root
    for option, file in (("--split", split), ("--archive", archive)):
        if file and not Path(file).is_file():
            raise UserError(f"{option}: no file {file}")
    archives = [Path(archive)] if archive else fetch_archives(name, cache)
    with new_dataset(root) as made:
        raw = made.with_name("raw")
        for file in archives:
            LOGGER.info(f"extracting {file}")
            extract(file, raw / file.name)
        write_dataset(read_samples(name, raw), made, split, move=True)
    LOGGER.info(f"{name} is in {root.absolute()}; check it: small-object check {root / name}.yaml")
    if not archive:
        LOGGER.info(f"its archive stays in {archives[0].parent}; delete it or keep it for another run")
    return root


def fetch_archives(name: str, cache: str | Path | None = None) -> list[Path]:
    """Fetch the archives of a data set from the public record, unless they are in the cache.

    The environment variable `ASS_RECORD_URL` may name a mirror: another DOI as `doi:...`, or the URL of a folder with
    the files and pooch's `registry.txt` of their names and checksums.

    Args:
        name: `ASS1` or `ASS2`.
        cache: Folder that keeps the archives; by default `ASS_CACHE` in the environment, else the user's cache folder.

    Raises:
        UserError: If the record or one of its files can't be fetched.
    """
    import pooch  # here, since a local archive needs no network
    import requests

    cache = Path(cache or os.environ.get("ASS_CACHE") or pooch.os_cache("small-object-detection")).expanduser()
    url = os.environ.get("ASS_RECORD_URL") or f"doi:{DOI}"
    try:
        record = pooch.create(cache, url, retry_if_failed=4)
        if url.startswith("doi:"):
            record.load_registry_from_doi()
        else:
            with TemporaryDirectory() as folder:
                record.load_registry(pooch.retrieve(f"{record.base_url}registry.txt", None, path=folder))
        return [Path(record.fetch(file, progressbar=True)) for file in _choose_archives(name, record.registry_files)]
    except Exception as error:  # of many types: network errors, a wrong checksum, an invalid record
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if isinstance(error, requests.ConnectionError):
            reason = "no connection"
        raise UserError(
            f"{name}: cannot be fetched from {url} ({reason}): try again later, or download the archive from {PAGE} "
            f"and pass --archive PATH; until then use the demo set: data=datasets/{name}-demo/{name}-demo.yaml"
        ) from error


def _choose_archives(name: str, files: Sequence[str]) -> list[str]:
    """Return the archives with a set's name; if there are none, those without any set's name, to check by content."""
    safe = [file for file in files if Path(file).name == file and ":" not in file]
    archives = [file for file in safe if file.lower().endswith(SUFFIXES)]
    chosen = [file for file in archives if _named_set(file) == name]
    chosen = chosen or [file for file in archives if _named_set(file) is None]
    if not chosen:
        raise LookupError(f"no archive of {name} among {', '.join(files) or 'no files'}")
    return chosen


def _named_set(*parts: str) -> str | None:
    """Return the data set in the last name that contains one, such as `ASS-1` or `ass_1`, or None."""
    for part in reversed(parts):
        digits = set(re.findall(r"ass[\W_]*([12])(?!\d)", part.casefold()))
        if len(digits) == 1:
            return f"ASS{digits.pop()}"
    return None


def read_samples(name: str, raw: Path) -> list[Sample]:
    """Find the samples of a data set in a folder that has one folder per extracted archive, named after it.

    Returns:
        The samples in this project's class order.

    Raises:
        UserError: If no image or no label of the set is found.
    """
    archives = ", ".join(sorted(path.name for path in raw.iterdir()))
    paths = [path for path in sorted(raw.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    named = {path: _named_set(*path.relative_to(raw).parent.parts) for path in paths}
    wanted = name if name in named.values() else None  # None if no folder or archive is named after the set
    paths = [path for path in paths if named[path] == wanted]
    images = [path for path in paths if path.suffix[1:].lower() in IMG_FORMATS]
    texts = [path for path in paths if path.suffix.lower() == ".txt" and path.stem.casefold() not in NO_LABELS]
    if not images:
        raise UserError(f"{archives}: holds no image of {name}; is it the right archive?")
    pairs = _pair_labels(images, texts, raw)
    samples = []
    for image, new, side in zip(images, unique_names(images, raw), _published_split(images, paths, raw), strict=True):
        text = pairs[image].read_text(encoding="utf-8-sig", errors="replace") if image in pairs else ""
        samples.append(Sample(image, new, text, side=side))
    if not any(sample.text.strip() for sample in samples):
        raise UserError(f"{archives}: holds {len(images)} images of {name} but no labels in YOLO format")
    found = "ASS1" if len(_count_objects(samples)) > 2 else "ASS2"
    if wanted is None and found != name:
        raise UserError(f"{archives}: holds {found} by its classes, not {name}; is it the right archive?")
    if bare := len(images) - len(pairs):
        LOGGER.warning(f"{name}: {bare} images without a label file, taken as images without objects")
    if left := len(texts) - len(pairs):
        LOGGER.warning(f"{name}: {left} label files without an image, left out")
    return _order_classes(name, samples, _class_names(paths))


def _pair_labels(images: Sequence[Path], texts: Sequence[Path], base: Path) -> dict[Path, Path]:
    """Return the label file of each image: among those with its stem, the one with the most similar folders."""

    def folders(path: Path) -> set[str]:
        return {part.casefold() for part in path.relative_to(base).parent.parts} - KIND_FOLDERS

    by_stem: dict[str, list[Path]] = defaultdict(list)
    for text in texts:
        by_stem[text.stem.casefold()].append(text)
    candidates = [
        (len(folders(image) ^ folders(text)), image, text)
        for image in images
        for text in by_stem[image.stem.casefold()]
    ]
    pairs: dict[Path, Path] = {}
    used: set[Path] = set()
    for _, image, text in sorted(candidates):
        if image not in pairs and text not in used:
            pairs[image] = text
            used.add(text)
    return pairs


def _count_objects(samples: Sequence[Sample]) -> Counter[int]:
    """Count objects by class index; the check of the set reports label lines that can't be read."""
    return Counter(int(cls) for sample in samples for cls in CLASS_INDEX.findall(sample.text))


def _class_names(paths: Sequence[Path]) -> list[str] | None:
    """Return the class names that the archive states, in the order of their indices."""
    for path in paths:
        try:
            if path.name.casefold() in {"classes.txt", "predefined_classes.txt", "obj.names"}:
                return read_names(path)
            if path.suffix.lower() in {".yaml", ".yml"} and (names := YAML.load(path).get("names")):
                return [str(names[i]) for i in range(len(names))]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            LOGGER.warning(f"{path.name} in the archive can't be read ({error}); its class names are not used")
    return None


def _order_classes(name: str, samples: Sequence[Sample], stated: list[str] | None) -> list[Sample]:
    """Put labels into this project's class order, and log how the counts differ from the published ones.

    The order follows the names in the archive. Without names, it follows the counts if they are the published ones in
    another order.
    """
    names, counts = list(SETS[name]), list(SETS[name].values())
    found = _count_objects(samples)
    order: dict[int, int] = {}
    if stated is not None:
        singular = [text.casefold().strip().removesuffix("s") for text in stated]
        plain = [CLASS_ALIASES.get(text, text) for text in singular]
        order = {i: names.index(text) for i, text in enumerate(plain) if text in names}
    elif sorted(found.values()) == sorted(counts):
        order = {i: counts.index(count) for i, count in found.items()}
    if all(i in order for i in found) and any(order[i] != i for i in found):
        reason = f"the archive states {', '.join(stated)}" if stated else "the published counts are in another order"
        LOGGER.info(f"{name}: classes reordered, since {reason}")
        texts = (CLASS_INDEX.sub(lambda match: str(order[int(match[1])]), sample.text) for sample in samples)
        samples = [replace(sample, text=text) for sample, text in zip(samples, texts, strict=True)]
        found = _count_objects(samples)
    rows = [("images", len(samples), NUM_IMAGES[name])]
    for i in sorted({*range(len(names)), *found}):
        label, published = (names[i], counts[i]) if i < len(names) else (f"class {i} without a name", 0)
        rows.append((label, found[i], published))
    if all(count == published for _, count, published in rows):
        LOGGER.info(f"{name}: {len(samples)} images, their objects by class as published")
    else:
        lines = [f"  {label:9} {count:6} found, {published:6} published" for label, count, published in rows]
        LOGGER.warning("\n".join([f"{name}: differs from its publication", *lines]))
    return list(samples)


def _published_split(images: Sequence[Path], paths: Sequence[Path], base: Path) -> list[str]:
    """Return the split of each image if the archive gives it by folders or lists, else ""; `test` counts as `val`."""
    by_folder = []
    for path in images:
        splits = {SPLIT_NAMES.get(part.casefold(), "") for part in path.relative_to(base).parts[:-1]} - {""}
        by_folder.append(splits.pop() if len(splits) == 1 else "")
    if set(by_folder) == set(SPLITS):
        return by_folder
    lists: dict[str, str] = {}
    for path in paths:
        split = SPLIT_NAMES.get(path.stem.casefold()) if path.suffix.lower() == ".txt" else None
        if split:
            for line in read_names(path):
                stem = Path(line.replace("\\", "/")).stem.casefold()
                if lists.setdefault(stem, split) != split:
                    return [""] * len(images)  # one image in both lists: no split
    by_list = [lists.get(path.stem.casefold(), "") for path in images]
    return by_list if set(by_list) == set(SPLITS) else [""] * len(images)
