//! The libtorch engine against plain training with autograd.

mod common;

use common::*;
use precode_core::Embedding;
use precode_core::train::{EarlyStopping, Optimizer, Watch};
use precode_torch::Stack;
use tch::{Device, Kind};

const F64: f64 = 1e-10;
/// float32 rounding grows with the steps, and Adam divides it by small second moments.
const F32_ONE_STEP: f64 = 1e-5;
const F32_200_STEPS: f64 = 2e-3;

/// Largest difference over the networks after the last step.
fn error(case: &Case, kind: Kind) -> f64 {
    let steps = case.config.steps_per_epoch(case.data[0].samples()) * u64::from(case.config.epochs);
    let trained = case.train(kind);
    (0..case.data.len())
        .map(|r| distance(&trained.weights, r, &plainly(case, r, kind, steps as usize)))
        .fold(0.0, f64::max)
}

#[track_caller]
fn check(case: Case, what: &str) {
    check_for(29, case, what);
}

/// As [`check`], for so many epochs of 7 steps.
#[track_caller]
fn check_for(epochs: u32, mut case: Case, what: &str) {
    // 100 samples in batches of 16: every epoch ends with a batch of 4.
    case.config.epochs = epochs;
    let (double, single) = (error(&case, Kind::Double), error(&case, Kind::Float));
    println!("{what}: {epochs} epochs: float64 {double:.1e}, float32 {single:.1e}");
    assert!(double < F64, "{what}: {double:e} in float64");
    assert!(single < F32_200_STEPS, "{what}: {single:e} in float32");
    case.config.epochs = 1;
    case.config.batch = 100;
    let (double, single) = (error(&case, Kind::Double), error(&case, Kind::Float));
    println!("{what}: one step: float64 {double:.1e}, float32 {single:.1e}");
    assert!(double < F64, "{what}: {double:e} in float64 after one step");
    assert!(single < F32_ONE_STEP, "{what}: {single:e} in float32 after one step");
}

#[test]
fn every_optimizer_follows_autograd() {
    for optimizer in every_optimizer() {
        check(Case::new(3, &[6], 1, config(optimizer)), &format!("{optimizer:?}"));
    }
}

#[test]
fn every_depth_follows_autograd() {
    for hidden in [vec![], vec![6], vec![6, 5], vec![7, 4, 5]] {
        check(Case::new(2, &hidden, 1, config(adam())), &format!("hidden {hidden:?}"));
    }
}

#[test]
fn several_outputs_follow_autograd() {
    check(Case::new(3, &[6], 2, config(adam())), "2 outputs");
    check(Case::new(2, &[6, 5], 3, config(adam())), "3 outputs");
}

#[test]
fn every_embedding_follows_autograd() {
    for embedding in every_embedding() {
        check(Case::new(2, &[6], 1, config(adam())).behind(embedding), "embedding");
    }
}

#[test]
fn every_optimizer_follows_autograd_behind_a_projection() {
    for trained in [false, true] {
        for optimizer in every_optimizer() {
            let mut case = Case::new(3, &[6, 5], 2, config(optimizer))
                .behind(Embedding::Projection { rows: 5, trained });
            case.mask_randomly();
            // Rounding grows ten million times in 203 steps of these masked networks, in float64 too; not in 28.
            check_for(4, case, &format!("{optimizer:?} behind a projection, trained: {trained}"));
        }
    }
}

#[test]
fn masked_training_follows_autograd() {
    for optimizer in every_optimizer() {
        let masked = |epochs| {
            let mut case = Case::new(3, &[6, 5], 1, config(optimizer));
            case.mask_randomly();
            case.config.epochs = epochs;
            case
        };
        // As behind a projection; in float32 it depends on the CPU how far rounding grows in more epochs.
        check_for(4, masked(4), "masked");
        let double = error(&masked(29), Kind::Double);
        assert!(double < F64, "masked: {double:e} in float64 after 29 epochs");
    }
}

#[test]
fn shared_data_follow_autograd() {
    let mut one = Case::new(3, &[6], 2, config(adam()));
    one.data = vec![one.data[0].clone(); 3];
    check(one, "one set for all");
    let mut mixed = Case::new(4, &[6], 2, config(adam()));
    mixed.data = [1, 0, 1, 1].iter().map(|&i| mixed.data[i].clone()).collect();
    check(mixed, "two sets for four");
}

#[test]
fn a_batch_larger_than_the_data_takes_them_all() {
    let mut case = Case::new(2, &[6], 1, config(adam()));
    case.config.batch = usize::MAX;
    assert!(error(&case, Kind::Double) < F64);
}

