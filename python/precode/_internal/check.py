"""Arguments from Python and NumPy, checked before anything is computed from them."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNT = 2**32 - 1
"""Largest count: samples, epochs, variables and the like."""

KEY = 2**64 - 1
"""Largest key or number of a stream of random numbers."""


def _index(value: object) -> int | None:
    """A Python or NumPy integer as an int; None for anything else, Booleans included."""
    if isinstance(value, bool) or getattr(value, "dtype", None) in (np.bool_, torch.bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except (TypeError, RuntimeError):
        return None


def a_path(value: object, name: str) -> str:
    """The path of a file or folder.

    Args:
        value: a string, or a path.
        name: the argument, for messages.

    Raises:
        PrecodeTypeError: something else.

    Example:
        >>> a_path("a.safetensors", "path")
        'a.safetensors'
    """
    try:
        return os.fsdecode(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise PrecodeTypeError(f"{name} must be a string or a path, not {type(value).__name__}") from error


def functions(given: Mapping[str, object]) -> None:
    """Refuses what is no function among a user's functions; all but ``optimizer`` may be None.

    Args:
        given: by the names of their arguments.

    Raises:
        PrecodeTypeError: something else, or the class of a loss or a training.
    """
    for name, function in given.items():
        if not callable(function) and not (function is None and name != "optimizer"):
            raise PrecodeTypeError(f"{name} must be a function, not {type(function).__name__}")
        if isinstance(function, type) and name in ("loss", "train"):
            raise PrecodeTypeError(f"{name} is the class {function.__name__}: pass one of it, {function.__name__}()")


def is_integer(value: object) -> bool:
    """Whether a value is a Python or NumPy integer; Booleans are not."""
    return _index(value) is not None


def _range(low: int, high: int | None) -> str:
    """A range in words; nobody reads a large power of two as a number."""
    if high is None:
        return f"of at least {low}"
    power = (high + 1).bit_length() - 1
    if high + 1 == 2**power and power >= 31:
        start = f"-2**{power}" if low == -(2**power) else low
        return f"of at least {start} and below 2**{power}"
    return f"from {low} to {high}"


def integer(value: object, name: str, low: int, high: int | None = None) -> int:
    """One integer of an argument.

    Args:
        value: a Python or NumPy integer.
        name: the argument, for messages.
        low: least value allowed.
        high: largest value allowed.

    Raises:
        PrecodeTypeError: not an integer; Booleans, strings and floats are none.
        PrecodeValueError: out of range.

    Example:
        >>> integer(np.int64(3), "batch", 1)
        3
        >>> integer(-1, "seed", 0, KEY)
        Traceback (most recent call last):
        precode._internal.errors.PrecodeValueError: seed = -1: expected an integer of at least 0 and below 2**64
    """
    number = _index(value)
    if number is None:
        raise PrecodeTypeError(f"{name} must be an integer, not {type(value).__name__} ({reprlib.repr(value)})")
    if number < low or (high is not None and number > high):
        raise PrecodeValueError(f"{name} = {number}: expected an integer {_range(low, high)}")
    return number


def integers(values: object, name: str, low: int, high: int | None = None) -> list[int]:
    """The integers of an argument that takes one or several.

    Args:
        values: one integer, or an iterable of them.
        name: the argument, for messages.
        low: least value allowed.
        high: largest value allowed.

    Raises:
        PrecodeTypeError: neither an integer nor an iterable of integers.
        PrecodeValueError: one is out of range.

    Example:
        >>> integers(range(2), "snapshots", 0), integers(8, "hidden", 1)
        ([0, 1], [8])
    """
    if _index(values) is not None:
        return [integer(values, name, low, high)]
    listed = integers_of(values, name)
    if any(number < low or (high is not None and number > high) for number in listed):
        raise PrecodeValueError(f"{name} = {reprlib.repr(listed)}: expected integers {_range(low, high)}")
    return listed


def integer_of(value: object, name: str) -> int:
    """An integer of any size.

    Raises:
        PrecodeTypeError: not an integer.
    """
    number = _index(value)
    if number is None:
        raise PrecodeTypeError(f"{name} must be an integer, not {type(value).__name__} ({reprlib.repr(value)})")
    return number


def integers_of(values: object, name: str) -> list[int]:
    """One integer of any size, or several.

    Raises:
        PrecodeTypeError: neither an integer nor an iterable of integers.
    """
    if _index(values) is not None:
        return [integer_of(values, name)]
    return [_member(item, name) for item in _iterable(values, name, "integers")]


def _member(value: object, name: str) -> int:
    """An integer inside an argument that takes several."""
    number = _index(value)
    if number is None:
        raise PrecodeTypeError(f"{name} must be integers, not {type(value).__name__} ({reprlib.repr(value)})")
    return number


def numbers(values: object, name: str, low: float) -> list[float]:
    """The finite real numbers of an argument.

    Args:
        values: one number, or an iterable of them.
        name: the argument, for messages.
        low: least value allowed.

    Raises:
        PrecodeTypeError: not numbers.
        PrecodeValueError: none, or one that is not finite or too small.
    """
    listed: list[float] = []
    items = [values] if isinstance(values, int | float | np.number) else _iterable(values, name, "numbers")
    for item in items:
        if isinstance(item, bool | np.bool_ | str | bytes):
            raise PrecodeTypeError(f"{name} must be numbers, not {type(item).__name__}")
        try:
            # Of a shorter float the decimals that it stands for: np.float32(0.1) is 0.1, not 0.10000000149.
            short = isinstance(item, np.floating) and item.itemsize < 8
            listed.append(float(str(item)) if short else float(item))
        except (TypeError, ValueError, OverflowError) as error:
            raise PrecodeTypeError(f"{name} must be numbers, not {type(item).__name__}") from error
    if not listed or not all(math.isfinite(number) and number >= low for number in listed):
        raise PrecodeValueError(f"{name} = {reprlib.repr(listed)}: expected finite numbers of at least {low:g}")
    return listed


def fraction(value: object, name: str) -> float:
    """One number in (0, 1].

    Raises:
        PrecodeTypeError: not a number.
        PrecodeValueError: out of range.

    Example:
        >>> fraction(0.25, "density")
        0.25
    """
    (number,) = fractions([value], name)
    return number


def fractions(values: object, name: str) -> list[float]:
    """Numbers in (0, 1], of an argument that takes one or several.

    Raises:
        PrecodeTypeError: neither a number nor an iterable of numbers.
        PrecodeValueError: out of range, or none at all.
    """
    listed = numbers(values, name, 0)
    for number in listed:
        if not 0 < number <= 1:
            raise PrecodeValueError(f"{name} = {number:g}: expected a fraction above 0 and at most 1")
    return listed


def _iterable(values: Any, name: str, of: str) -> list[Any]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise PrecodeTypeError(f"{name} must be {of}, not {type(values).__name__} ({reprlib.repr(values)})")
    try:
        return list(values)
    except TypeError as error:  # an array or tensor without axes
        raise PrecodeTypeError(f"{name} must be {of}, not {type(values).__name__} ({values!r})") from error


def plain(values: Any) -> Any:
    """Arrays and tensors as nested lists; anything else as it is."""
    return values.tolist() if isinstance(values, np.ndarray | torch.Tensor) else values


def literals(clause: Any) -> list[int]:
    """The signed literals of one clause.

    Raises:
        PrecodeTypeError: not a sequence of integers.
        PrecodeValueError: a literal that does not fit into 64 bits.
    """
    clause = plain(clause)
    items = list(clause) if isinstance(clause, Iterable) else [None]
    signed = [_index(literal) for literal in items]
    if None in signed:
        raise PrecodeTypeError(
            "a clause must be a sequence of integers (v for a variable, ~v for its negation), not "
            f"{reprlib.repr(items if isinstance(clause, Iterable) else clause)}"
        )
    return [integer(literal, "literal", -(2**63), 2**63 - 1) for literal in signed]


def dense(tensor: torch.Tensor, name: str) -> NDArray[Any]:
    """A tensor as an array, in place where it can be; the half-precision kinds that NumPy lacks become float32.

    Raises:
        PrecodeTypeError: a tensor without values in memory: sparse, or on the meta device.
    """
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        kind = tensor.layout if tensor.layout != torch.strided else "one on the meta device"
        raise PrecodeTypeError(f"{name} must be a dense tensor, not {kind}")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype.is_floating_point and tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.numpy()


def booleans(values: Any, name: str, what: str) -> NDArray[np.bool_]:
    """Booleans, or numbers that are all 0 or 1, as a contiguous array of Booleans.

    Args:
        values: an array, a tensor or nested lists.
        name: the argument, for messages.
        what: what they are, for messages.

    Raises:
        PrecodeTypeError: not numbers.
        PrecodeShapeError: nested lists of different lengths.
        PrecodeValueError: a number other than 0 and 1.
    """
    try:
        array: NDArray[Any] = dense(values, name) if isinstance(values, torch.Tensor) else np.asarray(values)
    except ValueError as error:
        raise PrecodeShapeError(f"{name} must be a regular array: {error}") from error
    if array.dtype.kind not in "biuf":
        kind = array.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise PrecodeTypeError(f"{name} must be Booleans or numbers 0 and 1, not {kind}")
    if array.dtype != np.bool_:
        wrong = array[(array != 0) & (array != 1)]
        if wrong.size:
            raise PrecodeValueError(f"{name} contains {wrong.flat[0]}: {what} are Boolean (0 or 1)")
        array = array.astype(np.bool_)
    return np.ascontiguousarray(array)
