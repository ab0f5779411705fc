//! Optimal Brain Surgeon: the weights that are left when the cheapest removal comes first, the others making up for it.

use precode_core::ticket::obs::{DAMPING, Layer, MOST_WEIGHTS, ranks};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::iterative::{Back, chain};
use super::objective::Objective;
use super::score::{on_device, one_shot};
use super::select::flat;
use super::{Cost, Moment, Needs, Record, Request, prunable};
use crate::error::{Error, Result, value_error};

pub(super) const OBS: Record = Record {
    name: "obs",
    title: "Optimal Brain Surgeon on the trained network, layer by layer, one shot",
    needs: Needs { data: true, dense_run: true, ..Needs::NONE },
    schedule: "one shot, weight by weight",
    cost: "the dense run and one pass over the data",
    nested: true,
    reads: Moment::End,
    rewinds: true,
    random: false,
    features: false,
    reference: "arXiv 2208.11580",
    deviations: "H = E[z z'] of the layer's inputs z over the training data, the positions of a sequence or an image \
                 added up, damped by 0.01 of its mean diagonal. \
                 Weights leave in one order over all rows and layers: always the row whose next removal costs least \
                 goes on. The updated weights choose the mask; the ticket starts at theta_0. Scores are places in the \
                 order of removal, whose mean keeps whole rows or columns.",
    find: |objective, request| {
        let trained = objective.dense()?;
        let cost = Cost::of_epochs(objective.dense_epochs());
        let scores = layerwise(objective, &trained, None, request)?;
        one_shot(&scores, cost, objective, request)
    },
};

pub(super) const OBS_ROUNDS: Record = Record {
    name: "obs-rounds",
    title: "Optimal Brain Surgeon in rounds: as imp, with exact removal in place of magnitudes",
    schedule: "levels of density 0.8^t",
    cost: "the dense run and one training and one pass over the data for each level above the density",
    deviations: "Levels as of imp, each trained from theta_0 again; H and removal as of obs, among the survivors.",
    find: |objective, request| chain(objective, request, Back::To(request.rewind), layerwise),
    ..OBS
};

pub(super) const OBS_LOSS: Record = Record {
    name: "obs-loss",
    title: "Optimal Brain Surgeon on the loss, by the empirical Fisher matrix of all prunable weights together",
    needs: Needs { gradients: true, ..OBS.needs },
    cost: "the dense run and the gradients of single samples, 1 gradient on the scoring batch",
    reference: "arXiv 2203.07259",
    deviations: "F = mean of g g' over the samples of the scoring batch, damped by 0.01 of its mean diagonal, in full, \
                 where the published method has blocks; at most 4,096 prunable weights. Weights leave one by one; the \
                 updated weights choose the mask, and the ticket starts at theta_0.",
    find: |objective, request| {
        let trained = objective.dense()?;
        let cost = Cost { gradients: 1.0, epochs: objective.dense_epochs() };
        let scores = on_the_loss(objective, &trained, request)?;
        one_shot(&scores, cost, objective, request)
    },
    ..OBS
};

/// The prunable weights of trained networks, with the moments of what they are multiplied with.
pub(super) struct Trained {
    pub networks: usize,
    /// (R, rows, inputs) of each prunable parameter.
    pub weights: Vec<Vec<f64>>,
    alive: Option<Vec<Vec<bool>>>,
    /// (R, parts, inputs, inputs) of each, and the inputs.
    moments: Vec<(Vec<f64>, usize)>,
}

impl Trained {
    pub fn of(
        objective: &mut dyn Objective,
        trained: &[Tensor],
        survivors: Option<&[Tensor]>,
        request: &Request,
    ) -> Result<Self> {
        let parameters: Vec<Tensor> =
            prunable(objective, trained.iter().map(Tensor::shallow_clone).collect());
        let moments = objective.input_moments(trained)?.into_iter();
        Ok(Self {
            networks: request.streams.len(),
            weights: numbers(&parameters)?,
            alive: survivors
                .map(|survivors| survivors.iter().map(flat).collect::<Result<_>>())
                .transpose()?,
            moments: moments
                .map(|moments| Ok((flat(&moments.f_to_kind(Kind::Double)?)?, moments.size()[3] as usize)))
                .collect::<Result<_>>()?,
        })
    }

