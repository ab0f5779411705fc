//! Codes read from weights: signs, patterns and channels (arXiv 2504.08842, sections 4.1 and 5.2).

use ndarray::{Array3, Array4, ArrayView2, ArrayView3};
use rayon::prelude::*;

use crate::error::{Result, allocate, flat, shape_error, shaped, value_error};
use crate::read::template::{Polarity, Template};
use crate::task::formula::{Clause, validate_clause};

/// Weights in single or double precision.
pub trait Real: Copy + Into<f64> + Send + Sync {}
impl Real for f32 {}
impl Real for f64 {}

/// What codes are read from: a stack of R networks in feature space.
#[derive(Clone, Copy, Debug)]
pub struct Readout<'a, T> {
    networks: usize,
    rows: usize,
    variables: usize,
    features: &'a [T],
    output: &'a [T],
}

impl<'a, T: Real> Readout<'a, T> {
    /// `features` is C1 = W1 C0 of shape (R, rows, variables), `output` the output weights (R, rows).
    ///
    /// ```
    /// use ndarray::array;
    /// use precode_core::Readout;
    /// let (features, output) = (array![[[1.0, -2.0, 0.5]]], array![[-1.0]]);
    /// let readout = Readout::new(features.view(), output.view())?;
    /// assert_eq!((readout.networks(), readout.rows(), readout.variables()), (1, 1, 3));
    /// # Ok::<(), precode_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit or an array is not row-major,
    /// [`Error::Value`](crate::Error::Value) if there are no networks or a weight is not finite.
    pub fn new(features: ArrayView3<'a, T>, output: ArrayView2<'a, T>) -> Result<Self> {
        let (networks, rows, variables) = features.dim();
        if features.is_empty() {
            return Err(value_error!(
                "{networks} networks of {rows} rows and {variables} variables: need at least one of each"
            ));
        }
        if output.dim() != (networks, rows) {
            return Err(shape_error!(
                "output weights of shape {:?} do not fit features of shape {:?}: expected {:?}",
                output.shape(),
                features.shape(),
                [networks, rows]
            ));
        }
        let (features, output) = (flat(features, "w1")?, flat(output, "w2")?);
        for (name, values) in [("w1", features), ("w2", output)] {
            if let Some(i) = values.iter().position(|&value| !value.into().is_finite()) {
                let value: f64 = values[i].into();
                return Err(value_error!(
                    "{name} contains {value} at flat index {i}: weights must be finite"
                ));
            }
        }
        Ok(Self { networks, rows, variables, features, output })
    }

    /// Number of networks, R.
    pub fn networks(&self) -> usize {
        self.networks
    }

    /// Number of rows (hidden neurons), j.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of variables, n.
    pub fn variables(&self) -> usize {
        self.variables
    }

    /// The feature-space weights of one row.
    pub fn row(&self, network: usize, row: usize) -> &'a [T] {
        &self.features[(network * self.rows + row) * self.variables..][..self.variables]
    }

    /// The polarity of one row.
    pub fn polarity(&self, network: usize, row: usize) -> Option<Polarity> {
        Polarity::of(self.output[network * self.rows + row].into())
    }

    /// The output weights of one network, (rows).
    pub fn output(&self, network: usize) -> &'a [T] {
        &self.output[network * self.rows..][..self.rows]
    }

    /// The rows of one network with their polarity, in order.
    pub fn polarities(&self, network: usize) -> impl Iterator<Item = Option<Polarity>> + 'a {
        self.output(network).iter().map(|&weight| Polarity::of(weight.into()))
    }

    /// Mean absolute feature-space weight of one network.
    pub fn mean_magnitude(&self, network: usize) -> f64 {
        let size = self.rows * self.variables;
        mean_magnitude(&self.features[network * size..][..size])
    }
}

/// Mean absolute value of some weights.
pub(crate) fn mean_magnitude<T: Real>(weights: &[T]) -> f64 {
    weights.iter().map(|&weight| weight.into().abs()).sum::<f64>() / weights.len() as f64
}

/// Clauses of one width to read codes for: one set for all networks, or one for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Clauses {
    sets: usize,
    count: usize,
    width: usize,
    /// (sets, count, width): variable and sign (+1, or -1 for a negated literal).
    literals: Vec<(usize, f64)>,
}

impl Clauses {
    /// Tabulates clause sets for `networks` networks over `variables` variables.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if there are neither 1 nor `networks` sets, or they differ in size or
    /// width; [`Error::Value`](crate::Error::Value) if a clause names a variable out of range or twice.
    pub fn new(sets: &[&[Clause]], networks: usize, variables: usize) -> Result<Self> {
        if sets.len() != 1 && sets.len() != networks {
            return Err(shape_error!(
                "{} sets of clauses for {networks} networks: pass one set for all, or one for each",
                sets.len()
            ));
        }
        let count = sets[0].len();
        let width = sets[0].first().map_or(0, Vec::len);
        if count == 0 {
            return Err(value_error!("no clauses: pass at least one"));
        }
        let mut literals = Vec::with_capacity(sets.len() * count * width);
        for (s, clauses) in sets.iter().enumerate() {
            if clauses.len() != count {
                return Err(shape_error!(
                    "clause set {s} has {} clauses and set 0 has {count}: decode formulas of one size at a time",
                    clauses.len()
                ));
            }
            for (c, clause) in clauses.iter().enumerate() {
                validate_clause(clause, variables, &format!("clause {c}"))?;
                if clause.len() != width {
                    return Err(shape_error!(
                        "clause {c} of set {s} has {} literals and the first has {width}: decode clauses of one \
                         width at a time",
                        clause.len()
                    ));
                }
                literals.extend(clause.iter().map(|l| (l.variable, if l.negated { -1.0 } else { 1.0 })));
            }
        }
        Ok(Self { sets: sets.len(), count, width, literals })
    }

