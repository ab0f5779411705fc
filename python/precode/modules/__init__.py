"""Tickets of any `torch.nn.Module`."""

from precode.modules.search import find_ticket

__all__ = [
    "find_ticket",
]


def __dir__() -> list[str]:
    return __all__
