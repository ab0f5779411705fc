//! The exact choice of the best weights of every network, from scores to masks.

use ndarray::{Array3, ArrayView3};
use precode_core::error::in_parallel;
use precode_core::ticket::mask::{self, Density, Granularity, Scope, Scores};
use tch::kind::Element;
use tch::{Device, Kind, Tensor};

use super::{Request, threshold};
use crate::error::{Result, shape_error, value_error};

/// The masks that keep exactly `density` of one network's weights, those of the largest `scores` over all tensors; of
/// equal scores those that come first.
///
/// Scores are one tensor of any shape for each prunable parameter, and so are `alive`, Boolean, which of them may be kept;
/// masks have the same shapes and devices.
///
/// ```
/// use precode_core::ticket::mask::Density;
/// use precode_torch::methods::best;
/// use tch::Tensor;
/// let scores = [Tensor::from_slice(&[1f32, 3.0]), Tensor::from_slice(&[2f32, 3.0])];
/// let masks = best(&scores, None, Density::new(0.5)?)?;
/// assert_eq!(Vec::<bool>::try_from(&masks[0])?, [false, true]);
/// assert_eq!(Vec::<bool>::try_from(&masks[1])?, [false, true]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`mask::select`]; tensors of different shapes.
pub fn best(scores: &[Tensor], alive: Option<&[Tensor]>, density: Density) -> Result<Vec<Tensor>> {
    let stacked = |tensors: &[Tensor]| -> Result<Vec<Tensor>> {
        tensors.iter().map(|tensor| Ok(tensor.f_unsqueeze(0)?)).collect()
    };
    let alive = alive.map(stacked).transpose()?;
    let masks = of_stacks(&stacked(scores)?, alive.as_deref(), density, Granularity::Weight, Scope::Global)?;
    masks.iter().map(|mask| Ok(mask.f_squeeze_dim(0)?)).collect()
}

/// The masks that keep exactly the requested density of each network's weights, those of the largest
/// `scores` (with [`Request::invert`], of the smallest) among the `alive` ones: one Boolean tensor for each
/// prunable parameter, on its device. `scores` and `alive` have the parameters' shapes (R, ..).
///
/// # Errors
/// As [`mask::select`], naming the network; shapes that do not fit together.
pub(crate) fn select(
    scores: &[Tensor],
    alive: Option<&[Tensor]>,
    density: Density,
    request: &Request,
) -> Result<Vec<Tensor>> {
    let (granularity, scope) = (request.granularity, request.scope);
    if !request.invert {
        return of_stacks(scores, alive, density, granularity, scope);
    }
    let inverted: Vec<Tensor> = scores.iter().map(|scores| Ok(scores.f_neg()?)).collect::<Result<_>>()?;
    of_stacks(&inverted, alive, density, granularity, scope)
}

/// As [`select`], of the largest scores.
pub(super) fn of_stacks(
    scores: &[Tensor],
    alive: Option<&[Tensor]>,
    density: Density,
    granularity: Granularity,
    scope: Scope,
) -> Result<Vec<Tensor>> {
    let sizes: Vec<Vec<i64>> = scores.iter().map(Tensor::size).collect();
    let devices: Vec<Device> = scores.iter().map(Tensor::device).collect();
    let Some(networks) = sizes.first().and_then(|size| size.first().copied()) else {
        return Err(value_error!("no prunable weights: name at least one"));
    };
    if let Some(size) = sizes.iter().find(|size| size.first() != Some(&networks)) {
        return Err(shape_error!("scores of shape {size:?} beside others of {networks} networks"));
    }
    // Large layers have many scores: those in float32 are looked at as they are, and shorter ones lose nothing in it.
    let double = scores.iter().any(|scores| scores.f_kind().is_ok_and(|kind| kind == Kind::Double));
    let kind = if double { Kind::Double } else { Kind::Float };
    let scores: Vec<Tensor> = scores
        .iter()
        .map(|scores| {
            // Not all devices have float64.
            let on_cpu = double && scores.device() == Device::Mps;
            Ok(place(&scores.f_detach()?, on_cpu)?.f_to_kind(kind)?)
        })
        .collect::<Result<_>>()?;
    let on_cuda = devices.iter().all(|device| matches!(device, Device::Cuda(_)));
    if on_cuda && granularity == Granularity::Weight {
        // What cannot be chosen is looked at once more on the CPU, and refused by name.
        if let Some(masks) = threshold::kept(&scores, alive, density, scope)? {
            return Ok(masks);
        }
    }
    let on_cpu = |tensor: &Tensor| Ok(place(tensor, true)?.f_contiguous()?);
    let scores: Vec<Tensor> = scores.iter().map(on_cpu).collect::<Result<_>>()?;
    let alive: Option<Vec<Tensor>> =
        alive.map(|alive| alive.iter().map(on_cpu).collect::<Result<_>>()).transpose()?;
    let shapes: Vec<[usize; 3]> = sizes.iter().map(|size| matrix_shape(&size[1..])).collect();
    let networks = networks as usize;
    let masks = if double {
        of_networks::<f64>(&scores, alive.as_deref(), &shapes, networks, density, granularity, scope)?
    } else {
        of_networks::<f32>(&scores, alive.as_deref(), &shapes, networks, density, granularity, scope)?
    };
    let mut masks: Vec<_> = masks.into_iter().map(Vec::into_iter).collect();
    sizes
        .iter()
        .zip(devices)
        .map(|(size, device)| {
            let of_parameter: Vec<Tensor> = masks
                .iter_mut()
                .filter_map(Iterator::next)
                .map(|mask| Ok(Tensor::f_from_slice(mask.as_slice().unwrap_or_default())?))
                .collect::<Result<_>>()?;
            let whole = match of_parameter.as_slice() {
                [one] => one.shallow_clone(),
                several => Tensor::f_cat(several, 0)?,
            };
            Ok(whole.f_view(size.as_slice())?.f_to_device(device)?)
        })
        .collect()
}

