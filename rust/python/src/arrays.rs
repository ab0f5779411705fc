//! Named arrays as safetensors files.

use precode_core::Error;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::boundary::raise;

/// NumPy's names of the types that are written.
const DTYPES: [(&str, Dtype); 6] = [
    ("bool", Dtype::BOOL),
    ("uint8", Dtype::U8),
    ("int32", Dtype::I32),
    ("int64", Dtype::I64),
    ("float32", Dtype::F32),
    ("float64", Dtype::F64),
];

/// Name, type, shape, and elements in row-major order, little-endian.
type Array<T> = (String, String, Vec<usize>, T);

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::Value(format!("arrays of a safetensors file: {error}"))
}

fn view<'a>((name, kind, shape, data): &'a Array<PyBackedBytes>) -> Result<(&'a str, TensorView<'a>), Error> {
    let Some(&(_, dtype)) = DTYPES.iter().find(|known| known.0 == kind) else {
        let known: Vec<_> = DTYPES.iter().map(|known| known.0).collect();
        return Err(Error::Value(format!("array '{name}' has type {kind}: use one of {}", known.join(", "))));
    };
    Ok((name, TensorView::new(dtype, shape.clone(), data).map_err(damaged)?))
}

/// The bytes of a safetensors file, the same for the same arrays in any order.
#[pyfunction]
pub fn arrays_to_bytes<'py>(
    py: Python<'py>,
    arrays: Vec<Array<PyBackedBytes>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let write = || {
        let views = arrays.iter().map(view).collect::<Result<Vec<_>, _>>()?;
        safetensors::serialize(views, None).map_err(damaged)
    };
    Ok(PyBytes::new(py, &write().map_err(|error| raise(py, error))?))
}

/// The arrays of a safetensors file.
#[pyfunction]
pub fn arrays_from_bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Vec<Array<Bound<'py, PyBytes>>>> {
    let read = || {
        let mut arrays = Vec::new();
        for (name, tensor) in SafeTensors::deserialize(bytes).map_err(damaged)?.iter() {
            let Some(&(kind, _)) = DTYPES.iter().find(|known| known.1 == tensor.dtype()) else {
                return Err(damaged(format!("'{name}' has type {}", tensor.dtype())));
            };
            let data = PyBytes::new(py, tensor.data());
            arrays.push((name.to_owned(), kind.to_owned(), tensor.shape().to_vec(), data));
        }
        Ok(arrays)
    };
    read().map_err(|error| raise(py, error))
}
