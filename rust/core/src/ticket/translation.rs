//! From cells and locations in feature space to weights: the masks that best realise them through an embedding.

mod locations;

use std::cmp::Ordering;

use ndarray::{Array2, Array3, ArrayView2, ArrayView3};

use crate::error::{Result, flat, shape_error, shaped, value_error};
use crate::train::embedding::multiply;

pub use locations::{Chosen, choose_locations, exact_codes};

/// The embedding C0 of one layer as its least-squares problems need it.
#[derive(Clone, Debug)]
pub struct Translation {
    inputs: usize,
    variables: usize,
    /// C0 (inputs, variables) and its Gram matrix C0 C0' (inputs, inputs); `None` for the identity.
    matrices: Option<(Vec<f64>, Vec<f64>)>,
}

impl Translation {
    /// The identity of `variables` inputs: cells are weights.
    pub fn identity(variables: usize) -> Self {
        Self { inputs: variables, variables, matrices: None }
    }

    /// Of C0, (inputs, variables).
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there are no entries, or one is not finite.
    pub fn new(matrix: ArrayView2<f64>) -> Result<Self> {
        let (inputs, variables) = matrix.dim();
        if matrix.is_empty() {
            return Err(value_error!("an embedding of shape {:?}: pass one with entries", matrix.shape()));
        }
        let matrix: Vec<f64> = matrix.iter().copied().collect();
        finite(&matrix, "the embedding")?;
        let row = |input: usize| &matrix[input * variables..][..variables];
        let gram = (0..inputs * inputs).map(|i| dot(row(i / inputs), row(i % inputs))).collect();
        Ok(Self { inputs, variables, matrices: Some((matrix, gram)) })
    }

    /// Width of the weight space.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of variables.
    pub fn variables(&self) -> usize {
        self.variables
    }

    /// Whether cells are weights.
    pub fn is_identity(&self) -> bool {
        self.matrices.is_none()
    }

    /// C1 = W C0 of R networks, (R, rows, variables), of weights (R, rows, inputs).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the weights are not of as many inputs or not row-major.
    pub fn features(&self, weights: ArrayView3<f64>) -> Result<Array3<f64>> {
        let (networks, rows, inputs) = weights.dim();
        self.check_inputs(weights.shape(), inputs)?;
        shaped(self.forward(flat(weights, "the weights")?), (networks, rows, self.variables))
    }

    fn forward(&self, weights: &[f64]) -> Vec<f64> {
        match &self.matrices {
            Some((matrix, _)) => multiply(weights, matrix, self.variables),
            None => weights.to_vec(),
        }
    }

    /// V = T C0', (rows, inputs).
    fn pulled_back(&self, target: &[f64]) -> Vec<f64> {
        let Some((matrix, _)) = &self.matrices else { return target.to_vec() };
        let rows = target.chunks_exact(self.variables);
        rows.flat_map(|row| matrix.chunks_exact(self.variables).map(move |entries| dot(row, entries)))
            .collect()
    }

    fn gram(&self, a: usize, b: usize) -> f64 {
        match &self.matrices {
            Some((_, gram)) => gram[a * self.inputs + b],
            None => f64::from(u8::from(a == b)),
        }
    }

    /// The mask of exactly `keep` weights that brings `(W * M) C0` near a `target` T (rows, variables); weights and mask
    /// are (rows, inputs).
    ///
    /// With V = T C0' and G = C0 C0', the squared distance is, up to a constant, `sum_r [sum_ab m_a m_b w_a w_b
    /// G_ab - 2 sum_a m_a w_a v_a]`. Where G is diagonal (C0 has orthogonal rows), it separates and the largest
    /// `w (2 v - G_aa w)` are the best mask. Otherwise weights are kept one after another, each time the one
    /// that lowers the distance most, `w_a (2 (v_a - sum over kept b of G_ab w_b) - G_aa w_a)`: an
    /// approximation, and the same rule where G is diagonal. Ties go to the lowest index.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if weights and target do not fit; [`Error::Value`](crate::Error::Value) if one of
    /// them is not finite or `keep` is beyond all weights.
    pub fn realize(
        &self,
        weights: ArrayView2<f64>,
        target: ArrayView2<f64>,
        keep: usize,
    ) -> Result<Array2<bool>> {
        let shape = weights.dim();
        let (weights, target) = self.check(weights, target, keep)?;
        shaped(self.nearest(weights, self.pulled_back(target), keep), shape)
    }

