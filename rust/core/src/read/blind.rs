//! Clauses read from a network after a short warm-up, or from its data, for probes that do not know the formula.
//!
//! The founding paper pairs the columns of |W1| by their correlation (arXiv 2504.08842, section 3.3: clauses of two
//! literals, each variable in one clause). For wider clauses that share variables, the statistic and the search
//! are ours.

use std::collections::BTreeSet;

use ndarray::{Array2, ArrayView2};

use crate::error::{Result, shape_error, value_error};
use crate::read::codes::{Readout, Real};
use crate::task::formula::{Clause, Literal, binomial};

mod data;

pub use data::recover_from_data;

/// What says that two variables are in a clause together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// `sum over rows of w2 c_i c_j`: alike on positive rows and opposite on negative ones, as templates are.
    #[default]
    Interaction,
    /// Correlation of the columns of |C1| over the rows (arXiv 2504.08842, section 3.3).
    Absolute,
}
named!(Affinity, "affinity", "interaction" => Interaction, "absolute" => Absolute);

impl Affinity {
    /// Affinity of all pairs of variables of one network, (variables, variables), zero on the diagonal.
    pub fn of<T: Real>(self, readout: &Readout<T>, network: usize) -> Array2<f64> {
        let n = readout.variables();
        let mut rows: Vec<Vec<f64>> = (0..readout.rows())
            .map(|row| readout.row(network, row).iter().map(|&weight| weight.into()).collect())
            .collect();
        if self == Self::Absolute {
            rows.iter_mut().flatten().for_each(|weight| *weight = weight.abs());
            for variable in 0..n {
                let mean = rows.iter().map(|row| row[variable]).sum::<f64>() / rows.len() as f64;
                let square = rows.iter().map(|row| (row[variable] - mean).powi(2)).sum::<f64>();
                let norm = Some(square.sqrt()).filter(|&norm| norm > 0.0).unwrap_or(1.0);
                rows.iter_mut().for_each(|row| row[variable] = (row[variable] - mean) / norm);
            }
        }
        let mut out = Array2::zeros((n, n));
        for (row, &output) in rows.iter().zip(readout.output(network)) {
            let weight = if self == Self::Interaction { output.into() } else { 1.0 };
            for i in 0..n {
                for j in (0..n).filter(|&j| j != i) {
                    out[[i, j]] += weight * row[i] * row[j];
                }
            }
        }
        out
    }

    /// What says that a variable is a clause by itself, (variables): pairs say nothing of such clauses. Ours:
    /// `sum over rows of w2 c_i`, the slope of the logit by the variable where all rows are active (positive on
    /// positive rows and negative on negative ones, as the templates 1P and 1N are); for
    /// [`Absolute`](Self::Absolute), the sum of |c_i|.
    pub fn of_singles<T: Real>(self, readout: &Readout<T>, network: usize) -> Vec<f64> {
        let mut out = vec![0.0; readout.variables()];
        for (row, &output) in readout.output(network).iter().enumerate() {
            for (sum, &weight) in out.iter_mut().zip(readout.row(network, row)) {
                let weight: f64 = weight.into();
                *sum += if self == Self::Interaction { output.into() * weight } else { weight.abs() };
            }
        }
        out
    }
}

/// Clauses of one variable, not negated: those of the `count` largest `singles`, as of [`Affinity::of_singles`], or
/// all variables where there are fewer. Ties go to the lowest variables.
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) if a number is not finite.
pub fn recover_singles(singles: &[f64], count: usize) -> Result<Vec<Clause>> {
    if let Some(variable) = singles.iter().position(|value| !value.is_finite()) {
        return Err(value_error!("the effect of variable {variable} is {}", singles[variable]));
    }
    let mut order: Vec<usize> = (0..singles.len()).collect();
    order.sort_by(|&a, &b| singles[b].total_cmp(&singles[a]));
    Ok(order.into_iter().take(count).map(|variable| vec![Literal { variable, negated: false }]).collect())
}

/// Most clauses that are looked at one by one where growing from pairs finds no further one.
const ENUMERATED: f64 = 1e6;

