"""Tables and arrays as the bytes of files: the same bytes for the same contents."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from precode import _precode
from precode._internal.cells import Axis, Value
from precode._internal.check import dense
from precode._internal.errors import PrecodeTypeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE = "parquet"
"""Ending of a table's file."""

ARRAYS = "safetensors"
"""Ending of a file of arrays."""

LARGE = 2**20
"""Bytes of a table above which it is read by several threads."""


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
    """A table's columns, without the index and without what pandas says of itself, which changes with its version.

    Categories become plain text: which of them occur would otherwise depend on what is in one file.
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    for place, column in enumerate(arrow.schema):
        if pa.types.is_dictionary(column.type):
            plain = arrow.column(place).cast(column.type.value_type)
            arrow = arrow.set_column(place, column.name, plain)
    return arrow


def table_from_bytes(data: bytes) -> pa.Table:
    """The table of a file.

    Raises:
        pa.ArrowException: no table.
    """
    # Threads cost more than they save where a table is small; a study may have thousands.
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=len(data) > LARGE)


def joined(tables: Sequence[pa.Table], axes: Sequence[Axis]) -> pa.Table:
    """The rows of a cell's jobs in the order of its parts, the same however the parts were divided into jobs."""
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")
    ranks = []
    for axis in axes:
        places = {value: place for place, value in enumerate(axis.values)}
        ranks.append(np.array([places[value] for value in table.column(axis.column).to_pylist()], dtype=np.int64))
    if not ranks or not len(table):
        return table
    order = np.lexsort(ranks[::-1])  # stable: within a part, rows keep their order
    return table if (order[1:] > order[:-1]).all() else table.take(pa.array(order))


def arrays_from_bytes(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a file, by name."""
    return {
        name: np.frombuffer(content, dtype=np.dtype(kind).newbyteorder("<")).reshape(shape).astype(kind)
        for name, kind, shape, content in _precode.arrays_from_bytes(data)
    }
