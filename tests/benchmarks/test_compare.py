"""The benchmark that compares models, its report, the tiles and the stock opponent with a P2 head."""

import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import torch
from ultralytics.nn.tasks import BLOCKS, DetectionModel
from ultralytics.utils.torch_utils import get_flops, get_num_params

from benchmarks import compare, report, training
from benchmarks.common import ROOT
from tests.helpers.common import QUICK, STOCK_MODEL, TINY_MODEL, one_line, read_csv, write_data, write_tree

OURS = "ultralytics/cfg/models/11/yolo11n.yaml"


def find_children(folder: Path) -> list[psutil.Process]:
    """Return the processes that train runs of a comparison."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "--work" in line and line[-1].startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Kill a comparison in the middle, finish it with one more model, which fails, and call it again without it."""
    folder = tmp_path_factory.mktemp("compare")
    data = write_data(folder / "squares", ("a", "b"), {"train": 4, "val": 2})
    bad = TINY_MODEL.replace("[16, 2]", "[16, 2, 3]")
    write_tree(folder, {"one.yaml": STOCK_MODEL.format(80), "two.yaml": TINY_MODEL, "bad.yaml": bad})
    out = folder / "out"
    command = ["--data", str(data), "--epochs", "1", "--imgsz", "32", "--batch", "2", "--seeds", "0", "1"]
    command += ["--jobs", "2", "--device", "cpu", "--out", str(out)]
    command += ["--models", str(folder / "one.yaml"), f"second={folder / 'two.yaml'}+nwd=0.3"]

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.compare", *command], cwd=ROOT, **quiet)
    end = time.monotonic() + 120
    while not (out / "results.csv").exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    found: dict[str, Any] = {"out": out, "killed": read_csv(out / "results.csv")}
    end = time.monotonic() + 30  # a child that is still importing ends when it has done so
    while find_children(out) and time.monotonic() < end:
        time.sleep(0.02)
    found["orphans"] = find_children(out)

    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    compare.LOGGER.addHandler(handler)
    for name, more in (
        ("second", [str(folder / "bad.yaml")]), ("third", []), ("again", ["--again", "max_det=1", "max_det=1+iou=0.1"]),
    ):  # fmt: skip
        said.clear()
        start = time.monotonic()
        status = compare.main([*command, *more])
        found[name] = status, "\n".join(said), time.monotonic() - start
        found[f"{name} rows"] = read_csv(out / "results.csv")
    compare.LOGGER.removeHandler(handler)
    return found


def test_a_killed_comparison_leaves_whole_rows_and_no_children(runs: dict[str, Any]) -> None:
    assert 1 <= len(runs["killed"]) < 4
    assert runs["orphans"] == []
    for row in runs["killed"]:
        assert all(row[name] for name in ("key", "AP", "AP50", "AP50_last", "train_s", "commit", "machine", "command"))


def test_a_comparison_resumes_and_names_a_model_that_fails(runs: dict[str, Any]) -> None:
    (status, printed, _), rows = runs["second"], runs["second rows"]
    assert status == 1 and rows[: len(runs["killed"])] == runs["killed"]
    assert sorted((row["model"], row["seed"]) for row in rows) == [
        ("one", "0"), ("one", "1"), ("second", "0"), ("second", "1"),
    ]  # fmt: skip
    assert f"6 runs, {len(runs['killed'])} of them finished before" in printed
    for seed in (0, 1):
        assert re.search(rf"failed: bad on squares, seed {seed}: .*DualConv.*log\.txt", printed)
    status, printed, seconds = runs["third"]
    assert status == 0 and seconds < 5 and runs["third rows"] == rows
    assert "4 runs, 4 of them finished before" in printed and " on squares, seed " not in printed
    text = (runs["out"] / "report.md").read_text(encoding="utf-8")
    assert "Seeds of each model: 2 (0, 1)" in text and "python -m benchmarks.compare --data" in text
    images = [cv2.imread(str(runs["out"] / picture)) for picture in re.findall(r"!\[.*?\]\((.+?)\)", text)]
    assert len(images) == 2 and all(image.shape[1] > 1000 and image.std() > 5 for image in images)


