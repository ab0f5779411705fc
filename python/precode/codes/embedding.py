"""The fixed input embedding C0: the network sees ``C0 x``, and codes are read in ``C1 = W1 C0``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from precode import _precode
from precode._internal import memory
from precode._internal.check import dense
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("identity", "hadamard", "hadamard-raw", "random")
"""Named embeddings: `identity`; `hadamard`, the Sylvester matrix divided by the root of its size, so that its
columns have unit length; `hadamard-raw`, its entries ±1; `random`, a random orthogonal matrix."""


@dataclass(frozen=True)
class Embedding:
    """An embedding of a given number of variables.

    Attributes:
        name: one of `NAMES`, or ``"matrix"``.
        matrix: C0, float32 (rows, variables).
        seed: key of a random embedding.

    Example:
        >>> embedding = resolve("hadamard", 4)
        >>> embedding.matrix.tolist()[0], embedding.rows
        ([0.5, 0.5, 0.5, 0.5], 4)
        >>> embedding
        Embedding(name=hadamard, rows=4, variables=4)
    """

    name: str
    matrix: NDArray[np.float32] = field(compare=False, repr=False)
    seed: int = 0

    @property
    def rows(self) -> int:
        """Width of the network's first layer."""
        return int(self.matrix.shape[0])

    @property
    def argument(self) -> str | NDArray[np.float32]:
        """What the extension takes: the name where there is one, so that it can use a fast transform."""
        return self.matrix if self.name == "matrix" else self.name

    def __repr__(self) -> str:
        seed = f", seed={self.seed}" if self.name == "random" else ""
        return f"Embedding(name={self.name}, rows={self.rows}, variables={self.matrix.shape[1]}{seed})"


def resolve(embedding: str | Any, variables: int, seed: int = 0) -> Embedding:
    """An embedding from its name or its matrix.

    Args:
        embedding: one of `NAMES`, or a matrix (rows, variables) as an array or tensor.
        variables: number of variables, n.
        seed: key of a random embedding.

    Raises:
        PrecodeValueError: an unknown name, or a matrix that is not finite.
        PrecodeShapeError: a matrix that does not have `variables` columns.
        PrecodeTypeError: neither a name nor a matrix.
    """
    if isinstance(embedding, Embedding):
        if embedding.matrix.shape[1] != variables:
            raise PrecodeShapeError(f"embedding of {embedding.matrix.shape[1]} variables: expected {variables}")
        return embedding
    if isinstance(embedding, str):
        # The widest has twice as many rows as variables; a random one is factored in float64.
        memory.check(
            variables**2 * (40 if embedding == "random" else 8),
            f"the matrix of the embedding {embedding!r} of {variables} variables",
            "use fewer variables",
        )
        return Embedding(embedding, _precode.embedding_matrix(embedding, variables, seed), seed)
    if isinstance(embedding, torch.Tensor):
        embedding = dense(embedding, "embedding")
    if not isinstance(embedding, np.ndarray) or embedding.dtype.kind not in "fiu":
        raise PrecodeTypeError(
            f"embedding must be one of {', '.join(NAMES)} or a real matrix, not {type(embedding).__name__}"
        )
    if embedding.ndim != 2 or embedding.shape[1] != variables:
        raise PrecodeShapeError(f"embedding of shape {embedding.shape}: expected (rows, {variables})")
    if not np.isfinite(embedding).all():
        raise PrecodeValueError("embedding contains NaN or infinity: its entries must be finite")
    return Embedding("matrix", np.ascontiguousarray(embedding, dtype=np.float32), seed)
