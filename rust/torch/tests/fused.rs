//! The fused engine against the libtorch engine.

mod common;

use common::*;
use precode_core::Progress;
use precode_core::task::formula::ClauseShape;
use precode_core::task::rng::Purpose;
use precode_core::task::sampler::Sampler;
use precode_core::train::{Optimizer, Trained, Watch};
use precode_core::{Dnf, Weights};
use precode_torch::{Choice, Engine, Fused, Libtorch, Stack, choose};
use tch::{Device, Kind, Tensor};

fn start(case: &Case) -> Stack {
    Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap()
}

fn fused(case: &Case) -> Trained<Stack> {
    Fused::default().train(&start(case), &case.problem(), &Progress::default()).unwrap()
}

/// Largest difference over networks and tensors, relative to the largest entry of each tensor.
fn difference(ours: &Stack, theirs: &Stack) -> f64 {
    let one = |r| distance(ours, r, &parameters(theirs, r as i64, Kind::Double));
    (0..ours.networks()).map(one).fold(0.0, f64::max)
}

#[track_caller]
fn close_all(ours: &[f64], theirs: &[f64], tolerance: f64) {
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() < tolerance || (a.is_nan() && b.is_nan()), "{a} against {b}");
    }
}

/// Adam's first steps divide each gradient by its own size: with the usual eps, gradients that cancel
/// would be compared by their rounding.
fn well_conditioned(mut optimizer: Optimizer) -> Optimizer {
    if let Optimizer::Adam { eps, .. } | Optimizer::AdamW { eps, .. } = &mut optimizer {
        *eps = 1e-3;
    }
    optimizer
}

#[test]
fn both_engines_report_a_diverging_network_alike() {
    for outputs in [1, 2] {
        let sgd = Optimizer::Sgd { lr: 1e30, momentum: 0.0, weight_decay: 0.0 };
        let mut case = Case::new(3, &[11], outputs, config(sgd));
        case.config.epochs = 4;
        case.validation = (0..3).map(|i| dataset(i, 50, 8, outputs)).collect();
        let (ours, theirs) = (fused(&case), case.train(Kind::Float));
        let finite = |losses: &[f64]| losses.iter().map(|loss| loss.is_finite()).collect::<Vec<_>>();
        assert_eq!(finite(&ours.history.train_loss), finite(&theirs.history.train_loss));
        assert_eq!(finite(&ours.history.validation_loss), finite(&theirs.history.validation_loss));
        assert!(!ours.history.validation_loss[3].is_finite(), "the case should diverge");
        let last = |trained: &Trained<Stack>| {
            (0..3).map(|r| trained.history.train_error[4 * r + 3]).collect::<Vec<_>>()
        };
        assert_eq!(last(&ours), [1.0; 3], "a NaN logit is wrong whatever the label");
        assert_eq!(last(&ours), last(&theirs));
        for engine in [&Fused::default() as &dyn Engine, &Libtorch { kind: Kind::Float, device: Device::Cpu }]
        {
            let all = engine
                .evaluate(&ours.weights, &case.validation, &case.embedding, &Progress::default())
                .unwrap();
            assert!(all.loss.iter().all(|loss| loss.is_nan()) && all.error == [1.0; 3], "{}", engine.name());
        }
    }
}

#[test]
fn fused_follows_libtorch_step_by_step() {
    for embedding in every_embedding() {
        for optimizer in every_optimizer().into_iter().map(well_conditioned) {
            for (outputs, masked) in [(1, false), (2, true)] {
                let mut case = Case::new(3, &[11], outputs, config(optimizer)).behind(embedding.clone());
                case.config.epochs = 15;
                case.config.snapshots = vec![0, 1, 2, 3, 7, 8, 30, 105];
                case.validation = (0..3).map(|i| dataset(i, 50, 8, outputs)).collect();
                if masked {
                    case.mask_randomly();
                }
                let (ours, theirs) = (fused(&case), case.train(Kind::Float));
                let what = format!("{optimizer:?}, {outputs} outputs, {embedding:?}");
                let steps = case.config.snapshots.iter().zip(ours.snapshots.iter().zip(&theirs.snapshots));
                for (&step, (ours, theirs)) in steps {
                    let (error, allowed) = (difference(ours, theirs), 1e-6 * (1.0 + step as f64));
                    assert!(error < allowed, "{what}: {error:e} at step {step}");
                }
                assert_eq!(
                    ours.snapshots[0].to_weights().unwrap(),
                    theirs.snapshots[0].to_weights().unwrap()
                );
                close_all(&ours.history.train_loss, &theirs.history.train_loss, 1e-4);
                close_all(&ours.history.validation_loss, &theirs.history.validation_loss, 1e-4);
                // A logit near 0 may round to either side.
                close_all(&ours.history.train_error, &theirs.history.train_error, 0.0101);
                let data = (&case.data, &case.embedding, Progress::default());
                let libtorch = Libtorch { kind: Kind::Float, device: Device::Cpu };
                let one = Fused::default().evaluate(&ours.weights, data.0, data.1, &data.2).unwrap();
                let other = libtorch.evaluate(&ours.weights, data.0, data.1, &data.2).unwrap();
                close_all(&one.loss, &other.loss, 1e-5);
                close_all(&one.error, &other.error, 0.0101);
                assert_eq!(data.2.done(), 6, "both engines count networks");
            }
        }
    }
}

