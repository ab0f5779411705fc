//! Between weight space (W1) and feature space (C1 = W1 C0), column by column.

use super::net::{Block, Net, column};
use super::optimizer::Update;
use super::simd::Simd;
use crate::Embedding;
use crate::error::Result;

/// How W1 and C1 are connected.
#[derive(Clone, Debug)]
pub(super) enum Map {
    /// They are the same.
    Identity,
    /// The rows of a Sylvester–Hadamard matrix, times a factor: a fast transform.
    Hadamard { scale: f32 },
    /// C0, row-major (inputs, variables).
    Dense { matrix: Vec<f32> },
}

impl Map {
    pub(super) fn new(embedding: &Embedding, variables: usize) -> Result<Self> {
        Ok(match embedding {
            Embedding::Identity => Self::Identity,
            Embedding::Hadamard { .. } => Self::Hadamard { scale: embedding.hadamard_scale(variables) },
            Embedding::Dense { .. } => Self::Dense { matrix: embedding.matrix(variables)? },
        })
    }
}

impl<S: Simd, const V: usize> Net<S, V> {
    /// Computes C1 from W1.
    #[inline(always)]
    pub(super) fn embed(&mut self, map: &Map, scratch: &mut Vec<[S::Vector; V]>) {
        let (s, variables) = (self.s, self.shape.variables);
        for block in self.blocks.iter_mut().filter(|block| !block.constant) {
            let Block { weights, features, .. } = block;
            match map {
                Map::Identity => {}
                Map::Hadamard { scale } => {
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
                Map::Dense { matrix } => {
                    for v in 0..variables {
                        let factors = matrix[v..].iter().step_by(variables);
                        features[column(v)] = combine(s, &weights.matrix, factors);
                    }
                }
            }
        }
    }

    /// Turns the gradients by C1 into gradients by W1 = (gradients by C1) C0^T.
    #[inline(always)]
    pub(super) fn pull_back(&mut self, map: &Map, scratch: &mut Vec<[S::Vector; V]>) {
        let (s, variables, inputs) = (self.s, self.shape.variables, self.shape.inputs);
        for block in self.blocks.iter_mut().filter(|block| !block.constant) {
            let gradient = &mut block.gradient.matrix;
            match map {
                Map::Identity => {}
                Map::Hadamard { scale } => {
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
                Map::Dense { matrix } => {
                    scratch.clear();
                    scratch.extend((0..variables).map(|v| gradient[column(v)]));
                    for (factors, gradient) in matrix.chunks_exact(variables).zip(&mut *gradient) {
                        *gradient = combine(s, scratch, factors.iter());
                    }
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

/// Sum of columns times factors.
#[inline(always)]
fn combine<'a, S: Simd, const V: usize>(
    s: S,
    columns: &[[S::Vector; V]],
    factors: impl Iterator<Item = &'a f32>,
) -> [S::Vector; V] {
    let mut sums = [[s.zero(); V]; 2];
    for (i, (column, factor)) in columns.iter().zip(factors).enumerate() {
        let factor = s.splat(*factor);
        for k in 0..V {
            sums[i % 2][k] = s.mul_add(factor, column[k], sums[i % 2][k]);
        }
    }
    let [mut sum, odd] = sums;
    for k in 0..V {
        sum[k] = s.add(sum[k], odd[k]);
    }
    sum
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
