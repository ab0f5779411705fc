//! The one error type of the crate: every message names the value that was refused and the remedy.

use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array, ArrayView, Dimension, StrideShape};
use rayon::prelude::*;

/// Why a request was refused or ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value is outside what its argument allows.
    #[error("{0}")]
    Value(String),
    /// Two arguments do not fit together.
    #[error("{0}")]
    Shape(String),
    /// What was asked for is valid but this engine cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// A file cannot be read or written, or does not hold what it should.
    #[error("{0}")]
    File(String),
    /// The caller asked to stop (Ctrl-C); results so far are discarded by the function that returns this.
    #[error("interrupted")]
    Interrupted,
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// `len` copies of a value, or an error where they do not fit into memory. `None` stands for a length
/// beyond all numbers.
pub fn allocate<T: Clone>(len: Option<usize>, value: T, what: &str) -> Result<Vec<T>> {
    let mut values = reserve(len, what)?;
    values.resize(len.unwrap_or(0), value);
    Ok(values)
}

/// An empty list with room for `len` values, or an error where they do not fit into memory; see [`allocate`].
pub fn reserve<T>(len: Option<usize>, what: &str) -> Result<Vec<T>> {
    let refuse = || {
        let size = len.and_then(|len| len.checked_mul(size_of::<T>()));
        let bytes = size
            .map_or("more than any memory".into(), |size| format!("{:.1} GiB", size as f64 / 2f64.powi(30)));
        Error::Unsupported(format!("{what} would take {bytes}: ask for less at a time"))
    };
    let mut values = Vec::new();
    values.try_reserve_exact(len.ok_or_else(refuse)?).map_err(|_| refuse())?;
    Ok(values)
}

/// The results of `count` tasks done in parallel, or the error of the failing task of the lowest number: the same
/// one for any number of threads. Tasks after one that failed may be left out.
///
/// # Errors
/// Those of the tasks.
pub fn in_parallel<T: Send, E: Send>(
    count: usize,
    task: impl Fn(usize) -> std::result::Result<T, E> + Sync,
) -> std::result::Result<Vec<T>, E> {
    let failed = AtomicUsize::new(usize::MAX);
    let attempt = |number: usize| {
        // A task is left out only after a failure of a lower number, which is then the one that is named.
        if number > failed.load(Ordering::Relaxed) {
            return None;
        }
        let result = task(number);
        if result.is_err() {
            failed.fetch_min(number, Ordering::Relaxed);
        }
        Some(result)
    };
    let results: Vec<_> = (0..count).into_par_iter().with_max_len(1).map(attempt).collect();
    results.into_iter().flatten().collect()
}

/// An array of a shape around its values in row-major order.
///
/// # Errors
/// [`Error::Shape`] if there are not as many.
pub fn shaped<T, D: Dimension>(values: Vec<T>, shape: impl Into<StrideShape<D>>) -> Result<Array<T, D>> {
    Array::from_shape_vec(shape, values)
        .map_err(|error| Error::Shape(format!("values do not fill an array: {error}")))
}

/// The values of an array in row-major order, without a copy.
pub(crate) fn flat<'a, T, D: Dimension>(array: ArrayView<'a, T, D>, name: &str) -> Result<&'a [T]> {
    let shape = array.shape().to_vec();
    array.to_slice().ok_or_else(|| {
        Error::Shape(format!("{name} of shape {shape:?} is not row-major: pass `as_standard_layout` of it"))
    })
}

macro_rules! value_error {
    ($($arg:tt)*) => { $crate::error::Error::Value(format!($($arg)*)) };
}
macro_rules! shape_error {
    ($($arg:tt)*) => { $crate::error::Error::Shape(format!($($arg)*)) };
}
pub(crate) use {shape_error, value_error};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_failing_tasks_the_first_is_named() {
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for _ in 0..50 {
                let task = |i: usize| {
                    // The later tasks fail sooner.
                    std::thread::sleep(std::time::Duration::from_micros(if i == 3 { 300 } else { 1 }));
                    if i >= 3 { Err(i) } else { Ok(2 * i) }
                };
                assert_eq!(pool.install(|| in_parallel(64, task)), Err(3), "{threads} threads");
            }
            let all: std::result::Result<Vec<usize>, ()> = pool.install(|| in_parallel(100, |i| Ok(2 * i)));
            assert_eq!(all.unwrap(), (0..100).map(|i| 2 * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_no_memory_holds_is_refused() {
        for len in [None, Some(usize::MAX), Some(1 << 60)] {
            let message = allocate(len, 0u64, "a test").unwrap_err().to_string();
            assert!(message.starts_with("a test would take"), "{message}");
        }
        assert_eq!(allocate(Some(3), 7u8, "a test").unwrap(), [7, 7, 7]);
    }
}
