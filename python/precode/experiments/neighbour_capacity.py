"""How many clauses a width holds, beside a packing limit and the slopes of published bounds; and how codes overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.cells import Kind, Parts, Settings, training_seconds
from precode._internal.check import COUNT, fractions, integer, integers
from precode._internal.errors import PrecodeValueError
from precode._internal.statistics import interval
from precode.codes import embedding as embeddings
from precode.experiments.cells import Finished, Tables
from precode.experiments.comparison import Reported, place
from precode.experiments.founding_cells import BATCH, FORMULA, MOST, parts
from precode.experiments.paper import formulas, joined, summary
from precode.experiments.published import curves as published_curves
from precode.experiments.published import reported as published_numbers
from precode.experiments.records import Experiment, Result
from precode.formulas.dnf import Dnf
from precode.networks.training import train
from precode.networks.work import sample_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

FOUNDING = "arXiv 2504.08842, section 4"
BOUNDS = "arXiv 2409.15318 and 2408.05451"

PLACE = ("embedding", "hidden", "clauses")
"""Columns that say which point a row is of."""

OVERLAPS = ("all", "share 0", "share 1", "share 2", "overlapping", "largest", "both polarities")
"""Readings of "overlap of codes averaged over pairs": mean shared rows over all pairs of clauses that have codes; over
those pairs that share no variable, one, or two and more; over those that share a row; the largest of each clause; and
over all pairs, with 4P rows of both polarities."""


def overlaps(channels: NDArray[np.bool_], either: NDArray[np.bool_], shared: NDArray[np.int64]) -> dict[str, float]:
    """Mean overlap of the codes of one network, by every one of `OVERLAPS`; NaN where there is no such pair.

    Args:
        channels: (C, j), rows of positive polarity that show the clause's code.
        either: (C, j), rows of any polarity that do.
        shared: (C, C), variables that each two clauses share.

    Example:
        >>> channels = np.array([[True, True, False], [True, False, False], [False, False, True]])
        >>> found = overlaps(channels, channels, np.array([[4, 1, 0], [1, 4, 0], [0, 0, 4]]))
        >>> {name: round(value, 2) for name, value in found.items() if value == value}
        {'all': 0.33, 'share 0': 0.0, 'share 1': 1.0, 'overlapping': 1.0, 'largest': 0.67, 'both polarities': 0.33}
    """
    found = _pairs(channels)
    coded = np.asarray(channels.any(axis=1))
    both = np.outer(coded, coded)
    pairs = np.triu(both, 1)
    two = {"share 0": shared == 0, "share 1": shared == 1, "share 2": shared >= 2}
    largest = np.where(both & (np.eye(coded.size) == 0), found, -1).max(1)
    others = _pairs(either)
    any_coded = np.asarray(either.any(axis=1))
    return {
        "all": _mean(found[pairs]),
        **{name: _mean(found[pairs & keep]) for name, keep in two.items()},
        "overlapping": _mean(found[pairs & (found > 0)]),
        "largest": _mean(largest[largest >= 0]),
        "both polarities": _mean(others[np.triu(np.outer(any_coded, any_coded), 1)]),
    }


def _pairs(channels: NDArray[np.bool_]) -> NDArray[np.int64]:
    counts = channels.astype(np.int64)
    return np.asarray(counts @ counts.T)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else float("nan")


def cells(setting: Mapping[str, Any]) -> Iterator[Settings]:
    """A cell for every embedding, width and number of clauses.

    Raises:
        PrecodeValueError: a value out of range, an unknown embedding, or formulas that there cannot be.
    """
    for name in ("hidden", "clauses"):
        integers(setting[name], name, 1, MOST[name])
    for name in ("samples", "epochs"):
        integer(setting[name], name, 1, COUNT)
    fractions(setting["thresholds"], "thresholds")
    for name in setting["embeddings"]:
        if not embeddings.is_name(name):
            raise PrecodeValueError(f"embedding {name!r}: use one of {embeddings.ALLOWED}")
    for clauses in setting["clauses"]:
        formulas({**setting, "clauses": clauses}, [0])
    kept = ("variables", "width", "samples", "epochs", "seed", "thresholds")
    shared = {name: setting[name] for name in kept}
    for embedding, hidden, clauses in product(setting["embeddings"], setting["hidden"], setting["clauses"]):
        yield {"embedding": embedding, "hidden": hidden, "clauses": clauses, **shared}


def compute(settings: Settings, parts: Parts) -> Tables:
    """Trains and decodes the networks of some formulas.

    Returns:
        ``networks``, one row a formula: train_error and test_error; rows, 4P rows of positive polarity for each clause;
        without, the share of clauses that have none; positive, the positive rows; size, the mean code size of clauses
        that have a code; and the columns `OVERLAPS`.
    """
    numbers = list(parts[FORMULA])
    tasks = formulas(settings, numbers)
    seed, samples = settings["seed"], settings["samples"]
    runs = train(
        tasks,
        hidden=settings["hidden"],
        seed=seed,
        indices=numbers,
        samples=samples,
        embedding=settings["embedding"],
        epochs=settings["epochs"],
        batch=BATCH,
    )
    fresh = sample_all(tasks, samples, sampler="broken-clause", seed=seed, indices=numbers, purpose="test")
    codes = runs.codes()
    channels = codes.channels()
    either = np.all(codes.signs(aligned=True) > 0, axis=-1)
    sizes = channels.sum(-1)
    table = pd.DataFrame({
        FORMULA: numbers,
        "train_error": runs.evaluate()["error"].to_numpy(),
        "test_error": runs.evaluate(fresh)["error"].to_numpy(),
        "rows": sizes.mean(1),
        "without": (sizes == 0).mean(1),
        "positive_rows": codes.positive_rows,
        "code_size": [_mean(size[size > 0]) for size in sizes],
    })  # fmt: skip
    found = [overlaps(*each) for each in zip(channels, either, map(shared_variables, tasks), strict=True)]
    table = pd.concat([table, pd.DataFrame(found)], axis=1)
    return {"networks": table.assign(**{name: settings[name] for name in PLACE})}


def shared_variables(task: Dnf) -> NDArray[np.int64]:
    """Variables that each two clauses of a formula share, (C, C).

    Example:
        >>> shared_variables(Dnf([[0, 1], [1, 2], [3, 4]], variables=5)).tolist()
        [[2, 1, 0], [1, 2, 0], [0, 0, 2]]
    """
    clauses = [{max(literal, ~literal) for literal in clause} for clause in task.clauses]
    return np.array([[len(one & other) for other in clauses] for one in clauses])


def computing_seconds(settings: Settings, parts: Parts) -> float:
    """An estimate of what `compute` takes on one core."""
    return training_seconds(len(parts[FORMULA]), settings["hidden"], settings["samples"], settings["epochs"], BATCH)


KIND = Kind("capacity", cells, compute, computing_seconds, axes=(FORMULA,), parts=parts)


def onset(clauses: ArrayLike, errors: ArrayLike, threshold: float) -> float:
    """The number of clauses at which an error first reaches a threshold.

    Between points it is interpolated, linearly in the logarithm of clauses. NaN where the error is there from the first
    point on, or never.

    Example:
        >>> round(onset([8, 16, 32], [0.0, 0.0, 0.02], 0.01), 1), onset([8, 16], [0.0, 0.001], 0.01)
        (22.6, nan)
    """
    counts, values = np.asarray(clauses, dtype=float), np.asarray(errors, dtype=float)
    first = int(np.argmax(values >= threshold))  # 0 where there is none as well
    if first == 0:
        return float("nan")
    share = (threshold - values[first - 1]) / (values[first] - values[first - 1])
    return float(counts[first - 1] * (counts[first] / counts[first - 1]) ** share)


def slope(hidden: ArrayLike, values: ArrayLike) -> float:
    """Least-squares slope of log values against log widths; NaN of fewer than two.

    Example:
        >>> round(slope([8, 16, 32], [3 * j**1.5 for j in (8, 16, 32)]), 3)
        1.5
    """
    widths, heights = np.asarray(hidden, dtype=float), np.asarray(values, dtype=float)
    if widths.size < 2:
        return float("nan")
    return float(np.polyfit(np.log(widths), np.log(heights), 1)[0])


LAWS: Mapping[str, Callable[[float], float]] = {
    "packing limit: j n / (16 C) rows a clause": lambda j: j,
    "ANDs of m features in about m^(2/3) neurons": lambda j: j**1.5,
    "at most about j^2 / log j features": lambda j: j**2 / math.log(j),
}
"""How many clauses a width would hold, up to a constant: arXiv 2504.08842, 2408.05451 and 2409.15318. The last two are
of networks that give many outputs, so that only their slopes can be drawn beside ours."""


def tables(cells: Sequence[Finished]) -> Tables:
    """``points``; ``onsets``; ``slopes``; ``overlaps``; and all ``networks``.

    Points are means over formulas, with the packing limit j n / (16 C) of rows a clause, and the share of it that is
    used. Onsets have the number of clauses at which the training error reaches a threshold, that divided by the width,
    and the rows a clause there. Slopes are of log onset against log width, formula by formula, and those of `LAWS` over
    the same widths. Overlaps lay every reading beside figure 10 of arXiv 2504.08842.
    """
    networks = joined(cells)["networks"]
    variables = cells[0].settings["variables"] if cells else 0
    networks["limit"] = networks["hidden"] * variables / (16 * networks["clauses"])
    networks["used"] = networks["rows"] / networks["limit"]
    quantities = ["train_error", "test_error", "rows", "limit", "used", "without", "code_size", *OVERLAPS]
    onsets = _onsets(networks, cells)
    return {
        "points": summary(networks, PLACE, quantities),
        "onsets": summary(onsets, ["embedding", "threshold", "hidden"], ["onset", "clauses_a_row", "rows_at_onset"]),
        "slopes": _slopes(onsets),
        "overlaps": _overlaps(networks),
        "networks": networks,
        "formula_onsets": onsets,
    }


def _onsets(networks: pd.DataFrame, cells: Sequence[Finished]) -> pd.DataFrame:
    rows = []
    by = ["embedding", "hidden", FORMULA]
    for key, part in networks.groupby(by, sort=False):
        part = part.sort_values("clauses")
        clauses = part["clauses"].to_numpy(dtype=float)
        for threshold in cells[0].settings["thresholds"]:
            found = onset(clauses, part["train_error"], threshold)
            there = np.nan if np.isnan(found) else np.interp(np.log(found), np.log(clauses), part["rows"])
            at = dict(zip(by, key, strict=True))
            rows.append({**at, "threshold": threshold, "onset": found, "rows_at_onset": there})
    table = pd.DataFrame(rows)
    return table.assign(clauses_a_row=table["onset"] / table["hidden"])


def _slopes(onsets: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for (embedding, threshold), part in onsets.groupby(["embedding", "threshold"], sort=False):
        # The same widths for every formula, so that slopes compare.
        wide = part.pivot_table("onset", FORMULA, "hidden", dropna=False).dropna(axis=1)
        widths = wide.columns.to_numpy(dtype=float)
        fits = [slope(widths, values) for values in wide.to_numpy()]
        at = {"embedding": embedding, "threshold": threshold, "widths": ", ".join(map("{:g}".format, widths))}
        low, high = interval(fits)
        rows.append({**at, "law": "measured", "slope": float(np.mean(fits)), "low": low, "high": high})
        for name, law in LAWS.items():
            rows.append({**at, "law": name, "slope": slope(widths, [law(width) for width in widths])})
    return pd.DataFrame(rows)


def _overlaps(networks: pd.DataFrame) -> pd.DataFrame:
    means = networks.groupby(list(PLACE), sort=False)[list(OVERLAPS)].mean().reset_index()
    rows = []
    for item in published_numbers():
        if (item.figure, item.quantity) != ("figure 10", "overlap"):
            continue
        there = dict(item.at)
        here = means[(means["hidden"] == there["hidden"]) & (means["clauses"] == there["clauses"])]
        for reading in OVERLAPS:
            for embedding, value in zip(here["embedding"], here[reading], strict=True):
                about = {"embedding": embedding, "reading": reading, **there}
                rows.append({**about, "published": item.value, "measured": value})
    table = pd.DataFrame(rows, columns=["embedding", "reading", "hidden", "clauses", "published", "measured"])
    table["factor"] = table["measured"] / table["published"]
    return table


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What compares with published numbers: overlaps of figure 10, onsets from figure 4, rows a clause at the onset."""
    networks, onsets = tables["networks"], tables["formula_onsets"]
    first = networks["embedding"].iloc[0]
    chosen = [
        ("figure 10", "overlap", networks, ("hidden", "clauses"), "all"),
        ("figure 4", "onset", onsets, ("hidden", "threshold"), "onset"),
        ("figure 4", "rows_at_onset", onsets, ("hidden", "threshold"), "rows_at_onset"),
    ]
    frames = []
    for figure, quantity, table, names, column in chosen:
        table = table[table["embedding"] == first]
        at = [place(dict(zip(names, row, strict=True))) for row in table[list(names)].itertuples(index=False)]
        keys = {"figure": figure, "quantity": quantity, "at": at}
        frames.append(pd.DataFrame({**keys, FORMULA: table[FORMULA], "value": table[column]}))
    return pd.concat(frames, ignore_index=True)


