"""Starts the overlay if `src/` is on `PYTHONPATH`, where Python reads no `.pth` file. Not part of the wheel."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

import ultralytics_overlay_start

ultralytics_overlay_start.start()

# Python imports only the first `sitecustomize`: run the one that this file hides.
_others = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
if (_spec := PathFinder.find_spec("sitecustomize", _others)) and _spec.loader:
    _spec.loader.exec_module(module_from_spec(_spec))
