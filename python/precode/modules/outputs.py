"""Which layers make what a module returns: their rows are its outputs, such as the classes of a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from precode.modules.batches import Batches, call, mapped, tensors
from precode.modules.copies import copied
from precode.modules.prunable import Choice, layer_weights
from precode.tickets import masked

Node = torch.autograd.graph.Node


def without_outputs(module: nn.Module, choice: Choice, batches: Batches | None) -> Choice:
    """The choice without the layers whose rows are the outputs of the module, unless that leaves nothing.

    They are the layers that made what the module returns for a batch, or what it returns was computed from, such as by
    a softmax. Where several ways lead to it, as around a residual connection, it is the layer that was called last.
    Where there are no data it is the one that stands last, which is said unless layers are called in their order.
    """
    several = [layer for _, layer in module.named_modules(remove_duplicate=False)]
    chained = all(type(layer).forward is nn.Sequential.forward for layer in several if list(layer.children()))
    known = batches is not None or (chained and len(several) == len(set(several)))
    if batches is None:
        outputs = [names for prefix, layer in masked.layers(module) if (names := _rows(prefix, layer))][-1]
    else:
        outputs = _made(copied(module), batches)
    guess = "as its rows are taken for the outputs, because it stands last: pass data= to find out which are"
    reason = "its rows are the outputs of the module" if known else guess
    names = [name for name in choice.names if name not in outputs]
    spared = {name: reason for name in choice.names if name in outputs}
    if not names:
        return choice
    if known:
        return replace(choice, names=names, spared=spared)
    return replace(choice, names=names, left_out=choice.left_out | spared)


def _made(network: nn.Module, batches: Batches) -> list[str]:
    """Names of the weights of the layers that made what a module returns for a batch."""
    called: list[tuple[list[str], Any]] = []
    rows: dict[int, list[str]] = {}  # by the `id` of a parameter
    for prefix, layer in masked.layers(network):
        if names := _rows(prefix, layer):
            layer.register_forward_hook(lambda _, x, output, names=names: called.append((names, output)))
            rows |= dict.fromkeys((id(each) for each in layer.parameters() if each.ndim > 1), names)
    # With gradients: without, fused kernels of transformers do not call the layers.
    with batches.isolated(), torch.inference_mode(False), torch.enable_grad():
        x = _followed(batches.first[0] if batches.first else None)
        returned = list(tensors(call(network, x)))
    places = _memory(returned)
    if made := [names for names, output in called if places & _memory(output)]:
        return list(chain.from_iterable(made))
    graph = Graph({id(tensor) for tensor in tensors(x)}, rows)
    if made := [names for output in returned if (names := graph.maker(output.grad_fn))]:
        return list(chain.from_iterable(made))
    reached = {name for output in returned for name in graph.reached(output.grad_fn)}
    last = [names for names, _ in called if reached & set(names)] or [names for names, _ in called]
    return list(chain.from_iterable(last[-1:]))


def _followed(value: Any) -> Any:
    """Inputs that autograd follows, where they can be."""
    if isinstance(value, torch.Tensor):
        return value.detach().requires_grad_(value.is_floating_point())
    return mapped(_followed, value)


class Graph:
    """The graph that autograd keeps of a call, from what was returned to parameters and inputs.

    Args:
        inputs: of the call, by `id`.
        rows: names of the weights whose rows a parameter stands for, by its `id`.
    """

    def __init__(self, inputs: set[int], rows: dict[int, list[str]]) -> None:
        self._inputs, self._rows = inputs, rows
        self._leaves: dict[Node, set[int]] = {}

    def maker(self, node: Node | None) -> list[str]:
        """The weights that a result was made with last, if one way leads to it; else none.

        On that way, what depends on parameters alone, such as a normalized weight, belongs to the parameters.
        """
        while node is not None:
            below = [(child, self._below(child)) for child, _ in node.next_functions if child is not None]
            if weights := [names for _, leaves in below if (names := self._weight(leaves))]:
                return weights[0] if len(weights) == 1 else []
            ways = [child for child, leaves in below if not self._is_own(leaves)]
            node = ways[0] if len(ways) == 1 else None
        return []

    def reached(self, node: Node | None) -> Iterator[str]:
        """All weights that a result depends on."""
        for leaf in set() if node is None else self._below(node):
            yield from self._rows.get(leaf, ())

    def _weight(self, leaves: set[int]) -> list[str]:
        """The names of one weight that is all that there is, or was computed from several parameters; else none."""
        found = [self._rows.get(leaf, []) for leaf in leaves]
        return found[0] if found and all(names is found[0] for names in found) else []

    def _is_own(self, leaves: set[int]) -> bool:
        """Whether a parameter of no row, such as a bias or a scale, is all that there is."""
        return len(leaves) <= 1 and leaves.isdisjoint(self._inputs) and leaves.isdisjoint(self._rows)

    def _below(self, node: Node) -> set[int]:
        """The `id` of all tensors that a node depends on."""
        waiting = [node]
        while waiting:
            if waiting[-1] in self._leaves:
                waiting.pop()
                continue
            children = [child for child, _ in waiting[-1].next_functions if child is not None]
            if unknown := [child for child in children if child not in self._leaves]:
                waiting += unknown
                continue
            here = waiting.pop()
            variable = getattr(here, "variable", None)
            own = set() if variable is None else {id(variable)}
            self._leaves[here] = own.union(*(self._leaves[child] for child in children))
        return self._leaves[node]


def _rows(prefix: str, layer: nn.Module) -> list[str]:
    """Names of the weights of a layer whose rows are its outputs."""
    if isinstance(layer, nn.MultiheadAttention):
        return [f"{prefix}out_proj.weight"]
    return [f"{prefix}{attribute}" for attribute in layer_weights(layer)]


def _memory(value: Any) -> set[int]:
    """Where the tensors in a value lie, so that views of them are recognized."""
    return set(map(masked.memory_of, tensors(value))) - {0}
