//! Competition for rows: crowding and interference.
//!
//! Crowding and conflicts are our definitions; feature capacity and the mean cosine of rows are those
//! of arXiv 2510.04500.

use ndarray::{Array2, Array3};
use rayon::prelude::*;

use crate::error::{Result, shaped};
use crate::read::codes::{Clauses, Readout, Real};
use crate::read::distance::{Metric, PolarityRule, Scale, distances};
use crate::read::template::Template;

/// Demand on every location's row by the *other* clauses.
#[derive(Clone, Debug, PartialEq)]
pub struct Crowding {
    /// (R, C, rows): other clauses whose location on the row is near: the row has the template's
    /// polarity and at most `near` signs are wrong.
    pub near: Array3<u32>,
    /// (R, C, rows): graded demand, the sum over other clauses of `max(0, sum t c / scale)`, whatever the
    /// row's polarity.
    pub graded: Array3<f64>,
    /// (R, rows): positive entries of the row in feature space.
    pub positive_entries: Array2<u32>,
}

/// How crowded every location's row is, by the other clauses' demand for the same template.
///
/// # Errors
/// As [`distances`].
pub fn crowding<T: Real>(
    readout: &Readout<T>,
    clauses: &Clauses,
    template: Template,
    near: u32,
    scale: Scale,
) -> Result<Crowding> {
    let of = |metric, scale, rule| distances(readout, clauses, template, metric, scale, rule);
    let hamming = of(Metric::Hamming, Scale::Unit, PolarityRule::Require)?;
    let is_near = hamming.mapv(|d| u32::from(d <= f64::from(near)));
    let graded = of(Metric::SignedSum, scale, PolarityRule::Ignore)?.mapv_into(|d| (-d).max(0.0));
    let positive_entries = Array2::from_shape_fn((readout.networks(), readout.rows()), |(r, row)| {
        readout.row(r, row).iter().filter(|&&w| w.into() > 0.0).count() as u32
    });
    Ok(Crowding { near: others(&is_near), graded: others(&graded), positive_entries })
}

/// (R, C, rows) -> (R, C, rows): the sum over the other clauses of the same network and row.
fn others<V: Copy + Default + std::ops::Add<Output = V>>(values: &Array3<V>) -> Array3<V> {
    Array3::from_shape_fn(values.dim(), |(r, clause, row)| {
        let rest = (0..values.dim().1).filter(|&other| other != clause);
        rest.fold(V::default(), |sum, other| sum + values[[r, other, row]])
    })
}

/// (R, C, rows): shared variables on which the location's signs conflict with those of other clauses'
/// near locations on the same row, over all `templates` of the row's polarity. A location takes the
/// signs of the nearest placement of the nearest template. Rows of no template's polarity have none.
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) if a template's width is not the clauses'.
pub fn conflicts<T: Real>(
    readout: &Readout<T>,
    clauses: &Clauses,
    templates: &[Template],
    near: u32,
) -> Result<Array3<u32>> {
    let (count, rows) = (clauses.count(), readout.rows());
    let hamming: Vec<Array3<f64>> = templates
        .iter()
        .map(|&t| distances(readout, clauses, t, Metric::Hamming, Scale::Unit, PolarityRule::Require))
        .collect::<Result<_>>()?;
    let mut out = vec![0; readout.networks() * count * rows];
    out.par_chunks_mut(count * rows).enumerate().for_each(|(r, network)| {
        for row in 0..rows {
            // What the row's near locations demand of every variable: (positive, negative).
            let mut demand = vec![(0u32, 0u32); readout.variables()];
            let demands: Vec<Vec<(usize, bool)>> = (0..count)
                .map(|clause| {
                    let cell = [r, clause, row];
                    let nearest =
                        (0..templates.len()).min_by(|&a, &b| hamming[a][cell].total_cmp(&hamming[b][cell]));
                    let Some(t) = nearest.filter(|&t| hamming[t][cell].is_finite()) else {
                        return Vec::new();
                    };
                    let signs = placement(readout.row(r, row), clauses.literals(r, clause), templates[t]);
                    if hamming[t][cell] <= f64::from(near) {
                        for &(variable, positive) in &signs {
                            let side = &mut demand[variable];
                            *(if positive { &mut side.0 } else { &mut side.1 }) += 1;
                        }
                    }
                    signs
                })
                .collect();
            for (clause, signs) in demands.iter().enumerate() {
                // A location never conflicts with itself, so its own demand needs no subtraction.
                let against =
                    |&(v, positive): &(usize, bool)| if positive { demand[v].1 } else { demand[v].0 };
                network[clause * rows + row] = signs.iter().map(against).sum();
            }
        }
    });
    shaped(out, (readout.networks(), count, rows))
}

/// The nearest placement of a template at a clause's literals: (variable, sign wanted of its weight).
fn placement<T: Real>(row: &[T], literals: &[(usize, f64)], template: Template) -> Vec<(usize, bool)> {
    let mut order: Vec<(usize, f64)> = literals.to_vec();
    order.sort_by(|a, b| (b.1 * row[b.0].into()).total_cmp(&(a.1 * row[a.0].into())));
    let wanted = order.iter().enumerate();
    wanted.map(|(i, &(variable, sign))| (variable, (i < template.positives) == (sign > 0.0))).collect()
}

