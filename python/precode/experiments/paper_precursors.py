"""Precursors in arXiv 2605.17704: how many of each network's own final codes were near at its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from precode.experiments.cells import Finished, Tables
from precode.experiments.paper import (
    PLACE,
    SETTING,
    SOURCE,
    beside_reported,
    by_template,
    compare,
    joined,
    reported,
    summary,
)
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_networks import BOTH, MEASURES
from precode.experiments.records import Experiment, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORTED = reported("near_at_own_final_sites", "near")

DEFINITIONS = {
    "near": "at most one wrong sign, the row's polarity right at the start",
    "near_end": "at most one wrong sign, the polarity that of the end",
    "near_exact": "no wrong sign",
}
"""Definitions of near, all ours: the paper's is not public. Each for templates of both polarities, and for each."""


def tables(cells: Sequence[Finished]) -> Tables:
    """``means``, shares of final codes that were near by every definition; ``transitions``; and all measured."""
    found = joined(cells)
    codes = found["codes"]
    first = {"embedding": cells[0].settings["embedding"], "of": "formula", "template": BOTH} if cells else {}
    means = summary(codes, [*PLACE, "of", "template", "networks"], list(DEFINITIONS), REPORTED, **first)
    transitions = found["transitions"]
    by = [*PLACE, "of", "template", "networks", "distance"]
    return {
        "means": means,
        "transitions": summary(
            transitions.assign(share=transitions["codes"] / transitions["locations"]), by, ["share"]
        ),
        "codes": codes,
        "all_transitions": transitions,
    }


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What compares with the reported shares: codes of both polarities, for the clauses of the formula."""
    return compare(beside_reported(tables["codes"]), ["near"], of="formula", template=BOTH)


def draw_near(result: Result, ax: Axes | None) -> Axes:
    """Shares that were near, for both polarities and false clauses, of the first embedding."""
    from precode import plot

    table = beside_reported(result.table)
    table = table[table["quantity"] == "near"]
    ax = plot.beside(table.assign(series=by_template(table)), "networks", series="series", ax=ax)
    ax.set_ylabel("share of own final codes near at the start\n(our definition)")
    return ax


def draw_transitions(result: Result, ax: Axes | None) -> Axes:
    """How often a location of the dense networks becomes a code, by its wrong signs at the start."""
    from precode import plot

    table = beside_reported(result.tables["transitions"])
    table = table[(table["networks"] == "dense") & (table["template"] != BOTH)]
    ax = plot.beside(table.assign(series=by_template(table)), "distance", series="series", ax=ax)
    ax.set_xlabel("wrong signs at the start")
    ax.set_ylabel("share of locations that become codes")
    return ax


EXPERIMENT = Experiment(
    name="precursors",
    title="Final codes that were near at the networks' own (masked) start",
    source=SOURCE,
    words=(
        "Of the codes that a network has after training, near is the share whose location had at most one wrong sign "
        "where the training began, with the mask laid on it. The paper's definition of near is not public; ours stand "
        "side by side. The same share among the patterns at false clauses tells how much of it is the persistence of "
        "signs. transitions give the share of locations that become codes, by their wrong signs at the start (the "
        "row's polarity being right there)."
    ),
    setting=SETTING,
    quick=SMALL,
    kind=MEASURES,
    tables=tables,
    measured=measured,
    reported=REPORTED,
    figures={"near": draw_near, "transitions": draw_transitions},
)