    /// The mask of exactly `keep` weights and the scale that bring `scale * (W * M) C0` near a `target`.
    ///
    /// Mask and scale are improved in turn, the scale by least squares, from the ratio of norms of V and
    /// W, until the mask stays or the distance no longer falls.
    ///
    /// # Errors
    /// As [`realize`](Self::realize).
    pub fn align(
        &self,
        weights: ArrayView2<f64>,
        target: ArrayView2<f64>,
        keep: usize,
    ) -> Result<(Array2<bool>, f64)> {
        let shape = weights.dim();
        let (weights, target) = self.check(weights, target, keep)?;
        let pulled = self.pulled_back(target);
        let norm = |values: &[f64]| dot(values, values).sqrt();
        let mut scale =
            Some(norm(&pulled) / norm(weights)).filter(|s| s.is_finite() && *s > 0.0).unwrap_or(1.0);
        let mut best: Option<(Vec<bool>, f64, f64)> = None;
        for _ in 0..64 {
            let scaled: Vec<f64> = weights.iter().map(|weight| scale * weight).collect();
            let mask = self.nearest(&scaled, pulled.clone(), keep);
            let kept: Vec<f64> = weights.iter().zip(&mask).map(|(&w, &m)| if m { w } else { 0.0 }).collect();
            let (along, features) = (dot(&kept, &pulled), self.forward(&kept));
            let square = dot(&features, &features);
            // The scale is that of the mask; where the mask has nothing of the target, the last one.
            let fitted = if square > 0.0 && along > 0.0 { along / square } else { scale };
            let error = fitted * (fitted * square - 2.0 * along);
            if best.as_ref().is_some_and(|(last, _, lowest)| *last == mask || error >= *lowest) {
                break;
            }
            best = Some((mask, fitted, error));
            scale = fitted;
        }
        // The first turn always sets it.
        let (mask, scale) =
            best.map_or_else(|| (vec![false; weights.len()], scale), |(mask, scale, _)| (mask, scale));
        Ok((shaped(mask, shape)?, scale))
    }

    fn check_inputs(&self, shape: &[usize], inputs: usize) -> Result<()> {
        if inputs == self.inputs {
            return Ok(());
        }
        Err(shape_error!(
            "weights of shape {shape:?} do not fit an embedding of {} inputs: expected (.., rows, {})",
            self.inputs,
            self.inputs
        ))
    }

