"""Runs Python commands without the seconds that each takes to import PyTorch: a process that has imported it forks.

`yolo ...`, `small-object ...`, `python file.py ...`, `python -m module ...` and `python -c code ...` run so; other
commands run in bash.
"""

import atexit
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

LIMIT = 150  # seconds that a command may take
FORKED = ("yolo ", "python ", "python3 ", "small-object ")
IMPORTED = [
    "torch", "torch._inductor",  # which a training imports for its deterministic algorithms
    "ultralytics.models.yolo", "ultralytics.utils.callbacks.raytune", "ultralytics.utils.plotting",
]  # fmt: skip


class Server:
    """Runs commands in child processes, with `environment` besides this process's own."""

    def __init__(self, **environment: str) -> None:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        self.environment = {
            **mine, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(Path(__file__).parents[2]),
            "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"])), **environment,
        }  # fmt: skip
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(IMPORTED)
        with mock.patch.dict(os.environ, self.environment, clear=True):
            forkserver.ensure_running()

    def run(self, command: str | list[str], folder: Path) -> tuple[int, str]:
        """Run a command in a folder; return its exit status and what it printed."""
        if isinstance(command, str) and ("&&" in command or not command.startswith(FORKED)):
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
            )  # fmt: skip
            return done.returncode, done.stdout
        argv = shlex.split(command) if isinstance(command, str) else command
        process = self.processes.Process(target=execute, args=(argv, folder, self.environment))
        process.start()
        process.join()
        said = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        return process.exitcode, re.sub(r"\x1b\[[\d;]*[mK]", "", said)


def execute(argv: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Become the process of a command."""
    import torch
    from ultralytics.utils import ARGV, SETTINGS

    signal.alarm(LIMIT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    output = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    torch.set_num_threads(1)
    dict.update(SETTINGS, runs_dir="runs")  # not in its file; upstream's own default is the folder of the repository
    sys.argv = ARGV  # the list that upstream looks at
    program, first, *rest = argv
    try:
        if program in {"yolo", "small-object"}:
            sys.argv[:] = argv
            runpy.run_path(shutil.which(program), run_name="__main__")
        elif first == "-m":
            sys.argv[:] = rest
            sys.path.insert(0, str(folder))
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv[:] = ["-c", *rest[1:]]
            sys.path.insert(0, "")
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv[:] = [first, *rest]
            sys.path.insert(0, str(Path(first).resolve().parent))
            runpy.run_path(first, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
