//! How inputs are drawn for a formula.

use std::sync::Arc;

use rand::RngExt;

use crate::Progress;
use crate::error::{Result, in_parallel, shape_error, value_error};
use crate::task::dataset::{Dataset, WORD_BITS};
use crate::task::formula::{Dnf, below};
use crate::task::rng::{Purpose, stream};

/// Redraws of the further True variables of one sample, and of the whole sample, before giving up.
const REDRAWS: usize = 200;

/// Samples between two looks at whether the caller wants to stop: less than a millisecond.
const CHECKED: usize = 4096;

/// The distribution that inputs come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampler {
    /// Sparse inputs around whole and broken clauses (arXiv 2504.08842, section 4), labels balanced.
    ///
    /// For DNF label 1, a uniform clause of each output is satisfied; for 0, all literals of a uniform
    /// clause but one, drawn uniformly, are. Then further variables are set True until the number
    /// of True variables is uniform in `true_counts`, redrawn until every label is as wanted. By
    /// default the counts are the number of positive literals of the clauses and up to two more:
    /// 4 to 6 at width 4, for both labels, as published. Samples take all combinations of labels
    /// in turn, so each occurs equally often.
    BrokenClause {
        /// Fewest and most True variables of an input.
        true_counts: Option<(usize, usize)>,
    },
    /// Every variable is True with this probability (0.5: uniform inputs).
    Biased {
        /// Probability that a variable is True.
        probability: f64,
        /// Whether combinations of labels occur equally often, by redrawing; otherwise they fall as they fall.
        balanced: bool,
    },
    /// All 2^n inputs in order, variable 0 the fastest; n at most 16.
    TruthTable,
}

impl Sampler {
    /// Draws `samples` labelled inputs from the stream `(seed, purpose, index)`; the truth table has 2^n
    /// whatever `samples` says.
    ///
    /// ```
    /// use precode_core::task::formula::{ClauseShape, Dnf};
    /// use precode_core::task::rng::Purpose;
    /// use precode_core::task::sampler::Sampler;
    /// let shape = ClauseShape { clauses: 8, width: 4, negated: 0, disjoint: false };
    /// let task = Dnf::random(32, 1, shape, 0, 0).unwrap();
    /// let sampler = Sampler::BrokenClause { true_counts: None };
    /// let data = sampler.sample(&task, 1000, 0, Purpose::Data, 0).unwrap();
    /// assert_eq!((0..1000).filter(|&s| data.label(s, 0)).count(), 500);
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if the counts, the probability or the number of variables are out of
    /// range, or no input with the wanted labels is found.
    pub fn sample(
        &self,
        task: &Dnf,
        samples: usize,
        seed: u64,
        purpose: Purpose,
        index: u64,
    ) -> Result<Dataset> {
        self.sample_watched(task, samples, seed, purpose, index, &Progress::default())
    }

    fn sample_watched(
        &self,
        task: &Dnf,
        samples: usize,
        seed: u64,
        purpose: Purpose,
        index: u64,
        progress: &Progress,
    ) -> Result<Dataset> {
        let n = task.variables();
        if let Self::TruthTable = self {
            if n > 16 {
                return Err(value_error!(
                    "the truth table of {n} variables has 2^{n} rows: at most 16 variables"
                ));
            }
            let mut data = Dataset::zeros(1 << n, n, task.outputs())?;
            for x in 0..1 << n {
                write_sample(&mut data, task, x, &[x as u32]);
            }
            return Ok(data);
        }
        self.validate(n)?;
        let mut data = Dataset::zeros(samples, n, task.outputs())?;
        let mut draw = Draw::new(task, seed, purpose, index);
        for s in 0..samples {
            if s % CHECKED == 0 {
                progress.check()?;
            }
            // The labels that sample s must have: all combinations in turn.
            let wanted = |output: usize| (s >> output & 1 == 1) != task.complemented();
            match *self {
                Self::BrokenClause { true_counts } => draw.broken_clause(true_counts, &wanted)?,
                Self::Biased { probability, balanced: false } => draw.biased(probability),
                Self::Biased { probability, balanced: true } => draw.biased_until(probability, &wanted)?,
                Self::TruthTable => {}
            }
            write_sample(&mut data, task, s, &draw.input);
        }
        Ok(data)
    }

