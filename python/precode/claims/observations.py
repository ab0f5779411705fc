"""What is seen of every location in one stack of trained networks, as tidy tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from precode._internal.check import integer, integers
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.statistics import CELL
from precode.claims.counts import count_nulls
from precode.claims.similarity import similarity
from precode.codes.distances import distances
from precode.codes.interference import NEAR, conflicts, crowding, feature_capacity
from precode.codes.readouts import Readout, readout, templates
from precode.networks.stacks import Networks
from precode.networks.training import Runs
from precode.tickets.recoveries import RELATIVE_FLOOR

if TYPE_CHECKING:
    from numpy.typing import NDArray

METRICS = ("hamming", "soft", "margin", "cosine", "signed_sum")
"""Distances in feature space; see `precode.distance`."""

CONTROLS = ("euclidean", "displacement", "mass", "row_mass", "random")
"""Scores that are not distances in feature space; small means near, as for `METRICS`."""

KINDS = ("formula", "false")
"""Whose locations: of the clauses of the formula, or of as many false ones."""

FATES = ("none", "converged", "rejected")
"""What became of a location: near ones converge or are rejected."""

CONTROL_KEY = tuple(b"control")
"""Keeps the random control apart from every other use of a seed."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Tables of one or more stacks of networks; made by `observe`.

    All tables begin with the cell, columns hidden, clauses, embedding, and the number of the formula in it.

    Attributes:
        locations: one row a clause, template and row, see `observe_locations`; column kind says whether the clause is
            the formula's or a false one.
        motion: near locations at every moment; see `observe_motion`.
        nulls: counts by initial distance, observed and under every null; see `precode.claims.count_nulls`.
        similarity: CKA and SVCCA of the hidden layer; see `precode.claims.similarity`.

    Example:
        >>> from precode.claims import synthetic_study
        >>> seen = [synthetic_study("planted", formulas=2, hidden=8, clauses=4, seed=s).observations for s in range(2)]
        >>> len(Observations.concat(seen).locations) == 2 * len(seen[0].locations)
        True
    """

    locations: pd.DataFrame
    motion: pd.DataFrame
    nulls: pd.DataFrame
    similarity: pd.DataFrame

    def __repr__(self) -> str:
        return f"Observations({self._formulas()} networks, {len(self.locations)} locations)"

    def _formulas(self) -> int:
        return len(self.locations.drop_duplicates([name for name in (*CELL, "formula") if name in self.locations]))

    def _repr_html_(self) -> str:
        keys = ["kind", "template", "fate"]
        counts = self.locations.groupby(keys, observed=True).agg(locations=("code", "size"), codes=("code", "sum"))
        return counts.reset_index().to_html(index=False, border=0)

    @classmethod
    def concat(cls, parts: Sequence[Observations]) -> Observations:
        """The tables of several cells below each other.

        Raises:
            PrecodeValueError: no parts.
        """
        if not parts:
            raise PrecodeValueError("no observations: pass at least one")
        columns = {name: [vars(part)[name] for part in parts] for name in vars(parts[0])}
        return cls(**{name: pd.concat(tables, ignore_index=True) for name, tables in columns.items()})


def snapshot_steps(steps_per_epoch: int, epochs: int) -> list[int]:
    """Steps to keep snapshots at: five times in the first epoch, then after 1, 2, 4, ... epochs and the last.

    Example:
        >>> snapshot_steps(10, 6)
        [0, 2, 4, 6, 8, 10, 20, 40, 60]
    """
    steps_per_epoch, epochs = integer(steps_per_epoch, "steps_per_epoch", 1), integer(epochs, "epochs", 1)
    doublings = [1 << power for power in range(epochs.bit_length())]
    moments = [*(fifth / 5 for fifth in range(5)), *doublings, epochs]
    return sorted({round(moment * steps_per_epoch) for moment in moments})


def observe(
    runs: Runs,
    *,
    formulas: Sequence[int] | None = None,
    near: int = NEAR,
    relative_floor: float = RELATIVE_FLOOR,
    output: int = 0,
) -> Observations:
    """Observes every location of a stack of trained networks from initialization to the end.

    Args:
        runs: networks trained on formulas, with snapshots at the moments of interest (see `snapshot_steps`).
        formulas: number of each network's formula, the unit that intervals are taken over; 0, 1, ... by default.
        near: wrong signs up to which a location is near; claims are judged by rules with the same.
        relative_floor: final codes need weights above this fraction of the network's mean magnitude in feature space.
        output: which output, where there are several.

    Raises:
        PrecodeTypeError: not the result of `train`.
        PrecodeValueError: networks trained without formulas, formulas of different numbers or widths of clauses, or a
            relative_floor that is not in [0, 1].
        PrecodeShapeError: not one formula number for each network, or more than one hidden layer.

    Example:
        >>> from precode import Dnf, train
        >>> tasks = [Dnf.random(clauses=4, seed=0, index=index) for index in range(2)]
        >>> seen = observe(train(tasks, hidden=16, samples=640, epochs=2, snapshots=snapshot_steps(10, 2)))
        >>> len(seen.locations)  # formulas x kinds x clauses x templates x rows
        768
        >>> sorted(seen.nulls["null"].unique())  # doctest: +NORMALIZE_WHITESPACE
        ['analytic', 'false_clauses', 'observed', 'permuted_rows', 'random_network', 'swapped_clauses']
    """
    if not isinstance(runs, Runs):
        raise PrecodeTypeError(f"runs must be the result of precode.train, not {type(runs).__name__}")
    if not 0 <= relative_floor <= 1:
        raise PrecodeValueError(
            f"relative_floor = {relative_floor}: expected a fraction from 0 to 1 of the mean magnitude"
        )
    if runs.tasks is None:
        raise PrecodeValueError("these networks were trained without formulas: nothing says where their codes are")
    near = integer(near, "near", 0)
    numbers = list(range(len(runs))) if formulas is None else integers(formulas, "formulas", 0)
    if len(numbers) != len(runs):
        raise PrecodeShapeError(f"{len(numbers)} formula numbers for {len(runs)} networks: pass one for each")
    sets = _clauses(runs, output)
    cell: dict[str, Any] = {
        "hidden": runs.widths[1],
        "clauses": len(sets["formula"][0]),
        "embedding": runs.embedding.name,
    }
    frames = []
    for kind, clauses in sets.items():
        frame = observe_locations(
            runs.start,
            runs,
            clauses,
            near=near,
            relative_floor=relative_floor,
            seed=runs.seed,
            streams=runs.streams,
            output=output,
        )
        frames.append(frame.assign(kind=pd.Categorical([kind] * len(frame), categories=list(KINDS))))
    locations = pd.concat(frames, ignore_index=True)
    tables = {
        "locations": locations,
        "motion": observe_motion(runs, locations, output=output),
        "nulls": count_nulls(locations, runs, seed=runs.seed, streams=runs.streams, output=output),
        "similarity": similarity(runs),
    }
    for table in tables.values():
        table["formula"] = np.asarray(numbers)[table["formula"]]
        for place, (name, value) in enumerate(cell.items()):
            table.insert(place, name, value)
    return Observations(**tables)


def _clauses(runs: Runs, output: int) -> dict[str, list[list[Any]]]:
    """Each network's clauses of every kind: those of its formula, and as many false ones."""
    tasks = [] if runs.tasks is None else runs.tasks
    return {
        "formula": [list(task.clauses_of(output)) for task in tasks],
        "false": [
            list(task.false_clauses(output=output, seed=runs.seed, index=stream))
            for task, stream in zip(tasks, runs.streams, strict=True)
        ],
    }


