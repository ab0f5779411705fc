"""What the digest of arXiv 2605.17704 leaves open, searched: which choice comes nearest to its reported numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.cells import Kind, Settings
from precode._internal.check import COUNT, integers
from precode.experiments.cells import Finished, Tables
from precode.experiments.comparison import Reported
from precode.experiments.founding_cells import FORMULA
from precode.experiments.paper import OWN, SETTING, SOURCE, check, digest, networks_of, parts
from precode.experiments.paper_budget import REPORTED as ACCURACIES
from precode.experiments.paper_identity import REPORTED as IDENTITIES
from precode.experiments.paper_networks import BOTH, measures, measuring_seconds
from precode.experiments.paper_precursors import DEFINITIONS
from precode.experiments.paper_precursors import REPORTED as PRECURSORS
from precode.experiments.records import Experiment, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OPEN = ("variables", "clauses", "samples", "epochs", "embedding", "rewind", "pruning")
"""What the digest leaves open, by its name in the setting; and what near means."""

REPORTED: tuple[Reported, ...] = (*ACCURACIES, *IDENTITIES, *PRECURSORS)
"""All numbers that choices are compared by."""


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every combination of what is open; rewinding and pruning vary at the chosen one alone.

    Raises:
        PrecodeValueError: a setting that no networks can have.
    """
    chosen = {**{name: SETTING[name] for name in OPEN if name != "embedding"}, "embedding": SETTING["embeddings"][0]}
    grid: list[dict[str, Any]] = []
    numbers = {name: integers(setting[name], name, 1, COUNT) for name in ("variables", "clauses", "samples", "epochs")}
    for values in product(*numbers.values(), setting["embeddings"]):
        varied = dict(zip((*numbers, "embedding"), values, strict=True))
        grid.append({**varied, "rewind": chosen["rewind"], "pruning": chosen["pruning"]})
    for rewind, pruning in product(integers(setting["rewinds"], "rewinds", 0, COUNT), setting["prunings"]):
        grid.append({**chosen, "rewind": rewind, "pruning": pruning})
    shared = {name: setting[name] for name in ("hidden", "width", "density", "near", "test", "seed")}
    shared["own"] = SETTING["own"]
    seen = []
    for point in grid:
        if point not in seen:
            seen.append(point)
            check({**shared, **point})
            yield {**shared, **point}


KIND = Kind("choices", points, measures, measuring_seconds, axes=(FORMULA,), parts=parts)


def tables(cells: Sequence[Finished]) -> Tables:
    """``choices``: one row a choice and definition of near, nearest to the reported numbers first.

    Returns:
        The columns of `OPEN`, own (see `OWN`), near (a definition and its templates), distance (root of the mean
        squared difference of the measured means from the reported numbers), largest (the largest difference) and every
        measured mean.
    """
    rows = []
    for cell in cells:
        accuracy = cell.tables["accuracy"].groupby("networks")["accuracy"].mean()
        codes = cell.tables["codes"]
        codes = codes[codes["of"] == "formula"]
        columns = ["recall", "jaccard", "jaccard_other", *DEFINITIONS]
        means = codes.groupby(["template", "networks"])[columns].mean()
        others = [own for own in OWN if own != cell.settings["own"]]
        for definition, template, own in product(DEFINITIONS, (BOTH, "4P"), (cell.settings["own"], *others)):
            found = {}
            for item in REPORTED:
                name, column = networks_of(item), item.quantity
                if own in others:
                    name = name.replace("random", "random-other")
                    column = column.replace("jaccard", "jaccard_other")
                if item.quantity == "accuracy":
                    value = accuracy[name]
                elif item.quantity == "near":
                    value = means.loc[(template, name), definition]
                else:
                    value = means.loc[(BOTH, name), column]
                found[f"{item.quantity} {networks_of(item)}"] = float(value)
            differences = np.array(list(found.values())) - [item.value for item in REPORTED]
            point = {name: cell.settings[name] for name in OPEN}
            worst = float(np.abs(differences).max())
            rms = float(np.sqrt((differences**2).mean()))
            rows.append(
                {**point, "own": own, "near": f"{definition}, {template}", "distance": rms, "largest": worst, **found}
            )
    table = pd.DataFrame(rows)
    if len(table):
        table = table.sort_values("distance", ignore_index=True, kind="stable")
    return {"choices": table}


def draw(result: Result, ax: Axes | None) -> Axes:
    """Distances of all choices, by number of clauses and projection."""
    from precode import plot

    table = result.table.groupby(["clauses", "embedding"], sort=False)["distance"].agg(["min", "median", "max"])
    table = table.reset_index().sort_values("clauses")
    named = table.rename(columns={"median": "mean", "min": "low", "max": "high"})
    ax = plot.beside(named, "clauses", series="embedding", ax=ax)
    ax.set_xlabel("clauses")
    ax.set_ylabel("distance from the reported numbers\n(median, least and most of all choices)")
    return ax


EXPERIMENT = Experiment(
    name="choices",
    title="What the digest leaves open, by the distance of the outcome from its numbers",
    source=SOURCE,
    words=(
        f"The digest reports {len(REPORTED)} numbers of the fixed budget and does not state "
        f"{', '.join(digest()['setting']['not_stated_in_the_digest'][:6])} and more. Every combination of what is open "
        "is run on formulas that no other experiment sees, and its distance from the reported numbers is the root of "
        "the mean squared difference. The nearest is the setting of the other experiments, which report it on fresh "
        "formulas. Rewinding and pruning vary at the chosen point alone. A setting that was chosen to be near reported "
        "numbers is no confirmation of them: what counts is which numbers no choice reaches."
    ),
    setting={
        "formulas": 8,
        "seed": 1000,
        "hidden": SETTING["hidden"],
        "width": SETTING["width"],
        "density": SETTING["density"],
        "near": SETTING["near"],
        "test": SETTING["test"],
        "variables": (32,),
        "clauses": (16, 24, 32, 48),
        "samples": (2000, 20_000),
        "epochs": (40, 100),
        "embeddings": ("projection-16-fixed", "projection-16", "projection-16-dense"),
        "rewinds": (1, 2, 5),
        "prunings": ("obs", "obs-rounds", "obs-loss"),
    },
    quick={
        "formulas": 2,
        "variables": (32,),
        "clauses": (8,),
        "samples": (1000,),
        "epochs": (8,),
        "embeddings": ("projection-16-fixed",),
        "rewinds": (5,),
        "prunings": ("obs",),
    },
    kind=KIND,
    tables=tables,
    figures={"distance": draw},
)
