"""Identity in arXiv 2605.17704: how many of the dense networks' codes a ticket has at the same sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from precode.experiments.cells import Finished, Tables
from precode.experiments.comparison import Reported
from precode.experiments.paper import (
    PLACE,
    SETTING,
    SOURCE,
    beside_reported,
    by_template,
    compare,
    digest,
    joined,
    reported,
    summary,
)
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_networks import BOTH, MEASURES
from precode.experiments.records import Experiment, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORTED = (
    *reported("dense_codes_recovered_same_site", "recall"),
    Reported(
        "fixed budget",
        "jaccard",
        {"networks": "obs"},
        digest()["fixed_budget"]["jaccard_random_against_obs"],
        SOURCE,
        "second-hand, 'about .10'; of the codes of random networks and OBS tickets",
        True,
    ),
)

QUANTITIES = ("recall", "recall_permuted", "jaccard", "jaccard_independent")


def tables(cells: Sequence[Finished]) -> Tables:
    """``means``, recall and Jaccard index of every kind of networks beside their nulls; and all that was measured."""
    codes = joined(cells)["codes"]
    codes = codes[~codes["networks"].isin(["dense", "small"])]
    first = {"embedding": cells[0].settings["embedding"], "of": "formula", "template": BOTH} if cells else {}
    means = summary(codes, [*PLACE, "of", "template", "networks"], QUANTITIES, REPORTED, **first)
    return {"means": means, "codes": codes}


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What compares with the reported numbers: codes of both polarities, for the clauses of the formula."""
    codes = tables["codes"]
    return compare(beside_reported(codes), ["recall", "jaccard"], of="formula", template=BOTH)


def draw(result: Result, ax: Axes | None) -> Axes:
    """Recall at the same sites beside that on random rows, and at false clauses, of the first embedding."""
    from precode import plot

    table = beside_reported(result.table)
    table = table[(table["template"] == BOTH) & table["quantity"].isin(["recall", "recall_permuted"])]
    words = {"recall": "same sites", "recall_permuted": "on random rows (null)"}
    shown = table.assign(series=by_template(table.assign(template=table["quantity"].map(words))))
    ax = plot.beside(shown, "networks", series="series", ax=ax)
    ax.set_ylabel("share of the dense networks' codes")
    return ax


EXPERIMENT = Experiment(
    name="identity",
    title="Codes of the dense networks that tickets have at the same sites",
    source=SOURCE,
    words=(
        "A site is a clause, a template and a row. recall is the share of the dense networks' codes that a ticket has "
        "at the same sites after training; recall_permuted is what it would be with the ticket's codes of every clause "
        "and template on random rows. jaccard compares with the codes of the random networks; jaccard_independent is "
        "what independent sets of these sizes have. All stand beside the same at false clauses, whose patterns are "
        "recalled where signs persist."
    ),
    setting=SETTING,
    quick=SMALL,
    kind=MEASURES,
    tables=tables,
    measured=measured,
    reported=REPORTED,
    figures={"recall": draw},
)
