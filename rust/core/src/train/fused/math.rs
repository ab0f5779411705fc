//! The logistic loss of a vector of logits, and its derivative.

use super::simd::Simd;

/// Binary cross-entropy of logits `z` with labels `y`: (loss, its derivative by z).
///
/// With u = z for a True label and -z for a False one, the loss is ln(1 + exp(-u)) and its
/// derivative by u is -1 / (1 + exp(u)): both without cancellation, to a few units in the last place.
/// The loss of a logit that is infinite or NaN is NaN, whatever its label: it says nothing any more.
#[inline(always)]
pub(super) fn logistic_loss<S: Simd>(s: S, z: S::Vector, y: S::Mask) -> (S::Vector, S::Vector) {
    let one = s.splat(1.0);
    let negated = s.negate_where(y, z);
    let magnitude = s.abs(z);
    let e = exp_negative(s, magnitude);
    let inverse = s.div(one, s.add(one, e));
    // 1 / (1 + exp(u)) is 1 / (1 + e) where u < 0, that is where `negated` is positive.
    let right = s.mul(e, inverse);
    let wrong = s.positive(negated);
    let slope = s.add(right, s.select(wrong, s.sub(inverse, right)));
    let loss = s.add(s.max(negated, s.zero()), log_one_plus(s, e));
    // z - z is 0, or NaN where z is not finite.
    let loss = s.add(loss, s.sub(z, z));
    (loss, s.negate_where(y, slope))
}

/// 1 / (1 + exp(-x)), as [`logistic_loss`] without cancellation.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    let e = exp_negative(s, s.abs(x));
    let inverse = s.div(s.splat(1.0), s.add(s.splat(1.0), e));
    let small = s.mul(e, inverse);
    s.add(small, s.select(s.positive(x), s.sub(inverse, small)))
}

/// exp(-x) for x >= 0; 0 below exp(-87) is rounded up to exp(-87).
#[inline(always)]
fn exp_negative<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    // Adding 1.5 x 2^23 rounds to an integer, which then stands in the low bits.
    let round = s.splat(12_582_912.0);
    let x = s.max(s.sub(s.zero(), x), s.splat(-87.0));
    let shifted = s.mul_add(x, s.splat(std::f32::consts::LOG2_E), round);
    let k = s.sub(shifted, round);
    // ln 2 in two parts, so that x - k ln 2 is exact to the last place.
    let f = s.sub_mul(s.sub_mul(x, k, s.splat(0.693_359_4)), k, s.splat(-2.121_944_4e-4));
    let mut series = s.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        series = s.mul_add(series, f, s.splat(c));
    }
    let fraction = s.add(s.mul_add(series, s.mul(f, f), f), s.splat(1.0));
    s.mul(fraction, s.power_of_two(shifted))
}

/// ln(1 + e) for e in [0, 1], as 2 artanh(e / (2 + e)): accurate for small e, too.
#[inline(always)]
fn log_one_plus<S: Simd>(s: S, e: S::Vector) -> S::Vector {
    let t = s.div(e, s.add(e, s.splat(2.0)));
    let square = s.mul(t, t);
    let mut series = s.splat(1.0 / 13.0);
    for c in [1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
        series = s.mul_add(series, square, s.splat(c));
    }
    s.mul(s.add(t, t), series)
}
