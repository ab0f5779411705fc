//! Edge-popup: which weights of the untrained network to keep is learned, the weights are not
//! (Ramanujan et al., arXiv 1911.13299, section 3).

use precode_core::ticket::mask::{Density, Scope};
use precode_core::train::scores::{ScoreRule, ScoreStep};
use tch::Tensor;

use super::learned::{Learner, Learns, Sgd, cosine, kth_largest};
use super::select::select;
use super::{Found, Moment, Needs, Objective, Record, Request, Start};
use crate::error::Result;

/// Learning rate of the scores at the first step.
const RATE: f64 = 0.1;
const WEIGHT_DECAY: f64 = 1e-4;

pub(super) const RECORD: Record = Record {
    name: "edge-popup",
    title: "Scores of frozen weights, learned through the choice of the best",
    needs: Needs { data: true, gradients: true, ..Needs::NONE },
    schedule: "learned; one search for each density",
    cost: "the epochs of one training for each density",
    nested: false,
    reads: Moment::Never,
    rewinds: false,
    random: true,
    features: false,
    reference: "arXiv 1911.13299",
    deviations: "The fraction kept during the search is the ticket's density, over what the scope says (the \
                 paper: always layer by layer). theta_0 is the network's own, not a signed constant, and \
                 the kept weights are then trained from it. The cosine falls with every step, not every \
                 epoch. Scores are learned weight by weight; rows or columns are kept by their mean.",
    find,
};

fn find(objective: &mut dyn Objective, request: &Request) -> Result<Found> {
    let mut learner = Learner::new(objective, request, Learns::MaskAlone)?;
    let steps = learner.steps();
    // kaiming_uniform with a = sqrt(5): uniform in ±1/sqrt(fan in).
    let start =
        learner.uniform()?.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?.f_div(&learner.fan_in()?.f_sqrt()?)?;
    let mut masks = Vec::new();
    for &density in request.densities {
        let scores = match learner.engine_scores(&start)? {
            Some(mut scores) => {
                let kept = density.of(learner.prunable as usize)?;
                let rule = ScoreRule::Largest { kept, weight_decay: WEIGHT_DECAY as f32 };
                let step = |step| ScoreStep { rate: rate(step, steps) as f32, ..ScoreStep::default() };
                let epochs = 0..learner.epochs();
                learner.learn_in_engine(&mut scores, rule, epochs, None, step)?
            }
            None => by_gradients(&mut learner, &start, density, request.scope)?,
        };
        masks.push(select(&learner.split(&scores.f_abs()?)?, None, density, request)?);
    }
    let cost = vec![learner.cost(); masks.len()];
    Ok(Found { masks, start: Start::Initial, cost, scores: None, notes: vec![] })
}

/// Scores at the end of a search.
fn by_gradients(learner: &mut Learner, start: &Tensor, density: Density, scope: Scope) -> Result<Tensor> {
    let (steps, groups) = (learner.steps(), groups(learner, density, scope)?);
    let mut scores = start.f_detach_copy()?;
    let mut sgd = Sgd::new(&scores, false, WEIGHT_DECAY)?;
    for step in 0..steps {
        let effective = learner.initial.f_masked_fill(&outside(&scores, &groups)?, 0.0)?;
        // Straight through the choice, d mask / d|s| = 1, and the magnitude.
        let gradient =
            learner.gradient(&effective, step)?.f_mul_(&learner.initial)?.f_mul_(&scores.f_sign()?)?;
        sgd.step(&mut scores, gradient, rate(step, steps))?;
    }
    Ok(scores)
}

/// Learning rate of a step.
fn rate(step: u64, steps: u64) -> f64 {
    RATE * cosine(step, steps)
}

/// Columns that are compared with each other, and how many of them are kept.
struct Group {
    start: i64,
    length: i64,
    kept: i64,
}

fn groups(learner: &Learner, density: Density, scope: Scope) -> Result<Vec<Group>> {
    let group =
        |(start, length): (i64, i64)| Ok(Group { start, length, kept: density.of(length as usize)? as i64 });
    match scope {
        Scope::Global => Ok(vec![group((0, learner.prunable))?]),
        Scope::PerLayer => learner.layers().map(group).collect(),
    }
}

/// Which weights are not among the best of their group. All that tie with the last of the best are kept:
/// the ticket's own mask is chosen exactly.
fn outside(scores: &Tensor, groups: &[Group]) -> Result<Tensor> {
    let magnitude = scores.f_abs()?;
    let of_group = |group: &Group| {
        let columns = magnitude.f_narrow(1, group.start, group.length)?;
        Ok(columns.f_lt_tensor(&kth_largest(&columns, group.kept)?)?)
    };
    match groups {
        [group] => of_group(group),
        _ => Ok(Tensor::f_cat(&groups.iter().map(of_group).collect::<Result<Vec<_>>>()?, 1)?),
    }
}
