"""Stacks of networks: weights beside the tasks they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import nn

from precode import _precode
from precode._internal.check import integer
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode.codes.decoding import Codes
from precode.codes.distances import distances
from precode.codes.embedding import Embedding
from precode.codes.readouts import Readout, readout
from precode.formulas.datasets import Dataset, data_sets
from precode.formulas.dnf import Dnf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Layers = list[tuple[torch.Tensor, torch.Tensor]]


def named(layers: Layers) -> dict[str, torch.Tensor]:
    """Layers as ``w1``, ``b1``, ``w2``, ``b2``, ...; with one output, the last pair loses its output axis."""
    weights = {}
    for number, (weight, bias) in enumerate(layers, start=1):
        last = number == len(layers) and weight.shape[1] == 1
        weights[f"w{number}"] = weight[:, 0] if last else weight
        weights[f"b{number}"] = bias[:, 0] if last else bias
    return weights


def layered(weights: Mapping[str, torch.Tensor]) -> Layers:
    """The inverse of `named`.

    Raises:
        PrecodeValueError: a name is missing or one too many.
        PrecodeTypeError: not tensors by name.
        PrecodeShapeError: not stacks of layers that follow one another.
    """
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise PrecodeTypeError(f"weights must be tensors by name (w1, b1, w2, b2, ...), not {type(weights).__name__}")
    depth = len(weights) // 2
    expected = [f"{kind}{number}" for number in range(1, depth + 1) for kind in "wb"]
    if not depth or set(weights) != set(expected):
        raise PrecodeValueError(f"weights named {', '.join(weights) or 'nothing'}: expected w1, b1, w2, b2, ...")
    for name, tensor in weights.items():
        if not isinstance(tensor, torch.Tensor):
            raise PrecodeTypeError(f"{name} must be a torch.Tensor, not {type(tensor).__name__}")
    layers = [(weights[f"w{number}"], weights[f"b{number}"]) for number in range(1, depth + 1)]
    weight, bias = layers[-1]
    if weight.ndim == 2 and bias.ndim == 1:
        layers[-1] = (weight[:, None], bias[:, None])
    networks, width = layers[0][1].shape[0] if layers[0][1].ndim else 0, None
    for number, (weight, bias) in enumerate(layers, start=1):
        fits = weight.ndim == 3 and bias.shape == weight.shape[:2] and len(weight) == networks
        if not fits or width not in (None, weight.shape[2]):
            raise PrecodeShapeError(
                f"w{number} of shape {tuple(weights[f'w{number}'].shape)} and b{number} of shape "
                f"{tuple(weights[f'b{number}'].shape)}: expected (R, outputs, inputs) and (R, outputs), R the same for "
                "all layers and inputs the outputs of the layer before"
            )
        width = weight.shape[1]
    return layers


class Networks:
    """R networks of the same widths: fully connected, ReLU between layers, one logit for each output.

    Attributes:
        weights: ``w1`` (R, j, m), ``b1`` (R, j), ``w2`` (R, j), ``b2`` (R,) as torch tensors; with several outputs
            ``w2`` (R, o, j) and ``b2`` (R, o); deeper networks have ``w3``, ...
        tasks: the formula of each network, or None where data were given without one.
        embedding: C0.

    Example:
        >>> from precode import Dnf, train
        >>> tasks = [Dnf.random(clauses=4, seed=0, index=index) for index in range(2)]
        >>> runs = train(tasks, hidden=8, samples=640, epochs=1)
        >>> runs.start.widths, runs.start.features.shape
        ((32, 8, 1), torch.Size([2, 8, 32]))
        >>> list(runs.start.evaluate(runs.data)), runs.start.module(1)[0]
        (['network', 'loss', 'error'], Linear(in_features=32, out_features=8, bias=True))
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], tasks: Sequence[Dnf] | None, embedding: Embedding) -> None:
        self.weights = dict(weights)
        self.tasks = None if tasks is None else tuple(tasks)
        self.embedding = embedding
        self._layers = layered(self.weights)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_layers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._layers = layered(self.weights)

    def __len__(self) -> int:
        return len(self._layers[0][0])

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths from input to output, such as (32, 16, 1)."""
        first = self._layers[0][0]
        return (first.shape[2], *(weight.shape[1] for weight, _ in self._layers))

    @property
    def features(self) -> torch.Tensor:
        """The first layer in feature space, C1 = W1 C0, (R, j, n)."""
        w1 = self.weights["w1"]
        if self.embedding.name == "identity":
            return w1
        return w1 @ torch.from_numpy(self.embedding.matrix).to(w1)

    def _readout(self, output: int) -> Readout:
        if self.tasks is None:
            raise PrecodeValueError("these networks were trained without a formula: pass their clauses to pc.decode")
        if len(self._layers) != 2:
            raise PrecodeShapeError(f"codes are read from one hidden layer, but the widths are {self.widths}")
        return readout(self.features, self._layers[1][0], list(self.tasks), output=output)

    def codes(self, *, floor: float = 0.0, output: int = 0) -> Codes:
        """Feature-channel codes of all networks for their own clauses; see `precode.decode`."""
        return Codes(self._readout(output), floor)

    def distance(
        self,
        template: str | None = None,
        metric: str = "hamming",
        *,
        scale: str = "layer",
        polarity: str = "ignore",
        output: int = 0,
    ) -> NDArray[np.float64]:
        """Distance of every location from a template, (R, C, j); see `precode.distance`."""
        return distances(self._readout(output), template, metric, scale, polarity)

    def evaluate(self, data: Dataset | Sequence[Dataset]) -> pd.DataFrame:
        """Loss and error of every network.

        Args:
            data: one data set for all networks, or one for each.

        Returns:
            Columns network, loss (mean binary cross-entropy, nats) and error (fraction of labels on the wrong side).

        Raises:
            PrecodeShapeError: the data do not fit the networks.
            PrecodeTypeError: something other than data sets.
        """
        sets = data_sets(data, len(self))
        loss, error = _precode.evaluate(
            self._layers, [item._packed for item in sets], self.embedding.argument, self.embedding.seed
        )
        return pd.DataFrame({"network": range(len(self)), "loss": loss, "error": error})

    def module(self, network: int) -> nn.Sequential:
        """A copy of one network as a PyTorch module on embedded inputs ``C0 x``.

        Raises:
            PrecodeValueError: there is no such network.
        """
        network = integer(network, "network", -len(self), len(self) - 1)
        modules: list[nn.Module] = []
        for weight, bias in self._layers:
            outputs, inputs = weight.shape[1:]
            # On the meta device nothing is initialized, so the global random state stays as it is.
            linear = nn.Linear(inputs, outputs, device="meta", dtype=weight.dtype)
            linear.weight = nn.Parameter(weight[network].detach().clone())
            linear.bias = nn.Parameter(bias[network].detach().clone())
            modules += [linear, nn.ReLU()]
        return nn.Sequential(*modules[:-1])

    def __repr__(self) -> str:
        widths = "-".join(map(str, self.widths))
        return f"{type(self).__name__}(networks={len(self)}, widths={widths}, embedding={self.embedding.name})"
