"""Training that is killed, stopped, out of disk space or given bad data: what remains, and how it continues."""

import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper
from ultralytics import YOLO
from ultralytics import cfg as our_cfg
from ultralytics.engine.trainer import BaseTrainer

from small_object.errors import UserError
from tests.helpers.command_server import Server
from tests.helpers.common import TINY_MODEL, read_csv, write_data

EPOCHS = 3
IMAGES = {"train": 8, "val": 4}
ARGUMENTS = {
    "epochs": EPOCHS, "imgsz": 64, "batch": 4, "nbs": 12, "close_mosaic": 2, "warmup_epochs": 1.0, "plots": False,
    "device": "cpu", "pretrained": False, "verbose": False, "exist_ok": True,
}  # fmt: skip


class Killed(BaseException):
    """Ends a training as a kill does, but for the process: nothing catches it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("faults") / "set", ("thing",), IMAGES)


def train(data: Path, folder: Path, when: dict[str, Callable] | None = None, **options: Any) -> BaseTrainer:
    """Train a tiny model into a folder, or resume what is there."""
    last = folder / "weights/last.pt"
    (data.parent / "tiny.yaml").write_text(TINY_MODEL)
    model = YOLO(last if last.exists() else data.parent / "tiny.yaml", task="detect")
    for event, function in (when or {}).items():
        model.add_callback(event, function)
    options = {"resume": True} if last.exists() else ARGUMENTS | {"data": str(data), **options}
    model.train(**options, project=str(folder.parent), name=folder.name)
    return model.trainer


def load_all(folder: Path) -> None:
    """Load all checkpoints of a run: none may be damaged."""
    for file in (folder / "weights").glob("[!.]*.pt"):
        torch.load(file, map_location="cpu", weights_only=False)


def kill_in(epoch: int) -> Callable[[BaseTrainer], None]:
    def kill(trainer: BaseTrainer) -> None:
        if trainer.epoch == epoch:
            raise Killed

    return kill


def read_epoch(folder: Path) -> int:
    """Return the epoch of the last checkpoint; all checkpoints must be whole."""
    load_all(folder)
    return torch.load(folder / "weights/last.pt", weights_only=False)["epoch"]


def assert_complete(folder: Path) -> None:
    assert [row["epoch"] for row in read_csv(folder / "results.csv")] == [str(i + 1) for i in range(EPOCHS)]
    assert {file.name for file in (folder / "weights").iterdir()} == {"last.pt", "best.pt"}
    load_all(folder)


@pytest.mark.parametrize("slice", [0, 64])
def test_a_killed_run_is_resumed(data: Path, tmp_path: Path, slice: int) -> None:
    with pytest.raises(Killed):
        train(data, tmp_path / "run", {"on_train_batch_end": kill_in(2)}, slice=slice)
    rows = read_csv(tmp_path / "run/results.csv")
    assert read_epoch(tmp_path / "run") == 1 and len(rows) == 2
    trainer = train(data, tmp_path / "run")
    assert trainer.start_epoch == 2 and trainer.args.slice == slice
    assert_complete(tmp_path / "run")
    assert read_csv(tmp_path / "run/results.csv")[:2] == rows


def test_killed_after_the_last_epoch(data: Path, tmp_path: Path) -> None:
    """Only the final validation is left, also after it was killed once more in its midst."""
    last = EPOCHS - 1
    with pytest.raises(Killed):
        train(data, tmp_path / "run", {"on_model_save": kill_in(last)})
    best = (tmp_path / "run/weights/best.pt").stat().st_size
    with pytest.raises(Killed):
        train(data, tmp_path / "run", {"on_fit_epoch_end": kill_in(last + 1)})
    assert (tmp_path / "run/weights/best.pt").stat().st_size < best  # stripped, and all else is as it was
    assert read_epoch(tmp_path / "run") == last
    trainer = train(data, tmp_path / "run")
    assert trainer.metrics["metrics/mAP50(B)"] >= 0
    assert_complete(tmp_path / "run")


@pytest.mark.parametrize("at", ["last.pt", "move"])
def test_killed_in_the_writing_of_a_checkpoint(server: Server, data: Path, tmp_path: Path, at: str) -> None:
    """A real SIGKILL, when half of a file is written, and between two moves."""
    folder = tmp_path / "run"
    code = f"""
