//! The input embedding C0: the network sees `C0 x`, and codes are read in `C1 = W1 C0`.

use nalgebra::DMatrix;
use ndarray::{Array2, Array3, ArrayView3};
use rand::RngExt;

use crate::error::{Result, reserve, shape_error, shaped, value_error};
use crate::task::rng::{Purpose, stream};

/// A linear map of the `n` Boolean inputs: one fixed map for all networks (arXiv 2504.08842, sections 6.2 and 6.4), or
/// a projection of each network's own, which may be trained (arXiv 2605.17704, by a public digest of it).
#[derive(Clone, Debug, PartialEq)]
pub enum Embedding {
    /// The inputs themselves: feature space and weight space coincide.
    Identity,
    /// The first n columns of the Sylvester–Hadamard matrix of the next power of two, `m` rows;
    /// with `normalized`, divided by sqrt(m) so that its columns have unit length.
    Hadamard {
        /// Whether the columns have unit length (otherwise the entries are ±1).
        normalized: bool,
    },
    /// Any matrix C0, (m, variables); m is the width of the network's first layer.
    Dense(Array2<f32>),
    /// Each network has a matrix of its own, which is a part of its weights: see
    /// [`Weights::projection`](crate::Weights::projection).
    Projection {
        /// Number of rows, the width of the network's first layer: at most the number of variables.
        rows: usize,
        /// Whether the matrices are trained with the other weights; otherwise they stay as they are.
        trained: bool,
    },
}

/// The embeddings that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingKind {
    /// [`Embedding::Identity`].
    Identity,
    /// [`Embedding::Hadamard`] with columns of unit length.
    Hadamard,
    /// [`Embedding::Hadamard`] with entries of ±1.
    HadamardRaw,
    /// [`Embedding::random_orthogonal`].
    Random,
}
named!(EmbeddingKind, "embedding", "identity" => Identity, "hadamard" => Hadamard, "hadamard-raw" => HadamardRaw,
    "random" => Random);

impl EmbeddingKind {
    /// The embedding of `variables` variables; `seed` matters for [`Random`](Self::Random) alone.
    ///
    /// ```
    /// use precode_core::Embedding;
    /// use precode_core::train::embedding::EmbeddingKind;
    /// let kind: EmbeddingKind = "hadamard".parse()?;
    /// assert_eq!(kind.embedding(32, 0)?, Embedding::Hadamard { normalized: true });
    /// # Ok::<(), precode_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Embedding::random_orthogonal`].
    pub fn embedding(self, variables: usize, seed: u64) -> Result<Embedding> {
        match self {
            Self::Identity => Ok(Embedding::Identity),
            Self::Hadamard => Ok(Embedding::Hadamard { normalized: true }),
            Self::HadamardRaw => Ok(Embedding::Hadamard { normalized: false }),
            Self::Random => Embedding::random_orthogonal(variables, seed),
        }
    }
}

impl Embedding {
    /// A random orthogonal matrix (Haar): Q of the QR decomposition of a Gaussian matrix, signs
    /// fixed so that R has a positive diagonal (Mezzadri, arXiv math-ph/0609050).
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if `variables` is zero.
    pub fn random_orthogonal(variables: usize, seed: u64) -> Result<Self> {
        if variables == 0 {
            return Err(value_error!("a random embedding needs at least 1 variable, got 0"));
        }
        let mut rng = stream(seed, Purpose::Embedding, 0);
        // The Gaussian matrix and its two factors.
        let entries = variables.checked_mul(variables).and_then(|entries| entries.checked_mul(4));
        drop(reserve::<f64>(entries, &format!("a random embedding of {variables} variables"))?);
        // Box–Muller: two uniforms make one normal draw; no distribution crate for one matrix.
        let gaussian = DMatrix::from_fn(variables, variables, |_, _| {
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
        });
        let (q, r) = gaussian.qr().unpack();
        Ok(Self::Dense(Array2::from_shape_fn((variables, variables), |(row, column)| {
            (q[(row, column)] * r[(column, column)].signum()) as f32
        })))
    }

    /// Width m of the network's first layer for `variables` inputs.
    pub fn rows(&self, variables: usize) -> usize {
        match self {
            Self::Identity => variables,
            Self::Hadamard { .. } => variables.next_power_of_two(),
            Self::Dense(matrix) => matrix.nrows(),
            Self::Projection { rows, .. } => *rows,
        }
    }

