//! Which weights a ticket keeps: densities, and the exact choice of the best-scored weights.

use ndarray::{Array3, ArrayView3};

use crate::error::{Result, shape_error, shaped, value_error};

/// The fraction of the prunable weights that is kept, in (0, 1].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Density(f64);

impl Density {
    /// A density.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if it is not in (0, 1].
    pub fn new(kept: f64) -> Result<Self> {
        if kept > 0.0 && kept <= 1.0 {
            Ok(Self(kept))
        } else {
            Err(value_error!("density = {kept}: the fraction of weights kept must be in (0, 1]"))
        }
    }

    /// The fraction kept.
    pub fn value(self) -> f64 {
        self.0
    }

    /// How many of `total` weights are kept: `density * total` rounded to the nearest integer, half to even.
    ///
    /// ```
    /// use precode_core::ticket::mask::Density;
    /// assert_eq!(Density::new(0.25)?.of(10)?, 2);
    /// assert_eq!(Density::new(0.35)?.of(10)?, 4);
    /// assert!(Density::new(0.01)?.of(10).is_err());
    /// # Ok::<(), precode_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if none would be kept.
    pub fn of(self, total: usize) -> Result<usize> {
        match (self.0 * total as f64).round_ties_even() as usize {
            0 => Err(value_error!(
                "density = {} keeps none of {total}: the least that keeps one is above {}",
                self.0,
                0.5 / total as f64
            )),
            kept => Ok(kept),
        }
    }
}

/// What is kept or pruned as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// Single weights.
    #[default]
    Weight,
    /// All weights of an output unit: a neuron, or a filter.
    Row,
    /// All weights of an input unit: a variable, or an input channel.
    Column,
}
named!(Granularity, "granularity", "weight" => Weight, "row" => Row, "column" => Column);

/// Over what the best scores are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All prunable weights of a network together.
    #[default]
    Global,
    /// Each layer by itself, all at the same density.
    PerLayer,
}
named!(Scope, "scope", "global" => Global, "per-layer" => PerLayer);

/// Scores of one prunable weight tensor of one network, in single or double precision.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a, T = f64> {
    /// One score for each weight, the larger the better: (output units, input units, weights for each pair of the two:
    /// 1, or the area of a convolution's window).
    pub values: ArrayView3<'a, T>,
    /// The weights that may be kept, of the same shape; `None` for all.
    pub alive: Option<ArrayView3<'a, bool>>,
}

impl<T> Scores<'_, T> {
    /// The unit of a weight, by its flat index.
    fn unit(&self, granularity: Granularity, weight: usize) -> usize {
        let (_, columns, inner) = self.values.dim();
        match granularity {
            Granularity::Weight => weight,
            Granularity::Row => weight / (columns * inner),
            Granularity::Column => weight / inner % columns,
        }
    }
}

/// Scores of one tensor in flat order, and which of them may be kept. Large layers have many, so that nothing is stored
/// of each.
struct Flat<'a, T> {
    scores: &'a [T],
    alive: Option<&'a [bool]>,
}

impl<T: Copy + Into<f64>> Flat<'_, T> {
    /// Visits the score of every weight, and whether it is alive.
    #[inline]
    fn each(&self, mut visit: impl FnMut(f64, bool)) {
        match self.alive {
            None => self.scores.iter().for_each(|&score| visit(score.into(), true)),
            Some(alive) => {
                self.scores.iter().zip(alive).for_each(|(&score, &alive)| visit(score.into(), alive));
            }
        }
    }

    /// The flat index and the score of the first weight that is alive and has no finite score.
    fn first_not_finite(&self) -> Option<(usize, f64)> {
        // Without a way out of the loop, which would forbid the compiler to look at several scores at once.
        let finite = |part: &[T]| part.iter().fold(true, |finite, &score| finite & score.into().is_finite());
        let is_alive = |i: usize| self.alive.is_none_or(|alive| alive[i]);
        self.scores.chunks(PART).enumerate().filter(|(_, part)| !finite(part)).find_map(|(number, part)| {
            let scored = part.iter().enumerate().map(|(i, &score)| (number * PART + i, score.into()));
            scored.filter(|&(i, _)| is_alive(i)).find(|(_, score)| !score.is_finite())
        })
    }

    /// Rows or columns in place of weights: the mean score over the weights of each that are alive, and whether one is.
    fn means(&self, units: usize, unit: impl Fn(usize) -> usize) -> (Vec<f64>, Vec<bool>) {
        let mut sums = vec![0.0; units];
        let mut counts = vec![0usize; units];
        let mut weight = 0;
        self.each(|score, alive| {
            if alive {
                sums[unit(weight)] += score;
                counts[unit(weight)] += 1;
            }
            weight += 1;
        });
        let means = sums.iter().zip(&counts).map(|(sum, &count)| sum / count.max(1) as f64).collect();
        (means, counts.iter().map(|&count| count > 0).collect())
    }
}

