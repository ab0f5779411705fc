//! Losses and errors, summed on the device.

use std::sync::Arc;

use precode_core::train::Evaluation;
use precode_core::{Dataset, Embedding};
use tch::{Device, Kind, Tensor};

use crate::error::{Result, shape_error};
use crate::gradient::forward;
use crate::samples::{Samples, index_tensor};
use crate::stack::Stack;
use crate::unpack::at_once;

/// Numbers a forward pass may hold at a time, about 16 MB of float32.
pub(crate) const CHUNK: i64 = 1 << 22;

/// Sums of losses and errors by network, kept on the device until they are read.
#[derive(Default)]
pub(crate) struct Tally {
    losses: Vec<Tensor>,
    errors: Vec<Tensor>,
    labels: i64,
}

impl Tally {
    /// Adds logits and labels, both (R, samples, outputs).
    pub fn add(&mut self, logits: &Tensor, labels: &Tensor) -> Result<()> {
        // 16-bit floats cannot hold a sum over many samples.
        let kind = if logits.f_kind()? == Kind::Double { Kind::Double } else { Kind::Float };
        let (logits, labels) = (logits.f_to_kind(kind)?, labels.f_to_kind(kind)?);
        let loss =
            logits.f_binary_cross_entropy_with_logits::<Tensor>(&labels, None, None, tch::Reduction::None)?;
        // A NaN logit is on the wrong side of either label, as in the fused engine.
        let wrong = logits.f_gt(0.0)?.f_ne_tensor(&labels.f_gt(0.5)?)?.f_logical_or(&logits.f_isnan()?)?;
        self.losses.push(loss.f_sum_dim_intlist([1i64, 2].as_slice(), false, kind)?);
        self.errors.push(wrong.f_sum_dim_intlist([1i64, 2].as_slice(), false, kind)?);
        let size = labels.size();
        self.labels += size[1] * size[2];
        Ok(())
    }

    /// Mean loss and fraction of wrong labels, each (R).
    pub fn means(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        let mean = |sums: &[Tensor]| -> Result<Vec<f64>> {
            let sums = Tensor::f_stack(sums, 0)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
            let sums: Vec<f64> = sums.f_sum_dim_intlist(0, false, Kind::Double)?.try_into()?;
            Ok(sums.iter().map(|sum| sum / self.labels as f64).collect())
        };
        Ok((mean(&self.losses)?, mean(&self.errors)?))
    }
}

/// Data to evaluate R networks on; the sets may differ in their number of samples.
pub(crate) struct Heldout {
    /// Networks whose sets have the same number of samples, and those sets.
    groups: Vec<(Vec<usize>, Samples)>,
}

impl Heldout {
    /// Copies the data, one set for each network, to the device.
    pub fn new(data: &[Arc<Dataset>], embedding: &Embedding, options: (Kind, Device)) -> Result<Self> {
        let mut sizes: Vec<usize> = data.iter().map(|set| set.samples()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let groups = sizes
            .iter()
            .map(|&size| {
                let rows: Vec<usize> = (0..data.len()).filter(|&i| data[i].samples() == size).collect();
                let sets: Vec<_> = rows.iter().map(|&i| Arc::clone(&data[i])).collect();
                Ok((rows, Samples::new(&sets, embedding, options)?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { groups })
    }

    /// Keeps only the given networks, in that (increasing) order.
    pub fn keep(&mut self, networks: &[usize]) -> Result<()> {
        for (rows, samples) in &mut self.groups {
            let kept: Vec<(usize, usize)> = networks
                .iter()
                .enumerate()
                .filter_map(|(new, old)| rows.binary_search(old).ok().map(|place| (new, place)))
                .collect();
            *rows = kept.iter().map(|&(new, _)| new).collect();
            samples.keep(&kept.iter().map(|&(_, place)| place).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Loss and error of every network, calling `check` between chunks of a few milliseconds.
    pub fn evaluate(&self, stack: &Stack, check: impl Fn() -> Result<()>) -> Result<Evaluation> {
        let r = stack.networks();
        let mut evaluation = Evaluation { loss: vec![f64::NAN; r], error: vec![f64::NAN; r] };
        for (rows, samples) in self.groups.iter().filter(|(rows, _)| !rows.is_empty()) {
            let all = rows.len() == r;
            let picked =
                if all { stack.shallow_clone() } else { stack.rows(&index_tensor(rows, stack.device())?)? };
            let widths = stack.widths().into_iter().chain(stack.projected_variables());
            let widest = widths.max().unwrap_or(1) as i64;
            let chunk =
                (at_once(CHUNK, stack.device()) / (rows.len() as i64 * widest)).clamp(1, samples.len());
            let mut tally = Tally::default();
            for start in (0..samples.len()).step_by(chunk as usize) {
                let len = chunk.min(samples.len() - start);
                let block = samples.range(start, len)?;
                let activations = forward(&picked, samples.batch(&block, 0, len)?)?;
                if let Some(logits) = activations.last() {
                    tally.add(logits, &block.labels)?;
                }
                check()?;
            }
            let (loss, error) = tally.means()?;
            for ((&row, loss), error) in rows.iter().zip(loss).zip(error) {
                evaluation.loss[row] = loss;
                evaluation.error[row] = error;
            }
        }
        Ok(evaluation)
    }
}

/// Refuses data that do not fit the networks.
pub(crate) fn check_data(stack: &Stack, data: &[Arc<Dataset>], embedding: &Embedding) -> Result<()> {
    let (widths, networks) = (stack.widths(), stack.networks());
    if data.len() != networks {
        return Err(shape_error!("{} data sets for {networks} networks: pass one for each", data.len()));
    }
    for set in data {
        let embedded = embedding.rows(set.variables());
        if widths.first() != Some(&embedded) {
            return Err(shape_error!(
                "networks of widths {widths:?}, but data of {} variables embed into {embedded}",
                set.variables()
            ));
        }
        embedding.validate_projection(stack.projected_variables(), set.variables())?;
        if widths.last() != Some(&set.outputs()) {
            return Err(shape_error!(
                "networks of widths {widths:?}, but the data have {} labels a sample",
                set.outputs()
            ));
        }
    }
    Ok(())
}
