//! Pairs of codes a second, by level and by what is asked for. `RAYON_NUM_THREADS=1` gives the rate of
//! one core.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use precode_core::Progress;
use precode_core::cpu::Kernels;
use precode_core::read::pairs::{BitCodes, CodeMetric, Pairs, TernaryCodes, TernaryMetric};

/// Numbers of a fixed sequence.
fn noise() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(0x9e37_79b9_7f4a_7c15u64), |&state| {
        let state = state ^ state << 13;
        let state = state ^ state >> 7;
        Some(state ^ state << 17)
    })
}

fn codes(count: usize, bits: usize) -> BitCodes {
    let bools: Vec<bool> = noise().take(count * bits).map(|number| number >> 63 == 1).collect();
    let bools = Array2::from_shape_vec((count, bits), bools).expect("as many values");
    BitCodes::from_bools(bools.view()).expect("codes")
}

/// Every level on every length of codes; nothing is kept.
fn levels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pairs/levels");
    for (count, bits) in [(8192, 64), (8192, 512), (4096, 4096)] {
        let codes = codes(count, bits);
        group.throughput(Throughput::Elements((count * count) as u64));
        for level in Kernels::Pairs.available() {
            let pairs = Pairs::new(&codes, None, CodeMetric::Hamming).and_then(|pairs| pairs.at_level(level));
            let pairs = pairs.expect("an available level");
            group.bench_function(BenchmarkId::new(level.name(), format!("{count} x {bits}")), |bencher| {
                bencher.iter(|| {
                    let visit = |block: &precode_core::read::pairs::Block<u16>| {
                        black_box(block.distances);
                        Ok(())
                    };
                    assert_eq!(pairs.for_each_block(&Progress::default(), visit), Ok(level));
                });
            });
        }
    }
    group.finish();
}

/// What can be asked of codes, at the fastest level.
fn forms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pairs/forms");
    for (count, bits) in [(8192, 64), (8192, 4096)] {
        let codes = codes(count, bits);
        let pairs = Pairs::new(&codes, None, CodeMetric::Hamming).expect("pairs");
        let jaccard = Pairs::new(&codes, None, CodeMetric::Jaccard).expect("pairs");
        let full = Pairs::new(&codes, Some(&codes), CodeMetric::Hamming).expect("pairs");
        let (mut out, mut fractions) =
            (Array2::<u16>::zeros((count, count)), Array2::<f32>::zeros((count, count)));
        let progress = Progress::default();
        let size = format!("{count} x {bits}");
        group.throughput(Throughput::Elements((count * count) as u64));
        group.bench_function(BenchmarkId::new("symmetric", &size), |bencher| {
            bencher.iter(|| pairs.matrix(out.view_mut(), &progress));
        });
        group.bench_function(BenchmarkId::new("full", &size), |bencher| {
            bencher.iter(|| full.matrix(out.view_mut(), &progress));
        });
        group.bench_function(BenchmarkId::new("jaccard", &size), |bencher| {
            bencher.iter(|| jaccard.matrix(fractions.view_mut(), &progress));
        });
        group.bench_function(BenchmarkId::new("histogram", &size), |bencher| {
            bencher.iter(|| pairs.histogram(&progress));
        });
        group.bench_function(BenchmarkId::new("nearest", &size), |bencher| {
            bencher.iter(|| pairs.nearest::<u16>(&progress));
        });
    }
    group.finish();
}

/// Codes of signs.
fn ternary(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pairs/ternary");
    for (count, length) in [(8192, 16), (8192, 256)] {
        let signs: Vec<i8> = noise().take(count * length).map(|number| (number >> 32) as i8 % 2).collect();
        let signs = Array2::from_shape_vec((count, length), signs).expect("as many values");
        let codes = TernaryCodes::from_signs(signs.view()).expect("codes");
        group.throughput(Throughput::Elements((count * count) as u64));
        for (name, metric) in [("mismatch", TernaryMetric::Mismatch), ("l1", TernaryMetric::L1)] {
            let pairs = Pairs::ternary(&codes, None, metric).expect("pairs");
            group.bench_function(BenchmarkId::new(name, format!("{count} x {length}")), |bencher| {
                bencher.iter(|| pairs.histogram(&Progress::default()));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, levels, forms, ternary);
criterion_main!(benches);
