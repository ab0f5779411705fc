"""Experiments of papers, with their published numbers."""

from precode.experiments import published
from precode.experiments.founding_curves import Curves, curves, dynamics

__all__ = [
    "Curves",
    "curves",
    "dynamics",
    "published",
]


def __dir__() -> list[str]:
    return __all__
