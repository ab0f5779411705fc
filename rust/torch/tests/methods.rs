//! What ticket methods promise on stacks of networks.

mod common;

use common::*;
use precode_core::Masks;
use precode_core::Progress;
use precode_core::ticket::mask::{Density, Granularity, Scope};
use precode_core::train::TrainConfig;
use precode_torch::methods::{
    Batch, Control, Found, Method, Moment, Objective, Record, Request, StackObjective, Start, all,
};
use precode_torch::{Choice, Engine, Fused, Stack};
use tch::{Device, Kind, Tensor};

const DENSITIES: [f64; 6] = [0.3, 1.0, 0.64, 0.9, 0.5, 0.0];

/// Six networks of 8 - 6 - 1 that train for 6 epochs.
fn case() -> Case {
    Case::new(6, &[6], 1, TrainConfig { epochs: 6, ..config(adam()) })
}

/// What a search is asked for in these tests.
struct Ask<'a> {
    prunable: &'a str,
    densities: Vec<f64>,
    granularity: Granularity,
    scope: Scope,
    streams: Vec<u64>,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        // The last density keeps a single weight of w1.
        let densities = DENSITIES.map(|d| if d == 0.0 { 1.0 / 48.0 } else { d }).to_vec();
        let (granularity, scope) = (Granularity::Weight, Scope::Global);
        Self { prunable: "w1", densities, granularity, scope, streams: (0..6).collect() }
    }
}

impl Ask<'_> {
    fn try_find(&self, case: &Case, method: &str) -> Result<Found, String> {
        let densities: Vec<Density> = self.densities.iter().map(|&d| Density::new(d).unwrap()).collect();
        with(case, Kind::Float, self.prunable, |objective, progress| {
            let request = Request {
                granularity: self.granularity,
                scope: self.scope,
                seed: 3,
                ..Request::new(&densities, &self.streams, progress)
            };
            let method: Method = method.parse().unwrap();
            method.find(objective, &request).map_err(|error| error.to_string())
        })
    }

    fn find(&self, case: &Case, method: &str) -> Found {
        self.try_find(case, method).unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}

/// Methods for any data: neither told the clauses, nor in need of data that tell them, which random labels do not.
fn of_any_data() -> impl Iterator<Item = &'static Record> {
    all().iter().filter(|record| !record.needs.clauses && !record.needs.clauses_in_data)
}

fn names() -> Vec<&'static str> {
    of_any_data().map(|record| record.name).collect()
}

/// (R): entries kept in all tensors.
fn kept(masks: &[Tensor]) -> Vec<i64> {
    let networks = masks[0].size()[0];
    let count = |r: i64| masks.iter().map(|mask| mask.get(r).sum(Kind::Int64).int64_value(&[])).sum();
    (0..networks).map(count).collect()
}

#[test]
fn every_method_and_control_keeps_exactly_what_is_asked() {
    let case = case();
    for prunable in ["w1", "all"] {
        let total = if prunable == "all" { 54.0 } else { 48.0 };
        let ask = Ask { prunable, ..Ask::default() };
        for name in names() {
            // None of these is told the clauses.
            let controls = Control::ALL.iter().filter(|&&control| control != Control::WrongClauses);
            for control in [None].into_iter().chain(controls.copied().map(Some)) {
                let method = control.map_or(name.to_owned(), |control| format!("{name}:{}", control.name()));
                let found = ask.find(&case, &method);
                assert_eq!(found.masks.len(), ask.densities.len());
                assert_eq!(found.cost.len(), ask.densities.len());
                for (masks, density) in found.masks.iter().zip(&ask.densities) {
                    let k = (density * total).round_ties_even() as i64;
                    assert_eq!(kept(masks), [k; 6], "{method} at {density}");
                    assert_eq!(masks[0].size(), [6, 6, 8]);
                    assert_eq!(masks[0].kind(), Kind::Bool);
                }
                for (name, values) in &found.notes {
                    assert!(values.iter().all(|values| values.len() == 6), "{name}");
                }
            }
        }
    }
}

