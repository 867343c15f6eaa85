"""Every command of README.md and docs/ is run, on data of a few tiny images in a folder that is laid out as this one.

A command is a line of a code block that begins with one of `PROGRAMS`, or code in a sentence that does so and has
arguments (for `yolo`: with a `=`; `yolo export` alone is a name). Python in code blocks is run, too. What comes new to
the documents is found and run by itself. If it fails here:

- it takes long, or names something that is not here: add a row to `SMALLER`;
- it cannot be run in a test: add it to `ELSEWHERE`, with the reason and the test that runs the same program;
- it is no command: add the first line of its block to `TEXTS`.

What a command promises to write or print stands in `PROMISES`. Rows that no document needs any more fail. The commands
of a document run one after the other in a folder of their own, as some need what those before them made.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from ultralytics.cfg import DEFAULT_CFG_DICT

from docs.tools import browser
from tests.helpers.command_server import LIMIT
from tests.helpers.common import TINY_MODEL, write_data
from tests.helpers.record_server import RecordServer
from tests.small_object.datasets.test_airport import make_files, make_zip
from tests.small_object.datasets.test_convert import coco, voc

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
PROGRAMS = "yolo", "python", "python3", "pip", "make", "jupyter", "ray", "mkdocs", "ruff", "pytest", "git", "."

LANGUAGES = "", "bash", "sh", "shell", "console", "python", "py"  # of fenced blocks that are looked at
GENERATED = {"docs/api.md"}  # its Python are signatures and the examples of docstrings

# Regular expressions of what is made smaller, or given a value that is here, in the order in which they are applied. A
# command is looked for with those before already applied. What they leave is run as it is written.
SMALLER = {
    r"\bepochs=\d+": "epochs=1",
    r"imgsz=640": "imgsz=64",
    r"slice=640": "slice=64",
    r"batch=16": "batch=4",
    r"model=runs/\.\.\./": "model=runs/interrupted/",
    r"--(imgsz|tile) \d+": r"--\1 64",
    r"--(train|val) \d+": r"--\1 2",
    r"--examples 2000 --seconds 20": "--examples 1 --seconds 1",
    r"DATA\.yaml": "my/data.yaml",
    r"WEIGHTS": "best.pt",
    r"--out DIR": "--out tiles",
    r"-m venv": "-m venv --without-pip",
    r'\.predict\("panorama.jpg", slice=64\)': r'.predict("panorama.jpg", slice=64, imgsz=64)',
    # options added at the end
    r"^(yolo detect train (?!.*epochs=).*)$": r"\1 epochs=1",
    r"^(yolo (?!export)(?!.*imgsz=)(?!.*resume).*)$": r"\1 imgsz=64",
    r"^(yolo detect train .*)$": r"\1 plots=False",
    r"^(yolo track .*)$": r"\1 save=True",
    r"^(python benchmarks/page.py .*)$": r"\1 --images 2",
    r"^(python benchmarks/slicing.py .*)$": r"\1 --imgsz 64 --no-peak",
    r"^(python benchmarks/size_metrics_cost.py .*)$": r"\1 --imgsz 64 --rounds 1",
    r"^(python benchmarks/speed.py)$": (
        r"\1 --models tiny.yaml yolo11n.yaml --profile tiny.yaml --imgsz 64 --train-imgsz 64 --batch 2 --rounds 2"
    ),
}

# What a command writes (globs) or, after "said:", prints; with groups of the pattern as in `re.sub`.
PROMISES = {
    r"yolo detect train .*ASS1.yaml": ["runs/ASS1/yolo11n/weights/best.pt", "datasets/ASS1/split.csv"],
    r"yolo detect train .*ASS2.yaml": ["runs/ASS2/yolo11n/weights/best.pt", "runs/ASS2/yolo11n/results.csv"],
    r"yolo detect train .*slice=": ["runs/detect/train*/weights/best.pt"],
    r"yolo detect val (?!.*size_metrics=False)": ["said:COCO small"],
    r"yolo detect val .*name=ASS2_val": ["runs/val/ASS2_val/size_metrics.png"],
    r"yolo detect val .*slice=": ["said:Tiles of 64 px: 16 run, 0 skipped"],
    r"yolo (detect )?predict .*slice=64.*": ["runs/detect/predict*/*.jpg", "said:tiles"],
    r"yolo track .*": ["runs/detect/track*/video.*", "said:tiles"],
    r"yolo export .*onnx": ["best.onnx"],
    r"yolo train resume=True": ["said:from epoch 2 to 2 total epochs", "said:1 epochs completed"],
    r"python predict1.py$": ["runs/predict/ASS1/yolo11n/*.jpg", "said:airplane  person  truck"],
    r"python predict2.py$": ["runs/predict/ASS2/yolo11n/*.jpg", "said:gained"],
    r"python predict([12]).py": [r"runs/predict/ASS\1/earlier/*.jpg", r"runs/predict/ASS\1/index.html"],
    r"python datasets/prepare.py ASS1": ["datasets/ASS1/split.csv", "datasets/ASS1/images/val/*.jpg"],
    r"python datasets/prepare.py --check": ["runs/check/**/check.json"],
    r"python datasets/prepare.py --stats": ["runs/stats/**/stats.png"],
    r"python datasets/prepare.py --from": ["datasets/mine/mine.yaml", "datasets/mine/images/train/*"],
    r"python -m small_object.scenes.generate ASS1-demo": ["datasets/ASS1-demo/images/train/*"],
    r"python benchmarks/tiles.py": ["tiles/**/*.png"],
    r"python benchmarks/speed.py": ["benchmarks/results/speed.md"],
    r"python benchmarks/slicing.py": ["benchmarks/results/slicing/slicing.md"],
    r"python tests/stress/fuzz.py": ["benchmarks/results/fuzz.md"],
    r"python benchmarks/page.py": ["benchmarks/results/page.md", "said:thumbnails"],
    r"python -m small_object.batch.command --model": ["found/parts/*.parquet", "found/report.json"],
    r"python benchmarks/size_metrics_cost.py": ["said:ratio"],
}

# Documents that go on from what the commands of another have made.
CONTINUED = {"docs/archives.md": "README.md"}

# What a command would not make anew, and is removed before it.
ANEW = {
    r"python -m small_object.scenes.generate ASS1-demo": ["datasets/ASS1-demo/images", "datasets/ASS1-demo/labels"],
    r"python datasets/prepare.py (ASS1|--from)": ["datasets/ASS1/images", "datasets/ASS1/split.csv", "datasets/mine"],
}

# First lines of code blocks that are neither commands nor Python.
TEXTS = (
    "W² = ",
    "(1 - nwd)",
    "overlap = (1 - s)",
    "ultralytics 8.3.0 is installed, but small-object-detection supports",
    "yolo: my.yaml: row 1",
)


@dataclass(frozen=True)
class Other:
    """Why a command is not run here, and what is checked of it beside what `test_what_is_not_run_here` can see.

    Args:
        reason: Why.
        test: Test file and a text in it that runs the same with small arguments, or a test of this file, if any.
    """

    reason: str
    test: tuple[str, str] | str | None = None


SUITE = Other("runs tests, this one too")
DEMO = Other("trains for a quarter of an hour", "test_the_demo")
CLUSTER = Other("needs machines", ("test_archive.py", '"--address", cluster.address'))
ELSEWHERE = {
    "make test": SUITE,
    "make lint test": SUITE,
    "make demo": DEMO,
    "python benchmarks/demo.py": DEMO,
    "python benchmarks/demo.py --compare": DEMO,
    "make env": Other("installs packages from the network"),
    "make lint": Other("needs the checkout"),
    "make tables": Other("writes into docs/", ("test_docs.py", "api.")),
    "make docs": Other("needs the checkout", ("test_docs.py", '"mkdocs", "build", "--strict"')),
    "make notebook": Other("writes into docs/", ("test_docs.py", "notebook.execute(")),
    "make help": Other("needs the Makefile in its place", "test_make_help"),
    "make pictures": Other("draws into docs/ what the demo has found", ("test_docs.py", "pictures.PICTURES")),
    "make compat": Other("fetches versions of Ultralytics", ("test_compat.py", "compat.try_version(")),
    "make upstream": Other("fetches an archive", ("test_upstream_tests.py", "upstream_tests.main(")),
    "python benchmarks/compare.py --preset quick --seeds 0 1 2 --jobs 2": Other(
        "trains for hours", ("test_compare.py", '"--seeds", "0", "1"]')
    ),
    'python benchmarks/compare.py --data my/data.yaml --models yolo11n.yaml "stock=ultralytics/cfg/models/11/yolo11n'
    '.yaml+nwd=0+nwd_assign=0" ultralytics/cfg/models/11/yolo11n.yaml': Other(
        "trains nine models", ("test_compare.py", '"--seeds", "0", "1"]')
    ),
    "python benchmarks/export.py --model best.pt --data my/data.yaml": Other(
        "exports to each format, for minutes", ("test_export_benchmark.py", "export.main(options)")
    ),
    "python -m small_object.batch.command --model best.pt --source 's3://bucket/2024?region=eu-west-1' "
    "--out 's3://bucket/found?region=eu-west-1'": Other("needs S3", ("test_archive.py", 'f"s3://year/found?')),
    "ray start --head": CLUSTER,
    "ray start --address=HEAD:6379": CLUSTER,
    "python -m small_object.batch.command --model best.pt --source /shared/panoramas --out /shared/found "
    "--address auto": CLUSTER,
    "python tests/stress/faults.py": Other("kills trainings, for minutes", ("test_faults.py", '"--kills", "1"')),
    "yolo detect train model=ultralytics/cfg/models/11/yolo11.yaml data=my/data.yaml device=0,1 batch=32": Other(
        "needs two GPUs", ("test_distributed.py", 'device="0,1"')
    ),
}


def needs_browser(text: str) -> bool:
    return text.startswith("python benchmarks/page.py ")


def elsewhere(text: str) -> Other | None:
    """Return why a command is not run here, or None."""
    text = text.removeprefix(".venv/bin/")
    if text.startswith("pip "):
        return Other("installs packages from the network")
    if needs_browser(text) and (why := browser.missing()):
        return Other(why)
    return SUITE if text.startswith("python -m pytest") else ELSEWHERE.get(text)


# Finding them --------------------------------------------------------------------------------------------------------


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


def without_comment(line: str) -> str:
    """Return a shell line without the comment at its end."""
    return re.sub(r"\s+#\s.*$", "", line).strip().removeprefix("$ ")


def parse(text: str, commands_only: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the commands and Python of a Markdown text, in their order: the text, and whether it is Python.

    Args:
        text: The text.
        commands_only: Whether blocks of anything else are left out.

    Raises:
        ValueError: If a block of code is neither, says of no other language that it is in it, and is not of `TEXTS`.
    """
    lines, i = text.splitlines(), 0
    while i < len(lines):
        block: list[str] = []
        if fence := re.match(r"\s*(```+|~~~+)\s*(\w*)", lines[i]):
            i += 1
            while i < len(lines) and not lines[i].strip().startswith(fence[1]):
                block.append(lines[i])
                i += 1
            i += 1
            block = block if fence[2] in LANGUAGES else []
        elif re.match(r"    \s*\S", lines[i]) and (not i or not lines[i - 1].strip()):
            while i < len(lines) and (lines[i].startswith("    ") or not lines[i].strip()):
                block.append(lines[i])
                i += 1
        else:  # a paragraph, table or list, in which code may go over the end of a line
            paragraph: list[str] = []
            while i < len(lines) and lines[i].strip() and not re.match(r"\s*(```|~~~)", lines[i]):
                paragraph.append(lines[i].strip())
                i += 1
            i += not paragraph
            for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", " ".join(paragraph)):
                if is_command(code) and (not code.startswith("yolo ") or "=" in code):
                    yield code, False
            continue
        code: list[str] = []
        for part in re.split(r"\n\s*\n", "\n".join(block)):
            commands, python = parse_part(part, commands_only)
            if code and commands:
                yield "\n\n".join(code), True
                code = []
            yield from ((command, False) for command in commands)
            code += [python] if python else []
        if code:
            yield "\n\n".join(code), True