    /// One data set for each task, in parallel; set i is drawn from the stream `(seed, purpose, indices[i])`.
    ///
    /// # Errors
    /// As [`sample`](Self::sample), of the failing task of the lowest number; [`Error::Shape`](crate::Error::Shape) if there are not as
    /// many indices as tasks; [`Error::Interrupted`](crate::Error::Interrupted) once progress was cancelled.
    pub fn sample_all(
        &self,
        tasks: &[Arc<Dnf>],
        samples: usize,
        seed: u64,
        purpose: Purpose,
        indices: &[u64],
        progress: &Progress,
    ) -> Result<Vec<Dataset>> {
        if tasks.len() != indices.len() {
            return Err(shape_error!(
                "{} indices for {} tasks: pass one for each",
                indices.len(),
                tasks.len()
            ));
        }
        in_parallel(tasks.len(), |i| {
            self.sample_watched(&tasks[i], samples, seed, purpose, indices[i], progress)
        })
    }

    fn validate(&self, variables: usize) -> Result<()> {
        match *self {
            Self::BrokenClause { true_counts: Some((low, high)) } if low > high || high > variables => {
                Err(value_error!(
                    "true_counts = ({low}, {high}): expected fewest <= most <= {variables} variables"
                ))
            }
            Self::Biased { probability, .. } if !(0.0..=1.0).contains(&probability) => {
                Err(value_error!("probability = {probability}: must be in [0, 1]"))
            }
            _ => Ok(()),
        }
    }
}

fn write_sample(data: &mut Dataset, task: &Dnf, sample: usize, input: &[u32]) {
    data.set_inputs(sample, input);
    for output in 0..task.outputs() {
        if task.label(input, output) {
            data.set_label(sample, output);
        }
    }
}

/// The state of drawing one sample after another.
struct Draw<'a> {
    task: &'a Dnf,
    rng: chacha20::ChaCha8Rng,
    input: Vec<u32>,
    /// Variables whose value the chosen clauses fix.
    fixed: Vec<u32>,
    /// Variables that are positive literals of the chosen clauses.
    positive: Vec<u32>,
    /// The input with nothing but the chosen clauses' variables set.
    base: Vec<u32>,
}

fn bit(words: &[u32], variable: usize) -> bool {
    words[variable / WORD_BITS] >> (variable % WORD_BITS) & 1 == 1
}

fn set(words: &mut [u32], variable: usize) {
    words[variable / WORD_BITS] |= 1 << (variable % WORD_BITS);
}

