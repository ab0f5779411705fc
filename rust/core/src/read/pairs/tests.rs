use ndarray::{ArrayView2, array, s};
use proptest::prelude::*;

use super::*;
use crate::Error;

fn progress() -> Progress {
    Progress::default()
}

/// Bits of a fixed sequence, about a third of them set.
fn bools(len: usize, seed: u64) -> Vec<bool> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len).map(|_| next() % 3 == 0).collect()
}

fn signs(len: usize, seed: u64) -> Vec<i8> {
    let (a, b) = (bools(len, seed), bools(len, seed + 1));
    a.into_iter().zip(b).map(|(a, b)| i8::from(a) - i8::from(b)).collect()
}

fn bit_codes(values: &[bool], bits: usize) -> BitCodes {
    BitCodes::from_bools(ArrayView2::from_shape((values.len() / bits, bits), values).unwrap()).unwrap()
}

fn sign_codes(values: &[i8], length: usize) -> TernaryCodes {
    TernaryCodes::from_signs(ArrayView2::from_shape((values.len() / length, length), values).unwrap())
        .unwrap()
}

/// The definition, over booleans.
fn brute(a: &[bool], b: &[bool], bits: usize, metric: CodeMetric) -> Vec<f32> {
    let pair = |a: &[bool], b: &[bool]| {
        let count = |f: fn(bool, bool) -> bool| a.iter().zip(b).filter(|&(&a, &b)| f(a, b)).count() as f32;
        match metric {
            CodeMetric::Hamming => count(|a, b| a != b),
            CodeMetric::Overlap => count(|a, b| a && b),
            CodeMetric::Jaccard if count(|a, b| a || b) == 0.0 => 0.0,
            CodeMetric::Jaccard => 1.0 - count(|a, b| a && b) / count(|a, b| a || b),
        }
    };
    a.chunks(bits).flat_map(|a| b.chunks(bits).map(move |b| pair(a, b))).collect()
}

fn brute_ternary(a: &[i8], b: &[i8], length: usize, metric: TernaryMetric) -> Vec<u32> {
    let pair = |a: &[i8], b: &[i8]| {
        let pairs = a.iter().zip(b);
        match metric {
            TernaryMetric::Mismatch => pairs.filter(|(a, b)| a != b).count() as u32,
            TernaryMetric::L1 => pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum(),
        }
    };
    a.chunks(length).flat_map(|a| b.chunks(length).map(move |b| pair(a, b))).collect()
}

fn matrix<T: Distance>(pairs: &Pairs) -> Vec<T> {
    let mut out = Array2::from_elem(pairs.shape(), T::default());
    // Not what was asked for, but what the code that counted says of itself.
    assert_eq!(pairs.matrix(out.view_mut(), &progress()).unwrap(), pairs.level());
    out.into_iter().collect()
}

const METRICS: [CodeMetric; 3] = [CodeMetric::Hamming, CodeMetric::Jaccard, CodeMetric::Overlap];

/// Everything that can be asked of two stacks, at every level there is, against the definition.
fn check(a: &[bool], b: &[bool], bits: usize) {
    let (codes_a, codes_b) = (bit_codes(a, bits), bit_codes(b, bits));
    for level in Kernels::Pairs.available() {
        for metric in METRICS {
            let pairs = Pairs::new(&codes_a, Some(&codes_b), metric).unwrap().at_level(level).unwrap();
            assert_eq!(pairs.level(), level);
            let expected = brute(a, b, bits, metric);
            assert_eq!(matrix::<f32>(&pairs), expected, "{level:?} {metric:?} {bits} bits");
            let own = Pairs::new(&codes_a, None, metric).unwrap().at_level(level).unwrap();
            let full = Pairs::new(&codes_a, Some(&codes_a), metric).unwrap().at_level(level).unwrap();
            assert_eq!(matrix::<f32>(&own), brute(a, a, bits, metric), "{level:?} {metric:?} {bits} bits");
            assert_eq!(matrix::<f32>(&own), matrix::<f32>(&full));
            check_reductions(&pairs, &expected, false);
            check_reductions(&own, &brute(a, a, bits, metric), true);
            if metric != CodeMetric::Jaccard {
                let counts: Vec<u32> = expected.iter().map(|&d| d as u32).collect();
                assert_eq!(matrix::<u32>(&pairs), counts);
                let narrow = |d: &u32| u16::try_from(*d).unwrap();
                assert_eq!(matrix::<u16>(&pairs), counts.iter().map(narrow).collect::<Vec<_>>());
                if bits < 256 {
                    let narrow = |d: &u32| u8::try_from(*d).unwrap();
                    assert_eq!(matrix::<u8>(&pairs), counts.iter().map(narrow).collect::<Vec<_>>());
                }
            }
        }
    }
}