def test_weights_are_validated_again_without_training(runs: dict[str, Any]) -> None:
    assert runs["again"][0] == 0
    before, after = runs["third rows"], runs["again rows"]
    assert after[:4] == before and len(after) == 12 == len({row["key"] for row in after})
    one = [row for row in after if row["model"].startswith("one") and row["seed"] == "0"]
    assert [row["model"] for row in one] == [
        "one", "one, validated with max_det=1", "one, validated with max_det=1 iou=0.1",
    ]  # fmt: skip
    assert [json.loads(row["overrides"]) for row in one] == [{}, {"max_det": 1}, {"max_det": 1, "iou": 0.1}]
    assert len({(row["settings"], row["train_s"], row["parameters"]) for row in one}) == 1
    for row in one[1:]:
        assert 0 <= float(row["AR_small"]) <= float(one[0]["AR_small"]) and float(row["AP50"]) >= 0
        assert 0 <= float(row["AP_small by object"]) <= 1
        assert row["AP_last"] == row["AP50_last"] == ""
    assert len(read_csv(runs["out"] / "curves.csv")) == 4


def test_rows_hold_what_was_asked_for_and_measured(runs: dict[str, Any]) -> None:
    one, two = (next(row for row in runs["third rows"] if row["model"] == name) for name in ("one", "second"))
    assert (one["overrides"], one["nwd"], one["stock"]) == ("{}", "0.0", "yes")
    assert (two["overrides"], two["nwd"], two["stock"]) == ('{"nwd": 0.3}', "0.3", "no")
    assert [Path(row["yaml"]).name for row in (one, two)] == ["one.yaml", "two.yaml"]
    asked = {"epochs": "1", "imgsz": "32", "batch": "2", "strides": "4 8", "objects small": "2"}
    assert {name: one[name] for name in asked} == asked
    assert float(one["parameters"]) > 1000 and float(one["GFLOPs"]) > 0 and two["settings"] == one["settings"]
    files = read_csv(runs["out"] / "curves.csv"), runs["third rows"]
    assert len({tuple(sorted(row["key"] for row in rows)) for rows in files}) == 1


def test_weights_are_those_of_validated_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.yaml").write_text(STOCK_MODEL.format(2))
    fitness = iter((0.2, 0.9, 0.1))
    validate = training.CurveTrainer.validate

    def validated(self: Any) -> tuple[dict[str, float], float]:
        metrics, _ = validate(self)
        self.best_fitness = max(self.best_fitness, value := next(fitness))
        return metrics, value

    monkeypatch.setattr(training.CurveTrainer, "validate", validated)
    data = write_data(tmp_path / "squares", ("a", "b"), {"train": 2, "val": 1})
    given = {"model": str(tmp_path / "one.yaml"), "data": str(data), "project": str(tmp_path), "epochs": 6}
    trainer = training.CurveTrainer(overrides=QUICK | given | compare.COMMON, points=3)
    trainer.train()
    assert [epoch for epoch, *_ in trainer.curve] == [2, 4, 6]
    assert [seconds for _, seconds, *_ in trainer.curve] == sorted(seconds for _, seconds, *_ in trainer.curve)
    for weights, epoch in ((trainer.best, 4), (trainer.last, 6)):
        assert torch.load(weights, weights_only=False)["epoch"] + 1 == epoch


