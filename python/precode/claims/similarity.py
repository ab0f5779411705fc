"""Similarity of whole hidden layers: alternatives to distances of locations, at the level of representations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.errors import PrecodeShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from precode.networks.stacks import Networks
    from precode.networks.training import Runs

SAMPLES = 1000
"""Training inputs that hidden activations are compared on."""


def _centred(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < 2:
        raise PrecodeShapeError(
            f"representations of shapes {a.shape} and {b.shape}: expected (samples, units), of the same samples"
        )
    return a - a.mean(0), b - b.mean(0)


def linear_cka(first: ArrayLike, second: ArrayLike) -> float:
    """Linear centered kernel alignment of two representations (arXiv 1905.00414, equation 3 with linear kernels).

    Args:
        first: (samples, units).
        second: (samples, units) of the same samples; it may have other units.

    Returns:
        In [0, 1], the same for any rotation and scale of the units; NaN if a representation is constant.

    Raises:
        PrecodeShapeError: not matrices of the same samples.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> round(linear_cka(x, 2 * x[:, ::-1]), 6)
        1.0
    """
    a, b = _centred(first, second)
    between = np.linalg.norm(a.T @ b) ** 2
    within = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(between / within) if within > 0 else float("nan")


def svcca(first: ArrayLike, second: ArrayLike, *, variance: float = 0.99) -> float:
    """Mean canonical correlation of the leading singular directions of two representations (arXiv 1706.05806).

    Args:
        first: (samples, units).
        second: (samples, units) of the same samples; it may have other units.
        variance: each side keeps the fewest singular directions that explain this fraction of its variance.

    Returns:
        In [0, 1], the mean over as many canonical correlations as the smaller side has directions; near 1 whatever
        the representations are when the samples are hardly more than the units. NaN if a representation is constant.

    Raises:
        PrecodeShapeError: not matrices of the same samples.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 3))
        >>> round(svcca(x, x @ [[1, 2, 0], [0, 1, 0], [3, 0, 1]]), 6)
        1.0
    """
    bases = []
    for values in _centred(first, second):
        # Squared singular values and right vectors of a tall matrix, from its small Gram matrix.
        power, right = (part[..., ::-1] for part in np.linalg.eigh(values.T @ values))
        if power[0] <= 0:
            return float("nan")
        explained = np.cumsum(np.maximum(power, 0)) / np.maximum(power, 0).sum()
        kept = int(np.searchsorted(explained, variance - 1e-12)) + 1
        bases.append(values @ right[:, :kept] / np.sqrt(power[:kept]))
    correlations = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return float(np.clip(correlations, 0, 1).mean())


def _hidden(networks: Networks, number: int, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Hidden activations of one network on embedded inputs, (samples, j)."""
    w1, b1 = (networks.weights[name][number].detach().cpu().double().numpy() for name in ("w1", "b1"))
    c0 = networks.c0.detach().cpu().double().numpy()
    return np.asarray(np.maximum(inputs @ (c0[number] if c0.ndim == 3 else c0).T @ w1.T + b1, 0))


def similarity(runs: Runs) -> pd.DataFrame:
    """CKA and SVCCA of the hidden layer's activations at initialization and at the end.

    They compare whole layers, so they cannot say which location becomes a code. The null compares the initial network
    with the final one of the next network of the stack, on the same inputs; NaN if there is no other.

    Args:
        runs: trained networks; the first inputs of their training data are used.

    Returns:
        One row a network: formula, cka, svcca, cka_null, svcca_null.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train([Dnf.random(clauses=4, seed=0)] * 2, hidden=16, samples=640, epochs=1)
        >>> similarity(runs)["cka"].between(0.5, 1).all()
        np.True_
    """
    rows = []
    for number, data in enumerate(runs.data):
        inputs = data.x[:SAMPLES].double().numpy()
        before = _hidden(runs.start, number, inputs)
        row: dict[str, float] = {"formula": number}
        following = (number + 1) % len(runs)
        for suffix, other in (("", number), ("_null", following)):
            after = None if suffix and following == number else _hidden(runs, other, inputs)
            for name, function in (("cka", linear_cka), ("svcca", svcca)):
                row[name + suffix] = float("nan") if after is None else function(before, after)
        rows.append(row)
    return pd.DataFrame(rows)