fn check_reductions(pairs: &Pairs, expected: &[f32], own: bool) {
    let (height, width) = pairs.shape();
    let last = &expected[(height - 1) * width..];
    let mut rows = Array2::<f32>::zeros((1, width));
    assert_eq!(pairs.rows(height - 1..height, rows.view_mut(), &progress()), Ok(pairs.level()));
    assert_eq!(rows.row(0).to_vec(), last);
    if pairs.rule != Rule::Jaccard {
        let histogram = pairs.histogram(&progress()).unwrap();
        assert_eq!(histogram.level, pairs.level());
        let mut counts = vec![0; histogram.counts.len()];
        for (i, &distance) in expected.iter().enumerate() {
            counts[distance as usize] += u64::from(!own || i / width < i % width);
        }
        assert_eq!(histogram.counts, counts);
    }
    if own && height == 1 {
        assert!(pairs.nearest::<f32>(&progress()).is_err());
        return;
    }
    let nearest = pairs.nearest::<f32>(&progress()).unwrap();
    assert_eq!(nearest.level, pairs.level());
    let sign = if pairs.rule == Rule::Shared { -1.0 } else { 1.0 };
    for (r, row) in expected.chunks(width).enumerate() {
        let others = (0..width).filter(|&c| !own || c != r);
        let best = others.min_by(|&a, &b| (sign * row[a]).total_cmp(&(sign * row[b]))).unwrap();
        assert_eq!((nearest.indices[r] as usize, nearest.distances[r]), (best, row[best]));
    }
}

#[test]
fn every_level_agrees_with_the_definition_at_awkward_sizes() {
    for bits in [1, 7, 31, 63, 64, 65, 127, 128, 191, 192, 256, 257, 511, 512, 513, 4096] {
        for (a, b) in [(1, 1), (1, 17), (5, 3), (16, 33)] {
            check(&bools(a * bits, 1), &bools(b * bits, 2), bits);
        }
    }
}

#[test]
fn every_level_agrees_with_the_definition_over_several_blocks() {
    for (bits, a, b) in [(5, 300, 257), (64, 513, 255), (70, 259, 600)] {
        check(&bools(a * bits, 3), &bools(b * bits, 4), bits);
    }
}

#[test]
fn reflected_blocks_equal_computed_ones() {
    let bits = 64 * WORTH_MIRRORING;
    for count in [15, 256, 300, 530] {
        let codes = bit_codes(&bools(count * bits, 7), bits);
        for metric in METRICS {
            let own = Pairs::new(&codes, None, metric).unwrap();
            let full = Pairs::new(&codes, Some(&codes), metric).unwrap();
            assert_eq!(matrix::<f32>(&own), matrix::<f32>(&full));
            if metric != CodeMetric::Jaccard {
                assert_eq!(matrix::<u16>(&own), matrix::<u16>(&full));
            }
        }
    }
}

#[test]
fn long_codes_are_counted_in_full() {
    // More words than are counted at a time, and more equal bytes than a byte can count.
    for bits in [128 * 64, 128 * 64 + 1, 3 * 128 * 64 + 5, 70_000] {
        let (ones, zeros) = (vec![true; bits], vec![false; bits]);
        let values = [ones.clone(), zeros, ones, bools(bits, 5)].concat();
        let codes = bit_codes(&values, bits);
        let expected: Vec<u32> =
            brute(&values, &values, bits, CodeMetric::Hamming).into_iter().map(|d| d as u32).collect();
        for level in Kernels::Pairs.available() {
            let pairs = Pairs::new(&codes, None, CodeMetric::Hamming).unwrap().at_level(level).unwrap();
            assert_eq!(matrix::<u32>(&pairs), expected);
        }
    }
}

