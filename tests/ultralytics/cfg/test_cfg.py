import errno
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ultralytics
import yaml
from ultralytics.cfg import check_cfg, entrypoint, get_cfg, get_save_dir, stock_get_save_dir
from ultralytics.engine.model import Model
from ultralytics.nn.tasks import yaml_model_load
from ultralytics.utils.checks import check_file

from small_object.errors import UserError
from tests.helpers.common import TINY_MODEL, Run, one_line, write_tree

INF, NAN = float("inf"), float("nan")


def outcome(check: Callable[[], Any]) -> tuple[type, str]:
    try:
        check()
    except Exception as error:
        return type(error), str(error)
    return type(None), ""


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize(
    ("ours", "stocks", "value"),
    [("nwd", "mosaic", v) for v in (2, -0.1, INF, NAN, "0.5", [0.5], True, 1)]
    + [("nwd_c", "box", v) for v in ("12", [12.0], 0.5)]
    + [("nwd_assign", "mosaic", v) for v in (2, "much", NAN, 0.5)],
)
def test_errors_are_upstreams(ours: str, stocks: str, value: object, hard: bool) -> None:
    kind, message = outcome(lambda: check_cfg({stocks: value}, hard))
    assert outcome(lambda: check_cfg({ours: value}, hard)) == (kind, message.replace(stocks, ours))
    if hard and kind is not type(None):
        assert issubclass(kind, UserError)
        assert stocks in message
        with pytest.raises(kind):
            get_cfg(overrides={ours: value})


def arguments(**given: object) -> SimpleNamespace:
    default = {"project": None, "name": "n", "task": "detect", "mode": "val", "exist_ok": True}
    return SimpleNamespace(**default | given)


@pytest.mark.parametrize("project", ["runs/ASS1", "./runs/ASS1", "other/../runs/ASS1", Path("runs/ASS1")])
def test_relative_project_is_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    args = arguments(project=project)
    assert get_save_dir(args) == tmp_path.resolve() / "runs/ASS1/n"
    assert args.project == project  # not changed: it goes into args.yaml
    assert not stock_get_save_dir(args).is_relative_to(tmp_path)


def test_names_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parent = tmp_path.resolve() / "p"
    assert get_save_dir(arguments(project="p"), name="tune") == parent / "tune"
    assert get_save_dir(arguments(project="p", name=None)) == parent / "val"
    assert get_save_dir(get_cfg(overrides={"project": "p", "name": 12, "task": "detect"})) == parent / "12"
    assert get_save_dir(get_cfg(overrides={"project": 7, "name": 12})) == parent.with_name("7") / "12"
    for given in ({"project": "p", "save_dir": str(tmp_path / "here")}, {"name": None}, {"project": ""}):
        args = arguments(**given)  # as upstream, which puts relative ones elsewhere
        assert get_save_dir(args) == stock_get_save_dir(args) and args.project == given.get("project")


MISTAKES = {
    "value": ("model=yolo11n.yaml data=data.yaml nwd=2", ("'nwd=2' is an invalid value", "between 0.0 and 1.0")),
    "side of tiles": ("model=yolo11n.yaml data=data.yaml slice=63", ("'slice=63' is an invalid value", "64 pixels")),
    "upstream's value": ("model=yolo11n.yaml data=data.yaml mosaic=2", ("'mosaic=2' is an invalid value",)),
    "text of a list": ("model=yolo11n.yaml data=data.yaml slice=[1", ("'slice=[1'",)),
    "two lines": ("model=yolo11n.yaml data=data.yaml size_metrics=a\nb", ("'size_metrics=a b'",)),
    "argument": ("model=yolo11n.yaml nwdd=1", ("'nwdd' is not a valid YOLO argument", "'nwd'")),
    "model": (
        "model=yolo11n-wrong.yaml data=data.yaml",
        ("yolo11n-wrong.yaml", "row 1 ", "'DualConvv'", "did you mean 'DualConv'"),
    ),
    "no model YAML": ("model=yolo11n-none.yaml data=data.yaml", ("'yolo11n-none.yaml' does not exist",)),
    "no data YAML": ("model=yolo11n.yaml data=none.yaml", ("'none.yaml' does not exist",)),
    "no images": ("model=yolo11n.yaml data=data.yaml", ("'data.yaml' images not found", "images/val'")),
    "no names": ("model=yolo11n.yaml data=nameless.yaml", ("nameless.yaml", "key missing", "'names'")),
    "no YAML": ("model=yolo11n.yaml data=broken.yaml", ("YAML syntax error in 'broken.yaml'",)),
}
DATA = "train: images/train\nval: images/val\n"
WRONG_MODEL = TINY_MODEL.replace("DualConv", "DualConvv", 1) + "scales:\n  n: [0.5, 0.25, 1024]\n"


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_ends_with_one_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"data.yaml": f"{DATA}names: [car]\n", "nameless.yaml": DATA, "broken.yaml": "train: [images\n"}
    write_tree(tmp_path, {"yolo11-wrong.yaml": WRONG_MODEL, **data})
    command, parts = MISTAKES[case]
    with one_line("yolo", *parts):
        entrypoint(f"yolo detect train {command} epochs=1 imgsz=32 device=cpu project=runs")


