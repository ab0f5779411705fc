"""What a peer is: a way to train the networks of a problem, with its batches and the constants of its update rule."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from precode._internal.errors import UnsupportedError
from precode.bench.workload import Cell, Problem
from precode.networks.training import Optimizer

Tensors: TypeAlias = dict[str, torch.Tensor]
SIZES = (1, 16, 128, 512)
"""Numbers of networks at once among which a peer's best is looked for."""


class Trainer(ABC):
    """Trains the networks of a problem, again and again from the same start.

    Args:
        problem: what to train.
        shuffled: put all samples in the order of the steps first and cut batches from them; otherwise each step gathers
            its batch by the numbers of its samples. Both are done by `train`, and visit the same samples.

    Raises:
        UnsupportedError: the update rule has momentum or an L2 penalty, which are not part of the benchmark.
    """

    def __init__(self, problem: Problem, *, shuffled: bool = False) -> None:
        rule = problem.rule
        if rule.momentum or (rule.weight_decay and rule.rule != "adamw"):
            raise UnsupportedError(
                f"momentum = {rule.momentum} and weight_decay = {rule.weight_decay} with {rule.rule!r} are not part of "
                "the benchmark: leave both at 0"
            )
        self.problem = problem
        self.shuffled = shuffled

    @abstractmethod
    def reset(self) -> None:
        """Goes back to the start; not timed."""

    @abstractmethod
    def train(self, steps: int) -> None:
        """Takes the first `steps` steps of the problem, which a GPU may still be at when it returns."""

    @abstractmethod
    def weights(self) -> Tensors:
        """Weights with the names and shapes of the start."""


@dataclass(frozen=True)
class Peer:
    """A way to train.

    Attributes:
        name: as printed.
        trainer: makes a trainer from a problem.
        package: what must be importable.
        install: the command that installs it.
        sizes: numbers of networks at once to try.
        level: instructions it uses, where it says so.
        item_bytes: bytes in which it keeps an input and a label.
        copy_bytes: bytes in which it keeps an input and a label once more in the order of the steps, 0 if it does not.
    """

    name: str
    trainer: Callable[..., Trainer]
    package: str = "torch"
    install: str = "pip install 'precode[bench]'"
    sizes: tuple[int, ...] = SIZES
    level: Callable[[], str | None] = lambda: torch.backends.cpu.get_cpu_capability().lower()
    item_bytes: int = 1
    copy_bytes: int = 0

    def kept_bytes(self, cell: Cell) -> int:
        """Bytes that the training of a network must keep: weights, optimizer state, data."""

        def sample(item: int) -> int:
            return (4 * cell.inputs if cell.fixes_c0 else item * cell.variables) + item

        copy = sample(self.copy_bytes) if self.copy_bytes else 0
        return cell.state_bytes + cell.samples * (sample(self.item_bytes) + copy)


class Shuffle:
    """Puts samples in the order of the steps, so that each batch is a slice.

    Args:
        data: tensors with samples first.
        order: numbers of the samples of each step, (steps, batch).
    """

    def __init__(self, data: Sequence[torch.Tensor], order: torch.Tensor) -> None:
        self._data, self._order = data, order
        # They are written to the same place every time: new memory would cost as much as the shuffle.
        self._places = [item.new_empty(order.numel(), *item.shape[1:]) for item in data]

    def of(self, steps: int) -> list[torch.Tensor]:
        """The samples of the first `steps` steps of each tensor, (steps, batch, ...)."""
        samples = self._order[:steps]
        return [
            torch.index_select(item, 0, samples.flatten(), out=place[: samples.numel()]).view(
                *samples.shape, *item.shape[1:]
            )
            for item, place in zip(self._data, self._places, strict=True)
        ]


def scales(rule: Optimizer, step: int) -> tuple[float, float]:
    """The rate of a step and the factor on the root of the second moment: bias corrections of Adam."""
    if rule.rule == "sgd":
        return rule.lr, 1.0
    return rule.lr / (1 - rule.betas[0] ** step), 1 / math.sqrt(1 - rule.betas[1] ** step)