def test_the_curve_leaves_out_epochs_that_validate_whole_images(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(STOCK_MODEL.format(2))
    data = write_data(tmp_path / "squares", ("a", "b"), {"train": 2, "val": 1})
    given = {"model": str(tmp_path / "one.yaml"), "data": str(data), "project": str(tmp_path), "epochs": 5}
    trainer = training.CurveTrainer(overrides=QUICK | given | compare.COMMON | {"slice": 64, "slice_val": 2}, points=5)
    trainer.train()
    assert [epoch for epoch, *_ in trainer.curve] == [2, 4, 5]


def test_an_interrupted_run_resumes_after_its_last_complete_epoch(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(STOCK_MODEL.format(2))
    data = write_data(tmp_path / "squares", ("a", "b"), {"train": 4, "val": 1})
    given = {"model": str(tmp_path / "one.yaml"), "data": str(data), "project": str(tmp_path), "epochs": 4}
    seen: list[dict[str, Any]] = []

    def remember(trainer: Any) -> None:
        tensors = [x.clone() for part in (trainer.model, trainer.ema.ema) for x in part.state_dict().values()]
        moments = [x.clone() for state in trainer.optimizer.state.values() for x in state.values()]
        rate = [group["lr"] for group in trainer.optimizer.param_groups]
        seen.append({"tensors": tensors + moments, "rate": rate, "rest": (trainer.ema.updates, trainer.curve[:])})

    def interrupt(trainer: Any) -> None:
        if trainer.epoch == 3:
            remember(trainer)
            raise KeyboardInterrupt

    for callback in (interrupt, remember):
        trainer = training.CurveTrainer(overrides=QUICK | given | compare.COMMON | {"exist_ok": True}, points=2)
        trainer.add_callback("on_train_epoch_start", callback)
        if callback is interrupt:
            with pytest.raises(KeyboardInterrupt):
                trainer.train()
        else:
            trainer.train()
    before, after = seen
    assert len(before["tensors"]) == len(after["tensors"]) > 20
    assert all(torch.equal(a, b) for a, b in zip(before["tensors"], after["tensors"], strict=True))
    assert before["rate"] == after["rate"] and before["rest"] == after["rest"]
    assert [epoch for epoch, *_ in trainer.curve] == [2, 4]
    assert trainer.curve[1][1] > trainer.curve[0][1] > 0


@pytest.mark.parametrize(
    ("text", "label", "path", "overrides"),
    [
        ("yolo11n-smallob.yaml", "yolo11n-smallob", "yolo11n-smallob.yaml", {}),
        ("mine=yolo11n.yaml+nwd=0+box=5", "mine", "yolo11n.yaml", {"nwd": 0, "box": 5}),
        (f"{OURS}+nwd_c=12", "yolo11n paste=2 nwd_c=12", OURS, {"paste": 2, "nwd_c": 12}),
        ("a b=yolo11s.yaml+cos_lr=True", "a b", "yolo11s.yaml", {"cos_lr": True}),
    ],
)
def test_models_are_parsed(
    monkeypatch: pytest.MonkeyPatch, text: str, label: str, path: str, overrides: dict[str, Any]
) -> None:
    monkeypatch.chdir(ROOT)
    model = compare.parse_model(text)
    assert (model.label, model.path, model.overrides) == (label, path, overrides)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --data or --preset"),
        (["--data", "{data}", "--models", "none.yaml"], "model `none.yaml`: "),
        (["--data", "{data}", "--models", "yolo11n.yaml+nwdd=1"], "`nwdd` is not a training argument; did you mean"),
        (["--data", "{data}", "--models", "yolo11n.yaml", "yolo11n.yaml"], "two models are labelled `stock yolo11n`"),
        (["--data", "{data}", "--set", "lr0=fast"], "'lr0=fast' is of invalid type"),
        (["--data", "{data}", "--set", "epochs=3"], "`epochs` is equal in all runs or set by an option"),
        (["--data", "{data}", "--jobs", "0"], "--jobs must be at least 1, not 0"),
        (["--data", "{data}", "--device", "99"], "--device 99: must be cpu or one GPU"),
        (["--data", "{data}", "--again", "lr0=1"], "--again lr0: must be one of max_det, "),
        (["--report", "."], "has no results"),
    ],
)
def test_wrong_arguments_give_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_data(tmp_path / "squares", ("a", "b"), {"train": 1, "val": 1})
    with one_line("compare", said):
        compare.main([argument.format(data=data) for argument in arguments])


