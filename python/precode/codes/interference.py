"""Competition for rows: crowding, conflicts, feature capacity and the cosine of rows.

Crowding and conflicts are our definitions; capacity and cosine are those of arXiv 2510.04500.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from precode import _precode
from precode._internal.check import COUNT, integer
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode.codes.readouts import (
    ClauseSets,
    EmbeddingLike,
    Readable,
    Readout,
    Weights,
    as_floats,
    read,
    readout,
)
from precode.codes.readouts import (
    templates as templates_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR = 1
"""Wrong signs up to which a location is near, unless others are asked for. Our definition."""


def crowding(
    w1: Weights | Readable,
    w2: Weights | None = None,
    clauses: ClauseSets | None = None,
    *,
    template: str | None = None,
    near: int = NEAR,
    scale: str = "layer",
    embedding: EmbeddingLike = None,
    output: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Demand on every location's row by the *other* clauses for the same template. Our definitions.

    Args:
        w1: see `precode.decode`; or `Codes`, `Networks` or `Runs` alone, which bring w2, clauses and embedding along.
        w2: see `precode.decode`.
        clauses: see `precode.decode`.
        template: see `precode.distance`.
        near: wrong signs up to which a location counts as near.
        scale: see `precode.distance`.
        embedding: see `precode.decode`.
        output: see `precode.decode`; the first by default.

    Returns:
        ``near`` (C, j), other clauses whose location on the row is near and of the right polarity; ``graded``
        (C, j), the sum over other clauses of max(0, sum t c / scale); ``positive_entries`` (j,), positive weights of
        the row in feature space. With a leading axis for a stack.

    Example:
        >>> import torch
        >>> w1 = torch.tensor([[1.0, 1.0, 2.0]])
        >>> crowding(w1, torch.tensor([1.0]), [[0, 1], [1, 2]], scale="none")["graded"]
        array([[3.],
               [2.]])
    """
    source = read(w1, w2, clauses, embedding, output)
    near_counts, graded, positive = _precode.crowding(
        source.networks, source.sets, source.template(template), integer(near, "near", 0, COUNT), scale
    )
    return {
        "near": source.squeeze(near_counts),
        "graded": source.squeeze(graded),
        "positive_entries": source.squeeze(positive),
    }


def conflicts(
    w1: Weights | Readable,
    w2: Weights | None = None,
    clauses: ClauseSets | None = None,
    *,
    templates: Sequence[str] | None = None,
    near: int = NEAR,
    embedding: EmbeddingLike = None,
    output: int | None = None,
) -> NDArray[np.uint32]:
    """Interference of every location, (C, j): opposite demands on its variables. Our definition.

    It counts the shared variables on which near locations of other clauses on the same row want the opposite sign.

    Args:
        w1: see `precode.decode`; or `Codes`, `Networks` or `Runs` alone, which bring w2, clauses and embedding along.
        w2: see `precode.decode`.
        clauses: see `precode.decode`.
        templates: that locations may have, by default all of the clauses' width; each location takes the
            nearest of its row's polarity.
        near: wrong signs up to which a location counts as near.
        embedding: see `precode.decode`.
        output: see `precode.decode`; the first by default.

    Raises:
        PrecodeValueError: no templates, an unknown one, or `near` out of range.

    Example:
        >>> import torch
        >>> w1 = torch.tensor([[2.0, 1.0, -1.0]])
        >>> conflicts(w1, torch.tensor([-1.0]), [[0, 1], [1, 2]])
        array([[1],
               [1]], dtype=uint32)
    """
    source = read(w1, w2, clauses, embedding, output)
    if isinstance(templates, str):
        raise PrecodeTypeError(f"templates must be a sequence of names, not the string {templates!r}")
    known = templates_of(source.width)
    chosen = list(known if templates is None else templates)
    if not chosen:
        raise PrecodeValueError(f"templates = []: expected at least one, such as {known[0]!r}")
    return source.squeeze(_precode.conflicts(source.networks, source.sets, chosen, integer(near, "near", 0, COUNT)))


def _rows_only(w1: Weights | Readable, embedding: EmbeddingLike) -> Readout:
    if hasattr(w1, "read_out"):
        return read(w1, None, None, embedding, None)
    first = as_floats(w1, "w1")
    return readout(first, np.zeros(first.shape[:-1], dtype=first.dtype), [[0]], embedding=embedding)


def feature_capacity(w1: Weights | Readable, *, embedding: EmbeddingLike = None) -> NDArray[np.float64]:
    """Share of each variable's column that is its own, (n,): (w_i·w_i)² / Σ_j (w_i·w_j)² (arXiv 2510.04500).

    1 when no other column overlaps with it; 0 for a column of zeros. It takes weights, or `Codes` or `Networks`.

    Example:
        >>> import torch
        >>> feature_capacity(torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
        array([0.5, 0.5])
    """
    source = _rows_only(w1, embedding)
    return source.squeeze(_precode.feature_capacity(source.networks))


def mean_row_cosine(w1: Weights | Readable, *, embedding: EmbeddingLike = None) -> NDArray[np.float64]:
    """Mean cosine of all pairs of rows, a scalar array (arXiv 2510.04500).

    Rows of zeros are left out; NaN with fewer than two rows. It takes weights, or `Codes` or `Networks`.

    Example:
        >>> import torch
        >>> float(mean_row_cosine(torch.eye(3)))
        0.0
    """
    source = _rows_only(w1, embedding)
    return np.asarray(source.squeeze(_precode.mean_row_cosine(source.networks)))
