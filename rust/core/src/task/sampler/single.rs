//! Drawing for a formula of one output whose inputs are one word, with few branches on what is random.
//!
//! A CPU cannot foresee random branches, and each one costs it as much as the arithmetic of an input. Here, what a
//! clause and its broken literal say is looked up, and variables are drawn ahead of knowing how many are needed. What
//! that does not serve is left to [`BrokenClauses`](super::draw::BrokenClauses), which draws the same inputs from the
//! same words.

use super::words::{AHEAD, Words};
use crate::task::formula::Dnf;

/// Further variables that are drawn ahead, beside three words: the clause, its literal, and how many there are.
const DRAWS: usize = AHEAD - 3;

/// A clause of the formula.
#[derive(Clone, Copy)]
struct Clause {
    literals: u32,
    /// Number of the choice that satisfies it; those that break one literal each follow.
    choice: usize,
}

/// A clause that is to be satisfied, or broken at a literal.
#[derive(Clone, Copy)]
struct Choice {
    /// Variables that the clause names.
    named: u32,
    /// Those of them that are True.
    values: u32,
    /// Fewest further True variables.
    fewest: u32,
    /// How many numbers of further True variables there are; 0 where some of them cannot be had.
    numbers: u32,
}

/// All choices for a formula of one output.
pub(super) struct Choices<'a> {
    task: &'a Dnf,
    clauses: Vec<Clause>,
    choices: Vec<Choice>,
}

impl<'a> Choices<'a> {
    /// `None` if the formula has several outputs, or more variables than a word has bits.
    pub fn new(task: &'a Dnf, true_counts: Option<(usize, usize)>) -> Option<Self> {
        let variables = task.variables();
        if task.outputs() > 1 || variables > u32::BITS as usize {
            return None;
        }
        let (mut clauses, mut choices) = (Vec::new(), Vec::new());
        for (number, clause) in task.clauses(0).iter().enumerate() {
            let (named, positive, positives) = task.clause_bits(0, number);
            let (named, positive) = (named[0], positive[0]);
            let (low, high) = true_counts.unwrap_or((positives, positives + 2));
            clauses.push(Clause { literals: clause.len() as u32, choice: choices.len() });
            let broken = clause.iter().map(|literal| 1 << literal.variable);
            for values in [0].into_iter().chain(broken).map(|broken: u32| positive ^ broken) {
                let there = values.count_ones() as usize;
                let (low, high) = (low.max(there), high.min(variables));
                let numbers = (high + 1).saturating_sub(low);
                let free = variables - clause.len();
                let numbers = if numbers > 0 && high - there <= free { numbers } else { 0 };
                choices.push(Choice { named, values, fewest: (low - there) as u32, numbers: numbers as u32 });
            }
        }
        Some(Self { task, clauses, choices })
    }

    /// One input whose DNF is `satisfied`, or `None`, with no words taken, where it is left to the general way.
    #[inline(always)]
    pub fn draw(&self, words: &mut Words, satisfied: bool) -> Option<u32> {
        let ahead = words.ahead();
        let mut unsure = false;
        let mut below = |word: u32, bound: u32| {
            let product = u64::from(word) * u64::from(bound);
            unsure |= product as u32 > bound.wrapping_neg();
            (product >> 32) as usize
        };
        let Clause { literals, choice } = self.clauses[below(ahead[0], self.clauses.len() as u32)];
        let (choice, taken) =
            if satisfied { (choice, 1) } else { (choice + 1 + below(ahead[1], literals), 2) };
        let Choice { named, values, fewest, numbers } = self.choices[choice];
        let further = fewest + below(ahead[taken], numbers) as u32;
        // Variables as they are drawn, and those of them that were new, counted before each draw.
        let variables = self.task.variables() as u32;
        let mut drawn = [named; DRAWS + 1];
        let (mut new, mut draws) = (0, 0);
        for i in 0..DRAWS {
            draws += usize::from(new < further);
            drawn[i + 1] = drawn[i] | 1 << below(ahead[taken + 1 + i], variables);
            new += u32::from(drawn[i + 1] != drawn[i]);
        }
        let input = values | drawn[draws] & !named;
        let whole = satisfied || !self.task.satisfied(&[input], 0);
        if unsure || numbers == 0 || new < further || !whole {
            return None;
        }
        words.take(taken + 1 + draws);
        Some(input)
    }
}
