"""How far locations are from templates, and how they move in training.

These are our definitions: those of arXiv 2605.17704 are not public.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from precode import _precode
from precode._internal.errors import PrecodeTypeError
from precode.codes.readouts import ClauseSets, EmbeddingLike, Readable, Readout, Weights, read, readout

if TYPE_CHECKING:
    from numpy.typing import NDArray


def distances(source: Readout, template: str | None, metric: str, scale: str, polarity: str) -> NDArray[np.float64]:
    """Distances of a readout's locations, (C, j) or (R, C, j); see `distance`."""
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
    embedding: EmbeddingLike = None,
    output: int = 0,
) -> NDArray[np.float64]:
    """Distance of every location's weights c from a template's signs t, (C, j) or (R, C, j). Our definitions.

    Where the template allows several placements, the distance is that to the nearest one.

    Args:
        w1: see `precode.decode`.
        w2: see `precode.decode`.
        clauses: see `precode.decode`.
        template: such as ``"4P"``, ``"3N1P"``, ``"2P2N"``; by default the all-positive one.
        metric: ``"hamming"``, the wrong signs, 0 to k (a zero is wrong); ``"soft"``, the weight to be moved,
            sum max(0, -t c) / scale; ``"margin"``, -min t c / scale, negative when all signs are right;
            ``"cosine"``, 1 - cos(c, t), 0 to 2; ``"signed_sum"``, -sum t c / scale.
        scale: ``"layer"`` or ``"row"``, the mean absolute weight of that in feature space; ``"none"``.
        polarity: what a row of the wrong polarity does: ``"ignore"``; ``"add"`` 1; ``"require"``, infinite.
        embedding: see `precode.decode`.
        output: see `precode.decode`.

    Raises:
        PrecodeValueError: an unknown template, metric, scale or polarity; the message lists those there are.

    Example:
        >>> import torch
        >>> w1 = torch.tensor([[1.0, 2.0, -1.0], [-1.0, 0.5, 1.0]])
        >>> distance(w1, torch.tensor([0.7, -0.3]), [[0, 1], [1, 2]], metric="hamming")
        array([[0., 1.],
               [1., 0.]])
    """
    source = readout(w1, w2, clauses, embedding=embedding, output=output)
    return distances(source, template, metric, scale, polarity)


def motion(
    before: tuple[Weights, Weights] | Readable,
    after: tuple[Weights, Weights] | Readable,
    clauses: ClauseSets | None = None,
    *,
    template: str | None = None,
    metric: str = "soft",
    scale: str = "layer",
    polarity: str = "ignore",
    embedding: EmbeddingLike = None,
) -> NDArray[np.float64]:
    """Change of every location's distance between two moments of training; negative: towards the template.

    Args:
        before: the earlier moment: (w1, w2) as in `precode.decode`; or `Codes` or `Networks`, such as ``runs.start``.
        after: the later moment, likewise.
        clauses: see `precode.decode`; only beside bare weights.
        template: see `distance`.
        metric: see `distance`.
        scale: see `distance`; each moment is divided by its own.
        polarity: see `distance`; where a distance is infinite at both moments, motion is NaN.
        embedding: see `precode.decode`.

    Example:
        >>> import torch
        >>> w2 = torch.tensor([1.0])
        >>> start, end = (torch.tensor([[-1.0, 1.0]]), w2), (torch.tensor([[1.0, 1.0]]), w2)
        >>> motion(start, end, [[0, 1]], metric="hamming")
        array([[-1.]])
        >>> from precode import Dnf, train
        >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=1)
        >>> motion(runs.start, runs).shape
        (1, 4, 8)
    """
    first, last = (_moment(moment, clauses, embedding, name) for name, moment in (("before", before), ("after", after)))
    with np.errstate(invalid="ignore"):
        return np.asarray(
            distances(last, template, metric, scale, polarity) - distances(first, template, metric, scale, polarity)
        )


def _moment(moment: Any, clauses: ClauseSets | None, embedding: EmbeddingLike, name: str) -> Readout:
    if hasattr(moment, "read_out"):
        return read(moment, None, clauses, embedding, None)
    if not isinstance(moment, Sequence) or len(moment) != 2:
        raise PrecodeTypeError(f"{name} must be (w1, w2), Codes or Networks, not {type(moment).__name__}")
    w1, w2 = moment
    return read(w1, w2, clauses, embedding, None)
