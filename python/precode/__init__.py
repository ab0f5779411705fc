"""precode reads the codes a network will use before it has learned them.

The setting is that of Adler, Alistarh and Shavit (arXiv 2504.08842): small networks trained on Boolean
formulas, whose feature-channel codes are read from the signs of their weights.
"""

import torch  # noqa: F401 - libtorch must be loaded before the extension

from precode._extension import TORCH_VERSION  # first: it says clearly why the extension cannot be loaded

# isort: split
from precode import analyses, nulls, plot, published
from precode._curves import Curves, curves, dynamics
from precode._distance import distance, motion
from precode._find_ticket import find_ticket
from precode._recovery import recovery
from precode._registry import controls, methods
from precode.codes import Codes, decode
from precode.dataset import Dataset
from precode.errors import (
    PrecodeError,
    PrecodeFileError,
    PrecodeShapeError,
    PrecodeTypeError,
    PrecodeValueError,
    UnsupportedError,
)
from precode.interference import conflicts, crowding, feature_capacity, mean_row_cosine
from precode.networks import Networks
from precode.pairs import code_distance, code_distance_counts, code_distance_kernel, nearest_codes
from precode.retrained import Retrained
from precode.sampler import Biased, BrokenClause, TruthTable
from precode.settings import EarlyStopping, Optimizer
from precode.task import Dnf
from precode.ticket import Ticket
from precode.tickets import Tickets, find_tickets
from precode.training import Runs, train

__version__ = "0.1.0"

__all__ = [
    "TORCH_VERSION",
    "Biased",
    "BrokenClause",
    "Codes",
    "Curves",
    "Dataset",
    "Dnf",
    "EarlyStopping",
    "Networks",
    "Optimizer",
    "PrecodeError",
    "PrecodeFileError",
    "PrecodeShapeError",
    "PrecodeTypeError",
    "PrecodeValueError",
    "Retrained",
    "Runs",
    "Ticket",
    "Tickets",
    "TruthTable",
    "UnsupportedError",
    "analyses",
    "code_distance",
    "code_distance_counts",
    "code_distance_kernel",
    "conflicts",
    "controls",
    "crowding",
    "curves",
    "decode",
    "distance",
    "dynamics",
    "feature_capacity",
    "find_ticket",
    "find_tickets",
    "mean_row_cosine",
    "methods",
    "motion",
    "nearest_codes",
    "nulls",
    "plot",
    "published",
    "recovery",
    "train",
]
