"""Fixed-parameter expansion on Boolean formulas (arXiv 2510.04500): more neurons, not more parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from precode._internal.cells import Kind, Parts, Settings, training_seconds
from precode._internal.check import COUNT, fraction, integer
from precode._internal.errors import PrecodeValueError
from precode._internal.statistics import with_intervals
from precode.codes.interference import feature_capacity, mean_row_cosine
from precode.codes.locating import code_templates, locations
from precode.experiments.cells import Finished, Tables
from precode.experiments.comparison import Reported, place
from precode.experiments.expanding import SPLITS, budget, expand, inputs_of_parts, keep_largest
from precode.experiments.founding_cells import FORMULA
from precode.experiments.paper import joined, parts, summary
from precode.experiments.records import Experiment, Result
from precode.formulas.datasets import Dataset
from precode.formulas.dnf import Dnf
from precode.formulas.samplers import Biased, BrokenClause, Sampler
from precode.networks.settings import Optimizer
from precode.networks.stacks import Networks
from precode.networks.training import train
from precode.networks.work import sample_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SOURCE = "arXiv 2510.04500, by second-hand notes on it"

FIGURE = "8 clauses, 8 neurons, alpha 2"
"""What the three accuracies that we have of the source are called here."""

VARIED = ("clauses", "hidden", "alpha", "overlap", "split")
"""What is varied one at a time, by its name in the setting; the values are those of ``vary_<name>``."""

WIDE, WIDE_RANDOM, RESTARTED, MIDDLE = "wide-pruned", "wide-random", "dense-restarted", "dense-at-split"

SAMPLERS: dict[str, Sampler] = {"broken-clause": BrokenClause(), "uniform-balanced": Biased(balanced=True)}
"""Samplers by name: sparse inputs around clauses, or uniform inputs drawn until both labels are as frequent."""

OTHER_START = 0x2510
"""Changes the key of the initial weights of networks that are wide from the start."""


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every length, and of the first one every point at which one setting is another.

    Raises:
        PrecodeValueError: a value out of range, or formulas that there cannot be.
    """
    shared = {
        name: value
        for name, value in setting.items()
        if name not in ("formulas", "lengths") and not name.startswith("vary_")
    }
    base, *longer = ({**shared, "length": length} for length in setting["lengths"])
    varied = ({**base, name: value} for name in VARIED for value in setting[f"vary_{name}"])
    seen = []
    for point in (base, *longer, *varied):
        if point not in seen:
            seen.append(point)
            _check(point)
            yield point


def _check(point: Mapping[str, Any]) -> None:
    for name in ("hidden", "clauses", "samples", "batch", "test", "length", "width", "variables"):
        integer(point[name], name, 1, COUNT)
    if not 0 <= point["overlap"] <= 1:
        raise PrecodeValueError(f"overlap = {point['overlap']}: expected a share from 0 to 1")
    if not 0 <= point["split"] < 1:
        raise PrecodeValueError(f"split = {point['split']}: expected a share of the epochs from 0 to below 1")
    fraction(point["lr"], "lr")
    if point["sampler"] not in SAMPLERS:
        raise PrecodeValueError(f"sampler {point['sampler']!r}: use one of {', '.join(SAMPLERS)}")
    integer(point["alpha"], "alpha", 1, point["variables"])
    budget(point["hidden"], _formulas(point, [0])[0].variables, point["alpha"])


def _formulas(settings: Mapping[str, Any], indices: Sequence[int]) -> list[Dnf]:
    """Random formulas by number; disjoint clauses get as many variables as they need."""
    names = ("clauses", "width", "disjoint", "seed")
    needed = settings["clauses"] * settings["width"] if settings["disjoint"] else 0
    variables = max(settings["variables"], needed)
    return [
        Dnf.random(variables=variables, **{name: settings[name] for name in names}, index=index) for index in indices
    ]


