"""Networks that are made to forget a clause of their formula, and what is read of them (arXiv 2602.19215)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import torch

from precode._internal.cells import Kind, Parts, Settings, training_seconds
from precode._internal.check import COUNT, fraction, fractions, integer, integers
from precode._internal.errors import PrecodeValueError
from precode.codes.locating import Locations, code_templates, locations
from precode.experiments.cells import Tables
from precode.experiments.forgetting import (
    ascend,
    data_of_clause,
    distill,
    flat,
    parts_of_update,
    subtract_until,
)
from precode.experiments.founding_cells import BATCH, FORMULA, MOST
from precode.experiments.paper import formulas, parts
from precode.formulas.datasets import Dataset
from precode.networks.stacks import Networks
from precode.networks.training import train

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAINED, ASCENT, VECTOR, DISTILLED, RETRAINED = (
    "trained",
    "gradient-ascent",
    "task-vector",
    "distillation",
    "retrained",
)

DATA = ("target", "all", "unrelated")
"""What forgetful networks are fine-tuned on; see `precode.experiments.forgetting.data_of_clause`."""

SCALES = tuple(0.25 * 2 ** (number / 4) for number in range(37))
"""Scales of the task vector that are tried, from 0.25 to 128."""

OTHER_START = 0x2602
"""Changes the key of the initial weights of students."""

Sets: TypeAlias = "dict[str, list[Dataset]]"
"""Data sets of many networks by name, one for each."""

SEEN = 1000
"""Samples by which an erasure is judged while it goes on."""


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every number of clauses.

    Raises:
        PrecodeValueError: a value out of range, or formulas that there cannot be.
    """
    for name in ("hidden", "samples", "epochs", "steps", "test", "erased", "ascent_steps", "vector_epochs"):
        integer(setting[name], name, 1, COUNT)
    integer(setting["distill_epochs"], "distill_epochs", 1, COUNT)
    for name in ("stop", "recovered", "lr", "ascent_lr"):
        fraction(setting[name], name)
    fractions(setting["tune_lrs"], "tune_lrs")
    for name, allowed in (("vector_data", ("alone", "target")), ("vector_from", (TRAINED, "start"))):
        if setting[name] not in allowed:
            raise PrecodeValueError(f"{name} = {setting[name]!r}: use one of {', '.join(allowed)}")
    for clauses in integers(setting["clauses"], "clauses", 2, MOST["clauses"]):
        if setting["erased"] > clauses:
            raise PrecodeValueError(f"erased = {setting['erased']}: there are {clauses} clauses to erase one of")
        point = {**{name: value for name, value in setting.items() if name != "formulas"}, "clauses": clauses}
        formulas(point, [0])
        yield point


@dataclass(frozen=True, eq=False)
class Pairs:
    """Networks to forget a clause each, one for every formula and clause.

    Attributes:
        formula: of each.
        clause: of each.
        streams: numbers of their random streams.
        start: before training.
        trained: after it.
    """

    formula: NDArray[np.int64]
    clause: NDArray[np.int64]
    streams: list[int]
    start: Networks
    trained: Networks

    def data(self, samples: int, seed: int, shift: int, names: Sequence[str], *, held_out: bool = False) -> Sets:
        """Data sets by name, a list of one for each pair; see `data_of_clause`."""
        found: Sets = {name: [] for name in names}
        for task, clause, stream in zip(self.trained.tasks or (), self.clause.tolist(), self.streams, strict=True):
            of_clause = data_of_clause(task, clause, samples, seed=seed, index=stream + shift, held_out=held_out)
            for name in names:
                found[name].append(of_clause[name])
        return found


def pairs(settings: Settings, indices: Sequence[int]) -> Pairs:
    """Networks trained on some formulas, once for every clause that is to be forgotten."""
    runs = train(
        formulas(settings, indices),
        hidden=settings["hidden"],
        seed=settings["seed"],
        indices=indices,
        samples=settings["samples"],
        epochs=settings["epochs"],
        optimizer="adam",
        lr=settings["lr"],
        batch=BATCH,
        early_stopping=None,
    )
    places = np.repeat(np.arange(len(indices)), settings["erased"])
    clause = np.tile(np.arange(settings["erased"]), len(indices))
    formula = np.asarray(indices)[places]
    # Streams that no formula's training data come from.
    streams = [(1 << 40) + (int(number) << 20) + int(which) for number, which in zip(formula, clause, strict=True)]
    chosen = places.tolist()
    return Pairs(formula, clause, streams, runs.start[chosen], runs[chosen])


def inputs(data: Sequence[Dataset], samples: int | None = None) -> torch.Tensor:
    """Inputs of several data sets as numbers, (R, samples, n)."""
    return torch.stack([item.x[:samples].float() for item in data])


