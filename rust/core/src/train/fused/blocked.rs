//! Code in blocks of hidden rows, compiled for every level and every size of a block.

use super::simd::Simd;
use super::simd::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::simd::{avx2::Avx2, avx512::Avx512};
use crate::cpu::{Kernel, Kernels, Level, Selected};

/// Code that is compiled for every level and every number of vectors in a block of rows.
pub(super) trait Blocked {
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

/// Runs code at a level for `rows` hidden rows.
pub(super) fn run<B: Blocked>(level: Selected, rows: usize, code: B) -> B::Output {
    let lanes = match level.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => Avx512::LANES,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => Avx2::LANES,
        _ => Portable::LANES,
    };
    match block_vectors(rows, lanes) {
        1 => level.run(Of::<B, 1>(code)),
        2 => level.run(Of::<B, 2>(code)),
        3 => level.run(Of::<B, 3>(code)),
        _ => level.run(Of::<B, 4>(code)),
    }
}

/// Code with blocks of `V` vectors.
struct Of<B, const V: usize>(B);

impl<B: Blocked, const V: usize> Kernel for Of<B, V> {
    const GROUP: Kernels = Kernels::Fused;
    type Output = B::Output;

    #[inline(always)]
    fn portable(self) -> B::Output {
        self.0.run::<Portable, V>(Portable)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn avx2(self) -> B::Output {
        // SAFETY: as the caller promises.
        self.0.run::<Avx2, V>(unsafe { Avx2::new() })
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn avx512(self) -> B::Output {
        // SAFETY: as the caller promises.
        self.0.run::<Avx512, V>(unsafe { Avx512::new() })
    }
}
