//! The training loop: steps, epochs, early stopping, snapshots.

use precode_core::Masks;
use precode_core::Progress;
use precode_core::train::{History, Patience, Problem, Trained, Watch, epoch_order};
use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::evaluate::{Heldout, Tally};
use crate::flat::Flat;
use crate::gradient::{backward_watched, forward_watched};
use crate::optimizer::Updater;
use crate::samples::{Samples, index_tensor};
use crate::stack::Stack;
use crate::unpack::at_once;

/// Bytes of inputs gathered at a time: several small batches at once, to save calls.
pub(crate) const GATHER: i64 = 1 << 21;

/// The state of a training run. Networks that have stopped leave every tensor here but `result`.
pub(crate) struct Run<'a> {
    problem: &'a Problem<'a>,
    weights: Flat,
    gradient: Flat,
    updater: Updater,
    /// Where a weight is masked, by layer.
    pruned: Vec<Option<Tensor>>,
    samples: Samples,
    validation: Option<Heldout>,
    /// The numbers of the networks that still train, increasing.
    active: Vec<usize>,
    patience: Vec<Option<Patience>>,
    /// All R networks as last stored.
    result: Stack,
    snapshots: Vec<Stack>,
    history: History,
    step: u64,
}

impl<'a> Run<'a> {
    /// Copies the start and the data to the device.
    pub fn new(options: (Kind, Device), start: &Stack, problem: &'a Problem<'a>) -> Result<Self> {
        let mut weights = Flat::copy_of(start, problem.embedding.is_trained(), options)?;
        let pruned = prune(&mut weights.stack, problem.masks)?;
        let networks = start.networks();
        let validation = match problem.validation {
            [] => None,
            data => Some(Heldout::new(data, problem.embedding, options)?),
        };
        Ok(Self {
            gradient: weights.zeros_like()?,
            updater: Updater::new(problem.config.optimizer, &weights)?,
            samples: Samples::new(problem.data, problem.embedding, options)?,
            validation,
            active: (0..networks).collect(),
            patience: vec![problem.config.early_stopping.map(Patience::new); networks],
            result: weights.stack.copy_to(options.0, options.1)?,
            snapshots: Vec::with_capacity(problem.config.snapshots.len()),
            history: History::empty(networks, problem.config.epochs as usize)?,
            step: 0,
            problem,
            weights,
            pruned,
        })
    }

    /// All epochs.
    pub fn train(mut self, progress: &Progress) -> Result<Trained<Stack>> {
        self.take_snapshot()?;
        for epoch in 0..self.problem.config.epochs {
            let (loss, error) = self.epoch(epoch, progress)?;
            let validation = match &self.validation {
                None => None,
                Some(heldout) => Some(heldout.evaluate(&self.weights.stack, || Ok(progress.check()?))?.loss),
            };
            self.record(epoch, &loss, &error, validation.as_deref());
            self.drop_stopped(&loss, validation.as_deref())?;
            if self.active.is_empty() {
                break;
            }
        }
        self.store()?;
        while self.snapshots.len() < self.problem.config.snapshots.len() {
            self.snapshots.push(self.copy_of_result()?);
        }
        Ok(Trained { weights: self.result, snapshots: self.snapshots, history: self.history })
    }

    /// One pass over the data; mean loss and error of each active network before each update.
    fn epoch(&mut self, epoch: u32, progress: &Progress) -> Result<(Vec<f64>, Vec<f64>)> {
        let config = self.problem.config;
        let samples = self.samples.len();
        let batch = config.batch.min(samples as usize) as i64;
        let order = epoch_order(config.order_seed, config.first_epoch + epoch, samples as usize);
        let order: Vec<i64> = order.into_iter().map(i64::from).collect();
        let order = Tensor::f_from_slice(&order)?.f_to_device(self.weights.all.device())?;
        let row = self.samples.sets() * self.samples.variables();
        let gathered = (at_once(GATHER, order.device()) / row).clamp(batch, 64 * batch) / batch * batch;
        let mut tally = Tally::default();
        let check = || Ok(progress.check()?);
        for first in (0..samples).step_by(gathered as usize) {
            let len = gathered.min(samples - first);
            let block = self.samples.gather(&order.f_narrow(0, first, len)?)?;
            // Losses are counted over the whole block: one set of operations, not one each step.
            let logits = block.labels.f_empty_like()?;
            for start in (0..len).step_by(batch as usize) {
                check()?;
                let size = batch.min(len - start);
                let (stack, x) = (&self.weights.stack, self.samples.batch(&block, start, size)?);
                let activations = forward_watched(stack, x.shallow_clone(), &check)?;
                let labels = block.labels.f_narrow(1, start, size)?;
                let gradient = &mut self.gradient;
                backward_watched(stack, &x, &activations, &labels, &self.pruned, gradient, &check)?;
                check()?;
                if let Some(output) = activations.last() {
                    logits.f_narrow(1, start, size)?.f_copy_(output)?;
                }
                self.updater.step(&mut self.weights.all, &mut self.gradient.all)?;
                self.step += 1;
                self.take_snapshot()?;
                progress.advance(self.active.len() as u64);
            }
            tally.add(&logits, &block.labels)?;
        }
        tally.means()
    }

