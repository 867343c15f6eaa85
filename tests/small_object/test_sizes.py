"""Accuracy by object size: the scores, how a validation collects them, and where they are shown."""

import copy
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect.train import DetectionTrainer
from ultralytics.models.yolo.detect.val import DetectionValidator, StockDetectionValidator
from ultralytics.utils import LOGGER
from ultralytics.utils.plotting import plot_results

from small_object.sizes import SIZE_GROUPS, SIZE_KEYS, SIZE_RANGES, SizeMetrics, SizeRecords
from tests.helpers.common import QUICK, TINY_MODEL, predict_objects, read_csv, write_set, write_tree

NAMES = {0: "airplane", 1: "person", 2: "truck"}
SCORES = ("ap", "ap50", "ar")
Image = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # as `SizeRecords.add` takes it


def random_images(seed: int, count: int = 6, objects: int = 12, classes: int = 2) -> list[Image]:
    """Return images of 400x300 px with objects of all sizes, predictions near most of them, and false ones."""
    rng = np.random.default_rng(seed)
    images, scores = [], iter(rng.permutation(4096) / 4096)  # different in all images, and exact in float32
    for _ in range(count):
        n = int(rng.integers(0, objects + 1))
        size = np.exp(rng.uniform(np.log(4), np.log(140), (n, 1))) * np.exp(rng.normal(0, 0.2, (n, 2)))
        corner = rng.uniform(0, 1, (n, 2)) * np.maximum((400, 300) - size, 0)
        targets = np.hstack((corner, corner + size))
        near = np.repeat(targets, 2, 0) + rng.normal(0, 0.12, (2 * n, 4)) * np.repeat(np.tile(size, 2), 2, 0)
        stray = rng.uniform(0, 250, (n + 2, 2))
        stray = np.hstack((stray, stray + rng.uniform(3, 50, stray.shape)))
        boxes = np.vstack((near[rng.random(len(near)) < 0.8], stray))
        boxes = np.hstack((boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + 1)))
        # exact in float32 and to 0.01 px
        targets, boxes = (np.clip(np.round(x * 4) / 4, 0, (400, 300) * 2) for x in (targets, boxes))
        conf = np.array([next(scores) for _ in boxes], np.float32)
        images.append((targets, rng.integers(0, classes, n), boxes, conf, rng.integers(0, classes, len(boxes))))
    return images


def evaluate(images: list[Image], max_det: int = 100, names: dict[int, str] = NAMES) -> SizeMetrics:
    records = SizeRecords()
    for image in images:
        records.add((300, 400), *image)
    return records.evaluate(names, max_det)


