//! What the libtorch engine promises beside its gradients.

mod common;

use common::*;
use ndarray::Array2;
use precode_core::Progress;
use precode_core::train::{Optimizer, Watch};
use precode_core::{Embedding, Error as Core, Weights};
use precode_torch::{Choice, Engine, Error, Libtorch, Stack, choose};
use tch::{Device, Kind, Tensor};

#[test]
fn masked_weights_stay_exactly_zero() {
    for optimizer in every_optimizer() {
        let mut case = Case::new(3, &[6, 5], 2, config(optimizer));
        case.mask_randomly();
        case.config.snapshots = (0..=14).collect();
        let trained = case.train(Kind::Float);
        let masks = case.masks.as_ref().unwrap();
        for stack in trained.snapshots.iter().chain([&trained.weights]) {
            let weights = stack.to_weights().unwrap();
            for (layer, mask) in weights.layers.iter().zip(&masks.layers) {
                for (&weight, &kept) in layer.weight.iter().zip(mask.as_ref().unwrap()) {
                    assert_eq!(weight != 0.0, kept);
                }
            }
        }
        let start = trained.snapshots[0].to_weights().unwrap();
        for ((start, given), mask) in start.layers.iter().zip(&case.weights.layers).zip(&masks.layers) {
            let masked =
                given.weight.iter().zip(mask.as_ref().unwrap()).map(|(w, &kept)| w * f32::from(kept));
            assert!(start.weight.iter().zip(masked).all(|(a, b)| a.to_bits() == b.to_bits()));
            assert_eq!(start.bias, given.bias);
        }
    }
}

#[test]
fn a_diverging_network_keeps_its_pruned_weights_at_zero() {
    let mut case =
        Case::new(2, &[6], 1, config(Optimizer::Sgd { lr: 1e30, momentum: 0.0, weight_decay: 0.0 }));
    case.config.epochs = 4;
    case.mask_randomly();
    let trained = case.train(Kind::Float);
    let weights = trained.weights.to_weights().unwrap();
    assert!(weights.layers[0].weight.iter().any(|weight| weight.is_nan()), "the case should diverge");
    let mask = case.masks.unwrap().layers[0].clone().unwrap();
    assert!(weights.layers[0].weight.iter().zip(mask).all(|(&weight, kept)| kept || weight == 0.0));
}

#[test]
fn a_mask_of_ones_changes_nothing() {
    let mut case = Case::new(2, &[6], 1, config(adam()));
    let plain = case.train(Kind::Float);
    let ones = case.weights.layers.iter().map(|layer| Some(vec![true; layer.weight.len()])).collect();
    case.masks = Some(precode_core::Masks { layers: ones });
    assert_same_bits(&plain.weights, &case.train(Kind::Float).weights);
}

#[test]
fn networks_of_a_stack_equal_networks_alone() {
    for hidden in [vec![6], vec![6, 5]] {
        let mut case = Case::new(5, &hidden, 2, config(adam()));
        case.mask_randomly();
        case.validation = (0..5).map(|i| dataset(i, 30 + 10 * (i as usize % 3), 8, 2)).collect();
        let together = case.train(Kind::Double);
        for r in 0..5 {
            let alone = case.alone(r).train(Kind::Double);
            let parameters = parameters(&alone.weights, 0, Kind::Double);
            assert!(distance(&together.weights, r, &parameters) < 1e-12);
            for (a, b) in [
                (&together.history.train_loss, &alone.history.train_loss),
                (&together.history.train_error, &alone.history.train_error),
                (&together.history.validation_loss, &alone.history.validation_loss),
            ] {
                for (a, b) in a[2 * r..][..2].iter().zip(b) {
                    assert!((a - b).abs() < 1e-12, "{a} against {b}");
                }
            }
        }
    }
}

