"""Gradients by `backward`, as the user's own training step takes them, that leave nothing behind in other tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from precode._internal.errors import PrecodeValueError, UnsupportedError

Tensors = list[torch.Tensor]


def leaves(value: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that a value has gradients in, as far as its graph is known before `backward`."""
    if value.grad_fn is None:
        return [value] if value.requires_grad else []
    found, seen, open_nodes = [], set(), [value.grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.append(leaf)
        open_nodes += [following for following, _ in node.next_functions if following is not None]
    return found


def has_own_functions(value: torch.Tensor) -> bool:
    """Whether a graph has functions of the user's own (`torch.autograd.Function`), whose derivative may have none."""
    seen, open_nodes = set(), [value.grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        open_nodes += [following for following, _ in node.next_functions]
    return False


def backward(value: torch.Tensor, parameters: Sequence[nn.Parameter], others: Sequence[torch.Tensor]) -> None:
    """Gives parameters the gradients of a value, and no other tensor.

    Not `torch.autograd.grad`, which checkpointed layers (`torch.utils.checkpoint`) do not support, and which looks past
    layers that forbid a second derivative.

    Args:
        value: of one element.
        parameters: what gets gradients.
        others: other leaves of the value's graph, such as parameters of a loss, whose gradients are the user's.

    Raises:
        PrecodeValueError: the value depends on no parameter.
    """
    if not value.requires_grad:
        raise PrecodeValueError("the loss does not depend on the parameters: is there a detach or no_grad on the way?")
    kept = [(leaf, leaf.grad) for leaf in others]
    for tensor in (*parameters, *others):
        tensor.grad = None
    try:
        value.backward()  # type: ignore[no-untyped-call]
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
        gradient, parameter.grad = parameter.grad, None
        gradient = torch.zeros_like(parameter) if gradient is None else gradient.detach().to_dense()
        if not bool(torch.isfinite(gradient).all()):
            raise PrecodeValueError(
                f"the gradient at '{name}' is not finite: check the data and the loss for NaN and infinite values"
            )
        found.append(gradient)
    return found


def curvature(
    value: torch.Tensor, names: Sequence[str], parameters: Sequence[nn.Parameter], along: Sequence[torch.Tensor]
) -> Tensors:
    """The Hessian of a value with respect to parameters, times `along`; call it within `differentiable_twice`.

    `along` is the mean gradient over all data, as `backward` has it: a parameter that has one, and that autograd finds
    no way to, is one behind a layer that runs `backward` by itself.

    Raises:
        PrecodeValueError: the value depends on no parameter; a product that is not finite.
        UnsupportedError: a layer without a second derivative.
    """
    if not value.requires_grad:
        raise PrecodeValueError("the loss does not depend on the parameters: is there a detach or no_grad on the way?")
    try:
        first = torch.autograd.grad(value, list(parameters), create_graph=True, allow_unused=True)
        hidden = [name for name, part, g in zip(names, first, along, strict=True) if part is None and bool(g.any())]
        if hidden:
            raise RuntimeError(f"the way to '{hidden[0]}' is hidden")
        terms = [(part * other).sum() for part, other in zip(first, along, strict=True) if part is not None]
        product = torch.stack(terms).sum() if terms else value.detach()
        if product.requires_grad:  # else the value is linear in all parameters
            own = {id(parameter) for parameter in parameters}
            backward(product, parameters, [leaf for leaf in leaves(product) if id(leaf) not in own])
    except RuntimeError as error:
        said = str(error).strip().partition("\n")[0]
        raise UnsupportedError(
            f"this method needs second derivatives, which a layer does not have ({said}): use a method of first "
            "derivatives, such as 'snip'; layers checkpointed with use_reentrant=True have them with "
            "use_reentrant=False"
        ) from error
    return taken(names, parameters)


@contextmanager
def differentiable_twice(module: nn.Module) -> Iterator[None]:
    """Kernels that have second derivatives: fused attention and cuDNN's recurrent layers have none."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(layer, nn.RNNBase) for layer in module.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield
