use ndarray::{Array2, Axis, array};
use proptest::prelude::*;

use super::*;
use crate::read::codes::of_slices;
use crate::task::formula::{Clause, Literal};

fn clauses(signed: &[&[i64]], variables: usize) -> Clauses {
    let set: Vec<Clause> =
        signed.iter().map(|clause| clause.iter().map(|&s| Literal::from_signed(s)).collect()).collect();
    Clauses::new(&[&set], 1, variables).unwrap()
}

fn values(rows: usize, columns: usize) -> impl Strategy<Value = Array2<f64>> {
    prop::collection::vec(-1.0..1.0f64, rows * columns)
        .prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
}

fn features(translation: &Translation, weights: &Array2<f64>) -> Array2<f64> {
    translation.features(weights.view().insert_axis(Axis(0))).unwrap().index_axis_move(Axis(0), 0)
}

/// What is left where `ranks` are at least `from`.
fn kept(weights: &Array2<f64>, ranks: &Array2<f64>, from: f64) -> Array2<f64> {
    ndarray::Zip::from(weights).and(ranks).map_collect(|&w, &rank| if rank >= from { w } else { 0.0 })
}

/// The loss of the signs of one row's locations, from its features.
fn lost(row: &[f64], scale: f64, chosen: &[Chosen], number: usize) -> f64 {
    let of_row = chosen.iter().filter(|chosen| chosen.row == number);
    of_row.flat_map(|c| &c.signs).map(|&(v, sign)| (0.3 - sign * row[v] / scale).max(0.0) / 0.3).sum()
}

/// Two rows over five variables with two clauses, of which one literal is negated.
fn chosen(x: &Array2<f64>, count: usize) -> Vec<Chosen> {
    let flat: Vec<f64> = x.iter().copied().collect();
    let readout = of_slices([1, 2, 5], &flat, &[0.5, -0.5]);
    choose_locations(&readout, &clauses(&[&[0, 1, 2], &[2, !3, 4]], 5), 0, count)
}

#[test]
fn locations_are_chosen_by_hand() {
    // Root mean square 1 in both rows.
    let x = array![[1.0, 1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, 1.0, -1.0]];
    let found = chosen(&x, 9);
    // Clause 0 on row 0 agrees with 3P; on the negative row 1, 2N1P of both clauses.
    let signs: Vec<_> = found.iter().map(|chosen| (chosen.row, chosen.signs.clone())).collect();
    assert_eq!(signs[0], (0, vec![(0, 1.0), (1, 1.0), (2, 1.0)]));
    assert_eq!(signs[1], (1, vec![(0, -1.0), (1, -1.0), (2, 1.0)]));
    assert_eq!(signs[2], (1, vec![(2, 1.0), (3, 1.0), (4, -1.0)]));
    // Clause 1 wants variable 3 negative on the positive row: (0.5 - 1 - 1) / 3, the others 0.5.
    assert_eq!(signs[3], (0, vec![(2, 1.0), (3, -1.0), (4, 1.0)]));
    assert!((found[0].weight - 1.0 / (1.0 + (-10.0f64).exp())).abs() < 1e-12, "{}", found[0].weight);
    assert_eq!((found[3].weight, chosen(&x, 1)[0].weight), (0.5, 0.5));
    // A row of zeros agrees with nothing, a row without polarity has no locations.
    let readout = of_slices([1, 2, 5], &[0.0; 10], &[0.5, 0.0]);
    let found = choose_locations(&readout, &clauses(&[&[0, 1]], 5), 0, 9);
    assert_eq!(found.iter().map(|chosen| chosen.row).collect::<Vec<_>>(), [0]);
}

