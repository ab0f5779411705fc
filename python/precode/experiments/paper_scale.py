"""Scale in arXiv 2605.17704: the fixed budget's comparison from 16 to 256 rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from precode.experiments.cells import Finished, Tables
from precode.experiments.paper import PLACE, SETTING, SOURCE, joined, summary
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_networks import BOTH, MEASURES
from precode.experiments.records import Experiment, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTHS = (16, 32, 64, 128, 256)
"""Hidden rows; the digest says 'to 256'."""


def tables(cells: Sequence[Finished]) -> Tables:
    """``means``, accuracy, recall and near shares of every width and kind of networks; and all that was measured."""
    found = joined(cells)
    by = [*PLACE, "networks"]
    accuracy = summary(found["accuracy"], by, ["accuracy"]).assign(of="formula", template=BOTH)
    codes = summary(found["codes"], [*by, "of", "template"], ["codes", "recall", "recall_permuted", "near", "near_end"])
    return {"means": pd.concat([accuracy, codes], ignore_index=True), **found}


def _draw(quantity: str, label: str) -> Any:
    def draw(result: Result, ax: Axes | None) -> Axes:
        from precode import plot

        table = result.table
        first = table["embedding"] == table["embedding"].iloc[0]
        table = table[
            first & (table["quantity"] == quantity) & (table["of"] == "formula") & (table["template"] == BOTH)
        ]
        ax = plot.beside(table, "hidden", series="networks", ax=ax)
        ax.set_xscale("log", base=2)
        ax.set_xlabel("hidden rows")
        ax.set_ylabel(label)
        return ax

    return draw


EXPERIMENT = Experiment(
    name="scale",
    title="The fixed budget's comparison from 16 to 256 rows",
    source=SOURCE,
    words=(
        "The networks of fixed_budget at every width, half of W1 kept, on the same formulas. The digest says that the "
        "picture stays the same up to 256 rows; it reports no numbers."
    ),
    setting={**SETTING, "hidden": WIDTHS},
    quick={**SMALL, "hidden": (16, 32)},
    kind=MEASURES,
    tables=tables,
    figures={
        "accuracy": _draw("accuracy", "test accuracy"),
        "recall": _draw("recall", "share of the dense networks' codes\nat the same sites"),
        "near": _draw("near", "share of own final codes near at the start\n(our definition)"),
    },
)
