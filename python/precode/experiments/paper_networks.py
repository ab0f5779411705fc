"""The networks of arXiv 2605.17704 and what is measured of them: dense ones, and all that have half of their weights.

What the source leaves open is a value of the setting; see `precode.experiments.paper`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from precode._internal.cells import Kind, Parts, Settings, training_seconds
from precode.codes.locating import (
    Locations,
    independent_jaccard,
    jaccard,
    locations,
    near_at,
    permuted_recall,
    recall,
)
from precode.experiments.cells import Tables
from precode.experiments.founding_cells import BATCH, FORMULA
from precode.experiments.masking import random_masks
from precode.experiments.paper import OWN, PLACE, formulas, parts, points
from precode.networks.stacks import Networks
from precode.networks.training import Runs, train
from precode.networks.work import sample_all
from precode.tickets.search import find_tickets
from precode.tickets.stacked import Found

KINDS = ("formula", "false")
"""Whose locations: of the clauses of the formula, or of as many false ones, the null of every count."""

BOTH = "both"
"""Stands for the templates of both polarities together."""

OTHER_START = 0x5DEECE66D
"""Changes the key of the initial weights of networks that do not share those of the dense ones."""


def dense(settings: Settings, indices: Sequence[int], **options: Any) -> Runs:
    """The dense networks of some formulas.

    Args:
        settings: see `SETTING`.
        indices: numbers of the formulas.
        options: other arguments of `precode.train`, which go before the settings.
    """
    given = {name: settings[name] for name in ("hidden", "seed", "samples", "embedding", "epochs")}
    return train(
        formulas(settings, indices),
        indices=indices,
        batch=BATCH,
        early_stopping=None,
        **{**given, **options},
    )


@dataclass(frozen=True, eq=False)
class Arm:
    """Networks of one kind in a comparison, one for each formula.

    Attributes:
        start: before training, masked.
        end: after it.
    """

    start: Networks
    end: Networks


def independent(runs: Runs, settings: Settings, indices: Sequence[int], own: str) -> Arm:
    """Networks with an initialization of their own on the data of the dense ones, with a random mask of W1.

    Args:
        runs: the dense networks.
        settings: see `SETTING`.
        indices: numbers of the formulas.
        own: ``"all"`` initial weights are their own, or ``"w1"`` alone: the others are those of the dense networks, so
            that rows have the same polarities at the start.
    """
    key = settings["seed"] ^ OTHER_START
    masks = random_masks(runs.weights["w1"].shape[1:], settings["density"], key, indices)
    options: dict[str, Any] = {"data": runs.data, "order_seed": runs.settings.order_seed}
    if own == "w1":
        drawn = dense(settings, indices, seed=key, epochs=1, **options).start.weights["w1"]
        options["init"] = {**runs.start.weights, "w1": drawn}
    found = dense(settings, indices, seed=key, masks={"w1": masks}, **options)
    return Arm(found.start, found)


def small(runs: Runs, settings: Settings, indices: Sequence[int]) -> Arm:
    """Dense networks with as many weights in W1 as the others keep, on the data of the dense ones."""
    hidden = max(1, round(settings["hidden"] * settings["density"]))
    options = {"data": runs.data, "order_seed": runs.settings.order_seed}
    found = dense(settings, indices, hidden=hidden, seed=settings["seed"] ^ OTHER_START, **options)
    return Arm(found.start, found)


def pruned(runs: Runs, settings: Settings, *, rewind: int = 0) -> tuple[Found, Arm]:
    """Tickets by the setting's pruning, retrained.

    Args:
        runs: the dense networks.
        settings: see `SETTING`.
        rewind: epoch of the dense run from which tickets start.
    """
    tickets = find_tickets(runs, settings["pruning"], settings["density"], seed=settings["seed"], rewind=rewind)
    retrained = tickets.retrain(test=1)
    found = tickets.found[0]
    return found, Arm(found.start, retrained.networks(found.method, found.density))


def arms(settings: Settings, indices: Sequence[int]) -> tuple[Runs, dict[str, Arm]]:
    """The networks of the fixed budget: dense ones and all that have half of their weights in W1.

    Returns:
        The dense run, and by name: dense; small (half as wide, initial weights of its own); random (what the setting
        says of its initialization is its own) and random-other (the other choice of `OWN`); random-same (the initial
        weights of the dense networks); obs and obs-rewound.
    """
    runs = dense(settings, indices)
    density = settings["density"]
    same = find_tickets(runs, "random", density, seed=settings["seed"])
    found = {
        "dense": Arm(runs.start, runs),
        "small": small(runs, settings, indices),
        "random": independent(runs, settings, indices, settings["own"]),
        "random-other": independent(runs, settings, indices, OWN[settings["own"] == OWN[0]]),
        "random-same": Arm(same.found[0].start, same.retrain(test=1).networks("random", density)),
        "obs": pruned(runs, settings)[1],
        "obs-rewound": pruned(runs, settings, rewind=settings["rewind"])[1],
    }
    return runs, found


def false_clauses(runs: Runs) -> list[list[Sequence[int]]]:
    """As many false clauses of every formula as it has clauses."""
    return [
        list(task.false_clauses(seed=runs.seed, index=stream))
        for task, stream in zip(runs.tasks or (), runs.streams, strict=True)
    ]


def located(networks: Networks, runs: Runs) -> dict[str, Locations]:
    """Locations of networks for the clauses of their formulas, and for the false ones of the dense run."""
    return {"formula": locations(networks), "false": locations(networks, clauses=false_clauses(runs))}


def accuracies(settings: Settings, indices: Sequence[int], runs: Runs, found: Mapping[str, Networks]) -> pd.DataFrame:
    """Accuracy on fresh samples, one row a kind of networks and formula: columns networks, formula, accuracy."""
    sampler = runs.sampler or "broken-clause"
    test = sample_all(
        runs.tasks or (), settings["test"], sampler=sampler, seed=settings["seed"], indices=indices, purpose="test"
    )
    return pd.concat(
        [
            pd.DataFrame(
                {"networks": name, FORMULA: list(indices), "accuracy": 1 - networks.evaluate(test)["error"].to_numpy()}
            )
            for name, networks in found.items()
        ],
        ignore_index=True,
    )


def each_template(found: Locations) -> dict[str, Locations]:
    """The locations of all templates together, and of each by itself."""
    return {BOTH: found, **{name: found.only(name) for name in found.templates}}


def placed(settings: Settings, tables: Mapping[str, pd.DataFrame], *names: str) -> Tables:
    """Tables of a cell with settings as their first columns, such as the embedding."""
    return {key: table.assign(**{name: settings[name] for name in names}) for key, table in tables.items()}


def transitions(settings: Settings, start: Locations, end: Locations) -> pd.DataFrame:
    """Locations by their wrong signs at the start, and how many become codes; rows of the right polarity at the start.

    Returns:
        One row a formula (by place), template and distance that there is: columns formula, template, distance,
        locations and codes.
    """
    rows = []
    for place, template in enumerate(start.templates):
        right = np.broadcast_to(start.polarity[:, None, place], start.code[:, :, place].shape)
        for wrong in range(settings["width"] + 1):
            there = right & (start.distance[:, :, place] == wrong)
            counts = there.sum((1, 2)), (there & end.code[:, :, place]).sum((1, 2))
            columns = {"distance": wrong, "locations": counts[0], "codes": counts[1]}
            rows.append(pd.DataFrame({FORMULA: range(len(there)), "template": template, **columns}))
    table = pd.concat(rows, ignore_index=True)
    return table[table["locations"] > 0]


def measures(settings: Settings, parts: Parts) -> Tables:
    """What is measured of the networks of a fixed budget; computes the cells of several experiments.

    Returns:
        ``accuracy``, see `accuracies`; ``codes``, one row a kind of networks, formula, kind of clauses and template
        (``both`` together, and each apart). Its columns: codes; recall, the share of the dense networks' codes that
        are at the same sites, and recall_permuted, what it would be with the codes on random rows; jaccard, that with
        the codes of the random networks, jaccard_other, that with those of random-other, and jaccard_independent, what
        it would be for independent rows; near, the
        share of the networks' own final codes that were near at their start, with the row's polarity right there,
        near_end (the polarity that of the end) and near_exact (without a wrong sign, the polarity that of the end). NaN
        of networks of another width, and where there are no codes. ``transitions``, see there.
    """
    indices = list(parts[FORMULA])
    runs, found = arms(settings, indices)
    starts = {name: located(arm.start, runs) for name, arm in found.items()}
    ends = {name: located(arm.end, runs) for name, arm in found.items()}
    frames = []
    for kind in KINDS:
        dense_codes, *random_codes = (each_template(ends[name][kind]) for name in ("dense", "random", "random-other"))
        for name in found:
            start, end = each_template(starts[name][kind]), each_template(ends[name][kind])
            for template, last in end.items():
                columns: dict[str, Any] = {"networks": name, FORMULA: indices, "of": kind, "template": template}
                code, parent = last.code, dense_codes[template].code
                other, another = (some[template].code for some in random_codes)
                columns["codes"] = code.sum((1, 2, 3))
                if code.shape == parent.shape:
                    columns["recall"] = recall(parent, code)
                    columns["recall_permuted"] = permuted_recall(parent, code)
                    if not name.startswith("random"):
                        columns["jaccard"] = jaccard(other, code)
                        columns["jaccard_other"] = jaccard(another, code)
                        columns["jaccard_independent"] = independent_jaccard(other, code)
                first, near = start[template], settings["near"]
                columns["near"] = near_at(first, last, near, polarity="require")
                columns["near_end"] = near_at(first, last, near)
                columns["near_exact"] = near_at(first, last, 0)
                frames.append(pd.DataFrame(columns))
    moved = [
        transitions(settings, starts[name][kind], ends[name][kind]).assign(networks=name, of=kind)
        for name in found
        for kind in KINDS
    ]
    every = pd.concat(moved, ignore_index=True)
    every[FORMULA] = np.asarray(indices)[every[FORMULA]]
    accuracy = accuracies(settings, indices, runs, {name: arm.end for name, arm in found.items()})
    tables = {"accuracy": accuracy, "codes": pd.concat(frames, ignore_index=True), "transitions": every}
    return placed(settings, tables, *PLACE)


TRAININGS = 8.0
"""Trainings of every formula that `measures` takes, OBS and reading included."""


def seconds(trainings: float, settings: Settings, parts: Parts) -> float:
    """An estimate of what some trainings of every formula take on one core, with reading them."""
    count = len(parts[FORMULA])
    one = training_seconds(count, settings["hidden"], settings["samples"], settings["epochs"], BATCH)
    return 0.3 + trainings * (one + 0.002 * count)


measuring_seconds = partial(seconds, TRAININGS)
"""An estimate of what `measures` takes on one core."""


MEASURES = Kind("fixed_budget", points, measures, measuring_seconds, axes=(FORMULA,), parts=parts)
"""Cells of the networks of a fixed budget, which several experiments share."""
