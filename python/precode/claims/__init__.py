"""Observations in trained networks, and the test of every claim about them.

All definitions, thresholds and rules here are ours: those of arXiv 2605.17704 are not public.
"""

from importlib.util import find_spec

from precode._internal.errors import PrecodeError

if find_spec("scipy") is None:
    raise PrecodeError("the claims need scipy: pip install 'precode[study]'")

# isort: split
from precode.claims.c1 import metric_aucs, near_shares
from precode.claims.c2 import convergence, motion_curves
from precode.claims.c3 import dose_response, rejection_slopes
from precode.claims.c4 import likelihood_ratios, penalty_gains, prediction_gains
from precode.claims.c5 import re_expression
from precode.claims.c6 import contests
from precode.claims.conditions import AnyOf, Asked, Condition
from precode.claims.counts import count_nulls
from precode.claims.judge import HEAD, claims_table, judge, judge_setting
from precode.claims.observations import Observations, observe, observe_locations, observe_motion, snapshot_steps
from precode.claims.records import Claim, Figure, Finding, Law, Shown, Value, Verdict
from precode.claims.registry import CLAIMS, load_rules, rules_version
from precode.claims.rules import Rules
from precode.claims.similarity import linear_cka, similarity, svcca
from precode.claims.synthetic import SyntheticStudy, synthetic_study, verdict_rates
from precode.claims.transport import transport, transport_matrix, transport_tickets

__all__ = [
    "CLAIMS",
    "HEAD",
    "AnyOf",
    "Asked",
    "Claim",
    "Condition",
    "Figure",
    "Finding",
    "Law",
    "Observations",
    "Rules",
    "Shown",
    "SyntheticStudy",
    "Value",
    "Verdict",
    "claims_table",
    "contests",
    "convergence",
    "count_nulls",
    "dose_response",
    "judge",
    "judge_setting",
    "likelihood_ratios",
    "linear_cka",
    "load_rules",
    "metric_aucs",
    "motion_curves",
    "near_shares",
    "observe",
    "observe_locations",
    "observe_motion",
    "penalty_gains",
    "prediction_gains",
    "re_expression",
    "rejection_slopes",
    "rules_version",
    "similarity",
    "snapshot_steps",
    "svcca",
    "synthetic_study",
    "transport",
    "transport_matrix",
    "transport_tickets",
    "verdict_rates",
]


def __dir__() -> list[str]:
    return __all__
