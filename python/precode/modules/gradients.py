"""Gradients by `backward`, as the user's own training step takes them, that leave nothing behind in other tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel

from precode._internal.errors import PrecodeValueError, UnsupportedError
from precode._internal.parts import all_finite

Tensors = list[torch.Tensor]

NOT_FINITE = "the gradient at '{}' is not finite: check the data and the loss for NaN and infinite values"


def leaves(*values: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that values have gradients in, as far as their graph is known before `backward`."""
    return _leaves(get_gradient_edge(value) for value in values if value.requires_grad)


def _leaves(places: Iterable[GradientEdge]) -> list[torch.Tensor]:
    return [leaf for node in _nodes(places) if (leaf := getattr(node, "variable", None)) is not None]


def _nodes(places: Iterable[GradientEdge]) -> list[Node]:
    """All nodes that `backward` from these places may come to."""
    found, open_nodes = dict[Node, None](), [place.node for place in places]
    while open_nodes:
        node = open_nodes.pop()
        if node in found:
            continue
        found[node] = None
        open_nodes += [following for following, _ in node.next_functions if following is not None]
    return list(found)


def has_own_functions(value: torch.Tensor) -> bool:
    """Whether a graph has functions of the user's own (`torch.autograd.Function`), whose derivative may have none."""
    own = torch.autograd.function.BackwardCFunction
    return any(isinstance(node, own) for node in _nodes([get_gradient_edge(value)]))


def backward(
    value: torch.Tensor | Sequence[torch.Tensor] | Sequence[GradientEdge],
    parameters: Sequence[nn.Parameter],
    others: Sequence[torch.Tensor],
    along: Sequence[torch.Tensor] | None = None,
) -> None:
    """Gives parameters the gradients of a value, and no other tensor.

    Not `torch.autograd.grad`, which checkpointed layers (`torch.utils.checkpoint`) do not support, and which looks past
    layers that forbid a second derivative.

    Args:
        value: of one element; or several of any size, or their places in the graph, whose products with `along` are
            added up.
        parameters: what gets gradients.
        others: other leaves of the value's graph, such as parameters of a loss, whose gradients are the user's.
        along: factors of several values, of their shapes.

    Raises:
        PrecodeValueError: the value depends on no parameter.
    """
    if isinstance(value, torch.Tensor) and not value.requires_grad:
        raise PrecodeValueError("the loss does not depend on the parameters: is there a detach or no_grad on the way?")
    kept = [(leaf, leaf.grad) for leaf in others]
    for tensor in (*parameters, *others):
        tensor.grad = None
    try:
        torch.autograd.backward(value, along)
    finally:
        for leaf, gradient in kept:
            leaf.grad = gradient


def taken(names: Sequence[str], parameters: Sequence[nn.Parameter]) -> Tensors:
    """The gradients that parameters have, dense, zero where they have none; none is left behind.

    Raises:
        PrecodeValueError: one is not finite.
    """
    found = []
    for name, parameter in zip(names, parameters, strict=True):
        gradient = _taken(parameter)
        found.append(torch.zeros_like(parameter) if gradient is None else gradient)
        if not all_finite(found[-1]):
            raise PrecodeValueError(NOT_FINITE.format(name))
    return found


def _taken(parameter: torch.Tensor) -> torch.Tensor | None:
    gradient, parameter.grad = parameter.grad, None
    return None if gradient is None else gradient.detach().to_dense()


