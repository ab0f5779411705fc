//! Boolean formulas in disjunctive normal form: the tasks that networks are trained on.

mod bits;
mod random;

use std::collections::HashSet;

use rand::RngExt;

use crate::error::{Result, value_error};
use crate::task::dataset::WORD_BITS;
use crate::task::rng::{Purpose, stream};
use bits::Bits;
pub use random::ClauseShape;
pub(crate) use random::binomial;
use random::{disjoint_clauses, distinct_clauses, sorted};

/// A variable or its negation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Literal {
    /// Index of the variable, from 0.
    pub variable: usize,
    /// Whether the literal is true when the variable is False.
    pub negated: bool,
}

impl Literal {
    /// From a signed index: `v` is variable v, `!v` (that is `-v - 1`, Python's `~v`) its negation.
    ///
    /// ```
    /// use precode_core::task::formula::Literal;
    /// assert_eq!(Literal::from_signed(!5), Literal { variable: 5, negated: true });
    /// ```
    pub fn from_signed(signed: i64) -> Self {
        Self { variable: signed.max(!signed) as usize, negated: signed < 0 }
    }

    /// The signed index that [`from_signed`](Self::from_signed) takes.
    pub fn signed(self) -> i64 {
        let variable = self.variable as i64;
        if self.negated { !variable } else { variable }
    }
}

/// A conjunction of literals over distinct variables.
pub type Clause = Vec<Literal>;

/// A DNF over `variables` Boolean variables with one set of clauses for each output.
///
/// Label o is `OR over clauses of AND over literals`, or its negation when [`complemented`](Self::complemented):
/// a CNF is the complement of the DNF of its negated literals.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dnf {
    variables: usize,
    outputs: Vec<Vec<Clause>>,
    complemented: bool,
    bits: Vec<Bits>,
}

impl Dnf {
    /// A formula from explicit clauses, one list of clauses an output.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there are no outputs or clauses, a clause is empty, names a
    /// variable out of range, or names one twice, or two clauses of an output are the same.
    pub fn new(variables: usize, outputs: Vec<Vec<Clause>>, complemented: bool) -> Result<Self> {
        validate_sizes(variables, outputs.len())?;
        if outputs.is_empty() || outputs.iter().any(Vec::is_empty) {
            return Err(value_error!("a formula needs at least one clause for each output"));
        }
        for (o, clauses) in outputs.iter().enumerate() {
            let mut distinct = HashSet::new();
            for (c, clause) in clauses.iter().enumerate() {
                validate_clause(clause, variables, &format!("clause {c} of output {o}"))?;
                let mut sorted = clause.clone();
                sorted.sort_unstable();
                if !distinct.insert(sorted) {
                    return Err(value_error!(
                        "clause {c} of output {o} repeats an earlier clause: remove it"
                    ));
                }
            }
        }
        let bits = outputs.iter().map(|clauses| Bits::new(clauses, variables)).collect();
        Ok(Self { variables, outputs, complemented, bits })
    }

    /// A formula of random distinct clauses (arXiv 2504.08842, section 4): each a uniform set of
    /// `width` distinct variables, `negated` of them negated; drawn from the stream `(seed, Formula, index)`.
    ///
    /// ```
    /// use precode_core::task::formula::{ClauseShape, Dnf};
    /// let shape = ClauseShape { clauses: 16, width: 4, negated: 0, disjoint: false };
    /// let task = Dnf::random(32, 1, shape, 0, 0).unwrap();
    /// assert_eq!(task.clauses(0).len(), 16);
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if a clause is wider than there are variables, if more literals
    /// are negated than a clause has, or if there are not that many distinct (or disjoint) clauses.
    pub fn random(
        variables: usize,
        outputs: usize,
        shape: ClauseShape,
        seed: u64,
        index: u64,
    ) -> Result<Self> {
        validate_sizes(variables, outputs)?;
        shape.validate(variables)?;
        let mut rng = stream(seed, Purpose::Formula, index);
        shape.reserve(variables, outputs)?;
        let outputs = (0..outputs)
            .map(|_| {
                if shape.disjoint {
                    disjoint_clauses(variables, shape, &mut rng)
                } else {
                    distinct_clauses(variables, shape, &HashSet::new(), &mut rng)
                }
            })
            .collect();
        Self::new(variables, outputs, false)
    }

