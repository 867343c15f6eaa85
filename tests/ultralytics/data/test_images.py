"""Image files of every kind: how the model sees them, and that none stops prediction or distorts training."""

import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.data.base import BaseDataset
from ultralytics.data.build import load_inference_source
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, check_image
from ultralytics.engine.results import Results
from ultralytics.utils import patches
from ultralytics.utils.patches import imread, read_image

from small_object.errors import UserError
from small_object.images import UnreadableImageError, readable_name, scale_to_8_bit
from tests.helpers.common import TINY_MODEL, write_set, write_tree, write_video
from tests.helpers.odd_images import READABLE, SIZE, UNREADABLE, write_odd_images

Log = pytest.LogCaptureFixture


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_odd_images(tmp_path_factory.mktemp("odd") / "images")


@pytest.fixture
def model(tmp_path: Path) -> YOLO:
    (tmp_path / "tiny.yaml").write_text(TINY_MODEL)
    return YOLO(tmp_path / "tiny.yaml", task="detect")


def predict_as_command(model: YOLO, source: Path, folder: Path) -> None:
    model.predictor = None
    options = {"imgsz": 64, "save": True, "project": str(folder), "name": "run", "exist_ok": True, "mode": "predict"}
    predictor = model._smart_load("predictor")(overrides=model.overrides | options)
    predictor.setup_model(model.model, verbose=False)
    predictor.predict_cli(source)


@pytest.mark.parametrize("name", sorted(READABLE))
def test_readable_images(odd: Path, name: str) -> None:
    pixels = read_image(odd / name)
    assert pixels.shape == (*SIZE, 3) and pixels.dtype == np.uint8 and pixels.max() == 255
    np.testing.assert_array_equal(pixels, patches.stock_imread(odd / name) if "bands" not in name else pixels)
    assert check_image(str(odd / name)) == ("", SIZE)


@pytest.mark.parametrize("name", sorted(UNREADABLE))
def test_unreadable_images_are_named_with_the_reason(odd: Path, name: str, caplog: Log) -> None:
    with pytest.raises(UnreadableImageError, match=UNREADABLE[name]):
        read_image(odd / name)
    assert imread(odd / name) is None
    assert re.search(f"{name}: .*{UNREADABLE[name]}", caplog.text)
    with pytest.raises(UnreadableImageError, match=UNREADABLE[name]):
        check_image(str(odd / name))  # the scan of a training


