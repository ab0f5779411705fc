"""From bare weights and clauses, in any accepted form, to what codes are read from.

Weights are one network or a stack, as torch tensors or NumPy arrays; contiguous float32 and float64 arrays on the CPU
are read in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import torch

from precode import _precode
from precode._internal.check import COUNT, dense, integer, literals, plain
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode.codes import embedding as embeddings
from precode.formulas.dnf import Dnf

if TYPE_CHECKING:
    from numpy.typing import NDArray

Weights: TypeAlias = "torch.Tensor | NDArray[Any]"
ClauseSets: TypeAlias = "Dnf | Sequence[Dnf] | Sequence[Any] | NDArray[Any]"
EmbeddingLike: TypeAlias = "str | embeddings.Embedding | torch.Tensor | NDArray[Any] | None"


def templates(width: int) -> tuple[str, ...]:
    """Templates that compute a clause of `width` literals (arXiv 2504.08842, sections 4.1 and 6.5).

    The first lives on positive rows; the others, which detect that only a part of the clause is there, on negative
    rows.

    Example:
        >>> templates(4), templates(2)
        (('4P', '3N1P', '2P2N'), ('2P', '1P1N'))
    """
    return tuple(_precode.templates(width))


@dataclass(frozen=True)
class Readout:
    """Networks in feature space beside the clauses that codes are read for; made by `readout`.

    Attributes:
        features: C1 = W1 C0, (R, rows, variables), contiguous.
        output: output weights (R, rows), contiguous; negated for a complemented formula, since its networks compute the
            negation of what its clauses say. A row's polarity is thus what it says of the clauses.
        sets: signed clauses, one set for all networks or one for each.
        stacked: whether a stack was given; otherwise results lose their leading axis.
    """

    features: NDArray[Any]
    output: NDArray[Any]
    sets: list[list[list[int]]]
    stacked: bool

    @property
    def networks(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The pair of arrays that the extension takes."""
        return self.features, self.output

    @property
    def width(self) -> int:
        """Literals of a clause, k."""
        return len(self.sets[0][0]) if self.sets and self.sets[0] else 0

    def squeeze(self, values: NDArray[Any]) -> NDArray[Any]:
        """Drops the leading network axis if one bare network was given."""
        return values if self.stacked else values[0]

    def template(self, name: str | None) -> str:
        """The template's name; the all-positive one by default."""
        return templates(self.width)[0] if name is None else name


class Readable(Protocol):
    """What brings its own output weights, clauses and embedding: `Codes`, `Networks` and `Runs`."""

    def read_out(self, output: int | None = None) -> Readout:
        """Networks in feature space beside their clauses."""
        ...


def read(
    w1: Weights | Readable, w2: Weights | None, clauses: ClauseSets | None, embedding: EmbeddingLike, output: int | None
) -> Readout:
    """A readout of bare weights, or of what brings its own.

    Raises:
        PrecodeTypeError: bare weights without output weights or clauses, or what brings its own beside them.
    """
    if not hasattr(w1, "read_out"):
        if w2 is None or clauses is None:
            missing = " and ".join(name for name, value in (("w2", w2), ("clauses", clauses)) if value is None)
            raise PrecodeTypeError(
                f"{missing} must be given beside bare weights; or pass Codes, Networks or Runs alone"
            )
        return readout(w1, w2, clauses, embedding=embedding, output=output or 0)
    given = {"w2": w2, "clauses": clauses, "embedding": embedding}
    if extra := [name for name, value in given.items() if value is not None]:
        raise PrecodeTypeError(
            f"{', '.join(extra)} beside {type(w1).__name__}, which brings its own: leave out {', '.join(extra)}"
        )
    return w1.read_out(output)


def as_floats(values: Weights, name: str) -> NDArray[Any]:
    """A float32 or float64 view of weights.

    Raises:
        PrecodeTypeError: not a dense tensor or array of real numbers.
    """
    if isinstance(values, torch.Tensor):
        values = dense(values, name)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        kind = getattr(values, "dtype", type(values).__name__)
        raise PrecodeTypeError(f"{name} must be a tensor or array of real numbers, not {kind}")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
    return values


def _listed(clauses: Any) -> list[Any]:
    """One formula, or clauses in any form, as a list."""
    clauses = plain(clauses)
    if isinstance(clauses, Dnf):
        return [clauses]
    if isinstance(clauses, str | bytes | dict) or not isinstance(clauses, Iterable):
        raise PrecodeTypeError(
            "clauses must be a Dnf, or sequences of integers (v or ~v), one set or one for each network, not "
            f"{type(clauses).__name__}"
        )
    return [item if isinstance(item, Dnf | str) else _items(item) for item in map(plain, clauses)]


def _items(clause: Any) -> Any:
    return list(map(plain, clause)) if isinstance(clause, Iterable) else clause


