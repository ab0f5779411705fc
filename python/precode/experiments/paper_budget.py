"""The fixed budget of arXiv 2605.17704: what half of the weights of W1 are worth, by how they were chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from precode.experiments.cells import Finished, Tables
from precode.experiments.paper import PLACE, SETTING, SOURCE, beside_reported, compare, joined, reported, summary
from precode.experiments.paper_networks import BOTH, MEASURES
from precode.experiments.records import Experiment, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORTED = reported("accuracy", "accuracy")


def tables(cells: Sequence[Finished]) -> Tables:
    """``means``, accuracy of every kind of networks beside the reported one; and all that was measured."""
    found = joined(cells)
    first = {"embedding": cells[0].settings["embedding"]} if cells else {}
    by = [*PLACE, "networks"]
    means = summary(found["accuracy"], by, ["accuracy"], REPORTED, **first)
    codes = found["codes"]
    counted = summary(codes[codes["template"] == BOTH], [*by, "of"], ["codes"])
    return {"means": means, "codes": counted, "accuracy": found["accuracy"], "all_codes": codes}


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What compares with the reported accuracies: that of the first embedding."""
    return compare(beside_reported(tables["accuracy"]), ["accuracy"])


def draw(result: Result, ax: Axes | None) -> Axes:
    """Accuracies beside the reported ones."""
    from precode import plot

    ax = plot.beside(result.table, "networks", series="embedding", ax=ax)
    ax.set_ylabel("test accuracy")
    return ax


SMALL: dict[str, Any] = {"formulas": 3, "epochs": 4, "rewind": 2, "samples": 2000, "test": 1000, "clauses": 8}
"""A trial of the machinery."""

EXPERIMENT = Experiment(
    name="fixed_budget",
    title="Accuracy of networks that have 256 weights in W1, by how these were chosen",
    source=SOURCE,
    words=(
        "Dense networks of 32 rows behind a projection to 16 dimensions are pruned to half of W1 by OBS, from their "
        "initial weights (obs) and from an early epoch (obs-rewound), and trained again. Beside them stand networks "
        "with as many weights: 32 rows with a random mask and an initialization of their own (random: of W1 alone, "
        "random-other: of all weights), a random mask on the dense networks' initial weights (random-same, our "
        "control), and 16 dense rows (small). The projection is trained in every phase; beside it stands a fixed one. "
        "Codes are counted for the clauses of the formula and for as many false ones."
    ),
    setting=SETTING,
    quick=SMALL,
    kind=MEASURES,
    tables=tables,
    measured=measured,
    reported=REPORTED,
    figures={"accuracy": draw},
)
