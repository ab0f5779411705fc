//! Formulas and data sets.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray2, PyArrayDyn, PyReadonlyArray2};
use precode_core::task::formula::ClauseShape;
use precode_core::task::rng::Purpose;
use precode_core::task::sampler::Sampler;
use precode_core::{Clause, Dataset, Dnf, Error, Literal, named};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::boundary::{array, compute, raise, run};

/// Clauses as signed literals: `v` for a variable, `~v` for its negation.
pub type SignedClauses = Vec<Vec<i64>>;

/// Signed literals as clauses.
pub fn clauses(signed: &SignedClauses) -> Vec<Clause> {
    let clause = |signed: &Vec<i64>| signed.iter().map(|&literal| Literal::from_signed(literal)).collect();
    signed.iter().map(clause).collect()
}

fn signed(clauses: &[Clause]) -> SignedClauses {
    clauses.iter().map(|clause| clause.iter().map(|literal| literal.signed()).collect()).collect()
}

/// A validated formula.
#[pyclass(frozen, module = "precode._precode")]
pub struct Formula(Arc<Dnf>);

#[pymethods]
impl Formula {
    #[new]
    fn new(
        py: Python<'_>,
        variables: usize,
        outputs: Vec<SignedClauses>,
        complemented: bool,
    ) -> PyResult<Self> {
        let outputs = outputs.iter().map(clauses).collect();
        compute(py, || Dnf::new(variables, outputs, complemented)).map(|task| Self(Arc::new(task)))
    }

    /// Estimated peak bytes of drawing such a formula; raises what is wrong with the sizes.
    #[staticmethod]
    fn random_bytes(
        py: Python<'_>,
        variables: usize,
        outputs: usize,
        clauses: usize,
        width: usize,
        negated: usize,
        disjoint: bool,
    ) -> PyResult<usize> {
        let shape = ClauseShape { clauses, width, negated, disjoint };
        Dnf::memory_bytes(variables, outputs, shape).map_err(|error| raise(py, error))
    }

    #[staticmethod]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python API")]
    fn random(
        py: Python<'_>,
        variables: usize,
        outputs: usize,
        clauses: usize,
        width: usize,
        negated: usize,
        disjoint: bool,
        seed: u64,
        index: u64,
    ) -> PyResult<Self> {
        let shape = ClauseShape { clauses, width, negated, disjoint };
        compute(py, || Dnf::random(variables, outputs, shape, seed, index)).map(|task| Self(Arc::new(task)))
    }

    #[getter]
    fn variables(&self) -> usize {
        self.0.variables()
    }

    #[getter]
    fn outputs(&self) -> Vec<SignedClauses> {
        (0..self.0.outputs()).map(|output| signed(self.0.clauses(output))).collect()
    }

    #[getter]
    fn complemented(&self) -> bool {
        self.0.complemented()
    }

    fn false_clauses(&self, py: Python<'_>, output: usize, seed: u64, index: u64) -> PyResult<SignedClauses> {
        compute(py, || self.0.false_clauses(output, seed, index)).map(|drawn| signed(&drawn))
    }

    fn labels<'py>(
        &self,
        py: Python<'py>,
        x: PyReadonlyArray2<'py, bool>,
    ) -> PyResult<Bound<'py, PyArray2<bool>>> {
        let x = x.as_array();
        Ok(compute(py, || self.0.labels(x))?.into_pyarray(py))
    }
}

/// What samples are drawn for.
#[derive(Clone, Copy)]
enum Part {
    Train,
    Validation,
    Test,
}
named!(Part, "purpose", "train" => Train, "validation" => Validation, "test" => Test);

/// One data set for each formula, drawn in parallel from the streams of `indices`.
#[pyfunction]
pub fn sample_all(
    py: Python<'_>,
    formulas: Vec<PyRef<'_, Formula>>,
    sampler: SamplerArgument,
    samples: usize,
    seed: u64,
    indices: Vec<u64>,
    purpose: &str,
) -> PyResult<Vec<Samples>> {
    let tasks: Vec<Arc<Dnf>> = formulas.iter().map(|formula| Arc::clone(&formula.0)).collect();
    let SamplerArgument(sampler) = sampler;
    let purpose = match purpose.parse().map_err(|error: Error| raise(py, error))? {
        Part::Train => Purpose::Data,
        Part::Validation => Purpose::Validation,
        Part::Test => Purpose::Test,
    };
    let sets =
        run(py, None, |progress| sampler.sample_all(&tasks, samples, seed, purpose, &indices, progress))?;
    Ok(sets.into_iter().map(Samples).collect())
}

/// A sampler of `precode.formulas.samplers`, by the name of its class.
pub struct SamplerArgument(Sampler);

impl FromPyObject<'_, '_> for SamplerArgument {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let class = object.get_type().name()?;
        Ok(Self(match class.to_str()? {
            "BrokenClause" => {
                Sampler::BrokenClause { true_counts: object.getattr("true_counts")?.extract()? }
            }
            "Biased" => Sampler::Biased {
                probability: object.getattr("probability")?.extract()?,
                balanced: object.getattr("balanced")?.extract()?,
            },
            "TruthTable" => Sampler::TruthTable,
            other => return Err(PyTypeError::new_err(format!("expected a sampler, got {other}"))),
        }))
    }
}

/// Bit-packed labelled inputs, shared without a copy.
#[pyclass(frozen, module = "precode._precode")]
pub struct Samples(pub Arc<Dataset>);

#[pymethods]
impl Samples {
    #[new]
    fn new(py: Python<'_>, x: PyReadonlyArray2<'_, bool>, y: PyReadonlyArray2<'_, bool>) -> PyResult<Self> {
        let (variables, outputs) = (x.as_array().ncols(), y.as_array().ncols());
        let (x, y) = (x.as_slice()?, y.as_slice()?);
        compute(py, || Dataset::from_bools(x, y, variables, outputs)).map(|data| Self(Arc::new(data)))
    }

    #[getter]
    fn samples(&self) -> usize {
        self.0.samples()
    }

    #[getter]
    fn variables(&self) -> usize {
        self.0.variables()
    }

    #[getter]
    fn outputs(&self) -> usize {
        self.0.outputs()
    }

    #[getter]
    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
        array(py, compute(py, || Ok(self.0.unpack_inputs()))?, &[self.0.samples(), self.0.variables()])
    }

    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
        array(py, compute(py, || Ok(self.0.unpack_labels()))?, &[self.0.samples(), self.0.outputs()])
    }
}
