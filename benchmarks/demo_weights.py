"""Trains the weights that the demo starts from, `benchmarks/models/demo.pt`: python -m benchmarks.demo_weights.

The images are synthetic airport scenes like those of both demo sets, but rendered from other random numbers, so the
demo's images stay unseen. The recommended model is trained from scratch on their tiles and on whole images, for up to
an hour on one core.
"""

import os
import shutil
from pathlib import Path

from ultralytics.cfg import entrypoint
from ultralytics.utils import LOGGER, YAML, torch_utils

from benchmarks.common import ROOT, build_parser, cores
from benchmarks.demo import WEIGHTS
from small_object.scenes.generate import DEMO_SETS, make_demo

IMAGES = {"ASS1-demo": 200, "ASS2-demo": 100}  # of each set
SEED = 1  # of the images; the demo's is 0


def render(folder: Path, images: dict[str, int]) -> Path:
    """Render images of both sets, all with the classes of the first, and return their data YAML.

    Args:
        folder: Where the sets are stored; a set that is there stays.
        images: Number of training images of each set.
    """
    names = DEMO_SETS["ASS1-demo"].names
    for name, count in images.items():
        root = folder / name
        if root.exists():
            continue
        make_demo(name, root, count, 1, SEED)
        numbers = [names.index(own) for own in DEMO_SETS[name].names]
        for file in root.glob("labels/*/*.txt"):
            rows = [line.split(" ", 1) for line in file.read_text(encoding="utf-8").splitlines()]
            file.write_text("".join(f"{numbers[int(number)]} {box}\n" for number, box in rows), encoding="utf-8")
    splits = {split: [f"{name}/images/{split}" for name in images] for split in ("train", "val")}
    YAML.save(folder / "demo.yaml", splits | {"names": dict(enumerate(names))})
    return folder / "demo.yaml"


def main() -> None:
    """Render the images, train, and put the weights where the demo finds them."""
    parser = build_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=12, metavar="N", help="epochs of the training (12)")
    epochs = parser.parse_args().epochs
    os.chdir(ROOT)
    torch_utils.NUM_THREADS = cores()
    data = render(ROOT / "runs/demo-weights", IMAGES)
    entrypoint(
        f"yolo detect train model=ultralytics/cfg/models/11/yolo11.yaml data={data} imgsz=384 slice=384 "
        f"slice_samples=2 slice_full_ratio=0.3 batch=8 nbs=8 epochs={epochs} close_mosaic={epochs // 4} "
        "optimizer=AdamW lr0=0.002 warmup_epochs=1 head_init=True val=False cache=ram device=cpu "
        "pretrained=False exist_ok=True project=runs/demo-weights name=train"
    )
    written = shutil.copy("runs/demo-weights/train/weights/best.pt", WEIGHTS)
    LOGGER.info(f"{written}: {Path(written).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
