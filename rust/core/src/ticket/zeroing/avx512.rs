//! Zeros with mask registers: 64 bytes of a mask become 64 bits, of which each vector of values takes its own.

use std::arch::x86_64::*;

use super::{Bits, Instructions, TOGETHER};

/// AVX-512 F and BW.
pub(super) struct Avx512;

impl Instructions for Avx512 {
    #[inline(always)]
    unsafe fn has_stray<T: Bits>(values: &[T; TOGETHER], kept: &[u8; TOGETHER]) -> bool {
        // SAFETY: the caller promises the instructions. Vectors are read within the arrays; none needs alignment.
        unsafe {
            let (vectors, pruned) = (values.as_ptr().cast::<__m512i>(), !bits(kept));
            let mut any = _mm512_setzero_si512();
            for v in 0..vectors_of::<T>() {
                any = _mm512_or_si512(any, lanes::<T>(pruned, v, _mm512_loadu_si512(vectors.add(v))));
            }
            _mm512_test_epi32_mask(any, any) != 0
        }
    }

    #[inline(always)]
    unsafe fn rewrite<T: Bits>(values: &mut [T; TOGETHER], kept: &[u8; TOGETHER]) {
        // SAFETY: as above; vectors are written where they were read.
        unsafe {
            let (vectors, kept) = (values.as_mut_ptr().cast::<__m512i>(), bits(kept));
            for v in 0..vectors_of::<T>() {
                let at = vectors.add(v);
                _mm512_storeu_si512(at, lanes::<T>(kept, v, _mm512_loadu_si512(at)));
            }
        }
    }
}

/// Vectors of 64 values.
const fn vectors_of<T: Bits>() -> usize {
    const { assert!(matches!(size_of::<T>(), 2 | 4 | 8), "vectors have lanes of two, four and eight bytes") };
    TOGETHER * size_of::<T>() / size_of::<__m512i>()
}

/// Bit i is set where byte i is not zero.
///
/// # Safety
/// The CPU must have AVX-512 F and BW.
#[inline(always)]
unsafe fn bits(bytes: &[u8; TOGETHER]) -> u64 {
    // SAFETY: as above.
    unsafe {
        let bytes = _mm512_loadu_si512(bytes.as_ptr().cast());
        _mm512_test_epi8_mask(bytes, bytes)
    }
}

/// The lanes of vector `v` of 64 values whose bit is set, and zeros elsewhere.
///
/// # Safety
/// The CPU must have AVX-512 F and BW.
#[inline(always)]
unsafe fn lanes<T: Bits>(set: u64, v: usize, vector: __m512i) -> __m512i {
    let set = set >> (v * size_of::<__m512i>() / size_of::<T>());
    // SAFETY: as above.
    unsafe {
        match size_of::<T>() {
            2 => _mm512_maskz_mov_epi16(set as __mmask32, vector),
            4 => _mm512_maskz_mov_epi32(set as __mmask16, vector),
            _ => _mm512_maskz_mov_epi64(set as __mmask8, vector),
        }
    }
}
