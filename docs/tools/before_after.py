"""Shows what two models find in the validation image with the most objects: python -m docs.tools.before_after --help.

Found objects are green, missed ones yellow, and false alarms red. All objects count as one class, as with `single_cls`.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from ultralytics import YOLO
from ultralytics.utils.plotting import Annotator

from benchmarks.common import ROOT, build_parser, read_labels
from benchmarks.demo import judge
from docs.tools.pictures import write
from small_object.compare.kinds import Kind

PICTURE = ROOT / "docs/before_after.jpg"
FOUND, MISSED, FALSE = (60, 200, 60), (0, 220, 255), (40, 40, 255)  # BGR


def draw(label: dict, title: str, weights: str, options: dict) -> np.ndarray:
    """Return the image with a model's detections and a line of text above it, shape (H, W, 3)."""
    objects, boxes, matches = judge(YOLO(weights), label, **options)
    picture = Annotator(cv2.imread(label["im_file"]), line_width=2)
    for box in objects[matches.found_by < 0]:
        picture.box_label(box, color=MISSED)
    is_found = matches.kinds == Kind.FOUND
    for box, found in zip(boxes, is_found, strict=True):
        picture.box_label(box, color=FOUND if found else FALSE)
    image = picture.result()
    text = f"{title}: {is_found.sum()} of {len(objects)} found, {(~is_found).sum()} false"
    line = np.full((34, image.shape[1], 3), 255, np.uint8)
    cv2.putText(line, text, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (40, 40, 40), 2, cv2.LINE_AA)
    return np.vstack((line, image))


def main() -> int:
    """Draw both models' results, one above the other."""
    parser = build_parser(__doc__)
    parser.add_argument("--data", required=True, metavar="YAML", help="data set")
    parser.add_argument("--before", nargs=2, required=True, metavar=("TITLE", "WEIGHTS"), help="shown above")
    parser.add_argument("--after", nargs=2, required=True, metavar=("TITLE", "WEIGHTS"), help="shown below")
    parser.add_argument("--imgsz", type=int, default=640, metavar="PX", help="input size (640)")
    parser.add_argument("--slice", type=int, required=True, metavar="PX", help="tile of the model below")
    parser.add_argument("--tiles-only", action="store_true", help="run no pass over the whole image below")
    parser.add_argument("--out", type=Path, default=PICTURE, metavar="FILE", help="JPEG file")
    args = parser.parse_args()
    labels, _ = read_labels(args.data)
    for label in labels:
        label["cls"][:] = 0
    busiest = max(labels, key=lambda label: len(label["cls"]))
    options = {"imgsz": args.imgsz, "iou": 0.5}
    sliced = options | {"slice": args.slice, "slice_full": not args.tiles_only}
    parts = [draw(busiest, *args.before, options), draw(busiest, *args.after, sliced)]
    write(np.vstack(parts), args.out)
    print(f"{args.out}: {busiest['im_file']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