class Mean:
    """The mean over batches of the gradients of parameters.

    Gradients are taken one by one as `backward` gives them, so that those of all parameters never lie beside the mean.

    Args:
        names: of the parameters.
        parameters: leaves. The mean of those of half precision is in float32, so that batches do not round it.

    Attributes:
        values: the mean so far, by name, of the parameters that had a gradient.
        had: names of those that had one, of each batch so far.
        total: what the batches so far count.
    """

    def __init__(self, names: Sequence[str], parameters: Sequence[nn.Parameter]) -> None:
        self.names, self.parameters = names, parameters
        self._of = dict(zip(names, parameters, strict=True))
        self.values: dict[str, torch.Tensor] = {}
        self.total = 0.0
        self.had: list[set[str]] = []
        self._share, self._wrong = 0.0, set[str]()

    def of(self, name: str) -> torch.Tensor:
        """The mean of one parameter, of its type; zero where it had no gradient."""
        like = self._of[name]
        return self.values[name].to(like.dtype) if name in self.values else torch.zeros_like(like)

    @contextmanager
    def batch(self, weight: float) -> Iterator[None]:
        """Within the block, `backward` is called for one batch, which counts so much.

        Raises:
            PrecodeValueError: a gradient that is not finite.
        """
        self.total += weight
        self._share = weight / self.total
        self._wrong = set()
        self.had.append(set())

        def take(parameter: torch.Tensor, name: str) -> None:
            if (gradient := _taken(parameter)) is not None:
                self.add(name, gradient)

        hooks = [
            parameter.register_post_accumulate_grad_hook(partial(take, name=name))  # type: ignore[no-untyped-call]
            for name, parameter in zip(self.names, self.parameters, strict=True)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if self._wrong:
            raise PrecodeValueError(NOT_FINITE.format(min(self._wrong, key=self.names.index)))
        for name, value in self.values.items():
            if name not in self.had[-1]:
                value.mul_(1 - self._share)

    def add(self, name: str, gradient: torch.Tensor) -> None:
        """Adds a parameter's gradient on the batch of the block, or a part of it."""
        if not all_finite(gradient):
            self._wrong.add(name)
        if name not in self.values:
            # A copy: several parameters may have one gradient.
            like = self._of[name]
            kind = torch.promote_types(like.dtype, torch.float32)
            self.values[name] = torch.empty_like(like, dtype=kind).copy_(gradient).mul_(self._share)
        elif name not in self.had[-1]:
            self.values[name].lerp_(gradient.to(self.values[name].dtype), self._share)
        else:
            self.values[name].add_(gradient, alpha=self._share)
        self.had[-1].add(name)


def curvature(value: torch.Tensor, mean: Mean, along: Mean) -> None:
    """Adds to a mean the Hessian of a value with respect to its parameters, times the mean gradient `along`.

    Call it within a batch of the mean, and within `differentiable_twice`. `along` is of the same batches by `backward`:
    a parameter that had a gradient of this batch there, and that autograd finds no way to, is one behind a layer that
    runs `backward` by itself.

    Raises:
        PrecodeValueError: the value depends on no parameter.
        UnsupportedError: a layer without a second derivative.
    """
    if not value.requires_grad:
        raise PrecodeValueError("the loss does not depend on the parameters: is there a detach or no_grad on the way?")
    places: dict[int, GradientEdge | None] = {}

    def note(part: torch.Tensor, place: int) -> torch.Tensor | None:
        """Where a first derivative is in the graph, None where it has none; its values go."""
        places[place] = get_gradient_edge(part) if part.requires_grad else None
        if part.layout != torch.strided:
            return None
        return torch.zeros((), dtype=part.dtype, device=part.device).expand(part.shape)

    hooks = [
        parameter.register_hook(partial(note, place=place))  # type: ignore[no-untyped-call]
        for place, parameter in enumerate(mean.parameters)
    ]
    try:
        try:
            torch.autograd.grad(value, list(mean.parameters), create_graph=True, allow_unused=True)
        finally:
            for hook in hooks:
                hook.remove()
        had = along.had[len(mean.had) - 1]
        unseen = [name for place, name in enumerate(mean.names) if place not in places and name in had]
        hidden = [name for name in unseen if bool(along.values[name].any())]
        if hidden:
            raise RuntimeError(f"the way to '{hidden[0]}' is hidden")
        # Where a part has no graph, the value is linear in its parameter.
        named = [(mean.names[place], edge) for place, edge in sorted(places.items())]
        pairs = [(edge, along.of(name)) for name, edge in named if edge is not None and name in along.values]
        if pairs:
            edges, factors = zip(*pairs, strict=True)
            own = {id(parameter) for parameter in mean.parameters}
            others = [leaf for leaf in _leaves(edges) if id(leaf) not in own]
            with _parts_taken(edges, mean):
                backward(edges, mean.parameters, others, factors)
    except RuntimeError as error:
        said = str(error).strip().partition("\n")[0]
        raise UnsupportedError(
            f"this method needs second derivatives, which a layer does not have ({said}): use a method of first "
            "derivatives, such as 'snip'; layers checkpointed with use_reentrant=True have them with "
            "use_reentrant=False"
        ) from error


@contextmanager
def _parts_taken(edges: Sequence[GradientEdge], mean: Mean) -> Iterator[None]:
    """Within the block, each part of a parameter's gradient goes to a mean as soon as `backward` has it.

    The product of the Hessian has two parts at each use of a parameter, of the forward and of the backward pass, and
    comes to the last of them when all other products have come to their first: autograd would hold those of all
    parameters. Parameters with hooks of their own get their gradients whole.
    """
    names = {
        id(parameter): name
        for name, parameter in zip(mean.names, mean.parameters, strict=True)
        if not parameter._backward_hooks
    }

    def take(
        came: tuple[torch.Tensor | None, ...], _: object, ends: dict[int, tuple[str, bool]]
    ) -> tuple[torch.Tensor | None, ...]:
        for place, (name, transposed) in ends.items():
            if (part := came[place]) is not None:
                part = part.detach().to_dense()
                mean.add(name, part.t() if transposed else part)
        return tuple(None if place in ends else part for place, part in enumerate(came))

    hooks = []
    for node in _nodes(edges):
        ends = {}
        for place, (following, _) in enumerate(node.next_functions):
            # Linear layers multiply with the transposed weight: the parts would meet there.
            transposed = following is not None and following.name() == "TBackward0"
            end = following.next_functions[0][0] if transposed and following is not None else following
            if (name := names.get(id(getattr(end, "variable", None)))) is not None:
                ends[place] = name, transposed
        if ends:
            hooks.append(node.register_hook(partial(take, ends=ends)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def differentiable_twice(module: nn.Module) -> Iterator[None]:
    """Kernels that have second derivatives: fused attention and cuDNN's recurrent layers have none."""
    with sdpa_kernel(SDPBackend.MATH), without_cudnn(_recurrent(module)):
        yield


@contextmanager
def searchable(module: nn.Module) -> Iterator[None]:
    """Recurrent layers that a search can differentiate in any mode, and that do not warn of what the search does.

    cuDNN's have no gradients in evaluation mode. It warns of weights that do not lie side by side, as those of a copy
    with other values or masks never do.
    """
    layers = _recurrent(module)
    with ExitStack() as stack:
        if layers:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        stack.enter_context(without_cudnn([layer for layer in layers if not layer.training]))
        yield


@contextmanager
def without_cudnn(layers: Sequence[nn.Module]) -> Iterator[None]:
    """PyTorch's own kernels in place of cuDNN's, if there are layers that need them."""
    with torch.backends.cudnn.flags(enabled=False) if layers else nullcontext():
        yield


def _recurrent(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, nn.RNNBase)]
