"""The steps that optimizers take with the parameters of a module, counted while a user's own loop trains."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from precode._internal.errors import PrecodeValueError
from precode.tickets import masked

Own = TypeVar("Own", bound="Steps")


class Steps:
    """Counts optimizer steps within a ``with`` block.

    A step is a round in which no parameter of the module is updated twice: two optimizers with a part of the parameters
    each make one step together. Optimizers of other modules do not count, nor
    parameters that the module gets within the block.

    Attributes:
        steps: how many there have been.
    """

    def __init__(self, module: nn.Module) -> None:
        masked.check_module(module)
        self._module = masked.unwrapped(module)
        self.steps = 0
        self._parameters: set[int] = set()  # walking through a module takes longer than many a step
        self._updated: set[int] = set()
        self._handles: list[RemovableHandle] = []
        self._is_left = False

    def __enter__(self: Own) -> Own:
        if self._handles:
            raise PrecodeValueError(f"this {type(self).__name__} is in use already: make another one")
        self._parameters = {id(parameter) for parameter in self._module.parameters()}
        self._is_left = False
        self.begin()
        before, after = map(torch.compiler.disable, (self._before, self._after))
        self._handles = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._handles:  # never entered, as where a training fails before it begins
            return
        for handle in self._handles:
            handle.remove()
        self._handles, self._updated, self._is_left = [], set(), True
        self.end()

    def begin(self) -> None:
        """What is done when the block is entered; for loops that call `step` instead of using a block."""

    def step(self) -> None:
        """Counts a step that was just made, where it is not counted by itself.

        Raises:
            PrecodeValueError: its block was left.
        """
        if self._is_left:
            raise PrecodeValueError(f"the block of this {type(self).__name__} was left: enter it again to go on")
        self._stepped()
        self._round_ended()

    def end(self) -> None:
        """What is done when the block is left, by an exception too; for loops that call `step`."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, in numbers, strings and tensors."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.steps = state["steps"]

    def _counted(self) -> None:
        """Called after the first update of each step."""

    def _round_ended(self) -> None:
        """Called before the first update of the next step, when all optimizers have made theirs."""

    def _stepped(self) -> None:
        self.steps += 1
        self._counted()

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        ours = self._ours(optimizer)
        if self._updated & ours:
            self._updated = set()
        if ours and not self._updated:
            self._round_ended()

    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not (ours := self._ours(optimizer)):
            return
        first, self._updated = not self._updated, self._updated | ours
        if first:
            self._stepped()

    def _ours(self, optimizer: torch.optim.Optimizer) -> set[int]:
        """The parameters of the module that an optimizer has, by identity."""
        return {id(each) for group in optimizer.param_groups for each in group["params"]} & self._parameters
