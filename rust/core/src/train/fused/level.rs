//! Instruction levels, and running code at one of them.

use std::fmt;
use std::str::FromStr;

use super::simd::Simd;
use super::simd::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::simd::{avx2::Avx2, avx512::Avx512};
use crate::error::{Error, Result, value_error};

/// Names the environment variable that forces a level where [`Options`](super::Options) do not.
pub const LEVEL_VARIABLE: &str = "PRECODE_FUSED_LEVEL";

/// Which instructions the kernels use. Results have the same bits at one level; between levels
/// they differ by rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What every CPU of the target has.
    Portable,
    /// x86-64 with AVX2 and FMA (8 numbers at once).
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL (16 numbers at once).
    Avx512,
}

impl Level {
    const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The best level this CPU has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rfind(|level| level.is_available()).unwrap_or(Self::Portable)
    }

    /// The levels this CPU has, slowest first.
    ///
    /// ```
    /// use precode_core::train::fused::Level;
    /// assert!(Level::available().contains(&Level::detect()));
    /// assert!(Level::available().contains(&Level::Portable));
    /// ```
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|level| level.is_available()).collect()
    }

    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The level to run at: the one asked for, else the one [`LEVEL_VARIABLE`] names, else the best.
    pub(super) fn choose(asked: Option<Self>) -> Result<Self> {
        let asked = match (asked, std::env::var(LEVEL_VARIABLE)) {
            (Some(level), _) => level,
            (None, Ok(name)) if !name.is_empty() => name
                .parse()
                .map_err(|error| value_error!("environment variable {LEVEL_VARIABLE}: {error}"))?,
            _ => return Ok(Self::detect()),
        };
        if asked.is_available() {
            return Ok(asked);
        }
        let names: Vec<_> = Self::available().iter().map(ToString::to_string).collect();
        Err(Error::Unsupported(format!(
            "level {asked}: this CPU does not have its instructions (it has: {})",
            names.join(", ")
        )))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|level| level.to_string() == name)
            .ok_or_else(|| value_error!("level {name:?}: must be one of portable, avx2, avx512"))
    }
}

/// Code that is compiled for every level and every number of vectors in a block of rows.
pub(super) trait Kernel {
    /// What the code returns.
    type Output;
    /// Runs at the level of `simd`, with blocks of `V` vectors of hidden rows.
    ///
    /// Must be `inline(always)`, like all that it calls on vectors: see [`super::simd`].
    fn run<S: Simd, const V: usize>(self, simd: S) -> Self::Output;
}

/// The most vectors in a block: its sums stay in registers at every level.
const BLOCK_VECTORS: usize = 4;

/// Vectors of a block, such that the fewest blocks cover `rows` rows with the least padding.
fn block_vectors(rows: usize, lanes: usize) -> usize {
    let vectors = rows.div_ceil(lanes).max(1);
    vectors.div_ceil(vectors.div_ceil(BLOCK_VECTORS))
}

/// Runs a kernel at a level, which must be available, for `rows` hidden rows.
pub(super) fn dispatch<K: Kernel>(level: Level, rows: usize, kernel: K) -> K::Output {
    debug_assert!(level.is_available());
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only chosen after the CPU was asked for its instructions.
        Level::Avx512 => unsafe {
            match block_vectors(rows, Avx512::LANES) {
                1 => avx512::<K, 1>(kernel),
                2 => avx512::<K, 2>(kernel),
                3 => avx512::<K, 3>(kernel),
                _ => avx512::<K, 4>(kernel),
            }
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only chosen after the CPU was asked for its instructions.
        Level::Avx2 => unsafe {
            match block_vectors(rows, Avx2::LANES) {
                1 => avx2::<K, 1>(kernel),
                2 => avx2::<K, 2>(kernel),
                3 => avx2::<K, 3>(kernel),
                _ => avx2::<K, 4>(kernel),
            }
        },
        _ => match block_vectors(rows, Portable::LANES) {
            1 => kernel.run::<Portable, 1>(Portable),
            2 => kernel.run::<Portable, 2>(Portable),
            3 => kernel.run::<Portable, 3>(Portable),
            _ => kernel.run::<Portable, 4>(Portable),
        },
    }
}

/// # Safety
/// The CPU must have the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt")]
unsafe fn avx512<K: Kernel, const V: usize>(kernel: K) -> K::Output {
    // SAFETY: as the caller promises.
    kernel.run::<Avx512, V>(unsafe { Avx512::new() })
}

/// # Safety
/// The CPU must have the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt")]
unsafe fn avx2<K: Kernel, const V: usize>(kernel: K) -> K::Output {
    // SAFETY: as the caller promises.
    kernel.run::<Avx2, V>(unsafe { Avx2::new() })
}
