//! Feature probes: tickets from the locations of codes, read at initialization or early in the dense run.

mod layer;
pub(super) mod translated;

use ndarray::{Array2, Axis};
use precode_core::ticket::mask::Density;
use precode_core::ticket::probe::{Penalties, Probe};
use rayon::prelude::*;
use tch::Tensor;

use self::layer::{Layer, of_network};
use super::objective::{Objective, Plan};
use super::{Cost, Found, Moment, Needs, Record, Request, Start, epochs_up_to, initial, moment};
use crate::error::{Result, value_error};

/// Epochs after which `motion` is read.
const MOTION_EPOCHS: u32 = 1;

/// Epochs after which `distance+motion` is read, and clauses are recovered where they are not told.
const EPOCHS: u32 = 2;

/// Trainings of `code-rounds`, the dense run included.
const ROUNDS: u32 = 4;

const OURS: &str =
    "our definition; arXiv 2605.17704 names feature distance and motion, its formulas are not public";

const DISTANCE_NEEDS: Needs = Needs { clauses: true, pair: true, ..Needs::NONE };
const MOTION_NEEDS: Needs = Needs { data: true, ..DISTANCE_NEEDS };

pub(super) const DISTANCE: Record = Record {
    name: "distance",
    title: "Locations nearest to their templates at theta_0, penalised on crowded rows and covered clauses",
    needs: DISTANCE_NEEDS,
    schedule: "one shot",
    cost: "none",
    nested: false,
    reads: Moment::After(0),
    rewinds: false,
    random: false,
    features: false,
    reference: OURS,
    deviations: "Uses the clauses. Signed-sum distance to 4P on positive rows, 3N1P and 2P2N on negative rows.",
    find: |objective, request| find(objective, request, Probe::DISTANCE, Read::Start, false),
};

pub(super) const DISTANCE_PLAIN: Record = Record {
    name: "distance-plain",
    title: "Locations nearest to their templates at theta_0",
    find: |objective, request| find(objective, request, plain(Probe::DISTANCE), Read::Start, false),
    ..DISTANCE
};

pub(super) const DISTANCE_BLIND: Record = Record {
    name: "distance-blind",
    title: "As distance, with clauses recovered from the network after 2 epochs",
    reads: Moment::After(EPOCHS),
    needs: Needs { data: true, clauses: false, ..DISTANCE_NEEDS },
    cost: "2 epochs",
    deviations: BLIND,
    find: |objective, request| find(objective, request, Probe::DISTANCE, Read::Start, true),
    ..DISTANCE
};

pub(super) const MOTION: Record = Record {
    name: "motion",
    title: "Locations that move furthest towards their templates within 1 epoch, penalised as distance",
    needs: MOTION_NEEDS,
    reads: Moment::After(MOTION_EPOCHS),
    cost: "1 epoch",
    find: |objective, request| find(objective, request, Probe::MOTION, Read::After(MOTION_EPOCHS), false),
    ..DISTANCE
};

pub(super) const MOTION_PLAIN: Record = Record {
    name: "motion-plain",
    title: "Locations that move furthest towards their templates within 1 epoch",
    find: |objective, request| {
        find(objective, request, plain(Probe::MOTION), Read::After(MOTION_EPOCHS), false)
    },
    ..MOTION
};

pub(super) const MOTION_BLIND: Record = Record {
    name: "motion-blind",
    title: "As motion, with clauses recovered from the network after 2 epochs",
    reads: Moment::After(EPOCHS),
    needs: Needs { clauses: false, ..MOTION_NEEDS },
    cost: "2 epochs",
    deviations: BLIND,
    find: |objective, request| find(objective, request, Probe::MOTION, Read::After(MOTION_EPOCHS), true),
    ..MOTION
};

pub(super) const BOTH: Record = Record {
    name: "distance+motion",
    title: "Templates and their parts by distance and motion within 2 epochs, shared cells first, penalised",
    needs: MOTION_NEEDS,
    reads: Moment::After(EPOCHS),
    cost: "2 epochs",
    deviations: "Uses the clauses. Signed-sum distance; parts of templates have 2 cells or more.",
    find: |objective, request| find(objective, request, Probe::BOTH, Read::After(EPOCHS), false),
    ..DISTANCE
};

