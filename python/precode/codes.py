"""Feature-channel codes read from weights, and the distances between codes and templates.

Every function takes bare weights, one network or a stack, as torch tensors or NumPy arrays; contiguous float32
and float64 arrays on the CPU are read in place. Signs, patterns, channels, code size and overlap follow
arXiv 2504.08842; distances, crowding and conflicts are our definitions (those of arXiv 2605.17704 are not public).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import torch

from precode import _precode
from precode import embedding as embeddings
from precode.errors import PrecodeShapeError, PrecodeTypeError
from precode.task import Dnf

if TYPE_CHECKING:
    from numpy.typing import NDArray

Weights: TypeAlias = "torch.Tensor | NDArray[Any]"
ClauseSets: TypeAlias = "Dnf | Sequence[Dnf] | Sequence[Any] | NDArray[Any]"
POLARITIES = ("positive", "negative")


def templates(width: int) -> tuple[str, ...]:
    """Templates that compute a clause of `width` literals (arXiv 2504.08842, sections 4.1 and 6.5).

    The first lives on positive rows; the others, which detect that only a part of the clause is there, on negative
    rows.

    Example:
        >>> templates(4), templates(2)
        (('4P', '3N1P', '2P2N'), ('2P', '1P1N'))
    """
    partial = [positives for positives in (1, 2) if 0 < positives <= width - positives]
    return tuple(_precode.pattern_name(positives, width - positives) for positives in (width, *partial))


@dataclass(frozen=True)
class Readout:
    """Networks in feature space beside the clauses that codes are read for; made by `readout`.

    Attributes:
        features: C1 = W1 C0, (R, rows, variables), contiguous.
        output: output weights (R, rows), contiguous.
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


