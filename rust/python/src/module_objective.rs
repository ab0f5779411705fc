//! Any `nn.Module` as what ticket methods ask questions of.

use std::panic::{AssertUnwindSafe, catch_unwind};

use precode_core::Progress;
use precode_torch::methods::{Batch, FeaturePair, Objective, Outcome, Parameter, Plan};
use precode_torch::{Error, Result};
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use tch::Tensor;

use crate::boundary::{PyTensor, internal_error, raise};
use crate::methods::{NamedRequest, Tickets};
use crate::tasks::{self, SignedClauses};

/// `precode.modules.objective.ModuleObjective`, which answers on the thread that asks, with the GIL held: the user's code runs
/// where the user called from. Its tensors have no network axis.
struct ModuleObjective<'py> {
    object: Bound<'py, PyAny>,
    parameters: Vec<Parameter>,
    steps_per_epoch: u64,
    epochs: u32,
    features: Option<FeaturePair>,
    dense: Option<Vec<Tensor>>,
    /// The Python exception behind an error that was returned.
    raised: Option<PyErr>,
}

impl<'py> ModuleObjective<'py> {
    fn new(object: Bound<'py, PyAny>, clauses: Option<SignedClauses>, complemented: bool) -> PyResult<Self> {
        let py = object.py();
        let named: Vec<(String, PyTensor, bool)> = object.getattr("parameters")?.extract()?;
        let parameters = named.into_iter().map(|(name, initial, prunable)| {
            let initial = initial.0.f_unsqueeze(0).map_err(|error| raise(py, error))?;
            Ok(Parameter { name, initial, prunable })
        });
        let pair: Option<(usize, usize, usize)> = object.getattr("features")?.extract()?;
        let features = pair.map(|(first, second, output)| FeaturePair {
            first,
            second,
            output,
            embedding: None,
            clauses: clauses.map(|clauses| vec![tasks::clauses(&clauses)]),
            complemented: vec![complemented],
        });
        Ok(Self {
            parameters: parameters.collect::<PyResult<_>>()?,
            steps_per_epoch: object.getattr("steps_per_epoch")?.extract()?,
            epochs: object.getattr("epochs")?.extract()?,
            features,
            dense: None,
            raised: None,
            object,
        })
    }

    /// What a method of the object returns. An exception is kept, and stands behind the error.
    fn ask<T>(&mut self, name: &str, arguments: impl PyCallArgs<'py>) -> Result<T>
    where
        T: for<'a> FromPyObject<'a, 'py>,
    {
        let answer = || -> PyResult<T> {
            self.object.py().check_signals()?;
            self.object.call_method1(name, arguments)?.extract().map_err(Into::into)
        };
        answer().map_err(|error| {
            self.raised = Some(error);
            Error::Core(precode_core::Error::Interrupted)
        })
    }

    fn ask_tensors(&mut self, name: &str, arguments: impl PyCallArgs<'py>) -> Result<Vec<Tensor>> {
        stacked(self.ask(name, arguments)?)
    }
}

/// Tensors with a network axis, without it.
fn single(tensors: &[Tensor]) -> Result<Vec<PyTensor>> {
    tensors.iter().map(|tensor| Ok(PyTensor(tensor.f_select(0, 0)?))).collect()
}

/// The inverse of [`single`].
fn stacked(tensors: Vec<PyTensor>) -> Result<Vec<Tensor>> {
    tensors.into_iter().map(|tensor| Ok(tensor.0.f_unsqueeze(0)?)).collect()
}

impl Objective for ModuleObjective<'_> {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    fn epochs(&self) -> u32 {
        self.epochs
    }

    fn gradient(&mut self, at: &[Tensor], batch: Batch) -> Result<Vec<Tensor>> {
        let step = match batch {
            Batch::Step(step) => Some(step),
            Batch::Scoring => None,
        };
        self.ask_tensors("gradient", (single(at)?, step))
    }

    fn curvature(&mut self, at: &[Tensor], temperature: f64) -> Result<Vec<Tensor>> {
        self.ask_tensors("curvature", (single(at)?, temperature))
    }

    fn flow(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
        self.ask_tensors("flow", (single(at)?,))
    }

    fn dense(&mut self) -> Result<Vec<Tensor>> {
        if self.dense.is_none() {
            self.dense_run(&[])?;
        }
        Ok(self.dense.iter().flatten().map(Tensor::shallow_clone).collect())
    }

    fn dense_at(&mut self, step: u64) -> Result<Vec<Tensor>> {
        Ok(self.dense_run(&[step])?.into_iter().flatten().collect())
    }

    fn train(&mut self, plan: &Plan) -> Result<Outcome> {
        let masks = plan.masks.map(single).transpose()?;
        let arguments = (single(plan.start)?, masks, plan.first_epoch, plan.snapshots.to_vec());
        let (parameters, snapshots, epochs): (Vec<PyTensor>, Vec<Vec<PyTensor>>, f64) =
            self.ask("train", arguments)?;
        Ok(Outcome {
            parameters: stacked(parameters)?,
            snapshots: snapshots.into_iter().map(stacked).collect::<Result<_>>()?,
            epochs,
        })
    }

    fn features(&self) -> Option<&FeaturePair> {
        self.features.as_ref()
    }
}

impl ModuleObjective<'_> {
    /// The dense training, whose end is kept; the values at its snapshots.
    fn dense_run(&mut self, snapshots: &[u64]) -> Result<Vec<Vec<Tensor>>> {
        let start: Vec<Tensor> =
            self.parameters.iter().map(|parameter| parameter.initial.shallow_clone()).collect();
        let outcome = self.train(&Plan { start: &start, masks: None, first_epoch: 0, snapshots })?;
        self.dense = Some(outcome.parameters);
        Ok(outcome.snapshots)
    }
}

/// Tickets of a module.
#[pyfunction]
#[pyo3(signature = (objective, clauses, complemented, method, density, granularity, scope, seed))]
#[expect(clippy::too_many_arguments, reason = "arguments of a Python call")]
pub fn find_module_ticket<'py>(
    py: Python<'py>,
    objective: Bound<'py, PyAny>,
    clauses: Option<SignedClauses>,
    complemented: bool,
    method: String,
    density: f64,
    granularity: String,
    scope: String,
    seed: u64,
) -> PyResult<Tickets<'py>> {
    let mut objective = ModuleObjective::new(objective, clauses, complemented)?;
    let request =
        NamedRequest { method, densities: vec![density], granularity, scope, seed, streams: vec![0] };
    // The method does not outlive a panic, so nothing of it is seen half done.
    let found = catch_unwind(AssertUnwindSafe(|| request.find(&mut objective, &Progress::default())));
    match (objective.raised.take(), found) {
        (Some(error), _) => Err(error),
        (None, Ok(Ok((parameters, found)))) => Tickets::new(py, parameters, found),
        (None, Ok(Err(error))) => Err(raise(py, error)),
        (None, Err(panic)) => Err(internal_error(py, panic.as_ref())),
    }
}
