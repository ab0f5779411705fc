"""Error barriers between retrained tickets, and between rounds of iterative pruning (arXiv 1912.05671, 2210.03044)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from precode._internal.cells import Kind, Parts, Settings
from precode._internal.check import COUNT, integer, integers, numbers
from precode._internal.errors import PrecodeValueError
from precode._internal.statistics import with_intervals
from precode.codes.locating import jaccard, locations, permuted_recall, recall
from precode.experiments import paper
from precode.experiments.cells import Finished, Tables
from precode.experiments.founding_cells import FORMULA
from precode.experiments.masking import ROUND, largest, random_masks
from precode.experiments.paper import PLACE, SETTING, beside_reported, joined, parts, summary
from precode.experiments.paper_budget import SMALL
from precode.experiments.paper_networks import dense, seconds
from precode.experiments.records import Experiment, Result
from precode.formulas.datasets import Dataset
from precode.networks.stacks import Networks
from precode.networks.training import Runs, sample_all
from precode.tickets.analyses import path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

OTHER_ORDER = 0x2545F4914F6CDD1D
"""Changes the key of the order of the data for the second training of a ticket."""

POINTS = 11
"""Places on the line between two networks, ends included."""

MASKS = ("magnitude", "random")
"""Tickets of iterative magnitude pruning, and random masks of as many weights."""

AT = (*PLACE, "lr")
"""Columns that say which point of the setting a row is of."""

STABLE = 0.02
"""Barriers below this count as none; arXiv 1912.05671 has 2 % [second-hand]."""

MATCHING = 0.01
"""A ticket matches whose accuracy is at most this much below that of the dense networks. Our definition."""


def points(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every embedding, width, number of clauses, learning rate and epoch that tickets are rewound to.

    Raises:
        PrecodeValueError: a setting that no networks can have.
    """
    integer(setting["rounds"], "rounds", 1, COUNT)
    for epoch in (rewinds := integers(setting["rewinds"], "rewinds", 0, COUNT)):
        if epoch >= setting["epochs"]:
            raise PrecodeValueError(
                f"rewinds = {epoch}: tickets are rewound to an epoch before the last of {setting['epochs']}"
            )
    if not all(rates := numbers(setting["rates"], "rates", 0)):
        raise PrecodeValueError("rates = 0: networks do not learn at this rate; use ones above 0")
    for place in paper.points({**setting, "rewind": 0}):
        left = {name: value for name, value in place.items() if name not in ("rewinds", "rates")}
        yield from ({**left, "lr": rate, "rewind": epoch} for rate in rates for epoch in rewinds)


