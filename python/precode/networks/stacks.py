"""Stacks of networks: weights beside the tasks they were trained on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from precode import _precode
from precode._internal.check import integer_of, integers_of
from precode._internal.errors import PrecodeIndexError, PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.lazy import Lazy
from precode.codes.decoding import Codes
from precode.codes.distances import distances
from precode.codes.embedding import Embedding
from precode.codes.readouts import Readout, readout
from precode.formulas.datasets import Dataset, data_sets
from precode.formulas.dnf import Dnf

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
else:
    pd = Lazy("pandas")

Layers = list[tuple[torch.Tensor, torch.Tensor]]


def named(layers: Layers, c0: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Layers as ``w1``, ``b1``, ``w2``, ``b2``, ...; with one output, the last pair loses its output axis.

    The networks' own C0, where they have some, comes last as ``c0``.
    """
    weights: dict[str, torch.Tensor] = {}
    for number, (weight, bias) in enumerate(layers, start=1):
        last = number == len(layers) and weight.shape[1] == 1
        weights[f"w{number}"] = weight[:, 0] if last else weight
        weights[f"b{number}"] = bias[:, 0] if last else bias
    return weights if c0 is None else {**weights, "c0": c0}


def layered(weights: Mapping[str, torch.Tensor]) -> Layers:
    """The layers of what `named` makes of them; a ``c0`` among the weights is checked.

    Raises:
        PrecodeValueError: a name is missing or one too many.
        PrecodeTypeError: not tensors by name.
        PrecodeShapeError: not stacks of layers that follow one another.
    """
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise PrecodeTypeError(f"weights must be tensors by name (w1, b1, w2, b2, ...), not {type(weights).__name__}")
    own = "c0" in weights
    depth = (len(weights) - own) // 2
    expected = [f"{kind}{number}" for number in range(1, depth + 1) for kind in "wb"]
    if not depth or set(weights) - {"c0"} != set(expected):
        raise PrecodeValueError(
            f"weights named {', '.join(weights) or 'nothing'}: expected w1, b1, w2, b2, ..., and c0 behind a projection"
        )
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
    if own:
        c0, first = weights["c0"], layers[0][0]
        if c0.ndim != 3 or c0.shape[:2] != (networks, first.shape[2]) or not c0.shape[2]:
            raise PrecodeShapeError(
                f"c0 of shape {tuple(c0.shape)}: expected one C0 of each network, (R, inputs of w1, variables) = "
                f"({networks}, {first.shape[2]}, n)"
            )
    return layers


