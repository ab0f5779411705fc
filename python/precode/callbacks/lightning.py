"""The callback for Lightning."""

from __future__ import annotations

from typing import Any

from precode.callbacks.followers import check
from precode.modules.steps import Steps

try:
    from lightning.pytorch import Callback
except ImportError:
    from pytorch_lightning import Callback


class LightningCallback(Callback):  # type: ignore[misc]
    """Watches and prunes while a Lightning `Trainer` fits.

    Their states are in Lightning's checkpoints, and are there again with ``fit(..., ckpt_path=...)``. Made from
    `lightning.pytorch` where that is installed, else from `pytorch_lightning`.

    Args:
        followers: what `precode.watch` returns, and `precode.Pruner`, of the module or a part of it; made before `fit`,
            so that a checkpoint finds the masks it has values for.

    Raises:
        PrecodeTypeError: something else.

    Example:
        >>> from torch import nn
        >>> from precode import Pruner, Schedule, watch
        >>> network = nn.Linear(8, 2)
        >>> callback = LightningCallback(Pruner(network, Schedule("one-shot", density=0.5)), watch(network))
        >>> [type(follower).__name__ for follower in callback.followers]
        ['Pruner', 'Log']
    """

    def __init__(self, *followers: Steps) -> None:
        super().__init__()
        self.followers = check(followers)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begins."""
        for follower in self.followers:
            follower.__enter__()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Ends, after callbacks that change the module when training ends, such as averages."""
        for follower in self.followers:
            follower.__exit__(None, None, None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Ends too."""
        self.on_fit_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The states of all, for a checkpoint."""
        return {"followers": [follower.state_dict() for follower in self.followers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        for follower, state in zip(self.followers, state_dict["followers"], strict=True):
            follower.load_state_dict(state)
