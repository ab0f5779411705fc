//! The training run of one network: epochs, steps, snapshots, early stopping.

use std::ops::Range;

use super::backward::{Errors, Step};
use super::blocked::Blocked;
use super::embed::Transform;
use super::forward::{Logits, Totals};
use super::learner::{Learner, Scored};
use super::net::{Alive, Buffers, Kept, Net, Shape, Which};
use super::optimizer::{Rule, StepScale, Update};
use super::simd::Simd;
use super::tile::{Padding, TILE, Tile, minus_one};
use crate::Dataset;
use crate::Progress;
use crate::error::Result;
use crate::train::scores::{ScoreRule, ScoreStep};
use crate::train::{Patience, TrainConfig, Watch};

/// Samples from which the members of a tile are estimated.
const MEASURED: usize = 1024;

/// What all networks of a run share.
pub(super) struct Run<'a> {
    pub(super) shape: Shape,
    pub(super) transform: Transform,
    pub(super) config: &'a TrainConfig,
    pub(super) rule: Rule,
    /// Where scores are learned: how, and the numbers of every step.
    pub(super) scores: Option<(ScoreRule, &'a [ScoreStep])>,
    pub(super) progress: &'a Progress,
}

/// Some consecutive epochs: the orders of their samples and the scales of their steps.
pub(super) struct Epochs {
    pub(super) numbers: Range<u32>,
    pub(super) orders: Vec<Vec<u32>>,
    pub(super) scales: Vec<StepScale>,
}

/// One network of a run: its share of the run's buffers.
pub(super) struct Job<'a> {
    pub(super) weights: Buffers<&'a mut [f32]>,
    /// First moments, and second ones where the optimizer has them.
    pub(super) moments: Vec<Buffers<&'a mut [f32]>>,
    /// Where scores are learned.
    pub(super) scores: Option<Scored<'a>>,
    pub(super) kept: Kept<'a>,
    pub(super) alive: Alive,
    pub(super) data: &'a Dataset,
    pub(super) validation: Option<&'a Dataset>,
    /// Paddings for the data and the validation data, once they are known.
    pub(super) paddings: Option<[Padding; 2]>,
    /// Steps of the snapshots to come, each with its buffers; the next one is last.
    pub(super) snapshots: Vec<(u64, Buffers<&'a mut [f32]>)>,
    pub(super) train_loss: &'a mut [f64],
    pub(super) train_error: &'a mut [f64],
    pub(super) validation_loss: &'a mut [f64],
    pub(super) epochs_run: &'a mut u32,
    pub(super) patience: Option<Patience>,
    pub(super) stopped: bool,
}

/// Trains one network for some epochs.
pub(super) struct TrainEpochs<'r, 'j, 'a> {
    pub(super) run: &'r Run<'a>,
    pub(super) epochs: &'r Epochs,
    pub(super) job: &'j mut Job<'a>,
}

impl Blocked for TrainEpochs<'_, '_, '_> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, s: S) -> Result<()> {
        let Self { run, epochs, job } = self;
        let shape = run.shape;
        let mut worker = Worker::<S, V>::new(s, shape, &job.alive, job.kept);
        worker.net.load(Which::Weights, &job.weights);
        for (which, moments) in [Which::First, Which::Second].into_iter().zip(&job.moments) {
            worker.net.load(which, moments);
        }
        worker.net.embed(&run.transform, &mut worker.columns);
        let mut learner = match (run.scores, &job.moments[..], &job.scores) {
            (Some((rule, _)), [momentum, ..], Some(scored)) => {
                Some(Learner::new(s, rule, shape, &job.alive, (&job.weights, momentum), scored))
            }
            _ => None,
        };
        // Reading the data once from end to end is fast, and the scattered reads of the steps then find
        // them in the cache.
        let paddings = match job.paddings.take() {
            Some(paddings) => {
                std::hint::black_box(job.data.inputs().iter().step_by(16).fold(0, |all, word| all | word));
                paddings
            }
            None => {
                let alive = &job.alive.variables;
                let mut padding = Padding::measure(job.data, alive);
                let order =
                    epochs.orders.first().map_or(&[][..], |order| &order[..order.len().min(MEASURED)]);
                let samples = run.config.batch.min(TILE);
                padding.measure_members(s, &mut worker.tile, job.data, alive, order, samples);
                let validation = match job.validation {
                    Some(data) => Padding::measure(data, alive),
                    None => Padding::default(),
                };
                [padding, validation]
            }
        };
        let [padding, validation_padding] = &paddings;
        let labels = (job.data.samples() * shape.outputs) as f64;
        let per_epoch = run.config.steps_per_epoch(job.data.samples());
        let mut scales = epochs.scales.iter();
        let check_every = checks(&shape, run.config.batch);
        for (epoch, order) in epochs.numbers.clone().zip(&epochs.orders) {
            let mut totals = Totals::default();
            let mut unreported = 0;
            let batches = order.chunks(run.config.batch);
            if let Some(learner) = &mut learner {
                learner.begin_epoch();
            }
            for ((number, batch), scale) in (u64::from(epoch) * per_epoch + 1..).zip(batches).zip(&mut scales)
            {
                let score_step = run.scores.map(|(_, steps)| &steps[number as usize - 1]);
                if let Some((learner, step)) = learner.as_mut().zip(score_step) {
                    learner.put_in_effect(&mut worker.net, step);
                    worker.net.embed(&run.transform, &mut worker.columns);
                }
                worker.step(run, job, padding, batch, *scale, &mut totals);
                if let Some((learner, step)) = learner.as_mut().zip(score_step) {
                    learner.learn(&mut worker.net, step);
                }
                if let Some((_, mut buffers)) = job.snapshots.pop_if(|(step, _)| *step == number) {
                    worker.net.store(Which::Weights, &mut buffers);
                }
                if learner.is_none() && number % per_epoch % NORMAL_FOR == 0 {
                    worker.net.flush_moments();
                }
                unreported += 1;
                if unreported == check_every {
                    run.progress.advance(unreported);
                    run.progress.check()?;
                    unreported = 0;
                }
            }
            run.progress.advance(unreported);
            run.progress.check()?;
            let at = epoch as usize;
            job.train_loss[at] = totals.loss / labels;
            job.train_error[at] = totals.wrong as f64 / labels;
            *job.epochs_run = epoch + 1;
            if let Some(data) = job.validation {
                let totals = worker.evaluate(data, &job.alive.variables, validation_padding, run.progress)?;
                job.validation_loss[at] = totals.loss / (data.samples() * shape.outputs) as f64;
            }
            let watched = match run.config.early_stopping.map(|rule| rule.watch) {
                Some(Watch::Validation) => job.validation_loss[at],
                _ => job.train_loss[at],
            };
            if job.patience.as_mut().is_some_and(|patience| patience.update(watched)) {
                job.stopped = true;
                break;
            }
        }
        job.paddings = Some(paddings);
        if let (Some(learner), [momentum, ..], Some(scored)) =
            (learner, &mut job.moments[..], &mut job.scores)
        {
            learner.store(&mut job.weights, momentum, scored);
            return Ok(());
        }
        worker.net.store(Which::Weights, &mut job.weights);
        for (which, moments) in [Which::First, Which::Second].into_iter().zip(&mut job.moments) {
            worker.net.store(which, moments);
        }
        Ok(())
    }
}

