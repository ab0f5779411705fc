//! Between weight space (W1) and feature space (C1 = W1 C0), column by column.

use super::net::{Block, Net, Shape, column};
use super::optimizer::Update;
use super::simd::Simd;
use crate::Embedding;
use crate::error::{Result, flat};

/// Variables of a panel of C0.
pub(super) const PANEL: usize = 32;

/// How W1 and C1 are connected.
#[derive(Clone, Debug)]
pub(super) enum Transform {
    /// They are the same.
    Identity,
    /// The rows of a Sylvester–Hadamard matrix, times a factor: a fast transform.
    Hadamard { scale: f32 },
    /// One C0 for all networks, in panels: see [`panels`].
    Dense { panels: Vec<f32> },
    /// Each network's own C0.
    Projection,
}

impl Transform {
    pub(super) fn new(embedding: &Embedding, variables: usize) -> Result<Self> {
        Ok(match embedding {
            Embedding::Identity => Self::Identity,
            Embedding::Hadamard { .. } => Self::Hadamard { scale: embedding.hadamard_scale(variables) },
            Embedding::Dense(_) => {
                let matrix = embedding.matrix(variables)?;
                let rows = matrix.nrows();
                let mut panels = vec![0.0; variables.div_ceil(PANEL) * rows * PANEL];
                for (number, part) in panels_of(flat(matrix.view(), "the embedding")?, rows, variables) {
                    panels[number..][..part.len()].copy_from_slice(part);
                }
                Self::Dense { panels }
            }
            Embedding::Projection { .. } => Self::Projection,
        })
    }
}

/// The parts of C0 (rows, variables), row-major, with the place of each in panels: 32 variables after the other, row
/// after row in each; where variables are left, the last panel is filled up with zeros.
pub(super) fn panels_of(
    matrix: &[f32],
    rows: usize,
    variables: usize,
) -> impl Iterator<Item = (usize, &[f32])> {
    let places = (0..rows).flat_map(move |row| (0..variables).step_by(PANEL).map(move |first| (row, first)));
    places.map(move |(row, first)| {
        let length = PANEL.min(variables - first);
        (first * rows + row * PANEL, &matrix[row * variables + first..][..length])
    })
}

impl<S: Simd, const V: usize> Net<S, V> {
    /// Computes C1 from W1.
    #[inline(always)]
    pub(super) fn embed(&mut self, transform: &Transform, scratch: &mut Vec<[S::Vector; V]>) {
        let (s, shape) = (self.s, self.shape);
        for block in self.blocks.iter_mut().filter(|block| !block.constant) {
            match transform {
                Transform::Identity => {}
                Transform::Hadamard { scale } => block.embed_hadamard(s, &shape, *scale, scratch),
                Transform::Dense { panels } => block.embed_panels(s, &shape, panels),
                Transform::Projection => block.embed_panels(s, &shape, self.projection.panels()),
            }
        }
    }

    /// Updates W1 with the gradients by C1 that its blocks hold, where the embedding is not the identity.
    #[inline(always)]
    pub(super) fn update_inputs(
        &mut self,
        transform: &Transform,
        update: &Update<S>,
        scratch: &mut Vec<[S::Vector; V]>,
    ) {
        let (s, shape) = (self.s, self.shape);
        for block in self.blocks.iter_mut().filter(|block| !block.constant) {
            match transform {
                Transform::Identity => {}
                Transform::Hadamard { scale } => block.pull_back_hadamard(s, &shape, *scale, scratch),
                Transform::Dense { panels } => block.pull_back_panels(s, &shape, panels, scratch),
                Transform::Projection => {
                    block.pull_back_panels(s, &shape, self.projection.panels(), scratch);
                }
            }
            block.update_inputs(s, update, scratch);
        }
    }
}

impl<S: Simd, const V: usize> Block<S, V> {
    #[inline(always)]
    fn embed_hadamard(&mut self, s: S, shape: &Shape, scale: f32, scratch: &mut Vec<[S::Vector; V]>) {
        scratch.clear();
        scratch.extend_from_slice(&self.weights.matrix);
        walsh_hadamard(s, scratch);
        let scale = s.splat(scale);
        for (v, sums) in scratch.iter().enumerate().take(shape.variables) {
            for k in 0..V {
                self.features[column(v)][k] = s.mul(sums[k], scale);
            }
        }
    }

    #[inline(always)]
    fn embed_panels(&mut self, s: S, shape: &Shape, panels: &[f32]) {
        let parts = panels.chunks_exact(PANEL * shape.inputs);
        for (first, panel) in (0..shape.variables).step_by(PANEL).zip(parts) {
            let features = &mut self.features[column(first)..][..PANEL.min(shape.variables - first)];
            combine::<_, _, false>(s, &self.weights.matrix, Transposed(panel), features);
        }
    }

    /// Into `pulled`, by input: the gradients by C1 times C0^T, that is S C0^T with one output.
    #[inline(always)]
    fn pull_back_hadamard(&self, s: S, shape: &Shape, scale: f32, pulled: &mut Vec<[S::Vector; V]>) {
        pulled.clear();
        let scale = s.splat(scale);
        pulled.resize(shape.inputs, [s.zero(); V]);
        for (v, scaled) in pulled.iter_mut().enumerate().take(shape.variables) {
            for k in 0..V {
                scaled[k] = s.mul(self.gradient.matrix[column(v)][k], scale);
            }
        }
        walsh_hadamard(s, pulled);
    }