proptest! {
    #![proptest_config(crate::examples(48))]
    #[test]
    fn the_target_is_the_best_direction(x in values(2, 5), matrix in values(3, 5), weights in values(2, 3), count in 1usize..5) {
        // <W C0, T> = <W, V>: V is the gradient of the agreement of the features with the signs wanted.
        let (translation, chosen) = (Translation::new(matrix.view()).unwrap(), chosen(&x, count));
        let target = translation.target(&chosen, 2).unwrap();
        let c1 = features(&translation, &weights);
        let agreement: f64 = chosen
            .iter()
            .map(|c| c.signs.iter().map(|&(v, sign)| c.weight * sign * c1[(c.row, v)]).sum::<f64>())
            .sum();
        prop_assert!((agreement - (&weights * &target).sum()).abs() < 1e-9);
        // Behind the identity it has the signs of the locations where these do not conflict.
        let (plain, wanted) = (Translation::identity(5).target(&chosen, 2).unwrap(), &chosen[0]);
        let alone = |v: usize| chosen.iter().filter(|c| c.row == wanted.row).flat_map(|c| &c.signs).filter(|s| s.0 == v).count() == 1;
        for &(v, sign) in wanted.signs.iter().filter(|(v, _)| alone(*v)) {
            prop_assert_eq!(plain[(wanted.row, v)], wanted.weight * sign);
        }
    }

    #[test]
    fn each_removal_costs_the_signs_least(x in values(2, 5), matrix in values(4, 5), weights in values(2, 4), count in 1usize..5) {
        let (translation, chosen) = (Translation::new(matrix.view()).unwrap(), chosen(&x, count));
        let ranks = translation.keep_signs(weights.view(), &chosen, &Progress::default()).unwrap();
        let mut order: Vec<usize> = (0..8).collect();
        order.sort_by(|&a, &b| ranks[(a / 4, a % 4)].total_cmp(&ranks[(b / 4, b % 4)]));
        let (whole, largest) = (features(&translation, &weights), weights.iter().fold(0.0f64, |a, w| a.max(w.abs())));
        let scale = |row: usize| (whole.row(row).iter().map(|c| c * c).sum::<f64>() / 5.0).sqrt();
        let mut rest = weights.clone();
        for gone in order {
            // By brute force through the features: no other weight of the row costs less to remove.
            let cost = |i: usize| {
                let mut without = rest.clone();
                without[(i / 4, i % 4)] = 0.0;
                let c1 = features(&translation, &without);
                let magnitude = 0.001 * weights[(i / 4, i % 4)].abs() / largest;
                lost(c1.row(i / 4).as_slice().unwrap(), scale(i / 4), &chosen, i / 4) + magnitude
            };
            let of_row = (gone / 4 * 4..gone / 4 * 4 + 4).filter(|&i| rest[(i / 4, i % 4)] != 0.0);
            let least = of_row.map(cost).fold(f64::INFINITY, f64::min);
            prop_assert!(cost(gone) <= least + 1e-9);
            rest[(gone / 4, gone % 4)] = 0.0;
        }
    }

    #[test]
    fn signs_that_cost_nothing_are_what_the_masked_features_show(x in values(2, 5), matrix in values(4, 5),
            weights in values(2, 4), count in 1usize..5, keep in 1usize..9, is_identity in any::<bool>()) {
        let (translation, weights) = match is_identity {
            true => (Translation::identity(5), x.clone()),
            false => (Translation::new(matrix.view()).unwrap(), weights),
        };
        let chosen = chosen(&x, count);
        let ranks = translation.keep_signs(weights.view(), &chosen, &Progress::default()).unwrap();
        let (whole, c1) = (
            features(&translation, &weights),
            features(&translation, &kept(&weights, &ranks, (weights.len() - keep) as f64)),
        );
        for Chosen { row, signs, .. } in &chosen {
            let scale = (whole.row(*row).iter().map(|c| c * c).sum::<f64>() / 5.0).sqrt();
            let one = [Chosen { row: *row, weight: 1.0, signs: signs.clone() }];
            // A wrong sign costs one or more.
            if lost(c1.row(*row).as_slice().unwrap(), scale, &one, *row) < 1.0 {
                prop_assert!(signs.iter().all(|&(v, sign)| sign * c1[(*row, v)] > 0.0));
            }
        }
    }

    #[test]
    fn behind_the_identity_kept_locations_are_their_own_cells(x in values(2, 5)) {
        // The one chosen location agrees with its row, so the last three weights left are its cells.
        let mut x = x;
        for v in 0..3 {
            x[(0, v)] = x[(0, v)].abs() + 0.5;
        }
        let chosen = vec![Chosen { row: 0, weight: 1.0, signs: vec![(0, 1.0), (1, 1.0), (2, 1.0)] }];
        let ranks = Translation::identity(5).keep_signs(x.view(), &chosen, &Progress::default()).unwrap();
        prop_assert!((0..3).all(|v| ranks[(0, v)] >= 7.0), "{}", ranks);
    }

    #[test]
    fn without_locations_removal_is_that_of_the_inputs(weights in values(3, 4), z in values(9, 4), matrix in values(4, 5)) {
        let translation = Translation::new(matrix.view()).unwrap();
        let moments: Vec<f64> = z.t().dot(&z).iter().copied().collect();
        let got = translation.keep_features(weights.view(), &[], &moments, 0.01, &Progress::default()).unwrap();
        let flat: Vec<f64> = weights.iter().copied().collect();
        let layer = Layer { weights: &flat, alive: None, hessians: &moments, inputs: 4 };
        let expected = crate::ticket::obs::ranks(&[layer], 0.01, &Progress::default()).unwrap();
        prop_assert_eq!(got.iter().copied().collect::<Vec<_>>(), expected[0].clone());
    }
}

#[test]
fn features_that_locations_read_are_kept() {
    // Equal weights, inputs of equal moments: the weights whose columns the location reads leave last.
    let weights = Array2::from_elem((2, 4), 1.0);
    let chosen = [Chosen { row: 1, weight: 1.0, signs: vec![(0, 1.0), (2, 1.0)] }];
    let moments: Vec<f64> = (0..16).map(|i| f64::from(u8::from(i % 5 == 0))).collect();
    let ranks = Translation::identity(4)
        .keep_features(weights.view(), &chosen, &moments, 0.01, &Progress::default())
        .unwrap();
    assert!(ranks[(1, 0)] > 5.0 && ranks[(1, 2)] > 5.0, "{ranks}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let (translation, weights) = (Translation::identity(3), Array2::from_elem((2, 3), 1.0));
    let off = [Chosen { row: 2, weight: 1.0, signs: vec![(0, 1.0)] }];
    let beyond = [Chosen { row: 0, weight: 1.0, signs: vec![(3, 1.0)] }];
    let progress = Progress::default();
    for chosen in [&off, &beyond] {
        assert!(translation.target(chosen, 2).unwrap_err().to_string().contains("3 variables"));
        assert!(translation.keep_signs(weights.view(), chosen, &progress).is_err());
        assert!(translation.keep_features(weights.view(), chosen, &[1.0; 9], 0.01, &progress).is_err());
    }
    assert!(translation.keep_features(weights.view(), &[], &[1.0; 4], 0.01, &progress).is_err());
    assert!(translation.keep_signs(Array2::from_elem((2, 4), 1.0).view(), &[], &progress).is_err());
    assert!(translation.keep_signs(Array2::from_elem((1, 3), f64::NAN).view(), &[], &progress).is_err());
}
