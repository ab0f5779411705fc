//! Stacks of networks as what methods search.

mod scoring;
mod training;

use std::ops::Range;
use std::sync::Arc;

use precode_core::train::Problem;
use precode_core::train::scores::Scores;
use precode_core::{Clause, Dataset, Embedding, Progress};
use tch::{Device, Kind, Tensor};

use super::feed::{Scoring, Steps};
use super::objective::{Batch, FeaturePair, Objective, Outcome, Parameter, Plan, ScorePlan};
use crate::engine::{Choice, choose};
use crate::error::{Result, shape_error, value_error};
use crate::flat::Flat;
use crate::samples::from_matrix;
use crate::stack::Stack;

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

    fn samples(&mut self) -> Result<Vec<Arc<Dataset>>> {
        let output = self.features.as_ref().map_or(0, |pair| pair.output);
        let of_output = |data: &Arc<Dataset>| match data.outputs() {
            1 => Ok(Arc::clone(data)),
            _ => Ok(Arc::new(data.of_output(output)?)),
        };
        self.problem.data.iter().map(of_output).collect()
    }

    fn dense_epochs(&self) -> Vec<f64> {
        self.dense.as_ref().map_or_else(|| vec![f64::from(self.epochs())], |(_, epochs)| epochs.clone())
    }

    fn gradient(&mut self, at: &[Tensor], batch: Batch) -> Result<Vec<Tensor>> {
        self.batch_gradient(at, batch)
    }

    fn curvature(&mut self, at: &[Tensor], temperature: f64) -> Result<Vec<Tensor>> {
        self.hessian_product(at, temperature)
    }

    fn flow(&mut self, at: Vec<Tensor>) -> Result<Vec<Tensor>> {
        self.synaptic_flow(&at)
    }

    fn input_moments(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
        self.layer_moments(at)
    }

    fn fisher(&mut self, at: &[Tensor], networks: Range<usize>) -> Result<Vec<Tensor>> {
        self.fisher_matrices(at, networks)
    }

    fn gauss_newton(&mut self, at: &[Tensor], networks: Range<usize>) -> Result<Vec<Tensor>> {
        self.gauss_newton_matrices(at, networks)
    }

    fn dense(&mut self) -> Result<Vec<Tensor>> {
        self.dense_run()
    }

    fn dense_at(&mut self, steps: &[u64]) -> Result<Vec<Vec<Tensor>>> {
        self.dense_run_at(steps)
    }

    fn train(&mut self, plan: &Plan) -> Result<Outcome> {
        self.train_plan(plan)
    }

    fn learns_scores(&self) -> bool {
        self.engine_learns_scores()
    }

    fn learn_scores(&mut self, plan: &ScorePlan, scores: &mut Scores) -> Result<()> {
        self.engine_scores(plan, scores)
    }

    fn features(&self) -> Option<&FeaturePair> {
        self.features.as_ref()
    }

    fn place_of_projection(&self) -> Option<usize> {
        self.parameters.iter().position(|parameter| parameter.name == "c0")
    }
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
