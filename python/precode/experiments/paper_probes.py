"""Probes that see through the projection against every other method, and what they train: the frontier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode.experiments.cells import Finished, Tables
from precode.experiments.founding_cells import FORMULA
from precode.experiments.paper import PLACE, SETTING, SOURCE, joined, summary
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_sweep import CONTROLS, HOT, KIND, MEASURES, NOTES, PROBES, RIVALS
from precode.experiments.records import Experiment, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUNDS = ("hot-imp", "hot-codes", "hot-codes:wrong-clauses")
"""Short trainings in rounds, of at most a tenth of what iterative magnitude pruning trains."""

BLIND = tuple(f"{probe}-blind" for probe in (*PROBES, "hot-codes"))
"""Probes that are not told the clauses, which the data tell them."""

READ = ("distance-blind",)
"""A probe that reads the clauses from the network: beside those, for how many it finds."""

CLAUSES = ("clause_recall", "clause_precision")
"""Of probes that are not told the clauses: the share of the formula's that they find, and of theirs that are right."""

REFERENCES = ("random", "magnitude", "obs", "imp")
"""What knows nothing, and what trains to the end or again and again."""

BESIDE = ("checkpoint-magnitude", "magnitude", "imp")
"""What every method is compared with, formula by formula: the first after the same epoch."""


def tables(cells: Sequence[Finished]) -> Tables:
    """``means`` of every method, epoch and density; ``differences`` from `BESIDE`, formula by formula; all tickets.

    ``dense_epochs`` among the quantities are the epochs of training that finding took; `CLAUSES` are of blind probes.
    """
    tickets = joined(cells)["tickets"]
    tickets["dense_epochs"] = tickets["dense_epochs"].astype(float)
    recovered, right = (tickets[name].astype(float) for name in NOTES)
    tickets["clause_recall"], tickets["clause_precision"] = right / tickets["clauses"].astype(float), right / recovered
    told = CLAUSES if right.notna().any() else ()
    return {
        "means": _means(tickets, (*MEASURES, *told, "dense_epochs")),
        "differences": _differences(tickets),
        "tickets": tickets,
    }


def _means(tickets: pd.DataFrame, quantities: Sequence[str], *by: str) -> pd.DataFrame:
    # What is not read early stands at no epoch.
    shown = tickets.assign(probe_epoch=tickets["probe_epoch"].astype(float).fillna(-1))
    means = summary(shown, [*PLACE, "density", "method", "probe_epoch", *by], quantities)
    means["probe_epoch"] = means["probe_epoch"].where(means["probe_epoch"] >= 0)
    return means


def _differences(tickets: pd.DataFrame) -> pd.DataFrame:
    keys = [*PLACE, "density", FORMULA]
    frames = []
    for name in BESIDE:
        other = tickets[tickets["method"] == name]
        at = [*keys, "probe_epoch"] if other["probe_epoch"].notna().any() else keys
        both = tickets[tickets["method"] != name].merge(other[[*at, *MEASURES]], on=at, suffixes=("", "_beside"))
        for measure in MEASURES:
            both[measure] = both[measure].astype(float) - both[f"{measure}_beside"]
        frames.append(both.assign(beside=name))
    every = pd.concat(frames, ignore_index=True)
    return pd.DataFrame() if every.empty else _means(every, MEASURES, "beside")


