"""C1 and C2: codes were near at initialization, and near locations converge or are rejected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from precode.claims.claim import Finding, claim
from precode.claims.observations import CONTROLS, METRICS, Observations
from precode.claims.rules import Rules, load_rules
from precode.claims.statistics import CELL, Estimate, NotEnoughData, aucs, by_formula, estimate, summarize


def candidates(locations: pd.DataFrame, kind: str = "formula") -> pd.DataFrame:
    """Locations that the claims are judged on: all-positive template, right polarity at initialization.

    Example:
        >>> table = pd.DataFrame({"kind": ["formula"] * 2, "template": ["4P", "3N1P"], "polarity": [True, True]})
        >>> candidates(table)["template"].tolist()
        ['4P']
    """
    chosen = (locations["kind"] == kind) & locations["polarity"].astype(bool) & _positive(locations["template"])
    return locations[chosen.to_numpy()]


def _positive(template: pd.Series[Any]) -> pd.Series[bool]:
    return ~template.astype(str).str.contains("N")


def near_shares(nulls: pd.DataFrame, near: int = 1) -> pd.DataFrame:
    """Share of the final codes that were near at initialization, for every formula.

    Args:
        nulls: see `count_nulls`; templates that are not all-positive are left out.
        near: wrong signs up to which a location counts as near.

    Returns:
        One row a cell and formula, one column a null and ``observed``; formulas without codes are left out.

    Example:
        >>> table = pd.DataFrame({"formula": 0, "template": "2P", "null": "observed", "distance": [0, 1, 2],
        ...                       "locations": [4.0, 8.0, 4.0], "codes": [3.0, 0.0, 1.0]})
        >>> near_shares(table)["observed"].tolist()
        [0.75]
    """
    table = nulls[_positive(nulls["template"]).to_numpy()]
    keys = [name for name in (*CELL, "formula") if name in table]
    counts = table.assign(close=table["codes"].where(table["distance"] <= near, 0.0))
    counts = counts.groupby([*keys, "null"], observed=True)[["close", "codes"]].sum()
    shares = (counts["close"] / counts["codes"].where(counts["codes"] > 0)).rename("share").reset_index()
    wide = shares.pivot_table(index=keys, columns="null", values="share")
    return wide.dropna(subset="observed").reset_index() if "observed" in wide else wide.iloc[:0].reset_index()


def metric_aucs(locations: pd.DataFrame, kind: str = "formula") -> pd.DataFrame:
    """AUC of every distance and control for "will be a code", for every cell and formula, among `candidates`.

    Returns:
        One row a cell and formula, one column a metric; NaN where all or none became codes.

    Raises:
        NotEnoughData: no candidates.

    Example:
        >>> table = pd.DataFrame({"formula": 0, "kind": "formula", "template": "4P", "polarity": True,
        ...                       "code": [True, False], **{name: [0.0, 1.0] for name in (*METRICS, *CONTROLS)}})
        >>> metric_aucs(table)["soft"].tolist()
        [1.0]
    """
    scores = [*METRICS, *CONTROLS]
    table = candidates(locations, kind)
    if table.empty:
        raise NotEnoughData(f"no {kind} locations of the right polarity")
    keys = [name for name in (*CELL, "formula") if name in table]
    rows = [
        dict(zip([*keys, *scores], [*values, *aucs(part["code"], part[scores])], strict=True))
        for values, part in table.groupby(keys, sort=True)
    ]
    return pd.DataFrame(rows)


@claim("C1")
def c1(observations: Observations, *, rules: Rules | None = None) -> Finding:
    """C1: final codes were near at initialization.

    Args:
        observations: see `observe`.
        rules: see `load_rules`.

    Returns:
        A `Claim`. Its details have a row for every distance and control: metric, group (feature space or control),
        auc, low, high, and auc_false at false clauses. Its tables: ``distances`` (share of final codes by initial
        distance under every null), ``shares`` (near share of every formula), ``similarity``.

    Example:
        >>> from precode.claims import synthetic_study
        >>> c1(synthetic_study("planted", formulas=10).observations).verdict
        'holds'
    """
    rules = load_rules() if rules is None else rules
    own = rules["C1"]
    shares = near_shares(observations.nulls, rules["near"])
    if shares.empty:
        raise NotEnoughData("no formula has a final code")
    names = [str(name) for name in shares if name not in (*CELL, "formula", "observed")]
    means = by_formula(shares, ["observed", *names])
    nulls = {name: float(means[name].mean()) for name in names}
    strongest = max(own["nulls"], key=lambda name: nulls[name])
    excess = estimate(means["observed"] - means[strongest], rules)
    details, found, compared = _ablation(observations.locations, own["controls"], rules)
    beyond, limit = _beyond_persistence(means, rules)
    holds = {
        "the interval of the excess is above 0": excess.above(0),
        f"the excess is at least {own['holds']}": excess.value >= own["holds"],
        "codes were near more often than patterns left at false clauses": beyond,
        "the interval of the Hamming AUC is above 0.5": found["hamming"].above(0.5),
        **{f"the Hamming AUC exceeds that of {name}": item.above(0) for name, item in compared.items()},
    }
    partly = {
        "the interval of the excess is above 0": excess.above(0),
        f"the excess is at least {own['partly']}": excess.value >= own["partly"],
    }
    tables = {"distances": _distances(observations.nulls), "shares": shares, "similarity": observations.similarity}
    shown = {name: value for name, value in {"observed share": float(means["observed"].mean()), **nulls}.items()}
    reason = "; ".join(filter(None, [f"the strongest null of chance is {strongest}", limit]))
    return Finding(excess, holds, partly, shown, details, tables, reason)


def _beyond_persistence(means: pd.DataFrame, rules: Rules) -> tuple[bool, str]:
    """Whether codes were near more often than patterns at false clauses, and otherwise what that means.

    A sign that training leaves alone is at the end what it was at the start, so that any pattern was near.
    """
    observed = means["observed"]
    false = means.get("false_clauses", pd.Series(np.nan, means.index))
    try:
        above = estimate(observed - false, rules)
    except NotEnoughData:
        return False, "too few formulas have patterns left at false clauses to compare with"
    if above.above(0):
        return True, ""
    shares = f"{observed.mean():.2f} of codes and {false.mean():.2f} of the patterns left at false clauses were near"
    difference = f"{above.value:.3f} [{above.low:.3f}, {above.high:.3f}] between them"
    return False, f"{shares}, {difference}: signs that training leaves alone make any pattern near"


def _ablation(
    locations: pd.DataFrame, controls: list[str], rules: Rules
) -> tuple[pd.DataFrame, dict[str, Estimate], dict[str, Estimate]]:
    """AUC of every metric as a table and by name, and how much the Hamming distance exceeds each control."""
    scores = [*METRICS, *CONTROLS]
    areas = by_formula(metric_aucs(locations).dropna(subset="hamming"), scores)
    try:
        false = by_formula(metric_aucs(locations, "false"), scores).mean()
    except NotEnoughData:
        false = pd.Series(np.nan, index=scores)
    found = {name: estimate(areas[name], rules) for name in scores}
    table = pd.DataFrame(
        {
            "metric": scores,
            "group": ["feature space" if name in METRICS else "control" for name in scores],
            "auc": [item.value for item in found.values()],
            "low": [item.low for item in found.values()],
            "high": [item.high for item in found.values()],
            "auc_false": [false[name] for name in scores],
            "formulas": [item.formulas for item in found.values()],
        }
    )
    return table, found, {name: estimate(areas["hamming"] - areas[name], rules) for name in controls}


def _distances(nulls: pd.DataFrame) -> pd.DataFrame:
    """Mean share of final codes at every initial distance: template, null, distance, share."""
    keys = [name for name in (*CELL, "formula") if name in nulls]
    groups = nulls.groupby([*keys, "template", "null"], observed=True)["codes"]
    total = groups.transform("sum")
    shares = nulls.assign(share=nulls["codes"] / total.where(total > 0))
    return shares.groupby(["template", "null", "distance"], observed=True)["share"].mean().reset_index()


def convergence(locations: pd.DataFrame, rules: Rules | None = None) -> pd.DataFrame:
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


def motion_curves(motion: pd.DataFrame, rules: Rules | None = None) -> pd.DataFrame:
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


@claim("C2")
def c2(observations: Observations, *, rules: Rules | None = None) -> Finding:
    """C2: near locations converge to codes or are rejected.

    Args:
        observations: see `observe`.
        rules: see `load_rules`.

    Returns:
        A `Claim`. Its details are those of `convergence`; its tables have ``motion``, see `motion_curves`.

    Example:
        >>> from precode.claims import synthetic_study
        >>> c2(synthetic_study("planted", formulas=10, hidden=16, clauses=8).observations).verdict
        'holds'
    """
    rules = load_rules() if rules is None else rules
    own = rules["C2"]
    table = candidates(observations.locations)
    table = table.assign(code=table["code"].astype(float))
    near = by_formula(table[table["near"]], ["code"])["code"]
    far = by_formula(table[~table["near"]], ["code"])["code"]
    false = candidates(observations.locations, "false")
    chance = by_formula(false[false["near"]].assign(code=lambda t: t["code"].astype(float)), ["code"])["code"]
    difference = estimate(near - far, rules)
    above_false = estimate(near - chance, rules)
    page = _trend(table)
    converged = float(near.mean())
    holds = {
        "the interval of the difference is above 0": difference.above(0),
        f"the difference is at least {own['holds']}": difference.value >= own["holds"],
        f"P(code | distance) falls with distance (Page, p = {page:.2g})": page < rules["alpha"],
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
        **{name: _difference(observations.nulls, name, rules["near"]) for name in ("permuted_rows", "random_network")},
        "analytic": 0.0,
    }
    tables = {"motion": motion_curves(observations.motion, rules)}
    reason = f"{converged:.0%} of near locations converge, {chance.mean():.0%} at false clauses"
    return Finding(difference, holds, partly, nulls, convergence(observations.locations, rules), tables, reason)


def _difference(nulls: pd.DataFrame, name: str, near: int) -> float:
    """P(code | near) - P(code | not near) of a null, mean over formulas."""
    table = nulls[(nulls["null"] == name).to_numpy() & _positive(nulls["template"]).to_numpy()]
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
