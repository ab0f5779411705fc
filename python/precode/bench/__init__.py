"""Measures precode beside the other ways to do the same: `precode bench`.

Every contestant runs in one process on the same work, in turn, and is checked first: a contestant that computes
something else is reported, not timed.
"""

from precode.bench.distances import pairs
from precode.bench.drawing import sampling
from precode.bench.machine import environment
from precode.bench.peers import PEERS
from precode.bench.real_networks import modules
from precode.bench.steps import training
from precode.bench.table import markdown
from precode.bench.trainers import Peer, Trainer
from precode.bench.workload import Cell, Problem

__all__ = [
    "PEERS",
    "Cell",
    "Peer",
    "Problem",
    "Trainer",
    "environment",
    "markdown",
    "modules",
    "pairs",
    "sampling",
    "training",
]


def __dir__() -> list[str]:
    return __all__
