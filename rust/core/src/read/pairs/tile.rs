//! Counting the bits that blocks of codes share.
//!
//! The columns' codes lie in panels: word k of [`LANES`] codes side by side. One word of a row against
//! one word of a panel is then a whole vector of pairs, whatever the number of bits, and no vector is
//! ever summed across. Rows lie side by side as well, [`ROWS`] of them: read far apart, words at equal
//! offsets fall into one bank of the cache, and the loop takes half as long again.

use std::ops::Range;

use super::distance::{Distance, Rule};
use crate::Progress;
use crate::cpu::{Kernel, Kernels, Level, Selected};
use crate::error::Result;

/// Rows of a tile.
pub(super) const ROWS: usize = 4;
/// Codes of a panel, columns of a tile.
pub(super) const LANES: usize = 16;
/// Rows and columns of a block: its rows and its distances fit the second-level cache, its panels one
/// by one the first.
pub(super) const SIDE: usize = 256;
/// Words of a code that are counted before moving on to the next rows: a panel of so many stays in
/// the first-level cache.
const CHUNK: usize = 128;

/// One word of every code of a panel.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub [u64; LANES]);

/// Bits that one row shares with every code of a panel.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Counts(pub [u32; LANES]);

/// How bits are counted at one level.
pub(super) trait Tile {
    /// Reported by whatever ran it.
    const LEVEL: Level;

    /// Adds the bits that every row of `rows` shares with every code of `panel`, both of as many
    /// words, to `counts`.
    ///
    /// # Safety
    /// The processor must be able to run `LEVEL`.
    unsafe fn add(rows: &[[u64; ROWS]], panel: &[Lanes], counts: &mut [Counts; ROWS]);
}

/// Codes as rows and as columns, with the number of bits set in each.
#[derive(Clone, Debug)]
pub(super) struct Operands {
    pub words: usize,
    /// (tiles, words): a word of every row of a tile.
    pub rows: Vec<[u64; ROWS]>,
    /// (tiles, rows of a tile).
    pub row_norms: Vec<[u32; ROWS]>,
    /// (panels, words).
    pub panels: Vec<Lanes>,
    /// (panels, codes of a panel).
    pub column_norms: Vec<[u32; LANES]>,
}

impl Operands {
    /// Arranges the codes of the rows and of the columns, (count, words).
    pub fn new(rows: &[u64], columns: &[u64], words: usize) -> Self {
        Self {
            words,
            rows: interleave(rows, words, |words| words),
            row_norms: norms(rows, words),
            panels: interleave(columns, words, Lanes),
            column_norms: norms(columns, words),
        }
    }
}

/// Puts every word of N codes side by side; missing codes are zero.
fn interleave<const N: usize, L>(data: &[u64], words: usize, lanes: fn([u64; N]) -> L) -> Vec<L> {
    let groups = data.chunks(N * words);
    let side_by_side = |codes: &[u64], k: usize| {
        let mut side = [0; N];
        for (lane, code) in side.iter_mut().zip(codes.chunks_exact(words)) {
            *lane = code[k];
        }
        lanes(side)
    };
    groups.flat_map(|codes| (0..words).map(move |k| side_by_side(codes, k))).collect()
}

/// Bits set in each of N codes.
fn norms<const N: usize>(data: &[u64], words: usize) -> Vec<[u32; N]> {
    let norm = |code: &[u64]| code.iter().map(|word| word.count_ones()).sum();
    let group = |codes: &[u64]| {
        let mut norms = [0; N];
        norms.iter_mut().zip(codes.chunks_exact(words)).for_each(|(out, code)| *out = norm(code));
        norms
    };
    data.chunks(N * words).map(group).collect()
}

/// What one thread needs to compute blocks.
pub(super) struct Scratch<T> {
    counts: Vec<[Counts; ROWS]>,
    /// (rows of whole tiles, whole panels).
    distances: Vec<[T; LANES]>,
}

impl<T: Distance> Scratch<T> {
    pub fn new() -> Self {
        // Rows that do not start with a tile take part in one more.
        let tiles = SIDE / ROWS + 1;
        let distances = vec![[T::default(); LANES]; tiles * ROWS * SIDE / LANES];
        Self { counts: vec![[Counts([0; LANES]); ROWS]; tiles], distances }
    }

    /// The distances of `height` rows after the first `skip` ones, `width` each, without gaps.
    fn close_up(&mut self, skip: usize, height: usize, width: usize) -> &[T] {
        let stride = width.next_multiple_of(LANES);
        let distances = &mut self.distances.as_flattened_mut()[skip * stride..];
        if stride != width {
            for row in 1..height {
                distances.copy_within(row * stride..row * stride + width, row * width);
            }
        }
        &distances[..height * width]
    }
}

