"""Tiny models, data sets and processes that many tests share."""

import csv
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

TINY_MODEL = """
nc: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, DualConv, [16, 2]]
  - [-1, 1, C3k2DWR, [16, False]]
  - [-1, 1, DualConv, [16, 2]]
head:
  - [[2, 3], 1, Detect, [nc]]
"""
"""A model YAML of our blocks that trains in a moment; a data set's number of classes takes the place of `nc`."""

STOCK_MODEL = """
nc: {}
reg_max: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[1, 2], 1, Detect, [nc]]
"""
"""A model YAML of stock blocks, to be formatted with the number of classes."""

HEADS = {"detect": "Detect, [nc]", "obb": "OBB, [nc, 1]"}
HEADS |= {"segment": "Segment, [nc, 8, 16]", "pose": "Pose, [nc, [3, 3]]"}
"""Heads by task, to be put into it."""

QUICK = {"epochs": 1, "imgsz": 64, "batch": 2, "workers": 0, "plots": False, "device": "cpu"}
"""Arguments of a training that takes a moment."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def one_line(program: str, *parts: str) -> Iterator[None]:
    """Expect a program to end with one line of text that starts with its name and has some parts."""
    text = "no end"
    try:
        yield
    except SystemExit as end:
        text = str(end.code)
    assert text.startswith(f"{program}: ") and "\n" not in text and all(part in text for part in parts), text


def read_csv(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names of their columns."""
    with file.open(newline="") as lines:
        return [{name.strip(): cell.strip() for name, cell in row.items()} for row in csv.DictReader(lines)]


def write_tree(folder: Path, files: Mapping[str, str | bytes | np.ndarray]) -> Path:
    """Write files, of text, bytes or the pixels of an image, by their path in a folder; return the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            content = cv2.imencode(path.suffix, content)[1].tobytes()
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder by its path."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def write_set(folder: Path, samples: dict[str, tuple[np.ndarray, str]], names: Iterable[str], more: str = "") -> Path:
    """Write a data set.

    Args:
        folder: Its folder.
        samples: Pixels and the lines of the label file by an image's name, such as `train/0`. Without such a folder in
            its name an image is both trained on and validated.
        names: The classes.
        more: Further lines of its YAML.

    Returns:
        Its YAML.
    """
    for name, (pixels, labels) in samples.items():
        write_tree(folder, {f"images/{name}.png": pixels, f"labels/{name}.txt": labels})
    train, val = ("images" + f"/{split}" * (folder / "images" / split).is_dir() for split in ("train", "val"))
    file = folder / f"{folder.name}.yaml"
    file.write_text(f"train: {train}\nval: {val}\nnames: {list(names)}\n{more}")
    return file


def draw_blocks(width: int, height: int, rows: int, columns: int, seed: int = 1) -> np.ndarray:
    """Return an image (H, W, 3) of blocks of noise, so that what is found differs from place to place."""
    noise = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def write_video(file: Path, frames: Iterable[np.ndarray], codec: str = "MJPG") -> Path:
    """Write frames (H, W, 3) of one size as a video of 5 frames a second; return the file."""
    video = None
    for frame in frames:
        video = video or cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*codec), 5, frame.shape[1::-1])
        video.write(frame)
    video.release()
    return file


def write_data(folder: Path, names: tuple[str, ...], images: dict[str, int]) -> Path:
    """Write a data set of 96x72 px images with one bright rectangle each; return its YAML."""
    rng, samples = np.random.default_rng(len(names)), {}
    for split, count in images.items():
        for i in range(count):
            image = rng.integers(0, 60, (72, 96, 3), dtype=np.uint8)
            x, y = rng.integers(4, 40, 2)
            image[y : y + 20, x : x + 30] = 220
            label = f"{i % len(names)} {(x + 15) / 96:.6f} {(y + 10) / 72:.6f} {30 / 96:.6f} {20 / 72:.6f}\n"
            samples[f"{split}/{i}"] = image, label
    return write_set(folder, samples, names)


def build_detector(folder: Path, classes: int, width: int = 16, task: str = "detect") -> Any:
    """Return a `YOLO` of random weights that finds much in noise."""
    from ultralytics import YOLO  # after `conftest.py` has set what it reads

    text = STOCK_MODEL.format(classes).replace("[16,", f"[{width},").replace(HEADS["detect"], HEADS[task])
    if task == "segment":
        text = text.replace("[8, 3, 2]", "[8, 3, 4]")  # upstream expects the first level at stride 8
    (folder / "tiny.yaml").write_text(text + "kpt_shape: [3, 3]\n" * (task == "pose"))
    torch.manual_seed(3)
    model = YOLO(folder / "tiny.yaml", task=task)
    network = model.model.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # take the statistics of the next images, so that what follows varies
    with torch.no_grad():
        network(torch.rand(4, 3, 64, 64))
        for boxes, scores in zip(network.eval().model[-1].cv2, network.model[-1].cv3, strict=True):
            boxes[-1].bias.fill_(1.5)
            scores[-1].weight.mul_(8.0)
            scores[-1].bias.fill_(-2.0)
    model.model.names = {i: f"class{i}" for i in range(classes)}
    return model


def build_batch(task: str = "detect", objects: int = 4, images: int = 2, imgsz: int = 64) -> dict[str, torch.Tensor]:
    """Return noisy images with objects of three classes and 3 to 16 of 64 px, as a data loader gives them."""
    g = torch.Generator().manual_seed(1)
    pixels = torch.rand(images, 3, imgsz, imgsz, generator=g)
    if task == "classify":
        return {"img": pixels, "cls": torch.arange(images) % 3}
    centre, size = torch.rand(objects, 2, generator=g) * 0.6 + 0.2, torch.rand(objects, 2, generator=g) * 0.2 + 0.05
    boxes = [centre, size, torch.full((objects, 1), 0.3)][: 3 if task == "obb" else 2]
    masks = torch.zeros(images, imgsz // 4, imgsz // 4)
    masks[:, imgsz // 16 : imgsz // 6] = float(objects > 0)
    return {
        "img": pixels,
        "batch_idx": (torch.arange(objects) % images).sort().values.float(),
        "cls": (torch.arange(objects) % 3).float()[:, None],
        "bboxes": torch.cat(boxes, 1),
        "resized_shape": [(imgsz, imgsz)] * images,
        "masks": masks,
        "sem_masks": masks.long(),
        "keypoints": torch.rand(objects, 17, 3, generator=g),
    }


def predict_objects(batch: dict[str, Any], noise: float, wrong: int, dtype: torch.dtype) -> list[dict[str, Any]]:
    """Return a batch's objects as predictions, moved by `noise`, with `wrong` ones; the same in any batch."""
    height, width = batch["img"].shape[2:]
    found = []
    for i, file in enumerate(batch["im_file"]):
        own = batch["batch_idx"] == i
        g = torch.Generator().manual_seed(zlib.crc32(Path(file).name.encode()))
        x, y, w, h = (batch["bboxes"][own] * torch.tensor([width, height] * 2)).T
        boxes = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1)
        stray = torch.rand((wrong, 2), generator=g) * 40
        boxes = torch.cat((boxes + torch.randn(boxes.shape, generator=g) * noise, torch.cat((stray, stray + 9), 1)))
        cls = torch.cat((batch["cls"][own].flatten(), torch.arange(wrong) % 2))
        conf = torch.rand(len(boxes), generator=g)
        extra = torch.zeros(len(boxes), 0)
        found.append({"bboxes": boxes.to(dtype), "conf": conf.to(dtype), "cls": cls, "extra": extra})
    return found
