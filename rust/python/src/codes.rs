//! Codes, distances, interference and nulls on NumPy views.

use numpy::{PyArrayDyn, PyReadonlyArray2, PyReadonlyArray3};
use precode_core::read::codes::{self, Real};
use precode_core::read::distance::{self, Metric, PolarityRule, Scale};
use precode_core::read::{interference, nulls};
use precode_core::train::embedding::EmbeddingKind;
use precode_core::{Clauses, Error, Readout, Template};
use pyo3::prelude::*;

use crate::boundary::{Named, Networks, array, compute, raise, table, with_readout};

type Bits<'py> = Bound<'py, PyArrayDyn<bool>>;
type Floats<'py> = Bound<'py, PyArrayDyn<f64>>;
type Counts<'py> = Bound<'py, PyArrayDyn<u32>>;

fn locations<T: Real>(readout: &Readout<T>, clauses: &Clauses) -> [usize; 3] {
    [readout.networks(), clauses.count(), readout.rows()]
}

/// (R, C, rows, k) signs on every clause.
#[pyfunction]
pub fn signs<'py>(
    py: Python<'py>,
    networks: Networks<'py>,
    sets: Vec<Vec<Vec<i64>>>,
    aligned: bool,
    floor: f64,
) -> PyResult<Bound<'py, PyArrayDyn<i8>>> {
    with_readout!(py, networks, |readout| {
        let clauses = table(&readout, &sets).map_err(|error| raise(py, error))?;
        let signs = compute(py, || codes::signs(&readout, &clauses, aligned, floor))?;
        let [r, c, rows] = locations(&readout, &clauses);
        array(py, signs, &[r, c, rows, clauses.width()])
    })
}

/// (R, C, 2, k + 1) rows of each polarity with each number of positive signs.
#[pyfunction]
pub fn pattern_counts<'py>(
    py: Python<'py>,
    networks: Networks<'py>,
    sets: Vec<Vec<Vec<i64>>>,
    aligned: bool,
    floor: f64,
) -> PyResult<Counts<'py>> {
    with_readout!(py, networks, |readout| {
        let clauses = table(&readout, &sets).map_err(|error| raise(py, error))?;
        let counts = compute(py, || codes::pattern_counts(&readout, &clauses, aligned, floor))?;
        array(py, counts, &[readout.networks(), clauses.count(), 2, clauses.width() + 1])
    })
}

/// (R, C, rows) whether the row carries the clause's template.
#[pyfunction]
pub fn channels<'py>(
    py: Python<'py>,
    networks: Networks<'py>,
    sets: Vec<Vec<Vec<i64>>>,
    template: Named<Template>,
    floor: f64,
) -> PyResult<Bits<'py>> {
    with_readout!(py, networks, |readout| {
        let (bits, shape) = compute(py, || {
            let clauses = table(&readout, &sets)?;
            Ok((codes::channels(&readout, &clauses, template.0, floor)?, locations(&readout, &clauses)))
        })?;
        array(py, bits, &shape)
    })
}

/// (R, C, rows) distance of every location from a template.
#[pyfunction]
pub fn distances<'py>(
    py: Python<'py>,
    networks: Networks<'py>,
    sets: Vec<Vec<Vec<i64>>>,
    template: Named<Template>,
    metric: Named<Metric>,
    scale: Named<Scale>,
    polarity: Named<PolarityRule>,
) -> PyResult<Floats<'py>> {
    with_readout!(py, networks, |readout| {
        let (values, shape) = compute(py, || {
            let clauses = table(&readout, &sets)?;
            let values = distance::distances(&readout, &clauses, template.0, metric.0, scale.0, polarity.0)?;
            Ok((values, locations(&readout, &clauses)))
        })?;
        array(py, values, &shape)
    })
}

/// Near counts (R, C, rows), graded demand (R, C, rows) and positive entries (R, rows).
#[pyfunction]
pub fn crowding<'py>(
    py: Python<'py>,
    networks: Networks<'py>,
    sets: Vec<Vec<Vec<i64>>>,
    template: Named<Template>,
    near: u32,
    scale: Named<Scale>,
) -> PyResult<(Counts<'py>, Floats<'py>, Counts<'py>)> {
    with_readout!(py, networks, |readout| {
        let (crowding, shape) = compute(py, || {
            let clauses = table(&readout, &sets)?;
            let crowding = interference::crowding(&readout, &clauses, template.0, near, scale.0)?;
            Ok((crowding, locations(&readout, &clauses)))
        })?;
        Ok((
            array(py, crowding.near, &shape)?,
            array(py, crowding.graded, &shape)?,
            array(py, crowding.positive_entries, &[shape[0], shape[2]])?,
        ))
    })
}

