"""Makes stand-ins for the files that most of upstream's tests download: python tests/upstream/stand_ins.py FOLDER.

Weights are untrained models of the same architecture that score about 0.5 everywhere, so that they detect something.
Data sets have four noisy images per split, each with one object.
"""

import shutil
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG_DICT, ROOT, SETTINGS, USER_CONFIG_DIR, YAML
from ultralytics.utils.torch_utils import init_seeds

DATA = {"": "coco8", "-seg": "coco8-seg", "-pose": "coco8-pose", "-obb": "dota8", "-cls": ""}  # by task
POLYGON = "0.3 0.3 0.6 0.3 0.6 0.6 0.3 0.6"


def save_weights(file: Path, names: dict[int, str]) -> None:
    """Write untrained weights for a data set's classes; the file's name is that of the model."""
    init_seeds(0)
    model = YOLO(file.with_suffix(".yaml").name)
    if names:
        built = model.model
        model.model = type(built)({**built.yaml, "nc": len(names)}, verbose=False)
        model.model.args, model.model.task, model.model.names = built.args, built.task, names
    head = model.model.model[-1]
    for level in (*(getattr(head, "cv3", None) or ()), *(getattr(head, "one2one_cv3", None) or ())):
        torch.nn.init.zeros_(level[-1].bias)
    model.ckpt = {"train_args": DEFAULT_CFG_DICT | {"task": model.task}}  # as in a trained model
    model.save(file)


def save_data(folder: Path, task: str, keypoints: int) -> None:
    """Write a data set of a task, such as "-pose", into `folder`."""
    label = {"-seg": POLYGON, "-obb": POLYGON}.get(task, "0.45 0.45 0.3 0.3") + " 0.45 0.45 2" * keypoints
    for split in ("train", "val"):
        for index in range(1 if task == "-cls" else 4):
            image = np.random.default_rng(index).integers(0, 256, (96, 128, 3), dtype=np.uint8)
            name = f"{index + 1:012d}"  # a number, as COCO's names are
            kinds = [Path(split, f"{c:02d}") for c in range(10)] if task == "-cls" else [Path("images", split)]
            for kind in kinds:
                (folder / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / kind / f"{name}.jpg"), image)
            if task != "-cls":
                (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
                (folder / "labels" / split / f"{name}.txt").write_text(f"0 {label}\n", encoding="utf-8")


def main(folder: Path) -> None:
    """Make `weights` and `datasets` in a folder and a font, and point upstream's settings at them."""
    (folder / "weights").mkdir()
    shutil.copy(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", USER_CONFIG_DIR / "Arial.ttf")
    SETTINGS.update({f"{name}_dir": str(folder / name) for name in ("weights", "datasets", "runs")})
    for task, name in DATA.items():
        stated = YAML.load(ROOT / f"cfg/datasets/{name}.yaml") if name else {"path": "imagenet10", "names": {}}
        save_data(folder / "datasets" / stated["path"], task, stated.get("kpt_shape", [0])[0])
        for model in ("yolo26n", "yolo11n") if not task else ("yolo26n",):
            save_weights(folder / "weights" / f"{model}{task}.pt", stated["names"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
