"""The tool that runs the contract tests with several versions of upstream, without fetching any."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.upstream import compat

ROOT = Path(__file__).resolve().parents[2]


def test_the_versions_are_within_the_supported_range() -> None:
    stated = re.search(r'"ultralytics(>=[\d.]+,<[\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert stated is not None and SpecifierSet(compat.supported()) == SpecifierSet(stated[1])
    assert all(version in SpecifierSet(stated[1]) for version in compat.VERSIONS if version != "newest")
    oldest = stated[1].partition(",")[0].removeprefix(">=")
    assert (compat.VERSIONS[0], compat.VERSIONS[-1]) == (oldest, "newest")
    assert compat.OUTSIDE not in SpecifierSet(stated[1])
    assert all((ROOT / f"tests/{name}.py").is_file() for name in compat.CONTRACT)


def test_a_row_counts_what_the_tests_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compat, "environment", lambda folder, version: Path(sys.executable))
    file = tmp_path / "test_it.py"
    file.write_text("import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('no')\n")
    row = compat.try_version("9.9", [str(file)])
    assert (row["passed"], row["failed"], row["skipped"]) == ("1", "1", "1")
    assert row["what failed"].endswith("test_b`") and row["version"].startswith("8.")
    file.write_text("import there_is_no_such_module\n")
    row = compat.try_version("9.9", [str(file)])
    assert (row["passed"], row["failed"]) == ("0", "1") and "test_it.py" in row["what failed"]
    text = compat.document([row, row], "refused", "make compat")
    assert text.count("| 8.") == 2 and "    refused" in text and text.count("\n| ---") == 1


def test_an_environment_has_a_version_and_a_checkout_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A package index is not at hand: a stand-in for `pip install` writes the package."""
    real = subprocess.run

    def run(command: list, *args: object, **options: object) -> object:
        if "install" not in command:
            return real(command, *args, **options)
        assert command[-1] == "ultralytics==8.4.50"
        python = Path(command[0])
        (package := next(python.parents[1].rglob("site-packages")) / "ultralytics").mkdir()
        (package / "__init__.py").write_text("__version__ = '8.4.50'\n")
        return None

    monkeypatch.setattr(compat.subprocess, "run", run)
    python = compat.environment(tmp_path, "8.4.50")
    code = "import sys, ultralytics, torch, pytest; print(ultralytics.__version__, type(sys.meta_path[0]).__name__)"
    done = real([python, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["8.4.50", "OverlayFinder"]
