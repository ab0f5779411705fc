//! The fused engine against a plain float64 implementation, step by step, at every level.

mod fused_reference;

use std::sync::Arc;

use fused_reference::{config, data, difference, embeddings, masks, optimizers, parameters};
use precode_core::fused::{Level, Options, evaluate, train};
use precode_core::training::{EarlyStopping, Optimizer, Problem, Progress, Watch};
use precode_core::{Dataset, Embedding, Weights};

fn at(level: Level) -> Options {
    Options { level: Some(level), threads: None }
}

/// Trains three networks and compares every one of `steps` steps with the reference. The tolerance is
/// in units of the largest step that the optimizer takes, plus f32 rounding of the weights.
fn compare(name: &str, widths: [usize; 3], data: &[Arc<Dataset>], problem: &Problem<'_>, tolerance: f64) {
    let start = Weights::linear_init(&widths, 11, &[0, 1, 2]).unwrap();
    let steps = problem.config.steps_per_epoch(data[0].samples()) * u64::from(problem.config.epochs);
    let mut config = problem.config.clone();
    config.snapshots = (0..=steps).collect();
    let problem = Problem { config: &config, ..*problem };
    let references: Vec<_> = (0..3).map(|r| fused_reference::train(&start, r, &problem)).collect();
    for level in Level::available() {
        let trained = train(start.clone(), &problem, at(level), &Progress::default()).unwrap();
        for (r, reference) in references.iter().enumerate() {
            let mut worst: f64 = 0.0;
            for (step, expected) in reference.path.iter().enumerate() {
                let off = difference(&parameters(&trained.snapshots[step], r), expected);
                assert!(off < tolerance, "{name} at {level}: network {r} is off by {off} at step {step}");
                worst = worst.max(off);
            }
            eprintln!("{name} at {level}: {worst:.2e}");
            assert_eq!(parameters(&trained.weights, r), parameters(trained.snapshots.last().unwrap(), r));
            for epoch in 0..config.epochs as usize {
                let at = r * config.epochs as usize + epoch;
                assert!((trained.history.train_loss[at] - reference.train_loss[epoch]).abs() < 1e-5);
                let labels = (data[r].samples() * widths[2]) as f64;
                let error = trained.history.train_error[at] - reference.train_error[epoch];
                // A logit within rounding of 0 may fall on either side.
                assert!(error.abs() < 2.5 / labels, "{name} at {level}: train error off by {error}");
            }
        }
    }
}

#[test]
fn every_optimizer_follows_the_reference() {
    let data: Vec<_> = (0..3).map(|seed| data(150, 12, 1, 30, seed)).collect();
    for (name, optimizer) in optimizers() {
        let config = config(5, 32, optimizer);
        let problem = Problem {
            data: &data,
            validation: &[],
            embedding: &Embedding::Identity,
            masks: None,
            config: &config,
        };
        compare(name, [12, 20, 1], &data, &problem, 2e-5);
    }
}