fn count(words: &[u32]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

impl<'a> Draw<'a> {
    fn new(task: &'a Dnf, seed: u64, purpose: Purpose, index: u64) -> Self {
        let blank = vec![0; task.variables().div_ceil(WORD_BITS)];
        let rng = stream(seed, purpose, index);
        Self { task, rng, input: blank.clone(), fixed: blank.clone(), positive: blank.clone(), base: blank }
    }

    fn biased(&mut self, probability: f64) {
        self.input.fill(0);
        for variable in 0..self.task.variables() {
            if self.rng.random::<f64>() < probability {
                set(&mut self.input, variable);
            }
        }
    }

    /// Whether the DNF (before complementing) of every output is as wanted.
    fn labels_match(&self, wanted: &impl Fn(usize) -> bool) -> bool {
        (0..self.task.outputs())
            .all(|o| (self.task.label(&self.input, o) != self.task.complemented()) == wanted(o))
    }

    fn biased_until(&mut self, probability: f64, wanted: &impl Fn(usize) -> bool) -> Result<()> {
        for _ in 0..REDRAWS * REDRAWS {
            self.biased(probability);
            if self.labels_match(wanted) {
                return Ok(());
            }
        }
        Err(value_error!(
            "no input with the wanted labels in {} draws at probability {probability}: balanced labels are too \
             rare there; pass balanced=False or another probability",
            REDRAWS * REDRAWS
        ))
    }

    fn broken_clause(
        &mut self,
        true_counts: Option<(usize, usize)>,
        wanted: &impl Fn(usize) -> bool,
    ) -> Result<()> {
        let mut tried = (usize::MAX, 0);
        for _ in 0..REDRAWS {
            let Some(positives) = self.fix_clauses(wanted) else { continue };
            let (low, high) = true_counts.unwrap_or((positives, positives + 2));
            let high = high.min(self.task.variables());
            tried = (low.min(tried.0), high.max(tried.1));
            self.base.copy_from_slice(&self.input);
            let start = count(&self.base);
            let low = low.max(start);
            if low > high {
                continue;
            }
            // Only the further variables are redrawn, so that every clause is chosen equally often.
            for _ in 0..REDRAWS {
                self.input.copy_from_slice(&self.base);
                let target = low + below(&mut self.rng, high - low + 1);
                if self.add_variables(target - start) && self.labels_match(wanted) {
                    return Ok(());
                }
            }
        }
        Err(value_error!(
            "the broken-clause sampler found no input with the wanted labels and {} to {} True variables in {} draws: \
             set other true_counts or use another sampler",
            tried.0.min(tried.1),
            tried.1,
            REDRAWS * REDRAWS
        ))
    }

    /// Satisfies or breaks one uniform clause of each output. The number of variables that are positive
    /// literals of the chosen clauses, or `None` if the chosen clauses contradict each other.
    fn fix_clauses(&mut self, wanted: &impl Fn(usize) -> bool) -> Option<usize> {
        self.input.fill(0);
        self.fixed.fill(0);
        self.positive.fill(0);
        for output in 0..self.task.outputs() {
            let clauses = self.task.clauses(output);
            let clause = &clauses[below(&mut self.rng, clauses.len())];
            let broken = if wanted(output) { None } else { Some(below(&mut self.rng, clause.len())) };
            for (i, literal) in clause.iter().enumerate() {
                let value = literal.negated == (broken == Some(i));
                if bit(&self.fixed, literal.variable) && bit(&self.input, literal.variable) != value {
                    return None;
                }
                set(&mut self.fixed, literal.variable);
                if !literal.negated {
                    set(&mut self.positive, literal.variable);
                }
                if value {
                    set(&mut self.input, literal.variable);
                }
            }
        }
        Some(count(&self.positive))
    }

    /// Sets `further` variables True that are neither fixed nor set; false if there are too few.
    fn add_variables(&mut self, further: usize) -> bool {
        let n = self.task.variables();
        if further > n - count(&self.fixed) {
            return false;
        }
        let mut added = 0;
        while added < further {
            let variable = below(&mut self.rng, n);
            if !bit(&self.fixed, variable) && !bit(&self.input, variable) {
                set(&mut self.input, variable);
                added += 1;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::formula::{Clause, ClauseShape, Literal};
    use proptest::prelude::*;

    const BROKEN: Sampler = Sampler::BrokenClause { true_counts: None };

    /// The formula evaluated literal by literal, without bit masks.
    fn plain_label(task: &Dnf, data: &Dataset, sample: usize, output: usize) -> bool {
        let value = |literal: &Literal| bit(data.input(sample), literal.variable) != literal.negated;
        task.clauses(output).iter().any(|clause| clause.iter().all(value)) != task.complemented()
    }

    proptest! {
        #![proptest_config(crate::examples(40))]
        #[test]
        fn samples_are_labelled_balanced_and_sparse(
            n in 12usize..80, clauses in 1usize..12, width in 2usize..5, negated in 0usize..2,
            outputs in 1usize..7, seed in 0u64..1000,
        ) {
            let shape = ClauseShape { clauses, width, negated, disjoint: false };
            let task = Dnf::random(n, outputs, shape, seed, 0).unwrap();
            let Ok(data) = BROKEN.sample(&task, 64, seed, Purpose::Data, 0) else { return Ok(()) };
            for s in 0..64 {
                let true_count = count(data.input(s));
                let positives = outputs * (width - negated);
                prop_assert!(true_count <= positives + 2);
                if outputs == 1 {
                    prop_assert!(true_count >= positives);
                }
                for o in 0..outputs {
                    prop_assert_eq!(data.label(s, o), plain_label(&task, &data, s, o));
                    prop_assert_eq!(data.label(s, o), s >> o & 1 == 1);
                }
            }
            prop_assert_eq!(&data, &BROKEN.sample(&task, 64, seed, Purpose::Data, 0).unwrap());
            // A task on the edge of the possible may be sampled in one stream and refused in another.
            for (purpose, stream) in [(Purpose::Data, 1), (Purpose::Test, 0)] {
                if let Ok(other) = BROKEN.sample(&task, 64, seed, purpose, stream) {
                    prop_assert_ne!(&data, &other);
                }
            }
        }
    }

    #[test]
    fn published_counts_are_uniform_on_both_labels() {
        let shape = ClauseShape { clauses: 16, width: 4, negated: 0, disjoint: false };
        let task = Dnf::random(32, 1, shape, 0, 0).unwrap();
        let data = BROKEN.sample(&task, 30_000, 0, Purpose::Data, 0).unwrap();
        let mut counts = [[0usize; 3]; 2];
        for s in 0..30_000 {
            counts[usize::from(data.label(s, 0))][count(data.input(s)) - 4] += 1;
        }
        assert_eq!(counts[1].iter().sum::<usize>(), 15_000);
        // Label 1 is exactly uniform; label 0 loses the few larger inputs that turn the formula True.
        for (label, tolerance) in [(1, 300), (0, 700)] {
            assert!(counts[label].iter().all(|&c| c.abs_diff(5_000) < tolerance), "{counts:?}");
        }
    }

    #[test]
    fn cnf_by_duality_and_other_samplers() {
        let or = |a: i64, b: i64| -> Clause { [!a, !b].map(Literal::from_signed).to_vec() };
        let cnf = Dnf::new(4, vec![vec![or(0, 1), or(2, 3)]], true).unwrap();
        let table = Sampler::TruthTable.sample(&cnf, 0, 0, Purpose::Data, 0).unwrap();
        assert_eq!(table.samples(), 16);
        for s in 0..16 {
            assert_eq!(table.input(s), [s as u32]);
            assert_eq!(table.label(s, 0), (s & 3 != 0) && (s & 12 != 0));
        }
        let biased = Sampler::Biased { probability: 0.75, balanced: true };
        let data = biased.sample(&cnf, 1000, 0, Purpose::Data, 0).unwrap();
        assert_eq!((0..1000).filter(|&s| data.label(s, 0)).count(), 500);
        let free = Sampler::Biased { probability: 0.75, balanced: false };
        let data = free.sample(&cnf, 20_000, 0, Purpose::Data, 0).unwrap();
        let rate = data.unpack_inputs().iter().map(|&b| f64::from(b)).sum::<f64>() / 80_000.0;
        assert!((rate - 0.75).abs() < 0.01, "{rate}");
    }

    #[test]
    fn impossible_requests_are_refused() {
        let shape = ClauseShape { clauses: 4, width: 4, negated: 0, disjoint: false };
        let task = Dnf::random(20, 1, shape, 0, 0).unwrap();
        let refuse =
            |sampler: Sampler| sampler.sample(&task, 10, 0, Purpose::Data, 0).unwrap_err().to_string();
        assert!(refuse(Sampler::TruthTable).contains("20 variables has 2^20 rows"));
        assert!(refuse(Sampler::BrokenClause { true_counts: Some((7, 5)) }).contains("(7, 5)"));
        assert!(
            refuse(Sampler::BrokenClause { true_counts: Some((0, 1)) }).contains("0 to 1 True variables")
        );
        assert!(refuse(Sampler::Biased { probability: 1.5, balanced: false }).contains("1.5"));
        assert!(refuse(Sampler::Biased { probability: 0.0, balanced: true }).contains("balanced"));
    }
}
