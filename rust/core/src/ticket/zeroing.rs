//! Zeros where a mask prunes, in place.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::cpu::{Kernel, Kernels, Selected};
use crate::error::{Result, shape_error};

/// Values of a block, which stays in the first-level cache between being read and being written.
const BLOCK: usize = 2048;

/// Values that are looked at together: where one of them is to be put to zero, the rest of the block is not looked at.
const TOGETHER: usize = 64;

/// The bits of a floating-point number, of two, four or eight bytes.
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

            #[inline(always)]
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
/// use precode_core::cpu::Kernels;
/// use precode_core::ticket::zeroing::zero_pruned;
/// let mut bits = [1.5f32, f32::NAN, -0.0].map(f32::to_bits);
/// zero_pruned(&mut bits, &[1, 0, 0], Kernels::Zeroing.select(None)?)?;
/// assert_eq!(bits, [1.5f32, 0.0, 0.0].map(f32::to_bits));
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if there are more of one than of the other.
///
/// # Panics
/// If the level was selected for other kernels.
pub fn zero_pruned<T: Bits>(values: &mut [T], kept: &[u8], level: Selected) -> Result<()> {
    if values.len() != kept.len() {
        return Err(shape_error!("{} values beside a mask of {}", values.len(), kept.len()));
    }
    level.run(Zeroing { values, kept });
    Ok(())
}

/// What [`zero_pruned`] does.
struct Zeroing<'a, T> {
    values: &'a mut [T],
    kept: &'a [u8],
}

impl<T: Bits> Kernel for Zeroing<'_, T> {
    const GROUP: Kernels = Kernels::Zeroing;
    type Output = ();

    #[inline(always)]
    fn portable(self) {
        // SAFETY: any processor can run it.
        unsafe { self.with::<Plain>() }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn avx2(self) {
        // SAFETY: as above.
        unsafe { self.with::<Plain>() }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn avx512(self) {
        // SAFETY: as the caller promises.
        unsafe { self.with::<avx512::Avx512>() }
    }
}

impl<T: Bits> Zeroing<'_, T> {
    /// # Safety
    /// The CPU must have the instructions.
    #[inline(always)]
    unsafe fn with<I: Instructions>(self) {
        for (values, kept) in self.values.chunks_mut(BLOCK).zip(self.kept.chunks(BLOCK)) {
            let (many, few) = values.as_chunks_mut::<TOGETHER>();
            let (many_kept, few_kept) = kept.as_chunks::<TOGETHER>();
            // SAFETY: as the caller promises.
            unsafe {
                if many.iter().zip(many_kept).any(|(values, kept)| I::has_stray(values, kept)) {
                    many.iter_mut().zip(many_kept).for_each(|(values, kept)| I::rewrite(values, kept));
                }
            }
            if has_stray(few, few_kept) {
                rewrite(few, few_kept);
            }
        }
    }
}

/// What is done with 64 values at a time.
trait Instructions {
    /// Whether a value is to be put to zero that is not zero.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn has_stray<T: Bits>(values: &[T; TOGETHER], kept: &[u8; TOGETHER]) -> bool;

    /// Sets values to zero where `kept` is zero.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn rewrite<T: Bits>(values: &mut [T; TOGETHER], kept: &[u8; TOGETHER]);
}

/// What the compiler makes of loops, at whatever level they are inlined.
struct Plain;

impl Instructions for Plain {
    #[inline(always)]
    unsafe fn has_stray<T: Bits>(values: &[T; TOGETHER], kept: &[u8; TOGETHER]) -> bool {
        has_stray(values, kept)
    }

    #[inline(always)]
    unsafe fn rewrite<T: Bits>(values: &mut [T; TOGETHER], kept: &[u8; TOGETHER]) {
        rewrite(values, kept);
    }
}

#[inline(always)]
fn has_stray<T: Bits>(values: &[T], kept: &[u8]) -> bool {
    let strays = values.iter().zip(kept).map(|(value, &kept)| value.where_kept(kept == 0));
    strays.fold(T::ZERO, |any, bits| any | bits) != T::ZERO
}

#[inline(always)]
fn rewrite<T: Bits>(values: &mut [T], kept: &[u8]) {
    for (value, &kept) in values.iter_mut().zip(kept) {
        *value = value.where_kept(kept != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What every level makes of values.
    fn at_every_level<T: Bits + std::fmt::Debug>(values: &[T], kept: &[u8], expected: &[T]) {
        for level in Kernels::Zeroing.available() {
            let mut got = values.to_vec();
            zero_pruned(&mut got, kept, Kernels::Zeroing.select(Some(level)).unwrap()).unwrap();
            assert_eq!(got, expected, "{level}");
        }
    }

    /// Values and masks, of which the pruned ones may be zero already but for a few.
    fn check<T: Bits + std::fmt::Debug>(values: &[(T, u8)], stray: &[usize]) {
        let kept: Vec<u8> = values.iter().map(|value| value.1).collect();
        let expected: Vec<T> =
            values.iter().map(|&(bits, kept)| if kept == 0 { T::ZERO } else { bits }).collect();
        let mut given = expected.clone();
        for &at in stray.iter().filter(|&&at| at < values.len()) {
            given[at] = values[at].0;
        }
        at_every_level(&given, &kept, &expected);
        at_every_level(&values.iter().map(|value| value.0).collect::<Vec<T>>(), &kept, &expected);
    }

    fn values<T: Arbitrary>() -> impl Strategy<Value = Vec<(T, u8)>> {
        prop::collection::vec((any::<T>(), any::<bool>().prop_map(u8::from)), 0..2 * BLOCK + 100)
    }

    proptest! {
        #[test]
        fn values_are_theirs_or_zero(
            (half, single, double) in (values::<u16>(), values::<u32>(), values::<u64>()),
            stray in prop::collection::vec(0..2 * BLOCK + 100, 0..3),
        ) {
            check(&half, &stray);
            check(&single, &stray);
            check(&double, &stray);
        }
    }

    #[test]
    fn every_width_is_its_bits() {
        at_every_level(&[0xffffu16, 1], &[0, 1], &[0, 1]);
        let doubles = |values: [f64; 2]| values.map(f64::to_bits);
        at_every_level(&doubles([f64::INFINITY, f64::MIN]), &[0, 1], &doubles([0.0, f64::MIN]));
        assert!(zero_pruned(&mut [1u32; 130], &[0; 100], Kernels::Zeroing.select(None).unwrap()).is_err());
    }
}
