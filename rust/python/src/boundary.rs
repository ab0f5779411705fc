//! What crosses between Python and Rust: errors, tensors, arrays, and long computations.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use numpy::{IntoPyArray, PyArrayDyn, PyArrayMethods, PyReadonlyArray2, PyReadonlyArray3};
use precode_core::Progress;
use precode_core::read::codes::Real;
use precode_core::{Clause, Clauses, Error, Readout};
use pyo3::exceptions::{PyKeyboardInterrupt, PyTypeError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyType;

use crate::streams::Streams;
use crate::tasks;

/// How often a running computation is interrupted for signals and the progress callback.
pub const POLL: Duration = Duration::from_millis(50);

/// The exception of `precode._internal.errors` that stands for an error.
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
    let class = py.import("precode._internal.errors").and_then(|errors| errors.getattr(class));
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
pub fn pool(py: Python<'_>) -> PyResult<Arc<rayon::ThreadPool>> {
    static POOL: Mutex<Option<(u32, Arc<rayon::ThreadPool>)>> = Mutex::new(None);
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if let Some((owner, pool)) = &*pool
        && *owner == process
    {
        return Ok(Arc::clone(pool));
    }
    let built = Arc::new(new_pool(py)?);
    // The parent's pool is forgotten, not dropped: dropping would wait for threads that are not there.
    std::mem::forget(pool.replace((process, Arc::clone(&built))));
    Ok(built)
}

/// Threads of one's own, one a core.
pub fn new_pool(py: Python<'_>) -> PyResult<rayon::ThreadPool> {
    let message =
        |error| format!("threads cannot be started ({error}): free memory, or set RAYON_NUM_THREADS=1");
    rayon::ThreadPoolBuilder::new().build().map_err(|error| named_error(py, "PrecodeError", message(error)))
}

/// Runs a computation that cannot be stopped half-way on the pool, with the GIL released; see [`run`]. What a signal
/// raises is raised when the computation is done.
pub fn compute<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    run(py, None, |_| work())
}

/// Runs `work` on the pool with the GIL released. Meanwhile this thread answers signals and reports progress 20 times
/// a second; an exception from either cancels the work and is raised, and so is a panic of the work. No thread is
/// started: a short computation costs as much as a call of the pool.
pub fn run<T: Send, E: Into<precode_torch::Error> + Send>(
    py: Python<'_>,
    callback: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Progress) -> Result<T, E> + Send,
) -> PyResult<T> {
    let (pool, streams) = (pool(py)?, Streams::of_this_thread(py)?);
    let (progress, finished) = (Progress::default(), Finished::default());
    let callback = callback.map(|callback| callback.clone().unbind());
    // Signals first, then the progress so far.
    let poll = |py: Python<'_>| -> PyResult<()> {
        py.check_signals()?;
        callback.as_ref().map_or(Ok(()), |report| report.call1(py, (progress.done(),)).map(drop))
    };
    // The lock is released to the end of the scope: the last tensors of the work may need it to be dropped.
    let (interruption, outcome) = py.detach(|| {
        let (mut interruption, mut outcome) = (None, None);
        pool.in_place_scope(|scope| {
            scope.spawn(|_| {
                // The work does not outlive a panic, so nothing of it is seen half done.
                let in_streams = || streams.enter().map(|()| work(&progress));
                outcome = Some(catch_unwind(AssertUnwindSafe(in_streams)));
                finished.set();
            });
            while !finished.wait(POLL) {
                if interruption.is_none() {
                    interruption = Python::attach(poll).err();
                    if interruption.is_some() {
                        progress.cancel();
                    }
                }
            }
        });
        (interruption, outcome)
    });
    let interruption = interruption.or_else(|| poll(py).err());
    match (interruption, outcome) {
        (Some(error), _) => Err(error),
        (None, Some(Ok(Ok(Ok(value))))) => Ok(value),
        (None, Some(Ok(Ok(Err(error))))) => Err(raise(py, error)),
        (None, Some(Ok(Err(error)))) => Err(error),
        (None, Some(Err(panic))) => Err(internal_error(py, panic.as_ref())),
        (None, None) => Err(internal_error(py, &"the work was never begun")),
    }
}

/// Whether some work is done, for one thread to set and another to wait for.
#[derive(Default)]
struct Finished {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Finished {
    fn set(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until it is set, at most so long; whether it is.
    fn wait(&self, at_most: Duration) -> bool {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(done, at_most, |done| !*done);
        *waited.unwrap_or_else(PoisonError::into_inner).0
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
