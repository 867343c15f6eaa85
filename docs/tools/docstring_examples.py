"""Makes the Python API show the `Example:` section of a docstring as code; griffe knows only `Examples:`."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Renames the section before griffe parses the docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section in the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
