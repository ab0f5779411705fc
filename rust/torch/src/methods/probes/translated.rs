//! Probes that see through the embedding: the best locations, turned into scores of the weights of W1.

use ndarray::{Array2, Array3, ArrayView2, Axis};
use precode_core::error::{in_parallel, shaped};
use precode_core::ticket::obs::DAMPING;
use precode_core::ticket::translation::{Chosen, Translation, choose_locations, exact_codes};
use precode_core::{Clauses, Readout};
use tch::{Kind, Tensor};

use super::layer::{Layer, Notes, of_network};
use crate::error::Result;
use crate::methods::iterative::handles;
use crate::methods::objective::{Batch, Objective};
use crate::methods::select::flat;
use crate::methods::{Cost, Found, Moment, Needs, Record, Request, Start, early, initial};

/// Epochs after which probes of motion are read unless they are told another.
const EPOCHS: u32 = 2;

/// Weight of the target beside that of the weights, in `target-combined`.
const SHARE: f64 = 0.5;

const OURS: &str =
    "our definition; arXiv 2605.17704 names feature distance and motion, its formulas are not public";

const DEVIATIONS: &str = "Uses the clauses. As many locations are chosen as a layer of that many weights can hold \
                          exactly: weights / k for clauses of k literals.";

pub(in crate::methods) const TARGET_STATIC: Record = Record {
    name: "target-static",
    title: "Weights and the signs of the nearest locations through C0: |W1 + V|, both in units of their row",
    needs: Needs { clauses: true, pair: true, ..Needs::NONE },
    schedule: "one shot",
    cost: "none",
    nested: true,
    reads: Moment::After(0),
    rewinds: false,
    random: false,
    features: false,
    reference: OURS,
    deviations: DEVIATIONS,
    find: |objective, request| find(objective, request, 0, Rule::Static, Knows::Clauses),
};

pub(in crate::methods) const TARGET_MOTION: Record = Record {
    name: "target-motion",
    title: "As target-static, of the locations that features have moved to most",
    needs: Needs { data: true, gradients: true, ..TARGET_STATIC.needs },
    cost: "2 epochs",
    reads: Moment::After(EPOCHS),
    deviations: MOVING,
    find: |objective, request| find(objective, request, EPOCHS, Rule::Motion, Knows::Clauses),
    ..TARGET_STATIC
};

pub(in crate::methods) const TARGET_COMBINED: Record = Record {
    name: "target-combined",
    title: "Weights and the signs of the locations best by distance and motion, |W1 + V/2| |w2|",
    find: |objective, request| find(objective, request, EPOCHS, Rule::Combined, Knows::Clauses),
    ..TARGET_MOTION
};

pub(in crate::methods) const SIGN_KEEPING: Record = Record {
    name: "sign-keeping",
    title: "Weights leave a row one by one, those first that the signs of its nearest locations need least",
    needs: Needs { data: true, ..TARGET_STATIC.needs },
    schedule: "one shot, weight by weight",
    cost: "2 epochs",
    reads: Moment::After(EPOCHS),
    deviations: "Uses the clauses. As many locations are chosen as a layer of that many weights can hold exactly: weights / k \
                 for clauses of k literals. A removal costs the sum of max(0, 0.3 - t c / s) / 0.3 over the signs t of the \
                 row's locations, c being the features that are left and s their root mean square in the whole row, and \
                 0.001 |w| / max |w|.",
    find: |objective, request| find(objective, request, EPOCHS, Rule::Signs, Knows::Clauses),
    ..TARGET_STATIC
};

pub(in crate::methods) const OBS_CODES: Record = Record {
    name: "obs-codes",
    title: "As obs, with the Hessian of the features that the best locations read beside that of the inputs",
    schedule: "one shot, weight by weight",
    cost: "2 epochs and one pass over the data",
    find: |objective, request| find(objective, request, EPOCHS, Rule::Features, Knows::Clauses),
    ..TARGET_MOTION
};

