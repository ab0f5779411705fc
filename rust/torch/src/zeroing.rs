//! Zeros where a mask prunes, in place, for tensors in memory.

use precode_core::cpu::{Kernels, Selected};
use precode_core::ticket::zeroing::{Bits, zero_pruned as zero};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::error::{Result, shape_error};

/// Weights from which several threads are worth it.
const MANY: usize = 1 << 18;

/// Sets values to zero where `kept` is false, in place, on at most so many threads of the present pool.
///
/// Autograd is not told: the values of a masked weight are what they were for whoever computed with them.
///
/// # Errors
/// Tensors that are not contiguous, not on the CPU, of different shapes, or of other kinds than floats and bool; as
/// [`Kernels::select`].
pub fn zero_pruned(values: &Tensor, kept: &Tensor, threads: usize) -> Result<()> {
    let right = |tensor: &Tensor| tensor.device() == Device::Cpu && tensor.is_contiguous();
    let fits = right(values) && right(kept) && kept.f_kind()? == Kind::Bool && values.size() == kept.size();
    let level = Kernels::Zeroing.select(None)?;
    match values.f_kind()? {
        Kind::Half | Kind::BFloat16 if fits => in_place::<u16>(values, kept, threads, level),
        Kind::Float if fits => in_place::<u32>(values, kept, threads, level),
        Kind::Double if fits => in_place::<u64>(values, kept, threads, level),
        kind => Err(shape_error!(
            "values of {kind:?} and shape {:?} beside a mask of shape {:?}: expected contiguous floats and bools of one \
             shape on the CPU",
            values.size(),
            kept.size()
        )),
    }
}

fn in_place<T: Bits + Send>(values: &Tensor, kept: &Tensor, threads: usize, level: Selected) -> Result<()> {
    let count = values.numel();
    if count == 0 {
        return Ok(());
    }
    // SAFETY: both are contiguous, on the CPU, of as many elements of that size, and outlive the slices; a bool is a
    // byte. Values and mask are different tensors, of different kinds.
    let (values, kept) = unsafe {
        (
            std::slice::from_raw_parts_mut(values.data_ptr().cast::<T>(), count),
            std::slice::from_raw_parts(kept.data_ptr().cast::<u8>(), count),
        )
    };
    if threads < 2 || count < MANY {
        return Ok(zero(values, kept, level)?);
    }
    let part = count.div_ceil(threads);
    let parts = values.par_chunks_mut(part).zip(kept.par_chunks(part));
    Ok(parts.try_for_each(|(values, kept)| zero(values, kept, level))?)
}