#[test]
fn gradients_match_finite_differences() {
    // Plain SGD with lr 1 moves by exactly minus the gradient.
    let mut case =
        Case::new(2, &[4, 3], 2, config(Optimizer::Sgd { lr: 1.0, momentum: 0.0, weight_decay: 0.0 }));
    case.config.epochs = 1;
    case.config.batch = 100;
    let start = Stack::from_weights(&case.weights, Kind::Double, Device::Cpu).unwrap();
    let trained = case.train(Kind::Double);
    for r in 0..2 {
        let before = parameters(&start, r, Kind::Double);
        let after = parameters(&trained.weights, r, Kind::Double);
        let x = embedded(&case.data[r as usize], &case.embedding, Kind::Double);
        let y = labels(&case.data[r as usize], Kind::Double);
        let value = || loss(&logits(&before, &x), &y).double_value(&[]);
        for (parameter, moved) in before.iter().zip(&after) {
            let (flat, moved) = (parameter.view(-1), moved.view(-1));
            for i in 0..flat.numel() as i64 {
                let (old, h) = (flat.double_value(&[i]), 1e-6);
                let _ = flat.get(i).fill_(old + h);
                let above = value();
                let _ = flat.get(i).fill_(old - h);
                let below = value();
                let _ = flat.get(i).fill_(old);
                let numeric = (above - below) / (2.0 * h);
                let ours = old - moved.double_value(&[i]);
                assert!((numeric - ours).abs() < 1e-8, "{numeric} against {ours}");
            }
        }
    }
}

#[test]
fn history_holds_the_loss_before_each_update() {
    // One batch an epoch: the losses are those of the start and of the first step.
    let mut case = Case::new(2, &[6], 2, config(adam()));
    case.config.batch = 100;
    case.validation = vec![dataset(7, 90, 8, 2), dataset(8, 40, 8, 2)];
    let history = case.train(Kind::Double).history;
    assert_eq!((history.networks, history.epochs, &history.epochs_run), (2, 2, &vec![2, 2]));
    for r in 0..2 {
        for epoch in 0..2 {
            let before = plainly_until(&case, r, epoch);
            let after = plainly_until(&case, r, epoch + 1);
            let output = |parameters: &[tch::Tensor], data| {
                logits(parameters, &embedded(data, &case.embedding, Kind::Double))
            };
            let (z, y) = (output(&before, &case.data[r]), labels(&case.data[r], Kind::Double));
            let wrong = z.gt(0.0).ne_tensor(&y.gt(0.5)).to_kind(Kind::Double).mean(Kind::Double);
            let held = loss(&output(&after, &case.validation[r]), &labels(&case.validation[r], Kind::Double));
            let cell = r * 2 + epoch;
            close(history.train_loss[cell], loss(&z, &y).double_value(&[]));
            close(history.train_error[cell], wrong.double_value(&[]));
            close(history.validation_loss[cell], held.double_value(&[]));
        }
    }
}

#[test]
fn early_stopping_follows_the_plain_rule() {
    let mut case =
        Case::new(4, &[6], 1, config(Optimizer::Sgd { lr: 1.5, momentum: 0.9, weight_decay: 0.0 }));
    case.config.epochs = 40;
    case.config.early_stopping = Some(EarlyStopping { patience: 2, min_delta: 1e-3, watch: Watch::Train });
    let trained = case.train(Kind::Double);
    let ran = &trained.history.epochs_run;
    assert!(ran.iter().min() < ran.iter().max(), "the case should stop at different epochs: {ran:?}");
    for (r, &epochs) in ran.iter().enumerate() {
        let losses = &trained.history.train_loss[r * 40..][..40];
        let mut rule = precode_core::train::Patience::new(case.config.early_stopping.unwrap());
        let stop = (0..40).find(|&i| rule.update(losses[i])).map_or(40, |i| i + 1);
        assert_eq!(epochs as usize, stop);
        assert!(losses[stop..].iter().all(|loss| loss.is_nan()));
        let mut alone = case.alone(r);
        alone.config.epochs = epochs;
        alone.config.early_stopping = None;
        let reference = plainly(&alone, 0, Kind::Double, 7 * epochs as usize);
        assert!(distance(&trained.weights, r, &reference) < 1e-9);
    }
}

fn plainly_until(case: &Case, r: usize, steps: usize) -> Vec<tch::Tensor> {
    plainly(case, r, Kind::Double, steps)
}

#[track_caller]
fn close(ours: f64, expected: f64) {
    assert!((ours - expected).abs() < 1e-12, "{ours} against {expected}");
}
