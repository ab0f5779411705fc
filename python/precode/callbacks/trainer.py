"""The callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
import transformers

from precode._internal.errors import PrecodeFileError
from precode._internal.files import write_atomically
from precode.callbacks.followers import check
from precode.modules.steps import Steps

FILE = "precode.pt"
"""The file in a checkpoint's folder: tensors and numbers, read with ``weights_only=True``."""


class TrainerCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Watches and prunes while a `transformers.Trainer` trains.

    Their states are a file `FILE` in each checkpoint, which is read when the trainer goes on from one. Steps that a
    gradient scaler skips do not count. No hooks are left behind, by an exception either: the trainer tells the steps.

    Args:
        followers: what `precode.watch` returns, and `precode.Pruner`, of the trainer's model or a part of it; made
            before the trainer, so that a checkpoint finds the masks it has values for.

    Raises:
        PrecodeTypeError: something else.
        PrecodeFileError: the trainer goes on from a checkpoint without their states.

    Example:
        >>> from torch import nn
        >>> from precode import watch
        >>> len(TrainerCallback(watch(nn.Linear(8, 2))).followers)
        1
    """

    def __init__(self, *followers: Steps) -> None:
        self.followers = check(followers)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins, or goes on from a checkpoint."""
        if state.global_step and any(follower.steps != state.global_step for follower in self.followers):
            path = _folder(args, state) / FILE
            try:
                states = torch.load(path, weights_only=True)
            except OSError as error:
                raise PrecodeFileError(
                    f"{path}: cannot be read: the trainer goes on from step {state.global_step}, and this file says "
                    "where its pruning and watching were; train from the start, or without this callback"
                ) from error
            for follower, held in zip(self.followers, states, strict=True):
                follower.load_state_dict(held)
        for follower in self.followers:
            follower.begin()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Counts a step."""
        if not getattr(kwargs.get("optimizer"), "step_was_skipped", False):
            for follower in self.followers:
                follower.step()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends."""
        for follower in self.followers:
            follower.end()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes the states into the checkpoint."""
        if state.is_world_process_zero:
            held = io.BytesIO()
            torch.save([follower.state_dict() for follower in self.followers], held)
            write_atomically(_folder(args, state) / FILE, held.getvalue())


def _folder(args: Any, state: Any) -> Path:
    """The folder of the checkpoint of a step."""
    return Path(os.fspath(args.output_dir)) / f"checkpoint-{state.global_step}"
