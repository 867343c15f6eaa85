"""What the check of a data set can find, and its report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from small_object.images import readable_name

LEVELS = ("error", "warning", "advice")
EXAMPLES = 3

# Each kind of finding with its level and what to do, in the order of the report.
KINDS: dict[str, tuple[str, str]] = {
    "missing-image": ("error", "take the line out, or start its path with ./ if it is relative to the list's folder"),
    "ignored-line": ("error", "write only the path of an image on each line, without blanks, quotes or comments"),
    "no-labels": ("error", "put the labels where training looks: `labels` in place of `images` in the images' path"),
    "bad-regions": ("error", "write one ignore region a line, cx cy w h as shares of the image, or take the file out"),
    "empty-image": ("error", "get the file anew, or take it out together with its labels"),
    "unreadable-image": ("error", "get the file anew, convert it to JPEG or PNG, or take it out with its labels"),
    "dark-16-bit": ("error", "set the bits that the camera uses for training and prediction, or let `fix` save 8 bits"),
    "shared-labels": ("error", "give each image a name and labels of its own, or keep one of them"),
    "unreadable-labels": ("error", "save it as plain text in UTF-8, one line an object: class cx cy w h"),
    "not-numbers": ("error", "write class cx cy w h as finite numbers, or take the line out"),
    "wrong-fields": ("error", "write class cx cy w h (a sixth field may be a confidence), or a polygon's points"),
    "mixed-labels": ("error", "write only boxes, or only polygons, in a file"),
    "broken-class": ("error", "write the class as the index of a name"),
    "unknown-class": ("error", "add the class to `names`, or correct the line"),
    "no-size": ("error", "take the line out, or give the box a width and a height"),
    "outside": ("error", "divide x and w by the image's width, y and h by its height; clip the box to the image"),
    "leak": ("error", "keep the image in one split only"),
    "rewritten-image": ("warning", "cut off what follows the picture, since training would write over the file"),
    "turned-image": ("warning", "see that the boxes fit the turned image, since training turns it; or save it turned"),
    "16-bit": ("warning", "save it as 8 bits a channel, which is what training keeps"),
    "transparent": ("warning", "save it without transparency, since training shows what lies beneath"),
    "unreadable-name": ("warning", "rename it, since many programs can't open or write such a name; `fix` does so"),
    "same-class-name": ("warning", "give each class a name of its own, or merge them under one number"),
    "image-without-labels": ("warning", "label it, or give it an empty label file if it shows no object"),
    "labels-without-image": ("warning", "add the image, or take the label file out"),
    "leaves-image": ("warning", "clip the box to the image"),
    "duplicate-box": ("warning", "take the line out"),
    "near-duplicate-box": ("warning", "keep one of the two lines"),
    "duplicate-image": ("warning", "keep one of them"),
    "near-leak": ("warning", "keep what shows the same scene in one split; look at the two images"),
    "unused-class": ("warning", "label such objects in the training images, or take the name out"),
    "class-not-in-val": ("advice", "move some images with such objects to val, or its score says nothing of the class"),
    "tiny-objects": ("advice", "train at a larger imgsz, or cut the images into tiles"),
}
LEFT_OUT = "training leaves the whole image out"


class Fault(NamedTuple):
    """What is wrong with an image or a line of labels: a key of `KINDS` and a message."""

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
    """What `check` found.

    Attributes:
        findings: All findings, errors first.
        counts: Number of `images`, of those that training leaves out (`left_out`) and of usable `objects` by split, and
            of the objects of each class (`classes`).
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
        """Return a text: for each kind its level, its count, some examples and the hint; the totals last."""
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
