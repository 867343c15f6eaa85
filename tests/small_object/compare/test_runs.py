"""`small-object compare`, `predict1.py` and `predict2.py`, run in this process on tiny images."""

import html
import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ultralytics import YOLO
from ultralytics.utils import ops

from small_object import cli
from small_object.compare import runs
from small_object.compare.page import ComparisonPage
from small_object.errors import UserError
from tests.helpers.common import TINY_MODEL, write_tree, write_video

Log = pytest.LogCaptureFixture
DATA = "train: images/train\nval: images/val\nnames: [airplane, truck]\n"


def write_images(folder: Path, count: int, size: tuple[int, int] = (64, 48)) -> None:
    rng = np.random.default_rng(0)
    write_tree(folder, {f"{i}.png": rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8) for i in range(count)})


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


def read_page(file: Path) -> dict[str, Any]:
    """Return the data of a page, with its notes."""
    text = file.read_text(encoding="utf-8")
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    for shard in data["shards"]:
        data["boxes"] += json.loads((file.parent / shard).read_text().removeprefix("received(").removesuffix(");\n"))
    data["images"] = [image | boxes for image, boxes in zip(data["images"], data["boxes"], strict=True)]
    return data | {"notes": [html.unescape(note) for note in re.findall("<li>(.*?)</li>", text, re.DOTALL)]}


def run(root: Path, *argv: str | Path) -> int:
    """Run `predict2.py`."""
    return cli.predict("ASS2", root, [*map(str, argv), "--imgsz", "64", "--device", "cpu"])


def predict(root: Path, weights: Path, files: list[Path], **options: Any) -> runs.ModelRun:
    run = runs.ModelRun("m", root / "out/m")
    runs.predict(run, weights, files, ComparisonPage(root / "out", "t"), imgsz=64, conf=0.0, device="cpu", **options)
    return run


def test_any_data_set_and_models_are_compared_in_the_working_folder(
    root: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "elsewhere").mkdir()
    monkeypatch.chdir(root / "elsewhere")
    data = (root / "datasets/ASS2/ASS2.yaml").rename(root / "datasets/ASS2/data.yaml")
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
    table = runs.format_table([runs.ModelRun("m", Path("out"), 1, Counter(names | {"class 7": 3}), 1.0)], {})
    header, row = table.strip().splitlines()
    assert re.split(r"  +", header) == ["model", "images", "class 7", "ms/image", "folder"]
    assert row.split() == ["m", "1", "3", "1.0", "-"]  # nothing was saved


def test_the_table_shows_what_slicing_found_beyond_whole_images(root: Path, weights: Path) -> None:
    write_images(root / "large", 2, (200, 150))
    files = runs.find_images(root / "large")
    whole, sliced = (predict(root, weights, files, slice=tile, max_det=40) for tile in (0, 64))
    assert whole.num_full is None and sliced.num_full == whole.num_objects.total()
    header, row = runs.format_table([sliced], {}).strip().splitlines()
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


def test_the_page_and_the_table_show_what_the_saved_labels_say(root: Path, caplog: Log) -> None:
    write_tree(root / "datasets/ASS2", {"labels/val/1.txt": "1 0.5 0.5 0.25 0.5"})
    assert run(root, "--conf", "0", "--save-txt") == 0
    page = root / "runs/predict/ASS2/index.html"
    assert str(page) in caplog.text
    table = [line.split()[:4] for line in caplog.text.splitlines()]
    for model in ("big", "small"):
        labels = [file.read_text().splitlines() for file in (page.parent / model / "labels").iterdir()]
        counts = Counter(line[0] for lines in labels for line in lines)
        assert [model, "3", str(counts["0"]), str(counts["1"])] in table and counts.keys() == {"0", "1"}
    data = read_page(page)
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


def test_objects_outside_the_region_are_neither_missed_nor_shown(root: Path, caplog: Log) -> None:
    labels = "0 0.25 0.5 0.375 0.5\n1 0.55 0.5 0.4 0.5\n9 0.8 0.2 0.1 0.1\n"  # one centre is in the left half
    write_tree(root / "datasets/ASS2", {"labels/val/0.txt": labels})
    cv2.imwrite(str(root / "left.png"), np.repeat(np.uint8([[255, 0]]), 32, 1).repeat(48, 0))
    assert run(root, "--models", "big", "--conf", "1", "--slice-roi", root / "left.png") == 0
    page = read_page(root / "runs/predict/ASS2/index.html")
    assert [image["truth"] for image in page["images"]] == [[[0, 4, 12, 28, 36]], [], []] and not page["notes"]
    assert re.search(r"found +missed +false .*\nbig +3 +0 +0 +0 +1 +0 ", caplog.text)


