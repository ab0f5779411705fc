"""The two linear layers that codes are read from, and clauses over the inputs of the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from precode._internal.check import integer, literals, plain
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode.formulas.dnf import Dnf
from precode.tickets.masked import Slot


def pair_of(
    module: nn.Module, slots: dict[str, Slot], layers: tuple[str, str] | None, output: int | None, *, several: bool
) -> tuple[str, str, int] | None:
    """Names of the weights of the two layers that codes are read from, and an output, named where there are several."""
    linear = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and f"{name}.weight" in slots
    }
    if layers is None:
        fits = len(linear) == 2 and _follow(*linear.values())
        layers = tuple(linear) if fits else None
    if layers is None:
        return None
    if isinstance(layers, str) or len(layers) != 2:
        raise PrecodeTypeError(f"layers must be the names of two linear layers, not {layers!r}")
    for name in layers:
        if name not in linear:
            raise PrecodeValueError(f"layers name '{name}', but the linear layers are {', '.join(linear) or 'none'}")
    first, second = (linear[name] for name in layers)
    if not _follow(first, second):
        raise PrecodeShapeError(
            f"'{layers[0]}' has {first.out_features} outputs, but '{layers[1]}' {second.in_features} inputs: name two "
            "layers that follow one another"
        )
    if output is None and several and second.out_features > 1:
        raise PrecodeValueError(
            f"'{layers[1]}' has {second.out_features} outputs, and clauses are of one: name it with output=, such as "
            "output=1 for the logit of True"
        )
    output = 0 if output is None else output
    return f"{layers[0]}.weight", f"{layers[1]}.weight", integer(output, "output", 0, second.out_features - 1)


def _follow(first: nn.Linear, second: nn.Linear) -> bool:
    return first.out_features == second.in_features


def clauses_at(
    clauses: Dnf | Sequence[Sequence[int]] | None, slots: dict[str, Slot], pair: tuple[str, str, int] | None
) -> list[list[int]] | None:
    """Clauses as signed literals over the inputs of the first layer."""
    if clauses is None:
        return None
    if pair is None:
        raise PrecodeValueError("clauses are read at two linear layers: name them with layers=")
    listed: Any = (
        clauses.clauses_of(pair[2] if clauses.outputs > 1 else 0) if isinstance(clauses, Dnf) else plain(clauses)
    )
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise PrecodeTypeError(f"clauses must be a Dnf or lists of signed literals, not {type(clauses).__name__}")
    inputs = slots[pair[0]].parameter.shape[1]
    # Checked as a formula over the layer's inputs.
    return [list(clause) for clause in Dnf([literals(clause) for clause in listed], inputs).clauses]