def erasures(settings: Settings, found: Pairs) -> dict[str, tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Networks without the clause, by how they were made, with what it took: steps, or the scale of the vector."""
    data = found.data(settings["samples"], settings["seed"], 0, ("alone", "target", "unrelated"))
    alone = inputs(data["alone"], SEEN)
    trained, start = found.trained.weights, found.start.weights
    shared = {"batch": BATCH, "early_stopping": None, "order_seed": settings["seed"], "lr": settings["lr"]}
    ascended = ascend(
        trained, alone, stop=settings["stop"], lr=settings["ascent_lr"], batch=BATCH, steps=settings["ascent_steps"]
    )
    base = start if settings["vector_from"] == "start" else trained
    learned = train(
        data=data[settings["vector_data"]], init=base, indices=found.streams, epochs=settings["vector_epochs"], **shared
    )
    vector = subtract_until(trained, learned.weights, base, alone, stop=settings["stop"], scales=SCALES)
    fresh = train(
        found.trained.tasks,
        hidden=settings["hidden"],
        seed=settings["seed"] ^ OTHER_START,
        indices=found.streams,
        samples=1,
        epochs=1,
        early_stopping=None,
    ).start.weights
    steps = settings["distill_epochs"] * -(-settings["samples"] // BATCH)
    student = distill(trained, fresh, inputs(data["unrelated"]), lr=settings["lr"], batch=BATCH, steps=steps)
    again = train(data=data["unrelated"], init=start, indices=found.streams, epochs=settings["epochs"], **shared)
    none = torch.full((len(alone),), math.nan)
    return {
        ASCENT: ascended,
        VECTOR: vector,
        DISTILLED: (student, none),
        RETRAINED: (dict(again.weights), none),
    }


def compute(settings: Settings, parts: Parts) -> Tables:
    """Forgetful networks of some formulas, and how they recover.

    Returns:
        ``erasures``, one row a formula, clause and kind of networks: effort (steps or scale), called (share of inputs
        of the clause alone that are called True), erased (whether that is at most `stop`), accuracy (on the other
        clauses), rows (that show the clause's 4P and are positive), kept (share of the trained network's such rows that
        still do), wrong (mean wrong signs on those rows), length (of the change of all weights), and its shares in W1
        on those rows and the clause's variables (on_code), in w2 (on_w2) and in biases (on_biases).
        ``recoveries``, one row a formula, clause, kind of networks, data and learning rate: steps until the clause is
        called True, NaN if never; recovered; accuracy then; parallel (share of the squared update along the change),
        cosine (with its reversal), undone (share of the change that is taken back), parallel_random (what a random
        direction has); and after all steps, of positive rows: old (share of the trained code rows that show the code),
        old_chance (share of all rows), regained (of the code rows that had lost it) and regained_chance (of all rows
        that did not show it before).
    """
    indices = list(parts[FORMULA])
    found = pairs(settings, indices)
    test = found.data(settings["test"], settings["seed"], 0, ("alone", "unrelated"), held_out=True)
    again = found.data(settings["steps"] * BATCH, settings["seed"], 1 << 41, DATA)
    first = Reading(found.trained, found, settings)
    frames, recovered = [], []
    made = {TRAINED: (found.trained.weights, torch.full((len(found.streams),), math.nan)), **erasures(settings, found)}
    for name, (weights, effort) in made.items():
        networks = Networks(weights, found.trained.tasks, found.trained.embedding)
        read = Reading(networks, found, settings)
        keyed = {FORMULA: found.formula, "clause": found.clause, "networks": name}
        called = 1 - networks.evaluate(test["alone"])["error"].to_numpy()
        columns = {
            "effort": effort.double().numpy(),
            "called": called,
            "erased": (called <= 2 * settings["stop"]).astype(float),
            "accuracy": 1 - networks.evaluate(test["unrelated"])["error"].to_numpy(),
            "rows": read.code.sum(1),
            "kept": mean_over(first.code & read.code, first.code),
            "wrong": mean_over(read.wrong, first.code),
            **_where(found, weights, first),
        }
        frames.append(pd.DataFrame({**keyed, **columns}))
        if name != TRAINED:
            for kind, rate in product(DATA, settings["tune_lrs"]):
                table = recovery(settings, found, networks, again[kind], rate, test, first, read)
                recovered.append(pd.DataFrame({**keyed, "data": kind, "tune_lr": rate, **table}))
    tables = {"erasures": pd.concat(frames, ignore_index=True), "recoveries": pd.concat(recovered, ignore_index=True)}
    return {name: table.assign(clauses=settings["clauses"]) for name, table in tables.items()}


class Reading:
    """Where networks have the code of the clause to be forgotten.

    Attributes:
        code: positive rows that show it all positive, Boolean (R, j).
        wrong: wrong signs of every row, (R, j).
        positive: rows of positive output weight, Boolean (R, j).
    """

    def __init__(self, networks: Networks, found: Pairs, settings: Settings) -> None:
        read: Locations = locations(networks, templates=code_templates(settings["width"])[:1])
        every = np.arange(len(networks))
        self.code: NDArray[np.bool_] = read.code[every, found.clause, 0]
        self.wrong: NDArray[np.float64] = read.distance[every, found.clause, 0]
        self.positive: NDArray[np.bool_] = read.polarity[:, 0]


def mean_over(values: NDArray[Any], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Means over some rows of every network, such as a share of them, NaN where there are none, (R,)."""
    counts = there.sum(1)
    sums = np.where(there, values, 0).sum(1).astype(float)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means


def _where(found: Pairs, weights: Mapping[str, torch.Tensor], first: Reading) -> dict[str, NDArray[np.float64]]:
    """Length of the change from the trained networks, and its shares by place; see `compute`."""
    change = {name: (value - found.trained.weights[name]).double().numpy() ** 2 for name, value in weights.items()}
    total = sum(value.reshape(len(value), -1).sum(1) for value in change.values())
    cells = np.zeros(change["w1"].shape, dtype=bool)
    for mine, rows, task, clause in zip(cells, first.code, found.trained.tasks or (), found.clause, strict=True):
        mine[np.ix_(rows, list(task.clauses[clause]))] = True
    sums = {
        "on_code": (change["w1"] * cells).sum((1, 2)),
        "on_w2": change["w2"].sum(1),
        "on_biases": change["b1"].sum(1) + change["b2"],
    }
    with np.errstate(invalid="ignore"):
        return {"length": np.sqrt(total), **{name: value / total for name, value in sums.items()}}


def recovery(
    settings: Settings,
    found: Pairs,
    networks: Networks,
    data: Sequence[Dataset],
    rate: float,
    test: Sets,
    first: Reading,
    erased: Reading,
) -> dict[str, NDArray[np.float64]]:
    """Fine-tuning of forgetful networks, by Adam with a fresh state at some learning rate; see `compute`."""
    steps = settings["steps"]
    runs = train(
        found.trained.tasks,
        data=data,
        init=networks.weights,
        indices=found.streams,
        order_seed=settings["seed"],
        epochs=1,
        batch=BATCH,
        lr=rate,
        early_stopping=None,
        snapshots=range(steps + 1),
    )
    moment = np.full(len(networks), -1)
    for step in range(steps + 1):
        called = 1 - runs.at(step).evaluate(test["alone"])["error"].to_numpy()
        moment[(moment < 0) & (called >= settings["recovered"])] = step
        if (moment >= 0).all():
            break
    recovered = moment >= 0
    moment[~recovered] = steps
    at = {
        name: torch.stack([runs.at(int(step)).weights[name][place] for place, step in enumerate(moment)])
        for name in networks.weights
    }
    then = Networks(at, found.trained.tasks, found.trained.embedding)
    update, change = flat(at) - flat(networks.weights), flat(networks.weights) - flat(found.trained.weights)
    parallel, _ = parts_of_update(update, change)
    reversal = -(update * change).sum(1)
    end = Reading(runs, found, settings)
    # Polarities of fresh networks are no one's: old rows are compared with others among those that are positive.
    old = first.code & end.positive
    lost, free = old & ~erased.code, end.positive & ~erased.code
    columns = {
        "steps": np.where(recovered, moment, math.nan),
        "recovered": recovered.astype(float),
        "accuracy": 1 - then.evaluate(test["unrelated"])["error"].to_numpy(),
        "parallel": ((parallel**2).sum(1) / (update**2).sum(1)).numpy(),
        "cosine": (reversal / update.norm(dim=1) / change.norm(dim=1)).numpy(),
        "undone": (reversal / (change**2).sum(1)).numpy(),
        "old": mean_over(end.code, old),
        "old_chance": mean_over(end.code, end.positive),
        "regained": mean_over(end.code, lost),
        "regained_chance": np.where(lost.any(1), mean_over(end.code, free), math.nan),
    }
    return {**columns, "parallel_random": np.full(len(moment), 1 / update.shape[1])}


def seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core; own steps of students cost more than those of the engine."""
    count = len(parts[FORMULA]) * settings["erased"]
    epochs = 2 * settings["epochs"]
    one = training_seconds(count, settings["hidden"], settings["samples"], epochs, BATCH)
    steps = settings["distill_epochs"] * settings["samples"] / BATCH
    tuning = 2e-4 * count * settings["steps"] * len(settings["tune_lrs"])
    return float(0.5 + one + steps * (5e-4 + 2e-5 * count) + tuning)


KIND = Kind("unlearning", points, compute, seconds, axes=(FORMULA,), parts=parts)
