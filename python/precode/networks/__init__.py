"""Stacks of networks and their training."""

from precode.networks.settings import EarlyStopping, Optimizer
from precode.networks.stacks import Networks
from precode.networks.training import Runs, train

__all__ = [
    "EarlyStopping",
    "Networks",
    "Optimizer",
    "Runs",
    "train",
]


def __dir__() -> list[str]:
    return __all__
