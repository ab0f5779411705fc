//! 512-bit vectors with mask registers.

use std::arch::x86_64::*;

use super::{MAX_LANES, Simd};

/// Proof that the CPU has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy, Debug)]
pub(in crate::fused) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The CPU must have AVX-512 F, BW, DQ and VL.
    pub(in crate::fused) unsafe fn new() -> Self {
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

// SAFETY: __m512 is sixteen consecutive f32.
unsafe impl Simd for Avx512 {
    type Vector = __m512;
    type Mask = __mmask16;
    const LANES: usize = 16;

    #[inline(always)]
    fn mask_from_bits(self, bits: u64) -> __mmask16 {
        bits as __mmask16
    }

    #[inline(always)]
    fn mask_to_bits(self, mask: __mmask16) -> u64 {
        u64::from(mask)
    }

    intrinsics! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn sub_mul(c: __m512, a: __m512, b: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        // Square root and division take the one divider for some 20 cycles a vector. Instead: 14-bit
        // estimates and one Newton step each, which leaves a relative error of about 2^-23.
        fn inverse_root(v: __m512, e: __m512) -> __m512 {
            // The floor keeps v = 0 from becoming 0 x infinity; it is far below any e.
            let guess = _mm512_rsqrt14_ps(_mm512_max_ps(v, _mm512_set1_ps(f32::MIN_POSITIVE)));
            let root = _mm512_mul_ps(v, guess);
            let rest = _mm512_fnmadd_ps(root, root, v);
            let root = _mm512_fmadd_ps(_mm512_mul_ps(guess, _mm512_set1_ps(0.5)), rest, root);
            let sum = _mm512_add_ps(root, e);
            let inverse = _mm512_rcp14_ps(sum);
            let rest = _mm512_fnmadd_ps(sum, inverse, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(inverse, rest, inverse)
        }
        fn power_of_two(shifted: __m512) -> __m512 {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(1f32.to_bits() as i32)))
        }
        fn positive(v: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(v, _mm512_setzero_ps()) }
        fn select(mask: __mmask16, v: __m512) -> __m512 { _mm512_maskz_mov_ps(mask, v) }
        fn negate_where(mask: __mmask16, v: __m512) -> __m512 {
            _mm512_mask_xor_ps(v, mask, v, _mm512_set1_ps(-0.0))
        }
        fn row_sums(r: &[__m512; MAX_LANES]) -> __m512 {
            let quad = |i: usize| {
                let a = fold_pair(r[i], r[i + 1]);
                let b = fold_pair(r[i + 2], r[i + 3]);
                let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
                _mm512_add_ps(
                    _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                    _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)),
                )
            };
            fold_blocks(fold_blocks(quad(0), quad(4)), fold_blocks(quad(8), quad(12)))
        }
        fn sum(v: __m512) -> f32 { _mm512_reduce_add_ps(v) }
    }
}

/// In each group of four lanes: (a0 + a2, b0 + b2, a1 + a3, b1 + b3).
///
/// # Safety
/// The CPU must have AVX-512 F.
#[inline(always)]
unsafe fn fold_pair(a: __m512, b: __m512) -> __m512 {
    // SAFETY: as the caller promises.
    unsafe { _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)) }
}

/// With groups of four lanes A0..A3 and B0..B3: (A0 + A1, A2 + A3, B0 + B1, B2 + B3).
///
/// # Safety
/// The CPU must have AVX-512 F.
#[inline(always)]
unsafe fn fold_blocks(a: __m512, b: __m512) -> __m512 {
    // SAFETY: as the caller promises.
    unsafe { _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)) }
}
