"""The cells of delayed generalization on formulas: dense networks, tickets and controls, followed over all epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
import torch

from precode._internal.cells import Kind, Parts, Settings, training_seconds
from precode._internal.check import COUNT, fraction, fractions, integer, integers, numbers
from precode._internal.errors import PrecodeValueError
from precode.experiments.cells import Tables
from precode.experiments.delaying import jaccard_distance
from precode.experiments.founding_cells import FORMULA, MOST
from precode.experiments.grokking_cells import DENSE, EARLY, FIXED, MAGNITUDE, NORM_1, NORM_2, RANDOM
from precode.experiments.masking import largest
from precode.experiments.paper import formulas, parts
from precode.experiments.paper_networks import located
from precode.formulas.datasets import Dataset
from precode.networks.settings import Optimizer
from precode.networks.training import Runs, train
from precode.networks.work import sample_all
from precode.tickets.search import find_tickets

USUAL = "dense-usual"
"""Dense networks whose initial weights are not enlarged."""

PLACE = ("networks", "density", "read", "decay")
"""Columns that say which networks a row is of; `read` is the epoch of the mask in words."""

NEVER, START, GENERALIZED = "no mask", "start", "t_gen"
"""What `read` says of networks without a mask, of masks of the initial weights, and of those that are read where each
dense network has generalized."""

Weights = dict[str, torch.Tensor]


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """One cell.

    Raises:
        PrecodeValueError: a value out of range, or formulas that there cannot be.
    """
    for name in ("hidden", "clauses"):
        integer(setting[name], name, 1, MOST[name])
    for name in ("samples", "epochs", "test", "every"):
        integer(setting[name], name, 1, COUNT)
    if setting["epochs"] % setting["every"]:
        raise PrecodeValueError(f"epochs = {setting['epochs']}: expected a multiple of every = {setting['every']}")
    for name in ("scale", "lr"):
        if not numbers([setting[name]], name, 0)[0]:
            raise PrecodeValueError(f"{name} = 0: networks do not learn; use a number above 0")
    numbers([setting["decay"]], "decay", 0)
    if not 1 < setting["ratio"] <= 2:
        raise PrecodeValueError(f"ratio = {setting['ratio']:g}: that of measured epochs is above 1, and at most 2")
    if fraction(setting["level"], "level") == 1:
        raise PrecodeValueError("level = 1: no accuracy is above it; use a level below 1")
    fraction(setting["kept"], "kept")
    fractions(setting["densities"], "densities")
    integers(setting["moments"], "moments", 0, setting["epochs"])
    formulas(setting, [0])
    yield {name: value for name, value in setting.items() if name != "formulas"}


def measured_epochs(settings: Settings) -> list[int]:
    """Epochs after which networks are measured: powers of a ratio, equal steps, and those at which masks are read.

    Example:
        >>> measured_epochs({"ratio": 2.0, "every": 10, "epochs": 20, "moments": (5,)})
        [0, 1, 2, 4, 5, 8, 10, 16, 20]
    """
    last = settings["epochs"]
    powers = (round(settings["ratio"] ** number) for number in range(1 + int(math.log(last, settings["ratio"]))))
    return sorted({*powers, *range(0, last + 1, settings["every"]), *settings["moments"]})


@dataclass(frozen=True, eq=False)
class Variant:
    """Networks of one kind to train, one for each formula.

    Attributes:
        networks: their name.
        start: initial weights.
        density: share of W1 that is there.
        read: see `PLACE`.
        mask: of W1, Boolean (R, j, n); None where all of it is there.
        decay: weight decay.
    """

    networks: str
    start: Weights
    decay: float
    density: float = 1.0
    read: str = NEVER
    mask: torch.Tensor | None = None

    def place(self) -> dict[str, Any]:
        """The columns `PLACE`."""
        return {name: getattr(self, name) for name in PLACE}

    def norm(self, power: int) -> torch.Tensor:
        """Of the weights of W1 that are there, (R,)."""
        w1 = self.start["w1"] if self.mask is None else self.start["w1"] * self.mask
        norm: torch.Tensor = w1.flatten(1).norm(power, dim=1)
        return norm


def drawn(settings: Settings, indices: Sequence[int]) -> Runs:
    """Networks with the data and usual initial weights of some formulas; what they have learned is not used."""
    given = {name: settings[name] for name in ("hidden", "seed", "samples")}
    return train(formulas(settings, indices), indices=indices, epochs=1, batch=settings["samples"], **given)


def trained(settings: Settings, first: Runs, item: Variant) -> Runs:
    """A variant after all epochs, each of which is one step on all samples.

    Args:
        settings: of the cell.
        first: networks of the same formulas, whose data are learned.
        item: what to train.
    """
    return train(
        first.tasks,
        data=first.data,
        init=item.start,
        masks=None if item.mask is None else {"w1": item.mask},
        indices=first.streams,
        seed=settings["seed"],
        epochs=settings["epochs"],
        batch=settings["samples"],
        optimizer=Optimizer("adamw", lr=settings["lr"], weight_decay=item.decay),
        early_stopping=None,
        snapshots=measured_epochs(settings),
    )


def followed(runs: Runs, test: Sequence[Dataset]) -> pd.DataFrame:
    """Networks at every snapshot, one row a network and epoch: train and test accuracy, codes, and false codes."""
    frames = []
    for epoch in runs.snapshots:
        networks = runs.at(epoch)
        found = located(networks, runs)
        columns = {
            FORMULA: runs.streams,
            "epoch": epoch,
            "train": 1 - networks.evaluate(runs.data)["error"].to_numpy(),
            "test": 1 - networks.evaluate(test)["error"].to_numpy(),
            "codes": found["formula"].code.sum((1, 2, 3)).astype(float),
            "false": found["false"].code.sum((1, 2, 3)).astype(float),
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def first_above(epochs: Sequence[int], values: Sequence[float], level: float) -> float:
    """The first epoch at which a value is above a level; NaN where none is.

    Example:
        >>> first_above([1, 2, 4], [0.5, 0.95, 0.96], 0.95), first_above([1], [0.5], 0.95)
        (4.0, nan)
    """
    return next((float(epoch) for epoch, value in zip(epochs, values, strict=True) if value > level), math.nan)


AT = ("start", "memorized", "generalized", "end")
"""Moments at which codes are read."""


def times(curves: pd.DataFrame, level: float) -> pd.DataFrame:
    """What curves tell of every network.

    Args:
        curves: columns of `PLACE`, and of `followed`, rows of a network in the order of epochs.
        level: accuracy that must be exceeded.

    Returns:
        One row a network: memorized (t_mem) and generalized (t_gen), first epochs above the level on training and fresh
        samples, NaN for never; tau, their ratio; reached, 1 where there is t_gen and 0 elsewhere; until, t_gen or the
        last epoch; tau_at_least, until / t_mem; test, the last accuracy; and at every moment of `AT` codes and false
        codes.
    """
    rows = []
    for key, part in curves.groupby([*PLACE, FORMULA], sort=False):
        epochs = part["epoch"].tolist()
        memorized, generalized = (first_above(epochs, part[name].tolist(), level) for name in ("train", "test"))
        until = epochs[-1] if math.isnan(generalized) else generalized
        # Networks that know everything when they start have no ratio.
        ratio = memorized or math.nan
        row = dict(zip((*PLACE, FORMULA), key, strict=True))
        row |= {"memorized": memorized, "generalized": generalized, "tau": generalized / ratio}
        row |= {"reached": float(generalized == until), "until": float(until), "tau_at_least": until / ratio}
        row |= {"test": part["test"].iloc[-1]}
        indexed = part.set_index("epoch")
        for name, epoch in zip(AT, (epochs[0], memorized, generalized, epochs[-1]), strict=True):
            for what in ("codes", "false"):
                row[f"{what}_{name}"] = math.nan if math.isnan(epoch) else indexed.loc[epoch, what]
        rows.append(row)
    return pd.DataFrame(rows)


def read_at(curves: pd.DataFrame, level: float) -> list[int]:
    """Of every dense network the epoch at which it has generalized, or else its last."""
    return [int(epoch) for epoch in times(curves, level)["until"]]


def distances(settings: Settings, dense: Runs, curves: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``masks``; see `compute`."""
    count = kept(dense, settings["kept"])
    epochs = range(0, settings["epochs"] + 1, settings["every"])
    masks = {epoch: largest(dense.at(epoch).weights["w1"], count) for epoch in epochs}
    test = curves.pivot_table(index="epoch", columns=FORMULA, values="test")
    rows = [
        {
            FORMULA: formula,
            "epoch": first,
            "distance": jaccard_distance(masks[first][place], masks[second][place]),
            "jump": test[formula][second] - test[formula][first],
        }
        for place, formula in enumerate(dense.streams)
        for first, second in pairwise(epochs)
    ]
    return pd.DataFrame(rows)


