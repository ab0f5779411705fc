"""Figures. Every function takes ``ax=`` and returns the axes it drew on; needs the extra ``precode[plot]``.

Figures of the claims draw tables of `precode.claims`, with their nulls. "[ours]" on an axis marks a definition of
ours, where that of arXiv 2605.17704 is not public.
"""

from precode.plot.code_maps import channels, weights
from precode.plot.nearness import convergence, distances, metrics, motion, similarity
from precode.plot.pressure import crowding, gains, slopes
from precode.plot.retraining import penalties, recovery, row_transport, tickets, wins
from precode.plot.trajectories import curves, dynamics
from precode.plot.verdicts import parts

__all__ = [
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
    "similarity",
    "slopes",
    "tickets",
    "weights",
    "wins",
]
