"""Forgetting a clause, and how soon it comes back (arXiv 2602.19215), read at the level of codes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode.experiments.cells import Finished, Tables
from precode.experiments.comparison import Reported, place
from precode.experiments.founding_cells import FORMULA
from precode.experiments.paper import joined, summary
from precode.experiments.records import Experiment, Result
from precode.experiments.unlearning_cells import ASCENT, DATA, KIND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE = "arXiv 2602.19215, by second-hand notes on it"

FIGURE = "recovery time"
"""What the one published number is called here."""

REPORTED = (
    Reported(
        FIGURE,
        "steps",
        {"networks": ASCENT},
        7.0,
        SOURCE,
        "a median; what it was taken over, and the data of the fine-tuning, are not public: ours is the mean over "
        "formulas of the median over erased clauses, fine-tuned on the target",
        True,
    ),
)

ERASED = ("effort", "called", "erased", "accuracy", "rows", "kept", "wrong", "length", "on_code", "on_w2", "on_biases")

RECOVERED = (
    "steps",
    "recovered",
    "accuracy",
    "parallel",
    "parallel_random",
    "cosine",
    "undone",
    "old",
    "old_chance",
    "regained",
    "regained_chance",
)


def of_formulas(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Means over the erased clauses of every formula; of steps the median, where never counts as longer than any."""
    keys = [*by, FORMULA]
    grouped = table.drop(columns="clause").groupby(keys, sort=False, as_index=False)
    means = grouped.mean()
    if "steps" in table:
        never = table.assign(steps=table["steps"].fillna(math.inf))
        medians = never.groupby(keys, sort=False, as_index=False)["steps"].median()
        means["steps"] = medians["steps"].replace(math.inf, math.nan)
    return means


def tables(cells: Sequence[Finished]) -> Tables:
    """``recovery`` and ``erasure``, means over formulas; ``medians``, quartiles of steps over all networks; and all."""
    found = joined(cells)
    by = ["clauses", "networks"]
    each = [*by, "data", "tune_lr"]
    settings = cells[0].settings
    first = {"clauses": settings["clauses"], "data": DATA[0], "tune_lr": settings["tune_lrs"][0]}
    return {
        "recovery": summary(of_formulas(found["recoveries"], each), each, RECOVERED, REPORTED, **first),
        "erasure": summary(of_formulas(found["erasures"], by), by, ERASED),
        "medians": _medians(found["recoveries"], each),
        **found,
    }


def _medians(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Quartiles of steps over all networks, infinite where that many never recover, and the share that does."""
    steps = table.assign(steps=table["steps"].fillna(math.inf)).groupby(by, sort=False)
    # An inverted distribution function takes one of the values, so that infinite ones do no harm.
    columns = {
        name: steps["steps"].agg(np.quantile, q, method="inverted_cdf")
        for name, q in (("quarter", 0.25), ("median", 0.5), ("three_quarters", 0.75))
    }
    return pd.DataFrame({**columns, "recovered": steps["recovered"].mean()}).reset_index()


def at_first(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Rows that have the first value of some columns."""
    for name in names:
        table = table[table[name] == table[name].iloc[0]]
    return table


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What compares with the reported median: fine-tuning on the target, at the first number of clauses."""
    table = at_first(tables["recoveries"], "clauses", "tune_lr")
    table = table[table["data"] == DATA[0]]
    means = of_formulas(table, ["clauses", "networks", "data"])
    at = [place({"networks": name}) for name in means["networks"]]
    columns = {"figure": FIGURE, "quantity": "steps", "at": at, FORMULA: means[FORMULA]}
    return pd.DataFrame({**columns, "value": means["steps"]})


def _draw(quantity: str, label: str, *, log: bool = False, **lines: str) -> Any:
    def draw(result: Result, ax: Axes | None) -> Axes:
        from precode import plot

        table = at_first(result.tables["recovery"], "clauses", "tune_lr")
        shown = table[table["quantity"] == quantity]
        series = shown["data"].astype(str)
        for name, word in lines.items():
            other = table[table["quantity"] == name]
            shown = pd.concat([shown, other])
            series = pd.concat([series, other["data"].astype(str) + f", {word}"])
        ax = plot.beside(shown.assign(series=series), "networks", series="series", ax=ax)
        if log:
            ax.set_yscale("log")
        ax.set_xlabel("how the clause was erased")
        ax.set_ylabel(label)
        return ax

    return draw


def draw_erasure(result: Result, ax: Axes | None) -> Axes:
    """What is left of the clause's code after the erasure, by how it was made."""
    from precode import plot

    table = at_first(result.tables["erasure"], "clauses")
    words = {
        "kept": "code rows that still show 4P",
        "called": "inputs of the clause called True",
        "accuracy": "accuracy on the other clauses",
    }
    table = table[table["quantity"].isin(list(words))]
    ax = plot.beside(table.assign(series=table["quantity"].map(words)), "networks", series="series", ax=ax)
    ax.set_xlabel("how the clause was erased")
    ax.set_ylabel("share")
    return ax


EXPERIMENT = Experiment(
    name="unlearning",
    title="A clause is erased from trained networks, and comes back",
    source=SOURCE,
    words=(
        "Networks that know a formula are made to forget one of its clauses, until at most 5 % of the inputs that only "
        "this clause makes True are called True: by gradient ascent on such inputs, by taking away the task vector "
        "that was learned on them, or by distillation of what the networks say of other inputs into fresh ones. Beside "
        "them stand networks that were trained again from the same start without the clause (retrained, our control): "
        "they never knew it. All are then fine-tuned on data of the clause, of the whole formula, or of the other "
        "clauses alone; the recovery time is the first step at which 80 % are called True again. The only number that "
        "is public is a median of 7 steps after gradient ascent. The source says that recovery mostly runs back along "
        "the erasure, and that it comes even on unrelated data. What is ours: where the change lies, how many of the "
        "rows that showed the clause's 4P still do, and whether a clause comes back on its old rows, beside the share "
        "that chance would give."
    ),
    setting={
        "formulas": 20,
        "seed": 0,
        "clauses": (8, 16),
        "erased": 3,
        "hidden": 32,
        "variables": 32,
        "width": 4,
        "samples": 20_000,
        "epochs": 25,
        "lr": 0.001,
        "stop": 0.05,
        "recovered": 0.8,
        "steps": 300,
        "tune_lrs": (0.001, 0.003, 0.01),
        "ascent_lr": 0.0001,
        "ascent_steps": 1000,
        "vector_data": "alone",
        "vector_from": "trained",
        "vector_epochs": 5,
        "distill_epochs": 10,
        "test": 1000,
    },
    quick={
        "formulas": 2,
        "clauses": (8,),
        "erased": 2,
        "samples": 4000,
        "epochs": 20,
        "steps": 40,
        "tune_lrs": (0.001,),
        "distill_epochs": 4,
        "test": 400,
    },
    kind=KIND,
    tables=tables,
    measured=measured,
    reported=REPORTED,
    figures={
        "steps": _draw("steps", "steps until 80 % are called True again", log=True),
        "recovered": _draw("recovered", "share of networks that recover"),
        "parallel": _draw("parallel", "share of the squared update\nalong the erasure"),
        "old_rows": _draw("old", "share of the old code rows\nthat show the code again", old_chance="by chance"),
        "erasure": draw_erasure,
    },
)
