"""Every command of README.md and docs/ runs, on data of a few tiny images in a folder that is laid out like this one.

A command is a line of a code block, or code in a sentence, that begins with one of `PROGRAMS`. Python in code blocks
runs, too. New ones are found. One that takes long, or names something that is not here, needs a row in `SMALLER`, one
that can't run in a test is added to `NOT_RUN`, and the first line of a block that is no command to `TEXTS`. `PROMISES`
states what a command writes or prints. The commands of a document run one after the other in a folder of their own.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from markdown_it import MarkdownIt
from ultralytics.cfg import DEFAULT_CFG_DICT

from benchmarks.common import ROOT
from docs.tools import browser
from tests.helpers.command_server import Server
from tests.helpers.common import TINY_MODEL, draw_blocks, write_data, write_tree, write_video
from tests.helpers.record_server import RecordServer
from tests.small_object.datasets.test_airport import make_files, make_zip
from tests.small_object.datasets.test_convert import coco, voc

PROGRAMS = "yolo", "python", "python3", "pip", "make", "jupyter", "ray", "small-object", "mkdocs", "ruff", "git", "."

LANGUAGES = "", "bash", "sh", "shell", "console", "python", "py"  # of fenced blocks that are looked at

# Regular expressions of what is made smaller, or given a value that is here, applied one after the other.
SMALLER = {
    r"\bepochs=\d+": "epochs=1",
    r"imgsz=640": "imgsz=64",
    r"slice=640": "slice=64",
    r"batch=16": "batch=4",
    r"model=runs/\.\.\./": "model=runs/interrupted/",
    r"--(imgsz|tile) \d+": r"--\1 64",
    r"--(train|val) \d+": r"--\1 2",
    r"\byolo11n\.pt": "best.pt",
    r"frame\.jpg": "panorama.jpg",
    r"data=thermal\.yaml \.\.\.": "model=tiny.yaml data=my/data.yaml epochs=1 imgsz=64 plots=False",
    r"-m venv": "-m venv --without-pip",
    r'\.predict\("panorama.jpg", slice=64\)': r'.predict("panorama.jpg", slice=64, imgsz=64)',
    # options added at the end
    r"^(yolo detect train (?!.*epochs=).*)$": r"\1 epochs=1",
    r"^(yolo (?!export)(?!.*imgsz=)(?!.*resume).*)$": r"\1 imgsz=64",
    r"^(yolo detect (?:train|val model=best).*)$": r"\1 plots=False",
    r"^(yolo track .*)$": r"\1 save=True",
    r"^(python -m benchmarks.page .*)$": r"\1 --images 2",
    r"^(python -m benchmarks.slicing .*)$": r"\1 --imgsz 64 --no-peak",
    r"^(python -m benchmarks.speed)$": (
        r"\1 --models tiny.yaml yolo11n.yaml --profile tiny.yaml --imgsz 64 --train-imgsz 64 --batch 2 --rounds 2"
    ),
}

# What a command writes (globs) or, after "said:", prints; with groups of the pattern as in `re.sub`.
PROMISES = {
    r"yolo detect train .*ASS1.yaml": [
        "runs/ASS1/yolo11n/weights/best.pt",
        "datasets/ASS1/split.csv",
        "said:share 0.5 of the box loss and share 0.5 of the assignment of small objects, C = ",
    ],
    r"yolo detect train .*ASS2.yaml": ["runs/ASS2/yolo11n/weights/best.pt", "said:items from pretrained weights"],
    r"yolo detect val (?!.*size_metrics=False)": ["said:COCO small"],
    r"yolo detect val .*name=ASS2_val": ["runs/val/ASS2_val/size_metrics.png"],
    r"yolo detect val .*slice=": ["said:Tiles of 64 px: 16 run, 0 skipped"],
    r"yolo (detect )?predict .*slice=64.*": ["runs/detect/predict*/*.jpg", "said:tiles"],
    r"yolo track .*": ["runs/detect/track*/video.*", "said:tiles"],
    r"yolo train resume=True": ["said:from epoch 2 to 2 total epochs", "said:1 epochs completed"],
    r"python predict1.py$": ["runs/predict/ASS1/yolo11n/*.jpg", "said:airplane  person  truck"],
    r"python predict2.py$": ["runs/predict/ASS2/yolo11n/*.jpg", "said:found  missed  false"],
    r"python predict([12]).py": [r"runs/predict/ASS\1/earlier/*.jpg", r"runs/predict/ASS\1/index.html"],
    r"yolo detect train .*pretrained=best.pt": ["said:Weights taken by role: backbone"],
    r"small-object transfer": ["said:backbone"],
    r"small-object data ASS1": ["datasets/ASS1/split.csv", "datasets/ASS1/images/val/*.jpg"],
    r"small-object stats": ["runs/stats/**/stats.png"],
    r"small-object convert": ["datasets/mine/mine.yaml", "datasets/mine/images/train/*"],
    r"small-object scenes ASS1-demo": ["datasets/more/images/train/*"],
    r"python -m benchmarks.speed": ["benchmarks/results/speed.md"],
    r"python -m benchmarks.slicing": ["runs/slicing/slicing.md"],
    r"python -m benchmarks.page": ["runs/page.md", "said:thumbnails"],
    r"small-object batch --model": ["found/parts/*.parquet", "found/report.json"],
}

# Documents that go on from what the commands of another have made.
CONTINUED = {"docs/batch.md": "README.md", "docs/deployment.md": "README.md"}

# What a command would not make anew, and is removed before it.
ANEW = {
    r"small-object scenes ASS1-demo": ["datasets/more/images", "datasets/more/labels"],
    r"small-object (data ASS1|convert)": ["datasets/ASS1/images", "datasets/ASS1/split.csv", "datasets/mine"],
}

# First lines of code blocks that are neither commands nor Python.
TEXTS = (
    "W² = ",
    "(1 - nwd)",
    "overlap = (1 - s)",
    "ultralytics 8.3.0 is installed, but small-object-detection supports",
    "yolo: my.yaml: row 1",
)


# Commands that install, need a network, a checkout, machines or GPUs, run these tests or take minutes are not run here.
NOT_RUN = re.compile(
    r"make|pip |ray start|python -m (pytest|benchmarks\.(compare|demo|export|pareto)|docs\.tools\.before"
    r"|tests\.upstream)"
    r"|.*(s3://|--address auto)|small-object export-stock"  # the last refuses the model of these tests
)


def is_run(text: str) -> bool:
    """Return whether a command runs in a test; pages need a browser."""
    text = text.removeprefix(".venv/bin/")
    return not NOT_RUN.match(text) and not (text.startswith("python -m benchmarks.page ") and browser.find_missing())


class Found(NamedTuple):
    """A command, or Python, and the document that has it first."""

    document: str
    text: str
    python: bool = False

    def __str__(self) -> str:
        return f"{self.document}: {self.text.splitlines()[-1]}"


def is_command(text: str) -> bool:
    text = re.sub(r"^([A-Z_]+=\S+ )+", "", text).removeprefix(".venv/bin/")  # without what it sets in its environment
    return text.partition(" ")[0] in PROGRAMS and " " in text


def parse(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the commands and Python of a Markdown text, in their order: the text, and whether it is Python."""
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "inline":
            for code in (" ".join(part.content.split()) for part in token.children if part.type == "code_inline"):
                if is_command(code) and not re.fullmatch(r"small-object \w+|yolo [^=]+", code):
                    yield code, False
        elif token.type in {"fence", "code_block"} and token.info.partition(" ")[0] in LANGUAGES:
            code = ""  # parts of Python between empty lines are one
            for part in re.split(r"\n\s*\n", token.content):
                commands, python = parse_part(part)
                if code and commands:
                    yield code, True
                    code = ""
                yield from ((command, False) for command in commands)
                code += ("\n\n" if code and python else "") + python
            if code:
                yield code, True


