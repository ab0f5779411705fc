//! What the methods share that learn a mask by gradient descent.
//!
//! They see the networks only through the gradient of the loss with respect to the weights in effect. The
//! way from there back to scores is a closed form in each method, for R networks at once and without
//! autograd. Where the engine that trains the networks learns scores itself, it takes all steps at once.

use std::f64::consts::PI;
use std::ops::Range;

use precode_core::task::rng::{Purpose, stream};
use precode_core::train::scores::{MOMENTUM, ScoreRule, ScoreStep, Scores};
use rand::RngExt;
use tch::{Device, Kind, Tensor};

use super::objective::ScorePlan;
use super::{Batch, Cost, Objective, Parameter, Request, threshold};
use crate::error::{Result, value_error};

/// What a learner learns besides the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learns {
    /// Nothing: every weight stays at theta_0.
    MaskAlone,
    /// All parameters.
    Weights,
}

/// Kind and device of a tensor.
type Form = (Kind, Device);

/// Where a parameter lies in a row of the joined parameters.
struct Place {
    index: usize,
    start: i64,
    length: i64,
    shape: Vec<i64>,
    form: Form,
}

/// R networks under search. The parameters that it changes are joined in one tensor with a row for each
/// network, the N prunable weights first, so that a step is a handful of operations.
pub(super) struct Learner<'a> {
    objective: &'a mut dyn Objective,
    request: &'a Request<'a>,
    /// theta_0 of the joined parameters: (R, N), or (R, all parameters) where it learns weights.
    pub initial: Tensor,
    /// N.
    pub prunable: i64,
    places: Vec<Place>,
    /// All parameters at which the next gradient is taken.
    at: Vec<Tensor>,
}

impl<'a> Learner<'a> {
    /// A learner at theta_0.
    ///
    /// # Errors
    /// There is nothing to prune, or no training.
    pub fn new(objective: &'a mut dyn Objective, request: &'a Request<'a>, learns: Learns) -> Result<Self> {
        let parameters = objective.parameters();
        let kept = |prunable: bool| {
            parameters.iter().enumerate().filter(move |(_, parameter)| parameter.prunable == prunable)
        };
        let mut places: Vec<Place> = Vec::new();
        let mut place = |(index, parameter): (usize, &Parameter)| -> Result<()> {
            let shape = parameter.initial.size();
            let length = shape.iter().skip(1).product();
            let start = places.last().map_or(0, |last| last.start + last.length);
            let form = (parameter.initial.f_kind()?, parameter.initial.device());
            places.push(Place { index, start, length, shape, form });
            Ok(())
        };
        kept(true).try_for_each(&mut place)?;
        if learns == Learns::Weights {
            kept(false).try_for_each(&mut place)?;
        }
        let prunable =
            places.iter().filter(|place| parameters[place.index].prunable).map(|place| place.length).sum();
        if prunable == 0 {
            return Err(value_error!("no prunable weights: name at least one"));
        }
        if objective.epochs() == 0 || objective.steps_per_epoch() == 0 {
            return Err(value_error!("0 epochs of training: a mask is learned during at least one"));
        }
        let at: Vec<Tensor> =
            parameters.iter().map(|parameter| Ok(parameter.initial.f_detach()?)).collect::<Result<_>>()?;
        let initial = side_by_side(of_all(&places, &at), places[0].form)?;
        Ok(Self { objective, request, initial, prunable, places, at })
    }

    /// Optimizer steps of the whole search.
    pub fn steps(&self) -> u64 {
        self.steps_per_epoch() * u64::from(self.objective.epochs())
    }

    /// Epochs of the whole search.
    pub fn epochs(&self) -> u32 {
        self.objective.epochs()
    }

