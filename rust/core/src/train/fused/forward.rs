//! Logits of a tile, and their loss.

use super::math::logistic_loss;
use super::net::{Block, Columns, Net};
use super::simd::{MAX_LANES, Simd, lanes};
use super::tile::{Bits, TILE, Tile, minus_one};

/// Logits of a tile, then their derivatives: by output, then by sample.
pub(super) struct Logits<S: Simd> {
    /// `TILE / LANES` vectors for each output.
    pub(super) vectors: Vec<S::Vector>,
}

/// What a number of samples add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Sum of the losses over samples and outputs.
    pub(super) loss: f64,
    /// Labels on the wrong side; a NaN logit is on the wrong side of either label.
    pub(super) wrong: u64,
}

impl<S: Simd> Logits<S> {
    /// Vectors of one output.
    pub(super) const VECTORS: usize = TILE / S::LANES;

    #[inline(always)]
    pub(super) fn new(s: S, outputs: usize) -> Self {
        Self { vectors: vec![s.zero(); outputs * Self::VECTORS] }
    }

    /// Replaces the logits of a tile by `scale` times the derivatives of their losses (0 for samples
    /// that do not exist) and adds the losses to `totals`.
    #[inline(always)]
    pub(super) fn differentiate(&mut self, s: S, tile: &Tile, scale: f32, totals: &mut Totals) {
        let mut losses = s.zero();
        let scale = s.splat(scale);
        for (labels, logits) in tile.labels.iter().zip(self.vectors.chunks_exact_mut(Self::VECTORS)) {
            for (k, z) in logits.iter_mut().enumerate().take(tile.samples.div_ceil(S::LANES)) {
                let shift = k * S::LANES;
                let valid = tile.valid() >> shift & (u64::MAX >> (64 - S::LANES));
                let (labels, valid_mask) = (labels >> shift & valid, s.mask_from_bits(valid));
                let nan = s.mask_to_bits(s.is_nan(*z));
                let wrong = (s.mask_to_bits(s.positive(*z)) ^ labels) | nan;
                totals.wrong += u64::from((wrong & valid).count_ones());
                let (loss, slope) = logistic_loss(s, *z, s.mask_from_bits(labels));
                losses = s.add(losses, s.select(valid_mask, loss));
                *z = s.select(valid_mask, s.mul(slope, scale));
            }
        }
        totals.loss += f64::from(s.sum(losses));
    }

    /// The numbers of one output, by sample.
    #[inline(always)]
    pub(super) fn of(&self, output: usize) -> &[f32] {
        lanes::<S>(&self.vectors[output * Self::VECTORS..][..Self::VECTORS])
    }
}

impl<S: Simd, const V: usize> Net<S, V> {
    /// Part of each output's logit that is the same for all samples: b2 and the constant rows.
    #[inline(always)]
    pub(super) fn base(&self, base: &mut [f32]) {
        let s = self.s;
        base.copy_from_slice(&lanes::<S>(self.output_bias[0].as_flattened())[..base.len()]);
        for block in self.blocks.iter().filter(|block| block.constant) {
            for (base, w2) in base.iter_mut().zip(&block.weights.output) {
                *base += s.sum(weigh(s, &block.weights.bias, w2));
            }
        }
    }

    /// Computes the logits of a tile. `slots`: see [`Padding`](super::tile::Padding).
    #[inline(always)]
    pub(super) fn forward(&mut self, tile: &Tile, slots: &[usize], base: &[f32], logits: &mut Logits<S>) {
        let s = self.s;
        for (base, logits) in base.iter().zip(logits.vectors.chunks_exact_mut(Logits::<S>::VECTORS)) {
            logits.fill(s.splat(*base));
        }
        for block in self.blocks.iter_mut().filter(|block| !block.constant) {
            if self.shape.outputs == 1 {
                // Loops of a known length for the sparse samples of the paper's tasks.
                match slots {
                    [4] => block.forward::<4>(s, tile, slots, &mut logits.vectors),
                    [6] => block.forward::<6>(s, tile, slots, &mut logits.vectors),
                    [8] => block.forward::<8>(s, tile, slots, &mut logits.vectors),
                    _ => block.forward::<0>(s, tile, slots, &mut logits.vectors),
                }
            } else {
                block.forward_many(s, tile, slots, &mut logits.vectors);
            }
        }
    }
}

