"""On which rows sparse retraining puts the dense network's codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.errors import PrecodeShapeError
from precode.claims.observations import channels_of
from precode.codes.readouts import templates
from precode.networks.stacks import Networks
from precode.tickets.recoveries import RELATIVE_FLOOR, cells_alive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from precode.tickets.stacked import Retrained


def _both(
    dense: Networks, sparse: Networks, masks: Mapping[str, Any] | None, relative_floor: float, output: int
) -> tuple[tuple[str, ...], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Templates, codes of both sides (R, C, T, j), and the output weights of the sparse one (R, j)."""
    if len(dense) != len(sparse) or dense.widths[1] != sparse.widths[1] or dense.tasks is None:
        raise PrecodeShapeError(f"{dense} and {sparse}: expected the same networks of known formulas")
    clauses = [list(task.clauses_of(output)) for task in dense.tasks]
    alive = cells_alive(sparse, masks or {})
    first = channels_of(dense, clauses, relative_floor=relative_floor, output=output)
    last = channels_of(sparse, clauses, alive=alive, relative_floor=relative_floor, output=output)
    weights = sparse.read_out(output).output.astype(np.float64)
    return templates(len(clauses[0][0])), first, last, weights


def transport(
    dense: Networks,
    sparse: Networks,
    masks: Mapping[str, Any] | None = None,
    *,
    relative_floor: float = RELATIVE_FLOOR,
    output: int = 0,
) -> pd.DataFrame:
    """Every family's codes in a dense network and in its sparse retraining. Our definitions.

    Args:
        dense: R trained networks.
        sparse: their sparse counterparts after retraining, row for row.
        masks: which weights are kept, ``w1`` (R, j, n): a code needs all of its cells alive.
        relative_floor: codes need weights above this fraction of the network's mean magnitude in feature space, of the
            sparse network's in the cells alive, as in `Retrained.table`.
        output: which output, where there are several.

    Returns:
        One row a formula, clause and template (a family): dense and sparse (rows with its code), same (rows with it in
        both), family (the smaller of dense and sparse: codes recovered wherever they are), and what chance gives:
        same_permuted (expected `same` if the sparse codes were on random rows of the same polarity) and
        family_permuted (mean of what `family` would be against the sparse codes of another clause).

    Raises:
        PrecodeShapeError: not the same networks, or without formulas.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train([Dnf.random(clauses=4, seed=0)], hidden=16, samples=640, epochs=2)
        >>> table = transport(runs, runs)
        >>> bool((table["same"] == table["dense"]).all())
        True
    """
    return count_transport(*_both(dense, sparse, masks, relative_floor, output))


def count_transport(
    names: Sequence[str], first: NDArray[np.bool_], last: NDArray[np.bool_], weights: NDArray[np.float64]
) -> pd.DataFrame:
    """`transport` from the codes themselves.

    Args:
        names: T templates.
        first: codes of the dense networks, (R, C, T, j).
        last: codes of the sparse ones.
        weights: output weights of the sparse ones, (R, j), whose signs are the polarities.

    Example:
        >>> codes = np.zeros((1, 2, 1, 4), dtype=bool)
        >>> codes[0, :, 0, :2] = True
        >>> count_transport(["2P"], codes, codes[..., ::-1], np.ones((1, 4)))[["same", "family"]].values.tolist()
        [[0, 2], [0, 2]]
    """
    in_dense, in_sparse = first.sum(-1), last.sum(-1)  # (R, C, T)
    same = (first & last).sum(-1)
    rows = np.stack([(weights > 0) if "N" not in name else (weights < 0) for name in names], axis=1)  # (R, T, j)
    usable = (first & rows[:, None]).sum(-1)  # dense codes on rows that the sparse ones could be on
    expected = usable * in_sparse / np.maximum(rows.sum(-1), 1)[:, None]
    sets = in_dense.shape[1]
    pairs = np.minimum(in_dense[:, :, None], in_sparse[:, None])  # (R, C, C, T)
    family = np.minimum(in_dense, in_sparse)
    others = (pairs.sum(2) - family) / max(sets - 1, 1)
    index = np.indices(in_dense.shape).reshape(3, -1)
    return pd.DataFrame(
        {
            "formula": index[0],
            "clause": index[1],
            "template": [names[t] for t in index[2]],
            "dense": in_dense.ravel(),
            "sparse": in_sparse.ravel(),
            "same": same.ravel(),
            "family": family.ravel(),
            "same_permuted": expected.ravel(),
            "family_permuted": others.ravel() if sets > 1 else np.nan,
        }
    )


def transport_matrix(
    dense: Networks,
    sparse: Networks,
    masks: Mapping[str, Any] | None = None,
    *,
    relative_floor: float = RELATIVE_FLOOR,
    output: int = 0,
) -> NDArray[np.float64]:
    """From which row of the dense network to which row of the sparse one codes went, (R, j, j). Our definition.

    A family's codes that are on the same row in both stay there; those left in the dense network are shared evenly
    among the rows of those left in the sparse one. Entry (r, s) sums over families; the entries of a network sum to
    its recovered codes (`family` of `transport`).

    Args:
        dense: see `transport`.
        sparse: see `transport`.
        masks: see `transport`.
        relative_floor: see `transport`.
        output: see `transport`.

    Raises:
        PrecodeShapeError: see `transport`.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train([Dnf.random(clauses=4, seed=0)], hidden=16, samples=640, epochs=2)
        >>> matrix = transport_matrix(runs, runs)[0]
        >>> bool((matrix == np.diag(np.diag(matrix))).all())
        True
    """
    _, first, last, _ = _both(dense, sparse, masks, relative_floor, output)
    stay = first & last
    gone, come = (first & ~stay).astype(np.float64), (last & ~stay).astype(np.float64)
    left, arrived = gone.sum(-1), come.sum(-1)
    # min(left, arrived) codes of a family move, spread evenly over its pairs of rows.
    weight = np.divide(1.0, np.maximum(left, arrived), out=np.zeros_like(left), where=(left > 0) & (arrived > 0))
    matrix = np.einsum("rctj,rcts->rjs", gone * weight[..., None], come)
    diagonal = np.arange(first.shape[-1])
    matrix[:, diagonal, diagonal] += stay.sum((1, 2))
    return np.asarray(matrix)


def transport_tickets(retrained: Retrained, *, relative_floor: float = RELATIVE_FLOOR, output: int = 0) -> pd.DataFrame:
    """`transport` of all tickets, with their method, density and probe_epoch as in `Retrained.table`.

    Args:
        retrained: from `Tickets.retrain`.
        relative_floor: see `transport`.
        output: see `transport`.

    Example:
        >>> from precode import Dnf, find_tickets, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=16, samples=640, epochs=2)
        >>> table = transport_tickets(find_tickets(runs, "magnitude", [0.5, 0.25]).retrain())
        >>> len(table), bool((table["same"] <= table["family"]).all())  # densities x clauses x templates
        (24, True)
    """
    frames = []
    for item in retrained.tickets.found:
        sparse = retrained.networks(item.method, item.density, item.probe_epoch)
        table = transport(retrained.tickets.dense, sparse, item.masks, relative_floor=relative_floor, output=output)
        table.insert(0, "probe_epoch", float("nan") if item.probe_epoch is None else float(item.probe_epoch))
        table.insert(0, "density", item.density)
        table.insert(0, "method", item.method)
        frames.append(table)
    return pd.concat(frames, ignore_index=True)
