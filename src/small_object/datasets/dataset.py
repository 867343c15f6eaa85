"""Reads and writes data sets in YOLO's layout, `images/{train,val}` and `labels/{train,val}`."""

import glob
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultralytics.data.utils import IMG_FORMATS, check_det_dataset, img2label_paths
from ultralytics.utils import YAML

from small_object.datasets.findings import Finding
from small_object.errors import UserError, one_line
from small_object.files import staging_dir
from small_object.images import readable_name

CONTROL = re.compile("[\x00-\x1f\x7f]")
SPLITS = ("train", "val")
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Sample:
    """An image with its labels, to be written to a data set."""

    image: Path
    name: str  # new file name, unique in the set when case is ignored
    text: str  # its label lines in YOLO's format, empty for an image without objects
    regions: str = ""  # its ignore regions, one per line, see `small_object.ignore`
    side: str = ""  # of a published split: train, val or test


@dataclass(frozen=True)
class Entry:
    """An image of a data set."""

    file: Path
    label: Path  # its label file, which need not exist
    name: str  # its path relative to its split's folder
    splits: list[str]


@dataclass
class DataSet:
    """A data set as described by its YAML file."""

    yaml: Path
    root: Path  # folder that its paths are relative to
    names: list[str]  # class names by class index
    channels: int  # of an image, as training reads it
    splits: list[str]  # train, val and, where given, test
    num_fields: int = 5  # of a label line with a box; more if the YAML declares keypoints
    entries: list[Entry] = field(default_factory=list)  # each image once
    sources: list[Path] = field(default_factory=list)  # folders and lists of images
    findings: list[Finding] = field(default_factory=list)  # in the YAML, and in lines of the lists

    def relative_path(self, file: Path) -> str:
        """Return a path, relative to the data set's folder if it lies there, in the form of `readable_path`."""
        return readable_path(file.relative_to(self.root) if file.is_relative_to(self.root) else file)

    def finding(self, kind: str, message: str, file: Path | None = None, **place: Any) -> Finding:
        """Return a finding in a file, by default the YAML; `place` are fields of `Finding`."""
        return Finding(kind, self.relative_path(file or self.yaml), message, **place)

    def image_finding(self, kind: str, message: str, entry: Entry) -> Finding:
        """Return a finding in an image."""
        return self.finding(kind, message, entry.file, image=str(entry.file))

    @property
    def class_titles(self) -> list[str]:
        """Class names by class index, with the index added if several classes have the same name."""
        count = Counter(self.names)
        return [name if count[name] == 1 else f"{name} ({index})" for index, name in enumerate(self.names)]


def readable_path(path: str | Path) -> str:
    r"""Return a path as text for any file and terminal: bytes that are not UTF-8 and line breaks become `%XX`.

    Example:
        >>> readable_path("images/a\nb.png")
        'images/a%0Ab.png'
    """
    return CONTROL.sub(lambda match: f"%{ord(match[0]):02X}", readable_name(Path(path).as_posix()))


def read_data_yaml(data: str | Path) -> dict[str, Any]:
    """Read the YAML file of a data set as training does, which creates a missing set that has a `download:`.

    Returns:
        Upstream's dictionary: `train`, `val` and `test` with full paths, `names`, `nc`, `path`, `yaml_file` and more.

    Raises:
        UserError: If the file can't be used, or the images are missing and can't be created.
    """
    try:
        if Path(data).suffix in {".yaml", ".yml"} and Path(data).is_file():
            nc = YAML.load(data).get("nc")
            if isinstance(nc, (int, float)) and nc > MAX_CLASSES:  # upstream would fill the memory with names
                raise UserError(f"{data}: `nc` must be the number of classes, at most {MAX_CLASSES}")
        info: dict[str, Any] = check_det_dataset(data)
    except UserError:
        raise
    except Exception as error:  # upstream raises many types, and a `download:` script any
        why = str(error.args[0]) if error.args else type(error).__name__
        why = one_line(why.partition("\nNote dataset")[0].replace("❌", ""))
        raise UserError(why if str(data) in why else f"{data}: {why}") from error
    if type(channels := info["channels"]) is not int or channels < 1:
        raise UserError(f"{data}: `channels` must be the number of channels, at least 1, not {channels!r}")
    shape = info.get("kpt_shape", [0, 0])
    if not isinstance(shape, list) or len(shape) != 2 or any(type(n) is not int or n < 0 for n in shape):
        raise UserError(f"{data}: `kpt_shape` must be the number of keypoints and of values for each, not {shape!r}")
    return info


def count_fields(info: dict[str, Any]) -> int:
    """Return the number of fields of a label line with a box and its keypoints, by a data set's YAML."""
    num_keypoints, num_values = info.get("kpt_shape", (0, 0))
    return int(5 + num_keypoints * num_values)


