"""Other ways to train many small networks: each the best we know to write with its library."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from precode._internal.errors import UnsupportedError
from precode.bench.workload import Problem
from precode.networks.training import Optimizer

Tensors = dict[str, torch.Tensor]
SIZES = (1, 16, 128, 512)
"""Numbers of networks at once among which a peer's best is looked for."""


class Trainer(ABC):
    """Trains the networks of a problem, again and again from the same start."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @abstractmethod
    def reset(self) -> None:
        """Goes back to the start; not timed."""

    @abstractmethod
    def train(self, steps: int) -> None:
        """Takes the first `steps` steps of the problem and waits until they are done."""

    @abstractmethod
    def weights(self) -> Tensors:
        """Weights with the names and shapes of the start."""


@dataclass(frozen=True)
class Peer:
    """A way to train.

    Attributes:
        name: as printed.
        trainer: makes a trainer for a problem.
        package: what must be importable.
        install: the command that installs it.
        sizes: numbers of networks at once to try.
        level: instructions it uses, where it says so.
        item_bytes: bytes in which it keeps an input.
    """

    name: str
    trainer: Callable[[Problem], Trainer]
    package: str = "torch"
    install: str = "pip install 'precode[bench]'"
    sizes: tuple[int, ...] = SIZES
    level: Callable[[], str | None] = lambda: torch.backends.cpu.get_cpu_capability().lower()
    item_bytes: int = 1


def modules(problem: Problem) -> list[nn.Sequential]:
    """One PyTorch module for each network, with its initial weights."""
    start = problem.start
    made = []
    for network in range(problem.networks):
        hidden, variables = start["w1"].shape[1:]
        first, second = nn.Linear(variables, hidden), nn.Linear(hidden, 1)
        with torch.no_grad():
            first.weight.copy_(start["w1"][network])
            first.bias.copy_(start["b1"][network])
            second.weight.copy_(start["w2"][network, None])
            second.bias.copy_(start["b2"][network, None])
        made.append(nn.Sequential(first, nn.ReLU(), second))
    return made


class TorchLoop(Trainer):
    """The loop of any tutorial: one module and one optimizer after the other."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._x, self._y = problem.x.float().transpose(0, 1), problem.y.float().transpose(0, 1)
        self._x, self._y = self._x.contiguous(), self._y.contiguous()

    def reset(self) -> None:
        """New modules and optimizers."""
        rule = self.problem.rule
        self._modules = modules(self.problem)
        self._optimizers: list[torch.optim.Optimizer] = []
        for module in self._modules:
            parameters = module.parameters()
            if rule.rule == "sgd":
                optimizer: torch.optim.Optimizer = torch.optim.SGD(
                    parameters, lr=rule.lr, momentum=rule.momentum, weight_decay=rule.weight_decay
                )
            else:
                kind = torch.optim.Adam if rule.rule == "adam" else torch.optim.AdamW
                optimizer = kind(parameters, lr=rule.lr, betas=rule.betas, eps=rule.eps, weight_decay=rule.weight_decay)
            self._optimizers.append(optimizer)

    def train(self, steps: int) -> None:
        """All steps of one network, then of the next."""
        criterion = nn.BCEWithLogitsLoss()
        for x, y, module, optimizer in zip(self._x, self._y, self._modules, self._optimizers, strict=True):
            for batch in self.problem.order[:steps]:
                optimizer.zero_grad()
                loss = criterion(module(x[batch])[:, 0], y[batch])
                loss.backward()
                optimizer.step()

    def weights(self) -> Tensors:
        """The modules' weights, stacked."""
        states = [module.state_dict() for module in self._modules]
        return unnamed({key: torch.stack([state[key] for state in states]) for key in states[0]})


def unnamed(parameters: Tensors) -> Tensors:
    """The stacked parameters of the modules under the names of the start."""
    return {
        "w1": parameters["0.weight"],
        "b1": parameters["0.bias"],
        "w2": parameters["2.weight"][:, 0],
        "b2": parameters["2.bias"][:, 0],
    }


