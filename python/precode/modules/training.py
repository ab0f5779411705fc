"""Training of a module's copies: the default loop, or the user's own function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn

from precode._internal.errors import PrecodeTypeError, PrecodeValueError, UnsupportedError
from precode.modules.batches import IGNORED

PLACES = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
"""Kinds of arguments that are given by their place."""

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer where none is given: Adam at 1e-3, in one pass that needs no tensors beside its own."""
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def optimizer_of(network: nn.Module, make: OptimizerFactory) -> torch.optim.Optimizer:
    """The optimizer of a copy.

    Raises:
        PrecodeTypeError: it is none.
        PrecodeValueError: it steps other parameters than those of the copy.
        UnsupportedError: it is the default one, which takes no sparse gradients, and a layer has them.
    """
    sparse = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse and trainable(layer)
    ]
    if make is adam and sparse:
        raise UnsupportedError(
            f"'{sparse[0]}' has sparse gradients, which Adam, the default, does not take: pass an optimizer that does, "
            "such as optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1), or make the layer with sparse=False"
        )
    parameters = trainable(network)
    optimizer = make(parameters)
    if not hasattr(optimizer, "param_groups"):
        raise PrecodeTypeError(
            f"optimizer returned {type(optimizer).__name__}: pass a function of parameters that returns an optimizer, "
            "such as lambda parameters: torch.optim.SGD(parameters, 0.1)"
        )
    own = {id(parameter) for parameter in parameters}
    stepped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not stepped or not all(id(parameter) in own for parameter in stepped):
        raise PrecodeValueError(
            "optimizer returned one that steps other parameters than those it was given: pass a function of them, such "
            "as optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1)"
        )
    return optimizer


def steps(
    optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Any, Any]], closure: Callable[[Any, Any], torch.Tensor]
) -> Iterator[int]:
    """One optimizer step a batch; the number of steps done after each.

    Args:
        optimizer: what steps.
        batches: of all epochs.
        closure: gives the parameters the gradients of the loss on a batch, and returns the loss.
    """
    for done, (x, y) in enumerate(batches, 1):
        optimizer.step(lambda x=x, y=y: closure(x, y))  # type: ignore[arg-type, misc]
        yield done


def check_returned(network: nn.Module, returned: Any) -> None:
    """Refuses what a user's function trained instead of the copy that it was given.

    Raises:
        PrecodeValueError: it returned another module.
    """
    if isinstance(returned, nn.Module) and returned is not network:
        raise PrecodeValueError(
            "train returned another module than the one it was given, which is the one that counts: train that in "
            "place, as by given.load_state_dict(trained.state_dict())"
        )


def is_moved(network: nn.Module, start: dict[str, torch.Tensor]) -> bool:
    """Whether a module has other parameters than some values by their names."""
    return any(
        name in start and not torch.equal(parameter, start[name]) for name, parameter in network.named_parameters()
    )


def weight_of(loss: Any) -> Callable[[Any, Any], Any] | None:
    """What the mean of a loss of torch's divides by, from inputs and labels, if that is not the number of labels.

    That is so for class weights, and where it ignores another class than -100 (formulas in PyTorch's documentation of
    `torch.nn.CrossEntropyLoss` and `torch.nn.NLLLoss`, ``reduction="mean"``).

    Example:
        >>> weight = weight_of(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])))
        >>> float(weight(None, torch.tensor([0, 1, 1])))
        7.0
    """
    of_torch = (nn.CrossEntropyLoss, nn.NLLLoss)
    made_by = getattr(type(loss), "forward", None)
    if made_by not in [kind.forward for kind in of_torch] or loss.reduction != "mean":
        return None
    classes, ignored = loss.weight, loss.ignore_index
    if classes is None and ignored == IGNORED:
        return None

    def weight(_: Any, y: Any) -> Any:
        if not isinstance(y, torch.Tensor) or y.is_floating_point():  # probabilities of classes
            return len(y)
        kept = y[y != ignored]
        return kept.numel() if classes is None else classes.to(y.device)[kept].sum()

    return weight


def takes_module(loss: Callable[..., Any]) -> bool:
    """Whether a loss takes the module as a third argument, which has no default."""
    try:
        parameters = signature(loss).parameters.values()
    except (TypeError, ValueError):  # functions of C have none
        return False
    needed = [each for each in parameters if each.default is each.empty and each.kind in PLACES]
    return len(needed) == 3
