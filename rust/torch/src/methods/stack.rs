//! Stacks of networks as what methods search.

use std::ops::Range;
use std::sync::Arc;

use precode_core::Progress;
use precode_core::train::{Problem, TrainConfig};
use precode_core::{Clause, Dataset, Embedding, Masks};
use tch::{Device, Kind, Tensor, no_grad_guard};

use super::feed::{SCORING_SAMPLES, Scoring, Steps};
use super::objective::{Batch, FeaturePair, Objective, Outcome, Parameter, Plan};
use super::select::flat;
use crate::curvature::times_direction;
use crate::engine::{Choice, choose};
use crate::error::{Result, shape_error, value_error};
use crate::flat::Flat;
use crate::gradient::{Part, backward, forward, of_samples, residuals, roots_of_curvature};
use crate::samples::from_matrix;
use crate::stack::Stack;

/// Numbers of single samples, (networks, samples, numbers) each, from networks, activations and labels.
type OfSamples<'a> = &'a dyn Fn(&Stack, &[Tensor], &Tensor) -> Result<Vec<Tensor>>;

/// A [`Stack`] with its data. The parameters are `w1`, `b1`, `w2`, `b2`, .. from input to output, and last `c0` where
/// each network has a projection that is trained.
///
/// Gradients of training steps are taken in the stack's element type; those on the scoring batch, the first
/// [`SCORING_SAMPLES`](super::SCORING_SAMPLES) samples that training visits, in float64.
pub struct StackObjective<'a> {
    problem: Problem<'a>,
    engine: Choice,
    progress: &'a Progress,
    parameters: Vec<Parameter>,
    kind: Kind,
    device: Device,
    widths: Vec<usize>,
    /// The networks' own C0 where it is not trained.
    fixed_projection: Option<Tensor>,
    /// Whether masked networks are trained behind the C0 of the dense run's end.
    holds_projection: bool,
    /// Trained values, and the epochs they took, (R).
    dense: Option<(Vec<Tensor>, Vec<f64>)>,
    /// Values during the dense run, by step, that were handed in.
    given: Vec<(u64, Vec<Tensor>)>,
    /// What [`Objective::dense_at`] was asked for last, by step.
    snapshots: Vec<(u64, Vec<Tensor>)>,
    features: Option<FeaturePair>,
    steps: Option<Steps<'a>>,
    scoring: Option<Scoring>,
}

impl<'a> StackObjective<'a> {
    /// Networks that start at `start`, which is copied. `prunable` names the weights that may be pruned:
    /// `all`, or some of `w1`, `w2`, .. joined by `+`. Training runs on the chosen engine and counts
    /// network-steps in `progress`.
    ///
    /// # Errors
    /// A start, a problem or an engine that do not fit together; a problem with masks; unknown names.
    pub fn new(
        start: &Stack,
        problem: Problem<'a>,
        engine: Choice,
        prunable: &str,
        progress: &'a Progress,
    ) -> Result<Self> {
        start.validate()?;
        let (kind, device, widths) = (start.kind()?, start.device(), start.widths());
        problem.validate(start.networks(), &widths)?;
        let variables = problem.data.first().map_or(0, |data| data.variables());
        problem.embedding.validate_projection(start.projected_variables(), variables)?;
        choose(engine, &widths, &problem, kind, device)?;
        if problem.masks.is_some() {
            return Err(value_error!("tickets are sought in whole networks: leave the masks out"));
        }
        let prunable = prunable_layers(prunable, start.layers.len())?;
        let mut parameters = Vec::with_capacity(2 * prunable.len() + 1);
        let Stack { layers, projection } = start.copy_to(kind, device)?;
        for (i, (weight, bias)) in layers.into_iter().enumerate() {
            let name = |letter: char| format!("{letter}{}", i + 1);
            parameters.push(Parameter { name: name('w'), initial: weight, prunable: prunable[i] });
            parameters.push(Parameter { name: name('b'), initial: bias, prunable: false });
        }
        let mut fixed_projection = None;
        match projection {
            Some(initial) if problem.embedding.is_trained() => {
                parameters.push(Parameter { name: "c0".to_owned(), initial, prunable: false });
            }
            other => fixed_projection = other,
        }
        let features = match widths.len() {
            3 => Some(features(&problem, fixed_projection.as_ref(), device)?),
            _ => None,
        };
        Ok(Self {
            problem,
            engine,
            progress,
            parameters,
            kind,
            device,
            widths,
            fixed_projection,
            holds_projection: false,
            dense: None,
            given: Vec::new(),
            snapshots: Vec::new(),
            features,
            steps: None,
            scoring: None,
        })
    }