THRESHOLDS = (0.005, 0.01)
"""Training errors that say that a width has begun to fail."""


def _reported() -> tuple[Reported, ...]:
    curves = published_curves()
    found = []
    for hidden in curves["hidden"].unique().tolist():
        part = curves[curves["hidden"] == hidden]
        for threshold in THRESHOLDS:
            value = onset(part["clauses"], part["train_error"], threshold)
            if not np.isnan(value):
                reading = "interpolated by us between values read off the figure by eye"
                at = {"hidden": hidden, "threshold": threshold}
                found.append(Reported("figure 4", "onset", at, value, FOUNDING, reading))
    reading = "'1.5 to 2' in words: the middle"
    found.append(Reported("figure 4", "rows_at_onset", {"hidden": 32, "threshold": 0.005}, 1.75, FOUNDING, reading))
    overlap = [item for item in published_numbers() if (item.figure, item.quantity) == ("figure 10", "overlap")]
    return (*found, *overlap)


def _draw_onset(result: Result, ax: Axes | None) -> Axes:
    from precode.plot.axes import axes, legend

    ax = axes(ax)
    table = result.tables["onsets"]
    table = table[(table["quantity"] == "onset") & table["mean"].notna()]
    for number, ((embedding, threshold), part) in enumerate(table.groupby(["embedding", "threshold"], sort=False)):
        errors = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
        label = f"{embedding}, error {threshold:g}"
        ax.errorbar(part["hidden"], part["mean"], errors, label=label, color=f"C{number}", marker="o", ms=4)
    widths = np.array(sorted(table["hidden"].unique()), dtype=float)
    if len(widths) > 1:
        first = table["mean"].iloc[0]
        for style, (name, law) in zip(("--", "-.", ":"), LAWS.items(), strict=True):
            values = np.array([law(width) for width in widths])
            ax.plot(widths, first * values / values[0], style, color="gray", label=name)
    ax.set(xscale="log", yscale="log", xlabel="hidden rows", ylabel="clauses at which errors begin")
    legend(ax, fontsize="xx-small")
    return ax


