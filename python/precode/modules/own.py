"""Ticket methods of the user's own: functions from weights and gradients to scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.parts import exact
from precode._internal.randomness import Purpose, Randomness
from precode.tickets.registry import records

Score = Callable[[str, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""From a parameter's name, its values and the gradient of the mean loss there to scores of the same shape."""

_registered: dict[str, Score] = {}

LARGEST = 2**53
"""Up to which float64 has every whole number."""


def register_method(name: str, method: Score) -> Score:
    """Makes a function a ticket method that `find_ticket` and `compare` know by its name, for this session.

    Args:
        name: not that of a method of the registry; one of the user's own is replaced.
        method: from the name of a parameter, its initial values and the gradient of the mean loss over all data (None
            where no data are given) to one score a weight, the larger the better: a dense tensor of the parameter's
            shape and of any real type. Scores are compared in float64; those that are not finite, and whole numbers
            beyond 2^53, are refused by the search.

    Returns:
        The function.

    Raises:
        PrecodeTypeError: no name, or no function.
        PrecodeValueError: a name that is taken, or has a colon, which is for controls.

    Example:
        >>> score = register_method("first-order", lambda name, weight, gradient: (weight * gradient).abs())
        >>> module = torch.nn.Linear(8, 4)
        >>> from precode import find_ticket
        >>> data = torch.randn(16, 8), torch.randint(4, (16,))
        >>> loss = torch.nn.functional.cross_entropy
        >>> own = find_ticket(module, "first-order", 0.25, data, loss)
        >>> torch.equal(own.masks["weight"], find_ticket(module, "snip", 0.25, data, loss).masks["weight"])
        True
    """
    if not isinstance(name, str) or not callable(method):
        raise PrecodeTypeError(f"a method is a name and a function, not {type(name).__name__}, {type(method).__name__}")
    if name in (*records(), "all") or ":" in name or not name:
        raise PrecodeValueError(f"method {name!r} cannot be registered: choose a name that is free and has no colon")
    _registered[name] = method
    return method


def resolve(method: Any) -> tuple[str, Score | None]:
    """The name of a method, and its function if it is one of the user's own.

    Raises:
        PrecodeTypeError: neither a name nor a function.
        PrecodeValueError: a function that is called as a method of the registry; a control that is not for functions.
    """
    if isinstance(method, type):
        raise PrecodeTypeError(f"method is the class {method.__name__}: pass a function, or one of it")
    if callable(method):
        name = str(getattr(method, "__name__", type(method).__name__))
        if name in records():
            raise PrecodeValueError(f"method is a function called {name!r}, as one of the registry is: rename it")
        return name, method
    if not isinstance(method, str):
        raise PrecodeTypeError(f"method must be a name or a function, not {type(method).__name__}")
    name, colon, control = method.partition(":")
    if name in _registered and colon and control != "invert":
        raise PrecodeValueError(
            f"control {control!r} is not for methods of your own: use ':invert', or shuffle the scores in the function"
        )
    return method, _registered.get(name)


def scores_of(
    name: str,
    method: Score,
    weights: dict[str, torch.Tensor],
    gradients: Mapping[str, torch.Tensor | None] | None,
    randomness: Randomness,
    *key: int,
) -> dict[str, torch.Tensor]:
    """What a function says of every prunable parameter; what it draws is keyed by numbers too.

    Raises:
        PrecodeTypeError: not a tensor of numbers.
        PrecodeShapeError: a tensor of another shape.
    """
    found = {}
    with randomness.isolated():
        randomness.reseed(Purpose.SCORES, *key)
        for parameter, weight in weights.items():
            gradient = None if gradients is None else gradients[parameter]
            score = method(parameter, weight.clone(), None if gradient is None else gradient.clone())
            found[parameter] = _checked(name, parameter, weight, score)
    return found


def _checked(name: str, parameter: str, weight: torch.Tensor, score: Any) -> torch.Tensor:
    """The scores of a parameter, in float64.

    Raises:
        PrecodeTypeError: not a tensor of numbers.
        PrecodeShapeError: a tensor of another shape.
        PrecodeValueError: whole numbers that are too large.
    """
    is_tensor = isinstance(score, torch.Tensor)
    if not is_tensor or score.is_complex() or score.is_meta or score.is_quantized or score.layout != torch.strided:
        what = f"{score.dtype}, {score.layout} on {score.device}" if is_tensor else type(score).__name__
        raise PrecodeTypeError(f"method {name!r} must return a dense tensor of real numbers, not {what}")
    if score.shape != weight.shape:
        raise PrecodeShapeError(
            f"method {name!r} returned scores of shape {tuple(score.shape)} for '{parameter}' of shape "
            f"{tuple(weight.shape)}: return one score a weight"
        )
    if score.dtype == torch.int64 and score.numel() and max(-int(score.min()), int(score.max())) > LARGEST:
        raise PrecodeValueError(
            f"method {name!r} returned whole numbers beyond 2^53 for '{parameter}', which float64 does not tell apart: "
            "return smaller ones"
        )
    return exact(score.detach())
