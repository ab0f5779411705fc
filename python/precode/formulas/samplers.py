"""Distributions that inputs are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from precode._internal.errors import PrecodeTypeError, PrecodeValueError


@dataclass(frozen=True)
class BrokenClause:
    """Sparse inputs around whole and broken clauses, labels balanced (arXiv 2504.08842, section 4).

    For DNF label 1 a uniform clause is satisfied; for 0 all its literals but one are. Then further variables
    are set True until the number of True variables is uniform in `true_counts`, redrawn until the label is as
    wanted. With several outputs this holds for a clause of each, and every combination of labels occurs
    equally often.

    Attributes:
        true_counts: fewest and most True variables of an input; by default the number of positive literals of
            the chosen clauses and up to two more, which for width 4 are the published 4 to 6 for both labels.
            With negated literals or several outputs the default is our choice; the published text is silent.

    Example:
        >>> from precode import Dnf
        >>> data = Dnf.random(clauses=4, seed=0).sample(100, sampler=BrokenClause(true_counts=(5, 5)))
        >>> set(data.x.sum(1).tolist()), int(data.y.sum())
        ({5}, 50)
    """

    true_counts: tuple[int, int] | None = None


@dataclass(frozen=True)
class Biased:
    """Every variable is True independently with the same probability.

    Attributes:
        probability: of True, in [0, 1]; 0.5 draws uniform inputs.
        balanced: redraw until every combination of labels occurs equally often.

    Example:
        >>> from precode import Dnf
        >>> Dnf([[0, 1]], 4).sample(100, sampler=Biased(probability=0.3, balanced=True)).y.sum().item()
        50
    """

    probability: float = 0.5
    balanced: bool = False


@dataclass(frozen=True)
class TruthTable:
    """All 2^n inputs in order, variable 0 changing fastest; at most 16 variables. The sample count is ignored.

    Example:
        >>> from precode import Dnf
        >>> Dnf([[0, 1]], 4).sample(1, sampler=TruthTable()).x.shape
        torch.Size([16, 4])
    """


Sampler: TypeAlias = BrokenClause | Biased | TruthTable

NAMED: dict[str, Sampler] = {
    "broken-clause": BrokenClause(),
    "uniform": Biased(),
    "truth-table": TruthTable(),
}


def resolve(sampler: str | Sampler) -> Sampler:
    """A sampler from itself or its name.

    Raises:
        PrecodeValueError: the name is unknown.
        PrecodeTypeError: neither a name nor a sampler.
    """
    if isinstance(sampler, str):
        if sampler not in NAMED:
            raise PrecodeValueError(f"sampler {sampler!r} is unknown: use one of {', '.join(NAMED)}")
        return NAMED[sampler]
    if not isinstance(sampler, BrokenClause | Biased | TruthTable):
        raise PrecodeTypeError(f"sampler must be a name or a sampler, not {type(sampler).__name__}")
    return sampler