#[test]
fn networks_beyond_one_slab_are_trained_too() {
    let mut case = Case::new(215, &[64], 1, config(adam()));
    case.config.batch = 100;
    case.config.snapshots = vec![0, 1];
    case.data = (0..215).map(|i| case.data[i % 4].clone()).collect();
    case.mask_randomly();
    let progress = Progress::default();
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let engine = Libtorch { kind: Kind::Float, device: Device::Cpu };
    let together = engine.train(&start, &case.problem(), &progress).unwrap();
    assert_eq!(progress.done(), 215 * 2);
    assert_eq!(together.weights.networks(), 215);
    assert_eq!(together.history.train_loss.len(), 215 * 2);
    assert_eq!(together.history.epochs_run, [2; 215]);
    let evaluation =
        engine.evaluate(&together.weights, &case.data, &case.embedding, &Progress::default()).unwrap();
    for r in [0, 100, 211, 212, 214] {
        let one = case.alone(r);
        let alone = one.train(Kind::Float);
        assert!(distance(&together.weights, r, &parameters(&alone.weights, 0, Kind::Float)) < 1e-5);
        for (a, b) in together.snapshots.iter().zip(&alone.snapshots) {
            assert!(distance(a, r, &parameters(b, 0, Kind::Float)) < 1e-5);
        }
        let lone = engine.evaluate(&alone.weights, &one.data, &one.embedding, &Progress::default()).unwrap();
        assert!((evaluation.loss[r] - lone.loss[0]).abs() < 1e-6);
    }
}

#[test]
fn stopping_one_network_leaves_the_others_as_they_were() {
    let mut case =
        Case::new(4, &[6], 1, config(Optimizer::Sgd { lr: 1.5, momentum: 0.9, weight_decay: 0.0 }));
    case.config.epochs = 30;
    case.mask_randomly();
    case.validation = (0..4).map(|i| dataset(50 + i, 40 + i as usize % 2, 8, 1)).collect();
    for watch in [Watch::Train, Watch::Validation] {
        case.config.early_stopping = stopping(2, watch);
        case.config.snapshots = vec![0, 7, 100, 210];
        let together = case.train(Kind::Double);
        let ran = &together.history.epochs_run;
        assert!(ran.iter().min() < ran.iter().max(), "the case should stop at different epochs: {ran:?}");
        for (r, &epochs) in ran.iter().enumerate() {
            let alone = case.alone(r).train(Kind::Double);
            assert_eq!(alone.history.epochs_run[0], epochs);
            let stacks = together.snapshots.iter().chain([&together.weights]);
            for (ours, theirs) in stacks.zip(alone.snapshots.iter().chain([&alone.weights])) {
                let error = distance(ours, r, &parameters(theirs, 0, Kind::Double));
                assert!(error < 1e-9, "network {r}: {error:e}");
            }
            assert!(together.history.train_loss[30 * r..][epochs as usize..30].iter().all(|x| x.is_nan()));
        }
        // A snapshot after every network stopped holds the final weights.
        assert_same_bits(&together.snapshots[3], &together.weights);
    }
}

#[test]
fn snapshots_hold_the_weights_after_their_steps() {
    let mut case = Case::new(2, &[6], 1, config(adam()));
    case.config.snapshots = vec![0, 1, 6, 7, 14];
    let trained = case.train(Kind::Double);
    assert_eq!(trained.snapshots.len(), 5);
    for (&step, stack) in case.config.snapshots.iter().zip(&trained.snapshots) {
        for r in 0..2 {
            assert!(distance(stack, r, &plainly(&case, r, Kind::Double, step as usize)) < 1e-12);
        }
    }
    assert_same_bits(&trained.snapshots[4], &trained.weights);
    assert_eq!(trained.snapshots[0].to_weights().unwrap(), case.weights);
}

#[test]
fn the_start_and_torchs_settings_stay_as_they_were() {
    let case = Case::new(2, &[6], 1, config(adam()));
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let leaf = start.layers[0].0.set_requires_grad(true);
    let engine = Libtorch { kind: Kind::Float, device: Device::Cpu };
    let threads = tch::get_num_threads();
    engine.train(&start, &case.problem(), &Progress::default()).unwrap();
    let cancelled = Progress::default();
    cancelled.cancel();
    let error = engine.train(&start, &case.problem(), &cancelled).unwrap_err();
    assert!(matches!(error, Error::Core(Core::Interrupted)), "{error}");
    let error = engine.evaluate(&start, &case.data, &case.embedding, &cancelled).unwrap_err();
    assert!(matches!(error, Error::Core(Core::Interrupted)), "{error}");
    assert!((&leaf * 2.0).requires_grad(), "grad mode was left off");
    assert_eq!(tch::get_num_threads(), threads);
    assert_eq!(start.to_weights().unwrap(), case.weights);
    assert!(!leaf.grad().defined());
}

