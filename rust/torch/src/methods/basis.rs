//! Tickets in another basis: what is pruned and trained is the first layer in feature space.

use tch::{Kind, Tensor};

use super::objective::Objective;
use super::score::{MAGNITUDE, magnitudes, one_shot};
use super::{Cost, Found, Record, Request, prunable};
use crate::error::Result;

pub(super) const BASIS_MAGNITUDE: Record = Record {
    name: "basis-magnitude",
    title: "Largest trained magnitudes |C1_T| in feature space, where the ticket is also trained",
    features: true,
    reference: "arXiv 2107.06825",
    deviations: "The basis is that of the embedding: C1 = W1 C0 is masked and trained in place of W1, with the \
                 identity embedding. Adam depends on the basis, so its training is another than the dense one's even at density \
                 1. With the identity as embedding it is the method magnitude.",
    find,
    ..MAGNITUDE
};

fn find(objective: &mut dyn Objective, request: &Request) -> Result<Found> {
    let mut trained = objective.dense()?;
    if let Some(pair) = objective.features()
        && let Some(embedding) = pair.c0(&trained)
    {
        let first = &mut trained[pair.first];
        *first = first.f_to_kind(Kind::Double)?.f_matmul(&embedding.f_to_kind(Kind::Double)?)?;
    }
    let cost = Cost::of_epochs(objective.dense_epochs());
    let scores: Vec<Tensor> = magnitudes(&prunable(objective, trained))?;
    one_shot(&scores, cost, objective, request)
}