    /// Has masked networks trained behind the C0 that the dense run ends with, which is then held fixed. The networks
    /// must have projections that are trained.
    ///
    /// # Errors
    /// There are none.
    pub fn with_held_projection(mut self) -> Result<Self> {
        if !self.problem.embedding.is_trained() {
            return Err(value_error!(
                "only a projection that the dense run trains can be held fixed after it"
            ));
        }
        self.holds_projection = true;
        if let Some(features) = &mut self.features {
            features.holds_projection = true;
        }
        Ok(self)
    }

    /// Hands in the trained networks, so that they need not be trained again: the weights that training from
    /// the start ends with, and the epochs it took each network.
    ///
    /// # Errors
    /// Networks of other widths, or other than so many.
    pub fn with_dense(mut self, dense: &Stack, epochs: &[f64]) -> Result<Self> {
        if epochs.len() != self.networks() {
            return Err(shape_error!("epochs of {} networks for {}", epochs.len(), self.networks()));
        }
        self.dense = Some((self.values_of(dense)?, epochs.to_vec()));
        Ok(self)
    }

    /// Hands in the networks during the dense run, each with the number of steps that it has behind it, so that they
    /// need not be trained again.
    ///
    /// # Errors
    /// As [`with_dense`](Self::with_dense).
    pub fn with_snapshots(mut self, snapshots: &[(u64, Stack)]) -> Result<Self> {
        let given = snapshots.iter().map(|(step, stack)| Ok((*step, self.values_of(stack)?)));
        self.given = given.collect::<Result<_>>()?;
        Ok(self)
    }

    /// The values of other networks of the same sizes.
    fn values_of(&self, stack: &Stack) -> Result<Vec<Tensor>> {
        stack.validate_shapes()?;
        if (stack.networks(), stack.widths()) != (self.networks(), self.widths.clone()) {
            return Err(shape_error!(
                "{} dense networks of widths {:?} for {} of widths {:?}",
                stack.networks(),
                stack.widths(),
                self.networks(),
                self.widths
            ));
        }
        if stack.projected_variables() != self.projected_variables() {
            return Err(shape_error!(
                "dense networks with projections of {:?} variables for networks with {:?}",
                stack.projected_variables(),
                self.projected_variables()
            ));
        }
        Ok(self.values(stack.copy_to(self.kind, self.device)?))
    }

    /// Tells the clauses of each network's formula, for methods that use them, and whether the network computes the
    /// negation of what they say (none does where `complemented` is empty).
    ///
    /// # Errors
    /// Not one set of clauses for each network.
    pub fn with_clauses(mut self, clauses: Vec<Vec<Clause>>, complemented: Vec<bool>) -> Result<Self> {
        if clauses.len() != self.networks() || ![0, clauses.len()].contains(&complemented.len()) {
            return Err(shape_error!("{} sets of clauses for {} networks", clauses.len(), self.networks()));
        }
        let Some(features) = &mut self.features else {
            return Err(value_error!(
                "clauses are read from networks of one hidden layer, not of widths {:?}",
                self.widths
            ));
        };
        features.clauses = Some(clauses);
        features.complemented = complemented;
        Ok(self)
    }

    /// Has codes read at another output than the first: its weights give rows their polarity, and its labels are read.
    ///
    /// # Errors
    /// There is no such output.
    pub fn with_output(mut self, output: usize) -> Result<Self> {
        let outputs = self.widths[self.widths.len() - 1];
        if output >= outputs {
            return Err(value_error!("output {output} of {outputs}: counted from 0"));
        }
        // Of deeper networks no codes are read.
        if let Some(features) = &mut self.features {
            features.output = output;
        }
        Ok(self)
    }

