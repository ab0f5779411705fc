"""Ctrl-C, which waits while a module is edited."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within the block Ctrl-C waits, so that an edit of several tensors is made whole or not at all.

    Its handler is called at the end of the block. Python runs handlers in the main thread alone: elsewhere nothing is
    done, as where there is no handler of Python's.

    Example:
        >>> done = []
        >>> try:
        ...     with uninterrupted():
        ...         signal.raise_signal(signal.SIGINT)
        ...         done.append("edit")
        ... except KeyboardInterrupt:
        ...     done.append("Ctrl-C")
        >>> done
        ['edit', 'Ctrl-C']
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])
