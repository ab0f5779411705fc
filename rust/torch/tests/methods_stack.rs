//! What stacks of networks answer to ticket methods, against autograd and plain training.

mod common;

use common::*;
use precode_core::Embedding;
use precode_core::Progress;
use precode_core::train::{Optimizer, TrainConfig, Watch, epoch_order};
use precode_torch::methods::{Batch, Objective, Plan, SCORING_SAMPLES, StackObjective};
use precode_torch::{Choice, Engine, Fused, Stack};
use tch::{Device, Kind, Tensor};

/// Six networks of 8 - 6 - 1 on the fused engine.
fn case() -> Case {
    Case::new(6, &[6], 1, config(adam()))
}

fn assert_close(ours: &[Tensor], reference: &[Tensor], tolerance: f64) {
    for (ours, reference) in ours.iter().zip(reference) {
        assert_eq!(ours.size(), reference.size());
        let scale = reference.abs().max().double_value(&[]);
        let error = (ours.to_kind(Kind::Double) - reference).abs().max().double_value(&[]);
        assert!(error <= tolerance * scale, "{error:e} of {scale:e}");
    }
}

/// Autograd's gradients of the loss of `logits / temperature` of every network at `at`, over the given
/// samples.
fn autograd(case: &Case, at: &[Tensor], rows: &[u32], temperature: f64) -> Vec<Tensor> {
    let rows = Tensor::from_slice(&rows.iter().map(|&row| i64::from(row)).collect::<Vec<_>>());
    let networks = (0..case.weights.networks).map(|r| {
        let leaves: Vec<Tensor> = at
            .iter()
            .map(|value| value.get(r as i64).to_kind(Kind::Double).detach().set_requires_grad(true))
            .collect();
        let mut x = embedded(&case.data[r], &case.embedding, Kind::Double).index_select(0, &rows);
        if let Embedding::Projection { trained: false, .. } = case.embedding {
            let alone = Stack::from_weights(&case.weights.network(r), Kind::Double, Device::Cpu).unwrap();
            x = x.matmul(&alone.projection.unwrap().get(0).transpose(0, 1));
        }
        let y = labels(&case.data[r], Kind::Double).index_select(0, &rows);
        Tensor::run_backward(&[loss(&(logits(&leaves, &x) / temperature), &y)], &leaves, false, false)
    });
    let networks: Vec<Vec<Tensor>> = networks.collect();
    (0..at.len())
        .map(|i| Tensor::stack(&networks.iter().map(|tensors| &tensors[i]).collect::<Vec<_>>(), 0))
        .collect()
}

#[test]
fn gradients_of_steps_follow_the_order_of_training() {
    let mut case = Case::new(3, &[6, 5], 2, config(adam()));
    case.config.first_epoch = 4;
    with(&case, Kind::Double, "w1", |objective, _| {
        let at = initial(objective);
        for step in [0, 5, 6, 9, 7] {
            let ours = objective.gradient(&at, Batch::Step(step)).unwrap();
            let order = epoch_order(5, 4 + (step / 7) as u32, 100);
            let rows = order.chunks(16).nth(step as usize % 7).unwrap();
            assert_close(&ours, &autograd(&case, &at, rows, 1.0), 1e-12);
        }
    });
}

#[test]
fn the_scoring_batch_is_what_training_visits_first() {
    for embedding in every_embedding() {
        let mut case = Case::new(2, &[6], 1, config(adam())).behind(embedding);
        case.data = vec![dataset(1, 4500, 8, 1); 2];
        with(&case, Kind::Float, "w1", |objective, _| {
            let at = initial(objective);
            let ours = objective.gradient(&at, Batch::Scoring).unwrap();
            let visited = epoch_order(5, 0, 4500);
            assert_close(&ours, &autograd(&case, &at, &visited[..SCORING_SAMPLES], 1.0), 1e-12);
        });
    }
}