def barriers(line: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Error barriers of both sources, one a network.

    Args:
        line: of `precode.analyses.path`.

    Returns:
        The largest error on the line minus the mean of the errors at its ends (arXiv 1912.05671, section 2); and the
        largest excess over the straight line between these errors (arXiv 2210.03044), at least 0. They are the same
        where the ends have the same error; where one end is worse, the first counts that as well.

    Example:
        >>> line = pd.DataFrame({"network": 0, "alpha": [0.0, 0.5, 1.0], "error": [0.0, 0.25, 0.4]})
        >>> [float(barrier[0].round(2)) for barrier in barriers(line)]
        [0.2, 0.05]
    """
    count = line["network"].nunique()
    error = line["error"].to_numpy().reshape(count, -1)
    alpha = line["alpha"].to_numpy().reshape(count, -1)
    ends = error[:, :1], error[:, -1:]
    straight = (1 - alpha) * ends[0] + alpha * ends[1]
    # Rounding alone would put the ends themselves beside the line.
    above = np.maximum(0, (error - straight)[:, 1:-1].max(1, initial=0))
    return error.max(1) - (ends[0] + ends[1])[:, 0] / 2, above


def measure(pairs: Sequence[tuple[Networks, Networks]], data: Sequence[Dataset]) -> list[pd.DataFrame]:
    """Barriers of pairs of stacks and the codes that they share at the same sites, a table a pair, a row a network."""

    def together(side: int) -> Networks:
        stacks = [pair[side] for pair in pairs]
        weights = {name: torch.cat([stack.weights[name] for stack in stacks]) for name in stacks[0].weights}
        return Networks(weights, None, stacks[0].embedding)

    line = path(together(0), together(1), list(data) * len(pairs), points=POINTS)
    error = line["error"].to_numpy().reshape(len(pairs), len(data), POINTS)
    found = [values.reshape(len(pairs), -1) for values in barriers(line)]
    tables = []
    for place, (first, second) in enumerate(pairs):
        before, after = locations(first).code, locations(second).code
        columns = {
            "accuracy": 1 - error[place, :, -1],
            "accuracy_first": 1 - error[place, :, 0],
            "barrier_mean": found[0][place],
            "barrier_line": found[1][place],
            "codes": after.sum((1, 2, 3)).astype(float),
            "recall": recall(before, after),
            "recall_permuted": permuted_recall(before, after),
            "jaccard": jaccard(before, after),
        }
        tables.append(pd.DataFrame(columns))
    return tables


def rounds(
    start: Networks, data: Sequence[Dataset], settings: Settings, indices: Sequence[int]
) -> Iterator[tuple[float, dict[str, tuple[Runs, Runs]]]]:
    """Both retrainings of every round's tickets, round 0 being dense: from one start, on two orders of the data.

    The first training goes on in the order of the dense run, and its weights choose the next mask.

    Args:
        start: what tickets are rewound to.
        data: of each network.
        settings: of a cell.
        indices: numbers of the formulas.

    Returns:
        An iterator over densities with both trainings by the kind of masks.
    """
    epoch = settings["rewind"]
    shape = start.weights["w1"].shape[1:]
    left = {"data": data, "init": start.weights, "hidden": None, "epochs": settings["epochs"] - epoch}
    left["lr"] = settings["lr"]
    orders = (settings["seed"], settings["seed"] ^ OTHER_ORDER)

    def both(mask: torch.Tensor) -> tuple[Runs, Runs]:
        first, second = (
            dense(settings, indices, masks={"w1": mask}, order_seed=key, first_epoch=epoch, **left) for key in orders
        )
        return first, second

    count = shape.numel()
    found = {MASKS[0]: both(torch.ones(len(indices), *shape, dtype=torch.bool))}
    yield 1.0, found
    for _ in range(settings["rounds"]):
        count = max(1, round(ROUND * count))
        masks = {
            MASKS[0]: largest(found[MASKS[0]][0].weights["w1"], count),
            MASKS[1]: random_masks(shape, count / shape.numel(), settings["seed"], indices),
        }
        found = {name: both(mask) for name, mask in masks.items()}
        yield count / shape.numel(), found


def compute(settings: Settings, parts: Parts) -> Tables:
    """Barriers of some formulas' tickets that are rewound to one epoch.

    Returns:
        ``orders``, one row a formula, round and kind of masks: two trainings of the same ticket on two orders; and
        ``successive``, a row a formula, round from 1 on and order (same or other): the solution of the round before
        and that of this one. Columns: accuracy (in ``orders`` of both, in ``successive`` of the second) and gap, minus
        that of the dense networks of the same rewinding; barrier_mean and barrier_line, see `barriers`; codes of the
        second network; recall, recall_permuted and jaccard, see `precode.codes.locating`.
    """
    indices = list(parts[FORMULA])
    epoch = settings["rewind"]
    runs = dense(settings, indices, epochs=epoch or 1, lr=settings["lr"])
    start = runs if epoch else runs.start
    test = sample_all(
        runs.tasks or (),
        settings["test"],
        sampler=runs.sampler or "broken-clause",
        seed=settings["seed"],
        indices=indices,
        purpose="test",
    )
    orders, successive = [], []
    before: Runs | None = None
    full = np.zeros(len(indices))
    for number, (density, found) in enumerate(rounds(start, runs.data, settings, indices)):
        first, second = found[MASKS[0]]
        pairs: list[tuple[Networks, Networks]] = list(found.values())
        if before is not None:
            pairs += [(before, first), (before, second)]
        measured = measure(pairs, test)
        keyed = {FORMULA: indices, "round": number, "density": density}
        for name, table in zip(found, measured[: len(found)], strict=True):
            table["accuracy"] = (table["accuracy"] + table.pop("accuracy_first")) / 2
            if not number:
                full = table["accuracy"].to_numpy()
            orders.append(pd.DataFrame({**keyed, "masks": name, **table, "gap": table["accuracy"] - full}))
        for name, table in zip(("same", "other"), measured[len(found) :], strict=False):
            gaps = {"gap": table["accuracy"] - full, "gap_first": table.pop("accuracy_first") - full}
            successive.append(pd.DataFrame({**keyed, "order": name, **table, **gaps}))
        before = first
    place = {name: settings[name] for name in (*AT, "rewind")}
    return {
        "orders": pd.concat(orders, ignore_index=True).assign(**place),
        "successive": pd.concat(successive, ignore_index=True).assign(**place),
    }


MEASURES = ("accuracy", "gap", "barrier_mean", "barrier_line", "codes", "recall", "recall_permuted", "jaccard")


def claims(orders: pd.DataFrame, successive: pd.DataFrame) -> pd.DataFrame:
    """Whether matching goes with the absence of a barrier, formula by formula.

    Args:
        orders: see `compute`.
        successive: likewise.

    Returns:
        One row a point of the setting, pair (``orders, magnitude``, ``orders, random``, ``successive, other``, ...) and
        formula: quantity and value. ``correlation`` is the rank correlation of barrier and gap over all rounds and
        rewindings, ``codes`` that of barrier and Jaccard index; ``matching`` and ``failing`` are the shares of pairs
        without a barrier among those that match and those that do not (of successive rounds, both must match), NaN
        where there are none.
    """
    kinds = [
        (f"orders, {name}", table, "barrier_mean", table["gap"])
        for name, table in orders[orders["round"] > 0].groupby("masks", sort=False)
    ] + [
        (f"successive, {name}", table, "barrier_line", table[["gap", "gap_first"]].min(axis=1))
        for name, table in successive.groupby("order", sort=False)
    ]
    rows = []
    for pair, table, barrier, gap in kinds:
        for at, group in table.assign(least=gap, none=table[barrier] < STABLE).groupby([*AT, FORMULA], sort=False):
            keyed = {**dict(zip([*AT, FORMULA], at, strict=True)), "pair": pair}
            matches = group["least"] >= -MATCHING
            values = {
                "correlation": group[barrier].corr(group["least"], method="spearman"),
                "codes": group[barrier].corr(group["jaccard"], method="spearman"),
                "matching": group["none"][matches].mean(),
                "failing": group["none"][~matches].mean(),
            }
            rows += [{**keyed, "quantity": name, "value": value} for name, value in values.items()]
    return pd.DataFrame(rows)


def tables(cells: Sequence[Finished]) -> Tables:
    """``means`` of two orders and ``steps`` of successive rounds; ``claims`` over both; and all that was measured."""
    found = joined(cells)
    every = claims(found["orders"], found["successive"]).dropna(subset=["value"])
    return {
        "means": summary(found["orders"], [*AT, "rewind", "masks", "density"], MEASURES),
        "steps": summary(found["successive"], [*AT, "rewind", "order", "density"], MEASURES),
        "claims": with_intervals(every, [*AT, "pair", "quantity"], "value"),
        **found,
    }


def computing_seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core: trainings, and the errors on four lines a round."""
    lines = 4 * POINTS * settings["rounds"] * len(parts[FORMULA])
    return float(seconds(4 * settings["rounds"] + 3, settings, parts) + lines * settings["test"] * 1e-7)


KIND = Kind("connectivity", points, compute, computing_seconds, axes=(FORMULA,), parts=parts)


def _draw(name: str, quantity: str, series: str, label: str) -> Any:
    def draw(result: Result, ax: Axes | None) -> Axes:
        from precode import plot

        table = beside_reported(result.tables[name])
        # The largest rate: only there are dense networks unstable at the start.
        table = table[(table["quantity"] == quantity) & (table["lr"] == table["lr"].max())]
        names = table[series].astype(str) + ", epoch " + table["rewind"].astype(str)
        ax = plot.beside(table.assign(series=names), "density", series="series", ax=ax)
        ax.set_xscale("log", base=2)
        ax.set_xlabel("share of the weights of W1 that is kept")
        ax.set_ylabel(label)
        return ax

    return draw


EXPERIMENT = Experiment(
    name="connectivity",
    title="Error barriers between retrained tickets and between rounds of iterative pruning",
    source="arXiv 1912.05671 and arXiv 2210.03044, told in words",
    words=(
        "Tickets of iterative magnitude pruning (a fifth of W1 a round, rewound to the weights of an early epoch) are "
        "trained twice, on two orders of the data. The first source says that they reach full accuracy only where "
        "they are stable: the error on the straight line between the two trained networks does not rise above the "
        "mean of its ends. Random masks of as many weights stand beside them. The second source says that the "
        "solutions of successive rounds are connected, without a rise above the straight line between their errors, "
        "if and only if they match the dense networks; the later round is trained in the same order or in another "
        "one. The learning rate is that of the other experiments, at which even dense networks are stable from the "
        "start, and one at which they become stable within five epochs. A barrier below .02 counts as none; a ticket "
        "matches that is at most .01 less accurate than the dense networks [ours]. What is ours besides: whether both "
        "networks have their codes at the same sites, beside the same codes on random rows (recall_permuted)."
    ),
    setting={
        **{name: value for name, value in SETTING.items() if name != "rewind"},
        "seed": 6000,
        "clauses": (16,),
        "embeddings": ("projection-16-fixed",),
        "test": 5000,
        "rates": (0.001, 0.01),
        "rewinds": (0, 1, 5, 20),
        "rounds": 12,
    },
    quick={
        **{name: value for name, value in SMALL.items() if name != "rewind"},
        "embeddings": ("projection-16-fixed",),
        "rates": (0.01,),
        "rewinds": (0, 2),
        "rounds": 2,
    },
    full={"embeddings": ("projection-16-fixed", "projection-16", "identity")},
    kind=KIND,
    tables=tables,
    figures={
        "barrier": _draw("means", "barrier_mean", "masks", "error barrier between two orders of the data"),
        "successive": _draw("steps", "barrier_line", "order", "error barrier between successive rounds"),
        "accuracy": _draw("means", "accuracy", "masks", "test accuracy"),
        "codes": _draw("means", "jaccard", "masks", "codes at the same sites, Jaccard index"),
    },
)
