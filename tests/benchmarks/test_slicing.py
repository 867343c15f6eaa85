"""The benchmark of slicing, without SAHI."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from ultralytics import YOLO

from benchmarks import slicing
from tests.helpers.common import build_detector, draw_blocks, one_line, read_csv, write_set


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return a command over two synthetic images and weights that find something in them."""
    folder = tmp_path_factory.mktemp("slicing")
    labels = "0 0.5 0.5 0.25 0.25\n1 0.2 0.3 0.1 0.2\n"
    images = [draw_blocks(width, height, 12, 16, width) for width, height in ((160, 120), (128, 150))]
    data = write_set(folder / "set", {str(i): (image, labels) for i, image in enumerate(images)}, "ab")
    build_detector(folder, 2).save(folder / "tiny.pt")
    values = {"model": folder / "tiny.pt", "data": data, "tile": 64, "imgsz": 64, "device": "cpu"}
    options = [text for key, value in values.items() for text in (f"--{key}", str(value))]
    return [*options, "--no-sahi", "--out", str(folder / "out")]


def test_the_table_holds_each_variant(command: list[str]) -> None:
    assert slicing.main([*command, "--skip", "0.5", "--whole", "96", "--no-peak"]) == 0
    out = Path(command[-1])
    rows = {row["variant"]: row for row in read_csv(out / "slicing.csv")}
    assert list(rows) == ["plain", "this fork", "this fork, skip 0.5", "plain, 96 px"]
    tiles = len(slicing.tile_grid(120, 160, 64, 0.2)) + len(slicing.tile_grid(150, 128, 64, 0.2))
    assert float(rows["this fork"]["tiles"]) == tiles / 2
    assert float(rows["this fork, skip 0.5"]["tiles"]) + float(rows["this fork, skip 0.5"]["skipped"]) == tiles / 2
    text = (out / "slicing.md").read_text()
    assert all(f"| {variant} |" in text for variant in rows)
    assert cv2.imread(str(out / "skip-set.png")) is not None


def test_scores_are_those_of_a_validation(command: list[str]) -> None:
    """With one box per place and class, upstream's AP and COCO's differ only in how they sample precision."""
    args = slicing.parse_arguments([*command, "--conf", "0.3"])
    images, names = slicing.load(args.data[0], args)
    row = next(row for row in slicing.compare(args, "x", images, names) if row["variant"] == "this fork")
    options = {"imgsz": 64, "conf": 0.3, "max_det": slicing.MAX_DET, "slice": 64, "device": "cpu", "plots": False}
    box = YOLO(args.model).val(data=args.data[0], verbose=False, project=str(Path(command[-1]) / "val"), **options).box
    assert (row["AP"], row["AP50"]) == pytest.approx((box.map, box.map50), abs=0.05)


def test_overall_scores_in_a_closed_form() -> None:
    """One of two objects is found exactly: recall 1/2, and a precision of 1 at 51 of COCO's 101 recalls."""
    boxes = np.array([[10.0, 10, 50, 50], [60, 60, 90, 90]])
    records = slicing.SizeRecords()
    records.add((100, 100), boxes, np.zeros(2), boxes[:1], np.array([0.9]), np.zeros(1))
    found = records.evaluate({0: "a"}, slicing.MAX_DET, slicing.ALL_SIZES)
    assert (found.ap["all"], found.ap50["all"], found.ar["all"]) == pytest.approx((51 / 101, 51 / 101, 0.5))


def test_mosaics_are_of_images_of_one_size(tmp_path: Path) -> None:
    rng, sizes = np.random.default_rng(0), [(30, 40)] * 3 + [(50, 40)] + [(30, 40)] * 2
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    labelled = {str(i): (picture, f"{i % 2} 0.5 0.6 0.2 0.4\n") for i, picture in enumerate(pictures)}
    data = write_set(tmp_path, labelled, "ab")
    given = ["--model", str(data), "--data", f"{data}@2", "--no-sahi"]
    (mosaic,), names = slicing.load(given[3], slicing.parse_arguments(given))
    four = [pictures[i] for i in (0, 1, 2, 4)]
    assert np.array_equal(mosaic.image, np.vstack([np.hstack(four[:2]), np.hstack(four[2:])]))
    expected = [[16 + x, 12 + y, 24 + x, 24 + y] for y in (0, 30) for x in (0, 40)]
    assert mosaic.boxes == pytest.approx(np.array(expected), abs=1e-3)
    assert mosaic.classes.tolist() == [0, 1, 0, 0] and names == {0: "a", 1: "b"}
    (single,), names = slicing.load(given[3], slicing.parse_arguments([*given, "--single-cls"]))
    assert single.classes.tolist() == [0] * 4 and len(names) == 1
    with pytest.raises(slicing.UserError, match="too few validation images of one size for mosaics of 3x3"):
        slicing.load(f"{data}@3", slicing.parse_arguments(given))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--tile", "32"], "--tile must be at least 64"),
        (["--model", "missing.pt"], "--model missing.pt: no such file"),
        (["--data", "set.yaml@x"], "@ must be followed by a number from 1 to 8"),
    ],
)
def test_mistakes_give_one_line(command: list[str], more: list[str], said: str) -> None:
    with one_line("slicing", said):
        slicing.main([*command, *more])
