"""Training on the hard or easy part of the data, and before tickets are rewound (arXiv 2107.07075, 2206.01278)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.cells import Kind, Parts, Settings
from precode._internal.check import COUNT, fractions, integer, integers, numbers
from precode._internal.errors import PrecodeValueError
from precode._internal.threads import one_thread
from precode.codes.locating import locations, recall
from precode.experiments import paper
from precode.experiments.cells import Finished, Tables
from precode.experiments.founding_cells import BATCH, FORMULA
from precode.experiments.masking import ROUND, largest
from precode.experiments.paper import PLACE, SETTING, beside_reported, joined, parts, summary
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_networks import OTHER_START, accuracies, dense, seconds
from precode.experiments.records import Experiment, Result
from precode.formulas.datasets import Dataset
from precode.networks.stacks import Networks
from precode.networks.training import Runs
from precode.tickets.analyses import diet, gradient_norms, sample_difficulty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

SCORES = {"el2n": sample_difficulty, "grand": gradient_norms}
"""How hard samples are: the length of the error, and that of the gradient of their loss."""

OTHER_ORDER = 0x9E3779B97F4A7C15
"""Changes the key of the order of the data for networks on all data that show what another order makes of them."""

PRETRAINED = ("all", "random", "easy", "hard")
"""What networks are trained on for some steps before tickets are rewound to them."""


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every embedding, width, number of clauses, number of samples and learning rate.

    The more samples, the fewer epochs: all cells have as many steps as the first number of samples has.

    Raises:
        PrecodeValueError: a setting that no networks can have.
    """
    fractions(setting["shares"], "shares")
    fractions(setting["small"], "small")
    for name in ("starts", "scored", "rounds"):
        integer(setting[name], name, 1, COUNT)
    steps = integers(setting["steps"], "steps", 1, COUNT)
    sizes = integers(setting["samples"], "samples", 1, COUNT)
    if not all(rates := numbers(setting["rates"], "rates", 0)):
        raise PrecodeValueError("rates = 0: networks do not learn at this rate; use ones above 0")
    for samples in sizes:
        for place in paper.points({**setting, "samples": samples, "rewind": 0}):
            left = {name: value for name, value in place.items() if name not in ("rates", "rewind")}
            epochs = max(1, round(setting["epochs"] * sizes[0] / samples))
            yield from ({**left, "epochs": epochs, "lr": rate, "steps": steps} for rate in rates)


def mean_scores(settings: Settings, indices: Sequence[int], runs: Runs) -> dict[str, list[NDArray[np.float64]]]:
    """How hard each sample of the runs is early in training, means over networks of other starts and orders."""
    sums = {name: [np.zeros(item.samples) for item in runs.data] for name in SCORES}
    for start in range(settings["starts"]):
        key = settings["seed"] ^ OTHER_START ^ (start + 1)
        early = dense(settings, indices, data=runs.data, seed=key, epochs=settings["scored"], lr=settings["lr"])
        with one_thread():
            for name, of in SCORES.items():
                for total, values in zip(sums[name], of(early, runs.data), strict=True):
                    total += values / settings["starts"]
    return sums


def chosen(
    settings: Settings,
    indices: Sequence[int],
    runs: Runs,
    scores: Sequence[NDArray[np.float64]],
    share: float,
    choice: str,
) -> list[Dataset]:
    """The part of each data set that a choice keeps; a random one is that of the formula, whatever others there are."""
    if choice == "random":
        scores = [
            np.random.default_rng([settings["seed"], index, len(values)]).random(len(values))
            for index, values in zip(indices, scores, strict=True)
        ]
        choice = "easy"
    return diet(runs, runs.data, share, choose=choice, scores=scores)


def trained(
    settings: Settings, indices: Sequence[int], data: Sequence[Dataset], start: Networks, **options: Any
) -> Runs:
    """Networks trained from a start, on as many samples as the settings have, however few different ones there are."""
    steps = settings["epochs"] * settings["samples"]
    given = {"lr": settings["lr"], "epochs": round(steps / data[0].samples), **options}
    return dense(settings, indices, data=data, init=start.weights, hidden=None, **given)


