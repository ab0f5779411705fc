//! 512-bit vectors with mask registers.

use std::arch::x86_64::*;

use super::{MAX_LANES, Simd};

/// Proof that the CPU has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy, Debug)]
pub(in crate::train::fused) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The CPU must have AVX-512 F, BW, DQ and VL.
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

    #[inline(always)]
    fn transpose_bits(self, rows: &[u64; 64], columns: &mut [u64; 64], variables: usize) {
        // SAFETY: `self` proves that the CPU has the instructions.
        unsafe {
            transpose_half::<0>(rows, columns);
            if variables > 32 {
                transpose_half::<32>(rows, columns);
            }
        }
    }

    intrinsics! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        // Of two operands that cannot be compared, the instruction returns the second.
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(b, a) }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn sub_mul(c: __m512, a: __m512, b: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        // The root by a 14-bit estimate g of 1 / sqrt(v) and one Newton step, 2 sqrt(v) = v g (3 - v g g) with
        // a relative error of about 2^-23, as the divider is busy enough with the division.
        fn over_two_roots(m: __m512, v: __m512, e: __m512) -> __m512 {
            // The floor keeps v = 0 from becoming 0 x infinity; it is far below any e.
            let guess = _mm512_rsqrt14_ps(_mm512_max_ps(v, _mm512_set1_ps(f32::MIN_POSITIVE)));
            let root = _mm512_mul_ps(v, guess);
            let factor = _mm512_fnmadd_ps(root, guess, _mm512_set1_ps(3.0));
            _mm512_div_ps(m, _mm512_fmadd_ps(root, factor, e))
        }
        fn power_of_two(shifted: __m512) -> __m512 {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(1f32.to_bits() as i32)))
        }
        fn positive(v: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(v, _mm512_setzero_ps()) }
        fn is_nan(v: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v) }
        fn select(mask: __mmask16, v: __m512) -> __m512 { _mm512_maskz_mov_ps(mask, v) }
        fn negate_where(mask: __mmask16, v: __m512) -> __m512 {
            _mm512_mask_xor_ps(v, mask, v, _mm512_set1_ps(-0.0))
        }
        fn fold_four(rows: [__m512; 4]) -> __m512 {
            let [a, b, c, d] = rows;
            let ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
            let cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
            let low = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
            _mm512_add_ps(low, _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)))
        }
        fn join_fours(fours: [__m512; MAX_LANES / 4]) -> __m512 {
            let [a, b, c, d] = fours;
            fold_blocks(fold_blocks(a, b), fold_blocks(c, d))
        }
        fn transpose(rows: [__m512; MAX_LANES]) -> [__m512; MAX_LANES] {
            let mut out = rows;
            let mut fours = [[_mm512_setzero_ps(); 4]; 4];
            for (four, rows) in fours.iter_mut().zip(rows.as_chunks().0) {
                *four = transpose_four(*rows);
            }
            // Now the quarters of the fours are to be transposed, for each place in a four.
            for i in 0..4 {
                let (a, b, c, d) = (fours[0][i], fours[1][i], fours[2][i], fours[3][i]);
                let even = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d));
                let odd = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d));
                out[i] = _mm512_shuffle_f32x4::<0x88>(even.0, even.1);
                out[4 + i] = _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1);
                out[8 + i] = _mm512_shuffle_f32x4::<0xdd>(even.0, even.1);
                out[12 + i] = _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1);
            }
            out
        }
        fn sum(v: __m512) -> f32 { _mm512_reduce_add_ps(v) }
    }
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

/// Transposes each quarter of four vectors as a 4 x 4 matrix.
///
/// # Safety
/// The CPU must have AVX-512 F.
#[inline(always)]
unsafe fn transpose_four([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    // SAFETY: as the caller promises.
    unsafe {
        let pair = |low, high| (_mm512_castps_pd(low), _mm512_castps_pd(high));
        let (ab, cd) = pair(_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
        let (ef, gh) = pair(_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
        [
            _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
            _mm512_castpd_ps(_mm512_unpacklo_pd(ef, gh)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(ef, gh)),
        ]
    }
}

/// Bit b of `columns[i]` becomes bit i of `rows[b]`, for 32 columns from `FIRST`.
///
/// # Safety
/// The CPU must have AVX-512 F and BW.
#[inline(always)]
unsafe fn transpose_half<const FIRST: u32>(rows: &[u64; 64], columns: &mut [u64; 64]) {
    // SAFETY: as the caller promises; the eight loads read the 64 words of `rows`.
    unsafe {
        // In each group of four 32-bit words, byte p of the words comes into word p; then group p of a
        // vector gets byte p of all its sixteen words.
        let bytes =
            _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        let groups = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let mut parts = [_mm512_setzero_si512(); 4];
        for (part, rows) in parts.iter_mut().zip(rows.chunks_exact(16)) {
            let low = _mm512_loadu_si512(rows.as_ptr().cast());
            let high = _mm512_loadu_si512(rows.as_ptr().add(8).cast());
            let (low, high) = (_mm512_srli_epi64::<FIRST>(low), _mm512_srli_epi64::<FIRST>(high));
            let words = _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(_mm512_cvtepi64_epi32(low)),
                _mm512_cvtepi64_epi32(high),
            );
            *part = _mm512_permutexvar_epi32(groups, _mm512_shuffle_epi8(words, bytes));
        }
        // Group p of the four parts together: byte p of all 64 words.
        let low01 = _mm512_shuffle_i32x4::<0x44>(parts[0], parts[1]);
        let low23 = _mm512_shuffle_i32x4::<0x44>(parts[2], parts[3]);
        let high01 = _mm512_shuffle_i32x4::<0xee>(parts[0], parts[1]);
        let high23 = _mm512_shuffle_i32x4::<0xee>(parts[2], parts[3]);
        let planes = [
            _mm512_shuffle_i32x4::<0x88>(low01, low23),
            _mm512_shuffle_i32x4::<0xdd>(low01, low23),
            _mm512_shuffle_i32x4::<0x88>(high01, high23),
            _mm512_shuffle_i32x4::<0xdd>(high01, high23),
        ];
        for (plane, columns) in planes.iter().zip(columns[FIRST as usize..].chunks_exact_mut(8)) {
            for (bit, column) in columns.iter_mut().enumerate() {
                *column = _mm512_test_epi8_mask(*plane, _mm512_set1_epi8(1 << bit));
            }
        }
    }
}
