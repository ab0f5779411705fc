//! SparseGPT: exact removal of one column after another, for layers too wide for one weight at a time.

use precode_core::ticket::mask::{Density, Granularity, Scope};
use precode_core::ticket::obs::DAMPING;
use precode_core::ticket::sparsegpt::{BLOCK, keep};
use rayon::prelude::*;
use tch::Tensor;

use super::objective::Objective;
use super::obs::{OBS, Trained, named};
use super::{Cost, Found, Record, Request, Start, prunable};
use crate::error::{Result, unsupported};

pub(super) const SPARSEGPT: Record = Record {
    name: "sparsegpt",
    title: "SparseGPT: columns from left to right, only later ones making up for what leaves",
    schedule: "one shot, in blocks of 128 columns",
    nested: false,
    reference: "arXiv 2301.00774, algorithm 1",
    deviations: "H and its damping as of obs. Layer by layer at the same density, whatever the scope; shares of blocks \
                 and layers are rounded so that their sum is exact. The updated weights choose the mask; the ticket \
                 starts at theta_0.",
    find: sparsegpt,
    ..OBS
};

fn sparsegpt(objective: &mut dyn Objective, request: &Request) -> Result<Found> {
    if request.granularity != Granularity::Weight {
        return Err(unsupported!("sparsegpt removes single weights: use the granularity weight"));
    }
    let trained = objective.dense()?;
    let cost = Cost::of_epochs(objective.dense_epochs());
    let weights = Trained::of(objective, &trained, None, request)?;
    let like = prunable(objective, trained);
    let sizes: Vec<usize> = weights.weights.iter().map(|layer| layer.len() / weights.networks).collect();
    let of_density = |&density: &Density| -> Result<Vec<Tensor>> {
        let counts = shares(&sizes, density, request.scope)?;
        let of_network = |network: usize| {
            let masks =
                weights.layers(network).into_iter().zip(&counts).map(|(layer, &kept)| {
                    keep(&layer, kept, BLOCK, DAMPING, request.invert, request.progress)
                });
            named(network, masks.collect::<precode_core::Result<Vec<_>>>())
        };
        let masks: Vec<Vec<Vec<bool>>> =
            (0..weights.networks).into_par_iter().map(of_network).collect::<Result<_>>()?;
        let of_layer = |(i, like): (usize, &Tensor)| {
            let kept: Vec<bool> = masks.iter().flat_map(|network| network[i].iter().copied()).collect();
            let mask = Tensor::f_from_slice(&kept)?.f_view(like.size().as_slice())?;
            Ok(mask.f_to_device(like.device())?)
        };
        like.iter().enumerate().map(of_layer).collect()
    };
    Ok(Found {
        masks: request.densities.iter().map(of_density).collect::<Result<_>>()?,
        start: Start::Initial,
        cost: vec![cost; request.densities.len()],
        scores: None,
        notes: Vec::new(),
    })
}

/// How many weights of each layer a density keeps, at the same density; over all layers the sum is exact.
fn shares(sizes: &[usize], density: Density, scope: Scope) -> Result<Vec<usize>> {
    if scope == Scope::PerLayer {
        return sizes.iter().map(|&size| Ok(density.of(size)?)).collect();
    }
    let all: usize = sizes.iter().sum();
    let kept = density.of(all)?;
    let (mut seen, mut taken) = (0, 0);
    let counts = sizes.iter().map(|&size| {
        seen += size;
        let upto = (kept as f64 * seen as f64 / all as f64).round_ties_even() as usize;
        std::mem::replace(&mut taken, upto).abs_diff(upto)
    });
    Ok(counts.collect())
}
