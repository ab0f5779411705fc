//! From cells in feature space to weights: the masks that best realise given features through an embedding.

use std::cmp::Ordering;

use crate::error::{Result, shape_error, value_error};

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

    /// Of C0, row-major (inputs, variables).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the length does not fit, [`Error::Value`](crate::Error::Value) if an entry
    /// is not finite.
    pub fn new(matrix: Vec<f64>, inputs: usize, variables: usize) -> Result<Self> {
        if matrix.is_empty() || matrix.len() != inputs * variables {
            return Err(shape_error!(
                "an embedding of {} entries is not {inputs} x {variables} (inputs, variables)",
                matrix.len()
            ));
        }
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

    /// W C0, (rows, variables), of weights (rows, inputs).
    pub fn features(&self, weights: &[f64]) -> Vec<f64> {
        let Some((matrix, _)) = &self.matrices else { return weights.to_vec() };
        let mut out = vec![0.0; weights.len() / self.inputs * self.variables];
        for (weights, out) in weights.chunks_exact(self.inputs).zip(out.chunks_exact_mut(self.variables)) {
            for (weight, row) in weights.iter().zip(matrix.chunks_exact(self.variables)) {
                out.iter_mut().zip(row).for_each(|(out, entry)| *out += weight * entry);
            }
        }
        out
    }

    /// The cells (rows, variables) that some kept weight (rows, inputs) can reach.
    pub fn reached(&self, mask: &[bool]) -> Vec<bool> {
        let Some((matrix, _)) = &self.matrices else { return mask.to_vec() };
        let mut out = Vec::with_capacity(mask.len() / self.inputs * self.variables);
        for row in mask.chunks_exact(self.inputs) {
            let reaches =
                |v: usize| (0..self.inputs).any(|i| row[i] && matrix[i * self.variables + v] != 0.0);
            out.extend((0..self.variables).map(reaches));
        }
        out
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

    /// The mask of exactly `keep` weights that brings `(W * M) C0` near a `target` T (rows, variables).
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
    pub fn realize(&self, weights: &[f64], target: &[f64], keep: usize) -> Result<Vec<bool>> {
        self.check(weights, target, keep)?;
        Ok(self.nearest(weights, self.pulled_back(target), keep))
    }

    /// The mask of exactly `keep` weights and the scale that bring `scale * (W * M) C0` near a `target`.
    ///
    /// Mask and scale are improved in turn, the scale by least squares, from the ratio of norms of V and
    /// W, until the mask stays or the distance no longer falls.
    ///
    /// # Errors
    /// As [`realize`](Self::realize).
    pub fn align(&self, weights: &[f64], target: &[f64], keep: usize) -> Result<(Vec<bool>, f64)> {
        self.check(weights, target, keep)?;
        let pulled = self.pulled_back(target);
        let norm = |values: &[f64]| dot(values, values).sqrt();
        let mut scale =
            Some(norm(&pulled) / norm(weights)).filter(|s| s.is_finite() && *s > 0.0).unwrap_or(1.0);
        let mut best: Option<(Vec<bool>, f64, f64)> = None;
        for _ in 0..64 {
            let scaled: Vec<f64> = weights.iter().map(|weight| scale * weight).collect();
            let mask = self.nearest(&scaled, pulled.clone(), keep);
            let kept: Vec<f64> = weights.iter().zip(&mask).map(|(&w, &m)| if m { w } else { 0.0 }).collect();
            let (along, features) = (dot(&kept, &pulled), self.features(&kept));
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
        Ok(best.map_or_else(|| (vec![false; weights.len()], scale), |(mask, scale, _)| (mask, scale)))
    }

    fn check(&self, weights: &[f64], target: &[f64], keep: usize) -> Result<()> {
        let rows = weights.len() / self.inputs;
        if rows * self.inputs != weights.len() || rows * self.variables != target.len() {
            return Err(shape_error!(
                "{} weights and a target of {} cells do not fit an embedding {} x {} (inputs, variables)",
                weights.len(),
                target.len(),
                self.inputs,
                self.variables
            ));
        }
        if keep > weights.len() {
            return Err(value_error!("keep = {keep}: there are {} weights", weights.len()));
        }
        finite(weights, "the weights")?;
        finite(target, "the target")
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
    use proptest::prelude::*;

    fn squared(map: &Translation, weights: &[f64], mask: &[bool], target: &[f64], scale: f64) -> f64 {
        let kept: Vec<f64> =
            weights.iter().zip(mask).map(|(&w, &m)| if m { w * scale } else { 0.0 }).collect();
        map.features(&kept).iter().zip(target).map(|(a, b)| (a - b).powi(2)).sum()
    }

    fn masks(size: usize, keep: usize) -> impl Iterator<Item = Vec<bool>> {
        let all = (0u32..1 << size).filter(move |mask| mask.count_ones() as usize == keep);
        all.map(move |mask| (0..size).map(|i| mask >> i & 1 == 1).collect())
    }

    fn orthonormal() -> Translation {
        let Embedding::Dense { matrix, .. } = Embedding::random_orthogonal(4, 7).unwrap() else {
            unreachable!()
        };
        Translation::new(matrix.into_iter().map(f64::from).collect(), 4, 4).unwrap()
    }

    fn values(size: usize) -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(-1.0..1.0f64, size)
    }

    proptest! {
        #![proptest_config(crate::examples(32))]
        #[test]
        fn with_orthogonal_rows_the_mask_is_the_best(weights in values(8), target in values(8), keep in 0usize..9) {
            let raw = Embedding::Hadamard { normalized: false }.matrix(4).unwrap();
            let raw = raw.into_iter().map(f64::from).collect();
            for map in [Translation::identity(4), orthonormal(), Translation::new(raw, 4, 4).unwrap()] {
                let mask = map.realize(&weights, &target, keep).unwrap();
                prop_assert_eq!(mask.iter().filter(|&&kept| kept).count(), keep);
                let got = squared(&map, &weights, &mask, &target, 1.0);
                let best = masks(8, keep).map(|mask| squared(&map, &weights, &mask, &target, 1.0));
                prop_assert!(got <= best.fold(f64::INFINITY, f64::min) + 1e-6);
            }
        }

        #[test]
        fn each_weight_lowers_the_distance_most(weights in values(6), target in values(8), matrix in values(12)) {
            // Three inputs, four variables: rows that are not orthogonal.
            let map = Translation::new(matrix, 3, 4).unwrap();
            let mut mask = vec![false; 6];
            for keep in 1..=6 {
                let next = map.realize(&weights, &target, keep).unwrap();
                let with = |i: usize| {
                    let mut mask = mask.clone();
                    mask[i] = true;
                    squared(&map, &weights, &mask, &target, 1.0)
                };
                let lowest = (0..6).filter(|&i| !mask[i]).map(with).fold(f64::INFINITY, f64::min);
                prop_assert!((squared(&map, &weights, &next, &target, 1.0) - lowest).abs() < 1e-9);
                prop_assert!(mask.iter().zip(&next).all(|(&before, &after)| after || !before));
                mask = next;
            }
        }

        #[test]
        fn the_scale_is_that_of_least_squares(weights in values(8), noise in values(8), keep in 1usize..9) {
            let map = orthonormal();
            let target: Vec<f64> = map.features(&weights).iter().zip(&noise).map(|(c, e)| 2.0 * c + 0.2 * e).collect();
            let (mask, scale) = map.align(&weights, &target, keep).unwrap();
            prop_assert_eq!(mask.iter().filter(|&&kept| kept).count(), keep);
            let at = |scale: f64| squared(&map, &weights, &mask, &target, scale);
            prop_assert!(at(scale) <= at(1.01 * scale) + 1e-12 && at(scale) <= at(0.99 * scale) + 1e-12);
        }
    }

    #[test]
    fn scaled_features_are_found_again() {
        // The target is three times the features of a mask of W.
        let (weights, map) = ([0.9, -0.7, 0.5, 0.3, 1.0, -1.0, 0.8, 0.6], orthonormal());
        let mask = [true, false, true, false, false, true, true, false];
        let kept: Vec<f64> = weights.iter().zip(mask).map(|(&w, m)| if m { 3.0 * w } else { 0.0 }).collect();
        let (got, scale) = map.align(&weights, &map.features(&kept), 4).unwrap();
        assert_eq!(got, mask);
        assert!((scale - 3.0).abs() < 1e-6);
    }

    #[test]
    fn with_the_identity_the_chosen_cells_are_the_mask() {
        let (weights, cells) = ([0.1, -2.0, 0.5, 0.4], [true, false, false, true]);
        let target: Vec<f64> = weights.iter().zip(cells).map(|(&w, c)| if c { w } else { 0.0 }).collect();
        assert_eq!(Translation::identity(2).realize(&weights, &target, 2).unwrap(), cells);
        let tall = Translation::new(vec![1.0, 0.0, 0.0, 0.0], 2, 2).unwrap();
        assert_eq!(tall.reached(&[true, false, false, true]), [true, false, false, false]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refuse = |error: crate::Error| error.to_string();
        let map = Translation::identity(2);
        assert!(refuse(map.realize(&[1.0; 4], &[1.0; 2], 1).unwrap_err()).contains("4 weights"));
        assert!(refuse(map.realize(&[1.0; 4], &[1.0; 4], 5).unwrap_err()).contains("keep = 5"));
        assert!(
            refuse(map.realize(&[f64::NAN, 1.0], &[1.0; 2], 1).unwrap_err()).contains("NaN at flat index 0")
        );
        assert!(refuse(Translation::new(vec![1.0; 3], 2, 2).unwrap_err()).contains("3 entries"));
    }
}
