//! The fused engine against a plain float64 implementation, step by step, at every level.
//!
//! Tolerances: a weight may differ from the float64 path by [`TOLERANCE`] after any step of the runs
//! here (some 30 steps of Adam at 1e-3 move a weight by 0.03). Measured differences are below 1e-6,
//! rounding of the weights themselves; Adam amplifies rounding where a gradient is nearly 0.

mod fused_reference;

use std::sync::Arc;

use fused_reference::{Reference, config, data, difference, embeddings, masks, optimizers, parameters};
use precode_core::Progress;
use precode_core::cpu::{Kernels, Level};
use precode_core::train::fused::{Options, evaluate, train};
use precode_core::train::{Optimizer, Problem, TrainConfig};
use precode_core::{Dataset, Embedding, Masks, Weights};

const TOLERANCE: f64 = 2e-5;

fn at(level: Level) -> Options {
    Options { level: Some(level), threads: None }
}

/// A problem without masks or validation data.
fn problem<'a>(data: &'a [Arc<Dataset>], embedding: &'a Embedding, config: &'a TrainConfig) -> Problem<'a> {
    Problem { data, validation: &[], embedding, masks: None, config }
}

/// Trains a stack at every level and compares the weights after every step, and the history.
fn compare(name: &str, widths: [usize; 3], problem: &Problem<'_>) {
    let networks = problem.data.len();
    let indices: Vec<u64> = (0..networks as u64).collect();
    let start = fused_reference::start(&widths, problem.embedding, problem.data[0].variables(), &indices);
    let samples = problem.data[0].samples();
    let steps = problem.config.steps_per_epoch(samples) * u64::from(problem.config.epochs);
    let mut config = problem.config.clone();
    config.snapshots = (0..=steps).collect();
    let problem = Problem { config: &config, ..*problem };
    let references: Vec<_> = (0..networks).map(|r| fused_reference::train(&start, r, &problem)).collect();
    for level in Kernels::Fused.available() {
        assert_eq!(at(level).resolve_level().unwrap(), level);
        let trained = train(start.clone(), &problem, at(level), &Progress::default()).unwrap();
        let mut worst: f64 = 0.0;
        for (r, reference) in references.iter().enumerate() {
            for (step, expected) in reference.path.iter().enumerate() {
                let off = difference(&parameters(&trained.snapshots[step], r), expected);
                assert!(off < TOLERANCE, "{name} at {level}: network {r} is off by {off} at step {step}");
                worst = worst.max(off);
            }
            assert_eq!(parameters(&trained.weights, r), parameters(trained.snapshots.last().unwrap(), r));
            if !problem.embedding.is_trained() {
                assert_eq!(
                    parameters(&trained.weights, r)[4],
                    parameters(&start, r)[4],
                    "{name}: C0 is fixed"
                );
            }
            let labels = (samples * widths[2]) as f64;
            for epoch in 0..config.epochs as usize {
                let at = r * config.epochs as usize + epoch;
                let off = trained.history.train_loss[at] - reference.train_loss[epoch];
                assert!(off.abs() < 1e-5, "{name} at {level}: train loss off by {off}");
                // A logit within rounding of 0 may fall on either side.
                let off = trained.history.train_error[at] - reference.train_error[epoch];
                assert!(off.abs() < 1.5 / labels, "{name} at {level}: train error off by {off}");
            }
        }
        if let Some(masks) = problem.masks {
            for stack in &trained.snapshots {
                assert_pruned(stack, masks);
            }
        }
        eprintln!("{name} at {level}: off by at most {worst:.1e}");
    }
}

/// Pruned weights are +0 or -0, nothing else.
fn assert_pruned(stack: &Weights, masks: &Masks) {
    for (layer, mask) in stack.layers.iter().zip(&masks.layers) {
        for (w, kept) in layer.weight.iter().zip(mask.iter().flatten()) {
            assert!(*kept || *w == 0.0, "a pruned weight is {w}");
        }
    }
}

#[test]
fn every_optimizer_follows_the_reference() {
    let data: Vec<_> = (0..3).map(|seed| data(150, 12, 1, 30, seed)).collect();
    for (name, optimizer) in optimizers() {
        compare(name, [12, 20, 1], &problem(&data, &Embedding::Identity, &config(5, 32, optimizer)));
    }
}

