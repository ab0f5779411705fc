"""How many codes of a dense network its sparse ticket has after retraining, and what of it is alive.

Exact recovery is defined in our words: the definition of arXiv 2605.17704 is not public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from precode import _precode
from precode._internal.check import booleans, numbers
from precode._internal.errors import PrecodeShapeError
from precode._internal.lazy import Lazy
from precode.codes.locating import code_templates
from precode.networks.stacks import Networks

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
else:
    pd = Lazy("pandas")

RELATIVE_FLOOR = 0.1
"""Fraction of a network's mean magnitude in feature space up to which weights are noise, unless another is asked for.
Our definition. It is not the absolute floor of `precode.decode`."""

LEVELS = ("location", "family", "clause")
MEASURES = ("recovery", "precision", "jaccard")


def recovery(
    dense: Networks,
    sparse: Networks,
    masks: Mapping[str, Any],
    *,
    relative_floor: float = RELATIVE_FLOOR,
    templates: Sequence[str] | None = None,
    output: int = 0,
) -> pd.DataFrame:
    """Codes of sparse networks compared with those of their dense parents. Our definitions.

    A code is a location (clause, template, row) whose row has the template's polarity and signs; in the sparse network
    all its cells must be alive. Locations agree if clause, template and row do; families if clause and template do,
    counted as often as there are rows; clauses if both networks have a code of the clause on any positive row.

    Args:
        dense: R trained networks of one hidden layer, with their tasks.
        sparse: the retrained tickets, in the same order.
        masks: by weight name, the weights that are alive, Boolean (R, ...); a weight without a mask is.
        relative_floor: weights up to this fraction of the mean magnitude (of the live weights, in feature space) are
            noise.
        templates: names of those that count; by default of both polarities, 4P and 3N1P of four literals [reported by a
            public digest of arXiv 2605.17704].
        output: the output whose weights give rows their polarity.

    Returns:
        One row a network with the columns network; recovery_location, recovery_family and recovery_clause, the share
        of the dense network's codes that the sparse one has (recall); precision_* and jaccard_* likewise; relaxed_*,
        the recall where half of a code's cells must be alive, and those right; codes, how many the sparse network has
        (more codes flatter recall); row_coverage, mean exact codes on a
        sparse row; clause_coverage, mean rows with an exact code of a clause; dead_rows; live_paths, live weights of
        the first layer on rows whose output weight is alive. Ratios are NaN where there is nothing to divide by.

    Raises:
        PrecodeShapeError: networks of different sizes, of other than one hidden layer, or not of a mask's shape.
        PrecodeTypeError: a mask that is not Boolean.
        PrecodeValueError: the networks have no tasks, or weights that are not finite; a negative relative_floor; an
            unknown template.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=16, epochs=10, samples=4000)
        >>> whole = torch.ones(1, 16, 32, dtype=torch.bool)
        >>> recovery(runs, runs, {"w1": whole})[["recovery_location", "jaccard_family", "dead_rows"]]
           recovery_location  jaccard_family  dead_rows
        0                1.0             1.0          0
    """
    (relative_floor,) = numbers([relative_floor], "relative_floor", 0)
    if len(dense) != len(sparse) or dense.widths[1:] != sparse.widths[1:]:
        raise PrecodeShapeError(f"{dense} beside {sparse}: compare as many networks of the same widths")
    source, other = dense.read_out(output), sparse.read_out(output)
    first = _mask(masks, "w1", sparse.weights["w1"])
    outputs = _mask(masks, "w2", sparse._layers[1][0])[:, output]
    counts, rows, covered = _precode.recovery(
        source.networks,
        other.networks,
        cells_alive(sparse, masks),
        source.sets,
        code_templates(source.width, templates),
        relative_floor,
    )
    _, dead_rows, live_paths = _precode.liveness(first, np.ascontiguousarray(outputs)).T
    columns: dict[str, NDArray[Any]] = {"network": np.arange(len(dense))}
    exact, relaxed = (_ratios(counts[:, variant].astype(float)) for variant in (0, 1))
    for measure in MEASURES:
        columns |= {f"{measure}_{level}": exact[measure][:, number] for number, level in enumerate(LEVELS)}
    columns |= {f"relaxed_{level}": relaxed["recovery"][:, number] for number, level in enumerate(LEVELS)}
    columns |= {"codes": rows.sum(1), "row_coverage": rows.mean(1), "clause_coverage": covered.mean(1)}
    return pd.DataFrame(columns | {"dead_rows": dead_rows, "live_paths": live_paths})


def cells_alive(networks: Networks, masks: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Cells of feature space, (R, rows, variables), that a mask of the first layer leaves alive.

    Behind another embedding than the identity, every live weight of a row is in all of its cells.
    """
    weights = _mask(masks, "w1", networks.weights["w1"])
    if networks.embedding.name == "identity":
        return weights
    return np.repeat(weights.max(2, keepdims=True), networks.embedding.variables, axis=2)


def _ratios(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Recall, precision and Jaccard index (R, levels) of counts (R, levels, 3) of shared, dense and sparse codes."""
    shared, dense, sparse = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return {
            "recovery": shared / dense,
            "precision": shared / sparse,
            "jaccard": shared / (dense + sparse - shared),
        }


def _mask(masks: Mapping[str, Any], name: str, weight: torch.Tensor) -> NDArray[np.bool_]:
    """The live weights of a layer; all of them where there is no mask."""
    if name not in masks:
        return np.ones(weight.shape, dtype=bool)
    mask = booleans(masks[name], f"the mask of {name}", "masks")
    if mask.size != weight.numel():
        raise PrecodeShapeError(f"the mask of {name} has shape {mask.shape}: expected {tuple(weight.shape)}")
    return mask.reshape(weight.shape)