    /// The layers of one network.
    pub fn layers(&self, network: usize) -> Vec<Layer<'_>> {
        let of = |i: usize| Layer {
            weights: part(&self.weights[i], network, self.networks),
            alive: self.alive.as_ref().map(|alive| part(&alive[i], network, self.networks)),
            hessians: part(&self.moments[i].0, network, self.networks),
            inputs: self.moments[i].1,
        };
        (0..self.weights.len()).map(of).collect()
    }
}

/// For each prunable parameter, the place of each weight in the order of removal, layer by layer under the moments of
/// its inputs; what is not among the survivors counts as zero.
fn layerwise(
    objective: &mut dyn Objective,
    trained: &[Tensor],
    survivors: Option<&[Tensor]>,
    request: &Request,
) -> Result<Vec<Tensor>> {
    let weights = Trained::of(objective, trained, survivors, request)?;
    let of_network =
        |network: usize| named(network, ranks(&weights.layers(network), DAMPING, request.progress));
    let found: Vec<Vec<Vec<f64>>> =
        (0..weights.networks).into_par_iter().map(of_network).collect::<Result<_>>()?;
    let like = prunable(objective, trained.iter().map(Tensor::shallow_clone).collect());
    let of_layer = |i: usize| found.iter().flat_map(|network| network[i].iter().copied()).collect();
    like.iter().enumerate().map(|(i, like)| scores(of_layer(i), like)).collect()
}

/// As [`layerwise`], of all prunable weights together under the empirical Fisher matrix.
fn on_the_loss(objective: &mut dyn Objective, trained: &[Tensor], request: &Request) -> Result<Vec<Tensor>> {
    let parameters: Vec<Tensor> = prunable(objective, trained.iter().map(Tensor::shallow_clone).collect());
    let (weights, networks) = (numbers(&parameters)?, request.streams.len());
    let size: usize = weights.iter().map(|weights| weights.len() / networks).sum();
    if size > MOST_WEIGHTS {
        return Err(value_error!(
            "the Fisher matrix of {size} prunable weights: obs-loss takes at most {MOST_WEIGHTS}; prune fewer, or take \
             'obs', which goes layer by layer"
        ));
    }
    let mut found: Vec<Vec<f64>> = Vec::with_capacity(networks);
    // As many matrices at a time as can be worked on.
    for first in (0..networks).step_by(rayon::current_num_threads()) {
        request.progress.check()?;
        let here = first..networks.min(first + rayon::current_num_threads());
        let fisher = objective.fisher(trained, here.clone())?;
        let fisher: Vec<Vec<f64>> = fisher.iter().map(flat).collect::<Result<_>>()?;
        let of_network = |(network, fisher): (usize, Vec<f64>)| {
            let all: Vec<f64> =
                weights.iter().flat_map(|weights| part(weights, network, networks)).copied().collect();
            let row = Layer { weights: &all, alive: None, hessians: &fisher, inputs: size };
            named(network, ranks(&[row], DAMPING, request.progress))
        };
        let ranks: Vec<Vec<Vec<f64>>> =
            here.zip(fisher).collect::<Vec<_>>().into_par_iter().map(of_network).collect::<Result<_>>()?;
        found.extend(ranks.into_iter().flatten());
    }
    let mut first = 0;
    parameters
        .iter()
        .map(|parameter| {
            let place = first..first + parameter.numel() / networks;
            first = place.end;
            scores(found.iter().flat_map(|network| &network[place.clone()]).copied().collect(), parameter)
        })
        .collect()
}

/// Weights of all networks, in float64.
fn numbers(parameters: &[Tensor]) -> Result<Vec<Vec<f64>>> {
    parameters.iter().map(|parameter| flat(&parameter.f_detach()?.f_to_kind(Kind::Double)?)).collect()
}

/// The entries of one network.
fn part<T>(all: &[T], network: usize, networks: usize) -> &[T] {
    let size = all.len() / networks;
    &all[network * size..][..size]
}

/// A refusal that names the network.
pub(super) fn named<T>(network: usize, result: std::result::Result<T, impl Into<Error>>) -> Result<T> {
    result.map_err(|error| match error.into() {
        Error::Core(precode_core::Error::Value(message)) => value_error!("network {network}: {message}"),
        other => other,
    })
}

/// Scores in the shape of a parameter.
fn scores(values: Vec<f64>, like: &Tensor) -> Result<Tensor> {
    on_device(&Tensor::f_from_slice(&values)?.f_view(like.size().as_slice())?, like.device())
}
