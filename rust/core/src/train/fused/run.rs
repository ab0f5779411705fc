//! The run of a stack: buffers cut into jobs, epochs handed out to threads.

use std::sync::Arc;

use rayon::prelude::*;

use super::blocked::{self, Blocked};
use super::embed::Transform;
use super::learner::Scored;
use super::net::{Alive, Buffers, Kept, Shape, Which};
use super::optimizer::{Rule, StepScale, step_scales};
use super::simd::Simd;
use super::tile::Padding;
use super::train::{Epochs, Job, Run, TrainEpochs, Worker};
use crate::Progress;
use crate::cpu::Selected;
use crate::error::{Result, allocate, in_parallel};
use crate::train::scores::{ScoreRule, ScoreStep, Scores};
use crate::train::{Evaluation, History, Patience, Problem, Trained, epoch_order};
use crate::{Dataset, Embedding, Weights};

/// Sample numbers that one group of epochs keeps in its orders, if an epoch is not more already:
/// enough to hide the start of a group, little beside the data of a few networks.
const GROUP_SAMPLES: usize = 40_000;

/// Scores to be learned, by a rule with the numbers of every step.
pub(super) struct Learning<'a> {
    pub(super) rule: ScoreRule,
    pub(super) steps: &'a [ScoreStep],
    pub(super) scores: &'a mut Scores,
}

/// Trains a stack that has been validated, or learns scores of its weights.
pub(super) fn train(
    mut start: Weights,
    problem: &Problem<'_>,
    learning: Option<Learning<'_>>,
    shape: Shape,
    level: Selected,
    progress: &Progress,
) -> Result<Trained> {
    let config = problem.config;
    let networks = start.networks;
    let rule = if learning.is_some() { Rule::gradients() } else { Rule::new(&config.optimizer) };
    let transform = Transform::new(problem.embedding, shape.variables)?;
    let (how, scores) = learning.map(|Learning { rule, steps, scores }| ((rule, steps), scores)).unzip();
    let run = Run { shape, transform, config, rule, scores: how, progress };
    mask_weights(&mut start, problem);
    let mut history = History::empty(networks, config.epochs as usize)?;
    let mut snapshots =
        config.snapshots.iter().map(|_| start.try_clone()).collect::<Result<Vec<Weights>>>()?;
    let parameters = networks.checked_mul(shape.parameters());
    let moment = |_| allocate(parameters, 0f32, "the moments of so many networks");
    let mut moments = (0..if rule.is_adaptive() { 2 } else { 1 }).map(moment).collect::<Result<Vec<_>>>()?;
    let mut jobs = cut(&run, problem, &mut start, &mut moments, &mut snapshots, &mut history);
    if let Some(scores) = scores {
        hand_out(scores, &mut jobs);
    }

    let samples = problem.data[0].samples();
    let group = (GROUP_SAMPLES / samples).clamp(1, 64) as u32;
    let prepare = |first: u32| -> Epochs {
        let numbers = first..config.epochs.min(first.saturating_add(group));
        let per_epoch = config.steps_per_epoch(samples);
        let steps = per_epoch as usize * numbers.len();
        Epochs {
            orders: numbers
                .clone()
                .map(|epoch| epoch_order(config.order_seed, config.first_epoch + epoch, samples))
                .collect(),
            scales: match run.scores {
                Some(_) => vec![StepScale::ZERO; steps],
                None => step_scales(&config.optimizer, u64::from(first) * per_epoch, steps),
            },
            numbers,
        }
    };
    let mut epochs = prepare(0);
    let mut running: Vec<&mut Job<'_>> = jobs.iter_mut().collect();
    while !epochs.numbers.is_empty() && !running.is_empty() {
        // The orders of the next epochs are drawn while these are trained.
        let (trained, next) = rayon::join(
            || {
                running.par_iter_mut().with_max_len(1).try_for_each(|job| {
                    let rows = job.alive.rows.len();
                    blocked::run(level, rows, TrainEpochs { run: &run, epochs: &epochs, job })
                })
            },
            || prepare(epochs.numbers.end),
        );
        trained?;
        running.retain(|job| !job.stopped);
        epochs = next;
    }
    for job in &mut jobs {
        for (_, buffers) in &mut job.snapshots {
            buffers.copy_from(&job.weights);
        }
    }
    drop(jobs);
    Ok(Trained { weights: start, snapshots, history })
}

/// Gives each job the scores of its network.
fn hand_out<'a>(scores: &'a mut Scores, jobs: &mut [Job<'a>]) {
    let size = scores.values.len() / jobs.len().max(1);
    let parts = scores.values.chunks_exact_mut(size).zip(scores.momentum.chunks_exact_mut(size));
    for (job, ((values, momentum), emptied)) in jobs.iter_mut().zip(parts.zip(&mut scores.emptied)) {
        job.scores = Some(Scored { values, momentum, emptied });
    }
}

/// Sets the masked weights of a stack to zero.
fn mask_weights(weights: &mut Weights, problem: &Problem<'_>) {
    let masks = problem.masks.iter().flat_map(|masks| &masks.layers);
    for (layer, mask) in weights.layers.iter_mut().zip(masks) {
        for (w, kept) in layer.weight.iter_mut().zip(mask.iter().flatten()) {
            if !kept {
                *w = 0.0;
            }
        }
    }
}

