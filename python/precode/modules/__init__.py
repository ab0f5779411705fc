"""Tickets of any `torch.nn.Module`."""

from precode.modules.comparing import Comparison, compare
from precode.modules.own import register_method
from precode.modules.pruning import Pruner
from precode.modules.removal import remove_dead
from precode.modules.schedules import Schedule
from precode.modules.search import find_ticket
from precode.modules.watching import Log, watch

__all__ = [
    "Comparison",
    "Log",
    "Pruner",
    "Schedule",
    "compare",
    "find_ticket",
    "register_method",
    "remove_dead",
    "watch",
]


def __dir__() -> list[str]:
    return __all__