def test_models_of_the_same_name_get_folders_of_their_own(tmp_path: Path) -> None:
    names = "a/best.pt", "b/best.pt", "runs/c/weights/best.pt", "runs/d/weights/best.pt"
    paths = [write_tree(tmp_path, {name: ""}) / name for name in names]
    models = [*paths[:2], tmp_path / "runs", tmp_path / "runs/d"]
    expected = dict(zip(["a-best", "b-best", "c", "runs-d", "runs-d-2"], [*paths, paths[-1]], strict=True))
    assert runs.find_weights(models) == expected


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--models smal", "runs/ASS2/smal: neither weights nor a folder of runs .*; available: big, small"),
        ("--weights nowhere.pt", "nowhere.pt: neither weights .*; train one: yolo detect train .* project="),
        ("--out file/out", "file/out: can't be written: Not a directory"),
        ("--out /proc/self", "/proc/self: can't be written: (No such file|Perm)"),  # no file can be made there
    ],
)
def test_a_users_mistake_is_one_line(
    argv: str, said: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "file").touch()
    monkeypatch.chdir(root)
    assert run(root, *argv.split()) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(f"predict2.py: (/.*/)?{said}", line)


def test_models_that_fail_are_named_and_do_not_stop_the_others(root: Path, weights: Path, caplog: Log) -> None:
    broken = root / "runs/ASS2/broken/weights/best.pt"
    write_tree(broken.parent, {broken.name: weights.read_bytes()[:9000]})
    for task in ("cls", "obb"):
        YOLO(f"yolo11n-{task}.yaml").save(root / f"{task}.pt")
    models = broken, root / "cls.pt", root / "obb.pt", weights
    assert run(root, "--weights", *models, "--slice", "64") == 1
    assert f"{broken}: failed: " in caplog.text
    page = read_page(root / "runs/predict/ASS2/index.html")
    assert [model["name"] for model in page["models"]] == ["best"] and len(page["images"]) == 3
    assert [note.partition(":")[0] for note in page["notes"]] == ["broken", "cls", "obb"]
    assert page["notes"][1:] == [
        f"{name}: failed: a model of task {task} finds no upright boxes to compare"
        for name, task in (("cls", "classify"), ("obb", "obb"))
    ]
    assert run(root, "--models", "broken") == 1


