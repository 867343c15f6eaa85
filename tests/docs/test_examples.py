"""The examples in this fork's docstrings run and give the stated results."""

import ast
import doctest
import importlib
import logging
import shutil
from pathlib import Path

import pytest
from ultralytics.utils import LOGGER

from benchmarks.common import ROOT
from small_object.scenes.generate import make_demo
from tests.helpers.common import write_data
from tests.small_object.datasets.test_airport import make_files, make_zip
from tests.small_object.datasets.test_convert import coco, voc


def examples() -> list[doctest.DocTest]:
    """Return the examples of what this fork's files define, in modules that also hold upstream's."""
    found = []
    files = [(ROOT, file) for file in (ROOT / "ultralytics").rglob("*.py")]
    files += [(ROOT / "src", file) for file in (ROOT / "src/small_object").rglob("*.py")]
    for root, file in sorted(files):
        text = file.read_text(encoding="utf-8")
        if ">>>" not in text:
            continue
        name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        own = {node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        for example in doctest.DocTestFinder().find(importlib.import_module(name)):
            if example.examples and example.name.removeprefix(f"{name}.").split(".")[0] in own:
                found.append(example)
    return found


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the examples read: a demo set, a set of one's own, annotations and an archive."""
    folder = tmp_path_factory.mktemp("examples")
    demo = make_demo("ASS1-demo", folder / "datasets/ASS1-demo", train=3, val=2)
    shutil.copy(ROOT / "datasets/ASS1-demo/ASS1-demo.yaml", demo)
    write_data(folder / "mine", ("airplane", "truck"), {"train": 4, "val": 2})
    (folder / "ASS2.zip").write_bytes(make_zip(make_files("ASS2")))
    for split, image in (("train", "a.png"), ("val", "b.png")):
        annotations = [{"image_id": 1, "category_id": 7, "bbox": [8, 8, 16, 16]}]
        coco(folder, annotations, [image]).rename(folder / f"instances_{split}2017.json")
    voc(folder / "VOCdevkit/VOC2012", dict.fromkeys("abc", "truck 10 10 60 50"))
    return folder


@pytest.mark.parametrize("example", [pytest.param(e, id=e.name) for e in examples()])
def test_an_example_gives_what_it_says(
    example: doctest.DocTest,
    at_hand: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = shutil.copytree(at_hand, tmp_path / "work")
    if example.name.endswith("fix"):
        shutil.move(work / "mine", work / "datasets/mine")
    monkeypatch.chdir(work)
    caplog.set_level(logging.ERROR, LOGGER.name)  # progress bars would mix with what the examples print
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not result.failed, "".join(said)
