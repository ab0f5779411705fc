"""The setting of arXiv 2605.17704 as far as it is known, its networks and tickets, and what is measured of them.

A public digest of the paper, second-hand, tells part of the setting: W1 behind a learnable projection to 16
dimensions, clauses of four literals, W1 alone pruned by OBS, codes of both polarities. It leaves open the variables,
the clauses, samples and epochs, whether the projection is trained, and what near means. `SETTING` fixes these in one
place; `precode reproduce choices` shows how they were chosen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from precode._internal.cells import Settings
from precode._internal.check import COUNT, fractions, integer, integers
from precode._internal.errors import PrecodeValueError
from precode._internal.statistics import with_intervals
from precode.codes import embedding as embeddings
from precode.experiments.cells import Finished, Tables
from precode.experiments.comparison import Reported, place
from precode.experiments.founding_cells import FORMULA, MOST
from precode.formulas.dnf import Dnf
from precode.tickets.registry import record

SOURCE = "arXiv 2605.17704, reported by a public digest of it"
"""Where reported numbers come from: second-hand."""

SETTING: dict[str, Any] = {
    "formulas": 20,
    "seed": 0,
    "hidden": 32,
    "clauses": 48,
    "variables": 32,
    "width": 4,
    "embeddings": ("projection-16", "projection-16-fixed"),
    "samples": 2000,
    "epochs": 100,
    "density": 0.5,
    "pruning": "obs",
    "rewind": 5,
    "own": "w1",
    "near": 1,
    "test": 10_000,
}
"""The setting of all experiments of the paper. Hidden width, width of clauses, projection, density and pruning are
reported by a public digest; what it leaves open was chosen by `precode reproduce choices`. Reported numbers stand
beside those of the first embedding; the others show how far they carry."""


OWN = ("all", "w1")
"""What random networks have of their own: all initial weights, or W1 alone."""

FIGURE = "fixed budget"
"""What the digest's table is called here."""