pub(in crate::methods) const TARGET_STATIC_BLIND: Record = Record {
    name: "target-static-blind",
    title: "As target-static, with the clauses that the data tell",
    needs: Needs { data: true, clauses: false, clauses_in_data: true, ..TARGET_STATIC.needs },
    cost: "one pass over the data",
    deviations: BLIND,
    find: |objective, request| find(objective, request, 0, Rule::Static, Knows::Data),
    ..TARGET_STATIC
};

pub(in crate::methods) const TARGET_MOTION_BLIND: Record = Record {
    name: "target-motion-blind",
    title: "As target-motion, with the clauses that the data tell",
    needs: Needs { data: true, clauses: false, clauses_in_data: true, ..TARGET_MOTION.needs },
    cost: "2 epochs and one pass over the data",
    deviations: BLIND,
    find: |objective, request| find(objective, request, EPOCHS, Rule::Motion, Knows::Data),
    ..TARGET_MOTION
};

pub(in crate::methods) const TARGET_COMBINED_BLIND: Record = Record {
    name: "target-combined-blind",
    title: "As target-combined, with the clauses that the data tell",
    needs: Needs { data: true, clauses: false, clauses_in_data: true, ..TARGET_COMBINED.needs },
    cost: "2 epochs and one pass over the data",
    deviations: BLIND,
    find: |objective, request| find(objective, request, EPOCHS, Rule::Combined, Knows::Data),
    ..TARGET_COMBINED
};

pub(in crate::methods) const SIGN_KEEPING_BLIND: Record = Record {
    name: "sign-keeping-blind",
    title: "As sign-keeping, with the clauses that the data tell",
    needs: Needs { data: true, clauses: false, clauses_in_data: true, ..SIGN_KEEPING.needs },
    cost: "2 epochs and one pass over the data",
    deviations: BLIND,
    find: |objective, request| find(objective, request, EPOCHS, Rule::Signs, Knows::Data),
    ..SIGN_KEEPING
};

pub(in crate::methods) const OBS_CODES_BLIND: Record = Record {
    name: "obs-codes-blind",
    title: "As obs-codes, with the clauses that the data tell",
    needs: Needs { data: true, clauses: false, clauses_in_data: true, ..OBS_CODES.needs },
    cost: "2 epochs and two passes over the data",
    deviations: BLIND,
    find: |objective, request| find(objective, request, EPOCHS, Rule::Features, Knows::Data),
    ..OBS_CODES
};

pub(in crate::methods) const BLIND: &str = "Told the width of the clauses where it is known (else 4), neither their number nor their variables. A clause is the set of \
     that many variables whose samples are True more often than chance explains; it is taken out, and the next is sought, until \
     chance explains the rest. Recovers literals that are not negated (notes clauses_recovered and, where the formula is known, \
     clauses_found); refused where there are none.";

const MOVING: &str = "Uses the clauses. Motion is that from theta_0, and at theta_0 the negative gradient on the scoring \
                      batch. As many locations are chosen as a layer of that many weights can hold exactly: weights / k \
                      for clauses of k literals.";

/// Where a probe has the clauses from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::methods) enum Knows {
    /// It is told them.
    Clauses,
    /// The data tell them.
    Data,
}

impl Knows {
    /// The clauses of each network, and what is to be noted of them.
    fn of(
        self,
        layer: &Layer,
        objective: &mut dyn Objective,
        request: &Request,
    ) -> Result<(Vec<Clauses>, Notes)> {
        match self {
            Self::Clauses => Ok((layer.told()?, Vec::new())),
            Self::Data => layer.told_by_data(objective, request),
        }
    }
}

/// How locations become scores.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The target of features.
    Static,
    /// The target of their motion.
    Motion,
    /// The target of both, times the weights to the outputs.
    Combined,
    /// The order in which weights leave under a loss of signs.
    Signs,
    /// The order in which they leave under the Hessians of inputs and of features.
    Features,
}

impl Rule {
    fn sees_motion(self) -> bool {
        !matches!(self, Self::Static | Self::Signs)
    }
}