def parse_part(block: str, commands_only: bool) -> tuple[list[str], str]:
    """Return the commands, or the Python, in a part of a block of code."""
    rows = [row for row in re.sub(r"\s*\\\n\s*", " ", block).splitlines() if row.strip()]
    if not rows or rows[0].strip().startswith((*TEXTS, ">>> ")):  # examples of docstrings are no commands
        return [], ""
    commands = [without_comment(row) for row in rows]
    commands = [command for command in commands if command and not command.startswith("#")]
    if all(map(is_command, commands)):
        return commands, ""
    if commands_only:
        return [], ""
    margin = min(len(row) - len(row.lstrip()) for row in rows)
    code = "\n".join(row[margin:] for row in rows)
    try:
        ast.parse(code)
    except SyntaxError:
        known = ", ".join(PROGRAMS)
        raise ValueError(
            f"what is this block of code? No command ({known}), no Python; if it is a text, add its first line to "
            f"TEXTS in tests/test_commands.py:\n{block}"
        ) from None
    return [], code


def read_documents() -> list[Found]:
    """Return what the documents have, each once, at its first place."""
    found: dict[str, Found] = {}
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        document = file.relative_to(ROOT).as_posix()
        try:
            for text, python in parse(file.read_text(encoding="utf-8"), commands_only=document in GENERATED):
                found.setdefault(text, Found(document, text, python))
        except ValueError as error:
            raise ValueError(f"{document}: {error}") from None
    return list(found.values())


