//! Clauses read from labelled samples, for probes that do not know the formula: no network is asked.
//!
//! Sequential covering, as rules are induced from examples (Clark and Niblett, The CN2 induction algorithm, Machine
//! Learning 3, 1989); the measure of a set of variables and the search are ours.

use crate::Progress;
use crate::error::{Result, value_error};
use crate::task::dataset::Dataset;
use crate::task::formula::{Clause, Literal, binomial};

/// Most sets of variables that are looked at to find one clause.
const MOST_SETS: usize = 10_000_000;

/// How many clauses chance alone may be expected to give, of labels that depend on no set.
const LEVEL: f64 = 0.05;

/// The clauses of `width` variables, none negated, that the labels of some samples tell, the plainest first.
///
/// Let a share b of the samples be True, and p of the n samples that have all variables of a set. Labels that did not
/// depend on the set would reach this p/n > b with probability `exp(-n KL(p/n || b))` at most (Chernoff's bound),
/// `KL(q || b) = q ln(q/b) + (1 - q) ln((1 - q)/(1 - b))`. The set of the largest `n KL` is a clause where this exceeds
/// `ln(20 sets)`, for the number of all sets of that width, so that chance alone is expected to give less than a twentieth
/// of a clause. The True samples that have it are explained, and left out; so on with the others until there is no such
/// set. How many clauses there are is not told. Ties go to the lowest variables.
///
/// The data have one output; `complemented` labels are read as their negation.
///
/// ```
/// use precode_core::read::blind::recover_from_data;
/// use precode_core::{Dataset, Progress};
/// // Label = variable 0 and variable 2, over the truth table, 20 times.
/// let rows: Vec<[bool; 3]> = (0..160).map(|i| [i & 1 != 0, i & 2 != 0, i & 4 != 0]).collect();
/// let labels: Vec<bool> = rows.iter().map(|row| row[0] && row[2]).collect();
/// let data = Dataset::from_bools(rows.as_flattened(), &labels, 3, 1)?;
/// let found = recover_from_data(&data, false, 2, &Progress::default())?;
/// assert_eq!(found.iter().map(|clause| clause.iter().map(|l| l.variable).collect()).collect::<Vec<Vec<_>>>(), [[0, 2]]);
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) if there are several outputs, the width is not in 1 to the number of
/// variables, or more than ten million sets are frequent enough to be looked at;
/// [`Error::Interrupted`](crate::Error::Interrupted).
pub fn recover_from_data(
    data: &Dataset,
    complemented: bool,
    width: usize,
    progress: &Progress,
) -> Result<Vec<Clause>> {
    if data.outputs() != 1 {
        return Err(value_error!("{} outputs: clauses are of one, pass the labels of that", data.outputs()));
    }
    if width == 0 || width > data.variables() {
        return Err(value_error!(
            "width = {width}: clauses over {} variables have 1 to so many",
            data.variables()
        ));
    }
    let columns = Columns::of(data, complemented);
    let mut unexplained = columns.all_true();
    let mut found = Vec::new();
    loop {
        progress.check()?;
        let Some(set) = columns.plainest(&unexplained, width)? else { return Ok(found) };
        for (word, left) in unexplained.iter_mut().enumerate() {
            *left &= !set.iter().fold(u64::MAX, |all, &v| all & columns.labelled_true[v][word]);
        }
        found.push(set.into_iter().map(|variable| Literal { variable, negated: false }).collect());
    }
}

/// One bit a sample for each variable, samples of either label apart.
struct Columns {
    labelled_true: Vec<Vec<u64>>,
    labelled_false: Vec<Vec<u64>>,
    trues: usize,
    falses: usize,
}

impl Columns {
    fn of(data: &Dataset, complemented: bool) -> Self {
        let is_true = |sample: &usize| data.label(*sample, 0) != complemented;
        let (trues, falses): (Vec<usize>, Vec<usize>) = (0..data.samples()).partition(is_true);
        let columns = |samples: &[usize]| -> Vec<Vec<u64>> {
            let mut columns = vec![vec![0; samples.len().div_ceil(64)]; data.variables()];
            for (place, &sample) in samples.iter().enumerate() {
                for (variable, column) in columns.iter_mut().enumerate() {
                    column[place / 64] |= u64::from(data.value(sample, variable)) << (place % 64);
                }
            }
            columns
        };
        Self {
            labelled_true: columns(&trues),
            labelled_false: columns(&falses),
            trues: trues.len(),
            falses: falses.len(),
        }
    }

    /// A bit for each sample that is True.
    fn all_true(&self) -> Vec<u64> {
        ones(self.trues)
    }

