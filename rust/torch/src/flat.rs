//! The numbers of a stack in one buffer, so that an optimizer step is a handful of operations on
//! all layers at once.

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::stack::Stack;

/// A stack whose layers are views of one flat tensor, layer after layer: weights, then biases.
pub(crate) struct Flat {
    /// All numbers, one axis.
    pub all: Tensor,
    /// The same memory as layers.
    pub stack: Stack,
}

impl Flat {
    /// Zeros for `networks` networks of the given widths.
    pub fn zeros(networks: usize, widths: &[usize], options: (Kind, Device)) -> Result<Self> {
        let r = networks as i64;
        let sizes: Vec<[i64; 2]> = widths.windows(2).map(|pair| [pair[1] as i64, pair[0] as i64]).collect();
        let length: i64 = sizes.iter().map(|[outputs, inputs]| r * outputs * (inputs + 1)).sum();
        let all = Tensor::f_zeros([length], options)?;
        let mut start = 0;
        let mut view = |size: &[i64]| -> Result<Tensor> {
            let length = size.iter().product();
            start += length;
            Ok(all.f_narrow(0, start - length, length)?.f_view(size)?)
        };
        let layers = sizes
            .iter()
            .map(|&[outputs, inputs]| Ok((view(&[r, outputs, inputs])?, view(&[r, outputs])?)))
            .collect::<Result<_>>()?;
        Ok(Self { stack: Stack { layers }, all })
    }

    /// Zeros of the same form.
    pub fn zeros_like(&self) -> Result<Self> {
        Self::zeros(self.stack.networks(), &self.stack.widths(), (self.all.f_kind()?, self.all.device()))
    }

    /// A copy of a stack of tensors of any layout, kind and device.
    pub fn copy_of(source: &Stack, options: (Kind, Device)) -> Result<Self> {
        let mut flat = Self::zeros(source.networks(), &source.widths(), options)?;
        for ((weight, bias), (from_weight, from_bias)) in flat.stack.layers.iter_mut().zip(&source.layers) {
            weight.f_copy_(from_weight)?;
            bias.f_copy_(from_bias)?;
        }
        Ok(flat)
    }

    /// The networks numbered by `rows` (int64), copied in that order.
    pub fn rows(&self, rows: &Tensor) -> Result<Self> {
        Self::copy_of(&self.stack.rows(rows)?, (self.all.f_kind()?, self.all.device()))
    }
}
