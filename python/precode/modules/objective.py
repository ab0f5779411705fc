"""What ticket methods ask of any `nn.Module`, answered on copies of it."""

from __future__ import annotations

import gc
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from precode._internal import memory
from precode._internal.errors import PrecodeError, PrecodeValueError, UnsupportedError
from precode._internal.parts import exact, parts
from precode._internal.randomness import Purpose, Randomness
from precode.modules import agreement, gradients, training
from precode.modules.batches import SCORING, Batches, call, mapped, one_tensor, samples
from precode.modules.booleans import inputs_of, labels_of
from precode.modules.flow import SynapticFlow
from precode.modules.gradients import Mean, Tensors
from precode.modules.layers import Watch
from precode.modules.learner import Loss
from precode.modules.single_samples import SingleSamples
from precode.modules.training import OptimizerFactory

HIDDEN = (
    "this method looks into the training, or takes a part of it, and train= hides it: pass data and loss instead, so "
    "that the default loop trains"
)

STEP = 1e-2
"""How far weights are moved, all together, to see the change of the gradient."""

AGREEMENT = 0.2
"""Relative difference from which two second derivatives disagree; that of a ReLU network may be a tenth."""

ELSEWHERE = "'{}' is used outside of the calls of its layer too, by {}: inputs that it may have there do not count"

LARGE = 2**22
"""Weights of a network whose memory is worth time: that of a search for reference cycles, and of memory that is new."""

NOISE = 1e-4
"""Part of the gradient below which its change is not known: that of float32 over the step."""


