"""Lottery tickets of networks that generalize long after they know their training pairs (arXiv 2310.19470)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from precode.experiments.cells import Finished, Tables
from precode.experiments.comparison import Reported, place
from precode.experiments.founding_cells import FORMULA
from precode.experiments.grokking_cells import DECAY, FIGURE, FIXED, KIND, PLACE, POPUP, POPUP_DECAY
from precode.experiments.paper import joined
from precode.experiments.records import Experiment, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE = "arXiv 2310.19470v3, by second-hand notes on it and its official code"

PUBLISHED = {
    POPUP_DECAY: (0.82, 0.96, 0.99, 1.00),
    POPUP: (0.68, 0.80, 0.84, 0.92),
    DECAY: (0.53, 0.95, 1.00, 1.00),
}
"""Test accuracies after `POPUP_STEPS`."""

POPUP_STEPS = (600, 1000, 1400, 2000)

REPORTED = tuple(
    Reported(FIGURE, "test", {"networks": name, "step": step}, value, SOURCE, "a mean of three seeds", True)
    for name, values in PUBLISHED.items()
    for step, value in zip(POPUP_STEPS, values, strict=True)
)


def tables(cells: Sequence[Finished]) -> Tables:
    """``networks``, one row for those of all seeds; ``popup``, likewise; and all as they were computed.

    mean, low and high are the mean, the least and the largest of the seeds: they are too few for an interval. Of tau
    and its times a mean is given where all seeds have one; reached is how many have. tau_at_least is tau, or what it
    would be if a network had generalized when it ended.
    """
    found = joined(cells)
    runs = found["networks"]
    runs["tau_at_least"] = runs["tau"].fillna(runs["ended"] / runs["memorized"])
    popped = found["popup"]
    wanted = {step for cell in cells if cell.settings["cell"] == FIGURE for step in cell.settings["steps"]}
    chosen = popped[popped["step"].isin(wanted)] if "step" in popped else popped
    return {
        "networks": _over_seeds(runs, PLACE, ("tau", "tau_at_least", "memorized", "generalized", "test")),
        "popup": _over_seeds(chosen, ("networks", "step"), ("test",)),
        "masks": found["masks"],
        "curves": found["curves"],
        "runs": runs,
        "popups": popped,
    }


def _over_seeds(table: pd.DataFrame, by: Sequence[str], quantities: Sequence[str]) -> pd.DataFrame:
    """Mean, least and largest of the seeds; see `tables`."""
    rows = []
    for key, part in table.groupby(list(by), sort=False, dropna=False) if len(table) else ():
        for quantity in quantities:
            values = part[quantity]
            row = dict(zip(by, key, strict=True))
            row |= {"quantity": quantity, "mean": values.mean(skipna=False), "low": values.min(), "high": values.max()}
            row |= {"seeds": len(values), "reached": int(values.notna().sum())}
            rows.append(row)
    return pd.DataFrame(rows, columns=[*by, "quantity", "mean", "low", "high", "seeds", "reached"])


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What compares with the reported test accuracies of edge-popup."""
    table = tables["popups"]
    if not len(table):
        return pd.DataFrame(columns=["figure", "quantity", "at", FORMULA, "value"])
    at = [
        place({"networks": name, "step": int(step)})
        for name, step in zip(table["networks"], table["step"], strict=True)
    ]
    return pd.DataFrame({
        "figure": FIGURE, "quantity": "test", "at": at, FORMULA: table[FORMULA], "value": table["test"],
    })  # fmt: skip


def draw_rates(result: Result, ax: Axes | None) -> Axes:
    """Least ratios of the two times, of tickets by the share that is pruned, and of all other networks."""
    from precode import plot

    table = result.table
    table = table[table["moment"].isna() & (table["quantity"] == "tau_at_least") & (table["decay"] > 0)].dropna(
        subset="mean"
    )
    which = [
        f"{name} {rate:g}" if rate else name for name, rate in zip(table["networks"], table["pruned"], strict=True)
    ]
    ax = plot.beside(table.assign(which=which), "which", ax=ax)
    ax.set_yscale("log")
    ax.set_xlabel("networks, share pruned")
    ax.set_ylabel("t_gen / t_mem, or more where it is never")
    return ax