    /// The set that chance explains least, if it does not; of the True samples, only some count.
    fn plainest(&self, counted: &[u64], width: usize) -> Result<Option<Vec<usize>>> {
        let trues = count(counted);
        if trues == 0 || self.falses == 0 {
            return Ok(None);
        }
        let base = trues as f64 / (trues + self.falses) as f64;
        let enough = (binomial(self.labelled_true.len(), width) / LEVEL).ln();
        let mut search = Search {
            columns: self,
            width,
            base,
            best: enough,
            plainest: None,
            set: Vec::with_capacity(width),
            looked_at: 0,
        };
        search.grow(0, counted, &ones(self.falses))?;
        Ok(search.plainest)
    }
}

/// A search of all sets, in lexicographic order, that enough True samples have.
struct Search<'a> {
    columns: &'a Columns,
    width: usize,
    base: f64,
    best: f64,
    plainest: Option<Vec<usize>>,
    set: Vec<usize>,
    looked_at: usize,
}

impl Search<'_> {
    /// Looks at the sets that go on from the one at hand with variables from `first` on.
    fn grow(&mut self, first: usize, trues: &[u64], falses: &[u64]) -> Result<()> {
        let variables = self.columns.labelled_true.len();
        for variable in first..=variables - (self.width - self.set.len()) {
            let with_it = both(trues, &self.columns.labelled_true[variable]);
            let positives = count(&with_it);
            // A set gains at most ln(1/b) by each True sample that has it.
            if positives as f64 * -self.base.ln() <= self.best {
                continue;
            }
            self.looked_at += 1;
            if self.looked_at > MOST_SETS {
                return Err(value_error!(
                    "more than {MOST_SETS} sets of up to {} variables are frequent in the data: clauses are not sought \
                     among so many; tell them instead",
                    self.width
                ));
            }
            let without = both(falses, &self.columns.labelled_false[variable]);
            self.set.push(variable);
            if self.set.len() == self.width {
                let surprise = surprise(positives, positives + count(&without), self.base);
                if surprise > self.best {
                    (self.best, self.plainest) = (surprise, Some(self.set.clone()));
                }
            } else {
                self.grow(variable + 1, &with_it, &without)?;
            }
            self.set.pop();
        }
        Ok(())
    }
}

/// `n KL(p/n || b)` for p of n, where p/n exceeds b; else 0.
fn surprise(positives: usize, all: usize, base: f64) -> f64 {
    let share = positives as f64 / all as f64;
    if share <= base {
        return 0.0;
    }
    let part = |share: f64, base: f64| if share > 0.0 { share * (share / base).ln() } else { 0.0 };
    all as f64 * (part(share, base) + part(1.0 - share, 1.0 - base))
}

fn ones(bits: usize) -> Vec<u64> {
    (0..bits.div_ceil(64)).map(|word| u64::MAX >> (64 - (bits - 64 * word).min(64))).collect()
}

