//! Data sets on the device: one byte a variable, expanded batch by batch.

use std::sync::Arc;

use ndarray::Array2;
use precode_core::{Dataset, Embedding};
use tch::{Device, Kind, Tensor};

use crate::error::{Result, value_error};
use crate::unpack::unpack;

/// The data of R networks, all of the same number of samples. Networks that share one data set
/// share its memory.
pub(crate) struct Samples {
    /// (samples, sets, variables) bytes: all networks visit sample numbers in the same order, so a
    /// batch is a copy of whole rows.
    inputs: Tensor,
    /// (samples, sets, outputs) bytes.
    labels: Tensor,
    /// The set of each network.
    set_of: Vec<usize>,
    /// `set_of` on the device; `None` where it counts 0, 1, .., so that nothing need be picked.
    picks: Option<Tensor>,
    /// C0 transposed, (variables, rows); `None` for the identity, and where each network has its own.
    embedding: Option<Tensor>,
    kind: Kind,
}

/// Consecutive samples of a visit.
pub(crate) struct Block {
    inputs: Tensor,
    /// (R, samples, outputs) in the networks' kind.
    pub labels: Tensor,
}

impl Samples {
    /// Copies the data to the device. `data` are of one number of samples and outputs; fewer variables
    /// than the widest set's (possible under one Hadamard embedding) count as False.
    pub fn new(data: &[Arc<Dataset>], embedding: &Embedding, (kind, device): (Kind, Device)) -> Result<Self> {
        let mut sets: Vec<&Arc<Dataset>> = Vec::new();
        let mut known = std::collections::HashMap::new();
        let set_of: Vec<usize> = data
            .iter()
            .map(|set| {
                *known.entry(Arc::as_ptr(set)).or_insert_with(|| {
                    sets.push(set);
                    sets.len() - 1
                })
            })
            .collect();
        let Some(first) = sets.first() else {
            return Err(value_error!("no data sets: pass one for each network"));
        };
        let (samples, outputs) = (first.samples() as i64, first.outputs() as i64);
        let variables = sets.iter().map(|set| set.variables()).max().unwrap_or_default();
        for set in &sets {
            // Also refuses a dense matrix of another number of columns.
            embedding.validate(set.variables())?;
        }
        let bytes = (Kind::Uint8, device);
        let inputs = Tensor::f_zeros([samples, sets.len() as i64, variables as i64], bytes)?;
        let labels = Tensor::f_zeros([samples, sets.len() as i64, outputs], bytes)?;
        unpack(&sets, &inputs, &labels)?;
        let embedding = match embedding {
            Embedding::Identity | Embedding::Projection { .. } => None,
            map => {
                let matrix = from_matrix(map.matrix(variables)?)?;
                Some(matrix.f_to_kind(kind)?.f_to_device(device)?.f_transpose(0, 1)?.f_contiguous()?)
            }
        };
        let mut samples = Self { inputs, labels, set_of, picks: None, embedding, kind };
        samples.renew_picks()?;
        Ok(samples)
    }

    /// Number of samples.
    pub fn len(&self) -> i64 {
        self.inputs.size()[0]
    }

    /// Number of data sets held.
    pub fn sets(&self) -> i64 {
        self.inputs.size()[1]
    }

    /// Number of networks fed.
    pub fn networks(&self) -> i64 {
        self.set_of.len() as i64
    }

    /// Width of an unembedded input.
    pub fn variables(&self) -> i64 {
        self.inputs.size()[2]
    }

    /// Keeps only the given networks, in that order.
    pub fn keep(&mut self, networks: &[usize]) -> Result<()> {
        self.set_of = networks.iter().map(|&network| self.set_of[network]).collect();
        let mut used = self.set_of.clone();
        used.sort_unstable();
        used.dedup();
        // Dropping sets copies the rest, so it waits until a quarter of the memory is given back.
        if 4 * used.len() <= 3 * self.sets() as usize {
            let index = index_tensor(&used, self.inputs.device())?;
            self.inputs = self.inputs.f_index_select(1, &index)?;
            self.labels = self.labels.f_index_select(1, &index)?;
            for set in &mut self.set_of {
                *set = used.partition_point(|other| other < set);
            }
        }
        self.renew_picks()
    }

    /// The samples numbered by `order`.
    pub fn gather(&self, order: &Tensor) -> Result<Block> {
        self.block(self.inputs.f_index_select(0, order)?, self.labels.f_index_select(0, order)?)
    }

    /// The samples `start .. start + len`.
    pub fn range(&self, start: i64, len: i64) -> Result<Block> {
        self.block(self.inputs.f_narrow(0, start, len)?, self.labels.f_narrow(0, start, len)?)
    }

    /// The embedded inputs (R, len, rows) of samples `start .. start + len` of a block; the samples themselves where each
    /// network has its own C0.
    pub fn batch(&self, block: &Block, start: i64, len: i64) -> Result<Tensor> {
        let x = self.expand(&block.inputs.f_narrow(0, start, len)?)?;
        let x = match &self.embedding {
            None => x,
            Some(map) => {
                let size = x.size();
                x.f_view([size[0] * len, size[2]])?.f_mm(map)?.f_view([size[0], len, -1])?
            }
        };
        self.per_network(x)
    }

    fn block(&self, inputs: Tensor, labels: Tensor) -> Result<Block> {
        Ok(Block { inputs, labels: self.per_network(self.expand(&labels)?)? })
    }

    /// Bytes (samples, sets, width) to numbers (sets, samples, width).
    fn expand(&self, bytes: &Tensor) -> Result<Tensor> {
        let size = bytes.size();
        let mut out = Tensor::f_empty([size[1], size[0], size[2]], (self.kind, bytes.device()))?;
        out.f_copy_(&bytes.f_transpose(0, 1)?)?;
        Ok(out)
    }

    /// (sets, ..) to (R, ..); a view where it can be.
    fn per_network(&self, of_sets: Tensor) -> Result<Tensor> {
        let size = of_sets.size();
        match &self.picks {
            None => Ok(of_sets),
            Some(_) if size[0] == 1 => Ok(of_sets.f_expand([self.networks(), size[1], size[2]], false)?),
            Some(picks) => Ok(of_sets.f_index_select(0, picks)?),
        }
    }

    fn renew_picks(&mut self) -> Result<()> {
        let counts = self.set_of.len() as i64 == self.sets() && self.set_of.iter().copied().eq(0..);
        self.picks = if counts { None } else { Some(index_tensor(&self.set_of, self.inputs.device())?) };
        Ok(())
    }
}

/// A matrix as a tensor on the CPU.
pub(crate) fn from_matrix(matrix: Array2<f32>) -> Result<Tensor> {
    let size = [matrix.nrows() as i64, matrix.ncols() as i64];
    let entries: Vec<f32> = matrix.into_iter().collect();
    Ok(Tensor::f_from_slice(&entries)?.f_view(size)?)
}

/// An int64 tensor of row numbers.
pub(crate) fn index_tensor(rows: &[usize], device: Device) -> Result<Tensor> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    Ok(Tensor::f_from_slice(&rows)?.f_to_device(device)?)
}
