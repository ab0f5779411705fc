"""Boolean formulas and the data drawn from them."""

from precode.formulas.datasets import Dataset
from precode.formulas.dnf import Dnf
from precode.formulas.samplers import Biased, BrokenClause, TruthTable

__all__ = [
    "Biased",
    "BrokenClause",
    "Dataset",
    "Dnf",
    "TruthTable",
]


def __dir__() -> list[str]:
    return __all__
