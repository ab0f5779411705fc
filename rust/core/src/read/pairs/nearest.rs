//! The nearest code to each.

use std::sync::atomic::{AtomicU64, Ordering};

use super::distance::Rule;
use super::{Block, Distance, Pairs};
use crate::Progress;
use crate::cpu::Level;
use crate::error::{Result, value_error};

/// The nearest code to each code of a stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest<T> {
    /// Which code of the other stack it is; of several, the first.
    pub indices: Vec<u32>,
    /// How far it is.
    pub distances: Vec<T>,
    /// The level that counted the bits.
    pub level: Level,
}

impl Pairs {
    /// The nearest of B's codes to each of A's: by overlap the one that shares the most. One stack
    /// against itself leaves out each code itself.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if there is but one code and nothing else; [`Error::Unsupported`](crate::Error::Unsupported) if distances
    /// can be beyond `T`; [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn nearest<T: Distance>(&self, progress: &Progress) -> Result<Nearest<T>> {
        if self.symmetric && self.shape.0 == 1 {
            return Err(value_error!("1 code has no nearest one: pass at least 2, or other codes"));
        }
        // The most shared bits are the fewest missing ones.
        let rule = if self.rule == Rule::Shared { Rule::Missing(self.bits as u32) } else { self.rule };
        let best: Vec<AtomicU64> = (0..self.shape.0).map(|_| AtomicU64::new(u64::MAX)).collect();
        let visit = |(), block: &Block<T>| {
            for (row, distances) in block.rows.clone().zip(block.distances.chunks_exact(block.columns.len()))
            {
                let own = row.wrapping_sub(block.columns.start);
                let nearest = if self.symmetric && own < distances.len() {
                    let after = first_smallest(&distances[own + 1..]).map(|(i, d)| (i + own + 1, d));
                    let before = first_smallest(&distances[..own]);
                    match (before, after) {
                        (Some(a), Some(b)) => Some(if b.1 < a.1 { b } else { a }),
                        (a, b) => a.or(b),
                    }
                } else {
                    first_smallest(distances)
                };
                if let Some((column, distance)) = nearest {
                    // The smaller distance has the smaller key, and among equals the first code.
                    let key = u64::from(distance.key()) << 32 | (block.columns.start + column) as u64;
                    best[row].fetch_min(key, Ordering::Relaxed);
                }
            }
            Ok(())
        };
        let ((), level) = self.run(rule, 0..self.shape.0, false, progress, || (), visit, |(), ()| ())?;
        let best = best.into_iter().map(AtomicU64::into_inner).map(|key| {
            let distance = T::from_key((key >> 32) as u32);
            let shared = || T::from_count(self.bits as u32 - distance.count());
            (key as u32, if self.rule == Rule::Shared { shared() } else { distance })
        });
        let (indices, distances) = best.unzip();
        Ok(Nearest { indices, distances, level })
    }
}

/// The smallest value and where it is first.
fn first_smallest<T: Distance>(values: &[T]) -> Option<(usize, T)> {
    let first = *values.first()?;
    // Two passes: the first has no branches and is vectorised.
    let smallest = values.iter().fold(first, |a, &b| if b < a { b } else { a });
    values.iter().position(|&value| value == smallest).map(|at| (at, smallest))
}