    /// As [`pull_back_hadamard`](Self::pull_back_hadamard).
    #[inline(always)]
    fn pull_back_panels(&self, s: S, shape: &Shape, panels: &[f32], pulled: &mut Vec<[S::Vector; V]>) {
        pulled.resize(shape.inputs, [s.zero(); V]);
        let parts = panels.chunks_exact(PANEL * shape.inputs);
        for (first, panel) in (0..shape.variables).step_by(PANEL).zip(parts) {
            let gradients = &self.gradient.matrix[column(first)..][..PANEL.min(shape.variables - first)];
            let factors = Rows(panel, PANEL);
            if first == 0 {
                combine::<_, _, false>(s, gradients, factors, pulled);
            } else {
                combine::<_, _, true>(s, gradients, factors, pulled);
            }
        }
    }
}

/// Numbers that weigh columns, as a matrix with a row for each sum.
pub(super) trait Factors: Copy {
    /// Of each column in turn, the numbers of the rows from `first` on.
    fn rows<const ROWS: usize>(self, first: usize, columns: usize) -> impl Iterator<Item = [f32; ROWS]>;
}

/// Factors that lie row after row, so many numbers apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a>(pub(super) &'a [f32], pub(super) usize);

impl Factors for Rows<'_> {
    #[inline(always)]
    fn rows<const ROWS: usize>(self, first: usize, columns: usize) -> impl Iterator<Item = [f32; ROWS]> {
        let mut rows = [&self.0[..0]; ROWS];
        for (row, place) in rows.iter_mut().zip(first..) {
            *row = &self.0[place * self.1..][..columns];
        }
        (0..columns).map(move |column| {
            let mut factors = [0.0; ROWS];
            for (factor, row) in factors.iter_mut().zip(rows) {
                *factor = row[column];
            }
            factors
        })
    }
}

/// Factors that lie column after column: a panel of C0 whose variables are the rows.
#[derive(Clone, Copy)]
struct Transposed<'a>(&'a [f32]);

impl Factors for Transposed<'_> {
    #[inline(always)]
    fn rows<const ROWS: usize>(self, first: usize, columns: usize) -> impl Iterator<Item = [f32; ROWS]> {
        let (all, _) = self.0.as_chunks::<PANEL>();
        all[..columns].iter().map(move |column| {
            let mut rows = [0.0; ROWS];
            rows.copy_from_slice(&column[first..][..ROWS]);
            rows
        })
    }
}

/// Makes of some columns the sums that the rows of `factors` weigh, one row for each place of `out`; with `ADD`, they
/// are added to what is there. Always one product after the other, in the order of the columns.
#[inline(always)]
pub(super) fn combine<S: Simd, const V: usize, const ADD: bool>(
    s: S,
    columns: &[[S::Vector; V]],
    factors: impl Factors,
    out: &mut [[S::Vector; V]],
) {
    // As many rows at once as make about eight sums: a column is loaded once for all of them, no product waits for
    // the one before, and all stay in registers at every level.
    let done = match V {
        1 => combine_rows::<S, V, 8, ADD>(s, columns, factors, 0, out),
        2 => combine_rows::<S, V, 4, ADD>(s, columns, factors, 0, out),
        _ => combine_rows::<S, V, 2, ADD>(s, columns, factors, 0, out),
    };
    combine_rows::<S, V, 1, ADD>(s, columns, factors, done, out);
}

/// [`combine`] for whole groups of `ROWS` rows from `first` on; returns the first row that is left.
#[inline(always)]
fn combine_rows<S: Simd, const V: usize, const ROWS: usize, const ADD: bool>(
    s: S,
    columns: &[[S::Vector; V]],
    factors: impl Factors,
    mut first: usize,
    out: &mut [[S::Vector; V]],
) -> usize {
    let (groups, _) = out[first..].as_chunks_mut::<ROWS>();
    for out in groups {
        let mut sums = if ADD { *out } else { [[s.zero(); V]; ROWS] };
        for (values, factors) in columns.iter().zip(factors.rows::<ROWS>(first, columns.len())) {
            for row in 0..ROWS {
                let factor = s.splat(factors[row]);
                for k in 0..V {
                    sums[row][k] = s.mul_add(factor, values[k], sums[row][k]);
                }
            }
        }
        *out = sums;
        first += ROWS;
    }
    first
}

/// Multiplies by the Sylvester–Hadamard matrix of ±1, in place; the length is a power of two.
#[inline(always)]
fn walsh_hadamard<S: Simd, const V: usize>(s: S, columns: &mut [[S::Vector; V]]) {
    let mut half = 1;
    while half < columns.len() {
        for pair in columns.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                for k in 0..V {
                    (a[k], b[k]) = (s.add(a[k], b[k]), s.sub(a[k], b[k]));
                }
            }
        }
        half *= 2;
    }
}
