//! Training and evaluation of stacks of networks.

use std::sync::Arc;

use numpy::{PyArrayDyn, PyReadonlyArray1, PyReadonlyArray2};
use precode_core::task::dataset::WORD_BITS;
use precode_core::train::embedding::EmbeddingKind;
use precode_core::train::{EarlyStopping, Optimizer, Problem, TrainConfig, Trained};
use precode_core::{Dataset, Embedding, Error, Masks, Projection, Weights};
use precode_torch::{Choice, Stack, Workload, choose};
use pyo3::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::boundary::{PyTensor, array, raise, run};
use crate::tasks::Samples;

pub type Layers = Vec<(PyTensor, PyTensor)>;
type Floats<'py> = Bound<'py, PyArrayDyn<f64>>;

/// The embedding: its name, a matrix (rows, variables), or each network's own C0 (R, rows, variables) and whether it is
/// trained.
#[derive(FromPyObject)]
pub enum EmbeddingArgument<'py> {
    #[pyo3(transparent)]
    Named(String),
    #[pyo3(transparent)]
    Matrix(PyReadonlyArray2<'py, f32>),
    #[pyo3(transparent)]
    Projection((PyTensor, bool)),
}

impl EmbeddingArgument<'_> {
    /// The embedding, and the networks' own C0.
    pub fn into_embedding(self, variables: usize, seed: u64) -> Result<(Embedding, Option<Tensor>), Error> {
        match self {
            Self::Named(name) => Ok((name.parse::<EmbeddingKind>()?.embedding(variables, seed)?, None)),
            Self::Matrix(matrix) => Ok((Embedding::Dense(matrix.as_array().to_owned()), None)),
            Self::Projection((c0, trained)) => {
                let rows = c0.0.size().get(1).map_or(0, |&rows| rows as usize);
                Ok((Embedding::Projection { rows, trained }, Some(c0.0)))
            }
        }
    }
}

/// `precode.Optimizer`, by its attributes.
#[derive(FromPyObject)]
struct OptimizerArgument {
    rule: String,
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    momentum: f64,
}

impl OptimizerArgument {
    fn into_optimizer(self) -> Result<Optimizer, Error> {
        let Self { rule, lr, betas, eps, weight_decay, momentum } = self;
        Ok(match rule.parse()? {
            Rule::Adam => Optimizer::Adam { lr, betas, eps, weight_decay },
            Rule::AdamW => Optimizer::AdamW { lr, betas, eps, weight_decay },
            Rule::Sgd => Optimizer::Sgd { lr, momentum, weight_decay },
        })
    }
}

/// The update rules, by the names that Python gives them.
#[derive(Clone, Copy)]
enum Rule {
    Adam,
    AdamW,
    Sgd,
}
precode_core::named!(Rule, "optimizer", "adam" => Adam, "adamw" => AdamW, "sgd" => Sgd);

/// `precode.EarlyStopping`, by its attributes.
#[derive(FromPyObject)]
struct EarlyStoppingArgument {
    patience: u32,
    min_delta: f64,
    watch: String,
}

impl EarlyStoppingArgument {
    fn into_rule(self) -> Result<EarlyStopping, Error> {
        let Self { patience, min_delta, watch } = self;
        Ok(EarlyStopping { patience, min_delta, watch: watch.parse()? })
    }
}

/// Settings of a run, by the attributes of `precode.networks.settings.TrainSettings`.
#[derive(FromPyObject)]
pub struct Settings {
    epochs: u32,
    batch: usize,
    optimizer: OptimizerArgument,
    order_seed: u64,
    first_epoch: u32,
    early_stopping: Option<EarlyStoppingArgument>,
    snapshots: Vec<u64>,
}

impl Settings {
    pub fn into_config(self) -> Result<TrainConfig, Error> {
        Ok(TrainConfig {
            epochs: self.epochs,
            batch: self.batch,
            optimizer: self.optimizer.into_optimizer()?,
            order_seed: self.order_seed,
            first_epoch: self.first_epoch,
            early_stopping: self.early_stopping.map(EarlyStoppingArgument::into_rule).transpose()?,
            snapshots: self.snapshots,
        })
    }
}

pub fn shared(data: &[PyRef<'_, Samples>]) -> Vec<Arc<Dataset>> {
    data.iter().map(|samples| Arc::clone(&samples.0)).collect()
}

pub fn stack(layers: Layers, projection: Option<Tensor>) -> Stack {
    Stack { layers: layers.into_iter().map(|(weight, bias)| (weight.0, bias.0)).collect(), projection }
}

fn layers(stack: Stack) -> Layers {
    stack.layers.into_iter().map(|(weight, bias)| (PyTensor(weight), PyTensor(bias))).collect()
}

fn masks_of(layers: Vec<Option<PyReadonlyArray1<'_, bool>>>) -> PyResult<Masks> {
    let copy =
        |mask: Option<PyReadonlyArray1<'_, bool>>| mask.map(|mask| Ok(mask.as_slice()?.to_vec())).transpose();
    Ok(Masks { layers: layers.into_iter().map(copy).collect::<PyResult<_>>()? })
}

/// Initial weights of PyTorch's `nn.Linear`: one (weight, bias) pair of stacked tensors a layer.
#[pyfunction]
pub fn linear_init(py: Python<'_>, widths: Vec<usize>, seed: u64, indices: Vec<u64>) -> PyResult<Layers> {
    let stack = run(py, None, |_| {
        let weights = Weights::linear_init(&widths, seed, &indices)?;
        Stack::from_weights(&weights, Kind::Float, Device::Cpu)
    })?;
    Ok(layers(stack))
}

/// Initial C0 of projections, (R, rows, variables): of PyTorch's `nn.Linear` without bias.
#[pyfunction]
pub fn projection_init(
    py: Python<'_>,
    rows: usize,
    variables: usize,
    seed: u64,
    indices: Vec<u64>,
) -> PyResult<PyTensor> {
    let c0 = run(py, None, |_| {
        let projection = Projection::linear_init(rows, variables, seed, &indices)?;
        let size = [indices.len() as i64, rows as i64, variables as i64];
        Ok::<_, precode_torch::Error>(Tensor::f_from_slice(&projection.matrix)?.f_view(size)?)
    })?;
    Ok(PyTensor(c0))
}

/// What a training run returns to Python.
#[derive(IntoPyObject)]
pub struct Outcome<'py> {
    weights: Layers,
    snapshots: Vec<Layers>,
    /// The networks' own C0 at the end, and at each snapshot.
    c0: Option<PyTensor>,
    c0_snapshots: Vec<Option<PyTensor>>,
    train_loss: Floats<'py>,
    train_error: Floats<'py>,
    validation_loss: Floats<'py>,
    epochs_run: Vec<u32>,
    engine: String,
    reason: String,
}