/// `count` different clauses of `width` variables, none negated, from the affinity of all pairs (variables,
/// variables): as many as there are of that width, where those are fewer.
///
/// Clauses are found one after another. From every pair, a clause grows by the variable of the largest summed
/// affinity to those it has; the clause of the largest mean affinity is taken, and this mean is subtracted from
/// all its pairs, so that what it explains is not found again. Where no pair grows into a further clause, the one of
/// the largest mean among all others is taken, unless there are more than a million. Ties go to the lowest variables.
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) if affinities are not finite, or the width is not in 2 to their number of
/// variables (for 1, see [`recover_singles`]); [`Error::Shape`](crate::Error::Shape) if they are not of all pairs.
pub fn recover(affinity: ArrayView2<f64>, count: usize, width: usize) -> Result<Vec<Clause>> {
    let (n, columns) = affinity.dim();
    if n != columns {
        return Err(shape_error!("{n} x {columns} affinities are not of all pairs of variables"));
    }
    if width < 2 || width > n {
        return Err(value_error!("width = {width}: clauses found from pairs of {n} variables have 2 to {n}"));
    }
    if let Some(((i, j), value)) = affinity.indexed_iter().find(|(_, value)| !value.is_finite()) {
        return Err(value_error!("the affinity of variables {i} and {j} is {value}: it must be finite"));
    }
    let mut affinity = affinity.to_owned();
    let mut found: Vec<Vec<usize>> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut best: Option<(f64, Vec<usize>)> = None;
        for first in 0..n {
            for second in first + 1..n {
                let clause = grow(&affinity, first, second, width);
                let mean = mean_affinity(&affinity, &clause);
                let better = best.as_ref().is_none_or(|(best, _)| mean > *best);
                if better && !found.contains(&clause) {
                    best = Some((mean, clause));
                }
            }
        }
        let rest =
            || (binomial(n, width) <= ENUMERATED).then(|| best_of_all(&affinity, width, &found)).flatten();
        let Some((mean, clause)) = best.or_else(rest) else { break };
        for &i in &clause {
            clause.iter().filter(|&&j| j != i).for_each(|&j| affinity[[i, j]] -= mean);
        }
        found.push(clause);
    }
    let literal = |variable: usize| Literal { variable, negated: false };
    Ok(found.into_iter().map(|clause| clause.into_iter().map(literal).collect()).collect())
}

/// The clause of the largest mean affinity that has not been found yet, of all there are.
fn best_of_all(affinity: &Array2<f64>, width: usize, found: &[Vec<usize>]) -> Option<(f64, Vec<usize>)> {
    let n = affinity.nrows();
    let mut best: Option<(f64, Vec<usize>)> = None;
    let mut clause: Vec<usize> = (0..width).collect();
    loop {
        let mean = mean_affinity(affinity, &clause);
        if best.as_ref().is_none_or(|(best, _)| mean > *best) && !found.contains(&clause) {
            best = Some((mean, clause.clone()));
        }
        // The next set in lexicographic order: the last variable that can grow does, the ones after it follow.
        let Some(place) = (0..width).rev().find(|&place| clause[place] < n - width + place) else {
            return best;
        };
        let grown = clause[place] + 1;
        (place..width).for_each(|later| clause[later] = grown + later - place);
    }
}

/// The clause that grows from a pair, in ascending order.
fn grow(affinity: &Array2<f64>, first: usize, second: usize, width: usize) -> Vec<usize> {
    let (n, mut clause) = (affinity.nrows(), vec![first, second]);
    let mut sums: Vec<f64> =
        (0..n).map(|v| clause.iter().map(|&member| affinity[[member, v]]).sum()).collect();
    while clause.len() < width {
        let outside = (0..n).filter(|v| !clause.contains(v));
        // Of equal sums `min_by` keeps the first.
        let Some(next) = outside.min_by(|&a, &b| sums[b].total_cmp(&sums[a])) else { break };
        clause.push(next);
        sums.iter_mut().enumerate().for_each(|(v, sum)| *sum += affinity[[next, v]]);
    }
    clause.sort_unstable();
    clause
}

fn mean_affinity(affinity: &Array2<f64>, clause: &[usize]) -> f64 {
    let pairs = clause.iter().flat_map(|&i| clause.iter().map(move |&j| affinity[[i, j]]));
    pairs.sum::<f64>() / (clause.len() * (clause.len() - 1)).max(1) as f64
}