fn both(a: &[u64], b: &[u64]) -> Vec<u64> {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

fn count(bits: &[u64]) -> usize {
    bits.iter().map(|word| word.count_ones() as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::blind::hits;
    use crate::task::formula::{ClauseShape, Dnf};
    use crate::task::rng::Purpose;
    use crate::task::sampler::Sampler;
    use proptest::prelude::*;

    fn sets(found: &[Clause]) -> Vec<Vec<usize>> {
        found.iter().map(|clause| clause.iter().map(|literal| literal.variable).collect()).collect()
    }

    /// All sets of some variables in lexicographic order.
    fn all_sets(variables: usize, width: usize) -> Vec<Vec<usize>> {
        let chosen = |bits: u32| (0..variables).filter(|v| bits >> v & 1 == 1).collect::<Vec<_>>();
        let mut sets: Vec<Vec<usize>> =
            (0..1u32 << variables).filter(|bits| bits.count_ones() as usize == width).map(chosen).collect();
        sets.sort();
        sets
    }

    /// The rule as it is written, sample by sample.
    fn plainly(x: &[bool], y: &[bool], variables: usize, width: usize) -> Vec<Vec<usize>> {
        let (mut left, mut found): (Vec<(&[bool], bool)>, Vec<_>) =
            (x.chunks(variables).zip(y.iter().copied()).collect(), Vec::new());
        let sets = all_sets(variables, width);
        loop {
            let base = left.iter().filter(|(_, label)| *label).count() as f64 / left.len() as f64;
            let has = |row: &[bool], set: &[usize]| set.iter().all(|&v| row[v]);
            let mut best = ((sets.len() as f64 / LEVEL).ln(), None);
            for set in &sets {
                let labels: Vec<bool> =
                    left.iter().filter(|(row, _)| has(row, set)).map(|(_, label)| *label).collect();
                let value =
                    surprise(labels.iter().filter(|label| **label).count(), labels.len().max(1), base);
                if base < 1.0 && value > best.0 {
                    best = (value, Some(set.clone()));
                }
            }
            let Some(set) = best.1 else { return found };
            left.retain(|(row, label)| !(*label && has(row, &set)));
            found.push(set);
        }
    }

    proptest! {
        #[test]
        fn the_search_leaves_out_nothing(bits in prop::collection::vec(any::<u8>(), 60..300), width in 1usize..4,
                                         flips in prop::collection::vec(0usize..300, 0..20)) {
            // Labels of a formula of such clauses, some of them wrong.
            let x: Vec<bool> = bits.iter().flat_map(|byte| (0..6).map(move |v| byte >> v & 1 == 1)).collect();
            let mut y: Vec<bool> = x.chunks(6).map(|row| row[..width].iter().all(|&v| v) || row[5 - width..5].iter().all(|&v| v)).collect();
            flips.into_iter().filter(|&i| i < bits.len()).for_each(|i| y[i] = !y[i]);
            let data = Dataset::from_bools(&x, &y, 6, 1).unwrap();
            let found = recover_from_data(&data, false, width, &Progress::default()).unwrap();
            prop_assert_eq!(sets(&found), plainly(&x, &y, 6, width));
        }

        #[test]
        fn a_formula_is_told_by_its_data(seed in 0u64..50, clauses in 1usize..12, uniform in any::<bool>()) {
            let shape = ClauseShape { clauses, width: 3, negated: 0, disjoint: false };
            let task = Dnf::random(12, 1, shape, seed, 0).unwrap();
            let sampler = match uniform {
                true => Sampler::Biased { probability: 0.5, balanced: false },
                false => Sampler::BrokenClause { true_counts: None },
            };
            let data = sampler.sample(&task, 4000, seed, Purpose::Data, 0).unwrap();
            let found = recover_from_data(&data, false, 3, &Progress::default()).unwrap();
            // All clauses, and no others.
            prop_assert_eq!((hits(&found, task.clauses(0)), found.len()), (clauses, clauses));
        }
    }

    #[test]
    fn labels_without_a_formula_tell_none() {
        let x: Vec<bool> = (0..8 * 512).map(|i: u32| i.wrapping_mul(2_654_435_761) >> 16 & 1 == 1).collect();
        let y: Vec<bool> = (0..512).map(|i: u32| i.wrapping_mul(2_246_822_519) >> 15 & 1 == 1).collect();
        let found = |y: &[bool]| {
            let data = Dataset::from_bools(&x, y, 8, 1).unwrap();
            sets(&recover_from_data(&data, false, 3, &Progress::default()).unwrap())
        };
        assert!(found(&y).is_empty());
        assert!(found(&[true; 512]).is_empty() && found(&[false; 512]).is_empty());
    }

    #[test]
    fn the_negation_of_labels_tells_the_same() {
        let shape = ClauseShape { clauses: 3, width: 2, negated: 0, disjoint: true };
        let task = Dnf::random(8, 1, shape, 0, 0).unwrap();
        let data = Sampler::TruthTable.sample(&task, 256, 0, Purpose::Data, 0).unwrap();
        let negated: Vec<bool> = data.unpack_labels().iter().map(|&label| label == 0).collect();
        let x: Vec<bool> = data.unpack_inputs().iter().map(|&bit| bit == 1).collect();
        let other = Dataset::from_bools(&x, &negated, 8, 1).unwrap();
        let found = |data: &Dataset, complemented| {
            recover_from_data(data, complemented, 2, &Progress::default()).unwrap()
        };
        assert_eq!(found(&data, false), found(&other, true));
        assert_eq!(found(&data, false).len(), 3);
    }

    #[test]
    fn what_cannot_be_sought_is_refused() {
        let refuse = |outputs, width| {
            let data = Dataset::zeros(4, 3, outputs).unwrap();
            recover_from_data(&data, false, width, &Progress::default()).unwrap_err().to_string()
        };
        assert!(refuse(2, 2).contains("2 outputs"));
        assert!(refuse(1, 4).contains("width = 4"));
        assert!(refuse(1, 0).contains("width = 0"));
        let data = Dataset::zeros(4, 3, 1).unwrap();
        let progress = Progress::default();
        progress.cancel();
        assert!(matches!(recover_from_data(&data, false, 2, &progress), Err(crate::Error::Interrupted)));
    }
}
