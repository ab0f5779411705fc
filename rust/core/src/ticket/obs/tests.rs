use nalgebra::{DMatrix, DVector};
use proptest::prelude::*;

use super::*;

/// A Hessian of `size` weights: the second moment of `samples` inputs, damped.
fn hessian(size: usize, samples: usize, entries: &[f64]) -> DMatrix<f64> {
    let inputs =
        DMatrix::from_fn(samples, size, |i, j| entries[(i * size + j) % entries.len()] + f64::from(i == j));
    let moment = inputs.tr_mul(&inputs) / samples as f64;
    let mean = moment.trace() / size as f64;
    moment + DMatrix::identity(size, size) * (DAMPING * mean)
}

fn flat(matrix: &DMatrix<f64>) -> Vec<f64> {
    matrix.transpose().as_slice().to_vec()
}

/// The least `d' H d` with the weights of `gone` at zero and all others free, and the weights there: by a linear
/// system of its own, from the definition.
fn least(weights: &DVector<f64>, hessian: &DMatrix<f64>, gone: &[usize]) -> (f64, DVector<f64>) {
    let free: Vec<usize> = (0..weights.len()).filter(|i| !gone.contains(i)).collect();
    let mut change = DVector::zeros(weights.len());
    gone.iter().for_each(|&i| change[i] = -weights[i]);
    // The gradient at the free weights vanishes: H_ff d_f = -H_fg d_g.
    let pull = -(hessian * &change);
    let matrix = DMatrix::from_fn(free.len(), free.len(), |i, j| hessian[(free[i], free[j])]);
    let right = DVector::from_fn(free.len(), |i, _| pull[free[i]]);
    let solved = if free.is_empty() { right } else { matrix.lu().solve(&right).unwrap() };
    free.iter().zip(solved.iter()).for_each(|(&i, &d)| change[i] = d);
    ((hessian * &change).dot(&change), weights + &change)
}

proptest! {
    #![proptest_config(crate::examples(64))]
    #[test]
    fn every_removal_is_the_cheapest_of_all_by_least_squares(
        size in 2usize..8, samples in 3usize..20, entries in prop::collection::vec(-1.0..1.0f64, 30..60),
        weights in prop::collection::vec(-2.0..2.0f64, 8), dead in 0usize..3,
    ) {
        let hessian = hessian(size, samples, &entries);
        let weights = DVector::from_iterator(size, weights.into_iter().take(size));
        let alive: Vec<bool> = (0..size).map(|i| i >= dead.min(size - 1)).collect();
        let mut gone: Vec<usize> = (0..size).filter(|&i| !alive[i]).collect();
        // Dead weights count as zero from the start.
        let start = DVector::from_fn(size, |i, _| if alive[i] { weights[i] } else { 0.0 });
        let inverse = damped_inverse(&flat(&hessian), size, 0.0).unwrap();
        let row = removal(weights.as_slice(), Some(&alive), &inverse, &Progress::default()).unwrap();
        prop_assert_eq!(row.order.len(), size - gone.len());
        let (mut total, mut sum) = (0.0, 0.0);
        for (&weight, &loss) in row.order.iter().zip(&row.losses) {
            let cost = |i: usize| least(&start, &hessian, &[&gone[..], &[i]].concat()).0 - total;
            let best = (0..size).filter(|i| !gone.contains(i)).map(cost).fold(f64::INFINITY, f64::min);
            let taken = cost(weight);
            let scale = hessian.trace();
            prop_assert!((taken - loss).abs() < 1e-9 * scale, "{} for {}", loss, taken);
            prop_assert!(taken <= best + 1e-9 * scale, "{} where {} is to be had", taken, best);
            total += taken;
            sum += loss;
            gone.push(weight);
        }
        // Without weights, what is lost is w' H w.
        let all = (&hessian * &start).dot(&start);
        prop_assert!((sum - all).abs() < 1e-9 * all.max(1.0));
    }

    #[test]
    fn ranks_are_a_plain_search_for_the_cheapest_removal(
        rows in 1usize..4, size in 1usize..6, entries in prop::collection::vec(-1.0..1.0f64, 40),
        weights in prop::collection::vec(-2.0..2.0f64, 24),
    ) {
        let hessian = hessian(size, 9, &entries);
        let weights = &weights[..rows * size];
        let layer = Layer { weights, alive: None, hessians: &flat(&hessian), inputs: size };
        let ranks = ranks(&[layer], 0.0, &Progress::default()).unwrap().remove(0);
        let start = |row: usize| DVector::from_row_slice(&weights[row * size..][..size]);
        let mut gone = vec![Vec::new(); rows];
        for rank in 0..rows * size {
            let place = ranks.iter().position(|&other| other == rank as f64).unwrap();
            let cost = |place: usize| {
                let (row, weight): (usize, usize) = (place / size, place % size);
                let after = least(&start(row), &hessian, &[&gone[row][..], &[weight]].concat()).0;
                after - least(&start(row), &hessian, &gone[row]).0
            };
            let left = (0..rows * size).filter(|&place| !gone[place / size].contains(&(place % size)));
            let best = left.map(cost).fold(f64::INFINITY, f64::min);
            prop_assert!(cost(place) <= best + 1e-9 * hessian.trace());
            gone[place / size].push(place % size);
        }
    }
}

