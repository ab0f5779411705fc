"""C1: final codes were near at initialization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from precode import plot
from precode._internal.statistics import CELL
from precode.claims.candidates import POLARITIES, candidates, of_codes
from precode.claims.conditions import Asked, Condition
from precode.claims.observations import CONTROLS, METRICS
from precode.claims.records import Claim, Data, Figure, Finding, Law, Shown, Value
from precode.claims.rules import Rules
from precode.claims.statistics import Estimate, NotEnoughData, aucs, by_formula, estimate, measured


def near_shares(nulls: pd.DataFrame, near: int = 1, polarities: Sequence[str] = POLARITIES) -> pd.DataFrame:
    """Share of the final codes that were near at initialization, for every formula and template.

    Templates stay apart: a null that has more codes of the template that is near by chance is no stronger for it.

    Args:
        nulls: see `count_nulls`.
        near: wrong signs up to which a location counts as near.
        polarities: of the codes that count; see `precode.claims.candidates`.

    Returns:
        One row a cell, template and formula, one column a null and ``observed``; those without codes are left out.

    Example:
        >>> table = pd.DataFrame({"formula": 0, "template": "2P", "null": "observed", "distance": [0, 1, 2],
        ...                       "locations": [4.0, 8.0, 4.0], "codes": [3.0, 0.0, 1.0]})
        >>> near_shares(table)["observed"].tolist()
        [0.75]
    """
    table = nulls[of_codes(nulls["template"], polarities).to_numpy()]
    keys = [name for name in (*CELL, "template", "formula") if name in table]
    counts = table.assign(close=table["codes"].where(table["distance"] <= near, 0.0))
    counts = counts.groupby([*keys, "null"], observed=True)[["close", "codes"]].sum()
    shares = (counts["close"] / counts["codes"].where(counts["codes"] > 0)).rename("share").reset_index()
    wide = shares.pivot_table(index=keys, columns="null", values="share", observed=True)
    return wide.dropna(subset="observed").reset_index() if "observed" in wide else wide.iloc[:0].reset_index()


def metric_aucs(locations: pd.DataFrame, kind: str = "formula", polarities: Sequence[str] = POLARITIES) -> pd.DataFrame:
    """AUC of every distance and control for "will be a code", for every cell, template and formula.

    Returns:
        One row a cell, template and formula, one column a metric; NaN where all or none of the `candidates` became
        codes. Templates stay apart: that one is nearer by chance than another says nothing.

    Raises:
        NotEnoughData: no candidates.

    Example:
        >>> table = pd.DataFrame({"formula": 0, "kind": "formula", "template": "4P", "polarity": True,
        ...                       "code": [True, False], **{name: [0.0, 1.0] for name in (*METRICS, *CONTROLS)}})
        >>> metric_aucs(table)["soft"].tolist()
        [1.0]
    """
    scores = [*METRICS, *CONTROLS]
    table = candidates(locations, kind, polarities)
    if table.empty:
        raise NotEnoughData(f"no {kind} locations of the right polarity")
    keys = [name for name in (*CELL, "template", "formula") if name in table]
    rows = [
        dict(zip([*keys, *scores], [*values, *aucs(part["code"], part[scores])], strict=True))
        for values, part in table.groupby(keys, sort=True, observed=True)
    ]
    return pd.DataFrame(rows)


def judged(data: Data, rules: Rules) -> Finding:
    """What is asked of codes and metrics.

    Details: a row for every distance and control: metric, group (feature space or control), auc, low, high, and
    auc_false at false clauses. Tables: ``distances`` (share of final codes by initial distance under every null),
    ``shares`` (near share of every formula), ``similarity``.
    """
    own = CLAIM.own(rules)
    shares = near_shares(data.observations.nulls, rules.near, rules.polarities)
    if shares.empty:
        raise NotEnoughData("no formula has a final code")
    names = [str(name) for name in shares if name not in (*CELL, "template", "formula", "observed")]
    if missing := [name for name in own["nulls"] if name not in names]:
        raise NotEnoughData(f"no codes under the null {', '.join(missing)}")
    means = by_formula(shares, ["observed", *names])
    nulls = {name: float(means[name].mean()) for name in names}
    strongest = max(own["nulls"], key=lambda name: nulls[name])
    excess = estimate(means["observed"] - means[strongest], rules)
    details, areas = _ablation(data.observations.locations, own["controls"], rules)
    beyond, limit = _beyond_persistence(means, rules)
    estimates = {"excess": excess, "beyond": beyond, **areas}
    tables = {
        "distances": _distances(data.observations.nulls),
        "shares": shares,
        "similarity": data.observations.similarity,
    }
    shown = {name: value for name, value in {"observed share": float(means["observed"].mean()), **nulls}.items()}
    reason = "; ".join(filter(None, [f"the strongest null of chance is {strongest}", limit]))
    return Finding(excess, estimates, shown, details, tables, reason)


def _beyond_persistence(means: pd.DataFrame, rules: Rules) -> tuple[Estimate | None, str]:
    """By how much codes were near more often than patterns at false clauses, and what that means.

    A sign that training leaves alone is at the end what it was at the start, so that any pattern was near.
    """
    observed = means["observed"]
    false = means.get("false_clauses", pd.Series(np.nan, means.index))
    above = measured(observed - false, rules)
    if above is None:
        return None, "too few formulas have patterns left at false clauses to compare with"
    if above.low > 0:
        return above, ""
    shares = f"{observed.mean():.2f} of codes and {false.mean():.2f} of the patterns left at false clauses were near"
    difference = f"{above.value:.3f} [{above.low:.3f}, {above.high:.3f}] between them"
    return above, f"{shares}, {difference}: signs that training leaves alone make any pattern near"


def _ablation(
    locations: pd.DataFrame, controls: list[str], rules: Rules
) -> tuple[pd.DataFrame, dict[str, Estimate | None]]:
    """AUC of every metric as a table, and what is asked of that of the Hamming distance."""
    scores = [*METRICS, *CONTROLS]
    areas = by_formula(metric_aucs(locations, "formula", rules.polarities).dropna(subset="hamming"), scores)
    try:
        false = by_formula(metric_aucs(locations, "false", rules.polarities), scores).reindex(areas.index)
    except NotEnoughData:
        false = pd.DataFrame(np.nan, index=areas.index, columns=scores)
    found = {name: estimate(areas[name], rules) for name in scores}
    table = pd.DataFrame(
        {
            "metric": scores,
            "group": ["feature space" if name in METRICS else "control" for name in scores],
            "auc": [item.value for item in found.values()],
            "low": [item.low for item in found.values()],
            "high": [item.high for item in found.values()],
            "auc_false": [false[name].mean() for name in scores],
            "formulas": [item.formulas for item in found.values()],
        }
    )
    hamming = areas["hamming"]
    return table, {
        "auc": found["hamming"],
        "auc over false": measured(hamming - false["hamming"], rules),
        **{f"auc over {name}": measured(hamming - areas[name], rules) for name in controls},
    }


def asks(own: Mapping[str, Any]) -> Asked:
    """The conditions of C1."""
    excess = "the share of codes that were near, above that under the strongest null of chance,"
    beyond = "the share of codes that were near, above that of patterns left at false clauses,"
    auc = "the AUC of the Hamming distance for 'will be a code'"
    return Asked(
        holds=[
            Condition("excess", excess, own["holds"]),
            Condition("beyond", beyond, own["beyond"]),
            Condition("auc", auc, own["auc"], above=0.5),
            Condition("auc over false", f"{auc}, above that at false clauses,", own["margin"]),
            *(
                Condition(f"auc over {name}", f"{auc}, above that of {name},", own["margin"])
                for name in own["controls"]
            ),
        ],
        partly=[Condition("excess", excess, own["partly"])],
    )


def _distances(nulls: pd.DataFrame) -> pd.DataFrame:
    """Mean share of final codes at every initial distance: template, null, distance, share."""
    keys = [name for name in (*CELL, "formula") if name in nulls]
    groups = nulls.groupby([*keys, "template", "null"], observed=True)["codes"]
    total = groups.transform("sum")
    shares = nulls.assign(share=nulls["codes"] / total.where(total > 0))
    return shares.groupby(["template", "null", "distance"], observed=True)["share"].mean().reset_index()


CLAIM = Claim(
    name="C1",
    statement="Final codes were near at initialization.",
    reported="a public digest of the paper: of the networks' own final codes, .546 (random masks), .693 (OBS tickets) "
    "and .789 (rewound ones) were near at the start; its definition of near is not public",
    measure="share of final codes that were near at initialization, above the strongest null",
    choices={
        "holds": Value(0.1, "least excess over the strongest null of chance for 'holds'"),
        "partly": Value(0.03, "the same for 'partly'"),
        "beyond": Value(0.02, "least excess over patterns left at false clauses"),
        "auc": Value(0.55, "least AUC of the Hamming distance"),
        "margin": Value(0.01, "least AUC of the Hamming distance above that of a control or at false clauses"),
        "nulls": Value(["analytic", "swapped_clauses", "permuted_rows", "random_network"], "nulls of chance"),
        "controls": Value(["mass", "row_mass", "random"], "scores that know nothing of templates"),
    },
    test=judged,
    asks=asks,
    question="Where a trained network computes a clause, was it close to doing so before it was trained?",
    words="For every code of the trained network, 4P on rows of positive polarity and 3N1P on rows of negative one "
    "[digest], as in C2 to C4, we count how many of its signs were wrong at initialization. At most one wrong "
    "sign is near [ours]. The effect is the share of codes that were near, minus that share under the strongest null; "
    "templates count alike. The distance must "
    "also tell future codes from other locations better than controls that know nothing of templates.",
    nulls={
        "observed share": Shown("measured: share of codes that were near"),
        "analytic": Shown(
            "random signs (analytic)",
            "the share that coin flips would give: 5 in 16 locations of four signs have at most one wrong",
        ),
        "false_clauses": Shown(
            "patterns at false clauses",
            "clauses that are not in the formula, with the patterns that are left there at the end: what the "
            "persistence of signs alone gives",
        ),
        "swapped_clauses": Shown(
            "codes read for false clauses", "the rows of the final codes, with distances to a false clause"
        ),
        "permuted_rows": Shown("codes on random rows", "the final codes, moved to random rows of the same polarity"),
        "random_network": Shown(
            "random network",
            "codes of a network of random signs with the final polarities and share of positive signs "
            "(arXiv 2504.08842, section 4.1)",
        ),
    },
    figures=(
        Figure(
            "How far final codes were from their template at initialization. Bars: observed; markers: the nulls. "
            "The claim says that the bars left of the dashed line are higher than the nulls.",
            lambda verdict, study: plot.distances(study.table("nulls")),
        ),
        Figure(
            "Metric ablation: how well each distance, and each control that knows nothing of templates, tells which "
            "locations become codes. 0.5 is chance, 1 is perfect. The way to the final weights knows the end.",
            lambda verdict, study: plot.metrics(verdict.details),
        ),
        Figure(
            "Alternatives that compare whole hidden layers, CKA and SVCCA. They cannot say which location becomes a "
            "code; open: the final network of another formula.",
            lambda verdict, study: plot.similarity(verdict.table("similarity")),
        ),
    ),
    law=Law(
        "a location of the right polarity becomes a code with log-odds 0.6 - 0.9 d, d its Hamming distance",
        codes=lambda locations: 0.6 - 0.9 * locations["hamming"].to_numpy(),
    ),
)
"""The record."""
