//! 256-bit vectors with fused multiply-add.

use std::arch::x86_64::*;

use super::{MAX_LANES, Simd};

/// Proof that the CPU has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(in crate::train::fused) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The CPU must have AVX2 and FMA.
    pub(in crate::train::fused) unsafe fn new() -> Self {
        Self(())
    }
}

macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident: $kind:ty),*) -> $out:ty { $($body:tt)* })*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $kind),*) -> $out {
            // SAFETY: `self` proves that the CPU has the instructions.
            unsafe { $($body)* }
        }
    )*};
}

// SAFETY: __m256 is eight consecutive f32.
unsafe impl Simd for Avx2 {
    type Vector = __m256;
    type Mask = __m256;
    const LANES: usize = 8;

    intrinsics! {
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        // Of two operands that cannot be compared, the instruction returns the second.
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(b, a) }
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn sub_mul(c: __m256, a: __m256, b: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) }
        fn over_two_roots(m: __m256, v: __m256, e: __m256) -> __m256 {
            _mm256_div_ps(m, _mm256_fmadd_ps(_mm256_sqrt_ps(v), _mm256_set1_ps(2.0), e))
        }
        fn power_of_two(shifted: __m256) -> __m256 {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
            _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(1f32.to_bits() as i32)))
        }
        fn positive(v: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_GT_OQ>(v, _mm256_setzero_ps()) }
        fn is_nan(v: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v) }
        fn select(mask: __m256, v: __m256) -> __m256 { _mm256_and_ps(mask, v) }
        fn negate_where(mask: __m256, v: __m256) -> __m256 {
            _mm256_xor_ps(v, _mm256_and_ps(mask, _mm256_set1_ps(-0.0)))
        }
        fn mask_from_bits(bits: u64) -> __m256 {
            let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_and_si256(_mm256_set1_epi32(bits as i32), lane);
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane))
        }
        fn mask_to_bits(mask: __m256) -> u64 { _mm256_movemask_ps(mask) as u64 }
        fn fold_four(rows: [__m256; 4]) -> __m256 {
            let [a, b, c, d] = rows;
            _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d))
        }
        fn join_fours(fours: [__m256; MAX_LANES / 4]) -> __m256 {
            let [a, b, ..] = fours;
            _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
        }
        fn transpose(rows: [__m256; MAX_LANES]) -> [__m256; MAX_LANES] {
            let mut out = rows;
            let (low, high) = (transpose_four([rows[0], rows[1], rows[2], rows[3]]),
                transpose_four([rows[4], rows[5], rows[6], rows[7]]));
            for i in 0..4 {
                out[i] = _mm256_permute2f128_ps::<0x20>(low[i], high[i]);
                out[4 + i] = _mm256_permute2f128_ps::<0x31>(low[i], high[i]);
            }
            out
        }
        fn sum(v: __m256) -> f32 {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

/// Transposes each half of four vectors as a 4 x 4 matrix.
///
/// # Safety
/// The CPU must have AVX2.
#[inline(always)]
unsafe fn transpose_four([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    // SAFETY: as the caller promises.
    unsafe {
        let pair = |low, high| (_mm256_castps_pd(low), _mm256_castps_pd(high));
        let (ab, cd) = pair(_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let (ef, gh) = pair(_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        [
            _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
            _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
            _mm256_castpd_ps(_mm256_unpacklo_pd(ef, gh)),
            _mm256_castpd_ps(_mm256_unpackhi_pd(ef, gh)),
        ]
    }
}
