//! Weights a second among which the best-scored are chosen, by precision and by how many are left to choose from.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array3;
use precode_core::ticket::mask::{Density, Granularity, Scope, Scores, select};

/// Scores like those of weights drawn from a symmetric distribution, by a fixed sequence.
fn scores(weights: usize) -> Array3<f64> {
    let numbers = std::iter::successors(Some(0x9e37_79b9_7f4a_7c15u64), |&state| {
        let state = state ^ state << 13;
        let state = state ^ state >> 7;
        Some(state ^ state << 17)
    });
    let scores = numbers.take(weights).map(|number| {
        let part = |shift: u32| f64::from((number >> shift) as u16) / f64::from(u16::MAX) - 0.5;
        (part(0) + part(16) + part(32) + part(48)).abs()
    });
    Array3::from_shape_vec((1, weights, 1), scores.collect()).expect("as many scores")
}

fn chosen<T: Copy + Into<f64>>(values: &Array3<T>, alive: Option<&Array3<bool>>) {
    let tensors = [Scores { values: values.view(), alive: alive.map(|alive| alive.view()) }];
    let density = Density::new(0.25).expect("a density");
    black_box(select(&tensors, density, Granularity::Weight, Scope::Global).expect("masks"));
}

fn selection(criterion: &mut Criterion) {
    for weights in [1024, 10_000_000] {
        let double = scores(weights);
        let single = double.mapv(|score| score as f32);
        let half = double.mapv(|score| score > 0.3);
        let mut group = criterion.benchmark_group(format!("selection/{weights}"));
        group.sample_size(10).throughput(Throughput::Elements(weights as u64));
        for (name, alive) in [("all", None), ("alive", Some(&half))] {
            group.bench_function(BenchmarkId::new("float32", name), |bencher| {
                bencher.iter(|| chosen(&single, alive));
            });
            group.bench_function(BenchmarkId::new("float64", name), |bencher| {
                bencher.iter(|| chosen(&double, alive));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, selection);
criterion_main!(benches);
