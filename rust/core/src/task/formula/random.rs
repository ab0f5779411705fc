//! How random clauses are drawn.

use std::collections::HashSet;

use rand::seq::SliceRandom;

use super::{Clause, Dnf, Literal};
use crate::error::{Result, reserve, value_error};

/// What random clauses look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClauseShape {
    /// Clauses of each output.
    pub clauses: usize,
    /// Literals of a clause.
    pub width: usize,
    /// Negated literals of a clause.
    pub negated: usize,
    /// Whether a variable occurs in at most one clause of an output.
    pub disjoint: bool,
}

impl ClauseShape {
    pub(super) fn validate(&self, variables: usize) -> Result<()> {
        let Self { clauses, width, negated, disjoint } = *self;
        if clauses == 0 || width == 0 {
            return Err(value_error!("clauses = {clauses}, width = {width}: each must be at least 1"));
        }
        if width > variables {
            return Err(value_error!(
                "width = {width} but there are {variables} variables: a clause has distinct variables"
            ));
        }
        if negated > width {
            return Err(value_error!("negated = {negated} literals in a clause of width = {width}"));
        }
        if disjoint && clauses.saturating_mul(width) > variables {
            return Err(value_error!(
                "{clauses} disjoint clauses of width {width} need {} variables, but there are {variables}",
                clauses.saturating_mul(width)
            ));
        }
        let possible = binomial(variables, width) * binomial(width, negated);
        if clauses as f64 > possible {
            return Err(value_error!(
                "clauses = {clauses}, but only {possible} distinct clauses of width {width} with {negated} \
                 negated literals exist over {variables} variables"
            ));
        }
        Ok(())
    }

    /// Refuses clauses that do not fit into memory, before they are drawn.
    pub(super) fn reserve(self, variables: usize, outputs: usize) -> Result<()> {
        let what = format!("{} clauses of {} variables", self.clauses.saturating_mul(outputs), self.width);
        reserve::<u8>(Some(Dnf::memory_bytes(variables, outputs, self)?), &what).map(drop)
    }
}

/// Number of k-subsets of n things (exact while it fits a double).
pub(crate) fn binomial(n: usize, k: usize) -> f64 {
    (0..k.min(n - k.min(n))).fold(1.0, |acc, i| acc * (n - i) as f64 / (i + 1) as f64).round()
}

pub(super) fn sorted(clause: &[Literal]) -> Clause {
    let mut clause = clause.to_vec();
    clause.sort_unstable();
    clause
}

pub(super) fn distinct_clauses(
    variables: usize,
    shape: ClauseShape,
    excluded: &HashSet<Clause>,
    rng: &mut impl rand::Rng,
) -> Vec<Clause> {
    let mut all: Vec<usize> = (0..variables).collect();
    let mut seen = excluded.clone();
    let mut clauses = Vec::with_capacity(shape.clauses);
    while clauses.len() < shape.clauses {
        let (chosen, _) = all.partial_shuffle(rng, shape.width);
        let clause = with_negations(chosen, shape.negated);
        if seen.insert(sorted(&clause)) {
            clauses.push(sorted(&clause));
        }
    }
    clauses
}

pub(super) fn disjoint_clauses(
    variables: usize,
    shape: ClauseShape,
    rng: &mut impl rand::Rng,
) -> Vec<Clause> {
    let mut all: Vec<usize> = (0..variables).collect();
    all.shuffle(rng);
    let chosen = all.chunks_exact(shape.width).take(shape.clauses);
    chosen.map(|variables| sorted(&with_negations(variables, shape.negated))).collect()
}

/// The first `negated` of the (randomly ordered) variables become negated literals.
fn with_negations(variables: &[usize], negated: usize) -> Clause {
    let literals = variables.iter().enumerate();
    literals.map(|(i, &variable)| Literal { variable, negated: i < negated }).collect()
}
