//! Drawing one input after another for a formula.

use chacha20::ChaCha8Rng;
use rand::{Rng, RngExt};

use crate::error::{Error, Result, value_error};
use crate::task::dataset::WORD_BITS;
use crate::task::formula::{Dnf, below};

/// Redraws of the further True variables of one sample, and of the whole sample, before giving up.
const REDRAWS: usize = 200;

/// An input whose variables are True with a probability.
pub(super) fn biased(rng: &mut ChaCha8Rng, input: &mut [u32], variables: usize, probability: f64) {
    for (first, word) in (0..variables).step_by(WORD_BITS).zip(input) {
        let bits = 0..WORD_BITS.min(variables - first);
        *word = bits.fold(0, |word, bit| word | u32::from(rng.random::<f64>() < probability) << bit);
    }
}

/// The first [`biased`] input of the wanted labels.
pub(super) fn biased_until(
    rng: &mut ChaCha8Rng,
    input: &mut [u32],
    task: &Dnf,
    probability: f64,
    wanted: impl Fn(usize) -> bool,
) -> Result<()> {
    for _ in 0..REDRAWS * REDRAWS {
        biased(rng, input, task.variables(), probability);
        if (0..task.outputs()).all(|output| task.label(input, output) == wanted(output)) {
            return Ok(());
        }
    }
    Err(value_error!(
        "no input with the wanted labels in {} draws at probability {probability}: balanced labels are too \
         rare there; pass balanced=False or another probability",
        REDRAWS * REDRAWS
    ))
}

/// Draws inputs around whole and broken clauses. `W` holds the words of one input: an array where there is one word,
/// which is kept in registers.
pub(super) struct BrokenClauses<'a, W> {
    task: &'a Dnf,
    true_counts: Option<(usize, usize)>,
    /// What the chosen clauses say of each word of the input.
    chosen: W,
}

/// Bits of one word of the input.
#[derive(Clone, Copy, Default)]
pub(super) struct Chosen {
    /// Variables that the chosen clauses name.
    named: u32,
    /// Those of them that are True.
    values: u32,
    /// Those of them that are positive literals.
    positive: u32,
}

/// How many variables the chosen clauses name, and how many of them are True or positive literals.
#[derive(Clone, Copy, Default)]
struct Counts {
    named: usize,
    values: usize,
    positive: usize,
}

impl<'a, W: AsRef<[Chosen]> + AsMut<[Chosen]>> BrokenClauses<'a, W> {
    /// `chosen` has as many words as an input.
    pub fn new(task: &'a Dnf, true_counts: Option<(usize, usize)>, chosen: W) -> Self {
        Self { task, true_counts, chosen }
    }

    /// One input of the wanted labels.
    #[inline(always)]
    pub fn draw(
        &mut self,
        rng: &mut impl Rng,
        input: &mut [u32],
        wanted: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let task = self.task;
        let satisfied = |output: usize| wanted(output) != task.complemented();
        let mut tried = (usize::MAX, 0);
        for _ in 0..REDRAWS {
            let Some(Counts { named, values, positive }) = self.choose(rng, satisfied) else { continue };
            let (low, high) = self.true_counts.unwrap_or((positive, positive + 2));
            let high = high.min(task.variables());
            tried = (low.min(tried.0), high.max(tried.1));
            let low = low.max(values);
            if low > high {
                continue;
            }
            // Only the further variables are redrawn, so that every clause is chosen equally often.
            for _ in 0..REDRAWS {
                let further = low + below(rng, high - low + 1) - values;
                if further > task.variables() - named {
                    continue;
                }
                self.complete(rng, input, further);
                // The whole clauses are satisfied whatever else is True.
                if (0..task.outputs()).all(|output| satisfied(output) || !task.satisfied(input, output)) {
                    return Ok(());
                }
            }
        }
        Err(none_found(tried))
    }

    /// Chooses a uniform clause of each output, to be satisfied or to be broken at a uniform literal; `None` if they
    /// contradict each other.
    #[inline(always)]
    fn choose(&mut self, rng: &mut impl Rng, satisfied: impl Fn(usize) -> bool) -> Option<Counts> {
        let words = self.chosen.as_mut();
        words.fill(Chosen::default());
        let mut counts = Counts::default();
        for output in 0..self.task.outputs() {
            let clauses = self.task.clauses(output);
            let number = below(rng, clauses.len());
            let clause = &clauses[number];
            let (named, positive, positives) = self.task.clause_bits(output, number);
            counts.named += clause.len();
            counts.values += positives;
            counts.positive += positives;
            let mut broken = (usize::MAX, 0);
            if !satisfied(output) {
                let literal = clause[below(rng, clause.len())];
                broken = (literal.variable / WORD_BITS, 1 << (literal.variable % WORD_BITS));
                counts.values = if literal.negated { counts.values + 1 } else { counts.values - 1 };
            }
            let (mut twice, mut contradicted) = (0, 0);
            for (w, (word, (&named, &positive))) in
                words.iter_mut().zip(named.iter().zip(positive)).enumerate()
            {
                let values = if w == broken.0 { positive ^ broken.1 } else { positive };
                twice |= word.named & named;
                contradicted |= word.named & named & (word.values ^ values);
                word.named |= named;
                word.values |= values;
                word.positive |= positive;
            }
            if contradicted != 0 {
                return None;
            }
            if twice != 0 {
                let count = |bits: fn(&Chosen) -> u32| {
                    words.iter().map(|word| bits(word).count_ones() as usize).sum()
                };
                counts = Counts {
                    named: count(|word| word.named),
                    values: count(|word| word.values),
                    positive: count(|word| word.positive),
                };
            }
        }
        Some(counts)
    }

    /// An input of the chosen clauses and `further` uniform variables that they do not name.
    #[inline(always)]
    fn complete(&self, rng: &mut impl Rng, input: &mut [u32], further: usize) {
        let chosen = self.chosen.as_ref();
        input.iter_mut().zip(chosen).for_each(|(input, word)| *input = word.values);
        let mut added = 0;
        while added < further {
            let variable = below(rng, self.task.variables());
            let (word, bit) = (variable / WORD_BITS, 1 << (variable % WORD_BITS));
            if (chosen[word].named | input[word]) & bit == 0 {
                input[word] |= bit;
                added += 1;
            }
        }
    }
}

/// Kept apart from the drawing, which is the slower for it.
#[cold]
fn none_found((fewest, most): (usize, usize)) -> Error {
    value_error!(
        "the broken-clause sampler found no input with the wanted labels and {} to {most} True variables in {} draws: \
         set other true_counts or use another sampler",
        fewest.min(most),
        REDRAWS * REDRAWS
    )
}
