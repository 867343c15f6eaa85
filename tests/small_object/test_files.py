"""Files that are written whole, and results that end with the checkpoint."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.utils.patches import torch_save

from small_object.files import cut_results


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


@pytest.mark.parametrize(
    ("rows", "left"),
    [
        ("1,2.5,0.1\n2,3.5,0.2\n", 2), ("1,2.5,0.1\n2,3.5,0.2\n3,4,0.3\n3,5,0.3\n", 2), ("1,2,3\n2,3,4\n3,0", 2),
        ("1,2,3\n2,3\n", 1),
    ],
)  # fmt: skip
def test_results_end_with_the_checkpoint(tmp_path: Path, rows: str, left: int) -> None:
    cut_results(tmp_path / "results.csv", 2)
    assert not (tmp_path / "results.csv").exists()
    (tmp_path / "results.csv").write_text("epoch,time,loss\n" + rows)
    cut_results(tmp_path / "results.csv", 2)
    assert (tmp_path / "results.csv").read_text().split()[1:] == rows.split()[:left]