#[test]
fn curvature_is_the_change_of_the_gradient_along_itself() {
    let rows: Vec<u32> = (0..100).collect();
    let projection = |trained| Embedding::Projection { rows: 5, trained };
    for (hidden, outputs, embedding) in [
        (vec![6], 1, Embedding::Identity),
        (vec![6, 5], 2, Embedding::Identity),
        (vec![6], 1, projection(false)),
        (vec![6, 5], 2, projection(true)),
    ] {
        let case = Case::new(2, &hidden, outputs, config(adam())).behind(embedding);
        for (prunable, temperature) in [("w1", 1.0), ("all", 1.0), ("all", 3.0), ("w2", 0.5)] {
            with(&case, Kind::Double, prunable, |objective, _| {
                let at = initial(objective);
                let ours = objective.curvature(&at, temperature).unwrap();
                let prunable: Vec<f64> =
                    objective.parameters().iter().map(|p| f64::from(u8::from(p.prunable))).collect();
                let direction = autograd(&case, &at, &rows, temperature);
                let size = 1e-3;
                let moved = |sign: f64| -> Vec<Tensor> {
                    let step = |i: usize| &at[i] + &direction[i] * (sign * size * prunable[i]);
                    autograd(&case, &(0..at.len()).map(step).collect::<Vec<_>>(), &rows, temperature)
                };
                let (up, down) = (moved(1.0), moved(-1.0));
                let differences: Vec<Tensor> =
                    (0..at.len()).map(|i| (&up[i] - &down[i]) * (prunable[i] / (2.0 * size))).collect();
                assert!(
                    differences[2 * usize::from(prunable[0] == 0.0)].abs().max().double_value(&[]) > 1e-7
                );
                assert_close(&ours, &differences, 1e-6);
            });
        }
    }
}

#[test]
fn synaptic_flow_is_conserved_at_every_hidden_neuron() {
    let case = Case::new(3, &[6, 5], 2, config(adam()));
    with(&case, Kind::Float, "all", |objective, _| {
        let at = initial(objective);
        let flow = objective.flow(initial(objective)).unwrap();
        let score = |i: usize| at[i].to_kind(Kind::Double).abs() * &flow[i];
        for layer in [0, 2] {
            let into = score(layer).sum_dim_intlist(2, false, Kind::Double);
            let out = score(layer + 2).sum_dim_intlist(1, false, Kind::Double);
            assert!(into.min().double_value(&[]) > 0.0);
            assert_close(&[into], &[out], 1e-12);
        }
        // All of the flow passes every layer: R itself, computed as a product of matrices of magnitudes.
        let magnitudes = |i: usize| at[i].to_kind(Kind::Double).abs();
        let whole = magnitudes(4).matmul(&magnitudes(2)).matmul(&magnitudes(0));
        let whole = whole.sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Double);
        let last = score(4).sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Double);
        assert_close(&[last], &[whole], 1e-12);
    });
}

#[test]
fn the_dense_run_is_trained_once_and_stops_as_configured() {
    let mut case = case();
    case.config.epochs = 12;
    case.config.optimizer = Optimizer::Sgd { lr: 1.5, momentum: 0.9, weight_decay: 0.0 };
    case.config.early_stopping = stopping(2, Watch::Train);
    case.config.snapshots = vec![10, 70];
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let dense = Fused::default().train(&start, &case.problem(), &Progress::default()).unwrap();
    let ran: Vec<f64> = dense.history.epochs_run.iter().map(|&epochs| f64::from(epochs)).collect();
    assert!(ran.iter().any(|&epochs| epochs < 12.0), "the case should stop early");
    case.config.snapshots = vec![];
    with(&case, Kind::Float, "w1", |objective, progress| {
        let tensor = |stack: &Stack| stack.layers[0].0.shallow_clone();
        assert_eq!(objective.dense().unwrap()[0], tensor(&dense.weights));
        assert_eq!(objective.dense_epochs(), ran);
        let steps = progress.done();
        assert_eq!(objective.dense().unwrap()[0], tensor(&dense.weights));
        assert_eq!(progress.done(), steps);
        assert_eq!(objective.dense_at(&[0]).unwrap()[0][0], tensor(&start));
        assert_eq!(objective.dense_at(&[10]).unwrap()[0][0], tensor(&dense.snapshots[0]));
        assert_eq!(objective.dense_at(&[70]).unwrap()[0][0], tensor(&dense.snapshots[1]));
        // Of the end, which is known, and a step before it, only the epochs up to the step are trained.
        let steps = progress.done();
        let both = objective.dense_at(&[7, 84]).unwrap();
        assert_eq!(both[1][0], tensor(&dense.weights));
        assert_eq!(progress.done() - steps, 6 * 7);
        assert!(objective.dense_at(&[85]).unwrap_err().to_string().contains("ends at step 84"));
    });
    let progress = Progress::default();
    let objective = StackObjective::new(&start, case.problem(), Choice::Auto, "w1", &progress).unwrap();
    let mut objective = objective.with_dense(&dense.weights, &ran).unwrap();
    assert_eq!(objective.dense().unwrap()[0], dense.weights.layers[0].0);
    assert_eq!((objective.dense_epochs(), progress.done()), (ran, 0));
}

