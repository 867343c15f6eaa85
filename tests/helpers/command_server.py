"""Runs Python commands without the seconds that each takes to import PyTorch: a process that has imported it forks.

    python tests/helpers/command_server.py

reads JSON objects, one per line, with `argv`, `cwd` and `log`. It runs `argv` in a child process as the shell would
(`yolo ...`, `small-object ...`, `python file.py ...`, `python -m module ...` or `python -c code ...`) and answers with
the exit status; the output is in the file `log`. `Server` starts it and talks to it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from pathlib import Path
from typing import Any

LIMIT = 150  # seconds that a command may take
FORKED = ("yolo ", "python ", "python3 ", "small-object ")  # other commands run in bash


class Server:
    """Runs commands in child processes of a process that has imported PyTorch; to be used as a context manager."""

    def __init__(self, **environment: str) -> None:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        self.folder = Path(tempfile.mkdtemp(prefix="command-server-"))
        config = shutil.copytree(os.environ["YOLO_CONFIG_DIR"], self.folder / "config")  # it changes a setting
        self.environment = {
            **mine, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "YOLO_CONFIG_DIR": str(config),
            "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"])),
            "PYTHONPATH": str(Path(__file__).parents[2]), **environment,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *args: object) -> None:
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: str | list[str], folder: Path) -> tuple[int, str]:
        """Run a command in a folder; return its exit status and what it printed."""
        if isinstance(command, str) and ("&&" in command or not command.startswith(FORKED)):
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
            )  # fmt: skip
            return done.returncode, done.stdout
        argv = shlex.split(command) if isinstance(command, str) else command
        log = folder / "log.txt"
        print(json.dumps({"argv": argv, "cwd": str(folder), "log": str(log)}), file=self.process.stdin, flush=True)
        status = json.loads(self.process.stdout.readline())
        return status, re.sub(r"\x1b\[[\d;]*[mK]", "", log.read_text(encoding="utf-8", errors="replace"))


def serve() -> dict | None:
    """Answer requests; return in each child process what it is to run, and None at the end."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing but answers goes there
    for line in iter(sys.stdin.readline, ""):
        if not (child := os.fork()):
            answers.close()
            return json.loads(line)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps(status), file=answers, flush=True)
    return None


def execute(request: dict) -> None:
    """Become the process of a command."""
    signal.alarm(LIMIT)
    os.chdir(request["cwd"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(log, stream)
    program, first, *rest = request["argv"]
    sys.argv[:] = [program, first, *rest]
    if program == "yolo":
        sys.exit(entrypoint())
    if program == "small-object":
        from small_object.cli import main

        sys.exit(main())
    if first == "-m":
        sys.argv[:] = rest
        sys.path[0] = request["cwd"]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        sys.path[0] = ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv[:] = [first, *rest]
        sys.path[0] = str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    import torch
    import torch._inductor  # which a training imports for its deterministic algorithms
    import ultralytics.models.yolo
    import ultralytics.utils.callbacks.raytune
    import ultralytics.utils.plotting  # noqa: F401
    from ultralytics.cfg import entrypoint
    from ultralytics.utils import SETTINGS

    SETTINGS.update(runs_dir="runs")  # upstream's own default is the folder of the repository
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    if (mine := serve()) is not None:
        status: Any = 0
        try:
            execute(mine)
        except SystemExit as end:
            status = end.code
        except BaseException:
            status = 1
            traceback.print_exc()
        if status is not None and not isinstance(status, int):  # as Python ends with a message
            print(status, file=sys.stderr)
            status = 1
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)  # Python would take seconds to free all that was imported
