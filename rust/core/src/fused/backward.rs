//! Gradients of a batch, and the optimizer step that uses them up.
//!
//! With one output, row r, variable i and delta_b the derivative of the loss by sample b's logit,
//!
//! - dW1\[r, i\] = w2\[r\] S\[r, i\], where S\[r, i\] is the sum of delta_b over the samples b that have
//!   variable i and activate row r;
//! - dw2\[r\] = sum of delta_b h_b\[r\] = sum over i of S\[r, i\] C1\[r, i\] + S\[r\] b1\[r\], because h is linear
//!   where the row is active: the hidden values themselves are not needed again.
//!
//! S\[., i\] is summed in registers and goes straight into the optimizer.

use super::forward::Logits;
use super::net::{Block, Net, column};
use super::optimizer::Update;
use super::simd::{Simd, lanes_mut};
use super::tile::{TILE, Tile};

/// Errors of a tile's hidden rows, by sample, and a null row.
pub(super) struct Errors<S: Simd, const V: usize> {
    rows: Vec<[S::Vector; V]>,
}

impl<S: Simd, const V: usize> Errors<S, V> {
    #[inline(always)]
    pub(super) fn new(s: S) -> Self {
        Self { rows: vec![[s.zero(); V]; TILE + 1] }
    }

    /// Sum over the samples that are bits of `members`. `fours`: see [`Density`](super::tile::Density).
    #[inline(always)]
    fn sum(&self, s: S, mut members: u64, fours: usize) -> [S::Vector; V] {
        let rows = &self.rows[..TILE + 1];
        let mut sums = [[s.zero(); V]; 2];
        let mut four = |sums: &mut [[S::Vector; V]; 2]| {
            for half in [0, 1, 0, 1] {
                let next = members.trailing_zeros() as usize;
                members &= members.wrapping_sub(1);
                // SAFETY: a word of 64 bits has at most 64 trailing zeros.
                let row = unsafe { rows.get_unchecked(next) };
                for k in 0..V {
                    sums[half][k] = s.add(sums[half][k], row[k]);
                }
            }
            members
        };
        let mut rest = 1;
        for _ in 0..fours {
            rest = four(&mut sums);
        }
        while rest != 0 {
            rest = four(&mut sums);
        }
        std::array::from_fn(|k| s.add(sums[0][k], sums[1][k]))
    }
}

/// What the backward passes of a batch have in common.
#[derive(Clone, Copy)]
pub(super) struct Step<'a, S: Simd> {
    pub(super) update: Update<S>,
    /// See [`Density`](super::tile::Density).
    pub(super) fours: usize,
    /// Variables whose columns take part, as bits.
    pub(super) alive: &'a [u64],
    pub(super) identity: bool,
    /// Whether the tile is the first and the last of its batch.
    pub(super) first: bool,
    pub(super) last: bool,
}

impl<S: Simd, const V: usize> Net<S, V> {
    /// Adds a tile's gradients to those of its batch; with the last tile, W1 is updated at once where
    /// the embedding is the identity. `deltas` are the derivatives of the loss by the tile's logits.
    #[inline(always)]
    pub(super) fn backward(
        &mut self,
        tile: &Tile,
        deltas: &Logits<S>,
        errors: &mut Errors<S, V>,
        step: &Step<'_, S>,
    ) {
        let s = self.s;
        if step.first {
            self.output_bias[3].fill([s.zero()]);
        }
        let bias = lanes_mut::<S>(self.output_bias[3].as_flattened_mut());
        for (output, bias) in bias.iter_mut().enumerate().take(self.shape.outputs) {
            let vectors = &deltas.vectors[output * Logits::<S>::VECTORS..][..Logits::<S>::VECTORS];
            let used = &vectors[..tile.samples.div_ceil(S::LANES)];
            *bias += s.sum(used.iter().fold(s.zero(), |sum, v| s.add(sum, *v)));
        }
        for block in self.blocks.iter_mut().filter(|block| !block.constant) {
            if step.first {
                block.gradient.bias = [s.zero(); V];
                block.gradient.output.fill([s.zero(); V]);
            }
            if block.values.is_empty() {
                block.spread(s, tile, deltas, errors);
            } else {
                block.spread_many(s, tile, deltas, errors);
            }
            block.columns_backward(s, tile, errors, step);
        }
    }

