//! What codes and distances look like by chance. The fourth null, false clauses, is
//! [`Dnf::false_clauses`](crate::task::formula::Dnf::false_clauses).

use ndarray::{Array3, ArrayView2, ArrayView3};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::error::{Result, shape_error, shaped, value_error};
use crate::read::codes::{Readout, Real, sign, validate_floor};
use crate::read::template::{Polarity, Template};
use crate::task::formula::binomial;
use crate::task::rng::{Purpose, stream};

/// Probability of each Hamming distance 0..=k from `template` when every sign is + or - with
/// probability 1/2. For an all-positive template this is Binomial(k, 1/2); a template with several
/// placements is `|positives - wanted|` away.
///
/// ```
/// use precode_core::read::nulls::hamming_probabilities;
/// let p = hamming_probabilities("4P".parse().unwrap());
/// assert_eq!(p[0] + p[1], 5.0 / 16.0);
/// ```
pub fn hamming_probabilities(template: Template) -> Vec<f64> {
    let width = template.width();
    let mut out = vec![0.0; width + 1];
    for positives in 0..=width {
        out[positives.abs_diff(template.positives)] += binomial(width, positives) / 2f64.powi(width as i32);
    }
    out
}

/// Row-permuted null: every network's channels (R, C, rows) with the codes re-assigned to random rows of
/// the same polarity, so that each row keeps its load but belongs to another row's weights. `output` (R, rows)
/// are the output weights. Network r draws from the stream `(seed, RowPermutation, index + r)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes do not fit, [`Error::Value`](crate::Error::Value) if an output
/// weight is not finite.
pub fn permute_rows<T: Real>(
    channels: ArrayView3<bool>,
    output: ArrayView2<T>,
    seed: u64,
    index: u64,
) -> Result<Array3<bool>> {
    let (networks, _, rows) = channels.dim();
    if output.dim() != (networks, rows) {
        return Err(shape_error!(
            "output weights of shape {:?} do not fit channels of shape {:?}: expected {:?}",
            output.shape(),
            channels.shape(),
            [networks, rows]
        ));
    }
    if let Some(&bad) = output.iter().find(|&&weight| !weight.into().is_finite()) {
        return Err(value_error!("output weights contain {}: they must be finite", bad.into()));
    }
    let mut out = Array3::from_elem(channels.dim(), false);
    for (r, (channels, mut out)) in channels.outer_iter().zip(out.outer_iter_mut()).enumerate() {
        let mut rng = stream(seed, Purpose::RowPermutation, index.wrapping_add(r as u64));
        let polarity = |row: usize| Polarity::of(output[[r, row]].into());
        let mut target: Vec<usize> = (0..rows).collect();
        for wanted in [Some(Polarity::Positive), Some(Polarity::Negative), None] {
            let members: Vec<usize> = (0..rows).filter(|&row| polarity(row) == wanted).collect();
            let mut shuffled = members.clone();
            shuffled.shuffle(&mut rng);
            members.iter().zip(shuffled).for_each(|(&from, to)| target[from] = to);
        }
        for ((clause, row), &carried) in channels.indexed_iter() {
            out[[clause, target[row]]] = carried;
        }
    }
    Ok(out)
}

/// Random-network null (arXiv 2504.08842, section 4): signs (R, rows, n) drawn independently with each
/// network's own fraction of positive entries; magnitudes up to `floor` count as zero and stay zero. Polarities
/// are the network's own. Network r draws from the stream `(seed, RandomNetwork, index + r)`.
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) if `floor` is negative or not finite.
pub fn random_signs<T: Real>(readout: &Readout<T>, floor: f64, seed: u64, index: u64) -> Result<Array3<f32>> {
    validate_floor(floor)?;
    let (rows, n) = (readout.rows(), readout.variables());
    let mut out = Vec::with_capacity(readout.networks() * rows * n);
    for r in 0..readout.networks() {
        let mut rng = stream(seed, Purpose::RandomNetwork, index.wrapping_add(r as u64));
        let entries = || (0..rows).flat_map(|row| readout.row(r, row)).map(|&w| sign(w.into(), floor));
        let positive = entries().filter(|&s| s > 0).count() as f64;
        let nonzero = entries().filter(|&s| s != 0).count().max(1) as f64;
        out.extend(entries().map(|s| match s {
            0 => 0.0,
            _ if rng.random::<f64>() < positive / nonzero => 1.0,
            _ => -1.0,
        }));
    }
    shaped(out, (readout.networks(), rows, n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::codes::of_slices;
    use ndarray::{Array2, s};

    #[test]
    fn hamming_probabilities_are_those_of_random_signs() {
        let p = |name: &str| hamming_probabilities(name.parse().unwrap());
        assert_eq!(p("4P"), [1.0, 4.0, 6.0, 4.0, 1.0].map(|c| c / 16.0));
        assert_eq!(p("3N1P"), [4.0, 7.0, 4.0, 1.0, 0.0].map(|c| c / 16.0));
        assert_eq!(p("2P2N"), [6.0, 8.0, 2.0, 0.0, 0.0].map(|c| c / 16.0));
    }

    #[test]
    fn permuted_rows_keep_loads_and_polarity_but_move() {
        let rows = 16;
        let output: Vec<f32> = (0..2 * rows).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        let output = Array2::from_shape_vec((2, rows), output).unwrap();
        let channels: Vec<bool> = (0..2 * 5 * rows).map(|i| i % 7 == 0 || i % 11 == 3).collect();
        let channels = Array3::from_shape_vec((2, 5, rows), channels).unwrap();
        let permuted = permute_rows(channels.view(), output.view(), 0, 0).unwrap();
        assert_ne!(channels, permuted);
        let column = |bits: &Array3<bool>, r: usize, row: usize| bits.slice(s![r, .., row]).to_vec();
        for r in 0..2 {
            for negative in [false, true] {
                let of = |bits: &Array3<bool>| {
                    let rows = (0..rows).filter(|&row| (output[[r, row]] < 0.0) == negative);
                    let mut columns: Vec<_> = rows.map(|row| column(bits, r, row)).collect();
                    columns.sort();
                    columns
                };
                assert_eq!(of(&channels), of(&permuted));
            }
        }
        assert!(permute_rows(channels.view(), output.slice(s![..1, ..]), 0, 0).is_err());
        assert!(permute_rows(channels.view(), Array2::from_elem((2, rows), f32::NAN).view(), 0, 0).is_err());
    }

    #[test]
    fn random_signs_match_the_fraction_and_keep_zeros() {
        let features: Vec<f64> = (0..3000).map(|i| [0.5, 2.0, -1.0, 0.0, 3.0][i % 5]).collect();
        let readout = of_slices([1, 100, 30], &features, &[1.0; 100]);
        let signs = random_signs(&readout, 0.0, 1, 0).unwrap();
        assert!(signs.iter().zip(&features).all(|(s, f)| (*s == 0.0) == (*f == 0.0)));
        let positive = signs.iter().filter(|&&s| s > 0.0).count() as f64 / 2400.0;
        assert!((positive - 0.75).abs() < 0.03, "{positive}");
        assert_ne!(signs, random_signs(&readout, 0.0, 1, 1).unwrap());
        // Above a floor of 1 only 2.0 and 3.0 are left, all positive.
        let loud = random_signs(&readout, 1.0, 1, 0).unwrap();
        assert!(loud.iter().zip(&features).all(|(s, f)| *s == if *f > 1.0 { 1.0 } else { 0.0 }));
        assert!(random_signs(&readout, f64::NAN, 1, 0).is_err());
    }
}
