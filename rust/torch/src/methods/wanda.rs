//! Wanda: magnitudes weighed by the size of the inputs, compared within each row.

use tch::{Kind, Tensor};

use super::objective::Objective;
use super::obs::OBS;
use super::score::one_shot;
use super::select::{flat, matrix_shape};
use super::{Cost, Record, prunable};
use crate::error::Result;

pub(super) const WANDA: Record = Record {
    name: "wanda",
    title: "Trained magnitudes times the norm of the input, |w| |z|, compared within each row",
    schedule: "one shot",
    reference: "arXiv 2306.11695",
    deviations: "Each row keeps the same share of its weights, whatever the scope; what does not go evenly into the rows \
                 is kept where |w| |z| is largest. The ticket starts at theta_0, where the published method keeps \
                 theta_T. Scores are ranks within the row, as shares.",
    find: |objective, request| {
        let (scores, cost) = weighed(objective)?;
        let within: Vec<Tensor> = scores.iter().map(within_rows).collect::<Result<_>>()?;
        one_shot(&within, cost, objective, request)
    },
    ..OBS
};

pub(super) const WANDA_GLOBAL: Record = Record {
    name: "wanda-global",
    title: "Trained magnitudes times the norm of the input, |w| |z|, compared as the scope says",
    deviations: "As of wanda without the comparison within rows, which is a part of the published method. Scores are \
                 |w| |z|.",
    find: |objective, request| {
        let (scores, cost) = weighed(objective)?;
        one_shot(&scores, cost, objective, request)
    },
    ..WANDA
};

/// |theta_T| times the root mean square of the input that each weight meets, of the prunable parameters' shapes.
fn weighed(objective: &mut dyn Objective) -> Result<(Vec<Tensor>, Cost)> {
    let trained = objective.dense()?;
    let cost = Cost::of_epochs(objective.dense_epochs());
    let squares = objective.input_squares(&trained)?;
    let scores = prunable(objective, trained).into_iter().zip(squares).map(|(weight, squares)| {
        let size = weight.size();
        let sizes = squares.f_sqrt()?.f_to_device(weight.device())?;
        // (R, parts, rows of a part, inputs).
        let rows = weight.f_abs()?.f_to_kind(Kind::Double)?;
        let rows = rows.f_reshape([size[0], squares.size()[1], -1, squares.size()[2]])?;
        Ok(rows.f_mul(&sizes.f_unsqueeze(2)?)?.f_reshape(size.as_slice())?)
    });
    Ok((scores.collect::<Result<_>>()?, cost))
}

/// Scores by which every row keeps the same share of its weights, at any density: the share of the row that is worse
/// than the weight, and, among weights of the same share, a smaller part for the better score.
fn within_rows(scores: &Tensor) -> Result<Tensor> {
    let size = scores.size();
    let [rows, columns, inner] = matrix_shape(&size[1..]);
    let (inputs, weights) = (columns * inner, rows * columns * inner);
    let mut ranked: Vec<f64> = flat(&scores.f_to_kind(Kind::Double)?)?;
    for network in ranked.chunks_mut(weights.max(1)) {
        let place = places(network, 0..weights);
        let mut share = vec![0.0; weights];
        for row in 0..rows {
            let here = row * inputs..(row + 1) * inputs;
            for (weight, rank) in here.clone().zip(places(network, here)) {
                share[weight] = rank as f64 / inputs as f64;
            }
        }
        let between = 1.0 / (inputs * (weights + 1)) as f64;
        // What is not finite stays so, and is refused.
        for (weight, score) in network.iter_mut().enumerate().filter(|(_, score)| score.is_finite()) {
            *score = share[weight] + place[weight] as f64 * between;
        }
    }
    Ok(Tensor::f_from_slice(&ranked)?.f_view(size.as_slice())?.f_to_device(scores.device())?)
}

/// The place of each of some scores among them, 0 for the lowest; of equal ones the first is the highest.
fn places(scores: &[f64], range: std::ops::Range<usize>) -> Vec<usize> {
    let first = range.start;
    let mut order: Vec<usize> = range.collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
    let mut places = vec![0; order.len()];
    order.into_iter().enumerate().for_each(|(place, weight)| places[weight - first] = place);
    places
}
