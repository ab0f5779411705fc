//! Counting with AVX-512 VPOPCNTDQ.

use std::arch::x86_64::*;

use super::tile::{Counts, LANES, Lanes, ROWS, Tile};
use crate::cpu::Level;

/// Lanes of a 512-bit vector.
const WIDTH: usize = 8;
/// Vectors of a panel.
const VECTORS: usize = LANES / WIDTH;

/// Counts with VPOPCNTQ: AND, popcount and add are three instructions for a word of eight pairs, and
/// the loop comes within a few percent of what four vector units can do of them. A carry-save adder
/// made of ternary logic needs but five for two words; it was measured, and is slower.
pub(super) struct Avx512;

impl Tile for Avx512 {
    const LEVEL: Level = Level::Avx512;

    #[inline(always)]
    unsafe fn add(rows: &[[u64; ROWS]], panel: &[Lanes], counts: &mut [Counts; ROWS]) {
        // SAFETY: the caller promises the features of `LEVEL` and has them itself, as this is inlined
        // there. Panels and counts hold as many values as vectors are read and written; none of the
        // accesses needs alignment.
        unsafe {
            let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
            for (words, lanes) in rows.iter().zip(panel) {
                let lanes: *const __m512i = lanes.0.as_ptr().cast();
                for (&word, sums) in words.iter().zip(&mut sums) {
                    let word = _mm512_set1_epi64(word as i64);
                    for (v, sum) in sums.iter_mut().enumerate() {
                        let shared = _mm512_and_si512(word, _mm512_loadu_si512(lanes.add(v)));
                        *sum = _mm512_add_epi64(*sum, _mm512_popcnt_epi64(shared));
                    }
                }
            }
            for (counts, sums) in counts.iter_mut().zip(&sums) {
                let counts: *mut __m256i = counts.0.as_mut_ptr().cast();
                for (v, &sum) in sums.iter().enumerate() {
                    let (at, sum) = (counts.add(v), _mm512_cvtepi64_epi32(sum));
                    _mm256_storeu_si256(at, _mm256_add_epi32(_mm256_loadu_si256(at), sum));
                }
            }
        }
    }
}
