//! Recovery of codes by sparse networks, and what of them is alive.

use numpy::{PyArrayDyn, PyReadonlyArray2, PyReadonlyArray3};
use precode_core::Template;
use precode_core::ticket::recovery as core;
use precode_core::ticket::recovery::{Agreement, Levels};
use pyo3::prelude::*;

use crate::boundary::{Named, Networks, array, compute, raise, table, with_readout};

type Counts<'py> = Bound<'py, PyArrayDyn<u32>>;

/// Codes of sparse networks compared with those of their dense parents: (R, 2, 3, 3) counts, exact and relaxed, by
/// location, family and clause, of shared, dense and sparse codes; exact codes on each row (R, rows) and of each
/// clause (R, C).
#[pyfunction]
pub fn recovery<'py>(
    py: Python<'py>,
    dense: Networks<'py>,
    sparse: Networks<'py>,
    alive: PyReadonlyArray3<'py, bool>,
    sets: Vec<Vec<Vec<i64>>>,
    templates: Vec<Named<Template>>,
    floor: f64,
) -> PyResult<(Counts<'py>, Counts<'py>, Counts<'py>)> {
    let alive = alive.as_array();
    with_readout!(py, dense, |dense| with_readout!(py, sparse, |sparse| {
        let clauses = table(&dense, &sets).map_err(|error| raise(py, error))?;
        let templates: Vec<Template> = templates.iter().map(|template| template.0).collect();
        let found = compute(py, || core::recovery(&dense, &sparse, alive, &clauses, &templates, floor))?;
        let counts = |agreement: Agreement| [agreement.shared, agreement.dense, agreement.sparse];
        let levels = |levels: Levels| [levels.location, levels.family, levels.clause].map(counts);
        let all: Vec<u32> = found
            .iter()
            .flat_map(|network| [network.exact, network.relaxed])
            .flat_map(levels)
            .flatten()
            .collect();
        let rows: Vec<u32> = found.iter().flat_map(|network| network.row_coverage.clone()).collect();
        let covered: Vec<u32> = found.iter().flat_map(|network| network.clause_coverage.clone()).collect();
        let networks = found.len();
        Ok((
            array(py, all, &[networks, 2, 3, 3])?,
            array(py, rows, &[networks, dense.rows()])?,
            array(py, covered, &[networks, clauses.count()])?,
        ))
    }))
}

/// (R, 3): live weights, dead rows, and live weights on rows whose output weight is alive.
#[pyfunction]
pub fn liveness<'py>(
    py: Python<'py>,
    alive: PyReadonlyArray3<'py, bool>,
    outputs: PyReadonlyArray2<'py, bool>,
) -> PyResult<Counts<'py>> {
    let (alive, outputs) = (alive.as_array(), outputs.as_array());
    let counts = compute(py, || core::liveness(alive, outputs))?;
    let networks = counts.len();
    let counts: Vec<u32> =
        counts.iter().flat_map(|part| [part.kept, part.dead_rows, part.on_paths]).collect();
    array(py, counts, &[networks, 3])
}