def positives(template: str) -> int:
    """Positive signs of a template.

    Example:
        >>> positives("4P"), positives("3N1P")
        (4, 1)
    """
    return sum(int(count) for count in re.findall(r"(\d+)P", template))


def _source(networks: Networks, clauses: Sequence[Sequence[Sequence[int]]], output: int) -> Readout:
    """Networks beside clauses of their own, of as many clauses of the same width for all.

    Raises:
        PrecodeShapeError: several hidden layers, or no such output.
        PrecodeValueError: different numbers or widths of clauses.
    """
    if len(networks.widths) != 3:
        raise PrecodeShapeError(f"codes are read from one hidden layer, but the widths are {networks.widths}")
    require_alike(clauses)
    negated = [task.complemented for task in networks.tasks or ()]
    return readout(networks.features, networks.weights["w2"], list(clauses), output=output, complemented=negated)


def require_alike(clauses: Sequence[Sequence[Sequence[int]]]) -> None:
    """Refuses formulas of different numbers or widths of clauses, which one table cannot hold.

    Raises:
        PrecodeValueError: the message names them.

    Example:
        >>> require_alike([[[0, 1], [2, 3]], [[4, 5], [6, 7]]])
    """
    for what, found in (
        ("clauses", {len(of_one) for of_one in clauses}),
        ("literals to a clause", {len(clause) for of_one in clauses for clause in of_one}),
    ):
        if len(found) > 1:
            raise PrecodeValueError(
                f"formulas of {', '.join(map(str, sorted(found)))} {what}: observe those of each by themselves"
            )