#[test]
fn training_goes_on_where_the_plan_says() {
    let mut case = case();
    case.config.epochs = 4;
    let (start, outcome) = with(&case, Kind::Float, "w1", |objective, _| {
        let start = objective.dense_at(&[7]).unwrap().remove(0);
        let plan = Plan { first_epoch: 1, snapshots: &[7], ..Plan::new(&start) };
        let outcome = objective.train(&plan).unwrap();
        assert!(objective.train(&Plan { first_epoch: 5, ..plan }).is_err());
        let short = objective.train(&Plan { end_epoch: Some(2), ..plan }).unwrap();
        assert_eq!(short.epochs, [1.0; 6]);
        assert_eq!(short.parameters[0], outcome.snapshots[0][0]);
        (start, outcome)
    });
    assert_eq!(outcome.epochs, [3.0; 6]);
    case.config = TrainConfig { epochs: 3, first_epoch: 1, snapshots: vec![7], ..case.config };
    let layers = start.chunks(2).map(|pair| (pair[0].shallow_clone(), pair[1].shallow_clone())).collect();
    let plain = Fused::default()
        .train(&Stack { layers, projection: None }, &case.problem(), &Progress::default())
        .unwrap();
    assert_eq!(outcome.parameters[0], plain.weights.layers[0].0);
    assert_eq!(outcome.snapshots[0][0], plain.snapshots[0].layers[0].0);
}

#[test]
fn feature_space_is_that_of_one_hidden_layer() {
    let mut case = case();
    with(&case, Kind::Float, "w1", |objective, _| {
        let pair = objective.features().unwrap();
        assert_eq!((pair.first, pair.second, pair.output), (0, 2, 0));
        assert!(pair.embedding.is_none() && pair.clauses.is_none());
    });
    case.embedding = Embedding::Hadamard { normalized: false };
    with(&case, Kind::Float, "w1", |objective, _| {
        let c0 = objective.features().unwrap().embedding.as_ref().unwrap();
        assert_eq!(c0.size(), [8, 8]);
        assert_eq!(c0.double_value(&[1, 1]), -1.0);
    });
    let deep = Case::new(2, &[6, 5], 1, config(adam()));
    with(&deep, Kind::Float, "w1", |objective, _| assert!(objective.features().is_none()));
}

#[test]
fn masks_belong_to_the_prunable_weights() {
    for (prunable, pruned) in
        [("w1", vec![0]), ("w2", vec![2]), ("w3+w1", vec![0, 4]), ("all", vec![0, 2, 4])]
    {
        let case = Case::new(2, &[6, 5], 1, config(adam()));
        with(&case, Kind::Float, prunable, |objective, _| {
            let start = initial(objective);
            let masks: Vec<Tensor> = pruned.iter().map(|&i| start[i].gt(0.0)).collect();
            let plan = Plan { masks: Some(&masks), ..Plan::new(&start) };
            let trained = objective.train(&plan).unwrap().parameters;
            let mut masks = masks.iter();
            for (i, (trained, parameter)) in trained.iter().zip(objective.parameters()).enumerate() {
                assert_eq!(parameter.prunable, pruned.contains(&i));
                let alive = trained.ne(0.0);
                match parameter.prunable {
                    true => assert_eq!(&alive, masks.next().unwrap(), "{prunable}"),
                    false => assert_eq!(alive.all().int64_value(&[]), 1, "{prunable}"),
                }
            }
            assert!(objective.train(&Plan { masks: Some(&[]), ..plan }).is_err());
        });
    }
}

