"""Runs the contract tests with several versions of Ultralytics: python tests/upstream/compat.py, or make compat.

Each version gets an environment of its own, which shares all other packages with this one; they are fetched from the
package index. docs/compatibility.md is written when all have run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import torch
from ultralytics.utils import LOGGER

from benchmarks.compare import commit
from small_object.files import replacing

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/compatibility.md"
# Between the oldest and the newest, the last before something that this fork relies on moved upstream: the weights that
# a fine-tuning starts from, fused transposed convolutions, boxes in the original image, which model file a name means.
VERSIONS = ("8.4.0", "8.4.34", "8.4.104", "8.4.123", "8.4.143", "newest")
# What this fork lays over upstream, each part used as a user does: blocks, models of every task and their rows, stock
# models, losses, a chain of commands, validation by size, slicing. They take minutes; the rest touches upstream little.
CONTRACT = (
    "test_replaced", "test_blocks", "test_models", "test_tasks", "test_stock", "test_loss", "test_assign", "test_chain",
    "test_size_metrics", "test_sliced_prediction", "test_sliced_training",
)  # fmt: skip
OUTSIDE = "8.3.0"  # must be refused with one line


def environment(folder: Path, version: str) -> Path:
    """Make an environment with a version of Ultralytics, this checkout and else this environment's packages.

    Returns:
        Its Python.
    """
    venv.create(folder, with_pip=True)  # whose pip also makes the `yolo` command for it
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip())
    wanted = "ultralytics" + (f"=={version}" if version != "newest" else supported())
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", wanted]
    subprocess.run(pip, check=True)
    # In this order: its own packages, this checkout, then those that are shared.
    shared = "\n".join(path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"})
    (site / "fork.pth").write_text(f"{ROOT / 'overlay'}\n{shared}\n", encoding="utf-8")
    overlay = (ROOT / "src/ultralytics_overlay.pth").read_text(encoding="utf-8")
    (site / "ultralytics_overlay.pth").write_text(overlay, encoding="utf-8")
    return python


def supported() -> str:
    """Return the supported versions as this project's metadata states them."""
    needs = importlib.metadata.requires("small-object-detection") or []
    return next(need for need in needs if need.startswith("ultralytics")).removeprefix("ultralytics")


def try_version(version: str, tests: list[str]) -> dict[str, str]:
    """Run the contract tests with one version; return the cells of its row."""
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        python = environment(Path(folder), version)
        asked = "import importlib.metadata as m; print(m.version('ultralytics'))"
        exact = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
        start = time.monotonic()
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", *tests],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        counts = dict.fromkeys(("passed", "failed", "error", "skipped"), 0)
        for number, what in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout.rpartition("\n=")[2]):
            counts[what] = int(number)
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if done.returncode and not failed:
            failed = [(done.stdout + done.stderr).strip().splitlines()[-1]]
        return {
            "version": exact, "passed": str(counts["passed"]), "failed": str(counts["failed"] + counts["error"]),
            "skipped": str(counts["skipped"]), "seconds of tests": f"{time.monotonic() - start:.0f}",
            "what failed": "; ".join(f"`{name}`" for name in failed),
        }  # fmt: skip


def refusal(version: str) -> str:
    """Return what an import says with a version outside of the supported ones."""
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        python = environment(Path(folder), version)
        code = "try:\n    from ultralytics import YOLO\nexcept ImportError as error:\n    print(error)"
        own = {"env": os.environ | {"YOLO_CONFIG_DIR": folder}, "capture_output": True, "text": True, "check": True}
        said = subprocess.run([python, "-c", code], **own).stdout.strip().splitlines()[-1]
        return re.sub(r" \(/.*?\)", "", said)  # where this environment lay


def document(rows: list[dict[str, str]], refused: str, command: str) -> str:
    """Return the text of docs/compatibility.md."""
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    lines = [f"| {' | '.join(line)} |" for line in table]
    lines.insert(1, "| --- |" + " ---: |" * (len(rows[0]) - 2) + " --- |")
    made_with = f"commit {commit()}, Python {platform.python_version()}, torch {torch.__version__}"
    return f"""\
# Compatibility

Ultralytics {supported()} is supported. Written by `{command}` ({made_with}),
which runs the tests of what this fork lays over upstream with each version in an environment of its own.

{chr(10).join(lines)}

With {OUTSIDE}, which is not supported, an import ends with:

    {refused}

Some older versions do what newer ones do better, and this fork leaves it so: before 8.4.35 a fine-tuning with
`pretrained=` on other classes starts some layers anew; before 8.4.144 a bare name such as `yolo11n.yaml` may find
another file than in newer ones. The tests that are skipped there say why.
"""


def main(argv: list[str] | None = None) -> int:
    """Try all versions; return 1 if a test failed with one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--versions", nargs="+", default=VERSIONS, metavar="VERSION", help="default: a range")
    parser.add_argument("--tests", nargs="+", default=CONTRACT, metavar="NAME", help="files of tests to run")
    args = parser.parse_args(argv)
    rows = []
    try:
        for version in args.versions:
            LOGGER.info(f"ultralytics {version}")
            rows.append(try_version(version, [f"tests/{name}.py" for name in args.tests]))
            LOGGER.info("  " + ", ".join(f"{key} {value}" for key, value in rows[-1].items() if value))
        refused = refusal(OUTSIDE)
    except subprocess.CalledProcessError as error:
        sys.exit(f"compat.py: {' '.join(map(str, error.cmd))} failed; the package index must be at hand")
    command = (
        "make compat" if args.versions == VERSIONS and args.tests == CONTRACT else "python tests/upstream/compat.py ..."
    )
    with replacing(DOCUMENT) as new:
        new.write_text(document(rows, refused, command), encoding="utf-8")
    LOGGER.info(f"written: {DOCUMENT}")
    return int(any(row["failed"] != "0" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
