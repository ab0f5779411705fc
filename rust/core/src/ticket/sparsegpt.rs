//! SparseGPT: weights are chosen and removed column by column, and only later columns make up for them.
//!
//! With `H^-1 = U' U`, U upper triangular, `U_jj^2` is `[H^-1]_jj` of the columns from j on, so that `w_j^2 / U_jj^2`
//! is what the removal of w_j costs where the columns before j are settled (arXiv 2301.00774, algorithm 1).

use nalgebra::DMatrix;

use super::obs::damped;
use crate::Progress;
use crate::error::{Error, Result, shape_error, value_error};

/// Columns whose weights are chosen together, as in the official code.
pub const BLOCK: usize = 128;

/// `U` of one Hessian, and the inputs that are always zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// Row-major, (inputs, inputs).
    upper: Vec<f64>,
    inputs: usize,
    dead: Vec<bool>,
}

impl Factor {
    /// That of `H + damping * mean(diag H) * I`, for H of (inputs, inputs) whose zeros on the diagonal, those of inputs
    /// that are always zero, count as one. The time grows with the cube of the inputs.
    ///
    /// # Errors
    /// [`Error::Shape`] if H is not of that size; [`Error::Value`] if it is not finite, zero, or not positive after
    /// damping.
    pub fn of(hessian: &[f64], inputs: usize, damping: f64) -> Result<Self> {
        Self::with(hessian, inputs, damping, |damped| {
            let inverse = DMatrix::from_vec(inputs, inputs, damped).cholesky().map(|factor| factor.inverse());
            match inverse.and_then(DMatrix::cholesky) {
                // A column of the lower one is a row of the upper one.
                Some(factor) => Ok(factor.l().as_slice().to_vec()),
                None => Err(value_error!("the Hessian is singular with damping = {damping}: damp it more")),
            }
        })
    }

    /// As [`of`](Self::of), with another way from the damped H to U, both row-major; what is below the diagonal of U is
    /// not read.
    ///
    /// # Errors
    /// As [`of`](Self::of), and what that way returns; [`Error::Shape`] for a U that is not as large as H;
    /// [`Error::Value`] for one whose diagonal is not positive.
    pub fn with<E: From<Error>>(
        hessian: &[f64],
        inputs: usize,
        damping: f64,
        upper: impl FnOnce(Vec<f64>) -> std::result::Result<Vec<f64>, E>,
    ) -> std::result::Result<Self, E> {
        let mut hessian = hessian.to_vec();
        let dead: Vec<bool> = (0..inputs).map(|i| hessian.get(i * inputs + i) == Some(&0.0)).collect();
        // Where all inputs are, H is zero, which is refused.
        if dead.contains(&false) {
            (0..inputs).filter(|&i| dead[i]).for_each(|i| hessian[i * inputs + i] = 1.0);
        }
        let upper = upper(damped(hessian, inputs, damping)?)?;
        if upper.len() != inputs * inputs {
            return Err(shape_error!("a U of {} entries for {inputs} inputs", upper.len()).into());
        }
        let diagonal = (0..inputs).map(|i| upper[i * inputs + i]);
        if let Some(entry) = diagonal.into_iter().find(|entry| entry.is_nan() || *entry <= 0.0) {
            return Err(value_error!("the diagonal of U has {entry}: damp the Hessian more").into());
        }
        Ok(Self { upper, inputs, dead })
    }

    /// Row j from the diagonal on.
    fn row(&self, j: usize) -> &[f64] {
        &self.upper[j * self.inputs + j..(j + 1) * self.inputs]
    }
}