def draw_moments(result: Result, ax: Axes | None) -> Axes:
    """Test accuracy in the end of tickets against the step at which their mask was read."""
    from precode import plot

    table = result.table
    at = (table["networks"] == FIXED) & (table["quantity"] == "test")
    ax = plot.beside(table[at], "moment", ax=ax)
    ax.set_xlabel("step at which the mask was read")
    ax.set_ylabel("test accuracy at the end")
    return ax


def draw_masks(result: Result, ax: Axes | None) -> Axes:
    """Distance of consecutive masks, and the jump of test accuracy between them, of the first seed."""
    from precode.plot.axes import axes, legend

    ax = axes(ax)
    table = result.tables["masks"]
    for number, (seed, part) in enumerate(table.groupby(FORMULA, sort=False)):
        ax.plot(part["step"], part["distance"], color=f"C{number}", label=f"distance, seed {seed}")
        ax.plot(part["step"], part["jump"], ":", color=f"C{number}", label=f"jump, seed {seed}")
    ax.set(xlabel="step", ylabel="Jaccard distance of masks\nand jump of test accuracy")
    legend(ax)
    return ax


def draw_popup(result: Result, ax: Axes | None) -> Axes:
    """Test accuracy of edge-popup and of weight decay alone, beside the published ones."""
    from precode import plot

    published = {(*dict(item.at).values(),): item.value for item in REPORTED}
    table = result.tables["popup"]
    values = [published.get(key, math.nan) for key in zip(table["networks"], table["step"], strict=True)]
    ax = plot.beside(table.assign(reported=values), "step", series="networks", ax=ax)
    ax.set_ylabel("test accuracy")
    return ax


EXPERIMENT = Experiment(
    name="grokking",
    title="Lottery tickets of networks that generalize late",
    source=SOURCE,
    words=(
        "Networks learn (a + b) mod 67 from 40 % of all pairs. They know these after a hundred steps (t_mem: above "
        "95 %), and all other pairs only after a hundred times as many (t_gen); tau is t_gen / t_mem. A ticket keeps "
        "the weights that are largest at some step, at their initial values. The source says that tickets of networks "
        "that have generalized do so sooner than dense networks of the same norm (dense-l1, dense-l2: the dense start, "
        "scaled) and than masks that are read at the start, that masks change most while test accuracy jumps, and that "
        "edge-popup, which only takes weights away, generalizes as well. Dense networks are trained until they "
        "generalize, all others for 2,000 steps at most [ours]: of those that need longer we know that they do, and "
        "what they know by then. A formula is here a seed, of the split and of the initial weights. With three of "
        "them, low and high are the least and the largest."
    ),
    setting={
        "formulas": 3,
        "seed": 1,
        "modulus": 67,
        "embedding": 500,
        "hidden": 48,
        "share": 0.4,
        "level": 0.95,
        "decay": 1.0,
        "kept": 0.4,
        "lr": 0.001,
        "steps": 24_000,
        "most": 2000,
        "every": 20,
        "apart": 2000,
        "rates": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
        "moments": (0, 4000, 8000, 12_000),
        "kept_without_decay": 0.19,
        "popup_share": 0.5,
        "popup_lr": 0.01,
        "popup_start": 1000,
        "popup_steps": POPUP_STEPS,
        "popup_every": 20,
    },
    quick={
        "formulas": 2,
        "modulus": 11,
        "embedding": 32,
        "hidden": 16,
        "share": 0.8,
        "lr": 0.01,
        "steps": 120,
        "most": 120,
        "apart": 20,
        "rates": (0.5, 0.6),
        "moments": (20, 100),
        "popup_start": 40,
        "popup_steps": (600,),
        "popup_every": 200,
    },
    kind=KIND,
    tables=tables,
    measured=measured,
    reported=REPORTED,
    figures={"rates": draw_rates, "moments": draw_moments, "masks": draw_masks, "popup": draw_popup},
)
