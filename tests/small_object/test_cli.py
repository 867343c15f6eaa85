"""The `small-object` command: its arguments, exit statuses and what a user's mistake says."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest
from ultralytics.utils import checks

import ultralytics_overlay
from small_object import cli
from small_object.datasets import airport
from tests.helpers.common import Run

Capture = pytest.CaptureFixture[str]
COMMANDS = ["data", "check", "fix", "stats", "convert", "tiles", "scenes", "compare", "batch", "transfer"]
COMMANDS += ["export-stock", "status"]


def test_help_is_quick_and_lists_all_commands(run: Run, tmp_path: Path) -> None:
    before = os.times()
    result = run("-m", "small_object.cli", "--help", cwd=tmp_path)
    after = os.times()
    assert result.returncode == 0
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.3
    assert re.findall(r"^    ([a-z-]+)(?:  |$)", result.stdout, re.MULTILINE) == COMMANDS
    code = (
        "import sys, small_object.cli as cli; cli.build_parser(); print({'numpy', 'torch', 'cv2'} & set(sys.modules))"
    )
    assert run("-c", code, cwd=tmp_path).stdout.strip() == "set()"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example_that_parses(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    example = re.search(rf"example: small-object ({command}.*)$", text)
    assert example and cli.build_parser().parse_args(example[1].split()).command == command


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        ("", 2, "required: COMMAND"),
        ("train", 2, "invalid choice: 'train'"),
        ("compare --models a.pt --conf 2", 2, "argument --conf: '2' must be a number from 0 to 1"),
        ("compare --models a.pt --slice 10", 2, "argument --slice: '10' must be auto, 0, or one or two whole"),
        ("compare --models a.pt --slice 384,640,3", 2, "argument --slice: '384,640,3' must be auto, 0, or"),
        ("compare --models a.pt --iou x", 2, "argument --iou: 'x' must be a number from 0 to 1"),
        ("compare --models a.pt --max-det 0", 2, "argument --max-det: '0' must be a whole number, at least 1"),
        ("compare --models a.pt --classes 0 truck", 2, "argument --classes: 'truck' must be a whole number"),
        ("batch --model m --source s --out o --slice 0 --slice-roi r", 1, "--slice-roi needs --slice"),
        ("batch --model m --source s --out o --slice-overlap 0.95", 2, "'0.95' must be a number from 0 to 0.9"),
        ("batch --source s --out o", 2, "required: --model"),
        ("convert labelme x --out y", 2, "choose from"),
        ("data ASS3", 1, "no data set named 'ASS3': choose ASS1 or ASS2"),
        ("data ASS1 --archive none.zip", 1, "--archive: no file none.zip"),
        ("data ASS1 --split none.csv", 1, "--split: no file none.csv"),
        ("data all --archive none.zip", 1, "--archive needs exactly one data set"),
        ("check none.yaml", 1, "none.yaml"),
        ("convert coco none.json --out out", 1, "none.json"),
        ("convert voc none --out out --images x", 1, "--images, --skip-missing and several paths are only for coco"),
        ("tiles none.yaml --out out --keep 0", 1, "keep above 0"),
        ("scenes ASS3-demo --out out", 1, "no demo set named 'ASS3-demo'"),
        ("compare --models a.pt", 1, "give --data, --source or both"),
        ("compare --models none.pt --source x.jpg", 1, "none.pt: neither weights nor"),
    ],
)
def test_a_users_mistake_is_one_line_and_writes_nothing(
    argv: str, status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        result = cli.main(argv.split())
    except SystemExit as end:  # of the parser
        result = end.code
    *usage, line = capsys.readouterr().err.splitlines()
    assert result == status and bool(usage) == (status == 2)
    assert line.startswith("small-object") and said in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command to resume"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), 1, "a.csv: No such file or directory"),
    ],
)
def test_what_ends_a_command_is_one_line(
    error: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(airport, "prepare", Mock(side_effect=error))
    assert cli.main(["data", "ASS1"]) == status
    assert capsys.readouterr().err == f"small-object: {said}\n"


def test_data_sets_go_into_the_working_folder_or_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Mock()
    monkeypatch.setattr(airport, "prepare", prepare)
    for argv in ("data all", "data ASS1 --out a", "data ASS1 ASS2 --out a --overwrite --cache c"):
        assert cli.main(argv.split()) == 0
    assert prepare.call_args_list == [
        call("ASS1", Path("datasets/ASS1"), None, None, None, False),
        call("ASS2", Path("datasets/ASS2"), None, None, None, False),
        call("ASS1", Path("a"), None, None, None, False),
        call("ASS1", Path("a/ASS1"), None, None, Path("c"), True),
        call("ASS2", Path("a/ASS2"), None, None, Path("c"), True),
    ]


@pytest.mark.parametrize("name", ["ray", "pyarrow"])
def test_what_batch_needs_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["batch", "--model", "none.pt", "--source", "none", "--out", "out"]) == 1
    said = f"small-object: {name} is missing; run: pip install 'small-object-detection[batch]'\n"
    assert capsys.readouterr().err == said
    assert list(tmp_path.iterdir()) == []


def test_status_says_whether_the_overlay_is_active(run: Run, tmp_path: Path) -> None:
    active = run("-m", "small_object.cli", "status", cwd=tmp_path)
    assert active.returncode == 0
    assert f"active, from {ultralytics_overlay.FOLDER}" in active.stdout
    for package in ("ultralytics", "torch", "torchvision"):
        assert checks.metadata.version(package) in active.stdout
    off = run("-m", "small_object.cli", "status", cwd=tmp_path, ULTRALYTICS_OVERLAY="0")
    assert off.returncode == 1 and "off: ULTRALYTICS_OVERLAY=0" in off.stdout
    before = run("-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; from small_object.status import *; "
                 "print(status()['Overlay'])", cwd=tmp_path)  # fmt: skip
    assert before.stdout.startswith("off: ")


def test_yolo_checks_shows_the_status(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(checks, "stock_collect_system_info", lambda: {"OS": "Linux"})
    assert list(checks.collect_system_info()) == ["OS", "Small Object Info"]
    assert f"active, from {ultralytics_overlay.FOLDER}" in caplog.text


def test_the_predict_scripts_run_from_any_folder(root: Path, run: Run, tmp_path: Path) -> None:
    shutil.copy(root / "predict2.py", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    result = run(tmp_path / "predict2.py", cwd=tmp_path / "elsewhere")
    assert result.returncode == 1
    assert result.stderr.startswith(f"predict2.py: {tmp_path / 'runs'}/ASS2: neither weights nor")
    assert list((tmp_path / "elsewhere").iterdir()) == []