    /// An estimate of the peak bytes that [`random`](Self::random) needs: every clause four times over while it is
    /// drawn and checked for repetitions, and its packed bits.
    ///
    /// ```
    /// use precode_core::task::formula::{ClauseShape, Dnf};
    /// let shape = ClauseShape { clauses: 16, width: 4, negated: 0, disjoint: false };
    /// assert!(Dnf::memory_bytes(32, 1, shape).unwrap() < 20_000);
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) for sizes that [`random`](Self::random) refuses.
    pub fn memory_bytes(variables: usize, outputs: usize, shape: ClauseShape) -> Result<usize> {
        validate_sizes(variables, outputs)?;
        shape.validate(variables)?;
        let literals = shape.width.saturating_mul(size_of::<Literal>());
        // Of an allocation of its own: its header, its place in a list or a hash table, what the allocator adds.
        let clause = literals.saturating_add(64);
        let bits = 2 * variables.div_ceil(WORD_BITS) * size_of::<u32>() + size_of::<usize>();
        let each = clause.saturating_mul(4).saturating_add(bits);
        Ok(shape.clauses.saturating_mul(outputs).saturating_mul(each))
    }

    /// As many random clauses of the same widths and negations as output `output` has, none of them
    /// among its own: the clause-permuted null. Drawn from the stream `(seed, FalseClauses, index)`.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there is no such output, or not enough other clauses.
    pub fn false_clauses(&self, output: usize, seed: u64, index: u64) -> Result<Vec<Clause>> {
        if output >= self.outputs.len() {
            return Err(value_error!(
                "output = {output}, but the formula has {} outputs",
                self.outputs.len()
            ));
        }
        let mut rng = stream(seed, Purpose::FalseClauses, index);
        let mut taken: HashSet<Clause> = self.outputs[output].iter().map(|clause| sorted(clause)).collect();
        let mut drawn = Vec::with_capacity(self.outputs[output].len());
        for clause in &self.outputs[output] {
            let negated = clause.iter().filter(|literal| literal.negated).count();
            let shape =
                ClauseShape { clauses: taken.len() + 1, width: clause.len(), negated, disjoint: false };
            shape.validate(self.variables)?;
            let one = ClauseShape { clauses: 1, ..shape };
            drawn.extend(distinct_clauses(self.variables, one, &taken, &mut rng));
            taken.extend(drawn.last().map(|clause| sorted(clause)));
        }
        Ok(drawn)
    }

    /// Number of variables, n.
    pub fn variables(&self) -> usize {
        self.variables
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// The clauses of one output.
    ///
    /// # Panics
    /// If `output` is out of range.
    pub fn clauses(&self, output: usize) -> &[Clause] {
        &self.outputs[output]
    }

    /// Whether labels are the negation of the DNF (a CNF by duality).
    pub fn complemented(&self) -> bool {
        self.complemented
    }

    /// Label of a packed input at one output.
    ///
    /// # Panics
    /// If `output` is out of range.
    pub fn label(&self, input: &[u32], output: usize) -> bool {
        self.satisfied(input, output) != self.complemented
    }

    /// Whether a packed input satisfies a clause of one output: the label before complementing.
    #[inline]
    pub(super) fn satisfied(&self, input: &[u32], output: usize) -> bool {
        self.bits[output].any_satisfied(input)
    }

    /// One clause as packed bits: variables that it names, those of them that are positive literals, and how many these
    /// are.
    #[inline]
    pub(super) fn clause_bits(&self, output: usize, clause: usize) -> (&[u32], &[u32], usize) {
        self.bits[output].clause(clause)
    }
}

/// Most variables of a formula.
pub const MAX_VARIABLES: usize = 1 << 16;

/// Most outputs of a formula: samplers take all combinations of labels in turn.
pub const MAX_OUTPUTS: usize = 16;

fn validate_sizes(variables: usize, outputs: usize) -> Result<()> {
    if variables > MAX_VARIABLES {
        return Err(value_error!("variables = {variables}: at most {MAX_VARIABLES}"));
    }
    if outputs > MAX_OUTPUTS {
        return Err(value_error!("outputs = {outputs}: at most {MAX_OUTPUTS}"));
    }
    Ok(())
}

