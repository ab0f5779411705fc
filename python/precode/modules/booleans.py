"""Boolean samples of a module: what clauses are read from where nobody tells them."""

from __future__ import annotations

from typing import Any

import torch

from precode._internal.errors import UnsupportedError


def inputs_of(x: torch.Tensor, name: str) -> torch.Tensor:
    """Boolean inputs (samples, variables) of a linear layer, from those that `precode.modules.layers.windows` gives.

    Args:
        x: (samples, positions, 1, variables), floats.
        name: of the layer's weight.

    Raises:
        UnsupportedError: several positions, or values other than 0 and 1.
    """
    if x.shape[1] != 1:
        raise UnsupportedError(
            f"clauses are read from the data where each sample meets '{name}' once, not {x.shape[1]} times: tell the "
            "clauses, and use the probe without -blind"
        )
    return _booleans(x[:, 0, 0], f"the inputs of '{name}'")


def labels_of(y: Any, output: int, outputs: int) -> torch.Tensor:
    """Boolean labels (samples,) of an output: labels of that output, or whether the class is that of the output.

    Args:
        y: of one batch: (samples,) or (samples, 1) of 0 and 1 where there is one output; classes (samples,), or 0 and 1
            of shape (samples, outputs), where there are several.
        output: number of the output.
        outputs: how many there are.

    Raises:
        UnsupportedError: labels of another form.

    Example:
        >>> labels_of(torch.tensor([0, 2, 1]), 2, 3).tolist(), labels_of(torch.tensor([[0.0], [1.0]]), 0, 1).tolist()
        ([False, True, False], [False, True])
    """
    if isinstance(y, torch.Tensor):
        if y.ndim == 2 and y.shape[1] == outputs:
            return _booleans(y[:, output], "the labels")
        if y.ndim == 1 and outputs == 1:
            return _booleans(y, "the labels")
        if y.ndim == 1 and not y.is_floating_point():
            if bool(((y < 0) | (y >= outputs)).any()):
                raise UnsupportedError(f"clauses are read from labels that are classes of {outputs}, not from others")
            return y == output
    given = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
    raise UnsupportedError(
        f"clauses are read from labels of {outputs} outputs, one or one for each a sample, not from {given}: tell the "
        "clauses, and use the probe without -blind"
    )


def _booleans(values: torch.Tensor, what: str) -> torch.Tensor:
    if not bool(((values == 0) | (values == 1)).all()):
        raise UnsupportedError(
            f"clauses are read from Boolean data, and {what} are not all 0 or 1: tell the clauses, and use the probe "
            "without -blind"
        )
    return values == 1
