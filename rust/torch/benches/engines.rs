//! Network-steps a second of the engines: 32 variables, 32 hidden rows, batches of 64, Adam, 20,000 samples
//! for each network. `cargo bench -p precode-torch`; throughput is in network-steps.
#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use precode_core::Progress;
use precode_core::task::formula::{ClauseShape, Dnf};
use precode_core::task::rng::Purpose;
use precode_core::task::sampler::Sampler;
use precode_core::train::{Optimizer, Problem, TrainConfig};
use precode_core::{Dataset, Embedding, Weights};
use precode_torch::{Engine, Fused, Libtorch, Stack};
use tch::{Cuda, Device, Kind};

const SAMPLES: usize = 20_000;

fn data(networks: u64) -> Vec<Arc<Dataset>> {
    let shape = ClauseShape { clauses: 16, width: 4, negated: 0, disjoint: false };
    let task = Dnf::random(32, 1, shape, 0, 0).expect("16 clauses of 32 variables exist");
    let sampler = Sampler::BrokenClause { true_counts: None };
    let draw = |i| sampler.sample(&task, SAMPLES, 0, Purpose::Data, i).expect("the formula has samples");
    (0..networks).map(|i| Arc::new(draw(i))).collect()
}

fn engines(criterion: &mut Criterion) {
    let kind = Kind::Float;
    let mut engines: Vec<(&str, Box<dyn Engine>, Device)> = vec![
        ("libtorch", Box::new(Libtorch { kind, device: Device::Cpu }), Device::Cpu),
        ("fused", Box::new(Fused::default()), Device::Cpu),
    ];
    if Cuda::is_available() {
        let device = Device::Cuda(0);
        engines.push(("libtorch on CUDA", Box::new(Libtorch { kind, device }), device));
    }
    let config = TrainConfig {
        epochs: 1,
        batch: 64,
        optimizer: Optimizer::adam(1e-3),
        order_seed: 0,
        first_epoch: 0,
        early_stopping: None,
        snapshots: vec![],
    };
    let mut group = criterion.benchmark_group("one epoch");
    group.sample_size(10);
    for networks in [1, 16, 128, 1024] {
        let data = data(networks);
        let indices: Vec<u64> = (0..networks).collect();
        let weights = Weights::linear_init(&[32, 32, 1], 0, &indices).expect("the widths are valid");
        group.throughput(Throughput::Elements(networks * config.steps_per_epoch(SAMPLES)));
        for embedding in [Embedding::Identity, Embedding::Hadamard { normalized: true }] {
            let problem =
                Problem { data: &data, validation: &[], embedding: &embedding, masks: None, config: &config };
            let basis = if embedding == Embedding::Identity { "identity" } else { "hadamard" };
            for (name, engine, device) in &engines {
                let start = Stack::from_weights(&weights, kind, *device).expect("the device is there");
                let id = BenchmarkId::new(format!("{name}, {basis}"), networks);
                group.bench_function(id, |bencher| {
                    bencher.iter(|| black_box(engine.train(&start, &problem, &Progress::default())));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, engines);
criterion_main!(benches);