    /// Number of clauses, C.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Literals of a clause, k.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Variables and signs of one clause of one network.
    pub fn literals(&self, network: usize, clause: usize) -> &[(usize, f64)] {
        let set = if self.sets == 1 { 0 } else { network };
        &self.literals[(set * self.count + clause) * self.width..][..self.width]
    }

    /// Writes the weights of a row at a clause's literals, flipped at negated ones, into `values`.
    pub(crate) fn align<T: Real>(&self, network: usize, clause: usize, row: &[T], values: &mut Vec<f64>) {
        values.clear();
        let literals = self.literals(network, clause).iter();
        values.extend(literals.map(|&(variable, sign)| sign * row[variable].into()));
    }
}

/// Sign of a weight, where magnitudes up to `floor` count as zero.
pub(crate) fn sign(value: f64, floor: f64) -> i8 {
    if value > floor {
        1
    } else if value < -floor {
        -1
    } else {
        0
    }
}

/// Refuses a noise floor that is negative or not finite.
pub(crate) fn validate_floor(floor: f64) -> Result<()> {
    if floor >= 0.0 && floor.is_finite() {
        Ok(())
    } else {
        Err(value_error!("floor = {floor}: magnitudes up to the floor count as zero; it must be 0 or more"))
    }
}

/// Signs of C1 at every clause's literals, (R, C, rows, k) of -1, 0, +1. With `aligned`, flipped at
/// negated literals. Magnitudes up to `floor` count as zero.
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) if `floor` is negative or not finite.
pub fn signs<T: Real>(
    readout: &Readout<T>,
    clauses: &Clauses,
    aligned: bool,
    floor: f64,
) -> Result<Array4<i8>> {
    let shape = (readout.networks(), clauses.count(), readout.rows(), clauses.width());
    shaped(flat_signs(readout, clauses, aligned, floor)?, shape)
}

fn flat_signs<T: Real>(
    readout: &Readout<T>,
    clauses: &Clauses,
    aligned: bool,
    floor: f64,
) -> Result<Vec<i8>> {
    validate_floor(floor)?;
    let (count, rows, width) = (clauses.count(), readout.rows(), clauses.width());
    let len = [count, rows, width].iter().try_fold(readout.networks(), |len, &size| len.checked_mul(size));
    let mut out = allocate(len, 0, "the signs on so many clauses")?;
    out.par_chunks_mut(count * rows * width).enumerate().for_each(|(r, network)| {
        for (cell, signs) in network.chunks_exact_mut(width).enumerate() {
            let row = readout.row(r, cell % rows);
            for (out, &(variable, literal)) in signs.iter_mut().zip(clauses.literals(r, cell / rows)) {
                let value: f64 = row[variable].into();
                *out = sign(if aligned { literal * value } else { value }, floor);
            }
        }
    });
    Ok(out)
}

/// Number of rows that show each pattern, (R, C, 2, k + 1): polarity (positive, negative) and number
/// of positive signs among k nonzero ones. Rows with a zero on the clause, or of no polarity, are in none.
///
/// # Errors
/// As [`signs`].
pub fn pattern_counts<T: Real>(
    readout: &Readout<T>,
    clauses: &Clauses,
    aligned: bool,
    floor: f64,
) -> Result<Array4<u32>> {
    let (count, rows, width) = (clauses.count(), readout.rows(), clauses.width());
    let signs = flat_signs(readout, clauses, aligned, floor)?;
    let mut out = vec![0; readout.networks() * count * 2 * (width + 1)];
    for (cell, signs) in signs.chunks_exact(width).enumerate() {
        let (row, r) = (cell % rows, cell / (rows * count));
        let Some(polarity) = readout.polarity(r, row) else { continue };
        if signs.contains(&0) {
            continue;
        }
        let positives = signs.iter().filter(|&&s| s > 0).count();
        out[(cell / rows * 2 + polarity as usize) * (width + 1) + positives] += 1;
    }
    shaped(out, (readout.networks(), count, 2, width + 1))
}