#[test]
fn evaluation_matches_the_plain_formulas() {
    for embedding in every_embedding() {
        let mut case = Case::new(3, &[6], 2, config(adam())).behind(embedding.clone());
        case.data = vec![dataset(1, 50, 8, 2), dataset(2, 70, 8, 2), dataset(3, 50, 8, 2)];
        let stack = Stack::from_weights(&case.weights, Kind::Double, Device::Cpu).unwrap();
        let engine = Libtorch { kind: Kind::Double, device: Device::Cpu };
        let progress = Progress::default();
        let ours = engine.evaluate(&stack, &case.data, &embedding, &progress).unwrap();
        assert_eq!(progress.done(), 3);
        for r in 0..3 {
            let z = logits(
                &parameters(&stack, r as i64, Kind::Double),
                &embedded(&case.data[r], &embedding, Kind::Double),
            );
            let y = labels(&case.data[r], Kind::Double);
            let wrong = z.gt(0.0).ne_tensor(&y.gt(0.5)).to_kind(Kind::Double).mean(Kind::Double);
            assert!((ours.loss[r] - loss(&z, &y).double_value(&[])).abs() < 1e-12);
            assert!((ours.error[r] - wrong.double_value(&[])).abs() < 1e-12);
        }
    }
}

#[test]
fn data_of_different_numbers_of_variables_are_refused_even_if_they_embed_alike() {
    let mut case = Case::new(2, &[6], 1, config(adam()));
    case.embedding = Embedding::Hadamard { normalized: true };
    case.data[1] = dataset(5, 100, 6, 1);
    let start = Stack::from_weights(&case.weights, Kind::Double, Device::Cpu).unwrap();
    let engine = Libtorch { kind: Kind::Double, device: Device::Cpu };
    refused(engine.train(&start, &case.problem(), &Progress::default()), &["variables in one run"]);
}

#[test]
fn sixteen_bit_floats_learn() {
    for kind in [Kind::BFloat16, Kind::Half] {
        let mut case =
            Case::new(2, &[32], 1, config(Optimizer::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0 }));
        case.config.epochs = 20;
        let trained = case.train(kind);
        assert_eq!(trained.weights.kind().unwrap(), kind);
        let loss = &trained.history.train_loss;
        assert!(loss[19] < loss[0] - 0.05 && loss[39] < loss[20] - 0.05, "{kind:?}: {loss:?}");
    }
}

#[test]
fn stacks_round_trip_and_select() {
    let weights = Weights::linear_init(&[5, 4, 3, 2], 0, &[0, 1, 2]).unwrap();
    let stack = Stack::from_weights(&weights, Kind::Double, Device::Cpu).unwrap();
    assert_eq!((stack.networks(), stack.widths()), (3, vec![5, 4, 3, 2]));
    assert_eq!(stack.to_weights().unwrap(), weights);
    assert_eq!(stack.select(1).unwrap().to_weights().unwrap(), weights.network(1));
    let transposed = Stack {
        layers: vec![(
            Tensor::ones([3, 4, 5], (Kind::Float, Device::Cpu)).transpose(1, 2),
            Tensor::zeros([3, 5], (Kind::Float, Device::Cpu)),
        )],
        projection: None,
    };
    assert_eq!(transposed.to_weights().unwrap().widths(), [4, 5]);
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, words: &[&str]) {
    let message = result.map(|_| ()).expect_err("this should be refused").to_string();
    assert!(words.iter().all(|word| message.contains(word)), "{message:?} lacks one of {words:?}");
}