/// The distances of `rows` and `columns` (at most [`SIDE`] of each, the columns from the start of a
/// panel), row by row, and the level that ran.
pub(super) fn block<'s, T: Distance>(
    level: Selected,
    operands: &Operands,
    rule: Rule,
    rows: Range<usize>,
    columns: Range<usize>,
    scratch: &'s mut Scratch<T>,
    progress: &Progress,
) -> Result<(&'s [T], Level)> {
    let tiles = rows.start / ROWS..rows.end.div_ceil(ROWS);
    let panels = columns.start / LANES..columns.end.div_ceil(LANES);
    let ran = level.run(Count { operands, rule, tiles, panels, scratch, progress })?;
    Ok((scratch.close_up(rows.start % ROWS, rows.len(), columns.len()), ran))
}

/// Fills the distances of a scratch.
struct Count<'a, T> {
    operands: &'a Operands,
    rule: Rule,
    tiles: Range<usize>,
    panels: Range<usize>,
    scratch: &'a mut Scratch<T>,
    progress: &'a Progress,
}

impl<T: Distance> Kernel for Count<'_, T> {
    const GROUP: Kernels = Kernels::Pairs;
    type Output = Result<Level>;

    #[inline(always)]
    fn portable(self) -> Result<Level> {
        // SAFETY: any processor can run it.
        unsafe { self.with::<super::portable::Portable>() }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn avx2(self) -> Result<Level> {
        // SAFETY: as the caller promises.
        unsafe { self.with::<super::avx2::Avx2>() }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn avx512(self) -> Result<Level> {
        // SAFETY: as the caller promises.
        unsafe { self.with::<super::avx512::Avx512>() }
    }
}

impl<T: Distance> Count<'_, T> {
    /// Inlined once for every level, so that what follows the counting is vectorised alike.
    ///
    /// # Safety
    /// The processor must be able to run `K::LEVEL`.
    #[inline(always)]
    unsafe fn with<K: Tile>(self) -> Result<Level> {
        let Self { operands, rule, tiles, panels, scratch, progress } = self;
        let words = operands.words;
        let row_words = |tile: usize| &operands.rows[tile * words..][..words];
        let Scratch { counts, distances } = scratch;
        for (p, panel) in panels.clone().enumerate() {
            let lanes = &operands.panels[panel * words..][..words];
            let norms = &operands.column_norms[panel];
            let at = |t: usize| t * ROWS * panels.len() + p;
            if words <= CHUNK {
                progress.check()?;
                for (t, tile) in tiles.clone().enumerate() {
                    let mut counts = [Counts([0; LANES]); ROWS];
                    // SAFETY: the caller promises the features of `K::LEVEL`.
                    unsafe { K::add(row_words(tile), lanes, &mut counts) };
                    finish(
                        rule,
                        &counts,
                        &operands.row_norms[tile],
                        norms,
                        &mut distances[at(t)..],
                        panels.len(),
                    );
                }
            } else {
                let counts = &mut counts[..tiles.len()];
                counts.fill([Counts([0; LANES]); ROWS]);
                for (chunk, lanes) in lanes.chunks(CHUNK).enumerate() {
                    progress.check()?;
                    for (tile, counts) in tiles.clone().zip(&mut *counts) {
                        let words = &row_words(tile)[chunk * CHUNK..][..lanes.len()];
                        // SAFETY: the caller promises the features of `K::LEVEL`.
                        unsafe { K::add(words, lanes, counts) };
                    }
                }
                for ((t, tile), counts) in tiles.clone().enumerate().zip(counts) {
                    finish(
                        rule,
                        counts,
                        &operands.row_norms[tile],
                        norms,
                        &mut distances[at(t)..],
                        panels.len(),
                    );
                }
            }
        }
        Ok(K::LEVEL)
    }
}

/// Writes the distances of a tile to every `stride`-th place of `out`.
#[inline(always)]
fn finish<T: Distance>(
    rule: Rule,
    counts: &[Counts; ROWS],
    row_norms: &[u32; ROWS],
    column_norms: &[u32; LANES],
    out: &mut [[T; LANES]],
    stride: usize,
) {
    for ((counts, &norm), out) in counts.iter().zip(row_norms).zip(out.iter_mut().step_by(stride)) {
        *out = rule.finish(&counts.0, norm, column_norms);
    }
}
