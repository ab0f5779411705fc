"""What ticket methods ask of any `nn.Module`, answered on copies of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from precode._internal.errors import PrecodeError, PrecodeShapeError, PrecodeValueError, UnsupportedError
from precode._internal.randomness import isolated, reseed
from precode.modules import gradients, training
from precode.modules.batches import ONE_SAMPLE, SCORING, Batches, call, mapped, samples
from precode.modules.copies import Buffers, copied
from precode.modules.gradients import Tensors
from precode.modules.layers import Watch
from precode.modules.layouts import Layout, layout
from precode.modules.training import OptimizerFactory
from precode.tickets import masked

Loss = Callable[..., torch.Tensor]
"""From outputs and labels, and the module if it takes a third argument, to the mean loss of a batch."""

HIDDEN = (
    "this method looks into the training, or takes a part of it, and train= hides it: pass data and loss instead, so "
    "that the default loop trains"
)

NOTHING = 1e-9
"""Part of the summed outputs below which no synaptic flow goes through a layer."""


class ModuleObjective:
    """A module and what it is to learn. Only copies of it are evaluated and trained.

    Gradients are taken as the first training step would take them: batch normalization with the statistics of the
    batch, dropout drawn from the seed, each layer in the mode that it has; a module that is in evaluation mode
    throughout is put in training mode. Synaptic flow is taken in evaluation mode.

    Tensors that go to methods and come from them have outputs as the first axis, see `Layout`.

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
        temperature: what GraSP divides the outputs by.
        remember: keep the answers to what is asked more than once where a method is asked for several densities.
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
        temperature: float = 200.0,
        remember: bool = False,
    ) -> None:
        self._original, self._module = module, copied(module)
        if not any(layer.training for layer in self._module.modules()):
            self._module.train()
        self._slots = masked.slots(self._module)
        self._names = list(self._slots)
        self._prunable = list(prunable)
        self._layouts = [layout(slot) for slot in self._slots.values()]
        self._buffers = Buffers(self._module)
        self._batches, self._loss, self._train = batches, loss, train
        self._loss_takes_module = loss is not None and training.takes_module(loss)
        self._optimizer, self._seed, self.temperature = optimizer, seed, temperature
        self._device = next(iter(self._slots.values())).parameter.device
        self._originals = {id(slot.parameter): name for name, slot in masked.slots(module).items()}
        self._flowing: nn.Module | None = None
        self._answers: dict[bytes, Any] | None = {} if remember else None
        # Asked for by name from Rust.
        self.parameters = [
            (name, value, name in prunable)
            for name, value in zip(self._names, self._out(self._values(self._module)), strict=True)
        ]
        self.epochs = epochs
        self.steps_per_epoch = batches.steps if batches else 1
        self.features = features and (self._names.index(features[0]), self._names.index(features[1]), features[2])
        if batches is not None and batches.has_single():
            self._check_single(batches)

    @property
    def layouts(self) -> dict[str, Layout]:
        """How the weights of the prunable parameters stand."""
        known = dict(zip(self._names, self._layouts, strict=True))
        return {name: known[name] for name in self._prunable}

    # Questions

    def gradients(self) -> dict[str, torch.Tensor] | None:
        """Gradients of the mean loss on all data at the initial values, by name; None without data or a loss."""
        if self._batches is None or self._loss is None:
            return None
        found = self.gradient([value for _, value, _ in self.parameters], None)
        return dict(zip(self._names, found, strict=True))

    def gradient(self, at: Tensors, step: int | None) -> Tensors:
        """Gradient of the mean loss at other values, on the batch of a training step or on all data."""

        def gradient() -> Tensors:
            batches = self._data()
            with batches.isolated():
                chosen = batches.epoch(SCORING) if step is None else [batches.step(step)]
                return self._out(self._mean(chosen, at, self._names))

        found: Tensors = gradient() if step is not None else self._once(gradient, at, "gradient")
        return found

    def curvature(self, at: Tensors, _: float) -> Tensors:
        """H g of the mean loss of the outputs over the temperature, on all data."""

        def curvature() -> Tensors:
            batches = self._data()
            with batches.isolated(), gradients.differentiable_twice(self._module):
                gradient = self._mean(batches.epoch(SCORING), at, self._prunable, self.temperature)
                product = self._mean(batches.epoch(SCORING), at, self._prunable, self.temperature, gradient)
                return self._out(product)

        found: Tensors = self._once(curvature, at, "curvature")
        return found

    def _once(self, answer: Callable[[], Any], tensors: Tensors, *rest: Any) -> Any:
        """An answer, remembered by what it was asked for."""
        if self._answers is None:
            return answer()
        key = _digest(tensors, *rest)
        if key not in self._answers:
            self._answers[key] = answer()
        return self._answers[key]

    def flow(self, at: Tensors) -> Tensors:
        """Gradient of the summed outputs for an input of ones, with magnitudes for weights and zeros for biases."""
        if self._flowing is None:
            self._flowing = copied(self._module).to(at[0].dtype).eval()
        network = self._flowing
        slots = masked.slots(network)
        for (name, slot), value in zip(slots.items(), self._in(at), strict=True):
            slot.put(torch.zeros_like(value) if "bias" in name.rpartition(".")[2] else value.abs())
        buffers = Buffers(network)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
        parameters = [slot.parameter for slot in slots.values()]
        with isolated(self._device), torch.inference_mode(False), torch.enable_grad():
            total = self._output(call(network, self._ones(at[0].dtype))).sum()
            gradients.backward(total, parameters)
            found = gradients.taken(self._names, parameters)
        buffers.put(network)
        # Flow is conserved: what goes through the weights of a layer is what comes out.
        through = [
            float((slots[name].parameter.detach() * part).sum().abs())
            for name, part in zip(self._names, found, strict=True)
            if name in self._prunable
        ]
        if max(through) <= NOTHING * float(total.detach().abs()):
            raise PrecodeValueError(
                "the sum of the outputs does not depend on the weights, as behind a softmax or a normalization, so "
                "that synaptic flow says nothing of them: pass the module without its last layers"
            )
        return self._out(found)

    def input_moments(self, at: Tensors) -> Tensors:
        """E[z z'] of what each prunable weight is multiplied with, (groups, inputs, inputs), float64, on all data.

        The moments of the positions of a sequence or an image are added up. Our definition, so that layers can be
        compared: then it is the squared error of a sample that each layer's Hessian is of.
        """
        moments: list[Any] = [0.0] * len(self._prunable)
        count = 0
        with self._data().isolated(), Watch(self._slots, self._prunable) as watch, self._at(at):
            for x, _ in self._data().epoch(SCORING):
                with torch.inference_mode(False), torch.no_grad():
                    call(self._module, x)
                    for place, (inputs, _) in enumerate(watch.taken()):
                        moments[place] += torch.einsum("spgi,spgj->gij", inputs, inputs)
                self._buffers.put(self._module)
                count += samples(x)
        return [moment / count for moment in moments]

    def fisher(self, at: Tensors) -> torch.Tensor:
        """Empirical Fisher matrix of all prunable weights together, (weights, weights), float64, on all data.

        The gradient of a sample is its own term in the gradient of the batch, times the samples of the batch; without
        batch normalization, that is the gradient of its loss alone.
        """
        fisher = torch.zeros((), dtype=torch.float64)
        count, weight = 0, 0.0
        with self._data().isolated(), Watch(self._slots, self._prunable) as watch, self._at(at):
            for x, y in self._data().epoch(SCORING):
                with torch.inference_mode(False), torch.enable_grad():
                    parts = watch.gradients(self._loss_of(self._module, x, y))
                self._buffers.put(self._module)
                rows = torch.cat([part.flatten(1) for part in parts], 1) * self._data().weight(x, y)
                fisher = fisher + rows.T @ rows
                count, weight = count + samples(x), weight + self._data().weight(x, y)
        # Labels of a sample are as many as of the mean sample, however the data are cut.
        return fisher * (count / weight) ** 2 / count

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
        asked = (masks is None, first_epoch, end_epoch, list(snapshots))
        answer: tuple[Tensors, list[Tensors], float] = self._once(
            lambda: self._training(start, masks, first_epoch, end_epoch, snapshots), [*start, *(masks or [])], *asked
        )
        return answer

    def _training(
        self, start: Tensors, masks: Tensors | None, first_epoch: int, end_epoch: int | None, snapshots: Sequence[int]
    ) -> tuple[Tensors, list[Tensors], float]:
        if self._train is not None and (first_epoch or snapshots or end_epoch is not None):
            raise UnsupportedError(HIDDEN)
        end = self.epochs if end_epoch is None else min(end_epoch, self.epochs)
        network = self._network(start, masks)
        kept = self.fit(network, range(first_epoch, end), snapshots)
        values = self._values(network)
        self._check_finite(values, f"by the end of epoch {end}" if self._train is None else "in train=")
        return self._out(values), kept, float(end - first_epoch)

    def copy(self) -> nn.Module:
        """A copy of the module, in the modes that it is trained in."""
        return copied(self._module)

    def fit(self, network: nn.Module, epochs: range, snapshots: Sequence[int] = ()) -> list[Tensors]:
        """Trains a copy in place, by the user's function or for some epochs; the values after some steps.

        Raises:
            PrecodeValueError: the user's function trains another module.
        """
        with self._isolated(), torch.inference_mode(False), torch.enable_grad():
            if self._train is None:
                optimizer, wanted = training.optimizer_of(network, self._optimizer), set(snapshots)
                done = chain([0], self._steps(network, epochs, optimizer))
                return [self._out(self._values(network)) for step in done if step in wanted]
            reseed(self._device, self._seed)
            before = {name: value.detach().clone() for name, value in network.named_parameters()}
            try:
                returned = self._train(network)
            finally:
                self._restore_original()
            training.check_trained(network, returned, before)
            return []

    def dense_epochs(self) -> Iterator[Tensors]:
        """The values after each epoch of the dense training, which goes no further than they are asked for."""
        if self._train is not None:
            raise UnsupportedError(HIDDEN)
        with self._isolated(), torch.inference_mode(False), torch.enable_grad():
            network = self._network([value for _, value, _ in self.parameters], None)
            optimizer = training.optimizer_of(network, self._optimizer)
        for epoch in range(self.epochs):
            with self._isolated(), torch.inference_mode(False), torch.enable_grad():
                for _ in self._steps(network, [epoch], optimizer):
                    pass
                values = self._values(network)
            self._check_finite(values, f"by the end of epoch {epoch + 1}")
            yield self._out(values)

    # Values

    def _in(self, values: Tensors) -> Tensors:
        """Values of all parameters as they stand in the module."""
        return [each.original(value.detach()) for each, value in zip(self._layouts, values, strict=True)]

    def _out(self, values: Tensors) -> Tensors:
        """Values of all parameters as methods see them."""
        return [each.canonical(value) for each, value in zip(self._layouts, values, strict=True)]

    def _values(self, network: nn.Module) -> Tensors:
        """Copies of the values of all parameters, zero where they are pruned."""
        slots = masked.slots(network)
        if slots.keys() != set(self._names):
            raise PrecodeError("train renamed the module's parameters: it must train the module in place")
        values = []
        for name in self._names:
            mask, value = slots[name].mask, slots[name].parameter.detach()
            values.append(value.clone() if mask is None else value.masked_fill(~mask, 0))
        return values

    @contextmanager
    def _at(self, at: Tensors) -> Iterator[None]:
        """Within the block, the copy has other values; its buffers are those of the module again afterwards."""
        for slot, value in zip(self._slots.values(), self._in(at), strict=True):
            slot.put(value)
        try:
            yield
        finally:
            self._buffers.put(self._module)

    def _network(self, start: Tensors, masks: Tensors | None) -> nn.Module:
        """A copy of the module at other values, pruned."""
        network = copied(self._module)
        slots = masked.slots(network)
        for name, value in zip(self._names, self._in(start), strict=True):
            slots[name].put(value)
        for name, mask in zip(self._prunable, masks or [], strict=masks is not None):
            mask = self.layouts[name].original(mask)
            slots[name].put(slots[name].parameter * mask)
            slots[name].prune(mask)
        return network

    def _restore_original(self) -> None:
        """Gives the user's module back the values it had, should their training have been of it."""
        slots = masked.slots(self._original)
        for (name, value, _), each in zip(self.parameters, self._layouts, strict=True):
            if name in slots and not torch.equal(slots[name].parameter, each.original(value)):
                slots[name].put(each.original(value))
        self._buffers.put(self._original)

    # Losses and gradients

    def _steps(self, network: nn.Module, epochs: Iterable[int], optimizer: torch.optim.Optimizer) -> Iterator[int]:
        """The default training: one optimizer step a batch; the number of steps done after each."""
        batches, trained = self._data(), training.trainable(network)

        def closure(x: Any, y: Any) -> torch.Tensor:
            loss = self._loss_of(network, x, y)
            gradients.backward(loss, trained)
            return loss.detach()

        return training.steps(optimizer, chain.from_iterable(map(batches.epoch, epochs)), closure)

    def _mean(
        self,
        batches: Iterable[tuple[Any, Any]],
        at: Tensors,
        parameters: list[str],
        temperature: float = 1.0,
        along: Tensors | None = None,
    ) -> Tensors:
        """The mean over the data of the gradient or, with `along`, of the Hessian times `along`.

        Both are with respect to the named parameters that are not frozen, and zero at all others.
        """
        places = [
            i
            for i, (name, slot) in enumerate(self._slots.items())
            if name in parameters and slot.parameter.requires_grad
        ]
        names = [self._names[i] for i in places]
        leaves = [self._slots[name].parameter for name in names]
        mean = [torch.zeros_like(slot.parameter) for slot in self._slots.values()]
        total = 0.0
        with self._at(at):
            for x, y in batches:
                weight = self._data().weight(x, y)
                if not weight:
                    continue
                with torch.inference_mode(False), torch.enable_grad():
                    value = self._loss_of(self._module, x, y, temperature)
                    if along is None:
                        gradients.backward(value, training.trainable(self._module))
                        parts = gradients.taken(names, leaves)
                    else:
                        parts = gradients.curvature(value, names, leaves, [along[i] for i in places])
                self._module.zero_grad()
                self._buffers.put(self._module)
                total += weight
                for i, part in zip(places, parts, strict=True):
                    mean[i].lerp_(part, weight / total)
        if not total:
            raise PrecodeValueError("no batch of the data counts: every weight is 0, or every label is ignored")
        return mean

    def _loss_of(self, network: nn.Module, x: Any, y: Any, temperature: float = 1.0) -> torch.Tensor:
        """The mean loss of a batch, one element, which depends on the network alone."""
        if self._loss is None:
            raise PrecodeValueError("a loss is needed: pass loss=")
        output = call(network, x)
        if temperature != 1:
            output = self._output(output) / temperature
        loss = self._loss(output, y, network) if self._loss_takes_module else self._loss(output, y)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            given = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise PrecodeShapeError(f"loss returned {given}: expected a tensor of one element, the mean over the batch")
        for leaf in gradients.leaves(loss):
            if name := self._originals.get(id(leaf)):
                raise PrecodeValueError(
                    f"the loss depends on '{name}' of the very module that was passed in, while gradients are taken "
                    "on copies: let the loss take a third argument, as loss=lambda output, y, module: ..., and "
                    "use its parameters; a forward function of the module must use self"
                )
        return loss.reshape(())

    def _output(self, output: Any) -> torch.Tensor:
        if not isinstance(output, torch.Tensor):
            raise UnsupportedError(f"this method needs a module that returns one tensor, not {type(output).__name__}")
        return output

    # Checks and data

    def _check_finite(self, values: Tensors, when: str) -> None:
        for name, value in zip(self._names, values, strict=True):
            if not bool(torch.isfinite(value).all()):
                raise PrecodeValueError(f"training diverged {when}: '{name}' is not finite; lower the learning rate")

    def _check_single(self, batches: Batches) -> None:
        """Refuses a batch of one sample where the module cannot be trained on one."""
        network = copied(self._module)
        with batches.isolated(), torch.inference_mode(False), torch.no_grad():
            try:
                call(network, _first(batches.first[0] if batches.first else None))
            except PrecodeValueError as error:
                if str(error) == ONE_SAMPLE:
                    raise
            except Exception:  # what else a module makes of one sample is not asked here
                pass

    def _isolated(self) -> Any:
        return isolated(self._device) if self._batches is None else self._batches.isolated()

    def _data(self) -> Batches:
        if self._batches is None:
            raise PrecodeValueError("data are needed: pass data= and loss=")
        return self._batches

    def _ones(self, kind: torch.dtype) -> Any:
        """An input of ones: one sample of the data's shape, or of the first linear layer's width."""
        if self._batches is not None and self._batches.first is not None:
            return _ones_like(self._batches.first[0], kind)
        kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)
        linear = next((layer for layer in self._module.modules() if isinstance(layer, kinds)), None)
        if not isinstance(linear, nn.Linear):
            raise PrecodeValueError("the shape of the input is not known: pass data=, of which the shape alone is used")
        return torch.ones(1, linear.in_features, dtype=kind, device=self._device)


def _first(x: Any) -> Any:
    """The first sample of a batch."""
    return x[:1] if isinstance(x, torch.Tensor) and x.ndim else mapped(_first, x)


def _ones_like(x: Any, kind: torch.dtype) -> Any:
    """A batch of one sample of ones, of a type where it is of floats."""
    if not isinstance(x, torch.Tensor):
        return mapped(lambda item: _ones_like(item, kind), x)
    ones = torch.ones_like(x[:1])
    return ones.to(kind) if x.is_floating_point() else ones


def _digest(tensors: Tensors, *rest: Any) -> bytes:
    """A key of tensors' values and of what else there is."""
    digest = hashlib.blake2b(repr(rest).encode())
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(repr((values.dtype, tuple(values.shape))).encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()
