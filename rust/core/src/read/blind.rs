//! Clauses read from a network after a short warm-up, for probes that do not know the formula.
//!
//! The founding paper pairs the columns of |W1| by their correlation (arXiv 2504.08842, section 3.3: clauses of two
//! literals, each variable in one clause). For wider clauses that share variables, the statistic and the search
//! are ours.

use std::collections::BTreeSet;

use crate::error::{Result, value_error};
use crate::read::codes::{Readout, Real};
use crate::task::formula::{Clause, Literal, binomial};

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
    /// Affinity of all pairs of variables of one network, (variables, variables), zero on the diagonal; of its
    /// output weights `output` (rows).
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there is not one output weight a row.
    pub fn of<T: Real>(self, readout: &Readout<T>, output: &[T], network: usize) -> Result<Vec<f64>> {
        if output.len() != readout.rows() {
            return Err(value_error!("{} output weights for {} rows", output.len(), readout.rows()));
        }
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
        let mut out = vec![0.0; n * n];
        for (row, &output) in rows.iter().zip(output) {
            let weight = if self == Self::Interaction { output.into() } else { 1.0 };
            for i in 0..n {
                for j in (0..n).filter(|&j| j != i) {
                    out[i * n + j] += weight * row[i] * row[j];
                }
            }
        }
        Ok(out)
    }

    /// What says that a variable is a clause by itself, (variables): pairs say nothing of such clauses. Ours:
    /// `sum over rows of w2 c_i`, the slope of the logit by the variable where all rows are active (positive on
    /// positive rows and negative on negative ones, as the templates 1P and 1N are); for
    /// [`Absolute`](Self::Absolute), the sum of |c_i|.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_singles<T: Real>(self, readout: &Readout<T>, output: &[T], network: usize) -> Result<Vec<f64>> {
        if output.len() != readout.rows() {
            return Err(value_error!("{} output weights for {} rows", output.len(), readout.rows()));
        }
        let mut out = vec![0.0; readout.variables()];
        for (row, &output) in output.iter().enumerate() {
            for (sum, &weight) in out.iter_mut().zip(readout.row(network, row)) {
                let weight: f64 = weight.into();
                *sum += if self == Self::Interaction { output.into() * weight } else { weight.abs() };
            }
        }
        Ok(out)
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

/// `count` different clauses of `width` variables, none negated, from the affinity of all pairs: as many as there
/// are of that width, where those are fewer.
///
/// Clauses are found one after another. From every pair, a clause grows by the variable of the largest summed
/// affinity to those it has; the clause of the largest mean affinity is taken, and this mean is subtracted from
/// all its pairs, so that what it explains is not found again. Where no pair grows into a further clause, the one of
/// the largest mean among all others is taken, unless there are more than a million. Ties go to the lowest variables.
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) if affinities are not finite or not of pairs, or the width is not in 2 to
/// their number of variables (for 1, see [`recover_singles`]).
pub fn recover(affinity: &[f64], count: usize, width: usize) -> Result<Vec<Clause>> {
    let n = affinity.len().isqrt();
    if n * n != affinity.len() {
        return Err(value_error!("{} affinities are not of all pairs of variables", affinity.len()));
    }
    if width < 2 || width > n {
        return Err(value_error!("width = {width}: clauses found from pairs of {n} variables have 2 to {n}"));
    }
    if let Some(i) = affinity.iter().position(|value| !value.is_finite()) {
        return Err(value_error!("the affinity of variables {} and {} is {}", i / n, i % n, affinity[i]));
    }
    let mut affinity = affinity.to_vec();
    let mut found: Vec<Vec<usize>> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut best: Option<(f64, Vec<usize>)> = None;
        for first in 0..n {
            for second in first + 1..n {
                let clause = grow(&affinity, n, first, second, width);
                let mean = mean_affinity(&affinity, n, &clause);
                let better = best.as_ref().is_none_or(|(best, _)| mean > *best);
                if better && !found.contains(&clause) {
                    best = Some((mean, clause));
                }
            }
        }
        let rest =
            || (binomial(n, width) <= ENUMERATED).then(|| best_of_all(&affinity, n, width, &found)).flatten();
        let Some((mean, clause)) = best.or_else(rest) else { break };
        for &i in &clause {
            clause.iter().filter(|&&j| j != i).for_each(|&j| affinity[i * n + j] -= mean);
        }
        found.push(clause);
    }
    let literal = |variable: usize| Literal { variable, negated: false };
    Ok(found.into_iter().map(|clause| clause.into_iter().map(literal).collect()).collect())
}

