"""Logistic regression with an intercept for every formula, and its coefficient divided among formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import expit, xlogy

from precode.claims.statistics import NotEnoughData, standardized

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS = 100
"""Newton steps after which a regression counts as one that does not converge."""

LARGEST = 30.0
"""Magnitude of a coefficient of standardized covariates, in log-odds, beyond which classes count as separated."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A logistic regression.

    Attributes:
        slopes: of the covariates, (p,).
        intercepts: of the groups that have both outcomes, by their number in the order of the groups; NaN for others.
        likelihood: log-likelihood of the rows in groups that have both outcomes.
    """

    slopes: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    likelihood: float


def fit(
    outcome: NDArray[np.bool_],
    covariates: NDArray[np.float64],
    group: NDArray[Any],
    *,
    conditional: bool = True,
    ridge: float = 0.0,
    start: Fit | None = None,
) -> Fit:
    """Logistic regression with an intercept for every group.

    Estimating the intercepts biases the slopes of small groups away from 0. The conditional likelihood, which is free
    of the intercepts, is therefore approximated by the profile likelihood plus half the log of each intercept's
    information (Davison 1988, J. R. Stat. Soc. B 50:445): the double saddlepoint approximation, which is within a few
    percent of statsmodels' `ConditionalLogit` for groups of six rows and takes the time of an ordinary regression.

    Args:
        outcome: (N,).
        covariates: (N, p).
        group: (N,); groups of one outcome only say nothing about slopes and are left out.
        conditional: False for the plain profile likelihood.
        ridge: penalty on half the sum of squared slopes.
        start: a fit of about the same groups to start from.

    Raises:
        NotEnoughData: no group has both outcomes, covariates are constant or collinear, or they separate the classes.

    Example:
        >>> x = np.tile(np.repeat([0.0, 1.0], 4), 50)[:, None]
        >>> y = np.tile(np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=bool), 50)
        >>> found = fit(y, x, np.zeros(400), conditional=False)
        >>> round(float(found.slopes[0]), 4)  # log(9)
        2.1972
    """
    names, number = np.unique(group, return_inverse=True)
    size, ones = np.bincount(number), np.bincount(number, weights=outcome)
    mixed = (ones > 0) & (ones < size)
    kept = np.flatnonzero(mixed[number])
    if not len(kept):
        raise NotEnoughData("no formula has both outcomes")
    # Rows of a group beside each other, so that sums over groups are sums over slices.
    kept = kept[np.argsort(number[kept], kind="stable")]
    y, x, of = outcome[kept].astype(np.float64), covariates[kept], np.cumsum(mixed)[number[kept]] - 1
    first = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    centred = x - (np.add.reduceat(x, first) / np.diff(np.r_[first, len(x)])[:, None])[of]
    if not ridge and np.linalg.matrix_rank(centred) < x.shape[1]:
        raise NotEnoughData("covariates are constant or collinear")
    share = ones[mixed] / size[mixed]
    slopes, intercepts = np.zeros(x.shape[1]), np.log(share / (1 - share))
    if start is not None and len(start.intercepts) == len(names):
        slopes, intercepts = (
            start.slopes.copy(),
            np.where(np.isfinite(start.intercepts[mixed]), start.intercepts[mixed], intercepts),
        )
    for _ in range(STEPS):
        chance = expit(intercepts[of] + x @ slopes)
        weight, left = chance * (1 - chance), y - chance
        total = np.maximum(np.add.reduceat(weight, first), 1e-12)
        mean = np.add.reduceat(weight[:, None] * x, first) / total[:, None]
        missing = np.add.reduceat(left, first)
        away = x - mean[of]
        score = away.T @ left - ridge * slopes
        if conditional:
            score += away.T @ (weight * (1 - 2 * chance) / (2 * total[of]))
        try:
            step = np.linalg.solve((weight[:, None] * away).T @ away + ridge * np.eye(len(slopes)), score)
        except np.linalg.LinAlgError as error:
            raise NotEnoughData("the covariates separate the classes") from error
        step /= max(1.0, np.abs(step).max() / 2)
        slopes, intercepts = slopes + step, intercepts + missing / total - mean @ step
        if not np.isfinite(slopes).all() or np.abs(slopes).max() > LARGEST:
            raise NotEnoughData("the covariates separate the classes")
        if np.abs(step).max() < 1e-7 and np.abs(missing).max() < 1e-6 * len(y):
            break
    else:
        raise NotEnoughData("the logistic regression does not converge")
    chance = expit(intercepts[of] + x @ slopes)
    likelihood = float(xlogy(y, chance).sum() + xlogy(1 - y, 1 - chance).sum())
    known = np.full(len(names), np.nan)
    known[mixed] = intercepts
    return Fit(slopes, known, likelihood)


def slopes(table: pd.DataFrame, outcome: str, covariates: Sequence[str]) -> pd.Series[Any]:
    """The first covariate's logistic coefficient in one cell, as jackknife pseudo-values of its formulas.

    Covariates are standardized in every formula, and every formula has its own intercept, so that differences between
    formulas do not count. The pooled coefficient and those without each formula give pseudo-values
    n b - (n - 1) b_without: their mean and spread over formulas are those of the pooled coefficient, and a bootstrap of
    them resamples whole formulas.

    Args:
        table: locations of one cell, with column formula.
        outcome: a Boolean column.
        covariates: columns, the one of interest first.

    Returns:
        One value for each formula that has both outcomes.

    Raises:
        NotEnoughData: some regression cannot be estimated.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> table = pd.DataFrame({"formula": np.repeat(range(10), 200), "x": rng.normal(size=2000)})
        >>> table["y"] = rng.random(2000) < 1 / (1 + np.exp(-table["x"]))
        >>> bool(0.8 < slopes(table, "y", ["x"]).mean() < 1.2)
        True
    """
    mixed = table.groupby("formula")[outcome].transform("nunique") > 1
    table = table[mixed.to_numpy()]
    design = standardized(table, covariates).to_numpy()
    target, formula = table[outcome].to_numpy(dtype=bool), table["formula"].to_numpy()
    numbers = np.unique(formula)
    if len(numbers) < 2:
        raise NotEnoughData(f"{len(numbers)} formulas of the cell have both outcomes")
    pooled = fit(target, design, formula)
    without = []
    for place, number in enumerate(numbers):
        rest = formula != number
        start = Fit(pooled.slopes, np.delete(pooled.intercepts, place), 0.0)
        without.append(fit(target[rest], design[rest], formula[rest], start=start).slopes[0])
    values = len(numbers) * pooled.slopes[0] - (len(numbers) - 1) * np.array(without)
    return pd.Series(values, index=pd.Index(numbers, name="formula"))


def intercept(outcome: NDArray[np.bool_], offset: NDArray[np.float64]) -> float:
    """The one intercept beside known log-odds that gives as many of the outcome as there are.

    Raises:
        NotEnoughData: one outcome only.

    Example:
        >>> round(intercept(np.array([True, False]), np.array([1.0, 1.0])), 6)
        -1.0
    """
    if outcome.all() or not outcome.any():
        raise NotEnoughData("one outcome only")
    value = 0.0
    for _ in range(STEPS):
        chance = expit(value + offset)
        step = (outcome.sum() - chance.sum()) / max((chance * (1 - chance)).sum(), 1e-12)
        value += float(np.clip(step, -2, 2))
        if abs(step) < 1e-9:
            break
    return value
