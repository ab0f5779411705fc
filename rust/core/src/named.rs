//! Enumerations with names, as the Python API and the command line spell them.

/// Gives an enumeration the constant `NAMES` and a `parse` whose error lists them.
macro_rules! named {
    ($type:ident, $what:literal, $($name:literal => $variant:ident),+ $(,)?) => {
        impl $type {
            /// The names that [`parse`](Self::parse) takes.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// From its name.
            ///
            /// # Errors
            /// [`Error::Value`](crate::Error::Value) listing the names there are.
            pub fn parse(name: &str) -> crate::error::Result<Self> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(crate::error::value_error!(
                        "{} '{name}' is unknown: use one of {}", $what, Self::NAMES.join(", ")
                    )),
                }
            }
        }
    };
}
pub(crate) use named;
