"""The findings of a data set's check, and its report."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from small_object.images import readable_name

LEVELS = ("error", "warning", "advice")
EXAMPLES = 3

# Each kind of finding with its level and what to do, in the order of the report.
KINDS: dict[str, tuple[str, str]] = {
    "missing-image": ("error", "remove the line, or start its path with ./ if it is relative to the list's folder"),
    "ignored-line": ("error", "write only the path of an image on each line, without blanks, quotes or comments"),
    "no-labels": ("error", "put the labels where training looks: `labels` instead of `images` in the images' path"),
    "bad-regions": ("error", "write one ignore region per line, cx cy w h as fractions of the image, or remove it"),
    "empty-image": ("error", "get the file again, or remove it with its labels"),
    "unreadable-image": ("error", "get the file again, convert it to JPEG or PNG, or remove it with its labels"),
    "dark-16-bit": ("error", "set the camera's number of bits for training and prediction, or let `fix` save 8 bits"),
    "shared-labels": ("error", "give each image its own name and labels, or keep one of them"),
    "unreadable-labels": ("error", "save it as plain UTF-8 text, one line per object: class cx cy w h"),
    "not-numbers": ("error", "write class cx cy w h as finite numbers, or remove the line"),
    "wrong-fields": ("error", "write class cx cy w h (a sixth field may be a confidence), or a polygon's points"),
    "mixed-labels": ("error", "write only boxes, or only polygons, in a file"),
    "broken-class": ("error", "write the class as the index of a name"),
    "unknown-class": ("error", "add the class to `names`, or correct the line"),
    "no-size": ("error", "remove the line, or give the box a width and a height"),
    "outside": ("error", "divide x and w by the image's width, y and h by its height; clip the box to the image"),
    "leak": ("error", "keep the image in one split only"),
    "rewritten-image": ("warning", "remove the bytes after the picture, since training would overwrite the file"),
    "turned-image": ("warning", "check that the boxes fit the rotated image, since training rotates it; or save it so"),
    "16-bit": ("warning", "save it with 8 bits per channel, which training keeps"),
    "transparent": ("warning", "save it without transparency, since training shows hidden pixels"),
    "unreadable-name": ("warning", "rename it, since many programs can't handle such names; `fix` renames it"),
    "same-class-name": ("warning", "give each class its own name, or merge them under one number"),
    "image-without-labels": ("warning", "label it, or give it an empty label file if it shows no object"),
    "labels-without-image": ("warning", "add the image, or remove the label file"),
    "leaves-image": ("warning", "clip the box to the image"),
    "duplicate-box": ("warning", "remove the line"),
    "near-duplicate-box": ("warning", "keep one of the two lines"),
    "duplicate-image": ("warning", "keep one of them"),
    "near-leak": ("warning", "look at the two images; keep images of the same scene in one split"),
    "unused-class": ("warning", "label such objects in the training images, or remove the name"),
    "class-not-in-val": ("advice", "move some images with such objects to val, or the score ignores the class"),
    "tiny-objects": ("advice", "train at a larger imgsz, or cut the images into tiles"),
}
LEFT_OUT = "training leaves the whole image out"


class Fault(NamedTuple):
    """A fault of an image or a label line: a key of `KINDS` and a message."""

    kind: str
    message: str


@dataclass
class Finding:
    """One fault at one place."""

    kind: str  # key of `KINDS`
    file: str  # relative to the data set's folder if it lies there
    message: str  # what is wrong
    line: int | None = None  # in the file, from 1
    image: str | None = None  # path of the image to show
    box: tuple[float, ...] | None = None  # in that image, xyxy in pixels
    hint: str = ""  # what to do
    level: str = field(init=False)  # error, warning or advice

    def __post_init__(self) -> None:
        self.level, hint = KINDS[self.kind]
        self.message = readable_name(self.message)
        self.hint = self.hint or hint

    @property
    def location(self) -> str:
        """File and line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass
class Report:
    """The result of `check`.

    Attributes:
        findings: All findings, errors first.
        counts: By split, the number of `images`, of images that training leaves out (`left_out`) and of usable
            `objects`; also the number of objects of each class (`classes`).
    """

    findings: list[Finding]
    counts: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        kinds = list(KINDS)
        self.findings.sort(key=lambda f: (LEVELS.index(f.level), kinds.index(f.kind), f.file, f.line or 0))

    @property
    def harmful(self) -> bool:
        """Whether something would hurt training."""
        return any(finding.level == "error" for finding in self.findings)

    def table(self) -> str:
        """Return a text: for each kind its level, count, some examples and the hint; then the totals."""
        rows = []
        for kind, count in Counter(finding.kind for finding in self.findings).items():
            examples = [finding for finding in self.findings if finding.kind == kind][:EXAMPLES]
            rows.append(f"{examples[0].level:8}{kind:22}{count:6}")
            rows += [f"    {example.location}: {example.message}" for example in examples]
            if count > EXAMPLES:
                rows.append(f"    ... and {count - EXAMPLES} more")
            rows.append(f"    -> {examples[0].hint}")
        levels = Counter(finding.level for finding in self.findings)
        plurals = {level: "" if level == "advice" or levels[level] == 1 else "s" for level in LEVELS}
        found = ", ".join(f"{levels[level]} {level}{plurals[level]}" for level in LEVELS)
        images = ", ".join(f"{split} {number}" for split, number in self.counts["images"].items())
        if left_out := ", ".join(f"{number} of {split}" for split, number in self.counts["left_out"].items() if number):
            images += f" (training leaves out {left_out})"
        return "\n".join([*rows, f"images: {images}; objects: {sum(self.counts['objects'].values())}; found: {found}"])
