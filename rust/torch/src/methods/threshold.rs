//! The least score that is kept, and what is kept by it, by operations on whole tensors: scores stay on their device.

use precode_core::ticket::mask::{Density, Scope};
use tch::{Kind, Tensor};

use crate::error::Result;

/// The masks of the largest scores of every network, of equal ones those that come first, as
/// [`select`](super::select::select) finds them. `scores` and `alive` have shapes (R, ..) and lie on any devices, scores in
/// float32 or all in float64; masks have the same shapes and devices.
///
/// Returns `None` where there is no such choice: too few weights, or scores that are not finite.
pub(super) fn kept(
    scores: &[Tensor],
    alive: Option<&[Tensor]>,
    density: Density,
    scope: Scope,
) -> Result<Option<Vec<Tensor>>> {
    let flat = |tensor: &Tensor| tensor.f_reshape([tensor.size()[0], -1]);
    let rows: Vec<Tensor> = scores.iter().map(flat).collect::<std::result::Result<_, _>>()?;
    if !all_finite(&rows)? {
        return Ok(None);
    }
    let alive = alive.map(|alive| alive.iter().map(flat).collect::<std::result::Result<Vec<_>, _>>());
    let alive = alive.transpose()?;
    let at_a_time = match scope {
        Scope::Global => rows.len(),
        Scope::PerLayer => 1,
    };
    let mut masks = Vec::with_capacity(rows.len());
    for first in (0..rows.len()).step_by(at_a_time.max(1)) {
        let here = first..first + at_a_time;
        let alive = alive.as_ref().map(|alive| &alive[here.clone()]);
        let Some(found) = best(&rows[here], alive, density)? else { return Ok(None) };
        masks.extend(found);
    }
    let shaped = masks.iter().zip(scores).map(|(mask, scores)| Ok(mask.f_view(scores.size().as_slice())?));
    shaped.collect::<Result<_>>().map(Some)
}

/// The masks of tensors (R, N) that are compared with one another.
fn best(rows: &[Tensor], alive: Option<&[Tensor]>, density: Density) -> Result<Option<Vec<Tensor>>> {
    let total = rows.iter().map(|rows| rows.size()[1] as usize).sum();
    let Ok(keep) = density.of(total) else { return Ok(None) };
    let keep = keep as i64;
    if let Some(alive) = alive {
        let counts: Vec<Tensor> = alive.iter().map(count).collect::<Result<_>>()?;
        if i64::try_from(together(&counts)?.f_min()?)? < keep {
            return Ok(None);
        }
    }
    let least = least_kept(rows, alive, keep)?;
    let mut masks = Vec::with_capacity(rows.len());
    let mut better = Vec::with_capacity(rows.len());
    for (i, rows) in rows.iter().enumerate() {
        let least = least.f_to_device(rows.device())?;
        masks.push(living(rows.f_ge_tensor(&least)?, alive, i)?);
        better.push(living(rows.f_gt_tensor(&least)?, alive, i)?);
    }
    let counts = |masks: &[Tensor]| together(&masks.iter().map(count).collect::<Result<Vec<_>>>()?);
    if i64::try_from(counts(&masks)?.f_max()?)? == keep {
        return Ok(Some(masks));
    }
    // Of those with the least score, the first: `ties` of each network.
    let ties = counts(&better)?.f_neg()?.f_add_scalar(keep)?;
    let mut before = ties.f_zeros_like()?;
    for (mask, better) in masks.iter_mut().zip(better) {
        let tied = mask.f_logical_xor(&better)?;
        let left = ties.f_sub(&before)?.f_to_device(mask.device())?.f_unsqueeze(1)?;
        let place = tied.f_cumsum(1, Kind::Int)?;
        before = before.f_add(&count(&tied)?.f_to_device(before.device())?)?;
        *mask = place.f_le_tensor(&left)?.f_logical_and(&tied)?.f_logical_or(&better)?;
    }
    Ok(Some(masks))
}

/// The score of place `keep` from the best, (R, 1), of tensors (R, N) that are compared with one another; at least so many
/// are alive, and none is NaN.
///
/// Numbers that are ordered as scores are, one for each bit pattern, are halved until one is left. A step counts scores
/// above a bound: it takes a byte of memory for each score of a tensor, and nobody waits for what the device finds.
pub(super) fn least_kept(rows: &[Tensor], alive: Option<&[Tensor]>, keep: i64) -> Result<Tensor> {
    let device = rows[0].device();
    let kind = rows[0].f_kind()?;
    let bits = if kind == Kind::Double { Kind::Int64 } else { Kind::Int };
    // Also the inverse: the sign stays, and of negative numbers all other bits change.
    let reordered = |bits: &Tensor| {
        let others = if kind == Kind::Double { i64::MAX } else { i64::from(i32::MAX) };
        bits.f_where_self(&bits.f_ge(0)?, &bits.f_bitwise_xor(others)?)
    };
    let bound = |number: f64| -> Result<Tensor> {
        let bound = Tensor::f_full([rows[0].size()[0], 1], number, (kind, device))?;
        Ok(reordered(&bound.f_view_dtype(bits)?)?.f_to_kind(Kind::Int64)?)
    };
    let score =
        |number: &Tensor| -> Result<Tensor> { Ok(reordered(&number.f_to_kind(bits)?)?.f_view_dtype(kind)?) };
    let (mut low, mut high) = (bound(f64::NEG_INFINITY)?, bound(f64::INFINITY)?);
    for _ in 0..8 * bits.elt_size_in_bytes() {
        // The mean rounded up, which does not overflow.
        let middle = low
            .f_bitwise_or_tensor(&high)?
            .f_sub(&low.f_bitwise_xor_tensor(&high)?.f_bitwise_right_shift_tensor_scalar(1)?)?;
        let least = score(&middle)?;
        let mut counts = Vec::with_capacity(rows.len());
        for (i, rows) in rows.iter().enumerate() {
            counts.push(count(&living(rows.f_ge_tensor(&least.f_to_device(rows.device())?)?, alive, i)?)?);
        }
        let enough = together(&counts)?.f_ge(keep)?.f_unsqueeze(1)?;
        low = middle.f_where_self(&enough, &low)?;
        high = high.f_where_self(&enough, &middle.f_sub_scalar(1)?)?;
    }
    score(&low)
}

