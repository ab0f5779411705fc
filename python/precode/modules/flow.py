"""Synaptic flow through a copy of a module: gradients of the summed outputs for an input of ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from precode._internal.errors import PrecodeError, PrecodeValueError, UnsupportedError
from precode._internal.parts import parts
from precode._internal.randomness import isolated
from precode.modules import gradients
from precode.modules.batches import ONE_SAMPLE, call, mapped, one_tensor
from precode.modules.copies import State
from precode.modules.gradients import Tensors
from precode.tickets import masked

NOTHING = 1e-9
"""Part of the summed outputs below which no synaptic flow goes through a layer."""


class SynapticFlow:
    """A copy of a module that flow goes through: in evaluation mode, normalization without shift, in float64.

    float32 on MPS devices, which have no other. Embeddings give the mean of the magnitudes of their rows, whatever the
    token (ours). Buffers and weights that the module computes of others keep their signs.

    Args:
        network: the copy, which is changed.
        prunable: names of the parameters, one of which must have flow.
        like: inputs of a batch, of which the shape alone is used; None takes the width of the first linear layer.
    """

    def __init__(self, network: nn.Module, prunable: Collection[str], like: Any | None) -> None:
        self._prunable, self._like = prunable, like
        self._device = next(network.parameters()).device
        self._kind = torch.float32 if self._device.type == "mps" else torch.float64
        self._network = network.to(self._kind).eval()
        self._slots = masked.slots(self._network)
        for name, buffer in self._network.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
        for layer in self._network.modules():
            if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
                layer.register_forward_hook(_mean_row)
        self._devices = [parameter.device for parameter in self._network.parameters()]
        self._state = State(self._network)

    def gradients(self, at: Iterable[torch.Tensor]) -> Tensors:
        """Gradients of the summed outputs at the magnitudes of all parameters' values, with zeros for biases.

        Raises:
            PrecodeValueError: the shape of the input is not known or wrong, or no weight changes the outputs' sum.
            UnsupportedError: the module makes no one tensor of one sample.
        """
        self._put(at)
        parameters = [slot.parameter for slot in self._slots.values()]
        with (
            isolated(self._devices),
            _default_type(self._kind),
            gradients.searchable(self._network),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            total = self._output().sum()
            gradients.backward(total, parameters, [])
            found = gradients.taken(list(self._slots), parameters)
        self._state.put_back()
        # Flow is conserved: what goes through the weights of a layer is what comes out.
        through = [
            abs(sum(float(weight.dot(flow)) for weight, flow in parts(slot.parameter, part)))
            for (name, slot), part in zip(self._slots.items(), found, strict=True)
            if name in self._prunable
        ]
        if max(through) <= NOTHING * float(total.detach().abs()):
            raise PrecodeValueError(
                "the sum of the outputs does not depend on the weights, as behind a softmax or a normalization, so "
                "that synaptic flow says nothing of them: pass the module without its last layers"
            )
        for slot in self._slots.values():  # no memory until the next round
            slot.parameter.data = slot.parameter.new_zeros(()).expand(slot.parameter.shape)
        return found

    def _put(self, at: Iterable[torch.Tensor]) -> None:
        """Gives parameters the magnitudes of values, which are asked for one by one and not kept."""
        for (name, slot), value in zip(self._slots.items(), at, strict=True):
            slot.parameter.data = torch.empty_like(slot.parameter)
            slot.put(torch.zeros_like(value) if "bias" in name.rpartition(".")[2] else value.abs())

    def _output(self) -> torch.Tensor:
        """What the module makes of one sample of ones."""
        ones = self._ones()
        try:
            return one_tensor(call(self._network, ones))
        except PrecodeError as error:
            if str(error) != ONE_SAMPLE:
                raise
            raise UnsupportedError(
                "synaptic flow is that of one sample, of which batch normalization without running statistics "
                "(track_running_stats=False) has none: use another method, such as 'snip'"
            ) from error
        except Exception as error:
            if isinstance(error, RuntimeError) and self._like is not None:
                raise UnsupportedError(
                    f"synaptic flow is that of one sample of ones in {self._kind}, which the module does not take "
                    f"({str(error).partition(chr(10))[0]}): use another method, such as 'snip'"
                ) from error
            if self._like is not None:
                raise
            raise PrecodeValueError(
                f"the module does not take a sample of {ones.shape[1]} ones, which is the width of its first linear "
                f"layer ({str(error).partition(chr(10))[0]}): pass data=, of which the shape alone is used"
            ) from error

    def _ones(self) -> Any:
        """An input of ones: one sample of the data's shape, or of the first linear layer's width."""
        if self._like is not None:
            return _ones_like(self._like, self._kind)
        kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
        linear = next((layer for layer in self._network.modules() if isinstance(layer, kinds)), None)
        if not isinstance(linear, nn.Linear):
            raise PrecodeValueError("the shape of the input is not known: pass data=, of which the shape alone is used")
        return torch.ones(1, linear.in_features, dtype=self._kind, device=self._device)


def _mean_row(layer: nn.Embedding | nn.EmbeddingBag, _: Any, output: torch.Tensor) -> torch.Tensor:
    """What an embedding gives of ones: no token in particular."""
    return layer.weight.mean(0).expand_as(output)


@contextmanager
def _default_type(kind: torch.dtype) -> Iterator[None]:
    """Within the block, tensors that a module makes are of the type of its weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _ones_like(x: Any, kind: torch.dtype) -> Any:
    """A batch of one sample of ones, of a type where it is of floats."""
    if not isinstance(x, torch.Tensor):
        return mapped(lambda item: _ones_like(item, kind), x)
    ones = torch.ones_like(x[:1])
    return ones.to(kind) if x.is_floating_point() else ones
