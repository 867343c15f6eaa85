"""What `small-object compare`, `predict1.py` and `predict2.py` do, run in this process on tiny images."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ultralytics import YOLO
from ultralytics.utils import ops

from small_object import cli
from small_object.compare import runs
from small_object.errors import UserError
from tests.helpers.common import TINY_MODEL, write_tree

DATA = "train: images/train\nval: images/val\nnames: [airplane, truck]\n"


def write_images(folder: Path, count: int, size: tuple[int, int] = (64, 48)) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an untrained model with two classes."""
    folder = write_tree(tmp_path_factory.mktemp("weights"), {"tiny.yaml": TINY_MODEL.replace("nc: 1", "nc: 2")})
    model = YOLO(folder / "tiny.yaml")
    model.model.names = {0: "airplane", 1: "truck"}
    model.save(folder / "best.pt")
    return folder / "best.pt"


@pytest.fixture
def root(tmp_path: Path, weights: Path) -> Path:
    """Make a root with two trained models and a validation folder of three images."""
    for name in ("big", "small"):
        folder = tmp_path / "runs/ASS2" / name / "weights"
        folder.mkdir(parents=True)
        (folder / "best.pt").symlink_to(weights)
    write_images(tmp_path / "datasets/ASS2/images/val", 3)
    (tmp_path / "datasets/ASS2/ASS2.yaml").write_text(DATA)
    return tmp_path


def run(root: Path, *argv: str | Path) -> int:
    """Run `predict2.py`."""
    return cli.predict("ASS2", root, [*map(str, argv), "--imgsz", "64", "--device", "cpu"])


def predict(root: Path, weights: Path, files: list[Path], **options: Any) -> runs.ModelRun:
    return runs.predict("m", weights, files, root / "out/m", imgsz=64, conf=0.0, device="cpu", **options)


def test_any_data_set_and_models_are_compared_in_the_working_folder(
    root: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "elsewhere").mkdir()
    monkeypatch.chdir(root / "elsewhere")
    data = root / "datasets/ASS2/ASS2.yaml"
    (data.parent / "images/val/deeper").mkdir()
    (data.parent / "images/val/2.png").rename(data.parent / "images/val/deeper/2.png")
    models = [str(weights), str(root / "runs/ASS2")]
    arguments = ["compare", "--data", str(data), "--imgsz", "64", "--device", "cpu", "--models"]
    assert cli.main([*arguments, *models]) == 0
    out = Path("runs/compare/ASS2")
    assert {path.name for path in out.iterdir()} == {"index.html", "index_files", "best", "big", "small"}
    assert len(list((out / "best").iterdir())) == 3
    assert [path.name for path in Path().iterdir()] == ["runs"]


def test_a_table_of_many_classes_shows_those_that_were_found() -> None:
    names = {f"class {i}": 0 for i in range(80)}
    table = runs.format_table([runs.ModelRun("m", 1, Counter(names | {"class 7": 3}), 1.0, Path("out"))])
    header, row = table.strip().splitlines()
    assert re.split(r"  +", header) == ["model", "images", "class 7", "ms/image", "folder"]
    assert row.split() == ["m", "1", "3", "1.0", "out"]


def test_counts_of_the_table_are_those_of_the_saved_labels(root: Path, weights: Path) -> None:
    result = predict(root, weights, runs.find_images(root / "datasets/ASS2/images/val"), save_txt=True, max_det=7)
    labels = [line.split() for path in (root / "out/m/labels").iterdir() for line in path.read_text().splitlines()]
    assert result.num_images == 3
    assert result.num_objects.total() == len(labels) == 21
    for index, name in ((0, "airplane"), (1, "truck")):
        assert result.num_objects[name] == sum(int(label[0]) == index for label in labels)
    assert result.milliseconds > 0


def test_the_table_shows_what_slicing_found_beyond_whole_images(root: Path, weights: Path) -> None:
    write_images(root / "large", 2, (200, 150))
    files = runs.find_images(root / "large")
    whole, sliced = (predict(root, weights, files, slice=tile, max_det=40) for tile in (0, 64))
    assert whole.num_full is None and sliced.num_full == whole.num_objects.total()
    header, row = runs.format_table([sliced]).strip().splitlines()
    assert re.split(r"  +", header)[2:6] == ["airplane", "truck", "full", "gained"]
    assert row.split()[4:6] == [str(sliced.num_full), f"{sliced.num_objects.total() - sliced.num_full:+d}"]