    /// The values of weights and target.
    fn check<'a>(
        &self,
        weights: ArrayView2<'a, f64>,
        target: ArrayView2<'a, f64>,
        keep: usize,
    ) -> Result<(&'a [f64], &'a [f64])> {
        self.check_inputs(weights.shape(), weights.ncols())?;
        if target.dim() != (weights.nrows(), self.variables) {
            return Err(shape_error!(
                "a target of shape {:?} for weights of shape {:?}: expected {:?} (rows, variables)",
                target.shape(),
                weights.shape(),
                [weights.nrows(), self.variables]
            ));
        }
        if keep > weights.len() {
            return Err(value_error!("keep = {keep}: there are {} weights", weights.len()));
        }
        let (weights, target) = (flat(weights, "the weights")?, flat(target, "the target")?);
        finite(weights, "the weights")?;
        finite(target, "the target")?;
        Ok((weights, target))
    }

    /// The greedy mask; `rest` is V, and becomes V less what is kept.
    fn nearest(&self, weights: &[f64], mut rest: Vec<f64>, keep: usize) -> Vec<bool> {
        let mut mask = vec![false; weights.len()];
        let m = self.inputs;
        let best_of = |row: usize, rest: &[f64], mask: &[bool]| {
            let gain = |i: usize| weights[i] * (2.0 * rest[i] - self.gram(i % m, i % m) * weights[i]);
            (row * m..(row + 1) * m).filter(|&i| !mask[i]).map(|i| (gain(i), i)).reduce(better)
        };
        let rows = weights.len() / m;
        let mut best: Vec<Option<(f64, usize)>> = (0..rows).map(|row| best_of(row, &rest, &mask)).collect();
        for _ in 0..keep {
            let Some((_, chosen)) = best.iter().flatten().copied().reduce(better) else { break };
            let row = chosen / m;
            mask[chosen] = true;
            if self.matrices.is_some() {
                for (a, rest) in rest[row * m..][..m].iter_mut().enumerate() {
                    *rest -=
                        if row * m + a == chosen { 0.0 } else { self.gram(a, chosen % m) * weights[chosen] };
                }
            }
            best[row] = best_of(row, &rest, &mask);
        }
        mask
    }
}

