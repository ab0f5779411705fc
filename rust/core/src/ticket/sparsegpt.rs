//! SparseGPT: weights are chosen and removed column by column, and only later columns make up for them.
//!
//! With `H^-1 = U' U`, U upper triangular, `U_jj^2` is `[H^-1]_jj` of the columns from j on, so that `w_j^2 / U_jj^2`
//! is what the removal of w_j costs where the columns before j are settled (arXiv 2301.00774, algorithm 1).

use nalgebra::DMatrix;

use super::obs::{Layer, damped_inverse};
use crate::Progress;
use crate::error::{Result, in_parallel, shape_error, value_error};

/// Columns whose weights are chosen together, as in the official code.
pub const BLOCK: usize = 128;

/// Which weights of a layer are kept, (rows, inputs): exactly `kept`.
///
/// Blocks of `block` columns go from left to right. When a block is reached, the cheapest of its weights over all rows
/// leave, as they are by then (with `invert`, the dearest); of equal ones the first are kept. Up to each block the same
/// share is kept, rounded to whole weights, half to even. Then its columns go one by one, and each weight that leaves
/// moves those to its right. Inputs that are always zero have weights of zero.
///
/// ```
/// use precode_core::Progress;
/// use precode_core::ticket::{obs::Layer, sparsegpt::keep};
/// let hessian = [1.0, 0.9, 0.9, 1.0];
/// let layer = Layer { weights: &[2.0, 1.0, -1.0, 1.5], alive: None, hessians: &hessian, inputs: 2 };
/// // Without -1.0, its neighbour is 1.5 - 0.9 and the lesser one.
/// assert_eq!(keep(&layer, 2, 1, 0.0, false, &Progress::default())?, [true, true, false, false]);
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for sizes that do not fit; [`Error::Value`](crate::Error::Value) for more
/// weights than there are, a block of none, a weight that is not finite, and as [`damped_inverse`];
/// [`Error::Interrupted`](crate::Error::Interrupted).
pub fn keep(
    layer: &Layer,
    kept: usize,
    block: usize,
    damping: f64,
    invert: bool,
    progress: &Progress,
) -> Result<Vec<bool>> {
    let (rows, parts) = layer.sizes()?;
    let inputs = layer.inputs;
    if kept > layer.weights.len() || block == 0 {
        return Err(value_error!("{kept} of {} weights in blocks of {block} columns", layer.weights.len()));
    }
    if layer.alive.is_some() {
        return Err(shape_error!("SparseGPT takes whole layers: leave alive out"));
    }
    if let Some(weight) = layer.weights.iter().find(|weight| !weight.is_finite()) {
        return Err(value_error!("a weight is {weight}: weights must be finite (did training diverge?)"));
    }
    let mut weights = layer.weights.to_vec();
    let mut factors: Vec<DMatrix<f64>> = Vec::with_capacity(parts);
    let cells = inputs * inputs;
    let found = in_parallel(parts, |part| factor(&layer.hessians[part * cells..][..cells], inputs, damping))?;
    for (part, (upper, dead)) in found.into_iter().enumerate() {
        for row in weights.chunks_mut(inputs).skip(part * (rows / parts)).take(rows / parts) {
            dead.iter().for_each(|&column| row[column] = 0.0);
        }
        factors.push(upper);
    }
    let upper_of = |row: usize| &factors[row / (rows / parts)];
    let mut mask = vec![false; weights.len()];
    let mut taken = 0;
    for start in (0..inputs).step_by(block) {
        progress.check()?;
        let stop = inputs.min(start + block);
        let upto = (kept as f64 * stop as f64 / inputs as f64).round_ties_even() as usize;
        let mut places: Vec<(usize, usize)> =
            (0..rows).flat_map(|row| (start..stop).map(move |column| (row, column))).collect();
        let cost = |&(row, column): &(usize, usize)| {
            let cost = (weights[row * inputs + column] / upper_of(row)[(column, column)]).powi(2);
            if invert { -cost } else { cost }
        };
        places.sort_by(|a, b| (cost(b) + 0.0).total_cmp(&(cost(a) + 0.0)));
        places.iter().take(upto - taken).for_each(|&(row, column)| mask[row * inputs + column] = true);
        taken = upto;
        for (row, weights) in weights.chunks_mut(inputs).enumerate() {
            let upper = upper_of(row);
            for column in (start..stop).filter(|column| !mask[row * inputs + column]) {
                let step = weights[column] / upper[(column, column)];
                (column..inputs).for_each(|later| weights[later] -= step * upper[(column, later)]);
            }
        }
    }
    Ok(mask)
}

/// U of one Hessian, and the inputs that are always zero.
fn factor(hessian: &[f64], size: usize, damping: f64) -> Result<(DMatrix<f64>, Vec<usize>)> {
    let mut hessian = hessian.to_vec();
    let dead: Vec<usize> = (0..size).filter(|&i| hessian[i * size + i] == 0.0).collect();
    dead.iter().for_each(|&i| hessian[i * size + i] = 1.0);
    let inverse = damped_inverse(&hessian, size, damping)?;
    match DMatrix::from_row_slice(size, size, &inverse).cholesky() {
        Some(factor) => Ok((factor.l().transpose(), dead)),
        None => Err(value_error!("the Hessian is singular to working precision: damp it more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::obs::DAMPING;

    fn layer<'a>(weights: &'a [f64], hessians: &'a [f64], inputs: usize) -> Layer<'a> {
        Layer { weights, alive: None, hessians, inputs }
    }

    /// Numbers in -1..1 without pattern.
    fn numbers(count: usize, seed: f64) -> Vec<f64> {
        (0..count).map(|i| ((i as f64 + seed) * 12.9898).sin() * 43758.5453 % 1.0).collect()
    }

    #[test]
    fn every_count_is_exact_in_any_blocks() {
        let (weights, z) = (numbers(5 * 7, 1.0), DMatrix::from_row_slice(9, 7, &numbers(63, 5.0)));
        let hessian = z.tr_mul(&z).as_slice().to_vec();
        for block in [1, 2, 3, 7, 128] {
            for kept in 0..=35 {
                for invert in [false, true] {
                    let layer = layer(&weights, &hessian, 7);
                    let mask = keep(&layer, kept, block, DAMPING, invert, &Progress::default()).unwrap();
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
            let mask = keep(&layer(&weights, &hessian, 3), 3, 1, 0.0, false, &Progress::default()).unwrap();
            assert_eq!((mask[0], mask[3], [mask[1], mask[4]]), (false, true, expected));
        }
    }

    #[test]
    fn inputs_that_are_always_zero_lose_their_weights_first() {
        let hessian = [0.0, 0.0, 0.0, 1.0];
        let mask =
            keep(&layer(&[9.0, 0.1, 9.0, 0.2], &hessian, 2), 2, 128, DAMPING, false, &Progress::default());
        assert_eq!(mask.unwrap(), [false, true, false, true]);
        let refuse = |weights: &[f64], kept, block| {
            keep(&layer(weights, &hessian, 2), kept, block, DAMPING, false, &Progress::default()).is_err()
        };
        assert!(refuse(&[1.0; 4], 5, 1) && refuse(&[1.0; 4], 2, 0) && refuse(&[1.0; 3], 2, 1));
        assert!(refuse(&[f64::NAN, 1.0], 1, 1));
    }
}