/// Feature channels, (R, C, rows): whether the row carries the clause's template, that is has its
/// polarity and, in any placement, its signs at the clause's literals.
///
/// # Errors
/// As [`signs`]; [`Error::Value`](crate::Error::Value) if the template's width is not the clauses'.
pub fn channels<T: Real>(
    readout: &Readout<T>,
    clauses: &Clauses,
    template: Template,
    floor: f64,
) -> Result<Array3<bool>> {
    template.check_width(clauses.width())?;
    let (count, rows) = (clauses.count(), readout.rows());
    let signs = flat_signs(readout, clauses, true, floor)?;
    let carries = |(cell, signs): (usize, &[i8])| {
        readout.polarity(cell / (rows * count), cell % rows) == Some(template.polarity)
            && signs.iter().filter(|&&s| s > 0).count() == template.positives
            && signs.iter().filter(|&&s| s < 0).count() == template.negatives
    };
    let channels = signs.chunks_exact(clauses.width()).enumerate().map(carries).collect();
    shaped(channels, (readout.networks(), count, rows))
}

/// A readout of flat values, (R, rows, variables) and (R, rows).
#[cfg(test)]
pub(crate) fn of_slices<'a, T: Real>(
    [networks, rows, variables]: [usize; 3],
    features: &'a [T],
    output: &'a [T],
) -> Readout<'a, T> {
    let features = ArrayView3::from_shape((networks, rows, variables), features).unwrap();
    Readout::new(features, ArrayView2::from_shape((networks, rows), output).unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::formula::Literal;
    use ndarray::{Array2, array};

    fn set(signed: &[&[i64]]) -> Vec<Clause> {
        signed.iter().map(|clause| clause.iter().map(|&s| Literal::from_signed(s)).collect()).collect()
    }

    #[test]
    fn a_small_network_is_read_by_hand() {
        // Two rows over four variables: row 0 positive, row 1 negative.
        let features = [1.0f32, 2.0, -1.0, 0.0, -1.0, 3.0, -2.0, 1.0];
        let readout = of_slices([1, 2, 4], &features, &[0.5, -0.5]);
        let set = set(&[&[0, 1], &[1, !2], &[2, 3]]);
        let clauses = Clauses::new(&[&set], 1, 4).unwrap();
        let raw = signs(&readout, &clauses, false, 0.0).unwrap();
        assert_eq!(raw, array![[[[1, 1], [-1, 1]], [[1, -1], [1, -1]], [[-1, 0], [-1, 1]]]]);
        // Clause 0: row 0 shows 2P on a positive row, row 1 shows 1P1N on a negative row, and so on.
        let counts = pattern_counts(&readout, &clauses, false, 0.0).unwrap();
        let expected = array![[[[0, 0, 1], [0, 1, 0]], [[0, 1, 0], [0, 1, 0]], [[0, 0, 0], [0, 1, 0]]]];
        assert_eq!(counts, expected);
        let code = channels(&readout, &clauses, "2P".parse().unwrap(), 0.0).unwrap();
        assert_eq!(code, array![[[true, false], [true, false], [false, false]]]);
        let code = channels(&readout, &clauses, "1N1P".parse().unwrap(), 0.0).unwrap();
        assert_eq!(code, array![[[false, true], [false, false], [false, true]]]);
        // Above a noise floor of 1 only row 0's weight on variable 1 is left, so no code remains.
        let code = channels(&readout, &clauses, "2P".parse().unwrap(), 1.0).unwrap();
        assert!(code.iter().all(|&carried| !carried));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refuse = |error: crate::Error| error.to_string();
        let read = |features: &Array3<f32>, output: &Array2<f32>| {
            refuse(Readout::new(features.view(), output.view()).unwrap_err())
        };
        let (features, output) = (Array3::zeros((1, 2, 2)), Array2::zeros((1, 2)));
        assert!(read(&Array3::zeros((0, 2, 2)), &Array2::zeros((0, 2))).contains("0 networks"));
        let refused = read(&features, &Array2::zeros((2, 1)));
        assert!(refused.contains("[2, 1]") && refused.contains("[1, 2, 2]"), "{refused}");
        let (mut nan, mut turned) = (features.clone(), features.clone());
        nan[[0, 0, 1]] = f32::NAN;
        assert!(read(&nan, &output).contains("w1 contains NaN at flat index 1"));
        turned.swap_axes(1, 2);
        assert!(read(&turned, &output).contains("as_standard_layout"));
        let (a, b) = (set(&[&[0, 1]]), set(&[&[0, 1], &[1, 2]]));
        assert!(refuse(Clauses::new(&[&a, &b], 2, 4).unwrap_err()).contains("one size at a time"));
        assert!(refuse(Clauses::new(&[&a, &a, &a], 2, 4).unwrap_err()).contains("3 sets"));
        assert!(refuse(Clauses::new(&[&set(&[&[0, 1], &[2]])], 1, 4).unwrap_err()).contains("one width"));
        assert!(refuse(Clauses::new(&[&a], 1, 1).unwrap_err()).contains("variable 1"));
        let readout = of_slices([1, 1, 4], &[0f32; 4], &[1.0]);
        let clauses = Clauses::new(&[&a], 1, 4).unwrap();
        assert!(refuse(signs(&readout, &clauses, true, -1.0).unwrap_err()).contains("floor = -1"));
        let wide: Template = "4P".parse().unwrap();
        assert!(refuse(channels(&readout, &clauses, wide, 0.0).unwrap_err()).contains("template 4P"));
    }
}
