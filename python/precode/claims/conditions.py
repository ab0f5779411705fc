"""What rules ask for: conditions on intervals, each met, refuted or open, and the verdict that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from precode.claims.statistics import Estimate

MET, REFUTED, OPEN = "met", "refuted", "open"

HOLDS, PARTLY, FAILS, INCONCLUSIVE, MISSING = "holds", "partly", "does not hold", "inconclusive", "not enough data"
VERDICTS = (HOLDS, PARTLY, FAILS, INCONCLUSIVE, MISSING)

Estimates: TypeAlias = "Mapping[str, Estimate | Sequence[Estimate] | None]"
"""What a claim's test measured, by name: an estimate, several of which some are asked for, or None where there are too
few data."""


@dataclass(frozen=True)
class Condition:
    """A least size of something that was measured. Our definition of when data say so.

    It is *met* if the measured value is at least the least size and its interval is above a bound, such as 0; *refuted*
    if its interval is below the least size, or not above the bound at all; otherwise *open*: the interval allows both.
    So the least size is an equivalence bound, too: what is smaller counts as nothing. A condition on what could not be
    measured is open.

    Attributes:
        measure: name of what was measured, among the estimates of a finding.
        words: what was measured, in words.
        least: its least size.
        above: what its interval must be above.
        optional: whether the condition is dropped where nothing was measured.

    Example:
        >>> from precode.claims.statistics import estimate
        >>> condition = Condition("gain", "the gain", least=0.1)
        >>> condition.text
        'the gain is at least 0.1 with an interval above 0'
        >>> [condition.answer({"gain": estimate([x, 0.2] * 5)}) for x in (0.1, -0.1, -0.2)]
        ['met', 'open', 'open']
        >>> condition.answer({"gain": estimate([0.0, 0.01] * 5)})
        'refuted'
    """

    measure: str
    words: str
    least: float
    above: float = 0.0
    optional: bool = False

    @property
    def text(self) -> str:
        """The condition as a sentence."""
        if self.least == self.above:
            return f"{self.words} has an interval above {self.above:g}"
        return f"{self.words} is at least {self.least:g} with an interval above {self.above:g}"

    def asked(self, estimates: Estimates) -> bool:
        """Whether the condition is asked for at all."""
        return not self.optional or estimates.get(self.measure) is not None

    def answer(self, estimates: Estimates, share: float = 1.0) -> str:
        """Met, refuted or open.

        Args:
            estimates: what was measured. Of several estimates one must do, each at its part of the level.
            share: of the level.
        """
        found = estimates.get(self.measure)
        if found is None:
            return OPEN
        if isinstance(found, Estimate):
            return self._answer(found, share)
        return any_of([self._answer(item, share / len(found)) for item in found])

    def _answer(self, found: Estimate, share: float) -> str:
        low, high = found.ends(share)
        if low > self.above and found.value >= self.least:
            return MET
        return REFUTED if high < self.least or high <= self.above else OPEN


@dataclass(frozen=True)
class AnyOf:
    """Conditions of which one must be met, each at its part of the level.

    Attributes:
        conditions: at least one.

    Example:
        >>> AnyOf([Condition("a", "A", 1.0), Condition("b", "B", 2.0)]).text
        'one of these, each at 1/2 of the level: A is at least 1 with an interval above 0; B is at least 2 with an \
interval above 0'
    """

    conditions: Sequence[Condition]

    @property
    def text(self) -> str:
        """The conditions as a sentence."""
        parts = "; ".join(condition.text for condition in self.conditions)
        return f"one of these, each at 1/{len(self.conditions)} of the level: {parts}"

    def asked(self, estimates: Estimates) -> bool:
        """Whether it is asked for at all."""
        return any(condition.asked(estimates) for condition in self.conditions)

    def answer(self, estimates: Estimates, share: float = 1.0) -> str:
        """Met if one is; refuted if all are; otherwise open."""
        return any_of([item.answer(estimates, share / len(self.conditions)) for item in self.conditions])


def any_of(answers: Sequence[str]) -> str:
    """Met if one answer is; refuted if all are; otherwise open.

    Example:
        >>> any_of(["refuted", "open"]), any_of(["refuted", "met"]), any_of([])
        ('open', 'met', 'open')
    """
    if MET in answers:
        return MET
    return REFUTED if answers and set(answers) == {REFUTED} else OPEN


@dataclass(frozen=True)
class Asked:
    """What a claim's rule asks for.

    Attributes:
        holds: conditions of "holds".
        partly: conditions of "partly".

    Example:
        >>> from precode.claims.statistics import estimate
        >>> asked = Asked([Condition("x", "x", 0.2)], [Condition("x", "x", 0.1)])
        >>> [asked.verdict({"x": estimate([x, x + 0.01] * 5)}) for x in (0.3, 0.15, 0.05)]
        ['holds', 'partly', 'does not hold']
        >>> asked.verdict({"x": estimate([0.0, 0.3] * 5)}), asked.verdict({"x": None})
        ('partly', 'inconclusive')
    """

    holds: Sequence[Condition | AnyOf]
    partly: Sequence[Condition | AnyOf]

    def answers(self, estimates: Estimates) -> dict[str, str]:
        """Every condition that is asked for as a sentence, and its answer."""
        return {
            condition.text: condition.answer(estimates)
            for condition in (*self.holds, *self.partly)
            if condition.asked(estimates)
        }

    def verdict(self, estimates: Estimates) -> str:
        """Holds if all its conditions are met, partly if all of that are; does not hold if one of these is refuted."""
        found = self.answers(estimates)
        holds, partly = (
            [found[condition.text] for condition in conditions if condition.text in found]
            for conditions in (self.holds, self.partly)
        )
        if set(holds) == {MET}:
            return HOLDS
        if set(partly) == {MET}:
            return PARTLY
        return FAILS if REFUTED in partly else INCONCLUSIVE

    @property
    def text(self) -> str:
        """The rule in words, made from its conditions."""
        holds, partly = (_listed(conditions) for conditions in (self.holds, self.partly))
        return (
            f"Holds if {holds}. Holds partly if {partly}. Does not hold if a condition of 'partly' is refuted: its "
            "interval is below the least size, or not above the bound at all. Otherwise inconclusive: the intervals "
            "allow both, or something could not be measured."
        )


def _listed(conditions: Sequence[Condition | AnyOf]) -> str:
    """Conditions as one clause of a sentence."""
    texts = [
        f"{condition.text} (where it was measured)"
        if isinstance(condition, Condition) and condition.optional
        else condition.text
        for condition in conditions
    ]
    return "; and ".join(texts)