def fail_to_train(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Run `yolo detect train` with a trainer that raises an error."""

    def fail(self: Model, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(Model, "train", fail)
    entrypoint("yolo detect train model=yolo11n.yaml data=data.yaml epochs=1")


@pytest.mark.parametrize("error", [RuntimeError("a fault"), ValueError("a fault"), SyntaxError("a fault")])
def test_fault_of_the_program_is_raised(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(error)) as caught:
        fail_to_train(monkeypatch, error)
    assert caught.value is error


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_cannot_be_written_gets_one_line(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as stopped:
        fail_to_train(monkeypatch, OSError(number, os.strerror(number), "/usr/runs"))
    expected = f"yolo: /usr/runs: {os.strerror(number)}; if results go there, choose another folder with project="
    assert stopped.value.code == expected


@pytest.mark.parametrize(
    ("name", "said"),
    [("bad.pt", "bad.pt is not a loadable checkpoint"), ("none.pt", "none.pt: No such file or directory"),
     ("bad.txt", "'bad.txt' does not exist")],
)  # fmt: skip
def test_weights_that_cannot_be_loaded_get_one_line(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", lambda file: file)
    Path("bad.pt").write_text("no weights")
    with pytest.raises(SystemExit) as stopped:
        entrypoint(f"yolo detect predict model=yolo11n.yaml source=bad.pt pretrained={name} model={name}")
    assert str(stopped.value.code).startswith(f"yolo: {said}")
    assert "\n" not in str(stopped.value.code)


def test_the_yolo_script_prints_our_arguments_too(run: Run, tmp_path: Path) -> None:
    yolo = shutil.which("yolo", path=sysconfig.get_path("scripts"))  # the stock script
    done = run("cfg", cwd=tmp_path, program=yolo)
    assert done.returncode == 0
    assert {"mosaic: 1.0", "nwd: null", "nwd_c: null"} <= set(done.stdout.splitlines())


WRONG = {
    "slice=63": {"slice": 63}, "slice=much": {"slice": "much"}, "slice=True": {"slice": True},
    "slice_overlap=0.95": {"slice_overlap": 0.95}, "slice_batch=-1": {"slice_batch": -1},
    "slice_skip=1.5": {"slice_skip": 1.5}, "slice_full": {"slice_full": "maybe"},
    "slice=640' is invalid for task=classify": {"slice": 640, "task": "classify"},
    "paste=-1": {"paste": -1}, "paste=1' is invalid for task=semantic": {"paste": 1, "task": "semantic"},
    "nwd_c=10": {"nwd_c": 10**400}, "nwd_c=inf' is .* finite and greater than 0": {"nwd_c": INF},
    "nwd_c=0'": {"nwd_c": 0}, "nwd_c=-0.5": {"nwd_c": -0.5}, "nwd_c=nan": {"nwd_c": NAN},
}  # fmt: skip


@pytest.mark.parametrize("said", WRONG)
def test_wrong_arguments(said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^'{said}"):
        check_cfg(WRONG[said])


@pytest.mark.parametrize("hard", [True, False])
def test_sides_of_tiles(hard: bool) -> None:
    for side in (NAN, -INF, [], "", frozenset(), [640], 64.5, "64", b"auto"):
        with pytest.raises((ValueError, TypeError), match=r"^'slice="):
            check_cfg({"slice": side, "task": "detect"}, hard)
    for side in (0, 64, 640.0, "auto"):
        check_cfg({"slice": side, "task": "detect", "slice_overlap": 0.9, "slice_full": False})


STOCK = Path(ultralytics.__file__).parent / "cfg/models/11"


@pytest.mark.parametrize("where", ["root", "elsewhere"])
@pytest.mark.parametrize(
    ("name", "scale", "file", "shown"),
    [
        ("ultralytics/cfg/models/11/yolo11s.yaml", "s", "yolo11.yaml", "yolo11s-light-smallob"),
        ("yolo11s-light-smallob.yaml", "s", "yolo11.yaml", "yolo11s-light-smallob"),
        ("yolo11m-smallob.yaml", "m", "yolo11-smallob.yaml", "yolo11m-smallob"),
        ("yolo11s.yaml", "s", None, "yolo11s"),
        ("yolo11.yaml", "", None, "yolo11"),
        ("ultralytics/cfg/models/11/yolo11s-seg.yaml", "s", None, "yolo11s-seg"),  # ours has none of that path
    ],
)
def test_model_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, scale: str, file: str | None, shown: str,
    where: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(root if where == "root" else tmp_path)
    d = yaml_model_load(name)
    expected = root / "ultralytics/cfg/models/11" / file if file else STOCK / Path(name).name.replace("11s", "11")
    assert (d["scale"], Path(d["yaml_file"]).stem) == (scale, shown)
    assert d["backbone"] + d["head"] == (lambda y: y["backbone"] + y["head"])(yaml.safe_load(expected.read_text()))
    assert (len(d["head"][-1][0]) == 4) is bool(file)  # levels


def test_file_in_the_working_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("yolo11-smallob.yaml", "ultralytics/cfg/models/11/yolo11.yaml"):
        write_tree(tmp_path, {name: "nc: 1\nbackbone: [[-1, 1, Conv, [8]]]\nhead: []"})
        assert yaml_model_load(name)["yaml_file"] == name
        assert Path(check_file(name)).resolve() == (tmp_path / name).resolve()
    assert check_file("no-such-model.yaml", hard=False) == []
    with pytest.raises(FileNotFoundError, match=r"no-such-model\.yaml"):
        check_file("no-such-model.yaml")
