//! Gem-Miner: scores between 0 and 1 that are rounded to a mask, and from time to time the lowest of them
//! frozen at 0 (Sreenivasan et al., "Rare Gems", arXiv 2202.12002, algorithm 1).

use std::ops::Range;

use precode_core::ticket::mask::Density;
use precode_core::train::scores::{ScoreRule, ScoreStep, Scores};
use tch::{Kind, Tensor};

use super::learned::{Learner, Learns, Sgd, cosine, kth_largest, numbers};
use super::select::select;
use super::{Found, Moment, Needs, Objective, Record, Request, Start};
use crate::error::Result;

/// Learning rate of the scores at the first step.
const RATE: f64 = 0.1;
/// Weight of the squared scores in the loss.
const LAMBDA: f64 = 1e-4;
/// Epochs between two freezes.
const PERIOD: u32 = 5;
/// A weight is in effect where its score is not below.
const THRESHOLD: f64 = 0.5;

pub(super) const RECORD: Record = Record {
    name: "gem-miner",
    title: "Scores of frozen weights, rounded to a mask; the lowest are frozen at 0 (Rare Gems)",
    needs: Needs { data: true, gradients: true, ..Needs::NONE },
    schedule: "learned; one search for each density, with a freeze every 5 epochs",
    cost: "the epochs of one training for each density",
    nested: false,
    reads: Moment::Never,
    rewinds: false,
    random: true,
    features: false,
    reference: "arXiv 2202.12002",
    deviations: "Freezes are exact, so that the last one leaves the density asked for; training of fewer \
                 than 11 epochs has one freeze. theta_0 is the network's own, not a signed constant, and \
                 the kept weights are then trained from it as dense ones are. Parameters that are not \
                 prunable stay at theta_0. The cosine falls with every step, not every epoch. Where the \
                 penalty leaves no weight in effect, the best scores stay in effect for an epoch \
                 (emptied_epochs).",
    find,
};

fn find(objective: &mut dyn Objective, request: &Request) -> Result<Found> {
    let mut learner = Learner::new(objective, request, Learns::MaskAlone)?;
    let start = learner.uniform()?;
    let (mut masks, mut rounded, mut emptied) = (vec![], vec![], vec![]);
    for &density in request.densities {
        let gem = mine(&mut learner, &start, density, request)?;
        masks.push(gem.mask);
        rounded.push(gem.rounded);
        emptied.push(gem.emptied);
    }
    let cost = vec![learner.cost(); masks.len()];
    let notes = vec![("density_before_unfreeze".into(), rounded), ("emptied_epochs".into(), emptied)];
    Ok(Found { masks, start: Start::Initial, cost, scores: None, notes })
}

/// The ticket of one density.
struct Gem {
    mask: Vec<Tensor>,
    /// Density of the mask that the scores round to at the end, for each network.
    rounded: Vec<f64>,
    /// Epochs that began with every score below the threshold, for each network.
    emptied: Vec<f64>,
}

fn mine(learner: &mut Learner, start: &Tensor, density: Density, request: &Request) -> Result<Gem> {
    let epochs = learner.epochs();
    let freezes = ((epochs - 1) / PERIOD).max(1);
    // A control that keeps the lowest scores still learns as the method does.
    let uninverted = Request { invert: false, ..*request };
    let mut search = Search::new(learner, start, density)?;
    let mut masks: Option<Vec<Tensor>> = None;
    // Freezes that each weight has survived.
    let mut survived = start.f_zeros_like()?;
    let mut alive = start.f_ones_like()?;
    let mut scores = start.f_detach_copy()?;
    let (mut epoch, mut frozen) = (0, 0);
    while epoch < epochs {
        let end = epochs.min(epoch + PERIOD);
        scores = search.run(learner, epoch..end, &alive, masks.as_deref())?;
        if frozen < freezes {
            frozen += 1;
            let density = Density::new(density.value().powf(f64::from(frozen) / f64::from(freezes)))?;
            let survivors = select(&learner.split(&scores)?, masks.as_deref(), density, &uninverted)?;
            alive = learner.join(&survivors)?;
            masks = Some(survivors);
            let _ = survived.f_add_(&alive)?;
        }
        epoch = end;
    }
    let rounded = scores.f_ge(THRESHOLD)?.f_logical_and(&alive)?.f_mean_dim(1, false, Kind::Double)?;
    // Those that survived longest come first: every score is at most 1.
    let rank = survived.f_mul_scalar(2.0)?.f_add(&scores)?;
    let mask = select(&learner.split(&rank)?, None, density, request)?;
    Ok(Gem { mask, rounded: numbers(&rounded)?, emptied: search.emptied()? })
}