def _aligned(source: Readout) -> NDArray[np.float64]:
    """Weights at every clause's literals, signs flipped at negated ones, (R, C, j, k)."""
    literals = np.array(source.sets)
    variables, signs = np.where(literals < 0, ~literals, literals), np.where(literals < 0, -1.0, 1.0)
    networks = np.arange(len(literals))[:, None, None]
    values = source.features.astype(np.float64)[networks, :, variables]  # (R, C, k, j)
    return np.moveaxis(values * signs[..., None], 2, 3)


def _channels(aligned: NDArray[np.float64], output: NDArray[Any], template: str, floor: NDArray[Any]) -> NDArray[Any]:
    """Whether the row carries the template with weights above each network's floor, (R, C, j)."""
    count, width = positives(template), aligned.shape[-1]
    high = (aligned > floor[:, None, None, None]).sum(-1)
    low = (aligned < -floor[:, None, None, None]).sum(-1)
    return np.asarray((high == count) & (low == width - count) & _polarity(output, template)[:, None])


def channels_of(
    networks: Networks,
    clauses: Sequence[Sequence[Sequence[int]]],
    *,
    alive: NDArray[np.bool_] | None = None,
    relative_floor: float = RELATIVE_FLOOR,
    output: int = 0,
) -> NDArray[np.bool_]:
    """Which rows carry every clause's templates with weights above the floor, (R, C, T, j).

    Args:
        networks: R networks.
        clauses: signed clauses of each network.
        alive: cells of feature space that are not pruned, (R, j, n); all by default. A code needs all of its own.
        relative_floor: fraction of each network's mean magnitude in feature space, of the cells alive, that weights
            must exceed.
        output: which output, where there are several.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf([[0, 1, 2, 3]], 8), hidden=4, samples=64, epochs=1)
        >>> channels_of(runs, [[[0, 1, 2, 3]]]).shape
        (1, 1, 3, 4)
    """
    source = _source(networks, clauses, output)
    if alive is not None:
        source = replace(source, features=np.where(alive, source.features, 0))
    magnitudes = np.abs(source.features).sum((1, 2), dtype=np.float64)
    cells = source.features[0].size if alive is None else np.maximum(alive.sum((1, 2)), 1)
    aligned, floors, names = _aligned(source), relative_floor * magnitudes / cells, templates(source.width)
    return np.stack([_channels(aligned, source.output, name, floors) for name in names], axis=2)


def _polarity(output: NDArray[Any], template: str) -> NDArray[np.bool_]:
    """Whether a row's polarity is the template's: rows of all-positive templates have positive output weights."""
    positive = not re.search(r"N", template)
    return np.asarray(output > 0 if positive else output < 0)