def parse_part(block: str) -> tuple[list[str], str]:
    """Return the commands, or the Python, in a part of a block of code."""
    rows = [row for row in re.sub(r"\s*\\\n\s*", " ", block).splitlines() if row.strip()]
    if not rows or rows[0].strip().startswith((*TEXTS, ">>> ")):  # examples of docstrings are no commands
        return [], ""
    commands = [re.sub(r"\s+#\s.*$", "", row).strip().removeprefix("$ ") for row in rows]
    commands = [command for command in commands if command and not command.startswith("#")]
    if all(map(is_command, commands)):
        return commands, ""
    try:
        ast.parse(code := textwrap.dedent("\n".join(rows)))
    except SyntaxError:
        raise ValueError(f"not a command, not Python; if it is a text, add its first line to TEXTS:\n{block}") from None
    return [], code


def read_documents() -> list[Found]:
    """Return what the documents have, each once, at its first place."""
    found: dict[str, Found] = {}
    for file in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))):
        document = file.relative_to(ROOT).as_posix()
        for text, python in parse(file.read_text(encoding="utf-8")):
            found.setdefault(text, Found(document, text, python))
    return list(found.values())


FOUND = read_documents()
RUN = [found for found in FOUND if is_run(found.text)]


def small(text: str) -> tuple[str, set[str]]:
    """Return a command made small, and which rows of `SMALLER` did so."""
    used = set()
    text = text.removeprefix(".venv/bin/")
    for pattern, value in SMALLER.items():
        text, count = re.subn(pattern, value, text)
        used |= {pattern} if count else set()
    return text, used


