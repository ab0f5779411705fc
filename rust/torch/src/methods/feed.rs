//! The samples that a stack's gradients are taken on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use precode_core::Dataset;
use precode_core::train::{Problem, TrainConfig, epoch_order};
use tch::{Device, Kind, Tensor};

use crate::error::{Result, value_error};
use crate::samples::Samples;

/// Samples of the scoring batch, if there are so many.
pub const SCORING_SAMPLES: usize = 4096;

/// Samples of the scoring batch that are evaluated at a time: one number for any stack, so that sums are
/// taken in the same order for a network alone and among others.
const CHUNK: i64 = 256;

/// The batches of training, in the networks' kind.
pub(super) struct Steps<'a> {
    config: &'a TrainConfig,
    samples: Samples,
    /// The order of visits of the epoch that was asked for last.
    order: Option<(u32, Tensor)>,
    device: Device,
}

impl<'a> Steps<'a> {
    /// Copies the data to the device.
    pub fn new(problem: &Problem<'a>, options: (Kind, Device)) -> Result<Self> {
        let samples = Samples::new(problem.data, problem.embedding, options)?;
        Ok(Self { config: problem.config, samples, order: None, device: options.1 })
    }

    /// Embedded inputs (R, batch, rows) and labels (R, batch, outputs) of a step, counted from 0.
    pub fn batch(&mut self, step: u64) -> Result<(Tensor, Tensor)> {
        let config = self.config;
        let samples = self.samples.len();
        let per_epoch = config.steps_per_epoch(samples as usize);
        let epoch = u32::try_from(step / per_epoch)
            .ok()
            .and_then(|epoch| config.first_epoch.checked_add(epoch))
            .ok_or_else(|| value_error!("step {step}: beyond the last epoch that can be numbered"))?;
        let order = match self.order.take() {
            Some((known, order)) if known == epoch => order,
            _ => {
                let order = epoch_order(config.order_seed, epoch, samples as usize);
                let order: Vec<i64> = order.into_iter().map(i64::from).collect();
                Tensor::f_from_slice(&order)?.f_to_device(self.device)?
            }
        };
        let start = (step % per_epoch) as i64 * config.batch as i64;
        let size = (config.batch as i64).min(samples - start);
        let block = self.samples.gather(&order.f_narrow(0, start, size)?)?;
        self.order = Some((epoch, order));
        Ok((self.samples.batch(&block, 0, size)?, block.labels))
    }
}

/// Samples in float64: the first that training visits.
pub(super) struct Scoring {
    samples: Samples,
}

impl Scoring {
    /// Copies so many samples to the device, if there are so many: [`SCORING_SAMPLES`] for the scoring batch.
    pub fn new(problem: &Problem, device: Device, most: usize) -> Result<Self> {
        let (config, samples) = (problem.config, problem.data.first().map_or(0, |data| data.samples()));
        let mut visited = epoch_order(config.order_seed, config.first_epoch, samples);
        visited.truncate(most);
        // Networks that share their data go on sharing them.
        let mut parts: HashMap<*const Dataset, Arc<Dataset>> = HashMap::new();
        let mut data = Vec::with_capacity(problem.data.len());
        for whole in problem.data {
            data.push(match parts.entry(Arc::as_ptr(whole)) {
                Entry::Occupied(part) => Arc::clone(part.get()),
                Entry::Vacant(place) => Arc::clone(place.insert(Arc::new(whole.select(&visited)?))),
            });
        }
        Ok(Self { samples: Samples::new(&data, problem.embedding, (Kind::Double, device))? })
    }

    /// Their parts: inputs, labels, and the fraction of the samples that they are.
    pub fn parts(&self) -> impl Iterator<Item = Result<(Tensor, Tensor, f64)>> + '_ {
        let samples = self.samples.len();
        (0..samples).step_by(CHUNK as usize).map(move |start| {
            let size = CHUNK.min(samples - start);
            let block = self.samples.range(start, size)?;
            Ok((self.samples.batch(&block, 0, size)?, block.labels, size as f64 / samples as f64))
        })
    }
}