def frontier(means: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Every method and reading as a point: epochs of training spent, and the mean of a quantity with its interval.

    Args:
        means: the table of the experiment.
        quantity: one of the quantities in it, such as accuracy.

    Returns:
        Columns density, method, probe_epoch, epochs, mean, low, high, and best: no method that spends as little has
        a larger mean.

    Example:
        >>> place = {"embedding": "identity", "hidden": 8, "clauses": 4, "density": 0.5, "probe_epoch": 2.0, "low": 0}
        >>> rows = [("snip", "accuracy", 0.8), ("snip", "dense_epochs", 2), ("imp", "accuracy", 0.7),
        ...         ("imp", "dense_epochs", 80)]
        >>> means = pd.DataFrame([{**place, "high": 1, "method": m, "quantity": q, "mean": v} for m, q, v in rows])
        >>> frontier(means, "accuracy")[["method", "epochs", "best"]].values.tolist()
        [['snip', 2.0, True], ['imp', 80.0, False]]
    """
    keys = [*PLACE, "density", "method", "probe_epoch"]
    spent = means[means["quantity"] == "dense_epochs"].set_index(keys)["mean"].rename("epochs")
    points = means[means["quantity"] == quantity].join(spent, on=keys)
    points = points.sort_values(["density", "epochs", "mean"], ascending=[False, True, False], ignore_index=True)
    reached = points.groupby("density")["mean"].cummax()
    points["best"] = points["mean"] >= reached
    return points[["density", "method", "probe_epoch", "epochs", "mean", "low", "high", "best"]]


def _draw(quantity: str, label: str) -> Any:
    def draw(result: Result, ax: Axes | None) -> Axes:
        from precode.plot.axes import axes, legend

        ax = axes(ax, figsize=(9.0, 5.0))
        points = frontier(result.table, quantity)
        densities = sorted(points["density"].unique())
        points = points[points["density"] == densities[len(densities) // 2]]
        names = list(dict.fromkeys(points["method"].str.partition(":")[0]))
        for method, part in points.groupby("method", sort=False):
            part = part.sort_values("epochs")
            # One epoch is added, so that nothing spent can stand on a logarithmic axis.
            errors = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
            name, _, control = str(method).partition(":")
            number = names.index(name)
            style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "os^D"[number // 10 % 4]}
            style |= {"ls": ":", "mfc": "white"} if control else {"ls": "-"}
            ax.errorbar(part["epochs"] + 1, part["mean"], errors, label=method, ms=4, lw=0.8, **style)
        best = points[points["best"]].sort_values("epochs")
        ax.step(best["epochs"] + 1, best["mean"], where="post", color="black", lw=2.0, alpha=0.4, label="frontier")
        ax.set_xscale("log")
        ax.set_xlabel(f"epochs of training spent on finding, plus 1 (density {points['density'].iloc[0]:g})")
        ax.set_ylabel(label)
        legend(ax, fontsize="xx-small")
        return ax

    return draw


EXPERIMENT = Experiment(
    name="probes",
    title="Probes through the projection against every method, and what each of them trains",
    source=SOURCE,
    words=(
        "Networks behind a projection that is fixed, 20,000 samples and 20 epochs [ours]; every ticket starts from the "
        "dense network's initial weights and is trained as it was. All constants of the probes were chosen on formulas "
        "0 to 15 of seed 0; the formulas here are others. Differences are taken formula by formula, from checkpoint "
        "magnitude read after the same epoch, from final magnitude and from iterative magnitude pruning. Controls: the "
        "clauses of another formula, and the magnitudes of W1 times those of w2 without any. Blind probes are told the "
        "width of the clauses alone, and read them from the data (distance-blind: from the network, told how many). "
        "The frontier is what no method with as little training exceeds."
    ),
    setting={
        **SETTING,
        "seed": 2000,
        "clauses": 24,
        "embeddings": ("projection-16-fixed",),
        "samples": 20_000,
        "epochs": 20,
        "densities": (0.5, 0.25, 0.1),
        "probe_epochs": (0, 1, 2, 20),
        "hot_epochs": (1, 2, 5),
        "methods": (*PROBES, *BLIND, *READ, *RIVALS, *HOT, *CONTROLS, *ROUNDS, *REFERENCES),
    },
    quick={
        **SMALL,
        "hidden": 16,
        "densities": (0.25,),
        "probe_epochs": (0,),
        "hot_epochs": (1,),
        "methods": ("target-combined", "target-combined-blind", "hot-magnitude", "checkpoint-magnitude", "random"),
    },
    kind=KIND,
    tables=tables,
    figures={
        "accuracy": _draw("accuracy", "test accuracy"),
        "recovery": _draw("recovery_location", "share of the dense networks' codes\nat the same sites"),
        "retention": _draw("retention", "share of the dense networks' codes\nthat survive the mask"),
    },
)