@cache
def digest() -> dict[str, Any]:
    """What a public digest of the paper reports, as it is kept beside this file.

    Example:
        >>> digest()["fixed_budget"]["obs_from_init"]["accuracy"]
        0.767
    """
    text = resources.files("precode.experiments").joinpath("data/tickets-2605.17704.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


ARMS = {
    "random": "random_32x16_half",
    "obs": "obs_from_init",
    "obs-rewound": "obs_rewound",
    "dense": "dense_32x16",
}
"""Names of our networks and of the digest's for them."""


def reported(column: str, quantity: str) -> tuple[Reported, ...]:
    """The digest's numbers of one column of its table, one for each kind of network.

    Example:
        >>> [(item.at["networks"], item.value) for item in reported("accuracy", "accuracy")][:2]
        [('random', 0.736), ('obs', 0.767)]
    """
    table = digest()["fixed_budget"]
    reading = "second-hand, not checked against the paper"
    if column == "dense_codes_recovered_same_site":
        reading += "; which of the two OBS tickets has which recall is our reading"
    return tuple(
        Reported(FIGURE, quantity, {"networks": ours}, table[theirs][column], SOURCE, reading, True)
        for ours, theirs in ARMS.items()
        if column in table[theirs]
    )


def networks_of(item: Reported) -> str:
    """The kind of networks that a reported number is of."""
    return str(dict(item.at)["networks"])


def check(setting: Mapping[str, Any]) -> None:
    """Refuses the setting of networks behind one embedding, if there cannot be such networks.

    Raises:
        PrecodeValueError: a value out of range, an embedding or pruning that is unknown, or formulas that there cannot
            be.
    """
    for name in ("hidden", "clauses"):
        integers(setting[name], name, 1, MOST[name])
    for name in ("samples", "epochs", "test"):
        integer(setting[name], name, 1, COUNT)
    if not integer(setting["rewind"], "rewind", 0, COUNT) < setting["epochs"]:
        raise PrecodeValueError(
            f"rewind = {setting['rewind']}: tickets are rewound to an epoch before the last of {setting['epochs']}"
        )
    fractions(setting["density"], "density")
    integer(setting["near"], "near", 0, setting["width"])
    if setting["own"] not in OWN:
        raise PrecodeValueError(f"own = {setting['own']!r}: use one of {', '.join(OWN)}")
    if not embeddings.is_name(setting["embedding"]):
        raise PrecodeValueError(f"embedding {setting['embedding']!r}: use one of {embeddings.ALLOWED}")
    record(setting["pruning"])
    for clauses in integers(setting["clauses"], "clauses", 1, MOST["clauses"]):
        formulas({**setting, "clauses": clauses}, [0])


def parts(setting: Mapping[str, Any]) -> dict[str, range]:
    """The numbers of the formulas."""
    return {FORMULA: range(integer(setting["formulas"], "formulas", 1, MOST["formulas"]))}


PLACE = ("embedding", "hidden", "clauses")
"""Columns that say which point of the setting a row is of."""


def formulas(settings: Mapping[str, Any], indices: Sequence[int]) -> list[Dnf]:
    """Random formulas by number."""
    names = ("variables", "clauses", "width", "seed")
    return [Dnf.random(**{name: settings[name] for name in names}, index=index) for index in indices]


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every embedding, width and number of clauses.

    Raises:
        PrecodeValueError: a setting that no networks can have.
    """
    for embedding in setting["embeddings"]:
        check({**setting, "embedding": embedding})
    left = {name: value for name, value in setting.items() if name not in ("formulas", "embeddings")}
    several = [integers(setting[name], name, 1, MOST[name]) for name in ("hidden", "clauses")]
    for embedding, hidden, clauses in product(setting["embeddings"], *several):
        yield {**left, "embedding": embedding, "hidden": hidden, "clauses": clauses}


def joined(cells: Sequence[Finished]) -> Tables:
    """The tables of all cells below each other."""
    names = cells[0].tables if cells else ()
    return {name: pd.concat([cell.tables[name] for cell in cells], ignore_index=True) for name in names}


def summary(
    table: pd.DataFrame, by: Sequence[str], quantities: Sequence[str], beside: Sequence[Reported] = (), **at: Any
) -> pd.DataFrame:
    """Means over formulas with their 95 % intervals, beside reported numbers.

    Args:
        table: one row a group and formula.
        by: columns of the groups.
        quantities: columns that the means are of.
        beside: reported numbers whose place is the networks.
        at: columns with the only values at which they are reported.

    Returns:
        Columns quantity, `by`, mean, low and high; beside reported numbers also reported and difference (mean minus
        reported), NaN where nothing is reported.
    """
    # Groups in the order in which they come, not in that of the alphabet.
    table = table.assign(**{
        name: pd.Categorical(table[name], categories=list(dict.fromkeys(table[name]))) for name in by
    })  # fmt: skip
    frames = []
    for quantity in quantities:
        means = with_intervals(table.dropna(subset=[quantity]), by, quantity)
        means.insert(0, "quantity", quantity)
        means = means.astype({name: table[name].cat.categories.dtype for name in by})
        if not beside:
            frames.append(means)
            continue
        values = {networks_of(item): item.value for item in beside if item.quantity == quantity}
        there = np.ones(len(means), dtype=bool)
        for name, value in at.items():
            there &= (means[name] == value).to_numpy()
        means["reported"] = means["networks"].map(values).astype(float).where(there)
        means["difference"] = means["mean"] - means["reported"]
        frames.append(means)
    return pd.concat(frames, ignore_index=True)


def beside_reported(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first point of the setting, which reported numbers stand beside."""
    keep = np.ones(len(table), dtype=bool)
    for name in PLACE:
        keep &= (table[name] == table[name].iloc[0]).to_numpy() if len(table) else keep
    return table[keep]


def by_template(table: pd.DataFrame) -> pd.Series[str]:
    """What a row is of, in words for a picture: the template, and whether its clauses are false.

    Args:
        table: has columns template and of.
    """
    return table["template"] + table["of"].map({"formula": "", "false": ", false clauses"})


def compare(table: pd.DataFrame, quantities: Sequence[str], **at: Any) -> pd.DataFrame:
    """What compares with the reported numbers, as `precode.experiments.Experiment.measured` returns it.

    Args:
        table: one row a kind of networks and formula, and more.
        quantities: its columns that compare.
        at: columns with the values at which they do.
    """
    for name, value in at.items():
        table = table[table[name] == value]
    frames = []
    for quantity in quantities:
        places = [place({"networks": name}) for name in table["networks"]]
        columns = {"figure": FIGURE, "quantity": quantity, "at": places, FORMULA: table[FORMULA]}
        frames.append(pd.DataFrame({**columns, "value": table[quantity]}))
    return pd.concat(frames, ignore_index=True)
