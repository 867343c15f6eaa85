"""Adds this fork's arguments to the defaults of every command, in place, since upstream shares the objects.

File names may hold bytes that are not UTF-8, and terminals may lack a letter; printing either never ends a command.
"""

import sys

from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT

from small_object.arguments import DEFAULTS

DEFAULT_CFG_DICT.update(DEFAULTS)
vars(DEFAULT_CFG).update(DEFAULTS)

for _stream in (sys.stdout, sys.stderr):
    if getattr(_stream, "errors", None) in {"strict", "surrogateescape"}:  # the latter in the C locale
        _stream.reconfigure(errors="backslashreplace")