#[test]
fn ternary_distances_agree_with_the_definition() {
    for length in [1, 4, 21, 22, 32, 33, 64, 65, 130] {
        for (a, b) in [(1, 1), (5, 3), (17, 40)] {
            let (values_a, values_b) = (signs(a * length, 6), signs(b * length, 8));
            let (a, b) = (sign_codes(&values_a, length), sign_codes(&values_b, length));
            for level in Kernels::Pairs.available() {
                for metric in [TernaryMetric::Mismatch, TernaryMetric::L1] {
                    let pairs = Pairs::ternary(&a, Some(&b), metric).unwrap().at_level(level).unwrap();
                    let expected = brute_ternary(&values_a, &values_b, length, metric);
                    assert_eq!(matrix::<u32>(&pairs), expected, "{level:?} {metric:?} {length}");
                    let own = Pairs::ternary(&a, None, metric).unwrap().at_level(level).unwrap();
                    let expected = brute_ternary(&values_a, &values_a, length, metric);
                    assert_eq!(matrix::<u32>(&own), expected, "{level:?} {metric:?} {length}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let refuse = |error: Error| error.to_string();
    let bits = |count, bits| refuse(BitCodes::from_bools(Array2::default((count, bits)).view()).unwrap_err());
    assert!(bits(1, 0).contains("codes of 0 bits") && bits(0, 3).contains("no codes"));
    let turned = array![[true, false], [true, true]].reversed_axes();
    assert!(refuse(BitCodes::from_bools(turned.view()).unwrap_err()).contains("as_standard_layout"));
    let bytes = |bytes: Array2<u8>, bits| refuse(BitCodes::from_bytes(bytes.view(), bits).unwrap_err());
    assert!(bytes(Array2::default((0, 1)), 3).contains("no codes"));
    assert!(bytes(array![[0, 0, 0]], 9).contains("codes of 9 bits in 3 bytes: pass 2"));
    assert!(bytes(array![[0]], usize::MAX).contains("use 1 to"));
    assert!(bytes(array![[0, 1], [0, 2]], 9).contains("code 1 has bits set past"));
    let signs = |values: Array2<i8>| refuse(TernaryCodes::from_signs(values.view()).unwrap_err());
    assert!(signs(array![[0, 2]]).contains("2 at flat index 1") && signs(array![[i8::MIN]]).contains("-128"));
    assert!(signs(Array2::default((0, 2))).contains("no codes"));
    assert!(refuse("l2".parse::<CodeMetric>().unwrap_err()).contains("hamming, jaccard, overlap"));
    assert!(refuse("l2".parse::<TernaryMetric>().unwrap_err()).contains("mismatch, l1"));
    for &metric in CodeMetric::ALL {
        assert_eq!(metric.name().parse(), Ok(metric));
    }

    let (short, long) = (bit_codes(&[true; 6], 3), bit_codes(&[true; 600], 300));
    let mismatch = Pairs::new(&short, Some(&long), CodeMetric::Hamming).unwrap_err();
    assert!(refuse(mismatch).contains("codes of 3 and of 300 bits"));
    let (one, two) = (sign_codes(&[1, 0], 1), sign_codes(&[1, 0], 2));
    let mismatch = Pairs::ternary(&one, Some(&two), TernaryMetric::L1).unwrap_err();
    assert!(refuse(mismatch).contains("codes of 1 and of 2 signs"));

    let pairs = Pairs::new(&long, None, CodeMetric::Hamming).unwrap();
    assert!(refuse(pairs.to_array::<u8>(&progress()).unwrap_err()).contains("use u16 or u32"));
    let mut square = Array2::<u32>::zeros((2, 2));
    let narrow = pairs.matrix(square.slice_mut(s![.., ..1]), &progress()).unwrap_err();
    assert!(refuse(narrow).contains("(2, 1) does not fit 2 x 2 pairs"));
    let turned = pairs.matrix(square.view_mut().reversed_axes(), &progress()).unwrap_err();
    assert!(refuse(turned).contains("standard layout"));
    assert!(refuse(pairs.rows(1..3, square.view_mut(), &progress()).unwrap_err()).contains("rows 1..3"));
    assert!(pairs.rows(1..1, square.slice_mut(s![..0, ..]), &progress()).is_err());
    let jaccard = Pairs::new(&long, None, CodeMetric::Jaccard).unwrap();
    assert!(refuse(jaccard.to_array::<u32>(&progress()).unwrap_err()).contains("use f32"));
    assert!(matches!(jaccard.histogram(&progress()), Err(Error::Unsupported(_))));
}

#[test]
fn a_cancelled_run_ends() {
    let codes = bit_codes(&bools(600 * 64, 9), 64);
    let pairs = Pairs::new(&codes, None, CodeMetric::Hamming).unwrap();
    let cancelled = progress();
    cancelled.cancel();
    assert_eq!(pairs.to_array::<u8>(&cancelled), Err(Error::Interrupted));
    assert_eq!(pairs.histogram(&cancelled), Err(Error::Interrupted));
    assert_eq!(pairs.nearest::<u8>(&cancelled), Err(Error::Interrupted));
    // A visitor can stop it too, and every pair is reported when nobody does.
    let stop = pairs.for_each_block::<u8>(&progress(), |_| Err(Error::Interrupted));
    assert_eq!(stop, Err(Error::Interrupted));
    let all = progress();
    pairs.for_each_block::<u8>(&all, |_| Ok(())).unwrap();
    assert_eq!(all.done(), 600 * 600);
}

proptest! {
    #[test]
    fn any_codes_agree_with_the_definition(
        (bits, a, b) in (1usize..200).prop_flat_map(|bits| {
            let codes = move |most: usize| {
                (1..=most).prop_flat_map(move |n| proptest::collection::vec(any::<bool>(), n * bits))
            };
            (Just(bits), codes(9), codes(40))
        }),
    ) {
        check(&a, &b, bits);
    }

    #[test]
    fn bytes_are_packed_little_endian(bits in 1usize..150, count in 1usize..5, seed: u64) {
        let values = bools(bits * count, seed);
        let pack = |byte: &[bool]| byte.iter().enumerate().map(|(i, &b)| u8::from(b) << i).sum::<u8>();
        let bytes: Vec<u8> = values.chunks(bits).flat_map(|code| code.chunks(8).map(pack)).collect();
        let bytes = Array2::from_shape_vec((count, bits.div_ceil(8)), bytes).unwrap();
        prop_assert_eq!(BitCodes::from_bytes(bytes.view(), bits).unwrap(), bit_codes(&values, bits));
    }

    #[test]
    fn distances_are_metrics(bits in 1usize..140, seed: u64) {
        let n = 7;
        let values = [bools(bits * (n - 1), seed), vec![false; bits]].concat();
        let codes = bit_codes(&values, bits);
        let signed = signs(bits * n, seed);
        let ternary = sign_codes(&signed, bits);
        let bit = |metric| Pairs::new(&codes, None, metric).unwrap();
        let sign = |metric| Pairs::ternary(&ternary, None, metric).unwrap();
        let equal_bits = |i: usize, j: usize| values[i * bits..][..bits] == values[j * bits..][..bits];
        let equal_signs = |i: usize, j: usize| signed[i * bits..][..bits] == signed[j * bits..][..bits];
        for (pairs, equal) in [
            (bit(CodeMetric::Hamming), &equal_bits as &dyn Fn(usize, usize) -> bool),
            (bit(CodeMetric::Jaccard), &equal_bits),
            (sign(TernaryMetric::Mismatch), &equal_signs),
            (sign(TernaryMetric::L1), &equal_signs),
        ] {
            let d = matrix::<f32>(&pairs);
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                prop_assert_eq!(d[i * n + j] == 0.0, equal(i, j));
                prop_assert_eq!(d[i * n + j], d[j * n + i]);
                for k in 0..n {
                    prop_assert!(d[i * n + k] <= d[i * n + j] + d[j * n + k] + 1e-6);
                }
            }
        }
    }
}
