//! How far a row's weights on a clause are from a template.
//!
//! The distances are our definitions: that of arXiv 2605.17704 is not public.

use ndarray::Array3;
use rayon::prelude::*;

use crate::error::{Result, allocate, shaped};
use crate::read::codes::{Clauses, Readout, Real, mean_magnitude};
use crate::read::template::{Polarity, Template};

/// A distance between the weights `c` of a row at a clause's literals and a template's signs `t`.
/// Where a template allows several placements, the distance is that to the nearest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Literals whose sign is not the template's, 0 to k; a weight of zero never agrees.
    Hamming,
    /// Weight to be moved until every sign agrees: `sum max(0, -t c) / scale`.
    Soft,
    /// How far the worst literal is on the wrong side: `-min t c / scale`; negative when all agree.
    Margin,
    /// `1 - cos(c, t)`, 0 to 2; 1 for a row that is zero on the clause.
    Cosine,
    /// `-sum t c / scale`; negative when the row leans towards the template.
    SignedSum,
}

/// What distances in units of weight are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Mean absolute weight of the row in feature space.
    Row,
    /// Mean absolute weight of the network's first layer in feature space.
    Layer,
    /// Nothing.
    Unit,
}

/// What a row of the wrong polarity does to a distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolarityRule {
    /// Nothing.
    Ignore,
    /// One more, as for one more wrong sign.
    Add,
    /// The distance is infinite.
    Require,
}

named!(Metric, "metric", "hamming" => Hamming, "soft" => Soft, "margin" => Margin, "cosine" => Cosine,
    "signed_sum" => SignedSum);
named!(Scale, "scale", "row" => Row, "layer" => Layer, "none" => Unit);
named!(PolarityRule, "polarity rule", "ignore" => Ignore, "add" => Add, "require" => Require);

impl Metric {
    /// Distance of `values`, the weights at a clause's literals, from the nearest placement of
    /// `template`; sorts `values`.
    ///
    /// Putting the template's positive signs on the largest weights is nearest under every metric here:
    /// exchanging a + on a larger weight with a - on a smaller one never helps.
    ///
    /// ```
    /// use precode_core::read::distance::Metric;
    /// use precode_core::read::template::Template;
    /// let template: Template = "4P".parse().unwrap();
    /// let mut weights = [0.5, -1.0, 2.0, 1.0];
    /// assert_eq!(Metric::Hamming.nearest(&mut weights, template, 1.0), 1.0);
    /// assert_eq!(Metric::Soft.nearest(&mut weights, template, 2.0), 0.5);
    /// ```
    pub fn nearest(self, values: &mut [f64], template: Template, scale: f64) -> f64 {
        if template.negatives > 0 && template.positives > 0 {
            values.sort_unstable_by(|a, b| b.total_cmp(a));
        }
        let signed = |i: usize| if i < template.positives { values[i] } else { -values[i] };
        let products = (0..values.len()).map(signed);
        match self {
            Self::Hamming => products.filter(|&p| p <= 0.0).count() as f64,
            Self::Soft => products.map(|p| (-p).max(0.0)).sum::<f64>() / scale,
            Self::Margin => -products.fold(f64::INFINITY, f64::min) / scale,
            Self::SignedSum => -products.sum::<f64>() / scale,
            Self::Cosine => {
                let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
                if norm == 0.0 {
                    1.0
                } else {
                    1.0 - products.sum::<f64>() / (norm * (values.len() as f64).sqrt())
                }
            }
        }
    }
}

/// Mean absolute weights that distances are divided by; a scale of zero (all weights zero) becomes 1.
fn scales<T: Real>(readout: &Readout<T>, network: usize, scale: Scale) -> Vec<f64> {
    let positive = |value: f64| if value > 0.0 { value } else { 1.0 };
    match scale {
        Scale::Unit => vec![1.0; readout.rows()],
        Scale::Layer => vec![positive(readout.mean_magnitude(network)); readout.rows()],
        Scale::Row => {
            (0..readout.rows()).map(|row| positive(mean_magnitude(readout.row(network, row)))).collect()
        }
    }
}

