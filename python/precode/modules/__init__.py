"""Tickets of any `torch.nn.Module`."""

from precode.modules.comparing import Comparison, compare
from precode.modules.own import register_method
from precode.modules.search import find_ticket

__all__ = [
    "Comparison",
    "compare",
    "find_ticket",
    "register_method",
]


def __dir__() -> list[str]:
    return __all__