FOUND = read_documents()
RUN = [found for found in FOUND if not elsewhere(found.text)]


def small(text: str) -> tuple[str, set[str]]:
    """Return a command made small, and which rows of `SMALLER` did so."""
    used = set()
    text = text.removeprefix(".venv/bin/")
    for pattern, value in SMALLER.items():
        text, count = re.subn(pattern, value, text)
        used |= {pattern} if count else set()
    return text, used


# The folder they run in ----------------------------------------------------------------------------------------------

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
    blocks = np.random.default_rng(len(file.name)).integers(0, 256, (9, 16, 3), np.uint8)
    image = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_CUBIC)
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), image)
    return image


class Server:
    """Runs commands in child processes of one that has imported PyTorch, see command_server.py."""

    def __init__(self, **environment: str) -> None:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
        self.environment = {**mine, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PATH": path, **environment}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/command_server.py")],
            env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._read() == "ready"

    def _read(self) -> Any:
        return json.loads(self.process.stdout.readline())

    def run(self, command: str | list[str], folder: Path) -> tuple[int, str]:
        """Run a command in a folder; return its exit status and what it printed."""
        if isinstance(command, str) and ("&&" in command or not command.startswith(("yolo ", "python ", "python3 "))):
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
            )  # fmt: skip
            return done.returncode, done.stdout
        argv = shlex.split(command) if isinstance(command, str) else command
        log = folder / "log.txt"
        print(json.dumps({"argv": argv, "cwd": str(folder), "log": str(log)}), file=self.process.stdin, flush=True)
        status = self._read()
        return status, re.sub(r"\x1b\[[\d;]*[mK]", "", log.read_text(encoding="utf-8", errors="replace"))

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    files = {f"{name}.zip": make_zip(make_files(name)) for name in ("ASS1", "ASS2")}
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(os.environ["YOLO_CONFIG_DIR"], folder / "config")
    with RecordServer(files) as record:
        environment = {
            "ASS_RECORD_URL": record.url,
            "ASS_CACHE": str(folder),
            "YOLO_CONFIG_DIR": str(folder / "config"),
        }
        server = Server(**environment)
        yield server
        server.close()


