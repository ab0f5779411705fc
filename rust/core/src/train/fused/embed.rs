//! Between weight space (W1) and feature space (C1 = W1 C0), column by column.

use super::net::{Block, Net, column};
use super::optimizer::Update;
use super::simd::Simd;
use crate::Embedding;
use crate::error::Result;

/// How W1 and C1 are connected.
#[derive(Clone, Debug)]
pub(super) enum Transform {
    /// They are the same.
    Identity,
    /// The rows of a Sylvester–Hadamard matrix, times a factor: a fast transform.
    Hadamard { scale: f32 },
    /// C0, row-major (inputs, variables), and its transpose.
    Dense { matrix: Vec<f32>, transposed: Vec<f32> },
}

impl Transform {
    pub(super) fn new(embedding: &Embedding, variables: usize) -> Result<Self> {
        Ok(match embedding {
            Embedding::Identity => Self::Identity,
            Embedding::Hadamard { .. } => Self::Hadamard { scale: embedding.hadamard_scale(variables) },
            Embedding::Dense(_) => {
                let matrix = embedding.matrix(variables)?;
                let transposed = matrix.t().iter().copied().collect();
                Self::Dense { matrix: matrix.into_iter().collect(), transposed }
            }
        })
    }
}

impl<S: Simd, const V: usize> Net<S, V> {
    /// Computes C1 from W1.
    #[inline(always)]
    pub(super) fn embed(&mut self, transform: &Transform, scratch: &mut Vec<[S::Vector; V]>) {
        let (s, variables) = (self.s, self.shape.variables);
        for block in self.blocks.iter_mut().filter(|block| !block.constant) {
            let Block { weights, features, .. } = block;
            match transform {
                Transform::Identity => {}
                Transform::Hadamard { scale } => {
                    scratch.clear();
                    scratch.extend_from_slice(&weights.matrix);
                    walsh_hadamard(s, scratch);
                    let scale = s.splat(*scale);
                    for (v, sums) in scratch.iter().enumerate().take(variables) {
                        for k in 0..V {
                            features[column(v)][k] = s.mul(sums[k], scale);
                        }
                    }
                }
                Transform::Dense { transposed, .. } => {
                    combine(s, &weights.matrix, transposed, scratch);
                    for (v, sums) in scratch.iter().enumerate() {
                        features[column(v)] = *sums;
                    }
                }
            }
        }
    }

    /// Turns the gradients by C1 into gradients by W1 = (gradients by C1) C0^T.
    #[inline(always)]
    pub(super) fn pull_back(&mut self, transform: &Transform, scratch: &mut Vec<[S::Vector; V]>) {
        let (s, variables, inputs) = (self.s, self.shape.variables, self.shape.inputs);
        for block in self.blocks.iter_mut().filter(|block| !block.constant) {
            let gradient = &mut block.gradient.matrix;
            match transform {
                Transform::Identity => {}
                Transform::Hadamard { scale } => {
                    scratch.clear();
                    let scale = s.splat(*scale);
                    scratch.resize(inputs, [s.zero(); V]);
                    for (v, scaled) in scratch.iter_mut().enumerate().take(variables) {
                        for k in 0..V {
                            scaled[k] = s.mul(gradient[column(v)][k], scale);
                        }
                    }
                    walsh_hadamard(s, scratch);
                    gradient[..inputs].copy_from_slice(scratch);
                }
                Transform::Dense { matrix, .. } => {
                    for v in 0..variables {
                        gradient[v] = gradient[column(v)];
                    }
                    combine(s, &gradient[..variables], matrix, scratch);
                    gradient[..inputs].copy_from_slice(scratch);
                }
            }
        }
    }
}

impl<S: Simd, const V: usize> Net<S, V> {
    /// Updates W1 with its gradients, after [`pull_back`](Self::pull_back).
    #[inline(always)]
    pub(super) fn update_inputs(&mut self, update: &Update<S>) {
        for block in &mut self.blocks {
            let Block { weights, moments: [first, second], gradient, matrix_mask, .. } = block;
            for i in 0..weights.matrix.len() {
                update.apply::<_, false>(
                    &mut weights.matrix[i],
                    &mut first.matrix[i],
                    &mut second.matrix[i],
                    gradient.matrix[i],
                    matrix_mask.as_ref().map(|masks| &masks[i]),
                );
            }
        }
    }
}

/// Makes of some columns those sums that the rows of `factors` weigh, one row after the other.
#[inline(always)]
fn combine<S: Simd, const V: usize>(
    s: S,
    columns: &[[S::Vector; V]],
    factors: &[f32],
    out: &mut Vec<[S::Vector; V]>,
) {
    out.clear();
    // Four rows at once: a column is loaded once for all of them.
    let fours = factors.chunks_exact(4 * columns.len());
    let rest = fours.remainder();
    for rows in fours {
        let (ab, cd) = rows.split_at(2 * columns.len());
        let ((a, b), (c, d)) = (ab.split_at(columns.len()), cd.split_at(columns.len()));
        let mut sums = [[s.zero(); V]; 4];
        for ((((column, a), b), c), d) in columns.iter().zip(a).zip(b).zip(c).zip(d) {
            let factors = [s.splat(*a), s.splat(*b), s.splat(*c), s.splat(*d)];
            for row in 0..4 {
                for k in 0..V {
                    sums[row][k] = s.mul_add(factors[row], column[k], sums[row][k]);
                }
            }
        }
        out.extend_from_slice(&sums);
    }
    for row in rest.chunks_exact(columns.len()) {
        let mut sum = [s.zero(); V];
        for (column, factor) in columns.iter().zip(row) {
            let factor = s.splat(*factor);
            for k in 0..V {
                sum[k] = s.mul_add(factor, column[k], sum[k]);
            }
        }
        out.push(sum);
    }
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
