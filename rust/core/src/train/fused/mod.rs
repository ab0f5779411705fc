//! The fused engine: thousands of small networks trained at once on the CPU.
//!
//! It is made for one shape of problem: Boolean inputs of which few are True, one hidden ReLU layer,
//! f32. A network's weights, moments and gradients stay in the core's own cache for whole epochs:
//!
//! - the forward pass adds the columns of the True variables instead of multiplying;
//! - the backward pass sums each variable's samples in registers;
//! - data stay bit-packed, and threads share nothing but the order of the samples.
//!
//! Every network is trained by itself, by one thread at a time and with the same operations whatever
//! its neighbours: its result has the same bits for any number of threads and any composition of the
//! stack, at a given [`Level`].

// Short loops over the V vectors of a block index several arrays at once.
#![allow(clippy::needless_range_loop)]

mod backward;
mod blocked;
mod cut;
mod embed;
mod forward;
mod learner;
mod math;
mod net;
mod optimizer;
mod projection;
mod run;
mod simd;
mod tile;
mod train;

use std::sync::Arc;

use net::Shape;

use crate::Progress;
use crate::cpu::{Kernels, Level, Selected};
use crate::error::{Error, Result, shape_error, value_error};
use crate::train::scores::{ScoreRule, ScoreStep, Scores};
use crate::train::{Evaluation, Optimizer, Problem, Trained};
use crate::{Dataset, Embedding, Weights};

/// The widest hidden layer the engine takes.
pub const MAX_HIDDEN: usize = 4096;
/// The most variables of a sample the engine takes.
pub const MAX_VARIABLES: usize = 256;
/// The widest embedded input the engine takes.
pub const MAX_INPUTS: usize = 1024;

/// How the engine runs; the results do not depend on `threads`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Instruction level: `None` for the one that the environment variable `PRECODE_FUSED_LEVEL` names,
    /// or else the best this CPU has (see [`Kernels::select`]).
    pub level: Option<Level>,
    /// Number of threads: `None` for rayon's current pool.
    pub threads: Option<usize>,
}

impl Options {
    /// The level that a run with these options uses.
    ///
    /// ```
    /// use precode_core::cpu::Level;
    /// use precode_core::train::fused::Options;
    /// let options = Options { level: Some(Level::Portable), ..Options::default() };
    /// assert_eq!(options.resolve_level()?, Level::Portable);
    /// # Ok::<(), precode_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Kernels::select`].
    pub fn resolve_level(&self) -> Result<Level> {
        Ok(self.select()?.level())
    }

    fn select(&self) -> Result<Selected> {
        Kernels::Fused.select(self.level)
    }
}

/// Says whether the engine can train networks of the given widths `[inputs, hidden, outputs]`.
///
/// # Errors
/// [`Error::Unsupported`] naming what does not fit.
pub fn supports(widths: &[usize], problem: &Problem<'_>) -> Result<()> {
    supports_shape(widths, problem.data.iter().chain(problem.validation).map(|data| data.variables()))
}

/// As [`supports`], before there are data: whether the engine can train networks of the given widths on data of so
/// many variables.
///
/// # Errors
/// As [`supports`].
pub fn supports_sizes(widths: &[usize], variables: usize) -> Result<()> {
    supports_shape(widths, std::iter::once(variables))
}

fn supports_shape(widths: &[usize], data: impl Iterator<Item = usize>) -> Result<()> {
    let refuse = |what: String| Err(Error::Unsupported(format!("{what}: use the libtorch engine")));
    let &[inputs, hidden, _] = widths else {
        return refuse(format!(
            "the fused engine trains networks with exactly one hidden layer, not of widths {widths:?}"
        ));
    };
    if hidden > MAX_HIDDEN {
        return refuse(format!("the fused engine takes at most {MAX_HIDDEN} hidden rows, not {hidden}"));
    }
    if inputs > MAX_INPUTS {
        return refuse(format!("the fused engine takes at most {MAX_INPUTS} inputs, not {inputs}"));
    }
    let mut variables = None;
    for count in data {
        if count > MAX_VARIABLES {
            return refuse(format!("the fused engine takes at most {MAX_VARIABLES} variables, not {count}"));
        }
        if *variables.get_or_insert(count) != count {
            return refuse(format!(
                "the fused engine takes data of one number of variables, not {} and {count}",
                variables.unwrap_or(count)
            ));
        }
    }
    Ok(())
}

