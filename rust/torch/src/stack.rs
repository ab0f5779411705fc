//! Stacked networks as tensors.

use std::ops::Range;

use precode_core::Weights;
use tch::{Device, Kind, Tensor};

use crate::error::{Result, shape_error, unsupported, value_error};

/// R fully connected ReLU networks of the same widths, any depth, float dtype and device.
///
/// Layers stand from input to output, each as `weight` (R, outputs, inputs) and `bias` (R, outputs),
/// the layout of `torch.nn.Linear` with a leading network axis; ReLU between them, none after the last.
#[derive(Debug)]
pub struct Stack {
    /// `(weight, bias)` of each layer.
    pub layers: Vec<(Tensor, Tensor)>,
    /// C0 of each network, (R, inputs, variables), where the networks have one of their own in front of their layers.
    pub projection: Option<Tensor>,
}

impl Stack {
    /// Copies flat buffers into tensors.
    ///
    /// # Errors
    /// Sizes that do not fit or values that are not finite, naming the layer; libtorch errors, for
    /// example of a device that is not there.
    pub fn from_weights(weights: &Weights, kind: Kind, device: Device) -> Result<Self> {
        weights.validate()?;
        Self::from_buffers(weights, kind, device)
    }

    /// As [`from_weights`](Self::from_weights) without looking at the values: training may have diverged.
    pub(crate) fn from_buffers(weights: &Weights, kind: Kind, device: Device) -> Result<Self> {
        let r = weights.networks as i64;
        let tensor = |values: &[f32], size: &[i64]| -> Result<Tensor> {
            let flat = Tensor::f_from_slice(values)?.f_to_kind(kind)?.f_to_device(device)?;
            Ok(flat.f_view(size)?)
        };
        let layers = weights
            .layers
            .iter()
            .map(|layer| {
                let (inputs, outputs) = (layer.inputs as i64, layer.outputs as i64);
                Ok((tensor(&layer.weight, &[r, outputs, inputs])?, tensor(&layer.bias, &[r, outputs])?))
            })
            .collect::<Result<_>>()?;
        let projection = weights.projection.as_ref().map(|projection| {
            let inputs = weights.layers.first().map_or(0, |layer| layer.inputs as i64);
            tensor(&projection.matrix, &[r, inputs, projection.variables as i64])
        });
        Ok(Self { layers, projection: projection.transpose()? })
    }

    /// Copies the tensors into flat float32 buffers.
    ///
    /// # Errors
    /// As [`Stack::validate_shapes`].
    pub fn to_weights(&self) -> Result<Weights> {
        self.validate_shapes()?;
        let mut weights = Weights::zeros(self.networks(), &self.widths())?;
        for ((weight, bias), layer) in self.layers.iter().zip(&mut weights.layers) {
            read(weight, &mut layer.weight)?;
            read(bias, &mut layer.bias)?;
        }
        if let (Some(c0), Some(variables)) = (&self.projection, self.projected_variables()) {
            weights = weights.with_zero_projection(variables)?;
            weights.projection.iter_mut().try_for_each(|projection| read(c0, &mut projection.matrix))?;
        }
        Ok(weights)
    }

    /// Variables of the networks' own C0, where they have one.
    pub fn projected_variables(&self) -> Option<usize> {
        Some(self.projection.as_ref()?.size().get(2).copied().unwrap_or(0) as usize)
    }

    /// Number of networks, R.
    pub fn networks(&self) -> usize {
        self.layers.first().and_then(|(weight, _)| weight.size().first().copied()).unwrap_or(0) as usize
    }

    /// The widths `[inputs, hidden.., outputs]` of a stack of valid shapes.
    pub fn widths(&self) -> Vec<usize> {
        let axis = |weight: &Tensor, axis: usize| weight.size().get(axis).copied().unwrap_or(0) as usize;
        let first = self.layers.first().map(|(weight, _)| axis(weight, 2));
        first.into_iter().chain(self.layers.iter().map(|(weight, _)| axis(weight, 1))).collect()
    }

    /// Element type of the first layer; float32 for an empty stack.
    ///
    /// # Errors
    /// A dtype that tch does not know.
    pub fn kind(&self) -> Result<Kind> {
        Ok(self.layers.first().map_or(Ok(Kind::Float), |(weight, _)| weight.f_kind())?)
    }

    /// Device of the first layer; the CPU for an empty stack.
    pub fn device(&self) -> Device {
        self.layers.first().map_or(Device::Cpu, |(weight, _)| weight.device())
    }

