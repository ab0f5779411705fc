"""precode reads the codes a network will use before it has learned them.

The setting is that of Adler, Alistarh and Shavit (arXiv 2504.08842): small networks trained on Boolean
formulas, whose feature-channel codes are read from the signs of their weights.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch  # noqa: F401 - libtorch must be loaded before the extension

from precode._internal.extension import TORCH_VERSION  # first: it says clearly why the extension cannot be loaded

# isort: split
from precode._internal.errors import (
    DivergenceWarning,
    PrecodeError,
    PrecodeFileError,
    PrecodeIndexError,
    PrecodeShapeError,
    PrecodeTypeError,
    PrecodeValueError,
    TicketWarning,
    UnsupportedError,
)
from precode.codes import (
    Codes,
    Locations,
    Projection,
    code_distance,
    code_distance_counts,
    code_distance_kernel,
    conflicts,
    crowding,
    decode,
    distance,
    feature_capacity,
    locations,
    mean_row_cosine,
    motion,
    nearest_codes,
    nulls,
)
from precode.formulas import Biased, BrokenClause, Dataset, Dnf, TruthTable
from precode.modules import Comparison, Log, Pruner, Schedule, compare, find_ticket, register_method, remove_dead, watch
from precode.networks import EarlyStopping, Networks, Optimizer, Runs, train
from precode.tickets import (
    Retrained,
    Ticket,
    Tickets,
    analyses,
    controls,
    find_tickets,
    load_plain_state_dict,
    methods,
    plain_state_dict,
    recovery,
)

if TYPE_CHECKING:
    from precode import bench, callbacks, claims, experiments, plot, report, study
    from precode.experiments import published
    from precode.experiments.founding_curves import Curves, curves, dynamics

__version__ = "0.1.0"

LAZY = {
    **dict.fromkeys(("bench", "callbacks", "claims", "experiments", "plot", "report", "study"), ""),
    **dict.fromkeys(("Curves", "curves", "dynamics"), "experiments.founding_curves"),
    "published": "experiments",
}
"""Names that are imported when they are first used, by the file that has them: some need packages of an extra."""

__all__ = [
    "TORCH_VERSION",
    "Biased",
    "BrokenClause",
    "Codes",
    "Comparison",
    "Curves",
    "Dataset",
    "DivergenceWarning",
    "Dnf",
    "EarlyStopping",
    "Locations",
    "Log",
    "Networks",
    "Optimizer",
    "PrecodeError",
    "PrecodeFileError",
    "PrecodeIndexError",
    "PrecodeShapeError",
    "PrecodeTypeError",
    "PrecodeValueError",
    "Projection",
    "Pruner",
    "Retrained",
    "Runs",
    "Schedule",
    "Ticket",
    "TicketWarning",
    "Tickets",
    "TruthTable",
    "UnsupportedError",
    "analyses",
    "bench",
    "callbacks",
    "claims",
    "code_distance",
    "code_distance_counts",
    "code_distance_kernel",
    "compare",
    "conflicts",
    "controls",
    "crowding",
    "curves",
    "decode",
    "distance",
    "dynamics",
    "experiments",
    "feature_capacity",
    "find_ticket",
    "find_tickets",
    "load_plain_state_dict",
    "locations",
    "mean_row_cosine",
    "methods",
    "motion",
    "nearest_codes",
    "nulls",
    "plain_state_dict",
    "plot",
    "published",
    "recovery",
    "register_method",
    "remove_dead",
    "report",
    "study",
    "train",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module 'precode' has no attribute {name!r}")
    place = LAZY[name]
    return getattr(import_module(f"precode.{place}"), name) if place else import_module(f"precode.{name}")


def __dir__() -> list[str]:
    return __all__
