use proptest::prelude::*;

use super::*;
use crate::read::codes::of_slices;
use crate::read::template::templates;
use crate::task::formula::{Clause, Literal};

const PLAIN: Probe = Probe { penalties: Penalties::NONE, ..Probe::DISTANCE };

fn clauses(signed: &[&[i64]], networks: usize, variables: usize) -> Clauses {
    let set: Vec<Clause> =
        signed.iter().map(|clause| clause.iter().map(|&s| Literal::from_signed(s)).collect()).collect();
    Clauses::new(&[&set], networks, variables).unwrap()
}

fn cells(kept: &[bool]) -> Vec<usize> {
    (0..kept.len()).filter(|&cell| kept[cell]).collect()
}

/// Keeps cells of one network with the templates of pairs.
fn pairs(
    readout: &Readout<f64>,
    later: Option<&Readout<f64>>,
    budget: usize,
    settings: &Probe,
) -> Vec<usize> {
    let clauses = clauses(&[&[0, 1], &[1, 2]], 1, 3);
    let templates: Vec<Template> = templates(2).collect();
    let kept = choose_cells(readout, later, &clauses, &templates, budget, settings).unwrap();
    cells(&kept.into_iter().collect::<Vec<_>>())
}

#[test]
fn locations_are_chosen_by_hand() {
    // Signed sums for 2P on row 0: 3 and 0; for 1P1N on row 1: 1 and 4.
    let features = [2.0, 1.0, -1.0, 1.0, 2.0, -2.0];
    let readout = of_slices([1, 2, 3], &features, &[1.0, -1.0]);
    assert_eq!(pairs(&readout, None, 2, &PLAIN), [4, 5]);
    assert_eq!(pairs(&readout, None, 4, &PLAIN), [0, 1, 4, 5]);
    // The next location, clause 0 on row 1, costs its one new cell.
    assert_eq!(pairs(&readout, None, 5, &PLAIN), [0, 1, 3, 4, 5]);
    // With three cells it still fits, and row 0, which does not, is passed over; of one cell no location is.
    assert_eq!(pairs(&readout, None, 3, &PLAIN), [3, 4, 5]);
    assert_eq!(pairs(&readout, None, 1, &PLAIN), [0]);
    // The worst first: clause 1 on row 0.
    assert_eq!(pairs(&readout, None, 2, &Probe { invert: true, ..PLAIN }), [1, 2]);
}

#[test]
fn crowded_rows_and_covered_clauses_cost() {
    let penalties = |penalties| Probe { penalties, ..PLAIN };
    // Two positive rows: clause 0 is best on both.
    let features = [3.0, 3.0, -1.0, 2.0, 2.0, 1.0];
    let readout = of_slices([1, 2, 3], &features, &[1.0, 1.0]);
    assert_eq!(pairs(&readout, None, 4, &PLAIN), [0, 1, 3, 4]);
    let coverage = penalties(Penalties { coverage: 2.0, ..Penalties::NONE });
    assert_eq!(pairs(&readout, None, 4, &coverage), [0, 1, 4, 5]);
    // Shared cells draw clause 1 to row 0.
    let sharing = penalties(Penalties { sharing: 9.0, ..Penalties::NONE });
    assert_eq!(pairs(&readout, None, 3, &sharing), [0, 1, 2]);
    // One negative row each: clause 0 wants + on variable 1, clause 1 wants - on it only where it must.
    let features = [-3.0, 3.0, 4.0, -2.0, 1.0, -1.0];
    let readout = of_slices([1, 2, 3], &features, &[-1.0, -1.0]);
    assert_eq!(
        pairs(&readout, None, 3, &penalties(Penalties { sharing: 5.0, ..Penalties::NONE })),
        [0, 1, 2]
    );
    let conflict = Penalties { conflict: 9.0, sharing: 5.0, ..Penalties::NONE };
    assert_eq!(pairs(&readout, None, 4, &penalties(conflict)), [0, 1, 3, 4]);
    // Row 0 leans towards both clauses, row 1 towards the first alone.
    let features = [2.0, 2.0, 2.0, 1.8, 1.8, -5.0];
    let readout = of_slices([1, 2, 3], &features, &[1.0, 1.0]);
    assert_eq!(pairs(&readout, None, 2, &PLAIN), [0, 1]);
    let demand = penalties(Penalties { demand: 1.0, ..Penalties::NONE });
    assert_eq!(pairs(&readout, None, 2, &demand), [3, 4]);
}

#[test]
fn motion_prefers_what_approaches() {
    let start = of_slices([1, 2, 3], &[2.0, 2.0, 0.0, 0.1, 0.1, 0.0], &[1.0, 1.0]);
    let later = of_slices([1, 2, 3], &[1.0, 2.0, 0.0, 1.0, 1.0, 0.0], &[1.0, 1.0]);
    let of = |settings: Probe| pairs(&start, Some(&later), 2, &settings);
    assert_eq!(of(PLAIN), [0, 1]);
    assert_eq!(of(Probe { distance: 0.0, motion: 1.0, ..PLAIN }), [3, 4]);
    // With both weights 1 the score is the later distance.
    assert_eq!(of(Probe { motion: 1.0, ..PLAIN }), [0, 1]);
    // Hard motion: no sign has changed, so all locations tie and the first is chosen.
    let hard = Probe { metric: Metric::Hamming, distance: 0.0, motion: 1.0, ..PLAIN };
    assert_eq!(of(hard), [0, 1]);
}

/// A network of 6 rows and 8 variables, its clauses and a budget.
fn networks() -> impl Strategy<Value = (Vec<f64>, Vec<f64>, usize)> {
    (prop::collection::vec(-1.0..1.0f64, 48), prop::collection::vec(-1.0..1.0f64, 6), 1usize..=48)
}

