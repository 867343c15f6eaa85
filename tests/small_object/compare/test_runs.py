"""What `predict1.py` and `predict2.py` do, run in this process on tiny images."""

import json
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import ops

from small_object.compare import runs as predict_runs

ROOT = Path(__file__).resolve().parents[3]


def write_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an untrained model with two classes."""
    folder = tmp_path_factory.mktemp("weights")
    path = ROOT / "ultralytics/cfg/models/11/yolo11n.yaml"
    model = YOLO(path)
    model.model = DetectionModel(str(path), nc=2, verbose=False)
    model.model.args, model.model.names = {"task": "detect"}, {0: "airplane", 1: "truck"}
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
    return tmp_path


def run(root: Path, *argv: str) -> int:
    return predict_runs.main("ASS2", root, [*argv, "--imgsz", "64", "--device", "cpu"])


def test_every_model_gets_a_folder_and_a_row(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(root) == 0
    for name in ("big", "small"):
        saved = sorted((root / "runs/predict/ASS2" / name).iterdir())
        assert [path.stem for path in saved] == ["0", "1", "2"]
        assert cv2.imread(str(saved[0])).shape == (48, 64, 3)
    lines = caplog.text.splitlines()
    assert sum(line.split()[:2] == [name, "3"] for line in lines for name in ("big", "small")) == 2


def test_a_table_of_many_classes_shows_those_that_were_found() -> None:
    names = {f"class {i}": 0 for i in range(80)}
    rows = [predict_runs.Row("m", 1, Counter(names | {"class 7": 3}), 1.0, Path("out"))]
    header, row = predict_runs.table(rows).strip().splitlines()
    assert re.split(r"  +", header) == ["model", "images", "class 7", "ms/image", "folder"]
    assert row.split() == ["m", "1", "3", "1.0", "out"]


def test_counts_of_the_table_are_those_of_the_saved_labels(root: Path, weights: Path) -> None:
    files = predict_runs.find_images(root / "datasets/ASS2/images/val")
    row = predict_runs.predict(
        "m", weights, files, root / "out/m", save_txt=True, imgsz=64, conf=0.0, device="cpu", max_det=7
    )
    labels = [line.split() for path in (root / "out/m/labels").iterdir() for line in path.read_text().splitlines()]
    assert row.images == 3
    assert sum(row.objects.values()) == len(labels) == 21
    for index, name in ((0, "airplane"), (1, "truck")):
        assert row.objects[name] == sum(int(label[0]) == index for label in labels)
    assert row.milliseconds > 0


def test_the_table_shows_what_slicing_found_beyond_whole_images(root: Path, weights: Path) -> None:
    write_images(root / "large", 2)
    for file in (root / "large").iterdir():
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (200, 150)))
    files = predict_runs.find_images(root / "large")
    options = {"imgsz": 64, "conf": 0.0, "device": "cpu", "max_det": 40}
    plain, sliced = (predict_runs.predict("m", weights, files, root / "out/m", slice=s, **options) for s in (0, 64))
    assert plain.plain is None and sliced.plain == plain.objects.total()
    header, row = predict_runs.table([sliced]).strip().splitlines()
    assert re.split(r"  +", header)[2:6] == ["airplane", "truck", "plain", "gained"]
    assert row.split()[4:6] == [str(sliced.plain), f"{sliced.objects.total() - sliced.plain:+d}"]


def test_only_panoramas_are_sliced_by_default() -> None:
    assert predict_runs._parser("ASS2").parse_args([]).slice == "auto"
    assert predict_runs._parser("ASS1").parse_args([]).slice == 0
    assert predict_runs._parser("ASS2").parse_args(["--slice", "0"]).slice == 0


def test_models_are_chosen_by_name(root: Path) -> None:
    assert run(root, "--models", "small", "--out", str(root / "out")) == 0
    assert sorted(path.name for path in (root / "out").iterdir()) == ["index.html", "index_files", "small"]


def test_the_page_shows_what_the_saved_labels_say(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "datasets/ASS2/labels/val").mkdir(parents=True)
    (root / "datasets/ASS2/labels/val/1.txt").write_text("1 0.5 0.5 0.25 0.5")
    assert run(root, "--conf", "0.001", "--save-txt") == 0
    page = root / "runs/predict/ASS2/index.html"
    assert str(page) in caplog.text
    text = re.search(r'type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)[1]
    data = json.loads(text)
    assert [model["name"] for model in data["models"]] == ["big", "small"]
    assert [image["truth"] for image in data["images"]] == [[], [[data["classes"].index("truck"), 24, 12, 40, 36]], []]
    for image in data["images"]:
        assert (page.parent / image["source"]).resolve() == root / "datasets/ASS2/images/val" / image["name"]
        for model, rows, picture in zip(("big", "small"), image["found"], image["pictures"], strict=True):
            assert (page.parent / picture).samefile(page.parent / model / f"{Path(image['name']).stem}.jpg")
            saved = np.loadtxt(page.parent / model / "labels" / f"{Path(image['name']).stem}.txt", ndmin=2)
            boxes = ops.xywh2xyxy(saved[:, 1:5]) * (64, 48, 64, 48)
            assert len(rows) == len(saved) > 0
            key = np.lexsort(boxes.T.round(1))
            shown = np.array([row[2:] for row in rows])
            np.testing.assert_allclose(shown[np.lexsort(shown.T)], boxes[key], atol=0.11)


def test_a_missing_model_is_named_with_those_there_are(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(root, "--models", "smal") == 1
    assert "no smal under" in caplog.text
    assert "big, small" in caplog.text


def test_weights_of_the_same_name_get_folders_of_their_own(tmp_path: Path) -> None:
    paths = [tmp_path / "a/best.pt", tmp_path / "b/best.pt", tmp_path / "c/weights/best.pt"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.touch()
    assert predict_runs.find_weights(tmp_path, weights=paths) == dict(zip(["best", "best-2", "c"], paths, strict=True))


def test_no_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "datasets/ASS2/images/val", 1)
    assert run(tmp_path) == 1
    assert "no trained model under" in caplog.text
    assert "yolo detect train" in caplog.text
    assert run(tmp_path, "--weights", "nowhere.pt") == 1
    assert "--weights: no file nowhere.pt" in caplog.text


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
    named = [r.getMessage() for r in caplog.records if str(bad) in r.getMessage()]
    assert len(named) == 1
    assert named[0].endswith(f"{bad}: skipped: not a readable image or video")
    assert sorted(path.stem for path in (root / "runs/predict/ASS2/big").iterdir()) == ["0", "2"]


@pytest.mark.parametrize("source", ["missing.jpg", "missing/*.jpg", "empty"])
def test_a_source_without_images_is_an_error(root: Path, source: str, caplog: pytest.LogCaptureFixture) -> None:
    (root / "empty").mkdir()
    assert run(root, "--source", str(root / source)) == 1
    assert re.search(rf"source {re.escape(str(root / source))}: (no such|holds no)", caplog.text)


def test_sources_image_glob_and_video(root: Path) -> None:
    folder = root / "datasets/ASS2/images/val"
    assert predict_runs.find_images(folder / "2.png") == [folder / "2.png"]
    assert predict_runs.find_images(str(folder / "[01].png")) == [folder / "0.png", folder / "1.png"]
    video = cv2.VideoWriter(str(root / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for value in range(4):
        video.write(np.full((48, 64, 3), value * 20, np.uint8))
    video.release()
    assert run(root, "--models", "big", "--source", str(root / "v.avi"), "--out", str(root / "out")) == 0
    assert not (root / "out/index.html").exists()  # it has no place for videos
    saved = list((root / "out/big").iterdir())
    assert [path.stem for path in saved] == ["v"]
    assert cv2.VideoCapture(str(saved[0])).get(cv2.CAP_PROP_FRAME_COUNT) == 4


@pytest.mark.parametrize(
    "argv", [["--conf", "2"], ["--conf", "x"], ["--imgsz", "0"], ["--imgsz", "a"], ["--slice", "10"]]
)
def test_bad_arguments_end_with_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        predict_runs.main("ASS1", Path(), argv)
    assert end.value.code == 2
    assert argv[0] in capsys.readouterr().err.splitlines()[-1]


def test_help_explains_each_option_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict_runs.main("ASS1", Path(), ["--help"])
    text = capsys.readouterr().out
    for option in ("--models", "--source", "--weights", "--imgsz", "--conf", "--device", "--save-txt", "--out"):
        assert f"example: predict1.py {option}" in text