def overlap(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def plain_scores(images: list[Image], c: int, low: float, high: float, threshold: float) -> tuple[float, float]:
    """Return AP and recall of a class at one IoU threshold, in plain Python."""

    def inside(box: list[float]) -> bool:
        return low <= (box[2] - box[0]) * (box[3] - box[1]) < high

    hits, total = [], 0
    for targets, target_cls, boxes, conf, cls in images:
        free = targets[target_cls == c].tolist()
        total += sum(map(inside, free))
        for score, box in sorted(zip(conf[cls == c].tolist(), boxes[cls == c].tolist(), strict=True), reverse=True):
            matches = [t for t in free if overlap(t, box) >= threshold]
            best = max(matches, key=lambda t: (inside(t), overlap(t, box)), default=None)
            if best is not None:
                free.remove(best)
            if inside(box if best is None else best):
                hits.append((score, best is not None))
    right, curve = 0, []
    for seen, (_, hit) in enumerate(sorted(hits, reverse=True), 1):
        right += hit
        curve.append((right / total, right / seen))
    at = [max((p for r, p in curve if r >= point), default=0) for point in np.linspace(0, 1, 101)]
    return sum(at) / 101, right / total


CASES = {f"seed {seed}": random_images(seed) for seed in (10, 11)}
CASES["many"] = random_images(2, count=12, objects=30)
CASES["no predictions"] = [(t, c, np.zeros((0, 4)), np.zeros(0), np.zeros(0)) for t, c, *_ in random_images(3)]


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_a_plain_computation(case: str) -> None:
    images = CASES[case]
    ours = evaluate(images)
    thresholds = np.linspace(0.5, 0.95, 10).tolist()
    assert set(ours.per_class) == {int(c) for _, classes, *_ in images for c in classes}
    for c, scores in ours.per_class.items():
        areas = np.concatenate([(t[k == c, 2:] - t[k == c, :2]).prod(1) for t, k, *_ in images])
        for name, (low, high) in SIZE_RANGES.items():
            assert scores.counts[name] == ((low <= areas) & (areas < high)).sum()
            if scores.counts[name]:
                plain = [plain_scores(images, c, low, high, t) for t in thresholds]
                assert scores.ap[name] == pytest.approx(np.mean([ap for ap, _ in plain]), abs=1e-9)
                assert scores.ap50[name] == pytest.approx(plain[0][0], abs=1e-9)
                assert scores.ar[name] == pytest.approx(np.mean([recall for _, recall in plain]), abs=1e-9)
    assert any(0 < value < 1 for value in ours.ap.values()) == (case != "no predictions")
    for name in SIZE_RANGES:  # all classes: the sum of the objects, the mean of those with objects
        having = [scores for scores in ours.per_class.values() if scores.counts[name]]
        assert ours.counts[name] == sum(scores.counts[name] for scores in having)
        for score in SCORES:
            if having:
                assert getattr(ours, score)[name] == pytest.approx(np.mean([getattr(s, score)[name] for s in having]))


@pytest.mark.parametrize(("side", "group"), [(8, "tiny"), (16, "small"), (32, "medium"), (96, "large")])
def test_a_box_at_a_limit_belongs_to_the_group_above_and_only_there(side: float, group: str) -> None:
    image = (box := np.array([[10.0, 10, 10 + side, 10 + side]]), np.zeros(1), box, np.ones(1), np.zeros(1))
    ours = evaluate([image])
    expected = {group, "COCO small"} if side < 32 else {group}
    assert {name for name, count in ours.counts.items() if count} == expected
    for score in SCORES:
        assert {name for name, value in getattr(ours, score).items() if value == pytest.approx(1)} == expected


def test_more_predictions_than_cocos_hundred_count_up_to_max_det() -> None:
    x, y = (v.ravel() * 20.0 for v in np.meshgrid(np.arange(20), np.arange(12)))
    boxes = np.column_stack((x, y, x + 12, y + 12))
    image = boxes, np.zeros(240), boxes, np.linspace(0.9, 0.1, 240), np.zeros(240)
    assert evaluate([image], max_det=300).ar["tiny"] == 1
    assert evaluate([image], max_det=60).ar["tiny"] == pytest.approx(60 / 240)


def test_table_and_summary() -> None:
    box = np.array([[10.0, 10, 22, 22], [50, 50, 90, 90]])
    ours = evaluate([(box, np.array([0, 2]), box[:1], np.ones(1), np.zeros(1))])
    rows = ours.summary()
    assert list(rows[0]) == ["Class", "Size", "Area", "Objects", "AP", "AP50", "AR"]
    assert [row["Class"] for row in rows] == ["all"] * 6 + ["all, by object"] * 6 + ["airplane"] * 6 + ["truck"] * 6
    assert [row["Area"] for row in rows[:6]] == ["<8^2", "8^2-16^2", "16^2-32^2", "32^2-96^2", ">=96^2", "<32^2"]
    every = [line.split() for line in ours.table(False).splitlines()]
    assert every[1] == ["all", "very", "tiny", "<8^2", "0", "-", "-", "-"]
    assert every[2] == ["all", "tiny", "8^2-16^2", "1", "1", "1", "1"]
    detailed = [line.split()[:2] for line in ours.table(True).splitlines()[10:]]  # only sizes with objects of a class
    assert detailed == [["airplane", "tiny"], ["airplane", "COCO"], ["truck", "medium"]]
    assert {len(line) for line in ours.table(True).splitlines()} == {22 + 6 * 11}


def test_one_object_of_a_class_does_not_decide_the_mean_by_object() -> None:
    boxes = np.array([[20.0 * i, 10, 20 * i + 10, 20] for i in range(10)])
    ours = evaluate([(boxes, np.array([0] * 9 + [2]), boxes[:9], np.ones(9), np.zeros(9))])
    assert ours.ap["COCO small"] == pytest.approx(0.5)
    assert ours.by_object.ap["COCO small"] == ours.by_object.ap50["tiny"] == pytest.approx(0.9)
    assert ours.by_object.counts == ours.counts and np.isnan(ours.by_object.ar["large"])


# Objects of each image, as class, x, y, width and height in pixels of the image, whose width and height come first.
DATA = {
    "a": (200, 150, [(0, 10, 10, 32, 32), (0, 60, 20, 8, 8), (1, 100, 30, 5, 9), (1, 20, 60, 96, 80)]),
    "b": (160, 240, [(0, 4, 4, 20, 30), (0, 40, 100, 110, 120), (1, 30, 60, 12, 12)]),
    "c": (97, 73, [(1, 10, 10, 31, 33), (1, 60, 30, 7, 7), (0, 70, 50, 16, 16)]),
    "d": (120, 90, []),
}


def write_objects(folder: Path, extra: str = "") -> Path:
    """Write a data set of `DATA`, its labels with `extra` at the end; return its YAML."""
    samples = {}
    for name, (w, h, objects) in DATA.items():
        labels = [
            f"{c} {(x + bw / 2) / w:.6f} {(y + bh / 2) / h:.6f} {bw / w:.6f} {bh / h:.6f}{extra}\n"
            for c, x, y, bw, bh in objects
        ]
        samples[name] = np.full((h, w, 3), 90, np.uint8), "".join(labels)
    return write_set(folder, samples, NAMES.values())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_objects(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> YOLO:
    return YOLO(
        write_tree(tmp_path_factory.mktemp("model"), {"tiny.yaml": TINY_MODEL.replace("nc: 1", "nc: 80")}) / "tiny.yaml"
    )


def feed(base: type = DetectionValidator, noise: float = 0, half: bool = False, wrong: int = 0) -> type:
    """Return a validator that takes the objects themselves for predictions, moved by `noise`, with `wrong` ones."""

    class Fed(base):
        def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
            self.fed = super().preprocess(batch)
            return self.fed

        def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
            return predict_objects(self.fed, noise, wrong, torch.float16 if half else torch.float32)

    return Fed


def validate(model: YOLO, data: Path, folder: Path, validator: type | None = None, **given: Any) -> Any:
    given = {"imgsz": 64, "device": "cpu", "plots": False, "project": str(folder), "name": "v", "batch": 2} | given
    return model.val(validator=validator or feed(), data=str(data), exist_ok=True, **given)


def expected_counts(classes: tuple[int, ...] = (0, 1)) -> dict[str, int]:
    areas = np.array([w * h for *_, objects in DATA.values() for c, _, _, w, h in objects if c in classes])
    return {name: int(((low <= areas) & (areas < high)).sum()) for name, (low, high) in SIZE_RANGES.items()}


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        ({}, {0: (0,), 1: (1,)}),
        ({"rect": False, "imgsz": 160, "batch": 3}, {0: (0,), 1: (1,)}),
        ({"single_cls": True}, {0: (0, 1)}),
        ({"classes": [1], "half": True}, {1: (1,)}),
    ],
    ids=str,
)
def test_a_validation_counts_and_scores_in_original_pixels(
    model: YOLO, data: Path, tmp_path: Path, given: dict[str, Any], classes: dict[int, tuple[int, ...]]
) -> None:
    metrics = validate(model, data, tmp_path, feed(half="half" in given), **given)
    assert metrics.size.counts == expected_counts(sum(classes.values(), ()))
    assert {c: s.counts for c, s in metrics.size.per_class.items()} == {
        c: expected_counts(among) for c, among in classes.items()
    }
    assert sum(metrics.size.counts[name] for name in SIZE_GROUPS) == metrics.nt_per_class.sum()
    scores = metrics.size.ap50 if given.get("half") else metrics.size.ap  # half precision moves boxes a little
    assert all(scores[name] == pytest.approx(1) for name, count in metrics.size.counts.items() if count)
    assert set(SIZE_KEYS.values()) < set(metrics.results_dict)