/// The masks of several tensors of units: those of the best scores.
fn kept<T: Copy + Into<f64>>(units: &[Flat<T>], density: Density, scope: Scope) -> Result<Vec<Vec<bool>>> {
    match scope {
        Scope::PerLayer => units
            .iter()
            .map(|units| Ok(Best::of(std::slice::from_ref(units), density)?.among(units)))
            .collect(),
        Scope::Global => {
            let mut best = Best::of(units, density)?;
            Ok(units.iter().map(|units| best.among(units)).collect())
        }
    }
}

/// The mask that keeps exactly `density` of one network's units, those of the largest scores; of equal
/// scores, those that come first (tensor by tensor, then by flat index).
///
/// With [`Granularity::Weight`] exactly `density.of(all weights)` weights are kept. The density is always of
/// all units, also of those that are no longer alive, so masks chosen among the survivors of another keep
/// their meaning.
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) if a score of an alive weight is not finite, if fewer units are alive than
/// must be kept, or if none would be kept (with [`Scope::PerLayer`], in one of the tensors);
/// [`Error::Shape`](crate::Error::Shape) if a tensor's parts differ in shape.
pub fn select<T: Copy + Into<f64>>(
    tensors: &[Scores<T>],
    density: Density,
    granularity: Granularity,
    scope: Scope,
) -> Result<Vec<Array3<bool>>> {
    // Views as they are where they lie in flat order already.
    let rows: Vec<_> = tensors
        .iter()
        .map(|tensor| {
            (
                tensor.values.as_standard_layout(),
                tensor.alive.as_ref().map(|alive| alive.as_standard_layout()),
            )
        })
        .collect();
    let weights: Vec<Flat<T>> = rows
        .iter()
        .map(|(values, alive)| Flat {
            scores: values.as_slice().unwrap_or_default(),
            alive: alive.as_ref().and_then(|alive| alive.as_slice()),
        })
        .collect();
    for (number, (tensor, weights)) in tensors.iter().zip(&weights).enumerate() {
        if let Some(alive) = tensor.alive.filter(|alive| alive.dim() != tensor.values.dim()) {
            return Err(shape_error!(
                "prunable tensor {number}: scores of shape {:?} beside a mask of shape {:?}",
                tensor.values.shape(),
                alive.shape()
            ));
        }
        if let Some((i, score)) = weights.first_not_finite() {
            return Err(value_error!(
                "prunable tensor {number}: the score at flat index {i} is {score}: scores must be finite \
                 (did training diverge?)"
            ));
        }
    }
    let masks = match granularity {
        Granularity::Weight => kept(&weights, density, scope)?,
        Granularity::Row | Granularity::Column => {
            let means: Vec<_> = tensors
                .iter()
                .zip(&weights)
                .map(|(tensor, weights)| {
                    let (rows, columns, _) = tensor.values.dim();
                    let units = if granularity == Granularity::Row { rows } else { columns };
                    weights.means(units, |weight| tensor.unit(granularity, weight))
                })
                .collect();
            let units: Vec<Flat<f64>> =
                means.iter().map(|(scores, alive)| Flat { scores, alive: Some(alive) }).collect();
            let of_weights = |((tensor, weights), kept): ((&Scores<T>, &Flat<T>), Vec<bool>)| {
                let mut mask = Vec::with_capacity(weights.scores.len());
                weights.each(|_, alive| mask.push(alive && kept[tensor.unit(granularity, mask.len())]));
                mask
            };
            tensors.iter().zip(&weights).zip(kept(&units, density, scope)?).map(of_weights).collect()
        }
    };
    tensors.iter().zip(masks).map(|(tensor, mask)| shaped(mask, tensor.values.dim())).collect()
}

/// Scores that are looked at before it is asked whether all were finite.
const PART: usize = 1 << 12;

/// Bits of a score that are looked at at a time.
const DIGIT: u32 = 16;

