"""What every contestant trains: the same data, initial weights, batches and update rule."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch

from precode import _precode
from precode._internal.errors import PrecodeValueError
from precode.formulas.datasets import Dataset
from precode.formulas.dnf import Dnf
from precode.networks.training import Optimizer, _optimizer, sample_all, train

SEED = 0
NETWORK_STEPS = 40_000
"""Most network-steps of a peer's unit of work, unless `CHECK_STEPS` steps are more."""
CHECK_STEPS = 8
"""Steps after which a peer's weights are compared with those of the fused engine."""
PROJECTION = re.compile(r"projection-([1-9]\d*)(-fixed)?")
"""Embeddings that give each network a C0 of its own; the number is that of its rows."""


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
        embedding: ``"identity"``; ``"projection-16"``, a C0 of 16 rows for each network, trained with the other
            weights; or ``"projection-16-fixed"``, the same but fixed. 16 may be any number of rows up to `variables`.
    """

    hidden: int = 32
    variables: int = 32
    clauses: int = 16
    batch: int = 64
    samples: int = 20_000
    optimizer: str = "adam"
    embedding: str = "identity"

    def __post_init__(self) -> None:
        if self.batch > self.samples:
            raise PrecodeValueError(
                f"batch = {self.batch} of {self.samples} samples: a step needs a full batch; use a smaller "
                f"batch or more samples"
            )
        if self.embedding == "identity":
            return
        if PROJECTION.fullmatch(self.embedding) is None:
            raise PrecodeValueError(
                f"embedding = {self.embedding!r} is not part of the benchmark: use identity, projection-16 or "
                "projection-16-fixed, or another number of rows"
            )
        if self.inputs > self.variables:
            raise PrecodeValueError(
                f"embedding = {self.embedding!r} of {self.variables} variables: a projection has at most as many rows"
            )

    def __str__(self) -> str:
        return (
            f"n = {self.variables}, j = {self.hidden}, C = {self.clauses}, batch {self.batch}, {self.optimizer}, "
            f"{self.embedding}"
        )

    @property
    def inputs(self) -> int:
        """Inputs of the first layer, m: the variables, or the rows of C0."""
        found = PROJECTION.fullmatch(self.embedding)
        return int(found[1]) if found else self.variables

    @property
    def trains_c0(self) -> bool:
        """Whether each network has a C0 that is trained."""
        return self.embedding != "identity" and not self.fixes_c0

    @property
    def fixes_c0(self) -> bool:
        """Whether each network has a C0 that stays as it is."""
        return self.embedding.endswith("-fixed")

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
        """Weights and biases of a network that are trained."""
        c0 = self.inputs * self.variables if self.trains_c0 else 0
        return c0 + self.hidden * (self.inputs + 1) + self.hidden + 1

    @property
    def state_bytes(self) -> int:
        """Bytes of a network's trained weights and its optimizer state."""
        return 4 * self.parameters * (1 if self.optimizer == "sgd" else 3)

    @property
    def flops(self) -> int:
        """Dense-equivalent operations of a network-step.

        Two for each multiply-add of W1 z, w2 h and of the gradients of W1, w2 and h, of z = C0 x where there is a C0,
        and of the gradients of z and C0 where it is trained, as if the inputs were dense; and for each parameter 12 of
        Adam, 13 of AdamW, 2 of SGD. Activations and the loss are not counted.
        """
        products = 2 * self.inputs * self.hidden + 3 * self.hidden
        if self.embedding != "identity":
            products += self.inputs * self.variables
        if self.trains_c0:
            products += self.inputs * (self.hidden + self.variables)
        return 2 * self.batch * products + {"adam": 12, "adamw": 13, "sgd": 2}[self.optimizer] * self.parameters


