"""Progress bars that stay quiet where there is no terminal or notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")

Progress: TypeAlias = "bool | Callable[[int, int], None]"
"""False: none. True: a bar. A function: called with the units of work done and in all, about 20 times a second; an
exception it raises stops the work and is passed on."""


@contextmanager
def reporter(progress: Progress, total: int, unit: str) -> Iterator[Callable[[int], None] | None]:
    """What a long computation calls with the units of work done so far; None if nobody wants to know."""
    if callable(progress):
        report = progress
        yield lambda done: report(done, total)
    elif progress:
        # disable=None: no bar where the output is neither a terminal nor a notebook.
        with tqdm(total=total, unit=unit, unit_scale=True, disable=None, leave=False) as bar:

            def advance(done: int) -> None:
                bar.update(done - bar.n)

            yield advance
    else:
        yield None


def tracked(items: Sequence[T], progress: Progress, unit: str) -> Iterator[T]:
    """The items one after the other, each reported as done when the next is asked for."""
    with reporter(progress, len(items), unit) as report:
        for done, item in enumerate(items, 1):
            yield item
            if report is not None:
                report(done)
