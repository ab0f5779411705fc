//! Gradients of a batch, and the optimizer step that uses them up.
//!
//! With one output, row r, variable i and delta_b the derivative of the loss by sample b's logit,
//!
//! - dW1\[r, i\] = w2\[r\] S\[r, i\], where S\[r, i\] is the sum of delta_b over the samples b that have
//!   variable i and activate row r;
//! - dw2\[r\] = sum of delta_b h_b\[r\] = sum over i of S\[r, i\] C1\[r, i\] + S\[r\] b1\[r\], because h is linear
//!   where the row is active: the hidden values themselves are not needed again.
//!
//! S\[., i\] is summed in registers. All columns are summed first and updated then: the two loops wait for
//! different things, and a CPU sees further ahead in each by itself than in one loop that does both.

use super::forward::Logits;
use super::net::{Block, Columns, Net};
use super::optimizer::Update;
use super::simd::{Simd, lanes_mut};
use super::tile::{Bits, PLACES, TILE, Tile};

/// Errors of a tile's hidden rows, by sample, and a null row.
pub(super) struct Errors<S: Simd, const V: usize> {
    rows: Box<[[S::Vector; V]; PLACES]>,
}

impl<S: Simd, const V: usize> Errors<S, V> {
    pub(super) fn new(s: S) -> Self {
        Self { rows: Box::new([[s.zero(); V]; PLACES]) }
    }

    /// Sum over the samples that are bits of `members`; `fours` is how many fours they mostly fill.
    #[inline(always)]
    fn sum(&self, s: S, mut members: Bits, fours: usize) -> [S::Vector; V] {
        // Two sums side by side, so that an addition does not wait for the one before.
        let mut even = [s.zero(); V];
        let mut odd = [s.zero(); V];
        // The length is known before the first addition, so that a mispredicted end costs little.
        for _ in 0..fours.max(members.fours()) {
            self.add_four(s, &mut members, &mut even, &mut odd);
        }
        for k in 0..V {
            even[k] = s.add(even[k], odd[k]);
        }
        even
    }

    /// Adds the rows of four members, or null rows where none are left.
    #[inline(always)]
    fn add_four(&self, s: S, members: &mut Bits, even: &mut [S::Vector; V], odd: &mut [S::Vector; V]) {
        for i in 0..4 {
            let sums = if i % 2 == 0 { &mut *even } else { &mut *odd };
            let row = &self.rows[members.next()];
            for k in 0..V {
                sums[k] = s.add(sums[k], row[k]);
            }
        }
    }
}

