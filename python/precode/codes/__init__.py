"""Codes of bare weights: where they are, how far they are, what disturbs them, and what chance would give."""

from precode.codes import nulls
from precode.codes.decoding import Codes, decode
from precode.codes.distances import distance, motion
from precode.codes.embedding import Embedding, Projection
from precode.codes.interference import conflicts, crowding, feature_capacity, mean_row_cosine
from precode.codes.locating import Locations, locations
from precode.codes.pairs import code_distance, code_distance_counts, code_distance_kernel, nearest_codes
from precode.codes.readouts import templates

__all__ = [
    "Codes",
    "Embedding",
    "Locations",
    "Projection",
    "code_distance",
    "code_distance_counts",
    "code_distance_kernel",
    "conflicts",
    "crowding",
    "decode",
    "distance",
    "feature_capacity",
    "locations",
    "mean_row_cosine",
    "motion",
    "nearest_codes",
    "nulls",
    "templates",
]


def __dir__() -> list[str]:
    return __all__