/// Trains a stack of networks, each on its own data.
///
/// `start` has widths `[inputs, hidden, outputs]`; its masked weights are set to zero before the first
/// step (the start of training is `start * mask`) and are exactly 0 after every step. Loss is binary
/// cross-entropy of the logits, averaged over the samples and outputs of a batch. `progress` counts
/// network-steps.
///
/// ```
/// use std::sync::Arc;
/// use precode_core::train::fused::{Options, train};
/// use precode_core::train::{Optimizer, Problem, TrainConfig};
/// use precode_core::{Dataset, Embedding, Progress, Weights};
///
/// // y = x0 and x1, all four inputs.
/// let x = [false, false, false, true, true, false, true, true];
/// let data = vec![Arc::new(Dataset::from_bools(&x, &[false, false, false, true], 2, 1)?); 3];
/// let config = TrainConfig {
///     epochs: 500,
///     batch: 4,
///     optimizer: Optimizer::adam(0.05),
///     order_seed: 0,
///     first_epoch: 0,
///     early_stopping: None,
///     snapshots: vec![0],
/// };
/// let problem = Problem {
///     data: &data,
///     validation: &[],
///     embedding: &Embedding::Identity,
///     masks: None,
///     config: &config,
/// };
/// let start = Weights::linear_init(&[2, 8, 1], 0, &[0, 1, 2])?;
/// let trained = train(start.clone(), &problem, Options::default(), &Progress::default())?;
/// assert_eq!(trained.snapshots[0], start);
/// assert!((0..3).all(|r| trained.history.train_error[r * 500 + 499] == 0.0));
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Value`] or [`Error::Shape`] where the arguments do not fit together (see
/// [`Problem::validate`] and [`Weights::validate`]), [`Error::Unsupported`] where the engine cannot do
/// what is asked (see [`supports`] and [`Level`]), [`Error::Interrupted`] after
/// [`Progress::cancel`].
pub fn train(
    start: Weights,
    problem: &Problem<'_>,
    options: Options,
    progress: &Progress,
) -> Result<Trained> {
    let Validated { shape, level } = validate(&start, problem, options)?;
    in_pool(options, || run::train(start, problem, None, shape, level, progress))
}

/// Learns scores of the weights of W1, which choose the weights in effect, and with a rule that
/// [learns weights](ScoreRule::learns_weights) all parameters as well: one step for each batch of the problem, whose
/// optimizer is not used. Returns the parameters, with the losses of the weights in effect.
///
/// ```
/// use std::sync::Arc;
/// use precode_core::train::fused::{Options, learn_scores};
/// use precode_core::train::scores::{ScoreRule, ScoreStep, Scores};
/// use precode_core::train::{Problem, TrainConfig};
/// use precode_core::{Dataset, Embedding, Progress, Weights};
///
/// // y = x0 and x1, all four inputs.
/// let x = [false, false, false, true, true, false, true, true];
/// let data = [Arc::new(Dataset::from_bools(&x, &[false, false, false, true], 2, 1)?)];
/// let config = TrainConfig { epochs: 100, batch: 4, early_stopping: None, snapshots: vec![], ..TrainConfig::default() };
/// let embedding = Embedding::Identity;
/// let problem = Problem { data: &data, validation: &[], embedding: &embedding, masks: None, config: &config };
/// let start = Weights::linear_init(&[2, 8, 1], 0, &[0])?;
/// let mut scores = Scores::new(vec![0.1; 16], 1)?;
/// let steps = [ScoreStep { rate: 0.1, steepness: 1.0, restart: None }; 100];
/// let rule = ScoreRule::Largest { kept: 8, weight_decay: 0.0 };
/// let learned = learn_scores(start.clone(), &mut scores, rule, &steps, &problem, Options::default(), &Progress::default())?;
/// assert_eq!(learned.weights, start);
/// assert!(learned.history.train_loss[99] < learned.history.train_loss[0]);
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// As [`train`]; scores, a rule or steps that do not fit the networks; a problem with masks, snapshots or early stopping.
pub fn learn_scores(
    start: Weights,
    scores: &mut Scores,
    rule: ScoreRule,
    steps: &[ScoreStep],
    problem: &Problem<'_>,
    options: Options,
    progress: &Progress,
) -> Result<Trained> {
    let Validated { shape, level } = validate(&start, problem, options)?;
    let config = problem.config;
    if problem.masks.is_some() || !config.snapshots.is_empty() || config.early_stopping.is_some() {
        return Err(value_error!("scores are learned without masks, snapshots and early stopping"));
    }
    let wanted = u64::from(config.epochs) * config.steps_per_epoch(problem.data[0].samples());
    scores.validate(&start, &rule, steps, wanted)?;
    let learning = run::Learning { rule, steps, scores };
    in_pool(options, || run::train(start, problem, Some(learning), shape, level, progress))
}

/// Shape of networks that fit their problem, and the level of the run.
struct Validated {
    shape: Shape,
    level: Selected,
}

