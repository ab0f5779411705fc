"""Refuses work that does not fit into memory, before it starts."""

from __future__ import annotations

import psutil

from precode._internal.errors import UnsupportedError

SHARE = 0.9
"""Part of the free memory that one piece of work may take."""


def check(needed: int, what: str, remedy: str) -> None:
    """Compares an estimate with the memory that is free.

    Args:
        needed: estimated peak, bytes.
        what: the work, for the message.
        remedy: what to do instead, for the message.

    Raises:
        UnsupportedError: it does not fit.
    """
    free = int(psutil.virtual_memory().available * SHARE)
    if needed > free:
        raise UnsupportedError(
            f"{what} needs about {needed / 2**30:.1f} GiB of memory, but {free / 2**30:.1f} GiB can be used: {remedy}"
        )
