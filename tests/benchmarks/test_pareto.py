"""The comparison at equal time per image."""

from pathlib import Path

import pytest

from benchmarks import compare, pareto, speed
from benchmarks.common import write_csv
from benchmarks.report import COLUMNS, Entry
from tests.helpers.common import STOCK_MODEL, read_csv


def build_entry(label: str, stock: bool, *scores: float) -> Entry:
    shared = {"model": label, "yaml": "a.yaml", "overrides": "{}", "stock": "yes" if stock else "no", "strides": "8"}
    return Entry([shared | {"AP_small": str(score), "AP": str(2 * score)} for score in scores])


def test_the_front_and_the_ratios_to_it() -> None:
    slow, fast, worse, ours, first = (
        pareto.Point(build_entry(label, label.startswith("s"), *scores), 320, "CPU", ms)
        for label, ms, scores in (
            ("s slow", 30, [0.2, 0.4]), ("s fast", 10, [0.1]), ("s worse", 20, [0.05]), ("ours", 25, [0.15]),
            ("ours first", 5, [0.1]),
        )
    )  # fmt: skip
    stock = [slow, worse, fast]
    assert pareto.front(stock, "AP_small") == [fast, slow]
    assert [pareto.ratio_to_front(point, stock, "AP_small") for point in (ours, worse)] == pytest.approx([1.5, 0.5])
    assert pareto.ratio_to_front(slow, stock, "AP") == pytest.approx(1)
    assert pareto.ratio_to_front(first, stock, "AP_small") != pareto.ratio_to_front(first, stock, "AP_small")  # NaN
    tie = pareto.Point(build_entry("s tie", True, 0.3), 448, "CPU", 30)
    assert pareto.front([*stock, tie], "AP_small") == [fast, slow]


DATA = "datasets/ASS1-demo/ASS1-demo.yaml"


def write_results(folder: Path, model: Path, imgsz: int, scores: dict[str, float], **more: str) -> None:
    rows = [
        {"key": f"{label}{imgsz}", "model": label, "yaml": str(model), "overrides": "{}", "data": DATA,
         "epochs": "1", "imgsz": str(imgsz), "AP": score, "AP50": score, "AP_small": score,
         "parameters": 1000, "GFLOPs": 0.1, "version": compare.Model("", str(model), {}).version,
         "strides": "4", "stock": "yes" if "stock" in label else "no", "seed": 0} | more
        for label, score in scores.items()
    ]  # fmt: skip
    folder.mkdir(parents=True)
    write_csv(folder / "results.csv", COLUMNS, rows)


def test_a_report_of_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, num_classes = tmp_path / "tiny.yaml", []
    model.write_text(STOCK_MODEL.format(80))
    add = speed.add_forward_passes
    monkeypatch.setattr(
        speed, "add_forward_passes", lambda one, *rest: (num_classes.append(one.network.model[-1].nc), add(one, *rest))
    )
    out = tmp_path / "out"
    write_results(out / "64", model, 64, {"stock a": 0.1, "ours": 0.3})
    write_results(tmp_path / "more", model, 128, {"stock a": 0.2})
    left_out = {"version": "other", "yaml": f"{tmp_path}/gone.yaml", "data": "b.yaml", "overrides": '{"slice": 64}'}
    for column, value in left_out.items():
        write_results(out / column, model, 64, {f"other {column}": 0.9}, **{column: value})
    arguments = f"--only-report --results {tmp_path}/more --rounds 2 --device cpu --data {DATA}".split()
    assert pareto.main([*arguments, "--out", str(out)]) == 0
    assert num_classes == [3] * 3  # those of the data
    rows = read_csv(out / "pareto.csv")
    assert {(row["model"], row["imgsz"], row["runtime"]) for row in rows} == {
        (label, imgsz, runtime)
        for label, imgsz in (("stock a", "64"), ("ours", "64"), ("stock a", "128"))
        for runtime in ("PyTorch CPU", "ONNX Runtime CPU")
    }
    assert all(float(row["ms"]) > 0 and row["commit"] and row["seeds"] == "1" for row in rows)
    text = (out / "pareto.md").read_text()
    assert "| **ours** | 64 |" in text and "| 30.0 |" in text and "--only-report" in text
    assert (out / "pareto.png").stat().st_size > 10_000
    write_results(out / "bad", model, 64, {"stock b": 0.2}, epochs="2", settings='{"single_cls": true}')
    with pytest.raises(SystemExit, match=r"pareto: the results differ in epochs \(1, 2\)"):
        pareto.main([*arguments, "--out", str(out)])
    assert pareto.main([*arguments, "--epochs", "2", "--results", f"{out}/bad", "--out", f"{tmp_path}/new/page"]) == 0
    assert {row["model"] for row in read_csv(tmp_path / "new/page/pareto.csv")} == {"stock b"} and num_classes[3:] == [
        1
    ]
    with pytest.raises(SystemExit, match=r"pareto: no such folder: \S+/none"):
        pareto.main(["--only-report", "--results", str(out), str(tmp_path / "none")])