#[test]
fn every_shape_follows_the_reference() {
    // (variables, hidden, outputs, batch, chance of True in percent, samples)
    let shapes = [
        (1, 1, 1, 7, 50, 20),
        (4, 3, 1, 1, 50, 9),
        (32, 32, 1, 64, 16, 200),
        (32, 16, 1, 64, 16, 130),
        (32, 64, 1, 63, 12, 130),
        (31, 33, 1, 50, 60, 90),
        (33, 17, 1, 20, 10, 70),
        (64, 16, 2, 30, 8, 90),
        (65, 48, 1, 100, 10, 250),
        (100, 5, 3, 70, 5, 150),
        (256, 130, 1, 150, 3, 300),
        (40, 80, 1, 500, 20, 150),
        (7, 1024, 1, 32, 40, 64),
        (20, 100, 4, 129, 25, 260),
    ];
    for (variables, hidden, outputs, batch, chance, samples) in shapes {
        let data: Vec<_> = (0..2).map(|seed| data(samples, variables, outputs, chance, seed)).collect();
        let config = config(3, batch, Optimizer::adam(1e-3));
        let name = format!("{variables}-{hidden}-{outputs}, batch {batch}");
        compare(&name, [variables, hidden, outputs], &problem(&data, &Embedding::Identity, &config));
    }
}

#[test]
fn every_embedding_follows_the_reference() {
    for (variables, outputs, batch) in [(12, 1, 32), (32, 1, 40), (33, 2, 100), (70, 1, 20)] {
        let data: Vec<_> = (0..2).map(|seed| data(110, variables, outputs, 15, seed)).collect();
        for (name, embedding) in embeddings(variables) {
            let widths = [embedding.rows(variables), 20, outputs];
            let config = config(3, batch, Optimizer::adam(1e-3));
            let name = format!("{name}, {variables} variables");
            compare(&name, widths, &problem(&data, &embedding, &config));
            let masks = masks(2, &widths, 40, 3);
            compare(&name, widths, &Problem { masks: Some(&masks), ..problem(&data, &embedding, &config) });
        }
    }
}

#[test]
fn pruned_weights_stay_zero_and_the_rest_follows_the_reference() {
    for widths in [[12, 20, 1], [70, 40, 2]] {
        let data: Vec<_> = (0..3).map(|seed| data(150, widths[0], widths[2], 20, seed)).collect();
        for keep in [10, 60] {
            let mut masks = masks(3, &widths, keep, keep);
            // Network 0 loses two columns and all but five rows, network 1 everything, network 2 nothing.
            let size = widths[0] * widths[1];
            let w1 = masks.layers[0].as_mut().unwrap();
            for (i, kept) in w1.iter_mut().enumerate() {
                let (network, row, column) = (i / size, i % size / widths[0], i % widths[0]);
                *kept = match network {
                    0 => *kept && column > 1 && (10..15).contains(&row),
                    1 => false,
                    _ => true,
                };
            }
            for (name, optimizer) in optimizers() {
                let config = config(4, 32, optimizer);
                let problem =
                    Problem { masks: Some(&masks), ..problem(&data, &Embedding::Identity, &config) };
                compare(&format!("{name}, {keep} % kept"), widths, &problem);
            }
        }
    }
}

#[test]
fn a_projection_follows_the_reference_with_every_optimizer_and_mask() {
    // (variables, rows, hidden, outputs)
    for (variables, rows, hidden, outputs) in [(32, 16, 32, 1), (12, 5, 70, 1), (70, 33, 20, 2)] {
        let widths = [rows, hidden, outputs];
        let data: Vec<_> = (0..3).map(|seed| data(150, variables, outputs, 15, seed)).collect();
        let mut masks = masks(3, &widths, 40, 7);
        // Network 0 keeps five rows, network 1 no weight of the first layer, network 2 all.
        let size = rows * hidden;
        for (i, kept) in masks.layers[0].as_mut().unwrap().iter_mut().enumerate() {
            *kept = match i / size {
                0 => *kept && (3..8).contains(&(i / rows)),
                network => network == 2,
            };
        }
        for trained in [false, true] {
            let embedding = Embedding::Projection { rows, trained };
            for (name, optimizer) in optimizers() {
                let config = config(3, 40, optimizer);
                let name = format!("{name}, {variables} to {rows}, trained {trained}");
                let whole = problem(&data, &embedding, &config);
                compare(&name, widths, &whole);
                compare(&format!("{name}, masked"), widths, &Problem { masks: Some(&masks), ..whole });
            }
        }
    }
}

