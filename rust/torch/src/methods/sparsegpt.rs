//! SparseGPT: exact removal of one column after another, for layers too wide for one weight at a time.

use precode_core::ticket::mask::{Density, Granularity, Scope};
use precode_core::ticket::obs::{DAMPING, Layer};
use precode_core::ticket::sparsegpt::{BLOCK, Factor, keep};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::objective::Objective;
use super::obs::{OBS, Trained, named};
use super::select::flat;
use super::{Cost, Found, Record, Request, Start, prunable};
use crate::error::{Result, unsupported, value_error};

/// The most inputs of a layer: a matrix of so many takes 2 GiB.
pub const MOST_SPARSEGPT_INPUTS: usize = 16_384;

/// Inputs from which libtorch's factors, computed in blocks, are the faster ones.
const WIDE: usize = 512;

pub(super) const SPARSEGPT: Record = Record {
    name: "sparsegpt",
    title: "SparseGPT: columns from left to right, only later ones making up for what leaves",
    schedule: "one shot, in blocks of 128 columns",
    nested: false,
    reference: "arXiv 2301.00774, algorithm 1",
    deviations: "H and its damping as of obs. Weights of inputs that are always zero leave first, the smallest before \
                 others; the official code sets them to zero. Layer by layer at the same density, whatever the scope; \
                 shares of blocks and layers are rounded so that their sum is exact. The updated weights choose the \
                 mask; the ticket starts at theta_0.",
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
            let masks = weights.layers(network).into_iter().zip(&counts).map(|(layer, &kept)| {
                let factors = factors(&layer, request)?;
                Ok(keep(layer.weights, &factors, kept, BLOCK, request.invert, request.progress)?)
            });
            named(network, masks.collect::<Result<Vec<_>>>())
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

/// The factor of each Hessian of a layer.
fn factors(layer: &Layer, request: &Request) -> Result<Vec<Factor>> {
    let inputs = layer.inputs;
    if inputs > MOST_SPARSEGPT_INPUTS {
        return Err(value_error!(
            "a layer has {inputs} inputs: SparseGPT takes at most {MOST_SPARSEGPT_INPUTS}"
        ));
    }
    let of = |hessian: &[f64]| {
        request.progress.check()?;
        if inputs < WIDE {
            return Ok(Factor::of(hessian, inputs, DAMPING)?);
        }
        Factor::with(hessian, inputs, DAMPING, |damped| upper(damped, inputs))
    };
    layer.hessians.chunks(inputs * inputs).map(of).collect()
}

/// U of a damped Hessian, by libtorch's LAPACK.
///
/// H read from its end has a lower Cholesky factor L, so that `H = M M'` with M, which is L read from its end, upper;
/// then `H^-1 = M'^-1 M^-1`, and U is the inverse of M.
fn upper(damped: Vec<f64>, inputs: usize) -> Result<Vec<f64>> {
    let side = inputs as i64;
    let reversed = Tensor::f_from_slice(&damped)?.f_view([side, side])?.f_flip([0, 1])?;
    drop(damped);
    let (factor, failed) = reversed.f_linalg_cholesky_ex(false, false)?;
    if failed.f_int64_value(&[])? != 0 {
        return Err(value_error!("the Hessian is singular with damping = {DAMPING}: damp it more"));
    }
    drop(reversed);
    let one = Tensor::f_eye(side, (Kind::Double, factor.device()))?;
    flat(&factor.f_flip([0, 1])?.f_linalg_solve_triangular(&one, true, true, false)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_by_libtorch_are_those_of_core() {
        let _guard = tch::no_grad_guard();
        let inputs = 40;
        let z = Tensor::rand([60, inputs], (Kind::Double, tch::Device::Cpu)) - 0.3;
        let _ = z.select(1, 7).fill_(0.0);
        let hessian: Vec<f64> = flat(&z.tr().matmul(&z)).unwrap();
        let wide =
            |hessian: &[f64], inputs| Factor::with(hessian, inputs, DAMPING, |damped| upper(damped, inputs));
        let (one, other) = (wide(&hessian, 40).unwrap(), Factor::of(&hessian, 40, DAMPING).unwrap());
        let weights: Vec<f64> = flat(&Tensor::randn([5, inputs], (Kind::Double, tch::Device::Cpu))).unwrap();
        let mask = |factor: Factor| keep(&weights, &[factor], 70, 8, false, &Default::default()).unwrap();
        assert_eq!(mask(one), mask(other));
        assert!(wide(&[f64::NAN; 4], 2).is_err() && wide(&[1.0, 3.0, 3.0, 1.0], 2).is_err());
    }
}