def load_dataset(data: str | Path, allow_empty: bool = False) -> DataSet:
    """Read a YAML file as training does (which may create a demo set), and list the images without opening them.

    Raises:
        UserError: If the YAML can't be used, there are no images, or a split has none and `allow_empty` is False.
    """
    info = read_data_yaml(data)
    splits = [split for split in ("train", "val", "test") if info.get(split)]
    if not splits:
        raise UserError(f"{data}: gives no images; `train` and `val` must each be a folder or a list of images")
    names = [info["names"][index] for index in range(len(info["names"]))]
    yaml, root = Path(info["yaml_file"]).resolve(), Path(info["path"]).resolve()
    dataset = DataSet(yaml, root, names, info["channels"], splits, count_fields(info))

    def add(kind: str, message: str, file: Path = yaml, **place: Any) -> None:
        dataset.findings.append(dataset.finding(kind, message, file, **place))

    for name, count in Counter(names).items():
        if count > 1:
            numbers = ", ".join(str(index) for index, other in enumerate(names) if other == name)
            add("same-class-name", f"{count} classes have the name {name}: {numbers}")
    entries: dict[str, Entry] = {}
    for split in splits:
        sources = [Path(path) for path in (info[split] if isinstance(info[split], list) else [info[split]])]
        images = [image for source in sources for image in list_images(source, f"{data}: `{split}`")]
        if not allow_empty and all(why for *_, why in images):
            raise UserError(f"{data}: `{split}` has no images: {', '.join(map(str, sources))}")
        for file, name, place, line, why in sorted(images, key=lambda image: image[0]):
            entry = entries.get(file)
            if why:
                add("ignored-line", f"`{one_line(file)[:80]}` {why}", place, line=line)
            elif entry and split in entry.splits:
                add("duplicate-image", f"{readable_path(file)} is already in {split}", place, line=line, image=file)
            elif entry:
                entry.splits.append(split)
            elif line and not Path(file).is_file():
                add("missing-image", f"no file {readable_path(file)}", place, line=line)
            else:
                entries[file] = entry = Entry(Path(file), Path(img2label_paths([file])[0]), name, [split])
                if (readable := readable_path(name)) != name:
                    message = f"has a name that is not valid text, shown as {readable}"
                    dataset.findings.append(dataset.image_finding("unreadable-name", message, entry))
        dataset.sources += sources
    if not entries and allow_empty:
        raise UserError(f"{data}: no images in {', '.join(map(str, dataset.sources))}")
    dataset.entries = list(entries.values())
    return dataset


def list_images(source: Path, what: str) -> Iterator[tuple[str, str, Path, int | None, str]]:
    """List the images of a folder, or of a text file with a path on each line, as training does.

    Yields:
        The path of an image, its name in the source, the file to report (the image, or a list) with the line number in
        a list, and why training ignores this line, if it does.

    Raises:
        UserError: If the source is neither; the message calls it `what`.
    """
    if source.is_dir():
        for path in glob.glob(f"{glob.escape(str(source))}/**/*.*", recursive=True):  # noqa: PTH207 - it skips hidden files
            if _has_image_suffix(path):
                yield path.replace("/", os.sep), Path(path).relative_to(source).as_posix(), Path(path), None, ""
        return
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else "is not a folder or text file"
        raise UserError(f"{what}: {source} {why}") from None
    listed = text.strip()  # upstream strips the whole text, not its lines
    for number, row in enumerate(listed.splitlines(), 1 + text[: text.index(listed)].count("\n")):
        path = f"{source.parent}{os.sep}{row[2:]}" if row.startswith("./") else row
        if _has_image_suffix(path):
            yield path.replace("/", os.sep), Path(path).name, source, number, ""
        elif row.strip():
            why = "does not end in an image suffix such as .jpg: training ignores this line"
            yield row, row, source, number, why


def _has_image_suffix(path: str) -> bool:
    return path.rpartition(".")[-1].lower() in IMG_FORMATS


def unique_names(images: Sequence[Path], base: Path) -> list[str]:
    """Name images after their files, with folders in front if the stem is not unique when case is ignored."""
    names = [readable_path(path.name) for path in images]
    for depth in range(1, 64):
        count = Counter(Path(name).stem.casefold() for name in names)
        clash = [i for i, name in enumerate(names) if count[Path(name).stem.casefold()] > 1]
        if not clash:
            break
        for i in clash:
            folders = images[i].relative_to(base).parts[:-1]
            own = images[i].name if depth <= len(folders) else f"{images[i].stem}_{i}{images[i].suffix}"
            names[i] = readable_path("_".join((*folders[-depth:], own)))
    return names


def write_labels(root: Path, split: str, name: str, text: str, regions: str = "") -> None:
    """Write the label lines and, if any, the ignore regions of an image, given by its file name."""
    (root / "labels" / split / name).with_suffix(".txt").write_text(text, encoding="utf-8")
    if regions:
        (root / "ignore" / split).mkdir(parents=True, exist_ok=True)
        (root / "ignore" / split / name).with_suffix(".txt").write_text(regions, encoding="utf-8")


@contextmanager
def new_dataset(root: Path, splits: Iterable[str] = ()) -> Iterator[Path]:
    """Yield a folder to build a data set in, with folders for the images and labels of splits.

    At the end its content is moved to `root`, `images` last; if that fails, the old files are restored. Without
    `images/` a set counts as missing, so a set left by a process killed in between is created again.
    """
    with staging_dir(root) as staging:
        made = staging / "set"
        for folder in (made, *(made / kind / split for kind in ("images", "labels") for split in splits)):
            folder.mkdir(parents=True)
        yield made
        names = sorted((path.name for path in made.iterdir()), key=lambda name: (name == "images", name))
        (old := staging / "old").mkdir()
        try:
            for name in reversed(names):
                if (root / name).exists():
                    (root / name).rename(old / name)
            for name in names:
                (made / name).rename(root / name)
        except BaseException:
            for name in names:
                if (old / name).exists():
                    if (root / name).is_dir():
                        shutil.rmtree(root / name)
                    (old / name).replace(root / name)
            raise