/// (R, C, rows) shared variables with conflicting demands.
#[pyfunction]
pub fn conflicts<'py>(
    py: Python<'py>,
    networks: Networks<'py>,
    sets: Vec<Vec<Vec<i64>>>,
    templates: Vec<Named<Template>>,
    near: u32,
) -> PyResult<Counts<'py>> {
    with_readout!(py, networks, |readout| {
        let (counts, shape) = compute(py, || {
            let clauses = table(&readout, &sets)?;
            let templates: Vec<Template> = templates.iter().map(|template| template.0).collect();
            let counts = interference::conflicts(&readout, &clauses, &templates, near)?;
            Ok((counts, locations(&readout, &clauses)))
        })?;
        array(py, counts, &shape)
    })
}

/// (R, n) feature capacity of every variable's column.
#[pyfunction]
pub fn feature_capacity<'py>(py: Python<'py>, networks: Networks<'py>) -> PyResult<Floats<'py>> {
    with_readout!(py, networks, |readout| {
        let capacity = compute(py, || Ok(interference::feature_capacity(&readout)))?;
        array(py, capacity, &[readout.networks(), readout.variables()])
    })
}

/// (R) mean cosine of all pairs of rows.
#[pyfunction]
pub fn mean_row_cosine<'py>(py: Python<'py>, networks: Networks<'py>) -> PyResult<Floats<'py>> {
    with_readout!(py, networks, |readout| {
        let cosine = compute(py, || Ok(interference::mean_row_cosine(&readout)))?;
        array(py, cosine, &[readout.networks()])
    })
}

/// (R, rows, n) signs of the random-network null.
#[pyfunction]
pub fn random_signs<'py>(
    py: Python<'py>,
    networks: Networks<'py>,
    floor: f64,
    seed: u64,
    index: u64,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    with_readout!(py, networks, |readout| {
        let shape = [readout.networks(), readout.rows(), readout.variables()];
        let signs = compute(py, || nulls::random_signs(&readout, floor, seed, index))?;
        array(py, signs, &shape)
    })
}

/// (R, C, rows) channels re-assigned to random rows of the same polarity.
#[pyfunction]
pub fn permute_rows<'py>(
    py: Python<'py>,
    channels: PyReadonlyArray3<'py, bool>,
    output: PyReadonlyArray2<'py, f64>,
    seed: u64,
    index: u64,
) -> PyResult<Bits<'py>> {
    let (bits, weights) = (channels.as_slice()?, output.as_slice()?);
    let (networks, clauses, rows) = channels.as_array().dim();
    if output.as_array().shape() != [networks, rows] {
        let message = format!(
            "output weights of shape {:?} do not fit channels of shape {:?}: expected one for each network and row",
            output.as_array().shape(),
            channels.as_array().shape()
        );
        return Err(raise(py, Error::Shape(message)));
    }
    let shape = [networks, clauses, rows];
    let permuted = compute(py, || nulls::permute_rows(bits, weights, shape, seed, index))?;
    array(py, permuted, &shape)
}

/// Probability of each Hamming distance of random signs from a template.
#[pyfunction]
pub fn hamming_probabilities(py: Python<'_>, template: Named<Template>, width: usize) -> PyResult<Vec<f64>> {
    let Named(template) = template;
    template.check_width(width).map_err(|error| raise(py, error))?;
    Ok(nulls::hamming_probabilities(template))
}

/// Name of the pattern with the given counts of positive and negative signs.
#[pyfunction]
pub fn pattern_name(positives: usize, negatives: usize) -> String {
    precode_core::read::template::pattern_name(positives, negatives)
}

/// Names of the templates that compute clauses of a width.
#[pyfunction]
pub fn templates(width: usize) -> Vec<String> {
    precode_core::read::template::templates(width).map(|template| template.to_string()).collect()
}

/// (rows, n) matrix of a named embedding.
#[pyfunction]
pub fn embedding_matrix<'py>(
    py: Python<'py>,
    kind: Named<EmbeddingKind>,
    variables: usize,
    seed: u64,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let (rows, matrix) = compute(py, || {
        let c0 = kind.0.embedding(variables, seed)?;
        Ok((c0.rows(variables), c0.matrix(variables)?))
    })?;
    array(py, matrix, &[rows, variables])
}

/// The order in which an epoch visits the samples.
#[pyfunction]
pub fn epoch_order(
    py: Python<'_>,
    seed: u64,
    epoch: u32,
    samples: usize,
) -> PyResult<Bound<'_, PyArrayDyn<u32>>> {
    let order = compute(py, || Ok(precode_core::train::epoch_order(seed, epoch, samples)))?;
    array(py, order, &[samples])
}
