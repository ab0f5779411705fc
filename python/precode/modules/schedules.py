"""How density falls in the course of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from precode._internal.check import COUNT, fraction, integer
from precode._internal.errors import PrecodeTypeError, PrecodeValueError

SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "one-shot": lambda first, last, part: last,
    "linear": lambda first, last, part: first + (last - first) * part,
    "cubic": lambda first, last, part: last + (first - last) * (1 - part) ** 3,
    "geometric": lambda first, last, part: first * (last / first) ** part,
}
"""From the first and last density and the part of the time that is gone to the density then."""


@dataclass(frozen=True)
class Schedule:
    """The density of a module after each step of its training: what `Pruner` follows, and densities for one search.

    Between `start` and `end`, at every `every` steps and at the end, with u the part of that time that is gone:

    - ``"one-shot"``: `density` from `start` on;
    - ``"linear"``: initial + (density - initial) u;
    - ``"cubic"``: density + (initial - density) (1 - u)^3, eq. 1 of arXiv 1710.01878, which is of the sparsity,
      1 - density;
    - ``"geometric"``: initial (density / initial)^u, so that each time drops the same part of what is left, as the
      levels 0.8^t of iterative magnitude pruning do: ``Schedule("geometric", density=0.8**n, end=n)``.

    Iterating gives the densities, the largest first, so that a schedule can be the ``densities=`` of `find_ticket`,
    `find_tickets` and `compare`.

    Attributes:
        kind: one of these.
        density: the fraction kept at the end, in (0, 1].
        start: the step after which pruning begins.
        end: the step after which the last weights are pruned; that of ``"one-shot"`` is `start`.
        every: steps between two prunings.
        initial: the fraction kept at the start, at least `density` and at most 1.

    Raises:
        PrecodeValueError: an unknown kind, or numbers out of range.
        PrecodeTypeError: something other than numbers.

    Example:
        >>> schedule = Schedule("cubic", start=100, end=500, density=0.2, every=100)
        >>> [(step, round(schedule.at(step), 4)) for step in schedule.steps]
        [(100, 1.0), (200, 0.5375), (300, 0.3), (400, 0.2125), (500, 0.2)]
        >>> schedule.at(399) == schedule.at(300), schedule.at(10**6)
        (True, 0.2)
    """

    kind: str = "cubic"
    density: float = 0.1
    start: int = 0
    end: int | None = None
    every: int = 1
    initial: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str):
            raise PrecodeTypeError(f"kind must be a name such as 'cubic', not {type(self.kind).__name__}")
        if self.kind not in SHAPES:
            raise PrecodeValueError(f"kind {self.kind!r} is unknown: use one of {', '.join(SHAPES)}")
        put = object.__setattr__
        put(self, "density", fraction(self.density, "density"))
        put(self, "initial", fraction(self.initial, "initial"))
        put(self, "start", integer(self.start, "start", 0, COUNT))
        put(self, "every", integer(self.every, "every", 1, COUNT))
        if self.initial < self.density:
            raise PrecodeValueError(
                f"initial = {self.initial:g} is below density = {self.density:g}: density only falls"
            )
        if self.kind == "one-shot":
            if self.end not in (None, self.start):
                raise PrecodeValueError(f"end = {self.end}: a 'one-shot' schedule prunes at start alone; leave end out")
            put(self, "end", self.start)
        elif self.end is None:
            raise PrecodeValueError(f"a {self.kind!r} schedule needs end=, the step of its last pruning")
        else:
            put(self, "end", integer(self.end, "end", self.start + 1, COUNT))

    @property
    def _last(self) -> int:
        return self.start if self.end is None else self.end

    @property
    def steps(self) -> list[int]:
        """The steps after which weights are pruned."""
        return [*range(self.start, self._last, self.every), self._last]

    @property
    def densities(self) -> list[float]:
        """The densities, each once, the largest first."""
        return list(dict.fromkeys(self.at(step) for step in self.steps))

    def at(self, step: int) -> float:
        """The density after a number of steps; 1 before `start`."""
        step = integer(step, "step", 0)
        if step < self.start:
            return 1.0
        if step >= self._last:
            return self.density
        gone = (step - self.start) // self.every * self.every
        return SHAPES[self.kind](self.initial, self.density, gone / (self._last - self.start))

    def __iter__(self) -> Iterator[float]:
        return iter(self.densities)