fn of(features: &[f64], outputs: &[f64], budget: usize, settings: &Probe) -> Vec<bool> {
    let clauses = clauses(&[&[0, 1, 2, 3], &[2, 4, !5, 6], &[3, 5, 6, 7]], 1, 8);
    let templates: Vec<Template> = templates(4).collect();
    let readout = of_slices([1, 6, 8], features, outputs);
    let later: Vec<f64> = features.iter().map(|c| c * c * c + 0.1).collect();
    let later = of_slices([1, 6, 8], &later, outputs);
    choose_cells(&readout, Some(&later), &clauses, &templates, budget, settings)
        .unwrap()
        .into_iter()
        .collect()
}

proptest! {
    #![proptest_config(crate::examples(64))]
    #[test]
    fn the_budget_is_exact_and_rows_are_alike((features, outputs, budget) in networks(),
            order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle()) {
        for settings in [Probe::DISTANCE, Probe::MOTION, Probe::BOTH, Probe { invert: true, ..Probe::BOTH }] {
            let kept = of(&features, &outputs, budget, &settings);
            prop_assert_eq!(cells(&kept).len(), budget);
            // Rows in another order: the same mask in that order.
            let moved: Vec<f64> = order.iter().flat_map(|&row| features[row * 8..][..8].to_vec()).collect();
            let signs: Vec<f64> = order.iter().map(|&row| outputs[row]).collect();
            let expected: Vec<bool> = order.iter().flat_map(|&row| kept[row * 8..][..8].to_vec()).collect();
            prop_assert_eq!(of(&moved, &signs, budget, &settings), expected);
        }
    }

    #[test]
    fn without_penalties_locations_come_in_the_order_of_scores((features, outputs, budget) in networks()) {
        let plain = Probe { penalties: Penalties::NONE, ..Probe::BOTH };
        let all = clauses(&[&[0, 1, 2, 3], &[2, 4, !5, 6], &[3, 5, 6, 7]], 1, 8);
        let templates: Vec<Template> = templates(4).collect();
        let later: Vec<f64> = features.iter().map(|c| c * c * c + 0.1).collect();
        let start = of_slices([1, 6, 8], &features, &outputs);
        let latest = of_slices([1, 6, 8], &later, &outputs);
        let mut sorted = locations::locations(&start, &latest, &all, &templates, 0, &plain);
        sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
        let (mut kept, mut left) = (vec![false; 48], budget);
        // One pass does not do: what did not fit may fit once others have paid for its cells.
        loop {
            let new = |location: &locations::Location| {
                location.cells.iter().map(|c| location.row * 8 + c.variable).filter(|&c| !kept[c]).count()
            };
            let next = sorted.iter().find(|location| (1..=left).contains(&new(location)));
            let Some(location) = next else { break };
            left -= new(location);
            location.cells.iter().for_each(|c| kept[location.row * 8 + c.variable] = true);
        }
        let got = of(&features, &outputs, budget, &plain);
        prop_assert!(kept.iter().zip(&got).all(|(&expected, &got)| got || !expected));
        // What is left goes to the largest weights.
        let magnitude = |cell: usize| later[cell].abs();
        let rest: Vec<usize> = (0..48).filter(|&cell| got[cell] && !kept[cell]).collect();
        let least = rest.iter().map(|&cell| magnitude(cell)).fold(f64::INFINITY, f64::min);
        prop_assert_eq!(rest.len(), left);
        prop_assert!(rest.is_empty() || (0..48).filter(|&cell| !got[cell]).all(|cell| magnitude(cell) <= least));
    }
}

#[test]
fn networks_of_a_stack_do_not_meet() {
    let (a, b) = ([2.0, 1.0, -1.0, 1.0, 2.0, -2.0], [-1.0, 2.0, 2.0, 0.5, 1.0, -2.0]);
    let both: Vec<f64> = a.iter().chain(&b).copied().collect();
    let clauses = clauses(&[&[0, 1], &[1, 2]], 2, 3);
    let templates: Vec<Template> = templates(2).collect();
    let stack = of_slices([2, 2, 3], &both, &[1.0, -1.0, 1.0, -1.0]);
    let got = choose_cells(&stack, None, &clauses, &templates, 3, &Probe::DISTANCE).unwrap();
    for (alone, kept) in [a, b].iter().zip(got.outer_iter()) {
        let alone = of_slices([1, 2, 3], alone, &[1.0, -1.0]);
        assert_eq!(
            pairs(&alone, None, 3, &Probe::DISTANCE),
            cells(&kept.iter().copied().collect::<Vec<_>>())
        );
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let clauses = clauses(&[&[0, 1]], 1, 3);
    let pairs: Vec<Template> = templates(2).collect();
    let readout = of_slices([1, 1, 3], &[1.0f64; 3], &[1.0]);
    let wide = of_slices([1, 2, 3], &[1.0f64; 6], &[1.0; 2]);
    let refuse = |later: Option<&Readout<f64>>, templates: &[Template], budget, settings: &Probe| {
        choose_cells(&readout, later, &clauses, templates, budget, settings).unwrap_err().to_string()
    };
    assert!(refuse(None, &pairs, 4, &PLAIN).contains("budget = 4"));
    assert!(refuse(Some(&wide), &pairs, 1, &PLAIN).contains("(1, 2, 3)"));
    assert!(refuse(None, &pairs, 1, &Probe::MOTION).contains("later readout"));
    assert!(refuse(None, &pairs, 1, &Probe { distance: f64::NAN, ..PLAIN }).contains("must be finite"));
    let wide: Vec<Template> = templates(4).collect();
    assert!(refuse(None, &wide, 1, &PLAIN).contains("template 4P"));
}
