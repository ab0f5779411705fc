"""Which layers make what a module returns: their rows are its outputs, such as the classes of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from precode._internal.errors import PrecodeValueError
from precode.modules.batches import Batches, call, of_tensors, tensors
from precode.modules.copies import copied
from precode.modules.prunable import Choice, layer_weights
from precode.tickets import masked

Node = torch.autograd.graph.Node
Value = TypeVar("Value")
Names = tuple[str, ...]
"""Of weights of one layer."""

SIDE_BY_SIDE = ("Cat", "Stack")
"""Names of nodes that join results without mixing them begin so."""

LOOKED_UP = "Embedding"
"""Those of nodes that take rows of a weight as they are, also of one that is shared with a layer, begin so."""

TOKENS = 0
"""Stands for what is looked up, as an input."""


def without_outputs(module: nn.Module, choice: Choice, batches: Batches | None) -> Choice:
    """The choice without the layers whose rows are the outputs of the module, but for those that the user named.

    They are the layers that made what the module returns for a batch, or what it returns was computed from, such as by
    a softmax, see `Graph.makers`. Where there are no data it is the one that stands last, which is said unless layers
    are called in their order.

    Raises:
        PrecodeValueError: that leaves nothing.
    """
    if choice.by_name.issuperset(choice.names):
        return choice
    several = [layer for _, layer in module.named_modules(remove_duplicate=False)]
    chained = all(type(layer).forward is nn.Sequential.forward for layer in several if list(layer.children()))
    known = batches is not None or (chained and len(several) == len(set(several)))
    if batches is None:
        *_, last = (rows for prefix, layer in masked.layers(module) if (rows := _rows(prefix, layer)))
        outputs = list(last)
    else:
        outputs = _makers(copied(module), batches)
    guess = "as its rows are taken for the outputs, because it stands last: pass data= to find out which are"
    reason = "its rows are the outputs of the module" if known else guess
    spared = {name: reason for name in choice.names if name in outputs and name not in choice.by_name}
    names = [name for name in choice.names if name not in spared]
    if not names:
        raise PrecodeValueError(
            f"granularity='row' would prune outputs of the module, which are the rows of '{next(iter(spared))}', and "
            "nothing else is prunable: take another granularity, or name that weight in prunable"
        )
    if known:
        return replace(choice, names=names, spared=spared)
    return replace(choice, names=names, left_out=choice.left_out | spared)


def _makers(network: nn.Module, batches: Batches) -> list[str]:
    """Names of the weights of the layers that made what a module returns for a batch."""
    called: list[tuple[Names, Any]] = []
    rows: dict[int, Names] = {}  # by the `id` of a parameter
    for prefix, layer in masked.layers(network):
        if names := _rows(prefix, layer):
            layer.register_forward_hook(lambda _, x, output, names=names: called.append((names, output)))
            rows |= dict.fromkeys((id(each) for each in layer.parameters() if each.ndim > 1), names)
        elif isinstance(layer, nn.Embedding):  # whose weight may be used as a head without being called
            rows.setdefault(id(layer.weight), (f"{prefix}weight",))
    # With gradients: without, fused kernels of transformers do not call the layers.
    with batches.isolated(), torch.inference_mode(False), torch.enable_grad():
        x = plain = batches.first[0] if batches.first else None
        try:
            x = of_tensors(_followed, plain)
            returned = list(_within(call(network, x)))
        except Exception:  # such as of a module that takes its inputs to NumPy
            called.clear()
            x = plain
            returned = list(_within(call(network, x)))
    order = [names for names, _ in called]
    graph = Graph({id(tensor) for tensor in tensors(x)}, rows, order)
    found: list[Names] = []
    for output in returned:
        made = [names for names, value in called if _memory(value) & _memory(output)]
        found += made or graph.makers(output.grad_fn)
    return list(chain.from_iterable(found or order[-1:]))


def _within(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in what a module returned, also those that objects hold, such as distributions."""
    if isinstance(value, Mapping):
        yield from chain.from_iterable(map(_within, value.values()))
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_within, value))
    elif found := list(tensors(value)):
        yield from found
    else:
        yield from tensors(list(getattr(value, "__dict__", {}).values()))