#[test]
fn nested_methods_are_nested() {
    let case = case();
    for (granularity, scope) in [
        (Granularity::Weight, Scope::Global),
        (Granularity::Weight, Scope::PerLayer),
        (Granularity::Row, Scope::Global),
    ] {
        let densities = vec![1.0, 0.8, 0.7, 0.64, 0.5, 0.3, 0.2];
        let ask = Ask { prunable: "all", densities, granularity, scope, ..Ask::default() };
        for record in of_any_data().filter(|record| record.nested) {
            let found = ask.find(&case, record.name);
            for pair in found.masks.windows(2) {
                for (larger, smaller) in pair[0].iter().zip(&pair[1]) {
                    let outside = smaller.logical_and(&larger.logical_not()).any();
                    assert_eq!(outside.int64_value(&[]), 0, "{} {granularity:?} {scope:?}", record.name);
                }
            }
        }
    }
}

#[test]
fn a_ticket_does_not_depend_on_what_else_is_asked() {
    let case = case();
    let together = Ask::default();
    for name in names() {
        for method in [name.to_owned(), format!("{name}:shuffle-layer")] {
            let all = together.find(&case, &method);
            for i in [0, 2, 5] {
                let alone = Ask { densities: vec![together.densities[i]], ..Ask::default() };
                let found = alone.find(&case, &method);
                assert_eq!(found.masks[0][0], all.masks[i][0], "{method}");
                assert_eq!(found.cost[0], all.cost[i], "{method}");
            }
            assert_eq!(together.find(&case, &method).masks, all.masks, "{method} is not reproducible");
        }
    }
}

#[test]
fn networks_of_a_stack_get_the_tickets_they_get_alone() {
    let case = case();
    for name in names() {
        for method in [name.to_owned(), format!("{name}:shuffle-row"), format!("{name}:reinit")] {
            let together = Ask::default().find(&case, &method);
            let alone = Ask { streams: vec![4], ..Ask::default() }.find(&case.alone(4), &method);
            for i in 0..DENSITIES.len() {
                assert_eq!(alone.masks[i][0].get(0), together.masks[i][0].get(4), "{method}");
                if let (
                    Start::Other { parameters: alone, epoch },
                    Start::Other { parameters: all, epoch: other },
                ) = (&alone.start, &together.start)
                {
                    assert_eq!(epoch, other);
                    for (alone, all) in alone[i].iter().zip(&all[i]) {
                        assert_eq!(alone.get(0), all.get(4), "{method}");
                    }
                }
            }
        }
    }
}

/// Iterative magnitude pruning of one network written plainly: its masks at each density.
fn plain_imp(case: &Case, r: usize, densities: &[f64]) -> Vec<Vec<bool>> {
    let one = case.alone(r);
    let start = Stack::from_weights(&one.weights, Kind::Float, Device::Cpu).unwrap();
    let train = |mask: &[bool]| -> Vec<f32> {
        let masks = Masks { layers: vec![Some(mask.to_vec()), None] };
        let mut problem = one.problem();
        problem.masks = Some(&masks);
        let trained = Fused::default().train(&start, &problem, &Progress::default()).unwrap();
        trained.weights.to_weights().unwrap().layers[0].weight.clone()
    };
    let cut = |alive: &[bool], weights: &[f32], keep: usize| -> Vec<bool> {
        let mut order: Vec<usize> = (0..alive.len()).filter(|&i| alive[i]).collect();
        order.sort_by(|&a, &b| weights[b].abs().total_cmp(&weights[a].abs()));
        let mut mask = vec![false; alive.len()];
        order[..keep].iter().for_each(|&i| mask[i] = true);
        mask
    };
    let count = |density: f64| (density * 48.0).round_ties_even() as usize;
    let mut masks = Vec::new();
    for &density in densities {
        let (mut alive, mut level) = (vec![true; 48], 1.0);
        let mut weights = train(&alive);
        while level * 0.8 > density + 1e-9 {
            level *= 0.8;
            alive = cut(&alive, &weights, count(level));
            weights = train(&alive);
        }
        masks.push(cut(&alive, &weights, count(density)));
    }
    masks
}