def observe_locations(
    start: Networks,
    end: Networks,
    clauses: Sequence[Sequence[Sequence[int]]],
    *,
    near: int = NEAR,
    relative_floor: float = RELATIVE_FLOOR,
    seed: int = 0,
    streams: Sequence[int] | None = None,
    output: int = 0,
) -> pd.DataFrame:
    """Every location: its distances, crowding and interference at initialization, and whether it became a code.

    Args:
        start: R networks at initialization.
        end: the same networks after training.
        clauses: signed clauses of each network, as many of the same width for all.
        near: see `observe`.
        relative_floor: see `observe`.
        seed: key of the random control.
        streams: number of each network's stream for it; 0, 1, ... by default.
        output: which output, where there are several.

    Returns:
        One row a network, clause, template and row, in this order. Columns formula, clause, template, row; polarity
        (whether the row's is right at initialization); hamming, soft, margin, cosine and signed_sum, see
        `precode.distance`; the controls [our definitions, small means near] euclidean (weight space, from the row to
        the template with the layer's mean magnitude, zero elsewhere), displacement (weight space, from the row to its
        own final weights: it knows the end), mass and row_mass (minus the magnitude of the clause's weights and of
        the whole row), and random; near_count, graded and positive_entries, see `precode.crowding`; conflicts, see
        `precode.conflicts`; capacity (mean `precode.feature_capacity` of the clause's variables) and row_cosine (mean
        cosine with the other rows); w2, b1; near (at most `near` wrong signs and the right polarity); code (whether it
        exists at the end) and fate (converged or rejected, none where not near).

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf([[0, 1, 2, 3]], 8), hidden=4, samples=64, epochs=1)
        >>> table = observe_locations(runs.start, runs, [[[0, 1, 2, 3]]])
        >>> table.groupby("template", observed=True).size().tolist()
        [4, 4, 4]
    """
    first = _source(start, clauses, output)
    aligned, names = _aligned(first), templates(first.width)
    networks, sets, rows, _ = aligned.shape
    shape = (networks, sets, len(names), rows)
    scale = np.abs(first.features).mean((1, 2), dtype=np.float64)

    def each(function: Any) -> NDArray[Any]:
        """One array (R, C, j) for each template, as (R, C, T, j)."""
        return np.stack([function(name) for name in names], axis=2)

    index = np.indices(shape)
    polarity = each(lambda name: np.broadcast_to(_polarity(first.output, name)[:, None], (networks, sets, rows)))
    columns: dict[str, NDArray[Any]] = {"formula": index[0], "clause": index[1], "row": index[3], "polarity": polarity}
    for metric in METRICS:
        columns[metric] = each(lambda name, metric=metric: distances(first, name, metric, "layer", "ignore"))
    columns["euclidean"] = each(lambda name: _euclidean(start, first, aligned, scale, name))
    w1_start, w1_end = (side.weights["w1"].detach().cpu().double().numpy() for side in (start, end))
    columns["displacement"] = _per_row(np.linalg.norm(w1_end - w1_start, axis=-1))
    columns["mass"] = -np.abs(aligned).sum(-1)[:, :, None] / scale[:, None, None, None]
    columns["row_mass"] = _per_row(-np.abs(first.features).sum(-1, dtype=np.float64) / scale[:, None])
    columns["random"] = np.stack(
        [
            np.random.default_rng([*CONTROL_KEY, seed, stream]).random(shape[1:])
            for stream in (range(networks) if streams is None else streams)
        ]
    )
    crowds = [crowding(first.features, first.output, first.sets, template=name, near=near) for name in names]
    columns["near_count"] = np.stack([crowd["near"] for crowd in crowds], axis=2).astype(np.int64)
    columns["graded"] = np.stack([crowd["graded"] for crowd in crowds], axis=2)
    columns["positive_entries"] = _per_row(crowds[0]["positive_entries"].astype(np.int64))
    columns["conflicts"] = conflicts(first.features, first.output, first.sets, near=near).astype(np.int64)[:, :, None]
    columns["capacity"] = _capacity(first)[:, :, None, None]
    columns["row_cosine"] = _per_row(_row_cosine(first.features))
    columns["w2"] = _per_row(first.output)
    columns["b1"] = _per_row(start.weights["b1"].detach().cpu().numpy())
    columns["near"] = (columns["hamming"] <= near) & polarity
    columns["code"] = channels_of(end, clauses, relative_floor=relative_floor, output=output)
    table = pd.DataFrame({name: np.broadcast_to(values, shape).ravel() for name, values in columns.items()})
    table["template"] = pd.Categorical(np.array(names)[index[2].ravel()], categories=list(names))
    table["fate"] = fates(table)
    return table


def fates(locations: pd.DataFrame) -> pd.Categorical[str]:
    """Fate of every location from its columns near and code: near ones converge or are rejected. Our definition.

    Example:
        >>> list(fates(pd.DataFrame({"near": [True, True, False], "code": [True, False, True]})))
        ['converged', 'rejected', 'none']
    """
    near, code = (locations[name].to_numpy(dtype=bool) for name in ("near", "code"))
    return pd.Categorical(np.where(near, np.where(code, FATES[1], FATES[2]), FATES[0]), categories=list(FATES))


def _per_row(values: NDArray[Any]) -> NDArray[Any]:
    """(R, j) as (R, 1, 1, j)."""
    return values[:, None, None]


