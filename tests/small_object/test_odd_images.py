"""A comparison of a folder with one file of every odd kind; `test_odd_sets.py` and `test_images.py` try other tools."""

import re
from pathlib import Path

import pytest
from ultralytics import YOLO

from small_object import cli
from small_object.images import utf8_name
from tests.helpers.common import TINY_MODEL, Run, write_tree
from tests.helpers.odd_images import READABLE, UNREADABLE, write_odd_images


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a data set of odd images, hidden ones and a model; return its YAML."""
    folder = tmp_path_factory.mktemp("odd")
    images = write_odd_images(folder / "images/val")
    (images / "._good.png").write_bytes(b"resource fork")
    yaml = "train: images/val\nval: images/val\nnames: [a]\n"
    write_tree(folder, {"tiny.yaml": TINY_MODEL, "odd.yaml": yaml, "labels/val/good.txt": "0 0.5 0.5 0.2 0.2\n"})
    YOLO(folder / "tiny.yaml", task="detect").save(folder / "tiny.pt")
    return folder / "odd.yaml"


def test_a_comparison_uses_or_names_each_file(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = data.parent / "out"
    arguments = ["compare", "--data", data, "--models", data.with_name("tiny.pt"), "--imgsz", 64, "--out", out]
    assert cli.main([*map(str, arguments)]) == 0
    stems = [utf8_name(file.name).partition(".")[0] for file in (out / "tiny").iterdir()]
    assert sorted(stems) == sorted(utf8_name(name).partition(".")[0] for name in READABLE)
    notes = re.findall("<li>(.*?): left out: (.*?)</li>", (out / "index.html").read_text(encoding="utf-8"))
    assert len(notes) == len(UNREADABLE) and all(re.search(UNREADABLE[name], reason) for name, reason in notes)
    assert all(len(re.findall(f"{name}: .*{UNREADABLE[name]}", caplog.text)) == 1 for name in UNREADABLE)


@pytest.mark.slow
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