#[test]
fn imp_equals_a_plain_loop_over_networks_and_levels() {
    let case = case();
    let densities = vec![0.64, 0.3, 0.9, 0.05];
    let found = Ask { densities: densities.clone(), ..Ask::default() }.find(&case, "imp");
    for r in 0..6 {
        for (masks, plain) in found.masks.iter().zip(plain_imp(&case, r, &densities)) {
            let ours = masks[0].get(r as i64).flatten(0, -1);
            assert_eq!(ours, Tensor::from_slice(&plain), "network {r}");
        }
    }
    assert!(matches!(found.start, Start::Initial));
    let epochs: Vec<Vec<f64>> = found.cost.iter().map(|cost| cost.epochs.clone()).collect();
    assert_eq!(epochs, [12.0, 36.0, 6.0, 84.0].map(|epochs| vec![epochs; 6]));
}

#[test]
fn tickets_start_where_their_method_says() {
    let mut case = case();
    case.config.snapshots = vec![7];
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let dense = Fused::default().train(&start, &case.problem(), &Progress::default()).unwrap();
    case.config.snapshots = vec![];
    let ask = Ask { densities: vec![0.9, 0.5], ..Ask::default() };
    let expect = |method: &str, expected: &Stack, at: u32| {
        let Start::Other { parameters, epoch } = ask.find(&case, method).start else {
            panic!("{method} starts at theta_0")
        };
        assert_eq!(epoch, at, "{method}");
        let [w1, b1, w2, b2] = parameters[0].as_slice() else { panic!("four parameters") };
        let stack = Stack {
            layers: vec![(w1.shallow_clone(), b1.shallow_clone()), (w2.shallow_clone(), b2.shallow_clone())],
            projection: None,
        };
        assert_same_bits(&stack, expected);
        // At 0.5 a chain that keeps trained values has gone on.
        assert_eq!(parameters[0][0] == parameters[1][0], method == "imp-rewind", "{method}");
    };
    expect("imp-rewind", &dense.snapshots[0], 1);
    expect("imp-lr-rewind", &dense.weights, 0);
    expect("imp-finetune", &dense.weights, 5);
}

#[test]
fn early_bird_stops_when_masks_agree() {
    let mut case = case();
    case.config.epochs = 12;
    case.config.snapshots = (1..=12).map(|epoch| 7 * epoch).collect();
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let dense = Fused::default().train(&start, &case.problem(), &Progress::default()).unwrap();
    case.config.snapshots = vec![];
    let ask = Ask { densities: vec![0.5], ..Ask::default() };
    for (method, threshold) in [("early-bird", 0.1), ("early-bird-normalized", 0.05)] {
        let found = ask.find(&case, method);
        let (name, at) = &found.notes[0];
        assert_eq!(name, "found_at_epoch");
        for (r, &at) in at[0].iter().enumerate() {
            let masks: Vec<Vec<bool>> = dense
                .snapshots
                .iter()
                .map(|stack| {
                    let weights = stack.to_weights().unwrap().network(r).layers[0].weight.clone();
                    let mut sorted: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
                    sorted.sort_by(f32::total_cmp);
                    weights.iter().map(|w| w.abs() >= sorted[24]).collect()
                })
                .collect();
            let apart = |a: usize, b: usize| {
                masks[a].iter().zip(&masks[b]).filter(|(a, b)| a != b).count() as f64 / 48.0
            };
            let first = (4..12).find(|&t| (t - 4..t).all(|other| apart(t, other) <= threshold));
            let epoch = first.unwrap_or(11);
            assert_eq!(at, (epoch + 1) as f64, "{method}, network {r}");
            let ours = found.masks[0][0].get(r as i64).flatten(0, -1);
            assert_eq!(ours, Tensor::from_slice(&masks[epoch]));
        }
        if method == "early-bird" {
            assert!(at[0].iter().any(|&epoch| epoch < 12.0), "the case should agree somewhere: {at:?}");
        }
        assert_eq!(found.cost[0].epochs, at[0], "what each network would cost alone");
    }
}

