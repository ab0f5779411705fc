//! Networks trained as batched tensors: any depth, any number of outputs, any dtype and device.

use std::ops::Range;
use std::sync::Arc;

use precode_core::Progress;
use precode_core::train::{Evaluation, History, Problem, Trained};
use precode_core::{Dataset, Embedding, Masks};
use tch::{Cuda, Device, Kind, no_grad_guard};

use crate::engine::Engine;
use crate::error::{Result, unsupported, value_error};
use crate::evaluate::{Heldout, check_data};
use crate::run::Run;
use crate::stack::{Stack, check_kind};

/// Numbers of a slab of networks on the CPU (8 MB of float32).
const CACHED: usize = 1 << 21;

/// The engine on libtorch tensors. Networks are computed in `kind` on `device`, wherever the start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Libtorch {
    /// Element type of the networks.
    pub kind: Kind,
    /// Where they are trained and returned.
    pub device: Device,
}

impl Engine for Libtorch {
    fn name(&self) -> &'static str {
        "libtorch"
    }

    fn supports(&self, widths: &[usize], _problem: &Problem) -> Result<()> {
        self.check()?;
        if widths.len() < 2 {
            return Err(value_error!("widths {widths:?}: expected [inputs, hidden.., outputs]"));
        }
        Ok(())
    }

    fn train(&self, start: &Stack, problem: &Problem, progress: &Progress) -> Result<Trained<Stack>> {
        let _guard = no_grad_guard();
        start.validate()?;
        let widths = start.widths();
        problem.validate(start.networks(), &widths)?;
        self.supports(&widths, problem)?;
        progress.check()?;
        let options = (self.kind, self.device);
        let batch = problem.data.first().map_or(1, |data| problem.config.batch.min(data.samples()));
        let parts = self
            .slabs(&widths, start.networks(), batch)
            .map(|rows| {
                let masks = problem.masks.map(|masks| slice_masks(masks, &rows, start.networks()));
                let part = Problem {
                    data: &problem.data[rows.clone()],
                    validation: problem.validation.get(rows.clone()).unwrap_or_default(),
                    masks: masks.as_ref(),
                    ..*problem
                };
                Run::new(options, &start.range(&rows)?, &part)?.train(progress)
            })
            .collect::<Result<Vec<_>>>()?;
        concatenate(parts)
    }

    fn evaluate(
        &self,
        stack: &Stack,
        data: &[Arc<Dataset>],
        embedding: &Embedding,
        progress: &Progress,
    ) -> Result<Evaluation> {
        let _guard = no_grad_guard();
        self.check()?;
        stack.validate()?;
        check_data(stack, data, embedding)?;
        let options = (self.kind, self.device);
        let mut all = Evaluation { loss: Vec::new(), error: Vec::new() };
        for rows in self.slabs(&stack.widths(), stack.networks(), 1) {
            let part = stack.range(&rows)?.copy_to(self.kind, self.device)?;
            let heldout = Heldout::new(&data[rows], embedding, options)?;
            let evaluation = heldout.evaluate(&part, || Ok(progress.check()?))?;
            progress.advance(part.networks() as u64);
            all.loss.extend(evaluation.loss);
            all.error.extend(evaluation.error);
        }
        Ok(all)
    }
}

impl Libtorch {
    fn check(&self) -> Result<()> {
        check_kind(self.kind)?;
        match self.device {
            Device::Cuda(index) if index as i64 >= Cuda::device_count() => Err(unsupported!(
                "device cuda:{index}: this process sees {} CUDA devices",
                Cuda::device_count()
            )),
            _ => Ok(()),
        }
    }

    /// Ranges of networks that are trained one after the other: on the CPU as many as fit the caches with
    /// their activations, gradients and moments (3 times faster than 4096 at once), elsewhere all.
    fn slabs(
        &self,
        widths: &[usize],
        networks: usize,
        batch: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let weights: usize = widths.windows(2).map(|pair| pair[1] * (pair[0] + 1)).sum();
        let numbers = 4 * weights + batch * widths.iter().sum::<usize>();
        let size = match self.device {
            Device::Cpu => (CACHED / numbers).clamp(1, networks),
            _ => networks,
        };
        (0..networks).step_by(size).map(move |start| start..networks.min(start + size))
    }
}

fn slice_masks(masks: &Masks, rows: &Range<usize>, networks: usize) -> Masks {
    let slice = |mask: &Vec<bool>| {
        let size = mask.len() / networks;
        mask[rows.start * size..rows.end * size].to_vec()
    };
    Masks { layers: masks.layers.iter().map(|mask| mask.as_ref().map(slice)).collect() }
}

/// Puts the results of consecutive networks together.
fn concatenate(mut parts: Vec<Trained<Stack>>) -> Result<Trained<Stack>> {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return Ok(only);
    }
    let weights: Vec<&Stack> = parts.iter().map(|part| &part.weights).collect();
    let snapshots = parts.first().map_or(0, |part| part.snapshots.len());
    let snapshots = (0..snapshots)
        .map(|i| Stack::concatenate(&parts.iter().map(|part| &part.snapshots[i]).collect::<Vec<_>>()));
    let mut history = History::empty(0, parts.first().map_or(0, |part| part.history.epochs))?;
    for part in &parts {
        history.networks += part.history.networks;
        history.train_loss.extend(&part.history.train_loss);
        history.train_error.extend(&part.history.train_error);
        history.validation_loss.extend(&part.history.validation_loss);
        history.epochs_run.extend(&part.history.epochs_run);
    }
    Ok(Trained {
        weights: Stack::concatenate(&weights)?,
        snapshots: snapshots.collect::<Result<_>>()?,
        history,
    })
}