@dataclass(frozen=True)
class Problem:
    """What a peer is given. It puts its batches together itself: that is part of training.

    Attributes:
        rule: the update rule.
        start: initial weights that are trained: ``w1`` (R, j, m), ``b1`` (R, j), ``w2`` (R, j), ``b2`` (R,), and
            ``c0`` (R, m, n) if it is trained.
        x: inputs (samples, R, n), a byte each: a batch of all networks is a choice of whole rows. Behind a fixed C0,
            the embedded inputs (samples, R, m) as float32: a peer need not embed them at every step.
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
    def device(self) -> torch.device:
        """Where all its tensors are."""
        return self.x.device

    def to(self, device: torch.device) -> Problem:
        """The problem with its tensors on a device."""
        start = {name: tensor.to(device) for name, tensor in self.start.items()}
        return Problem(self.rule, start, self.x.to(device), self.y.to(device), self.order.to(device))

    @property
    def steps(self) -> int:
        """Steps of a unit of work."""
        return len(self.order)


class Workload:
    """The data and weights of a cell, for any number of networks; network i is the same in any number.

    Args:
        cell: the setting.
        device: where peers train, and the libtorch engine.
    """

    def __init__(self, cell: Cell, device: torch.device | None = None) -> None:
        self.cell = cell
        self.device = device or torch.device("cpu")
        self._sets: list[Dataset] = []
        self._problems: dict[int, Problem] = {}

    def task(self, index: int) -> Dnf:
        """The formula of a network."""
        return Dnf.random(variables=self.cell.variables, clauses=self.cell.clauses, seed=SEED, index=index)

    def sets(self, networks: int) -> list[Dataset]:
        """A data set for each network, drawn for a formula of its own."""
        if missing := range(len(self._sets), networks):
            tasks = [self.task(index) for index in missing]
            self._sets += sample_all(
                tasks, self.cell.samples, sampler="broken-clause", seed=SEED, indices=list(missing)
            )
        return self._sets[:networks]

    def start(self, networks: int) -> dict[str, torch.Tensor]:
        """Initial weights, those that `precode.train` draws; ``c0`` (R, m, n) among them where there is a C0."""
        cell = self.cell
        nothing = Dataset(torch.zeros(1, cell.variables, dtype=torch.bool), torch.zeros(1, dtype=torch.bool))
        runs = train(
            data=[nothing] * networks, hidden=cell.hidden, seed=SEED, embedding=cell.embedding, epochs=1, batch=1
        )
        return runs.start.weights

    def masks(self, networks: int, density: float) -> dict[str, torch.Tensor] | None:
        """Masks of W1 that keep a fraction of it, chosen at random for each network; None for the fraction 1."""
        if density == 1:
            return None
        cell = self.cell
        size = cell.hidden * cell.inputs
        kept = torch.rand(networks, size, generator=torch.Generator().manual_seed(SEED)).argsort(1)
        mask = torch.zeros(networks, size, dtype=torch.bool).scatter_(1, kept[:, : round(density * size)], True)
        return {"w1": mask.view(networks, cell.hidden, cell.inputs)}

    def problem(self, networks: int) -> Problem:
        """The data of some networks, and the order of an epoch of full batches, or of its first `NETWORK_STEPS`.

        It is made once for all peers, which only read it.
        """
        if networks not in self._problems:
            self._problems[networks] = self._problem(networks).to(self.device)
        return self._problems[networks]

    def _problem(self, networks: int) -> Problem:
        cell = self.cell
        steps = min(cell.full_steps, max(CHECK_STEPS, NETWORK_STEPS // networks))
        order = _precode.epoch_order(SEED, 0, cell.samples)[: steps * cell.batch].astype(np.int64)
        start = self.start(networks)
        c0 = start.pop("c0") if cell.fixes_c0 else None
        x = torch.empty(
            cell.samples,
            networks,
            cell.inputs if cell.fixes_c0 else cell.variables,
            dtype=torch.uint8 if c0 is None else torch.float32,
        )
        y = torch.empty(cell.samples, networks, dtype=torch.uint8)
        for network, data in enumerate(self.sets(networks)):
            x[:, network] = data.x if c0 is None else data.x.float() @ c0[network].T
            y[:, network] = data.y
        visited = torch.from_numpy(order).view(steps, cell.batch)
        return Problem(cell.rule, start, x, y, visited)