#[test]
fn moments_and_fisher_matrices_are_means_over_samples() {
    for embedding in every_embedding() {
        let case = Case::new(3, &[6], 1, config(adam())).behind(embedding);
        let start = Stack::from_weights(&case.weights, Kind::Double, Device::Cpu).unwrap();
        with(&case, Kind::Double, "all", |objective, _| {
            let at = initial(objective);
            let moments = objective.input_moments(&at).unwrap();
            let fisher = objective.fisher(&at, 1..3).unwrap();
            let squares = objective.input_squares(&at).unwrap();
            let diagonals: Vec<Tensor> = moments.iter().map(|moment| moment.diagonal(0, 2, 3)).collect();
            assert_close(&squares, &diagonals, 0.0);
            assert_eq!(fisher.len(), 2);
            for r in 0..3 {
                let mut x = embedded(&case.data[r], &case.embedding, Kind::Double);
                if let Some(c0) = &start.projection {
                    x = x.matmul(&c0.get(r as i64).transpose(0, 1));
                }
                let y = labels(&case.data[r], Kind::Double);
                let own: Vec<Tensor> = at.iter().map(|value| value.get(r as i64)).collect();
                let hidden = (x.matmul(&own[0].transpose(0, 1)) + &own[1]).relu();
                for (moment, z) in moments.iter().zip([&x, &hidden]) {
                    let expected = z.transpose(0, 1).matmul(z) / 100.0;
                    assert_close(&[moment.get(r as i64).get(0)], &[expected], 1e-12);
                }
                if r == 0 {
                    continue;
                }
                let gradients = (0..100).map(|i| {
                    // Without C0, whose product x already is.
                    let leaves: Vec<Tensor> =
                        own[..4].iter().map(|w| w.copy().set_requires_grad(true)).collect();
                    let loss = loss(&logits(&leaves, &x.narrow(0, i, 1)), &y.narrow(0, i, 1));
                    let all = Tensor::run_backward(&[loss], &leaves, false, false);
                    Tensor::cat(&[all[0].flatten(0, -1), all[2].flatten(0, -1)], 0)
                });
                let rows = Tensor::stack(&gradients.collect::<Vec<_>>(), 0);
                let expected = rows.transpose(0, 1).matmul(&rows) / 100.0;
                assert_close(&[fisher[r - 1].shallow_clone()], &[expected], 1e-12);
            }
        });
    }
}

#[test]
fn flow_begins_in_front_of_a_projection() {
    for trained in [false, true] {
        let case = Case::new(3, &[6], 1, config(adam())).behind(Embedding::Projection { rows: 5, trained });
        let start = Stack::from_weights(&case.weights, Kind::Double, Device::Cpu).unwrap();
        with(&case, Kind::Double, "all", |objective, _| {
            let flow = objective.flow(initial(objective)).unwrap();
            let magnitude = |tensor: &Tensor| tensor.abs();
            let [w1, w2] = [0, 1].map(|layer| magnitude(&start.layers[layer].0));
            let into = magnitude(start.projection.as_ref().unwrap()).sum_dim_intlist(2, false, Kind::Double);
            // dR/d|w1[r, a]| = |w2[r]| sum over variables of |C0[a, v]|.
            let expected = w2.transpose(1, 2).matmul(&into.unsqueeze(1));
            assert_close(&flow[..1], &[expected], 1e-12);
            assert!((&w1 * &flow[0]).min().double_value(&[]) > 0.0);
        });
    }
}

#[test]
fn masked_networks_train_behind_the_projection_that_is_asked_for() {
    let case = Case::new(3, &[6], 1, config(adam())).behind(Embedding::Projection { rows: 5, trained: true });
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let progress = Progress::default();
    for held in [false, true] {
        let mut objective =
            StackObjective::new(&start, case.problem(), Choice::Auto, "w1", &progress).unwrap();
        if held {
            objective = objective.with_held_projection().unwrap();
        }
        let names: Vec<&str> =
            objective.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["w1", "b1", "w2", "b2", "c0"]);
        let (theta, dense) = (initial(&objective), objective.dense().unwrap());
        assert_ne!(theta[4], dense[4]);
        let masks = vec![theta[0].gt(0.0)];
        let plan = Plan { masks: Some(&masks), snapshots: &[0], ..Plan::new(&theta) };
        let outcome = objective.train(&plan).unwrap();
        let begun = if held { &dense[4] } else { &theta[4] };
        assert_eq!(&outcome.snapshots[0][4], begun);
        assert_eq!(&outcome.parameters[4] == begun, held);
        // Whole networks train as the dense run did.
        let whole = objective.train(&Plan { masks: None, ..plan }).unwrap();
        assert_eq!(whole.parameters[4], dense[4]);
    }
    let fixed =
        Case::new(3, &[6], 1, config(adam())).behind(Embedding::Projection { rows: 5, trained: false });
    with(&fixed, Kind::Float, "w1", |objective, _| {
        assert_eq!(objective.parameters().len(), 4);
        let pair = objective.features().unwrap();
        assert_eq!((pair.projection, pair.embedding.as_ref().unwrap().size()), (None, vec![3, 5, 8]));
    });
    let start = Stack::from_weights(&fixed.weights, Kind::Float, Device::Cpu).unwrap();
    let objective = StackObjective::new(&start, fixed.problem(), Choice::Auto, "w1", &progress).unwrap();
    assert!(objective.with_held_projection().is_err());
    let plain = Case::new(3, &[6], 1, config(adam()));
    assert!(StackObjective::new(&start, plain.problem(), Choice::Auto, "w1", &progress).is_err());
}
