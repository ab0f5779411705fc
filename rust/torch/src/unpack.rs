//! Packed bits to bytes on the device: a bit a variable is what travels there.

use std::sync::Arc;

use precode_core::Dataset;
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// Bits of a word of a data set.
const WORD: usize = u32::BITS as usize;

/// Numbers that are worked on at a time, so that temporaries stay small on the CPU, and operations few on other devices.
pub(crate) fn at_once(cpu: i64, device: Device) -> i64 {
    if device == Device::Cpu { cpu } else { cpu.max(1 << 26) }
}

/// Writes the samples of all sets into bytes of (samples, sets, width): inputs, of which a narrower set fills the first,
/// and labels.
pub(crate) fn unpack(sets: &[&Arc<Dataset>], inputs: &Tensor, labels: &Tensor) -> Result<()> {
    let device = inputs.device();
    let mut begin = 0;
    for alike in sets.chunk_by(|one, other| one.variables() == other.variables()) {
        let (samples, variables) = (alike[0].samples(), alike[0].variables());
        let most = at_once(1 << 21, device) as usize / variables.max(1);
        // Whole words of labels begin at every 32nd sample.
        let rows = samples.min((most / WORD * WORD).max(WORD)).max(1);
        for part in alike.chunks((most / rows).max(1)) {
            for start in (0..samples).step_by(rows) {
                let len = rows.min(samples - start);
                let place = |bytes: &Tensor, width: usize| {
                    bytes
                        .f_narrow(0, start as i64, len as i64)?
                        .f_narrow(1, begin, part.len() as i64)?
                        .f_narrow(2, 0, width as i64)
                };
                let words = alike[0].words_per_sample();
                let packed = part.iter().map(|set| &set.inputs()[start * words..][..len * words]);
                let bits = spread(packed, device)?.f_view([part.len() as i64, len as i64, -1])?;
                place(inputs, variables)?
                    .f_copy_(&bits.f_narrow(2, 0, variables as i64)?.f_transpose(0, 1)?)?;
                let outputs = alike[0].outputs();
                let packed = part
                    .iter()
                    .map(|set| &set.labels()[start * outputs / WORD..][..(len * outputs).div_ceil(WORD)]);
                let bits = spread(packed, device)?.f_narrow(1, 0, (len * outputs) as i64)?;
                let size = [part.len() as i64, len as i64, outputs as i64];
                place(labels, outputs)?.f_copy_(&bits.f_reshape(size)?.f_transpose(0, 1)?)?;
            }
            begin += part.len() as i64;
        }
    }
    Ok(())
}

/// The bits of equally many words of each set, the lowest first, as numbers 0 and 1, (sets, bits).
fn spread<'a>(packed: impl ExactSizeIterator<Item = &'a [u32]>, device: Device) -> Result<Tensor> {
    let sets = packed.len() as i64;
    let mut words: Vec<i32> = Vec::new();
    for of_set in packed {
        words.extend(of_set.iter().map(|&word| word as i32));
    }
    let words = Tensor::f_from_slice(&words)?.f_to_device(device)?;
    let places = Tensor::f_arange(WORD as i64, (Kind::Int, device))?;
    let bits = words.f_unsqueeze(1)?.f_bitwise_right_shift(&places)?.f_bitwise_and(1)?;
    Ok(bits.f_view([sets, -1])?)
}