    fn networks(&self) -> usize {
        self.parameters.first().map_or(0, |parameter| parameter.initial.size()[0] as usize)
    }

    /// The layers whose weights may be pruned, counted from 0.
    fn prunable(&self) -> Vec<usize> {
        let weights = self.parameters[..2 * (self.widths.len() - 1)].iter().step_by(2).enumerate();
        weights.filter(|(_, weight)| weight.prunable).map(|(layer, _)| layer).collect()
    }

    /// The networks' own C0 among the parameters, where it is trained.
    fn projection(&self) -> Option<&Parameter> {
        self.parameters.get(2 * (self.widths.len() - 1))
    }

    /// Variables of the networks' own C0, trained or not.
    fn projected_variables(&self) -> Option<usize> {
        let c0 = self.projection().map(|parameter| &parameter.initial).or(self.fixed_projection.as_ref())?;
        Some(c0.size()[2] as usize)
    }

    /// The tensors of all layers from input to output, weights before biases, and a C0 that is trained.
    fn values(&self, stack: Stack) -> Vec<Tensor> {
        let projection = stack.projection.filter(|_| self.projection().is_some());
        stack.layers.into_iter().flat_map(|(weight, bias)| [weight, bias]).chain(projection).collect()
    }

    fn initial(&self) -> Vec<Tensor> {
        self.parameters.iter().map(|parameter| parameter.initial.shallow_clone()).collect()
    }

    /// Values of the parameters as layers, in the given kind; not copied where they have it.
    fn layers(&self, values: &[Tensor], kind: Kind) -> Result<Stack> {
        if values.len() != self.parameters.len() {
            return Err(shape_error!("{} tensors for {} parameters", values.len(), self.parameters.len()));
        }
        let tensor = |tensor: &Tensor, parameter: &Parameter| -> Result<Tensor> {
            if tensor.size() != parameter.initial.size() {
                return Err(shape_error!(
                    "values of shape {:?} for {}, which has the shape {:?}",
                    tensor.size(),
                    parameter.name,
                    parameter.initial.size()
                ));
            }
            Ok(tensor.f_detach()?.f_to_device(self.device)?.f_to_kind(kind)?)
        };
        let pairs = values.chunks_exact(2).zip(self.parameters.chunks_exact(2));
        let layers = pairs.map(|(values, of)| Ok((tensor(&values[0], &of[0])?, tensor(&values[1], &of[1])?)));
        let layers = layers.collect::<Result<_>>()?;
        let projection = match (self.projection(), values.last(), &self.fixed_projection) {
            (Some(parameter), Some(c0), _) => Some(tensor(c0, parameter)?),
            (_, _, Some(fixed)) => Some(fixed.f_to_kind(kind)?),
            _ => None,
        };
        Ok(Stack { layers, projection })
    }

    fn zeros(&self, kind: Kind) -> Result<Flat> {
        let trained = self.projection().and_then(|_| self.projected_variables());
        Flat::zeros(self.networks(), &self.widths, trained, (kind, self.device))
    }

