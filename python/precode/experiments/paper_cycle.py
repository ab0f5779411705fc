"""The ticket cycle of arXiv 2605.17704: one run from its dense start to its sparse end, by codes and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import torch

from precode._internal.cells import Kind, Parts, Settings
from precode.codes.locating import locations
from precode.experiments.cells import Finished, Tables
from precode.experiments.founding_cells import FORMULA
from precode.experiments.masking import random_masks
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
from precode.experiments.paper_networks import (
    BOTH,
    KINDS,
    accuracies,
    dense,
    each_template,
    false_clauses,
    pruned,
    seconds,
)
from precode.experiments.records import Experiment, Result
from precode.networks.stacks import Networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def masked(networks: Networks, mask: torch.Tensor) -> Networks:
    """Networks with some weights of the first layer set to zero."""
    return Networks({**networks.weights, "w1": networks.weights["w1"] * mask}, networks.tasks, networks.embedding)


def compute(settings: Settings, parts: Parts) -> Tables:
    """Accuracy and codes of some formulas' runs, in every state: before or after training, with or without a mask.

    Returns:
        ``accuracy``: state, formula, accuracy; ``codes``: state, formula, of, template, codes (of a network).
    """
    indices = list(parts[FORMULA])
    runs = dense(settings, indices)
    found, ticket = pruned(runs, settings)
    mask = found.masks["w1"]
    random = random_masks(mask.shape[1:], settings["density"], settings["seed"], indices)
    states = {
        "dense start": runs.start,
        "masked start": masked(runs.start, mask),
        "random mask, start": masked(runs.start, random),
        "dense end": runs,
        "masked end": masked(runs, mask),
        "random mask, end": masked(runs, random),
        "sparse end": ticket.end,
    }
    false = false_clauses(runs)
    rows = []
    for state, networks in states.items():
        for kind in KINDS:
            seen = locations(networks, clauses=false if kind == "false" else None)
            for template, some in each_template(seen).items():
                columns = {"state": state, FORMULA: indices, "of": kind, "template": template}
                rows.append(pd.DataFrame({**columns, "codes": some.code.sum((1, 2, 3))}))
    accuracy = accuracies(settings, indices, runs, states).rename(columns={"networks": "state"})
    place = {name: settings[name] for name in PLACE}
    return {"accuracy": accuracy.assign(**place), "codes": pd.concat(rows, ignore_index=True).assign(**place)}


def tables(cells: Sequence[Finished]) -> Tables:
    """``means``, accuracy and codes in every state with their intervals; and all that was measured."""
    found = joined(cells)
    accuracy = summary(found["accuracy"], [*PLACE, "state"], ["accuracy"])
    codes = summary(found["codes"], [*PLACE, "of", "template", "state"], ["codes"])
    return {"means": pd.concat([accuracy, codes], ignore_index=True), **found}


def draw_codes(result: Result, ax: Axes | None) -> Axes:
    """Codes in every state, of both polarities and false clauses."""
    from precode import plot

    table = beside_reported(result.table)
    table = table[(table["quantity"] == "codes") & (table["template"] != BOTH)]
    ax = plot.beside(table.assign(series=by_template(table)), "state", series="series", ax=ax)
    ax.set_ylabel("codes of a network")
    return ax


def draw_accuracy(result: Result, ax: Axes | None) -> Axes:
    """Accuracy in every state."""
    from precode import plot

    table = result.table
    ax = plot.beside(table[table["quantity"] == "accuracy"], "state", series="embedding", ax=ax)
    ax.set_ylabel("test accuracy")
    return ax


TRAININGS = 3.0
"""Trainings of every formula that a cell takes, OBS included."""

KIND = Kind("ticket_cycle", points, compute, partial(seconds, TRAININGS), axes=(FORMULA,), parts=parts)

EXPERIMENT = Experiment(
    name="ticket_cycle",
    title="One run from its dense start to its sparse end: codes and accuracy",
    source=SOURCE,
    words=(
        "The mask of the trained network is laid on its initial weights and on its final ones, and the ticket is "
        "trained from its masked start. In every state accuracy is measured and codes of both polarities are counted, "
        "for the clauses of the formula and for false ones. A random mask of the same size is the control: what it "
        "does to the start is no doing of the ticket. The digest says in words that the final mask raises codes and "
        "accuracy at the start; it reports no numbers."
    ),
    setting=SETTING,
    quick=SMALL,
    kind=KIND,
    tables=tables,
    figures={"codes": draw_codes, "accuracy": draw_accuracy},
)
