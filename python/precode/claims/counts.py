"""Locations and codes counted by initial distance, as observed and under the nulls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.errors import PrecodeValueError
from precode.codes.decoding import decode
from precode.codes.nulls import hamming_probabilities, permute_rows, random_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from precode.networks.stacks import Networks

DRAWS = 20
"""Draws of the random nulls; their counts are means over the draws."""

NULLS = ("analytic", "false_clauses", "swapped_clauses", "permuted_rows", "random_network")


def count_nulls(
    locations: pd.DataFrame,
    end: Networks,
    *,
    seed: int = 0,
    streams: Sequence[int] | None = None,
    output: int = 0,
) -> pd.DataFrame:
    """Counts of locations and of final codes by initial Hamming distance, observed and under every null.

    Only rows that had the template's polarity at initialization are counted. The nulls:

    - analytic: as many codes with random signs, Binomial(k, 1/2) for an all-positive template;
    - false_clauses: clauses that are not in the formula, with the patterns that chance leaves there at the end (what
      the persistence of signs alone gives);
    - swapped_clauses: the rows of the final codes, read for a false clause instead;
    - permuted_rows: the final codes on random rows of the same polarity;
    - random_network: the codes of a network with random signs but the final polarities and fraction of positive
      signs (arXiv 2504.08842, section 4.1).

    Args:
        locations: as in `Observations.locations`, of one cell, with formulas 0, 1, ... in order.
        end: the trained networks.
        seed: key of the random nulls.
        streams: number of each network's stream for them; 0, 1, ... by default.
        output: which output, where there are several.

    Returns:
        One row a formula, template, null (``"observed"`` first) and distance 0..k: locations and codes, counts
        (means over draws for random nulls).

    Example:
        >>> from precode import Dnf, train
        >>> from precode.claims import observe
        >>> seen = observe(train([Dnf.random(clauses=4, seed=0)] * 2, hidden=16, samples=64, epochs=1))
        >>> seen.nulls.groupby("null")["codes"].sum()["analytic"] > 0
        np.True_
    """
    names = list(locations["template"].cat.categories)
    networks, sets = locations["formula"].nunique(), locations["clause"].nunique()
    shape = (networks, sets, len(names), locations["row"].nunique())

    def grid(kind: str, column: str) -> NDArray[Any]:
        """A column in the shape of formulas, clauses, templates and rows."""
        return locations.loc[locations["kind"] == kind, column].to_numpy().reshape(shape)

    codes, right = grid("formula", "code").astype(bool), grid("formula", "polarity").astype(bool)
    distance, false_distance = (grid(kind, "hamming").astype(np.int64) for kind in ("formula", "false"))
    false_codes = grid("false", "code").astype(bool)
    if end.tasks is None:
        raise PrecodeValueError("these networks were trained without formulas: nothing says where their codes are")
    polarity = end.read_out(output).output.astype(np.float64)
    width = len(end.tasks[0].clauses_of(output)[0])
    keys = [(seed, stream) for stream in (range(networks) if streams is None else streams)]

    def counted(distances: NDArray[np.int64], wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Number of wanted locations at each distance, (T, k + 1), of one network."""
        return np.array([np.bincount(distances[:, t][wanted[:, t]], minlength=width + 1) for t in range(len(names))])

    frames = []
    for number, (key, stream) in enumerate(keys):
        own, other, rows = distance[number], false_distance[number], right[number]
        observed = counted(own, codes[number] & rows)
        chance = np.array([hamming_probabilities(name) for name in names])
        permuted, random = np.zeros((2, *observed.shape))
        # Bare clauses: these output weights speak for them already, also of a complemented formula.
        alone = decode(end.features[number], polarity[number], end.tasks[number].clauses_of(output))
        for draw in range(DRAWS):
            index = stream * DRAWS + draw
            moved = permute_rows(
                codes[number].transpose(1, 0, 2).reshape(-1, shape[-1]), polarity[number], seed=key, index=index
            )
            moved = moved.reshape(len(names), sets, -1).transpose(1, 0, 2)
            permuted += counted(own, moved & rows) / DRAWS
            drawn = random_network(alone, seed=key, index=index)
            random += counted(own, np.stack([drawn.channels(name) for name in names], axis=1) & rows) / DRAWS
        there = counted(own, rows)
        tables = {
            "observed": (there, observed),
            "analytic": (there.sum(1, keepdims=True) * chance, observed.sum(1, keepdims=True) * chance),
            "false_clauses": (counted(other, rows), counted(other, false_codes[number] & rows)),
            "swapped_clauses": (counted(other, rows), counted(other, codes[number] & rows)),
            "permuted_rows": (there, permuted),
            "random_network": (there, random),
        }
        for null, (at_distance, coded) in tables.items():
            index_of = np.indices(observed.shape).reshape(2, -1)
            frames.append(
                pd.DataFrame(
                    {
                        "formula": number,
                        "template": [names[t] for t in index_of[0]],
                        "null": null,
                        "distance": index_of[1],
                        "locations": at_distance.ravel().astype(np.float64),
                        "codes": coded.ravel().astype(np.float64),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)
