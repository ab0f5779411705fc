//! Continuous Sparsification: weights are multiplied by sigmoids of learned scores, which become steeper
//! until they are 0 or 1 (Savarese, Silva and Maire, arXiv 1912.04427, algorithm 2).

use precode_core::train::scores::{ScoreRule, ScoreStep};
use tch::{Kind, Tensor};

use super::learned::{Learner, Learns, Sgd, cosine, numbers};
use super::select::select;
use super::{Found, Moment, Needs, Objective, Record, Request, Start};
use crate::error::Result;

/// Learning rate of weights and scores at the first step of a round, as published. It also suits networks of
/// tens of units: 0.03 and 0.3 found no better tickets.
const RATE: f64 = 0.1;
const WEIGHT_DECAY: f64 = 1e-4;
/// Weight of the sum of the soft mask in the loss.
const LAMBDA: f64 = 1e-8;
/// s0, the scores at the start.
const INITIAL: f64 = 0.0;
/// beta at the end of a round; it starts at 1.
const FINAL_STEEPNESS: f64 = 200.0;
const ROUNDS: u64 = 3;

pub(super) const RECORD: Record = Record {
    name: "continuous-sparsification",
    title: "Weights and a soft mask learned together, the mask hardened step by step",
    needs: Needs { data: true, gradients: true, ..Needs::NONE },
    schedule: "learned; one search of 3 rounds for all densities",
    cost: "the epochs of one training",
    nested: true,
    reads: Moment::Never,
    rewinds: false,
    random: false,
    features: false,
    reference: "arXiv 1912.04427",
    deviations: "The 3 rounds share the epochs of one training (the official code: 85 epochs each). beta \
                 rises with every step, and the rate falls by a cosine within each round, not in two drops. \
                 The mask keeps the largest scores, for any density (natural_density: what their signs \
                 would keep), and is then trained from theta_0 (the official code: from epoch 2).",
    find,
};

fn find(objective: &mut dyn Objective, request: &Request) -> Result<Found> {
    let mut learner = Learner::new(objective, request, Learns::Weights)?;
    let steps = learner.steps();
    let start = learner.initial.f_narrow(1, 0, learner.prunable)?.f_full_like(INITIAL)?;
    let scores = match learner.engine_scores(&start)? {
        Some(mut scores) => {
            let rule = ScoreRule::Soft { penalty: LAMBDA as f32, weight_decay: WEIGHT_DECAY as f32 };
            let step = |step| {
                let RoundStep { rate, steepness, restarts } = RoundStep::of(step, steps);
                let restart = restarts.then_some(FINAL_STEEPNESS as f32);
                ScoreStep { rate: rate as f32, steepness: steepness as f32, restart }
            };
            let epochs = 0..learner.epochs();
            learner.learn_in_engine(&mut scores, rule, epochs, None, step)?
        }
        None => by_gradients(&mut learner, start)?,
    };
    let natural = numbers(&scores.f_gt(0.0)?.f_mean_dim(1, false, Kind::Double)?)?;
    let scores = learner.split(&scores)?;
    let masks: Vec<Vec<Tensor>> = request
        .densities
        .iter()
        .map(|&density| select(&scores, None, density, request))
        .collect::<Result<_>>()?;
    let cost = vec![learner.cost(); masks.len()];
    let notes = vec![("natural_density".into(), vec![natural; masks.len()])];
    Ok(Found { masks, start: Start::Initial, cost, scores: None, notes })
}

/// Scores at the end of a search.
fn by_gradients(learner: &mut Learner, mut scores: Tensor) -> Result<Tensor> {
    let steps = learner.steps();
    let mut parameters = learner.initial.f_detach_copy()?;
    // A view: it moves with the parameters.
    let weights = parameters.f_narrow(1, 0, learner.prunable)?;
    let mut weight_sgd = Sgd::new(&parameters, true, WEIGHT_DECAY)?;
    let mut score_sgd = Sgd::new(&scores, true, 0.0)?;
    for step in 0..steps {
        let RoundStep { rate, steepness, restarts } = RoundStep::of(step, steps);
        if restarts {
            let _ = scores.f_mul_scalar_(FINAL_STEEPNESS)?.f_clamp_max_(INITIAL)?;
        }
        let mask = SoftMask::new(&scores, steepness)?;
        let effective = parameters.f_detach_copy()?;
        let _ = effective.f_narrow(1, 0, learner.prunable)?.f_mul_(&mask.values)?;
        let gradient = learner.gradient(&effective, step)?;
        let mut of_weights = gradient.f_narrow(1, 0, learner.prunable)?;
        let of_scores = mask.gradient(&of_weights.f_mul(&weights)?.f_add_scalar_(LAMBDA)?)?;
        let _ = of_weights.f_mul_(&mask.values)?;
        weight_sgd.step(&mut parameters, gradient, rate)?;
        score_sgd.step(&mut scores, of_scores, rate)?;
    }
    Ok(scores)
}

/// A step's place in its round.
struct RoundStep {
    rate: f64,
    steepness: f64,
    /// Whether it is the first of a round but the first.
    restarts: bool,
}

impl RoundStep {
    fn of(step: u64, steps: u64) -> Self {
        let bound = |round: u64| steps * round / ROUNDS;
        let round = (0..ROUNDS).rev().find(|&round| bound(round) <= step).unwrap_or(0);
        let (first, end) = (bound(round), bound(round + 1));
        let done = (step - first) as f64 / (end - first - 1).max(1) as f64;
        Self {
            rate: RATE * cosine(step - first, end - first),
            steepness: FINAL_STEEPNESS.powf(done),
            restarts: step == first && first > 0,
        }
    }
}

/// sigmoid(beta s) / sigmoid(s0).
struct SoftMask {
    values: Tensor,
    sigmoid: Tensor,
    steepness: f64,
}

impl SoftMask {
    fn new(scores: &Tensor, steepness: f64) -> Result<Self> {
        let sigmoid = sigmoid(&scores.f_mul_scalar(steepness)?)?;
        Ok(Self { values: sigmoid.f_mul_scalar(1.0 / initial_sigmoid())?, sigmoid, steepness })
    }

    /// Gradient with respect to the scores, from that with respect to the mask.
    fn gradient(&self, of_mask: &Tensor) -> Result<Tensor> {
        let slope = Tensor::f_sigmoid_backward(of_mask, &self.sigmoid)?;
        Ok(slope.f_mul_scalar(self.steepness / initial_sigmoid())?)
    }
}

/// The sigmoid of (R, N) numbers, the same bits for a network in any stack.
///
/// On the CPU libtorch computes whole vector registers and a rest of fewer elements by routines that differ
/// in the last bit, which steep sigmoids amplify. With rows of a multiple of 64 there is no rest.
fn sigmoid(scores: &Tensor) -> Result<Tensor> {
    let columns = scores.size()[1];
    let padding = (-columns).rem_euclid(64);
    Ok(scores.f_constant_pad_nd([0, padding])?.f_sigmoid_()?.f_narrow(1, 0, columns)?)
}

fn initial_sigmoid() -> f64 {
    1.0 / (1.0 + (-INITIAL).exp())
}
