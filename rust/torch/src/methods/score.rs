//! Methods of one score a weight: the best-scored are kept, at every density.

use precode_core::task::rng::{Purpose, stream};
use rand::RngExt;
use tch::{Device, Kind, Tensor};

use super::objective::{Batch, FeaturePair, Objective};
use super::select::select;
use super::{Cost, Found, Moment, Needs, Record, Request, Start, early, initial, prunable};
use crate::error::{Result, unsupported};

/// Temperature of the logits in the official code of GraSP.
const GRASP_TEMPERATURE: f64 = 200.0;

/// The epoch that `checkpoint-magnitude` reads unless it is told another: the last that a probe reads by itself.
const CHECKPOINT: u32 = 2;

/// Weights that are worked on at a time where large layers would need more memory for what is forgotten at once.
const PART: i64 = 1 << 18;

pub(super) const RANDOM: Record = Record {
    name: "random",
    title: "Uniformly random weights",
    needs: Needs::NONE,
    schedule: "one shot",
    cost: "none",
    nested: true,
    reads: Moment::Never,
    rewinds: false,
    random: true,
    features: false,
    reference: "control",
    deviations: "",
    find: |objective, request| {
        let shapes: Vec<Vec<i64>> =
            prunable(objective, initial(objective)).iter().map(Tensor::size).collect();
        let empty = |shape: &Vec<i64>| Ok(Tensor::f_empty(shape, (Kind::Double, Device::Cpu))?);
        let scores: Vec<Tensor> = shapes.iter().map(empty).collect::<Result<_>>()?;
        for (network, &index) in (0..).zip(request.streams) {
            let mut rng = stream(request.seed, Purpose::Mask, index);
            for scores in &scores {
                let mut of_network = scores.f_select(0, network)?.f_flatten(0, -1)?.f_split(PART, 0)?;
                for part in &mut of_network {
                    let drawn: Vec<f64> = (0..part.numel()).map(|_| rng.random()).collect();
                    part.f_copy_(&Tensor::f_from_slice(&drawn)?)?;
                }
            }
        }
        one_shot(&scores, Cost::of_gradients(0.0), objective, request)
    },
};

pub(super) const MAGNITUDE_INIT: Record = Record {
    name: "magnitude-init",
    title: "Largest initial magnitudes |theta_0|",
    needs: Needs::NONE,
    schedule: "one shot",
    cost: "none",
    nested: true,
    reads: Moment::Never,
    rewinds: false,
    random: false,
    features: false,
    reference: "arXiv 2009.08576",
    deviations: "",
    find: |objective, request| {
        let start = prunable(objective, initial(objective));
        one_shot(&magnitudes(&start)?, Cost::of_gradients(0.0), objective, request)
    },
};

pub(super) const MAGNITUDE: Record = Record {
    name: "magnitude",
    title: "Largest trained magnitudes |theta_T|, one shot",
    needs: Needs { data: true, dense_run: true, ..Needs::NONE },
    schedule: "one shot",
    cost: "the dense run",
    nested: true,
    reads: Moment::End,
    rewinds: true,
    random: false,
    features: false,
    reference: "arXiv 1803.03635",
    deviations: "",
    find: |objective, request| {
        let trained = objective.dense()?;
        let cost = Cost::of_epochs(objective.dense_epochs());
        one_shot(&magnitudes(&prunable(objective, trained))?, cost, objective, request)
    },
};

pub(super) const CHECKPOINT_MAGNITUDE: Record = Record {
    name: "checkpoint-magnitude",
    title: "Largest magnitudes |theta_t| after t epochs, t = 2 unless at says another",
    needs: Needs { data: true, ..Needs::NONE },
    schedule: "one shot",
    cost: "t epochs",
    nested: true,
    reads: Moment::After(CHECKPOINT),
    rewinds: false,
    random: false,
    features: false,
    reference: "named in a public digest of arXiv 2605.17704",
    deviations: "The ticket starts at theta_0. The epoch where none is told is ours.",
    find: |objective, request| {
        let (values, epochs) = early(objective, request, CHECKPOINT)?;
        one_shot(&magnitudes(&prunable(objective, values))?, Cost::of_epochs(epochs), objective, request)
    },
};

