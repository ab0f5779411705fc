//! Feature probes: which cells of the first layer a network will compute its clauses with, read early.
//!
//! A probe scores every location (clause, template, row) by its distance to the template, by its motion
//! towards it, or by both, and chooses greedily under a budget of weights, with penalties on rows and clauses
//! that are taken already. The cells of the chosen locations are kept. All of this is our definition: the
//! scores and penalties of arXiv 2605.17704 are not public.

mod choose;
mod locations;

use ndarray::Array3;
use rayon::prelude::*;

use crate::error::{Result, shape_error, shaped, value_error};
use crate::read::codes::{Clauses, Readout, Real};
use crate::read::distance::{Metric, PolarityRule, Scale, distances};
use crate::read::template::Template;

/// What chosen locations cost the others, in the unit of the scores. All defaults are ours, from a trial on
/// formulas that no result is reported for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// For each time that a literal is covered already, mean over the location's cells. Literals on positive
    /// rows, and with either sign on negative rows, are counted apart, so the budget is spread over clauses
    /// and polarities.
    pub coverage: f64,
    /// For each conflict: a chosen location wants the other sign at one of the location's cells; mean over
    /// its cells.
    pub conflict: f64,
    /// For graded demand: mean over the other clauses of how far the row leans towards their templates.
    pub demand: f64,
    /// Taken off a location all of whose cells are kept already, and in proportion off others, because a
    /// location costs only its new cells.
    pub sharing: f64,
}

impl Penalties {
    /// None: locations are chosen in the order of their scores.
    pub const NONE: Self = Self { coverage: 0.0, conflict: 0.0, demand: 0.0, sharing: 0.0 };
}

/// How a probe scores and chooses.
///
/// The score of a location is `-(distance * D0 + motion * (Dt - D0))`, where D0 is its distance to the template
/// at initialization and Dt the later one, both in units of the layer's mean weight when it was read last;
/// distances that are sums over literals are divided by the number of cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// The distance. Motion is hard with `Hamming`, soft with the others.
    pub metric: Metric,
    /// Weight of the distance at initialization.
    pub distance: f64,
    /// Weight of the motion; with both weights 1, the score is the later distance.
    pub motion: f64,
    /// Fewest cells of a location. Below the clauses' width, parts of templates are chosen too: the cells
    /// that agree best with the template, with both signs where it has both.
    pub least_cells: usize,
    /// What crowded rows and covered clauses cost.
    pub penalties: Penalties,
    /// Prefer the locations of the lowest scores (a control).
    pub invert: bool,
}

impl Probe {
    /// Whole templates by their distance at initialization.
    pub const DISTANCE: Self = Self {
        metric: Metric::SignedSum,
        distance: 1.0,
        motion: 0.0,
        least_cells: usize::MAX,
        penalties: Penalties { coverage: 2.0, conflict: 1.0, demand: 0.1, sharing: 0.0 },
        invert: false,
    };

    /// Whole templates by their motion.
    pub const MOTION: Self = Self { distance: 0.0, motion: 1.0, ..Self::DISTANCE };

    /// Templates and their parts, of two cells or more, by distance and motion.
    pub const BOTH: Self = Self {
        distance: 1.0,
        motion: 1.0,
        least_cells: 2,
        penalties: Penalties { sharing: 1.0, demand: 0.0, ..Self::DISTANCE.penalties },
        ..Self::DISTANCE
    };
}

/// The cells that a probe keeps, (R, rows, variables): exactly `budget` of each network's.
///
/// Locations are chosen one after another, the best score less its penalty first, while their new cells fit into
/// the budget; one without new cells is passed over. What is left of the budget goes to the largest weights
/// in feature space. Ties go to the lowest (clause, pattern, row), or cell. Rows take their polarity, and
/// parts of templates their cells, from `later` where it is given.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the readouts differ in shape;
/// [`Error::Value`](crate::Error::Value) if the budget is beyond all cells, a template does not fit the clauses, a weight of the score is not finite, or
/// motion is asked for without a later readout.
pub fn choose_cells<T: Real>(
    start: &Readout<T>,
    later: Option<&Readout<T>>,
    clauses: &Clauses,
    templates: &[Template],
    budget: usize,
    settings: &Probe,
) -> Result<Array3<bool>> {
    let shape = |readout: &Readout<T>| (readout.networks(), readout.rows(), readout.variables());
    let (networks, rows, variables) = shape(start);
    if budget > rows * variables {
        return Err(value_error!("budget = {budget}: a network of {rows} x {variables} has fewer cells"));
    }
    if let Some(later) = later.filter(|later| shape(later) != shape(start)) {
        return Err(shape_error!(
            "the later readout is of {:?} (networks, rows, variables), the first of {:?}",
            shape(later),
            shape(start)
        ));
    }
    if settings.motion != 0.0 && later.is_none() {
        return Err(value_error!("motion = {}: motion needs a later readout", settings.motion));
    }
    let Penalties { coverage, conflict, demand, sharing } = settings.penalties;
    for value in [settings.distance, settings.motion, coverage, conflict, demand, sharing] {
        if !value.is_finite() {
            return Err(value_error!("{value} among the weights of the score: they must be finite"));
        }
    }
    let latest = later.unwrap_or(start);
    let demands = graded_demand(latest, clauses, templates)?;
    let mut kept = vec![false; networks * rows * variables];
    kept.par_chunks_mut(rows * variables).enumerate().for_each(|(network, kept)| {
        let locations = locations::locations(start, latest, clauses, templates, network, settings);
        let demands = &demands[network * clauses.count() * rows..][..clauses.count() * rows];
        let left = choose::choose(&locations, demands, clauses.width(), variables, budget, settings, kept);
        choose::fill(latest, network, left, settings.invert, kept);
    });
    shaped(kept, (networks, rows, variables))
}

/// (R, C, rows): mean over the other clauses of how far the row leans towards the nearest template of its
/// polarity, `max(0, sum t c / (scale k))`.
fn graded_demand<T: Real>(
    readout: &Readout<T>,
    clauses: &Clauses,
    templates: &[Template],
) -> Result<Vec<f64>> {
    let (count, rows) = (clauses.count(), readout.rows());
    let mut leaning = vec![0.0f64; readout.networks() * count * rows];
    for &template in templates {
        let rule = PolarityRule::Require;
        let sums = distances(readout, clauses, template, Metric::SignedSum, Scale::Layer, rule)?;
        for (leaning, sum) in leaning.iter_mut().zip(sums) {
            *leaning = leaning.max(-sum / clauses.width() as f64);
        }
    }
    for network in leaning.chunks_exact_mut(count * rows) {
        for row in 0..rows {
            let total: f64 = (0..count).map(|clause| network[clause * rows + row]).sum();
            for clause in 0..count {
                let own = &mut network[clause * rows + row];
                *own = (total - *own) / (count - 1).max(1) as f64;
            }
        }
    }
    Ok(leaning)
}

#[cfg(test)]
mod tests;
