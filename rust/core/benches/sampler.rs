//! Cost of drawing samples: the 20,000 of one network, on one thread.
//!
//! `cargo bench --bench sampler`; Criterion's "elem/s" are samples a second.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use precode_core::Dnf;
use precode_core::task::formula::ClauseShape;
use precode_core::task::rng::Purpose;
use precode_core::task::sampler::Sampler;

const SAMPLES: usize = 20_000;

/// The reference cell (32 variables, 16 clauses of width 4, one output), and what varies around it.
fn draw(criterion: &mut Criterion) {
    let shape = ClauseShape { clauses: 16, width: 4, negated: 0, disjoint: false };
    let broken = Sampler::BrokenClause { true_counts: None };
    let mut group = criterion.benchmark_group("sampler");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    for (name, sampler, variables, outputs, shape) in [
        ("broken clauses", broken, 32, 1, shape),
        ("64 clauses", broken, 32, 1, ClauseShape { clauses: 64, ..shape }),
        ("negated literals", broken, 32, 1, ClauseShape { negated: 1, ..shape }),
        ("100 variables", broken, 100, 1, shape),
        ("4 outputs", broken, 32, 4, shape),
        ("uniform", Sampler::Biased { probability: 0.5, balanced: false }, 32, 1, shape),
        ("uniform, balanced", Sampler::Biased { probability: 0.5, balanced: true }, 32, 1, shape),
    ] {
        let task = Dnf::random(variables, outputs, shape, 0, 0).expect("a valid shape");
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(sampler.sample(black_box(&task), SAMPLES, 0, Purpose::Data, 0)));
        });
    }
    group.finish();
}

criterion_group!(benches, draw);
criterion_main!(benches);