#[test]
fn bad_input_is_refused_by_name() {
    let cpu = (Kind::Float, Device::Cpu);
    let tensor = |size: &[i64]| Tensor::zeros(size, cpu);
    let stack = |layers| Stack { layers, projection: None };
    refused(stack(vec![]).validate(), &["without layers"]);
    refused(stack(vec![(tensor(&[0, 3, 2]), tensor(&[0, 3]))]).validate(), &["0 networks"]);
    refused(stack(vec![(tensor(&[3, 2]), tensor(&[3]))]).validate(), &["layer 1", "[3, 2]"]);
    refused(
        stack(vec![(tensor(&[2, 3, 4]), tensor(&[3]))]).validate(),
        &["layer 1", "bias", "[3]", "[2, 3]"],
    );
    let first = || (tensor(&[2, 3, 4]), tensor(&[2, 3]));
    refused(
        stack(vec![first(), (tensor(&[2, 1, 5]), tensor(&[2, 1]))]).validate(),
        &["layer 2", "[2, 1, 5]", "3"],
    );
    refused(
        stack(vec![first(), (tensor(&[1, 1, 3]), tensor(&[1, 1]))]).validate(),
        &["layer 2", "[1, 1, 3]"],
    );
    let doubles = (tensor(&[2, 1, 3]).to_kind(Kind::Double), tensor(&[2, 1]));
    refused(stack(vec![first(), doubles]).validate(), &["layer 2", "Double", "Float"]);
    let whole = (tensor(&[2, 3, 4]).to_kind(Kind::Int64), tensor(&[2, 3]).to_kind(Kind::Int64));
    refused(stack(vec![whole]).validate(), &["Int64", "float32"]);
    let nan = (tensor(&[2, 3, 4]), tensor(&[2, 3]).fill_(f64::NAN));
    refused(stack(vec![nan]).validate(), &["layer 1", "bias", "NaN"]);
    refused(stack(vec![first()]).select(2), &["network 2 of 2"]);

    let case = Case::new(2, &[6], 1, config(adam()));
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let engine = Libtorch { kind: Kind::Float, device: Device::Cpu };
    let train = |case: &Case| engine.train(&start, &case.problem(), &Progress::default());
    let mut other = case.alone(0);
    refused(train(&other), &["1 data sets for 2 networks"]);
    other = Case::new(2, &[6], 2, config(adam()));
    refused(train(&other), &["1 outputs", "2 labels"]);
    let evaluate = |case: &Case| engine.evaluate(&start, &case.data, &case.embedding, &Progress::default());
    refused(evaluate(&case.alone(0)), &["1 data sets for 2 networks"]);
    refused(evaluate(&other), &["[8, 6, 1]", "2 labels"]);
    other = Case::new(2, &[6], 1, config(adam()));
    other.embedding = Embedding::Dense(Array2::zeros((8, 7)));
    refused(train(&other), &["[8, 7]", "(rows, 8)"]);
    other.embedding = Embedding::Dense(Array2::zeros((9, 8)));
    refused(evaluate(&other), &["embed into 9"]);

    refused("torch".parse::<Choice>().map_err(Into::into), &["torch", "auto", "fused", "libtorch"]);
    let on = |kind, device| choose(Choice::Libtorch, &[8, 6, 1], &case.problem(), kind, device).map(|_| ());
    refused(on(Kind::Int64, Device::Cpu), &["Int64"]);
    refused(on(Kind::Float, Device::Cuda(4000)), &["cuda:4000"]);
    let (engine, reason) =
        choose(Choice::Libtorch, &[8, 6, 1], &case.problem(), Kind::Double, Device::Cpu).unwrap();
    assert_eq!(engine.name(), "libtorch");
    assert!(reason.starts_with("libtorch: "), "{reason}");
}

#[test]
fn torch_errors_keep_their_message_without_the_stack() {
    let error =
        Error::from(Tensor::zeros([2], (Kind::Float, Device::Cpu)).f_view([3]).unwrap_err()).to_string();
    assert!(error.starts_with("torch: ") && error.contains("invalid for input of size 2"), "{error}");
    assert!(!error.contains('\n'), "{error}");
}
