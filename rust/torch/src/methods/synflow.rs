//! SynFlow: data-free pruning in rounds that conserve the flow through every neuron.

use precode_core::ticket::mask::Density;
use tch::Tensor;

use super::objective::Objective;
use super::score::{absolute, beside, on_device, products_in_place};
use super::select::select;
use super::{Cost, Found, Moment, Needs, Record, Request, Start, early, initial, prunable};
use crate::error::Result;

/// Rounds of pruning; a single one lets whole layers collapse.
const ROUNDS: u32 = 100;

pub(super) const SYNFLOW: Record = Record {
    name: "synflow",
    title: "Synaptic flow |theta_0 dR/dtheta| in 100 rounds",
    needs: Needs { gradients: true, ..Needs::NONE },
    schedule: "100 rounds, density d^(t/100) after round t",
    cost: "100 gradients on a single input of ones",
    nested: false,
    reads: Moment::After(0),
    rewinds: false,
    random: false,
    features: false,
    reference: "arXiv 2006.05467, algorithm 1",
    deviations: "Biases count as zero, where the official code adds their magnitudes; the input of ones \
                 is given to the first layer, after the embedding, but to |C0| where each network has a \
                 projection of its own; nn.Embedding and nn.EmbeddingBag give the mean of their \
                 rows; buffers keep their signs; float64.",
    find: |objective, request| {
        let (values, epochs) = early(objective, request, 0)?;
        let densities = request.densities.iter();
        let found = densities.map(|&density| rounds(objective, request, &values, density));
        let (masks, scores) = found.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Found {
            masks,
            scores: Some(scores),
            start: Start::Initial,
            cost: vec![Cost { gradients: f64::from(ROUNDS), epochs }; request.densities.len()],
            notes: Vec::new(),
        })
    },
};

/// The masks after the last round, and the scores that they were chosen by.
fn rounds(
    objective: &mut dyn Objective,
    request: &Request,
    values: &[Tensor],
    density: Density,
) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let mut masks: Option<Vec<Tensor>> = None;
    let mut scores = Vec::new();
    let like = prunable(objective, initial(objective));
    for round in 1..=ROUNDS {
        request.progress.check()?;
        // Neither the scores of the last round nor the values are held beside the flow.
        scores.clear();
        let at = masked(objective, values, masks.as_deref())?;
        let flow = objective.flow(at)?;
        scores = products_in_place(objective, masked(objective, values, masks.as_deref())?, flow)?;
        absolute(&mut scores)?;
        let kept = Density::new(density.value().powf(f64::from(round) / f64::from(ROUNDS)))?;
        masks = Some(beside(select(&scores, masks.as_deref(), kept, request)?, &like)?);
    }
    let placed = scores.iter().zip(&like).map(|(scores, like)| on_device(scores, like.device()));
    Ok((masks.unwrap_or_default(), placed.collect::<Result<_>>()?))
}

/// Values of all parameters with the pruned weights at zero.
fn masked(objective: &dyn Objective, values: &[Tensor], masks: Option<&[Tensor]>) -> Result<Vec<Tensor>> {
    let mut masks = masks.into_iter().flatten();
    let parameters = objective.parameters().iter().zip(values);
    parameters
        .map(|(parameter, value)| match parameter.prunable.then(|| masks.next()).flatten() {
            Some(mask) => Ok(value.f_mul(mask)?),
            None => Ok(value.shallow_clone()),
        })
        .collect()
}
