"""The callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

import io
import os
import secrets
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

NAME = "precode"
"""The entry of the trainer's state, in its ``trainer_state.json``, that says which file is that of the checkpoint."""


class TrainerCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Watches and prunes while a `transformers.Trainer` trains.

    Their states are a file `FILE` in each checkpoint, which is read when the trainer goes on from one. A trainer does
    not say where that checkpoint is: of one that was moved, name the folder as ``resume_from_checkpoint`` of the
    `transformers.TrainingArguments` too. Steps that a gradient scaler skips do not count. No hooks are left behind, by
    an exception either: the trainer tells the steps.

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
        self._key = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins, or goes on from a checkpoint."""
        if state.global_step:
            for follower, held in zip(self.followers, _read(args, state), strict=True):
                follower.load_state_dict(held)
        # One for each training: two that go on from one checkpoint write others of the same steps.
        self._key = secrets.token_hex(16)
        state.stateful_callbacks[NAME] = {"key": self._key, "folder": os.path.abspath(args.output_dir)}
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
        if args.should_save:  # as the trainer does, whose state has the key of this process
            held = io.BytesIO()
            torch.save({"key": self._key, "followers": [follower.state_dict() for follower in self.followers]}, held)
            write_atomically(_checkpoint(args.output_dir, state) / FILE, held.getvalue())


def _checkpoint(folder: str | os.PathLike[str], state: Any) -> Path:
    """The folder of the checkpoint of a step."""
    return Path(folder) / f"checkpoint-{state.global_step}"


def _read(args: Any, state: Any) -> list[dict[str, Any]]:
    """The states in the checkpoint that the trainer goes on from.

    Other trainings may have one of the same step, so that the key in the trainer's state must be that in the file.

    Raises:
        PrecodeFileError: it is nowhere.
    """
    said = state.stateful_callbacks.get(NAME)
    if said is None:
        raise PrecodeFileError(
            f"the checkpoint of step {state.global_step} that the trainer goes on from was written without this "
            "callback, and does not say where pruning and watching were: train from the start, or without this callback"
        )
    given = args.resume_from_checkpoint
    folders = [Path(given)] if isinstance(given, str | os.PathLike) else []
    folders += [_checkpoint(folder, state) for folder in (said["folder"], args.output_dir)]
    for folder in folders:
        try:
            # Onto the CPU, whatever it was saved from: states are moved to where they belong.
            held = torch.load(folder / FILE, weights_only=True, map_location="cpu")
        except OSError:
            continue
        if isinstance(held, dict) and held.get("key") == said["key"]:
            return list(held["followers"])
    places = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    raise PrecodeFileError(
        f"the {FILE} of the checkpoint of step {state.global_step} that the trainer goes on from, which says where its "
        f"pruning and watching were, is not in {places}: name the checkpoint's folder in "
        "TrainingArguments(resume_from_checkpoint=...) too, or train from the start, or without this callback"
    )
