//! What the methods ask of a stack on samples: gradients, curvature and moments.

use std::ops::Range;

use precode_core::train::Problem;
use tch::{Device, Kind, Tensor, no_grad_guard};

use super::StackObjective;
use crate::curvature::times_direction;
use crate::error::{Result, value_error};
use crate::flat::Flat;
use crate::gradient::{Part, backward, forward, of_samples, residuals, roots_of_curvature};
use crate::methods::feed::{SCORING_SAMPLES, Scoring, Steps};
use crate::methods::objective::Batch;
use crate::stack::Stack;

/// Numbers of single samples, (networks, samples, numbers) each, from networks, activations and labels.
type OfSamples<'a> = &'a dyn Fn(&Stack, &[Tensor], &Tensor) -> Result<Vec<Tensor>>;

impl StackObjective<'_> {
    /// Mean over the scoring batch of what `part` writes for samples, activations and labels.
    fn over_scoring(
        &mut self,
        stack: &Stack,
        mut part: impl FnMut(&Tensor, Vec<Tensor>, &Tensor, &mut Flat) -> Result<()>,
    ) -> Result<Flat> {
        let (mut mean, mut piece) = (self.zeros(Kind::Double)?, self.zeros(Kind::Double)?);
        for chunk in scoring_batch(&mut self.scoring, &self.problem, self.device)?.parts() {
            self.progress.check()?;
            let (x, labels, fraction) = chunk?;
            part(&x, forward(stack, x.shallow_clone())?, &labels, &mut piece)?;
            let _ = mean.all.f_add_(&piece.all.f_mul_scalar(fraction)?)?;
        }
        Ok(mean)
    }

    /// Gradient on the scoring batch of the loss of `logits / temperature`.
    fn scoring_gradient(&mut self, stack: &Stack, temperature: f64) -> Result<Flat> {
        let whole = unmasked(stack);
        let mut gradient = self.over_scoring(stack, |x, mut activations, labels, gradient| {
            if let Some(logits) = activations.last_mut() {
                let _ = logits.f_div_scalar_(temperature)?;
            }
            backward(stack, x, &activations, labels, &whole, gradient)
        })?;
        let _ = gradient.all.f_div_scalar_(temperature)?;
        Ok(gradient)
    }

    /// Of some networks, the mean over the samples of the scoring batch of the sum of `g g'`, (numbers, numbers) of each:
    /// `of` gives the g, (networks, samples, numbers), from activations and labels.
    fn mean_of_squares(
        &mut self,
        at: &[Tensor],
        networks: Range<usize>,
        of: OfSamples,
    ) -> Result<Vec<Tensor>> {
        let _guard = no_grad_guard();
        let stack = self.layers(at, Kind::Double)?.range(&networks)?;
        let (first, count) = (networks.start as i64, networks.len() as i64);
        let mut sum: Option<Tensor> = None;
        for chunk in scoring_batch(&mut self.scoring, &self.problem, self.device)?.parts() {
            self.progress.check()?;
            let (x, labels, fraction) = chunk?;
            let activations = forward(&stack, x.f_narrow(0, first, count)?)?;
            for numbers in of(&stack, &activations, &labels.f_narrow(0, first, count)?)? {
                let share = fraction / numbers.size()[1] as f64;
                let part = numbers.f_transpose(1, 2)?.f_bmm(&numbers)?.f_mul_scalar_(share)?;
                sum = Some(match sum {
                    Some(mut sum) => sum.f_add_(&part)?,
                    None => part,
                });
            }
        }
        let Some(sum) = sum else { return Err(value_error!("no samples: pass at least one")) };
        (0..count).map(|network| Ok(sum.f_get(network)?)).collect()
    }

    /// Sets to zero what does not belong to prunable weights.
    fn keep_prunable(&self, numbers: &mut Flat) -> Result<()> {
        let pairs = self.parameters.chunks_exact(2).zip(&mut numbers.stack.layers);
        for (of, (weight, bias)) in pairs {
            if !of[0].prunable {
                let _ = weight.f_zero_()?;
            }
            let _ = bias.f_zero_()?;
        }
        if let Some(c0) = &mut numbers.stack.projection {
            let _ = c0.f_zero_()?;
        }
        Ok(())
    }

    /// The tensors of finite numbers, or the first parameter and network where they are not.
    fn finite(&self, flat: Flat, what: &str) -> Result<Vec<Tensor>> {
        let finite =
            |tensor: &Tensor| -> Result<bool> { Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0) };
        let all_finite = finite(&flat.all)?;
        let tensors = self.values(flat.stack);
        if all_finite {
            return Ok(tensors);
        }
        for (parameter, tensor) in self.parameters.iter().zip(&tensors) {
            for network in 0..self.networks() {
                if !finite(&tensor.f_get(network as i64)?)? {
                    return Err(value_error!(
                        "network {network}: the {what} with respect to {} is not finite: look for weights \
                         that diverged",
                        parameter.name
                    ));
                }
            }
        }
        Ok(tensors)
    }

    /// Gradient of the loss, in the kind of the stack on a training step, in float64 on the scoring batch.
    pub(super) fn batch_gradient(&mut self, at: &[Tensor], batch: Batch) -> Result<Vec<Tensor>> {
        let _guard = no_grad_guard();
        let gradient = match batch {
            Batch::Scoring => {
                let stack = self.layers(at, Kind::Double)?;
                self.scoring_gradient(&stack, 1.0)?
            }
            Batch::Step(step) => {
                self.progress.check()?;
                let stack = self.layers(at, self.kind)?;
                let steps = match self.steps.take() {
                    Some(steps) => steps,
                    None => Steps::new(&self.problem, (self.kind, self.device))?,
                };
                let (x, labels) = self.steps.insert(steps).batch(step)?;
                let mut gradient = self.zeros(self.kind)?;
                let activations = forward(&stack, x.shallow_clone())?;
                backward(&stack, &x, &activations, &labels, &unmasked(&stack), &mut gradient)?;
                gradient
            }
        };
        self.finite(gradient, "gradient")
    }

    /// Product of the Hessian and the gradient of the loss of `logits / temperature` on the scoring batch.
    pub(super) fn hessian_product(&mut self, at: &[Tensor], temperature: f64) -> Result<Vec<Tensor>> {
        let _guard = no_grad_guard();
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(value_error!("temperature = {temperature}: must be positive"));
        }
        let stack = self.layers(at, Kind::Double)?;
        let mut direction = self.scoring_gradient(&stack, temperature)?;
        self.keep_prunable(&mut direction)?;
        let mut product = self.over_scoring(&stack, |_, activations, labels, product| {
            times_direction(&stack, &direction.stack, &activations, labels, temperature, product)
        })?;
        self.keep_prunable(&mut product)?;
        self.finite(product, "Hessian product")
    }

    /// The input of ones is given to the first layer, after the embedding; where each network has a projection, to
    /// the magnitudes of C0.
    pub(super) fn synaptic_flow(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
        let _guard = no_grad_guard();
        let mut stack = self.layers(at, Kind::Double)?;
        for (weight, bias) in &mut stack.layers {
            (*weight, *bias) = (weight.f_abs()?, bias.f_zeros_like()?);
        }
        stack.projection = stack.projection.map(|c0| c0.f_abs()).transpose()?;
        let options = (Kind::Double, self.device);
        let ones = |width: usize| Tensor::f_ones([self.networks() as i64, 1, width as i64], options);
        let outputs = self.widths[self.widths.len() - 1];
        let inputs = stack.projected_variables().unwrap_or(self.widths[0]);
        let activations = forward(&stack, ones(inputs)?)?;
        let flow = self.zeros(Kind::Double)?;
        let mut delta = ones(outputs)?;
        for (i, (weight, _)) in stack.layers.iter().enumerate().rev() {
            let _ = delta.f_transpose(1, 2)?.f_bmm_out(&flow.stack.layers[i].0, &activations[i])?;
            delta = delta.f_bmm(weight)?;
        }
        self.finite(flow, "synaptic flow")
    }

    /// Inputs of the first layer are those after the embedding.
    pub(super) fn layer_moments(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
        let _guard = no_grad_guard();
        let stack = self.layers(at, Kind::Double)?;
        let wanted = self.prunable();
        let options = (Kind::Double, self.device);
        let mut moments: Vec<Tensor> = wanted
            .iter()
            .map(|&layer| {
                let inputs = self.widths[layer] as i64;
                Ok(Tensor::f_zeros([self.networks() as i64, 1, inputs, inputs], options)?)
            })
            .collect::<Result<_>>()?;
        for chunk in Scoring::new(&self.problem, self.device, usize::MAX)?.parts() {
            self.progress.check()?;
            let (x, _, fraction) = chunk?;
            // The first layer's inputs alone need no forward pass, but where they are behind a projection.
            let bare = wanted == [0] && stack.projection.is_none();
            let activations = if bare { vec![x] } else { forward(&stack, x)? };
            let share = fraction / activations[0].size()[1] as f64;
            for (moment, &layer) in moments.iter_mut().zip(&wanted) {
                let inputs = &activations[layer];
                let part = inputs.f_transpose(1, 2)?.f_bmm(inputs)?.f_unsqueeze(1)?;
                let _ = moment.f_add_(&part.f_mul_scalar(share)?)?;
            }
        }
        Ok(moments)
    }

    /// Empirical Fisher matrices of the prunable weights.
    pub(super) fn fisher_matrices(&mut self, at: &[Tensor], networks: Range<usize>) -> Result<Vec<Tensor>> {
        let weights: Vec<(usize, Part)> =
            self.prunable().into_iter().map(|layer| (layer, Part::Weight)).collect();
        self.mean_of_squares(at, networks, &|stack, activations, labels| {
            let delta = residuals(activations, labels)?;
            Ok(vec![of_samples(stack, activations, delta, &weights)?])
        })
    }

    /// Gauss-Newton matrices of all weights and biases.
    pub(super) fn gauss_newton_matrices(
        &mut self,
        at: &[Tensor],
        networks: Range<usize>,
    ) -> Result<Vec<Tensor>> {
        let layers = 0..self.widths.len() - 1;
        let all: Vec<(usize, Part)> =
            layers.flat_map(|layer| [(layer, Part::Weight), (layer, Part::Bias)]).collect();
        self.mean_of_squares(at, networks, &|stack, activations, _| {
            roots_of_curvature(activations)?
                .into_iter()
                .map(|delta| of_samples(stack, activations, delta, &all))
                .collect()
        })
    }
}

/// The scoring batch, which is copied when it is asked for first.
fn scoring_batch<'s>(
    known: &'s mut Option<Scoring>,
    problem: &Problem,
    device: Device,
) -> Result<&'s mut Scoring> {
    let scoring = match known.take() {
        Some(scoring) => scoring,
        None => Scoring::new(problem, device, SCORING_SAMPLES)?,
    };
    Ok(known.insert(scoring))
}

/// No masks, for every layer.
fn unmasked(stack: &Stack) -> Vec<Option<Tensor>> {
    stack.layers.iter().map(|_| None).collect()
}
