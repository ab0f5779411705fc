//! What crosses between Python and Rust: errors, tensors, arrays, and long computations.

use std::any::Any;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use numpy::{IntoPyArray, PyArrayDyn, PyArrayMethods, PyReadonlyArray2, PyReadonlyArray3};
use precode_core::Progress;
use precode_core::read::codes::Real;
use precode_core::{Clause, Clauses, Error, Readout};
use pyo3::exceptions::{PyKeyboardInterrupt, PyTypeError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyType;

use crate::tasks;

/// How often a running computation is interrupted for signals and the progress callback.
const POLL: Duration = Duration::from_millis(50);

/// The exception of `precode.errors` that stands for an error.
pub fn raise(py: Python<'_>, error: impl Into<precode_torch::Error>) -> PyErr {
    let error = error.into();
    let class = match &error {
        precode_torch::Error::Core(Error::Value(_)) => "PrecodeValueError",
        precode_torch::Error::Core(Error::Shape(_)) => "PrecodeShapeError",
        precode_torch::Error::Core(Error::Unsupported(_)) => "UnsupportedError",
        precode_torch::Error::Core(Error::File(_)) => "PrecodeFileError",
        precode_torch::Error::Core(Error::Interrupted) => {
            return PyKeyboardInterrupt::new_err("interrupted");
        }
        _ => "PrecodeError",
    };
    named_error(py, class, error.to_string())
}

fn named_error(py: Python<'_>, class: &str, message: String) -> PyErr {
    let class = py.import("precode.errors").and_then(|errors| errors.getattr(class));
    match class.and_then(|class| Ok(class.cast_into::<PyType>()?)) {
        Ok(class) => PyErr::from_type(class, message),
        Err(error) => error,
    }
}

/// A torch tensor that crosses by handle: no copy, in-place changes are visible on both sides.
pub struct PyTensor(pub tch::Tensor);

impl FromPyObject<'_, '_> for PyTensor {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        // SAFETY: the pointer comes from a live Python object.
        match unsafe { tch::Tensor::pyobject_unpack(object.as_ptr().cast()) } {
            Ok(Some(tensor)) => Ok(Self(tensor)),
            Ok(None) => Err(PyTypeError::new_err(format!(
                "expected a torch.Tensor, got {}",
                object.get_type().name()?
            ))),
            Err(error) => Err(raise(object.py(), error)),
        }
    }
}

impl<'py> IntoPyObject<'py> for PyTensor {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let pointer = self.0.pyobject_wrap().map_err(|error| raise(py, error))?;
        // SAFETY: wrapping returns a new reference to a Python object, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, pointer.cast()) }
    }
}

/// An argument that is given by its name.
pub struct Named<T>(pub T);

impl<T: FromStr<Err = Error>> FromPyObject<'_, '_> for Named<T> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let name = object.extract::<PyBackedStr>()?;
        name.parse().map(Self).map_err(|error: Error| raise(object.py(), error))
    }
}

/// Feature-space and output weights in single or double precision, viewed without a copy.
#[derive(FromPyObject)]
pub enum Networks<'py> {
    /// `float32`: (R, rows, n) and (R, rows).
    #[pyo3(transparent)]
    Single((PyReadonlyArray3<'py, f32>, PyReadonlyArray2<'py, f32>)),
    /// `float64`: (R, rows, n) and (R, rows).
    #[pyo3(transparent)]
    Double((PyReadonlyArray3<'py, f64>, PyReadonlyArray2<'py, f64>)),
}

/// A view of arrays as what codes are read from.
pub fn readout<'a, T: Real + numpy::Element>(
    py: Python<'_>,
    features: &'a PyReadonlyArray3<'_, T>,
    output: &'a PyReadonlyArray2<'_, T>,
) -> PyResult<Readout<'a, T>> {
    Readout::new(features.as_array(), output.as_array()).map_err(|error| raise(py, error))
}

