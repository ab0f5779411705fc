"""Locations of both polarities: where codes are, what is near, how loaded rows are, and what becomes of them.

A public digest of arXiv 2605.17704 reports that codes of both polarities count there: 4P on rows of positive output
weight, 3N1P on rows of negative output weight. Near, load and the classes are our definitions: the paper's are not
public.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from precode import _precode
from precode._internal.check import COUNT, integer, numbers
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode.codes.interference import NEAR
from precode.codes.readouts import ClauseSets, EmbeddingLike, Readable, Readout, Weights, clause_sets, read, templates

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("stable", "lost", "recruited", "close but lost", "kept", "other")
"""Classes of locations, see `classes`; the first four are those that a digest of arXiv 2605.17704 names."""


@dataclass(frozen=True, eq=False)
class Locations:
    """Every location (clause, template, row) of a stack of R networks; made by `locations`.

    Axes: R networks, C clauses, T templates, j rows.

    Attributes:
        templates: names of the templates, T of them.
        code: whether the row carries the template exactly and has its polarity, Boolean (R, C, T, j).
        distance: wrong signs, the row's polarity ignored, (R, C, T, j), from 0 to k.
        margin: least weight that is right, min t c, over the layer's mean magnitude, (R, C, T, j); positive only where
            all signs are right. Of the nearest placement.
        polarity: whether the row has the template's polarity, Boolean (R, T, j).

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=16, epochs=2, samples=2000)
        >>> start, end = locations(runs.start), locations(runs)
        >>> start.code.shape, start.load().shape
        ((1, 4, 2, 16), (1, 16))
        >>> bool((start.near() >= start.code).all()), start
        (True, Locations(networks=1, clauses=4, templates=4P 3N1P, rows=16))
    """

    templates: tuple[str, ...]
    code: NDArray[np.bool_]
    distance: NDArray[np.float64]
    margin: NDArray[np.float64]
    polarity: NDArray[np.bool_]

    def near(self, near: int = NEAR, *, polarity: str = "require") -> NDArray[np.bool_]:
        """Locations with at most `near` wrong signs, (R, C, T, j).

        Args:
            near: most wrong signs.
            polarity: ``"require"`` that of the template; ``"ignore"`` leaves that to whoever knows a later moment.

        Raises:
            PrecodeValueError: `near` below 0, or an unknown polarity.
        """
        if polarity not in ("require", "ignore"):
            raise PrecodeValueError(f"polarity {polarity!r}: use one of require, ignore")
        close = self.distance <= integer(near, "near", 0, COUNT)
        return close & self.polarity[:, None] if polarity == "require" else close

    def load(self, near: int = NEAR) -> NDArray[np.int64]:
        """Near locations of every row, of all clauses and templates, (R, j)."""
        return np.asarray(self.near(near).sum((1, 2)))

    def others(self, near: int = NEAR) -> NDArray[np.int64]:
        """Of every location, the other near locations of its row, (R, C, T, j)."""
        return np.asarray(self.load(near)[:, None, None] - self.near(near))

    def only(self, *names: str) -> Locations:
        """The locations of some of its templates.

        Raises:
            PrecodeValueError: it does not have one of them.
        """
        if unknown := [name for name in names if name not in self.templates] or not names:
            raise PrecodeValueError(f"templates {unknown or names}: there are {', '.join(self.templates)}")
        at = [self.templates.index(name) for name in names]
        fields = (self.code[:, :, at], self.distance[:, :, at], self.margin[:, :, at], self.polarity[:, at])
        return Locations(names, *fields)

    def __repr__(self) -> str:
        networks, clauses, _, rows = self.code.shape
        return f"Locations(networks={networks}, clauses={clauses}, templates={' '.join(self.templates)}, rows={rows})"

    def _repr_html_(self) -> str:
        found = (
            f"<tr><td>{name}</td><td>{self.code[:, :, place].sum((1, 2)).mean():.2f}</td>"
            f"<td>{self.near()[:, :, place].sum((1, 2)).mean():.2f}</td></tr>"
            for place, name in enumerate(self.templates)
        )
        return (
            f"<table><caption>{self!r}</caption><tr><th>template</th><th>codes of a network</th>"
            f"<th>near locations of a network</th></tr>{''.join(found)}</table>"
        )


def locations(
    w1: Weights | Readable,
    w2: Weights | None = None,
    clauses: ClauseSets | None = None,
    *,
    templates: Sequence[str] | None = None,
    floor: float = 0.0,
    embedding: EmbeddingLike = None,
    output: int | None = None,
) -> Locations:
    """Every location of one network or a stack, for templates of both polarities.

    Args:
        w1: see `precode.decode`; or `Codes`, `Networks` or `Runs`, which bring w2 and embedding along.
        w2: see `precode.decode`.
        clauses: see `precode.decode`. Beside what brings its own, such as false ones, a set for each network.
        templates: names; by default the all-positive one and the one that lacks a single literal of being all-negative,
            4P and 3N1P of four literals, the codes of arXiv 2605.17704 [reported by a public digest].
        floor: magnitudes up to this carry no code.
        embedding: see `precode.decode`.
        output: see `precode.decode`.

    Raises:
        PrecodeValueError: no templates, or an unknown one.
        PrecodeShapeError: not a set of clauses for each network.

    Example:
        >>> import torch
        >>> w1 = torch.tensor([[1.0, 2.0, -1.0, -1.0]])
        >>> found = locations(w1, torch.tensor([0.5]), [[0, 1], [1, 2]], templates=["2P"])
        >>> found.code[0, :, 0, 0].tolist(), found.distance[0, :, 0, 0].tolist()
        ([True, False], [0.0, 1.0])
    """
    source = _source(w1, w2, clauses, embedding, output)
    names = code_templates(source.width, templates)
    (floor,) = numbers([floor], "floor", 0)

    def each(metric: str, name: str) -> NDArray[np.float64]:
        return _precode.distances(source.networks, source.sets, name, metric, "layer", "ignore")

    code = [_precode.channels(source.networks, source.sets, name, floor) for name in names]
    positive = source.output > 0
    polarity = [positive if "N" not in name else source.output < 0 for name in names]
    return Locations(
        names,
        np.stack(code, 2),
        np.stack([each("hamming", name) for name in names], 2),
        -np.stack([each("margin", name) for name in names], 2),
        np.stack(polarity, 1),
    )


def code_templates(width: int, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Templates whose occupied locations count as codes: by default those of both polarities, 4P and 3N1P of four.

    Args:
        width: literals of a clause.
        wanted: names instead.

    Raises:
        PrecodeTypeError: one string instead of a sequence.
        PrecodeValueError: none, or one that clauses of that width do not have.

    Example:
        >>> code_templates(4), code_templates(4, ["4P"])
        (('4P', '3N1P'), ('4P',))
    """
    known = templates(width)
    if wanted is None:
        return known[:2]
    if isinstance(wanted, str):
        raise PrecodeTypeError(f"templates must be a sequence of names, not the string {wanted!r}")
    if not wanted:
        raise PrecodeValueError(f"templates = []: give at least one of {', '.join(known)}")
    if unknown := [name for name in wanted if name not in known]:
        raise PrecodeValueError(f"template {unknown[0]!r}: clauses of {width} literals have {', '.join(known)}")
    return tuple(wanted)