def _data(settings: Settings, tasks: Sequence[Dnf], indices: Sequence[int], *, test: bool = False) -> list[Dataset]:
    return sample_all(
        tasks,
        settings["test" if test else "samples"],
        sampler=SAMPLERS[settings["sampler"]],
        seed=settings["seed"],
        indices=indices,
        purpose="test" if test else "train",
    )


def random_weights(
    weights: Mapping[str, torch.Tensor], count: int, seed: int, indices: Sequence[int]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Networks pruned to random weights of W1 and w2 together, as `keep_largest` to the largest."""
    drawn = {}
    for name in ("w1", "w2"):
        shape = weights[name].shape[1:]
        values = [np.random.default_rng([seed, index, len(shape)]).random(shape) for index in indices]
        drawn[name] = torch.from_numpy(np.stack(values))
    _, masks = keep_largest(drawn, count)
    return {**weights, **{name: weights[name] * mask for name, mask in masks.items()}}, masks


def networks(settings: Settings, indices: Sequence[int]) -> tuple[list[Dnf], dict[str, Networks]]:
    """The networks of one point, all trained on the same samples in the same order.

    Returns:
        The formulas, and networks by name: dense; dense-at-split, the same when the others are split off;
        dense-restarted, trained on from there by an optimizer without memory, as all split ones are; random and clause
        (see `precode.experiments.expanding`); wide-pruned, alpha times as wide from the start, pruned by magnitude at
        the split; wide-random, as wide, with random weights from the start. All but the dense ones have as many weights
        and biases as these at the end.
    """
    tasks, seed, alpha = _formulas(settings, indices), settings["seed"], settings["alpha"]
    total = 2 * settings["length"]
    before = round(settings["split"] * total)
    steps = before * -(-settings["samples"] // settings["batch"])
    data = _data(settings, tasks, indices)
    run = partial(
        train,
        tasks,
        data=data,
        indices=indices,
        order_seed=seed,
        batch=settings["batch"],
        optimizer=Optimizer("adam", lr=settings["lr"]),
        early_stopping=None,
    )
    after: dict[str, Any] = {"epochs": total - before, "first_epoch": before}
    dense = run(hidden=settings["hidden"], seed=seed, epochs=total, snapshots=[steps])
    middle = dense.at(steps)
    found = {"dense": dense, MIDDLE: middle, RESTARTED: run(init=middle.weights, **after)}
    for name in SPLITS:
        inputs = inputs_of_parts(
            tasks, settings["hidden"], alpha, name, overlap=settings["overlap"], seed=seed, indices=indices
        )
        weights, masks = expand(middle.weights, inputs)
        found[name] = run(init=weights, masks=masks, **after)
    count = budget(settings["hidden"], tasks[0].variables, alpha)
    wide = run(hidden=alpha * settings["hidden"], seed=seed ^ OTHER_START, epochs=max(1, before), snapshots=[0, steps])
    weights, masks = keep_largest(wide.at(steps).weights, count)
    found[WIDE] = run(init=weights, masks=masks, **after)
    weights, masks = random_weights(wide.start.weights, count, seed, indices)
    found[WIDE_RANDOM] = run(init=weights, masks=masks, epochs=total)
    return tasks, found


def compute(settings: Settings, parts: Parts) -> Tables:
    """Networks of some formulas.

    Returns:
        ``networks``, one row a kind of networks and formula: accuracy (fresh samples), train_accuracy, parameters
        (weights and biases that are not zero), codes (positive rows that show 4P, per clause), capacity (mean feature
        capacity of the variables) and cosine (mean cosine of two rows of W1).
    """
    indices = list(parts[FORMULA])
    tasks, found = networks(settings, indices)
    trained = _data(settings, tasks, indices)
    test = _data(settings, tasks, indices, test=True)
    frames = []
    for name, stack in found.items():
        alive = locations(stack, templates=code_templates(settings["width"])[:1]).code
        columns = {
            FORMULA: indices,
            "networks": name,
            "accuracy": 1 - stack.evaluate(test)["error"].to_numpy(),
            "train_accuracy": 1 - stack.evaluate(trained)["error"].to_numpy(),
            "parameters": sum((value != 0).view(len(stack), -1).sum(1) for value in stack.weights.values()),
            "codes": alive.sum((1, 2, 3)) / settings["clauses"],
            "capacity": feature_capacity(stack).mean(-1),
            "cosine": mean_row_cosine(stack),
        }
        frames.append(pd.DataFrame(columns))
    table = pd.concat(frames, ignore_index=True)
    return {"networks": table.assign(**{name: settings[name] for name in ("length", *VARIED)})}


TRAININGS = 5.0
"""Trainings of the dense networks that a point takes, with reading."""


def seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core."""
    rows = settings["hidden"] * settings["alpha"]
    epochs = 2 * settings["length"]
    one = training_seconds(len(parts[FORMULA]), rows, settings["samples"], epochs, settings["batch"])
    return 0.3 + TRAININGS * one


KIND = Kind("expansion", points, compute, seconds, axes=(FORMULA,), parts=parts)

LENGTHS = {25: "", 1000: "; that it took 1,000 + 1,000 epochs is said by a review of an earlier version"}

REPORTED = tuple(
    Reported(FIGURE, "accuracy", {"networks": name, "epochs": 2 * length}, value, SOURCE, f"second-hand{reading}", True)
    for length, reading in LENGTHS.items()
    for name, value in (("dense", 0.787), ("random", 0.887), ("clause", 0.994))
)

MEASURES = ("accuracy", "train_accuracy", "codes", "capacity", "cosine", "parameters")

PREDICTORS = ("capacity", "cosine")
"""Measures of the dense networks at the split that are said to predict the gain."""


def tables(cells: Sequence[Finished]) -> Tables:
    """``means`` of every point, beside reported numbers; ``gains`` over dense networks; ``predictors``; and all.

    Predictors are rank correlations, over the points of one formula, of a measure of the dense networks at the split
    with the gain of the split ones; their intervals are over formulas.
    """
    found = joined(cells)["networks"]
    base = {name: cells[0].settings[name] for name in VARIED}
    by = ["length", *VARIED, "networks"]
    means = summary(found, by, MEASURES, REPORTED, **base)
    keys = ["length", *VARIED, FORMULA]
    dense = found[found["networks"] == "dense"][[*keys, "accuracy"]].rename(columns={"accuracy": "dense"})
    gains = found[~found["networks"].isin(["dense", MIDDLE])].merge(dense, "left", keys, validate="m:1")
    gains = gains.assign(gain=gains["accuracy"] - gains["dense"])[[*keys, "networks", "gain"]]
    return {
        "means": means,
        "gains": summary(gains, by, ["gain"]),
        "predictors": predictors(found, gains),
        "networks": found,
    }


def predictors(found: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations of measures at the split with gains; see `tables`. Empty where there are too few points."""
    keys = ["length", *VARIED, FORMULA]
    middle = found[found["networks"] == MIDDLE].set_index(keys)[[*PREDICTORS, "accuracy"]].reset_index()
    both = gains[gains["networks"].isin(SPLITS)].merge(middle, on=keys)
    # At split 0 nothing is learned that could predict; with an overlap the networks at the split are the same ones.
    both = both[(both["split"] > 0) & (both["overlap"] == both["overlap"].iloc[0])] if len(both) else both
    rows = []
    for (length, name, formula), group in both.groupby(["length", "networks", FORMULA], sort=False):
        for predictor in (*PREDICTORS, "accuracy"):
            ranks = group[[predictor, "gain"]].rank()
            if len(group) > 2 and (ranks.max() > ranks.min()).all():
                rho = float(np.corrcoef(ranks[predictor], ranks["gain"])[0, 1])
                keyed = {"length": length, "networks": name, "predictor": predictor, FORMULA: formula}
                rows.append({**keyed, "correlation": rho})
    if not rows:
        return pd.DataFrame()
    return with_intervals(pd.DataFrame(rows), ["length", "networks", "predictor"], "correlation")


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What compares with the reported accuracies: the first point of every length."""
    table = tables["networks"]
    for name in VARIED:
        table = table[table[name] == table[name].iloc[0]]
    at = [
        place({"networks": name, "epochs": 2 * length})
        for name, length in zip(table["networks"], table["length"], strict=True)
    ]
    columns = {"figure": FIGURE, "quantity": "accuracy", "at": at, FORMULA: table[FORMULA]}
    return pd.DataFrame({**columns, "value": table["accuracy"]})


def draw(result: Result, ax: Axes | None) -> Axes:
    """Accuracies of the first point by length, beside the reported ones."""
    from precode import plot

    table = _at_first(result.tables["means"], VARIED)
    table = table[table["quantity"] == "accuracy"]
    lengths = table["length"].map("{0} + {0} epochs".format)
    ax = plot.beside(table.assign(series=lengths), "networks", series="series", ax=ax)
    ax.set_ylabel("test accuracy")
    return ax


def _at_first(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    for name in names:
        table = table[table[name] == table[name].iloc[0]]
    return table


def _draw(varied: str, label: str) -> Any:
    def draw(result: Result, ax: Axes | None) -> Axes:
        from precode import plot

        table = _at_first(result.tables["gains"], ["length", *(name for name in VARIED if name != varied)])
        ax = plot.beside(table.sort_values(varied, kind="stable"), varied, series="networks", ax=ax)
        ax.axhline(0, color="black", linewidth=0.5)
        ax.set_xlabel(label)
        ax.set_ylabel("test accuracy minus that of dense networks")
        return ax

    return draw


EXPERIMENT = Experiment(
    name="expansion",
    title="Neurons split into sub-neurons over parts of their inputs, at as many parameters",
    source=SOURCE,
    words=(
        "Dense networks are trained for half of the epochs; then every neuron is split into alpha sub-neurons over "
        "disjoint parts of its inputs, the smallest weights are pruned until there are as many parameters as before, "
        "and training goes on. The clause split keeps the variables of a clause together, the random split does not. "
        "Controls that are ours: dense networks whose optimizer is started anew as that of split ones is "
        "(dense-restarted), and networks that are wide from the start and have as many parameters at the end, by "
        "magnitude (wide-pruned) or by chance (wide-random). The notes do not tell samples, variables or learning "
        "rate; ours were chosen by dense networks alone, which had to come near to their reported accuracy, on "
        "formulas that are not seen here."
    ),
    setting={
        "formulas": 20,
        "seed": 0,
        "lengths": (25,),
        "hidden": 8,
        "clauses": 8,
        "alpha": 2,
        "overlap": 0.0,
        "split": 0.5,
        "vary_hidden": (4, 16, 32),
        "vary_clauses": (2, 4, 16, 32),
        "vary_alpha": (4, 8),
        "vary_overlap": (0.25, 0.5, 1.0),
        "vary_split": (0.0, 0.1, 0.25, 0.75, 0.9),
        "variables": 32,
        "width": 4,
        "disjoint": True,
        "sampler": "uniform-balanced",
        "samples": 20_000,
        "batch": 64,
        "lr": 0.01,
        "test": 10_000,
    },
    quick={
        "formulas": 3,
        "lengths": (25,),
        "vary_hidden": (4, 16),
        "vary_clauses": (4,),
        "vary_alpha": (4,),
        "vary_overlap": (0.5,),
        "vary_split": (0.0, 0.25),
        "samples": 2000,
        "test": 1000,
    },
    full={"lengths": tuple(LENGTHS)},
    kind=KIND,
    tables=tables,
    measured=measured,
    reported=REPORTED,
    figures={
        "accuracy": draw,
        "clauses": _draw("clauses", "clauses"),
        "hidden": _draw("hidden", "neurons before the split"),
        "alpha": _draw("alpha", "sub-neurons of a neuron"),
        "overlap": _draw("overlap", "share of the other parts' inputs"),
        "split": _draw("split", "share of the epochs before the split"),
    },
)