import os, signal
from pathlib import Path
from tests.stress import test_faults
write, move = Path.write_bytes, Path.replace
def late():
    return Path({str(folder / "results.csv")!r}).read_text().count("\\n") == 4
def half(path, content):
    if path.name == {at!r} and late():
        write(path, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, content)
def replace(path, target):
    if {at == "move"} and Path(target).name == "last.pt" and late():
        os.kill(os.getpid(), signal.SIGKILL)
    return move(path, target)
Path.write_bytes, Path.replace = half, replace
test_faults.train(Path({str(data)!r}), Path({str(folder)!r}))
"""
    status, said = server.run(["python", "-c", code], tmp_path)
    assert status == -signal.SIGKILL, said
    assert read_epoch(folder) == 1
    train(data, folder)
    assert_complete(folder)


@pytest.mark.parametrize("at", ["last.pt", "results.csv"])
def test_a_full_disk(data: Path, tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_half(file: Path, content: bytes) -> int:
        if file.name == at and (tmp_path / "run/weights/last.pt").exists():
            write(file, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        return write(file, content)

    def save_half(trainer: BaseTrainer, metrics: dict) -> None:
        save_metrics(trainer, metrics)
        if at == "results.csv" and trainer.epoch == 1:
            trainer.csv.write_text(trainer.csv.read_text()[:-20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(trainer.csv))

    write, save_metrics = Path.write_bytes, BaseTrainer.save_metrics
    said = r"No space left on device\. Free some space\. .*; resume with: yolo train resume=True model=.*last\.pt$"
    with monkeypatch.context() as patch:
        patch.setattr(BaseTrainer, "save_metrics", save_half)
        patch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(UserError, match=said) as error:
            train(data, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert read_epoch(tmp_path / "run") == 0
    train(data, tmp_path / "run")
    assert_complete(tmp_path / "run")


@pytest.mark.parametrize("slice", [0, 64])
def test_an_image_that_can_not_be_read_any_more(tmp_path: Path, caplog: pytest.LogCaptureFixture, slice: int) -> None:
    own = write_data(tmp_path / "set", ("thing",), IMAGES)
    image, label = (tmp_path / f"set/{kind}/train/{name}" for kind, name in (("images", "3.png"), ("labels", "5.txt")))

    def damage(trainer: BaseTrainer) -> None:
        if trainer.epoch == 0:
            image.write_bytes(image.read_bytes()[:50])
            label.write_bytes(b"\xff\xfe not a label")
            dataset = trainer.train_loader.dataset
            index = dataset.im_files.index(str(image))
            dataset.ims[index] = None  # no longer in memory
            if not slice and index in dataset.buffer:
                dataset.buffer.remove(index)

    trainer = train(own, tmp_path / "run", {"on_train_epoch_end": damage}, slice=slice)
    assert trainer.epoch == 2 and np.isfinite(trainer.loss.item())
    assert caplog.text.count(f"{image}: can no longer be read; another image replaces it") == 1
    caplog.clear()
    trainer = train(own, tmp_path / "next", epochs=1, slice=slice)
    assert f"{image}: ignoring corrupt image/label" in caplog.text  # upstream's scan
    assert f"{label.with_suffix('').name}.png: ignoring corrupt image/label" in caplog.text
    with pytest.raises(UserError, match="images can no longer be read"):
        for file in (tmp_path / "set/images/train").iterdir():
            file.write_bytes(b"")
        dataset = trainer.train_loader.dataset
        dataset.ims[:] = [None] * dataset.ni
        [dataset[i] for i in range(dataset.ni)]


def test_a_loss_that_is_not_a_number(data: Path, tmp_path: Path) -> None:
    """Once, and the run goes back to the last checkpoint; again and again, and it ends with advice."""
    times = []

    def spoil(trainer: BaseTrainer) -> None:
        if trainer.epoch == 2 and (always or not times):
            times.append(trainer.epoch)
            for parameter in trainer.model.parameters():
                parameter.data.fill_(float("nan"))

    always = False
    trainer = train(data, tmp_path / "once", {"on_train_epoch_start": spoil})
    assert len(times) == 1 and np.isfinite(trainer.loss.item())
    assert_complete(tmp_path / "once")
    always = True
    with pytest.raises(UserError, match=r"NaN persisted for 4 epochs: lower lr0"):
        train(data, tmp_path / "always", {"on_train_epoch_start": spoil})
    load_all(tmp_path / "always")


@pytest.mark.parametrize(
    ("said", "kind", "match"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Bus error. Its workers are out of shared memory.", UserError,
         r"no space left in shared memory \(/dev/shm\).*workers=0.*pid 7"),
        ("something else", RuntimeError, "something else"),
    ],
    ids=["shared memory", "else"],
)  # fmt: skip
def test_no_shared_memory(data: Path, tmp_path: Path, said: str, kind: type[Exception], match: str) -> None:
    def fail(trainer: BaseTrainer) -> None:
        raise RuntimeError(said)

    with pytest.raises(kind, match=match):
        train(data, tmp_path / "run", {"on_train_batch_start": fail})


def run_yolo(server: Server, cwd: Path, epoch_end: str, *args: str) -> tuple[int, str]:
    """Run `yolo` with a statement at the end of each epoch's training; return its status and what it printed."""
    code = f"""
import os, signal
from ultralytics.cfg import entrypoint
from ultralytics.utils.callbacks import base
def at_end(trainer):
    {epoch_end}
base.default_callbacks["on_train_epoch_end"].append(at_end)
entrypoint()
"""
    (cwd / "tiny.yaml").write_text(TINY_MODEL)
    options = [f"{key}={value}" for key, value in ARGUMENTS.items()]
    names = ("model=tiny.yaml", "project=out", "name=run")
    return server.run(["python", "-c", code, "detect", "train", *names, *options, *args], cwd)