@pytest.mark.parametrize("name", ["float.tif", "deep12.tif", "deep10.png"])
def test_the_content_counts_and_not_the_suffix(odd: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes((odd / name).read_bytes())
    with pytest.raises(UnreadableImageError, match=UNREADABLE[name]):
        check_image(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize("suffix", ["bmp", "avif"])
def test_what_pil_checks_by_its_header_alone(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{suffix}"
    data = cv2.imencode(file.suffix, np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))[1].tobytes()
    file.write_bytes(data)
    assert check_image(str(file)) == ("", SIZE)
    file.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(UnreadableImageError, match="damaged"):
        check_image(str(file))


@pytest.mark.parametrize("bits", ["7", "17", "12.5", "many"])
def test_a_wrong_number_of_bits_is_refused(bits: str, odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_OBJECT_BITS", bits)
    with pytest.raises(UserError, match=f"SMALL_OBJECT_BITS={bits}: must be a whole number of bits from 8 to 16"):
        read_image(odd / "deep16.png")


def test_dark_frames_pass_where_the_bits_are_stated(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALL_OBJECT_BITS", "16")
    assert read_image(odd / "deep12.tif").max() == 15
    assert scale_to_8_bit(np.uint16([[4000, 4200]]), bits=12).tolist() == [[250, 255]]  # the second is beyond 12 bits
    with pytest.raises(UnreadableImageError, match="holds bool values"):
        scale_to_8_bit(np.zeros((2, 2), bool))


def test_prediction_names_what_it_leaves_out(odd: Path, model: YOLO, tmp_path: Path, caplog: Log) -> None:
    predict_as_command(model, odd, tmp_path)
    for name, reason in UNREADABLE.items():
        assert len(re.findall(f"{re.escape(name)}: .*{reason}", caplog.text)) == 1
    assert f"{len(UNREADABLE)} of {len(READABLE | UNREADABLE.keys())} files could not be read" in caplog.text
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {Path(name).stem for name in written} == {Path(readable_name(name)).stem for name in READABLE}
    bad = write_tree(tmp_path / "bad", {"bomb.png": (odd / "bomb.png").read_bytes()})
    with pytest.raises(UserError, match="1 of 1 files could not be read"):
        predict_as_command(model, bad, tmp_path)


def test_images_in_subfolders_are_mentioned(tmp_path: Path, caplog: Log) -> None:
    black = np.zeros((32, 32), np.uint8)
    write_tree(tmp_path, {"a.png": black, ".hidden/x.png": black})
    assert load_inference_source(tmp_path).nf == 1 and "subfolders" not in caplog.text
    write_tree(tmp_path, {"day/b.png": black})
    assert load_inference_source(tmp_path).nf == 1
    assert f"such as day/b.png, are not read; source='{tmp_path}/**/*.*' reads all" in caplog.text
    assert load_inference_source(f"{tmp_path}/**/*.*").nf == 2


def test_a_list_may_name_missing_files_and_bytes_that_are_not_utf_8(
    odd: Path, model: YOLO, tmp_path: Path, caplog: Log
) -> None:
    lines = b"\xef\xbb\xbf" + b"\r\n".join(
        (b"caf\xe9.png", b"", b" gone.png", os.fsencode(odd / "good.png"), b"ax*.png")
    )
    (odd / "list.txt").write_bytes(lines)
    predict_as_command(model, odd / "list.txt", tmp_path)
    assert "list.txt: gone.png: no such file" in caplog.text and "1 of 4 files could not be read" in caplog.text
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"caf%E9.jpg", "good.jpg", "axb.jpg"}
    (odd / "list.txt").write_text("gone.png\n")
    with pytest.raises(UserError, match=r"list\.txt: none of its files exists"):
        predict_as_command(model, odd / "list.txt", tmp_path)
    (odd / "list.txt").unlink()


def test_a_broken_video_does_not_end_a_prediction(odd: Path, model: YOLO, tmp_path: Path, caplog: Log) -> None:
    for name in ("a.mp4", "caf\udce9.avi"):
        (tmp_path / name).write_bytes(b"no video")
    results = model.predict([odd / "good.png", *sorted(tmp_path.glob("*.??[4i]"))], imgsz=64, stream=True)
    assert [Path(result.path).name for result in results] == ["good.png"]
    assert [Path(path).name for path in model.predictor.dataset.unreadable] == ["a.mp4", "caf\udce9.avi"]
    assert len(re.findall("can't be read as a video; it may be damaged", caplog.text)) == 2


def test_a_list_of_files_is_read_in_batches_and_in_its_order(odd: Path) -> None:
    files = [odd / name for name in ("rgba.png", "good.png", "cut.png", "a*b.png", "grey.png", "good.png")]
    loader = load_inference_source(files, batch=2)
    batches = [paths for paths, *_ in loader]
    assert batches[0] == [*map(str, files[:2])] and len(batches) == 3
    assert [path for batch in batches[1:] for path in batch] == [str(files[i]) for i in (3, 4, 5)]
    assert loader.unreadable == [str(files[2])]


def test_a_picture_too_wide_for_jpeg_is_a_png(model: YOLO, tmp_path: Path, caplog: Log) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((32, 66_000, 3), np.uint8))
    predict_as_command(model, tmp_path / "wide.png", tmp_path)
    assert "JPEG allows at most 65500 pixels" in caplog.text
    assert imread(tmp_path / "run/wide.png").shape == (32, 66_000, 3)


def test_a_video_whose_name_is_not_utf_8(model: YOLO, tmp_path: Path) -> None:
    frames = [np.full((64, 64, 3), level, np.uint8) for level in (0, 100, 200)]
    write_video(tmp_path / "v.avi", frames).rename(tmp_path / "caf\udce9.avi")
    predict_as_command(model, tmp_path / "caf\udce9.avi", tmp_path)
    written = cv2.VideoCapture(str(tmp_path / "run/caf%E9.avi"))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 3


@pytest.mark.parametrize("pil", [False, True])
def test_labels_hide_no_object(pil: bool) -> None:
    """The label of the lower box of two goes elsewhere than over the upper one; in a crowd there is no place."""
    image = np.zeros((100, 300, 3), np.uint8)
    pair = [[100, 40, 112, 50], [100, 54, 112, 64]]
    crowd = [[x, y, x + 9, y + 9] for x in range(200, 300, 10) for y in range(0, 100, 10)]
    rows = torch.tensor([[*box, 0.5, 0] for box in (*pair, *crowd)])
    results = Results(image, path="", names={0: "truck"}, boxes=rows)
    bare, drawn = (np.asarray(results.plot(labels=on, conf=on, pil=pil)) for on in (False, True))
    changed = (bare != drawn).any(2)
    assert max(changed[y1:y2, x1:x2].mean() for x1, y1, x2, y2 in (*pair, *crowd)) < 0.35
    assert changed[:, :190].sum() > 800 and not changed[20:80, 220:280].any()


def test_a_label_hides_no_part_of_another() -> None:
    image, rows = np.zeros((74, 120, 3), np.uint8), torch.tensor([[20.0, 40, 32, 50], [60, 60, 72, 70]])
    rows = torch.cat((rows, torch.tensor([[0.6, 0], [0.5, 1]])), 1)
    bare, alone, both = (
        Results(image, path="", names={0: "truck", 1: "truck"}, boxes=boxes).plot(labels=on, conf=on)
        for boxes, on in ((rows[:1], False), (rows[:1], True), (rows, True))
    )
    label = (bare != alone).any(2)
    assert label.sum() > 500 and (both[label] == alone[label]).all()


def test_lines_leave_a_small_object_visible() -> None:
    image = np.full((1080, 3840, 3), 200, np.uint8)
    box = torch.tensor([[1000.0, 500, 1008, 508, 0.9, 0]])
    drawn = Results(image, path="", names={0: "a"}, boxes=box).plot(labels=False)
    assert (drawn[500:508, 1000:1008] == 200).all(2).sum() >= 9
    thick = Results(image, path="", names={0: "a"}, boxes=box).plot(labels=False, line_width=7)
    assert (thick[500:508, 1000:1008] == 200).all(2).sum() == 0


def test_data_sets_that_add_to_a_label_are_upstreams() -> None:
    """Subclasses add data of the requested index, not of the replacing image."""

    class Masks(BaseDataset):
        im_files, augment, ni, prefix = ("a.png", "b.png"), True, 2, ""

        def __init__(self) -> None:
            self.labels = [{"shape": (1, 1)}] * 2

        def load_image(self, i: int) -> None:
            raise FileNotFoundError("a.png")

        def get_image_and_label(self, index: int) -> dict[str, Any]:
            return super().get_image_and_label(index) | {"mask": index}

    with pytest.raises(FileNotFoundError):
        Masks().get_image_and_label(0)


def test_caches_depend_on_the_bits_of_the_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache written without `SMALL_OBJECT_BITS`, or with another value, is not taken for the images of this one."""
    frame = np.tile(np.arange(0, 4000, 40, np.uint16), (40, 1))
    data = write_set(tmp_path / "set", {"0": (frame, "0 0.5 0.5 0.2 0.2\n"), "1": (frame.astype(np.uint8), "")}, ["a"])
    means = {}
    for bits in ("", "12", "14", "12"):
        monkeypatch.setenv("SMALL_OBJECT_BITS", bits)
        found = check_det_dataset(str(data))
        dataset = YOLODataset(found["train"], imgsz=100, data=found, task="detect", augment=False, cache="disk")
        means[bits] = {Path(file).stem: dataset.load_image(i)[0].mean() for i, file in enumerate(dataset.im_files)}
    grey = np.mean(frame.astype(np.uint8))
    assert means == {
        "": {"1": grey}, "12": {"0": np.mean(frame // 16), "1": grey}, "14": {"0": np.mean(frame // 64), "1": grey},
    }  # fmt: skip
