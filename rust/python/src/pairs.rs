//! All pairs of codes.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray2};
use precode_core::read::pairs::{BitCodes, Distance, Pairs, TernaryCodes};
use precode_core::{Error, error};
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::boundary::{compute, raise, run};

/// A stack of codes: Booleans (count, bits), or signs -1, 0, +1 (count, length).
#[derive(FromPyObject)]
pub enum Codes<'py> {
    #[pyo3(transparent)]
    Bits(PyReadonlyArray2<'py, bool>),
    #[pyo3(transparent)]
    Signs(PyReadonlyArray2<'py, i8>),
}

fn pairs(py: Python<'_>, a: &Codes<'_>, b: Option<&Codes<'_>>, metric: &str) -> PyResult<Pairs> {
    let bits = |codes: &PyReadonlyArray2<'_, bool>| -> PyResult<BitCodes> {
        let codes = codes.as_array();
        compute(py, || BitCodes::from_bools(codes))
    };
    let signs = |codes: &PyReadonlyArray2<'_, i8>| -> PyResult<TernaryCodes> {
        let codes = codes.as_array();
        compute(py, || TernaryCodes::from_signs(codes))
    };
    let prepared: error::Result<Pairs> = match (a, b) {
        (Codes::Bits(a), None) => {
            let a = bits(a)?;
            metric.parse().and_then(|metric| Pairs::new(&a, None, metric))
        }
        (Codes::Bits(a), Some(Codes::Bits(b))) => {
            let (a, b) = (bits(a)?, bits(b)?);
            metric.parse().and_then(|metric| Pairs::new(&a, Some(&b), metric))
        }
        (Codes::Signs(a), None) => {
            let a = signs(a)?;
            metric.parse().and_then(|metric| Pairs::ternary(&a, None, metric))
        }
        (Codes::Signs(a), Some(Codes::Signs(b))) => {
            let (a, b) = (signs(a)?, signs(b)?);
            metric.parse().and_then(|metric| Pairs::ternary(&a, Some(&b), metric))
        }
        _ => Err(Error::Shape(
            "codes of bits and codes of signs cannot be compared: pass two of a kind".into(),
        )),
    };
    prepared.map_err(|error| raise(py, error))
}

fn matrix<'py, T: Distance + numpy::Element>(py: Python<'py>, pairs: &Pairs) -> PyResult<Bound<'py, PyAny>> {
    Ok(run(py, None, |progress| pairs.to_array::<T>(progress))?.into_pyarray(py).into_any())
}

/// (A, B) distances of every two codes, in the smallest type that holds them, and the level that ran.
#[pyfunction]
pub fn code_distances<'py>(
    py: Python<'py>,
    a: Codes<'py>,
    b: Option<Codes<'py>>,
    metric: &str,
) -> PyResult<(Bound<'py, PyAny>, &'static str)> {
    let pairs = pairs(py, &a, b.as_ref(), metric)?;
    let distances = match pairs.largest() {
        None => matrix::<f32>(py, &pairs)?,
        Some(0..=0xff) => matrix::<u8>(py, &pairs)?,
        Some(0x100..=0xffff) => matrix::<u16>(py, &pairs)?,
        Some(_) => matrix::<u32>(py, &pairs)?,
    };
    Ok((distances, pairs.level().name()))
}

type NearestArrays<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

/// Index and distance of the nearest code to each of A's.
#[pyfunction]
pub fn nearest_codes<'py>(
    py: Python<'py>,
    a: Codes<'py>,
    b: Option<Codes<'py>>,
    metric: &str,
) -> PyResult<NearestArrays<'py>> {
    let pairs = pairs(py, &a, b.as_ref(), metric)?;
    let nearest = run(py, None, |progress| pairs.nearest::<f32>(progress))?;
    Ok((nearest.indices.into_pyarray(py), nearest.distances.into_pyarray(py)))
}

/// How often each distance 0, 1, ... occurs.
#[pyfunction]
pub fn code_distance_counts<'py>(
    py: Python<'py>,
    a: Codes<'py>,
    b: Option<Codes<'py>>,
    metric: &str,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let pairs = pairs(py, &a, b.as_ref(), metric)?;
    let histogram = run(py, None, |progress| pairs.histogram(progress))?;
    Ok(histogram.counts.into_pyarray(py))
}
