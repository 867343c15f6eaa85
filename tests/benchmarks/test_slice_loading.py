"""The benchmark of loading samples for training on tiles."""

from argparse import Namespace
from pathlib import Path

import numpy as np

from benchmarks import slice_loading
from tests.helpers.common import draw_blocks, one_line, write_set


def test_the_caches_hold_the_pixels_of_the_images(tmp_path: Path) -> None:
    samples = {
        f"{split}/{i}": (draw_blocks(200, 150, 9, 9, i), "0 .5 .5 .2 .2\n")
        for i in range(3)
        for split in ("train", "val")
    }
    data = write_set(tmp_path / "set", samples, "a")
    arguments = ["--data", str(data), "--tile", "64", "--imgsz", "64", "--limit", "2", "--out", str(tmp_path / "out")]
    assert slice_loading.main(arguments) == 0
    rows = {
        line.split(" | ")[0]: line for line in (tmp_path / "out/report.md").read_text().splitlines() if line[:1] == "|"
    }
    assert "| none" in rows and rows["| `cache=ram`"].split(" | ")[2:4] == [f"{100 * 200 * 150 * 3 / 1e9:.1f}", "0.0"]
    assert not list((tmp_path / "set").rglob("*.npy"))
    args = Namespace(tile=64, imgsz=64, samples=1, limit=2)
    loaded = [slice_loading.load_samples(slice_loading.check_det_dataset(str(data)), args, cache)
              for cache in (None, "ram", "disk")]  # fmt: skip
    header = 128  # of NumPy's files
    assert [each[1:] for each in loaded] == [(0, 0), (90_000, 0), (0, 90_000 + header)]
    assert all(np.isfinite(each[0]) for each in loaded)


def test_a_missing_file_gives_one_line(tmp_path: Path) -> None:
    with one_line("slice_loading", "missing.yaml"):
        slice_loading.main(["--data", str(tmp_path / "missing.yaml")])