/// Units of which a list is made; in tests not even that many, so that they see what is done with more.
const FEW: usize = if cfg!(test) { 8 } else { 1 << 20 };

/// What tells the best units from the others.
struct Best {
    /// The key of the least score that is kept.
    least: u64,
    /// How many units of that score are kept.
    ties: usize,
}

impl Best {
    /// The best of some units that a density keeps. Where they are many, so that a list of them would take much memory,
    /// the least score is found digit by digit, until few units have the digits that are known.
    fn of<T: Copy + Into<f64>>(units: &[Flat<T>], density: Density) -> Result<Self> {
        let total = units.iter().map(|units| units.scores.len()).sum();
        let keep = density.of(total)?;
        let too_few = |left: usize| {
            value_error!(
                "density = {} keeps {keep} of {total}, but only {left} are left to choose from",
                density.value()
            )
        };
        // The bits of `least` from `shift` on are known: it is the key of the one at place `ties` of the `left` with them.
        let (mut least, mut shift, mut left, mut ties) = (0u64, u64::BITS, total, keep);
        let upper = |key: u64, shift| key.checked_shr(shift).unwrap_or(0);
        while left > FEW && shift > 0 {
            let known = upper(least, shift);
            let mut counts = vec![0usize; 1 << DIGIT];
            for units in units {
                units.each(|score, alive| {
                    let key = key(score);
                    if upper(key, shift) == known {
                        counts[(key >> (shift - DIGIT)) as usize & ((1 << DIGIT) - 1)] += usize::from(alive);
                    }
                });
            }
            let mut digit = counts.len() - 1;
            while counts[digit] < ties {
                ties -= counts[digit];
                digit = digit.checked_sub(1).ok_or_else(|| too_few(keep - ties))?;
            }
            shift -= DIGIT;
            least |= (digit as u64) << shift;
            left = counts[digit];
        }
        if shift > 0 {
            let known = upper(least, shift);
            let mut keys = Vec::with_capacity(left);
            for units in units {
                units.each(|score, alive| {
                    let key = key(score);
                    if upper(key, shift) == known && alive {
                        keys.push(key);
                    }
                });
            }
            let place = keys.len().checked_sub(ties).ok_or_else(|| too_few(keep - ties + keys.len()))?;
            let (_, &mut found, better) = keys.select_nth_unstable(place);
            ties -= better.iter().filter(|&&key| key > found).count();
            least = found;
        }
        Ok(Self { least, ties })
    }

    /// Which units are among the best, asked of all tensors in their order.
    fn among<T: Copy + Into<f64>>(&mut self, units: &Flat<T>) -> Vec<bool> {
        let mut kept = Vec::with_capacity(units.scores.len());
        units.each(|score, alive| {
            let key = key(score);
            // Nothing to branch on, since which weights are alive is not to be foreseen.
            let tied = alive & (key == self.least) & (self.ties > 0);
            self.ties -= usize::from(tied);
            kept.push(alive & (key > self.least) | tied);
        });
        kept
    }
}

