"""Settings of training: update rules, early stopping, element kinds and devices."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from precode._internal.check import COUNT, integer
from precode._internal.errors import PrecodeTypeError, PrecodeValueError, UnsupportedError

DTYPES = ("float32", "float64", "float16", "bfloat16")
"""Kinds of weights that can be trained."""


@dataclass(frozen=True)
class Optimizer:
    """An update rule with the formulas and defaults of `torch.optim`.

    Attributes:
        rule: ``"adam"``, ``"adamw"`` or ``"sgd"``.
        lr: learning rate.
        betas: decay of Adam's moments.
        eps: added to Adam's denominator.
        weight_decay: L2 penalty; with ``"adamw"``, decoupled.
        momentum: of SGD, without dampening.

    Raises:
        PrecodeValueError: momentum without ``"sgd"``.

    Example:
        >>> Optimizer("sgd", lr=0.1, momentum=0.9).rule
        'sgd'
    """

    rule: str = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.momentum and self.rule != "sgd":
            raise PrecodeValueError(f"momentum = {self.momentum} with {self.rule!r}: only 'sgd' has momentum")


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a network's training when a loss has not fallen for some epochs.

    Attributes:
        patience: epochs without improvement after which training ends.
        min_delta: an improvement must be larger than this (nats).
        watch: ``"train"``, the mean loss of the epoch's batches, each before its update; or ``"validation"``.

    Raises:
        PrecodeValueError: a patience out of range.
        PrecodeTypeError: a patience that is no integer.

    Example:
        >>> EarlyStopping(patience=5, watch="validation").patience
        5
    """

    patience: int = 10
    min_delta: float = 0.0
    watch: str = "train"

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", integer(self.patience, "patience", 1, COUNT))


DEFAULT_STOPPING = EarlyStopping()
"""Patience 10 on the training loss: the source has patience 10 and does not say on which loss."""


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a run that do not depend on its networks.

    Attributes:
        epochs: most passes over the data.
        batch: samples a step; the last batch of an epoch holds what is left over.
        optimizer: update rule.
        order_seed: key of the order in which epochs visit the samples.
        first_epoch: number of the first epoch in that order.
        early_stopping: when networks stop before the last epoch.
        snapshots: optimizer steps after which weights are kept, increasing; 0 is the start.

    Example:
        >>> from precode import Dnf, train
        >>> train(Dnf.random(clauses=4, seed=0), hidden=8, samples=640, epochs=1, batch=32).settings.batch
        32
    """

    epochs: int
    batch: int
    optimizer: Optimizer
    order_seed: int
    first_epoch: int
    early_stopping: EarlyStopping | None
    snapshots: tuple[int, ...]


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The kind of weights from its name or itself.

    Raises:
        PrecodeValueError: not one of `DTYPES`.
        PrecodeTypeError: neither a name nor a `torch.dtype`.
    """
    if not isinstance(dtype, str | torch.dtype):
        raise PrecodeTypeError(f"dtype must be a name or a torch.dtype, not {type(dtype).__name__}")
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if kind not in [getattr(torch, name) for name in DTYPES]:
        raise PrecodeValueError(f"dtype {str(dtype)!r}: use one of {', '.join(DTYPES)}")
    assert isinstance(kind, torch.dtype)
    return kind


def available_devices() -> list[str]:
    """Names of the devices that networks can be trained on here."""
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def resolve_device(device: str | torch.device | int, engine: str = "auto") -> torch.device:
    """The device from its name or itself.

    Args:
        device: as `torch.device` takes it.
        engine: the engine that is to run there.

    Raises:
        PrecodeValueError: torch does not know such a device.
        UnsupportedError: it is not available, or the engine does not run on it.
    """
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise PrecodeValueError(f"device {device!r} is unknown: use one of {', '.join(available_devices())}") from error
    available = available_devices()
    if str(resolved) not in available and not (
        resolved.index in (None, 0) and any(name.split(":")[0] == resolved.type for name in available)
    ):
        raise UnsupportedError(f"device {str(resolved)!r} is not available: use one of {', '.join(available)}")
    if engine == "fused" and resolved.type != "cpu":
        raise UnsupportedError(f"the fused engine runs on the CPU, not on {str(resolved)!r}: use engine='libtorch'")
    return resolved
