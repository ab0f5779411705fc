//! The numbers of a stack in one buffer, so that an optimizer step is a handful of operations on
//! all layers at once.

use tch::{Device, Kind, Tensor};

use crate::error::Result;
use crate::stack::Stack;

/// A stack whose layers are views of one flat tensor, layer after layer: weights, then biases. A projection that is
/// trained comes last; one that is not is apart, so that no update can touch it.
pub(crate) struct Flat {
    /// All numbers that are trained, one axis.
    pub all: Tensor,
    /// The same memory as layers.
    pub stack: Stack,
    /// Variables of the projections in `all`.
    trained: Option<usize>,
}

impl Flat {
    /// Zeros for `networks` networks of the given widths, and for projections of so many variables where some are
    /// trained.
    pub fn zeros(
        networks: usize,
        widths: &[usize],
        trained: Option<usize>,
        options: (Kind, Device),
    ) -> Result<Self> {
        let r = networks as i64;
        let sizes: Vec<[i64; 2]> = widths.windows(2).map(|pair| [pair[1] as i64, pair[0] as i64]).collect();
        let projection =
            trained.map(|variables| [r, widths.first().map_or(0, |&m| m as i64), variables as i64]);
        let length: i64 = sizes.iter().map(|[outputs, inputs]| r * outputs * (inputs + 1)).sum();
        let projected: i64 = projection.iter().map(|size| size.iter().product::<i64>()).sum();
        let all = Tensor::f_zeros([length + projected], options)?;
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
        let projection = projection.map(|size| view(&size)).transpose()?;
        Ok(Self { stack: Stack { layers, projection }, all, trained })
    }

    /// Zeros in the form of what is trained.
    pub fn zeros_like(&self) -> Result<Self> {
        let options = (self.all.f_kind()?, self.all.device());
        Self::zeros(self.stack.networks(), &self.stack.widths(), self.trained, options)
    }

    /// A copy of a stack of tensors of any layout, kind and device; `trains_projection` says whether projections are
    /// among what is trained.
    pub fn copy_of(source: &Stack, trains_projection: bool, options: (Kind, Device)) -> Result<Self> {
        let trained = source.projected_variables().filter(|_| trains_projection);
        let mut flat = Self::zeros(source.networks(), &source.widths(), trained, options)?;
        for ((weight, bias), (from_weight, from_bias)) in flat.stack.layers.iter_mut().zip(&source.layers) {
            weight.f_copy_(from_weight)?;
            bias.f_copy_(from_bias)?;
        }
        if let Some(from) = &source.projection {
            let mut to = match flat.stack.projection.take() {
                Some(view) => view,
                None => Tensor::f_empty(from.size(), options)?,
            };
            to.f_copy_(from)?;
            flat.stack.projection = Some(to);
        }
        Ok(flat)
    }

    /// The networks numbered by `rows` (int64), copied in that order.
    pub fn rows(&self, rows: &Tensor) -> Result<Self> {
        let options = (self.all.f_kind()?, self.all.device());
        Self::copy_of(&self.stack.rows(rows)?, self.trained.is_some(), options)
    }
}