/// Scores that are learned between freezes: in the engine of the networks, or by their gradients.
enum Search {
    InEngine { scores: Scores, rule: ScoreRule },
    ByGradients { scores: Tensor, sgd: Sgd, kept: i64, emptied: Tensor },
}

impl Search {
    fn new(learner: &Learner, start: &Tensor, density: Density) -> Result<Self> {
        let kept = density.of(learner.prunable as usize)?;
        if let Some(scores) = learner.engine_scores(start)? {
            return Ok(Self::InEngine { scores, rule: ScoreRule::Rounded { kept, penalty: LAMBDA as f32 } });
        }
        let (scores, sgd) = (start.f_detach_copy()?, Sgd::new(start, false, 0.0)?);
        let emptied = start.f_narrow(1, 0, 1)?.f_zeros_like()?;
        Ok(Self::ByGradients { scores, sgd, kept: kept as i64, emptied })
    }

    /// Learns in some epochs and returns the scores, (R, N). Weights that are not `alive` (1 or 0; as masks, once there
    /// are such) are frozen.
    fn run(
        &mut self,
        learner: &mut Learner,
        epochs: Range<u32>,
        alive: &Tensor,
        masks: Option<&[Tensor]>,
    ) -> Result<Tensor> {
        let (steps, epoch_steps) = (learner.steps(), learner.steps_per_epoch());
        let (scores, sgd, kept, emptied) = match self {
            Self::InEngine { scores, rule } => {
                let step =
                    |step| ScoreStep { rate: (RATE * cosine(step, steps)) as f32, ..ScoreStep::default() };
                return learner.learn_in_engine(scores, *rule, epochs, masks, step);
            }
            Self::ByGradients { scores, sgd, kept, emptied } => (scores, sgd, *kept, emptied),
        };
        let weights = learner.initial.f_mul(alive)?;
        for epoch in epochs {
            // An empty network has no gradients to learn from: there the best scores stay in effect.
            let candidates = scores.f_mul(alive)?;
            let empty = candidates.f_amax([1i64].as_slice(), true)?.f_lt(THRESHOLD)?;
            let _ = emptied.f_add_(&empty)?;
            let threshold =
                kth_largest(&candidates, kept)?.f_masked_fill(&empty.f_logical_not()?, THRESHOLD)?;
            for step in u64::from(epoch) * epoch_steps..u64::from(epoch + 1) * epoch_steps {
                let effective = weights.f_masked_fill(&scores.f_lt_tensor(&threshold)?, 0.0)?;
                // Straight through the rounding: d mask / d score = 1 for the weights that are not frozen.
                let gradient = learner.gradient(&effective, step)?.f_mul_(&weights)?;
                let gradient = gradient.f_add(&scores.f_mul_scalar(2.0 * LAMBDA)?)?;
                sgd.step(scores, gradient, RATE * cosine(step, steps))?;
                let _ = scores.f_clamp_(0.0, 1.0)?;
            }
        }
        Ok(scores.f_detach_copy()?)
    }

    /// Epochs that began with every score below the threshold, for each network.
    fn emptied(&self) -> Result<Vec<f64>> {
        match self {
            Self::InEngine { scores, .. } => {
                Ok(scores.emptied.iter().map(|&epochs| f64::from(epochs)).collect())
            }
            Self::ByGradients { emptied, .. } => numbers(emptied),
        }
    }
}
