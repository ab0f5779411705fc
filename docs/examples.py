"""Shows the examples of docstrings as code (an extension of mkdocstrings).

Our docstrings have one ``Example:`` each; the parser knows the plural alone, and takes the singular for a paragraph.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Reads ``Example:`` as ``Examples:``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class and function when it is read."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