/// Distance of every location from the template, (R, C, rows).
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) if the template's width is not the clauses'.
pub fn distances<T: Real>(
    readout: &Readout<T>,
    clauses: &Clauses,
    template: Template,
    metric: Metric,
    scale: Scale,
    rule: PolarityRule,
) -> Result<Array3<f64>> {
    template.check_width(clauses.width())?;
    let (count, rows) = (clauses.count(), readout.rows());
    let len = readout.networks().checked_mul(count).and_then(|len| len.checked_mul(rows));
    let mut out = allocate(len, 0.0, "the distances of so many locations")?;
    out.par_chunks_mut(count * rows).enumerate().for_each(|(r, network)| {
        let scales = scales(readout, r, scale);
        let polarities: Vec<Option<Polarity>> = readout.polarities(r).collect();
        let mut values = Vec::with_capacity(clauses.width());
        for (cell, distance) in network.iter_mut().enumerate() {
            let (clause, row) = (cell / rows, cell % rows);
            clauses.align(r, clause, readout.row(r, row), &mut values);
            *distance = metric.nearest(&mut values, template, scales[row]);
            if polarities[row] != Some(template.polarity) {
                match rule {
                    PolarityRule::Ignore => {}
                    PolarityRule::Add => *distance += 1.0,
                    PolarityRule::Require => *distance = f64::INFINITY,
                }
            }
        }
    });
    shaped(out, (readout.networks(), count, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::codes::of_slices;
    use ndarray::array;
    use proptest::prelude::*;

    /// The smallest distance over every placement of the template's signs, by the definitions.
    fn brute_force(metric: Metric, values: &[f64], template: Template, scale: f64) -> f64 {
        let k = values.len();
        (0..1u32 << k)
            .filter(|placement| placement.count_ones() as usize == template.positives)
            .map(|placement| {
                let t: Vec<f64> = (0..k).map(|i| if placement >> i & 1 == 1 { 1.0 } else { -1.0 }).collect();
                let dot: f64 = t.iter().zip(values).map(|(t, c)| t * c).sum();
                let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
                match metric {
                    Metric::Hamming => {
                        t.iter().zip(values).filter(|(t, c)| t.signum() * **c <= 0.0).count() as f64
                    }
                    Metric::Soft => t.iter().zip(values).map(|(t, c)| (-t * c).max(0.0)).sum::<f64>() / scale,
                    Metric::Margin => {
                        t.iter().zip(values).map(|(t, c)| -t * c / scale).fold(f64::NEG_INFINITY, f64::max)
                    }
                    Metric::SignedSum => -dot / scale,
                    Metric::Cosine if norm(values) == 0.0 => 1.0,
                    Metric::Cosine => 1.0 - dot / (norm(values) * norm(&t)),
                }
            })
            .fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn nearest_is_the_minimum_over_placements(
            values in prop::collection::vec(prop_oneof![Just(0.0), -2.0..2.0f64], 1..7),
            positives in 0usize..7, scale in 0.1..3.0f64,
        ) {
            let width = values.len();
            let positives = positives.min(width);
            let name = crate::read::template::pattern_name(positives, width - positives);
            let template: Template = name.parse().unwrap();
            for &metric in Metric::ALL {
                let expected = brute_force(metric, &values, template, scale);
                let got = metric.nearest(&mut values.clone(), template, scale);
                prop_assert!((got - expected).abs() < 1e-12, "{name}: {got} for {expected}");
            }
        }

        #[test]
        fn zero_exactly_when_the_signs_agree(values in prop::collection::vec(-2.0..2.0f64, 4)) {
            let template: Template = "4P".parse().unwrap();
            let agrees = values.iter().all(|&v| v > 0.0);
            let d = |metric: Metric| metric.nearest(&mut values.clone(), template, 1.0);
            prop_assert_eq!(d(Metric::Hamming) == 0.0, agrees);
            prop_assert_eq!(d(Metric::Soft) == 0.0, values.iter().all(|&v| v >= 0.0));
            prop_assert_eq!(d(Metric::Margin) < 0.0, agrees);
            prop_assert!((0.0..=2.0 + 1e-12).contains(&d(Metric::Cosine)));
            prop_assert!((0.0..=4.0).contains(&d(Metric::Hamming)) && d(Metric::Soft) >= 0.0);
        }
    }

    #[test]
    fn polarity_and_scale_rules() {
        use crate::task::formula::Literal;
        let clause = vec![0, 1].into_iter().map(Literal::from_signed).collect::<Vec<_>>();
        let clauses = Clauses::new(&[&[clause]], 1, 2).unwrap();
        // Row means 1 and 2, layer mean 1.5; the second row has the wrong polarity.
        let readout = of_slices([1, 2, 2], &[1.0f64, -1.0, -1.0, -3.0], &[1.0, -1.0]);
        let template: Template = "2P".parse().unwrap();
        let soft = |scale, rule| distances(&readout, &clauses, template, Metric::Soft, scale, rule).unwrap();
        assert_eq!(soft(Scale::Unit, PolarityRule::Ignore), array![[[1.0, 4.0]]]);
        assert_eq!(soft(Scale::Row, PolarityRule::Add), array![[[1.0, 3.0]]]);
        assert_eq!(soft(Scale::Layer, PolarityRule::Require), array![[[1.0 / 1.5, f64::INFINITY]]]);
        let wide: Template = "4P".parse().unwrap();
        assert!(distances(&readout, &clauses, wide, Metric::Soft, Scale::Unit, PolarityRule::Add).is_err());
        assert!(
            "euclid"
                .parse::<Metric>()
                .unwrap_err()
                .to_string()
                .contains("hamming, soft, margin, cosine, signed_sum")
        );
    }
}
