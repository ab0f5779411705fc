//! Gem-Miner: scores between 0 and 1 that are rounded to a mask, and from time to time the lowest of them
//! frozen at 0 (Sreenivasan et al., "Rare Gems", arXiv 2202.12002, algorithm 1).

use precode_core::ticket::mask::Density;
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
    needs: Needs { data: true, gradients: true, dense_run: false, clauses: false, clauses_in_data: false },
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
    let (steps, epoch_steps) = (learner.steps(), learner.steps_per_epoch());
    let epochs = learner.epochs();
    let freezes = ((epochs - 1) / PERIOD).max(1);
    let kept = density.of(learner.prunable as usize)? as i64;
    // A control that keeps the lowest scores still learns as the method does.
    let uninverted = Request { invert: false, ..*request };
    let mut scores = start.f_detach_copy()?;
    let mut sgd = Sgd::new(&scores, false, 0.0)?;
    let mut frozen = 0;
    // Which weights are not frozen: as masks, and 1 or 0.
    let mut masks: Option<Vec<Tensor>> = None;
    let mut alive = scores.f_ones_like()?;
    let mut weights = learner.initial.f_detach_copy()?;
    // Freezes that each weight has survived.
    let mut survived = scores.f_zeros_like()?;
    let mut emptied = survived.f_narrow(1, 0, 1)?.f_detach_copy()?;
    for epoch in 0..epochs {
        // An empty network has no gradients to learn from: there the best scores stay in effect.
        let candidates = scores.f_mul(&alive)?;
        let empty = candidates.f_amax([1i64].as_slice(), true)?.f_lt(THRESHOLD)?;
        let _ = emptied.f_add_(&empty)?;
        let threshold = kth_largest(&candidates, kept)?.f_masked_fill(&empty.f_logical_not()?, THRESHOLD)?;
        for step in u64::from(epoch) * epoch_steps..u64::from(epoch + 1) * epoch_steps {
            let effective = weights.f_masked_fill(&scores.f_lt_tensor(&threshold)?, 0.0)?;
            // Straight through the rounding: d mask / d score = 1 for the weights that are not frozen.
            let gradient = learner.gradient(&effective, step)?.f_mul_(&weights)?;
            let gradient = gradient.f_add(&scores.f_mul_scalar(2.0 * LAMBDA)?)?;
            sgd.step(&mut scores, gradient, RATE * cosine(step, steps))?;
            let _ = scores.f_clamp_(0.0, 1.0)?;
        }
        if frozen < freezes && ((epoch + 1) % PERIOD == 0 || epoch + 1 == epochs) {
            frozen += 1;
            let density = Density::new(density.value().powf(f64::from(frozen) / f64::from(freezes)))?;
            let survivors = select(&learner.split(&scores)?, masks.as_deref(), density, &uninverted)?;
            alive = learner.join(&survivors)?;
            masks = Some(survivors);
            let _ = survived.f_add_(&alive)?;
            let _ = weights.f_mul_(&alive)?;
        }
    }
    let rounded = scores.f_ge(THRESHOLD)?.f_logical_and(&alive)?.f_mean_dim(1, false, Kind::Double)?;
    // Those that survived longest come first: every score is at most 1.
    let rank = survived.f_mul_scalar(2.0)?.f_add(&scores)?;
    let mask = select(&learner.split(&rank)?, None, density, request)?;
    Ok(Gem { mask, rounded: numbers(&rounded)?, emptied: numbers(&emptied)? })
}