    /// Checks shapes, dtypes, devices, and that all values are finite.
    ///
    /// # Errors
    /// What does not fit, naming the layer (counted from 1).
    pub fn validate(&self) -> Result<()> {
        self.validate_shapes()?;
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            for (name, tensor) in [("weight", weight), ("bias", bias)] {
                if tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                    return Err(value_error!(
                        "layer {}: the {name} contains NaN or infinity: weights must be finite",
                        i + 1
                    ));
                }
            }
        }
        if let Some(c0) = &self.projection
            && c0.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0
        {
            return Err(value_error!(
                "the projection C0 contains NaN or infinity: its entries must be finite"
            ));
        }
        Ok(())
    }

    /// Checks shapes, dtypes and devices without looking at the values.
    ///
    /// # Errors
    /// What does not fit, naming the layer (counted from 1).
    pub fn validate_shapes(&self) -> Result<()> {
        let (Some(&inputs), Ok(kind)) = (self.widths().first(), self.kind()) else {
            return Err(value_error!("a stack without layers: pass at least one (weight, bias) pair"));
        };
        check_kind(kind)?;
        let (networks, device) = (self.networks() as i64, self.device());
        if networks == 0 {
            return Err(value_error!("0 networks: pass at least one"));
        }
        let mut expected_inputs = inputs as i64;
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            let (i, weight_size, bias_size) = (i + 1, weight.size(), bias.size());
            let &[r, outputs, inputs] = weight_size.as_slice() else {
                return Err(shape_error!(
                    "layer {i}: the weight has shape {weight_size:?}, expected (networks, outputs, inputs)"
                ));
            };
            if r != networks || inputs != expected_inputs || outputs == 0 || inputs == 0 {
                return Err(shape_error!(
                    "layer {i}: the weight has shape {weight_size:?}, expected [{networks}, outputs, {expected_inputs}]"
                ));
            }
            if bias_size != [networks, outputs] {
                return Err(shape_error!(
                    "layer {i}: the bias has shape {bias_size:?}, expected [{networks}, {outputs}]"
                ));
            }
            for (name, tensor) in [("weight", weight), ("bias", bias)] {
                if tensor.f_kind()? != kind || tensor.device() != device {
                    return Err(shape_error!(
                        "layer {i}: the {name} is {:?} on {:?}, expected {kind:?} on {device:?} as the first layer",
                        tensor.f_kind()?,
                        tensor.device()
                    ));
                }
            }
            expected_inputs = outputs;
        }
        if let Some(c0) = &self.projection {
            let size = c0.size();
            if size.len() != 3 || size[0] != networks || size[1] != inputs as i64 || size[2] == 0 {
                return Err(shape_error!(
                    "the projection C0 has shape {size:?}, expected [{networks}, {inputs}, variables]"
                ));
            }
            if c0.f_kind()? != kind || c0.device() != device {
                return Err(shape_error!(
                    "the projection C0 is {:?} on {:?}, expected {kind:?} on {device:?} as the first layer",
                    c0.f_kind()?,
                    c0.device()
                ));
            }
        }
        Ok(())
    }

    /// A copy of one network as a stack of one.
    ///
    /// # Errors
    /// `network` is not below [`networks`](Self::networks).
    pub fn select(&self, network: usize) -> Result<Self> {
        if network >= self.networks() {
            return Err(value_error!("network {network} of {}: counted from 0", self.networks()));
        }
        self.map(|tensor| Ok(tensor.f_narrow_copy(0, network as i64, 1)?))
    }

    /// A copy with another element type or on another device, cut off from any autograd graph.
    ///
    /// # Errors
    /// libtorch errors, for example of a device that is not there.
    pub fn copy_to(&self, kind: Kind, device: Device) -> Result<Self> {
        self.map(|tensor| {
            let size = tensor.size();
            let mut copy = Tensor::f_empty(size, (kind, device))?;
            copy.f_copy_(&tensor.f_detach()?)?;
            Ok(copy)
        })
    }

    /// Another handle on the same tensors (tensors can be sent to another thread but not shared).
    pub fn shallow_clone(&self) -> Self {
        let clone = |(weight, bias): &(Tensor, Tensor)| (weight.shallow_clone(), bias.shallow_clone());
        let projection = self.projection.as_ref().map(Tensor::shallow_clone);
        Self { layers: self.layers.iter().map(clone).collect(), projection }
    }

    /// The networks numbered by `rows` (int64), copied in that order.
    pub(crate) fn rows(&self, rows: &Tensor) -> Result<Self> {
        self.map(|tensor| Ok(tensor.f_index_select(0, rows)?))
    }

    /// A view of consecutive networks.
    pub(crate) fn range(&self, rows: &Range<usize>) -> Result<Self> {
        self.map(|tensor| Ok(tensor.f_narrow(0, rows.start as i64, rows.len() as i64)?))
    }

    /// One stack of the networks of all, in order.
    pub(crate) fn concatenate(stacks: &[&Self]) -> Result<Self> {
        let join = |i: usize, pick: fn(&(Tensor, Tensor)) -> &Tensor| -> Result<Tensor> {
            let parts: Vec<&Tensor> = stacks.iter().map(|stack| pick(&stack.layers[i])).collect();
            Ok(Tensor::f_cat(&parts, 0)?)
        };
        let depth = stacks.first().map_or(0, |stack| stack.layers.len());
        let layers = (0..depth).map(|i| Ok((join(i, |layer| &layer.0)?, join(i, |layer| &layer.1)?)));
        let projections: Option<Vec<&Tensor>> =
            stacks.iter().map(|stack| stack.projection.as_ref()).collect();
        let projection = projections.filter(|all| !all.is_empty()).map(|all| Tensor::f_cat(&all, 0));
        Ok(Self { layers: layers.collect::<Result<_>>()?, projection: projection.transpose()? })
    }

    fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let layers = self.layers.iter().map(|(weight, bias)| Ok((f(weight)?, f(bias)?)));
        let projection = self.projection.as_ref().map(&f).transpose()?;
        Ok(Self { layers: layers.collect::<Result<_>>()?, projection })
    }
}

/// Refuses element types that networks cannot have.
pub(crate) fn check_kind(kind: Kind) -> Result<()> {
    match kind {
        Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double => Ok(()),
        other => Err(unsupported!(
            "networks of {other:?}: weights must be float32 or float64 (or float16, bfloat16)"
        )),
    }
}

fn read(tensor: &Tensor, into: &mut [f32]) -> Result<()> {
    let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    Ok(flat.f_copy_data(into, into.len())?)
}
