"""What every contestant trains: the same data, initial weights, batches and update rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from precode import _precode
from precode._internal.errors import PrecodeValueError
from precode.formulas.datasets import Dataset
from precode.formulas.dnf import Dnf
from precode.networks.stacks import named
from precode.networks.training import Optimizer, _optimizer, sample_all

SEED = 0
NETWORK_STEPS = 40_000
"""Most network-steps of a peer's unit of work, unless `CHECK_STEPS` steps are more."""
CHECK_STEPS = 8
"""Steps after which a peer's weights are compared with those of the fused engine."""


@dataclass(frozen=True)
class Cell:
    """One setting to measure.

    Attributes:
        hidden: width of the hidden layer, j.
        variables: Boolean inputs, n.
        clauses: clauses of every network's formula, C.
        batch: samples a step.
        samples: samples of every network.
        optimizer: ``"adam"``, ``"adamw"`` or ``"sgd"``, with the defaults of `precode.train`.
    """

    hidden: int = 32
    variables: int = 32
    clauses: int = 16
    batch: int = 64
    samples: int = 20_000
    optimizer: str = "adam"

    def __post_init__(self) -> None:
        if self.batch > self.samples:
            raise PrecodeValueError(
                f"batch = {self.batch} of {self.samples} samples: a step needs a full batch; use a smaller "
                f"batch or more samples"
            )

    @property
    def rule(self) -> Optimizer:
        """The update rule with its constants."""
        return _optimizer(self.optimizer, None)

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch; the last may be of fewer samples."""
        return -(-self.samples // self.batch)

    @property
    def full_steps(self) -> int:
        """Steps of an epoch that are of full batches."""
        return self.samples // self.batch

    @property
    def parameters(self) -> int:
        """Weights and biases of a network."""
        return self.hidden * (self.variables + 1) + self.hidden + 1

    @property
    def flops(self) -> int:
        """Dense-equivalent operations of a network-step.

        Two for each multiply-add of W1 x, w2 h and of the gradients of W1, w2 and h, as if the inputs were dense; and
        for each parameter 12 of Adam, 13 of AdamW, 2 of SGD. Activations and the loss are not counted.
        """
        products = 2 * self.variables * self.hidden + 3 * self.hidden
        return 2 * self.batch * products + {"adam": 12, "adamw": 13, "sgd": 2}[self.optimizer] * self.parameters


@dataclass(frozen=True)
class Problem:
    """What a peer is given. It gathers its batches itself: that is part of training.

    Attributes:
        rule: the update rule.
        start: initial weights ``w1`` (R, j, n), ``b1`` (R, j), ``w2`` (R, j), ``b2`` (R,).
        x: inputs, a byte each, (samples, R, n): a batch of all networks is a choice of whole rows.
        y: labels, a byte each, (samples, R).
        order: numbers of the samples of each step, (steps, batch); the same for all networks.
    """

    rule: Optimizer
    start: dict[str, torch.Tensor]
    x: torch.Tensor
    y: torch.Tensor
    order: torch.Tensor

    @property
    def networks(self) -> int:
        """R."""
        return self.x.shape[1]

    @property
    def steps(self) -> int:
        """Steps of a unit of work."""
        return len(self.order)


class Workload:
    """The data and weights of a cell, for any number of networks; network i is the same in any number."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self._sets: list[Dataset] = []

    def sets(self, networks: int) -> list[Dataset]:
        """A data set for each network, drawn for a formula of its own."""
        cell = self.cell
        if missing := range(len(self._sets), networks):
            tasks = [
                Dnf.random(variables=cell.variables, clauses=cell.clauses, seed=SEED, index=index) for index in missing
            ]
            self._sets += sample_all(tasks, cell.samples, sampler="broken-clause", seed=SEED, indices=list(missing))
        return self._sets[:networks]

    def start(self, networks: int) -> dict[str, torch.Tensor]:
        """Initial weights, PyTorch's of ``nn.Linear``."""
        return named(_precode.linear_init([self.cell.variables, self.cell.hidden, 1], SEED, list(range(networks))))

    def problem(self, networks: int) -> Problem:
        """The data of some networks, and the order of an epoch of full batches, or of its first `NETWORK_STEPS`."""
        cell = self.cell
        steps = min(cell.full_steps, max(CHECK_STEPS, NETWORK_STEPS // networks))
        order = _precode.epoch_order(SEED, 0, cell.samples)[: steps * cell.batch].astype(np.int64)
        x = torch.empty(cell.samples, networks, cell.variables, dtype=torch.uint8)
        y = torch.empty(cell.samples, networks, dtype=torch.uint8)
        for network, data in enumerate(self.sets(networks)):
            x[:, network], y[:, network] = data.x, data.y
        visited = torch.from_numpy(order).view(steps, cell.batch)
        return Problem(cell.rule, self.start(networks), x, y, visited)
