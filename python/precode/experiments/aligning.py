"""Sparse weights of one's own that keep the feature space of a network: the feature-space alignment oracle.

The oracle of Kong, Adler and Shavit (openreview tZszYSchmV) is told in words alone; the formula is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from precode._internal.check import integers
from precode._internal.errors import PrecodeShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEAST = 1e-9
"""What is left of the squared length of an atom that depends on those already chosen."""


def align(
    features: NDArray[np.floating], c0: NDArray[np.floating], counts: Sequence[int]
) -> dict[int, NDArray[np.float64]]:
    """Sparse W1 of each number of weights, so that W1 C0 is near the features. Our definition.

    Weights are chosen one at a time, of all rows that which leaves the least squared distance when its row is fitted
    again (orthogonal least squares), and have the values of the last fit. Neither the choice nor the values see the
    weights that the features came from.

    Args:
        features: C1 of one network, (j, n).
        c0: of the same or another one, (m, n).
        counts: weights that are kept, from 1 to j m, increasing.

    Returns:
        W1 by its number of weights, (j, m); the smaller ones are chosen within the larger ones.

    Raises:
        PrecodeShapeError: features of another number of variables than C0.
        PrecodeValueError: counts out of range.

    Example:
        >>> c0 = np.eye(3)
        >>> align(np.array([[3.0, 0.0, 1.0], [0.0, -2.0, 0.5]]), c0, [2])[2].tolist()
        [[3.0, 0.0, 0.0], [0.0, -2.0, 0.0]]
    """
    target, atoms = np.asarray(features, dtype=np.float64), np.asarray(c0, dtype=np.float64)
    if target.ndim != 2 or atoms.ndim != 2 or target.shape[1] != atoms.shape[1]:
        raise PrecodeShapeError(f"features of shape {target.shape} and c0 of {atoms.shape}: expected (j, n), (m, n)")
    wanted = sorted(integers(counts, "counts", 1, len(target) * len(atoms)))
    left, free = target.copy(), np.repeat(atoms[None], len(target), 0)
    whole = (atoms**2).sum(1)
    chosen: list[list[int]] = [[] for _ in target]
    gains = np.stack([_gains(rest, mine, whole) for rest, mine in zip(left, free, strict=True)])
    found = {}
    for count in range(1, (wanted or [0])[-1] + 1):
        row, atom = np.unravel_index(np.argmax(gains), gains.shape)
        length = np.linalg.norm(free[row, atom])
        # What depends on chosen atoms takes nothing away: it is chosen last.
        unit = free[row, atom] / length if length**2 > LEAST * whole[atom] else np.zeros_like(target[row])
        left[row] -= (left[row] @ unit) * unit
        free[row] -= np.outer(free[row] @ unit, unit)
        chosen[row].append(int(atom))
        gains[row] = _gains(left[row], free[row], whole)
        gains[row, chosen[row]] = -np.inf
        if count in wanted:
            found[count] = _fitted(target, atoms, chosen)
    return found


def _gains(rest: NDArray[np.float64], free: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each atom would take from the squared distance of a row; nothing where it depends on chosen ones."""
    length = (free**2).sum(1)
    gains: NDArray[np.float64] = np.divide(
        (free @ rest) ** 2, length, out=np.zeros_like(length), where=length > LEAST * whole
    )
    return gains


def _fitted(
    target: NDArray[np.float64], atoms: NDArray[np.float64], chosen: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """The least-squares weights of the chosen atoms of every row."""
    weights = np.zeros((len(target), len(atoms)))
    for row, own in enumerate(chosen):
        if own:
            weights[row, own] = np.linalg.lstsq(atoms[own].T, target[row], rcond=None)[0]
    return weights


def divergence(found: NDArray[np.floating], features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distance of feature-space weights from others, over the length of the others, (R,). Our definition.

    Args:
        found: C1 of R networks, (R, j, n).
        features: of those that they are compared with, of the same shape.

    Example:
        >>> divergence(np.zeros((1, 2, 2)), np.ones((1, 2, 2))).tolist()
        [1.0]
    """
    first, second = (np.asarray(item, dtype=np.float64) for item in (found, features))
    lengths: NDArray[np.float64] = np.linalg.norm(first - second, axis=(1, 2)) / np.linalg.norm(second, axis=(1, 2))
    return lengths
