"""Adds this fork's arguments to the defaults of every command, in place, since upstream shares the objects.

File names may hold bytes that are not UTF-8, and terminals may not know a letter; printing one never ends a command.
"""

import sys
from pathlib import Path

from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT, YAML

import small_object

SMALL_OBJECT_CFG_PATH = Path(small_object.__file__).with_name("default.yaml")
SMALL_OBJECT_CFG_DICT = YAML.load(SMALL_OBJECT_CFG_PATH)
DEFAULT_CFG_DICT.update(SMALL_OBJECT_CFG_DICT)
vars(DEFAULT_CFG).update(SMALL_OBJECT_CFG_DICT)

for _stream in (sys.stdout, sys.stderr):
    if getattr(_stream, "errors", None) in {"strict", "surrogateescape"}:  # the latter in the C locale
        _stream.reconfigure(errors="backslashreplace")