    /// Optimizer steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.objective.steps_per_epoch()
    }

    /// Cost of one search: as much as one training.
    pub fn cost(&self) -> Cost {
        Cost::of_epochs(vec![f64::from(self.objective.epochs())])
    }

    /// Gradient of each network's loss on the batch of a step, with respect to the joined parameters, where
    /// they have the values `joined`.
    ///
    /// # Errors
    /// As [`Objective::gradient`]; [`precode_core::Error::Interrupted`].
    pub fn gradient(&mut self, joined: &Tensor, step: u64) -> Result<Tensor> {
        self.request.progress.check()?;
        for place in &self.places {
            self.at[place.index] = place.part(joined)?;
        }
        let gradients = self.objective.gradient(&self.at, Batch::Step(step))?;
        self.request.progress.advance(joined.size()[0] as u64);
        side_by_side(of_all(&self.places, &gradients), self.form()?)
    }

    /// Scores (R, N) at rest, where the engine of the networks learns them.
    pub fn engine_scores(&self, start: &Tensor) -> Result<Option<Scores>> {
        if !self.objective.learns_scores() {
            return Ok(None);
        }
        let values = start.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_reshape([-1])?;
        Ok(Some(Scores::new(Vec::try_from(&values)?, start.size()[0] as usize)?))
    }

    /// Has the engine learn scores in some epochs: `step` gives the numbers of a step of the whole search. Returns the
    /// scores, (R, N).
    ///
    /// # Errors
    /// As [`Objective::learn_scores`]; scores that are not finite.
    pub fn learn_in_engine(
        &mut self,
        scores: &mut Scores,
        rule: ScoreRule,
        epochs: Range<u32>,
        masks: Option<&[Tensor]>,
        step: impl Fn(u64) -> ScoreStep,
    ) -> Result<Tensor> {
        let per_epoch = self.steps_per_epoch();
        let steps: Vec<ScoreStep> =
            (u64::from(epochs.start) * per_epoch..u64::from(epochs.end) * per_epoch).map(step).collect();
        let (first_epoch, epochs) = (epochs.start, epochs.end - epochs.start);
        let plan = ScorePlan { rule, steps: &steps, first_epoch, epochs, masks };
        self.objective.learn_scores(&plan, scores)?;
        if let Some(at) = scores.values.iter().position(|score| !score.is_finite()) {
            return Err(value_error!(
                "network {}: the scores are not finite: look for weights that diverged",
                at / (self.prunable as usize)
            ));
        }
        let (kind, device) = self.form()?;
        let values = Tensor::f_from_slice(&scores.values)?.f_view([-1, self.prunable])?;
        Ok(values.f_to_device_(device, kind, false, false)?)
    }

    /// A tensor (R, N) in the form of the prunable parameters.
    pub fn split(&self, joined: &Tensor) -> Result<Vec<Tensor>> {
        self.prunable_places().map(|place| place.part(joined)).collect()
    }

    /// The prunable parameters' tensors as one, (R, N), in the form of the joined parameters.
    pub fn join(&self, prunable: &[Tensor]) -> Result<Tensor> {
        side_by_side(self.prunable_places().zip(prunable), self.form()?)
    }

    /// First column and number of weights of each prunable parameter.
    pub fn layers(&self) -> impl Iterator<Item = (i64, i64)> {
        self.prunable_places().map(|place| (place.start, place.length))
    }

    /// One number for each prunable weight, (R, N), uniform in [0, 1): network r's from its own stream.
    pub fn uniform(&self) -> Result<Tensor> {
        let mut numbers: Vec<f32> = Vec::new();
        for &index in self.request.streams {
            let mut rng = stream(self.request.seed, Purpose::Scores, index);
            numbers.extend((0..self.prunable).map(|_| rng.random::<f32>()));
        }
        let (kind, device) = self.form()?;
        Ok(Tensor::f_from_slice(&numbers)?
            .f_view([-1, self.prunable])?
            .f_to_device_(device, kind, false, false)?)
    }

    /// Number of inputs of a unit of each prunable weight's layer: (N).
    pub fn fan_in(&self) -> Result<Tensor> {
        let of_place = |place: &Place| {
            // A layer of one output may have no axis for it.
            let inputs: i64 = place.shape.iter().skip(2.min(place.shape.len() - 1)).product();
            Ok(Tensor::f_full([place.length], inputs as f64, self.form()?)?)
        };
        let columns: Vec<Tensor> = self.prunable_places().map(of_place).collect::<Result<_>>()?;
        Ok(Tensor::f_cat(&columns, 0)?)
    }

    fn form(&self) -> Result<Form> {
        Ok((self.initial.f_kind()?, self.initial.device()))
    }

    fn prunable_places(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| place.start < self.prunable)
    }
}

