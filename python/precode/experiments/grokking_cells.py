"""The cells of grokking tickets: dense networks, tickets and controls of some seeds, trained and read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from torch.nn import functional

from precode._internal.cells import Kind, Parts, Settings
from precode._internal.check import COUNT, fraction, fractions, integer, integers
from precode._internal.errors import PrecodeValueError
from precode._internal.threads import one_thread
from precode.experiments.cells import Tables
from precode.experiments.delaying import (
    Course,
    Split,
    Weights,
    descend,
    flatten,
    initial,
    jaccard_distance,
    layers,
    module,
    popup,
    split,
    two_hot,
)
from precode.experiments.founding_cells import FORMULA
from precode.experiments.paper import parts
from precode.modules.search import find_ticket

FIGURE = "edge-popup"
"""What the published numbers are called here."""

DENSE, MAGNITUDE, FIXED, RANDOM = "dense", "magnitude", "magnitude-at", "random"
"""The ticket is read where the dense network has generalized, `FIXED` ones at the same steps in all seeds."""

NORM_1, NORM_2 = "dense-l1", "dense-l2"

EARLY = ("snip", "grasp", "synflow")
"""Methods that read the initial weights."""

POPUP_DECAY, POPUP, DECAY = "popup-decay", "popup", "decay"
"""Edge-popup whose weights learn and decay, edge-popup of weights that stay, and weight decay alone."""

PLACE = ("networks", "pruned", "moment", "decay")
"""Columns that say which networks a row is of."""

CHUNKS = 3
"""Stacks that the networks of a seed are divided into, and stacks that are trained at the same time."""

COMMON = ("seed", "modulus", "embedding", "hidden", "level", "lr", "decay", "kept")
"""What all cells share."""

START = 1 << 32
"""Changes the seed of what is drawn beside the split: initial weights, scores, random masks."""


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """Two cells: dense networks with their tickets and controls, and edge-popup.

    Raises:
        PrecodeValueError: a value out of range.
    """
    for name in ("embedding", "hidden", "steps", "most", "every", "apart", "popup_start", "popup_every"):
        integer(setting[name], name, 1, COUNT)
    integer(setting["modulus"], "modulus", 3, 1000)
    for name in ("share", "popup_share", "level", "kept", "kept_without_decay", "lr", "popup_lr"):
        fraction(setting[name], name)
    fractions(setting["rates"], "rates")
    integers(setting["moments"], "moments", 0, setting["steps"])
    integers(setting["popup_steps"], "popup_steps", 1, COUNT)
    for name, divisor in (("apart", "every"), ("moments", "apart"), ("popup_steps", "popup_every")):
        values = setting[name] if isinstance(setting[name], tuple) else (setting[name],)
        if wrong := [value for value in values if value % setting[divisor]]:
            raise PrecodeValueError(f"{name} = {wrong[0]}: expected a multiple of {divisor} = {setting[divisor]}")
    common = {name: setting[name] for name in COMMON}
    own = ("share", "steps", "most", "every", "apart", "rates", "moments", "kept_without_decay")
    yield {"cell": "tickets", **common, **{name: setting[name] for name in own}}
    named = {name: setting[f"popup_{name}"] for name in ("share", "start", "steps", "every")}
    yield {"cell": FIGURE, **common, **named, "popup_lr": setting["popup_lr"]}


@dataclass(frozen=True, eq=False)
class Variant:
    """A network to train.

    Attributes:
        networks: its name.
        pruned: share of its weights that are not there.
        read: step at which the dense network was read for its mask; NaN where it was not.
        start: initial weights, R = 1.
        mask: Boolean (1, P), or None.
        decay: weight decay.
    """

    networks: str
    pruned: float
    read: float
    start: Weights
    mask: torch.Tensor | None
    decay: float

    def place(self) -> dict[str, Any]:
        """The columns `PLACE`."""
        moment = self.read if self.networks == FIXED else math.nan
        return dict(zip(PLACE, (self.networks, self.pruned, moment, self.decay), strict=True))

    def dead(self) -> int:
        """Neurons whose inputs or outputs are all pruned."""
        if self.mask is None:
            return 0
        there = layers(self.mask, self.start)
        return int((~there["w_in"].any(2) | ~there["w_out"].any(1)).sum())

    def norm(self, power: int) -> float:
        """Of the weights that are there."""
        flat = flatten(self.start)
        return float((flat if self.mask is None else flat * self.mask).norm(power))


def mask_of(weights: Weights, method: str, kept: float, data: Split, seed: int) -> torch.Tensor:
    """The mask of a method over all layers, Boolean (1, P); the network is read as it is."""
    y = data.train.sum(1).remainder(data.modulus)
    examples = (two_hot(data.train, data.modulus), y)
    found = find_ticket(module(weights), method, kept, examples, functional.cross_entropy, seed=seed)
    return torch.cat([mask.flatten() for mask in found.masks.values()])[None]


def read_at(dense: Course) -> int:
    """The first step that is kept at which a dense network has generalized; the last one if it never has."""
    generalized = float(dense.generalized[0])
    return min((moment for moment in dense.kept if moment >= generalized), default=max(dense.kept))


def variants(settings: Settings, number: int, data: Split, dense: Course) -> list[Variant]:
    """All networks of a seed beside the dense one."""
    theta = initial(settings["modulus"], settings["embedding"], settings["hidden"], START + number)
    decay, kept = settings["decay"], settings["kept"]
    last = read_at(dense)

    def ticket(method: str, share: float, read: float = math.nan, decay: float = decay) -> Variant:
        here = method in (MAGNITUDE, FIXED)
        weights = dense.kept[int(read)] if here else theta
        mask = mask_of(weights, "magnitude-init" if here else method, share, data, START + number)
        return Variant(method, round(1 - share, 6), read, theta, mask, decay)

    def scaled(name: str, power: int) -> Variant:
        ratio = magnitude.norm(power) / float(flatten(theta).norm(power))
        start = {key: ratio * value for key, value in theta.items()}
        return Variant(name, 0.0, math.nan, start, None, decay)

    magnitude = ticket(MAGNITUDE, kept, last)
    found = [magnitude, ticket(RANDOM, kept), scaled(NORM_1, 1), scaled(NORM_2, 2)]
    found += [ticket(MAGNITUDE, 1 - rate, last) for rate in settings["rates"] if round(1 - rate, 6) != kept]
    found += [ticket(FIXED, kept, moment) for moment in settings["moments"] if moment in dense.kept]
    found += [ticket(method, kept) for method in EARLY]
    return found + [ticket(MAGNITUDE, share, last, 0.0) for share in (kept, settings["kept_without_decay"])]


def compute(settings: Settings, parts: Parts) -> Tables:
    """Networks of some seeds, and how they learned.

    Returns:
        ``networks``, one row a seed and network: networks, pruned, moment, decay; memorized (t_mem), generalized
        (t_gen), NaN where that was never; tau, their ratio; test, the accuracy at the end; ended, the last step that
        was measured; read, the step at which the dense network was read for the mask; dead, neurons that the mask cuts
        off; l1 and l2, norms of the weights at the start. ``curves``, one row a seed, network and multiple of `apart`
        steps: test accuracy. ``masks``, one row a seed and step of the dense network: distance (Jaccard) of the
        magnitude masks there and `apart` steps later; jump of the test accuracy in between. ``popup``, one row a seed,
        kind of networks and step: test accuracy.
    """
    numbers = list(parts[FORMULA])
    seeds = {number: (settings["seed"] * (1 << 20) + number) % (1 << 62) for number in numbers}
    data = {number: split(settings["modulus"], settings["share"], seeds[number]) for number in numbers}
    with one_thread(), ThreadPoolExecutor(CHUNKS) as pool:
        if settings["cell"] == FIGURE:
            found = pool.map(lambda number: popups(settings, seeds[number], data[number]), numbers)
            popped = pd.concat([table.assign(formula=n) for n, table in zip(numbers, found, strict=True)])
            empty = {name: pd.DataFrame({FORMULA: []}) for name in ("networks", "curves", "masks")}
            return {**empty, "popup": popped}
        runs = list(pool.map(lambda number: train_dense(settings, seeds[number], data[number]), numbers))
        jobs = []
        for number, dense in zip(numbers, runs, strict=True):
            every = variants(settings, seeds[number], data[number], dense)
            for decay in dict.fromkeys(item.decay for item in every):
                same = [item for item in every if item.decay == decay]
                jobs += [(number, same[first::CHUNKS]) for first in range(CHUNKS) if same[first::CHUNKS]]
        courses = pool.map(lambda job: train_variants(settings, data[job[0]], job[1]), jobs)
        trained = [(number, chunk, course) for (number, chunk), course in zip(jobs, courses, strict=True)]
        masks = []
        for number, dense in zip(numbers, runs, strict=True):
            theta = initial(settings["modulus"], settings["embedding"], settings["hidden"], START + seeds[number])
            first = Variant(DENSE, 0.0, math.nan, theta, None, settings["decay"])
            trained.append((number, [first], dense))
            masks.append(distances(settings, data[number], dense).assign(formula=number))
    tables = {
        name: pd.concat([function(settings, chunk, course).assign(formula=number) for number, chunk, course in trained])
        for name, function in (("networks", described), ("curves", followed))
    }
    return {**tables, "masks": pd.concat(masks), "popup": pd.DataFrame({FORMULA: []})}


def train_dense(settings: Settings, seed: int, data: Split) -> Course:
    """The dense network of a seed, until soon after it has generalized."""
    return descend(
        initial(settings["modulus"], settings["embedding"], settings["hidden"], START + seed),
        data,
        lr=settings["lr"],
        decay=settings["decay"],
        steps=settings["steps"],
        every=settings["every"],
        level=settings["level"],
        after=settings["apart"],
        keep=settings["apart"],
    )


def train_variants(settings: Settings, data: Split, chunk: Sequence[Variant]) -> Course:
    """Some networks of a seed, each until it has generalized."""
    start = {name: torch.cat([item.start[name] for item in chunk]) for name in chunk[0].start}
    whole = torch.ones_like(flatten(chunk[0].start), dtype=torch.bool)
    return descend(
        start,
        data,
        masks=torch.cat([whole if item.mask is None else item.mask for item in chunk]),
        lr=settings["lr"],
        decay=chunk[0].decay,
        steps=settings["most"],
        every=settings["every"],
        level=settings["level"],
        after=0,
    )


def described(settings: Settings, chunk: Sequence[Variant], course: Course) -> pd.DataFrame:
    """Rows of ``networks``; see `compute`."""
    rows = []
    for which, item in enumerate(chunk):
        measured = ~course.test[:, which].isnan()
        memorized, generalized = float(course.memorized[which]), float(course.generalized[which])
        rows.append({
            **item.place(),
            "memorized": memorized,
            "generalized": generalized,
            "tau": generalized / memorized if memorized else math.nan,
            "test": float(course.test[measured, which][-1]),
            "ended": int(course.steps[measured][-1]),
            "read": item.read,
            "dead": item.dead(),
            "l1": item.norm(1),
            "l2": item.norm(2),
        })  # fmt: skip
    return pd.DataFrame(rows)


def followed(settings: Settings, chunk: Sequence[Variant], course: Course) -> pd.DataFrame:
    """Rows of ``curves``; see `compute`."""
    at = course.steps % settings["apart"] == 0
    frames = []
    for which, item in enumerate(chunk):
        test = course.test[at, which]
        there = ~test.isnan()
        columns = {"step": course.steps[at][there].tolist(), "test": test[there].tolist()}
        frames.append(pd.DataFrame({**item.place(), **columns}))
    return pd.concat(frames)


def distances(settings: Settings, data: Split, dense: Course) -> pd.DataFrame:
    """Rows of ``masks``; see `compute`."""
    moments = sorted(dense.kept)
    masks = {moment: mask_of(dense.kept[moment], "magnitude-init", settings["kept"], data, 0) for moment in moments}
    accuracy = dict(zip(dense.steps.tolist(), dense.test[:, 0].tolist(), strict=True))
    rows = [
        {
            "step": first,
            "distance": jaccard_distance(masks[first], masks[second]),
            "jump": accuracy[second] - accuracy[first],
        }
        for first, second in pairwise(moments)
    ]
    return pd.DataFrame(rows)


def popups(settings: Settings, seed: int, data: Split) -> pd.DataFrame:
    """Rows of ``popup``; see `compute`."""
    theta = initial(settings["modulus"], settings["embedding"], settings["hidden"], START + seed)
    shared = {"decay": settings["decay"], "every": settings["every"]}
    start = settings["start"]
    known = descend(theta, data, lr=settings["lr"], steps=start, decay=settings["decay"], every=start).weights
    steps = {"lr": settings["popup_lr"], "steps": max(settings["steps"]), **shared}
    decayed = descend(known, data, **steps)
    found = {DECAY: (decayed.steps, decayed.test)}
    for name, learned in ((POPUP_DECAY, True), (POPUP, False)):
        found[name] = popup(known, data, kept=settings["kept"], learned=learned, seed=START + seed, **steps)
    frames = []
    for name, (numbers, test) in found.items():
        frames.append(pd.DataFrame({"networks": name, "step": numbers.tolist(), "test": test[:, 0].tolist()}))
    return pd.concat(frames)


def seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on two cores."""
    step = 1e-3 * settings["modulus"] ** 2 / 67**2
    if settings["cell"] == FIGURE:
        longest = settings["start"] + 6 * max(settings["steps"])
    else:
        networks = 9 + len(settings["rates"]) + len(settings["moments"])
        longest = settings["steps"] + networks * settings["most"]
    return float(len(parts[FORMULA]) * longest * step)


KIND = Kind("grokking", points, compute, seconds, axes=(FORMULA,), parts=parts)
