"""Makes stand-ins for what upstream's tests download: python tests/upstream/stand_ins.py FOLDER.

Weights are untrained models of the same architecture that score about 0.5 everywhere, so that they detect something.
Data
sets have four synthetic images per split, each with one object; a video is a few frames of a moving rectangle. All come
from stock upstream and fixed seeds. `own_tests.py` runs this and points upstream's settings at the result.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.models import get_model, get_model_weights
from ultralytics import RTDETR, YOLO, YOLOE
from ultralytics.data.converter import coco80_to_coco91_class
from ultralytics.models.sam.build import build_mobile_sam
from ultralytics.utils import DEFAULT_CFG_DICT, ROOT, YAML
from ultralytics.utils.torch_utils import init_seeds

# Weights that the tests look for, each with the architecture and the data set that gives its class names.
TASKS = {"": "coco8", "-seg": "coco8-seg", "-pose": "coco8-pose", "-obb": "dota8"}
MORE_TASKS = {"-sem": "cityscapes8", "-depth": "depth8", "-cls": None}
WEIGHTS = {
    **{f"yolo26n{task}": (f"yolo26n{task}", data) for task, data in (TASKS | MORE_TASKS).items()},
    **{f"yolo26s{task}": (f"yolo26s{task}", data) for task, data in TASKS.items()},
    "yolo11n": ("yolo11n", "coco8"),
    "yolo11n-grayscale": ("yolo11n", "coco8-grayscale"),
    "FastSAM-s": ("yolov8s-seg", "any object"),
    "yoloe-26n-seg": ("yoloe-26n-seg", None),
    "rtdetr-l": ("rtdetr-l", "coco8"),
}
SPACED = "path with spaces"  # the tests read the weights of the tasks from here, too
DATA = {
    "detect": ("coco8", "coco128", "coco8-grayscale", "coco8-multispectral"),
    "segment": ("coco8-seg", "coco128-seg"),
    "pose": ("coco8-pose",),
    "obb": ("dota8", "dota128"),
    "semantic": ("cityscapes8",),
    "depth": ("depth8",),
}
VIDEOS = (
    "solutions_ci_demo.mp4", "decelera_landscape_min.mov", "solution_ci_pose_demo.mp4", "solution_ci_parking_demo.mp4",
    "solution_vertical_demo.mp4", "decelera_portrait_min.mov",
)  # fmt: skip
SIZE = (128, 96)  # width and height of the images in pixels
BOX = (24, 16, 80, 64)  # xyxy of the first image's object; the next ones are shifted


def description(name: str) -> dict:
    """Return upstream's YAML of a data set."""
    return YAML.load(ROOT / f"cfg/datasets/{name}.yaml")


def save_weights(folder: Path) -> None:
    """Write the weights into `folder`."""
    for stem, (architecture, data) in WEIGHTS.items():
        init_seeds(0)
        kind = RTDETR if architecture.startswith("rtdetr") else YOLOE if architecture.startswith("yoloe") else YOLO
        model = kind(f"{architecture}.yaml")
        if data:
            stated = {"names": {0: "object"}} if data == "any object" else description(data)
            built = model.model
            changed = {**built.yaml, "channels": stated.get("channels", 3), "nc": len(stated["names"])}
            model.model = type(built)(changed, ch=changed["channels"], verbose=False)
            model.model.args, model.model.task, model.model.names = built.args, built.task, stated["names"]
        head = model.model.model[-1]
        masks = ("cv4", "cv5", "one2one_cv4", "one2one_cv5") if hasattr(head, "proto") else ()
        for name in ("cv3", "one2one_cv3", *masks):
            for level in getattr(head, name, None) or ():
                if isinstance(level, torch.nn.Sequential) and isinstance(level[-1], torch.nn.Conv2d):
                    torch.nn.init.constant_(level[-1].bias, 1.0 if name in masks else 0.0)  # masks are not empty
        model.ckpt = {"train_args": DEFAULT_CFG_DICT | {"task": model.task}}  # as in a trained model
        model.save(folder / f"{stem}.pt")
    init_seeds(0)
    segmenter = build_mobile_sam()
    torch.nn.init.ones_(segmenter.mask_decoder.iou_prediction_head.layers[-1].bias)  # so that masks are kept
    torch.save(segmenter.state_dict(), folder / "mobile_sam.pt")
    hub = folder.parent / "torch/hub/checkpoints"
    hub.mkdir(parents=True)
    backbone = get_model_weights("resnet18").DEFAULT.url.rpartition("/")[2]
    torch.save(get_model("resnet18").state_dict(), hub / backbone)
    (folder / SPACED).mkdir()
    for stem in list(WEIGHTS)[:7]:
        (folder / SPACED / f"{stem}.pt").write_bytes((folder / f"{stem}.pt").read_bytes())


