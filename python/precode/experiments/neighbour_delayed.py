"""Tickets of formulas that networks learn by heart long before they generalize (arXiv 2310.19470, 2210.01117)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from precode.experiments.cells import Finished, Tables
from precode.experiments.delayed_cells import AT, GENERALIZED, KIND, NEVER, PLACE, times
from precode.experiments.founding_cells import FORMULA
from precode.experiments.grokking_cells import DENSE, FIXED, MAGNITUDE, RANDOM
from precode.experiments.paper import joined, summary
from precode.experiments.records import Experiment, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOWER = 0.9
"""A second level of accuracy for `tables`, since some networks end near the first. Masks are not read at it."""

MEASURES = ("memorized", "until", "tau_at_least", "reached", "test", "l1", "l2")


def gaps(networks: pd.DataFrame, kept: float, decay: float) -> pd.DataFrame:
    """Differences of the times of all networks from those of the dense network and of the ticket, by formula.

    Args:
        networks: see `precode.experiments.delayed_cells.times`.
        kept: density of the ticket.
        decay: weight decay of both.

    Returns:
        The networks with columns after_dense and after_ticket, ``until`` minus that of each, and tau_over_dense,
        ``tau_at_least`` minus that of the dense network. Who never generalizes counts as if it did at the last epoch:
        such a difference is too small, and of the right sign where it is not 0.
    """
    dense = {"networks": DENSE, "density": 1.0, "read": NEVER, "decay": decay}
    ticket = {"networks": MAGNITUDE, "density": kept, "read": GENERALIZED, "decay": decay}
    found = networks
    for name, place in (("dense", dense), ("ticket", ticket)):
        there = (networks[list(place)] == pd.Series(place)).all(axis=1)
        other = networks[there].set_index(FORMULA)
        found = found.assign(**{f"after_{name}": found["until"] - found[FORMULA].map(other["until"])})
        if name == "dense":
            found = found.assign(tau_over_dense=found["tau_at_least"] - found[FORMULA].map(other["tau_at_least"]))
    return found


def progress(masks: pd.DataFrame, dense: pd.DataFrame) -> pd.DataFrame:
    """Whether masks change where test accuracy does, once the dense network knows its samples.

    Args:
        masks: see `precode.experiments.delayed_cells.compute`.
        dense: rows of the dense networks, see `precode.experiments.delayed_cells.times`.

    Returns:
        One row a formula: correlation, Spearman's of distances and jumps from t_mem on; largest_jump and
        largest_distance, the epochs at which each begins to be largest; lag, the second minus the first.
    """
    memorized = dense.set_index(FORMULA)["memorized"]
    rows = []
    for formula, part in masks.groupby(FORMULA, sort=False):
        after = part[part["epoch"] >= memorized[formula]]
        if not len(after):
            continue
        jump, distance = (int(after["epoch"].iloc[after[name].argmax()]) for name in ("jump", "distance"))
        rows.append({
            FORMULA: formula,
            "correlation": after["distance"].rank().corr(after["jump"].rank()),
            "largest_jump": float(jump),
            "largest_distance": float(distance),
            "lag": float(distance - jump),
        })  # fmt: skip
    return pd.DataFrame(rows, columns=[FORMULA, "correlation", "largest_jump", "largest_distance", "lag"])


def tables(cells: Sequence[Finished]) -> Tables:
    """``means`` of all networks; ``gaps``; both at a ``lower`` level; ``codes``; ``progress``; what they are of.

    until is t_gen, or the last epoch where a network never generalizes; tau_at_least is until / t_mem; reached is the
    share of formulas with t_gen. Codes, and false ones, are read at the start, at t_mem, at t_gen and at the end.
    """
    found = joined(cells)
    settings = cells[0].settings
    networks = times(found["curves"], settings["level"]).merge(
        found["starts"], "left", [*PLACE, FORMULA], validate="1:1"
    )
    networks, lower = (
        gaps(table, settings["kept"], settings["decay"]) for table in (networks, times(found["curves"], LOWER))
    )
    of_dense = networks[(networks["networks"] == DENSE) & (networks["decay"] == settings["decay"])]
    moving = progress(found["masks"], of_dense).assign(networks=DENSE)
    curves = found["curves"]
    own = curves["read"].isin([NEVER, GENERALIZED]) & (curves["density"].isin([1.0, settings["kept"]]))
    course = curves[curves["networks"].isin([DENSE, MAGNITUDE]) & own & (curves["decay"] == settings["decay"])]
    return {
        "means": summary(networks, PLACE, MEASURES),
        "gaps": summary(networks, PLACE, ("after_dense", "after_ticket", "tau_over_dense")),
        "lower": summary(lower, PLACE, ("until", "tau_at_least", "reached", "after_dense", "after_ticket")),
        "codes": summary(networks, PLACE, [f"{what}_{at}" for at in AT for what in ("codes", "false")]),
        "progress": summary(moving, ("networks",), ("correlation", "largest_jump", "largest_distance", "lag")),
        "masks": summary(found["masks"], ("epoch",), ("distance", "jump")),
        "course": summary(course, ("networks", "epoch"), ("train", "test", "codes", "false")),
        "networks": networks,
    }


def _course(result: Result, ax: Axes | None, label: str, **names: str) -> Axes:
    """Quantities of dense networks and tickets over epochs."""
    from precode import plot

    table = result.tables["course"]
    table = table[table["quantity"].isin(names) & (table["epoch"] > 0)]
    ax = plot.beside(
        table.assign(series=table["networks"] + ", " + table["quantity"].map(names)), "epoch", series="series", ax=ax
    )
    ax.set_xscale("log")
    ax.set_ylabel(label)
    return ax


def draw_course(result: Result, ax: Axes | None) -> Axes:
    """Training and test accuracy of dense networks and tickets."""
    return _course(result, ax, "accuracy", train="training", test="test")


def draw_codes(result: Result, ax: Axes | None) -> Axes:
    """Codes of the clauses, and of false ones, in dense networks and tickets."""
    return _course(result, ax, "codes of a network", codes="clauses", false="false clauses")


def _until(result: Result, at: str, label: str, ax: Axes | None, *names: str) -> Axes:
    from precode import plot

    table = result.table
    decay, quantity = table["decay"] == result.setting["decay"], table["quantity"] == "until"
    table = table[decay & quantity & table["networks"].isin(names)]
    table = table.assign(read=pd.to_numeric(table["read"], "coerce")).sort_values(at, kind="stable")
    ax = plot.beside(table, at, series="networks", ax=ax)
    ax.set_xlabel(label)
    ax.set_ylabel("t_gen, or the last epoch")
    return ax


def draw_rates(result: Result, ax: Axes | None) -> Axes:
    """Epochs until tickets and random masks generalize, by density."""
    return _until(result, "density", "share of the weights of W1 that is kept", ax, MAGNITUDE, RANDOM)


def draw_moments(result: Result, ax: Axes | None) -> Axes:
    """Epochs until tickets generalize, by the epoch at which their mask was read."""
    return _until(result, "read", "epoch at which the mask was read", ax, FIXED)


def draw_masks(result: Result, ax: Axes | None) -> Axes:
    """Distance of consecutive masks, and the jump of test accuracy between them."""
    from precode import plot

    names = {"distance": "distance of masks", "jump": "jump of test accuracy"}
    table = result.tables["masks"]
    ax = plot.beside(table.assign(series=table["quantity"].map(names)), "epoch", series="series", ax=ax)
    ax.set_ylabel("Jaccard distance, jump")
    return ax


EXPERIMENT = Experiment(
    name="delayed",
    title="Tickets of formulas that networks know by heart long before they generalize",
    source="arXiv 2310.19470v3 and arXiv 2210.01117, told in words; the task is ours",
    words=(
        "The second source says that large initial weights make networks generalize late. Networks of this package's "
        "own kind start from weights that are 32 times the usual ones, and learn a formula from 1,000 samples, all at "
        "once, by AdamW with weight decay. They know these (t_mem: above 95 %) long before fresh samples (t_gen); tau "
        "is t_gen / t_mem. The first source says that tickets of networks that have generalized do so sooner, and that "
        "this is not their norm. A ticket has the mask of the largest weights of W1 where its dense network has "
        "generalized (or at a fixed epoch), on the initial weights. Beside it stand dense networks whose W1 is scaled "
        "to the ticket's L1 or L2 norm, masks of SNIP, GraSP, SynFlow and chance, networks that start as usual, and "
        "those without weight decay. gaps are differences of t_gen from that of the dense network and of the ticket; "
        "who never generalizes counts with the last epoch; lower has the same at 90 %. What is ours: how many codes "
        "networks have at the start, at t_mem, at t_gen and at the end, beside those of false clauses."
    ),
    setting={
        "formulas": 20,
        "seed": 6300,
        "variables": 64,
        "clauses": 8,
        "width": 4,
        "hidden": 128,
        "samples": 1000,
        "scale": 32.0,
        "lr": 0.01,
        "decay": 0.1,
        "epochs": 4000,
        "level": 0.95,
        "ratio": 1.15,
        "every": 200,
        "kept": 0.4,
        "densities": (0.8, 0.6, 0.4, 0.2, 0.1),
        "moments": (0, 100, 1000, 2000, 4000),
        "test": 2000,
    },
    quick={
        "formulas": 2,
        "variables": 16,
        "clauses": 2,
        "hidden": 16,
        "samples": 200,
        "scale": 4.0,
        "epochs": 200,
        "every": 50,
        "densities": (0.4, 0.2),
        "moments": (0, 100),
        "test": 500,
    },
    kind=KIND,
    tables=tables,
    figures={
        "course": draw_course,
        "rates": draw_rates,
        "moments": draw_moments,
        "masks": draw_masks,
        "codes": draw_codes,
    },
)