/// A tensor where it is, or on the CPU.
fn place(tensor: &Tensor, on_cpu: bool) -> Result<Tensor> {
    Ok(tensor.f_to_device(if on_cpu { Device::Cpu } else { tensor.device() })?)
}

/// The masks of every network: (networks, prunable parameters). Scores are contiguous on the CPU, and so is `alive`.
fn of_networks<T: Element + Copy + Into<f64> + Sync>(
    scores: &[Tensor],
    alive: Option<&[Tensor]>,
    shapes: &[[usize; 3]],
    networks: usize,
    density: Density,
    granularity: Granularity,
    scope: Scope,
) -> Result<Vec<Vec<Array3<bool>>>> {
    let scores: Vec<&[T]> = scores.iter().map(elements).collect::<Result<_>>()?;
    let alive: Option<Vec<&[bool]>> =
        alive.map(|alive| alive.iter().map(elements).collect::<Result<_>>()).transpose()?;
    let part = |i: usize, network: usize| {
        let size = shapes[i].iter().product::<usize>();
        network * size..(network + 1) * size
    };
    let of_network = |network: usize| -> Result<Vec<Array3<bool>>> {
        let tensors: Vec<Scores<T>> = (0..scores.len())
            .map(|i| {
                let alive = alive.as_ref().map(|alive| view(&alive[i][part(i, network)], shapes[i]));
                Ok(Scores {
                    values: view(&scores[i][part(i, network)], shapes[i])?,
                    alive: alive.transpose()?,
                })
            })
            .collect::<Result<_>>()?;
        mask::select(&tensors, density, granularity, scope).map_err(|error| match error {
            precode_core::Error::Value(message) => value_error!("network {network}: {message}"),
            other => other.into(),
        })
    };
    // One network needs no threads, which a forked process may not have.
    if networks == 1 { Ok(vec![of_network(0)?]) } else { in_parallel(networks, of_network) }
}

/// The elements of a contiguous tensor on the CPU, in place.
fn elements<T: Element>(tensor: &Tensor) -> Result<&[T]> {
    if tensor.device() != Device::Cpu || tensor.f_kind()? != T::KIND || !tensor.is_contiguous() {
        return Err(shape_error!("expected contiguous elements of {:?} on the CPU", T::KIND));
    }
    if tensor.numel() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the tensor has so many elements of this kind from there on, and lives as long as the slice.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), tensor.numel()) })
}

fn view<T>(values: &[T], shape: [usize; 3]) -> Result<ArrayView3<'_, T>> {
    ArrayView3::from_shape(shape, values)
        .map_err(|error| shape_error!("{} values of shape {shape:?}: {error}", values.len()))
}

/// Output units, input units, and weights for each pair of them, of a weight tensor (outputs, inputs, ..).
pub(super) fn matrix_shape(size: &[i64]) -> [usize; 3] {
    let axis = |i: usize| size.get(i).map_or(1, |&n| n as usize);
    match size.len() {
        // A vector of weights, such as those of one output: one output unit.
        1 => [1, axis(0), 1],
        _ => [axis(0), axis(1), size.iter().skip(2).product::<i64>() as usize],
    }
}

/// The elements of a tensor in row-major order.
pub(super) fn flat<T: tch::kind::Element + Clone + Default>(tensor: &Tensor) -> Result<Vec<T>> {
    let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut values = vec![T::default(); tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}
