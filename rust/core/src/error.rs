//! The one error type of the crate: every message names the value that was refused and the remedy.

use ndarray::{Array, ArrayView, Dimension, StrideShape};

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
    let refuse = || {
        let size = len.and_then(|len| len.checked_mul(size_of::<T>()));
        let bytes = size
            .map_or("more than any memory".into(), |size| format!("{:.1} GiB", size as f64 / 2f64.powi(30)));
        Error::Unsupported(format!("{what} would take {bytes}: ask for less at a time"))
    };
    let mut values = Vec::new();
    values.try_reserve_exact(len.ok_or_else(refuse)?).map_err(|_| refuse())?;
    values.resize(len.unwrap_or(0), value);
    Ok(values)
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