/// How many of the `found` clauses are in the formula, in any order of literals.
pub fn hits(found: &[Clause], formula: &[Clause]) -> usize {
    let sets = |clauses: &[Clause]| -> BTreeSet<Clause> {
        let mut clauses = clauses.to_vec();
        clauses.iter_mut().for_each(|clause| clause.sort_unstable());
        clauses.into_iter().collect()
    };
    sets(found).intersection(&sets(formula)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::codes::of_slices;
    use ndarray::array;
    use proptest::prelude::*;

    fn clauses(sets: &[&[i64]]) -> Vec<Clause> {
        sets.iter().map(|set| set.iter().map(|&s| Literal::from_signed(s)).collect()).collect()
    }

    #[test]
    fn affinities_by_hand() {
        // A positive row where 0 and 1 agree, a negative one where 0 and 2 disagree.
        let features = [1.0, 2.0, 0.0, 1.0, 0.0, -3.0];
        let readout = of_slices([1, 2, 3], &features, &[2.0f64, -1.0]);
        let got = Affinity::Interaction.of(&readout, 0);
        assert_eq!(got, array![[0.0, 4.0, 3.0], [4.0, 0.0, 0.0], [3.0, 0.0, 0.0]]);
        // Columns of |C1| over two rows: 1 falls, 2 rises, 0 is constant.
        let got = Affinity::Absolute.of(&readout, 0);
        assert!((got[[1, 2]] + 1.0).abs() < 1e-12 && got[[0, 1]] == 0.0);
    }

    #[test]
    fn pairs_of_the_founding_paper_are_found() {
        // Two clauses of two variables, each pair alike in magnitude on its own rows.
        let features = [3.0f64, -3.0, 0.1, 0.0, 0.2, 0.1, -2.0, 2.5, 2.0, 2.2, 0.0, 0.1, 0.0, 0.1, 4.0, 4.0];
        let readout = of_slices([1, 4, 4], &features, &[1.0; 4]);
        let affinity = Affinity::Absolute.of(&readout, 0);
        let formula = clauses(&[&[2, 3], &[0, 1]]);
        assert_eq!(hits(&recover(affinity.view(), 2, 2).unwrap(), &formula), 2);
    }

    proptest! {
        #[test]
        fn planted_clauses_are_found(permutation in Just((0..12).collect::<Vec<usize>>()).prop_shuffle(),
                                     noise in prop::collection::vec(-0.1..0.1f64, 144)) {
            // Clauses 0 and 1 share a variable, as random clauses do.
            let planted = [[0, 1, 2, 3], [3, 4, 5, 6], [7, 8, 9, 10]].map(|c| c.map(|v| permutation[v]));
            let noise = |i: usize, j: usize| noise[12 * i + j] + noise[12 * j + i];
            let mut affinity = Array2::from_shape_fn((12, 12), |(i, j)| noise(i, j));
            for clause in planted {
                for &i in &clause {
                    clause.iter().filter(|&&j| j != i).for_each(|&j| affinity[[i, j]] += 1.0);
                }
            }
            let formula: Vec<Clause> =
                planted.iter().map(|c| c.iter().map(|&v| Literal { variable: v, negated: false }).collect()).collect();
            prop_assert_eq!(hits(&recover(affinity.view(), 3, 4).unwrap(), &formula), 3);
        }
    }

    #[test]
    fn as_many_clauses_as_there_are_are_found() {
        // Of 6 variables there are 15 sets of 4: pairs alone grow into fewer.
        let affinity = Array2::from_shape_fn((6, 6), |(i, j)| if i == j { 0.0 } else { (i * j) as f64 });
        let found = recover(affinity.view(), 16, 4).unwrap();
        let distinct: BTreeSet<&Clause> = found.iter().collect();
        assert_eq!((found.len(), distinct.len()), (15, 15));
        // The first are those that are found when fewer are asked for.
        assert_eq!(recover(affinity.view(), 3, 4).unwrap(), found[..3]);
        assert_eq!(recover(Array2::zeros((2, 2)).view(), 2, 2).unwrap().len(), 1);
        assert_eq!(recover_singles(&[0.0, 2.0, 1.0], 5).unwrap().len(), 3);
    }

    #[test]
    fn clauses_of_one_variable_are_those_that_move_the_output() {
        // Variable 2 on a positive row, variable 1 (negatively) on a negative one; 0 with the wrong sign.
        let features = [-3.0, 0.1, 2.0, 0.1, -2.0, 0.2];
        let readout = of_slices([1, 2, 3], &features, &[2.0f64, -1.0]);
        let singles = Affinity::Interaction.of_singles(&readout, 0);
        assert_eq!(singles, [-6.1, 2.2, 3.8]);
        assert_eq!(hits(&recover_singles(&singles, 2).unwrap(), &clauses(&[&[1], &[2]])), 2);
        assert_eq!(Affinity::Absolute.of_singles(&readout, 0), [3.1, 2.1, 2.2]);
    }

    #[test]
    fn what_cannot_be_found_is_refused() {
        let refuse = |value: f64, columns: usize, width: usize| {
            recover(Array2::from_elem((2, columns), value).view(), 1, width).unwrap_err().to_string()
        };
        assert!(refuse(0.0, 3, 1).contains("2 x 3 affinities"));
        assert!(refuse(0.0, 2, 3).contains("width = 3"));
        assert!(refuse(0.0, 2, 1).contains("width = 1"));
        assert!(refuse(f64::NAN, 2, 2).contains("variables 0 and 0 is NaN"));
        let error = recover_singles(&[0.0, f64::INFINITY], 1).unwrap_err();
        assert!(error.to_string().contains("variable 1 is inf"));
        assert_eq!(hits(&clauses(&[&[1, 0], &[0, 1], &[2, !3]]), &clauses(&[&[0, 1], &[2, 3]])), 1);
    }
}