def _followed(value: torch.Tensor) -> torch.Tensor:
    """An input that autograd follows, where it can be."""
    return value.detach().requires_grad_(value.is_floating_point())


class Graph:
    """The graph that autograd keeps of a call, from what was returned to parameters and inputs.

    Args:
        inputs: of the call, by `id`.
        rows: names of the weights whose rows a parameter stands for, by its `id`.
        order: the same names, as layers were called.
    """

    def __init__(self, inputs: set[int], rows: dict[int, Names], order: Sequence[Names]) -> None:
        self._inputs, self._rows, self._order = inputs | {TOKENS}, rows, order
        self._leaves: dict[Node, set[int]] = {}
        self._makers: dict[Node, list[Names]] = {}

    def makers(self, node: Node | None) -> list[Names]:
        """The weights that a result was made with last.

        What depends on parameters alone, such as a normalized weight, belongs to the parameters. Results that are put
        side by side are made by several; where other ways meet, as around a residual connection, it is the layer that
        was called last.
        """
        return [] if node is None else _walked(node, self._makers, self._ways, self._met)

    def _weights(self, node: Node) -> list[Names]:
        """The weights that a node computes with."""
        return [] if _looks_up(node) else _distinct(filter(None, map(self._weight, map(self._below, _children(node)))))

    def _ways(self, node: Node) -> list[Node]:
        """Where a result comes from, up to the weights that it is computed with."""
        if len(self._weights(node)) == 1 or _looks_up(node):
            return []
        return [child for child in _children(node) if not self._is_own(self._below(child))]

    def _met(self, node: Node, found: list[list[Names]]) -> list[Names]:
        """The weights of a node, from those of its ways."""
        weights = self._weights(node)
        if len(weights) == 1:
            return weights
        several = _distinct(chain.from_iterable(found))
        if len(several) < 2 or node.name().startswith(SIDE_BY_SIDE):
            return several
        return [
            max(several, key=lambda names: max((i for i, each in enumerate(self._order) if each == names), default=-1))
        ]

    def _weight(self, leaves: set[int]) -> Names:
        """The names of one weight that is all that there is, or was computed from several parameters; else none."""
        found = _distinct(self._rows.get(leaf, ()) for leaf in leaves)
        return found[0] if len(found) == 1 else ()

    def _is_own(self, leaves: set[int]) -> bool:
        """Whether a parameter of no row, such as a bias or a scale, is all that there is."""
        return len(leaves) <= 1 and leaves.isdisjoint(self._inputs) and leaves.isdisjoint(self._rows)

    def _below(self, node: Node) -> set[int]:
        """The `id` of all tensors that a node depends on."""

        def with_own(node: Node, found: list[set[int]]) -> set[int]:
            if _looks_up(node):
                return {TOKENS}
            variable = getattr(node, "variable", None)
            return set().union(*found, set() if variable is None else {id(variable)})

        return _walked(node, self._leaves, _children, with_own)


def _children(node: Node) -> list[Node]:
    return [child for child, _ in node.next_functions if child is not None]


def _looks_up(node: Node) -> bool:
    return node.name().startswith(LOOKED_UP)


def _walked(
    node: Node,
    known: dict[Node, Value],
    below: Callable[[Node], list[Node]],
    join: Callable[[Node, list[Value]], Value],
) -> Value:
    """What is known of a node from what is known of those below, deepest first; graphs are deeper than calls may be."""
    waiting = [node]
    while waiting:
        if waiting[-1] in known:
            waiting.pop()
            continue
        children = below(waiting[-1])
        if unknown := [child for child in children if child not in known]:
            waiting += unknown
            continue
        here = waiting.pop()
        known[here] = join(here, [known[child] for child in children])
    return known[node]


def _distinct(names: Iterable[Names]) -> list[Names]:
    return list(dict.fromkeys(names))


def _rows(prefix: str, layer: nn.Module) -> Names:
    """Names of the weights of a layer whose rows are its outputs."""
    if isinstance(layer, nn.MultiheadAttention):
        return (f"{prefix}out_proj.weight",)
    return tuple(f"{prefix}{attribute}" for attribute in layer_weights(layer))


def _memory(value: Any) -> set[int]:
    """Where the tensors in a value lie, so that views of them are recognized."""
    return set(map(masked.memory_of, tensors(value))) - {0}