pub(super) const MAGNITUDE_W2: Record = Record {
    name: "magnitude-w2",
    title: "Largest |W1| |w2| after t epochs, t = 2 unless at says another",
    needs: Needs { pair: true, ..CHECKPOINT_MAGNITUDE.needs },
    reference: "control; without biases SynFlow's score (arXiv 2006.05467) in one round",
    deviations: "What target-combined has without the clauses. |w2| is the norm of a row's weights to all outputs; other \
                 prunable weights count by their magnitudes. The ticket starts at theta_0.",
    find: |objective, request| {
        let (values, epochs) = early(objective, request, CHECKPOINT)?;
        one_shot(&through_rows(objective, &values)?, Cost::of_epochs(epochs), objective, request)
    },
    ..CHECKPOINT_MAGNITUDE
};

/// Magnitudes of the prunable weights, those into the rows that codes are read from times the norms of the rows' weights
/// to all outputs.
pub(super) fn through_rows(objective: &dyn Objective, values: &[Tensor]) -> Result<Vec<Tensor>> {
    let Some(&FeaturePair { first, second, .. }) = objective.features() else {
        return Err(unsupported!(
            "the rows' weights to the outputs are those of networks of one hidden layer, or of two linear layers that \
             are named"
        ));
    };
    // (R, rows, 1).
    let reach = values[second].f_detach()?.f_square()?.f_sum_dim_intlist(1, false, None)?.f_sqrt()?;
    let scored = values.iter().enumerate().map(|(place, value)| {
        let magnitude = value.f_detach()?.f_abs()?;
        Ok(if place == first { magnitude.f_mul(&reach.f_unsqueeze(2)?)? } else { magnitude })
    });
    Ok(prunable(objective, scored.collect::<Result<_>>()?))
}

pub(super) const SNIP: Record = Record {
    name: "snip",
    title: "Connection sensitivity |theta_0 g|",
    needs: Needs { data: true, gradients: true, ..Needs::NONE },
    schedule: "one shot",
    cost: "1 gradient on the scoring batch",
    nested: true,
    reads: Moment::After(0),
    rewinds: false,
    random: false,
    features: false,
    reference: "arXiv 1810.02340, eq. 5",
    deviations: "The scoring batch is large instead of one training batch; theta_0 is kept, where the \
                 official code draws new weights after pruning; biases are not pruned; scores are not \
                 normalised, which changes no rank.",
    find: |objective, request| {
        let (values, epochs) = early(objective, request, 0)?;
        let gradient = objective.gradient(&values, Batch::Scoring)?;
        let mut scores = products(objective, values, gradient)?;
        absolute(&mut scores)?;
        one_shot(&scores, Cost { gradients: 1.0, epochs }, objective, request)
    },
};

pub(super) const GRASP: Record = Record {
    name: "grasp",
    title: "Gradient flow preserved: largest theta_0 (H g)",
    needs: Needs { data: true, gradients: true, ..Needs::NONE },
    schedule: "one shot",
    cost: "1 gradient and 1 Hessian-vector product on the scoring batch",
    nested: true,
    reads: Moment::After(0),
    rewinds: false,
    random: false,
    features: false,
    reference: "arXiv 2002.07376, eq. 8",
    deviations: "The sign is the paper's: weights of the largest -theta (H g) are removed. The scoring batch \
                 is that of all methods; weights are not drawn anew before scoring, as they are in the \
                 official code; H and g are those of the prunable weights.",
    find: |objective, request| {
        let (scores, cost) = grasp(objective, request)?;
        one_shot(&scores, cost, objective, request)
    },
};

pub(super) const GRASP_MAGNITUDE: Record = Record {
    name: "grasp-magnitude",
    title: "Largest effect on gradient flow |theta_0 (H g)|",
    reference: "arXiv 2009.08576",
    deviations: "Weights are kept by the magnitude of the score, whatever its sign. The scoring batch and \
                 the rest are as of grasp.",
    find: |objective, request| {
        let (mut scores, cost) = grasp(objective, request)?;
        absolute(&mut scores)?;
        one_shot(&scores, cost, objective, request)
    },
    ..GRASP
};