/// Checks that networks can be trained on a problem.
fn validate(start: &Weights, problem: &Problem<'_>, options: Options) -> Result<Validated> {
    start.validate()?;
    let widths = start.widths();
    problem.validate(start.networks, &widths)?;
    supports(&widths, problem)?;
    let shape = shape(&widths, problem.data, problem.embedding)?;
    problem.embedding.validate_projection(projected_variables(start), shape.variables)?;
    Ok(Validated { shape, level: options.select()? })
}

/// Loss and error of a stack of networks, each on its own data (one entry per network, of any size).
///
/// `progress` counts networks.
///
/// # Errors
/// As [`train`].
pub fn evaluate(
    weights: &Weights,
    data: &[Arc<Dataset>],
    embedding: &Embedding,
    options: Options,
    progress: &Progress,
) -> Result<Evaluation> {
    weights.validate_shapes()?;
    let widths = weights.widths();
    if data.len() != weights.networks {
        return Err(shape_error!(
            "{} data sets for {} networks: pass one for each",
            data.len(),
            weights.networks
        ));
    }
    supports_shape(&widths, data.iter().map(|data| data.variables()))?;
    for data in data {
        let expected = (embedding.rows(data.variables()), data.outputs());
        if (widths[0], widths[2]) != expected {
            return Err(shape_error!(
                "networks of widths {widths:?} do not fit data that embed into {} inputs and have {} labels",
                expected.0,
                expected.1
            ));
        }
    }
    let shape = shape(&widths, data, embedding)?;
    embedding.validate_projection(projected_variables(weights), shape.variables)?;
    let level = options.select()?;
    in_pool(options, || run::evaluate(weights, data, embedding, shape, level, progress))
}

/// An estimate of the peak bytes that [`train`] needs for `networks` networks of the given widths
/// `[inputs, hidden, outputs]`, each with a C0 of its own of `projection` entries (0 for none): weights, moments,
/// snapshots, data (`data_bytes`, all data sets together) and the scratch of `threads` threads.
///
/// ```
/// use precode_core::train::fused::memory_bytes;
/// use precode_core::train::Optimizer;
/// let bytes = memory_bytes(&[32, 32, 1], 0, 1000, &Optimizer::adam(1e-3), 0, 82_500_000, 2);
/// assert!(bytes > 82_500_000 + 3 * 4 * 1089 * 1000 && bytes < 100_000_000);
/// ```
pub fn memory_bytes(
    widths: &[usize],
    projection: usize,
    networks: usize,
    optimizer: &Optimizer,
    snapshots: usize,
    data_bytes: usize,
    threads: usize,
) -> usize {
    let parameters = widths
        .windows(2)
        .fold(projection, |sum, pair| sum.saturating_add(pair[0].saturating_add(1).saturating_mul(pair[1])));
    let copies = match optimizer {
        Optimizer::Adam { .. } | Optimizer::AdamW { .. } => 3,
        Optimizer::Sgd { .. } => 2,
    };
    // A thread's scratch: one network padded, with gradients, features and the rows of a tile.
    let widest = widths.iter().copied().max().unwrap_or(0);
    let scratch = parameters.saturating_mul(6 * 4).saturating_add(widest.saturating_mul(4 * 512));
    // A job's bookkeeping, and the orders of two groups of epochs.
    let bookkeeping = networks.saturating_mul(1024).saturating_add(1 << 19);
    parameters
        .saturating_mul(size_of::<f32>())
        .saturating_mul(networks)
        .saturating_mul(copies + snapshots)
        .saturating_add(data_bytes)
        .saturating_add(bookkeeping)
        .saturating_add(scratch.saturating_mul(threads))
}

/// The shape of networks that fit their data.
fn shape(widths: &[usize], data: &[Arc<Dataset>], embedding: &Embedding) -> Result<Shape> {
    match (widths, data) {
        (&[inputs, hidden, outputs], [first, ..]) => {
            let identity = matches!(embedding, Embedding::Identity);
            let projection = match embedding {
                Embedding::Projection { trained, .. } => Some(*trained),
                _ => None,
            };
            Ok(Shape { variables: first.variables(), inputs, hidden, outputs, identity, projection })
        }
        _ => Err(value_error!("0 networks: pass at least one task or network")),
    }
}

/// Variables of the networks' own C0, where they have one.
fn projected_variables(weights: &Weights) -> Option<usize> {
    weights.projection.as_ref().map(|projection| projection.variables)
}

/// Runs on as many threads as the options ask for.
fn in_pool<T: Send>(options: Options, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(threads) = options.threads else { return work() };
    if threads == 0 {
        return Err(value_error!("threads = 0: must be at least 1 (None for one per core)"));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| value_error!("threads = {threads}: {error}"))?
        .install(work)
}
