//! Codes, distances, interference and nulls on NumPy views.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArray3, PyArray4, PyReadonlyArray2, PyReadonlyArray3};
use precode_core::Template;
use precode_core::read::codes;
use precode_core::read::distance::{self, Metric, PolarityRule, Scale};
use precode_core::read::interference::{self, Crowding};
use precode_core::read::nulls;
use precode_core::train::embedding::EmbeddingKind;
use pyo3::prelude::*;

use crate::boundary::{Named, Networks, compute, raise, table, with_readout};

type Bits<'py> = Bound<'py, PyArray3<bool>>;
type Floats<'py> = Bound<'py, PyArray3<f64>>;
type Counts<'py> = Bound<'py, PyArray3<u32>>;

/// (R, C, rows, k) signs on every clause.
#[pyfunction]
pub fn signs<'py>(
    py: Python<'py>,
    networks: Networks<'py>,
    sets: Vec<Vec<Vec<i64>>>,
    aligned: bool,
    floor: f64,
) -> PyResult<Bound<'py, PyArray4<i8>>> {
    with_readout!(py, networks, |readout| {
        let signs = compute(py, || codes::signs(&readout, &table(&readout, &sets)?, aligned, floor))?;
        Ok(signs.into_pyarray(py))
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
) -> PyResult<Bound<'py, PyArray4<u32>>> {
    with_readout!(py, networks, |readout| {
        let counts =
            compute(py, || codes::pattern_counts(&readout, &table(&readout, &sets)?, aligned, floor))?;
        Ok(counts.into_pyarray(py))
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
        let channels =
            compute(py, || codes::channels(&readout, &table(&readout, &sets)?, template.0, floor))?;
        Ok(channels.into_pyarray(py))
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
        let distances = compute(py, || {
            let clauses = table(&readout, &sets)?;
            distance::distances(&readout, &clauses, template.0, metric.0, scale.0, polarity.0)
        })?;
        Ok(distances.into_pyarray(py))
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
) -> PyResult<(Counts<'py>, Floats<'py>, Bound<'py, PyArray2<u32>>)> {
    with_readout!(py, networks, |readout| {
        let Crowding { near, graded, positive_entries } = compute(py, || {
            interference::crowding(&readout, &table(&readout, &sets)?, template.0, near, scale.0)
        })?;
        Ok((near.into_pyarray(py), graded.into_pyarray(py), positive_entries.into_pyarray(py)))
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
        let templates: Vec<Template> = templates.iter().map(|template| template.0).collect();
        let counts =
            compute(py, || interference::conflicts(&readout, &table(&readout, &sets)?, &templates, near))?;
        Ok(counts.into_pyarray(py))
    })
}

/// (R, n) feature capacity of every variable's column.
#[pyfunction]
pub fn feature_capacity<'py>(
    py: Python<'py>,
    networks: Networks<'py>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    with_readout!(py, networks, |readout| {
        Ok(compute(py, || Ok(interference::feature_capacity(&readout)))?.into_pyarray(py))
    })
}

/// (R) mean cosine of all pairs of rows.
#[pyfunction]
pub fn mean_row_cosine<'py>(py: Python<'py>, networks: Networks<'py>) -> PyResult<Bound<'py, PyArray1<f64>>> {
    with_readout!(py, networks, |readout| {
        Ok(compute(py, || Ok(interference::mean_row_cosine(&readout)))?.into_pyarray(py))
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
) -> PyResult<Bound<'py, PyArray3<f32>>> {
    with_readout!(py, networks, |readout| {
        Ok(compute(py, || nulls::random_signs(&readout, floor, seed, index))?.into_pyarray(py))
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
    let (channels, output) = (channels.as_array(), output.as_array());
    Ok(compute(py, || nulls::permute_rows(channels, output, seed, index))?.into_pyarray(py))
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
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    Ok(compute(py, || kind.0.embedding(variables, seed)?.matrix(variables))?.into_pyarray(py))
}

/// The order in which an epoch visits the samples.
#[pyfunction]
pub fn epoch_order(
    py: Python<'_>,
    seed: u64,
    epoch: u32,
    samples: usize,
) -> PyResult<Bound<'_, PyArray1<u32>>> {
    Ok(compute(py, || Ok(precode_core::train::epoch_order(seed, epoch, samples)))?.into_pyarray(py))
}