fn find(
    objective: &mut dyn Objective,
    request: &Request,
    usual: u32,
    rule: Rule,
    knows: Knows,
) -> Result<Found> {
    let layer = Layer::of(objective, request)?;
    let (clauses, notes) = knows.of(&layer, objective, request)?;
    let (values, epochs) = early(objective, request, usual)?;
    let mut cost = Cost::of_epochs(epochs);
    let seen = Seen::of(&layer, objective, &values, rule, &mut cost)?;
    let scores = seen.scores(&layer, &clauses, rule, request)?;
    let masks = request
        .densities
        .iter()
        .map(|&density| {
            let (keep, others) = layer.share(objective, &values, density, request)?;
            layer.with_others(best(&scores, keep, request.invert)?, others)
        })
        .collect::<Result<_>>()?;
    let costs = vec![cost; request.densities.len()];
    Ok(Found { masks, start: Start::Initial, cost: costs, scores: None, notes })
}

/// The clauses of each network, and what is to be noted of them.
///
/// # Errors
/// Networks without locations: those of another form, or whose clauses are neither told nor in the data.
pub(in crate::methods) fn known(
    objective: &mut dyn Objective,
    request: &Request,
    knows: Knows,
) -> Result<(Vec<Clauses>, Notes)> {
    let layer = Layer::of(objective, request)?;
    knows.of(&layer, objective, request)
}

/// Magnitudes of W1 and the target of the locations best by their distances at `start` and at `values`, the target's
/// weight being `share`, in units of the root mean square of each; (R, rows, inputs).
pub(in crate::methods) fn with_codes(
    objective: &dyn Objective,
    start: &[Tensor],
    values: &[Tensor],
    clauses: &[Clauses],
    share: f64,
    request: &Request,
) -> Result<Array3<f64>> {
    let layer = Layer::of(objective, request)?;
    let (read, weights) = (layer.features(values)?, layer.weights(values)?);
    let x = in_rows(&layer.c1(start)?) + in_rows(&read.features);
    let (x, translations) = (Readout::new(x.view(), read.output.view())?, layer.translations(values)?);
    let of_each: Vec<Array2<f64>> = in_parallel(layer.networks, |network| {
        let chosen = layer.chosen(&x, &clauses[network], network);
        let target = of_network(&translations, network).target(&chosen, layer.rows)?;
        let sum = in_all(weights.index_axis(Axis(0), network)) + in_all(target.view()) * share;
        Ok::<_, crate::Error>(sum.mapv(f64::abs))
    })?;
    let scores = of_each.into_iter().flatten().collect();
    Ok(shaped(scores, (layer.networks, layer.rows, layer.inputs))?)
}

impl Layer {
    /// The locations of one network that are chosen by `x`.
    fn chosen(&self, x: &Readout<f64>, clauses: &Clauses, network: usize) -> Vec<Chosen> {
        choose_locations(x, clauses, network, exact_codes(self.rows * self.inputs, clauses.width()))
    }
}

/// The best `keep` weights of each network; of equal scores the first.
fn best(scores: &Array3<f64>, keep: usize, invert: bool) -> Result<Vec<bool>> {
    let mut kept = Vec::with_capacity(scores.len());
    for scores in scores.outer_iter() {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        let scores: Vec<f64> = scores.iter().map(|&score| if invert { -score } else { score }).collect();
        order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
        let mut mask = vec![false; scores.len()];
        order[..keep].iter().for_each(|&weight| mask[weight] = true);
        kept.extend(mask);
    }
    Ok(kept)
}

/// What a probe reads of all networks at its moment.
struct Seen {
    /// W1, (R, rows, inputs).
    weights: Array3<f64>,
    translations: Vec<Translation>,
    /// What locations are chosen by, (R, rows, variables), and the output weights.
    x: Array3<f64>,
    output: Array2<f64>,
    reach: Array2<f64>,
    /// E[z z'] of the inputs of W1, (R, inputs, inputs), where they are asked for.
    moments: Vec<f64>,
}

