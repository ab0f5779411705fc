//! How often each distance occurs.

use super::{Block, Distance, Pairs};
use crate::Progress;
use crate::cpu::Level;
use crate::error::Result;

/// How often each distance occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Number of pairs at every distance, from 0 to the largest possible one.
    pub counts: Vec<u64>,
    /// The level that counted the bits.
    pub level: Level,
}

impl Pairs {
    /// How often each distance occurs. One stack against itself counts every two codes once, and no
    /// code with itself.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for [`CodeMetric::Jaccard`](super::CodeMetric::Jaccard), whose distances are not counts;
    /// [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn histogram(&self, progress: &Progress) -> Result<Histogram> {
        if self.rule.check::<u8>(self.bits).is_ok() {
            self.count::<u8>(progress)
        } else if self.rule.check::<u16>(self.bits).is_ok() {
            self.count::<u16>(progress)
        } else {
            self.count::<u32>(progress)
        }
    }

    fn count<T: Distance>(&self, progress: &Progress) -> Result<Histogram> {
        let zero = || vec![0u64; self.rule.largest(self.bits) + 1];
        let visit = |mut counts: Vec<u64>, block: &Block<T>| {
            for (row, distances) in block.rows.clone().zip(block.distances.chunks_exact(block.columns.len()))
            {
                let seen = if self.symmetric { (row + 1).saturating_sub(block.columns.start) } else { 0 };
                for &distance in distances.iter().skip(seen) {
                    counts[distance.count() as usize] += 1;
                }
            }
            Ok(counts)
        };
        let add = |mut a: Vec<u64>, b: Vec<u64>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        };
        let (counts, level) =
            self.run(self.rule, 0..self.shape.0, self.symmetric, progress, zero, visit, add)?;
        Ok(Histogram { counts, level })
    }
}
