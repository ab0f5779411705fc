"""Callbacks with which the training loops of other packages watch and prune; each needs the package that it is for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from precode._internal.errors import PrecodeError

if TYPE_CHECKING:
    from precode.callbacks.lightning import LightningCallback
    from precode.callbacks.trainer import TrainerCallback

PLACES = {
    "LightningCallback": ("lightning", "pip install 'precode[lightning]'"),
    "TrainerCallback": ("trainer", "pip install 'precode[transformers]'"),
}
"""Where each is, and how to get what it needs."""

__all__ = ["LightningCallback", "TrainerCallback"]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'precode.callbacks' has no attribute {name!r}")
    place, remedy = PLACES[name]
    try:
        return getattr(import_module(f"precode.callbacks.{place}"), name)
    except ImportError as error:
        raise PrecodeError(f"{name} cannot be made ({error}): {remedy}") from error


def __dir__() -> list[str]:
    return __all__