def picture(index: int, channels: int = 3) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Make an image (height, width, channels) with one bright rectangle; return it and the rectangle in xyxy pixels."""
    image = np.random.default_rng(index).integers(0, 90, (SIZE[1], SIZE[0], channels), dtype=np.uint8)
    x1, y1, x2, y2 = BOX[0] + 4 * index, BOX[1] + 3 * index, BOX[2] + 4 * index, BOX[3] + 3 * index
    image[y1:y2, x1:x2] = 230 - 20 * index
    return image, (x1, y1, x2, y2)


def label(task: str, cls: int, xyxy: tuple[int, int, int, int], keypoints: int = 0) -> str:
    """Return the line of a label file: `xyxy` is in pixels, the line relative to the image."""
    x1, y1, x2, y2 = np.array(xyxy) / (SIZE * 2)
    values = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    if task in {"segment", "obb"}:
        values = [x1, y1, x2, y1, x2, y2, x1, y2]
    for point in range(keypoints):
        share = (point + 1) / (keypoints + 1)
        values += [x1 + share * (x2 - x1), y1 + share * (y2 - y1), 2]
    return " ".join([str(cls), *(f"{value:.5f}" for value in values)]) + "\n"


def save_data(folder: Path) -> None:
    """Write the data sets into `folder`, each as upstream's YAML of it describes."""
    for task, name in ((task, name) for task, names in DATA.items() for name in names):
        stated = description(name)
        channels, names = stated.get("channels", 3), list(stated["names"])
        values = [value for value, cls in stated.get("label_mapping", {}).items() if isinstance(cls, int)]  # of masks
        for split in ("train", "val"):
            paths = {kind: folder / stated["path"] / kind / split for kind in ("images", "labels", "masks", "depth")}
            paths["images"].mkdir(parents=True)
            target = {"semantic": "masks", "depth": "depth"}.get(task, "labels")
            paths[target].mkdir(parents=True)
            for index in range(4):
                image, xyxy = picture(index, channels)
                x1, y1, x2, y2 = xyxy
                file = f"{index + 1:012d}"  # a number, as COCO's names are
                if channels > 3:
                    cv2.imwritemulti(str(paths["images"] / f"{file}.tiff"), list(np.moveaxis(image, 2, 0)))
                else:
                    cv2.imwrite(str(paths["images"] / f"{file}.jpg"), image)
                if target == "labels":
                    keypoints = stated["kpt_shape"][0] if task == "pose" else 0
                    text = label(task, names[index % len(names)], xyxy, keypoints)
                    (paths["labels"] / f"{file}.txt").write_text(text, encoding="utf-8")
                else:
                    outside, inside = (values[0], values[1 + index]) if task == "semantic" else (4000, 1500)
                    dense = np.full(SIZE[::-1], outside, np.uint8 if task == "semantic" else np.uint16)
                    dense[y1:y2, x1:x2] = inside
                    cv2.imwrite(str(paths[target] / f"{file}.png"), dense)
    for name, split, index in ((f"{n:02d}", split, n) for split in ("train", "val") for n in range(10)):
        (path := folder / "imagenet10" / split / name).mkdir(parents=True)
        cv2.imwrite(str(path / f"{index}.jpg"), picture(index % 4)[0])


def save_annotations(folder: Path) -> None:
    """Write into `folder` COCO annotations of the validation images of coco8, coco8-seg and coco8-pose."""
    folder.mkdir()
    annotations, classes, keypoints = [], coco80_to_coco91_class(), description("coco8-pose")["kpt_shape"][0]
    for index in range(4):
        x1, y1, x2, y2 = picture(index)[1]
        points = [float(value) for value in label("pose", 0, (x1, y1, x2, y2), keypoints).split()[5:]]
        points = [value * (*SIZE, 1)[i % 3] for i, value in enumerate(points)]
        annotations.append({
            "id": index + 1, "image_id": index + 1, "category_id": classes[index], "iscrowd": 0,
            "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
            "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]], "keypoints": points, "num_keypoints": keypoints,
        })  # fmt: skip
    images = [{"id": index + 1, "width": SIZE[0], "height": SIZE[1]} for index in range(4)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": [{"id": cls} for cls in classes]})
    for name in ("instances_val2017.json", "person_keypoints_val2017.json"):
        (folder / name).write_text(text, encoding="utf-8")


def save_videos(folder: Path) -> None:
    """Write the videos, image, parking areas and weights that the tests of the solutions read."""
    folder.mkdir()
    for name in VIDEOS:
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*"mp4v"), 10, (640, 400))
        for frame in range(6):
            image = np.full((400, 640, 3), 60, np.uint8)
            cv2.rectangle(image, (80 + 40 * frame, 150), (200 + 40 * frame, 260), (40, 200, 240), -1)
            writer.write(image)
        writer.release()
    cv2.imwrite(str(folder / "boats.jpg"), cv2.resize(picture(0)[0], (640, 480)))
    areas = [{"points": [[x, 120], [x + 150, 120], [x + 150, 280], [x, 280]]} for x in (40, 260)]
    (folder / "solution_ci_parking_areas.json").write_text(json.dumps(areas), encoding="utf-8")
    (folder / "solutions_ci_parking_model.pt").write_bytes((folder.parent / "yolo26n.pt").read_bytes())


def main(folder: Path) -> None:
    """Make `weights`, `datasets` and a font for upstream's configuration in an existing folder."""
    for name in ("weights", "datasets", "config/Ultralytics"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    matplotlib = importlib.util.find_spec("matplotlib")
    assert matplotlib is not None and matplotlib.origin is not None  # upstream requires it
    font = Path(matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    (folder / "config/Ultralytics/Arial.ttf").write_bytes(font.read_bytes())
    save_weights(folder / "weights")
    save_data(folder / "datasets")
    save_annotations(folder / "datasets/annotations")
    save_videos(folder / "weights/solution_assets")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
