//! Packed bits to bytes on the device: a bit a variable is what travels there.

use std::sync::Arc;

use precode_core::Dataset;
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// Bits of a word of a data set.
const WORD: usize = u32::BITS as usize;

/// Bits that are expanded at a time on the CPU, to 4 bytes each, twice.
pub(crate) const UNPACKED: i64 = 1 << 21;

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
        let (samples, variables, outputs) = (alike[0].samples(), alike[0].variables(), alike[0].outputs());
        let most = at_once(UNPACKED, device) as usize / variables.max(outputs).max(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets of different widths, of more samples than are expanded at a time, and of labels that share words.
    #[test]
    fn bits_are_those_that_the_data_set_unpacks() {
        let (samples, outputs) = (UNPACKED as usize / 64 + 45, 3);
        let sets: Vec<Arc<Dataset>> = [33, 64, 64]
            .iter()
            .enumerate()
            .map(|(number, &variables)| {
                let bit = |i: usize| (i * 2_654_435_761 + number) >> 13 & 1 == 1;
                let x: Vec<bool> = (0..samples * variables).map(bit).collect();
                let y: Vec<bool> = (0..samples * outputs).map(|i| bit(7 * i)).collect();
                Arc::new(Dataset::from_bools(&x, &y, variables, outputs).unwrap())
            })
            .collect();
        let bytes = (Kind::Uint8, Device::Cpu);
        let inputs = Tensor::zeros([samples as i64, 3, 64], bytes);
        let labels = Tensor::zeros([samples as i64, 3, outputs as i64], bytes);
        unpack(&sets.iter().collect::<Vec<_>>(), &inputs, &labels).unwrap();
        for (i, set) in (0..).zip(&sets) {
            let width = set.variables() as i64;
            let found: Vec<u8> = inputs.select(1, i).narrow(1, 0, width).reshape([-1]).try_into().unwrap();
            assert!(found == set.unpack_inputs());
            let found: Vec<u8> = labels.select(1, i).reshape([-1]).try_into().unwrap();
            assert!(found == set.unpack_labels());
        }
    }
}
