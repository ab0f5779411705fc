//! Every operation of every level that this machine has, against plain arithmetic.

use super::{MAX_LANES, Simd, lanes, lanes_mut};
use crate::cpu::{Kernels, Level};
use crate::train::fused::blocked::{self, Blocked};
use crate::train::fused::math::logistic_loss;

fn vector<S: Simd>(s: S, values: impl Fn(usize) -> f32) -> S::Vector {
    let mut out = [s.zero()];
    for (lane, x) in lanes_mut::<S>(&mut out).iter_mut().enumerate() {
        *x = values(lane);
    }
    out[0]
}

fn values<S: Simd>(v: S::Vector) -> Vec<f32> {
    lanes::<S>(&[v]).to_vec()
}

fn everywhere<B: Blocked<Output = ()>>(code: impl Fn() -> B) {
    for level in Kernels::Fused.available() {
        blocked::run(Kernels::Fused.select(Some(level)).unwrap(), 1, code());
    }
}

struct LevelName;

impl Blocked for LevelName {
    type Output = (&'static str, usize);

    fn run<S: Simd, const V: usize>(self, _: S) -> Self::Output {
        (std::any::type_name::<S>(), V)
    }
}

#[test]
fn each_level_runs_its_own_code() {
    let expected =
        [(Level::Portable, "Portable", 8), (Level::Avx2, "Avx2", 8), (Level::Avx512, "Avx512", 16)];
    for (level, name, lanes) in expected {
        let Ok(selected) = Kernels::Fused.select(Some(level)) else { continue };
        for (rows, vectors) in [(1, 1), (lanes, 1), (lanes + 1, 2), (4 * lanes, 4), (5 * lanes, 3), (0, 1)] {
            let (ran, v) = blocked::run(selected, rows, LevelName);
            assert!(ran.ends_with(name), "{level} ran {ran}");
            assert_eq!(v, vectors, "{level}, {rows} rows");
        }
    }
}

struct Arithmetic;

impl Blocked for Arithmetic {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, s: S) {
        let (x, y) = (|i: usize| i as f32 - 3.5, |i: usize| 0.25 + (i * i % 7) as f32);
        let (a, b) = (vector(s, x), vector(s, y));
        let check = |got: S::Vector, expected: &dyn Fn(usize) -> f32| {
            for (i, got) in values::<S>(got).into_iter().enumerate() {
                let expected = expected(i);
                assert!((got - expected).abs() <= 1e-6 * expected.abs(), "lane {i}: {got}, not {expected}");
            }
        };
        check(s.add(a, b), &|i| x(i) + y(i));
        check(s.sub(a, b), &|i| x(i) - y(i));
        check(s.mul(a, b), &|i| x(i) * y(i));
        check(s.div(a, b), &|i| x(i) / y(i));
        check(s.max(a, b), &|i| x(i).max(y(i)));
        check(s.abs(a), &|i| x(i).abs());
        check(s.mul_add(a, b, b), &|i| x(i) * y(i) + y(i));
        check(s.sub_mul(b, a, b), &|i| y(i) - x(i) * y(i));
        check(s.select(s.positive(a), b), &|i| if x(i) > 0.0 { y(i) } else { 0.0 });
        check(s.negate_where(s.positive(a), b), &|i| if x(i) > 0.0 { -y(i) } else { y(i) });
        check(s.power_of_two(vector(s, |i| 12_582_912.0 + x(i).floor())), &|i| x(i).floor().exp2());
        for bits in [0, 1, 0b1010_0110, 0x9c3f] {
            let bits = bits & (u64::MAX >> (64 - S::LANES));
            assert_eq!(s.mask_to_bits(s.mask_from_bits(bits)), bits);
        }
        let nan = s.splat(f32::NAN);
        assert_eq!(s.mask_to_bits(s.positive(nan)), 0);
        let some = vector(s, |i| if i % 3 == 0 { f32::NAN } else { x(i) });
        let expected: u64 = (0..S::LANES).step_by(3).map(|lane| 1 << lane).sum();
        assert_eq!(s.mask_to_bits(s.is_nan(some)), expected);
        // A NaN comes through from the first operand, and only from there.
        assert!(values::<S>(s.max(nan, b)).iter().all(|x| x.is_nan()));
        check(s.max(b, nan), &y);
        assert!(values::<S>(s.abs(nan)).iter().all(|x| x.is_nan()));
        assert!(values::<S>(s.select(s.mask_from_bits(0), nan)).iter().all(|x| x.to_bits() == 0));

