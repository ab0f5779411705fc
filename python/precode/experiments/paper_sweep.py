"""The sweep of arXiv 2605.17704: probes and weight-based methods, read after some epochs of dense training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.cells import Kind, Parts, Settings
from precode._internal.check import COUNT, fractions, integers
from precode._internal.errors import PrecodeValueError
from precode.experiments.cells import Finished, Tables
from precode.experiments.founding_cells import FORMULA
from precode.experiments.paper import PLACE, SETTING, SOURCE, joined, points, summary
from precode.experiments.paper import parts as formulas
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_networks import dense, seconds
from precode.experiments.records import Experiment, Result
from precode.tickets.registry import WRONG_CLAUSES, record
from precode.tickets.search import find_tickets

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROBES = ("target-static", "target-motion", "target-combined", "sign-keeping", "obs-codes")
"""Static distance, dynamic motion, the two combined, and two that go on from both."""

CONTROLS = ("magnitude-w2", *(f"{probe}{WRONG_CLAUSES}" for probe in PROBES))
"""What probes have without the right clauses."""

RIVALS = ("snip", "grasp", "synflow", "early-bird", "checkpoint-magnitude")
"""The digest's weight-based methods."""

HOT = ("hot-obs", "hot-magnitude")
"""Trainings of their own at a high learning rate, of as many epochs as they are read after."""

REFERENCES = ("random", "magnitude", "obs")
"""What knows nothing, and what trains to the end: no rivals of probes that are read early."""

MEASURES = (
    *("accuracy", "recovery_location", "recovery_family", "precision_location", "jaccard_location", "codes"),
    "retention",
)
"""Test accuracy; the share of the dense networks' codes at the same sites, and on any row; the share of the tickets'
codes that the dense ones have, the Jaccard index and the number of codes; the share of codes that survive the mask."""


NOTES = ("clauses_recovered", "clauses_found")
"""What blind probes say of themselves."""