pub(super) const BOTH_PLAIN: Record = Record {
    name: "distance+motion-plain",
    title: "Templates and their parts by distance and motion within 2 epochs",
    find: |objective, request| find(objective, request, plain(Probe::BOTH), Read::After(EPOCHS), false),
    ..BOTH
};

pub(super) const BOTH_BLIND: Record = Record {
    name: "distance+motion-blind",
    title: "As distance+motion, with clauses recovered from the network after 2 epochs",
    needs: Needs { clauses: false, ..MOTION_NEEDS },
    deviations: BLIND,
    find: |objective, request| find(objective, request, Probe::BOTH, Read::After(EPOCHS), true),
    ..BOTH
};

pub(super) const CODE_ROUNDS: Record = Record {
    name: "code-rounds",
    title: "As distance+motion, after 4 trainings: dense, then masked at densities d^(1/4), d^(1/2), d^(3/4)",
    needs: Needs { dense_run: true, ..MOTION_NEEDS },
    reads: Moment::End,
    schedule: "4 rounds, each from theta_0",
    cost: "the dense run and 3 trainings",
    reference: "our definition: iterative magnitude pruning (arXiv 1803.03635) with codes in place of magnitudes",
    deviations: "Uses the clauses. A round may take back weights that the last one dropped.",
    find: rounds,
    ..BOTH
};

pub(super) const ORACLE_CODES: Record = Record {
    name: "oracle-codes",
    title: "As distance+motion, read at theta_T: an upper reference",
    needs: Needs { dense_run: true, ..MOTION_NEEDS },
    reads: Moment::End,
    cost: "the dense run",
    deviations: "Uses the clauses and theta_T.",
    find: |objective, request| find(objective, request, Probe::BOTH, Read::Trained, false),
    ..BOTH
};

pub(super) const ORACLE: Record = Record {
    name: "oracle",
    title: "Feature-space alignment: theta_0 masked and scaled to be nearest to the trained features C1",
    needs: Needs { data: true, dense_run: true, pair: true, ..Needs::NONE },
    schedule: "one shot",
    cost: "the dense run",
    nested: false,
    reads: Moment::End,
    rewinds: false,
    random: false,
    features: false,
    reference: "openreview.net/forum?id=tZszYSchmV; its formula is not public, this is ours",
    deviations: "Uses theta_T: an upper reference. The published oracle chooses weights of their own; here they are \
                 those of theta_0, as for any ticket.",
    find: oracle,
};

const BLIND: &str = "Told the number and width of the clauses where they are known (else half as many as rows, of 4 \
                     variables), not their variables; recovers literals that are not negated, and fewer clauses where \
                     there are no more of that width (note clauses_recovered). Clauses of one variable are those of \
                     the largest sum of w2 c over the rows (ours).";

/// When rows and patterns are read.
#[derive(Clone, Copy)]
enum Read {
    Start,
    After(u32),
    Trained,
}

fn plain(settings: Probe) -> Probe {
    Probe { penalties: Penalties::NONE, ..settings }
}

fn find(
    objective: &mut dyn Objective,
    request: &Request,
    settings: Probe,
    read: Read,
    is_blind: bool,
) -> Result<Found> {
    let layer = Layer::of(objective, request)?;
    let start = initial(objective);
    // Both moments are read in one run, which ends with the later one.
    let warmed = if is_blind { moment(objective, request, EPOCHS) } else { 0 };
    let seen = match read {
        Read::Start => moment(objective, request, 0),
        Read::After(epochs) => moment(objective, request, epochs),
        Read::Trained => 0,
    };
    let mut early: Vec<u32> = [warmed, seen].into_iter().filter(|&epochs| epochs > 0).collect();
    early.sort_unstable();
    early.dedup();
    let steps: Vec<u64> =
        early.iter().map(|&epochs| u64::from(epochs) * objective.steps_per_epoch()).collect();
    let early_values = if steps.is_empty() { Vec::new() } else { objective.dense_at(&steps)? };
    let at = |epochs: u32| -> &[Tensor] {
        early.iter().position(|&known| known == epochs).map_or(&start, |place| &early_values[place])
    };
    let mut cost = Cost::of_epochs(epochs_up_to(objective, warmed.max(seen)));
    let (formula, notes) = if is_blind {
        layer.recovered(at(warmed), request)?
    } else {
        (layer.clauses.clone().ok_or_else(no_clauses)?, Vec::new())
    };
    let latest: Option<Vec<Tensor>> = match read {
        Read::Start => None,
        Read::After(_) => Some(at(seen).iter().map(Tensor::shallow_clone).collect()),
        Read::Trained => {
            let trained = objective.dense()?;
            cost = Cost::of_epochs(objective.dense_epochs());
            Some(trained)
        }
    };
    // A distance is read at one moment, motion from theta_0 on.
    let first = if matches!(read, Read::Start) { at(seen) } else { &start };
    let chooser = layer.chooser(first, &formula, settings, request)?;
    Ok(Found {
        masks: request
            .densities
            .iter()
            .map(|&density| chooser.masks(objective, latest.as_deref(), density, request))
            .collect::<Result<_>>()?,
        start: Start::Initial,
        scores: None,
        cost: vec![cost; request.densities.len()],
        notes,
    })
}

