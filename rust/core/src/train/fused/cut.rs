//! The k-th largest of many numbers that change little from one time to the next.

/// Numbers within reach of the last answer that should be looked at: fewer are soon missed, more take time.
const WANTED: std::ops::Range<usize> = 16..64;

/// Finds the k-th largest among the numbers near the last answer, and looks further only where it is not among them.
pub(super) struct Cut {
    last: f32,
    reach: f32,
    near: Vec<f32>,
}

impl Default for Cut {
    fn default() -> Self {
        Self { last: 0.0, reach: f32::INFINITY, near: Vec::new() }
    }
}

impl Cut {
    /// The k-th largest of the values, k from 1 to their number; NaN where too few of them are numbers.
    #[inline(always)]
    pub(super) fn kth_largest(&mut self, values: &[f32], k: usize) -> f32 {
        loop {
            if !self.last.is_finite() {
                *self = Self::default();
            }
            let (low, high) = (self.last - self.reach, self.last + self.reach);
            let above = values.iter().map(|value| u32::from(*value > high)).sum::<u32>() as usize;
            let is_near = |value: &f32| (*value >= low) & (*value <= high);
            self.near.clear();
            for part in values.chunks(16) {
                if part.iter().fold(false, |any, value| any | is_near(value)) {
                    self.near.extend(part.iter().copied().filter(is_near));
                }
            }
            let count = self.near.len();
            if above < k && k <= above + count {
                let (_, kth, _) = self.near.select_nth_unstable_by(k - above - 1, |a, b| b.total_cmp(a));
                self.last = *kth;
                if !self.reach.is_finite() {
                    self.reach = kth.abs().max(f32::MIN_POSITIVE) / 16.0;
                } else if count < WANTED.start {
                    self.reach *= 2.0;
                } else if count >= WANTED.end {
                    self.reach = (self.reach / 2.0).max(f32::MIN_POSITIVE);
                }
                return self.last;
            }
            if self.reach == f32::INFINITY {
                return f32::NAN;
            }
            self.reach *= 8.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Cut;

    proptest! {
        #[test]
        fn it_is_what_sorting_finds(
            mut values in prop::collection::vec(-2.0f32..2.0, 1..300),
            moves in prop::collection::vec((0usize..300, -1.0f32..1.0), 0..40),
            share in 0.0f64..1.0,
            jump in prop::option::of(1.0f32..1e6),
        ) {
            let mut cut = Cut::default();
            let k = ((values.len() as f64 * share) as usize).max(1);
            for (at, by) in moves {
                let at = at % values.len();
                values[at] += by;
                if at % 7 == 0 {
                    values.iter_mut().for_each(|value| *value *= jump.unwrap_or(1.0));
                }
                let mut sorted = values.clone();
                sorted.sort_by(|a, b| b.total_cmp(a));
                prop_assert_eq!(cut.kth_largest(&values, k), sorted[k - 1]);
            }
        }
    }

    #[test]
    fn too_few_numbers_have_none() {
        let mut cut = Cut::default();
        assert!(cut.kth_largest(&[f32::NAN, 1.0], 2).is_nan());
        assert_eq!(cut.kth_largest(&[3.0, 1.0], 2), 1.0);
        assert_eq!(cut.kth_largest(&[0.0, 0.0, 0.0], 2), 0.0);
        assert_eq!(cut.kth_largest(&[0.0, 5.0, 0.0], 1), 5.0);
        assert_eq!(cut.kth_largest(&[f32::INFINITY, 5.0, 0.0], 1), f32::INFINITY);
        assert_eq!(cut.kth_largest(&[f32::INFINITY, 5.0, 0.0], 2), 5.0);
    }
}
