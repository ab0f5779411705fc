"""What callbacks take."""

from __future__ import annotations

from collections.abc import Sequence

from precode._internal.errors import PrecodeTypeError
from precode.modules.steps import Steps


def check(followers: Sequence[object]) -> list[Steps]:
    """What follows the steps of a training.

    Raises:
        PrecodeTypeError: something else, or nothing.
    """
    found = [each for each in followers if isinstance(each, Steps)]
    if not found or len(found) < len(followers):
        given = ", ".join(type(each).__name__ for each in followers) or "nothing"
        raise PrecodeTypeError(f"a callback takes what precode.watch returns, and precode.Pruner, not {given}")
    return found