/// Those of tensor `i` that are alive.
fn living(mask: Tensor, alive: Option<&[Tensor]>, i: usize) -> Result<Tensor> {
    match alive {
        Some(alive) => Ok(mask.f_logical_and(&alive[i].f_to_device(mask.device())?)?),
        None => Ok(mask),
    }
}

/// How many of each row, (R).
fn count(mask: &Tensor) -> Result<Tensor> {
    Ok(mask.f_sum_dim_intlist(1, false, Kind::Int64)?)
}

/// The sum of tensors that may lie on several devices, on the first's.
fn together(counts: &[Tensor]) -> Result<Tensor> {
    let mut sum = counts[0].shallow_clone();
    for counts in &counts[1..] {
        sum = sum.f_add(&counts.f_to_device(sum.device())?)?;
    }
    Ok(sum)
}

/// Whether all are finite, which the least and the largest say.
fn all_finite(rows: &[Tensor]) -> Result<bool> {
    let mut ends = Vec::with_capacity(2 * rows.len());
    for rows in rows {
        if rows.numel() > 0 {
            let (least, largest) = rows.f_aminmax(None, false)?;
            ends.extend([least, largest]);
        }
    }
    let Some(device) = ends.first().map(Tensor::device) else { return Ok(true) };
    let ends: Vec<Tensor> =
        ends.iter().map(|end| end.f_to_device(device)).collect::<std::result::Result<_, _>>()?;
    Ok(bool::try_from(Tensor::f_stack(&ends, 0)?.f_isfinite()?.f_all()?)?)
}

#[cfg(test)]
mod tests {
    use precode_core::ticket::mask::Granularity;
    use tch::Device;

    use super::super::select::of_stacks;
    use super::*;

    /// Scores of which many are equal, of both signs and both zeros.
    fn scores(sizes: &[&[i64]], kind: Kind) -> Vec<Tensor> {
        let draw = |size: &&[i64]| Tensor::randn(*size, (kind, Device::Cpu)).multiply_scalar(2.0).round();
        sizes.iter().map(draw).collect()
    }

    #[test]
    fn the_choice_is_that_of_the_cpu() {
        tch::manual_seed(0);
        for kind in [Kind::Float, Kind::Double] {
            for trial in 0..60 {
                let scores = scores(&[&[3, 4, 5], &[3, 7], &[3, 2, 3, 2]], kind);
                let alive: Vec<Tensor> = scores
                    .iter()
                    .map(|scores| Tensor::rand(scores.size(), (kind, Device::Cpu)).gt(0.2))
                    .collect();
                let alive = (trial % 2 == 1).then_some(alive.as_slice());
                for scope in [Scope::Global, Scope::PerLayer] {
                    let density = Density::new(0.05 + 0.01 * f64::from(trial)).unwrap();
                    let expected = of_stacks(&scores, alive, density, Granularity::Weight, scope);
                    let found = kept(&scores, alive, density, scope).unwrap();
                    assert_eq!(found.is_some(), expected.is_ok());
                    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                        assert_eq!(found, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_of_any_size_are_told_apart() {
        let values = [-f32::MAX, -1.0, -f32::MIN_POSITIVE, -1e-45, 0.0, 1e-45, 1.0, f32::MAX];
        for (place, value) in (1..).zip(values.iter().rev()) {
            let rows = [Tensor::from_slice(&values).unsqueeze(0)];
            assert_eq!(f32::try_from(least_kept(&rows, None, place).unwrap().squeeze()).unwrap(), *value);
            let rows = [rows[0].to_kind(Kind::Double)];
            let least = least_kept(&rows, None, place).unwrap().squeeze();
            assert_eq!(f64::try_from(least).unwrap(), f64::from(*value));
        }
    }

    #[test]
    fn what_cannot_be_chosen_is_left_to_others() {
        let density = Density::new(0.5).unwrap();
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let scores = [Tensor::from_slice(&[1.0, wrong]).unsqueeze(0)];
            assert!(kept(&scores, None, density, Scope::Global).unwrap().is_none());
        }
        let scores = [Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).unsqueeze(0)];
        let alive = [Tensor::from_slice(&[true, false, false, false]).unsqueeze(0)];
        assert!(kept(&scores, Some(&alive), density, Scope::Global).unwrap().is_none());
        assert!(kept(&scores, None, Density::new(0.1).unwrap(), Scope::Global).unwrap().is_none());
    }
}
