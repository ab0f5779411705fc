//! Distances between all pairs of codes.
//!
//! Codes are stacks of bits ([`BitCodes`]) or of signs ([`TernaryCodes`]); [`Pairs`] compares every
//! code of one stack with every code of another, or of the same. Nothing has to be kept that is not
//! asked for: the whole matrix, some of its rows, blocks of it as they are computed, how often each
//! distance occurs, or only the nearest code to each.
//!
//! Every metric here follows from the number of bits that two codes share and the number that each
//! has, so that one loop counts for all of them; ternary codes are compared as bits of two or three
//! planes. The loop is written for each [`Level`] and chosen at run time; what was computed always
//! comes with the level that ran.

mod codes;
mod distance;
mod histogram;
mod metric;
mod nearest;
mod output;
mod portable;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(test)]
mod tests;

use std::ops::Range;

use ndarray::{Array2, ArrayViewMut2};
use rayon::prelude::*;

pub use codes::{BitCodes, TernaryCodes};
pub use distance::Distance;
pub use histogram::Histogram;
pub use metric::{CodeMetric, TernaryMetric};
pub use nearest::Nearest;
pub use output::Block;

use crate::Progress;
use crate::cpu::{Kernels, Level, Selected};
use crate::error::{Result, allocate, shape_error, shaped, value_error};
use distance::Rule;
use output::{Shared, reflect};
use tile::{Operands, SIDE, Scratch};

/// Words of a code from which on writing a distance to its mirror image is faster than computing it again.
const WORTH_MIRRORING: usize = 16;

/// All pairs of a code of one stack, A codes, and a code of another, B codes, or of the same.
///
/// ```
/// use precode_core::read::pairs::{BitCodes, CodeMetric, Pairs};
/// use precode_core::Progress;
/// use ndarray::array;
///
/// let codes = BitCodes::from_bytes(array![[0b0000], [0b0001], [0b1111]].view(), 4).unwrap();
/// let pairs = Pairs::new(&codes, None, CodeMetric::Hamming).unwrap();
/// let progress = Progress::default();
/// assert_eq!(pairs.to_array::<u8>(&progress).unwrap(), array![[0, 1, 4], [1, 0, 3], [4, 3, 0]]);
/// assert_eq!(pairs.histogram(&progress).unwrap().counts, [0, 1, 0, 1, 1]);
/// assert_eq!(pairs.nearest::<u8>(&progress).unwrap().indices, [1, 0, 1]);
/// ```
#[derive(Clone, Debug)]
pub struct Pairs {
    operands: Operands,
    shape: (usize, usize),
    /// One stack against itself.
    symmetric: bool,
    bits: usize,
    rule: Rule,
    level: Selected,
}

impl Pairs {
    /// Every code of `a` with every code of `b`, or with every code of `a` without `b`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the codes of `a` and `b` differ in length; as [`Kernels::select`].
    pub fn new(a: &BitCodes, b: Option<&BitCodes>, metric: CodeMetric) -> Result<Self> {
        if let Some(b) = b {
            same_length(a.bits(), b.bits(), "bits")?;
        }
        let rule = match metric {
            CodeMetric::Hamming => Rule::Differing,
            CodeMetric::Jaccard => Rule::Jaccard,
            CodeMetric::Overlap => Rule::Shared,
        };
        Self::prepare(a, b, rule)
    }

    /// Every ternary code of `a` with every code of `b`, or with every code of `a` without `b`.
    ///
    /// ```
    /// use precode_core::read::pairs::{Pairs, TernaryCodes, TernaryMetric};
    /// use precode_core::Progress;
    ///
    /// use ndarray::array;
    /// let codes = TernaryCodes::from_signs(array![[1, 0, -1], [1, 1, 1]].view()).unwrap();
    /// let distance = |metric| {
    ///     let pairs = Pairs::ternary(&codes, None, metric).unwrap();
    ///     pairs.to_array::<u8>(&Progress::default()).unwrap()[[0, 1]]
    /// };
    /// assert_eq!((distance(TernaryMetric::Mismatch), distance(TernaryMetric::L1)), (2, 3));
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn ternary(a: &TernaryCodes, b: Option<&TernaryCodes>, metric: TernaryMetric) -> Result<Self> {
        if let Some(b) = b {
            same_length(a.length(), b.length(), "signs")?;
        }
        let (planes, rule): (fn(&TernaryCodes) -> BitCodes, _) = match metric {
            TernaryMetric::Mismatch => (TernaryCodes::one_hot, Rule::Missing(a.length() as u32)),
            TernaryMetric::L1 => (TernaryCodes::two_hot, Rule::Differing),
        };
        Self::prepare(&planes(a), b.map(planes).as_ref(), rule)
    }

