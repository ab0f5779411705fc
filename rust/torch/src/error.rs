//! The one error type of the crate.

/// Why a request was refused, or failed inside libtorch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Refused by a check of ours.
    #[error(transparent)]
    Core(#[from] precode_core::Error),
    /// Refused by libtorch; its message without the C++ stack.
    #[error("torch: {}", without_stack(.0))]
    Torch(#[from] tch::TchError),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

fn without_stack(error: &tch::TchError) -> String {
    let message = error.to_string();
    let message = message.split("\nException raised from").next().unwrap_or_default();
    message.strip_prefix("Internal torch error: ").unwrap_or(message).trim_end().to_owned()
}

macro_rules! value_error {
    ($($arg:tt)*) => { $crate::Error::Core(precode_core::Error::Value(format!($($arg)*))) };
}
macro_rules! shape_error {
    ($($arg:tt)*) => { $crate::Error::Core(precode_core::Error::Shape(format!($($arg)*))) };
}
macro_rules! unsupported {
    ($($arg:tt)*) => { $crate::Error::Core(precode_core::Error::Unsupported(format!($($arg)*))) };
}
pub(crate) use {shape_error, unsupported, value_error};
