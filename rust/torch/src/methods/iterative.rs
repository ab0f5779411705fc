//! Iterative magnitude pruning: train, drop a fifth of the weights, go back, and again.

use precode_core::ticket::mask::Density;
use tch::Tensor;

use super::objective::{Objective, Plan};
use super::score::magnitudes;
use super::select::select;
use super::{Cost, Found, Moment, Needs, Record, Request, Start, initial, prunable};
use crate::error::{Result, value_error};

/// Fraction of the survivors that a level keeps.
const KEPT: f64 = 0.8;

/// Epochs after which `imp-rewind` takes the values that it goes back to.
const REWIND: u32 = 1;

/// Scores of the prunable weights of trained networks, in which only the survivors have values, of the shapes of the
/// parameters.
type Scores = fn(&mut dyn Objective, &[Tensor], Option<&[Tensor]>, &Request) -> Result<Vec<Tensor>>;

/// Where the networks of a level, and its tickets, start.
#[derive(Clone, Copy)]
pub(super) enum Back {
    /// At the values after so many epochs of the dense run.
    To(u32),
    /// At the values just trained, with the last `1 / part` of the epochs ahead.
    Nowhere { part: u32 },
}

pub(super) const IMP: Record = Record {
    name: "imp",
    title: "Iterative magnitude pruning with resetting to theta_0",
    needs: Needs { data: true, dense_run: true, ..Needs::NONE },
    schedule: "levels of density 0.8^t",
    cost: "the dense run and one training for each level above the density",
    nested: true,
    reads: Moment::End,
    rewinds: true,
    random: false,
    features: false,
    reference: "arXiv 1803.03635",
    deviations: "Levels are 0.8^t whatever densities are asked for; the mask of a density is chosen by \
                 |theta_T| among the survivors of the last level above it.",
    find: |objective, request| chain(objective, request, Back::To(request.rewind), largest),
};

pub(super) const IMP_REWIND: Record = Record {
    name: "imp-rewind",
    title: "Iterative magnitude pruning with rewinding to theta_k, k = 1 epoch unless rewind says another",
    reference: "arXiv 1912.05671",
    cost: "the dense run, and its epochs after the first again for each level above the density",
    deviations: "Levels as of imp. The ticket starts at theta_k, \
                 and its training has the rest of the budget.",
    find: |objective, request| {
        let epoch = if request.rewind == 0 { REWIND } else { request.rewind };
        chain(objective, request, Back::To(epoch), largest)
    },
    ..IMP
};

pub(super) const IMP_LR_REWIND: Record = Record {
    name: "imp-lr-rewind",
    title: "Iterative magnitude pruning with learning-rate rewinding: theta_T kept, the whole schedule again",
    reference: "arXiv 2003.02389",
    deviations: "Levels as of imp. At a constant learning rate this is continued training with a fresh \
                 optimizer and the full budget. The ticket starts at trained weights: not comparable with \
                 those from theta_0.",
    rewinds: false,
    find: |objective, request| chain(objective, request, Back::Nowhere { part: 1 }, largest),
    ..IMP
};

pub(super) const IMP_FINETUNE: Record = Record {
    name: "imp-finetune",
    title: "Iterative magnitude pruning with fine-tuning: theta_T kept, the last tenth of the epochs again",
    reference: "arXiv 1506.02626",
    cost: "the dense run and a tenth of a training for each level above the density",
    deviations: "Levels as of imp. A tenth of the epochs, rounded up, at the same learning rate and with a \
                 fresh optimizer, is our definition. The ticket starts at trained weights: not comparable \
                 with those from theta_0.",
    rewinds: false,
    find: |objective, request| chain(objective, request, Back::Nowhere { part: 10 }, largest),
    ..IMP
};

/// Density of a level of the chain; level 0 is dense.
fn level_density(level: i32) -> f64 {
    KEPT.powi(level)
}

/// Whether a level is above a density, with a margin that keeps a density that names a level, such as 0.64, from being
/// below itself by rounding.
fn is_above(level: i32, density: Density) -> bool {
    level_density(level) > density.value() * (1.0 + 1e-9)
}

/// Trainings of `imp` for a density, the dense run included.
pub(super) fn trainings(density: Density) -> u32 {
    1 + (1..).take_while(|&level| is_above(level, density)).count() as u32
}

/// Levels of pruning by the scores of the trained networks, each level trained anew.
pub(super) fn chain(
    objective: &mut dyn Objective,
    request: &Request,
    back: Back,
    scores: Scores,
) -> Result<Found> {
    let all = objective.epochs();
    let epoch = match back {
        Back::To(epoch) => epoch,
        Back::Nowhere { part } => all - all.div_ceil(part),
    };
    if matches!(back, Back::To(1..)) && epoch >= all {
        return Err(value_error!("rewinding to epoch {epoch} of {all}: train for more epochs"));
    }
    let (rewound, mut trained) = match back {
        Back::To(0) => (Some(initial(objective)), objective.dense()?),
        Back::To(epoch) => {
            // Both from one run.
            let steps = [epoch, all].map(|epoch| u64::from(epoch) * objective.steps_per_epoch());
            let mut values = objective.dense_at(&steps)?;
            let end = values.pop().unwrap_or_default();
            (values.pop(), end)
        }
        Back::Nowhere { .. } => (None, objective.dense()?),
    };
    let mut cost = Cost::of_epochs(objective.dense_epochs());
    objective.forget_dense();
    let (mut level, mut survivors): (i32, Option<Vec<Tensor>>) = (0, None);

    let densities = request.densities;
    let mut order: Vec<usize> = (0..densities.len()).collect();
    order.sort_by(|&a, &b| densities[b].value().total_cmp(&densities[a].value()));
    let empty = || densities.iter().map(|_| Vec::new()).collect::<Vec<Vec<Tensor>>>();
    let (mut masks, mut starts, mut costs) = (empty(), empty(), vec![cost.clone(); densities.len()]);
    for i in order {
        while is_above(level + 1, densities[i]) {
            request.progress.check()?;
            level += 1;
            let density = Density::new(level_density(level))?;
            let scored = scores(objective, &trained, survivors.as_deref(), request)?;
            let kept = select(&scored, survivors.as_deref(), density, request)?;
            // What is not needed any more is not held while networks are trained.
            drop((scored, survivors.take()));
            let start =
                rewound.as_ref().map_or_else(|| std::mem::take(&mut trained), |values| handles(values));
            trained.clear();
            let outcome =
                objective.train(&Plan { masks: Some(&kept), first_epoch: epoch, ..Plan::new(&start) })?;
            (trained, survivors) = (outcome.parameters, Some(kept));
            cost.add_epochs(&outcome.epochs);
        }
        let scored = scores(objective, &trained, survivors.as_deref(), request)?;
        masks[i] = select(&scored, survivors.as_deref(), densities[i], request)?;
        starts[i] = handles(rewound.as_deref().unwrap_or(&trained));
        costs[i] = cost.clone();
    }
    let start = match back {
        Back::To(0) => Start::Initial,
        _ => Start::Other { parameters: starts, epoch },
    };
    Ok(Found { masks, start, cost: costs, scores: None, notes: Vec::new() })
}

/// Trained magnitudes.
fn largest(
    objective: &mut dyn Objective,
    trained: &[Tensor],
    _: Option<&[Tensor]>,
    _: &Request,
) -> Result<Vec<Tensor>> {
    magnitudes(&prunable(objective, handles(trained)))
}

/// Further handles on the same tensors.
pub(super) fn handles(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(Tensor::shallow_clone).collect()
}
