"""Labelled Boolean inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from precode import _precode
from precode._internal import memory
from precode._internal.check import booleans
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def packed_bytes(samples: int, variables: int, outputs: int) -> int:
    """Bytes that packed samples take: whole 32-bit words of inputs for each, and a bit for each label."""
    return samples * (-(-variables // 32) * 4) + samples * outputs // 8


def _rebuild(x: NDArray[np.uint8], y: NDArray[np.uint8], samples: int, variables: int, outputs: int) -> Dataset:
    """A data set from the packed bits of its inputs and labels."""
    inputs, labels = (
        np.unpackbits(bits, count=samples * width).view(np.bool_).reshape(samples, width)
        for bits, width in ((x, variables), (y, outputs))
    )
    return Dataset._wrap(_precode.Samples(inputs, labels))


class Dataset:
    """Boolean inputs and labels, kept bit-packed (about 4 bytes a sample at 32 variables).

    Args:
        x: (samples, variables) Booleans, or numbers 0 and 1; a NumPy array, a tensor or nested lists.
        y: (samples,) or (samples, outputs) labels, likewise.

    Raises:
        PrecodeShapeError: the shapes do not fit.
        PrecodeValueError: a value other than 0 and 1.
        PrecodeTypeError: not numbers, or a sparse tensor.

    Example:
        >>> data = Dataset([[True, False], [True, True]], [0, 1])
        >>> data
        Dataset(samples=2, variables=2, outputs=1)
        >>> data.y
        tensor([False,  True])
    """

    def __init__(self, x: ArrayLike | torch.Tensor, y: ArrayLike | torch.Tensor) -> None:
        inputs, labels = (booleans(values, name, "inputs and labels") for name, values in (("x", x), ("y", y)))
        given = labels.shape
        if labels.ndim == 1:
            labels = labels[:, None]
        if inputs.ndim != 2 or labels.ndim != 2 or len(inputs) != len(labels):
            raise PrecodeShapeError(
                f"x of shape {inputs.shape} and y of shape {given}: expected (samples, variables) and "
                "(samples,) or (samples, outputs)"
            )
        self._packed = _precode.Samples(inputs, labels)

    @classmethod
    def _wrap(cls, packed: _precode.Samples) -> Dataset:
        data = cls.__new__(cls)
        data._packed = packed
        return data

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self._packed.samples

    @property
    def variables(self) -> int:
        """Number of Boolean variables, n."""
        return self._packed.variables

    @property
    def outputs(self) -> int:
        """Number of labels of a sample."""
        return self._packed.outputs

    @property
    def nbytes(self) -> int:
        """Bytes that the packed samples take."""
        return self._packed.bytes

    @property
    def x(self) -> torch.Tensor:
        """Inputs, Boolean (samples, variables), unpacked into a new tensor."""
        memory.check(
            2 * self.samples * self.variables,
            f"unpacking {self.samples} inputs of {self.variables} variables",
            "use a data set of fewer samples",
        )
        return torch.from_numpy(self._packed.inputs()).bool()

    @property
    def y(self) -> torch.Tensor:
        """Labels, Boolean (samples,), or (samples, outputs) for several outputs; a new tensor."""
        labels = torch.from_numpy(self._packed.labels()).bool()
        return labels[:, 0] if self.outputs == 1 else labels

    def __len__(self) -> int:
        return self.samples

    def __repr__(self) -> str:
        return f"Dataset(samples={self.samples}, variables={self.variables}, outputs={self.outputs})"

    def __reduce__(self) -> tuple[Any, ...]:
        bits = (np.packbits(values) for values in (self._packed.inputs(), self._packed.labels()))
        return _rebuild, (*bits, self.samples, self.variables, self.outputs)


def data_sets(data: Any, networks: int | None, name: str = "data") -> list[Dataset]:
    """Data sets in a list, one for each network.

    Args:
        data: one data set for all networks, or an iterable of one for each.
        networks: their number; None where the data sets determine it (one network for one data set).
        name: the argument, for messages.

    Raises:
        PrecodeTypeError: something other than data sets.
        PrecodeShapeError: not one for each network.
    """
    if isinstance(data, Dataset):
        return [data] * (1 if networks is None else networks)
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise PrecodeTypeError(f"{name} must be Dataset objects, not {type(data).__name__}: use pc.Dataset(x, y)")
    try:
        listed = list(data)
    except TypeError as error:  # an array or tensor without axes
        raise PrecodeTypeError(f"{name} must be Dataset objects, not {type(data).__name__}") from error
    for item in listed:
        if not isinstance(item, Dataset):
            raise PrecodeTypeError(f"{name} must be Dataset objects, not {type(item).__name__}: use pc.Dataset(x, y)")
    if networks is not None and len(listed) != networks:
        raise PrecodeShapeError(
            f"{name} has {len(listed)} data sets for {networks} networks: pass one, or one for each"
        )
    return listed