impl Seen {
    fn of(
        layer: &Layer,
        objective: &mut dyn Objective,
        values: &[Tensor],
        rule: Rule,
        cost: &mut Cost,
    ) -> Result<Self> {
        let translations = layer.translations(values)?;
        let read = layer.features(values)?;
        let motion = match rule.sees_motion() {
            false => None,
            true if cost.epochs.iter().any(|&epochs| epochs > 0.0) => {
                Some(&read.features - &layer.c1(&initial(objective))?)
            }
            true => {
                // Of theta_0, the way that the first step takes: minus the gradient, seen through C0.
                cost.gradients += 1.0;
                let mut gradient = objective.gradient(values, Batch::Scoring)?;
                let mut at = handles(values);
                at[layer.first] = gradient.swap_remove(layer.first).f_neg()?;
                Some(layer.c1(&at)?)
            }
        };
        let x = match (rule, motion) {
            (Rule::Motion, Some(motion)) => motion,
            (_, Some(motion)) => in_rows(&read.features) + in_rows(&motion),
            (_, None) => read.features,
        };
        let moments = match rule {
            Rule::Features => flat(&objective.input_moments(values)?[layer.place].f_to_kind(Kind::Double)?)?,
            _ => Vec::new(),
        };
        Ok(Self {
            weights: layer.weights(values)?,
            translations,
            x,
            output: read.output,
            reach: layer.reach(values)?,
            moments,
        })
    }

    fn scores(
        &self,
        layer: &Layer,
        clauses: &[Clauses],
        rule: Rule,
        request: &Request,
    ) -> Result<Array3<f64>> {
        let x = Readout::new(self.x.view(), self.output.view())?;
        let of_each: Vec<Array2<f64>> = in_parallel(layer.networks, |network| {
            request.progress.check()?;
            let chosen = layer.chosen(&x, &clauses[network], network);
            self.of_network(network, &chosen, rule, request)
        })?;
        let scores = of_each.into_iter().flatten().collect();
        Ok(shaped(scores, (layer.networks, layer.rows, layer.inputs))?)
    }

    fn of_network(
        &self,
        network: usize,
        chosen: &[Chosen],
        rule: Rule,
        request: &Request,
    ) -> Result<Array2<f64>> {
        let weights = self.weights.index_axis(Axis(0), network);
        let translation = of_network(&self.translations, network);
        let size = weights.ncols() * weights.ncols();
        let scores = match rule {
            Rule::Signs => return Ok(translation.keep_signs(weights, chosen, request.progress)?),
            Rule::Features => {
                let moments = &self.moments[network * size..][..size];
                return Ok(translation.keep_features(weights, chosen, moments, DAMPING, request.progress)?);
            }
            Rule::Combined => {
                let target = translation.target(chosen, weights.nrows())?;
                let sum = in_all(weights) + in_all(target.view()) * SHARE;
                sum * self.reach.index_axis(Axis(0), network).insert_axis(Axis(1))
            }
            Rule::Static | Rule::Motion => {
                let target = translation.target(chosen, weights.nrows())?;
                let [weights, target] =
                    [weights, target.view()].map(|values| in_rows(&values.to_owned().insert_axis(Axis(0))));
                (weights + target).index_axis_move(Axis(0), 0)
            }
        };
        Ok(scores.mapv(f64::abs))
    }
}

/// In units of the root mean square of each row; rows of zeros stay.
fn in_rows(values: &Array3<f64>) -> Array3<f64> {
    let mut scaled = values.clone();
    for mut row in scaled.rows_mut() {
        let rms = (row.iter().map(|value| value * value).sum::<f64>() / row.len() as f64).sqrt();
        row.mapv_inplace(|value| if rms > 0.0 { value / rms } else { 0.0 });
    }
    scaled
}

/// In units of the root mean square of all; zeros stay.
fn in_all(values: ArrayView2<f64>) -> Array2<f64> {
    let rms = (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt();
    values.mapv(|value| if rms > 0.0 { value / rms } else { 0.0 })
}
