//! Clauses as packed bits.

use super::Clause;
use crate::task::dataset::WORD_BITS;

/// The clauses of one output, each as the words of an input: it is satisfied where the bits at the variables that it
/// names are those of its positive literals.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bits {
    words: usize,
    /// Variables that each clause names, (clauses, words).
    named: Vec<u32>,
    /// Those of them that are positive literals, (clauses, words).
    positive: Vec<u32>,
    /// How many these are, (clauses).
    positives: Vec<usize>,
}

impl Bits {
    pub fn new(clauses: &[Clause], variables: usize) -> Self {
        let words = variables.div_ceil(WORD_BITS);
        let mut named = vec![0; clauses.len() * words];
        let mut positive = named.clone();
        for (clause, first) in clauses.iter().zip((0..).step_by(words)) {
            for literal in clause {
                let (word, bit) = (first + literal.variable / WORD_BITS, literal.variable % WORD_BITS);
                named[word] |= 1 << bit;
                positive[word] |= u32::from(!literal.negated) << bit;
            }
        }
        let count = |clause: &Clause| clause.iter().filter(|literal| !literal.negated).count();
        Self { words, named, positive, positives: clauses.iter().map(count).collect() }
    }

    /// Variables that a clause names, those of them that are positive literals, and how many these are.
    #[inline]
    pub fn clause(&self, clause: usize) -> (&[u32], &[u32], usize) {
        let words = clause * self.words..(clause + 1) * self.words;
        (&self.named[words.clone()], &self.positive[words], self.positives[clause])
    }

    /// Whether an input satisfies one of the clauses.
    #[inline]
    pub fn any_satisfied(&self, input: &[u32]) -> bool {
        if let (1, &[word]) = (self.words, input) {
            // To the end in any case, so that several clauses are compared at once.
            let clauses = self.named.iter().zip(&self.positive);
            return clauses.fold(false, |any, (named, positive)| any | (word & named == *positive));
        }
        let mut clauses = self.named.chunks_exact(self.words).zip(self.positive.chunks_exact(self.words));
        clauses.any(|(named, positive)| {
            named.iter().zip(positive).zip(input).all(|((named, positive), word)| word & named == *positive)
        })
    }
}
