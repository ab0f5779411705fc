"""What ticket methods ask of any `nn.Module`, answered on copies of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from precode._internal.errors import (
    PrecodeError,
    PrecodeShapeError,
    PrecodeTypeError,
    PrecodeValueError,
    UnsupportedError,
)
from precode._internal.randomness import isolated, reseed
from precode.modules.batches import SCORING, Batches, samples
from precode.modules.layers import Watch
from precode.tickets import masked

Loss = Callable[[Any, Any], torch.Tensor]
"""From outputs and labels to the mean loss of a batch, a tensor of one element."""

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

Tensors = list[torch.Tensor]

HIDDEN = (
    "this method looks into the training, or takes a part of it, and train= hides it: pass data and loss instead, so "
    "that the default loop trains"
)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer where none is given: Adam at 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


def call(module: nn.Module, x: Any, state: dict[str, torch.Tensor] | None = None) -> Any:
    """What a module makes of a batch: x itself, or the several arguments in it."""
    arguments: tuple[Any, ...] = tuple(x) if isinstance(x, list | tuple) else () if isinstance(x, dict) else (x,)
    keywords = x if isinstance(x, dict) else {}
    if state is None:
        return module(*arguments, **keywords)
    return functional_call(module, state, arguments, keywords)


class ModuleObjective:
    """A module and what it is to learn. Only copies of it are evaluated and trained.

    Gradients are taken in training mode, as the first training step would take them: batch normalization with the
    statistics of the batch, dropout drawn from the seed. Synaptic flow is taken in evaluation mode.

    Args:
        module: the module.
        prunable: names of the parameters to prune.
        batches: the data, or None.
        loss: the loss, or None.
        train: trains a module in place instead of the default loop, or None.
        epochs: epochs of the default loop.
        optimizer: makes the optimizer of the default loop.
        seed: key of everything random.
        features: names of two linear layers' weights, and an output of the second, or None.
    """

    def __init__(
        self,
        module: nn.Module,
        prunable: Sequence[str],
        batches: Batches | None,
        loss: Loss | None,
        train: Callable[[nn.Module], Any] | None,
        epochs: int,
        optimizer: OptimizerFactory,
        seed: int,
        features: tuple[str, str, int] | None,
    ) -> None:
        try:
            self._module = copy.deepcopy(module)
        except Exception as error:
            raise PrecodeTypeError(
                f"the module cannot be copied ({error}): tickets are found on deep copies, which must work"
            ) from error
        self._slots = masked.slots(self._module)
        self._names = list(self._slots)
        self._prunable = list(prunable)
        self._batches, self._loss, self._train = batches, loss, train
        self._optimizer, self._seed = optimizer, seed
        self._device = next(iter(self._slots.values())).parameter.device
        # Asked for by name from Rust.
        self.parameters = [
            (name, slot.parameter.detach().clone(), name in prunable) for name, slot in self._slots.items()
        ]
        self.epochs = epochs
        self.steps_per_epoch = batches.steps if batches else 1
        self.features = features and (self._names.index(features[0]), self._names.index(features[1]), features[2])

    def gradient(self, at: Tensors, step: int | None) -> Tensors:
        """Gradient of the mean loss at other values, on the batch of a training step or on all data."""
        batches = self._data()
        with isolated(self._device):
            chosen = batches.epoch(SCORING) if step is None else [batches.step(step)]
            return self._mean(chosen, at, self._names)

    def curvature(self, at: Tensors, temperature: float) -> Tensors:
        """H g of the mean loss of the outputs over a temperature, on all data."""
        batches = self._data()
        with isolated(self._device):
            gradient = self._mean(batches.epoch(SCORING), at, self._prunable, temperature)
            return self._mean(batches.epoch(SCORING), at, self._prunable, temperature, gradient)

    def flow(self, at: Tensors) -> Tensors:
        """Gradient of the summed outputs for an input of ones, with magnitudes for weights and zeros for biases."""
        kind = at[0].dtype
        values = {
            name: torch.zeros_like(value) if name.rpartition(".")[2].endswith("bias") else value.detach().abs()
            for name, value in zip(self._names, at, strict=True)
        }
        buffers = {
            name: torch.zeros_like(buffer) if name.endswith("running_mean") else buffer.clone()
            for name, buffer in self._module.named_buffers()
        }
        with isolated(self._device), torch.inference_mode(False), torch.enable_grad():
            leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
            state = {
                name: item.to(kind) if item.is_floating_point() else item for name, item in (leaves | buffers).items()
            }
            self._module.eval()
            total = self._output(call(self._module, self._ones(kind), state)).sum()
            return self._gradients(total, list(leaves.values()), self._names)

    def input_moments(self, at: Tensors) -> Tensors:
        """E[z z'] of what each prunable weight is multiplied with, (groups, inputs, inputs), float64, on all data.

        The moments of the positions of a sequence or an image are added up. Our definition, so that layers can be
        compared: then it is the squared error of a sample that each layer's Hessian is of.
        """
        moments: list[Any] = [0.0] * len(self._prunable)
        count = 0
        with isolated(self._device), Watch(self._slots, self._prunable) as watch:
            for x, _ in self._data().epoch(SCORING):
                with torch.inference_mode(False), torch.no_grad():
                    self._module.train()
                    call(self._module, x, self._state(at))
                    for place, (inputs, _) in enumerate(watch.taken()):
                        moments[place] += torch.einsum("spgi,spgj->gij", inputs, inputs)
                count += samples(x)
        return [moment / count for moment in moments]

    def fisher(self, at: Tensors) -> torch.Tensor:
        """Empirical Fisher matrix of all prunable weights together, (weights, weights), float64, on all data.

        The gradient of a sample is its own term in the gradient of the batch, times the samples of the batch; without
        batch normalization, that is the gradient of its loss alone.
        """
        fisher = torch.zeros((), dtype=torch.float64)
        count = 0
        with isolated(self._device), Watch(self._slots, self._prunable) as watch:
            for x, y in self._data().epoch(SCORING):
                with torch.inference_mode(False), torch.enable_grad():
                    self._module.train()
                    loss = self._loss_of(call(self._module, x, self._state(at, gradients=True)), y)
                    parts = watch.gradients(loss)
                rows = torch.cat([part.flatten(1) for part in parts], 1) * samples(x)
                fisher = fisher + rows.T @ rows
                count += samples(x)
        return fisher / count

    def _state(self, at: Tensors, *, gradients: bool = False) -> dict[str, torch.Tensor]:
        """Other values with copies of the buffers, because normalization updates them."""
        values = {
            name: value.detach().to(slot.parameter.dtype).clone().requires_grad_(gradients)
            for (name, slot), value in zip(self._slots.items(), at, strict=True)
        }
        return values | {name: buffer.clone() for name, buffer in self._module.named_buffers()}

    def train(
        self,
        start: Tensors,
        masks: Tensors | None,
        first_epoch: int,
        end_epoch: int | None,
        snapshots: Sequence[int],
    ) -> tuple[Tensors, list[Tensors], float]:
        """Trains a copy from other values; the values at its end and after the steps of the snapshots.

        Also the epochs that ran: those up to `end_epoch`, or to the end of a full training.
        """
        if self._train is not None and (first_epoch or snapshots or end_epoch is not None):
            raise UnsupportedError(HIDDEN)
        end = self.epochs if end_epoch is None else min(end_epoch, self.epochs)
        with isolated(self._device), torch.inference_mode(False), torch.enable_grad():
            network = self._network(start, masks)
            kept: list[Tensors] = []
            if self._train is None:
                steps = self._steps(network, range(first_epoch, end))
                wanted = set(snapshots)
                kept = [self._values(network) for done in steps if done in wanted]
            else:
                reseed(self._device, self._seed)
                self._train(network)
            values = self._values(network)
        self._check_finite(values, f"by the end of epoch {end}" if self._train is None else "in train=")
        return values, kept, float(end - first_epoch)

    def dense_epochs(self) -> Iterator[Tensors]:
        """The values after each epoch of the dense training, which goes no further than they are asked for."""
        if self._train is not None:
            raise UnsupportedError(HIDDEN)
        with isolated(self._device), torch.inference_mode(False), torch.enable_grad():
            network = self._network([value for _, value, _ in self.parameters], None)
            optimizer = self._optimizer(self._trained(network))
        for epoch in range(self.epochs):
            with isolated(self._device), torch.inference_mode(False), torch.enable_grad():
                for _ in self._steps(network, [epoch], optimizer):
                    pass
                values = self._values(network)
            self._check_finite(values, f"by the end of epoch {epoch + 1}")
            yield values

    def _network(self, start: Tensors, masks: Tensors | None) -> nn.Module:
        """A copy of the module at other values, in training mode, pruned."""
        network = copy.deepcopy(self._module).train()
        slots = masked.slots(network)
        for name, value in zip(self._names, start, strict=True):
            slots[name].put(value)
        for name, mask in zip(self._prunable, masks or [], strict=masks is not None):
            slots[name].put(slots[name].parameter * mask)
            slots[name].prune(mask)
        return network

    @staticmethod
    def _trained(network: nn.Module) -> list[nn.Parameter]:
        return [parameter for parameter in network.parameters() if parameter.requires_grad]

    def _check_finite(self, values: Tensors, when: str) -> None:
        for name, value in zip(self._names, values, strict=True):
            if not bool(torch.isfinite(value).all()):
                raise PrecodeValueError(f"training diverged {when}: '{name}' is not finite; lower the learning rate")

    def _steps(
        self, network: nn.Module, epochs: Iterable[int], optimizer: torch.optim.Optimizer | None = None
    ) -> Iterator[int]:
        """The default training: one optimizer step a batch; the number of steps done, from 0 on."""
        batches, trained = self._data(), self._trained(network)
        optimizer = self._optimizer(trained) if optimizer is None else optimizer
        done = 0
        yield done
        for epoch in epochs:
            for x, y in batches.epoch(epoch):

                def closure(x: Any = x, y: Any = y) -> torch.Tensor:
                    loss = self._loss_of(call(network, x), y)
                    # Not backward(): the loss may have parameters of its own, whose gradients are the user's.
                    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
                    for parameter, gradient in zip(trained, gradients, strict=True):
                        parameter.grad = gradient
                    return loss.detach()

                optimizer.step(closure)  # type: ignore[arg-type]
                done += 1
                yield done

    def _values(self, network: nn.Module) -> Tensors:
        """The values of all parameters, zero where they are pruned."""
        slots = masked.slots(network)
        if slots.keys() != set(self._names):
            raise PrecodeError("train renamed the module's parameters: it must train the module in place")
        values = []
        for name in self._names:
            mask = slots[name].mask
            value = slots[name].parameter.detach()
            values.append(value.clone() if mask is None else value.masked_fill(~mask, 0))
        return values

    def _mean(
        self,
        batches: Iterable[tuple[Any, Any]],
        at: Tensors,
        parameters: list[str],
        temperature: float = 1.0,
        along: Tensors | None = None,
    ) -> Tensors:
        """The mean over samples of the gradient or, with `along`, of the Hessian times `along`.

        Both are with respect to the named parameters that are not frozen, and zero at all others.
        """
        chosen = [
            (i, name)
            for i, name in enumerate(self._names)
            if name in parameters and self._slots[name].parameter.requires_grad
        ]
        mean = [torch.zeros_like(slot.parameter) for slot in self._slots.values()]
        count = 0
        self._module.train()
        for x, y in batches:
            with torch.inference_mode(False), torch.enable_grad():
                leaves = [
                    value.detach().to(slot.parameter.dtype).clone().requires_grad_(slot.parameter.requires_grad)
                    for value, slot in zip(at, self._slots.values(), strict=True)
                ]
                # Buffers are copied, because normalization updates them.
                state = dict(zip(self._names, leaves, strict=True))
                state |= {name: buffer.clone() for name, buffer in self._module.named_buffers()}
                output = call(self._module, x, state)
                if temperature != 1:
                    output = self._output(output) / temperature
                value = self._loss_of(output, y)
                wanted, names = [leaves[i] for i, _ in chosen], [name for _, name in chosen]
                parts = self._gradients(value, wanted, names, twice=along is not None)
                if along is not None:
                    product = sum((part * along[i]).sum() for part, (i, _) in zip(parts, chosen, strict=True))
                    if (
                        not isinstance(product, torch.Tensor) or not product.requires_grad
                    ):  # a loss linear in all weights
                        parts = [torch.zeros_like(leaf) for leaf in wanted]
                    else:
                        parts = self._gradients(product, wanted, names)
            count += samples(x)
            for (i, _), part in zip(chosen, parts, strict=True):
                mean[i].lerp_(part, samples(x) / count)
        return mean

    def _gradients(self, value: torch.Tensor, leaves: Tensors, names: list[str], *, twice: bool = False) -> Tensors:
        if not value.requires_grad:
            raise PrecodeValueError(
                "the loss does not depend on the parameters: is there a detach or no_grad on the way?"
            )
        gradients = torch.autograd.grad(value, leaves, create_graph=twice, allow_unused=True)
        found = [torch.zeros_like(leaf) if part is None else part for leaf, part in zip(leaves, gradients, strict=True)]
        for name, part in zip(names, found, strict=True):
            if not bool(torch.isfinite(part).all()):
                raise PrecodeValueError(
                    f"the gradient at '{name}' is not finite: check the data and the loss for NaN and infinite values"
                )
        return found

    def _loss_of(self, output: Any, y: Any) -> torch.Tensor:
        if self._loss is None:
            raise PrecodeValueError("a loss is needed: pass loss=")
        loss = self._loss(output, y)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            given = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise PrecodeShapeError(f"loss returned {given}: expected a tensor of one element, the mean over the batch")
        return loss.reshape(())

    def _output(self, output: Any) -> torch.Tensor:
        if not isinstance(output, torch.Tensor):
            raise UnsupportedError(f"this method needs a module that returns one tensor, not {type(output).__name__}")
        return output

    def _data(self) -> Batches:
        if self._batches is None:
            raise PrecodeValueError("data are needed: pass data= and loss=")
        return self._batches

    def _ones(self, kind: torch.dtype) -> Any:
        """An input of ones: one sample of the data's shape, or of the first linear layer's width."""
        if self._batches is not None and self._batches.first is not None:
            return _ones_like(self._batches.first[0], kind)
        linear = next((layer for layer in self._module.modules() if isinstance(layer, masked.PRUNABLE_LAYERS)), None)
        if not isinstance(linear, nn.Linear):
            raise PrecodeValueError("the shape of the input is not known: pass data=, of which the shape alone is used")
        return torch.ones(1, linear.in_features, dtype=kind, device=self._device)


def _ones_like(x: Any, kind: torch.dtype) -> Any:
    if isinstance(x, torch.Tensor):
        ones = torch.ones_like(x[:1])
        return ones.to(kind) if x.is_floating_point() else ones
    if isinstance(x, dict):
        return {key: _ones_like(item, kind) for key, item in x.items()}
    return [_ones_like(item, kind) for item in x] if isinstance(x, list | tuple) else x