class TorchVmap(Trainer):
    """`torch.func.vmap` over the gradient of one network, and an optimizer on the stacked parameters."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        template = modules(problem)[0].to("meta")

        def loss(parameters: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            logits = functional_call(template, parameters, (x,))[:, 0]
            return nn.functional.binary_cross_entropy_with_logits(logits, y)

        self._gradients: Callable[[Tensors, torch.Tensor, torch.Tensor], Tensors] = vmap(grad(loss), in_dims=(0, 1, 1))
        self._update = update_function(problem.rule)
        # The step's bias corrections are tensors, so that compiled code serves every step.
        self._scales = torch.tensor(
            [scales(problem.rule, step) for step in range(1, problem.steps + 1)], dtype=torch.float32
        ).unbind()

    def reset(self) -> None:
        """Stacks fresh modules."""
        parameters, _ = stack_module_state(modules(self.problem))
        self._parameters: Tensors = {name: tensor.detach().clone() for name, tensor in parameters.items()}
        count = 0 if self.problem.rule.rule == "sgd" else 2
        self._moments = [
            {name: torch.zeros_like(tensor) for name, tensor in self._parameters.items()} for _ in range(count)
        ]

    def step(self, parameters: Tensors, moments: list[Tensors], batch: tuple[torch.Tensor, ...]) -> None:
        """One step of all networks, in place."""
        x, y, scale = batch
        gradients = self._gradients(parameters, x.float(), y.float())
        for name, gradient in gradients.items():
            self._update(parameters[name], [moment[name] for moment in moments], gradient, scale)

    def train(self, steps: int) -> None:
        """Step by step, all networks at once."""
        x, y = self.problem.x, self.problem.y
        with torch.no_grad():
            for samples, scale in zip(self.problem.order[:steps], self._scales, strict=False):
                batch = (x.index_select(0, samples), y.index_select(0, samples), scale)
                self.step(self._parameters, self._moments, batch)

    def weights(self) -> Tensors:
        """The stacked parameters."""
        return unnamed(self._parameters)


def scales(rule: Optimizer, step: int) -> tuple[float, float]:
    """The rate of a step and the factor on the root of the second moment: bias corrections of Adam."""
    if rule.rule == "sgd":
        return rule.lr, 1.0
    return rule.lr / (1 - rule.betas[0] ** step), 1 / math.sqrt(1 - rule.betas[1] ** step)


def update_function(
    rule: Optimizer,
) -> Callable[[torch.Tensor, list[torch.Tensor], torch.Tensor, torch.Tensor], None]:
    """The update of one tensor in place, with the formulas of `torch.optim`.

    Raises:
        UnsupportedError: the rule has momentum or an L2 penalty, which are not part of the benchmark.
    """
    if rule.momentum or (rule.weight_decay and rule.rule != "adamw"):
        raise UnsupportedError(
            f"momentum = {rule.momentum} and weight_decay = {rule.weight_decay} with {rule.rule!r} are not part of the "
            "benchmark: leave both at 0"
        )

    def sgd(weight: torch.Tensor, moments: list[torch.Tensor], gradient: torch.Tensor, scale: torch.Tensor) -> None:
        weight.sub_(gradient * scale[0])

    def adam(weight: torch.Tensor, moments: list[torch.Tensor], gradient: torch.Tensor, scale: torch.Tensor) -> None:
        first, second = moments
        if rule.weight_decay:
            weight.mul_(1 - rule.lr * rule.weight_decay)
        first.lerp_(gradient, 1 - rule.betas[0])
        second.mul_(rule.betas[1]).addcmul_(gradient, gradient, value=1 - rule.betas[1])
        denominator = second.sqrt().mul_(scale[1]).add_(rule.eps)
        weight.sub_((first / denominator).mul_(scale[0]))

    return sgd if rule.rule == "sgd" else adam


class TorchCompile(TorchVmap):
    """`TorchVmap` with a whole step, gradients and update, compiled into one graph."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        # torch keeps few compiled forms of one code object, so every trainer compiles a copy of its own.
        step = TorchVmap.step
        copy = FunctionType(step.__code__.replace(), step.__globals__, closure=step.__closure__)
        self.step = torch.compile(  # type: ignore[method-assign]
            MethodType(copy, self), fullgraph=True, dynamic=False
        )