def _euclidean(
    networks: Networks, source: Readout, aligned: NDArray[np.float64], scale: NDArray[np.float64], template: str
) -> NDArray[np.float64]:
    """Distance of every row to the template's nearest placement pulled back into weight space, (R, C, j)."""
    rank = np.argsort(np.argsort(-aligned, axis=-1, kind="stable"), axis=-1)
    target = np.where(rank < positives(template), 1.0, -1.0)  # aligned signs, (R, C, j, k)
    literals = np.array(source.sets)
    variables, signs = np.where(literals < 0, ~literals, literals), np.where(literals < 0, -1.0, 1.0)
    target *= signs[:, :, None] * scale[:, None, None, None]
    c0 = networks.c0.detach().cpu().double().numpy()
    back = np.broadcast_to(np.linalg.pinv(c0), (len(networks), *c0.shape[:-3:-1]))  # (R, n, m)
    w1 = networks.weights["w1"].detach().cpu().double().numpy()
    across, number = back.transpose(0, 2, 1), np.arange(len(w1))[:, None, None]
    projected = (w1 @ across)[number, :, variables]  # (R, C, k, j)
    gram = (back @ across)[number[..., None], variables[..., None], variables[:, :, None]]  # (R, C, k, k)
    square = (
        (w1**2).sum(-1)[:, None]
        - 2 * np.einsum("rcjk,rckj->rcj", target, projected)
        + np.einsum("rcjk,rckl,rcjl->rcj", target, gram, target)
    )
    return np.asarray(np.sqrt(np.maximum(square, 0)))


def _capacity(source: Readout) -> NDArray[np.float64]:
    """Mean feature capacity of every clause's variables, (R, C)."""
    literals = np.array(source.sets)
    variables = np.where(literals < 0, ~literals, literals)
    values = feature_capacity(source.features)
    return np.asarray(values[np.arange(len(values))[:, None, None], variables].mean(-1))


def _row_cosine(features: NDArray[Any]) -> NDArray[np.float64]:
    """Mean cosine of every row with the other rows, (R, j); rows of zeros count as orthogonal to all."""
    norms = np.linalg.norm(features, axis=-1, keepdims=True).astype(np.float64)
    units = np.divide(features, norms, out=np.zeros(features.shape), where=norms > 0)
    own = (norms[..., 0] > 0).astype(np.float64)
    return np.asarray(((units @ units.sum(1)[..., None])[..., 0] - own) / max(features.shape[1] - 1, 1))


def observe_motion(runs: Runs, locations: pd.DataFrame, *, output: int = 0) -> pd.DataFrame:
    """Distance of the near locations, of the formulas and of false clauses, at every snapshot and at the end.

    Args:
        runs: see `observe`.
        locations: from `observe_locations` of the same networks, with column kind.
        output: which output, where there are several.

    Returns:
        One row a near location and moment: formula, clause, template, row, kind, fate, epoch (of the snapshot, in
        fractions; infinite for the final weights), hamming and soft.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf([[0, 1, 2, 3]], 8), hidden=4, samples=64, epochs=1, snapshots=[1])
        >>> table = observe_locations(runs.start, runs, [[[0, 1, 2, 3]]]).assign(kind="formula")
        >>> observe_motion(runs, table)["epoch"].unique().tolist()
        [0.0, 1.0, inf]
    """
    near = locations[locations["near"]]
    keys = ["formula", "clause", "template", "row", "kind", "fate"]
    kinds = [(near["kind"] == kind).to_numpy() for kind in KINDS]
    templates_of = [(name, (near["template"] == name).to_numpy()) for name in near["template"].cat.categories]
    place = near[["formula", "clause", "row"]].to_numpy()
    moments = {0.0: runs.start, **{step / runs.steps_per_epoch: runs.at(step) for step in runs.settings.snapshots}}
    clauses = _clauses(runs, output)
    frames = []
    for epoch, networks in [*sorted(moments.items()), (float("inf"), runs)]:
        frame = near[keys].assign(epoch=epoch, hamming=0.0, soft=0.0)
        for kind, of_kind in zip(KINDS, kinds, strict=True):
            source = _source(networks, clauses[kind], output)
            for (name, of_template), metric in product(templates_of, ("hamming", "soft")):
                chosen = of_kind & of_template
                if chosen.any():
                    values = distances(source, name, metric, "layer", "ignore")
                    frame.loc[chosen, metric] = values[tuple(place[chosen].T)]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
