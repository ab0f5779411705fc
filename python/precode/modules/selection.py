"""The choice of weights by their scores: whole rows and columns, densities of layers, N:M patterns.

Tensors are (outputs, inputs of an output, window), see `precode.modules.layouts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from precode import _precode
from precode._internal.check import fraction
from precode._internal.errors import PrecodeTypeError, PrecodeValueError
from precode._internal.parts import all_finite, exact
from precode.modules.layouts import Layout

Tensors = dict[str, torch.Tensor]

GRANULARITIES = ("weight", "row", "column")
SCOPES = ("global", "per-layer", "erk")


@dataclass(frozen=True)
class Wanted:
    """What a ticket keeps.

    Attributes:
        density: the fraction of all prunable weights.
        granularity: weight, row or column.
        scope: global or per-layer, which is what holds where layers have densities of their own.
        layers: the density of each layer where it is not the same for all, or None.
        pattern: (N, M) where N of each M consecutive inputs are kept, or None.
    """

    density: float
    granularity: str
    scope: str
    layers: dict[str, float] | None = None
    pattern: tuple[int, int] | None = None

    @property
    def plain(self) -> bool:
        """Whether methods choose so themselves: single weights at one density."""
        return self.granularity == "weight" and self.layers is None and self.pattern is None


def wanted(density: object, granularity: object, scope: object, shapes: Mapping[str, torch.Size]) -> Wanted:
    """What is asked for, checked before any work.

    Args:
        density: a fraction, or one for each prunable parameter by name.
        granularity: as in `precode.find_ticket`.
        scope: as in `precode.find_ticket`.
        shapes: (outputs, inputs, window) of the prunable parameters.

    Raises:
        PrecodeTypeError, PrecodeValueError: it cannot be had; the message names the layer.
    """
    if not isinstance(scope, str) or scope not in SCOPES:
        raise PrecodeValueError(f"scope {scope!r} is unknown: use one of {', '.join(SCOPES)}")
    pattern = re.fullmatch(r"(\d+):(\d+)", granularity) if isinstance(granularity, str) else None
    if not pattern and granularity not in GRANULARITIES:
        raise PrecodeValueError(
            f"granularity {granularity!r} is unknown: use one of {', '.join(GRANULARITIES)}, or N:M such as '2:4'"
        )
    if isinstance(density, Mapping):
        return _by_layer(density, str(granularity), bool(pattern), scope, shapes)
    if isinstance(density, np.number):
        density = fraction(density, "density")
    if isinstance(density, bool | str) or not isinstance(density, float | int):
        raise PrecodeTypeError(f"density must be a number, not {type(density).__name__}")
    if not 0 < density <= 1:
        raise PrecodeValueError(f"density = {density:g}: the fraction of weights kept must be in (0, 1]")
    if pattern:
        kept, of = int(pattern[1]), int(pattern[2])
        _check_pattern(kept, of, density, scope, shapes)
        return Wanted(density, "weight", "per-layer", pattern=(kept, of))
    if scope == "erk":
        return Wanted(density, str(granularity), "per-layer", layers=erdos_renyi(shapes, density))
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    for name, size in sizes.items() if scope == "per-layer" else ():
        kept_of(density, size, f"'{name}'")
    kept_of(density, sum(sizes.values()), "the module")
    return Wanted(density, str(granularity), scope)


def _by_layer(
    density: Mapping[str, object], granularity: str, pattern: bool, scope: str, shapes: Mapping[str, torch.Size]
) -> Wanted:
    if pattern or scope == "erk":
        raise PrecodeValueError(
            "a dictionary of densities says what each layer keeps: leave the pattern N:M and scope='erk' out"
        )
    if density.keys() != shapes.keys():
        wrong = sorted(density.keys() ^ shapes.keys())
        raise PrecodeValueError(
            f"density must name each prunable parameter and no other; these differ: {', '.join(map(str, wrong))}"
        )
    layers = {name: fraction(density[name], f"density of '{name}'") for name in shapes}
    total = sum(shape.numel() for shape in shapes.values())
    kept = sum(layers[name] * shape.numel() for name, shape in shapes.items())
    return Wanted(kept / total, granularity, "per-layer", layers=layers)


def _check_pattern(kept: int, of: int, density: float, scope: str, shapes: Mapping[str, torch.Size]) -> None:
    if not 0 < kept < of:
        raise PrecodeValueError(f"granularity '{kept}:{of}': N:M keeps N of each M weights, with 0 < N < M")
    if abs(density - kept / of) > 1e-9:
        raise PrecodeValueError(
            f"granularity '{kept}:{of}' keeps {kept / of:g} of the weights, not {density:g}: pass density={kept / of:g}"
        )
    if scope == "erk":
        raise PrecodeValueError(f"granularity '{kept}:{of}' has the same density in every layer: leave scope out")
    for name, shape in shapes.items():
        inputs = shape[1] if len(shape) > 1 else shape.numel()
        if inputs % of:
            raise PrecodeValueError(
                f"'{name}' has {inputs} inputs, which are not in groups of {of}: leave it out, as by exclude='{name}'"
            )


def erdos_renyi(shapes: Mapping[str, torch.Size], density: float) -> dict[str, float]:
    """Densities of layers that are proportional to the sum of their sizes over the product, at most 1.

    Source: arXiv 1911.11134, section 3(1), the Erdős–Rényi kernel; layers that would have more than 1 are dense, and
    the others share the rest.

    Example:
        >>> shapes = {"a": torch.Size([10, 10]), "b": torch.Size([10, 2])}
        >>> {name: round(value, 3) for name, value in erdos_renyi(shapes, 0.5).items()}
        {'a': 0.4, 'b': 1.0}
    """
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    raw = {name: sum(shape) / shape.numel() for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        factor = rest / max(sum(raw[name] * sizes[name] for name in shapes if name not in dense), 1e-300)
        over = {name for name in shapes if name not in dense and factor * raw[name] > 1}
        if not over:
            break
        dense |= over
    return {name: 1.0 if name in dense else factor * raw[name] for name in shapes}


def choose(scores: Tensors, layouts: Mapping[str, Layout], wanted: Wanted) -> Tensors:
    """The masks that keep the weights of the largest scores; of equal scores, those that come first.

    Of single weights ``round(density * weights)`` are kept, half to even. Rows (the weights of an output) and columns
    (those of an input, or input channel) are kept whole, in the order of their mean scores, as many as come closest to
    ``density * weights``, of two as close the fewer, and at least one.

    Raises:
        PrecodeValueError: a score that is not finite; a density that keeps nothing, by layer.
    """
    for name, score in scores.items():
        if not all_finite(score):
            raise PrecodeValueError(f"scores of '{name}' are not finite: a score must be a finite number")
    if wanted.pattern:
        return {name: _of_each(score, *wanted.pattern) for name, score in scores.items()}
    if wanted.scope == "per-layer":
        masks: Tensors = {}
        for name, score in scores.items():
            density = wanted.density if wanted.layers is None else wanted.layers[name]
            masks |= _best({name: score}, layouts, wanted.granularity, density, f"'{name}'")
        return masks
    return _best(scores, layouts, wanted.granularity, wanted.density, "the module")


def largest(scores: Tensors, density: float, alive: Tensors | None = None) -> Tensors:
    """The masks of single weights of the largest scores over all tensors, as `choose` finds them.

    Args:
        scores: finite numbers.
        density: the fraction of all weights that is kept.
        alive: the weights that may be kept; all if None.

    Raises:
        PrecodeValueError: the density keeps nothing, or more than is alive.
    """
    kept_of(density, sum(score.numel() for score in scores.values()), "the module")
    living = None if alive is None else [alive[name] for name in scores]
    return dict(zip(scores, _precode.best_weights(list(scores.values()), density, living), strict=True))


def kept_of(density: float, total: int, where: str) -> int:
    """How many of all weights a density keeps.

    Raises:
        PrecodeValueError: none.
    """
    if not (kept := round(density * total)):
        raise PrecodeValueError(
            f"density = {density:g} keeps none of the {total} weights of {where}: the least that keeps one is above "
            f"{0.5 / total:g}"
        )
    return kept


def compared(scores: Tensors, layouts: Mapping[str, Layout], granularity: str) -> Tensors:
    """For each weight what is compared with others: its score, or the mean score of its row or column."""
    if granularity == "weight":
        return scores
    units = {name: Units.of(score.shape, layouts.get(name, Layout()), granularity) for name, score in scores.items()}
    return {name: units[name].spread(units[name].means(score)) for name, score in scores.items()}


def _of_each(score: torch.Tensor, kept: int, of: int) -> torch.Tensor:
    """N of each M consecutive inputs, for every output and place of a window."""
    last = score.movedim(1, -1) if score.ndim > 1 else score
    groups = last.reshape(-1, of)
    order = groups.argsort(dim=1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, :kept], True).reshape(last.shape)
    return (mask.movedim(-1, 1) if score.ndim > 1 else mask).contiguous()


@dataclass(frozen=True)
class Units:
    """How the rows or columns of a tensor stand in it.

    Attributes:
        shape: of the tensor.
        axes: its entries as four axes, of which the first and the third tell the unit.
    """

    shape: torch.Size
    axes: tuple[int, int, int, int]

    @classmethod
    def of(cls, shape: torch.Size, layout: Layout, granularity: str) -> Units:
        """Rows or columns of a tensor; each group of a convolution has input channels of its own."""
        outputs, inputs = (*shape[:2], 1, 1)[:2]  # a number is one output, a vector outputs of one input each
        window = shape[2:].numel()
        if granularity == "row" or len(shape) < 2:
            return cls(shape, (outputs, 1, 1, inputs * window))
        return cls(shape, (layout.groups, outputs // layout.groups, inputs, window))

    @property
    def size(self) -> int:
        """Weights of a unit."""
        return self.axes[1] * self.axes[3]

    def means(self, score: torch.Tensor) -> torch.Tensor:
        """The mean score of each unit, in float64. Equal units have equal ones: each is added up in one order."""
        return exact(score).reshape(self.axes).transpose(1, 2).reshape(-1, self.size).mean(1)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """The value of each unit at all of its weights."""
        first, _, third, _ = self.axes
        return values.reshape(first, 1, third, 1).expand(self.axes).reshape(self.shape)


def _best(scores: Tensors, layouts: Mapping[str, Layout], granularity: str, density: float, where: str) -> Tensors:
    """The masks of the best units of some tensors, compared with one another."""
    total = sum(score.numel() for score in scores.values())
    kept_of(density, total, where)
    if granularity == "weight":
        return largest(scores, density)
    units = {name: Units.of(score.shape, layouts.get(name, Layout()), granularity) for name, score in scores.items()}
    means = [units[name].means(score).cpu() for name, score in scores.items()]
    sizes = [torch.full(mean.shape, unit.size, device="cpu") for mean, unit in zip(means, units.values(), strict=True)]
    order = torch.cat(means).argsort(descending=True, stable=True)
    kept = torch.cat(sizes)[order].cumsum(0)
    most = int((kept.double() - density * total).abs().argmin()) + 1
    chosen = torch.zeros(len(order), dtype=torch.bool, device="cpu").index_fill_(0, order[:most], True)
    parts = torch.split(chosen, [len(mean) for mean in means])
    return {
        name: units[name].spread(part.to(score.device))
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }
