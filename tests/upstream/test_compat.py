"""The command that runs the contract tests with two versions of upstream, without downloading any."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import ROOT
from tests.upstream import compat, environments


def test_the_pinned_version_is_supported_and_the_contract_is_there() -> None:
    assert compat.pinned_version() in compat.supported_versions()
    assert "8.3.0" not in compat.supported_versions()
    assert all((ROOT / path).exists() for path in compat.CONTRACT)


def test_the_newest_version_is_the_newest_supported_one(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "ultralytics (99.0)\nAvailable versions: 99.0, 8.4.190, 8.3.0\n"
    monkeypatch.setattr(compat.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, listed))
    assert compat.newest_version() == "8.4.190"


def test_the_document_has_a_row_per_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compat, "create_environment", lambda folder, version: folder.mkdir() or Path(sys.executable))
    monkeypatch.setattr(compat, "DOCUMENT", tmp_path / "compatibility.md")
    monkeypatch.setattr(compat, "pinned_version", lambda: "8.4.190")
    monkeypatch.setattr(compat, "newest_version", lambda: "8.4.200")
    file = tmp_path / "test_it.py"
    file.write_text("import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('no')\n")
    (tmp_path / "test_bad.py").write_text("import there_is_no_such_module\n")
    assert compat.main(["--tests", str(tmp_path)]) == 1
    rows = [line for line in (tmp_path / "compatibility.md").read_text().splitlines() if line.startswith("| 8.4.")]
    assert [row.split(" | ")[:4] for row in rows] == [[f"| {v}", "1", "2", "1"] for v in ("8.4.190", "8.4.200")]
    assert "test_b`: failed `AssertionError` assert 0" in rows[0] and "there_is_no_such_module" in rows[0]


def test_an_environment_has_its_own_version_and_this_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for `pip install` writes the package, as the package index is not reachable."""
    real = subprocess.run

    def run(command: list, *args: object, **options: object) -> object:
        if "install" not in command:
            return real(command, *args, **options)
        assert command[-1] == "ultralytics==8.4.200"
        package = next(Path(command[0]).parents[1].rglob("site-packages")) / "ultralytics"
        package.mkdir()
        return (package / "__init__.py").write_text("__version__ = '8.4.200'\n")

    monkeypatch.setattr(environments.subprocess, "run", run)
    python = environments.create_environment(tmp_path, "8.4.200")
    code = "import sys, ultralytics, torch, pytest; print(ultralytics.__version__, type(sys.meta_path[0]).__name__)"
    done = real([python, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["8.4.200", "OverlayFinder"]
