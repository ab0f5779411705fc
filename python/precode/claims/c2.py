"""C2: near locations converge to codes or are rejected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode import plot
from precode._internal.statistics import CELL, formula_means
from precode.claims.candidates import candidates, of_codes
from precode.claims.conditions import Asked, Condition
from precode.claims.records import Claim, Data, Figure, Finding, Shown, Tables, Value, Verdict
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import by_formula, estimate, measured, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def convergence(locations: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
    """P(code at the end) by template, initial distance and polarity, with intervals over formulas.

    Returns:
        One row a kind, template, polarity and distance (hamming): locations and codes (counts), formulas, share (mean
        over formulas), share_low and share_high (NaN where fewer formulas than needed have such locations).

    Example:
        >>> from precode.claims import synthetic_study
        >>> table = convergence(synthetic_study("planted", formulas=10, hidden=16, clauses=8).observations.locations)
        >>> near = table.query("kind == 'formula' and template == '4P' and polarity and hamming <= 1")["share"]
        >>> near.is_monotonic_decreasing
        True
    """
    keys = ["kind", "template", "polarity", "hamming"]
    table = locations.assign(share=locations["code"].astype(float))
    counts = table.groupby(keys, observed=True).agg(locations=("code", "size"), codes=("code", "sum")).reset_index()
    return counts.merge(summarize(table, keys, ["share"], rules), on=keys)


def motion_curves(motion: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
    """Mean distance of near locations by kind, template, fate and moment, with intervals over formulas.

    Returns:
        One row a kind (of the formula, or of false clauses), template, fate and epoch: formulas, hamming, soft and the
        ends of their intervals, such as hamming_low (NaN where fewer formulas than needed have such locations).

    Example:
        >>> from precode.claims import synthetic_study
        >>> curves = motion_curves(synthetic_study("planted", formulas=10, hidden=16, clauses=8).observations.motion)
        >>> curves.query("kind == 'formula' and fate == 'converged' and epoch == inf")["hamming"].tolist()
        [0.0, 0.0, 0.0]
    """
    return summarize(motion, ["kind", "template", "fate", "epoch"], ["hamming", "soft"], rules)


def judged(data: Data, rules: Rules) -> Finding:
    """Whether near locations become codes.

    Details: those of `convergence`. Tables: ``motion``, see `motion_curves`.
    """
    seen = data.observations
    near, far = _converging(candidates(seen.locations, "formula", rules.polarities))
    false_near, false_far = _converging(candidates(seen.locations, "false", rules.polarities))
    difference = estimate(near - far, rules)
    under = {
        "false_clauses": false_near - false_far,
        **{name: _difference(seen.nulls, name, rules) for name in ("permuted_rows", "random_network")},
    }
    nulls = {**{name: float(values.mean()) for name, values in under.items()}, "analytic": 0.0}
    strongest = max(under, key=lambda name: nulls[name] if np.isfinite(nulls[name]) else -np.inf)
    estimates = {
        "difference": difference,
        "beyond": measured(near - far - under[strongest], rules),
        "above false": measured(near - false_near, rules),
        "trend": measured(_falls(candidates(seen.locations, "formula", rules.polarities)), rules),
        "converged": measured(near, rules),
        "rejected": measured(1 - near, rules),
    }
    tables = {"motion": motion_curves(seen.motion, rules)}
    reason = f"{near.mean():.0%} of near locations converge, {false_near.mean():.0%} at false clauses"
    reason += f"; the strongest null is {strongest}"
    return Finding(difference, estimates, nulls, convergence(seen.locations, rules), tables, reason)


def _converging(table: pd.DataFrame) -> tuple[pd.Series[float], pd.Series[float]]:
    """P(code at the end) of near locations and of the others, by formula: means of every template's."""
    table = table.assign(code=table["code"].astype(float))
    near = table["near"].to_numpy(dtype=bool)
    first, second = (
        formula_means(table[chosen], ["template"], ["code"])["code"].groupby("formula").mean()
        for chosen in (near, ~near)
    )
    return first, second