def test_off_it_is_stock_and_on_it_changes_nothing_of_stocks(model: YOLO, data: Path, tmp_path: Path) -> None:
    lines: dict[str, list[str]] = {}
    results = {}
    for case, base, given in (
        ("stock", StockDetectionValidator, {}),
        ("off", DetectionValidator, {"size_metrics": False}),
        ("on", DetectionValidator, {}),
    ):
        lines[case] = []

        class Told(feed(base, noise=1.2, wrong=5)):
            told = lines[case]

            def print_results(self) -> None:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(LOGGER, "info", self.told.append)
                    super().print_results()

        results[case] = validate(model, data, tmp_path, Told, **given)
    stock, off, on = (results[case].results_dict for case in ("stock", "off", "on"))
    assert list(off.items()) == list(stock.items()) and results["off"].size is None
    assert lines["off"] == lines["stock"]
    assert {key: on[key] for key in stock} == stock
    assert set(on) - set(stock) == set(SIZE_KEYS.values()) and 0 < stock["fitness"] < 1
    twin = pickle.loads(pickle.dumps(copy.deepcopy(results["on"])))
    assert twin.results_dict == on and repr(twin.size) == repr(results["on"].size)
    assert lines["on"][:-1] == lines["stock"]
    assert lines["on"][-1] == results["on"].size.table(per_class=True)