    fn prepare(a: &BitCodes, b: Option<&BitCodes>, rule: Rule) -> Result<Self> {
        let other = b.unwrap_or(a);
        Ok(Self {
            operands: Operands::new(a.data(), other.data(), a.words()),
            shape: (a.count(), other.count()),
            symmetric: b.is_none(),
            bits: a.bits(),
            rule,
            level: Kernels::Pairs.select(None)?,
        })
    }

    /// Counts bits at this level instead of the fastest.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if this processor cannot run it.
    pub fn at_level(self, level: Level) -> Result<Self> {
        Ok(Self { level: Kernels::Pairs.select(Some(level))?, ..self })
    }

    /// The level that will count the bits.
    pub fn level(&self) -> Level {
        self.level.level()
    }

    /// (A, B), the shape of the matrix of distances.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// The largest distance there can be, or `None` where distances are fractions.
    pub fn largest(&self) -> Option<usize> {
        (self.rule != Rule::Jaccard).then(|| self.rule.largest(self.bits))
    }

    /// All distances, (A, B).
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix); [`Error::Unsupported`](crate::Error::Unsupported) if they do not fit into memory.
    pub fn to_array<T: Distance>(&self, progress: &Progress) -> Result<Array2<T>> {
        let (rows, columns) = self.shape;
        let what = format!("the distances of {rows} x {columns} codes");
        let mut out = shaped(allocate(rows.checked_mul(columns), T::default(), &what)?, self.shape)?;
        self.matrix(out.view_mut(), progress)?;
        Ok(out)
    }

    /// Writes all distances, (A, B), to `out`. Of one stack against itself, long codes are compared once
    /// and reflected. Returns the level that ran.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `out` has another shape or is not row-major; [`Error::Unsupported`](crate::Error::Unsupported) if distances can be
    /// beyond `T`; [`Error::Interrupted`](crate::Error::Interrupted), with part of `out` written.
    pub fn matrix<T: Distance>(&self, out: ArrayViewMut2<T>, progress: &Progress) -> Result<Level> {
        if !self.symmetric || self.operands.words < WORTH_MIRRORING {
            return self.rows(0..self.shape.0, out, progress);
        }
        let out = Shared::new(out, self.shape)?;
        let visit = |mut reflection: Vec<T>, block: &Block<T>| {
            // SAFETY: every block of the upper triangle is visited once, and its mirror image lies
            // in the lower one.
            unsafe { out.write(block) };
            if block.rows != block.columns {
                reflect(block, &mut reflection);
                let (rows, columns) = (block.columns.clone(), block.rows.clone());
                // SAFETY: as above.
                unsafe { out.write(&Block { rows, columns, distances: &reflection }) };
            }
            Ok(reflection)
        };
        let (_, level) = self.run(self.rule, 0..self.shape.0, true, progress, Vec::new, visit, |a, _| a)?;
        Ok(level)
    }

    /// Writes the distances of some of A's codes, (rows, B), to `out`: for matrices that are too
    /// large to keep. Returns the level that ran.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there are no such rows; as [`matrix`](Self::matrix).
    pub fn rows<T: Distance>(
        &self,
        rows: Range<usize>,
        out: ArrayViewMut2<T>,
        progress: &Progress,
    ) -> Result<Level> {
        if rows.is_empty() || rows.end > self.shape.0 {
            return Err(value_error!("rows {rows:?} of {} codes: pass some that there are", self.shape.0));
        }
        let out = Shared::new(out, (rows.len(), self.shape.1))?;
        let first = rows.start;
        let visit = |(), block: &Block<T>| {
            let rows = block.rows.start - first..block.rows.end - first;
            // SAFETY: every block is visited once.
            unsafe { out.write(&Block { rows, ..block.clone() }) };
            Ok(())
        };
        let ((), level) = self.run(self.rule, rows, false, progress, || (), visit, |(), ()| ())?;
        Ok(level)
    }

    /// Hands over all distances, block by block and in no particular order, from several threads:
    /// every pair is in one block, and no more than a block a thread is kept. Ends at the first error
    /// of `visit`. Returns the level that ran.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use precode_core::read::pairs::{BitCodes, CodeMetric, Pairs};
    /// use precode_core::Progress;
    /// use ndarray::array;
    ///
    /// let codes = BitCodes::from_bytes(array![[0b0000], [0b0001], [0b1111]].view(), 4).unwrap();
    /// let pairs = Pairs::new(&codes, None, CodeMetric::Hamming).unwrap();
    /// let close = AtomicUsize::new(0);
    /// pairs
    ///     .for_each_block::<u8>(&Progress::default(), |block| {
    ///         close.fetch_add(block.distances.iter().filter(|&&d| d <= 1).count(), Ordering::Relaxed);
    ///         Ok(())
    ///     })
    ///     .unwrap();
    /// assert_eq!(close.into_inner(), 5);
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if distances can be beyond `T`; [`Error::Interrupted`](crate::Error::Interrupted); that of `visit`.
    pub fn for_each_block<T: Distance>(
        &self,
        progress: &Progress,
        visit: impl Fn(&Block<T>) -> Result<()> + Sync,
    ) -> Result<Level> {
        let visit = |(), block: &Block<T>| visit(block);
        let ((), level) = self.run(self.rule, 0..self.shape.0, false, progress, || (), visit, |(), ()| ())?;
        Ok(level)
    }

    /// Computes the blocks of some rows, or only those on and right of the diagonal, and folds them.
    #[allow(clippy::too_many_arguments)]
    fn run<T: Distance, S: Send>(
        &self,
        rule: Rule,
        rows: Range<usize>,
        upper: bool,
        progress: &Progress,
        init: impl Fn() -> S + Sync,
        visit: impl Fn(S, &Block<T>) -> Result<S> + Sync,
        merge: impl Fn(S, S) -> S + Sync,
    ) -> Result<(S, Level)> {
        rule.check::<T>(self.bits)?;
        let across = self.shape.1.div_ceil(SIDE);
        let blocks = rows.len().div_ceil(SIDE) * across;
        let state = (0..blocks)
            .into_par_iter()
            .filter(|block| !upper || block / across <= block % across)
            .try_fold(
                || None,
                |state: Option<(S, Scratch<T>, Level)>, block| {
                    let top = rows.start + block / across * SIDE;
                    let left = block % across * SIDE;
                    let (rows, columns) =
                        (top..(top + SIDE).min(rows.end), left..(left + SIDE).min(self.shape.1));
                    let (state, mut scratch) = match state {
                        Some((state, scratch, _)) => (state, scratch),
                        None => (init(), Scratch::new()),
                    };
                    let (distances, level) = tile::block(
                        self.level,
                        &self.operands,
                        rule,
                        rows.clone(),
                        columns.clone(),
                        &mut scratch,
                        progress,
                    )?;
                    let pairs = distances.len();
                    let state = visit(state, &Block { rows, columns, distances })?;
                    progress.advance(pairs as u64);
                    Ok(Some((state, scratch, level)))
                },
            )
            .map(|state| Ok(state?.map(|(state, _, level)| (state, level))))
            .try_reduce(
                || None,
                |a, b| {
                    Ok(match (a, b) {
                        (Some((a, level)), Some((b, _))) => Some((merge(a, b), level)),
                        (a, b) => a.or(b),
                    })
                },
            )?;
        Ok(state.unwrap_or_else(|| (init(), self.level())))
    }
}

fn same_length(a: usize, b: usize, what: &str) -> Result<()> {
    if a == b {
        Ok(())
    } else {
        Err(shape_error!("codes of {a} and of {b} {what}: only equal lengths compare"))
    }
}
