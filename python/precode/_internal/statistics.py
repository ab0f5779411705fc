"""The one kind of interval of all verdicts, tables and figures, and the means that it is taken over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.errors import PrecodeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CELL = ["hidden", "clauses", "embedding"]
"""Columns that say which cell of a study a row belongs to."""

CONFIDENCE = 0.95
RESAMPLES = 9999


def interval(
    values: ArrayLike, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Ends of the interval of a mean: at each end the wider of a bootstrap and a t interval.

    The bootstrap is bias-corrected and accelerated (Efron 1987, J. Am. Stat. Assoc. 82:171), as in
    `scipy.stats.bootstrap`; of some ten values alone it is a little too narrow. Student's interval alone takes the
    values for normal. The wider end of the two is our choice.

    Args:
        values: independent ones, such as one for each formula; those that are not finite are left out.
        confidence: in (0, 1).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Lower and upper end; NaN where there are fewer than two values, and the mean where all are equal.

    Raises:
        PrecodeError: SciPy is not installed.

    Example:
        >>> [round(end, 2) for end in interval([0.0] * 5 + [1.0] * 5)]
        [0.12, 0.88]
        >>> interval([0.5, 0.5])
        (0.5, 0.5)
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    array = array[np.isfinite(array)]
    if len(array) < 2:
        return math.nan, math.nan
    mean = float(array.mean())
    if np.ptp(array) <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise PrecodeError("intervals need SciPy: pip install 'precode[plot]'") from error
    half = float(stdtrit(len(array) - 1, (1 + confidence) / 2) * array.std(ddof=1) / math.sqrt(len(array)))
    low, high = _accelerated(array, confidence, resamples, seed)
    return min(mean - half, low), max(mean + half, high)


def _accelerated(array: NDArray[np.float64], confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    """Ends of the bias-corrected accelerated bootstrap interval; infinitely narrow where it is not defined."""
    from scipy.special import ndtr, ndtri

    means = _resampled(len(array), resamples, seed) @ array / len(array)
    mean = array.mean()
    bias = ndtri(((means < mean).mean() + (means <= mean).mean()) / 2)
    # Jackknife means differ from their mean by (value - mean) / (n - 1).
    skew = array - mean
    acceleration = (skew**3).sum() / (6 * (skew**2).sum() ** 1.5)
    tail = ndtri((1 - confidence) / 2)
    shares = [ndtr(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in (tail, -tail)]
    if not np.isfinite(shares).all():
        return math.inf, -math.inf
    low, high = np.quantile(means, shares)
    return float(low), float(high)


@lru_cache(maxsize=64)
def _resampled(count: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each of some values is in each resample, (resamples, count); the same for all means."""
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    times = np.zeros((resamples, count))
    np.add.at(times, (np.arange(resamples)[:, None], drawn), 1.0)
    return times


def formula_means(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    """Means of columns in every cell and formula, then over the cells of each formula number, indexed by both.

    Networks of different cells that share a formula number count as one unit, so that cells whose formulas are the
    same do not pass for independent ones; and all cells weigh the same, however many rows they have.

    Args:
        table: with column formula, and columns of `CELL` where there are several cells.
        by: columns of the groups that are kept apart.
        columns: what the means are of.

    Example:
        >>> table = pd.DataFrame({"hidden": [16, 16, 32], "formula": [0, 0, 0], "share": [0.0, 1.0, 1.0]})
        >>> formula_means(table, [], ["share"])["share"].tolist()
        [0.75]
    """
    keys = [name for name in (*CELL, "formula") if name in table and name not in by]
    within = table.groupby([*by, *keys], observed=True)[list(columns)].mean()
    means: pd.DataFrame = within.groupby([*by, "formula"], observed=True).mean()
    return means


def with_intervals(means: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """Mean and interval over formulas of a column for every group: columns `by`, mean, low and high.

    Args:
        means: of `formula_means`, or one row a unit with the columns `by`.
        by: columns or levels of the groups.
        column: what the mean is of.

    Example:
        >>> table = pd.DataFrame({"dose": 1, "share": [0.0, 1.0] * 5})
        >>> with_intervals(table, ["dose"], "share").round(2).values.tolist()
        [[1.0, 0.5, 0.12, 0.88]]
    """
    rows: list[dict[str, Any]] = []
    for key, values in means.groupby(list(by), observed=True)[column]:
        low, high = interval(values)
        rows.append({**dict(zip(by, key, strict=True)), "mean": values.mean(), "low": low, "high": high})
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high"])