def _source(
    w1: Weights | Readable,
    w2: Weights | None,
    clauses: ClauseSets | None,
    embedding: EmbeddingLike,
    output: int | None,
) -> Readout:
    if not hasattr(w1, "read_out") or clauses is None:
        return read(w1, w2, clauses, embedding, output)
    source = read(w1, w2, None, embedding, output)
    sets = clause_sets(list(clauses), output or 0) if isinstance(clauses, Sequence) else []
    if len(sets) != len(source.features):
        raise PrecodeShapeError(
            f"{len(sets)} sets of clauses for {len(source.features)} networks: pass a list of clauses for each"
        )
    return replace(source, sets=sets)


def recall(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the codes of `before` that `after` has at the same sites (clause, template, row), (R,).

    Args:
        before: codes of R networks, such as dense ones, Boolean (R, ...); see `Locations.code`.
        after: codes of as many others, of the same shape.

    Returns:
        From 0 to 1; NaN where `before` has no codes.

    Raises:
        PrecodeShapeError: not of one shape.

    Example:
        >>> recall(np.array([[True, True, False]]), np.array([[True, False, True]])).tolist()
        [0.5]
    """
    first, second = _alike(before, after)
    return _share((first & second).sum(1), first.sum(1))


def permuted_recall(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The expected recall if the codes of `after` lay on random rows of their clause and template, (R,).

    Args:
        before: codes of R networks, Boolean (R, C, T, j).
        after: codes of as many others, of the same shape.

    Raises:
        PrecodeShapeError: not of one shape.

    Example:
        >>> codes = np.zeros((1, 1, 1, 4), dtype=bool)
        >>> codes[..., :2] = True
        >>> permuted_recall(codes, codes).tolist()
        [0.5]
    """
    shared, first, _ = _by_chance(before, after)
    return _share(shared, first)


def jaccard(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Shared codes over codes of either, (R,); arguments and errors as of `recall`.

    Example:
        >>> jaccard(np.array([[True, True, False]]), np.array([[True, False, True]])).round(3).tolist()
        [0.333]
    """
    first, second = _alike(before, after)
    return _share((first & second).sum(1), (first | second).sum(1))


def independent_jaccard(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The Jaccard index that sets of these sizes would have if rows were independent, (R,). Our definition.

    Of every clause and template, the codes of either network are taken to lie on any rows with equal chance. The
    expected intersection is over the union that it would leave.

    Args:
        before: codes of R networks, Boolean (R, C, T, j).
        after: codes of as many others, of the same shape.

    Raises:
        PrecodeShapeError: not of one shape.

    Example:
        >>> codes = np.ones((1, 1, 1, 4), dtype=bool)
        >>> codes[..., 2:] = False
        >>> independent_jaccard(codes, codes).round(3).tolist()
        [0.333]
    """
    shared, first, second = _by_chance(before, after)
    return _share(shared, first + second - shared)


def _by_chance(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[NDArray[np.float64], ...]:
    """Codes shared by chance if all lay on random rows of their clause and template, and codes of either, (R,) each."""
    _alike(before, after)
    first, second = (np.asarray(codes).sum(-1).astype(float) for codes in (before, after))
    axes = tuple(range(1, first.ndim))
    return (first * second).sum(axes) / np.asarray(before).shape[-1], first.sum(axes), second.sum(axes)


def near_at(start: Locations, end: Locations, near: int = NEAR, *, polarity: str = "ignore") -> NDArray[np.float64]:
    """Share of each network's own final codes that were near at its start, (R,). Our definition.

    Args:
        start: of R networks, such as masked ones before training.
        end: of the same networks after it.
        near: most wrong signs.
        polarity: ``"ignore"``: that at the end counts, which codes have; ``"require"`` it at the start too.

    Returns:
        From 0 to 1; NaN where there are no codes at the end.

    Raises:
        PrecodeShapeError: locations of networks or clauses of other shapes.
        PrecodeValueError: another `polarity`, or `near` out of range.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=16, epochs=2, samples=2000)
        >>> share = near_at(locations(runs.start), locations(runs))
        >>> bool(0 <= share[0] <= 1)
        True
    """
    return recall(end.code, start.near(near, polarity=polarity))


def classes(start: Locations, support: Locations, end: Locations, near: int = NEAR) -> NDArray[np.int8]:
    """The class of every location in a run, as its place in `CLASSES`, (R, C, T, j).

    A public digest of arXiv 2605.17704 names four classes of dense training; this reading of them is ours. An oracle
    supports a location if it is near where the oracle's ticket starts.

    - stable: supported, and a code at the end;
    - lost: supported, and no code at the end;
    - recruited: a code at the end that was neither supported nor near at the start;
    - close but lost: near at the start, not supported, and no code at the end;
    - kept: near at the start, not supported, and a code at the end all the same;
    - other: all that is left: neither near, nor supported, nor a code.

    Args:
        start: of the dense networks before training.
        support: of the oracle's tickets before training.
        end: of the dense networks after training.
        near: most wrong signs of a near location.

    Raises:
        PrecodeShapeError: locations of networks or clauses of other shapes.
        PrecodeValueError: `near` out of range.

    Example:
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=16, epochs=2, samples=2000)
        >>> start, end = locations(runs.start), locations(runs)
        >>> found = classes(start, start, end)
        >>> sorted({CLASSES[number] for number in found.ravel()})
        ['lost', 'other', 'recruited', 'stable']
    """
    close, backed, code = start.near(near), support.near(near), end.code
    for other in (backed, code):
        _alike(close, other)
    return np.select(
        [backed & code, backed, code & ~close, close & ~code, close & code],
        [0, 1, 2, 3, 4],
        default=CLASSES.index("other"),
    ).astype(np.int8)


def _alike(before: NDArray[Any], after: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two sets of codes as (R, locations)."""
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if first.shape != second.shape:
        raise PrecodeShapeError(f"codes of shape {first.shape} beside {second.shape}: compare networks of one shape")
    return first.reshape(len(first), -1), second.reshape(len(second), -1)


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return share
