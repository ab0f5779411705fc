"""Figures. Every function takes ``ax=`` and returns the axes it drew on; needs the extra ``precode[plot]``."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode import published
from precode.errors import PrecodeError, PrecodeValueError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from precode.codes import Codes

_LABELS = {
    "train_error": "training error",
    "test_error": "test error",
    "train_bce": "training loss (nats)",
    "code_size": "rows in a clause's code",
    "overlap": "rows shared by two codes",
    "clauses_without_code": "clauses without a code",
    "accuracy": "test accuracy",
    "recovery_location": "codes recovered on their rows",
    "recovery_family": "codes recovered on any row",
    "recovery_clause": "clauses with a code, recovered",
    "relaxed_family": "codes half alive, on any row",
    "dead_rows": "dead rows",
}


def _axes(ax: Axes | None, **size: Any) -> Axes:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise PrecodeError("figures need matplotlib: pip install 'precode[plot]'") from error
    return plt.subplots(layout="constrained", **size)[1] if ax is None else ax


def _label(column: str) -> str:
    if column in _LABELS:
        return _LABELS[column]
    pattern, _, polarity = column.partition("_")
    return f"{pattern} rows per clause, {polarity} rows"


def _line(ax: Axes, values: Any, color: str, **style: Any) -> None:
    """Means of grouped values with their 95 % interval, 1.96 standard errors, as a band."""
    mean, half = values.mean(), 1.96 * values.std(ddof=1) / np.sqrt(values.count())
    ax.plot(mean.index, mean, color=color, **style)
    ax.fill_between(mean.index, mean - half, mean + half, color=color, alpha=0.2, linewidth=0)


def curves(
    trials: pd.DataFrame, column: str = "4P_positive", *, reference: bool = True, ax: Axes | None = None
) -> Axes:
    """A column against the number of clauses, one line a hidden width, with the published points.

    Lines are means over trials, bands their 95 % interval (1.96 standard errors); crosses are published values read
    off the figures by eye; dotted lines are the measured random baseline.

    Args:
        trials: `Curves.trials`.
        column: which one.
        reference: draw published points where there are some for the column.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: there is no such column.
    """
    if column not in trials:
        raise PrecodeValueError(f"no column {column!r}: there are {', '.join(map(str, trials.columns))}")
    ax = _axes(ax, figsize=(6.4, 4.2))
    points = published.curves()
    for number, (hidden, group) in enumerate(trials.groupby("hidden")):
        color = f"C{number}"
        _line(ax, group.groupby("clauses")[column], color, label=f"{hidden} rows", marker="o", markersize=3.5)
        if f"random_{column}" in group:
            random = group.groupby("clauses")[f"random_{column}"].mean()
            ax.plot(random.index, random, color=color, linestyle=":", linewidth=1)
        if reference and column in points:
            known = points[points["hidden"] == hidden]
            ax.plot(known["clauses"], known[column], "x", color=color)
    if reference and column in points:
        ax.plot([], [], "x", color="gray", label="published (arXiv 2504.08842)")
    if f"random_{column}" in trials:
        ax.plot([], [], ":", color="gray", label="random signs")
    ax.set_xlabel("clauses")
    ax.set_ylabel(_label(column))
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return ax


def dynamics(
    table: pd.DataFrame,
    columns: tuple[str, ...] = ("4P_positive", "2P2N_positive", "3N1P_negative", "2P2N_negative"),
    *,
    reference: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Patterns and training loss against the epoch, with the published points of figure 12.

    Lines are means over trials, bands their 95 % interval (1.96 standard errors).

    Args:
        table: from `precode.dynamics`.
        columns: patterns to draw.
        reference: draw the published points.
        ax: axes to draw on; the loss gets a second vertical axis.

    Raises:
        PrecodeValueError: there is no such column.
    """
    if missing := [column for column in (*columns, "train_bce") if column not in table]:
        raise PrecodeValueError(f"no column {', '.join(missing)}: there are {', '.join(map(str, table.columns))}")
    ax = _axes(ax, figsize=(6.4, 4.2))
    points = published.dynamics()
    epochs = table.groupby("epoch")
    for number, column in enumerate(columns):
        _line(ax, epochs[column], f"C{number}", label=column.replace("_", ", "))
        if reference and column in points:
            ax.plot(points["epoch"], points[column], "x", color=f"C{number}")
    loss = ax.twinx()
    loss.plot(epochs["train_bce"].mean(), color="black", linestyle="--", linewidth=1)
    if reference:
        loss.plot(points["epoch"], points["train_bce"], "+", color="black", markersize=9)
        ax.plot([], [], "x", color="gray", label="published (loss: +)")
    ax.plot([], [], "--", color="black", linewidth=1, label="training loss (right)")
    loss.set_ylim(0, 0.75)
    loss.set_ylabel("training loss (nats)")
    # Linear up to epoch 3, where most happens, logarithmic beyond.
    ax.set_xscale("symlog", linthresh=3)
    ax.set_xlim(0, 1.05 * float(table["epoch"].max()))
    ax.set_xticks([0, 1, 2, 3, 5, 10, 20], ["0", "1", "2", "3", "5", "10", "20"])
    ax.set_xlabel("epoch")
    ax.set_ylabel("rows per clause")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def tickets(table: pd.DataFrame, value: str = "accuracy", *, ax: Axes | None = None) -> Axes:
    """A column against the density, one line a method, sparser to the right.

    Lines are means over formulas, bands their 95 % interval (1.96 standard errors). A control, such as
    ``snip:shuffle-row``, is dotted in the colour of its method. With accuracy, the dashed line is that of the dense
    networks. Methods have the same colours in every figure of a table.

    Args:
        table: from `Retrained.table`.
        value: which column: accuracy, recovery_family, ...
        ax: axes to draw on.

    Raises:
        PrecodeValueError: there is no such column.
    """
    if missing := [name for name in dict.fromkeys(("method", "density", value)) if name not in table]:
        raise PrecodeValueError(f"no column {', '.join(missing)}: there are {', '.join(map(str, table.columns))}")
    ax = _axes(ax, figsize=(6.4, 4.2))
    groups = {str(name): group for name, group in table.groupby("method", sort=False)}
    plain = [name for name in groups if name.partition(":")[0] not in groups or ":" not in name]
    for name, group in groups.items():
        number = plain.index(name if name in plain else name.partition(":")[0])
        marker = "osD^v"[number // 10 % 5]
        style = {"linestyle": ":" if ":" in name else "-", "marker": marker, "markersize": 3.5}
        _line(ax, group.groupby("density")[value], f"C{number % 10}", label=name, **style)
    if value == "accuracy" and "dense_accuracy" in table:
        dense = table["dense_accuracy"].mean()
        ax.axhline(dense, color="black", linestyle="--", linewidth=1, label="dense networks")
    densities = sorted(table["density"].unique())
    ax.set_xscale("log")
    ax.set_xticks(densities, [f"{density:.3g}" for density in densities])
    ax.minorticks_off()
    ax.invert_xaxis()
    ax.set_xlabel("density: fraction of weights kept")
    ax.set_ylabel(_LABELS.get(value, value.replace("_", " ")))
    ax.legend(frameon=False, fontsize="small")
    return ax


def weights(codes: Codes, network: int = 0, *, ax: Axes | None = None) -> Axes:
    """Sorted heat map of a network's first layer in feature space.

    Columns are variables, grouped by the clause that they occur in first, whose number stands above. Rows are neurons:
    positive ones above the line, each polarity ordered by the first clause whose code the neuron carries. Frames mark
    the variables of every clause whose all-positive template the neuron carries. Colours end at the 99th percentile.

    Args:
        codes: from `precode.decode` or `Runs.codes`.
        network: which network of a stack.
        ax: axes to draw on.
    """
    ax = _axes(ax, figsize=(7.2, 5.4))
    features, output, clauses, carried = _one(codes, network)
    groups = _groups(clauses, features.shape[1])
    order = [variable for group in groups for variable in group]
    rows = _sorted_rows(output, carried)
    limit = float(np.quantile(np.abs(features), 0.99)) or 1.0
    image = ax.imshow(features[rows][:, order], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for clause, row in zip(*np.nonzero(carried[:, rows]), strict=True):
        for start, stop in _stretches(sorted(order.index(_variable(literal)) for literal in clauses[clause])):
            ax.add_patch(_frame(start, row, stop - start))
    edge = -0.5
    for clause, group in enumerate(groups):
        if group and clause < len(clauses):
            ax.text(edge + len(group) / 2, -0.8, str(clause), ha="center", va="bottom", fontsize="x-small")
        edge += len(group)
        ax.axvline(edge, color="black", linewidth=0.3)
    positive = int((output >= 0).sum())
    ax.axhline(positive - 0.5, color="black", linewidth=1.2)
    ax.set_xticks(range(len(order)), [str(variable) for variable in order], fontsize="xx-small", rotation=90)
    ax.set_yticks(range(len(rows)), [str(row) for row in rows], fontsize=5 if len(rows) > 24 else "x-small")
    ax.set_xlabel("variable, grouped by clause (number above)")
    ax.set_ylabel(f"neuron, sorted; {positive} positive above the line")
    ax.figure.colorbar(image, ax=ax, label="weight in feature space", shrink=0.8, extend="both")
    return ax


def channels(codes: Codes, network: int = 0, *, template: str | None = None, ax: Axes | None = None) -> Axes:
    """The codes of one network, clauses by neurons: filled where the neuron carries the clause's template.

    Neurons stand in the order of `weights`; those of the other polarity, which cannot carry the template, are shaded.

    Args:
        codes: from `precode.decode` or `Runs.codes`.
        network: which network of a stack.
        template: see `Codes.channels`.
        ax: axes to draw on.
    """
    ax = _axes(ax, figsize=(6.4, 3.2))
    _, output, clauses, carried = _one(codes, network)
    rows = _sorted_rows(output, carried)
    name = template or codes.templates[0]
    found = codes.channels(template)
    bits = (found[network] if found.ndim == 3 else found)[:, rows]
    ax.imshow(bits, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="none")
    positive = int((output >= 0).sum())
    other = (positive - 0.5, len(rows) - 0.5) if "N" not in name else (-0.5, positive - 0.5)
    ax.axvspan(*other, color="0.9", zorder=2)
    ax.set_xticks(range(len(rows)), [str(row) for row in rows], fontsize="xx-small", rotation=90)
    ax.set_yticks(range(len(clauses)), [str(clause) for clause in range(len(clauses))], fontsize="x-small")
    ax.set_xticks(np.arange(len(rows)) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(clauses)) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=0.8)
    ax.tick_params(which="minor", length=0)
    ax.set_xlabel("neuron, sorted; shaded: the other polarity")
    ax.set_ylabel("clause")
    ax.set_title(f"{name}: {bits.sum()} locations, {bits.sum(1).mean():.1f} rows per clause", fontsize="medium")
    return ax


def _one(codes: Codes, network: int) -> tuple[Any, Any, list[list[int]], Any]:
    """Features, output weights, clauses and all-positive channels of one network of a stack, or of the only one."""
    source = codes._readout
    found = codes.channels()
    clauses = source.sets[network if len(source.sets) > 1 else 0]
    return source.features[network], source.output[network], clauses, found[network] if source.stacked else found


def _variable(literal: int) -> int:
    return literal if literal >= 0 else ~literal


def _groups(clauses: list[list[int]], variables: int) -> list[list[int]]:
    """Variables by the clause that they occur in first; the last group is in no clause."""
    seen: set[int] = set()
    groups = []
    for clause in clauses:
        groups.append([v for v in map(_variable, clause) if v not in seen])
        seen.update(groups[-1])
    return [*groups, [v for v in range(variables) if v not in seen]]


def _sorted_rows(output: Any, carried: Any) -> Any:
    """Positive rows first, each polarity by the first clause whose code the row carries."""
    first = np.where(carried.any(0), carried.argmax(0), len(carried))
    return np.lexsort((first, output < 0))


def _stretches(columns: list[int]) -> list[tuple[int, int]]:
    """Runs of neighbouring columns, each as (first, one past the last)."""
    breaks = [i for i in range(1, len(columns)) if columns[i] != columns[i - 1] + 1]
    bounds = [0, *breaks, len(columns)]
    return [(columns[a], columns[b - 1] + 1) for a, b in pairwise(bounds)]


def _frame(column: int, row: int, width: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), width, 1, fill=False, edgecolor="black", linewidth=0.9)
