//! Stacks of fully connected ReLU networks as flat buffers, and their initialization.

use ndarray::{Array2, Array3, ArrayView3};
use rand::RngExt;
use rayon::prelude::*;

use super::embedding::{Embedding, multiply};
use crate::error::{Error, Result, allocate, shape_error, shaped, value_error};
use crate::task::rng::{Purpose, stream};

/// One layer of a stack of R networks: `weight` (R, outputs, inputs) and `bias` (R, outputs), row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Width of the layer's input.
    pub inputs: usize,
    /// Number of units.
    pub outputs: usize,
    /// Weights, (R, outputs, inputs).
    pub weight: Vec<f32>,
    /// Biases, (R, outputs).
    pub bias: Vec<f32>,
}

/// The C0 of each of R networks, which stands in front of their first layers: see
/// [`Embedding::Projection`].
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// Number of variables, n.
    pub variables: usize,
    /// Entries, (R, inputs of the first layer, variables), row-major.
    pub matrix: Vec<f32>,
}

impl Projection {
    fn zeros(networks: usize, rows: usize, variables: usize) -> Result<Self> {
        let entries = rows.checked_mul(variables).and_then(|size| size.checked_mul(networks));
        let what = format!("{networks} projections of {variables} variables to {rows} rows");
        Ok(Self { variables, matrix: allocate(entries, 0.0, &what)? })
    }

    /// See [`Weights::with_projection`].
    ///
    /// # Errors
    /// [`Error::Value`] without rows or variables, [`Error::Unsupported`]
    /// if they do not fit into memory.
    pub fn linear_init(rows: usize, variables: usize, seed: u64, indices: &[u64]) -> Result<Self> {
        if rows == 0 || variables == 0 {
            return Err(value_error!(
                "a projection of {variables} variables to {rows} rows: both must be at least 1"
            ));
        }
        let mut projection = Self::zeros(indices.len(), rows, variables)?;
        let bound = 1.0 / (variables as f32).sqrt();
        projection.matrix.par_chunks_exact_mut(rows * variables).zip(indices).for_each(|(share, &index)| {
            let mut rng = stream(seed, Purpose::Projection, index);
            share.iter_mut().for_each(|entry| *entry = rng.random_range(-bound..=bound));
        });
        Ok(projection)
    }
}

/// The weights of `networks` networks of the same widths.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Number of networks, R.
    pub networks: usize,
    /// Layers from input to output; ReLU between them, none after the last.
    pub layers: Vec<Layer>,
    /// The networks' own C0, where they have one.
    pub projection: Option<Projection>,
}

/// One network's weights and biases of a layer, and the bound of their initial values.
type Share<'a> = (f32, &'a mut [f32], &'a mut [f32]);

impl Weights {
    /// All-zero weights for the given widths `[inputs, hidden.., outputs]`.
    ///
    /// # Errors
    /// [`Error::Value`] if there are no networks, fewer than two widths, or a width of zero;
    /// [`Error::Unsupported`] if they do not fit into memory.
    pub fn zeros(networks: usize, widths: &[usize]) -> Result<Self> {
        if networks == 0 {
            return Err(value_error!("0 networks: pass at least one task or network"));
        }
        if widths.len() < 2 || widths.contains(&0) {
            return Err(value_error!(
                "widths {widths:?}: expected [inputs, hidden.., outputs], each at least 1"
            ));
        }
        let what = format!("{networks} networks of widths {widths:?}");
        let layer = |pair: &[usize]| {
            let biases = networks.checked_mul(pair[1]);
            let weights = biases.and_then(|biases| biases.checked_mul(pair[0]));
            let (weight, bias) = (allocate(weights, 0.0, &what)?, allocate(biases, 0.0, &what)?);
            Ok(Layer { inputs: pair[0], outputs: pair[1], weight, bias })
        };
        let layers = widths.windows(2).map(layer).collect::<Result<_>>()?;
        Ok(Self { networks, layers, projection: None })
    }

