//! Scores of W1's weights, learned step by step with the gradients of the weights in effect.
//!
//! The engine itself then takes steps of rate zero: its first moments are the gradients. All numbers stay in the layout
//! of the kernels, where lanes of padding and null columns have weights, gradients and scores of zero.

use super::cut::Cut;
use super::math::sigmoid;
use super::net::{Alive, Buffers, Kept, Net, Shape, Which, column};
use super::simd::{Simd, lanes, lanes_mut};
use crate::train::scores::{self, ScoreRule, ScoreStep};

const MOMENTUM: f32 = scores::MOMENTUM as f32;
/// Scores, in \[0, 1\], of at least this are rounded to 1.
const HALF: f32 = 0.5;

/// The scores of one network: its share of the run's buffers.
pub(super) struct Scored<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) momentum: &'a mut [f32],
    pub(super) emptied: &'a mut u32,
}

/// Scores of the weights of a block, their momentum, and what the weights are multiplied with, as its W1.
struct ScoredBlock<S: Simd, const V: usize> {
    scores: Vec<[S::Vector; V]>,
    momentum: Vec<[S::Vector; V]>,
    mask: Vec<[S::Vector; V]>,
}

/// A network whose scores are learned, beside the [`Net`] of the weights in effect.
pub(super) struct Learner<S: Simd, const V: usize> {
    rule: ScoreRule,
    /// The parameters and, where they are learned, their momentum as first moments.
    parameters: Net<S, V>,
    blocks: Vec<ScoredBlock<S, V>>,
    /// Magnitudes of all scores, where the largest are asked for.
    magnitudes: Vec<f32>,
    cut: Cut,
    /// Weights of lower scores are not in effect ([`ScoreRule::Rounded`]).
    threshold: f32,
    emptied: u32,
}

impl<S: Simd, const V: usize> Learner<S, V> {
    #[inline(always)]
    pub(super) fn new<T: AsRef<[f32]>>(
        s: S,
        rule: ScoreRule,
        shape: Shape,
        alive: &Alive,
        (weights, momentum): (&Buffers<T>, &Buffers<T>),
        scored: &Scored<'_>,
    ) -> Self {
        let mut parameters = Net::new(s, shape, alive, Kept::default());
        parameters.load(Which::Weights, weights);
        parameters.load(Which::First, momentum);
        // Columns of W1 and the null columns between them, none of those behind.
        let columns = if shape.identity { column(shape.inputs - 1) + 1 } else { shape.inputs };
        let matrices = parameters.blocks.iter().map(|block| {
            let zeros = || vec![[s.zero(); V]; block.weights.matrix.len().min(columns)];
            let mut of = ScoredBlock { scores: zeros(), momentum: zeros(), mask: zeros() };
            for (numbers, from) in [(&mut of.scores, &*scored.values), (&mut of.momentum, &*scored.momentum)]
            {
                let numbers = lanes_mut::<S>(numbers.as_flattened_mut());
                block.matrix_places(&shape).for_each(|(place, lane)| numbers[lane] = from[place]);
            }
            of
        });
        let blocks = matrices.collect();
        let magnitudes = Vec::new();
        Self { rule, blocks, parameters, magnitudes, cut: Cut::default(), threshold: HALF, emptied: 0 }
    }

    /// Writes scores, parameters and momenta to a network's buffers.
    pub(super) fn store(
        &self,
        weights: &mut Buffers<&mut [f32]>,
        momentum: &mut Buffers<&mut [f32]>,
        scored: &mut Scored<'_>,
    ) {
        self.parameters.store(Which::Weights, weights);
        self.parameters.store(Which::First, momentum);
        for (block, of) in self.parameters.blocks.iter().zip(&self.blocks) {
            for (numbers, to) in [(&of.scores, &mut *scored.values), (&of.momentum, &mut *scored.momentum)] {
                let numbers = lanes::<S>(numbers.as_flattened());
                block
                    .matrix_places(&self.parameters.shape)
                    .for_each(|(place, lane)| to[place] = numbers[lane]);
            }
        }
        *scored.emptied += self.emptied;
    }

    /// Looks whether an epoch begins with a weight in effect.
    #[inline(always)]
    pub(super) fn begin_epoch(&mut self) {
        let ScoreRule::Rounded { kept, .. } = self.rule else { return };
        self.magnitudes.clear();
        for (block, of) in self.parameters.blocks.iter().zip(&self.blocks) {
            let weights = lanes::<S>(block.weights.matrix.as_flattened()).iter();
            let scores = lanes::<S>(of.scores.as_flattened());
            self.magnitudes
                .extend(weights.zip(scores).map(|(w, score)| if *w == 0.0 { 0.0 } else { *score }));
        }
        let empty = self.magnitudes.iter().all(|score| *score < HALF);
        self.emptied += u32::from(empty);
        self.threshold = if empty { self.cut.kth_largest(&self.magnitudes, kept) } else { HALF };
    }

    /// Puts the weights in effect into `net`.
    #[inline(always)]
    pub(super) fn put_in_effect(&mut self, net: &mut Net<S, V>, step: &ScoreStep) {
        match self.rule {
            ScoreRule::Largest { kept, .. } => {
                self.magnitudes.clear();
                for of in &self.blocks {
                    let scores = lanes::<S>(of.scores.as_flattened());
                    self.magnitudes.extend(scores.iter().map(|score| score.abs()));
                }
                let least = self.cut.kth_largest(&self.magnitudes, kept);
                self.choose(net, |score| score.abs() >= least);
            }
            ScoreRule::Rounded { .. } => {
                let threshold = self.threshold;
                self.choose(net, |score| score >= threshold);
            }
            ScoreRule::Soft { .. } => self.soften(net, step),
        }
    }

