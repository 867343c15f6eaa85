"""Runs Python commands without the seconds that each takes to import PyTorch: a process that has imported it forks.

    python tests/command_server.py

reads a JSON object a line, `argv`, `cwd` and `log`, runs `argv` in a child process as the shell would (`yolo ...`,
`python file.py ...` or `python -m module ...`), and answers with its exit status; what it printed is in the file `log`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

LIMIT = 150  # seconds that a command may take


def serve() -> dict | None:
    """Answer requests; return in each child process what it is to run, and None at the end."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing but answers goes there
    print(json.dumps("ready"), file=answers, flush=True)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if not (child := os.fork()):
            answers.close()
            return request
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
    program, *args = request["argv"]
    if program == "yolo":
        sys.argv[:] = [program, *args]
        sys.exit(entrypoint())
    if args[0] == "-m":
        sys.argv[:] = args[1:]
        sys.path[0] = request["cwd"]
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    elif args[0] == "-c":
        sys.argv[:] = ["-c", *args[2:]]
        sys.path[0] = ""
        exec(compile(args[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv[:] = args
        sys.path[0] = str(Path(args[0]).resolve().parent)
        runpy.run_path(args[0], run_name="__main__")


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
