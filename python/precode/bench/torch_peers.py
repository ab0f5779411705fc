"""Peers in PyTorch: the loop of any tutorial, and all networks at once, plain and compiled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType

import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from precode.bench.trainers import Shuffle, Tensors, Trainer, scales
from precode.bench.workload import Problem
from precode.networks.training import Optimizer

NAMES = {"c0.weight": "c0", "first.weight": "w1", "first.bias": "b1", "second.weight": "w2", "second.bias": "b2"}
"""Parameters of the modules, and their names in the start."""


def modules(problem: Problem) -> list[nn.Sequential]:
    """One PyTorch module for each network, with its initial weights."""
    start = problem.start
    hidden, inputs = start["w1"].shape[1:]
    made = []
    for network in range(problem.networks):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if "c0" in start:
            layers["c0"] = nn.Linear(start["c0"].shape[2], inputs, bias=False)
        layers["first"] = nn.Linear(inputs, hidden)
        layers["rectifier"] = nn.ReLU()
        layers["second"] = nn.Linear(hidden, 1)
        module = nn.Sequential(layers).to(problem.device)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(start[NAMES[name]][network].view_as(parameter))
        made.append(module)
    return made


def as_start(parameters: Tensors, problem: Problem) -> Tensors:
    """The stacked parameters of the modules with the names and shapes of the start."""
    return {NAMES[name]: tensor.view_as(problem.start[NAMES[name]]) for name, tensor in parameters.items()}


class TorchLoop(Trainer):
    """The loop of any tutorial: one module and one optimizer after the other."""

    def __init__(self, problem: Problem, *, shuffled: bool = False) -> None:
        super().__init__(problem, shuffled=shuffled)
        self._data = [
            (x.contiguous(), y.contiguous())
            for x, y in zip(problem.x.float().unbind(1), problem.y.float().unbind(1), strict=True)
        ]
        self._shuffles = [Shuffle(data, problem.order) for data in self._data] if shuffled else []

    def reset(self) -> None:
        """New modules and optimizers."""
        rule = self.problem.rule
        self._modules = modules(self.problem)
        self._optimizers: list[torch.optim.Optimizer] = []
        for module in self._modules:
            parameters = module.parameters()
            if rule.rule == "sgd":
                optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=rule.lr)
            else:
                kind = torch.optim.Adam if rule.rule == "adam" else torch.optim.AdamW
                optimizer = kind(parameters, lr=rule.lr, betas=rule.betas, eps=rule.eps, weight_decay=rule.weight_decay)
            self._optimizers.append(optimizer)

    def train(self, steps: int) -> None:
        """All steps of one network, then of the next."""
        criterion = nn.BCEWithLogitsLoss()
        for network, (module, optimizer) in enumerate(zip(self._modules, self._optimizers, strict=True)):
            for x, y in self._batches(network, steps):
                optimizer.zero_grad()
                loss = criterion(module(x)[:, 0], y)
                loss.backward()
                optimizer.step()

    def _batches(self, network: int, steps: int) -> Iterator[tuple[torch.Tensor, ...]]:
        if self.shuffled:
            return zip(*self._shuffles[network].of(steps), strict=True)
        return (tuple(data[samples] for data in self._data[network]) for samples in self.problem.order[:steps])

    def weights(self) -> Tensors:
        """The modules' weights, stacked."""
        states = [module.state_dict() for module in self._modules]
        return as_start({key: torch.stack([state[key] for state in states]) for key in states[0]}, self.problem)


class Batches:
    """The batches of all networks as float32, networks first: inputs (R, batch, n) and labels (R, batch).

    Arranging a batch like this and then taking the compiled step takes less time than leaving both to compiled code.

    Args:
        problem: whose samples they are.
        shuffled: arrange all of them before the first step, rather than each at its step.
    """

    def __init__(self, problem: Problem, shuffled: bool) -> None:
        self._problem, self._shuffled = problem, shuffled
        shape = problem.steps if shuffled else 1, problem.networks, problem.order.shape[1]
        # They are written to the same places every time: new memory would cost as much as arranging them.
        device = problem.device
        self._places = torch.empty(*shape, problem.x.shape[2], device=device), torch.empty(shape, device=device)

    def _arranged(self, step: int, place: int) -> list[torch.Tensor]:
        data, samples = (self._problem.x, self._problem.y), self._problem.order[step]
        return [
            places[place].copy_(item.index_select(0, samples).transpose(0, 1))
            for places, item in zip(self._places, data, strict=True)
        ]

    def of(self, steps: int) -> Iterator[list[torch.Tensor]]:
        """Inputs and labels of each of the first `steps` steps; those of a step last until the next is asked for."""
        if self._shuffled:
            return iter([self._arranged(step, step) for step in range(steps)])
        return (self._arranged(step, 0) for step in range(steps))


