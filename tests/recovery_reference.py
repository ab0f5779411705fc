"""Independent reference for the recovery of codes: plain NumPy, written from the definitions in the documentation.

One network at a time, as slow as it is plain. Nothing here is shared with the code under test, and nothing was taken
from it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import ArrayLike

import reference

Location = tuple[int, str, int]
"""(clause, template, row)"""


def templates(width: int) -> list[str]:
    """All signs positive for rows with w2 > 0; one or two of them, never all, for rows with w2 < 0.

    The larger number comes first in a name, as in 3N1P and 2P2N.
    """
    mixed = [(p, width - p) for p in (1, 2) if p < width]
    return [f"{width}P", *(f"{p}P{n}N" if p >= n else f"{n}N{p}P" for p, n in mixed)]


def codes(
    c1: ArrayLike,
    w2: ArrayLike,
    clauses: reference.Clauses,
    alive: ArrayLike | None = None,
    floor: float = 0.0,
    relaxed: bool = False,
) -> set[Location]:
    """The locations (clause, template, row) of a network's codes; our definition.

    ``c1`` (j, n) is the first layer in feature space, ``alive`` (j, n) its mask there (None: all alive), and signs
    are aligned with the literals. The row's output weight must have the template's polarity, and some placement of
    the template must be right on every cell, each alive and larger than ``floor``. Relaxed: it must be right on the
    cells alive, which are at least half; a row can then carry two templates of a clause.
    """
    weights = np.asarray(c1, dtype=np.float64)
    output = np.asarray(w2, dtype=np.float64)
    lives = np.ones(weights.shape, dtype=np.bool_) if alive is None else np.asarray(alive, dtype=np.bool_)
    found: set[Location] = set()
    for c, clause in enumerate(clauses):
        for template in templates(len(clause)):
            for r in range(weights.shape[0]):
                if np.sign(output[r]) != reference.template_polarity(template):
                    continue
                living = [i for i, v in enumerate(clause) if lives[r, reference.variable(v)]]
                if len(living) < len(clause) and not (relaxed and 2 * len(living) >= len(clause)):
                    continue
                values = [weights[r, reference.variable(v)] * reference.literal_sign(v) for v in clause]
                if any(
                    all(placement[i] * values[i] > floor for i in living)
                    for placement in reference.placements(template)
                ):
                    found.add((c, template, r))
    return found


def agreement(found: Iterable[Hashable], true: Iterable[Hashable]) -> dict[str, float]:
    """Counts and precision, recall and Jaccard of two multisets; 0 / 0 is nan."""
    a, b = Counter(found), Counter(true)
    shared, union = (a & b).total(), (a | b).total()

    def ratio(part: int, whole: int) -> float:
        return part / whole if whole else math.nan

    return {
        "shared": shared,
        "found": a.total(),
        "true": b.total(),
        "union": union,
        "precision": ratio(shared, a.total()),
        "recall": ratio(shared, b.total()),
        "jaccard": ratio(shared, union),
    }


def recovery(found: set[Location], true: set[Location]) -> dict[str, dict[str, float]]:
    """Agreement of a ticket's codes with its dense parent's, by level; our definition.

    location: the locations; family: (clause, template), as often as there are rows; clause: clauses with any code.
    """
    return {
        "location": agreement(found, true),
        "family": agreement([place[:2] for place in found], [place[:2] for place in true]),
        "clause": agreement({place[0] for place in found}, {place[0] for place in true}),
    }
