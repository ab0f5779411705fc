"""Deep copies of modules, and what of them changes with every call."""

from __future__ import annotations

import copy

import torch
from torch import nn

from precode._internal.errors import PrecodeTypeError
from precode.tickets import masked, masking


def copied(module: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        PrecodeTypeError: something in the module cannot be copied; the message names it and its layer.
    """
    try:
        with torch.inference_mode(False):
            # The products that layers of `torch.nn.utils.prune` remember, which torch does not copy.
            products = [value for layer in module.modules() for value in masking.products(layer)]
            return copy.deepcopy(module, {id(value): value.detach().clone() for value in products})
    except Exception as error:
        raise PrecodeTypeError(
            f"the module cannot be copied{_culprit(module)} ({str(error).partition(chr(10))[0]}): tickets are found on "
            "deep copies, which must work"
        ) from error


def _culprit(module: nn.Module) -> str:
    """Where in a module something is that cannot be copied."""
    inner = ("_modules", "_parameters", "_buffers")
    for prefix, layer in masked.layers(module):
        for name, value in vars(layer).items():
            try:
                if name not in inner:
                    copy.deepcopy(value)
            except Exception:  # whatever it is, it is the one that is looked for
                where = f"layer '{prefix[:-1]}'" if prefix else "the module itself"
                remedy = "; remember it with .detach()" if isinstance(value, torch.Tensor) else ""
                for suffix, norm in (("g", "weight_norm"), ("orig", "spectral_norm")):
                    if f"{name}_{suffix}" in layer._parameters:
                        remedy = f", which torch.nn.utils.{norm} computes; use that of torch.nn.utils.parametrizations"
                return f" because of '{name}' of {where}{remedy}"
    return ""


class Buffers:
    """The buffers of a module, to put back after calls that change them, such as those of batch normalization."""

    def __init__(self, module: nn.Module) -> None:
        self._layers = dict(masked.layers(module))
        self._held = {
            (prefix, name): buffer.detach().clone()
            for prefix, layer in self._layers.items()
            for name, buffer in layer._buffers.items()
            if buffer is not None
        }

    def put_back(self) -> None:
        """Gives the module its buffers again."""
        self._put(self._layers)

    def put(self, module: nn.Module) -> None:
        """Gives a copy of the module, or what it is a copy of, the buffers."""
        self._put(dict(masked.layers(module)))

    def differs(self, module: nn.Module) -> str:
        """The name of a buffer that is not as it was, in the module or what it is a copy of; else nothing."""
        layers = dict(masked.layers(module))
        for (prefix, name), held in self._held.items():
            buffer = layers[prefix]._buffers.get(name) if prefix in layers else None
            if buffer is None or not equal(buffer, held):
                return prefix + name
        return ""

    @torch.no_grad()
    def _put(self, layers: dict[str, nn.Module]) -> None:
        for (prefix, name), held in self._held.items():
            buffers = layers[prefix]._buffers if prefix in layers else {}
            buffer = buffers.get(name)
            # A write, even of the same, breaks a graph of the user's that remembers the buffer.
            if buffer is None or equal(buffer, held):
                continue
            if buffer.shape == held.shape and not buffer.is_inference():
                buffer.copy_(held)
            else:
                buffers[name] = held.clone()


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether tensors are the same, not-a-number too.

    Example:
        >>> equal(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
        True
    """
    if one.shape != other.shape or one.dtype != other.dtype or one.layout != torch.strided:
        return one.shape == other.shape and one.dtype == other.dtype
    if one.is_quantized:  # whose bytes cannot be looked at
        return torch.equal(one, other)
    first, second = (each.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return torch.equal(first, second)
