"""Trainings that are killed, stopped, out of disk or given bad data: what is left, and what comes of it."""

import csv
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper
from ultralytics import YOLO
from ultralytics.cfg import _users_mistake
from ultralytics.data.base import BaseDataset
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils.patches import torch_save
from ultralytics.utils.torch_utils import init_seeds

from small_object.errors import UserError
from tests.helpers.common import TINY_MODEL, Run, upstream_before
from tests.stress import faults

ROOT = Path(__file__).resolve().parents[2]

OPTIONS = {  # what a run's state depends on: waiting gradients and the buffer of mosaics; slices, and early stopping
    "mosaic": {"nbs": 12, "close_mosaic": 2},
    "slices": {"nbs": 4, "close_mosaic": 0, "slice": 64, "multi_scale": 0.5, "optimizer": "SGD", "patience": 2},
}


class Killed(BaseException):
    """Ends a training as a kill does, but for the process: nothing catches it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.draw(tmp_path_factory.mktemp("faults") / "set")


def train(data: Path, folder: Path, when: dict[str, Callable] | None = None, **options: Any) -> BaseTrainer:
    """Train a tiny model into a folder, or go on with what is there."""
    init_seeds(0)  # older versions of upstream take random numbers before they do this
    last = folder / "weights/last.pt"
    (data.parent / "tiny.yaml").write_text(TINY_MODEL)
    model = YOLO(last if last.exists() else data.parent / "tiny.yaml", task="detect")
    for event, function in (when or {}).items():
        model.add_callback(event, function)
    options = {"resume": True} if last.exists() else faults.ARGUMENTS | {"data": str(data), **options}
    model.train(**options, project=str(folder.parent), name=folder.name)
    return model.trainer


@pytest.fixture(scope="module")
def references(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    folder = tmp_path_factory.mktemp("references")
    train(data, folder / "scan", epochs=1)  # in older versions of upstream scanning the labels takes random numbers
    for name, options in OPTIONS.items():
        train(data, folder / name, **options)
        assert {file.name for file in (folder / name / "weights").iterdir()} == {"last.pt", "best.pt"}
    return {name: faults.result(folder / name) for name in OPTIONS}


def kill() -> None:
    raise Killed


def stop_at(epoch: int, batch: int | None = None) -> dict[str, Callable]:
    """Return a callback that kills a training in a batch of an epoch, or when the epoch's training is done."""
    seen = []

    def stop(trainer: BaseTrainer) -> None:
        seen.append(trainer.epoch)
        if trainer.epoch == epoch and (batch is None or seen.count(epoch) == batch + 1):
            raise Killed

    return {"on_train_epoch_end" if batch is None else "on_train_batch_end": stop}


@pytest.mark.parametrize("epoch", [1, 3, 4])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_resumed_run_is_the_run_itself(
    data: Path, references: dict[str, tuple], tmp_path: Path, name: str, epoch: int
) -> None:
    if epoch >= len(references[name][0]) - 1:
        pytest.skip("stopped early before that")
    with pytest.raises(Killed):
        train(data, tmp_path / "run", stop_at(epoch, None if epoch == 3 else 1), **OPTIONS[name])
    assert (tmp_path / f"run/weights/resume-{epoch - 1}.pt").is_file()
    train(data, tmp_path / "run")
    assert faults.same(faults.result(tmp_path / "run"), references[name])
    assert {file.name for file in (tmp_path / "run/weights").iterdir()} == {"last.pt", "best.pt"}


def test_it_is_not_so_by_itself(data: Path, references: dict[str, tuple], tmp_path: Path) -> None:
    """Without what this fork keeps, the run goes on from the rounded EMA, as upstream's does."""
    with pytest.raises(Killed):
        train(data, tmp_path / "run", stop_at(2), **OPTIONS["mosaic"])
    (tmp_path / "run/weights/resume-1.pt").unlink()
    train(data, tmp_path / "run")
    rows, weights = faults.result(tmp_path / "run")
    reference, expected = references["mosaic"]
    assert rows[:3] == reference[:3] and [row[0] for row in rows] == [row[0] for row in reference]
    assert rows[3:] != reference[3:] and not all(map(torch.equal, weights["last"].values(), expected["last"].values()))


