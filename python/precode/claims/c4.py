"""C4: a ticket balances proximity and interference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from precode import plot
from precode._internal.statistics import CELL
from precode.claims.candidates import candidates
from precode.claims.conditions import Asked, Condition
from precode.claims.records import Claim, Data, Figure, Finding, Law, Shown, Value
from precode.claims.regression import fit, intercept, slopes
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import (
    Estimate,
    NotEnoughData,
    aucs,
    by_formula,
    cells,
    estimate,
    measured,
    require,
    standardized,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def prediction_gains(locations: pd.DataFrame, kind: str = "formula", rules: RulesLike = None) -> pd.DataFrame:
    """What interference adds to proximity in predicting codes of formulas that were not fitted.

    Logistic regressions of "will be a code" on all `candidates` of a cell and
    template, cross-validated over formulas: one on the
    proximity metrics of the rules, one on these and interference, and one with interference permuted inside every
    formula. Covariates are standardized in every formula, and slopes are those of a regression with an intercept for
    every formula, so that differences between formulas teach it nothing; formulas that were not fitted get the one
    intercept that suits all fitted ones.

    Returns:
        One row a cell, template and formula: auc_proximity, auc_both, gain (their difference), gain_permuted and
        likelihood_gain (held-out log-likelihood for each location, nats). Formulas with one class only are left out.

    Raises:
        NotEnoughData: too few formulas for the folds in all cells.

    Example:
        >>> from precode.claims import synthetic_study
        >>> study = synthetic_study("planted", formulas=10, hidden=16, clauses=16)
        >>> prediction_gains(study.observations.locations)["gain"].mean() > 0
        np.True_
    """
    rules = Rules.of(rules)
    own = CLAIM.own(rules)
    rng = np.random.default_rng(rules.seed)
    rows: list[dict[str, Any]] = []
    for cell, part in cells(candidates(locations, kind, rules.polarities)):
        labels, formula = part["code"].to_numpy(dtype=bool), part["formula"].to_numpy()
        if part["formula"].nunique() < own["folds"] or labels.all() or not labels.any():
            continue
        near, crowd = (standardized(part, own[name]).to_numpy() for name in ("proximity", "interference"))
        permuted = crowd.copy()
        for members in part.groupby("formula").indices.values():
            permuted[members] = rng.permutation(permuted[members])
        designs = {"proximity": near, "both": np.hstack([near, crowd]), "permuted": np.hstack([near, permuted])}
        predicted = {name: _held_out(design, labels, formula, own["folds"]) for name, design in designs.items()}
        for number in np.unique(formula):
            mine = formula == number
            if labels[mine].all() or not labels[mine].any():
                continue
            area = dict(
                zip(designs, aucs(labels[mine], -np.column_stack([p[mine] for p in predicted.values()])), strict=True)
            )
            loss = {name: _loss(labels[mine], p[mine]) for name, p in predicted.items()}
            rows.append(
                {
                    **cell,
                    "formula": number,
                    "auc_proximity": area["proximity"],
                    "auc_both": area["both"],
                    "gain": area["both"] - area["proximity"],
                    "gain_permuted": area["permuted"] - area["proximity"],
                    "likelihood_gain": loss["proximity"] - loss["both"],
                }
            )
    if not rows:
        raise NotEnoughData(f"no cell has {own['folds']} formulas with codes and other locations")
    return pd.DataFrame(rows)


def _held_out(
    design: NDArray[np.float64], labels: NDArray[np.bool_], formula: NDArray[np.int64], folds: int
) -> NDArray[np.float64]:
    """Predicted log-odds of formulas that the model was not fitted to."""
    predicted = np.zeros(len(labels))
    fold = np.unique(formula, return_inverse=True)[1] % folds
    for number in range(folds):
        test = fold == number
        found = fit(labels[~test], design[~test], formula[~test], conditional=False, ridge=1.0)
        predicted[test] = design[test] @ found.slopes + intercept(labels[~test], design[~test] @ found.slopes)
    return predicted


def _loss(labels: NDArray[np.bool_], odds: NDArray[np.float64]) -> float:
    """Mean negative log-likelihood of labels under predicted log-odds, nats."""
    return float(np.logaddexp(0, np.where(labels, -odds, odds)).mean())


def likelihood_ratios(locations: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
    """Likelihood-ratio test of interference beside proximity in every cell, with an intercept for every formula.

    It takes locations for independent; the intervals over formulas do not, and the rule uses those.

    Returns:
        One row a cell: its columns, locations, statistic, df and p; cells whose regression cannot be estimated are left
        out.

    Example:
        >>> from precode.claims import synthetic_study
        >>> study = synthetic_study("planted", formulas=10, hidden=16, clauses=16)
        >>> bool(likelihood_ratios(study.observations.locations)["p"].iloc[0] < 0.01)
        True
    """
    rules = Rules.of(rules)
    own = CLAIM.own(rules)
    rows = []
    for cell, part in cells(candidates(locations, "formula", rules.polarities)):
        target, formula = part["code"].to_numpy(dtype=bool), part["formula"].to_numpy()
        near, crowd = (standardized(part, own[name]).to_numpy() for name in ("proximity", "interference"))
        # What never varies, such as conflicts in monotone formulas, adds no degree of freedom.
        both = np.hstack([near, crowd[:, crowd.any(0)]])
        try:
            fits = [fit(target, design, formula, conditional=False) for design in (near, both)]
        except NotEnoughData:
            continue
        statistic = 2 * (fits[1].likelihood - fits[0].likelihood)
        degrees = both.shape[1] - near.shape[1]
        rows.append(
            {
                **cell,
                "locations": len(part),
                "statistic": statistic,
                "df": degrees,
                "p": float(stats.chi2.sf(statistic, degrees)),
            }
        )
    return pd.DataFrame(rows)


def penalty_gains(tickets: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
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
    rules = Rules.of(rules)
    require(tickets, ["method", "density", "formula", "accuracy"], "the table of tickets")
    keys = [name for name in (*CELL, "density", "formula") if name in tickets]
    measures = [name for name in ("accuracy", "recovery_family") if name in tickets]
    frames: list[pd.DataFrame] = []
    for penalized, plain in CLAIM.own(rules)["penalized"].items():
        sides = [tickets[tickets["method"] == name][[*keys, *measures]] for name in (penalized, plain)]
        both = sides[0].merge(sides[1], on=keys, suffixes=("", "_plain"))
        gains = both[keys].assign(method=penalized)
        for name in measures:
            gains[name] = both[name] - both[f"{name}_plain"]
        frames.append(gains)
    return pd.concat(frames, ignore_index=True)


def judged(data: Data, rules: Rules) -> Finding:
    """What interference adds, and what penalties do.

    Details: those of `prediction_gains`. Tables: ``likelihood_ratios``, and ``penalties`` where tickets are given.
    """
    locations = data.observations.locations
    gains = prediction_gains(locations, "formula", rules)
    means = by_formula(gains, ["gain", "gain_permuted", "likelihood_gain"])
    effect = estimate(means["gain"], rules)
    likelihood = estimate(means["likelihood_gain"], rules)
    demand = _demand_slope(locations, rules)
    try:
        false = by_formula(prediction_gains(locations, "false", rules), ["gain"])["gain"]
    except NotEnoughData:
        false = pd.Series(dtype=float)
    nulls = {"permuted_interference": float(means["gain_permuted"].mean()), "false_clauses": float(false.mean())}
    estimates = {
        "gain": effect,
        "likelihood": likelihood,
        "over permuted": measured(means["gain"] - means["gain_permuted"], rules),
        "over false": measured(means["gain"] - false, rules),
        "demand": demand,
    }
    tables = {"likelihood_ratios": likelihood_ratios(locations, rules)}
    reason = "judged without tickets: no pair of penalised and plain ones was given"
    pairs = penalty_gains(data.tickets, rules) if data.tickets is not None else pd.DataFrame()
    if len(pairs):
        tables["penalties"] = pairs
        known = by_formula(pairs, ["accuracy"])["accuracy"].dropna()
        reason = f"judged without tickets: {len(known)} formulas have a pair of penalised and plain ones"
        reason += f", {rules.formulas} are needed"
        if (penalties := measured(known, rules)) is not None:
            estimates["penalties"] = penalties
            reason = f"penalties change accuracy by {penalties.value:.3g} [{penalties.low:.3g}, {penalties.high:.3g}]"
    return Finding(effect, estimates, nulls, gains, tables, reason)


def _demand_slope(locations: pd.DataFrame, rules: Rules) -> Estimate | None:
    """By how much one standard deviation of demand lowers the log-odds of a code with proximity controlled."""
    own = CLAIM.own(rules)
    frames = []
    covariates: Sequence[str] = [own["demand"], *own["proximity"]]
    for cell, part in cells(candidates(locations, "formula", rules.polarities)):
        try:
            frames.append(slopes(part, "code", covariates).rename("slope").reset_index().assign(**cell))
        except NotEnoughData:
            continue
    if not frames:
        return None
    return measured(-by_formula(pd.concat(frames), ["slope"])["slope"], rules)


def asks(own: Mapping[str, Any]) -> Asked:
    """The conditions of C4."""
    gain = "the gain in AUC of interference beside proximity"
    likelihood = "the gain in held-out log-likelihood for each location (nats)"
    demand = "the fall of the log-odds of a code for one standard deviation of demand, proximity controlled,"
    penalties = "what penalties add to the accuracy of probe tickets"
    return Asked(
        holds=[
            Condition("gain", gain, own["holds"]),
            Condition("over permuted", f"{gain}, above that with interference permuted,", own["beyond"]),
            Condition("over false", f"{gain}, above that at false clauses,", own["beyond"]),
            Condition("likelihood", likelihood, own["nats"]),
            Condition("demand", demand, own["lowers"]),
            Condition("penalties", penalties, own["accuracy"], optional=True),
        ],
        partly=[Condition("gain", gain, own["partly"]), Condition("likelihood", likelihood, own["nats"])],
    )


CLAIM = Claim(
    name="C4",
    statement="A winning ticket balances proximity and interference.",
    reported="the abstract: winning tickets are compatible locations with little interference; no numbers are public",
    measure="gain in cross-validated AUC for 'will be a code' of proximity and interference over proximity alone",
    choices={
        "holds": Value(0.01, "least gain in AUC for 'holds'"),
        "partly": Value(0.003, "least gain in AUC for 'partly'"),
        "beyond": Value(0.003, "least gain in AUC above that of a null"),
        "nats": Value(0.0005, "least gain in held-out log-likelihood"),
        "lowers": Value(0.05, "least fall of the log-odds of a code with demand"),
        "accuracy": Value(0.001, "least gain in accuracy by penalties"),
        "proximity": Value(["hamming", "soft", "margin", "cosine", "signed_sum"], "what the first model knows"),
        "interference": Value(["graded", "near_count", "conflicts", "capacity"], "what the second knows beside it"),
        "demand": Value("graded", "the measure of crowding whose direction counts"),
        "folds": Value(5, "parts of the formulas in the cross-validation"),
        "penalized": Value(
            {"distance": "distance-plain", "motion": "motion-plain", "distance+motion": "distance+motion-plain"},
            "methods with penalties, and the same without",
        ),
    },
    test=judged,
    asks=asks,
    question="Does a good ticket weigh how near a location is against what it costs others?",
    words="Two models predict which locations become codes, in formulas that they were not fitted to: one knows the "
    "distances, the other also the interference [ours]. The effect is the gain in AUC, the probability that a code "
    "is ranked before a location that is none. Where the study has tickets, those that were chosen with penalties on "
    "crowding must also be more accurate than those without.",
    nulls={
        "permuted_interference": Shown(
            "interference permuted", "the values of interference, exchanged among the locations of each formula"
        ),
        "false_clauses": Shown("patterns at false clauses"),
    },
    figures=(
        Figure(
            "What knowing the interference adds to knowing the distance. Above 0: it helps to tell which locations "
            "become codes. Open and dotted: the nulls.",
            lambda verdict, study: plot.gains(verdict.details, verdict.nulls),
        ),
        Figure(
            "What penalties on crowded rows and covered clauses add to the accuracy of tickets that are chosen by "
            "distance or motion.",
            lambda verdict, study: plot.penalties(verdict.table("penalties")),
        ),
    ),
    law=Law(
        "tickets of distance are less accurate without penalties, by 0.01",
        accuracy=lambda method: -0.01 if method == "distance-plain" else 0.0,
    ),
)
"""The record. Beside its own law, those of C1 and C3 make it true."""