/// (R, n): share of a variable's column that is its own, `(w_i . w_i)^2 / sum_j (w_i . w_j)^2`, in (0, 1];
/// 1 when no other column overlaps with it, 0 for a column of zeros.
pub fn feature_capacity<T: Real>(readout: &Readout<T>) -> Array2<f64> {
    let n = readout.variables();
    let mut out = Array2::zeros((readout.networks(), n));
    for (r, mut capacity) in out.outer_iter_mut().enumerate() {
        let mut gram = vec![0.0; n * n];
        for row in 0..readout.rows() {
            let weights: Vec<f64> = readout.row(r, row).iter().map(|&w| w.into()).collect();
            for (i, wi) in weights.iter().enumerate() {
                for (j, wj) in weights.iter().enumerate() {
                    gram[i * n + j] += wi * wj;
                }
            }
        }
        for (i, capacity) in capacity.iter_mut().enumerate() {
            let all: f64 = gram[i * n..][..n].iter().map(|dot| dot * dot).sum();
            *capacity = if all == 0.0 { 0.0 } else { gram[i * n + i] * gram[i * n + i] / all };
        }
    }
    out
}

/// (R): mean cosine of all pairs of rows; rows of zeros are left out, NaN with fewer than two rows.
pub fn mean_row_cosine<T: Real>(readout: &Readout<T>) -> Vec<f64> {
    let mean = |r: usize| {
        // The sum over pairs is (|sum of unit rows|^2 - number of rows) / 2.
        let mut total = vec![0.0; readout.variables()];
        let mut rows = 0.0;
        for row in 0..readout.rows() {
            let weights = readout.row(r, row);
            let norm = weights.iter().map(|&w| w.into() * w.into()).sum::<f64>().sqrt();
            if norm > 0.0 {
                rows += 1.0;
                total.iter_mut().zip(weights).for_each(|(sum, &w)| *sum += w.into() / norm);
            }
        }
        let square: f64 = total.iter().map(|sum| sum * sum).sum();
        if rows < 2.0 { f64::NAN } else { (square - rows) / (rows * (rows - 1.0)) }
    };
    (0..readout.networks()).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::codes::of_slices;
    use crate::task::formula::{Clause, Literal};
    use ndarray::array;

    fn clauses(signed: &[&[i64]], variables: usize) -> Clauses {
        let set: Vec<Clause> =
            signed.iter().map(|clause| clause.iter().map(|&s| Literal::from_signed(s)).collect()).collect();
        Clauses::new(&[&set], 1, variables).unwrap()
    }

    #[test]
    fn crowding_counts_the_other_clauses() {
        let clauses = clauses(&[&[0, 1], &[1, 2], &[2, 3]], 4);
        // A positive row with signs + + + -: clauses 0 and 1 carry 2P, clause 2 is one sign away.
        let readout = of_slices([1, 1, 4], &[1.0f32, 1.0, 2.0, -1.0], &[1.0]);
        let template: Template = "2P".parse().unwrap();
        let got = crowding(&readout, &clauses, template, 1, Scale::Unit).unwrap();
        assert_eq!(got.near, array![[[2], [2], [2]]]);
        assert_eq!(got.graded, array![[[4.0], [3.0], [5.0]]]);
        assert_eq!(got.positive_entries, array![[3]]);
        let strict = crowding(&readout, &clauses, template, 0, Scale::Unit).unwrap();
        assert_eq!(strict.near, array![[[1], [1], [2]]]);
    }

    #[test]
    fn conflicts_are_opposite_demands_on_shared_variables() {
        let clauses = clauses(&[&[0, 1], &[1, 2]], 3);
        // A negative row: clause 0 wants + on 0 and - on 1, clause 1 wants + on 1 or 2 and - on the other.
        let template: [Template; 1] = ["1N1P".parse().unwrap()];
        let same = of_slices([1, 1, 3], &[2.0f32, -1.0, 1.0], &[-1.0]);
        assert_eq!(conflicts(&same, &clauses, &template, 1).unwrap(), array![[[0], [0]]]);
        let opposed = of_slices([1, 1, 3], &[2.0f32, 1.0, -1.0], &[-1.0]);
        assert_eq!(conflicts(&opposed, &clauses, &template, 1).unwrap(), array![[[1], [1]]]);
        // On a positive row the template has no locations.
        let positive = of_slices([1, 1, 3], &[2.0f32, 1.0, -1.0], &[1.0]);
        assert_eq!(conflicts(&positive, &clauses, &template, 1).unwrap(), array![[[0], [0]]]);
    }

    #[test]
    fn capacity_and_cosine_of_known_matrices() {
        let identity = of_slices([1, 2, 2], &[1.0f64, 0.0, 0.0, 2.0], &[1.0, 1.0]);
        assert_eq!(feature_capacity(&identity), array![[1.0, 1.0]]);
        assert_eq!(mean_row_cosine(&identity), [0.0]);
        let equal = of_slices([1, 2, 2], &[1.0f64, 1.0, 2.0, 2.0], &[1.0, 1.0]);
        assert_eq!(feature_capacity(&equal), array![[0.5, 0.5]]);
        assert!((mean_row_cosine(&equal)[0] - 1.0).abs() < 1e-12);
        assert!(mean_row_cosine(&of_slices([1, 1, 2], &[1.0, 1.0], &[1.0f64]))[0].is_nan());
    }
}
