//! Any `nn.Module` as what ticket methods ask questions of.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use precode_core::{Dataset, Progress};
use precode_torch::methods::{Batch, FeaturePair, Objective, Outcome, Parameter, Plan};
use precode_torch::{Error, Result};
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use tch::Tensor;

use crate::boundary::{POLL, PyTensor, internal_error, new_pool, raise};
use crate::methods::{NamedRequest, Tickets};
use crate::streams::Streams;
use crate::tasks::{self, SignedClauses};

/// Something to do with the object on the thread that the user called from.
type Question = Box<dyn FnOnce(&Bound<'_, PyAny>) + Send>;

/// `precode.modules.objective.ModuleObjective`. The method runs on a thread of ours, without the GIL; its questions are
/// answered on the thread that the user called from, where all of the user's code runs. Its tensors have no network
/// axis.
struct ModuleObjective {
    questions: Sender<Question>,
    parameters: Vec<Parameter>,
    steps_per_epoch: u64,
    epochs: u32,
    features: Option<FeaturePair>,
    dense: Option<Vec<Tensor>>,
    /// What [`Objective::dense_at`] was asked for last, by step.
    snapshots: Vec<(u64, Vec<Tensor>)>,
    /// The Python exception behind an error that was returned.
    raised: Option<PyErr>,
}

impl ModuleObjective {
    fn new(
        object: &Bound<'_, PyAny>,
        clauses: Option<SignedClauses>,
        complemented: bool,
        questions: Sender<Question>,
    ) -> PyResult<Self> {
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
            projection: None,
            holds_projection: false,
            clauses: clauses.map(|clauses| vec![tasks::clauses(&clauses)]),
            complemented: vec![complemented],
        });
        Ok(Self {
            questions,
            parameters: parameters.collect::<PyResult<_>>()?,
            steps_per_epoch: object.getattr("steps_per_epoch")?.extract()?,
            epochs: object.getattr("epochs")?.extract()?,
            features,
            dense: None,
            snapshots: Vec::new(),
            raised: None,
        })
    }

    /// What the object answers. An exception is kept, and stands behind the error.
    fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = channel();
        let asked = self.questions.send(Box::new(move |object| {
            // Nobody listens any more only where the method is over.
            let _ = answer.send(question(object));
        }));
        match asked.ok().and_then(|()| answered.recv().ok()) {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => self.raised = Some(error),
            // The question was dropped: the user wants to stop.
            None => {}
        }
        Err(Error::Core(precode_core::Error::Interrupted))
    }

    /// What a method of the object returns.
    fn call<T, A>(&mut self, name: &'static str, arguments: A) -> Result<T>
    where
        T: for<'a, 'py> FromPyObject<'a, 'py> + Send + 'static,
        A: for<'py> PyCallArgs<'py> + Send + 'static,
    {
        self.ask(move |object| object.call_method1(name, arguments)?.extract().map_err(Into::into))
    }

    fn tensors<A>(&mut self, name: &'static str, arguments: A) -> Result<Vec<Tensor>>
    where
        A: for<'py> PyCallArgs<'py> + Send + 'static,
    {
        stacked(self.call(name, arguments)?)
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

impl Objective for ModuleObjective {
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
        self.tensors("gradient", (single(at)?, step))
    }

    fn curvature(&mut self, at: &[Tensor], temperature: f64) -> Result<Vec<Tensor>> {
        self.tensors("curvature", (single(at)?, temperature))
    }

    fn flow(&mut self, at: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let values = single(&at)?;
        drop(at);
        self.tensors("flow", (values,))
    }

    fn input_moments(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
        self.tensors("input_moments", (single(at)?,))
    }

    fn input_squares(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
        self.tensors("input_squares", (single(at)?,))
    }

    fn samples(&mut self) -> Result<Vec<Arc<Dataset>>> {
        let (inputs, labels): (PyTensor, PyTensor) = self.call("samples", ())?;
        let variables = inputs.0.size().last().copied().unwrap_or_default() as usize;
        let bools = |tensor: &Tensor| Vec::<bool>::try_from(tensor.f_flatten(0, -1)?);
        Ok(vec![Arc::new(Dataset::from_bools(&bools(&inputs.0)?, &bools(&labels.0)?, variables, 1)?)])
    }

    /// A module is one network, whatever `networks` say.
    fn fisher(&mut self, at: &[Tensor], _: Range<usize>) -> Result<Vec<Tensor>> {
        let fisher: PyTensor = self.call("fisher", (single(at)?,))?;
        Ok(vec![fisher.0])
    }

    /// A module is one network, whatever `networks` say.
    fn gauss_newton(&mut self, at: &[Tensor], _: Range<usize>) -> Result<Vec<Tensor>> {
        let matrix: PyTensor = self.call("gauss_newton", (single(at)?,))?;
        Ok(vec![matrix.0])
    }

    fn dense(&mut self) -> Result<Vec<Tensor>> {
        if self.dense.is_none() {
            self.dense_run(None, &[])?;
        }
        Ok(self.dense.iter().flatten().map(Tensor::shallow_clone).collect())
    }

    fn forget_dense(&mut self) {
        self.dense = None;
        self.snapshots.clear();
    }

    /// Trains again up to the last step, unless the values are those that were asked for last.
    fn dense_at(&mut self, steps: &[u64]) -> Result<Vec<Vec<Tensor>>> {
        self.snapshots.retain(|(known, _)| steps.contains(known));
        let missing = |step: &u64| self.snapshots.iter().all(|(known, _)| known != step);
        let missing: Vec<u64> = steps.iter().copied().filter(missing).collect();
        if let Some(end) = missing.last() {
            let values = self.dense_run(Some(end.div_ceil(self.steps_per_epoch) as u32), &missing)?;
            self.snapshots.extend(missing.into_iter().zip(values));
        }
        let copy = |values: &Vec<Tensor>| values.iter().map(Tensor::shallow_clone).collect();
        let of = |step: &u64| {
            self.snapshots.iter().find(|(known, _)| known == step).map(|(_, values)| copy(values))
        };
        Ok(steps.iter().filter_map(of).collect())
    }

    /// The training stands still while `each` looks, and goes no further than it wants.
    fn each_epoch(
        &mut self,
        last: u32,
        each: &mut dyn FnMut(u32, Vec<Tensor>) -> Result<bool>,
    ) -> Result<()> {
        let epochs: Py<PyAny> = self.call("dense_epochs", ())?;
        let epochs = Arc::new(epochs);
        for epoch in 1..=last {
            let epochs = Arc::clone(&epochs);
            let values: Vec<PyTensor> =
                self.ask(move |object| epochs.bind(object.py()).call_method0("__next__")?.extract())?;
            if !each(epoch, stacked(values)?)? {
                break;
            }
        }
        Ok(())
    }

    fn train(&mut self, plan: &Plan) -> Result<Outcome> {
        let masks = plan.masks.map(single).transpose()?;
        let snapshots = plan.snapshots.to_vec();
        let arguments = (single(plan.start)?, masks, plan.first_epoch, plan.end_epoch, snapshots, plan.rate);
        let (parameters, snapshots, epochs): (Vec<PyTensor>, Vec<Vec<PyTensor>>, f64) =
            self.call("train", arguments)?;
        Ok(Outcome {
            parameters: stacked(parameters)?,
            snapshots: snapshots.into_iter().map(stacked).collect::<Result<_>>()?,
            epochs: vec![epochs],
        })
    }

    fn features(&self) -> Option<&FeaturePair> {
        self.features.as_ref()
    }
}

impl ModuleObjective {
    /// The dense training up to an epoch; its end is kept where it is that of the whole. The values at its snapshots.
    fn dense_run(&mut self, end_epoch: Option<u32>, snapshots: &[u64]) -> Result<Vec<Vec<Tensor>>> {
        let start: Vec<Tensor> =
            self.parameters.iter().map(|parameter| parameter.initial.shallow_clone()).collect();
        let end_epoch = end_epoch.filter(|&end| end < self.epochs);
        let plan = Plan { end_epoch, snapshots, ..Plan::new(&start) };
        let outcome = self.train(&plan)?;
        if end_epoch.is_none() {
            self.dense = Some(outcome.parameters);
        }
        Ok(outcome.snapshots)
    }
}

/// Tickets of a module.
#[pyfunction]
#[pyo3(signature = (objective, clauses, complemented, method, density, granularity, scope, at, seed))]
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
    at: Option<u32>,
    seed: u64,
) -> PyResult<Tickets<'py>> {
    let (asking, asked) = channel();
    let asks = ModuleObjective::new(&objective, clauses, complemented, asking)?;
    let request = NamedRequest {
        method,
        densities: vec![density],
        granularity,
        scope,
        at,
        rewind: 0,
        seed,
        streams: vec![0],
    };
    // Threads of its own: the user's code may use the others, while the method waits for it on one of these.
    let (pool, progress, objective) = (new_pool(py)?, Progress::default(), objective.unbind());
    let streams = Streams::of_this_thread(py)?;
    // The lock is released to the end of the scope: the last tensors of the method may need it to be dropped.
    let (interruption, outcome) = py.detach(move || {
        let (mut interruption, mut outcome) = (None, None);
        pool.in_place_scope(|scope| {
            scope.spawn(|_| {
                let mut asks = asks;
                // The method does not outlive a panic, so nothing of it is seen half done.
                let search = || streams.enter().map(|()| request.find(&mut asks, &progress));
                let found = catch_unwind(AssertUnwindSafe(search));
                outcome = Some((asks.raised.take(), found));
                // The end of the questions ends the loop below.
                drop(asks);
            });
            loop {
                let question: std::result::Result<Question, RecvTimeoutError> = asked.recv_timeout(POLL);
                if matches!(question, Err(RecvTimeoutError::Disconnected)) {
                    break;
                }
                Python::attach(|py| {
                    if interruption.is_none()
                        && let Err(error) = py.check_signals()
                    {
                        interruption = Some(error);
                        progress.cancel();
                    }
                    // A question that is not answered is one of a method that is to stop.
                    if let (Ok(question), None) = (question, &interruption) {
                        question(objective.bind(py));
                    }
                });
            }
        });
        (interruption, outcome)
    });
    match (interruption, outcome) {
        (Some(error), _) | (None, Some((Some(error), _))) => Err(error),
        (None, Some((None, Ok(Ok(Ok((parameters, found))))))) => Tickets::new(py, parameters, found),
        (None, Some((None, Ok(Ok(Err(error)))))) => Err(raise(py, error)),
        (None, Some((None, Ok(Err(error))))) => Err(error),
        (None, Some((None, Err(panic)))) => Err(internal_error(py, panic.as_ref())),
        (None, None) => Err(internal_error(py, &"the search was never begun")),
    }
}