class Networks:
    """R networks of the same widths: fully connected, ReLU between layers, one logit for each output.

    Attributes:
        weights: ``w1`` (R, j, m), ``b1`` (R, j), ``w2`` (R, j), ``b2`` (R,) as torch tensors; with several outputs
            ``w2`` (R, o, j) and ``b2`` (R, o); deeper networks have ``w3``, ...; behind a `precode.Projection`, the
            C0 of each network is ``c0``, (R, m, n).
        tasks: the formula of each network, or None where data were given without one.
        embedding: what C0 is.

    Raises:
        PrecodeValueError: weights without the C0 that the embedding says they have, or with one that it does not.
        PrecodeShapeError: weights that do not fit together or to the embedding.

    Example:
        >>> from precode import Dnf, train
        >>> tasks = [Dnf.random(clauses=4, seed=0, index=index) for index in range(2)]
        >>> runs = train(tasks, hidden=8, samples=640, epochs=1)
        >>> runs.start.widths, runs.start.features.shape
        ((32, 8, 1), torch.Size([2, 8, 32]))
        >>> list(runs.start.evaluate(runs.data)), runs.start.module(1)[0]
        (['network', 'loss', 'error'], Linear(in_features=32, out_features=8, bias=True))
        >>> runs[1], len(runs[:1]), [len(network) for network in runs]
        (Networks(networks=1, widths=32-8-1, embedding=identity), 1, [1, 1])
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], tasks: Sequence[Dnf] | None, embedding: Embedding) -> None:
        self.weights = dict(weights)
        self.tasks = None if tasks is None else tuple(tasks)
        self.embedding = embedding
        self._layers = layered(self.weights)
        embedding.argument(self.weights.get("c0"))
        if (c0 := self.weights.get("c0")) is not None and c0.shape[1:] != (embedding.rows, embedding.variables):
            raise PrecodeShapeError(
                f"c0 of shape {tuple(c0.shape)}: behind {embedding.name} of {embedding.variables} variables, expected "
                f"({len(self)}, {embedding.rows}, {embedding.variables})"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_layers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._layers = layered(self.weights)

    def __len__(self) -> int:
        return len(self._layers[0][0])

    def __getitem__(self, which: int | slice | Sequence[int]) -> Networks:
        """Some of the networks, as a stack of their own that shares their memory where slices do.

        Args:
            which: the number of one, counted from the end if negative; a slice; or several numbers.

        Raises:
            PrecodeIndexError: there is no such network.
            PrecodeTypeError: neither numbers nor a slice.
        """
        if isinstance(which, slice):
            span = range(len(self))[which]
            numbers = list(span)
            # torch has no slices that go backwards.
            chosen: Any = slice(span.start, span.stop, span.step) if span.step > 0 else numbers
        else:
            numbers = chosen = [self._number(item) for item in integers_of(which, "a network's number")]
        if not numbers:
            raise PrecodeIndexError(f"networks[{which}] of {len(self)} networks are none: name at least one")
        tasks = None if self.tasks is None else [self.tasks[number] for number in numbers]
        return Networks({name: value[chosen] for name, value in self.weights.items()}, tasks, self.embedding)

    def __iter__(self) -> Iterator[Networks]:
        """One network after the other, each as a stack of one."""
        return (self[number] for number in range(len(self)))

    def _number(self, network: int) -> int:
        """The number of a network, from 0.

        Raises:
            PrecodeIndexError: there is no such network.
        """
        if not -len(self) <= network < len(self):
            raise PrecodeIndexError(
                f"network = {network}: expected an integer from {-len(self)} to {len(self) - 1}: there are {len(self)}"
            )
        return network % len(self)

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths from input to output, such as (32, 16, 1)."""
        first = self._layers[0][0]
        return (first.shape[2], *(weight.shape[1] for weight, _ in self._layers))

    @property
    def features(self) -> torch.Tensor:
        """The first layer in feature space, C1 = W1 C0, (R, j, n)."""
        w1 = self.weights["w1"]
        return w1 if self.embedding.name == "identity" else w1 @ self.c0

    @property
    def c0(self) -> torch.Tensor:
        """C0 of all networks, (m, n), or of each, (R, m, n), where they have their own."""
        if self.embedding.matrix is None:
            return self.weights["c0"]
        return torch.from_numpy(self.embedding.matrix).to(self.weights["w1"], copy=True)

    def read_out(self, output: int | None = None) -> Readout:
        """What codes are read from, for one output, the first by default; see `precode.codes.readouts.Readout`.

        Raises:
            PrecodeValueError: the networks have no tasks.
            PrecodeShapeError: other than one hidden layer.
        """
        if self.tasks is None:
            raise PrecodeValueError("these networks were trained without a formula: pass their clauses to pc.decode")
        if len(self._layers) != 2:
            raise PrecodeShapeError(f"codes are read from one hidden layer, but the widths are {self.widths}")
        return readout(self.features, self._layers[1][0], list(self.tasks), output=output or 0)

    def codes(self, *, floor: float = 0.0, output: int = 0) -> Codes:
        """Feature-channel codes of all networks for their own clauses; see `precode.decode`."""
        return Codes(self.read_out(output), floor)

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
        return distances(self.read_out(output), template, metric, scale, polarity)

    @property
    def _embedding(self) -> str | NDArray[np.float32] | tuple[torch.Tensor, bool]:
        """The embedding as the extension takes it."""
        return self.embedding.argument(self.weights.get("c0"))

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
            self._layers, [item._packed for item in sets], self._embedding, self.embedding.seed
        )
        return pd.DataFrame({"network": range(len(self)), "loss": loss, "error": error})

    def module(self, network: int) -> nn.Sequential:
        """A copy of one network as a PyTorch module on raw inputs x, with the network's own logits.

        Its layers are named ``"0"``, ``"1"``, ..., and its parameters as in tickets, ``"0.weight"``, ``"0.bias"``,
        ``"2.weight"``, ... Behind another embedding than the identity, C0 stands in front of them, named
        ``"embedding"``: a linear layer without bias. The weight of a fixed map is a buffer, so that nothing trains or
        prunes it; the network's own C0 is a parameter, without gradients where it is held fixed, and is never pruned.

        Raises:
            PrecodeIndexError: there is no such network.
            PrecodeTypeError: not an integer.

        Example:
            >>> from precode import Dnf, train
            >>> runs = train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=1, embedding="hadamard")
            >>> module = runs.module(0)
            >>> [name for name, _ in module.named_parameters()], [name for name, _ in module.named_buffers()]
            (['0.weight', '0.bias', '2.weight', '2.bias'], ['embedding.weight'])
            >>> data = runs.data[0]
            >>> wrong = (module(data.x.float())[:, 0] > 0) != data.y
            >>> round(wrong.double().mean().item(), 4) == round(runs.evaluate()["error"].item(), 4)
            True
        """
        network = self._number(integer_of(network, "network"))
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        if self.embedding.matrix is None:
            modules["embedding"] = _projection(self.c0[network].detach().clone(), self.embedding.trained)
        elif self.embedding.name != "identity":
            modules["embedding"] = _fixed(self.c0)
        for number, (weight, bias) in enumerate(self._layers):
            if number:
                modules[str(2 * number - 1)] = nn.ReLU()
            modules[str(2 * number)] = _linear(weight[network].detach().clone(), bias[network].detach().clone())
        return nn.Sequential(modules)

    def __repr__(self) -> str:
        widths = "-".join(map(str, self.widths))
        return f"{type(self).__name__}(networks={len(self)}, widths={widths}, embedding={self.embedding.name})"


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """A linear layer that has these tensors as its parameters."""
    linear = _empty(weight, bias=True)
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear


def _projection(weight: torch.Tensor, trained: bool) -> nn.Linear:
    """A linear layer without bias that is not pruned where layers are not named."""
    linear = _empty(weight, bias=False)
    linear.weight = nn.Parameter(weight, requires_grad=trained)
    linear.prunable = False  # type: ignore[assignment]  # see `precode.modules.prunable.layer_weights`
    return linear


def _fixed(weight: torch.Tensor) -> nn.Linear:
    """A linear layer without bias whose weight is no parameter."""
    linear = _empty(weight, bias=False)
    del linear.weight
    linear.register_buffer("weight", weight)
    return linear


def _empty(weight: torch.Tensor, *, bias: bool) -> nn.Linear:
    outputs, inputs = weight.shape
    # On the meta device nothing is initialized, so the global random state stays as it is.
    return nn.Linear(inputs, outputs, bias=bias, device="meta", dtype=weight.dtype)