    /// A copy, or an error where it does not fit into memory.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let mut copy = Self::zeros(self.networks, &self.widths())?;
        for (to, from) in copy.layers.iter_mut().zip(&self.layers) {
            to.weight.copy_from_slice(&from.weight);
            to.bias.copy_from_slice(&from.bias);
        }
        if let Some(from) = &self.projection {
            copy = copy.with_zero_projection(from.variables)?;
            copy.projection.iter_mut().for_each(|to| to.matrix.copy_from_slice(&from.matrix));
        }
        Ok(copy)
    }

    /// The same networks behind a C0 of zeros.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it does not fit into memory.
    pub fn with_zero_projection(mut self, variables: usize) -> Result<Self> {
        let rows = self.layers.first().map_or(0, |layer| layer.inputs);
        self.projection = Some(Projection::zeros(self.networks, rows, variables)?);
        Ok(self)
    }

    /// The same networks, each behind a C0 of its own with PyTorch's default initialization of
    /// `nn.Linear(variables, inputs, bias=False)`: uniform in ±1/sqrt(variables). Network r draws from the stream
    /// `(seed, Projection, indices[r])`, so nothing else is drawn differently.
    ///
    /// ```
    /// use precode_core::Weights;
    /// let plain = Weights::linear_init(&[16, 32, 1], 0, &[0, 1, 2]).unwrap();
    /// let stack = plain.clone().with_projection(32, 0, &[0, 1, 2]).unwrap();
    /// assert_eq!(stack.layers, plain.layers);
    /// let c0 = &stack.projection.as_ref().unwrap().matrix;
    /// assert_eq!(c0.len(), 3 * 16 * 32);
    /// assert!(c0.iter().all(|entry| entry.abs() <= 1.0 / 32f32.sqrt()));
    /// assert_eq!(stack.network(1), plain.network(1).with_projection(32, 0, &[1]).unwrap());
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] without variables, [`Error::Shape`] for other than
    /// one index a network, [`Error::Unsupported`] if it does not fit into memory.
    pub fn with_projection(self, variables: usize, seed: u64, indices: &[u64]) -> Result<Self> {
        if indices.len() != self.networks {
            return Err(shape_error!(
                "{} streams for {} networks: pass one for each",
                indices.len(),
                self.networks
            ));
        }
        let rows = self.layers.first().map_or(0, |layer| layer.inputs);
        Ok(Self { projection: Some(Projection::linear_init(rows, variables, seed, indices)?), ..self })
    }

    /// PyTorch's default initialization of `nn.Linear`: weights and biases uniform in
    /// ±1/sqrt(inputs of the layer). Network r draws from the stream `(seed, Init, indices[r])`,
    /// so it does not depend on the others.
    ///
    /// ```
    /// use precode_core::Weights;
    /// let stack = Weights::linear_init(&[32, 16, 1], 0, &[0, 1, 2]).unwrap();
    /// let alone = Weights::linear_init(&[32, 16, 1], 0, &[2]).unwrap();
    /// assert_eq!(stack.network(2), alone);
    /// assert!(alone.layers[0].weight.iter().all(|w| w.abs() <= 1.0 / 32f32.sqrt()));
    /// ```
    ///
    /// # Errors
    /// As [`Weights::zeros`].
    pub fn linear_init(widths: &[usize], seed: u64, indices: &[u64]) -> Result<Self> {
        let mut weights = Self::zeros(indices.len(), widths)?;
        // Each network's share of the buffers, so that nothing is held twice.
        let mut shares: Vec<Vec<Share>> = indices.iter().map(|_| Vec::new()).collect();
        for layer in &mut weights.layers {
            let bound = 1.0 / (layer.inputs as f32).sqrt();
            let parts = layer.weight.chunks_exact_mut(layer.inputs * layer.outputs);
            for ((share, weight), bias) in
                shares.iter_mut().zip(parts).zip(layer.bias.chunks_exact_mut(layer.outputs))
            {
                share.push((bound, weight, bias));
            }
        }
        shares.par_iter_mut().zip(indices).for_each(|(share, &index)| {
            let mut rng = stream(seed, Purpose::Init, index);
            for (bound, weight, bias) in share {
                let numbers = weight.iter_mut().chain(bias.iter_mut());
                numbers.for_each(|number| *number = rng.random_range(-*bound..=*bound));
            }
        });
        Ok(weights)
    }

    /// The widths `[inputs, hidden.., outputs]`.
    pub fn widths(&self) -> Vec<usize> {
        let first = self.layers.first().map(|layer| layer.inputs);
        first.into_iter().chain(self.layers.iter().map(|layer| layer.outputs)).collect()
    }

    /// C1 = W1 C0, (R, rows, variables): what codes are read from.
    ///
    /// ```
    /// use precode_core::{Embedding, Readout, Weights};
    /// let weights = Weights::linear_init(&[32, 16, 1], 0, &[0, 1, 2])?;
    /// let features = weights.features(&Embedding::Identity, 32)?;
    /// let output = weights.output(0)?;
    /// let readout = Readout::new(features.view(), output.view())?;
    /// assert_eq!((readout.networks(), readout.rows(), readout.variables()), (3, 16, 32));
    /// # Ok::<(), precode_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`validate`](Self::validate) and [`Embedding::features`].
    pub fn features(&self, embedding: &Embedding, variables: usize) -> Result<Array3<f64>> {
        self.validate()?;
        let Some(first) = self.layers.first() else {
            return Err(value_error!("a stack without layers has no features"));
        };
        let shape = (self.networks, first.outputs, first.inputs);
        let weights = ArrayView3::from_shape(shape, &first.weight)
            .map_err(|error| shape_error!("layer 1 of {} weights: {error}", first.weight.len()))?;
        let Some(projection) = &self.projection else { return embedding.features(weights, variables) };
        embedding.validate_projection(Some(projection.variables), variables)?;
        let own = projection.matrix.chunks_exact(first.inputs * variables);
        let features = weights.outer_iter().zip(own).flat_map(|(weights, c0)| {
            let weights: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
            let c0: Vec<f64> = c0.iter().map(|&entry| f64::from(entry)).collect();
            multiply(&weights, &c0, variables)
        });
        shaped(features.collect(), (self.networks, first.outputs, variables))
    }

    /// The weights of one output, (R, rows), in networks of one hidden layer.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); [`Error::Unsupported`] for another number of layers,
    /// [`Error::Value`] if there is no such output.
    pub fn output(&self, output: usize) -> Result<Array2<f64>> {
        self.validate()?;
        let [_, last] = self.layers.as_slice() else {
            return Err(Error::Unsupported(format!(
                "codes are read from networks of one hidden layer, not of widths {:?}",
                self.widths()
            )));
        };
        if output >= last.outputs {
            return Err(value_error!("output = {output}: there are {}, counted from 0", last.outputs));
        }
        let (rows, outputs) = (last.inputs, last.outputs);
        Ok(Array2::from_shape_fn((self.networks, rows), |(r, row)| {
            f64::from(last.weight[(r * outputs + output) * rows + row])
        }))
    }

    /// A copy of network `r` as a stack of one.
    ///
    /// # Panics
    /// If `r` is not below [`networks`](Self::networks).
    pub fn network(&self, r: usize) -> Self {
        let layers = self
            .layers
            .iter()
            .map(|layer| Layer {
                inputs: layer.inputs,
                outputs: layer.outputs,
                weight: layer.weight[r * layer.inputs * layer.outputs..][..layer.inputs * layer.outputs]
                    .to_vec(),
                bias: layer.bias[r * layer.outputs..][..layer.outputs].to_vec(),
            })
            .collect();
        let projection = self.projection.as_ref().map(|Projection { variables, matrix }| {
            let size = matrix.len() / self.networks;
            Projection { variables: *variables, matrix: matrix[r * size..][..size].to_vec() }
        });
        Self { networks: 1, layers, projection }
    }

    /// Checks what [`validate_shapes`](Self::validate_shapes) does, and that all values are finite.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`] naming the layer.
    pub fn validate(&self) -> Result<()> {
        self.validate_shapes()?;
        for (i, layer) in self.layers.iter().enumerate() {
            let values = layer.weight.iter().chain(&layer.bias);
            if let Some(bad) = values.into_iter().find(|value| !value.is_finite()) {
                return Err(value_error!("layer {} contains {bad}: weights must be finite", i + 1));
            }
        }
        let mut entries = self.projection.iter().flat_map(|projection| &projection.matrix);
        match entries.find(|entry| !entry.is_finite()) {
            Some(bad) => Err(value_error!("the projection C0 contains {bad}: its entries must be finite")),
            None => Ok(()),
        }
    }

    /// Checks that every buffer has the length its sizes state and that consecutive layers fit, without looking at
    /// the values: training may have diverged.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the layer.
    pub fn validate_shapes(&self) -> Result<()> {
        for (i, layer) in self.layers.iter().enumerate() {
            let expected = self.networks * layer.inputs * layer.outputs;
            if layer.weight.len() != expected || layer.bias.len() != self.networks * layer.outputs {
                return Err(shape_error!(
                    "layer {}: {} weights and {} biases do not fit {} networks of {} x {}",
                    i + 1,
                    layer.weight.len(),
                    layer.bias.len(),
                    self.networks,
                    layer.outputs,
                    layer.inputs
                ));
            }
        }
        for (i, pair) in self.layers.windows(2).enumerate() {
            if pair[0].outputs != pair[1].inputs {
                return Err(shape_error!(
                    "layer {} has {} outputs but layer {} takes {} inputs",
                    i + 1,
                    pair[0].outputs,
                    i + 2,
                    pair[1].inputs
                ));
            }
        }
        let inputs = self.layers.first().map_or(0, |layer| layer.inputs);
        match &self.projection {
            Some(Projection { variables, matrix }) if matrix.len() != self.networks * inputs * variables => {
                Err(shape_error!(
                    "projections C0 of {} entries: expected {} networks x {inputs} rows x {variables} variables",
                    matrix.len(),
                    self.networks
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Which weights may be nonzero, layer by layer; biases are never masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masks {
    /// For each layer (R, outputs, inputs) Booleans, row-major, or `None` where nothing is masked.
    pub layers: Vec<Option<Vec<bool>>>,
}

impl Masks {
    /// Checks the masks against a stack of `networks` networks of the given widths.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the layer.
    pub fn validate(&self, networks: usize, widths: &[usize]) -> Result<()> {
        if self.layers.len() + 1 != widths.len() {
            return Err(shape_error!(
                "{} masks for {} layers: pass one for each (None where nothing is masked)",
                self.layers.len(),
                widths.len().saturating_sub(1)
            ));
        }
        for (i, (mask, pair)) in self.layers.iter().zip(widths.windows(2)).enumerate() {
            let expected = networks * pair[0] * pair[1];
            if let Some(mask) = mask
                && mask.len() != expected
            {
                return Err(shape_error!(
                    "the mask of layer {} has {} entries: expected {networks} x {} x {}",
                    i + 1,
                    mask.len(),
                    pair[1],
                    pair[0]
                ));
            }
        }
        Ok(())
    }
}
