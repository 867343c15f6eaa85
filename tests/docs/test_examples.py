"""The examples in the docstrings of this fork run, and give what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import logging
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from ultralytics.utils import LOGGER

from benchmarks.common import ROOT
from small_object.scenes.generate import make_demo
from tests.helpers.common import write_data

VOC = """<annotation><filename>{name}</filename><size><width>64</width><height>48</height></size>
<object><name>truck</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>24</xmax><ymax>24</ymax></bndbox></object></annotation>
"""
SKIPPED = {"small_object.sizes.SizeMetrics"}  # asks for trained weights, which would be downloaded


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
    mine = write_data(folder / "mine", ("airplane", "truck"), {"train": 4, "val": 2}).parent
    with zipfile.ZipFile(folder / "ASS2.zip", "w") as archive:
        for file in (f for f in mine.rglob("*") if f.parent.name in {"train", "val"}):
            archive.write(file, Path(file.parts[-3], f"{file.parent.name}-{file.name}"))
    voc = folder / "VOCdevkit/VOC2012"
    for part in ("annotations", "images", "VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/Annotations"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(4):
        pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        for place in (folder / "images", voc / "JPEGImages"):
            cv2.imwrite(str(place / f"{i}.png"), pixels)
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 16, 16]})
        (voc / "Annotations" / f"{i}.xml").write_text(VOC.format(name=f"{i}.png"))
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "truck"}]}
    (folder / "annotations/instances_train2017.json").write_text(json.dumps(coco))
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
    skipped = all(doctest.SKIP in each.options for each in example.examples)
    assert skipped == (example.name in SKIPPED)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not result.failed, "".join(said)
