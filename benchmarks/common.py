"""Helpers of the benchmarks. It imports nothing heavy, so that a script gets the commit in milliseconds."""

import argparse
import csv
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from small_object.errors import UserError, one_line
from small_object.files import write_file

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
BLOCKS = ("", "-smallob", "-dwr-smallob", "-hsfpn-smallob", "-hsfpn-dwr-smallob")
OURS = tuple(f"{ROOT}/ultralytics/cfg/models/11/yolo11n{blocks}.yaml" for blocks in BLOCKS)
YOLO11_P2 = f"{ROOT}/benchmarks/models/yolo11n-p2.yaml"
STOCK = ("yolo11n.yaml", YOLO11_P2, "yolov8n-p2.yaml", "yolo26n.yaml", "yolo26n-p2.yaml")
ONNX = ("onnx", "onnxruntime", "onnxslim")  # packages that export to ONNX and run it


def commit() -> str:
    """Return the commit of this project, with `-dirty` if files differ from it, or `unknown`."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(device: Any = None) -> str:
    """Return the name of the GPU if the `torch.device` is one, the processor and the number of cores."""
    import torch
    from ultralytics.utils.torch_utils import get_cpu_info

    gpu = f"{torch.cuda.get_device_name(device)}, " if device and device.type == "cuda" else ""
    return f"{gpu}{get_cpu_info()}, {cores()} cores"


def describe_setup(device: str = "") -> str:
    """Return the commit, the machine, the device if given, and the version of PyTorch."""
    import torch

    used = f", device {device}" if device else ""
    return f"{commit()}, {describe_machine()}{used}, torch {torch.__version__}"


def find_missing(packages: Iterable[str]) -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in packages if find_spec(name) is None]


def relative_path(path: str) -> str:
    """Return a path relative to the project's root if it lies there; a bare file name stays unchanged.

    Example:
        >>> relative_path(f"{ROOT}/benchmarks/models/yolo11n-p2.yaml"), relative_path("yolo11n.yaml")
        ('benchmarks/models/yolo11n-p2.yaml', 'yolo11n.yaml')
    """
    full = Path(path).expanduser().absolute()
    return full.relative_to(ROOT).as_posix() if full.is_relative_to(ROOT) and Path(path).name != path else path


def module_command(module: str, arguments: Iterable[str]) -> str:
    """Return the shell command that runs a module of this project.

    Example:
        >>> module_command("benchmarks.speed", ["--out", "my results"])
        "python -m benchmarks.speed --out 'my results'"
    """
    return shlex.join(["python", "-m", module, *arguments])


def build_parser(doc: str | None) -> argparse.ArgumentParser:
    """Build a parser whose help is a module's docstring: its first line above the options, the rest below."""
    summary, _, details = (doc or "").partition("\n")
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=summary, epilog=details.strip(), formatter_class=formatter)


def check_minimums(args: argparse.Namespace, **minimums: int) -> None:
    """Raise UserError if an option is less than its minimum."""
    for name, minimum in minimums.items():
        if getattr(args, name) < minimum:
            raise UserError(f"--{name.replace('_', '-')} must be at least {minimum}, not {getattr(args, name)}")


def execute(
    module: str, parse: Callable[[Sequence[str]], argparse.Namespace], run: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None, after_stop: str = "",
) -> int:  # fmt: skip
    """Parse and run the command line of a benchmark; a user's mistake and Ctrl-C end it with one line.

    Args:
        module: The benchmark.
        parse: Parses the arguments.
        run: Runs it; finds the arguments as given in `given` and the shell command in `command`.
        argv: The arguments; None: those of the process.
        after_stop: What the user should know after Ctrl-C.

    Returns:
        The exit status: that of `run`, or 130 after Ctrl-C.
    """
    name, given = module.rpartition(".")[2], sys.argv[1:] if argv is None else list(argv)
    try:
        args = parse(given)
        malloc = [f"{variable}={value}" for variable, value in os.environ.items() if variable.startswith("MALLOC_")]
        args.given, args.command = given, " ".join([*malloc, module_command(module, given)])
        return run(args) or 0
    except (UserError, OSError) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print(f"{name}: stopped{after_stop}", file=sys.stderr)
        return 130


def read_labels(data: str) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Return upstream's labels of the validation images of a data YAML, and the class names."""
    from ultralytics.data import YOLODataset

    from small_object.datasets.dataset import read_data_yaml

    found = read_data_yaml(data)
    return YOLODataset(img_path=found["val"], data=found, task="detect", augment=False).labels, found["names"]


def write_csv(file: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to a CSV file in one step; keys without a column are left out."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(file, lines.getvalue())


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table: the first column left-aligned, the others right-aligned."""
    lines = [f"| {' | '.join(header)} |", "| --- |" + " ---: |" * (len(header) - 1)]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def start_module(module: str, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
    """Start a module of this project in a child process with this Python, in any current directory."""
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment, **options)


def run_module(module: str, *arguments: str) -> str:
    """Run a module of this project in a child process; return the last line that it prints.

    Raises:
        UserError: If it fails.
    """
    child = start_module(module, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stdout, stderr = child.communicate()
    if child.returncode:
        raise UserError(f"{module_command(module, arguments)} failed: {one_line(stderr)[-300:]}")
    return stdout.strip().splitlines()[-1]