/// Signed clauses, one set for all networks of a readout or one for each.
pub fn table<T: Real>(readout: &Readout<T>, sets: &[Vec<Vec<i64>>]) -> Result<Clauses, Error> {
    let sets: Vec<Vec<Clause>> = sets.iter().map(tasks::clauses).collect();
    let slices: Vec<&[Clause]> = sets.iter().map(Vec::as_slice).collect();
    Clauses::new(&slices, readout.networks(), readout.variables())
}

/// A computation on a readout of either precision.
macro_rules! with_readout {
    ($py:expr, $networks:expr, |$readout:ident| $body:expr) => {
        match &$networks {
            $crate::boundary::Networks::Single((features, output)) => {
                let $readout = $crate::boundary::readout($py, features, output)?;
                $body
            }
            $crate::boundary::Networks::Double((features, output)) => {
                let $readout = $crate::boundary::readout($py, features, output)?;
                $body
            }
        }
    };
}
pub(crate) use with_readout;

/// A flat result as a NumPy array of the given shape, which takes the memory over.
pub fn array<'py, T: numpy::Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    values.into_pyarray(py).reshape(shape.to_vec())
}

/// The threads that computations run on, for this process. A child made by `fork` has none of its parent's
/// threads, so it gets its own.
fn pool(py: Python<'_>) -> PyResult<Arc<rayon::ThreadPool>> {
    static POOL: Mutex<Option<(u32, Arc<rayon::ThreadPool>)>> = Mutex::new(None);
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if let Some((owner, pool)) = &*pool
        && *owner == process
    {
        return Ok(Arc::clone(pool));
    }
    let built = rayon::ThreadPoolBuilder::new()
        .build()
        .map_err(|error| named_error(py, "PrecodeError", format!("threads cannot be started: {error}")))?;
    let built = Arc::new(built);
    // The parent's pool is forgotten, not dropped: dropping would wait for threads that are not there.
    std::mem::forget(pool.replace((process, Arc::clone(&built))));
    Ok(built)
}

/// Runs a short computation on the pool with the GIL released.
pub fn compute<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    let pool = pool(py)?;
    py.detach(|| pool.install(work)).map_err(|error| raise(py, error))
}

/// Runs `work` on the pool, from a thread of its own, with the GIL released. Meanwhile this thread answers signals
/// and reports progress 20 times a second; an exception from either cancels the work and is raised.
pub fn run<T: Send, E: Into<precode_torch::Error> + Send>(
    py: Python<'_>,
    callback: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Progress) -> Result<T, E> + Send,
) -> PyResult<T> {
    let pool = pool(py)?;
    let progress = Progress::default();
    let finished = AtomicBool::new(false);
    let waiting = thread::current();
    let mut interruption = None;
    let outcome = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let _wake = Wake { finished: &finished, waiting };
            pool.install(|| work(&progress))
        });
        loop {
            py.detach(|| thread::park_timeout(POLL));
            if interruption.is_none() {
                let report = || callback.map_or(Ok(()), |report| report.call1((progress.done(),)).map(drop));
                interruption = py.check_signals().and_then(|()| report()).err();
                if interruption.is_some() {
                    progress.cancel();
                }
            }
            if finished.load(Ordering::Acquire) {
                return py.detach(|| worker.join());
            }
        }
    });
    match (interruption, outcome) {
        (Some(error), _) => Err(error),
        (None, Ok(Ok(value))) => Ok(value),
        (None, Ok(Err(error))) => Err(raise(py, error)),
        (None, Err(panic)) => Err(internal_error(py, panic.as_ref())),
    }
}

/// Marks the work as finished and wakes the waiting thread, also when the work panics.
struct Wake<'a> {
    finished: &'a AtomicBool,
    waiting: thread::Thread,
}

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.finished.store(true, Ordering::Release);
        self.waiting.unpark();
    }
}

/// The exception that stands for a panic.
pub fn internal_error(py: Python<'_>, panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    named_error(py, "PrecodeError", format!("internal error, please report it: {text}"))
}
