"""What all figures share: axes, colours, and what columns are called in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.errors import PrecodeError, PrecodeValueError
from precode._internal.statistics import formula_means, interval, with_intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

LABELS = {
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
    "retention": "codes that survive the mask",
    "dead_rows": "dead rows",
    "dense_epochs": "epochs of training that finding took",
}

# The palette of Okabe and Ito, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, YELLOW, GRAY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#B22222",
    "#CC79A7",
    "#E69F00",
    "#777777",
)

NULLS = {
    "analytic": ("random signs (analytic)", "black", "s"),
    "random_network": ("random network", PURPLE, "D"),
    "permuted_rows": ("codes on random rows", GREEN, "^"),
    "swapped_clauses": ("codes read for false clauses", YELLOW, "v"),
    "false_clauses": ("patterns at false clauses", ORANGE, "o"),
    "permuted_demand": ("crowding permuted", GRAY, "^"),
    "permuted_interference": ("interference permuted", GRAY, "^"),
}
"""Every null in words, with its colour and marker in all figures."""


def pyplot() -> Any:
    """The module ``matplotlib.pyplot``.

    Raises:
        PrecodeError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise PrecodeError("figures need matplotlib: pip install 'precode[plot]'") from error
    return plt


def axes(ax: Axes | None, **size: Any) -> Axes:
    """The axes to draw on: those given, or new ones.

    Raises:
        PrecodeError: new ones are needed, and matplotlib is not installed.
    """
    return pyplot().subplots(layout="constrained", **{"figsize": (6.4, 4.2), **size})[1] if ax is None else ax


def require(table: pd.DataFrame, *columns: str) -> None:
    """Refuses a table that lacks columns.

    Raises:
        PrecodeValueError: the message names them.
    """
    if missing := [name for name in dict.fromkeys(columns) if name not in table]:
        raise PrecodeValueError(
            f"no column {', '.join(map(repr, missing))}: there are {', '.join(map(str, table.columns))}"
        )


def require_rows(table: pd.DataFrame, what: str) -> None:
    """Refuses a table of which nothing can be drawn.

    Raises:
        PrecodeValueError: it is empty; the message says of what.
    """
    if table.empty:
        raise PrecodeValueError(f"there are no {what} to draw: pass a table that has some")


def line(ax: Axes, values: Any, color: str, **style: Any) -> None:
    """Means of grouped values with their 95 % interval as a band."""
    mean = values.mean()
    ends = np.array([interval(group) for _, group in values]).T
    ax.plot(mean.index, mean, color=color, **style)
    ax.fill_between(mean.index, *ends, color=color, alpha=0.2, linewidth=0)


def over_formulas(table: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """Means over formulas with their 95 % interval: columns `by`, mean, low and high.

    The cells of a study that share a formula's number count as one formula, as for the claims.
    """
    return with_intervals(formula_means(table, by, [column]), by, column)


def points(ax: Axes, at: ArrayLike, mean: ArrayLike, low: ArrayLike, high: ArrayLike, **style: Any) -> Any:
    """Points with intervals as vertical bars, or horizontal ones with ``across=True``; none where an end is NaN."""
    middle, ends = np.asarray(mean, dtype=float), [np.asarray(end, dtype=float) for end in (low, high)]
    # A bar cannot have a negative length, not even by rounding.
    bars = np.maximum([middle - ends[0], ends[1] - middle], 0)
    across = style.pop("across", False)
    style = {"capsize": 2.5, "markersize": 5, "linewidth": 1.2, **style}
    if across:
        return ax.errorbar(middle, at, xerr=bars, **style)
    return ax.errorbar(at, middle, yerr=bars, **style)


def offsets(count: int, half: float) -> Any:
    """Small shifts, so that intervals beside each other can be told apart."""
    return np.linspace(-half, half, count) if count > 1 else np.zeros(count)


ABOVE = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
"""Where a legend hides nothing."""


def legend(ax: Axes, **style: Any) -> None:
    """The legend of every figure, outside the axes: above them, or beside them where it is long."""
    long = len(ax.get_legend_handles_labels()[0]) > 6
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if long else {**ABOVE, "ncols": 3}
    ax.legend(**{"frameon": False, "fontsize": "small", **place, **style})
