"""Lays a folder of Python files over the installed `ultralytics` package.

For every file in the folder, Python first runs upstream's file of the same path, if there is one, and then ours, in the
same module. `install` puts the import finder that does this in place. It is called when Python starts, see
`ultralytics_overlay_start`, so this module imports nothing heavy.

Set `ULTRALYTICS_OVERLAY=0` in the environment to leave the installed package as it is.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder, SourceFileLoader

TYPE_CHECKING = False  # type checkers read it as True; importing it from `typing` would cost milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

PACKAGE = "ultralytics"
DISTRIBUTION = "small-object-detection"  # its metadata states the supported versions of PACKAGE
SWITCH = "ULTRALYTICS_OVERLAY"

_here = os.path.dirname(os.path.abspath(__file__))
IS_WHEEL = os.path.isdir(os.path.join(_here, PACKAGE))
FOLDER = os.path.join(_here if IS_WHEEL else os.path.dirname(os.path.dirname(_here)), PACKAGE)
"""The folder that is laid over the package. It is inside this package in a wheel, and at the root of a checkout."""


class OverlayFinder:
    """Finds a package's modules with Python's own path finder and adds the files of a folder to them."""

    def __init__(self, folder: str, package: str = PACKAGE) -> None:
        self.folder = folder
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of the package, or None for every other module.

        Raises:
            ModuleNotFoundError: If the package itself is not installed.
        """
        head, *rest = fullname.split(".")
        if head != self.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if not rest and (spec is None or spec.origin is None):  # nothing, or only a folder of that name
            message = f"'{self.package}' is not installed in this environment. Run: pip install {self.package}"
            raise ModuleNotFoundError(message, name=fullname)
        if spec is None:
            return None
        file = os.path.join(self.folder, *rest)
        if spec.submodule_search_locations is None:
            file += ".py"
        else:  # a package
            if os.path.isdir(file) and file not in spec.submodule_search_locations:
                spec.submodule_search_locations.append(file)
            file = os.path.join(file, "__init__.py")
        if spec.loader is not None and os.path.isfile(file) and os.path.abspath(spec.origin or "") != file:
            _run_afterwards(spec.loader, file)
        return spec


def _run_afterwards(loader: Any, path: str) -> None:
    """Make a module's loader run an overlay file in the same module after upstream's."""
    exec_module = loader.exec_module

    def exec_both(module: ModuleType) -> None:
        exec_module(module)
        stock = dict(vars(module))
        code: Any = SourceFileLoader(module.__name__, path).get_code(module.__name__)
        try:
            exec(code, module.__dict__)
            _check_replaced(module, stock, path)
        except UpstreamMismatch:
            raise
        except ImportError as error:  # upstream no longer has a name that the overlay imports
            if (error.name or "").split(".")[0] == PACKAGE:
                raise _mismatch(str(error)) from error
            raise
        except AttributeError as error:  # or an attribute that the top level of the overlay file reads
            top = error.__traceback__ and error.__traceback__.tb_next
            if top is not None and top.tb_next is None:
                raise _mismatch(str(error)) from error
            raise

    loader.exec_module = exec_both


def install() -> None:
    """Put the finder first in `sys.meta_path`, unless it is there already or `ULTRALYTICS_OVERLAY=0` is set.

    Raises:
        ImportError: If the package is already imported, or the overlay's folder is missing.
    """
    if os.environ.get(SWITCH) == "0" or any(isinstance(finder, OverlayFinder) for finder in sys.meta_path):
        return
    if not os.path.isdir(FOLDER):
        raise ImportError(f"{DISTRIBUTION}: {FOLDER} is missing. Reinstall {DISTRIBUTION}.")
    if PACKAGE in sys.modules:
        raise ImportError(f"{DISTRIBUTION}: '{PACKAGE}' was imported before the overlay was installed.")
    sys.meta_path.insert(0, OverlayFinder(FOLDER))


class UpstreamMismatch(ImportError):
    """The installed upstream package does not have the shape that the overlay relies on."""


def _mismatch(what: str) -> UpstreamMismatch:
    import importlib.metadata as metadata

    try:
        found = metadata.version(PACKAGE)
        wanted = next(r for r in metadata.requires(DISTRIBUTION) or () if r.split(";")[0].startswith(PACKAGE))
    except (metadata.PackageNotFoundError, StopIteration):
        found, wanted = "of an unknown version", f"what {DISTRIBUTION} requires"
    return UpstreamMismatch(
        f"{PACKAGE} {found} is installed, but {DISTRIBUTION} supports {wanted}: {what}. "
        f"Install a supported version, or set {SWITCH}=0 to run {PACKAGE} without this fork."
    )


def require(name: str, holds: bool, what: str) -> None:
    """Refuse an upstream version in which a name no longer has the shape that an overlay file relies on.

    Raises:
        UpstreamMismatch: Unless it `holds`. Gives the installed and the supported versions, the full name and `what` is
            wrong, as the end of a sentence that starts with the name.
    """
    if not holds:
        raise _mismatch(f"`{name}` {what}")


def require_parameters(function: Callable[..., Any], *names: str) -> None:
    """Refuse an upstream version in which `function` no longer takes the parameters `names` (see `require`)."""
    import inspect

    missing = [name for name in names if name not in inspect.signature(function).parameters]
    where = f"{function.__module__}.{function.__qualname__}"
    require(where, not missing, f"no longer takes {', '.join(repr(name) for name in missing)}")


def _check_replaced(module: ModuleType, stock: dict[str, Any], path: str) -> None:
    """Refuse an upstream version without the functions and methods that an overlay file replaces, or their parameters.

    A method that upstream lacks is new if its name starts with an underscore and it does not call upstream's.

    Args:
        module: The module after both files ran.
        stock: Its names after upstream's file.
        path: The overlay file.
    """
    from inspect import signature

    for name, ours in list(vars(module).items()):
        if (theirs := stock.get(name)) is None or ours is theirs:
            continue
        pairs = {name: (ours, theirs)}
        if isinstance(ours, type):
            pairs = {f"{name}.{key}": (value, getattr(theirs, key, None)) for key, value in vars(ours).items()}
        for where, (own, replaced) in pairs.items():
            code = getattr(getattr(own, "__func__", own), "__code__", None)  # a static method holds its function
            if code is None or code.co_filename != path:
                continue
            is_new = code.co_name[0] == "_" and code.co_name not in code.co_names
            require(f"{module.__name__}.{where}", replaced is not None or is_new, "is gone")
            if replaced is not None and list(signature(replaced).parameters) != ["args", "kwargs"]:
                named = [p.name for p in signature(own).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
                require_parameters(replaced, *(name for name in named if name != "self"))
