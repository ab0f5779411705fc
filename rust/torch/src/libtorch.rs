//! Networks trained as batched tensors: any depth, any number of outputs, any dtype and device.

use std::ops::Range;
use std::sync::Arc;

use precode_core::Progress;
use precode_core::train::{Evaluation, History, Problem, Trained};
use precode_core::{Dataset, Embedding, Masks};
use tch::{Cuda, Device, Kind, no_grad_guard};

use crate::engine::Engine;
use crate::error::{Result, unsupported, value_error};
use crate::evaluate::{CHUNK, Heldout, check_data};
use crate::run::{GATHER, Run};
use crate::stack::{Stack, check_kind};
use crate::unpack::UNPACKED;

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
        let variables = problem.data.first().map_or(0, |data| data.variables());
        problem.embedding.validate_projection(start.projected_variables(), variables)?;
        self.supports(&widths, problem)?;
        progress.check()?;
        let options = (self.kind, self.device);
        let batch = problem.data.first().map_or(1, |data| problem.config.batch.min(data.samples()));
        let parts = self
            .slabs(start, batch)
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
        stack.validate_shapes()?;
        check_data(stack, data, embedding)?;
        let options = (self.kind, self.device);
        let mut all = Evaluation { loss: Vec::new(), error: Vec::new() };
        for rows in self.slabs(stack, 1) {
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

    /// An estimate of the peak bytes of host memory that training takes, data that are given not included. On the CPU,
    /// beside the results of all networks, which are put together at the end:
    ///
    /// - of the slab that is trained: weights, gradients, moments, results and the temporaries of a step;
    /// - its data, one byte a variable and label (the packed data have a bit), and what is expanded at a time;
    /// - inputs, activations and their gradients of a batch, and what an evaluation holds at a time.
    pub fn memory_bytes(&self, size: &Workload) -> usize {
        let times = |factors: &[usize]| {
            factors.iter().fold(1usize, |product, &factor| product.saturating_mul(factor))
        };
        let plus = |terms: &[usize]| terms.iter().fold(0usize, |sum, &term| sum.saturating_add(term));
        let widths = size.widths;
        let element = self.kind.elt_size_in_bytes();
        let parameters = plus(
            &widths
                .windows(2)
                .map(|pair| times(&[pair[1], pair[0].saturating_add(1)]))
                .chain([size.projection])
                .collect::<Vec<_>>(),
        );
        let outputs = widths.last().copied().unwrap_or(1);
        let samples = size.samples.saturating_add(size.validation);
        let set = times(&[samples, size.variables.saturating_add(outputs)]);
        let results = times(&[2 * (1 + size.snapshots), size.networks, parameters, element]);
        let expanded = times(&[8, UNPACKED as usize]).min(times(&[8, size.networks, set]));
        let bookkeeping =
            plus(&[times(&[size.samples, 20]), times(&[2, set]), expanded, times(&[size.networks, 1024])]);
        if self.device != Device::Cpu {
            return plus(&[times(&[size.networks, parameters, element]), bookkeeping]);
        }
        let batch = size.batch.min(size.samples.max(1));
        let slab = self.slab(widths, size.projection, size.networks, batch);
        let copies = times(&[8, slab, parameters, element]);
        let data = times(&[slab, set]);
        let gathered = plus(&[GATHER as usize, times(&[slab, batch, size.variables])]);
        let wide = plus(widths);
        let step = plus(&[times(&[4, slab, batch, wide, element]), times(&[4, gathered])]);
        let evaluation = if size.validation > 0 { times(&[4, CHUNK as usize, element]) } else { 0 };
        // libtorch's allocator holds more than is in use: up to 1.4 times these terms was measured.
        let in_use = plus(&[results, bookkeeping, copies, data, step, evaluation]);
        in_use.saturating_add(in_use / 2)
    }

    /// Ranges of networks that are trained one after the other: on the CPU as many as fit the caches with
    /// their activations, gradients and moments (3 times faster than 4096 at once), elsewhere all.
    fn slabs(&self, stack: &Stack, batch: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (widths, networks) = (stack.widths(), stack.networks());
        let projection = stack.projected_variables().unwrap_or(0) * widths.first().copied().unwrap_or(0);
        let size = self.slab(&widths, projection, networks, batch);
        (0..networks).step_by(size).map(move |start| start..networks.min(start + size))
    }

    /// Networks of a slab.
    fn slab(&self, widths: &[usize], projection: usize, networks: usize, batch: usize) -> usize {
        let weights = widths.windows(2).fold(projection, |sum, pair| {
            sum.saturating_add(pair[1].saturating_mul(pair[0].saturating_add(1)))
        });
        let wide = widths.iter().fold(0usize, |sum, &width| sum.saturating_add(width));
        let numbers = weights.saturating_mul(4).saturating_add(batch.saturating_mul(wide));
        match self.device {
            Device::Cpu => (CACHED / numbers.max(1)).clamp(1, networks.max(1)),
            _ => networks.max(1),
        }
    }
}

/// Sizes of a training run, before there are data.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// `[inputs, hidden.., outputs]`.
    pub widths: &'a [usize],
    /// Entries of each network's own C0; 0 where it has none.
    pub projection: usize,
    /// Number of networks.
    pub networks: usize,
    /// Boolean variables of a sample.
    pub variables: usize,
    /// Training samples of each network.
    pub samples: usize,
    /// Validation samples of each network.
    pub validation: usize,
    /// Samples a step.
    pub batch: usize,
    /// Snapshots that are kept.
    pub snapshots: usize,
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
