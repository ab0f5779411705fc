//! Stacks of bit-packed codes.

use ndarray::ArrayView2;

use crate::error::{Result, flat, shape_error, value_error};

/// A stack of codes of `bits` bits each, packed into 64-bit words; bit i of a code is bit i % 64 of
/// its word i / 64, and the bits past the end are zero.
///
/// ```
/// use precode_core::read::pairs::BitCodes;
/// use ndarray::array;
/// let codes = BitCodes::from_bools(array![[true, false, true], [false, false, true]].view()).unwrap();
/// assert_eq!((codes.count(), codes.bits(), codes.words()), (2, 3, 1));
/// assert_eq!(codes.code(0), [0b101]);
/// assert_eq!(codes, BitCodes::from_bytes(array![[0b101], [0b100]].view(), 3).unwrap());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitCodes {
    count: usize,
    bits: usize,
    data: Vec<u64>,
}

impl BitCodes {
    /// From one boolean per bit, (count, bits).
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there are no codes or no bits,
    /// [`Error::Shape`](crate::Error::Shape) if the values are not row-major.
    pub fn from_bools(values: ArrayView2<bool>) -> Result<Self> {
        let (count, bits) = values.dim();
        check(count, bits)?;
        Ok(Self { count, bits, data: pack(flat(values, "codes")?, bits, |&value| value) })
    }

    /// From packed bytes, (count, ceil(bits / 8)), least significant bit first: the layout of
    /// `numpy.packbits(values, axis=1, bitorder="little")`.
    ///
    /// # Errors
    /// As [`from_bools`](Self::from_bools); [`Error::Shape`](crate::Error::Shape) if a code has not as many bytes as its
    /// bits need, [`Error::Value`](crate::Error::Value) if a bit past its end is set.
    pub fn from_bytes(bytes: ArrayView2<u8>, bits: usize) -> Result<Self> {
        let (count, width) = bytes.dim();
        check(count, bits)?;
        if width != bits.div_ceil(8) {
            return Err(shape_error!(
                "codes of {bits} bits in {width} bytes: pass {} bytes each",
                bits.div_ceil(8)
            ));
        }
        let words = bits.div_ceil(64);
        let mut data = Vec::with_capacity(count * words);
        for (c, code) in flat(bytes, "codes")?.chunks_exact(width).enumerate() {
            for chunk in code.chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                data.push(u64::from_le_bytes(word));
            }
            if data.last().is_some_and(|&last| last & !last_mask(bits) != 0) {
                return Err(value_error!(
                    "code {c} has bits set past its {bits}: pack with bitorder=\"little\" and zero padding"
                ));
            }
        }
        Ok(Self { count, bits, data })
    }

    /// Number of codes, at least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bits of a code, at least 1.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Words of a code, `ceil(bits / 64)`.
    pub fn words(&self) -> usize {
        self.bits.div_ceil(64)
    }

    /// The words of one code.
    pub fn code(&self, index: usize) -> &[u64] {
        &self.data[index * self.words()..][..self.words()]
    }

    /// All words, (count, words).
    pub(super) fn data(&self) -> &[u64] {
        &self.data
    }
}

/// A stack of codes of `length` signs -1, 0 or +1, kept as two planes of bits.
///
/// ```
/// use precode_core::read::pairs::TernaryCodes;
/// use ndarray::array;
/// let codes = TernaryCodes::from_signs(array![[1, 0, -1], [0, 0, -1]].view()).unwrap();
/// assert_eq!((codes.count(), codes.length()), (2, 3));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TernaryCodes {
    count: usize,
    length: usize,
    positive: Vec<u64>,
    negative: Vec<u64>,
}

impl TernaryCodes {
    /// From one -1, 0 or +1 per sign, (count, length).
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there are no codes or no signs, or a value is not
    /// -1, 0 or +1; [`Error::Shape`](crate::Error::Shape) if the values are not row-major.
    pub fn from_signs(values: ArrayView2<i8>) -> Result<Self> {
        let (count, length) = values.dim();
        check(count, length)?;
        let values = flat(values, "codes")?;
        if let Some(i) = values.iter().position(|value| !(-1..=1).contains(value)) {
            return Err(value_error!("values contain {} at flat index {i}: use -1, 0 and +1", values[i]));
        }
        let (positive, negative) = (pack(values, length, |&v| v > 0), pack(values, length, |&v| v < 0));
        Ok(Self { count, length, positive, negative })
    }

    /// Number of codes, at least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Signs of a code, at least 1.
    pub fn length(&self) -> usize {
        self.length
    }

    /// One bit for +1 and one for -1: two codes differ in as many bits as their signs differ in sum.
    pub(super) fn two_hot(&self) -> BitCodes {
        self.join(&[&self.positive, &self.negative])
    }

    /// One bit for each of +1, -1 and 0: two codes share as many bits as they have equal signs.
    pub(super) fn one_hot(&self) -> BitCodes {
        let words = self.length.div_ceil(64);
        let mut zero: Vec<u64> = self.positive.iter().zip(&self.negative).map(|(p, n)| !(p | n)).collect();
        zero.iter_mut().skip(words - 1).step_by(words).for_each(|last| *last &= last_mask(self.length));
        self.join(&[&self.positive, &self.negative, &zero])
    }

    /// Sets planes side by side without gaps, so that short codes stay within one word.
    fn join(&self, planes: &[&[u64]]) -> BitCodes {
        let bits = planes.len() * self.length;
        let (from, to) = (self.length.div_ceil(64), bits.div_ceil(64));
        let mut data = vec![0; self.count * to];
        for (c, code) in data.chunks_exact_mut(to).enumerate() {
            for (p, plane) in planes.iter().enumerate() {
                for (w, &word) in plane[c * from..][..from].iter().enumerate() {
                    let (at, shift) = ((p * self.length) / 64 + w, (p * self.length) % 64);
                    code[at] |= word << shift;
                    let carry = word.unbounded_shr(64 - shift as u32);
                    if carry != 0 {
                        code[at + 1] |= carry;
                    }
                }
            }
        }
        BitCodes { count: self.count, bits, data }
    }
}

/// Bits of a code's last word that belong to it.
fn last_mask(bits: usize) -> u64 {
    u64::MAX >> (bits.wrapping_neg() % 64)
}

/// Packs `values` in codes of `bits` bits.
fn pack<V>(values: &[V], bits: usize, is_set: impl Fn(&V) -> bool) -> Vec<u64> {
    let word = |chunk: &[V]| chunk.iter().rev().fold(0, |word, value| word << 1 | u64::from(is_set(value)));
    values.chunks_exact(bits).flat_map(|code| code.chunks(64).map(word)).collect()
}

/// Refuses sizes that stacks of codes cannot have.
fn check(count: usize, bits: usize) -> Result<()> {
    if bits == 0 || bits > u32::MAX as usize / 3 {
        return Err(value_error!("codes of {bits} bits: use 1 to {}", u32::MAX / 3));
    }
    if count == 0 {
        return Err(value_error!("no codes: pass at least one"));
    }
    Ok(())
}
