"""Timing contestants in turn, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

SECONDS = 0.3
"""Work that is timed at a stretch."""
PAUSE = 0.5
"""Rest before each stretch, in which the threads of the contestant before fall asleep."""


@dataclass
class Entry:
    """A contestant ready to run.

    Attributes:
        run: does one unit of work and waits until it is done.
        amount: what a unit counts, such as network-steps.
        prepare: what comes before a unit and is not timed.
        loops: units timed at a stretch.
        warmup: seconds of the first unit, compilation included.
        seconds: time of a unit, stretch by stretch.
    """

    run: Callable[[], object]
    amount: float
    prepare: Callable[[], object] = lambda: None
    loops: int = 1
    warmup: float = math.nan
    seconds: list[float] = field(default_factory=list)

    def stretch(self, loops: int) -> float:
        """Seconds of a unit, over several units in a row."""
        spent = 0.0
        for _ in range(loops):
            self.prepare()
            began = time.perf_counter()
            self.run()
            spent += time.perf_counter() - began
        return spent / loops

    def calibrate(self, seconds: float) -> float:
        """Warms up, sets how many units make a stretch of `seconds`, and returns the time of a unit.

        The time is the least of three stretches of a third of that length, or of one unit if that is longer.
        """
        self.warmup = self.stretch(1)
        unit = max(self.stretch(1), 1e-9)
        if unit < seconds:
            shorter = math.ceil(seconds / 3 / unit)
            unit = max(min(self.stretch(shorter) for _ in range(3)), 1e-9)
        self.loops = math.ceil(seconds / unit)
        return unit

    @property
    def rates(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Seconds for each thing counted, stretch by stretch."""
        return np.array(self.seconds) / self.amount


def interleave(
    entries: Sequence[Entry], repeats: int, *, pause: float = PAUSE, report: Callable[[int], None] | None = None
) -> None:
    """Times one stretch of every entry, in turn, and that `repeats` times: A B C, A B C, ..."""
    for repeat in range(repeats):
        for number, entry in enumerate(entries):
            time.sleep(pause)
            entry.seconds.append(entry.stretch(entry.loops))
            if report:
                report(repeat * len(entries) + number + 1)


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Median, least and most."""
    array = np.fromiter(values, dtype=np.float64)
    return float(np.median(array)), float(array.min()), float(array.max())
