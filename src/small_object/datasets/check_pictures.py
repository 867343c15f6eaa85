"""Draws the worst findings of a data set's check side by side in one picture."""

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import zip_longest

import cv2
import numpy as np
import torch
from ultralytics.data.augment import LetterBox
from ultralytics.utils.patches import read_image
from ultralytics.utils.plotting import Annotator, save_one_box

from small_object.datasets.findings import Finding
from small_object.images import UnreadableImageError

MAX_CASES, MAX_COLUMNS = 24, 4
WIDTH, HEIGHT, CAPTION = 400, 250, 70  # pixels of a case: its picture and the text below


def draw_sheet(findings: Sequence[Finding]) -> bytes | None:
    """Draw the worst findings side by side: one of each kind in the given order, then a second one of each.

    Returns:
        A JPEG; None if there is nothing to show.
    """
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.image:
            kinds[finding.kind].append(finding)
    chosen = [finding for turn in zip_longest(*kinds.values()) for finding in turn if finding][:MAX_CASES]
    if not chosen:
        return None
    cases = [_draw_case(finding) for finding in chosen]
    columns = min(MAX_COLUMNS, len(cases))
    cases += [np.full_like(cases[0], 255)] * (-len(cases) % columns)
    rows = [np.hstack(cases[start : start + columns]) for start in range(0, len(cases), columns)]
    return cv2.imencode(".jpg", np.vstack(rows))[1].tobytes()


def _draw_case(finding: Finding) -> np.ndarray:
    """Draw an image, or the part of it around the finding's box, with a caption."""
    case = np.full((HEIGHT + CAPTION, WIDTH, 3), 255, np.uint8)
    with suppress(UnreadableImageError):
        image = read_image(str(finding.image))
        image = image if image.shape[2] == 3 else image[..., :1].repeat(3, 2)
        if finding.box and np.abs(finding.box).max() < 2 * max(image.shape):  # a part of it may be seen
            annotator = Annotator(image, line_width=1)
            annotator.box_label(finding.box, color=(0, 0, 255))
            part = save_one_box(torch.tensor(finding.box), annotator.result(), gain=2.5, BGR=True, save=False)
            image = part if part.size else image
        case[:HEIGHT] = LetterBox((HEIGHT, WIDTH))(image=image)
    lines = [f"{finding.level}: {finding.kind}", finding.location[-60:], *textwrap.wrap(finding.message, 60)]
    for number, line in enumerate(lines[:4]):
        text, start = line.encode("ascii", "replace").decode(), (4, HEIGHT + 14 + 16 * number)
        cv2.putText(case, text, start, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return case