def _array(values: Weights, name: str) -> NDArray[Any]:
    """A float32 or float64 view of weights.

    Raises:
        PrecodeTypeError: not a tensor or array of real numbers.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        values = values.numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        kind = getattr(values, "dtype", type(values).__name__)
        raise PrecodeTypeError(f"{name} must be a tensor or array of real numbers, not {kind}")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
    return values


def clause_sets(clauses: ClauseSets, output: int = 0) -> list[list[list[int]]]:
    """Signed clauses of one output, one set for all networks or one for each, from any accepted form.

    Raises:
        PrecodeTypeError: not clauses.
        PrecodeShapeError: a task does not have that output.
    """
    if isinstance(clauses, np.ndarray | torch.Tensor):
        clauses = clauses.tolist()
    if isinstance(clauses, Dnf):
        clauses = [clauses]
    items = list(clauses)
    if items and all(isinstance(item, Dnf) for item in items):
        if any(output >= item.outputs for item in items):
            raise PrecodeShapeError(f"output = {output}, but a task has {min(i.outputs for i in items)} outputs")
        return [[list(clause) for clause in item.clauses_of(output)] for item in items]
    try:
        deep = any(hasattr(literal, "__iter__") for item in items for literal in item)
        sets = items if deep else [items]
        return [[[int(literal.__index__()) for literal in clause] for clause in one] for one in sets]
    except (TypeError, AttributeError) as error:
        raise PrecodeTypeError(
            f"clauses must be a Dnf, or sequences of integers (v or ~v), one set or one for each network: {error}"
        ) from error


def readout(
    w1: Weights,
    w2: Weights,
    clauses: ClauseSets,
    *,
    embedding: str | embeddings.Embedding | Weights | None = None,
    output: int = 0,
) -> Readout:
    """Lays bare weights out for reading codes; see `decode` for the arguments and errors."""
    first, last = _array(w1, "w1"), _array(w2, "w2")
    sets = clause_sets(clauses, output)
    stacked = first.ndim == 3
    if first.ndim not in (2, 3):
        raise PrecodeShapeError(f"w1 of shape {first.shape}: expected (rows, inputs) or (networks, rows, inputs)")
    if embedding is not None:
        tasks = [clauses] if isinstance(clauses, Dnf) else clauses
        known = [task.variables for task in tasks if isinstance(task, Dnf)]
        c0 = embeddings.resolve(embedding, known[0] if known else first.shape[-1])
        if c0.rows != first.shape[-1]:
            raise PrecodeShapeError(
                f"w1 of shape {first.shape} takes {first.shape[-1]} inputs, but the embedding has {c0.rows} rows"
            )
        first = first @ c0.matrix.astype(first.dtype)
    if last.ndim == first.ndim:  # an axis of outputs
        if output >= last.shape[-2]:
            raise PrecodeShapeError(f"output = {output}, but w2 of shape {last.shape} has {last.shape[-2]}")
        last = last[..., output, :]
    if last.shape != first.shape[:-1]:
        raise PrecodeShapeError(
            f"w2 of shape {np.shape(w2)} does not fit w1 of shape {np.shape(w1)}: expected one output weight for "
            f"each of {first.shape[-2]} rows"
        )
    if not stacked:
        first, last = first[None], last[None]
    dtype = np.result_type(first, last)
    return Readout(np.ascontiguousarray(first, dtype=dtype), np.ascontiguousarray(last, dtype=dtype), sets, stacked)


def decode(
    w1: Weights,
    w2: Weights,
    clauses: ClauseSets,
    *,
    embedding: str | embeddings.Embedding | Weights | None = None,
    floor: float = 0.0,
    output: int = 0,
) -> Codes:
    """Reads the feature-channel codes of one network or a stack (arXiv 2504.08842, section 4.1).

    Args:
        w1: first-layer weights, (rows, inputs) or (networks, rows, inputs), as in ``nn.Linear.weight``.
        w2: output weights, (rows,) or (outputs, rows), with a leading axis for a stack.
        clauses: a `Dnf`, or clauses as sequences of integers; or one of either for each network.
        embedding: C0, by name or as a matrix (inputs, variables), where the network sees ``C0 x``; codes are then
            read in ``w1 @ C0``. None: w1 acts on the variables themselves.
        floor: magnitudes up to this count as zero.
        output: which output, where there are several.

    Raises:
        PrecodeShapeError: w1, w2, the embedding and the clauses do not fit together.
        PrecodeValueError: weights that are not finite, or a clause out of range.
        PrecodeTypeError: something other than weights or clauses.

    Example:
        >>> w1 = torch.tensor([[1.0, 2.0, -1.0], [-1.0, 0.5, 1.0]])
        >>> codes = decode(w1, torch.tensor([0.7, -0.3]), [[0, 1], [1, 2]])
        >>> codes.channels()
        array([[ True, False],
               [False, False]])
        >>> codes.code_size()
        array([1, 0])
    """
    return Codes(readout(w1, w2, clauses, embedding=embedding, output=output), floor)


class Codes:
    """Codes of one network or a stack; made by `decode`, `Networks.codes` or `Runs.codes`.

    Arrays have a leading network axis if a stack was decoded. Axes: C clauses, j rows, k literals.
    """

    def __init__(self, source: Readout, floor: float = 0.0) -> None:
        self._readout = source
        self.floor = floor
        self.pattern_counts: NDArray[np.uint32] = source.squeeze(
            _precode.pattern_counts(source.networks, source.sets, False, floor)
        )
        """(C, 2, k + 1): rows of each polarity (positive, negative) with each number of positive signs on the
        clause. Rows with a zero there are in none."""

    @property
    def width(self) -> int:
        """Literals of a clause, k."""
        return self._readout.width

    @property
    def templates(self) -> tuple[str, ...]:
        """Names of the templates that compute a clause of this width."""
        return templates(self.width)

    @property
    def rows(self) -> int:
        """Number of rows (hidden neurons), j."""
        return int(self._readout.output.shape[-1])

    @property
    def features(self) -> NDArray[Any]:
        """C1 = W1 C0, (j, n)."""
        return self._readout.squeeze(self._readout.features)

    @property
    def output_weights(self) -> NDArray[Any]:
        """w2, (j,)."""
        return self._readout.squeeze(self._readout.output)

    @property
    def positive_rows(self) -> NDArray[np.int64]:
        """Number of rows with a positive output weight."""
        return np.asarray((self.output_weights > 0).sum(-1))

    def signs(self, *, aligned: bool = False) -> NDArray[np.int8]:
        """Signs at every clause's literals, (C, j, k) of -1, 0, +1; `aligned` flips them at negated literals."""
        source = self._readout
        return source.squeeze(_precode.signs(source.networks, source.sets, aligned, self.floor))

    def channels(self, template: str | None = None) -> NDArray[np.bool_]:
        """Feature channels (C, j): whether the row carries the template, the all-positive one by default.

        Signs are taken per literal, so ``4P`` on a clause with a negated literal is the published "3P1N aligned".

        Raises:
            PrecodeValueError: the template does not fit the clauses; the message lists those that do.
        """
        source = self._readout
        name = source.template(template)
        return source.squeeze(_precode.channels(source.networks, source.sets, name, self.floor))

    def code_size(self, template: str | None = None) -> NDArray[np.int64]:
        """Rows in the code of each clause, (C,)."""
        return np.asarray(self.channels(template).sum(-1))

    def overlap(self, template: str | None = None) -> NDArray[np.int64]:
        """Rows shared by the codes of each two clauses, (C, C); the diagonal is the code size."""
        channels = self.channels(template).astype(np.int64)
        return np.asarray(channels @ np.swapaxes(channels, -1, -2))

    @cached_property
    def _stacked_counts(self) -> NDArray[np.uint32]:
        return self.pattern_counts if self._readout.stacked else self.pattern_counts[None]

    def patterns(self) -> pd.DataFrame:
        """Mean rows per clause of every pattern: columns network, polarity, pattern, rows."""
        means = self._stacked_counts.mean(1)
        counts = means.shape[-1]
        index = np.indices(means.shape).reshape(3, -1)
        names = [_precode.pattern_name(positives, self.width - positives) for positives in range(counts)]
        return pd.DataFrame(
            {
                "network": index[0],
                "polarity": [POLARITIES[i] for i in index[1]],
                "pattern": [names[i] for i in index[2]],
                "rows": means.ravel(),
            }
        )

    def summary(self) -> pd.DataFrame:
        """One row a network: mean rows per clause of every pattern, code size, overlap, clauses without a code.

        `overlap` is the mean number of shared rows over pairs of clauses that both have a code (NaN without such
        a pair), as in figure 10 of arXiv 2504.08842.
        """
        wide = self.patterns().assign(column=lambda t: t["pattern"] + "_" + t["polarity"])
        order = [
            f"{_precode.pattern_name(positives, self.width - positives)}_{polarity}"
            for polarity in POLARITIES
            for positives in range(self.width, -1, -1)
        ]
        table = wide.pivot_table(index="network", columns="column", values="rows")[order]
        channels = self.channels() if self._readout.stacked else self.channels()[None]
        sizes = channels.sum(-1)
        table["code_size"] = sizes.mean(-1)
        table["overlap"] = [_mean_overlap(channel[size > 0]) for channel, size in zip(channels, sizes, strict=True)]
        table["clauses_without_code"] = (sizes == 0).sum(-1)
        table["positive_rows"] = np.atleast_1d(self.positive_rows)
        table.columns.name = None
        return table.reset_index()

    def locations(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Every occupied location: columns network, clause, template, row (our term: clause, template, row)."""
        frames = []
        for name in self.templates if names is None else names:
            channels = self.channels(name) if self._readout.stacked else self.channels(name)[None]
            network, clause, row = np.nonzero(channels)
            frames.append(pd.DataFrame({"network": network, "clause": clause, "template": name, "row": row}))
        return pd.concat(frames, ignore_index=True)

    def families(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Every occupied family, a location without its row: columns network, clause, template, rows (their number)."""
        grouped = self.locations(names).groupby(["network", "clause", "template"], sort=True)
        return grouped.size().rename("rows").reset_index()

    def distance(
        self,
        template: str | None = None,
        metric: str = "hamming",
        *,
        scale: str = "layer",
        polarity: str = "ignore",
    ) -> NDArray[np.float64]:
        """Distance of every location from a template, (C, j); see `precode.distance`."""
        return _distance(self._readout, template, metric, scale, polarity)

    def __repr__(self) -> str:
        networks = f"networks={self._readout.output.shape[0]}, " if self._readout.stacked else ""
        size = float(self.code_size().mean())
        return (
            f"Codes({networks}clauses={self.pattern_counts.shape[-3]}, rows={self.rows}, "
            f"template={self.templates[0]}, mean code size={size:.2f})"
        )

    def _repr_html_(self) -> str:
        return self.summary().to_html(index=False, float_format="{:.2f}".format, max_rows=12, border=0)


def _mean_overlap(channels: NDArray[np.bool_]) -> float:
    """Mean number of rows shared by two different codes."""
    count = len(channels)
    if count < 2:
        return float("nan")
    shared = channels.astype(np.int64) @ channels.T.astype(np.int64)
    return float((shared.sum() - np.trace(shared)) / (count * (count - 1)))


def _distance(source: Readout, template: str | None, metric: str, scale: str, polarity: str) -> NDArray[np.float64]:
    name = source.template(template)
    return source.squeeze(_precode.distances(source.networks, source.sets, name, metric, scale, polarity))


def distance(
    w1: Weights,
    w2: Weights,
    clauses: ClauseSets,
    *,
    template: str | None = None,
    metric: str = "hamming",
    scale: str = "layer",
    polarity: str = "ignore",
    embedding: str | embeddings.Embedding | Weights | None = None,
    output: int = 0,
) -> NDArray[np.float64]:
    """Distance of every location's weights c from a template's signs t, (C, j) or (R, C, j). Our definitions.

    Where the template allows several placements, the distance is that to the nearest one.

    Args:
        w1: see `decode`.
        w2: see `decode`.
        clauses: see `decode`.
        template: such as ``"4P"``, ``"3N1P"``, ``"2P2N"``; by default the all-positive one.
        metric: ``"hamming"``, the wrong signs, 0 to k (a zero is wrong); ``"soft"``, the weight to be moved,
            sum max(0, -t c) / scale; ``"margin"``, -min t c / scale, negative when all signs are right;
            ``"cosine"``, 1 - cos(c, t), 0 to 2; ``"signed_sum"``, -sum t c / scale.
        scale: ``"layer"`` or ``"row"``, the mean absolute weight of that in feature space; ``"none"``.
        polarity: what a row of the wrong polarity does: ``"ignore"``; ``"add"`` 1; ``"require"``, infinite.
        embedding: see `decode`.
        output: see `decode`.

    Raises:
        PrecodeValueError: an unknown template, metric, scale or polarity; the message lists those there are.

    Example:
        >>> w1 = torch.tensor([[1.0, 2.0, -1.0], [-1.0, 0.5, 1.0]])
        >>> distance(w1, torch.tensor([0.7, -0.3]), [[0, 1], [1, 2]], metric="hamming")
        array([[0., 1.],
               [1., 0.]])
    """
    source = readout(w1, w2, clauses, embedding=embedding, output=output)
    return _distance(source, template, metric, scale, polarity)


def motion(
    before: tuple[Weights, Weights],
    after: tuple[Weights, Weights],
    clauses: ClauseSets,
    *,
    template: str | None = None,
    metric: str = "soft",
    scale: str = "layer",
    polarity: str = "ignore",
    embedding: str | embeddings.Embedding | Weights | None = None,
) -> NDArray[np.float64]:
    """Change of every location's distance between two moments of training; negative: towards the template.

    Args:
        before: (w1, w2) at the earlier moment, as in `decode`.
        after: (w1, w2) at the later moment.
        clauses: see `decode`.
        template: see `distance`.
        metric: see `distance`.
        scale: see `distance`; each moment is divided by its own.
        polarity: see `distance`; where a distance is infinite at both moments, motion is NaN.
        embedding: see `decode`.

    Example:
        >>> w2 = torch.tensor([1.0])
        >>> start, end = (torch.tensor([[-1.0, 1.0]]), w2), (torch.tensor([[1.0, 1.0]]), w2)
        >>> motion(start, end, [[0, 1]], metric="hamming")
        array([[-1.]])
    """
    first, last = (readout(*weights, clauses, embedding=embedding) for weights in (before, after))
    with np.errstate(invalid="ignore"):
        return np.asarray(
            _distance(last, template, metric, scale, polarity) - _distance(first, template, metric, scale, polarity)
        )


def crowding(
    w1: Weights,
    w2: Weights,
    clauses: ClauseSets,
    *,
    template: str | None = None,
    near: int = 1,
    scale: str = "layer",
    embedding: str | embeddings.Embedding | Weights | None = None,
    output: int = 0,
) -> dict[str, NDArray[Any]]:
    """Demand on every location's row by the *other* clauses for the same template. Our definitions.

    Args:
        w1: see `decode`.
        w2: see `decode`.
        clauses: see `decode`.
        template: see `distance`.
        near: wrong signs up to which a location counts as near.
        scale: see `distance`.
        embedding: see `decode`.
        output: see `decode`.

    Returns:
        ``near`` (C, j), other clauses whose location on the row is near and of the right polarity; ``graded``
        (C, j), the sum over other clauses of max(0, sum t c / scale); ``positive_entries`` (j,), positive weights of
        the row in feature space. With a leading axis for a stack.

    Example:
        >>> w1 = torch.tensor([[1.0, 1.0, 2.0]])
        >>> crowding(w1, torch.tensor([1.0]), [[0, 1], [1, 2]], scale="none")["graded"]
        array([[3.],
               [2.]])
    """
    source = readout(w1, w2, clauses, embedding=embedding, output=output)
    near_counts, graded, positive = _precode.crowding(
        source.networks, source.sets, source.template(template), near, scale
    )
    return {
        "near": source.squeeze(near_counts),
        "graded": source.squeeze(graded),
        "positive_entries": source.squeeze(positive),
    }


def conflicts(
    w1: Weights,
    w2: Weights,
    clauses: ClauseSets,
    *,
    names: Sequence[str] | None = None,
    near: int = 1,
    embedding: str | embeddings.Embedding | Weights | None = None,
    output: int = 0,
) -> NDArray[np.uint32]:
    """Interference of every location, (C, j): opposite demands on its variables. Our definition.

    It counts the shared variables on which near locations of other clauses on the same row want the opposite sign.

    Args:
        w1: see `decode`.
        w2: see `decode`.
        clauses: see `decode`.
        names: templates that locations may have, by default `templates` of the clauses' width; each location takes the
            nearest of its row's polarity.
        near: wrong signs up to which a location counts as near.
        embedding: see `decode`.
        output: see `decode`.

    Example:
        >>> w1 = torch.tensor([[2.0, 1.0, -1.0]])
        >>> conflicts(w1, torch.tensor([-1.0]), [[0, 1], [1, 2]])
        array([[1],
               [1]], dtype=uint32)
    """
    source = readout(w1, w2, clauses, embedding=embedding, output=output)
    chosen = list(templates(source.width) if names is None else names)
    return source.squeeze(_precode.conflicts(source.networks, source.sets, chosen, near))


def _rows_only(w1: Weights, embedding: str | embeddings.Embedding | Weights | None) -> Readout:
    first = _array(w1, "w1")
    return readout(first, np.zeros(first.shape[:-1], dtype=first.dtype), [[0]], embedding=embedding)


def feature_capacity(
    w1: Weights, *, embedding: str | embeddings.Embedding | Weights | None = None
) -> NDArray[np.float64]:
    """Share of each variable's column that is its own, (n,): (w_i·w_i)² / Σ_j (w_i·w_j)² (arXiv 2510.04500).

    1 when no other column overlaps with it; 0 for a column of zeros.

    Example:
        >>> feature_capacity(torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
        array([0.5, 0.5])
    """
    source = _rows_only(w1, embedding)
    return source.squeeze(_precode.feature_capacity(source.networks))


def mean_row_cosine(
    w1: Weights, *, embedding: str | embeddings.Embedding | Weights | None = None
) -> NDArray[np.float64]:
    """Mean cosine of all pairs of rows, a scalar array (arXiv 2510.04500).

    Rows of zeros are left out; NaN with fewer than two rows.

    Example:
        >>> float(mean_row_cosine(torch.eye(3)))
        0.0
    """
    source = _rows_only(w1, embedding)
    return np.asarray(source.squeeze(_precode.mean_row_cosine(source.networks)))
