"""C3 and C4: rejection grows with crowding, and tickets balance proximity and interference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM
from statsmodels.stats.multitest import multipletests

from precode.study.claim import Finding, claim
from precode.study.observe import Observations
from precode.study.proximity import candidates
from precode.study.rules import Rules, load_rules
from precode.study.statistics import (
    CELL,
    Estimate,
    NotEnoughData,
    aucs,
    by_formula,
    cells,
    estimate,
    require,
    slopes,
    standardized,
)


def rejection_slopes(locations: pd.DataFrame, kind: str = "formula", rules: Rules | None = None) -> pd.DataFrame:
    """Log-odds of rejection for one standard deviation of demand, near locations, for every cell and formula.

    A logistic regression in each cell, with the controls of the rules; see `precode.study.statistics.slopes` for how
    it is divided among formulas.

    Returns:
        One row a cell and formula: the cell's columns, formula and slope; cells where one fate is too rare, or whose
        regression cannot be estimated, are left out.

    Example:
        >>> from precode.study import synthetic_study
        >>> study = synthetic_study("planted", formulas=10, hidden=16, clauses=16)
        >>> rejection_slopes(study.observations.locations)["slope"].mean() > 0
        np.True_
    """
    rules = load_rules() if rules is None else rules
    own = rules["C3"]
    near = candidates(locations, kind)
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
        return pd.DataFrame(columns=[*CELL, "formula", "slope"])
    return pd.concat(frames, ignore_index=True)


def dose_response(locations: pd.DataFrame, rules: Rules | None = None) -> pd.DataFrame:
    """Rejection of near locations by how crowded their row is, for every C/j.

    Returns:
        One row a stratum and dose (fifth of the formula's near locations by demand, 1 the least): pressure (C/j),
        dose, demand (mean), locations, rejected (mean share over formulas), low and high (NaN where fewer formulas
        than needed).

    Example:
        >>> from precode.study import synthetic_study
        >>> table = dose_response(synthetic_study("planted", formulas=10, hidden=16, clauses=16).observations.locations)
        >>> bool(table["rejected"].iloc[-1] > table["rejected"].iloc[0])
        True
    """
    rules = load_rules() if rules is None else rules
    own = rules["C3"]
    near = candidates(locations)
    near = near[near["near"]]
    keys = [name for name in (*CELL, "formula") if name in near]
    rank = near.groupby(keys)[own["demand"]].rank(pct=True)
    near = near.assign(
        dose=np.ceil(rank * own["doses"]).astype(int),
        rejected=1.0 - near["code"].astype(float),
        pressure=near["clauses"] / near["hidden"],
    )
    rows = []
    for (pressure, dose), part in near.groupby(["pressure", "dose"]):
        shares = by_formula(part, ["rejected"])["rejected"]
        row = {"pressure": pressure, "dose": dose, "demand": part[own["demand"]].mean(), "locations": len(part),
               "rejected": shares.mean(), "low": float("nan"), "high": float("nan")}
        if len(shares) >= rules["formulas"]:
            found = estimate(shares, rules)
            row["low"], row["high"] = found.low, found.high
        rows.append(row)
    return pd.DataFrame(rows)


def _strata(slopes_: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """Slope by C/j: pressure, slope, low, high, formulas, p (one-sided t test over formulas) and p_holm."""
    rows = []
    for pressure, part in slopes_.assign(pressure=slopes_["clauses"] / slopes_["hidden"]).groupby("pressure"):
        values = by_formula(part, ["slope"])["slope"]
        try:
            found = estimate(values, rules)
        except NotEnoughData:
            continue
        test = stats.ttest_1samp(values, 0.0, alternative="greater")
        rows.append({"pressure": pressure, "slope": found.value, "low": found.low, "high": found.high,
                     "formulas": found.formulas, "p": float(test.pvalue)})
    table = pd.DataFrame(rows, columns=["pressure", "slope", "low", "high", "formulas", "p"])
    return table.assign(p_holm=multipletests(table["p"], method="holm")[1] if len(table) else [])


@claim("C3")
def c3(observations: Observations, *, rules: Rules | None = None) -> Finding:
    """C3: rejection grows with crowding.

    Args:
        observations: see `observe`.
        rules: see `load_rules`.

    Returns:
        A `Claim`. Its details give the slope for every stratum of superposition pressure C/j: pressure, slope, low,
        high, formulas, p and p_holm. Its tables: ``doses``, see `dose_response`, and ``slopes`` of every cell and
        formula.

    Example:
        >>> from precode.study import synthetic_study
        >>> c3(synthetic_study("planted", formulas=10, clauses=16).observations).verdict
        'holds'
    """
    rules = load_rules() if rules is None else rules
    own = rules["C3"]
    locations = observations.locations
    found = rejection_slopes(locations, "formula", rules)
    if found.empty:
        raise NotEnoughData(f"no cell has {own['events']} near locations of either fate and classes that overlap")
    values = by_formula(found, ["slope"])["slope"]
    effect = estimate(values, rules)
    false = rejection_slopes(locations, "false", rules)
    shared = [name for name in (*CELL, "formula") if name in found]
    both = found.merge(false, on=shared, suffixes=("", "_false"))
    above, reason = Estimate(float("nan"), float("nan"), float("nan"), 0), ""
    try:
        above = estimate(by_formula(both.assign(above=both["slope"] - both["slope_false"]), ["above"])["above"], rules)
    except NotEnoughData:
        reason = "too few false clauses have near locations of both fates to compare with"
    strata = _strata(found, rules)
    left_out = len(cells(locations)) - len(cells(found))
    if left_out:
        reason = "; ".join(filter(None, [reason, f"{left_out} cells are left out: one fate is too rare there"]))
    stratum = bool(((strata["slope"] >= own["partly"]) & (strata["p_holm"] < rules["alpha"] / 2)).any())
    # A pooled slope above zero is also asked of the partial verdict where there is one stratum only: it is the same.
    pooled = effect.low > 0 and effect.value >= own["partly"]
    holds = {
        "the interval of the slope is above 0": effect.low > 0,
        f"the slope is at least {own['holds']}": effect.value >= own["holds"],
        "the slope exceeds that at false clauses": above.low > 0,
    }
    partly = {"the pooled slope or that of a stratum is above 0 and not negligible": pooled or stratum}
    nulls = {
        "false_clauses": float(by_formula(false, ["slope"])["slope"].mean()) if len(false) else float("nan"),
        "permuted_demand": _permuted_slope(locations, rules),
    }
    tables = {"doses": dose_response(locations, rules), "slopes": found}
    return Finding(effect, holds, partly, nulls, strata, tables, reason)


def _permuted_slope(locations: pd.DataFrame, rules: Rules) -> float:
    """Mean slope with demand permuted among the near locations of each formula."""
    own = rules["C3"]
    near = candidates(locations)
    near = near[near["near"]].assign(rejected=lambda t: ~t["code"].astype(bool))
    rng = np.random.default_rng(rules["seed"])
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
            columns = np.column_stack([np.ones(len(part)), shuffled, design[own["controls"]]])
            found.append(GLM(part["rejected"].to_numpy(dtype=float), columns, family=Binomial()).fit().params[1])
    return float(np.mean(found)) if found else float("nan")


def prediction_gains(locations: pd.DataFrame, kind: str = "formula", rules: Rules | None = None) -> pd.DataFrame:
    """What interference adds to proximity in predicting codes of formulas that were not fitted.

    Logistic regressions (scikit-learn) of "will be a code" on all `candidates` of a cell, cross-validated over
    formulas: one on the proximity metrics of the rules, one on these and interference, and one with interference
    permuted inside every formula.

    Returns:
        One row a cell and formula: auc_proximity, auc_both, gain (their difference), gain_permuted and
        likelihood_gain (held-out log-likelihood for each location, nats). Formulas with one class only are left out.

    Raises:
        NotEnoughData: too few formulas for the folds in all cells.

    Example:
        >>> from precode.study import synthetic_study
        >>> study = synthetic_study("planted", formulas=10, hidden=16, clauses=16)
        >>> prediction_gains(study.observations.locations)["gain"].mean() > 0
        np.True_
    """
    rules = load_rules() if rules is None else rules
    own = rules["C4"]
    rng = np.random.default_rng(rules["seed"])
    rows: list[dict[str, Any]] = []
    for cell, part in cells(candidates(locations, kind)):
        labels, formula = part["code"].to_numpy(dtype=bool), part["formula"].to_numpy()
        if part["formula"].nunique() < own["folds"] or labels.all() or not labels.any():
            continue
        near, crowd = (part[own[name]].to_numpy(dtype=np.float64) for name in ("proximity", "interference"))
        permuted = crowd.copy()
        for members in part.groupby("formula").indices.values():
            permuted[members] = rng.permutation(permuted[members])
        designs = {"proximity": near, "both": np.hstack([near, crowd]), "permuted": np.hstack([near, permuted])}
        predicted = {name: _held_out(design, labels, formula, own["folds"]) for name, design in designs.items()}
        for number in np.unique(formula):
            mine = formula == number
            if labels[mine].all() or not labels[mine].any():
                continue
            area = dict(zip(designs, aucs(labels[mine], -np.column_stack([p[mine] for p in predicted.values()])),
                            strict=True))
            loss = {name: log_loss(labels[mine], p[mine]) for name, p in predicted.items()}
            rows.append({**cell, "formula": number, "auc_proximity": area["proximity"], "auc_both": area["both"],
                         "gain": area["both"] - area["proximity"],
                         "gain_permuted": area["permuted"] - area["proximity"],
                         "likelihood_gain": loss["proximity"] - loss["both"]})
    if not rows:
        raise NotEnoughData(f"no cell has {own['folds']} formulas with codes and other locations")
    return pd.DataFrame(rows)


def _held_out(design: np.ndarray, labels: np.ndarray, formula: np.ndarray, folds: int) -> np.ndarray:
    """Predicted probabilities of formulas that the model was not fitted to."""
    predicted = np.zeros(len(labels))
    for train, test in GroupKFold(folds).split(design, labels, formula):
        if labels[train].all() or not labels[train].any():
            raise NotEnoughData("codes in one fold of the formulas only")
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        predicted[test] = model.fit(design[train], labels[train]).predict_proba(design[test])[:, 1]
    return predicted


def likelihood_ratios(locations: pd.DataFrame, rules: Rules | None = None) -> pd.DataFrame:
    """Likelihood-ratio test of interference beside proximity in every cell (statsmodels GLM).

    It takes locations for independent; the intervals over formulas do not, and the rule uses those.

    Returns:
        One row a cell: its columns, locations, statistic, df and p.

    Example:
        >>> from precode.study import synthetic_study
        >>> study = synthetic_study("planted", formulas=10, hidden=16, clauses=16)
        >>> bool(likelihood_ratios(study.observations.locations)["p"].iloc[0] < 0.01)
        True
    """
    rules = load_rules() if rules is None else rules
    own = rules["C4"]
    rows = []
    for cell, part in cells(candidates(locations)):
        target = part["code"].to_numpy(dtype=float)
        if target.min() == target.max():
            continue
        near, crowd = (standardized(part, own[name]).to_numpy() for name in ("proximity", "interference"))
        ones = np.ones((len(part), 1))
        small, large = np.hstack([ones, near]), np.hstack([ones, near, crowd])
        fits = [GLM(target, design, family=Binomial()).fit() for design in (small, large)]
        statistic = 2 * (fits[1].llf - fits[0].llf)
        degrees = int(np.linalg.matrix_rank(large) - np.linalg.matrix_rank(small))
        rows.append({**cell, "locations": len(part), "statistic": statistic, "df": degrees,
                     "p": float(stats.chi2.sf(statistic, degrees))})
    return pd.DataFrame(rows)


def penalty_gains(tickets: pd.DataFrame, rules: Rules | None = None) -> pd.DataFrame:
    """What penalties on crowding and coverage change in tickets of the same probe, density, cell and formula.

    Args:
        tickets: see `Retrained.table`, with or without the cell's columns.
        rules: says which method is the penalised one of which.

    Returns:
        One row a pair: the cell's columns, method, density, formula, and gains in accuracy and, where there,
        recovery_family. Empty if no pair of methods is in the table.

    Example:
        >>> table = pd.DataFrame({"method": ["distance", "distance-plain"], "density": 0.1, "formula": 0,
        ...                       "accuracy": [0.9, 0.8]})
        >>> penalty_gains(table)["accuracy"].round(6).tolist()
        [0.1]
    """
    rules = load_rules() if rules is None else rules
    require(tickets, ["method", "density", "formula", "accuracy"], "the table of tickets")
    keys = [name for name in (*CELL, "density", "formula") if name in tickets]
    measures = [name for name in ("accuracy", "recovery_family") if name in tickets]
    frames = []
    for penalized, plain in rules["C4"]["penalized"].items():
        sides = [tickets[tickets["method"] == name][[*keys, *measures]] for name in (penalized, plain)]
        both = sides[0].merge(sides[1], on=keys, suffixes=("", "_plain"))
        gains = both[keys].assign(method=penalized)
        for name in measures:
            gains[name] = both[name] - both[f"{name}_plain"]
        frames.append(gains)
    return pd.concat(frames, ignore_index=True)


@claim("C4")
def c4(observations: Observations, tickets: pd.DataFrame | None = None, *, rules: Rules | None = None) -> Finding:
    """C4: a winning ticket balances proximity and interference.

    Args:
        observations: see `observe`.
        tickets: see `penalty_gains`; without them the verdict rests on the codes alone, and says so.
        rules: see `load_rules`.

    Returns:
        A `Claim`. Its details are those of `prediction_gains`; its tables: ``likelihood_ratios``, and ``penalties``
        where tickets are given.

    Example:
        >>> from precode.study import synthetic_study
        >>> c4(synthetic_study("planted", formulas=10, clauses=16).observations).verdict
        'holds'
    """
    rules = load_rules() if rules is None else rules
    own = rules["C4"]
    locations = observations.locations
    gains = prediction_gains(locations, "formula", rules)
    means = by_formula(gains, ["gain", "gain_permuted", "likelihood_gain"])
    effect = estimate(means["gain"], rules)
    likelihood = estimate(means["likelihood_gain"], rules)
    demand = _demand_slope(locations, rules)
    try:
        false = float(by_formula(prediction_gains(locations, "false", rules), ["gain"])["gain"].mean())
    except NotEnoughData:
        false = float("nan")
    holds = {
        "the interval of the gain is above 0": effect.low > 0,
        f"the gain is at least {own['holds']}": effect.value >= own["holds"],
        "the gain in held-out log-likelihood is above 0": likelihood.low > 0,
        "more demand makes a code less likely": demand.high < 0,
    }
    partly = {
        "the interval of the gain is above 0": effect.low > 0,
        f"the gain is at least {own['partly']}": effect.value >= own["partly"],
    }
    tables, reason = {"likelihood_ratios": likelihood_ratios(locations, rules)}, "no pair of penalised and plain tickets"
    nulls = {"permuted_interference": float(means["gain_permuted"].mean()), "false_clauses": false}
    pairs = penalty_gains(tickets, rules) if tickets is not None else pd.DataFrame()
    if len(pairs):
        penalties = estimate(by_formula(pairs, ["accuracy"])["accuracy"], rules)
        holds["penalties raise the accuracy of probe tickets"] = penalties.low > 0
        tables["penalties"] = pairs
        reason = f"penalties change accuracy by {penalties.value:.3g} [{penalties.low:.3g}, {penalties.high:.3g}]"
    return Finding(effect, holds, partly, nulls, gains, tables, reason)


def _demand_slope(locations: pd.DataFrame, rules: Rules) -> Estimate:
    """Log-odds of a code for one standard deviation of demand with proximity controlled."""
    own = rules["C4"]
    frames = []
    covariates: Sequence[str] = [own["demand"], *own["proximity"]]
    for cell, part in cells(candidates(locations)):
        try:
            frames.append(slopes(part, "code", covariates).rename("slope").reset_index().assign(**cell))
        except NotEnoughData:
            continue
    if not frames:
        raise NotEnoughData("codes can be separated from other locations in every cell")
    return estimate(by_formula(pd.concat(frames), ["slope"])["slope"], rules)