#[test]
fn controls_change_what_they_are_to_change() {
    let case = case();
    let ask = Ask { prunable: "all", densities: vec![0.4, 0.2], ..Ask::default() };
    for name in names() {
        let plain = ask.find(&case, name);
        let of = |control: Control| ask.find(&case, &format!("{name}:{}", control.name()));
        let sums = |mask: &Tensor, axis: i64| mask.sum_dim_intlist(axis, false, Kind::Int64);
        for control in [Control::ShuffleLayer, Control::ShuffleRow, Control::ShuffleColumn] {
            let shuffled = of(control);
            let (note, changed) = shuffled.notes.last().unwrap();
            assert_eq!(note, "mask_entries_changed");
            for (d, (before, after)) in plain.masks.iter().zip(&shuffled.masks).enumerate() {
                // A single network's rows may be full or empty, so that there is nothing to shuffle.
                assert_ne!(before[0], after[0], "{name}:{} changes nothing", control.name());
                for r in 0..6 {
                    let differing: i64 = (0..2)
                        .map(|i| {
                            before[i].get(r).logical_xor(&after[i].get(r)).sum(Kind::Int64).int64_value(&[])
                        })
                        .sum();
                    assert_eq!(changed[d][r as usize], differing as f64 / 54.0);
                }
                for (before, after) in before.iter().zip(after) {
                    let axis = match control {
                        Control::ShuffleRow => 2,
                        Control::ShuffleColumn => 1,
                        _ => continue,
                    };
                    assert_eq!(sums(before, axis), sums(after, axis));
                }
                let layer = |masks: &[Tensor]| {
                    masks.iter().map(|mask| kept(&[mask.shallow_clone()])).collect::<Vec<_>>()
                };
                assert_eq!(layer(before), layer(after));
            }
        }
        let redrawn = of(Control::Reinit);
        assert_eq!(redrawn.masks, plain.masks);
        let Start::Other { parameters, epoch: 0 } = redrawn.start else {
            panic!("{name}:reinit keeps theta_0")
        };
        with(&case, Kind::Float, "all", |objective, _| {
            for (i, value) in initial(objective).iter().enumerate() {
                let (before, after) = (value.view([6, -1]), parameters[0][i].view([6, -1]));
                assert_eq!(before == after, i % 2 == 1, "biases are kept, weights permuted");
                assert_eq!(before.sort(1, false).0, after.sort(1, false).0);
            }
        });
        assert_ne!(of(Control::Invert).masks[0], plain.masks[0]);
    }
}

#[test]
fn what_cannot_be_found_is_refused() {
    let case = case();
    let refuse = |ask: Ask, method: &str| ask.try_find(&case, method).unwrap_err();
    let message = refuse(Ask { densities: vec![0.01], ..Ask::default() }, "imp");
    assert!(message.contains("density = 0.01 keeps none of 48"), "{message}");
    assert!(refuse(Ask { densities: vec![], ..Ask::default() }, "snip").contains("no densities"));
    assert!(refuse(Ask { streams: vec![1], ..Ask::default() }, "snip").contains("1 random streams for 6"));
    let rows = Ask { granularity: Granularity::Row, densities: vec![0.5], ..Ask::default() };
    assert!(refuse(rows, "magnitude:shuffle-row").contains("changes nothing"));

    let parse = |name: &str| name.parse::<Method>().unwrap_err().to_string();
    assert!(parse("slim").contains("'slim' is unknown: use one of random, "));
    assert!(parse("imp:shake").contains("'shake' is unknown: use one of shuffle-layer, "));

    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let progress = Progress::default();
    let new = |problem, prunable| StackObjective::new(&start, problem, Choice::Auto, prunable, &progress);
    let message = new(case.problem(), "w3").err().unwrap().to_string();
    assert!(message.contains("some of w1, w2"), "{message}");
    let mut masked = Case::new(6, &[6], 1, config(adam()));
    masked.mask_randomly();
    assert!(new(masked.problem(), "w1").err().unwrap().to_string().contains("leave the masks out"));

    let mut diverged = start.copy_to(Kind::Float, Device::Cpu).unwrap();
    let _ = diverged.layers[0].0.get(2).fill_(f64::NAN);
    diverged.layers[0].1 = diverged.layers[0].1.copy();
    let mut objective = new(case.problem(), "w1").unwrap().with_dense(&diverged, &[6.0; 6]).unwrap();
    let densities = [Density::new(0.5).unwrap()];
    let request = Request::new(&densities, &[0, 1, 2, 3, 4, 5], &progress);
    for method in ["magnitude", "imp"] {
        let message =
            method.parse::<Method>().unwrap().find(&mut objective, &request).unwrap_err().to_string();
        assert!(message.contains("network 2") && message.contains("NaN"), "{message}");
    }
    let at: Vec<Tensor> = objective.dense().unwrap();
    let message = objective.gradient(&at, Batch::Scoring).unwrap_err().to_string();
    assert!(message.contains("network 2: the gradient with respect to w1 is not finite"), "{message}");
    assert!(objective.curvature(&at[..2], 1.0).unwrap_err().to_string().contains("2 tensors for 4"));
    progress.cancel();
    let found = "imp".parse::<Method>().unwrap().find(&mut objective, &request);
    assert_eq!(found.unwrap_err().to_string(), "interrupted");
}

