"""Curves against clauses, widths and training time, alone or beside published points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from precode._internal.errors import PrecodeTypeError
from precode.plot.axes import LABELS, axes, legend, line, require, require_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _label(column: str) -> str:
    if column in LABELS:
        return LABELS[column]
    pattern, _, polarity = column.partition("_")
    return f"{pattern} rows per clause, {polarity} rows"


def _table(table: object, name: str, make: str) -> pd.DataFrame:
    """The table of an argument.

    Raises:
        PrecodeTypeError: something else; the message says what has such a table.
    """
    if not isinstance(table, pd.DataFrame):
        raise PrecodeTypeError(f"{name} must be a table, not {type(table).__name__}: pass {make}")
    return table


PUBLISHED = "published"
"""What published points are called in legends."""


def curves(
    trials: pd.DataFrame,
    column: str = "4P_positive",
    *,
    published: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A column against the number of clauses, one line a hidden width.

    Lines are means over trials, bands their 95 % interval; crosses are published values; dotted
    lines are the measured random baseline.

    Args:
        trials: `Curves.trials`.
        column: which one.
        published: points to draw beside, with the columns hidden, clauses and the one that is drawn; such as
            ``precode.published.curves()``. Where they lack that column, none are drawn.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: there is no such column, or there are no rows.
        PrecodeTypeError: not a table.

    Example:
        >>> table = pd.DataFrame({"hidden": 32, "clauses": [4, 4, 8, 8], "trial": [0, 1, 0, 1], "train_error": 0.0})
        >>> curves(table, "train_error").get_ylabel()
        'training error'
    """
    trials = _table(trials, "trials", "Curves.trials")
    require(trials, "hidden", "clauses", column)
    require_rows(trials, "trials")
    known = _beside(published, column, "hidden", "clauses")
    ax = axes(ax)
    for number, (hidden, group) in enumerate(trials.groupby("hidden")):
        color = f"C{number}"
        line(ax, group.groupby("clauses")[column], color, label=f"{hidden} rows", marker="o", markersize=3.5)
        if f"random_{column}" in group:
            random = group.groupby("clauses")[f"random_{column}"].mean()
            ax.plot(random.index, random, color=color, linestyle=":", linewidth=1)
        if known is not None:
            points = known[known["hidden"] == hidden]
            ax.plot(points["clauses"], points[column], "x", color=color)
    if known is not None:
        ax.plot([], [], "x", color="gray", label=PUBLISHED)
    if f"random_{column}" in trials:
        ax.plot([], [], ":", color="gray", label="random signs")
    ax.set_xlabel("clauses")
    ax.set_ylabel(_label(column))
    ax.set_ylim(bottom=0)
    legend(ax)
    return ax


def _beside(published: pd.DataFrame | None, column: str, *places: str) -> pd.DataFrame | None:
    """Published points of a column; None where there are none."""
    if published is None:
        return None
    table = _table(published, "published", "one such as precode.published.curves()")
    require(table, *places)
    return table if column in table else None


def scaling(trials: pd.DataFrame, *, published: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """Codes of both polarities and the test error against the hidden width, both axes logarithmic.

    Lines are means over trials, bands their 95 % interval; crosses are published values.

    Args:
        trials: one row a trial with the columns hidden, 4P_positive, 3N1P_negative and test_error, such as
            ``tables["scaling"]`` of `precode.experiments.curves`.
        published: points to draw beside, with the same columns; such as ``precode.published.scaling()``.
        ax: axes to draw on; the error gets a second vertical axis.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.
        PrecodeTypeError: not a table.

    Example:
        >>> table = pd.DataFrame({"hidden": [8, 16], "4P_positive": 1.0, "3N1P_negative": 2.0, "test_error": 0.1})
        >>> scaling(table).get_xlabel()
        'hidden rows'
    """
    trials = _table(trials, "trials", 'tables["scaling"] of precode.experiments.curves')
    columns = ("4P_positive", "3N1P_negative", "test_error")
    require(trials, "hidden", *columns)
    require_rows(trials, "trials")
    ax = axes(ax)
    right = ax.twinx()
    for number, column in enumerate(columns):
        on = right if column == "test_error" else ax
        color = "black" if column == "test_error" else f"C{number}"
        line(on, trials.groupby("hidden")[column], color, marker="o", markersize=3.5)
        ax.plot([], [], color=color, marker="o", markersize=3.5, label=_label(column))
        if (known := _beside(published, column, "hidden")) is not None:
            on.plot(known["hidden"], known[column], "x", color=color)
    if published is not None:
        ax.plot([], [], "x", color="gray", label=PUBLISHED)
    widths = sorted({*trials["hidden"], *([] if published is None else published["hidden"])})
    for drawn in (ax, right):
        drawn.set_yscale("log")
    ax.set_xscale("log")
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.minorticks_off()
    ax.set_xlabel("hidden rows")
    ax.set_ylabel("rows per clause")
    right.set_ylabel(LABELS["test_error"])
    legend(ax, ncols=2)
    return ax


def dynamics(
    table: pd.DataFrame,
    columns: tuple[str, ...] = ("4P_positive", "2P2N_positive", "3N1P_negative", "2P2N_negative"),
    *,
    published: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Patterns and training loss against the epoch.

    Lines are means over trials, bands their 95 % interval; crosses are published values.

    Args:
        table: from `precode.dynamics`, or one of your own with the columns epoch, train_bce and those of `columns`.
        columns: patterns to draw.
        published: points to draw beside, with the columns epoch, train_bce and patterns; such as
            ``precode.published.dynamics()``.
        ax: axes to draw on; the loss gets a second vertical axis.

    Raises:
        PrecodeValueError: a column is missing, or there are no rows.
        PrecodeTypeError: not a table.

    Example:
        >>> from precode import dynamics as measured
        >>> table = measured(trials=2, moments=[0, 1], samples=640)
        >>> dynamics(table, columns=("4P_positive",)).get_xlabel()
        'epoch'
    """
    table = _table(table, "table", "the result of precode.dynamics")
    columns = (columns,) if isinstance(columns, str) else tuple(columns)
    require(table, "epoch", "train_bce", *columns)
    require_rows(table, "moments")
    ax = axes(ax)
    epochs = table.groupby("epoch")
    for number, column in enumerate(columns):
        line(ax, epochs[column], f"C{number}", label=column.replace("_", ", "))
        if (known := _beside(published, column, "epoch")) is not None:
            ax.plot(known["epoch"], known[column], "x", color=f"C{number}")
    loss = ax.twinx()
    loss.plot(epochs["train_bce"].mean(), color="black", linestyle="--", linewidth=1)
    if (known := _beside(published, "train_bce", "epoch")) is not None:
        loss.plot(known["epoch"], known["train_bce"], "+", color="black", markersize=9)
    if published is not None:
        ax.plot([], [], "x", color="gray", label=f"{PUBLISHED} (loss: +)")
    ax.plot([], [], "--", color="black", linewidth=1, label="training loss (right)")
    loss.set_ylim(0, max(0.75, 1.05 * float(table["train_bce"].max())))
    loss.set_ylabel(LABELS["train_bce"])
    # Linear up to epoch 3, where most happens, logarithmic beyond.
    ax.set_xscale("symlog", linthresh=3)
    ax.set_xlim(0, max(1.05 * float(table["epoch"].max()), 0.1))
    ax.set_xticks([0, 1, 2, 3, 5, 10, 20], ["0", "1", "2", "3", "5", "10", "20"])
    ax.set_xlabel("epoch")
    ax.set_ylabel("rows per clause")
    ax.set_ylim(bottom=0)
    legend(ax)
    return ax
