"""The peer in JAX: the training of one network as one compiled loop, mapped over networks."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from precode.bench.machine import wait
from precode.bench.trainers import Shuffle, Tensors, Trainer, scales
from precode.bench.workload import Problem
from precode.networks.training import Optimizer


class Jax(Trainer):
    """`jax.jit` of `jax.vmap` of one network's training, a `jax.lax.scan` over its steps.

    Shuffled, the batches are put together by torch, which is faster than XLA, and the scan takes one after the other;
    otherwise the scan gathers each batch by the numbers of its samples.
    """

    def __init__(self, problem: Problem, *, shuffled: bool = False) -> None:
        super().__init__(problem, shuffled=shuffled)
        jax: Any = importlib.import_module("jax")
        self._jax = jax
        self._device = jax.devices(problem.device.type)[problem.device.index or 0]
        step = _step(jax, problem.rule)

        def train(carry: Any, x: Any, y: Any, *shared: Any) -> Any:
            return jax.lax.scan(step, carry, (x, y, *shared))[0]

        def train_gathering(carry: Any, x: Any, y: Any, order: Any, *shared: Any) -> Any:
            def gather(carry: Any, item: Any) -> Any:
                samples, *others = item
                batch = (data.at[samples].get(mode="promise_in_bounds") for data in (x, y))
                return step(carry, (*batch, *others))

            return jax.lax.scan(gather, carry, (order, *shared))[0]

        with jax.default_device(self._device):
            asarray = jax.numpy.asarray
            rates, factors = zip(*(scales(problem.rule, step + 1) for step in range(problem.steps)), strict=True)
            self._scales = asarray(rates, dtype="float32"), asarray(factors, dtype="float32")
            if shuffled:
                self._shuffle = Shuffle((problem.x, problem.y), problem.order)
                # All networks share the scales. In the batches networks come third, after steps and samples.
                self._train = jax.jit(jax.vmap(train, in_axes=(0, 2, 2, None, None)))
            else:
                self._data = [asarray(data.cpu().numpy()) for data in (problem.x, problem.y)]
                self._order = asarray(problem.order.cpu().numpy().astype(np.int32))
                self._train = jax.jit(jax.vmap(train_gathering, in_axes=(0, 1, 1, None, None, None)))

    def reset(self) -> None:
        """Places the start and zero moments on the device."""
        jax = self._jax
        with jax.default_device(self._device):
            start = {name: jax.numpy.asarray(tensor.cpu().numpy()) for name, tensor in self.problem.start.items()}
            zeros = jax.tree_util.tree_map(jax.numpy.zeros_like, start)
            self._carry = (start, zeros, zeros)

    def train(self, steps: int) -> None:
        """All steps of all networks in one call."""
        # A GPU multiplies in TF32 unless told otherwise: the other contestants compute in float32.
        with self._jax.default_device(self._device), self._jax.default_matmul_precision("float32"):
            shared = [array[:steps] for array in self._scales]
            if self.shuffled:
                data = [self._array(item) for item in self._shuffle.of(steps)]
            else:
                data = [*self._data, self._order[:steps]]
            self._carry = self._jax.block_until_ready(self._train(self._carry, *data, *shared))

    def _array(self, item: torch.Tensor) -> Any:
        """A tensor as an array of JAX, on the GPU without a copy."""
        if item.device.type == "cpu":
            return self._jax.numpy.asarray(item.numpy())
        wait(item.device)
        return self._jax.numpy.from_dlpack(item)

    def weights(self) -> Tensors:
        """Copies as tensors."""
        return {name: torch.from_numpy(np.array(array)) for name, array in self._carry[0].items()}


def _step(jax: Any, rule: Optimizer) -> Any:
    """One step of one network, as `jax.lax.scan` takes it."""
    jnp, tree = jax.numpy, jax.tree_util.tree_map

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        z = x @ parameters["c0"].T if "c0" in parameters else x
        hidden = jax.nn.relu(z @ parameters["w1"].T + parameters["b1"])
        logits = hidden @ parameters["w2"] + parameters["b2"]
        return (jax.nn.softplus(logits) - logits * y).mean()

    def update(weight: Any, first: Any, second: Any, rate: Any, factor: Any) -> Any:
        return (1 - rule.lr * rule.weight_decay) * weight - rate * first / (jnp.sqrt(second) * factor + rule.eps)

    def step(carry: Any, batch: Any) -> Any:
        parameters, first, second = carry
        x, y, rate, factor = batch
        gradients = jax.grad(loss)(parameters, x.astype("float32"), y.astype("float32"))
        if rule.rule == "sgd":
            return (tree(lambda w, g: w - rate * g, parameters, gradients), first, second), None
        (beta1, beta2) = rule.betas
        first = tree(lambda m, g: beta1 * m + (1 - beta1) * g, first, gradients)
        second = tree(lambda v, g: beta2 * v + (1 - beta2) * g * g, second, gradients)
        parameters = tree(lambda w, m, v: update(w, m, v, rate, factor), parameters, first, second)
        return (parameters, first, second), None

    return step
