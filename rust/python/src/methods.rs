//! Ticket methods: their table, and tickets of stacks of networks.

use std::collections::BTreeMap;

use numpy::PyArrayDyn;
use precode_core::Clause;
use precode_core::Progress;
use precode_core::ticket::mask::Density;
use precode_core::train::Problem;
use precode_torch::methods::{
    Control, Found, Method, Moment, Objective, Record, Request, StackObjective, Start, all,
};
use precode_torch::{Choice, Error, Stack};
use pyo3::prelude::*;

use crate::boundary::{PyTensor, array, raise, run};
use crate::tasks::{self, Samples, SignedClauses};
use crate::training::{EmbeddingArgument, Layers, Settings, shared, stack};

/// A row of the table of methods.
#[derive(IntoPyObject)]
pub struct MethodRow {
    name: &'static str,
    title: &'static str,
    needs_data: bool,
    needs_gradients: bool,
    needs_dense_run: bool,
    needs_clauses: bool,
    needs_clauses_in_data: bool,
    needs_pair: bool,
    schedule: &'static str,
    cost: &'static str,
    nested: bool,
    /// Whether it can be read early, and after how many epochs it is unless others are asked for.
    early: bool,
    reads_at: Option<u32>,
    rewinds: bool,
    random: bool,
    features: bool,
    reference: &'static str,
    deviations: &'static str,
}

/// All methods.
#[pyfunction]
pub fn methods() -> Vec<MethodRow> {
    let row = |record: &Record| MethodRow {
        name: record.name,
        title: record.title,
        needs_data: record.needs.data,
        needs_gradients: record.needs.gradients,
        needs_dense_run: record.needs.dense_run,
        needs_clauses: record.needs.clauses,
        needs_clauses_in_data: record.needs.clauses_in_data,
        needs_pair: record.needs.pair,
        schedule: record.schedule,
        cost: record.cost,
        nested: record.nested,
        early: record.reads.is_early(),
        reads_at: match record.reads {
            Moment::After(epochs) => Some(epochs),
            _ => None,
        },
        rewinds: record.rewinds,
        random: record.random,
        features: record.features,
        reference: record.reference,
        deviations: record.deviations,
    };
    all().iter().map(row).collect()
}

/// A row of the table of controls.
#[derive(IntoPyObject)]
pub struct ControlRow {
    name: &'static str,
    title: &'static str,
}

/// All controls, which any method's name takes after a colon.
#[pyfunction]
pub fn controls() -> Vec<ControlRow> {
    let row = |control: Control| ControlRow { name: control.name(), title: control.title() };
    Control::ALL.iter().copied().map(row).collect()
}

/// What is asked of a method, by name.
pub struct NamedRequest {
    pub method: String,
    pub densities: Vec<f64>,
    pub granularity: String,
    pub scope: String,
    pub at: Option<u32>,
    pub rewind: u32,
    pub seed: u64,
    pub streams: Vec<u64>,
}

impl NamedRequest {
    /// Finds the tickets, and the names of the parameters that they have values for.
    pub fn find(
        &self,
        objective: &mut dyn Objective,
        progress: &Progress,
    ) -> Result<(Vec<(String, bool)>, Found), Error> {
        let densities: Vec<Density> =
            self.densities.iter().map(|&density| Density::new(density)).collect::<Result<_, _>>()?;
        let request = Request {
            densities: &densities,
            granularity: self.granularity.parse()?,
            scope: self.scope.parse()?,
            at: self.at,
            rewind: self.rewind,
            seed: self.seed,
            ..Request::new(&densities, &self.streams, progress)
        };
        let method: Method = self.method.parse()?;
        let found = method.find(objective, &request)?;
        let parameters = objective.parameters().iter();
        Ok((parameters.map(|parameter| (parameter.name.clone(), parameter.prunable)).collect(), found))
    }
}

/// Tickets as Python gets them.
#[derive(IntoPyObject)]
pub struct Tickets<'py> {
    /// Names of all parameters.
    parameters: Vec<String>,
    /// Names of the prunable ones, which masks are of.
    prunable: Vec<String>,
    /// (densities, prunable parameters).
    masks: Vec<Vec<PyTensor>>,
    /// (densities, parameters), or none where training starts at the initial values.
    start: Option<Vec<Vec<PyTensor>>>,
    start_epoch: u32,
    /// (densities, prunable parameters), or none from methods without one score a weight.
    scores: Option<Vec<Vec<PyTensor>>>,
    gradients: Vec<f64>,
    /// (densities, R), or (densities, 1) where they are the same for all.
    epochs: Vec<Vec<f64>>,
    /// By name, (densities, R).
    notes: BTreeMap<String, Bound<'py, PyArrayDyn<f64>>>,
}