    /// Puts the weights into effect whose scores are accepted.
    #[inline(always)]
    fn choose(&self, net: &mut Net<S, V>, accepts: impl Fn(f32) -> bool) {
        for ((block, of), parameters) in net.blocks.iter_mut().zip(&self.blocks).zip(&self.parameters.blocks)
        {
            let effective = lanes_mut::<S>(block.weights.matrix.as_flattened_mut());
            let scores = lanes::<S>(of.scores.as_flattened());
            let weights = lanes::<S>(parameters.weights.matrix.as_flattened());
            for ((effective, score), w) in effective.iter_mut().zip(scores).zip(weights) {
                *effective = if accepts(*score) { *w } else { 0.0 };
            }
        }
    }

    /// Puts all parameters into effect, W1 times the soft mask.
    #[inline(always)]
    fn soften(&mut self, net: &mut Net<S, V>, step: &ScoreStep) {
        let s = net.s;
        for ([effective, _], [parameters, _]) in net.numbers_mut().zip(self.parameters.numbers_mut()) {
            effective.copy_from_slice(parameters);
        }
        let (steepness, two) = (s.splat(step.steepness), s.splat(2.0));
        for (block, of) in net.blocks.iter_mut().zip(&mut self.blocks) {
            if let Some(factor) = step.restart {
                for score in lanes_mut::<S>(of.scores.as_flattened_mut()) {
                    *score = (*score * factor).min(0.0);
                }
            }
            let numbers = block.weights.matrix.iter_mut().zip(&of.scores).zip(&mut of.mask);
            for ((effective, scores), mask) in numbers {
                for k in 0..V {
                    // sigmoid(0) is 1/2.
                    mask[k] = s.mul(two, sigmoid(s, s.mul(steepness, scores[k])));
                    effective[k] = s.mul(effective[k], mask[k]);
                }
            }
        }
    }

    /// Moves the scores against the gradients that are the first moments of `net`.
    #[inline(always)]
    pub(super) fn learn(&mut self, net: &mut Net<S, V>, step: &ScoreStep) {
        let rate = step.rate;
        if let ScoreRule::Soft { weight_decay, .. } = self.rule {
            self.learn_softly(net, step);
            self.parameters.learn_with_momentum(net, rate, weight_decay);
            return;
        }
        for ((block, of), parameters) in net.blocks.iter().zip(&mut self.blocks).zip(&self.parameters.blocks)
        {
            let gradients = lanes::<S>(block.moments[0].matrix.as_flattened());
            let weights = lanes::<S>(parameters.weights.matrix.as_flattened());
            let scores = lanes_mut::<S>(of.scores.as_flattened_mut());
            let momentum = lanes_mut::<S>(of.momentum.as_flattened_mut());
            let numbers = scores.iter_mut().zip(momentum).zip(gradients.iter().zip(weights));
            // Straight through the choice: the mask has slope 1 by |score|, or by the score.
            match self.rule {
                ScoreRule::Largest { weight_decay, .. } => {
                    for ((score, momentum), (gradient, w)) in numbers {
                        let along = gradient * w;
                        let sign = f32::from(*score > 0.0) - f32::from(*score < 0.0);
                        *momentum = *momentum * MOMENTUM + (along * sign + *score * weight_decay);
                        *score += *momentum * -rate;
                    }
                }
                ScoreRule::Rounded { penalty, .. } => {
                    for ((score, momentum), (gradient, w)) in numbers {
                        let along = gradient * w + *score * (2.0 * penalty);
                        *momentum = *momentum * MOMENTUM + along;
                        *score = (*score + *momentum * -rate).clamp(0.0, 1.0);
                    }
                }
                ScoreRule::Soft { .. } => {}
            }
        }
    }

    /// Moves the scores of a soft mask, and turns the gradients by the weights in effect to those by W1.
    #[inline(always)]
    fn learn_softly(&mut self, net: &mut Net<S, V>, step: &ScoreStep) {
        let ScoreRule::Soft { penalty, .. } = self.rule else { return };
        let rate = step.rate;
        for ((block, of), parameters) in
            net.blocks.iter_mut().zip(&mut self.blocks).zip(&self.parameters.blocks)
        {
            let gradients = lanes_mut::<S>(block.moments[0].matrix.as_flattened_mut());
            let weights = lanes::<S>(parameters.weights.matrix.as_flattened());
            let masks = lanes::<S>(of.mask.as_flattened());
            let scores = lanes_mut::<S>(of.scores.as_flattened_mut());
            let momentum = lanes_mut::<S>(of.momentum.as_flattened_mut());
            let numbers = scores.iter_mut().zip(momentum).zip(gradients.iter_mut().zip(weights).zip(masks));
            for ((score, momentum), ((gradient, w), mask)) in numbers {
                let slope = step.steepness * *mask * (1.0 - 0.5 * *mask);
                let along = (*gradient * w + penalty) * slope;
                *momentum = *momentum * MOMENTUM + along;
                *score += (along + *momentum * MOMENTUM) * -rate;
                *gradient *= mask;
            }
        }
    }
}

impl<S: Simd, const V: usize> Net<S, V> {
    /// Moves these weights, whose momentum are the first moments, against the first moments of `gradients`.
    #[inline(always)]
    fn learn_with_momentum(&mut self, gradients: &mut Self, rate: f32, weight_decay: f32) {
        for ([weights, momentum], [_, gradients]) in self.numbers_mut().zip(gradients.numbers_mut()) {
            for ((w, momentum), gradient) in weights.iter_mut().zip(momentum).zip(gradients) {
                let along = *gradient + *w * weight_decay;
                *momentum = *momentum * MOMENTUM + along;
                *w += (along + *momentum * MOMENTUM) * -rate;
            }
        }
    }
}