/// Checks one clause; `name` says which in the message.
pub(crate) fn validate_clause(clause: &[Literal], variables: usize, name: &str) -> Result<()> {
    if clause.is_empty() {
        return Err(value_error!("{name} is empty: give it at least one variable"));
    }
    for (i, literal) in clause.iter().enumerate() {
        if literal.variable >= variables {
            return Err(value_error!(
                "{name} names variable {}, but there are {variables} variables (0 to {})",
                literal.variable,
                variables.saturating_sub(1)
            ));
        }
        if clause[..i].iter().any(|earlier| earlier.variable == literal.variable) {
            return Err(value_error!("{name} names variable {} twice", literal.variable));
        }
    }
    Ok(())
}

/// A uniform index below `bound`, which is below 2^32.
pub(crate) fn below(rng: &mut impl rand::Rng, bound: usize) -> usize {
    rng.random_range(0..bound as u32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(signed: &[i64]) -> Clause {
        signed.iter().map(|&s| Literal::from_signed(s)).collect()
    }

    #[test]
    fn labels_follow_the_truth_table() {
        let task = Dnf::new(3, vec![vec![clause(&[0, 1]), clause(&[2, !0])]], false).unwrap();
        let dual = Dnf::new(3, vec![vec![clause(&[0, 1]), clause(&[2, !0])]], true).unwrap();
        for x in 0..8u32 {
            let [a, b, c] = [x & 1 == 1, x >> 1 & 1 == 1, x >> 2 & 1 == 1];
            assert_eq!(task.label(&[x], 0), (a && b) || (c && !a));
            assert_ne!(task.label(&[x], 0), dual.label(&[x], 0));
        }
    }

    #[test]
    fn bad_formulas_are_refused_with_the_value() {
        let refuse = |clauses: Vec<Clause>| Dnf::new(4, vec![clauses], false).unwrap_err().to_string();
        assert!(refuse(vec![clause(&[0, 9])]).contains("variable 9, but there are 4"));
        assert!(refuse(vec![clause(&[1, !1])]).contains("variable 1 twice"));
        assert!(refuse(vec![clause(&[0, 1]), clause(&[1, 0])]).contains("clause 1 of output 0 repeats"));
        assert!(refuse(vec![vec![]]).contains("is empty"));
        assert!(refuse(vec![]).contains("at least one clause"));
        let random = |clauses, width, negated, disjoint| {
            let shape = ClauseShape { clauses, width, negated, disjoint };
            Dnf::random(8, 1, shape, 0, 0).unwrap_err().to_string()
        };
        assert!(random(1, 9, 0, false).contains("width = 9 but there are 8 variables"));
        assert!(random(3, 4, 0, true).contains("need 12 variables"));
        assert!(random(71, 4, 0, false).contains("only 70 distinct clauses"));
        assert!(random(1, 4, 5, false).contains("negated = 5"));
        assert!(random(0, 4, 0, false).contains("clauses = 0"));
    }

    #[test]
    fn random_clauses_have_their_shape() {
        for disjoint in [false, true] {
            let shape = ClauseShape { clauses: 8, width: 4, negated: 1, disjoint };
            let task = Dnf::random(32, 2, shape, 5, 1).unwrap();
            for o in 0..2 {
                let mut used = HashSet::new();
                for clause in task.clauses(o) {
                    assert_eq!(clause.len(), 4);
                    assert_eq!(clause.iter().filter(|l| l.negated).count(), 1);
                    assert!(!disjoint || clause.iter().all(|l| used.insert(l.variable)));
                }
            }
            assert_eq!(task, Dnf::random(32, 2, shape, 5, 1).unwrap());
            assert_ne!(task, Dnf::random(32, 2, shape, 5, 2).unwrap());
        }
    }

    #[test]
    fn false_clauses_are_false() {
        let shape = ClauseShape { clauses: 30, width: 4, negated: 0, disjoint: false };
        let task = Dnf::random(8, 1, shape, 0, 0).unwrap();
        let drawn = task.false_clauses(0, 0, 0).unwrap();
        assert_eq!(drawn.len(), 30);
        let distinct: HashSet<_> = drawn.iter().chain(task.clauses(0)).map(|c| sorted(c)).collect();
        assert_eq!(distinct.len(), 60);
        let crowded = Dnf::random(8, 1, ClauseShape { clauses: 40, ..shape }, 0, 0).unwrap();
        assert!(crowded.false_clauses(0, 0, 0).unwrap_err().to_string().contains("only 70 distinct"));
    }
}