def _draw_rows(result: Result, ax: Axes | None) -> Axes:
    from precode.plot.axes import axes, legend

    ax = axes(ax)
    table = result.table[result.table["embedding"] == result.table["embedding"].iloc[0]]
    for number, (hidden, part) in enumerate(table.groupby("hidden", sort=False)):
        rows, limit = (part[part["quantity"] == name] for name in ("rows", "limit"))
        ax.plot(rows["clauses"], rows["mean"], color=f"C{number}", marker="o", ms=4, label=f"{hidden} rows")
        ax.plot(limit["clauses"], limit["mean"], color=f"C{number}", ls=":")
    ax.axhspan(1.5, 2.0, color="gray", alpha=0.2)
    ax.set(xscale="log", yscale="log", xlabel="clauses", ylabel="4P rows a clause (dotted: packing limit)")
    legend(ax)
    return ax


EXPERIMENT = Experiment(
    name="capacity",
    title="How many clauses a width holds, and how their codes overlap",
    source=f"{FOUNDING}; bounds: {BOUNDS}",
    words=(
        "Networks of 8 to 128 rows are trained on 2 to 128 clauses. The onset is the number of clauses at which the "
        "training error reaches a threshold [ours]; the founding paper says that errors begin where fewer than 1.5 to "
        "2 rows show 4P for a clause, and that there are at most about j n / (16 C) of them. Beside the slope of the "
        "onset against the width stand those of published bounds: they are of networks with many outputs and name no "
        "constants, so that slopes alone compare. Figure 10's overlap of codes does not come out, and the source does "
        "not say over which pairs it is averaged: every reading that we could think of stands beside it."
    ),
    setting={
        "formulas": 20,
        "seed": 4000,
        "hidden": (8, 16, 32, 64),
        "clauses": (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128),
        "embeddings": ("hadamard", "identity"),
        "variables": 32,
        "width": 4,
        "samples": 20_000,
        "epochs": 100,
        "thresholds": THRESHOLDS,
    },
    quick={
        "formulas": 3,
        "hidden": (8, 16),
        "clauses": (2, 8, 16, 64),
        "embeddings": ("hadamard",),
        "samples": 2000,
        "epochs": 20,
    },
    full={"hidden": (8, 16, 32, 64, 128)},
    kind=KIND,
    tables=tables,
    measured=measured,
    reported=_reported(),
    figures={"onset": _draw_onset, "rows": _draw_rows},
)
