//! Counting on any processor.

use super::tile::{Counts, Lanes, ROWS, Tile};
use crate::cpu::Level;

/// Counts with `u64::count_ones`.
pub(super) struct Portable;

impl Tile for Portable {
    const LEVEL: Level = Level::Portable;

    #[inline(always)]
    unsafe fn add(rows: &[[u64; ROWS]], panel: &[Lanes], counts: &mut [Counts; ROWS]) {
        for (r, counts) in counts.iter_mut().enumerate() {
            for (words, lanes) in rows.iter().zip(panel) {
                for (count, lane) in counts.0.iter_mut().zip(&lanes.0) {
                    *count += (words[r] & lane).count_ones();
                }
            }
        }
    }
}