def test_ctrl_c(server: Server, data: Path, tmp_path: Path) -> None:
    stop = "signal.raise_signal(signal.SIGINT) if trainer.epoch == {} else None"  # in this thread, at once
    for epoch, advice in ((0, "Stopped. No epoch was finished: start again"),
                          (1, "resume with: yolo train resume=True model=")):  # fmt: skip
        status, said = run_yolo(server, tmp_path, stop.format(epoch), f"data={data}")
        assert status == 130 and "Traceback" not in said, said
        assert advice in said and said.rstrip().endswith("yolo: stopped")
    (advice,) = re.findall(r"resume with: (yolo .*)", said)
    status, said = server.run(advice, tmp_path)
    assert status == 0, said
    assert_complete(tmp_path / "out/run")


def test_a_mistake_in_a_validation_is_one_line(server: Server, tmp_path: Path) -> None:
    own = write_data(tmp_path / "set", ("thing",), IMAGES)
    break_it = "from pathlib import Path; Path('set/images/val/1.png').write_bytes(b'')"
    status, said = run_yolo(server, tmp_path, break_it, f"data={own}", "epochs=1")
    assert status == 1 and "Traceback" not in said
    (line,) = (line for line in said.splitlines() if line.startswith("yolo: "))
    assert line.endswith("1.png: can no longer be read; repair it or remove it from the data")


def test_a_mistake_in_a_loader_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch raises it again, with its traceback as text before the message."""

    def work(debug: str) -> None:
        try:
            raise UserError("1.png: can't be read")
        except UserError:
            ExceptionWrapper(where="in DataLoader worker process 0").reraise()

    monkeypatch.setattr(our_cfg, "stock_entrypoint", work)
    with pytest.raises(SystemExit, match=r"^yolo: 1\.png: can't be read$"):
        our_cfg.entrypoint()
