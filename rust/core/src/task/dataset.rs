//! Boolean samples, bit-packed: about 4 bytes a sample at 32 variables.

use crate::error::{Result, allocate, shape_error, value_error};

/// Bits of a word of the packed inputs and labels.
pub const WORD_BITS: usize = u32::BITS as usize;

/// `samples` Boolean inputs over `variables` variables with `outputs` Boolean labels each.
///
/// Inputs are kept as `words_per_sample` little-endian 32-bit words a sample: variable `v` of
/// sample `s` is bit `v % 32` of word `s * words_per_sample + v / 32`. Labels are one bit stream:
/// output `o` of sample `s` is bit `s * outputs + o`. Unused bits are zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dataset {
    samples: usize,
    variables: usize,
    outputs: usize,
    inputs: Vec<u32>,
    labels: Vec<u32>,
}

impl Dataset {
    /// An all-False data set of the given size.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if a size is zero, [`Error::Unsupported`](crate::Error::Unsupported) if the samples
    /// do not fit into memory.
    pub fn zeros(samples: usize, variables: usize, outputs: usize) -> Result<Self> {
        for (name, size) in [("samples", samples), ("variables", variables), ("outputs", outputs)] {
            if size == 0 {
                return Err(value_error!("a data set needs at least 1 of each size, but {name} = 0"));
            }
        }
        let what = format!("a data set of {samples} samples of {variables} variables");
        let words = samples.checked_mul(variables.div_ceil(WORD_BITS));
        let bits = samples.checked_mul(outputs);
        Ok(Self {
            samples,
            variables,
            outputs,
            inputs: allocate(words, 0, &what)?,
            labels: allocate(bits.map(|bits| bits.div_ceil(WORD_BITS)), 0, &what)?,
        })
    }

    /// Packs row-major Booleans: `x` of shape (samples, variables), `y` of shape (samples, outputs).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if a length is not samples times the row width.
    pub fn from_bools(x: &[bool], y: &[bool], variables: usize, outputs: usize) -> Result<Self> {
        let samples = x.len() / variables.max(1);
        if x.len() != samples * variables || y.len() != samples * outputs {
            return Err(shape_error!(
                "x has {} entries and y has {}: expected samples x {variables} and samples x {outputs}",
                x.len(),
                y.len()
            ));
        }
        let mut data = Self::zeros(samples, variables, outputs)?;
        for (i, _) in x.iter().enumerate().filter(|(_, bit)| **bit) {
            data.set_input(i / variables, i % variables);
        }
        for (i, _) in y.iter().enumerate().filter(|(_, bit)| **bit) {
            data.labels[i / WORD_BITS] |= 1 << (i % WORD_BITS);
        }
        Ok(data)
    }

    /// The samples numbered by `rows`, in that order.
    ///
    /// ```
    /// use precode_core::Dataset;
    /// let data = Dataset::from_bools(&[true, false, false, true, true, true], &[true, false, true], 2, 1)?;
    /// let part = data.select(&[2, 1])?;
    /// assert_eq!(part.unpack_inputs(), [1, 1, 0, 1]);
    /// assert_eq!(part.unpack_labels(), [1, 0]);
    /// assert!(data.select(&[3]).is_err());
    /// # Ok::<(), precode_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there are no rows, or one is not below
    /// [`samples`](Self::samples).
    pub fn select(&self, rows: &[u32]) -> Result<Self> {
        let mut selected = Self::zeros(rows.len(), self.variables, self.outputs)?;
        for (to, &from) in rows.iter().enumerate() {
            let from = from as usize;
            if from >= self.samples {
                return Err(value_error!("sample {from} of {}: counted from 0", self.samples));
            }
            selected.input_mut(to).copy_from_slice(self.input(from));
            (0..self.outputs).filter(|&o| self.label(from, o)).for_each(|o| selected.set_label(to, o));
        }
        Ok(selected)
    }

    /// The same inputs with the labels of one output alone.
    ///
    /// ```
    /// use precode_core::Dataset;
    /// let data = Dataset::from_bools(&[true, false], &[true, false, false, true], 1, 2)?;
    /// assert_eq!(data.of_output(1)?.unpack_labels(), [0, 1]);
    /// assert!(data.of_output(2).is_err());
    /// # Ok::<(), precode_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there is no such output.
    pub fn of_output(&self, output: usize) -> Result<Self> {
        if output >= self.outputs {
            return Err(value_error!("output {output} of {}: counted from 0", self.outputs));
        }
        let mut chosen = Self::zeros(self.samples, self.variables, 1)?;
        chosen.inputs.copy_from_slice(&self.inputs);
        (0..self.samples).filter(|&s| self.label(s, output)).for_each(|s| chosen.set_label(s, 0));
        Ok(chosen)
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Number of Boolean variables of an input.
    pub fn variables(&self) -> usize {
        self.variables
    }

    /// Number of Boolean labels of a sample.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// 32-bit words that hold one sample's input.
    pub fn words_per_sample(&self) -> usize {
        self.variables.div_ceil(WORD_BITS)
    }

    /// The packed inputs, `samples * words_per_sample` words.
    pub fn inputs(&self) -> &[u32] {
        &self.inputs
    }

    /// The packed labels, one bit stream.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The packed input of one sample.
    pub fn input(&self, sample: usize) -> &[u32] {
        let words = self.words_per_sample();
        &self.inputs[sample * words..][..words]
    }

    /// Value of one variable in one sample.
    pub fn value(&self, sample: usize, variable: usize) -> bool {
        self.input(sample)[variable / WORD_BITS] >> (variable % WORD_BITS) & 1 == 1
    }

    /// Label of one sample at one output.
    pub fn label(&self, sample: usize, output: usize) -> bool {
        let bit = sample * self.outputs + output;
        self.labels[bit / WORD_BITS] >> (bit % WORD_BITS) & 1 == 1
    }

    /// Bytes of memory the packed bits take.
    pub fn bytes(&self) -> usize {
        (self.inputs.len() + self.labels.len()) * size_of::<u32>()
    }

    /// Unpacks the inputs, row-major (samples, variables), one byte a variable.
    pub fn unpack_inputs(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.samples * self.variables);
        for words in self.inputs.chunks_exact(self.words_per_sample()) {
            out.extend((0..self.variables).map(|v| (words[v / WORD_BITS] >> (v % WORD_BITS) & 1) as u8));
        }
        out
    }

    /// Unpacks the labels, row-major (samples, outputs), one byte a label.
    pub fn unpack_labels(&self) -> Vec<u8> {
        (0..self.samples * self.outputs)
            .map(|bit| (self.labels[bit / WORD_BITS] >> (bit % WORD_BITS) & 1) as u8)
            .collect()
    }

    pub(crate) fn set_input(&mut self, sample: usize, variable: usize) {
        let words = self.words_per_sample();
        self.inputs[sample * words + variable / WORD_BITS] |= 1 << (variable % WORD_BITS);
    }

    pub(crate) fn input_mut(&mut self, sample: usize) -> &mut [u32] {
        let words = self.words_per_sample();
        &mut self.inputs[sample * words..][..words]
    }

    pub(crate) fn set_label(&mut self, sample: usize, output: usize) {
        let bit = sample * self.outputs + output;
        self.labels[bit / WORD_BITS] |= 1 << (bit % WORD_BITS);
    }
}
