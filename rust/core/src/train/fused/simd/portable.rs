//! Vectors in plain Rust, for every CPU: the compiler makes of them what its target allows.

use super::{MAX_LANES, Simd};

const LANES: usize = 8;

/// Needs nothing of the CPU.
#[derive(Clone, Copy, Debug)]
pub(in crate::train::fused) struct Portable;

/// Eight numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(in crate::train::fused) struct Vector([f32; LANES]);

/// All ones or all zeros per lane.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(in crate::train::fused) struct Mask([u32; LANES]);

#[inline(always)]
fn map(a: Vector, b: Vector, f: impl Fn(f32, f32) -> f32) -> Vector {
    let mut out = a;
    for (x, y) in out.0.iter_mut().zip(b.0) {
        *x = f(*x, y);
    }
    out
}

// SAFETY: `Vector` is `repr(C)` around exactly LANES f32.
unsafe impl Simd for Portable {
    type Vector = Vector;
    type Mask = Mask;
    const LANES: usize = LANES;

    #[inline(always)]
    fn splat(self, x: f32) -> Vector {
        Vector([x; LANES])
    }

    #[inline(always)]
    fn add(self, a: Vector, b: Vector) -> Vector {
        map(a, b, |x, y| x + y)
    }

    #[inline(always)]
    fn sub(self, a: Vector, b: Vector) -> Vector {
        map(a, b, |x, y| x - y)
    }

    #[inline(always)]
    fn mul(self, a: Vector, b: Vector) -> Vector {
        map(a, b, |x, y| x * y)
    }

    #[inline(always)]
    fn div(self, a: Vector, b: Vector) -> Vector {
        map(a, b, |x, y| x / y)
    }

    #[inline(always)]
    fn max(self, a: Vector, b: Vector) -> Vector {
        map(a, b, |x, y| if y > x { y } else { x })
    }

    // Rounded twice: `f32::mul_add` is a slow library call on a CPU that is not known to fuse.
    #[inline(always)]
    fn mul_add(self, a: Vector, b: Vector, c: Vector) -> Vector {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn sub_mul(self, c: Vector, a: Vector, b: Vector) -> Vector {
        self.sub(c, self.mul(a, b))
    }

    #[inline(always)]
    fn over_two_roots(self, m: Vector, v: Vector, e: Vector) -> Vector {
        self.div(m, map(v, e, |x, e| 2.0 * x.sqrt() + e))
    }

    #[inline(always)]
    fn power_of_two(self, shifted: Vector) -> Vector {
        map(shifted, shifted, |x, _| f32::from_bits((x.to_bits() << 23).wrapping_add(1f32.to_bits())))
    }

    #[inline(always)]
    fn positive(self, v: Vector) -> Mask {
        let mut out = Mask([0; LANES]);
        for (bits, x) in out.0.iter_mut().zip(v.0) {
            *bits = if x > 0.0 { u32::MAX } else { 0 };
        }
        out
    }

    #[inline(always)]
    fn is_nan(self, v: Vector) -> Mask {
        let mut out = Mask([0; LANES]);
        for (bits, x) in out.0.iter_mut().zip(v.0) {
            *bits = if x.is_nan() { u32::MAX } else { 0 };
        }
        out
    }

    #[inline(always)]
    fn select(self, mask: Mask, v: Vector) -> Vector {
        let mut out = v;
        for (x, bits) in out.0.iter_mut().zip(mask.0) {
            *x = f32::from_bits(x.to_bits() & bits);
        }
        out
    }

    #[inline(always)]
    fn negate_where(self, mask: Mask, v: Vector) -> Vector {
        let mut out = v;
        for (x, bits) in out.0.iter_mut().zip(mask.0) {
            *x = f32::from_bits(x.to_bits() ^ (bits & (1 << 31)));
        }
        out
    }

    #[inline(always)]
    fn mask_from_bits(self, bits: u64) -> Mask {
        let mut out = Mask([0; LANES]);
        for (lane, mask) in out.0.iter_mut().enumerate() {
            *mask = ((bits >> lane & 1) as u32).wrapping_neg();
        }
        out
    }

    #[inline(always)]
    fn mask_to_bits(self, mask: Mask) -> u64 {
        mask.0.iter().enumerate().map(|(lane, bits)| u64::from(bits & 1) << lane).sum()
    }

    #[inline(always)]
    fn fold_four(self, [a, b, c, d]: [Vector; 4]) -> Vector {
        let sum = |v: Vector, first: usize| (v.0[first] + v.0[first + 1]) + (v.0[first + 2] + v.0[first + 3]);
        Vector([sum(a, 0), sum(b, 0), sum(c, 0), sum(d, 0), sum(a, 4), sum(b, 4), sum(c, 4), sum(d, 4)])
    }

    #[inline(always)]
    fn join_fours(self, [a, b, ..]: [Vector; MAX_LANES / 4]) -> Vector {
        Vector(std::array::from_fn(|lane| {
            let (four, i) = if lane < 4 { (a, lane) } else { (b, lane - 4) };
            four.0[i] + four.0[i + 4]
        }))
    }

    #[inline(always)]
    fn transpose(self, rows: [Vector; MAX_LANES]) -> [Vector; MAX_LANES] {
        let mut out = rows;
        for (i, row) in out.iter_mut().enumerate().take(LANES) {
            for (x, from) in row.0.iter_mut().zip(&rows) {
                *x = from.0[i];
            }
        }
        out
    }

    #[inline(always)]
    fn sum(self, v: Vector) -> f32 {
        let [a, b, c, d, e, f, g, h] = v.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}
