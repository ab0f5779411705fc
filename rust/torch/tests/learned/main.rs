//! The methods that learn a mask: what they find, and what they promise.
#![allow(missing_docs)]

mod autograd;
mod regressions;

use precode_core::Progress;
use precode_core::ticket::mask::{Density, Granularity, Scope};
use precode_torch::Error;
use regressions::{Ask, LEARNED, PRUNABLE, Regressions, bits, joined, numbers, record};
use tch::Kind;

#[test]
fn masks_are_near_the_best_of_all() {
    tch::set_num_threads(1);
    let streams: Vec<u64> = (0..12).collect();
    for record in LEARNED.map(record) {
        let mut objective = Regressions::new(&streams, Kind::Float);
        let found = Ask::new(&[0.3, 0.5], &streams).find(record, &mut objective).unwrap();
        // Where weights are learned with the mask, it is one for trained weights.
        let trained = record.name == "continuous-sparsification";
        for (mask, kept) in found.masks.iter().zip([3, 5]) {
            let ours = objective.compare(mask, kept, trained);
            let mean = |of: fn(&(f64, f64)) -> f64| ours.iter().map(of).sum::<f64>() / ours.len() as f64;
            let (better, excess) = (mean(|ours| ours.0), mean(|ours| ours.1));
            assert!(better < 0.1 && excess < 0.2, "{} keeps {kept}: {better}, {excess}", record.name);
        }
    }
}

#[test]
fn gem_miner_lives_on_where_no_weight_is_wanted() {
    tch::set_num_threads(1);
    let mut objective = Regressions::new(&[2], Kind::Float);
    let _ = objective.best.zero_();
    let found = Ask::new(&[0.5], &[2]).find(record("gem-miner"), &mut objective).unwrap();
    let note = |name: &str| found.notes.iter().find(|(of, _)| of == name).unwrap().1[0][0];
    assert!(note("emptied_epochs") >= 1.0, "{:?}", found.notes);
    assert!(note("density_before_unfreeze") < 0.5, "{:?}", found.notes);
    assert_eq!(bits(&joined(&found.masks[0])).iter().filter(|&&bit| bit).count(), 5);
    // The weights in effect at the start of the last epoch: never none.
    assert!(numbers(&objective.asked[580]).iter().filter(|&&weight| weight != 0.0).count() > 1);
}

#[test]
fn densities_are_exact() {
    tch::set_num_threads(1);
    let streams = [0, 1, 2];
    for record in LEARNED.map(record) {
        for scope in [Scope::Global, Scope::PerLayer] {
            for invert in [false, true] {
                let mut objective = Regressions::new(&streams, Kind::Float);
                objective.epochs = 7;
                let densities = [0.25, 0.5, 0.8, 1.0];
                let ask = Ask { scope, invert, ..Ask::new(&densities, &streams) };
                let found = ask.find(record, &mut objective).unwrap();
                assert_eq!(found.cost.len(), densities.len());
                for (mask, density) in found.masks.iter().zip(densities) {
                    assert_eq!((mask[0].size(), mask[1].size()), (vec![3, 2, 3], vec![3, 4]));
                    for network in 0..3 {
                        let kept = |i: usize| bits(&mask[i].get(network)).iter().filter(|&&bit| bit).count();
                        let of = |total: usize| Density::new(density).unwrap().of(total).unwrap();
                        match scope {
                            Scope::Global => assert_eq!(kept(0) + kept(1), of(PRUNABLE)),
                            Scope::PerLayer => assert_eq!((kept(0), kept(1)), (of(6), of(4))),
                        }
                    }
                }
                if record.nested {
                    let inside = |i: usize| found.masks[1][i].logical_and(&found.masks[0][i]);
                    assert!((0..2).all(|i| inside(i) == found.masks[0][i]));
                }
            }
        }
    }
}

#[test]
fn inverted_scores_keep_the_other_weights() {
    tch::set_num_threads(1);
    for record in LEARNED.map(record) {
        let ask = |invert| {
            let mut objective = Regressions::new(&[4], Kind::Float);
            Ask { invert, ..Ask::new(&[0.5], &[4]) }.find(record, &mut objective).unwrap()
        };
        let (best, worst) = (ask(false), ask(true));
        for (best, worst) in best.masks[0].iter().zip(&worst.masks[0]) {
            assert_eq!(bits(&best.logical_not()), bits(worst), "{}", record.name);
        }
    }
}

#[test]
fn rows_are_kept_whole() {
    tch::set_num_threads(1);
    for record in LEARNED.map(record) {
        let mut objective = Regressions::new(&[0, 1], Kind::Float);
        objective.parameters[2].prunable = false;
        let ask = Ask { granularity: Granularity::Row, ..Ask::new(&[0.5], &[0, 1]) };
        let found = ask.find(record, &mut objective).unwrap();
        for network in 0..2 {
            let mask = bits(&found.masks[0][0].get(network));
            assert!(
                mask == [true, true, true, false, false, false]
                    || mask == [false, false, false, true, true, true]
            );
        }
    }
}

#[test]
fn a_network_finds_the_same_alone_and_in_a_stack() {
    tch::set_num_threads(1);
    let streams = [5, 6, 7, 8];
    for record in LEARNED.map(record) {
        let find = |streams: &[u64]| {
            let mut objective = Regressions::new(streams, Kind::Double);
            let found = Ask::new(&[0.3, 0.6], streams).find(record, &mut objective).unwrap();
            (found, objective.asked)
        };
        let (stack, asked) = find(&streams);
        let (again, asked_again) = find(&streams);
        assert_eq!(asked, asked_again, "{}", record.name);
        for (network, &stream) in streams.iter().enumerate() {
            let (alone, _) = find(&[stream]);
            for (density, mask) in alone.masks.iter().enumerate() {
                for (i, mask) in mask.iter().enumerate() {
                    let of_stack = stack.masks[density][i].get(network as i64);
                    assert_eq!(bits(mask), bits(&of_stack), "{} network {network}", record.name);
                    assert_eq!(stack.masks[density][i], again.masks[density][i]);
                }
            }
        }
    }
}

#[test]
fn a_search_can_be_cancelled() {
    tch::set_num_threads(1);
    for record in LEARNED.map(record) {
        let progress: &'static Progress = Box::leak(Box::default());
        let mut objective = Regressions::new(&[0, 1], Kind::Float);
        objective.cancels = Some(progress);
        let error = Ask::new(&[0.5], &[0, 1]).find(record, &mut objective).unwrap_err();
        assert!(matches!(error, Error::Core(precode_core::Error::Interrupted)), "{error}");
        assert_eq!((objective.asked.len(), progress.done()), (10, 20));
    }
}

#[test]
fn what_cannot_be_learned_is_refused() {
    for record in LEARNED.map(record) {
        let refuse = |change: &dyn Fn(&mut Regressions)| {
            let mut objective = Regressions::new(&[0], Kind::Float);
            change(&mut objective);
            Ask::new(&[0.5], &[0]).find(record, &mut objective).unwrap_err().to_string()
        };
        assert!(refuse(&|objective| objective.epochs = 0).contains("0 epochs"));
        let nothing = |objective: &mut Regressions| {
            objective.parameters.iter_mut().for_each(|parameter| parameter.prunable = false);
        };
        assert!(refuse(&nothing).contains("no prunable weights"));
    }
}
