"""Packages that are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class Lazy(ModuleType):
    """A package that is imported with its first attribute.

    For pandas, which takes an eighth of the time that ``import precode`` would take with it, and brings pyarrow along.

    Example:
        >>> tables = Lazy("pandas")
        >>> tables.DataFrame({"x": [1]})["x"].tolist()
        [1]
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)