    /// Whether each network has a C0 of its own that is trained.
    pub fn is_trained(&self) -> bool {
        matches!(self, Self::Projection { trained: true, .. })
    }

    /// Refuses networks without the projections that this embedding says they have, or with some that it does not:
    /// `given` is the number of variables of their own C0.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape).
    pub fn validate_projection(&self, given: Option<usize>, variables: usize) -> Result<()> {
        match (self, given) {
            (Self::Projection { .. }, Some(given)) if given == variables => Ok(()),
            (Self::Projection { .. }, Some(given)) => Err(shape_error!(
                "the networks' projections C0 are of {given} variables, but the data have {variables}"
            )),
            (Self::Projection { .. }, None) => Err(shape_error!(
                "the embedding is a projection of each network's own, but the networks have none: give their C0"
            )),
            (_, Some(_)) => Err(shape_error!(
                "the networks have projections C0 of their own: train them behind a projection, not another embedding"
            )),
            (_, None) => Ok(()),
        }
    }

    /// Refuses a dense matrix that does not have `variables` columns, or is not finite, and a projection without rows
    /// or with more rows than `variables`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) or [`Error::Value`](crate::Error::Value).
    pub fn validate(&self, variables: usize) -> Result<()> {
        let matrix = match self {
            Self::Identity | Self::Hadamard { .. } => return Ok(()),
            Self::Dense(matrix) => matrix,
            Self::Projection { rows: 0, .. } => {
                return Err(value_error!("a projection of width 0: it must be at least 1"));
            }
            Self::Projection { rows, .. } if *rows > variables => {
                return Err(value_error!(
                    "projection of width {rows} is wider than the {variables} variables: use at most {variables}, or \
                     the identity"
                ));
            }
            Self::Projection { .. } => return Ok(()),
        };
        if matrix.ncols() != variables {
            return Err(shape_error!(
                "the embedding has shape {:?}: expected (rows, {variables}), a column for each variable",
                matrix.shape()
            ));
        }
        match matrix.iter().find(|entry| !entry.is_finite()) {
            Some(entry) => Err(value_error!("the embedding contains {entry}: its entries must be finite")),
            None => Ok(()),
        }
    }

    /// The matrix C0, (m, variables).
    ///
    /// ```
    /// use precode_core::Embedding;
    /// let hadamard = Embedding::Hadamard { normalized: false };
    /// assert_eq!(hadamard.matrix(2).unwrap(), ndarray::array![[1.0, 1.0], [1.0, -1.0]]);
    /// ```
    ///
    /// # Errors
    /// As [`validate`](Self::validate); a projection, of which every network has its own.
    pub fn matrix(&self, variables: usize) -> Result<Array2<f32>> {
        self.validate(variables)?;
        let (rows, what) =
            (self.rows(variables), format!("the matrix of an embedding of {variables} variables"));
        let mut entries = reserve(rows.checked_mul(variables), &what)?;
        match self {
            Self::Identity => {
                entries.extend((0..rows * variables).map(|i| f32::from(i / variables == i % variables)));
            }
            Self::Hadamard { .. } => {
                let scale = self.hadamard_scale(variables);
                let places = (0..rows * variables).map(|i| (i / variables, i % variables));
                let even = |(row, column): (usize, usize)| (row & column).count_ones() % 2 == 0;
                entries.extend(places.map(|place| if even(place) { scale } else { -scale }));
            }
            Self::Dense(matrix) => entries.extend(matrix),
            Self::Projection { .. } => {
                return Err(value_error!(
                    "a projection has no one matrix: each network has its own, in its weights"
                ));
            }
        }
        shaped(entries, (rows, variables))
    }