def cells(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every point, method and epoch that it is read after.

    Raises:
        PrecodeValueError: a setting that no networks can have, or an epoch beyond the run.
    """
    moments = {name: integers(setting[name], name, 0, COUNT) for name in ("probe_epochs", "hot_epochs")}
    for name, epochs in moments.items():
        if late := [epoch for epoch in epochs if epoch > setting["epochs"]]:
            raise PrecodeValueError(f"{name} = {late[0]}: the networks are trained for {setting['epochs']} epochs")
    left = {name: value for name, value in setting.items() if name not in ("methods", "densities", *moments)}
    for settings in points(left):
        for method in setting["methods"]:
            early = moments["hot_epochs" if method.partition(":")[0] in HOT else "probe_epochs"]
            for epoch in early if record(method)["early"] else (None,):
                read = {} if epoch is None else {"probe_epoch": epoch}
                yield {**settings, "method": method, **read}


def parts(setting: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Every density of every formula."""
    return {"density": list(fractions(setting["densities"], "densities")), **formulas(setting)}


def compute(settings: Settings, parts: Parts) -> Tables:
    """Tickets of one method, retrained: ``tickets``, see `Retrained.table`, without its timings.

    Of blind probes also how many clauses they found, and how many of them are right.
    """
    indices = list(parts[FORMULA])
    runs = dense(settings, indices)
    found = find_tickets(
        runs, settings["method"], parts["density"], at=settings.get("probe_epoch"), seed=settings["seed"]
    )
    table = found.retrain(test=settings["test"], relative_floor=0.0).table().drop(columns="seconds")
    of_ticket = ["density", FORMULA]
    table = table.merge(found.table().reindex(columns=[*of_ticket, *NOTES]), on=of_ticket, validate="1:1")
    table[FORMULA] = np.asarray(indices)[table[FORMULA]]
    return {"tickets": table.assign(**{name: settings[name] for name in PLACE})}


def computing_seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core."""
    return seconds(1.0 + len(parts["density"]), settings, parts)


def tables(cells: Sequence[Finished]) -> Tables:
    """``means`` of every method, epoch and density; ``contests`` of probes and rivals; and all tickets.

    Contests are at equal knowledge: both are read after the same epoch, for the same density, point and formula.
    Their means are the probe minus the rival, or minus one of its controls, over all widths and numbers of clauses.
    """
    tickets = joined(cells)["tickets"]
    by = [*PLACE, "density", "method", "probe_epoch"]
    # What is not read early stands at no epoch.
    shown = tickets.assign(probe_epoch=tickets["probe_epoch"].astype(float).fillna(-1))
    means = summary(shown, by, MEASURES)
    means["probe_epoch"] = means["probe_epoch"].where(means["probe_epoch"] >= 0)
    return {"means": means, "contests": _contests(tickets), "tickets": tickets}


def _contests(tickets: pd.DataFrame) -> pd.DataFrame:
    keys = [*PLACE, "density", "probe_epoch", FORMULA]
    read = tickets[tickets["probe_epoch"].notna()]
    rivals = (*RIVALS, *HOT, *CONTROLS)
    sides = [read[read["method"].isin(names)][[*keys, "method", *MEASURES]] for names in (PROBES, rivals)]
    both = sides[0].merge(sides[1], on=keys, suffixes=("", "_rival")).rename(columns={"method": "probe"})
    both = both.rename(columns={"method_rival": "rival"})
    # Of the wrong clauses, only the probe's own control.
    both = both[~both["rival"].str.endswith(WRONG_CLAUSES) | (both["rival"] == both["probe"] + WRONG_CLAUSES)]
    for name in MEASURES:
        both[name] -= both[f"{name}_rival"]
    if both.empty:
        return pd.DataFrame()
    # Points count alike: a formula's differences are averaged over them.
    by = ["embedding", "density", "probe", "rival", "probe_epoch"]
    pooled = both.groupby([*by, FORMULA])[list(MEASURES)].mean().reset_index()
    return summary(pooled, by, MEASURES)


def _draw(quantity: str, label: str) -> Any:
    def draw(result: Result, ax: Axes | None) -> Axes:
        from precode import plot

        table = result.table[result.table["quantity"] == quantity]
        least = table["density"].min()
        keep = (table["density"] == least) & table["probe_epoch"].notna()
        for name in PLACE:
            keep &= table[name] == table[name].iloc[-1 if name != "embedding" else 0]
        ax = plot.beside(table[keep], "probe_epoch", series="method", ax=ax)
        ax.set_xlabel(f"epochs of dense training that the method has seen (density {least:g})")
        ax.set_ylabel(label)
        return ax

    return draw


KIND = Kind("sweep", cells, compute, computing_seconds, axes=("density", FORMULA), parts=parts)

EXPERIMENT = Experiment(
    name="sweep",
    title="Probes against weight-based methods, read after 0 to 20 epochs",
    source=SOURCE,
    words=(
        "Every method is read after the same numbers of epochs of the dense run, at three sparsities; all tickets "
        "start from the same initial weights and are trained for the same number of epochs. contests give the probe "
        "minus the rival that was read after the same epoch, and minus its controls: the clauses of another formula, "
        "and |W1| |w2| without any. Formulas are of seed 2000, since constants of the probes were chosen on some of "
        "seed 0. The digest says in words that combined rules lead in accuracy, that distance and motion lead in the "
        "recovery of exact codes, and that checkpoint magnitude catches up in accuracy later; it reports no values. "
        "What trains to the end is a reference and stands at no epoch. "
        "Recall flatters tickets with more codes: precision, the Jaccard index and the number of codes stand beside "
        "it, and retention, the codes that survive the mask before any retraining. With a projection that is trained "
        "pruning W1 is nearly free, so that that setting hardly tells methods apart."
    ),
    setting={
        **SETTING,
        "seed": 2000,
        "hidden": (32,),
        "clauses": (16,),
        "densities": (0.5, 0.25, 0.1),
        "probe_epochs": (0, 1, 2, 5, 10, 20),
        "hot_epochs": (2,),
        "methods": (*PROBES, *RIVALS, *HOT, *CONTROLS, *REFERENCES),
    },
    quick={
        **SMALL,
        "hidden": (16,),
        "densities": (0.25,),
        "probe_epochs": (0, 2),
        "methods": ("target-combined", "target-combined:wrong-clauses", "snip", "random"),
    },
    full={"hidden": (16, 32), "clauses": (8, 16, 32)},
    kind=KIND,
    tables=tables,
    figures={
        "accuracy": _draw("accuracy", "test accuracy"),
        "recovery": _draw("recovery_location", "share of the dense networks' codes\nat the same sites"),
        "retention": _draw("retention", "share of the dense networks' codes\nthat survive the mask"),
    },
)
