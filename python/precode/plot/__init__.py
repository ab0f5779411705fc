"""Figures. Every function takes ``ax=`` and returns the axes it drew on; needs the extra ``precode[plot]``.

Figures of the claims draw tables of `precode.claims`, with their nulls. "Our definition" on an axis stands where that
of arXiv 2605.17704 is not public. Published points are drawn where a figure is given a table of them.
"""

from precode.plot.beside import beside
from precode.plot.code_maps import channels, weights
from precode.plot.nearness import convergence, distances, metrics, motion, similarity
from precode.plot.pressure import crowding, gains, slopes
from precode.plot.retraining import penalties, recovery, row_transport, tickets, wins
from precode.plot.trajectories import curves, dynamics, scaling
from precode.plot.verdicts import parts
from precode.plot.watching import watched

__all__ = [
    "beside",
    "channels",
    "convergence",
    "crowding",
    "curves",
    "distances",
    "dynamics",
    "gains",
    "metrics",
    "motion",
    "parts",
    "penalties",
    "recovery",
    "row_transport",
    "scaling",
    "similarity",
    "slopes",
    "tickets",
    "watched",
    "weights",
    "wins",
]


def __dir__() -> list[str]:
    return __all__