def test_without_time_nothing_is_started(tmp_path: Path) -> None:
    data = write_data(tmp_path / "squares", ("a", "b"), {"train": 1, "val": 1})
    assert compare.main(["--data", str(data), "--time", "0", "--out", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out").iterdir()) == []


def test_presets_give_what_the_options_leave_open() -> None:
    parse = compare.parse_arguments
    quick = parse(["--preset", "quick", "--data", "my.yaml", "--batch", "8"])
    assert (quick.epochs, quick.imgsz, quick.batch, quick.lr0) == (20, 320, 8, 0.002)
    assert [Path(data).name for data in quick.data] == ["ASS1-demo.yaml", "ASS2-demo.yaml", "my.yaml"]
    assert (parse(["--preset", "full"]).epochs, parse(["--preset", "full"]).imgsz) == (300, 640)
    assert (parse(["--data", "my.yaml"]).data, parse(["--data", "my.yaml"]).epochs) == (["my.yaml"], 100)


SCORES = {"loser": 0.1, "stock yolo11n": 0.2, "stock p2": 0.25, "weak p2": 0.15, "ours": 0.3}


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], str]:
    """Write the report of made-up results: five models, three seeds; return the rows and the text."""
    folder, rng = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
    rows, empty = [], ("AP very tiny", "AP large")
    for label, level in SCORES.items():
        for seed in range(3):
            row: dict[str, Any] = dict.fromkeys(report.COLUMNS, "1") | dict.fromkeys(empty, float("nan"))
            row |= {name: level + rng.uniform(-0.03, 0.03) for name in report.SCORES if name not in empty}
            row |= {f"objects {group}": 7 * (f"AP {group}" not in empty) for group in report.SIZE_GROUPS}
            row |= {
                "key": f"{label}{seed}", "model": label, "data": "x/set.yaml", "seed": seed, "overrides": "{}",
                "settings": "{}", "stock": "yes" if "p2" in label or "stock" in label else "no", "GFLOPs": 40 * level,
                "yaml": f"{label.removeprefix('stock ')}.yaml", "train_s": rng.uniform(50, 99),
                "strides": "4 8 16 32" if label != "stock yolo11n" else "8 16 32", "epochs": 10,
            }  # fmt: skip
            rows.append(row)
            report.add_rows(folder / "results.csv", report.COLUMNS, row["key"], [row])
            curve = [{"epoch": e, "seconds": 10 * e, "AP50": level * (1 - 0.5**e), "AP": row["AP"] * e / 10}
                     for e in range(2, 11)]  # fmt: skip
            report.add_rows(folder / "curves.csv", report.CURVE_COLUMNS, row["key"], [row | point for point in curve])
    assert compare.main(["--report", str(folder)]) == 0
    return rows, (folder / "report.md").read_text(encoding="utf-8")


def tables(text: str) -> list[dict[str, dict[str, str]]]:
    """Return the tables of a document: cells by the row's first cell and the column's title."""
    found: list[list[list[str]]] = []
    for before, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return [{row[0]: dict(zip(table[0], row, strict=True)) for row in table[2:]} for table in found]


def test_the_report_states_means_deviations_and_ratios_to_stock(reported: tuple[list[dict], str]) -> None:
    rows, text = reported
    scores, costs, progress = tables(text)
    for label in SCORES:
        for column, title in {"AP": "AP", "AP tiny": "AP 8²-16²", "AP50_last": "AP50 last"}.items():
            values = [100 * row[column] for row in rows if row["model"] == label]
            mean, deviation = (float(part) for part in scores[label][title].replace("*", "").split(" ± "))
            assert mean == pytest.approx(np.mean(values), abs=0.0051)
            assert deviation == pytest.approx(np.std(values, ddof=1), abs=0.0051)
        mean = np.mean([100 * row["AP"] for row in rows if row["model"] == label])
        means = [float(progress[label][f"AP at {share:.0%}"].split(" ± ")[0]) for share in (0.2, 0.5, 1)]
        assert means == pytest.approx([0.2 * mean, 0.5 * mean, mean], abs=0.0051) and "AP at 10%" not in progress[label]
    assert [label for label, row in scores.items() if "**" in row["AP"]] == ["ours"] and scores["loser"]["seeds"] == "3"
    assert not [title for title in scores["ours"] if "<8²" in title or "96²+" in title]
    assert "Seeds of each model: 3 (0, 1, 2)" in text and "7 tiny, 7 small, 7 medium" in text

    assert "to the best stock P2 model by AP, stock p2" in text
    for label in SCORES:
        for mark, reference in (("¹", "stock yolo11n"), ("²", "stock p2")):
            for column, title in (("AP", "AP"), ("AP_small", "AP_small"), ("train_s", "training s")):
                middle = np.min if column == "train_s" else np.mean
                means = [middle([row[column] for row in rows if row["model"] == m]) for m in (label, reference)]
                assert float(costs[label][f"{title} {mark}"]) == pytest.approx(means[0] / means[1], abs=0.0051)
    assert (costs["ours"]["GFLOPs"], costs["loser"]["GFLOPs"]) == ("12.00", "**4.00**")


def test_the_stock_opponent_is_yolo11_down_to_p2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    model = DetectionModel("benchmarks/models/yolo11n-p2.yaml", verbose=False)
    assert not [m for m in model.modules() if isinstance(m, tuple(BLOCKS))]
    assert model.stride.tolist() == [4, 8, 16, 32]
    assert (round(get_num_params(model) / 1e6, 2), round(get_flops(model, 640), 1)) == (2.74, 11.5)