@pytest.fixture(scope="module")
def template(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out a folder as this project's, with what the commands name."""
    folder = tmp_path_factory.mktemp("template") / "project"
    folder.mkdir()
    for name in ("predict1.py", "predict2.py", "datasets/prepare.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for file in (ROOT / "datasets").glob("*/*.yaml"):
        (folder / "datasets" / file.parent.name).mkdir()
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
    frame = paint(folder / "panorama.jpg", 160, 96)
    video = cv2.VideoWriter(str(folder / "video.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, frame.shape[1::-1])
    for _ in range(2):
        video.write(frame)
    video.release()
    for name, classes in (("ASS1-demo", ("airplane", "person", "truck")), ("ASS2-demo", ("airplane", "truck"))):
        yaml = (folder / "datasets" / name / f"{name}.yaml").read_bytes()
        write_data(folder / "datasets" / name, classes, {"train": 2, "val": 2}).write_bytes(yaml)
    coco(folder, [{"image_id": i, "category_id": 7, "bbox": [10, 10, 50, 40]} for i in (1, 2, 3)])
    voc(folder / "VOC2012", dict.fromkeys("abc", "truck 10 10 60 50"))
    (folder / "ASS1.zip").write_bytes(make_zip(make_files("ASS1")))
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


# Running them --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", RUN, ids=str)
def test_a_command_does_what_the_documents_say(found: Found, server: Server, worlds: dict[str, Path]) -> None:
    folder, (command, _) = worlds[CONTINUED.get(found.document, found.document)], small(found.text)
    for pattern, paths in ANEW.items():
        for path in (folder / path for path in paths if re.match(pattern, command)):
            shutil.rmtree(path, ignore_errors=True)
            if path.is_file():
                path.unlink()
    start = time.time() - 0.01
    status, said = server.run(["python", "-c", command] if found.python else command, folder)
    assert status == 0, f"{command}\n{said}\n\nIf this cannot be run here, see the top of tests/test_commands.py"
    for pattern, promises in PROMISES.items():
        kept = re.match(pattern, command)
        for promise in map(kept.expand, promises) if kept else ():
            if promise.startswith("said:"):
                assert promise.removeprefix("said:") in said, said
            else:
                new = [file for file in folder.glob(promise) if file.stat().st_mtime >= start]
                assert new, f"{command}\n{said}\n\nwrote no {promise}"


def test_no_row_of_the_tables_is_idle() -> None:
    run = [small(found.text) for found in FOUND if needs_browser(found.text) or not elsewhere(found.text)]
    assert set(SMALLER) == set().union(*(used for _, used in run)), "SMALLER: no document has them"
    commands = [command for command, _ in run]
    for table in (PROMISES, ANEW):
        idle = [pattern for pattern in table if not any(re.match(pattern, command) for command in commands)]
        assert not idle, "no document has them"
    assert not set(ELSEWHERE) - {found.text for found in FOUND}, "ELSEWHERE: no document has them"
    texts = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "docs").rglob("*.md"))
    assert all(f"\n    {text}" in texts for text in TEXTS)


def make(*args: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell, also where make runs these tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    return subprocess.run(["make", *args], cwd=ROOT, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [found.text for found in FOUND if elsewhere(found.text)])
def test_what_is_not_run_here(command: str, server: Server, template: Path) -> None:
    """What can be seen without running it: options exist, files are there, and a test runs the same program."""
    other = elsewhere(command)
    assert other is not None
    if isinstance(other.test, str):
        assert callable(globals()[other.test])
    elif other.test:
        file, text = other.test
        assert text in (ROOT / "tests" / file).read_text(encoding="utf-8")
    program, *args = shlex.split(command.removeprefix(".venv/bin/"))
    for file in re.findall(r"tests/\w+\.py", command):
        assert (ROOT / file).is_file()
    if program == "make":
        done = make("-n", *args)
        assert done.returncode == 0 and done.stdout, done.stderr
        for script in re.findall(r"python (\S+\.py)", done.stdout):
            assert (ROOT / script).is_file()
    elif program == "pip":
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extra in re.findall(r"\.\[(\w+)\]", command):
            assert re.search(rf"^{extra} = \[", project, re.M)
        for file in re.findall(r"-r (\S+)", command):
            assert (ROOT / file).is_file()
    elif program == "python" and len(args) > 1 and args[0] != "-m":  # the options are ones that the program knows
        status, said = server.run(["python", args[0], "--help"], template)
        assert status == 0
        for option in args[1:]:
            assert not option.startswith("--") or re.search(rf"{option}\b", said), option
    elif program == "yolo":  # arguments that upstream or this fork knows
        names = {name for name, _ in (arg.split("=") for arg in args if "=" in arg)}
        assert names <= set(DEFAULT_CFG_DICT)


def test_make_help() -> None:
    done = make("help")
    assert done.returncode == 0, done.stderr
    targets = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[0].split()
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == sorted(targets)


def test_the_demo(server: Server, template: Path, tmp_path: Path) -> None:
    shutil.copytree(template, tmp_path / "project")
    code = """
import os, re, sys
sys.path.insert(0, "benchmarks")
from benchmarks import demo
os.cpu_count = lambda: 1  # more threads wait for each other on a busy machine
stock = demo.commands
def small(name):
    commands = (re.sub(r"\\bepochs=\\d+", "epochs=1", command) + " plots=False" for command in stock(name))
    return [re.sub(r"imgsz=\\d+", "imgsz=64", command) for command in commands]
demo.commands = small
demo.main()
"""
    status, said = server.run(["python", "-c", code], tmp_path / "project")
    assert status == 0, said
    for name in ("ASS1", "ASS2"):
        pictures = list((tmp_path / "project/runs/predict" / name / "demo").glob("*.jpg"))
        assert pictures and str(pictures[0].parent) in said


MARKDOWN = """# A page

Run `yolo export` or `python a.py
--x 1` after `yolo val data=a.yaml`; `--y` and `model=b.pt` are none.

    yolo predict \\
      model=c.pt  # a comment
    # a comment

    from a import b
    b("#")

    b(2)

    A=1 yolo val data=d.yaml

```yaml
a: b
```

1. In a list:

   ```bash
   $ make d
   ```
"""


def test_commands_are_found() -> None:
    assert list(parse(MARKDOWN)) == [
        ("python a.py --x 1", False),
        ("yolo val data=a.yaml", False),
        ("yolo predict model=c.pt", False),
        ('from a import b\nb("#")\n\nb(2)', True),
        ("A=1 yolo val data=d.yaml", False),
        ("make d", False),
    ]


@pytest.mark.parametrize("block", ["docker run x", "yolo val\ndocker run x", "a table | of"])
def test_what_is_unknown_is_named(block: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)what is this block of code\?.*docker|table"):
        list(parse(f"```\n{block}\n```"))
