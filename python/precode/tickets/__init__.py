"""Tickets: masks, their files, the methods that find them in stacks of networks, and what retraining makes of them."""

from precode.tickets import analyses
from precode.tickets.recoveries import recovery
from precode.tickets.registry import controls, methods
from precode.tickets.search import find_tickets
from precode.tickets.stacked import Found, Retrained, Tickets
from precode.tickets.states import load_plain_state_dict, plain_state_dict
from precode.tickets.ticket import Ticket

__all__ = [
    "Found",
    "Retrained",
    "Ticket",
    "Tickets",
    "analyses",
    "controls",
    "find_tickets",
    "load_plain_state_dict",
    "methods",
    "plain_state_dict",
    "recovery",
]


def __dir__() -> list[str]:
    return __all__