/// Steps between two times that first moments are flushed; it is also done at the end of an epoch, so that a training in
/// parts is the same. With a factor of 0.9 a moment takes 170 steps from where it is flushed to where it is denormal.
const NORMAL_FOR: u64 = 128;

/// Steps between two looks at the progress: a few milliseconds at most.
fn checks(shape: &Shape, batch: usize) -> u64 {
    let per_step = (shape.hidden * (shape.variables + shape.inputs) * batch.max(16)) as u64;
    ((1 << 24) / per_step.max(1)).clamp(1, 64)
}

/// A network and the scratch of its steps.
pub(super) struct Worker<S: Simd, const V: usize> {
    pub(super) net: Net<S, V>,
    pub(super) columns: Vec<[S::Vector; V]>,
    tile: Tile,
    logits: Logits<S>,
    errors: Errors<S, V>,
    base: Vec<f32>,
}

impl<S: Simd, const V: usize> Worker<S, V> {
    #[inline(always)]
    pub(super) fn new(s: S, shape: Shape, alive: &Alive, kept: Kept<'_>) -> Self {
        Self {
            net: Net::new(s, shape, alive, kept),
            columns: Vec::new(),
            tile: Tile::new(shape.variables, shape.outputs),
            logits: Logits::new(s, shape.outputs),
            errors: Errors::new(s),
            base: vec![0.0; shape.outputs],
        }
    }

    /// One optimizer step on the samples of a batch.
    #[inline(always)]
    fn step(
        &mut self,
        run: &Run<'_>,
        job: &Job<'_>,
        padding: &Padding,
        batch: &[u32],
        scale: StepScale,
        totals: &mut Totals,
    ) {
        let Self { net, columns, tile, logits, errors, base } = self;
        let update = Update::new(net.s, &run.rule, scale);
        let mean = 1.0 / (batch.len() * net.shape.outputs) as f32;
        let alive = &job.alive.variables;
        net.base(base);
        let minus_one = minus_one();
        let tiles = batch.len().div_ceil(TILE);
        let (fours, identity) = (&padding.fours[..], net.shape.identity);
        for (number, samples) in batch.chunks(TILE).enumerate() {
            tile.gather(job.data, alive, samples.iter().map(|sample| *sample as usize));
            tile.transpose(net.s, net.shape.variables);
            net.forward(tile, &padding.slots, base, logits);
            logits.differentiate(net.s, tile, mean, totals);
            let (first, last) = (number == 0, number + 1 == tiles);
            net.backward(
                tile,
                logits,
                errors,
                &Step { update, fours, alive, identity, minus_one, first, last },
            );
        }
        if !net.shape.identity {
            // Each of C0 and W1 has a gradient by the other before its step.
            net.differentiate_projection(columns);
            net.update_inputs(&run.transform, &update, columns);
            net.update_projection(&update);
            net.embed(&run.transform, columns);
        }
        net.finish(&update);
    }

    /// Loss and errors on all samples of some data.
    #[inline(always)]
    pub(super) fn evaluate(
        &mut self,
        data: &Dataset,
        alive: &[u64],
        padding: &Padding,
        progress: &Progress,
    ) -> Result<Totals> {
        let Self { net, tile, logits, base, .. } = self;
        let mut totals = Totals::default();
        net.base(base);
        let check_every = checks(&net.shape, TILE) as usize;
        for (number, start) in (0..data.samples()).step_by(TILE).enumerate() {
            tile.gather(data, alive, start..(start + TILE).min(data.samples()));
            net.forward(tile, &padding.slots, base, logits);
            logits.differentiate(net.s, tile, 1.0, &mut totals);
            if number % check_every == 0 {
                progress.check()?;
            }
        }
        Ok(totals)
    }
}