#[test]
fn one_mask_may_be_missing() {
    let widths = [12, 20, 1];
    let data: Vec<_> = (0..2).map(|seed| data(100, 12, 1, 30, seed)).collect();
    for missing in 0..2 {
        let mut masks = masks(2, &widths, 50, 1);
        masks.layers[missing] = None;
        let config = config(3, 32, Optimizer::adam(1e-3));
        let problem = Problem { masks: Some(&masks), ..problem(&data, &Embedding::Identity, &config) };
        compare("one mask", widths, &problem);
    }
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    let embeddings = [
        Embedding::Identity,
        Embedding::Hadamard { normalized: true },
        Embedding::Projection { rows: 3, trained: true },
    ];
    for (outputs, embedding) in [1, 2].into_iter().flat_map(|o| embeddings.iter().map(move |e| (o, e))) {
        let widths = [embedding.rows(8), 6, outputs];
        let data = vec![data(40, 8, outputs, 40, 1)];
        let start = fused_reference::start(&widths, embedding, 8, &[0]);
        // One step of SGD at rate 1 on all samples subtracts the gradient.
        let optimizer = Optimizer::Sgd { lr: 1.0, momentum: 0.0, weight_decay: 0.0 };
        let config = config(1, 40, optimizer);
        let all: Vec<usize> = (0..40).collect();
        let network = Reference::new(&start, 0, embedding, 8, None);
        let loss = |p: usize, i: usize, h: f64| {
            let mut moved = network.clone();
            moved.parameters[p][i] += h;
            moved.gradient(&data[0], &all).0 / (40 * outputs) as f64
        };
        for level in Kernels::Fused.available() {
            let trained =
                train(start.clone(), &problem(&data, embedding, &config), at(level), &Progress::default())
                    .unwrap();
            let (before, after) = (parameters(&start, 0), parameters(&trained.weights, 0));
            for p in 0..5 {
                for i in 0..before[p].len() {
                    let gradient = f64::from(before[p][i]) - f64::from(after[p][i]);
                    let numeric = (loss(p, i, 1e-5) - loss(p, i, -1e-5)) / 2e-5;
                    let off = (gradient - numeric).abs();
                    assert!(off < 2e-6, "buffer {p}, entry {i} at {level}: {gradient}, not {numeric}");
                }
            }
        }
    }
}

#[test]
fn evaluation_agrees_with_the_reference() {
    for (variables, hidden, outputs) in [(12, 20, 1), (70, 130, 3)] {
        for (name, embedding) in embeddings(variables) {
            // Sizes may differ between networks here.
            let data: Vec<_> =
                [77, 64, 300].map(|samples| data(samples, variables, outputs, 20, samples as u64)).into();
            let widths = [embedding.rows(variables), hidden, outputs];
            let weights = fused_reference::start(&widths, &embedding, variables, &[0, 1, 2]);
            for level in Kernels::Fused.available() {
                let progress = Progress::default();
                let result = evaluate(&weights, &data, &embedding, at(level), &progress).unwrap();
                assert_eq!(progress.done(), 3);
                for (r, data) in data.iter().enumerate() {
                    let all: Vec<usize> = (0..data.samples()).collect();
                    let reference = Reference::new(&weights, r, &embedding, variables, None);
                    let (loss, wrong, _) = reference.gradient(data, &all);
                    let labels = (data.samples() * outputs) as f64;
                    assert!((result.loss[r] - loss / labels).abs() < 1e-6, "{name} at {level}");
                    assert!((result.error[r] - wrong as f64 / labels).abs() < 1.5 / labels);
                }
            }
        }
    }
}
