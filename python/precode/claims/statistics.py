"""Statistics over formulas, from SciPy and statsmodels: the formula is the unit that everything is resampled by."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

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

    def above(self, bound: float, share: float = 1.0) -> bool:
        """Whether the interval, at a share of the level, is above a bound.

        Example:
            >>> estimate([0.2, 0.3] * 5).above(0), estimate([-0.2, 0.3] * 5).above(0)
            (True, False)
        """
        return self.ends(share)[0] > bound

    def below(self, bound: float, share: float = 1.0) -> bool:
        """Whether the interval is below a bound, likewise."""
        return self.ends(share)[1] < bound


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


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Densities that agree although they were computed in another way.

    Example:
        >>> rounded(pd.DataFrame({"density": [0.1 + 0.2]}))["density"].tolist()
        [0.3]
    """
    return table.assign(density=table["density"].round(9))


def require(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuses a table that lacks columns.

    Raises:
        PrecodeValueError: the message names what is missing.

    Example:
        >>> require(pd.DataFrame({"a": []}), ["a"], "locations")
    """
    if missing := [name for name in columns if name not in table]:
        raise PrecodeValueError(f"{what} lacks {', '.join(missing)}: it has {', '.join(map(str, table))}")


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


def slope(outcome: NDArray[np.bool_], covariates: NDArray[np.float64]) -> float:
    """Coefficient of the first covariate in a logistic regression with an intercept (statsmodels GLM).

    Raises:
        NotEnoughData: the classes can be separated, or the covariates are collinear.

    Example:
        >>> x = np.repeat([0.0, 1.0], 4)[:, None]
        >>> round(slope(np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=bool), x), 4)  # log(9)
        2.1972
    """
    design = np.column_stack([np.ones(len(covariates)), covariates])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise NotEnoughData("covariates are constant or collinear")
    with warnings.catch_warnings():
        # A separable fit runs to infinity with warnings of several kinds; it is told by its predictions.
        warnings.simplefilter("ignore")
        fit = GLM(outcome.astype(np.float64), design, family=Binomial()).fit(maxiter=50)
        separated = np.array_equal(fit.fittedvalues > 0.5, outcome)
    if separated:
        raise NotEnoughData("the covariates separate the classes")
    if not fit.converged or not np.isfinite(fit.params).all():
        raise NotEnoughData("the logistic regression does not converge")
    return float(fit.params[1])


def slopes(table: pd.DataFrame, outcome: str, covariates: Sequence[str]) -> pd.Series[Any]:
    """The first covariate's logistic coefficient in one cell, as jackknife pseudo-values of its formulas.

    Covariates are standardized in every formula, so that differences between formulas do not count. The pooled
    coefficient and those without each formula give pseudo-values n b - (n - 1) b_without: their mean and spread over
    formulas are those of the pooled coefficient, and a bootstrap of them resamples whole formulas.

    Args:
        table: locations of one cell, with column formula.
        outcome: a Boolean column.
        covariates: columns, the one of interest first.

    Returns:
        One value for each formula.

    Raises:
        NotEnoughData: some regression cannot be estimated.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> table = pd.DataFrame({"formula": np.repeat(range(10), 200), "x": rng.normal(size=2000)})
        >>> table["y"] = rng.random(2000) < 1 / (1 + np.exp(-table["x"]))
        >>> bool(0.8 < slopes(table, "y", ["x"]).mean() < 1.2)
        True
    """
    if (table.groupby("formula").size() < 2).any():
        table = table[table.groupby("formula")["formula"].transform("size") > 1]
    design = standardized(table, covariates).to_numpy()
    target, formula = table[outcome].to_numpy(dtype=bool), table["formula"].to_numpy()
    numbers = np.unique(formula)
    if len(numbers) < 2:
        raise NotEnoughData(f"{len(numbers)} formulas in the cell")
    pooled = slope(target, design)
    without = np.array([slope(target[formula != number], design[formula != number]) for number in numbers])
    values = len(numbers) * pooled - (len(numbers) - 1) * without
    return pd.Series(values, index=pd.Index(numbers, name="formula"))


def cells(table: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Every cell of a table: its columns' values by name, and its rows.

    Example:
        >>> [cell for cell, _ in cells(pd.DataFrame({"hidden": [16, 32], "x": [0, 1]}))]
        [{'hidden': 16}, {'hidden': 32}]
    """
    keys = [name for name in CELL if name in table]
    if not keys:
        return [({}, table)]
    return [(dict(zip(keys, values, strict=True)), part) for values, part in table.groupby(keys, sort=True)]