def clause_sets(items: Sequence[Any], output: int = 0) -> list[list[list[int]]]:
    """Signed clauses of one output, one set for all networks or one for each.

    Raises:
        PrecodeTypeError: not clauses.
        PrecodeShapeError: a task does not have that output.
    """
    if items and all(isinstance(item, Dnf) for item in items):
        if any(output >= item.outputs for item in items):
            raise PrecodeShapeError(f"output = {output}, but a task has {min(i.outputs for i in items)} outputs")
        return [item._formula.outputs[output] for item in items]
    if any(isinstance(item, Dnf) for item in items):
        raise PrecodeTypeError("clauses must be all Dnf formulas or all sequences of integers, not a mixture")
    deep = any(isinstance(item, list) and any(isinstance(inner, Iterable) for inner in item) for item in items)
    return [[literals(clause) for clause in _items(one)] for one in (items if deep else [items])]


def readout(
    w1: Weights,
    w2: Weights,
    clauses: ClauseSets,
    *,
    embedding: EmbeddingLike = None,
    output: int = 0,
    complemented: Sequence[bool] = (),
) -> Readout:
    """Lays bare weights out for reading codes; see `precode.decode` for the arguments and errors.

    Args:
        w1: see `precode.decode`.
        w2: see `precode.decode`.
        clauses: see `precode.decode`.
        embedding: see `precode.decode`.
        output: see `precode.decode`.
        complemented: of bare clauses, whether each network computes the negation of their formula; formulas say so
            themselves.

    Example:
        >>> read = readout(np.ones((3, 8)), np.ones(3), [[0, 1], [2, 3]])
        >>> read.features.shape, read.sets, read.stacked
        ((1, 3, 8), [[[0, 1], [2, 3]]], False)
    """
    output = integer(output, "output", 0, COUNT)
    first, last = as_floats(w1, "w1"), as_floats(w2, "w2")
    items = _listed(clauses)
    sets = clause_sets(items, output)
    stacked = first.ndim == 3
    if first.ndim not in (2, 3):
        raise PrecodeShapeError(f"w1 of shape {first.shape}: expected (rows, inputs) or (networks, rows, inputs)")
    first = _in_feature_space(first, embedding, [item.variables for item in items if isinstance(item, Dnf)])
    if last.ndim == first.ndim:  # an axis of outputs
        if output >= last.shape[-2]:
            raise PrecodeShapeError(f"output = {output}, but w2 of shape {last.shape} has {last.shape[-2]}")
        last = last[..., output, :]
    elif output:
        raise PrecodeShapeError(f"output = {output}, but w2 of shape {np.shape(w2)} has the weights of one output")
    if last.shape != first.shape[:-1]:
        raise PrecodeShapeError(
            f"w2 of shape {np.shape(w2)} does not fit w1 of shape {np.shape(w1)}: expected one output weight for "
            f"each of {first.shape[-2]} rows"
        )
    if not stacked:
        first, last = first[None], last[None]
    if any(negated := [item.complemented for item in items if isinstance(item, Dnf)] or list(complemented)):
        last = last * np.where(negated, -1, 1).astype(last.dtype)[:, None]
    dtype = np.result_type(first, last)
    return Readout(np.ascontiguousarray(first, dtype=dtype), np.ascontiguousarray(last, dtype=dtype), sets, stacked)


def _in_feature_space(first: NDArray[Any], embedding: EmbeddingLike, variables: Sequence[int]) -> NDArray[Any]:
    """C1 = W1 C0, with the variables of the tasks that codes are read for, where they are known.

    Raises:
        PrecodeShapeError: weights, embedding and tasks do not fit together.
        PrecodeValueError: a random embedding by name.
    """
    inputs = first.shape[-1]
    if embedding is None:
        for expected in set(variables) - {inputs}:
            raise PrecodeShapeError(f"w1 takes {inputs} inputs but the task has {expected} variables: pass embedding=")
        return first
    if isinstance(embedding, str) and embedding == "random":
        raise PrecodeValueError("embedding 'random' has a seed that a name does not tell: pass its matrix")
    if len(set(variables)) > 1:
        raise PrecodeShapeError(f"tasks of {min(variables)} and {max(variables)} variables: decode them one at a time")
    own = embedding if isinstance(embedding, torch.Tensor | np.ndarray) and embedding.ndim == 3 else None
    if own is not None:
        return _projected(first, as_floats(own, "embedding"), variables)
    c0 = embeddings.resolve(embedding, variables[0] if variables else inputs)
    if c0.rows != inputs:
        raise PrecodeShapeError(
            f"w1 of shape {first.shape} takes {inputs} inputs, but the embedding has {c0.rows} rows"
        )
    if c0.matrix is None:
        raise PrecodeValueError(f"each network has its own {c0.name}: pass its values, weights['c0']")
    return np.asarray(first @ c0.matrix.astype(first.dtype))


def _projected(first: NDArray[Any], c0: NDArray[Any], variables: Sequence[int]) -> NDArray[Any]:
    """C1 = W1 C0 with a C0 (R, inputs, n) of each network.

    Raises:
        PrecodeShapeError: weights, C0 and tasks do not fit together.
    """
    n = variables[0] if variables else c0.shape[2]
    if first.ndim != 3 or c0.shape != (len(first), first.shape[2], n):
        raise PrecodeShapeError(
            f"embedding of shape {c0.shape} for w1 of shape {first.shape}: a C0 of each network is "
            f"(networks, inputs of w1, {n if variables else 'variables'})"
        )
    return np.asarray(first @ c0.astype(first.dtype))