#[test]
fn equal_costs_keep_the_first_weights() {
    let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let layer =
        Layer { weights: &[1.0, -1.0, 1.0, 1.0, 0.0, 0.0], alive: None, hessians: &identity, inputs: 3 };
    let ranks = ranks(&[layer], 0.0, &Progress::default()).unwrap();
    assert_eq!(ranks, [[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]]);
}

#[test]
fn groups_of_rows_have_hessians_of_their_own() {
    let hessians = [1.0, 0.0, 0.0, 1.0, 4.0, 0.0, 0.0, 4.0];
    let layer = Layer { weights: &[3.0, 5.0, 2.0, 1.0], alive: None, hessians: &hessians, inputs: 2 };
    // Costs 9, 25 and 16, 4.
    assert_eq!(ranks(&[layer], 0.0, &Progress::default()).unwrap(), [[1.0, 3.0, 2.0, 0.0]]);
    let dead = Layer { alive: Some(&[true, true, false, true]), ..layer };
    assert_eq!(ranks(&[dead], 0.0, &Progress::default()).unwrap(), [[1.0, 2.0, 0.0, 0.0]]);
}

#[test]
fn what_cannot_be_inverted_is_refused() {
    let refuse =
        |hessian: &[f64], size, damping| damped_inverse(hessian, size, damping).unwrap_err().to_string();
    assert!(refuse(&[0.0; 4], 2, DAMPING).contains("the Hessian is zero"));
    assert!(refuse(&[1.0, 1.0, 1.0, 1.0], 2, 0.0).contains("singular with damping = 0"));
    assert!(refuse(&[1.0, f64::NAN, 0.0, 1.0], 2, DAMPING).contains("contains NaN"));
    assert!(refuse(&[1.0; 3], 2, DAMPING).contains("3 entries for 2"));
    assert!(refuse(&[1.0], 1, -1.0).contains("damping = -1"));
    assert!(refuse(&vec![0.0; 4097 * 4097], 4097, DAMPING).contains("at most 4096"));
    // A singular Hessian is regular once it is damped.
    assert!(damped_inverse(&[1.0, 1.0, 1.0, 1.0], 2, DAMPING).is_ok());

    let layer = Layer { weights: &[f64::NAN, 1.0], alive: None, hessians: &[1.0, 0.0, 0.0, 1.0], inputs: 2 };
    let message = ranks(&[layer], DAMPING, &Progress::default()).unwrap_err().to_string();
    assert!(message.contains("prunable tensor 0: a weight is NaN"), "{message}");
    assert!(ranks(&[Layer { inputs: 3, ..layer }], DAMPING, &Progress::default()).is_err());
    let cancelled = Progress::default();
    cancelled.cancel();
    let whole = Layer { weights: &[2.0, 1.0], ..layer };
    assert_eq!(ranks(&[whole], DAMPING, &cancelled).unwrap_err().to_string(), "interrupted");
}

proptest! {
    #![proptest_config(crate::examples(64))]
    #[test]
    fn what_stays_makes_up_for_the_candidates_that_left(
        size in 2usize..8, samples in 3usize..20, entries in prop::collection::vec(-1.0..1.0f64, 30..60),
        weights in prop::collection::vec(-2.0..2.0f64, 8), others in 0usize..3, count in 0usize..6,
    ) {
        let hessian = hessian(size, samples, &entries);
        let candidates = size - others.min(size - 1);
        let count = count.min(candidates);
        let weights = DVector::from_column_slice(&weights[..size]);
        let inverse = hessian.clone().try_inverse().unwrap();
        let removal =
            removal_among(weights.as_slice(), candidates, candidates, &flat(&inverse), &Progress::default()).unwrap();
        let mut order = removal.order.clone();
        order.sort_unstable();
        prop_assert_eq!(order, (0..candidates).collect::<Vec<_>>());
        let gone = &removal.order[..count];
        let moved = without(weights.as_slice(), gone, &flat(&inverse)).unwrap();
        // The weights are where the loss of their removal is least.
        let (loss, expected) = least(&weights, &hessian, gone);
        prop_assert!(moved.iter().zip(expected.iter()).all(|(a, b)| (a - b).abs() < 1e-6));
        let first =
            removal_among(weights.as_slice(), candidates, count, &flat(&inverse), &Progress::default()).unwrap();
        prop_assert_eq!(&first.order[..], gone);
        prop_assert!((loss - removal.losses[..count].iter().sum::<f64>()).abs() < 1e-6);
        if count == 1 {
            let of = |i: usize| least(&weights, &hessian, &[i]).0;
            prop_assert!(loss <= (0..candidates).map(of).fold(f64::INFINITY, f64::min) + 1e-9);
        }
    }
}

#[test]
fn what_cannot_leave_is_refused() {
    let progress = Progress::default();
    let inverse = [1.0, 0.0, 0.0, 1.0];
    assert!(removal_among(&[1.0, 2.0], 3, 1, &inverse, &progress).is_err());
    assert!(removal_among(&[1.0, 2.0], 1, 2, &inverse, &progress).is_err());
    assert!(removal_among(&[1.0, f64::NAN], 1, 1, &inverse, &progress).is_err());
    for gone in [&[2][..], &[1, 1]] {
        assert!(without(&[1.0, 2.0], gone, &inverse).is_err());
    }
    assert!(without(&[1.0], &[0], &[1.0, 0.0]).is_err());
}