/// The larger value; of equal ones, the lower index.
pub(crate) fn better(a: (f64, usize), b: (f64, usize)) -> (f64, usize) {
    // `+ 0.0` makes the two zeros equal.
    let order = (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then(a.1.cmp(&b.1));
    if order == Ordering::Greater { b } else { a }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn finite(values: &[f64], what: &str) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(i) => Err(value_error!("{what}: {} at flat index {i} must be finite", values[i])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Embedding;
    use ndarray::{Axis, Zip, array};
    use proptest::prelude::*;

    type Matrix = Array2<f64>;

    /// Entries where the mask keeps them, times a scale.
    fn masked(weights: &Matrix, mask: &Array2<bool>, scale: f64) -> Matrix {
        Zip::from(weights).and(mask).map_collect(|&w, &m| if m { w * scale } else { 0.0 })
    }

    fn features(translation: &Translation, weights: &Matrix) -> Matrix {
        let stack = weights.view().insert_axis(Axis(0));
        translation.features(stack).unwrap().index_axis_move(Axis(0), 0)
    }

    fn squared(
        translation: &Translation,
        weights: &Matrix,
        mask: &Array2<bool>,
        target: &Matrix,
        scale: f64,
    ) -> f64 {
        let features = features(translation, &masked(weights, mask, scale));
        features.iter().zip(target).map(|(a, b)| (a - b).powi(2)).sum()
    }

    fn masks(rows: usize, columns: usize, keep: usize) -> impl Iterator<Item = Array2<bool>> {
        let all = (0u32..1 << (rows * columns)).filter(move |mask| mask.count_ones() as usize == keep);
        all.map(move |mask| {
            Array2::from_shape_fn((rows, columns), |(r, c)| mask >> (r * columns + c) & 1 == 1)
        })
    }

    fn of(embedding: &Embedding) -> Translation {
        Translation::new(embedding.matrix(4).unwrap().mapv(f64::from).view()).unwrap()
    }

    fn orthonormal() -> Translation {
        of(&Embedding::random_orthogonal(4, 7).unwrap())
    }

    fn values(rows: usize, columns: usize) -> impl Strategy<Value = Matrix> {
        prop::collection::vec(-1.0..1.0f64, rows * columns)
            .prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
    }

    fn count(mask: &Array2<bool>) -> usize {
        mask.iter().filter(|&&kept| kept).count()
    }

    proptest! {
        #![proptest_config(crate::examples(32))]
        #[test]
        fn with_orthogonal_rows_the_mask_is_the_best(weights in values(2, 4), target in values(2, 4), keep in 0usize..9) {
            let raw = of(&Embedding::Hadamard { normalized: false });
            for translation in [Translation::identity(4), orthonormal(), raw] {
                let mask = translation.realize(weights.view(), target.view(), keep).unwrap();
                prop_assert_eq!(count(&mask), keep);
                let got = squared(&translation, &weights, &mask, &target, 1.0);
                let best = masks(2, 4, keep).map(|mask| squared(&translation, &weights, &mask, &target, 1.0));
                prop_assert!(got <= best.fold(f64::INFINITY, f64::min) + 1e-6);
            }
        }

        #[test]
        fn each_weight_lowers_the_distance_most(weights in values(2, 3), target in values(2, 4), matrix in values(3, 4)) {
            // Three inputs, four variables: rows that are not orthogonal.
            let translation = Translation::new(matrix.view()).unwrap();
            let mut mask = Array2::from_elem((2, 3), false);
            for keep in 1..=6 {
                let next = translation.realize(weights.view(), target.view(), keep).unwrap();
                let with = |i: usize| {
                    let mut mask = mask.clone();
                    mask[[i / 3, i % 3]] = true;
                    squared(&translation, &weights, &mask, &target, 1.0)
                };
                let lowest = (0..6).filter(|&i| !mask[[i / 3, i % 3]]).map(with).fold(f64::INFINITY, f64::min);
                prop_assert!((squared(&translation, &weights, &next, &target, 1.0) - lowest).abs() < 1e-9);
                prop_assert!(mask.iter().zip(&next).all(|(&before, &after)| after || !before));
                mask = next;
            }
        }

        #[test]
        fn the_scale_is_that_of_least_squares(weights in values(2, 4), noise in values(2, 4), keep in 1usize..9) {
            let translation = orthonormal();
            let target = features(&translation, &weights) * 2.0 + noise * 0.2;
            let (mask, scale) = translation.align(weights.view(), target.view(), keep).unwrap();
            prop_assert_eq!(count(&mask), keep);
            let at = |scale: f64| squared(&translation, &weights, &mask, &target, scale);
            prop_assert!(at(scale) <= at(1.01 * scale) + 1e-12 && at(scale) <= at(0.99 * scale) + 1e-12);
        }
    }

    #[test]
    fn scaled_features_are_found_again() {
        // The target is three times the features of a mask of W.
        let translation = orthonormal();
        let weights = array![[0.9, -0.7, 0.5, 0.3], [1.0, -1.0, 0.8, 0.6]];
        let mask = array![[true, false, true, false], [false, true, true, false]];
        let target = features(&translation, &masked(&weights, &mask, 3.0));
        let (got, scale) = translation.align(weights.view(), target.view(), 4).unwrap();
        assert_eq!(got, mask);
        assert!((scale - 3.0).abs() < 1e-6);
    }

    #[test]
    fn with_the_identity_the_chosen_cells_are_the_mask() {
        let (weights, cells) = (array![[0.1, -2.0], [0.5, 0.4]], array![[true, false], [false, true]]);
        let target = masked(&weights, &cells, 1.0);
        assert_eq!(Translation::identity(2).realize(weights.view(), target.view(), 2).unwrap(), cells);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refuse = |error: crate::Error| error.to_string();
        let realize = |weights: &Matrix, target: &Matrix, keep: usize| {
            refuse(Translation::identity(2).realize(weights.view(), target.view(), keep).unwrap_err())
        };
        let (square, row) = (Array2::ones((2, 2)), Array2::ones((1, 2)));
        assert!(realize(&square, &row, 1).contains("a target of shape [1, 2]"));
        assert!(realize(&Array2::ones((2, 3)), &square, 1).contains("expected (.., rows, 2)"));
        assert!(realize(&square, &square, 5).contains("keep = 5"));
        assert!(realize(&array![[f64::NAN, 1.0]], &row, 1).contains("NaN at flat index 0"));
        assert!(refuse(Translation::new(Array2::zeros((0, 2)).view()).unwrap_err()).contains("[0, 2]"));
    }
}
