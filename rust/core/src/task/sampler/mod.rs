//! How inputs are drawn for a formula.

mod draw;
mod single;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;

use crate::Progress;
use crate::error::{Result, in_parallel, shape_error, value_error};
use crate::task::dataset::Dataset;
use crate::task::formula::Dnf;
use crate::task::rng::{Purpose, stream};
use draw::{BrokenClauses, Chosen, biased, biased_until};
use single::Choices;
use words::Words;

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

impl Default for Sampler {
    /// Broken clauses with the published counts of True variables.
    fn default() -> Self {
        Self::BrokenClause { true_counts: None }
    }
}

impl Sampler {
    /// Draws `samples` labelled inputs from the stream `(seed, purpose, index)`; the truth table has 2^n
    /// whatever `samples` says.
    ///
    /// ```
    /// use precode_core::task::formula::{ClauseShape, Dnf};
    /// use precode_core::task::rng::Purpose;
    /// use precode_core::task::sampler::Sampler;
    /// let task = Dnf::random(32, 1, ClauseShape::default(), 0, 0).unwrap();
    /// let data = Sampler::default().sample(&task, 1000, 0, Purpose::Data, 0).unwrap();
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
        self.validate(n)?;
        let samples = if *self == Self::TruthTable { 1 << n } else { samples };
        let mut data = Dataset::zeros(samples, n, task.outputs())?;
        let mut rng = stream(seed, purpose, index);
        match *self {
            Self::BrokenClause { true_counts } if data.words_per_sample() == 1 => {
                let mut clauses = BrokenClauses::new(task, true_counts, [Chosen::default()]);
                let single = Choices::new(task, true_counts);
                let words = &mut Words::new(rng);
                fill(&mut data, task, true, progress, |s, input| {
                    let satisfied = wanted(s)(0) != task.complemented();
                    match single.as_ref().and_then(|single| single.draw(words, satisfied)) {
                        Some(drawn) => input[0] = drawn,
                        None => clauses.draw(words, input, wanted(s))?,
                    }
                    Ok(())
                })?;
            }
            Self::BrokenClause { true_counts } => {
                let words = vec![Chosen::default(); data.words_per_sample()];
                let mut clauses = BrokenClauses::new(task, true_counts, words);
                fill(&mut data, task, true, progress, |s, input| clauses.draw(&mut rng, input, wanted(s)))?;
            }
            Self::Biased { probability, balanced } => {
                fill(&mut data, task, balanced, progress, |s, input| {
                    if balanced {
                        return biased_until(&mut rng, input, task, probability, wanted(s));
                    }
                    biased(&mut rng, input, n, probability);
                    Ok(())
                })?;
            }
            Self::TruthTable => fill(&mut data, task, false, progress, |s, input| {
                input[0] = s as u32;
                Ok(())
            })?,
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
    ) -> Result<Vec<Arc<Dataset>>> {
        if tasks.len() != indices.len() {
            return Err(shape_error!(
                "{} indices for {} tasks: pass one for each",
                indices.len(),
                tasks.len()
            ));
        }
        in_parallel(tasks.len(), |i| {
            self.sample_watched(&tasks[i], samples, seed, purpose, indices[i], progress).map(Arc::new)
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
            Self::TruthTable if variables > 16 => Err(value_error!(
                "the truth table of {variables} variables has 2^{variables} rows: at most 16 variables"
            )),
            _ => Ok(()),
        }
    }
}

/// The labels that a sample must have where they are balanced: all combinations in turn.
fn wanted(sample: usize) -> impl Fn(usize) -> bool + Copy {
    move |output| sample >> output & 1 == 1
}

/// Draws every input of a data set, and labels it: as wanted where labels are balanced, otherwise as the task says.
fn fill(
    data: &mut Dataset,
    task: &Dnf,
    balanced: bool,
    progress: &Progress,
    mut draw: impl FnMut(usize, &mut [u32]) -> Result<()>,
) -> Result<()> {
    for s in 0..data.samples() {
        if s % CHECKED == 0 {
            progress.check()?;
        }
        draw(s, data.input_mut(s))?;
        for output in 0..task.outputs() {
            let label = if balanced { wanted(s)(output) } else { task.label(data.input(s), output) };
            if label {
                data.set_label(s, output);
            }
        }
    }
    Ok(())
}