/// Which weights of a layer are kept, (rows, inputs): exactly `kept`. Equal consecutive parts of the rows have a factor
/// each: one for all rows, or one for each group of a convolution.
///
/// Blocks of `block` columns go from left to right. When a block is reached, the cheapest of its weights over all rows
/// leave, as they are by then (with `invert`, the dearest); of equal ones the first are kept. Up to each block the same
/// share is kept, rounded to whole weights, half to even. Then its columns go one by one, and each weight that leaves
/// moves those to its right. Weights of inputs that are always zero leave first, the smallest of them before others.
///
/// ```
/// use precode_core::Progress;
/// use precode_core::ticket::sparsegpt::{Factor, keep};
/// let factors = [Factor::of(&[1.0, 0.9, 0.9, 1.0], 2, 0.0)?];
/// // Without -1.0, its neighbour is 1.5 - 0.9 and the lesser one.
/// let mask = keep(&[2.0, 1.0, -1.0, 1.5], &factors, 2, 1, false, &Progress::default())?;
/// assert_eq!(mask, [true, true, false, false]);
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] for sizes that do not fit; [`Error::Value`] for more
/// weights than there are, a block of none, and a weight that is not finite;
/// [`Error::Interrupted`].
pub fn keep(
    weights: &[f64],
    factors: &[Factor],
    kept: usize,
    block: usize,
    invert: bool,
    progress: &Progress,
) -> Result<Vec<bool>> {
    let inputs = factors.first().map_or(0, |factor| factor.inputs);
    let rows = weights.len().checked_div(inputs).unwrap_or_default();
    let fits = factors.iter().all(|factor| factor.inputs == inputs);
    if !fits || rows == 0 || rows * inputs != weights.len() || !rows.is_multiple_of(factors.len()) {
        return Err(shape_error!(
            "{} weights and {} factors of {inputs} inputs",
            weights.len(),
            factors.len()
        ));
    }
    if kept > weights.len() || block == 0 {
        return Err(value_error!("{kept} of {} weights in blocks of {block} columns", weights.len()));
    }
    if let Some(weight) = weights.iter().find(|weight| !weight.is_finite()) {
        return Err(value_error!("a weight is {weight}: weights must be finite (did training diverge?)"));
    }
    let mut weights = weights.to_vec();
    let factor_of = |row: usize| &factors[row / (rows / factors.len())];
    let mut mask = vec![false; weights.len()];
    let mut taken = 0;
    for start in (0..inputs).step_by(block) {
        progress.check()?;
        let stop = inputs.min(start + block);
        let upto = (kept as f64 * stop as f64 / inputs as f64).round_ties_even() as usize;
        let mut places: Vec<(usize, usize)> =
            (0..rows).flat_map(|row| (start..stop).map(move |column| (row, column))).collect();
        let cost = |&(row, column): &(usize, usize)| {
            let (factor, square) = (factor_of(row), weights[row * inputs + column].powi(2));
            let cost = if factor.dead[column] {
                [0.0, square]
            } else {
                [square / factor.row(column)[0].powi(2), 0.0]
            };
            if invert { cost.map(|cost| 0.0 - cost) } else { cost }
        };
        places.sort_by(|a, b| {
            let ([first, second], [other, another]) = (cost(b), cost(a));
            first.total_cmp(&other).then(second.total_cmp(&another))
        });
        places.iter().take(upto - taken).for_each(|&(row, column)| mask[row * inputs + column] = true);
        taken = upto;
        for (row, weights) in weights.chunks_mut(inputs).enumerate() {
            for column in (start..stop).filter(|column| !mask[row * inputs + column]) {
                let upper = factor_of(row).row(column);
                let step = weights[column] / upper[0];
                weights[column..].iter_mut().zip(upper).for_each(|(weight, entry)| *weight -= step * entry);
            }
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::obs::DAMPING;

    /// Numbers in -1..1 without pattern.
    fn numbers(count: usize, seed: f64) -> Vec<f64> {
        (0..count).map(|i| ((i as f64 + seed) * 12.9898).sin() * 43758.5453 % 1.0).collect()
    }

    #[test]
    fn every_count_is_exact_in_any_blocks() {
        let (weights, z) = (numbers(5 * 7, 1.0), DMatrix::from_row_slice(9, 7, &numbers(63, 5.0)));
        let hessian = z.tr_mul(&z).as_slice().to_vec();
        let factors = [Factor::of(&hessian, 7, DAMPING).unwrap()];
        for block in [1, 2, 3, 7, 128] {
            for kept in 0..=35 {
                for invert in [false, true] {
                    let mask = keep(&weights, &factors, kept, block, invert, &Progress::default()).unwrap();
                    assert_eq!(mask.iter().filter(|&&kept| kept).count(), kept);
                }
            }
        }
    }

    #[test]
    fn what_a_removed_weight_leaves_is_the_best_that_later_columns_can_do() {
        let hessian = [2.0, 1.0, 0.5, 1.0, 3.0, -0.4, 0.5, -0.4, 1.5];
        let matrix = DMatrix::from_row_slice(3, 3, &hessian);
        let right = matrix.view((1, 0), (2, 1)) * 0.1;
        let moved = matrix.view((1, 1), (2, 2)).into_owned().lu().solve(&right).unwrap();
        // Of the first column 5.0 stays. The other row makes up for 0.1, by least squares; nothing moves beside 5.0.
        for (factor, expected) in [(0.999, [true, false]), (1.001, [false, true])] {
            let weights = [0.1, 2.0, -1.0, 5.0, (2.0 + moved[0]) * factor, 0.0];
            let factors = [Factor::of(&hessian, 3, 0.0).unwrap()];
            let mask = keep(&weights, &factors, 3, 1, false, &Progress::default()).unwrap();
            assert_eq!((mask[0], mask[3], [mask[1], mask[4]]), (false, true, expected));
        }
    }

    #[test]
    fn inputs_that_are_always_zero_lose_their_weights_first() {
        let hessian = [0.0, 0.0, 0.0, 1.0];
        let factors = [Factor::of(&hessian, 2, DAMPING).unwrap()];
        let mask = keep(&[9.0, 0.1, 9.0, 0.2], &factors, 2, 128, false, &Progress::default());
        assert_eq!(mask.unwrap(), [false, true, false, true]);
        let mask = keep(&[1.0, 0.1, -9.0, 0.2], &factors, 3, 128, false, &Progress::default());
        assert_eq!(mask.unwrap(), [false, true, true, true]);
        let refuse = |weights: &[f64], kept, block| {
            keep(weights, &factors, kept, block, false, &Progress::default()).is_err()
        };
        assert!(refuse(&[1.0; 4], 5, 1) && refuse(&[1.0; 4], 2, 0) && refuse(&[1.0; 3], 2, 1));
        assert!(refuse(&[f64::NAN, 1.0], 1, 1) && refuse(&[], 0, 1));
        assert!(keep(&[1.0; 4], &[], 2, 1, false, &Progress::default()).is_err());
    }

    #[test]
    fn factors_that_are_none_are_refused() {
        let refuse = |upper: &[f64]| {
            Factor::with::<Error>(&[1.0, 0.0, 0.0, 1.0], 2, DAMPING, |_| Ok(upper.to_vec())).is_err()
        };
        assert!(refuse(&[]) && refuse(&[1.0; 3]) && refuse(&[1.0, 1.0, 0.0, 0.0]) && refuse(&[f64::NAN; 4]));
        assert!(!refuse(&[1.0, 0.0, f64::NAN, 1.0]));
        for hessian in [&[1.0][..], &[f64::NAN; 4], &[1.0, 3.0, 3.0, 1.0], &[0.0; 4]] {
            assert!(Factor::of(hessian, 2, DAMPING).is_err());
        }
    }
}