#[test]
fn both_engines_stop_at_the_same_epochs() {
    let mut case =
        Case::new(4, &[6], 1, config(Optimizer::Sgd { lr: 1.0, momentum: 0.5, weight_decay: 0.0 }));
    case.config.epochs = 30;
    case.validation = case.data.iter().rev().cloned().collect();
    for watch in [Watch::Train, Watch::Validation] {
        case.config.early_stopping = stopping(2, watch);
        let (ours, theirs) = (fused(&case), case.train(Kind::Float));
        assert_eq!(ours.history.epochs_run, theirs.history.epochs_run);
        close_all(&ours.history.train_loss, &theirs.history.train_loss, 1e-3);
        assert!(difference(&ours.weights, &theirs.weights) < 1e-2);
    }
}

#[test]
fn full_training_ends_statistically_the_same() {
    let shape = ClauseShape { clauses: 8, width: 4, negated: 0, disjoint: false };
    let mut case = Case::new(16, &[16], 1, config(Optimizer::adam(2e-3)));
    let indices: Vec<u64> = (0..16).collect();
    case.weights = Weights::linear_init(&[32, 16, 1], 0, &indices).unwrap();
    let sampler = Sampler::BrokenClause { true_counts: None };
    case.data = indices
        .iter()
        .map(|&i| {
            let task = Dnf::random(32, 1, shape, 0, i).unwrap();
            std::sync::Arc::new(sampler.sample(&task, 4000, 0, Purpose::Data, i).unwrap())
        })
        .collect();
    case.config.epochs = 30;
    case.config.batch = 64;
    let (ours, theirs) = (fused(&case).history, case.train(Kind::Float).history);
    let last = |history: &precode_core::train::History| -> Vec<f64> {
        (0..16).map(|r| history.train_loss[r * 30 + 29]).collect()
    };
    let (ours, theirs) = (last(&ours), last(&theirs));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / 16.0;
    println!("mean loss after 30 epochs: fused {:.5}, libtorch {:.5}", mean(&ours), mean(&theirs));
    assert!(mean(&theirs) < 0.3, "the networks should have learned");
    // Single runs drift apart by rounding; their mean must not.
    let differences: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a - b).collect();
    let spread = (differences.iter().map(|d| d * d).sum::<f64>() / 16.0 / 15.0).sqrt();
    let shift = mean(&differences);
    assert!(shift.abs() < 4.0 * spread + 1e-4, "shift {shift:e}, standard error {spread:e}");
    assert!(shift.abs() < 0.02 * mean(&theirs), "shift {shift:e}");
}

#[test]
fn a_diverged_network_comes_back_as_it_is() {
    let mut case =
        Case::new(2, &[6], 1, config(Optimizer::Sgd { lr: 1e30, momentum: 0.0, weight_decay: 0.0 }));
    case.config.epochs = 4;
    let weights = fused(&case).weights;
    assert!(weights.validate().is_err());
}

#[test]
fn auto_takes_fused_where_it_can_and_says_why() {
    let case = Case::new(2, &[6], 1, config(adam()));
    let pick = |choice, widths: &[usize], kind, device| {
        choose(choice, widths, &case.problem(), kind, device).map(|(engine, why)| (engine.name(), why))
    };
    let one = |kind| pick(Choice::Auto, &[8, 6, 1], kind, Device::Cpu).unwrap();
    assert_eq!(one(Kind::Float), ("fused", "fused: one hidden layer, float32 on the CPU".to_owned()));
    let (name, why) = one(Kind::Double);
    assert!(name == "libtorch" && why.contains("float64"), "{why}");
    let (name, why) = pick(Choice::Auto, &[8, 6, 5, 1], Kind::Float, Device::Cpu).unwrap();
    assert!(name == "libtorch" && why.contains("hidden layer"), "{why}");
    assert!(pick(Choice::Fused, &[8, 6, 5, 1], Kind::Float, Device::Cpu).is_err());
    let error = pick(Choice::Fused, &[8, 6, 1], Kind::Float, Device::Cuda(0)).unwrap_err().to_string();
    assert!(error.contains("cuda:0") && error.contains("libtorch"), "{error}");
    let doubles = Stack::from_weights(&case.weights, Kind::Double, Device::Cpu).unwrap();
    let error = Fused::default().train(&doubles, &case.problem(), &Progress::default()).unwrap_err();
    assert!(error.to_string().contains("float64"), "{error}");
}

#[test]
fn the_start_is_left_as_it_was() {
    let case = Case::new(2, &[6], 1, config(adam()));
    let start = start(&case);
    let leaf = start.layers[0].0.set_requires_grad(true);
    let trained = Fused::default().train(&start, &case.problem(), &Progress::default()).unwrap();
    assert_eq!(start.to_weights().unwrap(), case.weights);
    assert!(leaf.requires_grad() && !trained.weights.layers[0].0.requires_grad());
    assert!((Tensor::ones([1], (Kind::Float, Device::Cpu)) * leaf.get(0).get(0)).requires_grad());
}
