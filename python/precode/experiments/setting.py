"""The setting of an experiment: a frozen set of named values with defaults."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from precode._internal.check import KEY, integer, integers, numbers
from precode._internal.errors import PrecodeTypeError, PrecodeValueError


class Setting(Mapping[str, Any]):
    """Named values of an experiment. They cannot be changed, and have one JSON form.

    A value has the type of its default: an integer, a name, or several of them, where one alone is taken too.

    Args:
        experiment: its name, for messages.
        defaults: all names with their defaults.
        changes: other values of some.

    Raises:
        PrecodeValueError: an unknown name; the message lists those there are. A negative integer.
        PrecodeTypeError: a value of another type than its default.

    Example:
        >>> setting = Setting("squares", {"formulas": 10, "hidden": (16, 32)}, {"hidden": 8})
        >>> dict(setting), setting.to_json()
        ({'formulas': 10, 'hidden': (8,)}, '{"formulas":10,"hidden":[8]}')
    """

    def __init__(self, experiment: str, defaults: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        if unknown := [name for name in changes if name not in defaults]:
            raise PrecodeValueError(
                f"{', '.join(map(repr, unknown))}: no setting of experiment {experiment!r}; there are "
                f"{', '.join(defaults)}"
            )
        self._values = {
            name: _like(default, changes[name], name) if name in changes else default
            for name, default in defaults.items()
        }

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def to_json(self) -> str:
        """The canonical JSON form."""
        return json.dumps(self._values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and self.to_json() == other.to_json()

    def __repr__(self) -> str:
        return f"Setting({', '.join(f'{name}={reprlib.repr(value)}' for name, value in self._values.items())})"


def _like(default: Any, value: Any, name: str) -> Any:
    """A value in the form of its default."""
    if isinstance(default, bool):
        return _of(bool, value, name, "True or False")
    if isinstance(default, int):
        return integer(value, name, 0, KEY)
    if isinstance(default, float):
        (number,) = numbers([value], name, 0)
        return number
    if isinstance(default, str):
        return _of(str, value, name, f"a name such as {default!r}")
    if isinstance(default, tuple):
        return _several(default, value, name)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _several(default: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if all(isinstance(item, int) for item in default):
        return tuple(integers(value, name, 0, KEY))
    if all(isinstance(item, int | float) for item in default):
        # No number at all is a choice here: what they stand for is then left out.
        listed = list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else value
        return tuple(numbers(listed, name, 0)) if listed != [] else ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise PrecodeTypeError(f"{name} must be names, not {type(value).__name__}")
    return tuple(_of(str, item, name, f"names such as {default[0]!r}") for item in items)


def _of(kind: type, value: Any, name: str, what: str) -> Any:
    if not isinstance(value, kind):
        raise PrecodeTypeError(f"{name} must be {what}, not {type(value).__name__}")
    return value