def _difference(nulls: pd.DataFrame, name: str, rules: Rules) -> pd.Series[float]:
    """P(code | near) - P(code | not near) under a null, by formula: means of every template's."""
    chosen = (nulls["null"] == name).to_numpy() & of_codes(nulls["template"], rules.polarities).to_numpy()
    table = nulls[chosen].assign(near=nulls["distance"][chosen] <= rules.near)
    keys = [key for key in (*CELL, "template", "formula") if key in table]
    sums = table.groupby([*keys, "near"], observed=True)[["codes", "locations"]].sum()
    shares = (sums["codes"] / sums["locations"].where(sums["locations"] > 0)).rename("share").reset_index()
    wide = shares.pivot_table(index=keys, columns="near", values="share", dropna=False, observed=True)
    wide = wide.reindex(columns=[True, False]).set_axis(["near", "far"], axis=1)
    return by_formula((wide["near"] - wide["far"]).rename("share").reset_index(), ["share"])["share"]


DISTANCES = 3
"""Distances that a formula must have locations at before a trend is told."""


def _falls(table: pd.DataFrame) -> pd.Series[float]:
    """How strictly P(code | distance) falls in each formula: minus Spearman's rank correlation of the two.

    Its mean over formulas is the statistic of Page's trend test. Cells of a formula weigh the same, and its templates.
    """
    table = table.assign(code=table["code"].astype(float), template=table["template"].astype(str))
    means = formula_means(table, ["template", "hamming"], ["code"]).reset_index()
    rates = means.pivot_table(index=["template", "formula"], columns="hamming", values="code", observed=True)
    return rates.apply(_fall, axis=1).groupby("formula").mean()


def _fall(rates: pd.Series[float]) -> float:
    known = rates.dropna()
    if len(known) < DISTANCES:
        return float("nan")
    if np.ptp(known) == 0:  # rates that are all the same do not fall
        return 0.0
    return -float(np.corrcoef(known.rank(), np.arange(len(known)))[0, 1])


def asks(own: Mapping[str, Any]) -> Asked:
    """The conditions of C2."""
    difference = "the difference P(code | near) - P(code | not near)"
    trend = "the rank correlation of P(code | distance) with distance, sign reversed,"
    return Asked(
        holds=[
            Condition("difference", difference, own["holds"]),
            Condition("beyond", f"{difference}, above that under the strongest null,", own["beyond"]),
            Condition("above false", "P(code | near), above that at false clauses,", own["beyond"]),
            Condition("trend", trend, own["trend"]),
            Condition("converged", "the share of near locations that converge", own["fates"], own["fates"]),
            Condition("rejected", "the share of near locations that are rejected", own["fates"], own["fates"]),
        ],
        partly=[Condition("difference", difference, own["partly"])],
    )


def _convergence(verdict: Verdict, study: Tables) -> Axes:
    return plot.convergence(verdict.details, study.table("nulls") if "nulls" in study.tables else None)


CLAIM = Claim(
    name="C2",
    statement="Near locations converge to codes or are rejected.",
    reported="the abstract: dense training converges near locations to codes or rejects them; no numbers are public",
    measure="P(code at the end | near) - P(code at the end | not near), rows of the right polarity",
    choices={
        "holds": Value(0.1, "least difference for 'holds'"),
        "partly": Value(0.03, "least difference for 'partly'"),
        "beyond": Value(0.03, "least difference beyond the strongest null, and from near locations of false clauses"),
        "trend": Value(0.5, "least rank correlation of convergence and distance, sign reversed"),
        "fates": Value(0.05, "least share of either fate among near locations"),
    },
    test=judged,
    asks=asks,
    question="Does a near location become a code more often than a far one, and what happens to those that do not?",
    words="Of all locations whose row has the right polarity we count how many become codes, near ones and others. "
    "A near location converges when its code is there at the end, and is rejected otherwise [ours]. The effect is "
    "the difference of the two shares.",
    nulls={
        "false_clauses": Shown("patterns at false clauses"),
        "permuted_rows": Shown("codes on random rows"),
        "random_network": Shown("random network"),
        "analytic": Shown("random signs (analytic)"),
    },
    figures=(
        Figure("How likely a location is a code at the end, by its distance at initialization.", _convergence),
        Figure(
            "How the distance of near locations changes in training, for those that become codes and those that do "
            "not: wrong signs. Dotted: the same at false clauses.",
            lambda verdict, study: plot.motion(verdict.table("motion")),
        ),
        Figure(
            "The same, counted in weight that has the wrong sign.",
            lambda verdict, study: plot.motion(verdict.table("motion"), "soft"),
        ),
    ),
)
"""The record. It is true under the law of C1."""
