//! From shared bits to distances.

use super::tile::LANES;
use crate::error::{Error, Result};

/// A number that a distance is written as: `u8`, `u16`, `u32`, or `f32` (the only one for Jaccard).
pub trait Distance: Copy + Default + PartialOrd + Send + Sync + sealed::Sealed + 'static {
    /// Its name, for messages.
    const NAME: &'static str;
    /// The largest count that it holds exactly.
    const MAX: u32;
    /// Whether it can be a fraction.
    const FRACTION: bool;
    /// From a count of at most [`MAX`](Self::MAX).
    fn from_count(count: u32) -> Self;
    /// The count that it was made from.
    fn count(self) -> u32;
    /// From a fraction, if it can be one.
    fn from_fraction(fraction: f32) -> Self;
    /// A number that is smaller for smaller distances.
    fn key(self) -> u32;
    /// From its [`key`](Self::key).
    fn from_key(key: u32) -> Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! distance {
    ($($type:ident, $max:expr, $fraction:literal, $key:expr, $from_key:expr;)+) => {$(
        impl sealed::Sealed for $type {}
        impl Distance for $type {
            const NAME: &'static str = stringify!($type);
            const MAX: u32 = $max;
            const FRACTION: bool = $fraction;
            #[inline(always)]
            fn from_count(count: u32) -> Self {
                count as $type
            }
            fn count(self) -> u32 {
                self as u32
            }
            #[inline(always)]
            fn from_fraction(fraction: f32) -> Self {
                fraction as $type
            }
            fn key(self) -> u32 {
                $key(self)
            }
            fn from_key(key: u32) -> Self {
                $from_key(key)
            }
        }
    )+};
}
distance! {
    u8, 0xff, false, u32::from, |key| key as u8;
    u16, 0xffff, false, u32::from, |key| key as u16;
    u32, u32::MAX, false, |count| count, |key| key;
    // The bits of floats that are not negative are ordered as they are.
    f32, 1 << 24, true, f32::to_bits, f32::from_bits;
}

/// How a distance follows from the bits that two codes share and have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Bits that one of them has: both numbers of bits less twice what is shared.
    Differing,
    /// Bits that both have.
    Shared,
    /// Bits out of so many that are not shared.
    Missing(u32),
    /// One less the part of the bits of either that both have.
    Jaccard,
}

impl Rule {
    /// The largest distance of codes of `bits` bits.
    pub fn largest(self, bits: usize) -> usize {
        if let Self::Missing(of) = self { of as usize } else { bits }
    }

    /// Refuses a type that cannot hold distances of codes of `bits` bits.
    pub fn check<T: Distance>(self, bits: usize) -> Result<()> {
        let largest = self.largest(bits);
        match self {
            Self::Jaccard if T::FRACTION => Ok(()),
            Self::Jaccard => {
                Err(Error::Unsupported(format!("a Jaccard distance is a fraction, not {}: use f32", T::NAME)))
            }
            _ if largest <= T::MAX as usize => Ok(()),
            _ => Err(Error::Unsupported(format!(
                "distances up to {largest} do not fit {}, which ends at {}: use {}",
                T::NAME,
                T::MAX,
                if largest <= u16::MAX.into() { "u16 or u32" } else { "u32" }
            ))),
        }
    }

    /// The distances of one row, of `norm` bits, from the codes of a panel, of `norms` bits each.
    #[inline(always)]
    pub fn finish<T: Distance>(self, shared: &[u32; LANES], norm: u32, norms: &[u32; LANES]) -> [T; LANES] {
        match self {
            Self::Differing => lanes(|l| T::from_count(norm + norms[l] - 2 * shared[l])),
            Self::Shared => lanes(|l| T::from_count(shared[l])),
            Self::Missing(of) => lanes(|l| T::from_count(of - shared[l])),
            Self::Jaccard => lanes(|l| {
                let either = norm + norms[l] - shared[l];
                // Two empty codes are equal.
                let shared = shared[l].max(u32::from(either == 0));
                T::from_fraction(1.0 - shared as f32 / either.max(1) as f32)
            }),
        }
    }
}

/// A loop that is vectorised with the features of the function it is inlined into.
#[inline(always)]
fn lanes<T: Distance>(distance: impl Fn(usize) -> T) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    for (l, out) in out.iter_mut().enumerate() {
        *out = distance(l);
    }
    out
}