@pytest.fixture
def can_be_interrupted() -> Iterator[None]:
    """Take Ctrl-C, which a process started in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("can_be_interrupted")
@pytest.mark.parametrize(("number", "finished"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 0)])
def test_a_stop_leaves_the_page_of_what_is_finished(
    number: int, finished: int, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Path] = []
    add = ComparisonPage.add

    def add_and_stop(page: ComparisonPage, *args: Any) -> None:
        add(page, *args)
        seen.append(args[2])
        if len(seen) == 3 * finished + 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(ComparisonPage, "add", add_and_stop)
    before = signal.getsignal(signal.SIGTERM)
    assert run(root) == 130
    assert signal.getsignal(signal.SIGTERM) == before
    assert capsys.readouterr().err.strip().endswith("predict2.py: interrupted") and all(map(Path.is_file, seen))
    page = read_page(root / "runs/predict/ASS2/index.html")
    assert [model["name"] for model in page["models"]] == ["big", "small"][: finished + 1]
    ran = [[rows is not None for rows in image["detections"]] for image in page["images"]]
    assert ran == [[True, True], [True, True], [True, False]] if finished else [[True], [True]]
    assert page["notes"] == ["small: interrupted, after 2 images"] if finished else page["notes"][1] == "small: not run"


def test_what_the_options_ask_for(root: Path, weights: Path, caplog: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    predict = YOLO.predict
    monkeypatch.setattr(YOLO, "predict", lambda model, **options: given.update(options) or predict(model, **options))
    labels = "1 0.5 0.5 0.5 0.5\n0 0.2 0.2 0.2 0.2\n"  # the second is of a class that `--classes` leaves out
    write_tree(root / "datasets/ASS2", {"labels/val/0.txt": labels})
    options = ["--conf", "0", "--max-det", "4", "--iou", "0.3", "--classes", "1", "--no-pictures", "--save-json"]
    options += ["--slice", "64,96", "--slice-iou", "0.4", "--slice-skip", "0.1", "--slice-overlap", "0.5"]
    assert run(root, "--weights", weights, *options) == 0
    assert [given[name] for name in ("conf", "max_det", "iou", "classes")] == [0, 4, 0.3, [1]]
    assert [given[f"slice{name}"] for name in ("", "_iou", "_skip", "_overlap")] == [[64, 96], 0.4, 0.1, 0.5]
    folder = root / "runs/predict/ASS2/best"
    assert [file.name for file in folder.iterdir()] == ["predictions.json"]
    page, found = read_page(folder.parent / "index.html"), json.loads((folder / "predictions.json").read_text())
    assert {row["category_id"] for row in found} == {2} and len(found) <= 12  # counted from 1
    for image in page["images"]:
        rows = [row for row in found if row["file_name"] == image["name"]]
        assert {row["image_id"] for row in rows} == {int(image["name"][0])} and image["annotated"] == [None]
        corners = [(x, y, x + w, y + h) for x, y, w, h in (row["bbox"] for row in rows)]
        (shown,) = image["detections"]
        np.testing.assert_allclose([row[2:] for row in shown], corners, atol=0.06)
        np.testing.assert_allclose([row[1] for row in shown], [row["score"] for row in rows], atol=0.001)
    header, row = (line.split() for line in re.search("(model .*)\n(best .*)\n", caplog.text).groups())
    assert header[4:7] == ["found", "missed", "false"] and "gained" not in header
    assert int(row[4]) + int(row[5]) == 1 and int(row[4]) + int(row[6]) == int(row[3]) == len(found)
    assert re.search(r"errors +size +found +class +localisation +both +duplicate +background +missed ou", caplog.text)
    assert run(root, "--weights", weights, "--classes", "0", "2") == 1
    assert "best.pt: failed: --classes: the model has no class 2, only 0 to 1" in caplog.text


def test_a_source_of_which_nothing_can_be_read_is_an_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.jpg"):
        (root / name).write_bytes(b"damaged")
    (root / "list.txt").write_text("./a.png\n./b.jpg\n./gone.png\n")
    assert run(root, "--source", root / "list.txt") == 1
    assert capsys.readouterr().err.endswith(f"predict2.py: source {root}/list.txt: none of 3 files can be read\n")


def test_a_source_without_images_is_an_error(root: Path) -> None:
    (root / "empty").mkdir()
    (root / "list.txt").write_bytes(b"\n")
    for source in ("missing.jpg", "missing/*.jpg", "empty", "list.txt"):
        with pytest.raises(UserError, match=rf"source {re.escape(str(root / source))}: (no such|holds no)"):
            runs.find_images(root / source)


def test_images_in_subfolders_are_run_but_not_those_of_earlier_results(root: Path, caplog: Log) -> None:
    frames = root / "frames"
    for name in ("day", "day/deeper", ".hidden"):
        write_images(frames / name, 1)
    (frames / "._a.png").write_bytes(b"resource fork")
    (frames / "day/link").symlink_to(frames)
    write_images(root / "elsewhere", 1)
    (frames / "linked").symlink_to(root / "elsewhere")
    for out in (frames, frames / "out"):
        for _ in range(2):
            assert run(root, "--source", frames, "--out", out) == 0
            assert f"{frames}: 3 of 3 files lie in subfolders" in caplog.text
            caplog.clear()
            page = read_page(out / "index.html")
            assert [image["name"] for image in page["images"]] == ["0.png"] * 3
            assert {path.name for path in (out / "big").iterdir()} == {"0.jpg", "0-2.jpg", "0-3.jpg"}
        for name in ("big", "small", "index_files"):
            shutil.rmtree(out / name)


def test_odd_names_in_lists(root: Path) -> None:
    content = (root / "datasets/ASS2/images/val/0.png").read_bytes()
    (root / "caf\udce9.png").write_bytes(content)
    lines = b"\xef\xbb\xbfcaf\xe9.png\r\n  ./gone.png \nnotes\n" + os.fsencode(root / "datasets/ASS2/images/val/1.png")
    (root / "list.txt").write_bytes(lines)
    files = runs.find_images(root / "list.txt")
    assert [file.name for file in files] == ["caf\udce9.png", "gone.png", "notes", "1.png"]
    assert run(root, "--source", root / "list.txt", "--models", "big", "--out", root / "out") == 0
    page = read_page(root / "out/index.html")
    assert page["notes"] == [
        "gone.png: left out: can't be opened: No such file or directory",
        "notes: left out: has no image or video suffix",
    ]
    assert [image["name"] for image in page["images"]] == ["caf%E9.png", "1.png"]


def test_the_page_links_to_the_png_of_a_picture_too_wide_for_jpeg(root: Path, weights: Path) -> None:
    cv2.imwrite(str(root / "wide.png"), np.zeros((32, 66_000, 3), np.uint8))
    assert run(root, "--weights", weights, "--source", root / "wide.png", "--slice", "0", "--out", root / "out") == 0
    (image,) = read_page(root / "out/index.html")["images"]
    assert image["annotated"] == ["best/wide.png"] and (root / "out/best/wide.png").is_file()
    assert image["size"] == [66_000, 32]


def test_sources_image_glob_several_and_video(root: Path) -> None:
    folder = root / "datasets/ASS2/images/val"
    find = runs.find_images
    assert find(folder / "2.png") == [folder / "2.png"]
    assert find(str(folder / "[01].png")) == [folder / "0.png", folder / "1.png"]
    assert find([str(folder / "2.png"), str(folder)])[1:] == [folder / f"{i}.png" for i in range(3)]
    write_video(root / "v.avi", [np.full((48, 64, 3), value * 20, np.uint8) for value in range(4)])
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
