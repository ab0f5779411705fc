//! Enumerations with names, as the Python API and the command line spell them.

/// Gives an enumeration without data the constants `ALL` and `NAMES`, `name`, `Display` and a `FromStr` whose error
/// lists the names.
///
/// ```
/// # #[derive(Clone, Copy, Debug, PartialEq)]
/// enum Side { Left, Right }
/// precode_core::named!(Side, "side", "left" => Left, "right" => Right);
/// assert_eq!("right".parse(), Ok(Side::Right));
/// assert_eq!(Side::Left.to_string(), "left");
/// let error = "up".parse::<Side>().unwrap_err().to_string();
/// assert_eq!(error, "side 'up' is unknown: use one of left, right");
/// ```
#[macro_export]
macro_rules! named {
    ($type:ident, $what:literal, $($name:literal => $variant:ident),+ $(,)?) => {
        impl $type {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The names that can be parsed, in the order of [`ALL`](Self::ALL).
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// The name by which it is chosen.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = $crate::Error;

            fn from_str(name: &str) -> $crate::Result<Self> {
                match name {
                    $($name => Ok(Self::$variant),)+
                    _ => Err($crate::Error::Value(format!(
                        "{} '{name}' is unknown: use one of {}", $what, Self::NAMES.join(", ")
                    ))),
                }
            }
        }
    };
}