class ModuleObjective(SingleSamples):
    """What methods ask, answered on copies of a module.

    Gradients are taken as the first training step would take them: batch normalization with the statistics of the
    batch, dropout drawn from the seed. Synaptic flow is taken in evaluation mode. Tensors that go to methods and come
    from them have outputs as the first axis, see `Layout`.

    Args:
        module: as of `Learner`.
        prunable: as of `Learner`.
        batches: as of `Learner`.
        loss: as of `Learner`.
        train: as of `Learner`.
        epochs: as of `Learner`.
        optimizer: as of `Learner`.
        randomness: as of `Learner`.
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
        randomness: Randomness,
        features: tuple[str, str, int] | None,
        temperature: float = 200.0,
        remember: bool = False,
    ) -> None:
        super().__init__(module, prunable, batches, loss, train, epochs, optimizer, randomness)
        self.silent: dict[str, torch.Tensor] = {}  # inputs that are always zero, (groups, inputs), when last looked at
        self._flow: SynapticFlow | None = None
        self._answers: dict[bytes, Any] | None = {} if remember else None
        self.temperature = temperature
        self._owns_functions = False
        self._is_checked = False  # whether masks change nothing but weights
        # Asked for by name from Rust.
        self.features = features and (self._names.index(features[0]), self._names.index(features[1]), features[2])

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
                if step is None:
                    return self._out(self._filled(self._mean(batches.epoch(SCORING), at, self._names)))
                x, y = batches.step(step)
                if not batches.weight(x, y):  # such as one whose labels are all ignored
                    return [torch.zeros_like(value) for value in at]
                return self._out(self._filled(self._mean([(x, y)], at, self._names)))

        found: Tensors = gradient() if step is not None else self._once(gradient, at, "gradient")
        return found

    def curvature(self, at: Tensors, _: float) -> Tensors:
        """H g of the mean loss of the outputs over the temperature, on all data.

        The temperature of the registry, which is the second argument, is that of the method's code; the user's counts.
        """

        def curvature() -> Tensors:
            batches = self._data()
            with batches.isolated(), gradients.differentiable_twice(self._module):
                along = self._mean(batches.epoch(SCORING), at, self._prunable, self.temperature)
                mean = self._mean(batches.epoch(SCORING), at, self._prunable, self.temperature, along)
                product = self._filled(mean)
                if self._owns_functions:
                    self._check_product(at, self._filled(along), product)
                return self._out(product)

        found: Tensors = self._once(curvature, at, "curvature")
        return found

    def _check_product(self, at: Tensors, gradient: Tensors, product: Tensors) -> None:
        """Refuses a Hessian times gradient that is not the change of the gradient along itself.

        Functions of the user's own may give first derivatives that autograd cannot differentiate, without a word.
        """
        length = _norm(gradient)
        if not length:
            return
        change: Tensors = []
        for step in (STEP, -STEP):
            # One by one, so that they do not lie beside those of the copy.
            there = (
                value + each.canonical(part * (step / length)).to(value.dtype)
                for each, value, part in zip(self._layouts, at, gradient, strict=True)
            )
            end = self._filled(self._mean(self._data().epoch(SCORING), there, self._prunable, self.temperature))
            change = [a.sub_(b).mul_(length / (2 * STEP)) for a, b in zip(change, end, strict=True)] if change else end
        largest = max(_norm(change), _norm(product))
        apart = _norm([a.sub_(b) for a, b in zip(change, product, strict=True)])
        if apart > AGREEMENT * largest and apart > NOISE * length:
            raise UnsupportedError(
                "this method needs second derivatives, and those of a torch.autograd.Function in the module are not "
                "the change of its first derivatives: let its backward compute with operations that autograd records, "
                "or use a method of first derivatives, such as 'snip'"
            )

    def _once(self, answer: Callable[[], Any], tensors: Tensors, *rest: Any) -> Any:
        """An answer, remembered by what it was asked for."""
        if self._answers is None:
            return answer()
        key = _digest(tensors, *rest)
        if key not in self._answers:
            self._answers[key] = answer()
        return self._answers[key]

    def flow(self, at: Tensors) -> Tensors:
        """Gradient of the summed outputs for an input of ones, with magnitudes for weights and zeros for biases.

        The list is empty afterwards: its values are not held beside the gradients.
        """
        if self._flow is None:
            like = self._batches.first[0] if self._batches and self._batches.first else None
            self._flow = SynapticFlow(self.copy(), self._prunable, like)
        return self._out(self._flow.gradients(self._in(at.pop(0) for _ in self._names)))

    def input_moments(self, at: Tensors) -> Tensors:
        """E[z z'] of what each prunable weight is multiplied with, (groups, inputs, inputs), float64, on all data.

        The moments of the positions of a sequence or an image are added up. Our definition, so that layers can be
        compared: then it is the squared error of a sample that each layer's Hessian is of.
        """
        return self._over_inputs(at, "spgi,spgj->gij")

    def input_squares(self, at: Tensors) -> Tensors:
        """The diagonals of `input_moments`, (groups, inputs), float64, without the rest."""
        return self._over_inputs(at, "spgi,spgi->gi")

    def _over_inputs(self, at: Tensors, products: str) -> Tensors:
        """Products of what each prunable weight is multiplied with, summed over positions, their means over samples.

        `products` says of which axes, as `torch.einsum`: samples, positions, groups and inputs.
        """
        sums: list[Any] = [0.0] * len(self._prunable)
        count = 0
        watch = Watch(self._slots, self._prunable, lambda inputs: torch.einsum(products, inputs, inputs))
        with self._data().isolated(), self._at(at):
            for x, _ in self._data().epoch(SCORING):
                self._look(watch, x)
                for place, (kept, _) in enumerate(watch.taken()):
                    sums[place] += sum(kept)
                self._put_back()
                count += samples(x)
        watch.check_called()
        for name, function in watch.elsewhere.items():
            self._say(ELSEWHERE.format(name, function))
        means: Tensors = [each.div_(count) for each in sums]
        diagonals = (mean.diagonal(dim1=1, dim2=2) if mean.ndim == 3 else mean for mean in means)
        self.silent = {name: mean == 0 for name, mean in zip(self._prunable, diagonals, strict=True)}
        return means

    def _look(self, watch: Watch, x: Any) -> None:
        """Calls the module on a batch, with gradients only where it asks for some itself: they take memory."""
        with torch.inference_mode(False):
            try:
                with torch.no_grad(), watch:
                    call(self._module, x)
            except PrecodeError:
                raise
            except RuntimeError:
                watch.taken()
                self._put_back()
                with torch.enable_grad(), watch:
                    call(self._module, x)

    def samples(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All data as Booleans: the inputs of the first layer that codes are read from, and the labels of the output.

        (samples, variables) and (samples,), on the CPU. The inputs are those of the initial values.

        Raises:
            UnsupportedError: inputs or labels that are not Boolean.
        """

        def samples() -> tuple[torch.Tensor, torch.Tensor]:
            first, second, output = self.features or (0, 0, 0)
            name, outputs = self._names[first], len(self.parameters[second][1])
            inputs, labels = [], []
            at = [value for _, value, _ in self.parameters]
            watch = Watch(self._slots, [name])
            with self._data().isolated(), self._at(at):
                for x, y in self._data().epoch(SCORING):
                    self._look(watch, x)
                    ((kept, _),) = watch.taken()
                    inputs += [inputs_of(torch.cat(kept, 1), name)] if kept else []
                    labels.append(labels_of(y, output, outputs).cpu())
                    self._put_back()
            watch.check_called()
            return torch.cat(inputs), torch.cat(labels)

        found: tuple[torch.Tensor, torch.Tensor] = self._once(samples, [], "samples")
        return found

    def gauss_newton(self, at: Tensors) -> torch.Tensor:
        """Gauss-Newton matrix of all parameters together, (parameters, parameters), float64, on all data.

        The mean over the samples of J' S J: J are the gradients of a sample's outputs, S is the Hessian of its loss in
        them. Samples are taken one by one, in evaluation mode: batch normalization has the statistics it has so far.
        """
        network = self._network(at, None).eval()
        values = {name: parameter.detach() for name, parameter in network.named_parameters()}
        matrix, count = torch.zeros((), dtype=torch.float64, device="cpu"), 0

        def outputs(chosen: Tensors, x: Any) -> torch.Tensor:
            named = {f"network.{name}": value for name, value in zip(self._names, chosen, strict=True)}
            return one_tensor(functional_call(_Call(network), named, (_alone(x),)))[0]

        def of_sample(x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
            chosen = [values[name] for name in self._names]
            output = outputs(chosen, x)
            loss = partial(self._loss_at, network, y=_alone(y))
            curvature = jacrev(jacrev(loss))(output).reshape(output.numel(), output.numel())
            parts = jacrev(outputs)(chosen, x)
            parts = [part.reshape(output.numel(), *value.shape) for part, value in zip(parts, chosen, strict=True)]
            # Of each output, what methods see of all parameters.
            rows = [self._out(list(row)) for row in zip(*parts, strict=True)]
            return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]), curvature

        data = self._data()
        with data.isolated(), gradients.searchable(network), torch.inference_mode(False), torch.enable_grad():
            for x, y in data.epoch(SCORING):
                try:
                    rows, curvature = vmap(of_sample, randomness="different")(mapped(_itself, x), mapped(_itself, y))
                except PrecodeError:
                    raise
                except Exception as error:
                    raise UnsupportedError(
                        f"the outputs of single samples cannot be differentiated ({error}): take a method that does "
                        "without, such as 'hot-magnitude'"
                    ) from error
                rows, curvature = exact(rows.detach()), exact(curvature.detach())
                matrix = matrix + torch.einsum("noa,nop,npb->ab", rows, curvature, rows)
                count += samples(x)
        return matrix / count

    def _loss_at(self, network: nn.Module, output: torch.Tensor, y: Any) -> torch.Tensor:
        """The loss of one sample, by its output."""
        if self._loss is None:
            raise PrecodeValueError("a loss is needed: pass loss=")
        module = [network] if self._loss_takes_module else []
        loss: torch.Tensor = self._loss(output[None], y, *module)
        return loss.reshape(())

    def train(
        self,
        start: Tensors,
        masks: Tensors | None,
        first_epoch: int,
        end_epoch: int | None,
        snapshots: Sequence[int],
        rate: float,
    ) -> tuple[Tensors, list[Tensors], float]:
        """Trains a copy from other values; the values at its end and after the steps of the snapshots.

        Also the epochs that ran: those up to `end_epoch`, or to the end of a full training. The learning rate is `rate`
        times that of the optimizer.
        """
        asked = (masks is None, first_epoch, end_epoch, list(snapshots), rate)
        answer: tuple[Tensors, list[Tensors], float] = self._once(
            lambda: self._training(start, masks, first_epoch, end_epoch, snapshots, rate),
            [*start, *(masks or [])],
            *asked,
        )
        return answer

    def _training(
        self,
        start: Tensors,
        masks: Tensors | None,
        first_epoch: int,
        end_epoch: int | None,
        snapshots: Sequence[int],
        rate: float,
    ) -> tuple[Tensors, list[Tensors], float]:
        if self._train is not None and (first_epoch or snapshots or end_epoch is not None or rate != 1):
            raise UnsupportedError(HIDDEN)
        end = self.epochs if end_epoch is None else min(end_epoch, self.epochs)
        network = self._network(start, masks)
        named = self._named(masks)
        if masks is not None and self._batches is not None and not self._is_checked:
            with self._isolated():
                self._say(agreement.doubt(network, named, self._batches.first, self.randomness))
            self._is_checked = True
        kept = self.fit(network, range(first_epoch, end), snapshots, rate, named)
        values = self._values(network)
        self._check_finite(values, f"by the end of epoch {end}" if self._train is None else "in train=")
        empty = {name for name, mask in zip(self._prunable, masks or [], strict=masks is not None) if not mask.any()}
        trained = dict(zip(self._names, values, strict=True))
        self._check_collapsed({name: trained[name] for name in self._prunable if name not in empty})
        del network
        if masks is not None and sum(value.numel() for value in values) >= LARGE:
            gc.collect()  # torch's parametrized layers are in a reference cycle
        memory.trim()
        return self._out(values), kept, float(end - first_epoch)

    def dense_epochs(self) -> Iterator[Tensors]:
        """The values after each epoch of the dense training, which goes no further than they are asked for."""
        if self._train is not None:
            raise UnsupportedError(HIDDEN)
        with self._isolated(), torch.inference_mode(False), torch.enable_grad():
            self.randomness.reseed(Purpose.TRAINING)
            network = self._network([value for _, value, _ in self.parameters], None)
            optimizer = training.optimizer_of(network, self._optimizer)
        for epoch in range(self.epochs):
            with self._isolated(), torch.inference_mode(False), torch.enable_grad():
                for _ in self._steps(network, [epoch], optimizer):
                    pass
                values = self._values(network)
            self._check_finite(values, f"by the end of epoch {epoch + 1}")
            yield self._out(values)

    def _mean(
        self,
        batches: Iterable[tuple[Any, Any]],
        at: Iterable[torch.Tensor],
        parameters: list[str],
        temperature: float = 1.0,
        along: Mean | None = None,
    ) -> Mean:
        """The mean over the data of the gradient or, with `along`, of the Hessian times `along`.

        Both are with respect to the named parameters that are not frozen.
        """
        names = [name for name, slot in self._slots.items() if name in parameters and slot.parameter.requires_grad]
        leaves = [self._slots[name].parameter for name in names]
        trained = training.trainable(self._module)
        mean = Mean(names, leaves)
        with self._at(at):
            for x, y in batches:
                weight = self._data().weight(x, y)
                if not weight:
                    continue
                with torch.inference_mode(False), torch.enable_grad(), mean.batch(weight):
                    value = self._loss_of(self._module, x, y, temperature)
                    others = self._others(value, trained)
                    if along is None:
                        gradients.backward(value, trained, others)
                    else:
                        self._owns_functions |= gradients.has_own_functions(value)
                        gradients.curvature(value, mean, along)
                self._module.zero_grad()
                self._put_back()
        if not mean.total:
            raise PrecodeValueError("no batch of the data counts: every weight is 0, or every label is ignored")
        return mean

    def _filled(self, mean: Mean) -> Tensors:
        """The means of all parameters, zero where there is none."""
        return [
            mean.of(name) if name in mean.values else torch.zeros_like(slot.parameter)
            for name, slot in self._slots.items()
        ]


def _norm(tensors: Tensors) -> float:
    return math.sqrt(sum(float(exact(part).square().sum()) for tensor in tensors for (part,) in parts(tensor)))


def _digest(tensors: Tensors, *rest: Any) -> bytes:
    """A key of tensors' values and of what else there is."""
    digest = hashlib.blake2b(repr(rest).encode())
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(repr((values.dtype, tuple(values.shape))).encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _alone(x: Any) -> Any:
    """One sample as a batch."""
    return x[None] if isinstance(x, torch.Tensor) else mapped(_alone, x)


def _itself(x: Any) -> Any:
    return x


class _Call(nn.Module):
    """Calls a module with a batch of any form."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Any) -> Any:
        """What the module makes of the batch."""
        return call(self.network, x)