INTERRUPT = """
from ultralytics import YOLO

def stop(trainer):
    raise KeyboardInterrupt

model = YOLO("tiny.yaml")
model.add_callback("on_fit_epoch_end", stop)
try:
    model.train(data="my/data.yaml", epochs=2, imgsz=64, batch=4, plots=False, project="runs", name="interrupted")
except KeyboardInterrupt:
    model.trainer.model.float()
"""


def paint(file: Path, width: int, height: int) -> np.ndarray:
    """Write a picture of random blocks; return it (H, W, 3)."""
    image = draw_blocks(width, height, 9, 16, len(file.name))
    write_tree(file.parent, {file.name: image})
    return image


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    files = {f"{name}.zip": make_zip(make_files(name)) for name in ("ASS1", "ASS2")}
    folder = str(tmp_path_factory.mktemp("server"))
    with RecordServer(files) as record:
        yield Server(ASS_RECORD_URL=record.url, ASS_CACHE=folder)


@pytest.fixture(scope="module")
def template(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out a folder like this project's, with the files that the commands name."""
    folder = tmp_path_factory.mktemp("template") / "project"
    folder.mkdir()
    for name in ("predict1.py", "predict2.py"):
        shutil.copy(ROOT / name, folder / name)
    for file in (ROOT / "datasets").glob("*/*.yaml"):
        (folder / "datasets" / file.parent.name).mkdir(parents=True)
        shutil.copy(file, folder / "datasets" / file.parent.name)
    shutil.copytree(ROOT / "ultralytics/cfg", folder / "ultralytics/cfg")
    shutil.copytree(ROOT / "benchmarks/models", folder / "benchmarks/models")
    (folder / "benchmarks/results").mkdir()
    for file in (ROOT / "benchmarks").glob("*.py"):
        shutil.copy(file, folder / "benchmarks")
    write_data(folder / "my", ("a", "b", "c"), {"train": 4, "val": 4}).rename(folder / "my/data.yaml")
    for i in range(2):
        paint(folder / f"panoramas/{i}.jpg", 200, 90)
        paint(folder / f"frames/{i}.jpg", 96, 72)
    write_video(folder / "video.mp4", [paint(folder / "panorama.jpg", 160, 96)] * 2, "mp4v")
    for name, classes in (("ASS1-demo", ("airplane", "person", "truck")), ("ASS2-demo", ("airplane", "truck"))):
        yaml = (folder / "datasets" / name / f"{name}.yaml").read_bytes()
        write_data(folder / "datasets" / name, classes, {"train": 2, "val": 2}).write_bytes(yaml)
    for name, images in (("train", ["d.png"]), ("val", ["e.png"]), ("annotations", None)):
        annotations = [{"image_id": 1, "category_id": 7, "bbox": [10, 10, 50, 40]}]
        coco(folder, annotations, images).rename(folder / f"{name}.json")
    voc(folder / "VOC2012", dict.fromkeys("abc", "truck 10 10 60 50"))
    (folder / "ASS1.zip").write_bytes(make_zip(make_files("ASS1")))
    (folder / "apron.yaml").write_text("polygons: [[[0, 0.4], [1, 0.35], [1, 1], [0, 1]]]\n")
    (folder / "tiny.yaml").write_text(TINY_MODEL)
    status, said = server.run(["python", "-c", INTERRUPT], folder)
    assert status == 0, said
    for place in (".", "runs/ASS1/earlier/weights", "runs/ASS2/earlier/weights"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "runs/interrupted/weights/best.pt", folder / place)
    return folder


@pytest.fixture(scope="module")
def worlds(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a folder for each document."""
    worlds = {}
    for found in RUN:
        if found.document not in worlds:
            worlds[found.document] = tmp_path_factory.mktemp("world") / "project"
            shutil.copytree(template, worlds[found.document])
    return worlds


@pytest.mark.parametrize("found", RUN, ids=str)
def test_a_command_does_what_the_documents_say(found: Found, server: Server, worlds: dict[str, Path]) -> None:
    folder, (command, _) = worlds[CONTINUED.get(found.document, found.document)], small(found.text)
    for path in (folder / path for pattern, paths in ANEW.items() if re.match(pattern, command) for path in paths):
        shutil.rmtree(path, ignore_errors=True)
        if path.is_file():
            path.unlink()
    start = time.time() - 0.01
    status, said = server.run(["python", "-c", command] if found.python else command, folder)
    assert status == 0, f"{command}\n{said}\n\nIf this cannot be run here, see the top of tests/docs/test_commands.py"
    for pattern, promises in PROMISES.items():
        kept = re.match(pattern, command)
        for promise in map(kept.expand, promises) if kept else ():
            if promise.startswith("said:"):
                assert promise.removeprefix("said:") in said, said
            else:
                new = any(file.stat().st_mtime >= start for file in folder.glob(promise))
                assert new, f"{command}\n{said}\n\nwrote no {promise}"


def test_no_row_of_the_tables_is_idle() -> None:
    run = [small(found.text) for found in FOUND if not NOT_RUN.match(found.text)]
    assert set(SMALLER) == set().union(*(used for _, used in run)), "SMALLER: no document has them"
    idle = [pattern for pattern in (*PROMISES, *ANEW) if not any(re.match(pattern, command) for command, _ in run)]
    assert not idle, "no document has them"


def make(*args: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell, also where make runs these tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    return subprocess.run(["make", *args], cwd=ROOT, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [found.text for found in FOUND if not is_run(found.text)])
def test_what_is_not_run_here(command: str, server: Server, template: Path) -> None:
    """Check without running: targets, extras, options and arguments exist."""
    program, *args = shlex.split(command.removeprefix(".venv/bin/"))
    if program == "make":
        done = make("-n", *args)
        assert done.returncode == 0 and done.stdout, done.stderr
        for module in re.findall(r"python -m ((?:benchmarks|docs|tests)\.\S+)", done.stdout):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
    elif program in {"python", "small-object"} and "pytest" not in args:
        start = args[:2] if program == "python" else args[:1]
        status, said = server.run([program, *start, "--help"], template)
        assert status == 0, said
        options = [option for option in args[len(start) :] if option.startswith("--")]
        assert not [option for option in options if not re.search(rf"{option}\b", said)]
    assert program != "yolo" or {arg.partition("=")[0] for arg in args if "=" in arg} <= set(DEFAULT_CFG_DICT)


def test_make_help() -> None:
    targets = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[0].split()
    assert sorted(line.split()[0] for line in make("help").stdout.splitlines()) == sorted(targets)


def test_the_demo(server: Server, template: Path, tmp_path: Path) -> None:
    shutil.copytree(template, tmp_path / "project")
    code = """
import contextlib, os, re, runpy, sys
from benchmarks import demo
os.cpu_count = lambda: 1  # more threads wait for each other on a busy machine
stock = demo.commands
def small(scratch):
    commands = (re.sub(r"\\bepochs=\\d+", "epochs=1", command) + " plots=False" for command in stock(scratch))
    return [re.sub(r"imgsz=\\d+", "imgsz=64", command) for command in commands]
def run(command, check):
    sys.argv[:] = command[1:]
    with contextlib.suppress(SystemExit):
        runpy.run_path(command[1], run_name="__main__")
demo.commands, demo.subprocess.run = small, run
demo.main()
"""
    status, said = server.run(["python", "-c", code], tmp_path / "project")
    assert status == 0, said
    for name in ("ASS1", "ASS2"):
        pictures = list((tmp_path / "project/runs/predict" / name / "demo").glob("*.jpg"))
        assert pictures and str(pictures[0].parent) in said