fn rounds(objective: &mut dyn Objective, request: &Request) -> Result<Found> {
    let layer = Layer::of(objective, request)?;
    let formula = layer.clauses.clone().ok_or_else(no_clauses)?;
    let start = initial(objective);
    let chooser = layer.chooser(&start, &formula, Probe::BOTH, request)?;
    let dense = objective.dense()?;
    let dense = (dense, Cost::of_epochs(objective.dense_epochs()));
    let (mut masks, mut costs) = (Vec::new(), Vec::new());
    for &density in request.densities {
        let mut trained: Vec<Tensor> = dense.0.iter().map(Tensor::shallow_clone).collect();
        let mut cost = dense.1.clone();
        for round in 1..ROUNDS {
            request.progress.check()?;
            let level = density.value().powf(f64::from(round) / f64::from(ROUNDS));
            let kept = chooser.masks(objective, Some(&trained), Density::new(level)?, request)?;
            let outcome = objective.train(&Plan { masks: Some(&kept), ..Plan::new(&start) })?;
            trained = outcome.parameters;
            cost.add_epochs(&outcome.epochs);
        }
        masks.push(chooser.masks(objective, Some(&trained), density, request)?);
        costs.push(cost);
    }
    Ok(Found { masks, start: Start::Initial, scores: None, cost: costs, notes: Vec::new() })
}

/// Inverted, the weights that the best mask of all the others leaves out.
fn oracle(objective: &mut dyn Objective, request: &Request) -> Result<Found> {
    let layer = Layer::of(objective, request)?;
    let (start, trained) = (initial(objective), objective.dense()?);
    let cost = Cost::of_epochs(objective.dense_epochs());
    let weights = layer.weights(&start)?;
    let target = layer.c1(&trained)?;
    // The C0 that the tickets start behind.
    let held = objective.features().is_some_and(|pair| pair.holds_projection);
    let translations = layer.translations(if held { &trained } else { &start })?;
    let size = layer.rows * layer.inputs;
    let (mut masks, mut scales) = (Vec::new(), Vec::new());
    for &density in request.densities {
        request.progress.check()?;
        let (keep, others) = layer.share(objective, &trained, density, request)?;
        let count = if request.invert { size - keep } else { keep };
        let networks: Vec<(Array2<bool>, f64)> = (0..weights.dim().0)
            .into_par_iter()
            .map(|r| {
                let (weights, target) = (weights.index_axis(Axis(0), r), target.index_axis(Axis(0), r));
                Ok(of_network(&translations, r).align(weights, target, count)?)
            })
            .collect::<Result<_>>()?;
        let kept = networks.iter().flat_map(|(mask, _)| mask.iter().map(|&kept| kept != request.invert));
        masks.push(layer.with_others(kept, others)?);
        scales.push(networks.iter().map(|&(_, scale)| scale).collect());
    }
    let notes = vec![("scale".to_owned(), scales)];
    Ok(Found { masks, start: Start::Initial, scores: None, cost: vec![cost; request.densities.len()], notes })
}

fn no_clauses() -> crate::Error {
    value_error!("this probe needs the clauses of every network: tell them, or use its -blind variant")
}