class TorchVmap(Trainer):
    """`torch.func.vmap` over the gradient of one network, and an optimizer on the stacked parameters."""

    def __init__(self, problem: Problem, *, shuffled: bool = False) -> None:
        super().__init__(problem, shuffled=shuffled)
        template = modules(problem)[0].to("meta")

        def loss(parameters: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            logits = functional_call(template, parameters, (x,))[:, 0]
            return nn.functional.binary_cross_entropy_with_logits(logits, y)

        self._gradients: Callable[[Tensors, torch.Tensor, torch.Tensor], Tensors] = vmap(grad(loss), in_dims=(0, 0, 0))
        self._update = update_function(problem.rule)
        self._start: Tensors = {
            name: tensor.detach() for name, tensor in stack_module_state(modules(problem))[0].items()
        }
        count = 0 if problem.rule.rule == "sgd" else 2
        self._parameters = {name: torch.empty_like(tensor) for name, tensor in self._start.items()}
        self._moments = [{name: torch.empty_like(tensor) for name, tensor in self._start.items()} for _ in range(count)]
        self._batches = Batches(problem, shuffled)
        # The step's bias corrections are tensors, so that compiled code serves every step.
        self._scales = torch.tensor(
            [scales(problem.rule, step) for step in range(1, problem.steps + 1)],
            dtype=torch.float32,
            device=problem.device,
        ).unbind()

    def reset(self) -> None:
        """Back to the start, in the same places: a captured graph reads and writes there."""
        for name, tensor in self._start.items():
            self._parameters[name].copy_(tensor)
            for moment in self._moments:
                moment[name].zero_()

    def step(self, parameters: Tensors, moments: list[Tensors], batch: tuple[torch.Tensor, ...]) -> None:
        """One step of all networks, in place."""
        x, y, scale = batch
        gradients = self._gradients(parameters, x, y)
        for name, gradient in gradients.items():
            self._update(parameters[name], [moment[name] for moment in moments], gradient, scale)

    def train(self, steps: int) -> None:
        """Step by step, all networks at once."""
        with torch.no_grad():
            for (x, y), scale in zip(self._batches.of(steps), self._scales, strict=False):
                self.step(self._parameters, self._moments, (x, y, scale))

    def weights(self) -> Tensors:
        """The stacked parameters."""
        return as_start(self._parameters, self.problem)


def update_function(
    rule: Optimizer,
) -> Callable[[torch.Tensor, list[torch.Tensor], torch.Tensor, torch.Tensor], None]:
    """The update of one tensor in place, with the formulas of `torch.optim`."""

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
    """`TorchVmap` with a whole step, gradients and update, compiled into one graph.

    On a GPU the graph is captured and replayed (``mode="reduce-overhead"``): launching its kernels one by one takes
    longer than computing them.
    """

    def __init__(self, problem: Problem, *, shuffled: bool = False) -> None:
        super().__init__(problem, shuffled=shuffled)
        # torch keeps few compiled forms of one code object, so every trainer compiles a copy of its own.
        step = TorchVmap.step
        copy = FunctionType(step.__code__.replace(), step.__globals__, closure=step.__closure__)
        captured = problem.device.type == "cuda"
        if captured:
            # Their places stay the same, so that a captured graph may write to them.
            for tensors in (self._parameters, *self._moments):
                for tensor in tensors.values():
                    torch._dynamo.mark_static_address(tensor)
        mode = "reduce-overhead" if captured else "default"
        self.step = torch.compile(  # type: ignore[method-assign]
            MethodType(copy, self), fullgraph=True, dynamic=False, mode=mode
        )
