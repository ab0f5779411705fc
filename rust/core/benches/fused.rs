//! Cost of the fused engine: one epoch of a stack, or some, reported per network-step.
//!
//! `cargo bench --bench fused` runs the reference cell (32 variables, 32 rows, batch 64, Adam) and what
//! varies around it; Criterion's "elem/s" are network-steps a second over all threads.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use precode_core::Progress;
use precode_core::cpu::Kernels;
use precode_core::train::fused::{Options, train};
use precode_core::train::{Optimizer, Problem, TrainConfig};
use precode_core::{Dataset, Embedding, Masks, Weights};

const SAMPLES: usize = 20_000;

/// A cell of the benchmark; [`Cell::reference`] and changes to it.
struct Cell {
    networks: usize,
    epochs: u32,
    hidden: usize,
    optimizer: Optimizer,
    embedding: Embedding,
    density: Option<f64>,
    options: Options,
}

impl Cell {
    fn reference() -> Self {
        Self {
            networks: 128,
            epochs: 1,
            hidden: 32,
            optimizer: Optimizer::adam(1e-3),
            embedding: Embedding::Identity,
            density: None,
            options: Options::default(),
        }
    }

    fn bench(self, criterion: &mut Criterion, group: &str, name: &str) {
        let widths = [self.embedding.rows(32), self.hidden, 1];
        let data: Vec<_> = (0..self.networks as u64).map(data).collect();
        let indices: Vec<u64> = (0..self.networks as u64).collect();
        let mut start = Weights::linear_init(&widths, 0, &indices).expect("valid widths");
        if matches!(self.embedding, Embedding::Projection { .. }) {
            start = start.with_projection(32, 0, &indices).expect("fewer rows than variables");
        }
        let masks = self.density.map(|density| Masks {
            layers: vec![Some(kept(self.networks * 32 * self.hidden, density)), None],
        });
        let config = TrainConfig {
            epochs: self.epochs,
            batch: 64,
            optimizer: self.optimizer,
            order_seed: 0,
            first_epoch: 0,
            early_stopping: None,
            snapshots: vec![],
        };
        let problem = Problem {
            data: &data,
            validation: &[],
            embedding: &self.embedding,
            masks: masks.as_ref(),
            config: &config,
        };
        let mut group = criterion.benchmark_group(group);
        let steps = config.steps_per_epoch(SAMPLES) * u64::from(self.epochs);
        group.throughput(Throughput::Elements(steps * self.networks as u64));
        group.sample_size(10).measurement_time(Duration::from_secs(3));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || start.clone(),
                |start| black_box(train(start, &problem, self.options, &Progress::default())),
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

/// Pseudo-random numbers for data and masks.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed * 2 + 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

/// Samples with 4 to 6 of 32 variables True, as the broken-clause sampler draws them.
fn data(seed: u64) -> Arc<Dataset> {
    let mut next = numbers(seed);
    let mut x = vec![false; SAMPLES * 32];
    for sample in x.chunks_exact_mut(32) {
        for _ in 0..4 + next() % 3 {
            sample[(next() % 32) as usize] = true;
        }
    }
    let y: Vec<bool> = x.chunks_exact(32).map(|sample| sample[0] || sample[1] && sample[2]).collect();
    Arc::new(Dataset::from_bools(&x, &y, 32, 1).expect("fitting lengths"))
}

fn kept(count: usize, density: f64) -> Vec<bool> {
    let mut next = numbers(1);
    (0..count).map(|_| (next() % 1000) as f64 <= density * 1000.0).collect()
}

fn stacks(criterion: &mut Criterion) {
    for networks in [1, 16, 128, 1024, 4096] {
        let cell = Cell { networks, ..Cell::reference() };
        cell.bench(criterion, "fused/networks", &networks.to_string());
    }
}

fn widths(criterion: &mut Criterion) {
    for hidden in [16, 32, 64, 256] {
        let cell = Cell { networks: 32, hidden, ..Cell::reference() };
        cell.bench(criterion, "fused/hidden", &hidden.to_string());
    }
}

fn levels(criterion: &mut Criterion) {
    for level in Kernels::Fused.available() {
        let options = Options { level: Some(level), threads: None };
        let cell = Cell { networks: 32, options, ..Cell::reference() };
        cell.bench(criterion, "fused/level", &level.to_string());
    }
}

fn threads(criterion: &mut Criterion) {
    for threads in [1, 2] {
        let options = Options { level: None, threads: Some(threads) };
        let cell = Cell { networks: 32, options, ..Cell::reference() };
        cell.bench(criterion, "fused/threads", &threads.to_string());
    }
}

fn kinds(criterion: &mut Criterion) {
    let betas = (0.9, 0.999);
    let optimizers = [
        ("adam", Optimizer::adam(1e-3)),
        ("adamw", Optimizer::AdamW { lr: 1e-3, betas, eps: 1e-8, weight_decay: 0.01 }),
        ("sgd", Optimizer::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0 }),
    ];
    for (name, optimizer) in optimizers {
        let cell = Cell { networks: 32, optimizer, ..Cell::reference() };
        cell.bench(criterion, "fused/optimizer", name);
    }
    let embeddings = [
        ("identity", Embedding::Identity),
        ("hadamard", Embedding::Hadamard { normalized: true }),
        ("random", Embedding::random_orthogonal(32, 0).expect("a positive size")),
        ("projection", Embedding::Projection { rows: 16, trained: true }),
        ("projection-fixed", Embedding::Projection { rows: 16, trained: false }),
    ];
    for (name, embedding) in embeddings {
        let cell = Cell { networks: 32, embedding, ..Cell::reference() };
        cell.bench(criterion, "fused/embedding", name);
    }
    // Over several epochs: rows of sparse networks die, and their moments shrink.
    for density in [1.0, 0.5, 0.125] {
        let cell = Cell { networks: 32, epochs: 8, density: Some(density), ..Cell::reference() };
        cell.bench(criterion, "fused/density", &density.to_string());
    }
}

criterion_group!(benches, stacks, widths, levels, threads, kinds);
criterion_main!(benches);