fn grasp(objective: &mut dyn Objective, request: &Request) -> Result<(Vec<Tensor>, Cost)> {
    let (values, epochs) = early(objective, request, 0)?;
    let product = objective.curvature(&values, GRASP_TEMPERATURE)?;
    Ok((products(objective, values, product)?, Cost { gradients: 3.0, epochs }))
}

/// Element by element, of the prunable parameters alone, in float64, on the CPU where the device has none. Nothing else of
/// their size is kept in float64, and factors go as soon as they are used.
pub(super) fn products(objective: &dyn Objective, a: Vec<Tensor>, b: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let pairs = prunable(objective, a).into_iter().zip(prunable(objective, b));
    pairs.map(|(a, b)| product(&a, &b, exact_like(&a)?)).collect()
}

/// As [`products`], in the memory of `b` where that is in float64 already.
pub(super) fn products_in_place(
    objective: &dyn Objective,
    a: Vec<Tensor>,
    b: Vec<Tensor>,
) -> Result<Vec<Tensor>> {
    let pairs = prunable(objective, a).into_iter().zip(prunable(objective, b));
    let place = |b: &Tensor| {
        let fits = b.f_kind()? == Kind::Double && b.is_contiguous();
        if fits { Ok(b.f_detach()?) } else { exact_like(b) }
    };
    pairs.map(|(a, b)| product(&a, &b, place(&b)?)).collect()
}

fn exact_like(tensor: &Tensor) -> Result<Tensor> {
    let device = if tensor.device() == Device::Mps { Device::Cpu } else { tensor.device() };
    Ok(Tensor::f_empty(tensor.size(), (Kind::Double, device))?)
}

/// The product of two tensors, part by part, written to a third, which may be one of the two.
fn product(a: &Tensor, b: &Tensor, to: Tensor) -> Result<Tensor> {
    let exact = |part: &Tensor| part.f_to_device(to.device())?.f_to_kind(Kind::Double);
    let parts = |tensor: &Tensor| tensor.f_detach()?.f_reshape([-1])?.f_split(PART, 0);
    for ((mut to, a), b) in parts(&to)?.into_iter().zip(parts(a)?).zip(parts(b)?) {
        to.f_copy_(&exact(&a)?.f_mul(&exact(&b)?)?)?;
    }
    Ok(to)
}

/// Absolute values, in place.
pub(super) fn absolute(tensors: &mut [Tensor]) -> Result<()> {
    tensors.iter_mut().try_for_each(|tensor| Ok(tensor.f_abs_().map(drop)?))
}

/// Absolute values.
pub(super) fn magnitudes(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    tensors.iter().map(|tensor| Ok(tensor.f_abs()?)).collect()
}

/// Masks of the best scores; all densities cost the same, and start at theta_0.
pub(super) fn one_shot(
    scores: &[Tensor],
    cost: Cost,
    objective: &dyn Objective,
    request: &Request,
) -> Result<Found> {
    let like = prunable(objective, initial(objective));
    let masks =
        request.densities.iter().map(|&density| beside(select(scores, None, density, request)?, &like));
    let masks = masks.collect::<Result<_>>()?;
    let scores: Vec<Tensor> = scores
        .iter()
        .zip(&like)
        .map(|(scores, like)| on_device(scores, like.device()))
        .collect::<Result<_>>()?;
    let copies = || scores.iter().map(Tensor::shallow_clone).collect();
    Ok(Found {
        masks,
        start: Start::Initial,
        cost: vec![cost; request.densities.len()],
        scores: Some(request.densities.iter().map(|_| copies()).collect()),
        notes: Vec::new(),
    })
}

/// Masks on the devices of the parameters: scores may be on the CPU, and [`select`] leaves masks where scores are.
pub(super) fn beside(masks: Vec<Tensor>, parameters: &[Tensor]) -> Result<Vec<Tensor>> {
    masks
        .into_iter()
        .zip(parameters)
        .map(|(mask, parameter)| Ok(mask.f_to_device(parameter.device())?))
        .collect()
}

/// Scores on a device, in float32 where that has no float64.
pub(super) fn on_device(scores: &Tensor, device: Device) -> Result<Tensor> {
    let kind = if device == Device::Mps { Kind::Float } else { scores.f_kind()? };
    Ok(scores.f_to_kind(kind)?.f_to_device(device)?)
}
