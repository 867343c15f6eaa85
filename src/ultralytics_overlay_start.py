"""Starts the overlay when Python starts. If that is impossible, keeps upstream from building other networks.

`ultralytics_overlay.pth` imports this module. Both are installed in `site-packages`, so they remain when the folder of
an editable install moves. The module imports nothing heavy and works on its own.
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
    """Refuses `ultralytics/cfg/models/...` if the overlay is not active: upstream has other networks at these paths.

    Everything else in upstream works as usual.

    Args:
        reason: One line that says why the overlay is not active, and what to do.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of upstream's `utils.checks`, whose `check_file` is patched, or None for other modules."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname == CHECKS else None
        if spec is not None and spec.loader is not None:
            exec_module = spec.loader.exec_module

            def exec_and_patch(module: ModuleType) -> None:
                exec_module(module)
                self.patch(module)

            spec.loader.exec_module = exec_and_patch  # type: ignore[method-assign]
        return spec

    def patch(self, checks: Any) -> None:
        """Make upstream's `check_file`, which finds model files, refuse those of this fork."""
        stock_check_file = checks.check_file

        def check_file(file: Any, *args: Any, **kwargs: Any) -> Any:
            if os.path.normpath(str(file).strip()).split(os.sep)[:3] == MODELS:
                sys.exit(f"{file} cannot be used: {self.reason}")
            return stock_check_file(file, *args, **kwargs)

        checks.check_file = check_file


def start() -> None:
    """Put the overlay in place, or print one line that says why that is impossible."""
    if _is_settled():  # Python reads the .pth files of a virtual environment twice
        return
    if "ultralytics" in sys.modules:
        check()
        return
    try:
        import ultralytics_overlay

        ultralytics_overlay.install()
    except (ImportError, AttributeError):  # nothing of that name, or only an empty folder
        _guard(
            f"its folder {_find_folder()} was moved or removed. Reinstall it (pip install -e NEW_FOLDER) or uninstall "
            f"it (pip uninstall {DISTRIBUTION})."
        )


def check() -> None:
    """If this Python runs without the overlay, print one line that says why.

    `small_object` calls it on import, and so does PyTorch, which calls the entry points in `torch.backends`. It covers
    two cases in which Python did not read the `.pth` file when it started: a folder that is not a site directory
    (`pip install --target`), and an installation into the environment of a running notebook kernel.
    """
    if _is_settled():
        return
    import site

    here = os.path.dirname(os.path.realpath(__file__))
    if here in map(os.path.realpath, [*site.getsitepackages(), site.getusersitepackages()]):
        _guard(f"it was installed in {here} after this Python started. Restart Python (in a notebook, the kernel).")
    else:
        _guard(
            f"Python does not read the .pth file in {here}. Reinstall it without --target, or remove it from that "
            "folder."
        )


def _is_settled() -> bool:
    """Return whether the overlay is active, replaced by a guard or switched off."""
    finders = {type(finder).__name__ for finder in sys.meta_path}
    return os.environ.get(SWITCH) == "0" or not finders.isdisjoint({"OverlayFinder", "ModelGuard"})


def _guard(reason: str) -> None:
    reason = f"{DISTRIBUTION} is not active: {reason}"
    print(reason, file=sys.stderr)
    guard = ModelGuard(reason)
    sys.meta_path.insert(0, guard)
    checks = sys.modules.get(CHECKS)
    if hasattr(checks, "check_file"):  # upstream has been imported already
        guard.patch(checks)


def _find_folder() -> str:
    """Return the folder of an editable install, or the folder of this file."""
    import importlib.metadata
    import json
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        source = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        return url2pathname(urlsplit(json.loads(source or "")["url"]).path)
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError):
        return os.path.dirname(os.path.realpath(__file__))
