"""Statistics over formulas, from SciPy and statsmodels: the formula is the unit that everything is resampled by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from precode._internal.errors import PrecodeValueError
from precode._internal.statistics import CELL, formula_means, interval
from precode.claims.rules import Rules, RulesLike

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class NotEnoughData(Exception):  # noqa: N818 - a finding, not a mistake of the caller
    """A claim cannot be judged; the message says what is missing."""


@dataclass(frozen=True)
class Estimate:
    """A mean over formulas with its interval.

    Attributes:
        value: mean.
        low: lower end; see `precode._internal.statistics.interval`.
        high: upper end.
        formulas: how many.
        values: of the formulas.
        rules: confidence, resamples and seed of the interval.
    """

    value: float
    low: float
    high: float
    formulas: int
    values: NDArray[np.float64] = field(repr=False, compare=False)
    rules: Rules = field(repr=False, compare=False)

    def ends(self, share: float = 1.0) -> tuple[float, float]:
        """Ends of the interval at a share of the level: where there are several ways to a verdict, each has its own.

        Example:
            >>> low, high = estimate([0.2, 0.3] * 5).ends(0.5)
            >>> low < estimate([0.2, 0.3] * 5).low
            True
        """
        if share == 1:
            return self.low, self.high
        return _ends(self.values, self.rules, share)


def _ends(values: NDArray[np.float64], rules: Rules, share: float = 1.0) -> tuple[float, float]:
    return interval(values, 1 - share * (1 - rules.confidence), rules.resamples, rules.seed)


def estimate(values: ArrayLike, rules: RulesLike = None) -> Estimate:
    """Mean over formulas with its interval.

    Args:
        values: one value for each formula; NaN where a formula has none.
        rules: for confidence, resamples, seed and the least number of formulas; see `load_rules`.

    Raises:
        NotEnoughData: fewer formulas than the rules ask for.

    Example:
        >>> found = estimate([0.0] * 5 + [1.0] * 5)
        >>> found.value, round(found.low, 2), round(found.high, 2), found.formulas
        (0.5, 0.12, 0.88, 10)
    """
    rules = Rules.of(rules)
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    if len(array) < rules.formulas:
        raise NotEnoughData(f"{len(array)} formulas with a value, {rules.formulas} are needed")
    return Estimate(float(array.mean()), *_ends(array, rules), len(array), array, rules)


def by_formula(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means of columns in every cell and formula, then over the cells of each formula number.

    Example:
        >>> table = pd.DataFrame({"hidden": [16, 16, 32], "formula": [0, 0, 0], "share": [0.0, 1.0, 1.0]})
        >>> by_formula(table, ["share"])["share"].tolist()
        [0.75]
    """
    return formula_means(table, [], columns)


def measured(values: ArrayLike, rules: RulesLike = None) -> Estimate | None:
    """`estimate`, or None where there are too few formulas.

    Example:
        >>> measured([0.0]) is None
        True
    """
    try:
        return estimate(values, rules)
    except NotEnoughData:
        return None


def summarize(table: pd.DataFrame, by: Sequence[str], columns: Sequence[str], rules: RulesLike = None) -> pd.DataFrame:
    """Means of columns with intervals over formulas, for every group.

    Returns:
        One row a group: its columns, formulas (how many have it), and for each column its mean over formulas and the
        ends of the interval, such as share, share_low and share_high (NaN where there are too few formulas).

    Example:
        >>> table = pd.DataFrame({"dose": 1, "formula": range(10), "share": [0.0, 1.0] * 5})
        >>> summarize(table, ["dose"], ["share"]).round(2).values.tolist()
        [[1.0, 10.0, 0.5, 0.12, 0.88]]
    """
    rules = Rules.of(rules)
    means = formula_means(table, by, columns)
    rows = []
    for values, part in means.groupby(list(by), observed=True):
        row: dict[str, Any] = {**dict(zip(by, values, strict=True)), "formulas": len(part)}
        for name in columns:
            row[name], row[f"{name}_low"], row[f"{name}_high"] = part[name].mean(), float("nan"), float("nan")
            if part[name].notna().sum() >= rules.formulas:
                found = estimate(part[name], rules)
                row[f"{name}_low"], row[f"{name}_high"] = found.low, found.high
        rows.append(row)
    return pd.DataFrame(rows)


def require(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuses a table that lacks columns.

    Raises:
        PrecodeValueError: the message names what is missing.

    Example:
        >>> require(pd.DataFrame({"a": []}), ["a"], "locations")
    """
    if missing := [name for name in columns if name not in table]:
        raise PrecodeValueError(f"{what} lacks {', '.join(missing)}: it has {', '.join(map(str, table))}")


def require_one(table: pd.DataFrame, keys: Sequence[str], what: str) -> None:
    """Refuses a table with several rows where one is needed, as where columns of the cell are missing.

    Raises:
        PrecodeValueError: the message names the first such rows.

    Example:
        >>> require_one(pd.DataFrame({"method": ["imp", "snip"]}), ["method"], "tickets")
    """
    twice = table[table.duplicated(list(keys))]
    if len(twice):
        first = ", ".join(f"{name} {twice[name].iloc[0]}" for name in keys)
        missing = [name for name in CELL if name not in table]
        remedy = f": columns {', '.join(missing)} must say which cell they are of" if missing else ""
        raise PrecodeValueError(f"{what} has several rows of {first}{remedy}")


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """P-values corrected for their number (Holm 1979, Scand. J. Stat. 6:65).

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(corrected, 1.0)


def aucs(labels: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Area under the ROC curve of every column of scores, small scores meaning a positive label.

    From the Mann-Whitney statistic (`scipy.stats.mannwhitneyu`), ties counting one half.

    Args:
        labels: Boolean (samples,).
        scores: (samples, columns).

    Returns:
        (columns,); NaN if there is one class only.

    Example:
        >>> aucs([True, False, False], [[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
        array([1.  , 0.25])
    """
    labels, scores = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    positive, negative = scores[labels], scores[~labels]
    if not len(positive) or not len(negative):
        return np.full(scores.shape[1], np.nan)
    statistic = stats.mannwhitneyu(positive, negative, axis=0, method="asymptotic").statistic
    return np.asarray(1 - statistic / (len(positive) * len(negative)))


def standardized(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Columns with mean 0 and standard deviation 1 in every formula; a constant column becomes 0.

    Example:
        >>> standardized(pd.DataFrame({"formula": [0, 0], "x": [1.0, 3.0]}), ["x"])["x"].tolist()
        [-1.0, 1.0]
    """
    groups = table.groupby("formula")[list(columns)]
    deviation = groups.transform("std", ddof=0)
    centred = table[list(columns)] - groups.transform("mean")
    return (centred / deviation.where(deviation > 0, np.inf)).astype(np.float64)


def cells(table: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Every cell of a table, each template by itself: its columns' values by name, and its rows.

    Example:
        >>> [cell for cell, _ in cells(pd.DataFrame({"hidden": [16, 32], "x": [0, 1]}))]
        [{'hidden': 16}, {'hidden': 32}]
    """
    keys = [name for name in (*CELL, "template") if name in table]
    if not keys:
        return [({}, table)]
    groups = table.groupby(keys, sort=True, observed=True)
    return [(dict(zip(keys, values, strict=True)), part) for values, part in groups]
