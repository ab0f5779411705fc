"""How many threads torch uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one thread: steps are too small to share, and threads that wait for each other take far longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shared(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results of a function in order; the threads that torch has share the items, each with one thread of torch.

    An exception, or Ctrl-C, ends it once what has begun is done; the rest is not begun.

    Example:
        >>> shared(lambda number: number * number, range(4))
        [0, 1, 4, 9]
    """
    threads = torch.get_num_threads()
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        try:
            return list(pool.map(function, items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