    /// C1 = W1 C0, (R, rows, variables), of first-layer weights W1 (R, rows, m): what codes are read from. Products and
    /// sums are in f64.
    ///
    /// ```
    /// use ndarray::array;
    /// use precode_core::Embedding;
    /// let hadamard = Embedding::Hadamard { normalized: false };
    /// let c1 = hadamard.features(array![[[1.0f32, 2.0]]].view(), 2)?;
    /// assert_eq!(c1, array![[[3.0, -1.0]]]);
    /// # Ok::<(), precode_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`validate`](Self::validate); [`Error::Shape`](crate::Error::Shape) if the weights are not of m inputs.
    pub fn features<T: Copy + Into<f64>>(
        &self,
        weights: ArrayView3<T>,
        variables: usize,
    ) -> Result<Array3<f64>> {
        let (networks, rows, inputs) = weights.dim();
        if inputs != self.rows(variables) {
            return Err(shape_error!(
                "weights of shape {:?} do not take {variables} variables through this embedding: expected {} inputs",
                weights.shape(),
                self.rows(variables)
            ));
        }
        let weights: Vec<f64> = weights.iter().map(|&weight| weight.into()).collect();
        let features = match self {
            Self::Identity => weights,
            _ => {
                let matrix: Vec<f64> = self.matrix(variables)?.into_iter().map(f64::from).collect();
                multiply(&weights, &matrix, variables)
            }
        };
        shaped(features, (networks, rows, variables))
    }

    /// The factor on the ±1 Hadamard matrix (1 for other embeddings).
    pub fn hadamard_scale(&self, variables: usize) -> f32 {
        match self {
            Self::Hadamard { normalized: true } => 1.0 / (self.rows(variables) as f32).sqrt(),
            _ => 1.0,
        }
    }
}

/// W C0, (rows, variables), of weights (rows, m) and C0 (m, variables).
pub(crate) fn multiply(weights: &[f64], matrix: &[f64], variables: usize) -> Vec<f64> {
    let inputs = (matrix.len() / variables.max(1)).max(1);
    let mut out = vec![0.0; weights.len() / inputs * variables];
    for (weights, out) in weights.chunks_exact(inputs).zip(out.chunks_exact_mut(variables.max(1))) {
        for (weight, row) in weights.iter().zip(matrix.chunks_exact(variables.max(1))) {
            out.iter_mut().zip(row).for_each(|(out, entry)| *out += weight * entry);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C0^T C0, (n, n).
    fn gram(embedding: &Embedding, n: usize) -> Vec<f32> {
        let (m, c0) = (embedding.rows(n), embedding.matrix(n).unwrap());
        let dot = |i: usize, j: usize| (0..m).map(|row| c0[[row, i]] * c0[[row, j]]).sum();
        (0..n * n).map(|cell| dot(cell / n, cell % n)).collect()
    }

    #[test]
    fn columns_are_orthogonal() {
        for n in [1, 5, 32] {
            for &kind in EmbeddingKind::ALL {
                let embedding = kind.embedding(n, 3).unwrap();
                let length = if kind == EmbeddingKind::HadamardRaw { embedding.rows(n) as f32 } else { 1.0 };
                for (cell, value) in gram(&embedding, n).into_iter().enumerate() {
                    let expected = if cell / n == cell % n { length } else { 0.0 };
                    assert!((value - expected).abs() < 1e-4, "{kind} {n}: {value} for {expected}");
                }
            }
        }
        assert_ne!(Embedding::random_orthogonal(4, 0), Embedding::random_orthogonal(4, 1));
    }

    #[test]
    fn bad_embeddings_are_refused() {
        let message = "fourier".parse::<EmbeddingKind>().unwrap_err().to_string();
        assert!(message.contains("'fourier'") && message.contains("hadamard-raw"), "{message}");
        let narrow = Embedding::Dense(Array2::zeros((2, 5))).matrix(3).unwrap_err();
        assert!(narrow.to_string().contains("[2, 5]: expected (rows, 3)"));
        let turned = Embedding::Dense(Array2::eye(3).reversed_axes());
        assert_eq!(turned.matrix(3).unwrap().as_slice().map(<[f32]>::len), Some(9));
        assert!(Embedding::random_orthogonal(0, 0).is_err());
        let projection = |rows| Embedding::Projection { rows, trained: true };
        let message = projection(40).validate(32).unwrap_err().to_string();
        assert!(message.starts_with("projection of width 40 is wider than the 32 variables"), "{message}");
        assert!(projection(0).validate(32).is_err() && projection(16).matrix(32).is_err());
        assert!(projection(32).validate(32).is_ok() && projection(1).validate(1).is_ok());
        assert!(projection(16).validate_projection(Some(32), 32).is_ok());
        for (embedding, given) in
            [(projection(16), None), (projection(16), Some(31)), (Embedding::Identity, Some(32))]
        {
            assert!(embedding.validate_projection(given, 32).is_err(), "{embedding:?}, {given:?}");
        }
    }
}
