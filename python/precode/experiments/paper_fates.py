"""Fates in arXiv 2605.17704: locations that dense training keeps, loses and recruits, and the load of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.cells import Kind, Parts, Settings
from precode.codes.locating import CLASSES, classes
from precode.experiments.cells import Finished, Tables
from precode.experiments.founding_cells import FORMULA
from precode.experiments.paper import (
    PLACE,
    SETTING,
    SOURCE,
    beside_reported,
    by_template,
    joined,
    parts,
    points,
    summary,
)
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_networks import KINDS, dense, located, pruned, seconds
from precode.experiments.records import Experiment, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

GAPS = {"supported": ("lost", "stable"), "unsupported": ("close but lost", "kept")}
"""Classes whose loads are compared: those that were lost against those that became codes."""


def compute(settings: Settings, parts: Parts) -> Tables:
    """Classes of the locations of some formulas' networks.

    Returns:
        ``classes``: formula, of, template, class, locations (of a network), load (mean number of other near locations
        on the row at the dense start) and margin (mean, at the dense start); ``gaps``: formula, of, template, support,
        and the differences in load and margin of locations that were lost from those that became codes.
    """
    indices = list(parts[FORMULA])
    runs = dense(settings, indices)
    _, ticket = pruned(runs, settings)
    starts, supports, ends = (located(networks, runs) for networks in (runs.start, ticket.start, runs))
    rows = []
    for kind in KINDS:
        start = starts[kind]
        found = classes(start, supports[kind], ends[kind], settings["near"])
        others = start.others(settings["near"])
        for place, template in enumerate(start.templates):
            for number, name in enumerate(CLASSES):
                there = found[:, :, place] == number
                columns: dict[str, Any] = {FORMULA: indices, "of": kind, "template": template, "class": name}
                columns["locations"] = there.sum((1, 2))
                columns["load"] = _mean(others[:, :, place], there)
                columns["margin"] = _mean(start.margin[:, :, place], there)
                rows.append(pd.DataFrame(columns))
    table = pd.concat(rows, ignore_index=True).assign(**{name: settings[name] for name in PLACE})
    return {"classes": table, "gaps": gaps(table)}


def _mean(values: NDArray[Any], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Means over some locations of every network, NaN where there are none."""
    counts = there.sum((1, 2))
    sums = np.where(there, values, 0).sum((1, 2))
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Load and margin of lost locations minus those of the ones that became codes, by support."""
    keys = [*PLACE, FORMULA, "of", "template"]
    frames = []
    for support, (lost, held) in GAPS.items():
        first, second = (table[table["class"] == name].set_index(keys)[["load", "margin"]] for name in (lost, held))
        frames.append((first - second).reset_index().assign(support=support))
    return pd.concat(frames, ignore_index=True)


def tables(cells: Sequence[Finished]) -> Tables:
    """``means``, locations, load and margin of every class; ``gaps`` of load and margin; and all that was measured."""
    found = joined(cells)
    by = [*PLACE, "of", "template"]
    return {
        "means": summary(found["classes"], [*by, "class"], ["locations", "load", "margin"]),
        "mean_gaps": summary(found["gaps"], [*by, "support"], ["load", "margin"]),
        **found,
    }


def draw(result: Result, ax: Axes | None, quantity: str = "load") -> Axes:
    """Mean load of the rows of every class, of both polarities and false clauses."""
    from precode import plot

    table = beside_reported(result.table)
    table = table[(table["quantity"] == quantity) & (table["class"] != "other")]
    ax = plot.beside(table.assign(series=by_template(table)), "class", series="series", ax=ax)
    ax.set_ylabel("other near locations on the row\n(our definition)")
    return ax


def draw_counts(result: Result, ax: Axes | None) -> Axes:
    """Locations of a network in every class."""
    ax = draw(result, ax, "locations")
    ax.set_ylabel("locations of a network")
    return ax


TRAININGS = 3.0
"""Trainings of every formula that a cell takes, OBS included."""

KIND = Kind("fates", points, compute, partial(seconds, TRAININGS), axes=(FORMULA,), parts=parts)

EXPERIMENT = Experiment(
    name="fates",
    title="Locations that dense training keeps, loses and recruits, and the load of their rows",
    source=SOURCE,
    words=(
        "The oracle is the OBS ticket: it supports a location that is near where the ticket starts, the mask laid on "
        "the initial weights. Supported locations that are codes after dense training are stable, the others lost; "
        "codes that were far and unsupported are recruited; near ones without support are kept or close but lost. This "
        "reading of the digest's four classes is ours. The load of a location is the number of other near locations "
        "on its row at the dense start. The digest says in words that losses concentrate on rows of high load; gaps "
        "give lost minus held, with the margin beside it, since a location that is barely near is lost more easily."
    ),
    setting=SETTING,
    quick=SMALL,
    kind=KIND,
    tables=tables,
    figures={"load": draw, "locations": draw_counts},
)
