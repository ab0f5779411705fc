"""What a study of the paper's claims computes: codes and tickets for every width, number of clauses and embedding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pandas as pd

from precode._internal.errors import PrecodeValueError
from precode.formulas.dnf import Dnf
from precode.networks.training import Runs, train
from precode.study.cells import Kind, Results, Settings, register, training_seconds
from precode.study.config import StudyConfig
from precode.tickets.registry import resolve_methods
from precode.tickets.search import find_tickets

SETTING: Mapping[str, Any] = {"variables": 32, "width": 4, "batch": 64, "optimizer": "adam", "floor": 0.1}
"""What all cells share beside the configuration: formulas, training, and the noise floor of codes. The first four are
those of arXiv 2504.08842, section 4; the floor is our choice."""

TEST = 10_000
"""Samples that the accuracy of every ticket is measured on."""

TEMPLATES = 3
"""Templates of a clause of four literals."""

OBSERVING = (0.3, 4.5e-6)
"""Core-seconds of observing one cell, and each location in it."""

MEASURING = (30e-3, 0.1e-6)
"""Core-seconds of measuring the tickets of one method and density, and of each location in them."""

PRUNED = 0.8
"""Share of the weights that each round of iterative pruning keeps."""

ROUNDS: Mapping[str, float] = {"imp": 1.0, "imp-rewind": 1.0, "imp-lr-rewind": 1.0, "imp-finetune": 0.1}
"""Trainings of each round above the least density, by method."""

SEARCHES: Mapping[str, float] = {
    "code-rounds": 6.0,
    "continuous-sparsification": 4.0,
    "edge-popup": 35.0,
    "gem-miner": 20.0,
}
"""What searching one density takes, in trainings by the fused engine, where that weighs anything: measured at 32 rows
and 16 clauses. Learned masks are trained by libtorch."""


def points(config: StudyConfig) -> Iterator[Settings]:
    """The settings that both kinds share: one point for every width, number of clauses and embedding.

    Formula number i is the same for all widths and embeddings, and so are its data: comparisons are paired.

    Raises:
        PrecodeValueError: a number of clauses that formulas cannot have.
    """
    for clauses in config.clauses:
        Dnf.random(variables=SETTING["variables"], clauses=clauses, width=SETTING["width"], seed=config.seed)
    shared = {name: getattr(config, name) for name in ("formulas", "epochs", "samples", "seed")}
    for hidden, clauses, embedding in product(config.hidden, config.clauses, config.embeddings):
        yield {"hidden": hidden, "clauses": clauses, "embedding": embedding, **shared, **SETTING}


def ticket_points(config: StudyConfig) -> Iterator[Settings]:
    """The settings of the cells of tickets.

    Raises:
        PrecodeValueError: an unknown method, or a density that keeps no weight of the smallest width.
    """
    resolve_methods(config.methods, clauses=True)
    weights = min(config.hidden) * SETTING["variables"]
    if round(min(config.densities) * weights) < 1:
        raise PrecodeValueError(
            f"densities = {min(config.densities)}: keeps none of the {weights} weights of hidden = {min(config.hidden)}"
        )
    for settings in points(config):
        yield {**settings, "methods": config.methods, "densities": config.densities, "test": TEST}


def codes(settings: Settings) -> Results:
    """Observes the locations of dense networks from initialization to the end.

    Returns:
        The tables of `precode.claims.Observations`; ``dense``, one row a network: epochs it ran, loss and error on its
        training data, and the columns of `Codes.summary`; and the ``weights`` at the start and at the end.
    """
    from precode.claims import observe, snapshot_steps

    steps = -(-settings["samples"] // settings["batch"])
    runs = _train(settings, snapshots=snapshot_steps(steps, settings["epochs"]))
    seen = observe(runs, relative_floor=settings["floor"])
    dense = runs.evaluate()[["loss", "error"]].assign(epochs=runs.epochs_run)
    weights = {
        f"{moment}.{name}": value
        for moment, networks in (("start", runs.start), ("end", runs))
        for name, value in networks.weights.items()
    }
    summary = runs.codes().summary().rename(columns={"network": "formula"})
    return {**vars(seen), "dense": _placed(settings, summary.join(dense)), "weights": weights}


def tickets(settings: Settings) -> Results:
    """Finds tickets by every method at every density, retrains them, and compares them with their dense networks.

    Returns:
        ``tickets``: see `Retrained.table`, without its timings;
        ``transport``: see `precode.claims.transport_tickets`, summed over the clauses of a formula. Arrays
        ``row_transport``: of the first formula at the middle density, by method and density, (1, j, j); see
        `precode.claims.transport_matrix`.
    """
    from precode.claims import transport_matrix, transport_tickets

    found = find_tickets(_train(settings), settings["methods"], settings["densities"], seed=settings["seed"])
    retrained = found.retrain(test=settings["test"], relative_floor=settings["floor"])
    moves = transport_tickets(retrained, relative_floor=settings["floor"])
    keys = ["method", "density", "formula", "template"]
    sums = moves.drop(columns="clause").groupby(keys, sort=False).sum(min_count=1).reset_index()
    middle = settings["densities"][len(settings["densities"]) // 2]
    matrices = {
        f"{item.method} at {item.density:g}": transport_matrix(
            found.dense, retrained.networks(item.method, middle), item.masks, relative_floor=settings["floor"]
        )[:1]
        for item in found
        if item.density == middle
    }
    return {
        "tickets": _placed(settings, retrained.table().drop(columns="seconds")),
        "transport": _placed(settings, sums),
        "row_transport": matrices,
    }


def _train(settings: Settings, **options: Any) -> Runs:
    formula = {name: settings[name] for name in ("variables", "clauses", "width", "seed")}
    tasks = [Dnf.random(index=index, **formula) for index in range(settings["formulas"])]
    names = ("hidden", "embedding", "epochs", "samples", "batch", "optimizer", "seed")
    return train(tasks, **{name: settings[name] for name in names}, **options)


def _placed(settings: Settings, table: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns that say which cell it belongs to."""
    for name in ("embedding", "clauses", "hidden"):
        table.insert(0, name, settings[name])
    return table


def _training(settings: Settings) -> float:
    return training_seconds(
        settings["formulas"], settings["hidden"], settings["samples"], settings["epochs"], settings["batch"]
    )


def _locations(settings: Settings) -> int:
    return int(settings["formulas"] * settings["clauses"] * TEMPLATES * settings["hidden"])


def codes_seconds(settings: Settings) -> float:
    """An estimate of what `codes` takes on one core; locations of false clauses are observed too."""
    start, location = OBSERVING
    return _training(settings) + start + 2 * _locations(settings) * location


def tickets_seconds(settings: Settings) -> float:
    """An estimate of what `tickets` takes on one core."""
    densities, methods = settings["densities"], [name.partition(":")[0] for name in settings["methods"]]
    rounds = math.ceil(math.log(min(densities)) / math.log(PRUNED))
    searched = sum(ROUNDS.get(name, 0) * rounds + SEARCHES.get(name, 0) * len(densities) for name in methods)
    retrained = len(methods) * len(densities)
    start, location = MEASURING
    return _training(settings) * (1 + searched + retrained) + retrained * (start + location * _locations(settings))


CODES = register(Kind("codes", points, codes, codes_seconds, version=2))
TICKETS = register(Kind("tickets", ticket_points, tickets, tickets_seconds, version=2))
