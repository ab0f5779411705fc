//! The dense run of a stack, and the trainings that methods ask for.

use precode_core::train::fused::{Options, learn_scores};
use precode_core::train::scores::Scores;
use precode_core::train::{Problem, TrainConfig};
use precode_core::{Embedding, Masks};
use tch::Tensor;

use super::StackObjective;
use crate::engine::choose;
use crate::error::{Result, shape_error, value_error};
use crate::methods::objective::{Objective, Outcome, Plan, ScorePlan};
use crate::methods::select::flat;

impl StackObjective<'_> {
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

    /// The dense run that was handed in, or else one that is trained now.
    pub(super) fn dense_run(&mut self) -> Result<Vec<Tensor>> {
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

    /// Trains again up to the last step, but for those that were asked for last, and the end of a dense run that is
    /// there already.
    pub(super) fn dense_run_at(&mut self, steps: &[u64]) -> Result<Vec<Vec<Tensor>>> {
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

    /// Trains as a plan says, behind the C0 of the dense run where that is held.
    pub(super) fn train_plan(&mut self, plan: &Plan) -> Result<Outcome> {
        let end = plan.end_epoch.unwrap_or(self.epochs()).min(self.epochs());
        let Some(epochs) = end.checked_sub(plan.first_epoch) else {
            return Err(value_error!("first_epoch = {}: training ends after {end} epochs", plan.first_epoch));
        };
        let held = match plan.masks {
            Some(_) if self.holds_projection => self.dense_run()?.pop(),
            _ => None,
        };
        self.run(plan, held, epochs)
    }

    /// Whether scores of the prunable weights can be learned in the fused engine.
    pub(super) fn engine_learns_scores(&self) -> bool {
        let engine = choose(self.engine, &self.widths, &self.problem, self.kind, self.device);
        self.prunable() == [0] && engine.is_ok_and(|(engine, _)| engine.name() == "fused")
    }

    /// Learns scores of W1 in the fused engine.
    pub(super) fn engine_scores(&self, plan: &ScorePlan, scores: &mut Scores) -> Result<()> {
        let mut start = self.layers(&self.initial(), self.kind)?;
        if let (Some([mask]), Some((w1, _))) = (plan.masks, start.layers.first_mut()) {
            *w1 = w1.f_mul(&mask.f_to_kind(self.kind)?)?;
        }
        let config = TrainConfig {
            epochs: plan.epochs,
            first_epoch: self.problem.config.first_epoch + plan.first_epoch,
            snapshots: Vec::new(),
            early_stopping: None,
            ..self.problem.config.clone()
        };
        let problem = Problem { validation: &[], masks: None, config: &config, ..self.problem };
        let (start, options) = (start.to_weights()?, Options::default());
        learn_scores(start, scores, plan.rule, plan.steps, &problem, options, self.progress)?;
        Ok(())
    }
}
