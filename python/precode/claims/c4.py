"""C4: a ticket balances proximity and interference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

from precode import plot
from precode.claims.candidates import candidates
from precode.claims.records import Claim, Data, Figure, Finding, Law, Shown, Value
from precode.claims.rules import Rules, RulesLike
from precode.claims.statistics import (
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

if TYPE_CHECKING:
    from numpy.typing import NDArray


def prediction_gains(locations: pd.DataFrame, kind: str = "formula", rules: RulesLike = None) -> pd.DataFrame:
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
        >>> from precode.claims import synthetic_study
        >>> study = synthetic_study("planted", formulas=10, hidden=16, clauses=16)
        >>> prediction_gains(study.observations.locations)["gain"].mean() > 0
        np.True_
    """
    rules = Rules.of(rules)
    own = CLAIM.own(rules)
    rng = np.random.default_rng(rules.seed)
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
            area = dict(
                zip(designs, aucs(labels[mine], -np.column_stack([p[mine] for p in predicted.values()])), strict=True)
            )
            loss = {name: log_loss(labels[mine], p[mine]) for name, p in predicted.items()}
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
    """Predicted probabilities of formulas that the model was not fitted to."""
    predicted = np.zeros(len(labels))
    for train, test in GroupKFold(folds).split(design, labels, formula):
        if labels[train].all() or not labels[train].any():
            raise NotEnoughData("codes in one fold of the formulas only")
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        predicted[test] = model.fit(design[train], labels[train]).predict_proba(design[test])[:, 1]
    return predicted


def likelihood_ratios(locations: pd.DataFrame, rules: RulesLike = None) -> pd.DataFrame:
    """Likelihood-ratio test of interference beside proximity in every cell (statsmodels GLM).

    It takes locations for independent; the intervals over formulas do not, and the rule uses those.

    Returns:
        One row a cell: its columns, locations, statistic, df and p.

    Example:
        >>> from precode.claims import synthetic_study
        >>> study = synthetic_study("planted", formulas=10, hidden=16, clauses=16)
        >>> bool(likelihood_ratios(study.observations.locations)["p"].iloc[0] < 0.01)
        True
    """
    rules = Rules.of(rules)
    own = CLAIM.own(rules)
    rows = []
    for cell, part in cells(candidates(locations)):
        target = part["code"].to_numpy(dtype=float)
        if target.min() == target.max():
            continue
        near, crowd = (standardized(part, own[name]).to_numpy() for name in ("proximity", "interference"))
        ones = np.ones((len(part), 1))
        # What never varies, such as conflicts in monotone formulas, adds no degree of freedom.
        small, large = np.hstack([ones, near]), np.hstack([ones, near, crowd[:, crowd.any(0)]])
        fits = [GLM(target, design, family=Binomial()).fit() for design in (small, large)]
        statistic = 2 * (fits[1].llf - fits[0].llf)
        degrees = int(np.linalg.matrix_rank(large) - np.linalg.matrix_rank(small))
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
    own = CLAIM.own(rules)
    locations = data.observations.locations
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
        "the interval of the gain is above 0": effect.above(0),
        f"the gain is at least {own['holds']}": effect.value >= own["holds"],
        "the gain in held-out log-likelihood is above 0": likelihood.above(0),
        "more demand makes a code less likely": demand.below(0),
    }
    partly = {
        "the interval of the gain is above 0": effect.above(0),
        "the gain in held-out log-likelihood is above 0": likelihood.above(0),
        f"the gain is at least {own['partly']}": effect.value >= own["partly"],
    }
    tables = {"likelihood_ratios": likelihood_ratios(locations, rules)}
    reason = "judged without tickets: no pair of penalised and plain ones was given"
    nulls = {"permuted_interference": float(means["gain_permuted"].mean()), "false_clauses": false}
    pairs = penalty_gains(data.tickets, rules) if data.tickets is not None else pd.DataFrame()
    if len(pairs):
        penalties = estimate(by_formula(pairs, ["accuracy"])["accuracy"], rules)
        holds["penalties raise the accuracy of probe tickets"] = penalties.above(0)
        tables["penalties"] = pairs
        reason = f"penalties change accuracy by {penalties.value:.3g} [{penalties.low:.3g}, {penalties.high:.3g}]"
    return Finding(effect, holds, partly, nulls, gains, tables, reason)


def _demand_slope(locations: pd.DataFrame, rules: Rules) -> Estimate:
    """Log-odds of a code for one standard deviation of demand with proximity controlled."""
    own = CLAIM.own(rules)
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


CLAIM = Claim(
    name="C4",
    statement="A winning ticket balances proximity and interference.",
    measure="gain in cross-validated AUC for 'will be a code' of proximity and interference over proximity alone",
    rule="Holds if the gain is at least {holds} with an interval above 0, the gain in held-out log-likelihood has "
    "an interval above 0, more {demand} demand makes a code less likely with proximity controlled, with an interval "
    "below 0, and, where tickets are given, penalties raise the accuracy of probe tickets, with an interval above "
    "0; partly if the gain is at least {partly} and both gains have intervals above 0; otherwise it does not hold.",
    choices={
        "holds": Value(0.01, "least gain in AUC for 'holds'"),
        "partly": Value(0.003, "least gain in AUC for 'partly'"),
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
    question="Does a good ticket weigh how near a location is against what it costs others?",
    words="Two models predict which locations become codes, in formulas that they were not fitted to: one knows the "
    "distances, the other also the interference [ours]. The effect is the gain in AUC, the probability that a code "
    "is ranked before a location that is none. Where the study has tickets, those that were chosen with a price on "
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
            "What a price on crowded rows and covered clauses adds to the accuracy of tickets that are chosen by "
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