/// Trains a stack of networks.
#[pyfunction]
#[pyo3(signature = (start, data, validation, embedding, embedding_seed, masks, settings, engine, progress))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python API")]
pub fn train<'py>(
    py: Python<'py>,
    start: Layers,
    data: Vec<PyRef<'py, Samples>>,
    validation: Vec<PyRef<'py, Samples>>,
    embedding: EmbeddingArgument<'py>,
    embedding_seed: u64,
    masks: Option<Vec<Option<PyReadonlyArray1<'py, bool>>>>,
    settings: Settings,
    engine: String,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Outcome<'py>> {
    let (data, validation) = (shared(&data), shared(&validation));
    let variables = data.first().map_or(0, |data| data.variables());
    let (embedding, c0) =
        embedding.into_embedding(variables, embedding_seed).map_err(|error| raise(py, error))?;
    let start = stack(start, c0);
    let config = settings.into_config().map_err(|error| raise(py, error))?;
    let masks = masks.map(masks_of).transpose()?;
    let (trained, name, reason) = run(py, progress.as_ref(), move |progress| {
        let problem = Problem {
            data: &data,
            validation: &validation,
            embedding: &embedding,
            masks: masks.as_ref(),
            config: &config,
        };
        let (kind, device) = (start.kind()?, start.device());
        let choice: Choice = engine.parse()?;
        let (engine, reason) = choose(choice, &start.widths(), &problem, kind, device)?;
        Ok::<_, precode_torch::Error>((engine.train(&start, &problem, progress)?, engine.name(), reason))
    })?;
    let Trained { mut weights, mut snapshots, history } = trained;
    let shape = [history.networks, history.epochs];
    Ok(Outcome {
        c0: weights.projection.take().map(PyTensor),
        c0_snapshots: snapshots.iter_mut().map(|stack| stack.projection.take().map(PyTensor)).collect(),
        weights: layers(weights),
        snapshots: snapshots.into_iter().map(layers).collect(),
        train_loss: array(py, history.train_loss, &shape)?,
        train_error: array(py, history.train_error, &shape)?,
        validation_loss: array(py, history.validation_loss, &shape)?,
        epochs_run: history.epochs_run,
        engine: name.to_owned(),
        reason,
    })
}

/// Loss and error of every network of a stack on its data.
#[pyfunction]
pub fn evaluate<'py>(
    py: Python<'py>,
    stack: Layers,
    data: Vec<PyRef<'py, Samples>>,
    embedding: EmbeddingArgument<'py>,
    embedding_seed: u64,
) -> PyResult<(Floats<'py>, Floats<'py>)> {
    let data = shared(&data);
    let variables = data.first().map_or(0, |data| data.variables());
    let (embedding, c0) =
        embedding.into_embedding(variables, embedding_seed).map_err(|error| raise(py, error))?;
    let stack = self::stack(stack, c0);
    let evaluation =
        run(py, None, move |progress| precode_torch::evaluate(&stack, &data, &embedding, progress))?;
    let networks = evaluation.loss.len();
    Ok((array(py, evaluation.loss, &[networks])?, array(py, evaluation.error, &[networks])?))
}

/// Estimated peak bytes of host memory of training on the engine that will be chosen. `projection`: entries of each
/// network's own C0; `drawn`: training and
/// validation samples of each network that will be drawn; `samples`: all of them, drawn or given.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "arguments of a Python call")]
pub fn memory_needed(
    py: Python<'_>,
    widths: Vec<usize>,
    projection: usize,
    networks: usize,
    variables: usize,
    samples: (usize, usize),
    drawn: (usize, usize),
    settings: Settings,
    engine: &str,
    kind: &str,
    on_cpu: bool,
) -> PyResult<usize> {
    let needed = || -> precode_torch::Result<usize> {
        let config = settings.into_config()?;
        let kind = match kind {
            "float64" => Kind::Double,
            "float16" => Kind::Half,
            "bfloat16" => Kind::BFloat16,
            _ => Kind::Float,
        };
        let device = if on_cpu { Device::Cpu } else { Device::Cuda(0) };
        let size = Workload {
            widths: &widths,
            projection,
            networks,
            variables,
            samples: samples.0,
            validation: samples.1,
            batch: config.batch,
            snapshots: config.snapshots.len(),
        };
        let words = variables.div_ceil(WORD_BITS) + 1;
        let packed =
            networks.saturating_mul(drawn.0.saturating_add(drawn.1)).saturating_mul(words * size_of::<u32>());
        let training = precode_torch::memory_bytes(engine.parse()?, &size, &config.optimizer, kind, device);
        Ok(training.saturating_add(packed))
    };
    needed().map_err(|error| raise(py, error))
}