def kept(runs: Runs, density: float) -> int:
    """How many weights of W1 a density keeps."""
    return max(1, round(density * runs.weights["w1"][0].numel()))


def variants(settings: Settings, usual: Weights, dense: Runs, read: Sequence[int]) -> Iterator[Variant]:
    """All networks beside the dense ones.

    Args:
        settings: of the cell.
        usual: initial weights that are not enlarged.
        dense: the dense networks, with all snapshots.
        read: the epoch at which each is read for the ticket.
    """
    start, decay = dense.start.weights, settings["decay"]
    w1 = torch.stack([dense.at(epoch).weights["w1"][place] for place, epoch in enumerate(read)])

    def ticket(name: str, weights: torch.Tensor, density: float, moment: str, decay: float = decay) -> Variant:
        return Variant(name, start, decay, density, moment, largest(weights, kept(dense, density)))

    def scaled(name: str, power: int) -> Variant:
        ratio = magnitude.norm(power) / start["w1"].flatten(1).norm(power, dim=1)
        return Variant(name, {**start, "w1": start["w1"] * ratio[:, None, None]}, decay)

    magnitude = ticket(MAGNITUDE, w1, settings["kept"], GENERALIZED)
    yield magnitude
    yield Variant(USUAL, usual, decay)
    yield scaled(NORM_1, 1)
    yield scaled(NORM_2, 2)
    others = [density for density in settings["densities"] if density != settings["kept"]]
    yield from (ticket(MAGNITUDE, w1, density, GENERALIZED) for density in others)
    for moment in settings["moments"]:
        yield ticket(FIXED, dense.at(moment).weights["w1"], settings["kept"], str(moment))
    found = [*find_tickets(dense, EARLY, settings["kept"], seed=settings["seed"])]
    found += find_tickets(dense, RANDOM, [settings["kept"], *others], seed=settings["seed"])
    yield from (Variant(item.method, start, decay, item.density, START, item.masks["w1"]) for item in found)
    if decay:
        yield Variant(DENSE, start, 0.0)
        yield ticket(MAGNITUDE, w1, settings["kept"], GENERALIZED, 0.0)