    /// The part of the step that is left after the last tile: all but W1 of the identity.
    #[inline(always)]
    pub(super) fn finish(&mut self, update: &Update<S>) {
        let s = self.s;
        let single = self.shape.outputs == 1;
        let [bias, first, second, gradient] = &mut self.output_bias;
        for block in &mut self.blocks {
            if block.constant {
                block.constant_backward(s, super::simd::lanes::<S>(gradient.as_flattened()));
            } else if single {
                // What S leaves to be done: see the top of this file.
                let Block { gradient, weights, .. } = block;
                for k in 0..V {
                    let rest = s.mul(gradient.bias[k], weights.bias[k]);
                    gradient.output[0][k] = s.add(gradient.output[0][k], rest);
                    gradient.bias[k] = s.mul(gradient.bias[k], weights.output[0][k]);
                }
            }
            let Block { weights, moments: [first, second], gradient, output_mask, .. } = block;
            update.apply(&mut weights.bias, &mut first.bias, &mut second.bias, gradient.bias, None);
            for o in 0..weights.output.len() {
                update.apply(
                    &mut weights.output[o],
                    &mut first.output[o],
                    &mut second.output[o],
                    gradient.output[o],
                    output_mask.as_ref().map(|masks| &masks[o]),
                );
            }
        }
        for o in 0..bias.len() {
            update.apply(&mut bias[o], &mut first[o], &mut second[o], gradient[o], None);
        }
    }
}

impl<S: Simd, const V: usize> Block<S, V> {
    /// Errors of the rows with one output, without the factor w2.
    #[inline(always)]
    fn spread(&mut self, s: S, tile: &Tile, deltas: &Logits<S>, errors: &mut Errors<S, V>) {
        let mut bias = self.gradient.bias;
        for (b, delta) in deltas.of(0).iter().enumerate().take(tile.samples) {
            let delta = s.splat(*delta);
            let row = self.active[b].map(|active| s.select(active, delta));
            errors.rows[b] = row;
            for k in 0..V {
                bias[k] = s.add(bias[k], row[k]);
            }
        }
        self.gradient.bias = bias;
    }

    /// Errors of the rows with several outputs, and the gradient of w2.
    #[inline(always)]
    fn spread_many(&mut self, s: S, tile: &Tile, deltas: &Logits<S>, errors: &mut Errors<S, V>) {
        for b in 0..tile.samples {
            let mut row = [s.zero(); V];
            for (o, w2) in self.weights.output.iter().enumerate() {
                let delta = s.splat(deltas.of(o)[b]);
                for k in 0..V {
                    row[k] = s.mul_add(delta, w2[k], row[k]);
                    let sum = &mut self.gradient.output[o][k];
                    *sum = s.mul_add(delta, self.values[b][k], *sum);
                }
            }
            for k in 0..V {
                row[k] = s.select(self.active[b][k], row[k]);
                self.gradient.bias[k] = s.add(self.gradient.bias[k], row[k]);
            }
            errors.rows[b] = row;
        }
    }

    #[inline(always)]
    fn columns_backward(&mut self, s: S, tile: &Tile, errors: &Errors<S, V>, step: &Step<'_, S>) {
        let single = self.values.is_empty();
        let factor = if single { self.weights.output[0] } else { [s.splat(1.0); V] };
        let mut output = [s.zero(); V];
        for (w, (members, alive)) in tile.members.iter().zip(step.alive).enumerate() {
            let mut rest = *alive;
            while rest != 0 {
                let i = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let at = column(w * TILE + i);
                let mut sum = errors.sum(s, members[i], step.fours);
                if !step.first {
                    for k in 0..V {
                        sum[k] = s.add(sum[k], self.gradient.matrix[at][k]);
                    }
                }
                if single && step.last {
                    let c1 = self.columns()[at];
                    for k in 0..V {
                        output[k] = s.mul_add(sum[k], c1[k], output[k]);
                    }
                }
                if !step.last {
                    self.gradient.matrix[at] = sum;
                    continue;
                }
                let gradient: [S::Vector; V] = std::array::from_fn(|k| s.mul(sum[k], factor[k]));
                if step.identity {
                    let [first, second] = &mut self.moments;
                    step.update.apply(
                        &mut self.weights.matrix[at],
                        &mut first.matrix[at],
                        &mut second.matrix[at],
                        gradient,
                        self.matrix_mask.as_ref().map(|masks| &masks[at]),
                    );
                } else {
                    self.gradient.matrix[at] = gradient;
                }
            }
        }
        if single && step.last {
            self.gradient.output[0] = output;
        }
    }

    /// Gradients of rows that have the same value at all samples; `deltas` are summed over the batch.
    #[inline(always)]
    fn constant_backward(&mut self, s: S, deltas: &[f32]) {
        let Self { weights, gradient, .. } = self;
        gradient.bias = [s.zero(); V];
        for ((w2, output), delta) in weights.output.iter().zip(&mut gradient.output).zip(deltas) {
            let delta = s.splat(*delta);
            for k in 0..V {
                let error = s.select(s.positive(weights.bias[k]), delta);
                gradient.bias[k] = s.mul_add(error, w2[k], gradient.bias[k]);
                output[k] = s.mul(delta, s.max(weights.bias[k], s.zero()));
            }
        }
    }
}
