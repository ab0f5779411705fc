//! Counting with AVX2, which has no popcount of its own.

use std::arch::x86_64::*;

use super::tile::{Counts, LANES, Lanes, ROWS, Tile};
use crate::cpu::Level;

/// Lanes of a 256-bit vector.
const WIDTH: usize = 4;

/// Counts with carry-save adders, which turn four words into one that counts four times, and a
/// table of nibbles for what they leave (Muła, Kurz and Lemire, arXiv 1611.07612).
pub(super) struct Avx2;

impl Tile for Avx2 {
    const LEVEL: Level = Level::Avx2;

    #[inline(always)]
    unsafe fn add(rows: &[[u64; ROWS]], panel: &[Lanes], counts: &mut [Counts; ROWS]) {
        // SAFETY: the caller promises the features of `LEVEL`.
        unsafe { add(rows, panel, counts) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(rows: &[[u64; ROWS]], panel: &[Lanes], counts: &mut [Counts; ROWS]) {
    let gather = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    for (r, counts) in counts.iter_mut().enumerate() {
        for (v, counts) in counts.0.chunks_exact_mut(WIDTH).enumerate() {
            let sums = lane_sums(rows, r, panel, v);
            let low = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(sums, gather));
            let at: *mut __m128i = counts.as_mut_ptr().cast();
            // SAFETY: `counts` holds 4 values of 4 bytes, and the accesses need no alignment.
            unsafe { _mm_storeu_si128(at, _mm_add_epi32(_mm_loadu_si128(at), low)) }
        }
    }
}

/// Bits that row `r` shares with each lane of vector `v`.
#[inline]
#[target_feature(enable = "avx2")]
fn lane_sums(rows: &[[u64; ROWS]], r: usize, panel: &[Lanes], v: usize) -> __m256i {
    let zero = _mm256_setzero_si256();
    let (mut ones, mut twos, mut fours) = (zero, zero, zero);
    let mut tail = zero;
    let (mut quads, mut lanes) = (rows.chunks_exact(4), panel.chunks_exact(4));
    // A byte of `bytes` grows by at most 8 a step, so that 31 steps fit.
    let mut bytes = zero;
    let mut steps = 0;
    for (words, lanes) in (&mut quads).zip(&mut lanes) {
        let shared = |k: usize| shared(words[k][r], &lanes[k], v);
        let twos_a = carry(&mut ones, shared(0), shared(1));
        let twos_b = carry(&mut ones, shared(2), shared(3));
        bytes = _mm256_add_epi8(bytes, byte_counts(carry(&mut twos, twos_a, twos_b)));
        steps += 1;
        if steps == 31 {
            fours = _mm256_add_epi64(fours, _mm256_sad_epu8(bytes, zero));
            bytes = zero;
            steps = 0;
        }
    }
    fours = _mm256_add_epi64(fours, _mm256_sad_epu8(bytes, zero));
    for (words, lanes) in quads.remainder().iter().zip(lanes.remainder()) {
        tail = _mm256_add_epi8(tail, byte_counts(shared(words[r], lanes, v)));
    }
    if rows.len() < 4 {
        return _mm256_sad_epu8(tail, zero);
    }
    let ones = _mm256_sad_epu8(_mm256_add_epi8(tail, byte_counts(ones)), zero);
    let twos = _mm256_sad_epu8(byte_counts(twos), zero);
    let sum = _mm256_add_epi64(_mm256_slli_epi64::<1>(fours), twos);
    _mm256_add_epi64(_mm256_slli_epi64::<1>(sum), ones)
}

#[inline]
#[target_feature(enable = "avx2")]
fn shared(word: u64, lanes: &Lanes, v: usize) -> __m256i {
    let lanes = &lanes.0.as_chunks::<WIDTH>().0[v];
    // SAFETY: `lanes` holds 32 bytes, and the load needs no alignment.
    let lanes = unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) };
    _mm256_and_si256(_mm256_set1_epi64x(word as i64), lanes)
}

/// Adds two bits to `ones` in every place and returns the carries.
#[inline]
#[target_feature(enable = "avx2")]
fn carry(ones: &mut __m256i, a: __m256i, b: __m256i) -> __m256i {
    let either = _mm256_xor_si256(*ones, a);
    let carry = _mm256_or_si256(_mm256_and_si256(*ones, a), _mm256_and_si256(either, b));
    *ones = _mm256_xor_si256(either, b);
    carry
}

/// Bits set in every byte.
#[inline]
#[target_feature(enable = "avx2")]
fn byte_counts(v: __m256i) -> __m256i {
    let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    let nibble = _mm256_set1_epi8(0x0f);
    let low = _mm256_shuffle_epi8(table, _mm256_and_si256(v, nibble));
    let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(v), nibble));
    _mm256_add_epi8(low, high)
}

const _: () = assert!(LANES.is_multiple_of(WIDTH));