    fn record(&mut self, epoch: u32, loss: &[f64], error: &[f64], validation: Option<&[f64]>) {
        for (i, &network) in self.active.iter().enumerate() {
            let cell = network * self.history.epochs + epoch as usize;
            self.history.train_loss[cell] = loss[i];
            self.history.train_error[cell] = error[i];
            if let Some(validation) = validation {
                self.history.validation_loss[cell] = validation[i];
            }
            self.history.epochs_run[network] = epoch + 1;
        }
    }

    /// Ends the training of networks out of patience: their weights are stored, and the others move
    /// together so that no work is done for networks that stopped.
    fn drop_stopped(&mut self, train_loss: &[f64], validation_loss: Option<&[f64]>) -> Result<()> {
        let Some(rule) = self.problem.config.early_stopping else { return Ok(()) };
        let watched = match (rule.watch, validation_loss) {
            (Watch::Validation, Some(loss)) => loss,
            _ => train_loss,
        };
        let mut kept = Vec::with_capacity(self.active.len());
        for (i, patience) in self.patience.iter_mut().enumerate() {
            if !patience.as_mut().is_some_and(|patience| patience.update(watched[i])) {
                kept.push(i);
            }
        }
        if kept.len() == self.active.len() {
            return Ok(());
        }
        self.store()?;
        self.active = kept.iter().map(|&i| self.active[i]).collect();
        self.patience = kept.iter().map(|&i| self.patience[i]).collect();
        if kept.is_empty() {
            return Ok(());
        }
        let rows = index_tensor(&kept, self.weights.all.device())?;
        self.weights = self.weights.rows(&rows)?;
        self.gradient = self.weights.zeros_like()?;
        self.updater = self.updater.rows(&rows, &self.weights)?;
        for pruned in self.pruned.iter_mut().flatten() {
            *pruned = pruned.f_index_select(0, &rows)?;
        }
        self.samples.keep(&kept)?;
        if let Some(heldout) = &mut self.validation {
            heldout.keep(&kept)?;
        }
        Ok(())
    }

    /// Copies the active networks into the result.
    fn store(&mut self) -> Result<()> {
        if self.active.is_empty() {
            return Ok(());
        }
        let rows = index_tensor(&self.active, self.weights.all.device())?;
        for ((weight, bias), (from_weight, from_bias)) in
            self.result.layers.iter_mut().zip(&self.weights.stack.layers)
        {
            let _ = weight.f_index_copy_(0, &rows, from_weight)?;
            let _ = bias.f_index_copy_(0, &rows, from_bias)?;
        }
        if let (Some(c0), Some(from)) = (&mut self.result.projection, &self.weights.stack.projection) {
            let _ = c0.f_index_copy_(0, &rows, from)?;
        }
        Ok(())
    }

    /// Keeps the weights if this step is the next snapshot.
    fn take_snapshot(&mut self) -> Result<()> {
        if self.problem.config.snapshots.get(self.snapshots.len()) == Some(&self.step) {
            self.store()?;
            self.snapshots.push(self.copy_of_result()?);
        }
        Ok(())
    }

    fn copy_of_result(&self) -> Result<Stack> {
        self.result.copy_to(self.weights.all.f_kind()?, self.weights.all.device())
    }
}

/// Multiplies the weights by the masks; returns where they are masked, by layer.
fn prune(stack: &mut Stack, masks: Option<&Masks>) -> Result<Vec<Option<Tensor>>> {
    let Some(masks) = masks else { return Ok(stack.layers.iter().map(|_| None).collect()) };
    let layers = stack.layers.iter_mut().zip(&masks.layers);
    layers
        .map(|((weight, _), mask)| {
            let Some(mask) = mask else { return Ok(None) };
            let kept =
                Tensor::f_from_slice(mask)?.f_view(weight.size().as_slice())?.f_to_device(weight.device())?;
            let _ = weight.f_mul_(&kept)?;
            Ok(Some(kept.f_logical_not()?))
        })
        .collect()
}
