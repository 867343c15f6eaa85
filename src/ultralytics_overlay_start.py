"""Starts the overlay when Python starts, and keeps upstream from building other networks where that is impossible.

`ultralytics_overlay.pth` imports this module. Both are installed in `site-packages`, so they are still there when the
folder of an editable install has moved. The module imports nothing heavy and works on its own.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # type checkers read it as True; importing it from `typing` would cost milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

DISTRIBUTION = "small-object-detection"
SWITCH = "ULTRALYTICS_OVERLAY"
CHECKS = "ultralytics.utils.checks"
MODELS = ["ultralytics", "cfg", "models"]


class ModelGuard:
    """Refuses `ultralytics/cfg/models/...` where the overlay is not active: upstream has other networks at these paths.

    Everything else in upstream works as usual.

    Args:
        reason: One line that says why the overlay is not active, and what to do.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def install(self) -> None:
        """Print the reason and guard upstream, whether it has been imported already or not."""
        print(self.reason, file=sys.stderr)
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]
        checks = sys.modules.get(CHECKS)
        if hasattr(checks, "check_file"):
            self.guard(checks)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of upstream's `utils.checks`, whose `check_file` is guarded, or None for other modules."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname == CHECKS else None
        if spec is not None and spec.loader is not None:
            exec_module = spec.loader.exec_module

            def exec_and_guard(module: ModuleType) -> None:
                exec_module(module)
                self.guard(module)

            spec.loader.exec_module = exec_and_guard  # type: ignore[method-assign]
        return spec

    def guard(self, checks: Any) -> None:
        """Make the `check_file` of upstream's `utils.checks`, by which it finds model files, end with one line."""
        stock_check_file = checks.check_file

        def check_file(file: Any, *args: Any, **kwargs: Any) -> Any:
            if os.path.normpath(str(file).strip()).split(os.sep)[:3] == MODELS:
                sys.exit(f"{file} cannot be used: {self.reason}")
            return stock_check_file(file, *args, **kwargs)

        checks.check_file = check_file


def start() -> None:
    """Put the overlay in place, or say in one line why that is impossible."""
    if os.environ.get(SWITCH) == "0":
        return
    if "ultralytics" in sys.modules:
        check()
        return
    try:
        import ultralytics_overlay

        ultralytics_overlay.install()
    except (ImportError, AttributeError):  # nothing of that name, or an empty folder
        ModelGuard(
            f"{DISTRIBUTION} is not active: its folder {_find_folder()} was moved or removed. Reinstall it from its new "
            f"place (pip install -e FOLDER) or uninstall it (pip uninstall {DISTRIBUTION})."
        ).install()


def check() -> None:
    """Say in one line why this Python runs without the overlay, if it does.

    Called by `small_object` when it is imported, and by PyTorch, which calls the entry points in `torch.backends`. It
    covers two cases in which the `.pth` file was not read when Python started: a folder that is no site directory
    (`pip install --target`), and an installation into the environment of a notebook kernel that was already running.
    """
    if os.environ.get(SWITCH) == "0" or {"OverlayFinder", "ModelGuard"} & {type(f).__name__ for f in sys.meta_path}:
        return
    import site

    here = os.path.dirname(os.path.realpath(__file__))
    if here in map(os.path.realpath, [*site.getsitepackages(), site.getusersitepackages()]):
        reason = f"it was installed in {here} after this Python had started. Restart Python (in a notebook, the kernel)."
    else:
        reason = (
            f"Python reads no .pth file in {here}. Reinstall it without --target and PYTHONPATH, or uninstall it by "
            "removing it from that folder."
        )
    ModelGuard(f"{DISTRIBUTION} is not active: {reason}").install()


def _find_folder() -> str:
    """Return the folder that an editable install points to, or that of this file."""
    import importlib.metadata
    import json
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        source = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        return url2pathname(urlsplit(json.loads(source or "")["url"]).path)
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError):
        return os.path.dirname(os.path.realpath(__file__))