impl<'py> Tickets<'py> {
    /// From what [`NamedRequest::find`] returns.
    pub fn new(py: Python<'py>, parameters: Vec<(String, bool)>, found: Found) -> PyResult<Self> {
        let tensors = |lists: Vec<Vec<tch::Tensor>>| -> Vec<Vec<PyTensor>> {
            lists.into_iter().map(|list| list.into_iter().map(PyTensor).collect()).collect()
        };
        let (start, start_epoch) = match found.start {
            Start::Initial => (None, 0),
            Start::Other { parameters, epoch } => (Some(tensors(parameters)), epoch),
        };
        let notes = found.notes.into_iter().map(|(name, values)| {
            let shape = [values.len(), values.first().map_or(0, Vec::len)];
            Ok((name, array(py, values.concat(), &shape)?))
        });
        Ok(Self {
            masks: tensors(found.masks),
            start,
            start_epoch,
            scores: found.scores.map(tensors),
            gradients: found.cost.iter().map(|cost| cost.gradients).collect(),
            epochs: found.cost.iter().map(|cost| cost.epochs.clone()).collect(),
            notes: notes.collect::<PyResult<_>>()?,
            prunable: parameters
                .iter()
                .filter(|(_, prunable)| *prunable)
                .map(|(name, _)| name.clone())
                .collect(),
            parameters: parameters.into_iter().map(|(name, _)| name).collect(),
        })
    }
}

/// Tickets of every network of a stack.
#[pyfunction]
#[pyo3(signature = (start, dense, snapshots, data, validation, embedding, embedding_seed, holds_projection, clauses,
    complemented, output, settings, engine, prunable, method, densities, granularity, scope, at, rewind, seed, streams, progress))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python API")]
pub fn find_stack_tickets<'py>(
    py: Python<'py>,
    start: Layers,
    dense: Option<(Layers, Option<PyTensor>, Vec<f64>)>,
    snapshots: Vec<(u64, Layers, Option<PyTensor>)>,
    data: Vec<PyRef<'py, Samples>>,
    validation: Vec<PyRef<'py, Samples>>,
    embedding: EmbeddingArgument<'py>,
    embedding_seed: u64,
    holds_projection: bool,
    clauses: Option<Vec<SignedClauses>>,
    complemented: Vec<bool>,
    output: usize,
    settings: Settings,
    engine: String,
    prunable: String,
    method: String,
    densities: Vec<f64>,
    granularity: String,
    scope: String,
    at: Option<u32>,
    rewind: u32,
    seed: u64,
    streams: Vec<u64>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Tickets<'py>> {
    let (data, validation) = (shared(&data), shared(&validation));
    let own = |c0: Option<PyTensor>| c0.map(|c0| c0.0);
    let dense = dense.map(|(layers, c0, epochs)| (stack(layers, own(c0)), epochs));
    let snapshots: Vec<(u64, Stack)> =
        snapshots.into_iter().map(|(step, layers, c0)| (step, stack(layers, own(c0)))).collect();
    let variables = data.first().map_or(0, |data| data.variables());
    let (embedding, c0) =
        embedding.into_embedding(variables, embedding_seed).map_err(|error| raise(py, error))?;
    let start = stack(start, c0);
    let config = settings.into_config().map_err(|error| raise(py, error))?;
    let request = NamedRequest { method, densities, granularity, scope, at, rewind, seed, streams };
    let (parameters, found) = run(py, progress.as_ref(), move |progress| {
        let problem = Problem {
            data: &data,
            validation: &validation,
            embedding: &embedding,
            masks: None,
            config: &config,
        };
        let choice: Choice = engine.parse()?;
        let mut objective =
            StackObjective::new(&start, problem, choice, &prunable, progress)?.with_output(output)?;
        objective = objective.with_snapshots(&snapshots)?;
        if holds_projection {
            objective = objective.with_held_projection()?;
        }
        if let Some((dense, epochs)) = &dense {
            objective = objective.with_dense(dense, epochs)?;
        }
        if let Some(clauses) = &clauses {
            let clauses: Vec<Vec<Clause>> = clauses.iter().map(tasks::clauses).collect();
            objective = objective.with_clauses(clauses, complemented)?;
        }
        request.find(&mut objective, progress)
    })?;
    Tickets::new(py, parameters, found)
}
