"""Tables and arrays as the bytes of files: the same bytes for the same contents."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from precode import _precode
from precode._internal.check import dense
from precode._internal.errors import PrecodeTypeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Value: TypeAlias = "pd.DataFrame | Mapping[str, NDArray[Any] | torch.Tensor]"
"""What a result can be: a table, or arrays by name."""

TABLE = "parquet"
"""Ending of a table's file."""

ARRAYS = "safetensors"
"""Ending of a file of arrays."""


def to_bytes(value: Value, name: str) -> tuple[str, bytes]:
    """The ending and the bytes of a result's file.

    Args:
        value: a table, whose index is not kept, or arrays and tensors by name: Boolean, int32, int64, uint8, float32 or
            float64.
        name: of the result, for messages.

    Raises:
        PrecodeTypeError: neither.
        PrecodeValueError: an array of another element type.

    Example:
        >>> to_bytes({"w1": np.zeros((2, 3))}, "weights")[0]
        'safetensors'
    """
    if isinstance(value, pd.DataFrame):
        file = io.BytesIO()
        pq.write_table(table_to_arrow(value), file, compression="zstd")
        return TABLE, file.getvalue()
    if isinstance(value, Mapping) and all(isinstance(item, np.ndarray | torch.Tensor) for item in value.values()):
        arrays = []
        for key, item in value.items():
            array = dense(item, f"{name}.{key}") if isinstance(item, torch.Tensor) else item
            little = array.dtype.newbyteorder("<")
            arrays.append((str(key), array.dtype.name, array.shape, array.astype(little, copy=False).tobytes()))
        return ARRAYS, _precode.arrays_to_bytes(arrays)
    raise PrecodeTypeError(f"result {name!r} must be a DataFrame, or arrays by name, not {type(value).__name__}")


def table_to_arrow(table: pd.DataFrame) -> pa.Table:
    """A table's columns, without the index and without what pandas says of itself, which changes with its version."""
    return pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)


def table_from_bytes(data: bytes) -> pd.DataFrame:
    """The table of a file."""
    table: pd.DataFrame = pq.read_table(io.BytesIO(data)).to_pandas()
    return table


def arrays_from_bytes(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a file, by name."""
    return {
        name: np.frombuffer(content, dtype=np.dtype(kind).newbyteorder("<")).reshape(shape).astype(kind)
        for name, kind, shape, content in _precode.arrays_from_bytes(data)
    }