#[test]
fn searching_leaves_everything_as_it_was() {
    let case = case();
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let leaf = start.layers[0].0.set_requires_grad(true);
    let progress = Progress::default();
    let mut objective = StackObjective::new(&start, case.problem(), Choice::Auto, "all", &progress).unwrap();
    let densities = [Density::new(0.5).unwrap()];
    let streams: Vec<u64> = (0..6).collect();
    let request = Request::new(&densities, &streams, &progress);
    for name in names() {
        let method: Method = format!("{name}:reinit").parse().unwrap();
        method.find(&mut objective, &request).unwrap();
        assert!((&leaf * 2.0).requires_grad(), "{name} left grad mode off");
        assert_eq!(start.to_weights().unwrap(), case.weights, "{name}");
        assert_eq!(objective.parameters()[0].initial, start.layers[0].0.detach(), "{name}");
    }
    assert!(!leaf.grad().defined());
}

/// What a method finds of the case with some networks handed in.
fn found_at(case: &Case, method: &str, at: Option<u32>, rewind: u32) -> Result<(Found, u64), String> {
    let densities = [0.5, 0.2].map(|density| Density::new(density).unwrap());
    let streams: Vec<u64> = (0..6).collect();
    with(case, Kind::Float, "w1", |objective, progress| {
        let request = Request { at, rewind, seed: 3, ..Request::new(&densities, &streams, progress) };
        let method: Method = method.parse().unwrap();
        let found = method.find(objective, &request).map_err(|error| error.to_string())?;
        Ok((found, progress.done()))
    })
}

#[test]
fn methods_read_the_epoch_that_they_are_told() {
    let case = case();
    for record in of_any_data() {
        let of = |at: Option<u32>| found_at(&case, record.name, at, 0).unwrap().0;
        if !record.reads.is_early() {
            assert_eq!(of(Some(2)).masks, of(None).masks, "{} passes it over", record.name);
            continue;
        }
        // These two have two moments of their own: one for the clauses, one for the rows.
        let two = ["distance-blind", "motion-blind"].contains(&record.name);
        if let (Moment::After(usual), false) = (record.reads, two) {
            assert_eq!(of(Some(usual)).masks, of(None).masks, "{}", record.name);
        }
        for at in [0, 1, 4, 6] {
            let found = of(Some(at));
            for (masks, k) in found.masks.iter().zip([24, 10]) {
                assert_eq!(kept(masks), [k; 6], "{} at {at}", record.name);
            }
            let dearest = found.cost.iter().flat_map(|cost| &cost.epochs).fold(0.0, |a: f64, &b| a.max(b));
            let least = if record.reads == Moment::Until { dearest } else { f64::from(at) };
            assert!((least..=f64::from(at)).contains(&dearest), "{} at {at}: {dearest}", record.name);
            assert!(matches!(found.start, Start::Initial), "{} at {at}", record.name);
        }
        let message = found_at(&case, record.name, Some(7), 0).unwrap_err();
        assert!(message.contains("at = 7: the dense run has 6 epochs"), "{message}");
    }
    // The checkpoint of the last epoch is that of the trained network, and the first is the start.
    let masks = |method: &str, at| found_at(&case, method, at, 0).unwrap().0.masks;
    assert_eq!(masks("checkpoint-magnitude", Some(6)), masks("magnitude", None));
    assert_eq!(masks("checkpoint-magnitude", Some(0)), masks("magnitude-init", None));
    assert_ne!(masks("snip", Some(4)), masks("snip", None));
    assert_ne!(masks("synflow", Some(4)), masks("synflow", None));
}

