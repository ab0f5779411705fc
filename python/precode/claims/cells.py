"""The cells that the claims are judged from: codes and tickets for every width, number of clauses and embedding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.cells import Kind, Parts, Results, Settings, training_seconds
from precode._internal.errors import PrecodeValueError
from precode.claims.observations import observe, snapshot_steps
from precode.claims.similarity import similarity
from precode.claims.transport import transport_matrix, transport_tickets
from precode.codes import embedding as embeddings
from precode.formulas.dnf import Dnf
from precode.networks.training import Runs, train
from precode.tickets.registry import CUBIC, record, resolve_methods
from precode.tickets.search import find_tickets

if TYPE_CHECKING:
    from precode.study import StudyConfig

SETTING: Mapping[str, Any] = {"variables": 32, "width": 4, "batch": 64, "optimizer": "adam", "relative_floor": 0.1}
"""What all cells share beside the configuration: formulas, training, and the noise floor of codes. The first four are
those of arXiv 2504.08842, section 4; the floor is our choice."""

TEST = 10_000
"""Samples that the accuracy of every ticket is measured on."""

MOVES = (0.1, 0.25)
"""Densities from and to which row transport is kept, for the first formula: the report draws one of them."""

TEMPLATES = 3
"""Templates of a clause of four literals."""

OBSERVING = (0.3, 4.5e-6)
"""Core-seconds of observing one cell, and each location in it."""

PREPARING = 0.02
"""Core-seconds of drawing the data of one formula for a cell of tickets."""

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

REMOVING: Mapping[str, float] = dict(zip(CUBIC, (5e-9, 2e-9), strict=True))
"""Core-seconds a formula, over the cube of the number of weights of W1."""

SHARED = ("embedding", "clauses", "hidden")
"""Columns that say which point of the setting a row belongs to, from the third to the first."""


def points(config: StudyConfig) -> Iterator[Settings]:
    """The settings that both kinds share: one point for every width, number of clauses and embedding.

    Formula number i is the same for all widths and embeddings, and so are its data: comparisons are paired.

    Raises:
        PrecodeValueError: a number of clauses that formulas cannot have.
    """
    for clauses in config.clauses:
        Dnf.random(variables=SETTING["variables"], clauses=clauses, width=SETTING["width"], seed=config.seed)
    shared = {name: getattr(config, name) for name in ("epochs", "samples", "seed")}
    for hidden, clauses, embedding in product(config.hidden, config.clauses, config.embeddings):
        yield {"hidden": hidden, "clauses": clauses, "embedding": embedding, **shared, **SETTING}


def ticket_points(config: StudyConfig) -> Iterator[Settings]:
    """The settings of the cells of tickets: one for every point and method, and epoch that it is read after.

    Raises:
        PrecodeValueError: an unknown method, a density that keeps no weight of the smallest width, or an epoch beyond
            the run.
    """
    methods, _ = resolve_methods(config.methods, clauses=True)
    if late := [epoch for epoch in config.probe_epochs if epoch > config.epochs]:
        raise PrecodeValueError(f"probe_epochs = {late[0]}: the networks are trained for {config.epochs} epochs")
    inputs = {name: embeddings.resolve(name, SETTING["variables"]).rows for name in config.embeddings}
    weights = min(config.hidden) * min(inputs.values())
    if round(min(config.densities) * weights) < 1:
        raise PrecodeValueError(
            f"densities = {min(config.densities)}: keeps none of the {weights} weights of hidden = {min(config.hidden)}"
        )
    for settings, method in product(points(config), methods):
        early = record(method)["early"] and config.probe_epochs
        for epoch in config.probe_epochs if early else (None,):
            read = {} if epoch is None else {"probe_epoch": epoch}
            yield {**settings, "method": method, **read, "test": TEST}


def code_parts(config: StudyConfig) -> dict[str, range]:
    """The parts of cells of codes: formulas."""
    return {"formula": range(config.formulas)}


def ticket_parts(config: StudyConfig) -> dict[str, Sequence[Any]]:
    """The parts of cells of tickets: every density of every formula."""
    return {"density": config.densities, "formula": range(config.formulas)}


def codes(settings: Settings, parts: Parts) -> Results:
    """Observes the locations of dense networks from initialization to the end.

    Returns:
        The tables of `precode.claims.Observations`, where the null of ``similarity`` is the final network of the next
        formula; ``dense``, one row a network: epochs it ran, loss and error on its training data, and the columns of
        `Codes.summary`; and the ``weights`` at the start and at the end, as ``"<formula>.start.w1"``.
    """
    formulas = parts["formula"]
    steps = -(-settings["samples"] // settings["batch"])
    runs = _train(settings, formulas, snapshots=snapshot_steps(steps, settings["epochs"]))
    seen = observe(runs, formulas=formulas, relative_floor=settings["relative_floor"])
    dense = runs.evaluate()[["loss", "error"]].assign(epochs=runs.epochs_run)
    summary = runs.codes().summary().rename(columns={"network": "formula"}).join(dense)
    weights = {
        f"{formula}.{moment}.{name}": value[number]
        for number, formula in enumerate(formulas)
        for moment, networks in (("start", runs.start), ("end", runs))
        for name, value in networks.weights.items()
    }
    return {
        **vars(seen),
        "similarity": _placed(settings, _similarity(settings, formulas)),
        "dense": _placed(settings, _numbered(summary, formulas)),
        "weights": weights,
    }


def tickets(settings: Settings, parts: Parts) -> Results:
    """Finds tickets by one method at every density, retrains them, and compares them with their dense networks.

    Returns:
        ``tickets``: see `Retrained.table`, without its timings; ``transport``: see `precode.claims.transport_tickets`,
        summed over the clauses of a formula. Where the first formula is among the parts, arrays ``row_transport``: for
        it, by method and density, those of `MOVES`, (1, j, j); see `precode.claims.transport_matrix`.
    """
    formulas, densities, floor = parts["formula"], parts["density"], settings["relative_floor"]
    at = settings.get("probe_epoch")
    found = find_tickets(_train(settings, formulas), settings["method"], densities, at=at, seed=settings["seed"])
    retrained = found.retrain(test=settings["test"], relative_floor=floor)
    moves = transport_tickets(retrained, relative_floor=floor)
    keys = ["method", "density", "probe_epoch", "formula", "template"]
    sums = moves.drop(columns="clause").groupby(keys, sort=False, dropna=False).sum(min_count=1).reset_index()
    results: dict[str, Any] = {
        "tickets": _placed(settings, _numbered(retrained.table().drop(columns="seconds"), formulas)),
        "transport": _placed(settings, _numbered(sums, formulas)),
    }
    kept = [item for item in found if formulas[0] == 0 and MOVES[0] <= item.density <= MOVES[1]]
    if kept:
        results["row_transport"] = {
            f"{item.method} at {item.density:g}": transport_matrix(
                found.dense,
                retrained.networks(item.method, item.density),
                item.masks,
                relative_floor=settings["relative_floor"],
            )[:1]
            for item in kept
        }
    return results


def _train(settings: Settings, formulas: Sequence[int], **options: Any) -> Runs:
    formula = {name: settings[name] for name in ("variables", "clauses", "width", "seed")}
    tasks = [Dnf.random(index=index, **formula) for index in formulas]
    names = ("hidden", "embedding", "epochs", "samples", "batch", "optimizer", "seed")
    return train(tasks, indices=formulas, **{name: settings[name] for name in names}, **options)


def _similarity(settings: Settings, formulas: Sequence[int]) -> pd.DataFrame:
    """`precode.claims.similarity`, always beside the next formula, whatever other formulas are computed."""
    more = sorted({*formulas, *(formula + 1 for formula in formulas)})
    table = _numbered(similarity(_train(settings, more)), more)
    return table[table["formula"].isin(formulas)].reset_index(drop=True)


def _numbered(table: pd.DataFrame, formulas: Sequence[int]) -> pd.DataFrame:
    """A table of a stack with the numbers of the formulas in place of those of the networks."""
    return table.assign(formula=np.asarray(formulas)[table["formula"]])


def _placed(settings: Settings, table: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns that say which cell it belongs to."""
    for name in SHARED:
        table.insert(0, name, settings[name])
    return table


