//! Files of tickets, and their masks: the choice of the best weights, and pruning at work.

use std::path::PathBuf;

use precode_core::ticket::file::{self, Dtype, NamedTensor};
use precode_core::ticket::mask::Density;
use precode_core::{Error, error};
use precode_torch::{methods, zeroing};
use pyo3::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::boundary::{PyTensor, pool, raise, run};

type NamedTensors = Vec<(String, PyTensor)>;

const DTYPES: [(Kind, Dtype); 5] = [
    (Kind::Bool, Dtype::BOOL),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
];

fn to_bytes(name: String, tensor: &Tensor) -> precode_torch::Result<NamedTensor> {
    let kind = tensor.f_kind()?;
    let Some(&(_, dtype)) = DTYPES.iter().find(|dtype| dtype.0 == kind) else {
        let message = format!("'{name}' has type {kind:?}: a ticket holds bool, f16, bf16, f32 and f64");
        return Err(Error::Unsupported(message).into());
    };
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let bytes = tensor.numel() * kind.elt_size_in_bytes();
    let mut data = error::allocate(Some(bytes), 0, &format!("'{name}'"))?;
    tensor.f_copy_data_u8(&mut data, tensor.numel())?;
    Ok(NamedTensor { name, dtype, shape: tensor.size().iter().map(|&size| size as usize).collect(), data })
}

fn from_bytes(tensor: NamedTensor) -> precode_torch::Result<(String, PyTensor)> {
    let NamedTensor { name, dtype, shape, data } = tensor;
    let Some(&(kind, _)) = DTYPES.iter().find(|known| known.1 == dtype) else {
        return Err(Error::Unsupported(format!("'{name}' has type {dtype}")).into());
    };
    let shape: Vec<i64> = shape.into_iter().map(|size| size as i64).collect();
    Ok((name, PyTensor(Tensor::f_from_data_size(&data, &shape, kind)?)))
}

/// Writes named tensors and what is said of them (JSON) as a ticket's file.
#[pyfunction]
pub fn save_ticket(py: Python<'_>, path: PathBuf, tensors: NamedTensors, about: &str) -> PyResult<()> {
    let write = || -> precode_torch::Result<()> {
        let tensors: Vec<NamedTensor> =
            tensors.into_iter().map(|(name, tensor)| to_bytes(name, &tensor.0)).collect::<Result<_, _>>()?;
        Ok(file::save(&path, &tensors, about)?)
    };
    run(py, None, |_| write())
}

/// The tensors of a ticket's file, in the order of their names, and its manifest as JSON.
#[pyfunction]
pub fn load_ticket(py: Python<'_>, path: PathBuf) -> PyResult<(NamedTensors, String)> {
    let read = || -> precode_torch::Result<(NamedTensors, String)> {
        let (tensors, manifest) = file::load(&path)?;
        let manifest = manifest.to_json().map_err(Error::File)?;
        let tensors: Result<_, _> = tensors.into_iter().map(from_bytes).collect();
        let unfit =
            |error: String| Error::File(format!("{}: torch has no such tensor ({error})", path.display()));
        Ok((tensors.map_err(|error: precode_torch::Error| unfit(error.to_string()))?, manifest))
    };
    run(py, None, |_| read())
}

/// The masks of the largest scores over all tensors, among those that are alive, on the devices of the scores.
#[pyfunction]
pub fn best_weights(
    py: Python<'_>,
    scores: Vec<PyTensor>,
    density: f64,
    alive: Option<Vec<PyTensor>>,
) -> PyResult<Vec<PyTensor>> {
    let tensors = |tensors: Vec<PyTensor>| tensors.into_iter().map(|tensor| tensor.0).collect::<Vec<_>>();
    let (scores, alive) = (tensors(scores), alive.map(tensors));
    // On this thread, whose stream of a device the scores were made on.
    let found = py.detach(move || methods::best(&scores, alive.as_deref(), Density::new(density)?));
    Ok(found.map_err(|error| raise(py, error))?.into_iter().map(PyTensor).collect())
}

/// Sets values to zero where a mask prunes, in place, on at most so many threads.
#[pyfunction]
pub fn zero_pruned(py: Python<'_>, values: PyTensor, kept: PyTensor, threads: usize) -> PyResult<()> {
    let zero = move || zeroing::zero_pruned(&values.0, &kept.0, threads);
    let done = if threads > 1 {
        let pool = pool(py)?;
        py.detach(|| pool.install(zero))
    } else {
        py.detach(zero)
    };
    done.map_err(|error| raise(py, error))
}