impl<S: Simd, const V: usize> Block<S, V> {
    /// The forward pass with one output; `SLOTS` is 0 or the only entry of `slots`.
    #[inline(always)]
    fn forward<const SLOTS: usize>(&mut self, s: S, tile: &Tile, slots: &[usize], logits: &mut [S::Vector]) {
        let minus_one = minus_one();
        let (bias, w2) = (self.weights.bias, self.weights.output[0]);
        let columns = if self.features.is_empty() { &self.weights.matrix } else { &self.features };
        let columns: &[Columns<S, V>] = columns.as_chunks().0;
        let groups = self.active.chunks_exact_mut(S::LANES).zip(logits);
        for (group, (active, logits)) in groups.enumerate().take(tile.samples.div_ceil(S::LANES)) {
            let mut fours = [s.zero(); MAX_LANES / 4];
            for (four, sum) in fours.iter_mut().enumerate().take(S::LANES / 4) {
                let mut rows = [s.zero(); 4];
                for i in 0..4 {
                    let lane = 4 * four + i;
                    let b = group * S::LANES + lane;
                    let mut h = bias;
                    for ((words, slots), columns) in tile.inputs.iter().zip(slots).zip(columns) {
                        let slots = if SLOTS > 0 { SLOTS } else { *slots };
                        add_columns(s, columns, Bits::new(words[b % TILE], minus_one), slots, &mut h);
                        if SLOTS > 0 {
                            break;
                        }
                    }
                    for k in 0..V {
                        active[lane][k] = s.positive(h[k]);
                    }
                    rows[i] = weigh(s, &h, &w2);
                }
                *sum = s.fold_four(rows);
            }
            *logits = s.add(*logits, s.join_fours(fours));
        }
    }

    #[inline(always)]
    fn forward_many(&mut self, s: S, tile: &Tile, slots: &[usize], logits: &mut [S::Vector]) {
        let minus_one = minus_one();
        for group in 0..tile.samples.div_ceil(S::LANES) {
            for b in group * S::LANES..(group + 1) * S::LANES {
                let mut h = self.weights.bias;
                for ((words, slots), columns) in tile.inputs.iter().zip(slots).zip(self.columns()) {
                    add_columns(s, columns, Bits::new(words[b], minus_one), *slots, &mut h);
                }
                for k in 0..V {
                    self.active[b][k] = s.positive(h[k]);
                    self.values[b][k] = s.max(h[k], s.zero());
                }
            }
            for (output, w2) in self.weights.output.iter().enumerate() {
                let mut fours = [s.zero(); MAX_LANES / 4];
                let values = self.values[group * S::LANES..][..S::LANES].as_chunks::<4>().0;
                for (sum, values) in fours.iter_mut().zip(values) {
                    let mut rows = [s.zero(); 4];
                    for (row, h) in rows.iter_mut().zip(values) {
                        *row = weigh(s, h, w2);
                    }
                    *sum = s.fold_four(rows);
                }
                let logits = &mut logits[output * Logits::<S>::VECTORS + group];
                *logits = s.add(*logits, s.join_fours(fours));
            }
        }
    }
}

/// Adds the columns of some bits to h, and the null column for the slots that are left.
#[inline(always)]
fn add_columns<S: Simd, const V: usize>(
    s: S,
    columns: &Columns<S, V>,
    mut bits: Bits,
    slots: usize,
    h: &mut [S::Vector; V],
) {
    // Always as many as the fullest sample needs: an exact count would mispredict its branch for
    // most samples, which costs more than adding the null column.
    for _ in 0..slots / 2 {
        for _ in 0..2 {
            let column = &columns[bits.next()];
            for k in 0..V {
                h[k] = s.add(h[k], column[k]);
            }
        }
    }
}

/// The vector whose lanes add up to the sum of ReLU(h) w2 over a block.
#[inline(always)]
pub(super) fn weigh<S: Simd, const V: usize>(s: S, h: &[S::Vector; V], w2: &[S::Vector; V]) -> S::Vector {
    let mut sum = s.mul(s.max(h[0], s.zero()), w2[0]);
    for k in 1..V {
        sum = s.mul_add(s.max(h[k], s.zero()), w2[k], sum);
    }
    sum
}