        let rows: [S::Vector; MAX_LANES] = std::array::from_fn(|row| vector(s, |i| (row * 31 + i) as f32));
        let sum = |row: usize| (0..S::LANES).map(|i| (row * 31 + i) as f32).sum::<f32>();
        let fold = |four: &[S::Vector]| s.fold_four([four[0], four[1], four[2], four[3]]);
        check(s.join_fours(std::array::from_fn(|q| fold(&rows[4 * q..]))), &sum);
        assert_eq!(s.sum(rows[3]), sum(3));

        for (i, row) in s.transpose(rows).into_iter().enumerate().take(S::LANES) {
            check(row, &|lane| (lane * 31 + i) as f32);
        }

        for e in [1e-8, 1e-3] {
            for v in [0.0, 1e-45, 1e-38, 1e-20, 1e-12, 3.7e-5, 1.0, 1e7, 1e30] {
                let got = values::<S>(s.over_two_roots(s.splat(0.3), s.splat(v), s.splat(e)))[0];
                let expected = 0.3f32 as f64 / (2.0 * f64::from(v).sqrt() + f64::from(e));
                let off = (f64::from(got) / expected - 1.0).abs();
                assert!(off < 1e-6, "v = {v}, e = {e}: off by {off}");
            }
        }
    }
}

#[test]
fn operations_agree_with_plain_arithmetic() {
    everywhere(|| Arithmetic);
}

struct Transpose;

impl Blocked for Transpose {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, s: S) {
        for variables in [1, 8, 31, 32, 33, 63, 64] {
            let rows: [u64; 64] = std::array::from_fn(|b| {
                (b as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(b as u32)
                    & (u64::MAX >> (64 - variables))
            });
            let mut columns = [0; 64];
            s.transpose_bits(&rows, &mut columns, variables);
            for (i, column) in columns.iter().enumerate().take(variables) {
                let expected: u64 = rows.iter().enumerate().map(|(b, row)| (row >> i & 1) << b).sum();
                assert_eq!(*column, expected, "column {i} of {variables}");
            }
        }
    }
}

#[test]
fn bits_are_transposed() {
    everywhere(|| Transpose);
}

struct Loss;

impl Blocked for Loss {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, s: S) {
        for step in -2000..=2000 {
            let z = step as f32 * 0.03;
            for label in [false, true] {
                let y = s.mask_from_bits(if label { u64::MAX } else { 0 });
                let (loss, slope) = logistic_loss(s, s.splat(z), y);
                let (loss, slope) = (f64::from(values::<S>(loss)[0]), f64::from(values::<S>(slope)[0]));
                let u = f64::from(if label { z } else { -z });
                let expected = (-u).max(0.0) + (-u.abs()).exp().ln_1p();
                let expected_slope = if label { -1.0 } else { 1.0 } / (1.0 + u.exp());
                assert!((loss / expected - 1.0).abs() < 1e-6, "loss {loss} at u = {u}, not {expected}");
                assert!((slope / expected_slope - 1.0).abs() < 1e-6, "slope {slope} at u = {u}");
            }
        }
        for z in [-1e30, 1e30] {
            let (loss, slope) = logistic_loss(s, s.splat(z), s.mask_from_bits(0));
            assert!((values::<S>(loss)[0] - z.max(0.0)).abs() <= 1e-30);
            assert!((values::<S>(slope)[0] - f32::from(z > 0.0)).abs() < 1e-30);
        }
        for (z, label) in [(f32::NAN, 0), (f32::NAN, u64::MAX), (f32::INFINITY, u64::MAX), (f32::INFINITY, 0)]
        {
            let (loss, slope) = logistic_loss(s, s.splat(z), s.mask_from_bits(label));
            assert!(values::<S>(loss)[0].is_nan(), "the loss of {z}");
            assert_eq!(values::<S>(slope)[0].is_nan(), z.is_nan(), "the slope at {z}");
        }
    }
}

#[test]
fn the_loss_is_accurate_everywhere() {
    everywhere(|| Loss);
}
