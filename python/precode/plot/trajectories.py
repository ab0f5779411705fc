"""Curves and dynamics beside the published ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from precode.experiments import published
from precode.plot.axes import LABELS, axes, line, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _label(column: str) -> str:
    if column in LABELS:
        return LABELS[column]
    pattern, _, polarity = column.partition("_")
    return f"{pattern} rows per clause, {polarity} rows"


def curves(
    trials: pd.DataFrame, column: str = "4P_positive", *, reference: bool = True, ax: Axes | None = None
) -> Axes:
    """A column against the number of clauses, one line a hidden width, with the published points.

    Lines are means over trials, bands their 95 % interval; crosses are published values read
    off the figures by eye; dotted lines are the measured random baseline.

    Args:
        trials: `Curves.trials`.
        column: which one.
        reference: draw published points where there are some for the column.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: there is no such column.

    Example:
        >>> table = pd.DataFrame({"hidden": 32, "clauses": [4, 4, 8, 8], "trial": [0, 1, 0, 1], "train_error": 0.0})
        >>> curves(table, "train_error").get_ylabel()
        'training error'
    """
    require(trials, column)
    ax = axes(ax)
    points = published.curves()
    for number, (hidden, group) in enumerate(trials.groupby("hidden")):
        color = f"C{number}"
        line(ax, group.groupby("clauses")[column], color, label=f"{hidden} rows", marker="o", markersize=3.5)
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

    Lines are means over trials, bands their 95 % interval.

    Args:
        table: from `precode.dynamics`.
        columns: patterns to draw.
        reference: draw the published points.
        ax: axes to draw on; the loss gets a second vertical axis.

    Raises:
        PrecodeValueError: there is no such column.

    Example:
        >>> from precode import dynamics as measured
        >>> table = measured(trials=2, moments=[0, 1], samples=640)
        >>> dynamics(table, columns=("4P_positive",)).get_xlabel()
        'epoch'
    """
    require(table, *columns, "train_bce")
    ax = axes(ax)
    points = published.dynamics()
    epochs = table.groupby("epoch")
    for number, column in enumerate(columns):
        line(ax, epochs[column], f"C{number}", label=column.replace("_", ", "))
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
