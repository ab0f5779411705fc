"""Figures. Every function takes ``ax=`` and returns the axes it drew on; needs the extra ``precode[plot]``.

Figures of the claims draw tables of `precode.claims`, with their nulls. "[ours]" on an axis marks a definition of
ours, where that of arXiv 2605.17704 is not public.
"""

from precode.plot._codes import channels, weights
from precode.plot._crowding import crowding, gains, slopes
from precode.plot._curves import curves, dynamics
from precode.plot._parts import parts
from precode.plot._proximity import convergence, distances, metrics, motion, similarity
from precode.plot._tickets import penalties, recovery, row_transport, tickets, wins

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