#[test]
fn tickets_of_trained_networks_rewind() {
    let mut case = case();
    case.config.snapshots = vec![14];
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let dense = Fused::default().train(&start, &case.problem(), &Progress::default()).unwrap();
    case.config.snapshots = vec![];
    for record in all() {
        if !record.rewinds {
            if !record.needs.clauses {
                let message = found_at(&case, record.name, None, 2).unwrap_err();
                assert!(message.contains("does not rewind") && message.contains("obs"), "{message}");
            }
            continue;
        }
        let (found, steps) = found_at(&case, record.name, None, 2).unwrap();
        let Start::Other { parameters, epoch: 2 } = found.start else { panic!("{}", record.name) };
        for values in &parameters {
            assert_eq!(values[0], dense.snapshots[0].layers[0].0, "{}", record.name);
            assert_eq!(values[3], dense.snapshots[0].layers[1].1, "{}", record.name);
        }
        if record.schedule.starts_with("one shot") {
            assert_eq!(found.masks, found_at(&case, record.name, None, 0).unwrap().0.masks);
            assert_eq!(steps, 6 * 42, "{}: one run has both", record.name);
        }
        let message = found_at(&case, record.name, None, 6).unwrap_err();
        assert!(message.contains("rewind = 6: the dense run has 6 epochs"), "{message}");
        let message = found_at(&case, &format!("{}:reinit", record.name), None, 2).unwrap_err();
        assert!(message.contains("leave rewind out"), "{message}");
    }
    // Rounds rewind too: each has the rest of the epochs.
    let (found, _) = found_at(&case, "imp", None, 2).unwrap();
    assert_eq!(found.cost[0].epochs, [6.0 + 3.0 * 4.0; 6]);
    let (one, _) = found_at(&case, "imp", None, 1).unwrap();
    assert_eq!(one.masks, found_at(&case, "imp-rewind", None, 0).unwrap().0.masks);
}

#[test]
fn networks_that_were_handed_in_are_not_trained_again() {
    let mut case = case();
    case.config.snapshots = vec![7, 14];
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let dense = Fused::default().train(&start, &case.problem(), &Progress::default()).unwrap();
    case.config.snapshots = vec![];
    let progress = Progress::default();
    let given: Vec<(u64, Stack)> = [7, 14].into_iter().zip(dense.snapshots).collect();
    let new = || StackObjective::new(&start, case.problem(), Choice::Auto, "w1", &progress).unwrap();
    let mut objective = new().with_snapshots(&given).unwrap();
    for steps in [vec![7], vec![14], vec![7, 14], vec![14]] {
        let values = objective.dense_at(&steps).unwrap();
        for (values, step) in values.iter().zip(&steps) {
            let expected = &given.iter().find(|(known, _)| known == step).unwrap().1;
            assert_eq!(values[0], expected.layers[0].0);
        }
    }
    assert_eq!(progress.done(), 0);
    let other = Case::new(5, &[6], 1, case.config.clone());
    let other = Stack::from_weights(&other.weights, Kind::Float, Device::Cpu).unwrap();
    assert!(new().with_snapshots(&[(7, other)]).err().unwrap().to_string().contains("5 dense networks"));
}