@pytest.mark.parametrize("name", ["yolo26n.yaml", "yolo11n-seg.yaml", "yolo11n-pose.yaml", "yolo11n-obb.yaml"])
def test_other_models_and_tasks(name: str, tmp_path: Path) -> None:
    corners = " 0.2 0.2 0.4 0.2 0.4 0.4 0.2 0.4"
    extra = {"pose": " 0.3 0.3 2" * 17}.get(name[8:-5], "")
    path = write_objects(tmp_path / "set", extra)
    if name.endswith(("-seg.yaml", "-obb.yaml")):
        for label in (tmp_path / "set/labels").glob("*.txt"):
            label.write_text("".join(f"{line[0]}{corners}\n" for line in label.read_text().splitlines()))
    path.write_text(f"{path.read_text()}kpt_shape: [17, 3]\n")
    task, measured = YOLO(name), not name.endswith("-obb.yaml")
    few = {"conf": 1e-6} if measured else {}  # an untrained model is sure of nothing
    metrics = validate(task, path, tmp_path, task._smart_load("validator"), **few)
    assert (set(SIZE_KEYS.values()) < set(metrics.results_dict)) is measured
    assert (metrics.size is not None) is measured
    if measured:
        assert sum(metrics.size.counts[group] for group in SIZE_GROUPS) == metrics.nt_per_class.sum() > 3


def test_a_training_writes_the_sizes_of_each_epoch(data: Path, tmp_path: Path) -> None:
    model = write_tree(tmp_path, {"tiny.yaml": TINY_MODEL}) / "tiny.yaml"
    made = {"data": str(data), "model": str(model), "project": str(tmp_path), "name": "t", "epochs": 2}
    trainer = DetectionTrainer(overrides=QUICK | made)
    trainer.train()
    rows = read_csv(trainer.csv)
    assert len(rows) == 2
    for row in rows:
        assert set(SIZE_KEYS.values()) < set(row)
        assert np.isfinite([float(value) for value in row.values()]).all()
    read = trainer.read_results_csv()
    assert set(read) == set(rows[0])
    assert trainer.validator.metrics.size.counts == expected_counts()
    assert set(SIZE_KEYS.values()) < set(trainer.metrics)
    assert "size_metrics" not in yaml.safe_load((tmp_path / "t/args.yaml").read_text())  # stock reads it
    assert YOLO(trainer.last).overrides.get("size_metrics", True) is True


def half_trainer(folder: Path) -> DetectionTrainer:
    """Return a trainer that can do no more than write its results."""
    trainer = object.__new__(DetectionTrainer)
    trainer.csv, trainer.epoch, trainer.train_time_start = folder / "results.csv", 0, time.time()
    trainer.args = get_cfg(overrides={"task": "detect"})
    return trainer


STOCK_ROW = {"train/box_loss": 1.0, "metrics/mAP50(B)": 0.5, "val/box_loss": 2.0, "lr/pg0": 0.01}


def test_rows_have_the_columns_of_the_file_whenever_the_first_validation_comes(tmp_path: Path) -> None:
    trainer, drawn = half_trainer(tmp_path), []
    trainer.save_metrics(STOCK_ROW)  # of an epoch without validation
    sizes = {key: 0.01 * i for i, key in enumerate(SIZE_KEYS.values())}
    validated = {"train/box_loss": 3.0, "metrics/mAP50(B)": 0.6, **sizes, "val/box_loss": 4.0, "lr/pg0": 0.02}
    trainer.save_metrics(validated)
    first, second = read_csv(trainer.csv)
    assert {key: float(first[key]) for key in STOCK_ROW} == STOCK_ROW
    assert {float(first[key]) for key in sizes} == {0}
    assert {key: float(second[key]) for key in validated} == pytest.approx(validated)
    plot_results(trainer.csv, on_plot=drawn.append)  # upstream: one inch a column and two more
    assert cv2.imread(str(drawn[0])).shape[:2] == (1200, 200 * (3 + 2))
    without = SimpleNamespace(task="detect")  # arguments of another program
    for args in (get_cfg(overrides={"size_metrics": False}), get_cfg(overrides={"task": "obb"}), without):
        trainer.csv.unlink()
        other = half_trainer(tmp_path)
        other.args = args
        other.save_metrics(STOCK_ROW)
        trainer.save_metrics(validated)
        assert [list(row)[2:] for row in read_csv(trainer.csv)] == [list(STOCK_ROW)] * 2  # the file keeps its columns
