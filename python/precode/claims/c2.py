"""C2: near locations converge to codes or are rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from scipy import stats

from precode import plot
from precode.claims.candidates import candidates, of_positive_template
from precode.claims.records import Claim, Data, Figure, Finding, Shown, Tables, Value, Verdict
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import CELL, NotEnoughData, by_formula, estimate, summarize

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
    own = CLAIM.own(rules)
    table = candidates(data.observations.locations)
    table = table.assign(code=table["code"].astype(float))
    near = by_formula(table[table["near"]], ["code"])["code"]
    far = by_formula(table[~table["near"]], ["code"])["code"]
    false = candidates(data.observations.locations, "false")
    chance = by_formula(false[false["near"]].assign(code=lambda t: t["code"].astype(float)), ["code"])["code"]
    difference = estimate(near - far, rules)
    above_false = estimate(near - chance, rules)
    page = _trend(table)
    converged = float(near.mean())
    holds = {
        "the interval of the difference is above 0": difference.above(0),
        f"the difference is at least {own['holds']}": difference.value >= own["holds"],
        f"P(code | distance) falls with distance (Page, p = {page:.2g})": page < rules.alpha,
        f"either fate has {own['fates']:.0%} of the near locations": own["fates"] <= converged <= 1 - own["fates"],
        "near locations converge more often than at false clauses": above_false.above(0),
    }
    partly = {
        "the interval of the difference is above 0": difference.above(0),
        f"the difference is at least {own['partly']}": difference.value >= own["partly"],
    }
    false_far = by_formula(false[~false["near"]].assign(code=lambda t: t["code"].astype(float)), ["code"])["code"]
    nulls = {
        "false_clauses": float((chance - false_far).mean()),
        **{
            name: _difference(data.observations.nulls, name, rules.near) for name in ("permuted_rows", "random_network")
        },
        "analytic": 0.0,
    }
    tables = {"motion": motion_curves(data.observations.motion, rules)}
    reason = f"{converged:.0%} of near locations converge, {chance.mean():.0%} at false clauses"
    return Finding(difference, holds, partly, nulls, convergence(data.observations.locations, rules), tables, reason)


def _difference(nulls: pd.DataFrame, name: str, near: int) -> float:
    """P(code | near) - P(code | not near) of a null, mean over formulas."""
    table = nulls[(nulls["null"] == name).to_numpy() & of_positive_template(nulls["template"]).to_numpy()]
    keys = [key for key in (*CELL, "formula") if key in table]
    sums = table.assign(near=table["distance"] <= near).groupby([*keys, "near"])[["codes", "locations"]].sum()
    shares = (sums["codes"] / sums["locations"].where(sums["locations"] > 0)).rename("share").reset_index()
    wide = shares.pivot_table(index=keys, columns="near", values="share")
    return float((wide[True] - wide[False]).mean())


def _trend(table: pd.DataFrame) -> float:
    """P-value of Page's test that convergence falls with distance; blocks are formulas."""
    rates = table.pivot_table(index="formula", columns="hamming", values="code", aggfunc="mean", observed=True)
    # Distances that some formula has no location at are left out: the test needs full blocks.
    rates = rates.loc[:, rates.notna().all()]
    if rates.shape[1] < 3 or len(rates) < 2:
        raise NotEnoughData(f"{rates.shape[1]} distances occur in all {len(rates)} formulas, 3 are needed for a trend")
    ordered = rates.to_numpy()[:, ::-1]
    return float(stats.page_trend_test(ordered, method="asymptotic").pvalue)


def _convergence(verdict: Verdict, study: Tables) -> Axes:
    return plot.convergence(verdict.details, study.table("nulls") if "nulls" in study.tables else None)


CLAIM = Claim(
    name="C2",
    statement="Near locations converge to codes or are rejected.",
    measure="P(code at the end | near) - P(code at the end | not near), rows of the right polarity",
    rule="Holds if the difference is at least {holds} with an interval above 0, P(code | distance) falls with distance "
    "(Page's trend test over formulas, p < {alpha}), either fate has at least {fates} of the near locations, and near "
    "locations converge more often than near locations of false clauses, with an interval above 0; partly if the "
    "difference is at least {partly} with an interval above 0; otherwise it does not hold.",
    choices={
        "holds": Value(0.1, "least difference for 'holds'"),
        "partly": Value(0.03, "least difference for 'partly'"),
        "fates": Value(0.05, "least share of either fate among near locations"),
    },
    test=judged,
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
