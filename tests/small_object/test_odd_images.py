"""Counts add up: every tool uses the same files of a folder with one of every odd kind, and names the others.

`batch/test_job.py` runs a batch job on these files.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from small_object import cli
from small_object.datasets.check import check
from small_object.datasets.stats import stats
from small_object.images import utf8_name
from tests.helpers.common import TINY_MODEL, Run
from tests.helpers.odd_images import READABLE, UNREADABLE, write_odd_images

Counts = tuple[set[str], int]  # names that were used, and the number left out with a reason


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set of odd images, hidden ones and a model; return its YAML."""
    folder = tmp_path_factory.mktemp("odd")
    images = write_odd_images(folder / "images/val")
    (folder / "labels/val").mkdir(parents=True)
    for name in (*READABLE, *UNREADABLE):
        (folder / "labels/val" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (images / "._good.png").write_bytes(b"resource fork")
    (folder / "tiny.yaml").write_text(TINY_MODEL)
    YOLO(folder / "tiny.yaml", task="detect").save(folder / "tiny.pt")
    (folder / "odd.yaml").write_text("train: images/val\nval: images/val\nnames: [a]\n")
    return folder / "odd.yaml"


def run_predict(data: Path, log: pytest.LogCaptureFixture) -> Counts:
    model = YOLO(data.with_name("tiny.pt"))
    results = model.predict(data.parent / "images/val", imgsz=64, stream=True)
    used = {utf8_name(Path(result.path).name) for result in results}
    for name in UNREADABLE:
        assert re.search(f"{name}: .*{UNREADABLE[name]}", log.text)
    return used, len(model.predictor.dataset.unreadable)


def run_train(data: Path, log: pytest.LogCaptureFixture) -> Counts:
    found = check_det_dataset(str(data))
    dataset = YOLODataset(img_path=found["train"], data=found, imgsz=64, augment=False)
    used = {utf8_name(Path(file).name) for file in dataset.im_files}
    return used, sum(f"/{name}: " in log.text for name in UNREADABLE)


def run_compare(data: Path, log: pytest.LogCaptureFixture) -> Counts:
    arguments = ["compare", "--data", data, "--models", data.with_name("tiny.pt"), "--imgsz", 64, "--out"]
    assert cli.main([*map(str, arguments), str(data.parent / "out")]) == 0
    used = {utf8_name(file.name).partition(".")[0] for file in (data.parent / "out/tiny").iterdir()}
    suffixes = {utf8_name(name).partition(".")[0]: utf8_name(name) for name in READABLE}
    notes = re.findall("<li>(.*?): left out: (.*?)</li>", (data.parent / "out/index.html").read_text(encoding="utf-8"))
    for name, reason in notes:
        assert re.search(UNREADABLE[name], reason) and re.search(f"{name}: left out: .*{UNREADABLE[name]}", log.text)
    return {suffixes[name] for name in used}, len(notes)


def run_check(data: Path, log: pytest.LogCaptureFixture) -> Counts:
    report = check(data, out=data.parent / "check")
    kinds = {"unreadable-image", "empty-image", "dark-16-bit"}
    named = {Path(finding.file).name for finding in report.findings if finding.kind in kinds}
    counts = report.counts
    assert named <= UNREADABLE.keys() and counts["images"]["val"] == len(READABLE | UNREADABLE.keys())
    return {utf8_name(name) for name in READABLE | UNREADABLE.keys() - named}, counts["left_out"]["val"]


def run_stats(data: Path, log: pytest.LogCaptureFixture) -> Counts:
    found = stats(data, out=data.parent / "stats")
    left_out = {Path(file).name for file in found.skipped}
    assert f"{len(READABLE)} objects in {len(READABLE)} images" in found.table() and left_out == {*UNREADABLE}
    return {utf8_name(name) for name in READABLE | UNREADABLE.keys() - left_out}, len(found.skipped)


@pytest.mark.parametrize("tool", [run_predict, run_train, run_compare, run_check, run_stats])
def test_counts_add_up(tool: Callable[..., Counts], data: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert tool(data, caplog) == ({utf8_name(name) for name in READABLE}, len(UNREADABLE))


def test_odd_names_in_the_c_locale(data: Path, run: Run) -> None:
    """There Python takes letters beyond ASCII for bytes; what is printed and written does not fail by them."""
    images = data.parent / "letters"
    images.mkdir()
    for name in ("é.png", "caf\udce9.png", "li\nne.png"):
        (images / name).write_bytes((data.parent / "images/val/good.png").read_bytes())
    model, out = data.with_name("tiny.pt"), data.parent / "outé"
    arguments = ["compare", "--source", images, "--models", model, "--imgsz", "64", "--out", out]
    result = run("-m", "small_object.cli", *arguments, cwd=data.parent, LC_ALL="C", PYTHONUTF8="0")
    assert result.returncode == 0 and "Logging error" not in result.stderr, result.stderr
    text = (out / "index.html").read_text(encoding="utf-8")
    names = re.findall(r'"name":"([^"]*)","source":"([^"]*)"', text)
    expected = [("caf%E9.png", "caf%E9.png"), (r"li\nne.png", "li%0Ane.png"), (r"\u00e9.png", "%C3%A9.png")]
    assert sorted(names) == sorted((name, f"../letters/{link}") for name, link in expected)
    assert {file.name for file in (out / "tiny").iterdir()} == {"caf%E9.jpg", "li\nne.jpg", "%C3%A9.jpg"}