def compute(settings: Settings, parts: Parts) -> Tables:
    """All networks of some formulas.

    Returns:
        ``curves``, one row a network (columns `PLACE` and formula) and measured epoch, see `followed`; ``starts``, one
        row a network: L1 and L2 norms of the weights of W1 that are there at the start; ``masks``, one row a formula
        and multiple of ``every`` but the last: the Jaccard distance of the dense network's magnitude masks there and at
        the next one, and the jump of its test accuracy.
    """
    indices = list(parts[FORMULA])
    first = drawn(settings, indices)
    usual = first.start.weights
    whole = Variant(DENSE, {name: settings["scale"] * value for name, value in usual.items()}, settings["decay"])
    test = sample_all(
        first.tasks or (), settings["test"], sampler=first.sampler or "broken-clause", seed=settings["seed"],
        indices=indices, purpose="test",
    )  # fmt: skip
    dense = trained(settings, first, whole)
    curves, starts = [], []

    def follow(item: Variant, runs: Runs) -> pd.DataFrame:
        curves.append(followed(runs, test).assign(**item.place()))
        norms = {f"l{power}": item.norm(power).tolist() for power in (1, 2)}
        starts.append(pd.DataFrame({FORMULA: indices, **item.place(), **norms}))
        return curves[-1]

    of_dense = follow(whole, dense)
    for item in variants(settings, usual, dense, read_at(of_dense, settings["level"])):
        follow(item, trained(settings, first, item))
    return {
        "curves": pd.concat(curves, ignore_index=True),
        "starts": pd.concat(starts, ignore_index=True),
        "masks": distances(settings, dense, of_dense),
    }


def seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core."""
    count = len(parts[FORMULA])
    networks = 10 + 2 * len(settings["densities"]) + len(settings["moments"])
    one = training_seconds(count, settings["hidden"], settings["samples"], settings["epochs"])
    return float(networks * 4 * one)


KIND = Kind("delayed", points, compute, seconds, axes=(FORMULA,), parts=parts)
