"""Observations in trained networks, and the test of every claim about them.

All definitions, thresholds and rules here are ours: those of arXiv 2605.17704 are not public.
"""

from importlib.util import find_spec

from precode._internal.errors import PrecodeError

if missing := [name for name in ("scipy", "sklearn", "statsmodels") if find_spec(name) is None]:
    raise PrecodeError(f"the claims need {', '.join(missing)}: pip install 'precode[study]'")

# isort: split
from precode.claims.balance import c4, likelihood_ratios, penalty_gains, prediction_gains
from precode.claims.claim import Claim
from precode.claims.contests import c5, c6, contests, re_expression
from precode.claims.counts import count_nulls
from precode.claims.crowding import c3, dose_response, rejection_slopes
from precode.claims.judge import claims_table, judge, judge_parts
from precode.claims.observations import Observations, observe, observe_locations, observe_motion, snapshot_steps
from precode.claims.proximity import c1, c2, convergence, metric_aucs, motion_curves, near_shares
from precode.claims.rules import load_rules
from precode.claims.similarity import linear_cka, similarity, svcca
from precode.claims.synthetic import SyntheticStudy, synthetic_study, verdict_rates
from precode.claims.transport import transport, transport_matrix, transport_tickets

__all__ = [
    "Claim",
    "Observations",
    "SyntheticStudy",
    "c1",
    "c2",
    "c3",
    "c4",
    "c5",
    "c6",
    "claims_table",
    "contests",
    "convergence",
    "count_nulls",
    "dose_response",
    "judge",
    "judge_parts",
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
    "similarity",
    "snapshot_steps",
    "svcca",
    "synthetic_study",
    "transport",
    "transport_matrix",
    "transport_tickets",
    "verdict_rates",
]
