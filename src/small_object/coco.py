"""Detections in COCO's format, which other tools read.

They are rows like those of upstream's `yolo val save_json`: `image_id` is the stem of the file's name, as a number if
it is one, `category_id` is the class index plus 1 and `bbox` is x, y, width and height in pixels. Masks are run-length
encoded in `segmentation`.
"""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Any

from ultralytics.utils import LOGGER

from small_object.arguments import BOX_TASKS
from small_object.files import make_writable, replacing
from small_object.images import readable_name
from small_object.slicing.masks import CropMasks
from small_object.slicing.objects import result_objects

FRAME = re.compile(r"video \d+/\d+ \(frame (\d+)/")  # upstream's description of a video frame
NUM_CLASSES = 2**31  # more than any model has


def image_id(file: str | PurePath, frame: int | None = None) -> int | str:
    """Return the `image_id` of a file or a video frame like upstream's validator: a number if it is one."""
    stem = PurePath(file).stem + ("" if frame is None else f"_{frame}")
    return int(stem) if stem.isdecimal() else stem


def detection_rows(found: dict[str, Any], images: Sequence[tuple[int | str, str]]) -> list[dict[str, Any]]:
    """Return detections as rows of COCO's results, like upstream's validator.

    Args:
        found: `bboxes`, xyxy in pixels of the images, shape (N, 4), or rotated boxes, xywhr, shape (N, 5), which get
            `rbox` and `poly` instead of `bbox`; `conf`, 0..1, and `cls`, shape (N,); where the model finds them,
            `keypoints`, shape (N, K, 2 or 3), or `crops`, the masks as `CropMasks`.
        images: The `image_id` and the `file_name` of each detection's image.
    """
    from ultralytics.models.yolo import detect, obb, pose, segment

    upright = {
        "crops": segment.SegmentationValidator,
        "keypoints": pose.PoseValidator,
        "cls": detect.DetectionValidator,
    }
    is_rotated = found["bboxes"].shape[1] == 5
    cls = obb.OBBValidator if is_rotated else next(kind for key, kind in upright.items() if key in found)
    validator = cls.__new__(cls)  # its constructor is for validations
    validator.jdict, validator.class_map = [], range(1, NUM_CLASSES)
    validator.pred_to_json(found, {"im_file": ""})
    for row, (row_id, file_name) in zip(validator.jdict, images, strict=True):
        row |= {"image_id": row_id, "file_name": file_name}
    return validator.jdict


def encode_rows(rows: Iterable[dict[str, Any]], is_first: bool) -> bytes:
    """Return rows as items of a JSON list, without `[` and `]`; `is_first`: whether they start the list."""
    text = ",\n".join(map(json.dumps, rows))
    return (text if is_first or not text else f",\n{text}").encode()


class PredictionWriter:
    """Writes the detections of a prediction into `predictions.json` of its folder while it runs.

    It holds none of them in memory. `close` puts the file in place, even after an interruption.
    """

    def __init__(self, folder: Path) -> None:
        make_writable(folder)
        self.file = folder / "predictions.json"
        self._stack = ExitStack()
        new = self._stack.enter_context(replacing(self.file))
        self._stream = self._stack.enter_context(new.open("wb"))
        self._end = self._stream.write(b"[")  # end of the last complete image
        self._paths: dict[tuple[int | str, bool], str] = {}  # by `image_id` without the frame; whether it has none
        self._is_ambiguous = False

    def add(self, predictor: Any) -> None:
        """Add the results of a predictor's current batch."""
        (paths, _, texts), source, dataset = predictor.batch, predictor.source_type, predictor.dataset
        for path, text, result in zip(paths, texts, predictor.results, strict=True):
            file, frame = Path(readable_name(str(path))), None
            if match := FRAME.match(text):
                frame = int(match[1])
            elif source.stream or source.screenshot:
                frame = dataset.count if source.stream else dataset.frame
            name = image_id(file, frame)
            first = self._paths.setdefault((image_id(file), frame is None), str(path))
            if first != str(path) and not self._is_ambiguous:
                self._is_ambiguous = True
                LOGGER.warning(f"{self.file}: several files share the image_id {name}; rename them to tell them apart")
            if len(result.boxes or result.obb or ()):  # a model for masks may return None
                objects = result_objects(result).shifted(0, 0).cpu()
                rows, boxes = objects.rows, objects.rows[:, :4] if objects.rotated is None else objects.rotated
                found: dict[str, Any] = {"bboxes": boxes, "conf": rows[:, 4], "cls": rows[:, 5]}
                if objects.keypoints is not None:
                    found["keypoints"] = objects.keypoints
                if objects.masks is not None:
                    found["crops"] = CropMasks(objects.masks, result.orig_shape)
                found_rows = detection_rows(found, [(name, file.name)] * len(objects))
                self._end += self._stream.write(encode_rows(found_rows, self._end == 1))

    def close(self) -> None:
        """Finish the file and put it in place."""
        with self._stack:
            self._stream.seek(self._end)
            self._stream.truncate()  # drops an image that Ctrl-C interrupted
            self._stream.write(b"]\n")


def build_writer(args: Any, folder: Path) -> PredictionWriter | None:
    """Return the writer that the argument `save_json` of a prediction asks for, or None."""
    if args.save_json and (args.task not in BOX_TASKS or args.embed):
        what = "embed" if args.embed else f"the task {args.task}"
        LOGGER.warning(f"'save_json' is ignored with {what}: there are no boxes to write.")
    elif args.save_json:
        return PredictionWriter(folder)
    return None
