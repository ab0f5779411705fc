"""Distances between all pairs of codes, bit-packed and counted in hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from precode import _precode
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Stack: TypeAlias = "NDArray[np.bool_] | NDArray[np.int8] | torch.Tensor"


def _stack(codes: Stack, name: str) -> NDArray[Any]:
    values = codes.detach().cpu().numpy() if isinstance(codes, torch.Tensor) else np.asarray(codes)
    if values.dtype not in (np.bool_, np.int8):
        raise PrecodeTypeError(f"{name} must be Booleans, or int8 signs -1, 0, +1, not {values.dtype}")
    if values.ndim != 2 or 0 in values.shape:
        raise PrecodeShapeError(f"{name} of shape {values.shape}: expected (codes, bits), at least one of each")
    return np.ascontiguousarray(values)


def _pair(a: Stack, b: Stack | None, metric: str | None) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    first = _stack(a, "a")
    if metric is None:
        metric = "hamming" if first.dtype == np.bool_ else "mismatch"
    return first, None if b is None else _stack(b, "b"), metric


def code_distance(a: Stack, b: Stack | None = None, *, metric: str | None = None) -> NDArray[Any]:
    """Distances of every two codes.

    Args:
        a: codes (A, bits) of Booleans, such as `Codes.channels`, or of int8 signs, such as rows of `Codes.signs`.
        b: other codes (B, bits), by default `a` itself.
        metric: for Booleans ``"hamming"``, the bits that differ (the default); ``"jaccard"``, one minus the share of
            bits in both among bits in either, 0 for two empty codes; ``"overlap"``, the bits in both. For signs
            ``"mismatch"``, the places that differ (the default); ``"l1"``, the sum of absolute differences. All but
            overlap are metrics.

    Returns:
        (A, B) in the smallest of uint8, uint16, uint32 that holds every distance; float32 for Jaccard.

    Raises:
        PrecodeTypeError: neither Booleans nor int8.
        PrecodeShapeError: not two stacks of codes of one length.
        PrecodeValueError: an unknown metric, or signs other than -1, 0, +1.

    Example:
        >>> code_distance(np.array([[True, True, False], [False, True, True]]))
        array([[0, 2],
               [2, 0]], dtype=uint8)
    """
    return _precode.code_distances(*_pair(a, b, metric))[0]


def code_distance_kernel() -> str:
    """Which of the kernels ``"avx512"``, ``"avx2"``, ``"portable"`` counts on this machine."""
    return _precode.code_distances(np.zeros((1, 1), dtype=np.bool_), None, "hamming")[1]


def nearest_codes(
    a: Stack, b: Stack | None = None, *, metric: str | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """The nearest code to each code, without keeping all distances.

    Args:
        a: see `code_distance`.
        b: other codes; by default those of `a` except the code itself.
        metric: see `code_distance`; by overlap, the nearest shares the most.

    Returns:
        Its index (of several, the first) and distance, (A,) each.

    Raises:
        PrecodeValueError: a single code and no other; otherwise see `code_distance`.

    Example:
        >>> nearest_codes(np.array([[True, True], [False, False], [False, True]]))
        (array([2, 2, 0], dtype=uint32), array([1., 1., 1.], dtype=float32))
    """
    return _precode.nearest_codes(*_pair(a, b, metric))


def code_distance_counts(a: Stack, b: Stack | None = None, *, metric: str | None = None) -> NDArray[np.uint64]:
    """How often each distance 0, 1, ... occurs, without keeping them; one stack counts every two codes once.

    Args:
        a: see `code_distance`.
        b: see `code_distance`.
        metric: see `code_distance`; not ``"jaccard"``.

    Raises:
        UnsupportedError: Jaccard distances, which are fractions.

    Example:
        >>> code_distance_counts(np.array([[True, True], [False, False], [False, True]])).tolist()
        [0, 2, 1]
    """
    return _precode.code_distance_counts(*_pair(a, b, metric))
