"""C3: rejection grows with crowding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode import plot
from precode._internal.statistics import CELL
from precode.claims.candidates import candidates
from precode.claims.conditions import AnyOf, Asked, Condition
from precode.claims.records import Claim, Data, Figure, Finding, Law, Shown, Value
from precode.claims.regression import fit, slopes
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import (
    Estimate,
    NotEnoughData,
    by_formula,
    cells,
    estimate,
    measured,
    standardized,
    summarize,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rejection_slopes(locations: pd.DataFrame, kind: str = "formula", rules: RulesLike = None) -> pd.DataFrame:
    """Log-odds of rejection for one standard deviation of demand, near locations, for every cell and formula.

    A logistic regression in each cell and for each template, with the controls of the rules; see
    `precode.claims.regression.slopes` for how it is divided among formulas.

    Returns:
        One row a cell, template and formula: the cell's columns, template, formula and slope; those where one fate is
        too rare, or whose regression cannot be estimated, are left out.

    Example:
        >>> from precode.claims import synthetic_study
        >>> study = synthetic_study("planted", formulas=10, hidden=16, clauses=16)
        >>> rejection_slopes(study.observations.locations)["slope"].mean() > 0
        np.True_
    """
    rules = Rules.of(rules)
    own = CLAIM.own(rules)
    near = candidates(locations, kind, rules.polarities)
    near = near[near["near"]].assign(rejected=lambda t: ~t["code"].astype(bool))
    frames = []
    for cell, part in cells(near):
        if min(part["rejected"].sum(), (~part["rejected"]).sum()) < own["events"]:
            continue
        try:
            found = slopes(part, "rejected", [own["demand"], *own["controls"]])
        except NotEnoughData:
            continue
        frames.append(found.rename("slope").reset_index().assign(**cell))
    if not frames:
        return pd.DataFrame(columns=[*CELL, "template", "formula", "slope"])
    return pd.concat(frames, ignore_index=True)


def dose_response(locations: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
    """Rejection of near locations by how crowded their row is, for every C/j.

    Returns:
        One row a stratum and dose (fifth of the formula's near locations by demand, 1 the least): pressure (C/j),
        dose, demand (mean), locations, formulas, rejected (mean share over formulas), rejected_low and rejected_high
        (NaN where fewer formulas than needed).

    Example:
        >>> from precode.claims import synthetic_study
        >>> table = dose_response(synthetic_study("planted", formulas=10, hidden=16, clauses=16).observations.locations)
        >>> bool(table["rejected"].iloc[-1] > table["rejected"].iloc[0])
        True
    """
    rules = Rules.of(rules)
    own = CLAIM.own(rules)
    near = candidates(locations, "formula", rules.polarities)
    near = near[near["near"]]
    keys = [name for name in (*CELL, "template", "formula") if name in near]
    rank = near.groupby(keys, observed=True)[own["demand"]].rank(pct=True)
    near = near.assign(
        dose=np.ceil(rank * own["doses"]).astype(int),
        rejected=1.0 - near["code"].astype(float),
        pressure=near["clauses"] / near["hidden"],
    )
    keys = ["pressure", "dose"]
    means = near.groupby(keys).agg(demand=(own["demand"], "mean"), locations=("code", "size")).reset_index()
    return means.merge(summarize(near, keys, ["rejected"], rules), on=keys)


def _strata(slopes_: pd.DataFrame, rules: Rules) -> tuple[pd.DataFrame, list[Estimate]]:
    """Slope by C/j as a table (pressure, slope, low, high, formulas) and as estimates."""
    rows, found = [], []
    for pressure, part in slopes_.assign(pressure=slopes_["clauses"] / slopes_["hidden"]).groupby("pressure"):
        one = measured(by_formula(part, ["slope"])["slope"], rules)
        if one is not None:
            found.append(one)
            rows.append([pressure, one.value, one.low, one.high, one.formulas])
    return pd.DataFrame(rows, columns=["pressure", "slope", "low", "high", "formulas"]), found


def judged(data: Data, rules: Rules) -> Finding:
    """Whether demand raises rejection.

    Details: the slope for every stratum of superposition pressure C/j: pressure, slope, low, high and
    formulas. Tables: ``doses``, see `dose_response`, and ``slopes`` of every cell and formula.
    """
    own = CLAIM.own(rules)
    locations = data.observations.locations
    found = rejection_slopes(locations, "formula", rules)
    if found.empty:
        raise NotEnoughData(f"no cell has {own['events']} near locations of either fate and classes that overlap")
    values = by_formula(found, ["slope"])["slope"]
    effect = estimate(values, rules)
    false = rejection_slopes(locations, "false", rules)
    shared = [name for name in (*CELL, "template", "formula") if name in found]
    both = found.merge(false, on=shared, suffixes=("", "_false"))
    between = by_formula(both.assign(above=both["slope"] - both["slope_false"]), ["above"])["above"]
    above = measured(between, rules)
    reasons = []
    if above is None:
        reasons.append("too few false clauses have near locations of both fates to compare with")
    strata, parts = _strata(found, rules)
    if left_out := len(cells(candidates(locations, "formula", rules.polarities))) - len(cells(found)):
        reasons.append(f"{left_out} cells and templates are left out: one fate is too rare there")
    estimates = {"slope": effect, "above false": above, "strata": parts or None}
    nulls = {
        "false_clauses": float(by_formula(false, ["slope"])["slope"].mean()) if len(false) else float("nan"),
        "permuted_demand": _permuted_slope(locations, rules),
    }
    tables = {"doses": dose_response(locations, rules), "slopes": found}
    return Finding(effect, estimates, nulls, strata, tables, "; ".join(reasons))


def _permuted_slope(locations: pd.DataFrame, rules: Rules) -> float:
    """Mean slope with demand permuted among the near locations of each formula."""
    own = CLAIM.own(rules)
    near = candidates(locations, "formula", rules.polarities)
    near = near[near["near"]].assign(rejected=lambda t: ~t["code"].astype(bool))
    rng = np.random.default_rng(rules.seed)
    found = []
    for _, part in cells(near):
        if min(part["rejected"].sum(), (~part["rejected"]).sum()) < own["events"]:
            continue
        design = standardized(part, [own["demand"], *own["controls"]])
        groups = part.groupby("formula").indices
        for _ in range(own["permutations"]):
            shuffled = design[own["demand"]].to_numpy(copy=True)
            for rows in groups.values():
                shuffled[rows] = rng.permutation(shuffled[rows])
            columns = np.column_stack([shuffled, design[own["controls"]]])
            try:
                found.append(fit(part["rejected"].to_numpy(dtype=bool), columns, part["formula"].to_numpy()).slopes[0])
            except NotEnoughData:
                continue
    return float(np.mean(found)) if found else float("nan")


def asks(own: Mapping[str, Any]) -> Asked:
    """The conditions of C3."""
    slope = "the slope of rejection on crowding"
    strata = f"{slope} in some stratum of C/j, which share this part of the level,"
    return Asked(
        holds=[
            Condition("slope", slope, own["holds"]),
            Condition("above false", f"{slope}, above that at false clauses,", own["beyond"]),
        ],
        partly=[AnyOf([Condition("slope", slope, own["partly"]), Condition("strata", strata, own["partly"])])],
    )


def _crowded(locations: pd.DataFrame) -> NDArray[np.float64]:
    """Graded demand in standard deviations of its formula and template, times -0.7."""
    groups = locations["graded"].groupby([locations["formula"], locations["template"]], observed=True)
    crowding = (locations["graded"] - groups.transform("mean")) / groups.transform("std")
    return np.asarray(-0.7 * crowding)


CLAIM = Claim(
    name="C3",
    statement="Rejection grows with crowding.",
    reported="a public digest of the paper: losses concentrate on rows of high load; no numbers are public",
    measure="log-odds of rejection for one standard deviation of graded demand, near locations, with {controls} "
    "controlled; cells with fewer than {events} near locations of either fate are left out",
    choices={
        "holds": Value(0.1, "least slope for 'holds', log-odds for one standard deviation"),
        "partly": Value(0.05, "least slope for 'partly'"),
        "beyond": Value(0.05, "least slope above that at false clauses"),
        "demand": Value("graded", "the measure of crowding"),
        "controls": Value(["soft", "w2", "b1"], "covariates that are held equal"),
        "events": Value(20, "fewest near locations of either fate in a cell"),
        "doses": Value(5, "equal groups of the dose-response table"),
        "permutations": Value(5, "draws of the null of permuted demand"),
    },
    test=judged,
    asks=asks,
    question="Are near locations rejected because other clauses want the same row?",
    words="The crowding of a row is what all other clauses ask of it at initialization [ours]. A logistic regression "
    "tells the effect of crowding on rejection while distance, output weight and bias are held equal. The effect is in "
    "log-odds for one standard deviation of crowding; 0 is no effect.",
    nulls={
        "false_clauses": Shown("patterns at false clauses"),
        "permuted_demand": Shown(
            "crowding permuted", "the values of crowding, exchanged among the near locations of each formula"
        ),
    },
    figures=(
        Figure(
            "Dose-response: how often near locations are rejected, from the least to the most crowded fifth. Dotted: "
            "the null of no effect.",
            lambda verdict, study: plot.crowding(verdict.table("doses")),
        ),
        Figure(
            "The effect of crowding with the distance held equal, by the number of clauses to a row. Above 0: crowded "
            "rows reject more. Dotted: the nulls.",
            lambda verdict, study: plot.slopes(verdict.details, verdict.nulls),
        ),
    ),
    law=Law(
        "the log-odds of a code fall by 0.7 for each standard deviation of graded demand in its formula", codes=_crowded
    ),
)
"""The record."""
