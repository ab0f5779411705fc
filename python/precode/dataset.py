"""Labelled Boolean inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from precode import _precode
from precode.errors import PrecodeShapeError, PrecodeValueError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def as_bools(values: ArrayLike | torch.Tensor, name: str) -> NDArray[np.bool_]:
    """Booleans, or numbers that are all 0 or 1, as a contiguous array of Booleans.

    Raises:
        PrecodeValueError: another value occurs.
    """
    array: NDArray[Any] = np.asarray(values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values)
    if array.dtype != np.bool_:
        wrong = array[(array != 0) & (array != 1)]
        if wrong.size:
            raise PrecodeValueError(f"{name} contains {wrong.flat[0]}: inputs and labels are Boolean (0 or 1)")
        array = array.astype(np.bool_)
    return np.ascontiguousarray(array)


class Dataset:
    """Boolean inputs and labels, kept bit-packed (about 4 bytes a sample at 32 variables).

    Args:
        x: (samples, variables) Booleans, or numbers 0 and 1; a NumPy array, a tensor or nested lists.
        y: (samples,) or (samples, outputs) labels, likewise.

    Raises:
        PrecodeShapeError: the shapes do not fit.
        PrecodeValueError: a value other than 0 and 1.

    Example:
        >>> data = Dataset([[True, False], [True, True]], [0, 1])
        >>> data
        Dataset(samples=2, variables=2, outputs=1)
        >>> data.y
        tensor([False,  True])
    """

    def __init__(self, x: ArrayLike | torch.Tensor, y: ArrayLike | torch.Tensor) -> None:
        inputs, labels = as_bools(x, "x"), as_bools(y, "y")
        if labels.ndim == 1:
            labels = labels[:, None]
        if inputs.ndim != 2 or labels.ndim != 2 or len(inputs) != len(labels):
            raise PrecodeShapeError(
                f"x of shape {inputs.shape} and y of shape {np.shape(y)}: expected (samples, variables) and "
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
