//! Which instructions count the bits.

use crate::error::{Error, Result, value_error};

/// Name of the environment variable that forces a kernel where the caller leaves the choice.
pub const KERNEL_VARIABLE: &str = "PRECODE_PAIRS_KERNEL";

/// Instructions that count bits, slowest first. All give the same numbers.
///
/// ```
/// use precode_core::read::pairs::Kernel;
/// assert!(Kernel::available().contains(&Kernel::Scalar));
/// assert_eq!(Kernel::available().last(), Some(&Kernel::detect()));
/// assert_eq!(Kernel::parse("avx2"), Ok(Kernel::Avx2));
/// assert!(Kernel::parse("mmx").unwrap_err().to_string().contains("scalar, avx2, avx512"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kernel {
    /// `u64::count_ones`, on any processor.
    Scalar,
    /// AVX2: carry-save adders, then a table of nibbles.
    Avx2,
    /// AVX-512 with VPOPCNTDQ.
    Avx512,
}

impl Kernel {
    /// Every kernel there is, slowest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// The name that [`parse`](Self::parse) takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// From its name.
    ///
    /// # Errors
    /// [`Error::Value`] listing the names there are.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| value_error!("kernel '{name}' is unknown: use one of {}", names(&Self::ALL)))
    }

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vpopcntdq")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The kernels this processor can run, slowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available()).collect()
    }

    /// The fastest kernel this processor can run.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rfind(|kernel| kernel.is_available()).unwrap_or(Self::Scalar)
    }

    /// The kernel to run: the one asked for, or else the one that [`KERNEL_VARIABLE`] names, or else
    /// the fastest.
    ///
    /// # Errors
    /// [`Error::Unsupported`] listing the kernels this processor can run, if it cannot run that one;
    /// [`Error::Value`] if the variable names none.
    pub fn select(asked: Option<Self>) -> Result<Self> {
        let forced = match (asked, std::env::var(KERNEL_VARIABLE)) {
            (None, Ok(name)) if !name.is_empty() => Some(Self::parse(&name)?),
            _ => asked,
        };
        match forced {
            None => Ok(Self::detect()),
            Some(kernel) if kernel.is_available() => Ok(kernel),
            Some(kernel) => Err(Error::Unsupported(format!(
                "this processor cannot run the kernel {}: use one of {}",
                kernel.name(),
                names(&Self::available())
            ))),
        }
    }
}

fn names(kernels: &[Kernel]) -> String {
    kernels.iter().map(|kernel| kernel.name()).collect::<Vec<_>>().join(", ")
}
