"""Which networks left the finite numbers in training, and the warning that names them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from numpy.typing import NDArray

from precode._internal.errors import DivergenceWarning

SHOWN = 5
"""Networks that a warning names at most."""

_names: ContextVar[Sequence[str] | None] = ContextVar("names of the networks in training", default=None)


@contextmanager
def naming(names: Sequence[str]) -> Iterator[None]:
    """Within it, a warning calls the networks of a run by these names instead of their numbers."""
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)


def finite(tensors: Iterable[torch.Tensor]) -> NDArray[np.bool_]:
    """Whether all values of each network are finite, (R,), of stacked tensors (R, ...)."""
    each = [torch.isfinite(tensor.detach()).reshape(len(tensor), -1).all(1).cpu().numpy() for tensor in tensors]
    return np.asarray(np.all(each, axis=0))


def first_epochs(
    losses: Sequence[NDArray[np.float64]], epochs_run: NDArray[np.int64], sound: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The epoch from which on each network's losses are not finite, (R,); 0 for networks that are sound.

    Args:
        losses: losses (R, epochs) that were measured.
        epochs_run: epochs each network ran, (R,).
        sound: whether its final weights are finite, (R,): a network may diverge by its very last steps.
    """
    epochs = losses[0].shape[1]
    ran = np.arange(epochs) < np.expand_dims(epochs_run, 1)
    lost = ran & ~np.all([np.isfinite(loss) for loss in losses], axis=0)
    first = np.where(lost.any(1), lost.argmax(1) + 1 if epochs else 0, 0)
    return np.where((first == 0) & ~sound, epochs_run, first).astype(np.int64)


def warn(diverged: NDArray[np.int64], stacklevel: int) -> None:
    """Warns once of all networks of a run that diverged, if there are any."""
    numbers = np.flatnonzero(diverged)
    if not numbers.size:
        return
    names = _names.get()
    shown = [f"{names[n] if names else f'network {n}'} (epoch {diverged[n]})" for n in numbers[:SHOWN]]
    more = f" and {numbers.size - SHOWN} more" if numbers.size > SHOWN else ""
    warnings.warn(
        f"{numbers.size} of {len(diverged)} networks diverged: the loss or the weights of {', '.join(shown)}{more} are "
        "not finite from the epoch in brackets on. Lower the learning rate",
        DivergenceWarning,
        stacklevel=stacklevel + 1,
    )
