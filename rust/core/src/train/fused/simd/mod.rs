//! The handful of vector operations the kernels are written in, once per instruction level.
//!
//! A value of a [`Simd`] type is a proof that the CPU has the instructions: it can only be made by
//! an unsafe constructor, so the operations themselves are safe. Everything is `inline(always)`:
//! the code becomes part of the `target_feature` function that it is called from, and only there
//! turns into the level's instructions.
//!
//! Closures that vectors pass through must not go to functions that are not `inline(always)` themselves, such as
//! `array::map` and `array::from_fn`: where the compiler leaves these as calls, they are compiled without the level's
//! instructions, and every operation becomes a call on vectors in memory. Loops over arrays do the same and are safe.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
pub(super) mod portable;

/// The most lanes any level has.
pub(super) const MAX_LANES: usize = 16;

/// Vectors of `LANES` f32 and what the kernels do with them.
///
/// # Safety
/// `Vector` must be exactly `LANES` consecutive f32, for which every bit pattern is valid.
pub(super) unsafe trait Simd: Copy + Send + Sync {
    /// `LANES` numbers.
    type Vector: Copy + Send + Sync;
    /// One Boolean per lane.
    type Mask: Copy + Send + Sync;
    /// Numbers in a vector, at most [`MAX_LANES`].
    const LANES: usize;

    fn splat(self, x: f32) -> Self::Vector;
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// b where b > a, else a: a NaN in `a` comes through, one in `b` does not. So what may have diverged stands
    /// first: `max(x, 0)` is the ReLU that passes NaN on, as torch's does.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a b + c
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// c - a b
    fn sub_mul(self, c: Self::Vector, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// m / (2 sqrt(v) + e) for v >= 0 and e > 0, to a relative error below 1e-6.
    fn over_two_roots(self, m: Self::Vector, v: Self::Vector, e: Self::Vector) -> Self::Vector;
    /// 2^k, where the low bits of `shifted` hold the integer k in [-126, 127].
    fn power_of_two(self, shifted: Self::Vector) -> Self::Vector;

    /// v > 0 (false for NaN).
    fn positive(self, v: Self::Vector) -> Self::Mask;
    /// Whether v is NaN.
    fn is_nan(self, v: Self::Vector) -> Self::Mask;
    /// v where the mask is set, +0 elsewhere.
    fn select(self, mask: Self::Mask, v: Self::Vector) -> Self::Vector;
    /// -v where the mask is set, v elsewhere.
    fn negate_where(self, mask: Self::Mask, v: Self::Vector) -> Self::Vector;
    /// The mask whose lane l is bit l.
    fn mask_from_bits(self, bits: u64) -> Self::Mask;
    /// Bit l is lane l of the mask.
    fn mask_to_bits(self, mask: Self::Mask) -> u64;

    /// Lane 4 g + i is the sum of lanes 4 g to 4 g + 3 of `rows[i]`.
    fn fold_four(self, rows: [Self::Vector; 4]) -> Self::Vector;
    /// Lane 4 q + i is the sum of lanes i, 4 + i, 8 + i, ... of `fours[q]`. The first `LANES / 4` entries count:
    /// of foldings of four rows each, these are the sums of all rows.
    fn join_fours(self, fours: [Self::Vector; MAX_LANES / 4]) -> Self::Vector;
    /// The sum of the lanes, always in the same order.
    fn sum(self, v: Self::Vector) -> f32;

    /// Lane i of `rows[j]` becomes lane j of row i. The first `LANES` entries count.
    fn transpose(self, rows: [Self::Vector; MAX_LANES]) -> [Self::Vector; MAX_LANES];

    /// Bit b of `columns[i]` becomes bit i of `rows[b]`. Only the first `variables` columns are
    /// written; bits of `rows` beyond them must be zero.
    #[inline(always)]
    fn transpose_bits(self, rows: &[u64; 64], columns: &mut [u64; 64], _variables: usize) {
        *columns = *rows;
        transpose_square(columns);
    }

    #[inline(always)]
    fn zero(self) -> Self::Vector {
        self.splat(0.0)
    }

    /// |v|; NaN stays NaN.
    #[inline(always)]
    fn abs(self, v: Self::Vector) -> Self::Vector {
        self.max(v, self.sub(self.zero(), v))
    }
}

/// Transposes a 64 x 64 bit matrix in place by swapping ever smaller off-diagonal blocks
/// (Warren, *Hacker's Delight*, section 7-3).
#[inline(always)]
fn transpose_square(matrix: &mut [u64; 64]) {
    let mut width = 32;
    let mut low = u64::MAX >> 32;
    while width > 0 {
        for start in (0..64).step_by(2 * width) {
            for k in start..start + width {
                let swapped = (matrix[k] >> width ^ matrix[k + width]) & low;
                matrix[k] ^= swapped << width;
                matrix[k + width] ^= swapped;
            }
        }
        width /= 2;
        low ^= low << width;
    }
}

/// The numbers of some vectors, in order.
pub(super) fn lanes<S: Simd>(vectors: &[S::Vector]) -> &[f32] {
    // SAFETY: the contract of `Simd`: a vector is `LANES` consecutive f32.
    unsafe { std::slice::from_raw_parts(vectors.as_ptr().cast(), vectors.len() * S::LANES) }
}

/// The numbers of some vectors, in order, to be written.
pub(super) fn lanes_mut<S: Simd>(vectors: &mut [S::Vector]) -> &mut [f32] {
    // SAFETY: the contract of `Simd`: a vector is `LANES` consecutive f32, any bits are valid.
    unsafe { std::slice::from_raw_parts_mut(vectors.as_mut_ptr().cast(), vectors.len() * S::LANES) }
}

#[cfg(test)]
mod tests;
