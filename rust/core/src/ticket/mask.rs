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

impl<'a, T: Copy + Into<f64>> Scores<'a, T> {
    /// The weights in flat order: (score, alive).
    fn weights(&self) -> impl Iterator<Item = (f64, bool)> {
        let mut alive = self.alive.as_ref().map(|alive| alive.iter());
        let mut alive = move || alive.as_mut().is_none_or(|alive| alive.next().copied().unwrap_or(false));
        self.values.iter().map(move |&score| (score.into(), alive()))
    }

    /// The unit of a weight, by its flat index.
    fn unit(&self, granularity: Granularity, weight: usize) -> usize {
        let (_, columns, inner) = self.values.dim();
        match granularity {
            Granularity::Weight => weight,
            Granularity::Row => weight / (columns * inner),
            Granularity::Column => weight / inner % columns,
        }
    }

    fn units<'s>(&'s self, granularity: Granularity) -> Units<'s, 'a, T> {
        let units = match granularity {
            Granularity::Weight => return Units::Weights(self),
            Granularity::Row => self.values.dim().0,
            Granularity::Column => self.values.dim().1,
        };
        let mut sums = vec![(0.0, 0usize); units];
        for (weight, (score, _)) in self.weights().enumerate().filter(|&(_, (_, alive))| alive) {
            let sum = &mut sums[self.unit(granularity, weight)];
            sum.0 += score;
            sum.1 += 1;
        }
        let mean = |(sum, count): (f64, usize)| (sum / count.max(1) as f64, count > 0);
        Units::Means(sums.into_iter().map(mean).collect())
    }
}

/// What is kept or pruned as one, in flat order.
enum Units<'s, 'a, T> {
    /// Each weight by itself. Large layers have many, so that nothing is stored of each.
    Weights(&'s Scores<'a, T>),
    /// (mean score, alive): a unit of several weights is alive if one of them is, and its score is the mean over its
    /// weights that are.
    Means(Vec<(f64, bool)>),
}

impl<T: Copy + Into<f64>> Units<'_, '_, T> {
    fn count(&self) -> usize {
        match self {
            Self::Weights(scores) => scores.values.len(),
            Self::Means(means) => means.len(),
        }
    }

    /// Visits the score of every unit, and whether it is alive.
    fn each(&self, mut visit: impl FnMut(f64, bool)) {
        match self {
            Self::Weights(scores) => scores.weights().for_each(|(score, alive)| visit(score, alive)),
            Self::Means(means) => means.iter().for_each(|&(score, alive)| visit(score, alive)),
        }
    }

    /// Which units are among the best.
    fn kept(&self, best: &mut Best) -> Vec<bool> {
        let mut kept = Vec::with_capacity(self.count());
        self.each(|score, alive| kept.push(alive && best.takes(score)));
        kept
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
    for (number, tensor) in tensors.iter().enumerate() {
        if let Some(alive) = tensor.alive.filter(|alive| alive.dim() != tensor.values.dim()) {
            return Err(shape_error!(
                "prunable tensor {number}: scores of shape {:?} beside a mask of shape {:?}",
                tensor.values.shape(),
                alive.shape()
            ));
        }
        for (i, (score, alive)) in tensor.weights().enumerate() {
            if alive && !score.is_finite() {
                return Err(value_error!(
                    "prunable tensor {number}: the score at flat index {i} is {score}: scores must be finite \
                     (did training diverge?)"
                ));
            }
        }
    }
    let units: Vec<Units<T>> = tensors.iter().map(|tensor| tensor.units(granularity)).collect();
    let kept: Vec<Vec<bool>> = match scope {
        Scope::PerLayer => units
            .iter()
            .map(|units| Ok(units.kept(&mut Best::of(std::slice::from_ref(units), density)?)))
            .collect::<Result<_>>()?,
        Scope::Global => {
            let mut best = Best::of(&units, density)?;
            units.iter().map(|units| units.kept(&mut best)).collect()
        }
    };
    tensors
        .iter()
        .zip(kept)
        .map(|(tensor, kept)| {
            let mask = match granularity {
                Granularity::Weight => kept,
                _ => {
                    let unit = |weight| kept[tensor.unit(granularity, weight)];
                    tensor.weights().enumerate().map(|(weight, (_, alive))| unit(weight) && alive).collect()
                }
            };
            shaped(mask, tensor.values.dim())
        })
        .collect()
}

/// Bits of a score that are looked at at a time.
const DIGIT: u32 = 8;

/// What tells the best units from the others, without a list of them.
struct Best {
    /// The key of the least score that is kept.
    least: u64,
    /// How many units of that score are kept.
    ties: usize,
}

impl Best {
    /// The best of some units that a density keeps: their least score is found digit by digit, in as many passes as it
    /// has digits.
    fn of<T: Copy + Into<f64>>(units: &[Units<T>], density: Density) -> Result<Self> {
        let total = units.iter().map(Units::count).sum();
        let keep = density.of(total)?;
        let (mut least, mut ties) = (0u64, keep);
        for shift in (0..u64::BITS).step_by(DIGIT as usize).rev() {
            let mut counts = [0usize; 1 << DIGIT];
            let known = least.checked_shr(shift + DIGIT).unwrap_or(0);
            for units in units {
                units.each(|score, alive| {
                    let key = key(score);
                    if alive && key.checked_shr(shift + DIGIT).unwrap_or(0) == known {
                        counts[(key >> shift) as usize & (counts.len() - 1)] += 1;
                    }
                });
            }
            let mut digit = counts.len() - 1;
            while counts[digit] < ties {
                if digit == 0 {
                    let left = keep - ties + counts[0];
                    return Err(value_error!(
                        "density = {} keeps {keep} of {total}, but only {left} are left to choose from",
                        density.value()
                    ));
                }
                ties -= counts[digit];
                digit -= 1;
            }
            least |= (digit as u64) << shift;
        }
        Ok(Self { least, ties })
    }

    /// Whether a unit is kept, asked of each in flat order.
    fn takes(&mut self, score: f64) -> bool {
        let key = key(score);
        let tied = key == self.least && self.ties > 0;
        self.ties -= usize::from(tied);
        key > self.least || tied
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
        ) {
            let values: Vec<f64> = scores.iter().map(|s| f64::from(s.0)).collect();
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
