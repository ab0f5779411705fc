//! Zeros where a mask prunes, in place.

/// Values of a block, which stays in the first-level cache between being read and being written.
const BLOCK: usize = 2048;

/// Values that are looked at together: where one of them is to be put to zero, the rest of the block is not looked at.
const TOGETHER: usize = 64;

/// The bits of a floating-point number.
pub trait Bits: Copy + Eq + std::ops::BitOr<Output = Self> {
    /// The bits of zero.
    const ZERO: Self;

    /// These bits where `kept` is true, and those of zero elsewhere.
    #[must_use]
    fn where_kept(self, kept: bool) -> Self;
}

macro_rules! bits {
    ($($word:ty),*) => {$(
        impl Bits for $word {
            const ZERO: Self = 0;

            #[inline]
            fn where_kept(self, kept: bool) -> Self {
                self & Self::from(kept).wrapping_neg()
            }
        }
    )*};
}
bits!(u16, u32, u64);

/// Sets values to zero where `kept` is zero, of whatever value they were, and leaves the others alone.
///
/// Memory of which all values are right is read and not written, so that several threads may do this at once with
/// weights that are masked already.
///
/// ```
/// use precode_core::ticket::zeroing::zero_pruned;
/// let mut bits = [1.5f32, f32::NAN, -0.0].map(f32::to_bits);
/// zero_pruned(&mut bits, &[1, 0, 0]);
/// assert_eq!(bits, [1.5f32, 0.0, 0.0].map(f32::to_bits));
/// ```
pub fn zero_pruned<T: Bits>(values: &mut [T], kept: &[u8]) {
    for (values, kept) in values.chunks_mut(BLOCK).zip(kept.chunks(BLOCK)) {
        let stray = |(&value, &kept): (&T, &u8)| value.where_kept(kept == 0);
        let mut together = values.chunks(TOGETHER).zip(kept.chunks(TOGETHER));
        if together.all(|(values, kept)| {
            values.iter().zip(kept).map(stray).fold(T::ZERO, |any, bits| any | bits) == T::ZERO
        }) {
            continue;
        }
        for (value, &kept) in values.iter_mut().zip(kept) {
            *value = value.where_kept(kept != 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_are_theirs_or_zero(
            values in prop::collection::vec((any::<u32>(), any::<bool>()), 0..3 * BLOCK), stray in any::<bool>(),
        ) {
            let kept: Vec<u8> = values.iter().map(|value| value.1.into()).collect();
            let expected: Vec<u32> = values.iter().map(|&(bits, kept)| if kept { bits } else { 0 }).collect();
            let mut got = if stray { values.iter().map(|value| value.0).collect() } else { expected.clone() };
            zero_pruned(&mut got, &kept);
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn every_width_is_its_bits() {
        let mut half = [0xffffu16, 1];
        zero_pruned(&mut half, &[0, 1]);
        assert_eq!(half, [0, 1]);
        let mut double = [f64::INFINITY.to_bits(), f64::MIN.to_bits()];
        zero_pruned(&mut double, &[0, 1]);
        assert_eq!(double.map(f64::from_bits), [0.0, f64::MIN]);
    }
}