/// The clause of the largest mean affinity that has not been found yet, of all there are.
fn best_of_all(affinity: &[f64], n: usize, width: usize, found: &[Vec<usize>]) -> Option<(f64, Vec<usize>)> {
    let mut best: Option<(f64, Vec<usize>)> = None;
    let mut clause: Vec<usize> = (0..width).collect();
    loop {
        let mean = mean_affinity(affinity, n, &clause);
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
fn grow(affinity: &[f64], n: usize, first: usize, second: usize, width: usize) -> Vec<usize> {
    let mut clause = vec![first, second];
    let mut sums: Vec<f64> =
        (0..n).map(|v| clause.iter().map(|&member| affinity[member * n + v]).sum()).collect();
    while clause.len() < width {
        let outside = (0..n).filter(|v| !clause.contains(v));
        // Of equal sums `min_by` keeps the first.
        let Some(next) = outside.min_by(|&a, &b| sums[b].total_cmp(&sums[a])) else { break };
        clause.push(next);
        sums.iter_mut().enumerate().for_each(|(v, sum)| *sum += affinity[next * n + v]);
    }
    clause.sort_unstable();
    clause
}

fn mean_affinity(affinity: &[f64], n: usize, clause: &[usize]) -> f64 {
    let pairs = clause.iter().flat_map(|&i| clause.iter().map(move |&j| affinity[i * n + j]));
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
    use proptest::prelude::*;

    fn clauses(sets: &[&[i64]]) -> Vec<Clause> {
        sets.iter().map(|set| set.iter().map(|&s| Literal::from_signed(s)).collect()).collect()
    }

    #[test]
    fn affinities_by_hand() {
        // A positive row where 0 and 1 agree, a negative one where 0 and 2 disagree.
        let features = [1.0, 2.0, 0.0, 1.0, 0.0, -3.0];
        let readout = Readout::new(1, 2, 3, &features, &[2.0f64, -1.0]).unwrap();
        let got = Affinity::Interaction.of(&readout, &[2.0, -1.0], 0).unwrap();
        assert_eq!(got, [0.0, 4.0, 3.0, 4.0, 0.0, 0.0, 3.0, 0.0, 0.0]);
        // Columns of |C1| over two rows: 1 falls, 2 rises, 0 is constant.
        let got = Affinity::Absolute.of(&readout, &[2.0, -1.0], 0).unwrap();
        assert!((got[3 + 2] + 1.0).abs() < 1e-12 && got[1] == 0.0);
        assert!(Affinity::Absolute.of(&readout, &[1.0], 0).is_err());
    }

    #[test]
    fn pairs_of_the_founding_paper_are_found() {
        // Two clauses of two variables, each pair alike in magnitude on its own rows.
        let features = [3.0f64, -3.0, 0.1, 0.0, 0.2, 0.1, -2.0, 2.5, 2.0, 2.2, 0.0, 0.1, 0.0, 0.1, 4.0, 4.0];
        let readout = Readout::new(1, 4, 4, &features, &[1.0; 4]).unwrap();
        let affinity = Affinity::Absolute.of(&readout, &[1.0; 4], 0).unwrap();
        let formula = clauses(&[&[2, 3], &[0, 1]]);
        assert_eq!(hits(&recover(&affinity, 2, 2).unwrap(), &formula), 2);
    }

    proptest! {
        #[test]
        fn planted_clauses_are_found(permutation in Just((0..12).collect::<Vec<usize>>()).prop_shuffle(),
                                     noise in prop::collection::vec(-0.1..0.1f64, 144)) {
            // Clauses 0 and 1 share a variable, as random clauses do.
            let planted = [[0, 1, 2, 3], [3, 4, 5, 6], [7, 8, 9, 10]].map(|c| c.map(|v| permutation[v]));
            let mut affinity: Vec<f64> = (0..144).map(|i| noise[i] + noise[i % 12 * 12 + i / 12]).collect();
            for clause in planted {
                for &i in &clause {
                    clause.iter().filter(|&&j| j != i).for_each(|&j| affinity[i * 12 + j] += 1.0);
                }
            }
            let formula: Vec<Clause> =
                planted.iter().map(|c| c.iter().map(|&v| Literal { variable: v, negated: false }).collect()).collect();
            prop_assert_eq!(hits(&recover(&affinity, 3, 4).unwrap(), &formula), 3);
        }
    }

    #[test]
    fn as_many_clauses_as_there_are_are_found() {
        // Of 6 variables there are 15 sets of 4: pairs alone grow into fewer.
        let affinity: Vec<f64> =
            (0..36).map(|i| if i / 6 == i % 6 { 0.0 } else { (i / 6 * (i % 6)) as f64 }).collect();
        let found = recover(&affinity, 16, 4).unwrap();
        let distinct: BTreeSet<&Clause> = found.iter().collect();
        assert_eq!((found.len(), distinct.len()), (15, 15));
        // The first are those that are found when fewer are asked for.
        assert_eq!(recover(&affinity, 3, 4).unwrap(), found[..3]);
        assert_eq!(recover(&[0.0; 4], 2, 2).unwrap().len(), 1);
        assert_eq!(recover_singles(&[0.0, 2.0, 1.0], 5).unwrap().len(), 3);
    }

    #[test]
    fn clauses_of_one_variable_are_those_that_move_the_output() {
        // Variable 2 on a positive row, variable 1 (negatively) on a negative one; 0 with the wrong sign.
        let features = [-3.0, 0.1, 2.0, 0.1, -2.0, 0.2];
        let readout = Readout::new(1, 2, 3, &features, &[2.0f64, -1.0]).unwrap();
        let singles = Affinity::Interaction.of_singles(&readout, &[2.0, -1.0], 0).unwrap();
        assert_eq!(singles, [-6.1, 2.2, 3.8]);
        assert_eq!(hits(&recover_singles(&singles, 2).unwrap(), &clauses(&[&[1], &[2]])), 2);
        let absolute = Affinity::Absolute.of_singles(&readout, &[2.0, -1.0], 0).unwrap();
        assert_eq!(absolute, [3.1, 2.1, 2.2]);
        assert!(Affinity::Absolute.of_singles(&readout, &[1.0], 0).is_err());
    }

    #[test]
    fn what_cannot_be_found_is_refused() {
        let refuse = |error: crate::Error| error.to_string();
        assert!(refuse(recover(&[0.0; 3], 1, 1).unwrap_err()).contains("3 affinities"));
        assert!(refuse(recover(&[0.0; 4], 1, 3).unwrap_err()).contains("width = 3"));
        assert!(refuse(recover(&[0.0; 4], 1, 1).unwrap_err()).contains("width = 1"));
        assert!(refuse(recover_singles(&[0.0, f64::INFINITY], 1).unwrap_err()).contains("variable 1 is inf"));
        assert!(refuse(recover(&[f64::NAN; 4], 1, 2).unwrap_err()).contains("NaN"));
        assert_eq!(hits(&clauses(&[&[1, 0], &[0, 1], &[2, !3]]), &clauses(&[&[0, 1], &[2, 3]])), 1);
    }
}
