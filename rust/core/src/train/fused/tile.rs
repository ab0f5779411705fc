//! Up to 64 samples of a batch, as bits.

use super::simd::Simd;
use crate::Dataset;
use crate::task::dataset::WORD_BITS;

/// Samples of a tile: one bit each in a word of 64.
pub(super) const TILE: usize = 64;

/// Places that the number of trailing zeros of a word can point to: 64 bits, and the null place.
pub(super) const PLACES: usize = TILE + 1;

/// The bits of a word from low to high, then 64 without end.
///
/// Compilers turn `word & (word - 1)` into one instruction, which competes for the same two ports as
/// counting zeros and scaling the index; a sum and an `and` run on any. So the -1 is hidden from them.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    word: u64,
    minus_one: u64,
}

/// -1, but not for the compiler: see [`Bits`].
#[inline(always)]
pub(super) fn minus_one() -> u64 {
    std::hint::black_box(u64::MAX)
}

impl Bits {
    #[inline(always)]
    pub(super) fn new(word: u64, minus_one: u64) -> Self {
        Self { word, minus_one }
    }

    /// Fours that cover the bits.
    #[inline(always)]
    pub(super) fn fours(&self) -> usize {
        self.word.count_ones().div_ceil(4) as usize
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.word == 0
    }

    /// The next bit, below [`PLACES`].
    #[inline(always)]
    pub(super) fn next(&mut self) -> usize {
        let next = self.word.trailing_zeros() as usize;
        self.word &= self.word.wrapping_add(self.minus_one);
        next
    }
}

/// Up to [`TILE`] samples: their inputs by sample and by variable, and their labels.
///
/// Variable v of a sample is bit v % 64 of its word v / 64.
pub(super) struct Tile {
    /// Samples in the tile.
    pub(super) samples: usize,
    /// Inputs: bit i of `inputs[w][b]` is variable 64 w + i of sample b. Zero beyond `samples`.
    pub(super) inputs: Vec<[u64; TILE]>,
    /// The same by variable: bit b of `members[w][i]` is variable 64 w + i of sample b.
    pub(super) members: Vec<[u64; TILE]>,
    /// Labels: bit b of word o is output o of sample b. Zero beyond `samples`.
    pub(super) labels: Vec<u64>,
}

impl Tile {
    pub(super) fn new(variables: usize, outputs: usize) -> Self {
        let words = variables.div_ceil(TILE);
        Self {
            samples: 0,
            inputs: vec![[0; TILE]; words],
            members: vec![[0; TILE]; words],
            labels: vec![0; outputs],
        }
    }

    /// Takes the samples that `order` numbers (at most [`TILE`]), without the variables that are not `alive`.
    #[inline(always)]
    pub(super) fn gather(
        &mut self,
        data: &Dataset,
        alive: &[u64],
        order: impl ExactSizeIterator<Item = usize>,
    ) {
        self.samples = order.len();
        if data.words_per_sample() > 1 || self.labels.len() > 1 {
            self.labels.fill(0);
            for (b, sample) in order.enumerate() {
                self.take_wide(data, alive, b, sample);
            }
        } else {
            let (inputs, labels, alive) = (data.inputs(), data.labels(), alive[0]);
            let mut bits = 0;
            for (b, sample) in order.enumerate() {
                self.inputs[0][b] = u64::from(inputs[sample]) & alive;
                let label = labels[sample / WORD_BITS] >> (sample % WORD_BITS) & 1;
                bits |= u64::from(label) << b;
            }
            self.labels[0] = bits;
        }
        for words in &mut self.inputs {
            words[self.samples..].fill(0);
        }
    }

    /// Takes one sample of more than 32 variables or several outputs.
    #[inline(never)]
    fn take_wide(&mut self, data: &Dataset, alive: &[u64], b: usize, sample: usize) {
        for ((words, halves), alive) in self.inputs.iter_mut().zip(data.input(sample).chunks(2)).zip(alive) {
            words[b] = join(halves) & alive;
        }
        for (output, labels) in self.labels.iter_mut().enumerate() {
            *labels |= u64::from(data.label(sample, output)) << b;
        }
    }

    /// Fills in `members`, for a backward pass.
    #[inline(always)]
    pub(super) fn transpose<S: Simd>(&mut self, s: S, variables: usize) {
        for (w, (inputs, members)) in self.inputs.iter().zip(&mut self.members).enumerate() {
            s.transpose_bits(inputs, members, (variables - w * TILE).min(TILE));
        }
    }

    /// The samples that exist, as bits.
    #[inline(always)]
    pub(super) fn valid(&self) -> u64 {
        u64::MAX >> (TILE - self.samples)
    }
}

/// Two 32-bit words of an input as one of 64 bits.
#[inline(always)]
fn join(halves: &[u32]) -> u64 {
    halves.iter().rev().fold(0, |word, half| word << WORD_BITS | u64::from(*half))
}

/// How far loops over samples and variables are padded, from how dense some data are. No result depends on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Padding {
    /// For each word of 64 variables, the most True variables that a sample has in it, rounded to even.
    pub(super) slots: Vec<usize>,
    /// For each place of each word, the fours of samples that cover its members in most tiles.
    pub(super) fours: Vec<[usize; TILE]>,
}

impl Padding {
    /// Counts the variables that are `alive`. Reads the data from end to end.
    #[inline(always)]
    pub(super) fn measure(data: &Dataset, alive: &[u64]) -> Self {
        let halves = data.words_per_sample();
        let mut slots = vec![0; alive.len()];
        for (w, (slots, alive)) in slots.iter_mut().zip(alive).enumerate() {
            let mut most = 0;
            if halves == 1 {
                for word in data.inputs() {
                    most = (word & *alive as u32).count_ones().max(most);
                }
            } else {
                for input in data.inputs().chunks_exact(halves) {
                    let word = join(&input[2 * w..(2 * w + 2).min(halves)]) & alive;
                    most = word.count_ones().max(most);
                }
            }
            // Even, as the forward pass adds columns in pairs.
            *slots = most.next_multiple_of(2) as usize;
        }
        Self { slots, fours: Vec::new() }
    }

    /// Estimates `fours` for tiles of up to `samples` samples from some that `order` numbers.
    #[inline(always)]
    pub(super) fn measure_members<S: Simd>(
        &mut self,
        s: S,
        tile: &mut Tile,
        data: &Dataset,
        alive: &[u64],
        order: &[u32],
        samples: usize,
    ) {
        let mut counts = vec![[0; TILE]; alive.len()];
        for numbers in order.chunks(TILE) {
            tile.gather(data, alive, numbers.iter().map(|sample| *sample as usize));
            tile.transpose(s, data.variables());
            let members = tile.members.as_flattened();
            for (count, members) in counts.as_flattened_mut().iter_mut().zip(members) {
                *count += members.count_ones();
            }
        }
        let fours = |count: u32| {
            let chance = f64::from(count) / order.len() as f64;
            let mean = chance * samples as f64;
            // A standard deviation above the mean: a column seldom needs more, so its loop nearly always
            // has the same length, which the CPU predicts.
            ((mean + (mean * (1.0 - chance)).sqrt()) / 4.0).ceil() as usize
        };
        self.fours = counts.into_iter().map(|counts| counts.map(fours)).collect();
    }
}
