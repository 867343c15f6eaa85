"""Tells whether the overlay is active, and the versions in use."""

import importlib.metadata
import os
import platform
import sys

import ultralytics_overlay


def is_active() -> bool:
    """Return whether this process imports `ultralytics` with the overlay."""
    return any(isinstance(finder, ultralytics_overlay.OverlayFinder) for finder in sys.meta_path)


def status() -> dict[str, str]:
    """Return the state of the overlay and the versions in use, as text by name, such as `Ultralytics`."""
    if is_active():
        overlay = f"active, from {ultralytics_overlay.FOLDER}"
    elif os.environ.get(ultralytics_overlay.SWITCH) == "0":
        overlay = f"off: {ultralytics_overlay.SWITCH}=0"
    else:
        reasons = [finder.reason for finder in sys.meta_path if hasattr(finder, "reason")]
        overlay = f"off: {reasons[0] if reasons else 'this Python was started without it'}"
    versions = {"Ultralytics": "ultralytics", "PyTorch": "torch", "torchvision": "torchvision"}
    return {
        "Overlay": overlay,
        **{name: _version(package) for name, package in versions.items()},
        "small-object-detection": _version(ultralytics_overlay.DISTRIBUTION),
        "Python": f"{platform.python_version()}, {sys.executable}",
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