    /// Mean over the scoring batch of what `part` writes for samples, activations and labels.
    fn over_scoring(
        &mut self,
        stack: &Stack,
        mut part: impl FnMut(&Tensor, Vec<Tensor>, &Tensor, &mut Flat) -> Result<()>,
    ) -> Result<Flat> {
        let (mut mean, mut piece) = (self.zeros(Kind::Double)?, self.zeros(Kind::Double)?);
        let scoring = match self.scoring.take() {
            Some(scoring) => scoring,
            None => Scoring::new(&self.problem, self.device, SCORING_SAMPLES)?,
        };
        for chunk in self.scoring.insert(scoring).parts() {
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
        let scoring = match self.scoring.take() {
            Some(scoring) => scoring,
            None => Scoring::new(&self.problem, self.device, SCORING_SAMPLES)?,
        };
        for chunk in self.scoring.insert(scoring).parts() {
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

    /// Core's form of masks on the prunable parameters.
    fn masks(&self, masks: &[Tensor]) -> Result<Masks> {
        let prunable = self.parameters.iter().filter(|parameter| parameter.prunable).count();
        if masks.len() != prunable {
            return Err(shape_error!("{} masks for {prunable} prunable parameters", masks.len()));
        }
        let mut masks = masks.iter();
        let weights = self.parameters.chunks_exact(2).map(|pair| &pair[0]);
        let layers =
            weights.map(|weight| weight.prunable.then(|| masks.next()).flatten().map(flat).transpose());
        Ok(Masks { layers: layers.collect::<Result<_>>()? })
    }

    /// Trains `epochs` epochs of a plan; behind a C0 that is `held` fixed, where one is given.
    fn run(&self, plan: &Plan, held: Option<Tensor>, epochs: u32) -> Result<Outcome> {
        let mut start = self.layers(plan.start, self.kind)?;
        let fixed = Embedding::Projection { rows: self.widths[0], trained: false };
        let embedding = if held.is_some() { &fixed } else { self.problem.embedding };
        start.projection = held.or(start.projection);
        let masks = plan.masks.map(|masks| self.masks(masks)).transpose()?;
        let config = TrainConfig {
            epochs,
            first_epoch: self.problem.config.first_epoch + plan.first_epoch,
            snapshots: plan.snapshots.to_vec(),
            optimizer: self.problem.config.optimizer.faster(plan.rate),
            ..self.problem.config.clone()
        };
        let problem = Problem { masks: masks.as_ref(), config: &config, embedding, ..self.problem };
        let (engine, _) = choose(self.engine, &self.widths, &problem, self.kind, self.device)?;
        let trained = engine.train(&start, &problem, self.progress)?;
        Ok(Outcome {
            parameters: self.values(trained.weights),
            snapshots: trained.snapshots.into_iter().map(|stack| self.values(stack)).collect(),
            epochs: trained.history.epochs_run.iter().map(|&epochs| f64::from(epochs)).collect(),
        })
    }
}

impl Objective for StackObjective<'_> {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn steps_per_epoch(&self) -> u64 {
        let samples = self.problem.data.first().map_or(0, |data| data.samples());
        self.problem.config.steps_per_epoch(samples)
    }

    fn epochs(&self) -> u32 {
        self.problem.config.epochs
    }

    fn gradient(&mut self, at: &[Tensor], batch: Batch) -> Result<Vec<Tensor>> {
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

    fn curvature(&mut self, at: &[Tensor], temperature: f64) -> Result<Vec<Tensor>> {
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
    fn flow(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
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
    fn input_moments(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
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

    fn fisher(&mut self, at: &[Tensor], networks: Range<usize>) -> Result<Vec<Tensor>> {
        let weights: Vec<(usize, Part)> =
            self.prunable().into_iter().map(|layer| (layer, Part::Weight)).collect();
        self.mean_of_squares(at, networks, &|stack, activations, labels| {
            let delta = residuals(activations, labels)?;
            Ok(vec![of_samples(stack, activations, delta, &weights)?])
        })
    }

    fn gauss_newton(&mut self, at: &[Tensor], networks: Range<usize>) -> Result<Vec<Tensor>> {
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

    fn samples(&mut self) -> Result<Vec<Arc<Dataset>>> {
        let output = self.features.as_ref().map_or(0, |pair| pair.output);
        let of_output = |data: &Arc<Dataset>| match data.outputs() {
            1 => Ok(Arc::clone(data)),
            _ => Ok(Arc::new(data.of_output(output)?)),
        };
        self.problem.data.iter().map(of_output).collect()
    }

    /// The dense run that was handed in, or else one that is trained now.
    fn dense(&mut self) -> Result<Vec<Tensor>> {
        let dense = match self.dense.take() {
            Some(dense) => dense,
            None => {
                let outcome = self.run(&Plan::new(&self.initial()), None, self.epochs())?;
                (outcome.parameters, outcome.epochs)
            }
        };
        let (values, _) = self.dense.insert(dense);
        Ok(values.iter().map(Tensor::shallow_clone).collect())
    }

    fn dense_epochs(&self) -> Vec<f64> {
        self.dense.as_ref().map_or_else(|| vec![f64::from(self.epochs())], |(_, epochs)| epochs.clone())
    }

    /// Trains again up to the last step, but for those that were asked for last, and the end of a dense run that is
    /// there already.
    fn dense_at(&mut self, steps: &[u64]) -> Result<Vec<Vec<Tensor>>> {
        let last = self.steps_per_epoch() * u64::from(self.epochs());
        if let Some(step) = steps.iter().find(|&&step| step > last) {
            return Err(value_error!("step {step} of the dense run: it ends at step {last}"));
        }
        let copy = |values: &Vec<Tensor>| values.iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
        if let Some((values, _)) = self.dense.as_ref().filter(|_| last > 0) {
            self.snapshots.retain(|(step, _)| *step != last);
            self.snapshots.push((last, copy(values)));
        }
        self.snapshots.retain(|(known, _)| steps.contains(known));
        let missing = |step: &u64| self.given.iter().chain(&self.snapshots).all(|(known, _)| known != step);
        let missing: Vec<u64> = steps.iter().copied().filter(missing).collect();
        if let Some(end) = missing.last() {
            let epochs = end.div_ceil(self.steps_per_epoch()) as u32;
            let initial = self.initial();
            let outcome = self.run(&Plan { snapshots: &missing, ..Plan::new(&initial) }, None, epochs)?;
            if epochs == self.epochs() {
                self.dense = Some((outcome.parameters, outcome.epochs));
            }
            self.snapshots.extend(missing.into_iter().zip(outcome.snapshots));
        }
        let of = |step: &u64| {
            let known = self.given.iter().chain(&self.snapshots).find(|(known, _)| known == step);
            known.map(|(_, values)| copy(values))
        };
        Ok(steps.iter().filter_map(of).collect())
    }

    fn train(&mut self, plan: &Plan) -> Result<Outcome> {
        let end = plan.end_epoch.unwrap_or(self.epochs()).min(self.epochs());
        let Some(epochs) = end.checked_sub(plan.first_epoch) else {
            return Err(value_error!("first_epoch = {}: training ends after {end} epochs", plan.first_epoch));
        };
        let held = match plan.masks {
            Some(_) if self.holds_projection => self.dense()?.pop(),
            _ => None,
        };
        self.run(plan, held, epochs)
    }

    fn features(&self) -> Option<&FeaturePair> {
        self.features.as_ref()
    }
}

/// No masks, for every layer.
fn unmasked(stack: &Stack) -> Vec<Option<Tensor>> {
    stack.layers.iter().map(|_| None).collect()
}

/// For each layer, whether its weights may be pruned.
fn prunable_layers(prunable: &str, depth: usize) -> Result<Vec<bool>> {
    let names: Vec<String> = (1..=depth).map(|layer| format!("w{layer}")).collect();
    if prunable == "all" {
        return Ok(vec![true; depth]);
    }
    let asked: Vec<&str> = prunable.split('+').collect();
    match asked.iter().find(|name| !names.iter().any(|known| known == *name)) {
        Some(_) => Err(value_error!(
            "prunable = '{prunable}': use 'all', or some of {} joined by '+'",
            names.join(", ")
        )),
        None => Ok(names.iter().map(|name| asked.contains(&name.as_str())).collect()),
    }
}

/// The two layers of networks of one hidden layer, whose C0 is `fixed` where each has its own that is not trained.
fn features(problem: &Problem, fixed: Option<&Tensor>, device: Device) -> Result<FeaturePair> {
    let variables = problem.data.first().map_or(0, |data| data.variables());
    let embedding = match problem.embedding {
        Embedding::Identity => None,
        Embedding::Projection { .. } => fixed.map(Tensor::shallow_clone),
        map => Some(from_matrix(map.matrix(variables)?)?.f_to_device(device)?),
    };
    Ok(FeaturePair {
        first: 0,
        second: 2,
        output: 0,
        embedding,
        projection: problem.embedding.is_trained().then_some(4),
        holds_projection: false,
        clauses: None,
        complemented: Vec::new(),
    })
}