/// What the backward passes of a batch have in common.
#[derive(Clone, Copy)]
pub(super) struct Step<'a, S: Simd> {
    pub(super) update: Update<S>,
    /// See [`Padding`](super::tile::Padding).
    pub(super) fours: &'a [[usize; TILE]],
    /// Variables whose columns take part, as bits.
    pub(super) alive: &'a [u64],
    pub(super) identity: bool,
    /// See [`Bits`].
    pub(super) minus_one: u64,
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
            let mut sum = s.zero();
            for vector in &vectors[..tile.samples.div_ceil(S::LANES)] {
                sum = s.add(sum, *vector);
            }
            *bias += s.sum(sum);
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
            block.add_columns(s, tile, errors, step);
            if step.last && step.identity {
                block.finish_columns(s, step);
            }
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
            update.apply::<_, false>(
                &mut weights.bias,
                &mut first.bias,
                &mut second.bias,
                gradient.bias,
                None,
            );
            for o in 0..weights.output.len() {
                update.apply::<_, false>(
                    &mut weights.output[o],
                    &mut first.output[o],
                    &mut second.output[o],
                    gradient.output[o],
                    output_mask.as_ref().map(|masks| &masks[o]),
                );
            }
        }
        for o in 0..bias.len() {
            update.apply::<_, false>(&mut bias[o], &mut first[o], &mut second[o], gradient[o], None);
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
            for k in 0..V {
                let error = s.select(self.active[b][k], delta);
                errors.rows[b][k] = error;
                bias[k] = s.add(bias[k], error);
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

    /// Adds S of a tile to that of its batch.
    #[inline(always)]
    fn add_columns(&mut self, s: S, tile: &Tile, errors: &Errors<S, V>, step: &Step<'_, S>) {
        let gradients: &mut [Columns<S, V>] = self.gradient.matrix.as_chunks_mut().0;
        let words = tile.members.iter().zip(step.alive).zip(step.fours).zip(gradients);
        for (((members, alive), fours), gradients) in words {
            let mut alive = Bits::new(*alive, step.minus_one);
            while !alive.is_empty() {
                let i = alive.next();
                let members = Bits::new(members[i % TILE], step.minus_one);
                let mut sum = errors.sum(s, members, fours[i % TILE]);
                if !step.first {
                    for k in 0..V {
                        sum[k] = s.add(sum[k], gradients[i][k]);
                    }
                }
                gradients[i] = sum;
            }
        }
    }

    /// The identity's last use of S: updates W1 and leaves the gradient of w2.
    #[inline(always)]
    fn finish_columns(&mut self, s: S, step: &Step<'_, S>) {
        let factor = self.factor(s);
        let output = match (step.update.plain, self.matrix_mask.is_some()) {
            (true, false) => self.update_columns::<true, false>(s, step, &factor),
            (true, true) => self.update_columns::<true, true>(s, step, &factor),
            (false, _) => self.update_columns::<false, true>(s, step, &factor),
        };
        self.take_output(output);
    }

    /// Updates W1 with the gradients by C1 times C0^T, `pulled`, by input; leaves the gradient of w2: the sum of
    /// S C1 over variables is that of (S C0^T) W1 over inputs.
    #[inline(always)]
    pub(super) fn update_inputs(&mut self, s: S, update: &Update<S>, pulled: &[[S::Vector; V]]) {
        let factor = self.factor(s);
        let mut output = [s.zero(); V];
        let Self { weights, moments: [first, second], matrix_mask, .. } = self;
        let masks = matrix_mask.as_deref();
        for (i, gradient) in pulled.iter().enumerate() {
            let (w, m, v) = (&mut weights.matrix[i], &mut first.matrix[i], &mut second.matrix[i]);
            let gradient = scale(s, *gradient, w, &factor, &mut output);
            let mask = masks.map(|masks| &masks[i]);
            if update.plain {
                update.apply::<V, true>(w, m, v, gradient, mask);
            } else {
                update.apply::<V, false>(w, m, v, gradient, mask);
            }
        }
        self.take_output(output);
    }

    /// What S lacks of the gradient: w2 with one output.
    #[inline(always)]
    fn factor(&self, s: S) -> [S::Vector; V] {
        if self.values.is_empty() { self.weights.output[0] } else { [s.splat(1.0); V] }
    }

    /// Keeps the gradient of w2 with one output; that of several is summed sample by sample.
    #[inline(always)]
    fn take_output(&mut self, output: [S::Vector; V]) {
        if self.values.is_empty() {
            self.gradient.output[0] = output;
        }
    }

    /// Updates W1 with `factor` S; returns the sum of S C1 over the columns. `PLAIN`: see
    /// [`Update::apply`]; `MASKED` may only be unset if W1 has no mask.
    #[inline(always)]
    fn update_columns<const PLAIN: bool, const MASKED: bool>(
        &mut self,
        s: S,
        step: &Step<'_, S>,
        factor: &[S::Vector; V],
    ) -> [S::Vector; V] {
        let mut output = [s.zero(); V];
        let masks = if MASKED { self.matrix_mask.as_deref() } else { None };
        let [first, second] = &mut self.moments;
        let gradients: &[Columns<S, V>] = self.gradient.matrix.as_chunks().0;
        let weights: &mut [Columns<S, V>] = self.weights.matrix.as_chunks_mut().0;
        let first: &mut [Columns<S, V>] = first.matrix.as_chunks_mut().0;
        let second: &mut [Columns<S, V>] = second.matrix.as_chunks_mut().0;
        let words = step.alive.iter().zip(gradients).zip(weights).zip(first).zip(second);
        for (word, ((((alive, gradients), weights), first), second)) in words.enumerate() {
            let mut alive = Bits::new(*alive, step.minus_one);
            while !alive.is_empty() {
                let i = alive.next();
                let (w, m, v) = (&mut weights[i], &mut first[i], &mut second[i]);
                let gradient = scale(s, gradients[i], w, factor, &mut output);
                let mask = masks.map(|masks| &masks[word * PLACES + i]);
                step.update.apply::<V, PLAIN>(w, m, v, gradient, mask);
            }
        }
        output
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

/// `factor` times a column of S; adds the column times the weights to `output`.
#[inline(always)]
fn scale<S: Simd, const V: usize>(
    s: S,
    mut column: [S::Vector; V],
    weights: &[S::Vector; V],
    factor: &[S::Vector; V],
    output: &mut [S::Vector; V],
) -> [S::Vector; V] {
    for k in 0..V {
        output[k] = s.mul_add(column[k], weights[k], output[k]);
        column[k] = s.mul(column[k], factor[k]);
    }
    column
}