@pytest.mark.parametrize(
    ("name", "argv", "expected"), [("ASS2", [], "auto"), ("ASS1", [], 0), ("ASS2", ["--slice", "0"], 0)]
)
def test_only_panoramas_are_sliced_by_default(
    name: str, argv: list[str], expected: int | str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(runs, "compare", lambda *args, **options: given.update(options) or [])
    assert cli.predict(name, root, argv) == 1
    assert given["slice"] == expected


def test_the_page_shows_what_the_saved_labels_say(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "datasets/ASS2/labels/val").mkdir(parents=True)
    (root / "datasets/ASS2/labels/val/1.txt").write_text("1 0.5 0.5 0.25 0.5")
    assert run(root, "--conf", "0", "--save-txt") == 0
    page = root / "runs/predict/ASS2/index.html"
    assert str(page) in caplog.text
    rows = [line.split()[:2] for line in caplog.text.splitlines()]
    assert ["big", "3"] in rows and ["small", "3"] in rows
    text = re.search(r'type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1]
    data = json.loads(text)
    assert [model["name"] for model in data["models"]] == ["big", "small"]
    assert [image["truth"] for image in data["images"]] == [[], [[data["classes"].index("truck"), 24, 12, 40, 36]], []]
    for image in data["images"]:
        assert (page.parent / image["source"]).resolve() == root / "datasets/ASS2/images/val" / image["name"]
        for model, rows, annotated in zip(("big", "small"), image["detections"], image["annotated"], strict=True):
            assert (page.parent / annotated).samefile(page.parent / model / f"{Path(image['name']).stem}.jpg")
            saved = np.loadtxt(page.parent / model / "labels" / f"{Path(image['name']).stem}.txt", ndmin=2)
            boxes = ops.xywh2xyxy(saved[:, 1:5]) * (64, 48, 64, 48)
            assert len(rows) == len(saved) > 0
            key = np.lexsort(boxes.T.round(1))
            shown = np.array([row[2:] for row in rows])
            np.testing.assert_allclose(shown[np.lexsort(shown.T)], boxes[key], atol=0.11)


def test_models_of_the_same_name_get_folders_of_their_own(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/best.pt", "b/best.pt", "runs/c/weights/best.pt", "runs/d/weights/best.pt")]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.touch()
    models = [*paths[:2], tmp_path / "runs", tmp_path / "runs/d"]
    expected = dict(zip(["best", "best-2", "c", "d", "d-2"], [*paths, paths[-1]], strict=True))
    assert runs.find_weights(models) == expected


def test_missing_models_are_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, said in (
        (["--models", "smal"], "runs/ASS2/smal: no weights, and no folder of runs"),
        (["--models", "smal"], "; there are: big, small"),
        (["--weights", "nowhere.pt"], "nowhere.pt: no weights"),
    ):  # fmt: skip
        assert run(root, *argv) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("predict2.py: ") and said in line
    (root / "runs").rename(root / "gone")
    assert run(root) == 1
    assert "train one: yolo detect train ... project=" in capsys.readouterr().err


def test_broken_weights_do_not_stop_the_others(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = root / "runs/ASS2/broken/weights/best.pt"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a checkpoint")
    assert run(root) == 0
    assert f"{broken}: skipped: " in caplog.text
    assert len(list((root / "runs/predict/ASS2/small").iterdir())) == 3
    assert run(root, "--models", "broken") == 1


def test_an_unreadable_image_is_named_and_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = root / "datasets/ASS2/images/val/1.png"
    bad.write_bytes(bad.read_bytes()[:20])
    assert run(root, "--models", "big") == 0
    (message,) = [r.getMessage() for r in caplog.records if str(bad) in r.getMessage()]
    assert message.endswith(f"{bad}: skipped: not a readable image or video")
    assert sorted(path.stem for path in (root / "runs/predict/ASS2/big").iterdir()) == ["0", "2"]


def test_a_source_without_images_is_an_error(root: Path) -> None:
    (root / "empty").mkdir()
    (root / "list.txt").write_bytes(b"\xff.png")
    for source in ("missing.jpg", "missing/*.jpg", "empty", "list.txt"):
        with pytest.raises(UserError, match=rf"source {re.escape(str(root / source))}: (no such|holds no|not a text)"):
            runs.find_images(root / source)


def test_sources_image_glob_list_and_video(root: Path) -> None:
    folder = root / "datasets/ASS2/images/val"
    find = runs.find_images
    assert find(folder / "2.png") == [folder / "2.png"]
    assert find(str(folder / "[01].png")) == [folder / "0.png", folder / "1.png"]
    (root / "list.txt").write_text(f"./datasets/ASS2/images/val/1.png\n\n{folder / '0.png'}\n")
    assert find(root / "list.txt") == [folder / "1.png", folder / "0.png"]
    assert find([str(root / "list.txt"), str(folder)])[2:] == [folder / f"{i}.png" for i in range(3)]
    video = cv2.VideoWriter(str(root / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for value in range(4):
        video.write(np.full((48, 64, 3), value * 20, np.uint8))
    video.release()
    assert run(root, "--models", "big", "--source", root / "v.avi", "--out", root / "out") == 0
    assert not (root / "out/index.html").exists()  # videos have no place on it
    saved = list((root / "out/big").iterdir())
    assert [path.stem for path in saved] == ["v"]
    assert cv2.VideoCapture(str(saved[0])).get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_a_missing_data_set_is_replaced_by_its_demo_set(root: Path) -> None:
    (root / "datasets/ASS2").rename(root / "datasets/ASS2-demo")
    (root / "datasets/ASS2-demo/ASS2.yaml").rename(root / "datasets/ASS2-demo/ASS2-demo.yaml")
    assert runs.airport_data("ASS2", root) == root / "datasets/ASS2-demo/ASS2-demo.yaml"
    assert run(root, "--models", "big") == 0
    assert len(list((root / "runs/predict/ASS2/big").iterdir())) == 3