def _training(settings: Settings, parts: Parts) -> float:
    names = ("hidden", "samples", "epochs", "batch")
    return training_seconds(len(parts["formula"]), **{name: settings[name] for name in names})


def _locations(settings: Settings, parts: Parts) -> int:
    return int(len(parts["formula"]) * settings["clauses"] * TEMPLATES * settings["hidden"])


def codes_seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `codes` takes on one core; locations of false clauses are observed too."""
    start, location = OBSERVING
    return 2 * _training(settings, parts) + start + 2 * _locations(settings, parts) * location


def tickets_seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `tickets` takes on one core."""
    densities, method = parts["density"], settings["method"].partition(":")[0]
    rounds = math.ceil(math.log(min(densities)) / math.log(PRUNED))
    searched = ROUNDS.get(method, 0) * rounds + SEARCHES.get(method, 0) * len(densities)
    start, location = MEASURING
    measured = len(densities) * (start + location * _locations(settings, parts))
    trained = _training(settings, parts) * (1 + searched + len(densities))
    each = PREPARING
    if method in REMOVING:
        weights: int = settings["hidden"] * embeddings.resolve(settings["embedding"], settings["variables"]).rows
        each += REMOVING[method] * weights**3
    return each * len(parts["formula"]) + trained + measured


CODES = Kind("codes", points, codes, codes_seconds, axes=("formula",), parts=code_parts, version=4)
"""Cells of codes: one for every width, number of clauses and embedding."""

TICKETS = Kind(
    "tickets",
    ticket_points,
    tickets,
    tickets_seconds,
    axes=("density", "formula"),
    parts=ticket_parts,
    version=4,
)
"""Cells of tickets: one for every width, number of clauses, embedding and method, and epoch that it is read after."""
