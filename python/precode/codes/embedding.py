"""The input embedding C0: the network sees ``C0 x``, and codes are read in ``C1 = W1 C0``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from precode import _precode
from precode._internal import memory
from precode._internal.check import COUNT, dense, integer
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("identity", "hadamard", "hadamard-raw", "random")
"""Named fixed embeddings: `identity`; `hadamard`, the Sylvester matrix divided by the root of its size, so that its
columns have unit length; `hadamard-raw`, its entries ±1; `random`, a random orthogonal matrix."""

MODES: dict[str, bool | Literal["dense"]] = {"": True, "-fixed": False, "-dense": "dense"}
"""When a projection is trained, by the end of its name."""

ALLOWED = f"{', '.join(NAMES)}, projection-M, projection-M-fixed, projection-M-dense"
"""Names of embeddings, M being the width of a projection."""


@dataclass(frozen=True)
class Projection:
    """A learnable C0 in front of the first layer, one for each network: linear, without bias, (width, variables).

    This is the setting of arXiv 2605.17704, as reported by a public digest of the paper, with 16 rows; how and when C0
    is trained is our reading. It is drawn as PyTorch's ``nn.Linear(variables, width, bias=False)``, uniform in
    ±1/sqrt(variables), from a random stream of its own. A mask prunes W1, never C0.

    Attributes:
        width: rows of C0, m, the inputs of the first layer; at most the number of variables.
        train: True, C0 is trained in the dense run and with every ticket; False, it stays as it is drawn; ``"dense"``,
            the dense run trains it, and tickets are trained behind the C0 of its end, held fixed.
        name: ``"projection-16"``, ``"projection-16-fixed"`` or ``"projection-16-dense"``; `precode.train` and the
            command line take it as well.

    Raises:
        PrecodeValueError: a width below 1, or another `train`.
        PrecodeTypeError: a width that is no integer.

    Example:
        >>> from precode import Dnf, train
        >>> task = Dnf.random(clauses=4, seed=0)
        >>> runs = train([task] * 2, hidden=8, samples=640, epochs=1, embedding=Projection(16))
        >>> runs.weights["c0"].shape, runs.weights["w1"].shape, runs.features.shape
        (torch.Size([2, 16, 32]), torch.Size([2, 8, 16]), torch.Size([2, 8, 32]))
        >>> runs.embedding, Projection(16, train="dense").name
        (Embedding(name=projection-16, rows=16, variables=32), 'projection-16-dense')
    """

    width: int = 16
    train: bool | Literal["dense"] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", integer(self.width, "width", 1, COUNT))
        if not (isinstance(self.train, bool) or self.train == "dense"):
            raise PrecodeValueError(f"train = {self.train!r}: use True, False or 'dense'")

    @property
    def name(self) -> str:
        """Its name among the embeddings."""
        end = next(end for end, mode in MODES.items() if mode is self.train or mode == self.train == "dense")
        return f"projection-{self.width}{end}"


def named_projection(name: str) -> Projection | None:
    """The projection of a name such as ``"projection-16-fixed"``; None of other names."""
    word, _, rest = name.partition("-")
    width, dash, mode = rest.partition("-")
    if word != "projection" or not (width.isascii() and width.isdigit()) or dash + mode not in MODES:
        return None
    # One embedding has one name.
    if width != str(int(width)) or int(width) < 1 or int(width) > COUNT:
        return None
    return Projection(int(width), MODES[dash + mode])


def is_name(name: str) -> bool:
    """Whether a name is that of an embedding."""
    return name in NAMES or named_projection(name) is not None


def order(name: str) -> tuple[int, int, str]:
    """A key that puts names of embeddings into order: the fixed ones, then projections by their width."""
    projection = named_projection(name)
    return (NAMES.index(name), 0, name) if projection is None else (len(NAMES), projection.width, name)


@dataclass(frozen=True)
class Embedding:
    """An embedding of a given number of variables.

    Attributes:
        name: one of `NAMES`, ``"matrix"``, or the name of a `Projection`.
        matrix: C0, float32 (rows, variables); None where each network has its own, see `precode.Networks.c0`.
        seed: key of a random embedding.
        rows: width of the network's first layer, m.
        variables: number of variables, n.
        projection: what the networks' own C0 are; None where there is one for all.

    Example:
        >>> embedding = resolve("hadamard", 4)
        >>> embedding.matrix.tolist()[0], embedding.rows
        ([0.5, 0.5, 0.5, 0.5], 4)
        >>> embedding
        Embedding(name=hadamard, rows=4, variables=4)
    """

    name: str
    matrix: NDArray[np.float32] | None = field(compare=False, repr=False)
    seed: int
    rows: int
    variables: int
    projection: Projection | None = None

    @property
    def trained(self) -> bool:
        """Whether training changes C0."""
        return self.projection is not None and self.projection.train is not False

    @property
    def fixed(self) -> Embedding:
        """The same embedding, with a projection held fixed."""
        if self.projection is None:
            return self
        return _projected(Projection(self.projection.width, train=False), self.variables)

    def argument(self, c0: torch.Tensor | None) -> str | NDArray[np.float32] | tuple[torch.Tensor, bool]:
        """What the extension takes: the name where there is one, so that it can use a fast transform.

        Args:
            c0: the networks' own C0, (R, m, n), where they have some.

        Raises:
            PrecodeValueError: the networks lack their C0, or have some without a projection.
        """
        if (c0 is None) != (self.projection is None):
            here, remedy = (
                (f"the embedding is {self.name}, but the weights have no 'c0'", "give each network's C0 (R, m, n)")
                if c0 is None
                else (f"the weights have a 'c0', but the embedding is {self.name}", "use embedding=pc.Projection(m)")
            )
            raise PrecodeValueError(f"{here}: {remedy}")
        if c0 is not None:
            return c0, self.trained
        if self.matrix is not None and self.name == "matrix":
            return self.matrix
        return self.name

    def __repr__(self) -> str:
        seed = f", seed={self.seed}" if self.name == "random" else ""
        return f"Embedding(name={self.name}, rows={self.rows}, variables={self.variables}{seed})"


def _of_matrix(name: str, matrix: NDArray[np.float32], seed: int) -> Embedding:
    rows, variables = matrix.shape
    return Embedding(name, matrix, seed, rows, variables)


def _projected(projection: Projection, variables: int) -> Embedding:
    width = projection.width
    if width > variables:
        raise PrecodeValueError(
            f"projection of width {width} is wider than the {variables} variables: use at most {variables}, or the "
            "identity"
        )
    return Embedding(projection.name, None, 0, width, variables, projection)


def resolve(embedding: str | Any, variables: int, seed: int = 0) -> Embedding:
    """An embedding from its name, its matrix or a projection.

    Args:
        embedding: one of `NAMES`, a `Projection` or its name, or a matrix (rows, variables) as an array or tensor.
        variables: number of variables, n.
        seed: key of a random embedding.

    Raises:
        PrecodeValueError: an unknown name, a matrix that is not finite, or a projection wider than the variables.
        PrecodeShapeError: a matrix that does not have `variables` columns.
        PrecodeTypeError: none of these.
    """
    if isinstance(embedding, Embedding):
        if embedding.variables != variables:
            raise PrecodeShapeError(f"embedding of {embedding.variables} variables: expected {variables}")
        return embedding
    if isinstance(embedding, str):
        if projection := named_projection(embedding):
            embedding = projection
        elif embedding not in NAMES:
            raise PrecodeValueError(f"embedding '{embedding}' is unknown: use one of {ALLOWED}")
    if isinstance(embedding, Projection):
        return _projected(embedding, variables)
    if isinstance(embedding, str):
        # The widest has twice as many rows as variables; a random one is factored in float64.
        memory.check(
            variables**2 * (40 if embedding == "random" else 8),
            f"the matrix of the embedding {embedding!r} of {variables} variables",
            "use fewer variables",
        )
        return _of_matrix(embedding, _precode.embedding_matrix(embedding, variables, seed), seed)
    if isinstance(embedding, torch.Tensor):
        embedding = dense(embedding, "embedding")
    if not isinstance(embedding, np.ndarray) or embedding.dtype.kind not in "fiu":
        raise PrecodeTypeError(
            f"embedding must be one of {ALLOWED}, a Projection or a real matrix, not {type(embedding).__name__}"
        )
    if embedding.ndim != 2 or embedding.shape[1] != variables:
        raise PrecodeShapeError(f"embedding of shape {embedding.shape}: expected (rows, {variables})")
    if not np.isfinite(embedding).all():
        raise PrecodeValueError("embedding contains NaN or infinity: its entries must be finite")
    return _of_matrix("matrix", np.ascontiguousarray(embedding, dtype=np.float32), seed)