class Jax(Trainer):
    """`jax.jit` of `jax.vmap` of one network's training, a `jax.lax.scan` over its steps."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        jax: Any = importlib.import_module("jax")
        self._jax = jax
        self._device = jax.devices("cpu")[0]
        jnp, rule = jax.numpy, problem.rule
        adaptive = rule.rule != "sgd"

        def loss(parameters: Any, x: Any, y: Any) -> Any:
            hidden = jax.nn.relu(x @ parameters["w1"].T + parameters["b1"])
            logits = hidden @ parameters["w2"] + parameters["b2"]
            return (jax.nn.softplus(logits) - logits * y).mean()

        def update(weight: Any, first: Any, second: Any, rate: Any, factor: Any) -> Any:
            return (1 - rule.lr * rule.weight_decay) * weight - rate * first / (jnp.sqrt(second) * factor + rule.eps)

        def step(carry: Any, batch: Any) -> Any:
            parameters, first, second = carry
            x, y, rate, factor = batch
            gradients = jax.grad(loss)(parameters, x.astype("float32"), y.astype("float32"))
            tree = jax.tree_util.tree_map
            if not adaptive:
                return (tree(lambda w, g: w - rate * g, parameters, gradients), first, second), None
            (beta1, beta2) = rule.betas
            first = tree(lambda m, g: beta1 * m + (1 - beta1) * g, first, gradients)
            second = tree(lambda v, g: beta2 * v + (1 - beta2) * g * g, second, gradients)
            parameters = tree(lambda w, m, v: update(w, m, v, rate, factor), parameters, first, second)
            return (parameters, first, second), None

        def train(carry: Any, x: Any, y: Any, rates: Any, factors: Any) -> Any:
            return jax.lax.scan(step, carry, (x, y, rates, factors))[0]

        # All networks share the scales. In the batches networks come third, after steps and samples.
        self._train = jax.jit(jax.vmap(train, in_axes=(0, 2, 2, None, None)))
        with jax.default_device(self._device):
            rates, factors = zip(*(scales(rule, step + 1) for step in range(problem.steps)), strict=True)
            self._scales = jnp.asarray(rates, dtype="float32"), jnp.asarray(factors, dtype="float32")

    def reset(self) -> None:
        """Places the start and zero moments on the device."""
        jax = self._jax
        with jax.default_device(self._device):
            start = {name: jax.numpy.asarray(tensor.numpy()) for name, tensor in self.problem.start.items()}
            zeros = jax.tree_util.tree_map(jax.numpy.zeros_like, start)
            self._carry = (start, zeros, zeros)

    def train(self, steps: int) -> None:
        """All steps of all networks in one call; torch gathers the batches, which is faster than XLA's gather."""
        order = self.problem.order[:steps]
        x, y = (data.index_select(0, order.flatten()).numpy() for data in (self.problem.x, self.problem.y))
        batches = [array.reshape(*order.shape, *array.shape[1:]) for array in (x, y)]
        with self._jax.default_device(self._device):
            arguments = [self._jax.numpy.asarray(array) for array in batches]
            scales = [array[:steps] for array in self._scales]
            self._carry = self._jax.block_until_ready(self._train(self._carry, *arguments, *scales))

    def weights(self) -> Tensors:
        """Copies as tensors."""
        numpy = importlib.import_module("numpy")
        return {name: torch.from_numpy(numpy.array(array)) for name, array in self._carry[0].items()}


PEERS = (
    Peer("torch loop", TorchLoop, sizes=(1,), item_bytes=4),
    Peer("torch.func.vmap", TorchVmap),
    # One network at a time is far from its best, and compiling takes long.
    Peer("torch.compile(vmap)", TorchCompile, sizes=SIZES[1:]),
    Peer("jax jit(vmap(scan))", Jax, package="jax", level=lambda: None),
)
"""The peers of the benchmark."""