def test_a_foreign_state_is_left_alone(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        with pytest.raises(Killed):
            train(data, tmp_path / name, stop_at(1), seed=seed, epochs=2)
    rest = "weights/resume-0.pt"
    for content, word in (((tmp_path / "two" / rest).read_bytes(), "not of"), (b"x", "unreadable")):
        (tmp_path / "one" / rest).write_bytes(content)
        caplog.clear()
        with pytest.raises(Killed):
            train(data, tmp_path / "one", stop_at(1))
        assert f"resume-0.pt: {word}" in caplog.text


def test_a_run_that_was_told_to_stop_goes_on(data: Path, references: dict[str, tuple], tmp_path: Path) -> None:
    """By `stop`, as a platform does, which saves a checkpoint and ends the epochs."""

    def stop(trainer: BaseTrainer) -> None:
        trainer.stop |= trainer.epoch == 1

    def leave(trainer: BaseTrainer) -> None:
        trainer.final_eval = lambda: None  # which would make the checkpoint one that can't be resumed

    when = {"on_train_epoch_end": stop, "on_train_start": leave}
    assert train(data, tmp_path / "run", when, **OPTIONS["mosaic"]).epoch == 1
    assert train(data, tmp_path / "run").start_epoch == 2
    assert faults.same(faults.result(tmp_path / "run"), references["mosaic"])


def test_data_that_shrank_in_between(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = faults.draw(tmp_path / "set")
    with pytest.raises(Killed):
        train(own, tmp_path / "run", stop_at(1), **OPTIONS["mosaic"])
    for i in range(10):
        (tmp_path / f"set/images/train/{i}.png").unlink()
    assert train(own, tmp_path / "run").epoch == faults.EPOCHS - 1
    assert "resume-0.pt: the data, batch, imgsz or close_mosaic changed" in caplog.text


def test_killed_after_the_last_epoch(data: Path, references: dict[str, tuple], tmp_path: Path) -> None:
    """The final validation is left: of a run to its last epoch, and of one that was to stop early."""
    for name, options in OPTIONS.items():
        state = references[name][0][-1][0]

        def stop(trainer: BaseTrainer, epochs: str = state) -> None:
            if trainer.epoch + 1 == int(epochs):
                raise Killed

        with pytest.raises(Killed):
            train(data, tmp_path / name, {"on_model_save": stop}, **options)
        best = (tmp_path / name / "weights/best.pt").stat().st_size
        with pytest.raises(Killed):
            train(data, tmp_path / name, {"on_fit_epoch_end": lambda _: kill()})
        assert (tmp_path / name / "weights/best.pt").stat().st_size < best  # stripped, and all else is as it was
        trainer = train(data, tmp_path / name)
        assert faults.same(faults.result(tmp_path / name), references[name])
        assert trainer.metrics["metrics/mAP50(B)"] >= 0


@pytest.mark.skipif(upstream_before("8.4.150"), reason="a process's first training differs from its later ones there")
def test_killed_in_the_writing_of_a_checkpoint(data: Path, references: dict[str, tuple], tmp_path: Path) -> None:
    """A real SIGKILL, when half of a file is written, and between two moves."""
    for at in ("last.pt", "move"):
        folder = tmp_path / at
        code = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = {[str(ROOT / "tests"), str(ROOT / "benchmarks")]!r}
from tests.stress import test_faults
write, move = Path.write_bytes, Path.replace
def half(path, content):
    if path.name.endswith({at!r}) and Path({str(folder / "results.csv")!r}).read_text().count("\\n") == 4:
        write(path, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, content)
def replace(path, target):
    moved = move(path, target)
    if {at == "move"} and path.name == "resume-2.pt" and path.parent.name == ".saving":
        os.kill(os.getpid(), signal.SIGKILL)
    return moved
Path.write_bytes, Path.replace = half, replace
test_faults.faults.torch.set_num_threads(1)
test_faults.train(Path({str(data)!r}), Path({str(folder)!r}), **test_faults.OPTIONS["mosaic"])
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert faults.unreadable(folder) == 0
        assert torch.load(folder / "weights/last.pt", weights_only=False)["epoch"] == 1
        train(data, folder)
        assert faults.same(faults.result(folder), references["mosaic"])
        assert not (folder / "weights/.saving").exists()


@pytest.mark.parametrize("at", ["last.pt", "resume-1.pt", "results.csv"])
def test_a_full_disk(
    data: Path, references: dict[str, tuple], tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: Any) -> int:
        if self.name.endswith(at) and "1," in (tmp_path / "run/results.csv").read_text():
            write(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, content)

    def full_csv(trainer: BaseTrainer, metrics: dict) -> None:
        save_metrics(trainer, metrics)
        if at == "results.csv" and trainer.epoch == 1:
            text = trainer.csv.read_text()
            trainer.csv.write_text(text[:-20])  # half of a row
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(trainer.csv))

    write, save_metrics = Path.write_bytes, BaseTrainer.save_metrics
    with monkeypatch.context() as patch:
        patch.setattr(BaseTrainer, "save_metrics", full_csv)
        if at != "results.csv":
            patch.setattr(
                Path,
                "write_bytes",
                lambda s, c: full(s, c) if (tmp_path / "run/weights/last.pt").exists() else write(s, c),
            )
        with pytest.raises(
            UserError, match=r"No space left on device\. Make room\. .*last\.pt is of the last whole"
        ) as error:
            train(data, tmp_path / "run", **OPTIONS["mosaic"])
    assert "\n" not in str(error.value)
    assert faults.unreadable(tmp_path / "run") == 0
    assert torch.load(tmp_path / "run/weights/last.pt", weights_only=False)["epoch"] == 0
    train(data, tmp_path / "run")
    assert faults.same(faults.result(tmp_path / "run"), references["mosaic"])


def test_files_of_pytorch_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, value = tmp_path / "x.pt", {"a": torch.arange(3)}
    torch.save(value, file)
    assert torch.save is torch_save and torch.equal(torch.load(file)["a"], value["a"])
    link = tmp_path / "link.pt"
    link.symlink_to(file)
    torch.save({"a": torch.ones(1)}, str(link))
    assert link.is_symlink() and torch.load(file)["a"] == 1
    content = file.read_bytes()

    def full(path: Path, content: Any) -> None:
        raise OSError(errno.ENOSPC, "full", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="full"):
        torch.save(value, file)
    assert file.read_bytes() == content and sorted(path.name for path in tmp_path.iterdir()) == ["link.pt", "x.pt"]
    with (tmp_path / "open.pt").open("wb") as opened:
        torch.save(value, opened)
    assert torch.equal(torch.load(tmp_path / "open.pt")["a"], value["a"])
    with pytest.raises((RuntimeError, OSError)):
        torch.save(value, "/dev/full")


def test_results_end_with_the_checkpoint(tmp_path: Path) -> None:
    class Run:
        csv = tmp_path / "results.csv"

    BaseTrainer._cut_results(Run, 2)
    assert not Run.csv.exists()
    for rows, left in (
        ("1,2.5,0.1\n2,3.5,0.2\n", 2), ("1,2.5,0.1\n2,3.5,0.2\n3,4,0.3\n3,5,0.3\n", 2), ("1,2,3\n2,3,4\n3,0", 2),
        ("1,2,3\n2,3\n", 1),
    ):  # fmt: skip
        Run.csv.write_text("epoch,time,loss\n" + rows)
        BaseTrainer._cut_results(Run, 2)
        with Run.csv.open() as file:
            assert list(csv.reader(file)) == [["epoch", "time", "loss"], *(r.split(",") for r in rows.split()[:left])]


@pytest.mark.parametrize("slice", [0, 64])
def test_an_image_that_can_not_be_read_any_more(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, slice: int
) -> None:
    own = faults.draw(tmp_path / "set")
    image, label = (tmp_path / f"set/{kind}/train/{name}" for kind, name in (("images", "3.png"), ("labels", "5.txt")))

    def damage(trainer: BaseTrainer) -> None:
        if trainer.epoch == 0:
            image.write_bytes(image.read_bytes()[:50])
            label.write_bytes(b"\xff\xfe not a label")
            dataset = trainer.train_loader.dataset
            index = dataset.im_files.index(str(image))
            dataset.ims[index] = None  # not in memory any more
            if not slice:
                dataset.buffer.remove(index)

    trainer = train(own, tmp_path / "run", {"on_train_epoch_end": damage}, epochs=3, slice=slice)
    assert trainer.epoch == 2 and np.isfinite(float(trainer.loss))
    assert caplog.text.count(f"{image}: can't be read any more; another image takes its place") == 1
    caplog.clear()
    trainer = train(own, tmp_path / "next", epochs=1, slice=slice)
    assert f"{image}: ignoring corrupt image/label" in caplog.text  # upstream's scan
    assert f"{label.with_suffix('').name}.png: ignoring corrupt image/label" in caplog.text
    validated = tmp_path / "set/images/val/2.png"
    with pytest.raises(UserError, match=f"{validated}: can't be read any more; repair it or take it out"):
        train(own, tmp_path / "val", {"on_val_start": lambda _: validated.write_bytes(b"")}, epochs=1)
    with pytest.raises(UserError, match="images can't be read any more"):
        for file in (tmp_path / "set/images/train").iterdir():
            file.write_bytes(b"")
        dataset = trainer.train_loader.dataset
        dataset.ims[:] = [None] * dataset.ni
        [dataset[i] for i in range(dataset.ni)]


def test_data_sets_that_add_to_a_label_are_upstreams() -> None:
    """What they add is of the index asked for, not of an image in its place."""

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


@pytest.mark.skipif(upstream_before("8.4.100"), reason="upstream goes back only if the fitness is spoilt, too")
def test_a_loss_that_is_not_a_number(data: Path, tmp_path: Path) -> None:
    """Once, and the run goes back to the last checkpoint; again and again, and it ends with advice."""
    times = []

    def spoil(trainer: BaseTrainer) -> None:
        if trainer.epoch == 2 and (always or not times):
            times.append(trainer.epoch)
            for parameter in trainer.model.parameters():
                parameter.data.fill_(float("nan"))

    always = False
    trainer = train(data, tmp_path / "once", {"on_train_epoch_start": spoil}, epochs=4)
    assert len(times) == 1 and np.isfinite(float(trainer.loss))
    rows, weights = faults.result(tmp_path / "once")
    assert [row[0] for row in rows[1:]] == ["1", "2", "3", "4"]
    assert all(value.isfinite().all() for part in weights.values() for value in part.values())
    always = True
    with pytest.raises(UserError, match=r"NaN persisted for 4 epochs: lower lr0"):
        train(data, tmp_path / "always", {"on_train_epoch_start": spoil}, epochs=4)
    assert faults.unreadable(tmp_path / "always") == 0


def test_no_shared_memory(data: Path, tmp_path: Path) -> None:
    said = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are "
    said += "out of shared memory. Please try to raise your shared memory limit."

    def fail(trainer: BaseTrainer) -> None:
        raise RuntimeError(said)

    with pytest.raises(UserError, match=r"no space in shared memory \(/dev/shm\).*workers=0.*pid 7"):
        train(data, tmp_path / "run", {"on_train_batch_start": fail})

    def other(trainer: BaseTrainer) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train(data, tmp_path / "run", {"on_train_batch_start": other})


def command(run: Run, cwd: Path, epoch_end: str, *args: str) -> subprocess.CompletedProcess:
    """Run `yolo` with a statement at the end of each epoch's training."""
    code = f"""
import os, signal
from ultralytics.cfg import entrypoint
from ultralytics.utils.callbacks import base
def at_end(trainer):
    {epoch_end}
base.default_callbacks["on_train_epoch_end"].append(at_end)
entrypoint()
"""
    options = [f"{key}={value}" for key, value in faults.ARGUMENTS.items()]
    return run("-c", code, "detect", "train", *options, *args, cwd=cwd)


def test_ctrl_c(data: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY_MODEL)
    stop = "os.kill(os.getpid(), signal.SIGINT) if trainer.epoch == {} else None"
    for epoch, said in ((0, "Stopped. No epoch was finished: start anew"),
                        (1, "go on with: yolo train resume=True model=")):  # fmt: skip
        done = command(run, tmp_path, stop.format(epoch), "model=tiny.yaml", f"data={data}", "project=out", "name=run")
        assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr
        assert said in done.stdout and done.stdout.rstrip().endswith("yolo: stopped")
    (advice,) = re.findall(r"go on with: yolo (.*)", done.stdout)
    done = run("-c", "from ultralytics.cfg import entrypoint; entrypoint()", *advice.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out/run/results.csv").read_text().splitlines()) == 1 + faults.EPOCHS


def test_a_mistake_in_a_validation_is_one_line(run: Run, tmp_path: Path) -> None:
    own = faults.draw(tmp_path / "set")
    (tmp_path / "tiny.yaml").write_text(TINY_MODEL)
    break_it = "from pathlib import Path; Path('set/images/val/1.png').write_bytes(b'')"
    done = command(run, tmp_path, break_it, "model=tiny.yaml", f"data={own}", "project=out", "epochs=1")
    assert done.returncode == 1
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("yolo: "))
    assert said.endswith("1.png: can't be read any more; repair it or take it out of the data")
    assert "Traceback" not in done.stderr


def test_a_mistake_in_a_loader_process_is_one_line() -> None:
    """PyTorch raises it anew, with its traceback as text before the message."""

    def work() -> None:
        raise UserError("1.png: can't be read")

    try:
        work()
    except UserError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(UserError) as error:
        wrapped.reraise()
    assert "Traceback" in str(error.value) and _users_mistake(error.value) == "1.png: can't be read"


def test_the_tool_that_kills(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY_MODEL)
    table = tmp_path / "faults.md"
    done = run(ROOT / "tests/stress/faults.py", "--kills", "1", "--model", "tiny.yaml", "--out", table, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (step|checkpoint|validation) \| (\d+) \|.* (\d+) \| (\d+) \|$", table.read_text(), re.M)
    assert [row[0] for row in rows] == list(faults.PHASES) and all(row[2:] == ("0", "0") for row in rows)
    assert sum(int(row[1]) for row in rows) >= 2