/// The rows of networks in a stack: mutable buffers of each network, in order.
fn networks<'a>(stack: &'a mut Weights, shape: &Shape) -> impl Iterator<Item = Buffers<&'a mut [f32]>> {
    let size = shape.projection_size().max(1);
    let mut projections =
        stack.projection.as_mut().map(|projection| projection.matrix.chunks_exact_mut(size));
    let (first, second) = stack.layers.split_at_mut(1);
    let (first, second) = (&mut first[0], &mut second[0]);
    first
        .weight
        .chunks_exact_mut(shape.hidden * shape.inputs)
        .zip(first.bias.chunks_exact_mut(shape.hidden))
        .zip(second.weight.chunks_exact_mut(shape.outputs * shape.hidden))
        .zip(second.bias.chunks_exact_mut(shape.outputs))
        .map(move |(((w1, b1), w2), b2)| {
            let c0 = projections.as_mut().and_then(Iterator::next).unwrap_or_default();
            Buffers { w1, b1, w2, b2, c0 }
        })
}

/// Cuts the buffers of a run into one job per network.
fn cut<'a>(
    run: &Run<'_>,
    problem: &Problem<'a>,
    start: &'a mut Weights,
    moments: &'a mut [Vec<f32>],
    snapshots: &'a mut [Weights],
    history: &'a mut History,
) -> Vec<Job<'a>> {
    let shape = &run.shape;
    let config = problem.config;
    let epochs = history.epochs.max(1);
    let mut moments: Vec<_> =
        moments.iter_mut().map(|all| all.chunks_exact_mut(shape.parameters())).collect();
    let mut snapshots: Vec<_> =
        config.snapshots.iter().zip(snapshots).map(|(step, stack)| (*step, networks(stack, shape))).collect();
    let mut columns = [&mut history.train_loss, &mut history.train_error, &mut history.validation_loss]
        .map(|column| column.chunks_mut(epochs));
    let mut epochs_run = history.epochs_run.iter_mut();
    let mut jobs = Vec::with_capacity(problem.data.len());
    for (r, weights) in networks(start, shape).enumerate() {
        let kept = kept(problem, shape, r);
        let alive = Alive::new(shape, kept);
        let data: &Dataset = &problem.data[r];
        // The start is in the snapshot of step 0 already.
        let to_come = snapshots.iter_mut().filter_map(|(step, stack)| Some((*step, stack.next()?)));
        let mut to_come: Vec<_> = to_come.filter(|(step, _)| *step > 0).collect();
        to_come.reverse();
        let [train_loss, train_error, validation_loss] =
            columns.each_mut().map(|column| column.next().unwrap_or_default());
        let Some(epochs_run) = epochs_run.next() else { break };
        jobs.push(Job {
            weights,
            moments: moments.iter_mut().filter_map(|all| Some(Buffers::split(all.next()?, shape))).collect(),
            scores: None,
            kept,
            validation: problem.validation.get(r).map(|data| &**data),
            paddings: None,
            alive,
            data,
            snapshots: to_come,
            train_loss,
            train_error,
            validation_loss,
            epochs_run,
            patience: config.early_stopping.map(Patience::new),
            stopped: false,
        });
    }
    jobs
}

/// The masks of network r that prune something.
fn kept<'a>(problem: &Problem<'a>, shape: &Shape, r: usize) -> Kept<'a> {
    let layer = |l: usize, size: usize| {
        let mask = &problem.masks?.layers[l].as_ref()?[r * size..][..size];
        mask.contains(&false).then_some(mask)
    };
    Kept { w1: layer(0, shape.hidden * shape.inputs), w2: layer(1, shape.outputs * shape.hidden) }
}

/// Loss and error of one network.
struct Evaluate<'a, T> {
    shape: Shape,
    transform: &'a Transform,
    weights: &'a Buffers<T>,
    data: &'a Dataset,
    progress: &'a Progress,
}

impl<T: AsRef<[f32]>> Blocked for Evaluate<'_, T> {
    type Output = Result<(f64, f64)>;

    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, s: S) -> Self::Output {
        let Self { shape, transform, weights, data, progress } = self;
        let kept = Kept::default();
        let alive = Alive::new(&shape, kept);
        let padding = Padding::measure(data, &alive.variables);
        let mut worker = Worker::<S, V>::new(s, shape, &alive, kept);
        worker.net.load(Which::Weights, weights);
        worker.net.embed(transform, &mut worker.columns);
        let totals = worker.evaluate(data, &alive.variables, &padding, progress)?;
        let labels = (data.samples() * shape.outputs) as f64;
        Ok((totals.loss / labels, totals.wrong as f64 / labels))
    }
}

/// Evaluates a stack that has been validated.
pub(super) fn evaluate(
    weights: &Weights,
    data: &[Arc<Dataset>],
    embedding: &Embedding,
    shape: Shape,
    level: Selected,
    progress: &Progress,
) -> Result<Evaluation> {
    let transform = Transform::new(embedding, shape.variables)?;
    let results = in_parallel(data.len(), |r| {
        let data = &data[r];
        progress.check()?;
        let [w1, w2] = [0, 1].map(|l| &weights.layers[l]);
        let part = |all: &'_ [f32]| -> std::ops::Range<usize> {
            let size = all.len() / weights.networks;
            r * size..(r + 1) * size
        };
        let buffers = Buffers {
            w1: &w1.weight[part(&w1.weight)],
            b1: &w1.bias[part(&w1.bias)],
            w2: &w2.weight[part(&w2.weight)],
            b2: &w2.bias[part(&w2.bias)],
            c0: weights.projection.as_ref().map_or(&[][..], |c0| &c0.matrix[part(&c0.matrix)]),
        };
        let evaluate = Evaluate { shape, transform: &transform, weights: &buffers, data, progress };
        let result = blocked::run(level, shape.hidden, evaluate)?;
        progress.advance(1);
        Ok(result)
    })?;
    let (loss, error) = results.into_iter().unzip();
    Ok(Evaluation { loss, error })
}