impl Place {
    /// The parameter's own columns in its own form.
    fn part(&self, joined: &Tensor) -> Result<Tensor> {
        let columns = joined.f_narrow(1, self.start, self.length)?.f_reshape(self.shape.as_slice())?;
        let (kind, device) = self.form;
        Ok(columns.f_to_device_(device, kind, false, false)?.f_contiguous()?)
    }
}

/// Each place with its own of the tensors of all parameters.
fn of_all<'a>(places: &'a [Place], tensors: &'a [Tensor]) -> impl Iterator<Item = (&'a Place, &'a Tensor)> {
    places.iter().map(|place| (place, &tensors[place.index]))
}

/// A copy of the tensors with a row for each network, place after place.
fn side_by_side<'a>(
    tensors: impl Iterator<Item = (&'a Place, &'a Tensor)>,
    (kind, device): Form,
) -> Result<Tensor> {
    let columns: Vec<Tensor> = tensors
        .map(|(place, tensor)| {
            Ok(tensor.f_reshape([-1, place.length])?.f_to_device_(device, kind, false, false)?)
        })
        .collect::<Result<_>>()?;
    Ok(Tensor::f_cat(&columns, 1)?)
}

/// SGD with momentum by the formulas of `torch.optim.SGD`, with a rate for each step.
pub(super) struct Sgd {
    nesterov: bool,
    weight_decay: f64,
    buffer: Tensor,
}

impl Sgd {
    /// Before the first step.
    pub fn new(values: &Tensor, nesterov: bool, weight_decay: f64) -> Result<Self> {
        Ok(Self { nesterov, weight_decay, buffer: values.f_zeros_like()? })
    }

    /// Moves `values` by one step of the given rate along `gradient`.
    pub fn step(&mut self, values: &mut Tensor, mut gradient: Tensor, rate: f64) -> Result<()> {
        if self.weight_decay != 0.0 {
            let _ = gradient.f_add_(&values.f_mul_scalar(self.weight_decay)?)?;
        }
        let _ = self.buffer.f_mul_scalar_(MOMENTUM)?.f_add_(&gradient)?;
        let update = if self.nesterov {
            gradient.f_add_(&self.buffer.f_mul_scalar(MOMENTUM)?)?.f_mul_scalar_(-rate)?
        } else {
            self.buffer.f_mul_scalar(-rate)?
        };
        let _ = values.f_add_(&update)?;
        Ok(())
    }
}

/// Cosine schedule: from 1 at step 0 to 0 at step `steps`.
pub(super) fn cosine(step: u64, steps: u64) -> f64 {
    0.5 * (1.0 + (PI * step as f64 / steps as f64).cos())
}

/// The `k`-th largest of each row, (R, 1), with k in 1..=columns.
pub(super) fn kth_largest(scores: &Tensor, k: i64) -> Result<Tensor> {
    if matches!(scores.device(), Device::Cuda(_)) {
        // There one row is the work of a single block.
        return threshold::least_kept(&[scores.f_detach()?], None, k);
    }
    let columns = scores.size()[1];
    Ok(scores.f_kthvalue(columns - k + 1, 1, true)?.0)
}

/// A number for each network, from a tensor of R numbers.
pub(super) fn numbers(of_networks: &Tensor) -> Result<Vec<f64>> {
    let values = of_networks.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_reshape([-1])?;
    Ok(Vec::<f64>::try_from(&values)?)
}