def of_parts(
    settings: Settings, indices: Sequence[int], runs: Runs, scores: Mapping[str, list[NDArray[np.float64]]]
) -> pd.DataFrame:
    """Networks that are trained on parts of the data, see `compute`."""
    other = trained(settings, indices, runs.data, runs.start, order_seed=settings["seed"] ^ OTHER_ORDER)
    networks: dict[tuple[str, str, float], Runs] = {
        ("none", "all", 1.0): runs,
        ("none", "all, other order", 1.0): other,
    }
    for share in settings["shares"]:
        for name, choice in [*product(SCORES, ("hard", "easy")), ("none", "random")]:
            data = chosen(settings, indices, runs, scores.get(name, scores["el2n"]), share, choice)
            networks[name, choice, share] = trained(settings, indices, data, runs.start)
    measured = accuracies(settings, indices, runs, {str(key): item for key, item in networks.items()})
    full = measured[measured["networks"] == str(("none", "all", 1.0))]["accuracy"].to_numpy()
    codes = locations(runs).code
    frames = []
    for key, item in networks.items():
        accuracy = measured[measured["networks"] == str(key)]["accuracy"].to_numpy()
        after = locations(item).code
        columns = {
            FORMULA: indices,
            **dict(zip(("score", "part", "share"), key, strict=True)),
            "accuracy": accuracy,
            "gap": accuracy - full,
            "true": [data.y.double().mean().item() for data in item.data],
            "codes": after.sum((1, 2, 3)).astype(float),
            "recall": recall(codes, after),
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def of_rewinding(
    settings: Settings, indices: Sequence[int], runs: Runs, scores: Mapping[str, list[NDArray[np.float64]]]
) -> pd.DataFrame:
    """Tickets that are rewound to networks of a short training on a part of the data, see `compute`."""
    shape = runs.weights["w1"].shape[1:]
    total = shape.numel()
    starts: dict[tuple[str, int], Networks] = {("none", 0): runs.start}
    for steps, part in product(settings["steps"], PRETRAINED):
        data: Sequence[Dataset] = runs.data
        if part != "all":
            data = chosen(settings, indices, runs, scores["el2n"], settings["small"], part)
        starts[part, steps] = warmed(settings, indices, data, runs.start, steps)
    test: dict[tuple[str, int, int, float], Networks] = {}
    for (part, steps), start in starts.items():
        count = total
        found = trained(settings, indices, runs.data, start)
        test[part, steps, 0, 1.0] = found
        for number in range(1, settings["rounds"] + 1):
            count = max(1, round(ROUND * count))
            masks = {"w1": largest(found.weights["w1"], count)}
            found = trained(settings, indices, runs.data, start, masks=masks)
            test[part, steps, number, count / total] = found
    measured = accuracies(settings, indices, runs, {str(key): item for key, item in test.items()})
    frames = []
    for key in test:
        accuracy = measured[measured["networks"] == str(key)]["accuracy"].to_numpy()
        keyed = dict(zip(("part", "steps", "round", "density"), key, strict=True))
        frames.append(pd.DataFrame({FORMULA: indices, **keyed, "accuracy": accuracy}))
    return pd.concat(frames, ignore_index=True)


def warmed(
    settings: Settings, indices: Sequence[int], data: Sequence[Dataset], start: Networks, steps: int
) -> Networks:
    """Networks after some optimizer steps on data of their own."""
    per_epoch = -(-data[0].samples // BATCH)
    runs = trained(settings, indices, data, start, epochs=-(-steps // per_epoch), snapshots=[steps])
    return runs.at(steps)


def compute(settings: Settings, parts: Parts) -> Tables:
    """Networks of some formulas on parts of their data.

    Returns:
        ``parts``, one row a formula, score (none of random and whole data), part and share of the data: accuracy; gap,
        minus that on all data; true, the share of True labels in the part; codes; recall, the share of the codes of the
        networks on all data that are at the same sites. ``rewinding``, one row a formula, part that the start was
        trained on before, steps of that training, and round of iterative magnitude pruning (rewound to that start):
        density and accuracy.
    """
    indices = list(parts[FORMULA])
    runs = dense(settings, indices, lr=settings["lr"])
    scores = mean_scores(settings, indices, runs)
    place = {name: settings[name] for name in AT}
    return {
        "parts": of_parts(settings, indices, runs, scores).assign(**place),
        "rewinding": of_rewinding(settings, indices, runs, scores).assign(**place),
    }


AT = (*PLACE, "samples", "lr")
"""Columns that say which point of the setting a row is of."""


def gains(rewinding: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of tickets minus that of those from the initial weights, and of those warmed on all data as long.

    Args:
        rewinding: see `compute`.
    """
    at = [*AT, FORMULA, "density"]
    first = rewinding[rewinding["part"] == "none"][[*at, "accuracy"]].rename(columns={"accuracy": "first"})
    whole = rewinding[rewinding["part"] == "all"][[*at, "steps", "accuracy"]].rename(columns={"accuracy": "whole"})
    found = rewinding[rewinding["part"] != "none"].merge(first, "left", at, validate="m:1")
    found = found.merge(whole, "left", [*at, "steps"], validate="m:1")
    return found.assign(over_none=found["accuracy"] - found["first"], over_all=found["accuracy"] - found["whole"])


def tables(cells: Sequence[Finished]) -> Tables:
    """``means`` on parts of the data; ``tickets`` by what they are rewound to, ``gains`` of these; all measured."""
    found = joined(cells)
    by = [*AT, "part", "steps", "density"]
    return {
        "means": summary(
            found["parts"], [*AT, "score", "part", "share"], ["accuracy", "gap", "true", "codes", "recall"]
        ),
        "tickets": summary(found["rewinding"], by, ["accuracy"]),
        "gains": summary(gains(found["rewinding"]), by, ["over_none", "over_all"]),
        **found,
    }


def computing_seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core."""
    trainings = 2 + 5 * len(settings["shares"]) + 0.05 * settings["starts"]
    return float(seconds(trainings + (4 * len(settings["steps"]) + 1) * (settings["rounds"] + 1), settings, parts))


KIND = Kind("diet", points, compute, computing_seconds, axes=(FORMULA,), parts=parts)


def _draw_parts(result: Result, ax: Axes | None) -> Axes:
    """Accuracy against the share of the data, a line a choice."""
    from precode import plot

    table = _first(result.table)
    table = table[(table["quantity"] == "accuracy") & (table["share"] < 1)]
    names = (table["part"] + ", " + table["score"]).str.replace(", none", "")
    ax = plot.beside(table.assign(series=names), "share", series="series", ax=ax)
    ax.set_xlabel("share of the samples")
    ax.set_ylabel("test accuracy")
    return ax


def _draw_tickets(result: Result, ax: Axes | None) -> Axes:
    """Accuracy of tickets against density, a line a start."""
    from precode import plot

    table = _first(result.tables["tickets"])
    table = table[table["steps"].isin([0, table["steps"].max()])]
    ax = plot.beside(table, "density", series="part", ax=ax)
    ax.set_xscale("log", base=2)
    ax.set_xlabel("share of the weights of W1 that is kept")
    ax.set_ylabel("test accuracy")
    return ax


def _first(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first samples and the largest learning rate at the first point of the setting."""
    table = beside_reported(table)
    there: pd.DataFrame = table[(table["samples"] == table["samples"].iloc[0]) & (table["lr"] == table["lr"].max())]
    return there


EXPERIMENT = Experiment(
    name="diet",
    title="Training on the hard or the easy part of the data, and before tickets are rewound",
    source="arXiv 2107.07075 and arXiv 2206.01278, told in words",
    words=(
        "Samples are scored after the first epoch, by the length of the error (EL2N) or of the gradient of their loss "
        "(GraNd), in means over networks of ten other starts. The first source says that a half of the data can be "
        "dropped at equal accuracy if the hard samples are kept. Networks are trained on the hardest, the easiest and "
        "a random part, for as many steps as on all data. The second source says that iterative magnitude pruning "
        "that fails from the initial weights succeeds from a short training, for which a small random part of the "
        "data suffices, and that easy samples need fewer steps. Tickets are rewound to networks after some steps on "
        "all data or on an eighth of them, and trained on all. What is ours: how many of the codes that networks on "
        "all data have are at the same sites, beside that for all data in another order."
    ),
    setting={
        **{name: value for name, value in SETTING.items() if name != "rewind"},
        "seed": 6200,
        "clauses": (16,),
        "embeddings": ("projection-16-fixed",),
        "samples": (2000, 20_000),
        "rates": (0.001, 0.01),
        "test": 5000,
        "shares": (0.5, 0.25),
        "small": 0.125,
        "starts": 10,
        "scored": 1,
        "steps": (32, 160),
        "rounds": 6,
    },
    quick={
        **{name: value for name, value in SMALL.items() if name != "rewind"},
        "embeddings": ("projection-16-fixed",),
        "samples": 1000,
        "rates": (0.01,),
        "shares": 0.5,
        "starts": 2,
        "steps": 8,
        "rounds": 2,
    },
    full={"embeddings": ("projection-16-fixed", "projection-16", "identity")},
    kind=KIND,
    tables=tables,
    figures={"parts": _draw_parts, "tickets": _draw_tickets},
)