/// A number that is larger for a larger score; the two zeros have the same.
fn key(score: f64) -> u64 {
    let score = score + 0.0;
    let bits = score.to_bits();
    if score.is_sign_negative() { !bits } else { bits | 1 << 63 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shaped<T>(values: &[T], shape: [usize; 3]) -> ArrayView3<'_, T> {
        ArrayView3::from_shape(shape, values).unwrap()
    }

    fn matrix(values: &[f64], rows: usize) -> Scores<'_> {
        Scores { values: shaped(values, [rows, values.len() / rows, 1]), alive: None }
    }

    fn masked<'a>(values: &'a [f64], alive: &'a [bool]) -> Scores<'a> {
        Scores { alive: Some(shaped(alive, [1, alive.len(), 1])), ..matrix(values, 1) }
    }

    fn flat(masks: Vec<Array3<bool>>) -> Vec<Vec<bool>> {
        masks.into_iter().map(|mask| mask.into_iter().collect()).collect()
    }

    fn density(kept: f64) -> Density {
        Density::new(kept).unwrap()
    }

    proptest! {
        #[test]
        fn the_choice_is_that_of_a_stable_sort(
            // Few different values, so that ties are common.
            scores in prop::collection::vec((-3i32..4, any::<bool>()), 1..40), kept in 0.01..1.0f64,
            // From the last bit of a score to the first.
            (base, unit) in prop_oneof![Just((0.0, 1.0)), (0..50).prop_map(|bit| (1.0, f64::EPSILON * f64::powi(2.0, bit)))],
        ) {
            let values: Vec<f64> = scores.iter().map(|s| base + f64::from(s.0) * unit).collect();
            let alive: Vec<bool> = scores.iter().map(|s| s.1).collect();
            let got = select(&[masked(&values, &alive)], density(kept), Granularity::Weight, Scope::Global);
            let keep = (kept * values.len() as f64).round_ties_even() as usize;
            let mut order: Vec<usize> = (0..values.len()).filter(|&i| alive[i]).collect();
            if keep == 0 || order.len() < keep {
                prop_assert!(got.is_err());
                return Ok(());
            }
            order.sort_by_key(|&i| -scores[i].0);
            let expected: Vec<bool> = (0..values.len()).map(|i| order[..keep].contains(&i)).collect();
            prop_assert_eq!(&flat(got.unwrap())[0], &expected);
        }
    }

    #[test]
    fn ties_go_to_the_lowest_index_of_the_first_tensor() {
        let (a, b) = ([0.0, -0.0, 1.0], [1.0, 0.0]);
        let got = select(&[matrix(&a, 1), matrix(&b, 1)], density(0.6), Granularity::Weight, Scope::Global)
            .unwrap();
        assert_eq!(flat(got), [vec![true, false, true], vec![true, false]]);
    }

    #[test]
    fn rows_and_columns_are_kept_whole() {
        let scores = [5.0, 0.0, 2.0, 2.0, 0.0, 3.0];
        let of = |granularity| {
            select(&[matrix(&scores, 3)], density(0.34), granularity, Scope::Global).unwrap()[0]
                .clone()
                .into_raw_vec_and_offset()
                .0
        };
        assert_eq!(of(Granularity::Row), [true, true, false, false, false, false]);
        let two = |granularity| {
            select(&[matrix(&scores, 3)], density(0.5), granularity, Scope::Global).unwrap()[0]
                .clone()
                .into_raw_vec_and_offset()
                .0
        };
        assert_eq!(two(Granularity::Column), [true, false, true, false, true, false]);
        // A window of two weights for each pair of units: column 1 holds the weights 2, 3, 6, 7.
        let windows = [0., 0., 1., 0., 0., 0., 0., 1.];
        let windows = Scores { values: shaped(&windows, [2, 2, 2]), alive: None };
        let got = select(&[windows], density(0.5), Granularity::Column, Scope::Global).unwrap();
        assert_eq!(flat(got)[0], [false, false, true, true, false, false, true, true]);
    }

    #[test]
    fn every_layer_has_the_density_per_layer() {
        let (a, b) = ([9.0, 8.0, 7.0, 6.0], [1.0, 2.0]);
        let of = |scope| {
            flat(select(&[matrix(&a, 2), matrix(&b, 1)], density(0.5), Granularity::Weight, scope).unwrap())
        };
        assert_eq!(of(Scope::PerLayer), [vec![true, true, false, false], vec![false, true]]);
        assert_eq!(of(Scope::Global), [vec![true, true, true, false], vec![false, false]]);
    }

    #[test]
    fn what_cannot_be_chosen_is_refused() {
        let refuse = |scores: Scores, kept: f64| {
            let error = select(&[scores], density(kept), Granularity::Weight, Scope::Global).unwrap_err();
            error.to_string()
        };
        assert!(refuse(matrix(&[1.0, f64::NAN], 1), 0.5).contains("flat index 1 is NaN"));
        assert!(refuse(matrix(&[1.0; 10], 1), 0.05).contains("keeps none of 10"));
        let alive = [true, false, false, false];
        assert!(refuse(masked(&[1.0; 4], &alive), 0.5).contains("only 1 are left"));
        let dead = masked(&[1.0, f64::NAN, 0.0, 0.0], &alive);
        let got = select(&[dead], density(0.25), Granularity::Weight, Scope::Global).unwrap();
        assert_eq!(flat(got)[0], [true, false, false, false]);
        let other = Scores { alive: Some(shaped(&alive, [1, 4, 1])), ..matrix(&[1.0; 3], 1) };
        assert!(refuse(other, 0.5).contains("[1, 3, 1] beside a mask of shape [1, 4, 1]"));
        for kept in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(Density::new(kept).unwrap_err().to_string().contains("must be in (0, 1]"));
        }
    }
}
