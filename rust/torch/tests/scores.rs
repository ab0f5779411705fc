//! Masks that are learned in the fused engine, against those that are learned by gradients of libtorch in float64.
#![allow(missing_docs)]

mod common;

use common::*;
use precode_core::ticket::mask::Density;
use precode_core::train::scores::{ScoreRule, ScoreStep, Scores};
use precode_core::{Embedding, Progress};
use precode_torch::methods::{Found, Method, Objective, Request, ScorePlan, StackObjective};
use precode_torch::{Choice, Stack};
use tch::{Device, Kind, Tensor};

const LEARNED: [&str; 3] = ["edge-popup", "gem-miner", "continuous-sparsification"];

fn find(case: &Case, method: &str, engine: Choice, kind: Kind) -> Found {
    let start = Stack::from_weights(&case.weights, kind, Device::Cpu).unwrap();
    let progress = Progress::default();
    let mut objective = StackObjective::new(&start, case.problem(), engine, "w1", &progress).unwrap();
    assert_eq!(objective.learns_scores(), engine != Choice::Libtorch);
    let densities = [0.2, 0.5, 0.8].map(|density| Density::new(density).unwrap());
    let streams: Vec<u64> = (0..case.weights.networks as u64).collect();
    let request = Request::new(&densities, &streams, &progress);
    method.parse::<Method>().unwrap().find(&mut objective, &request).unwrap()
}

fn agreement(ours: &[Vec<Tensor>], reference: &[Vec<Tensor>]) -> f64 {
    let same = |(ours, reference): (&Vec<Tensor>, &Vec<Tensor>)| {
        ours[0].eq_tensor(&reference[0]).to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    };
    ours.iter().zip(reference).map(same).sum::<f64>() / ours.len() as f64
}

#[test]
fn the_engine_learns_the_masks_that_gradients_learn() {
    for embedding in every_embedding() {
        for (hidden, outputs, epochs) in [(20, 1, 4), (37, 2, 2)] {
            let mut case = Case::new(8, &[hidden], outputs, config(adam())).behind(embedding.clone());
            case.config.epochs = epochs;
            for method in LEARNED {
                let ours = find(&case, method, Choice::Auto, Kind::Float);
                let reference = find(&case, method, Choice::Libtorch, Kind::Double);
                let same = agreement(&ours.masks, &reference.masks);
                assert!(same > 0.99, "{method}, {embedding:?}, {hidden} rows: {same}");
                assert_eq!(ours.notes.len(), reference.notes.len());
                for ((name, ours), (_, reference)) in ours.notes.iter().zip(&reference.notes) {
                    for (ours, reference) in ours.iter().flatten().zip(reference.iter().flatten()) {
                        assert!((ours - reference).abs() < 0.02, "{method} {name}: {ours} {reference}");
                    }
                }
            }
        }
    }
}

#[test]
fn gem_miner_counts_epochs_that_begin_empty_in_the_engine_too() {
    let mut case = Case::new(2, &[6], 1, config(adam()));
    case.config.epochs = 12;
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let progress = Progress::default();
    let mut objective = StackObjective::new(&start, case.problem(), Choice::Auto, "w1", &progress).unwrap();
    let steps = vec![ScoreStep { rate: 0.1, ..ScoreStep::default() }; 12 * 7];
    let rule = ScoreRule::Rounded { kept: 5, penalty: 1.0 };
    let plan = ScorePlan { rule, steps: &steps, first_epoch: 0, epochs: 12, masks: None };
    let mut scores = Scores::new(vec![0.4; 96], 2).unwrap();
    objective.learn_scores(&plan, &mut scores).unwrap();
    assert!(scores.emptied.iter().all(|&epochs| (1..=12).contains(&epochs)), "{:?}", scores.emptied);
    assert!(scores.values.iter().all(|score| (0.0..=1.0).contains(score)));
}

#[test]
fn networks_learn_the_same_scores_in_any_company() {
    let case = Case::new(5, &[9], 1, config(adam())).behind(Embedding::Projection { rows: 5, trained: true });
    for method in LEARNED {
        let all = find(&case, method, Choice::Auto, Kind::Float);
        let again = find(&case, method, Choice::Auto, Kind::Float);
        assert_eq!(agreement(&all.masks, &again.masks), 1.0);
        let first = find(&case.alone(0), method, Choice::Auto, Kind::Float);
        for (all, first) in all.masks.iter().zip(&first.masks) {
            assert_eq!(all[0].get(0), first[0].get(0), "{method}");
        }
    }
}

#[test]
fn scores_that_do_not_fit_are_refused() {
    let case = Case::new(2, &[6], 1, config(adam()));
    let start = Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap();
    let progress = Progress::default();
    let mut objective = StackObjective::new(&start, case.problem(), Choice::Auto, "w1", &progress).unwrap();
    let steps = vec![ScoreStep::default(); 14];
    let mut refused = |kept, steps: &[ScoreStep], values: usize| {
        let rule = ScoreRule::Largest { kept, weight_decay: 0.0 };
        let plan = ScorePlan { rule, steps, first_epoch: 0, epochs: 2, masks: None };
        let mut scores = Scores::new(vec![0.1; values], 2).unwrap();
        objective.learn_scores(&plan, &mut scores).map_err(|error| error.to_string())
    };
    assert_eq!(refused(3, &steps, 96), Ok(()));
    assert!(refused(0, &steps, 96).unwrap_err().contains("kept = 0: W1 has 48 weights"));
    assert!(refused(49, &steps, 96).unwrap_err().contains("kept = 49"));
    assert!(refused(3, &steps[1..], 96).unwrap_err().contains("13 steps of scores for 14 steps"));
    assert!(refused(3, &steps, 95).unwrap_err().contains("scores for 96 weights"));
}
