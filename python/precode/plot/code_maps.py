"""Weights and codes of single networks."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from precode._internal.check import integer
from precode._internal.errors import PrecodeTypeError
from precode.codes.decoding import Codes
from precode.plot.axes import axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def weights(codes: Codes, network: int = 0, *, ax: Axes | None = None) -> Axes:
    """Sorted heat map of a network's first layer in feature space.

    Columns are variables, grouped by the clause that they occur in first, whose number stands above. Rows are neurons:
    positive ones above the line, each polarity ordered by the first clause whose code the neuron carries. Frames mark
    the variables of every clause whose all-positive template the neuron carries. Colours end at the 99th percentile.

    Args:
        codes: from `precode.decode` or `Runs.codes`.
        network: which network of a stack.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: there is no such network.
        PrecodeTypeError: not codes.

    Example:
        >>> from precode import Dnf, train
        >>> codes = train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=1).codes()
        >>> len(weights(codes).images)
        1
    """
    features, output, clauses, carried = _one(codes, network)
    ax = axes(ax, figsize=(7.2, 5.4))
    groups = _groups(clauses, features.shape[1])
    order = [variable for group in groups for variable in group]
    rows = _sorted_rows(output, carried)
    limit = float(np.quantile(np.abs(features), 0.99)) or 1.0
    image = ax.imshow(features[rows][:, order], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for clause, row in zip(*np.nonzero(carried[:, rows]), strict=True):
        for start, stop in _stretches(sorted(order.index(_variable(literal)) for literal in clauses[clause])):
            ax.add_patch(_frame(start, row, stop - start))
    edge = -0.5
    for clause, group in enumerate(groups):
        if group and clause < len(clauses):
            ax.text(edge + len(group) / 2, -0.8, str(clause), ha="center", va="bottom", fontsize="x-small")
        edge += len(group)
        ax.axvline(edge, color="black", linewidth=0.3)
    positive = int((output >= 0).sum())
    ax.axhline(positive - 0.5, color="black", linewidth=1.2)
    ax.set_xticks(range(len(order)), [str(variable) for variable in order], fontsize="xx-small", rotation=90)
    ax.set_yticks(range(len(rows)), [str(row) for row in rows], fontsize=5 if len(rows) > 24 else "x-small")
    ax.set_xlabel("variable, grouped by clause (number above)")
    ax.set_ylabel(f"neuron, sorted; {positive} positive above the line")
    ax.figure.colorbar(image, ax=ax, label="weight in feature space", shrink=0.8, extend="both")
    return ax


def channels(codes: Codes, network: int = 0, *, template: str | None = None, ax: Axes | None = None) -> Axes:
    """The codes of one network, clauses by neurons: filled where the neuron carries the clause's template.

    Neurons stand in the order of `weights`; those of the other polarity, which cannot carry the template, are shaded.

    Args:
        codes: from `precode.decode` or `Runs.codes`.
        network: which network of a stack.
        template: see `Codes.channels`.
        ax: axes to draw on.

    Raises:
        PrecodeValueError: there is no such network or template.
        PrecodeTypeError: not codes.

    Example:
        >>> from precode import Dnf, train
        >>> codes = train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=1).codes()
        >>> channels(codes, template="3N1P").get_xlabel()[:6]
        'neuron'
    """
    _, output, clauses, carried = _one(codes, network)
    rows = _sorted_rows(output, carried)
    name = template or codes.templates[0]
    found = codes.channels(template)
    ax = axes(ax, figsize=(6.4, 3.2))
    bits = (found[network] if found.ndim == 3 else found)[:, rows]
    ax.imshow(bits, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="none")
    positive = int((output >= 0).sum())
    other = (positive - 0.5, len(rows) - 0.5) if "N" not in name else (-0.5, positive - 0.5)
    ax.axvspan(*other, color="0.9", zorder=2)
    ax.set_xticks(range(len(rows)), [str(row) for row in rows], fontsize="xx-small", rotation=90)
    ax.set_yticks(range(len(clauses)), [str(clause) for clause in range(len(clauses))], fontsize="x-small")
    ax.set_xticks(np.arange(len(rows)) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(clauses)) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=0.8)
    ax.tick_params(which="minor", length=0)
    ax.set_xlabel("neuron, sorted; shaded: the other polarity")
    ax.set_ylabel("clause")
    ax.set_title(f"{name}: {bits.sum()} locations, {bits.sum(1).mean():.1f} rows per clause", fontsize="medium")
    return ax


def _one(codes: Codes, network: int) -> tuple[Any, Any, list[list[int]], Any]:
    """Features, output weights, clauses and all-positive channels of one network of a stack, or of the only one."""
    if not isinstance(codes, Codes):
        raise PrecodeTypeError(f"codes must be Codes, not {type(codes).__name__}: pass runs.codes() or pc.decode(...)")
    source = codes._readout
    network = integer(network, "network", -len(source.features), len(source.features) - 1)
    found = codes.channels()
    clauses = source.sets[network if len(source.sets) > 1 else 0]
    return source.features[network], source.output[network], clauses, found[network] if source.stacked else found


def _variable(literal: int) -> int:
    return literal if literal >= 0 else ~literal


def _groups(clauses: list[list[int]], variables: int) -> list[list[int]]:
    """Variables by the clause that they occur in first; the last group is in no clause."""
    seen: set[int] = set()
    groups = []
    for clause in clauses:
        groups.append([v for v in map(_variable, clause) if v not in seen])
        seen.update(groups[-1])
    return [*groups, [v for v in range(variables) if v not in seen]]


def _sorted_rows(output: Any, carried: Any) -> Any:
    """Positive rows first, each polarity by the first clause whose code the row carries."""
    first = np.where(carried.any(0), carried.argmax(0), len(carried))
    return np.lexsort((first, output < 0))


def _stretches(columns: list[int]) -> list[tuple[int, int]]:
    """Runs of neighbouring columns, each as (first, one past the last)."""
    breaks = [i for i in range(1, len(columns)) if columns[i] != columns[i - 1] + 1]
    bounds = [0, *breaks, len(columns)]
    return [(columns[a], columns[b - 1] + 1) for a, b in pairwise(bounds)]


def _frame(column: int, row: int, width: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), width, 1, fill=False, edgecolor="black", linewidth=0.9)
