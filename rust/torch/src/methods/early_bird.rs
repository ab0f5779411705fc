//! Early-Bird tickets: the magnitude mask, as soon as it no longer changes from epoch to epoch.

use std::collections::VecDeque;

use precode_core::ticket::mask::Density;
use tch::{Kind, Tensor};

use super::objective::Objective;
use super::score::magnitudes;
use super::select::select;
use super::{Cost, Found, Moment, Needs, Record, Request, Start, initial, moment};
use crate::error::{Result, value_error};

/// Consecutive masks that must agree.
const WINDOW: usize = 5;

/// The largest distance at which two masks agree.
const THRESHOLD: f64 = 0.1;

pub(super) const EARLY_BIRD: Record = Record {
    name: "early-bird",
    title: "Largest |theta_t| at the first epoch whose mask agrees with the four before it",
    needs: Needs { data: true, dense_run: true, ..Needs::NONE },
    schedule: "one shot, at the first epoch t where 5 masks are within 0.1 (the last epoch if there is none)",
    cost: "the dense run up to epoch t",
    nested: false,
    reads: Moment::Until,
    rewinds: false,
    random: false,
    features: false,
    reference: "arXiv 1909.11957",
    deviations: "Weights instead of channels; the ticket starts at theta_0, where the official code goes on \
                 from theta_t. Two random masks of density d are 2 d (1 - d) apart, so below d = 0.053 even \
                 these agree: see early-bird-normalized.",
    find: |objective, request| find(objective, request, |_| 1.0),
};

pub(super) const EARLY_BIRD_NORMALIZED: Record = Record {
    name: "early-bird-normalized",
    title: "Early-Bird with the distance of masks as a fraction of that of random masks",
    deviations: "As of early-bird, and distances are divided by 2 d (1 - d), which is our definition.",
    find: |objective, request| {
        find(objective, request, |density| match 2.0 * density.value() * (1.0 - density.value()) {
            0.0 => 1.0,
            random => random,
        })
    },
    ..EARLY_BIRD
};

fn find(objective: &mut dyn Objective, request: &Request, unit: fn(Density) -> f64) -> Result<Found> {
    let epochs = moment(objective, request, objective.epochs());
    if objective.epochs() == 0 {
        return Err(value_error!(
            "training for 0 epochs has no masks to compare: train for at least {WINDOW}"
        ));
    }
    let mut searches: Vec<Agreeing> =
        request.densities.iter().map(|_| Agreeing::new(request.streams.len())).collect();
    let is_prunable: Vec<bool> = objective.parameters().iter().map(|parameter| parameter.prunable).collect();
    let mut look = |epoch: u32, values: Vec<Tensor>| -> Result<bool> {
        request.progress.check()?;
        let pruned = values.into_iter().zip(&is_prunable).filter(|(_, prunable)| **prunable);
        let scores = magnitudes(&pruned.map(|(value, _)| value).collect::<Vec<_>>())?;
        for (search, &density) in
            searches.iter_mut().zip(request.densities).filter(|(search, _)| !search.is_over())
        {
            let masks = select(&scores, None, density, request)?;
            search.take(masks, epoch, THRESHOLD * unit(density))?;
        }
        Ok(!searches.iter().all(Agreeing::is_over))
    };
    if epochs == 0 {
        look(0, initial(objective))?;
    } else {
        objective.each_epoch(epochs, &mut look)?;
    }
    let (mut masks, mut cost) = (Vec::new(), Vec::new());
    let (mut found_at, mut agreed) = (Vec::new(), Vec::new());
    for search in searches {
        let at: Vec<f64> = search.epoch.iter().map(|epoch| f64::from(epoch.unwrap_or(epochs))).collect();
        cost.push(Cost::of_epochs(at.clone()));
        agreed.push(search.epoch.iter().map(|epoch| f64::from(u8::from(epoch.is_some()))).collect());
        found_at.push(at);
        masks.push(search.chosen);
    }
    let notes = vec![("found_at_epoch".to_owned(), found_at), ("masks_agreed".to_owned(), agreed)];
    Ok(Found { masks, start: Start::Initial, cost, scores: None, notes })
}

/// The masks of the networks at the epochs where theirs agreed, for one density.
struct Agreeing {
    /// The last masks, the newest at the end.
    window: VecDeque<Vec<Tensor>>,
    /// Masks of all networks: of the newest epoch where a network's have not agreed yet.
    chosen: Vec<Tensor>,
    /// (R): the epoch at which a network's masks agreed.
    epoch: Vec<Option<u32>>,
}

impl Agreeing {
    /// Before the first epoch.
    fn new(networks: usize) -> Self {
        Self { window: VecDeque::with_capacity(WINDOW), chosen: Vec::new(), epoch: vec![None; networks] }
    }

    /// Whether the masks of all networks have agreed.
    fn is_over(&self) -> bool {
        self.epoch.iter().all(Option::is_some)
    }

    /// Takes the masks of an epoch, for the networks that are still searched.
    fn take(&mut self, masks: Vec<Tensor>, epoch: u32, threshold: f64) -> Result<()> {
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        if self.chosen.is_empty() {
            self.chosen = masks.iter().map(|mask| Ok(mask.f_zeros_like()?)).collect::<Result<_>>()?;
        }
        for network in (0..self.epoch.len()).filter(|&network| self.epoch[network].is_none()) {
            for (chosen, mask) in self.chosen.iter().zip(&masks) {
                chosen.f_get(network as i64)?.f_copy_(&mask.f_get(network as i64)?)?;
            }
        }
        self.window.push_back(masks);
        let agree = agree(&self.window, threshold)?;
        for (found, _) in self.epoch.iter_mut().zip(agree).filter(|(found, agree)| found.is_none() && *agree)
        {
            *found = Some(epoch);
        }
        Ok(())
    }
}

/// For each network, whether the window is full and no mask in it is further than `threshold` from the
/// newest: the fraction of weights that one of the two keeps.
fn agree(window: &VecDeque<Vec<Tensor>>, threshold: f64) -> Result<Vec<bool>> {
    let Some(newest) = window.back() else { return Ok(Vec::new()) };
    let networks = newest.first().map_or(0, |mask| mask.size()[0]);
    let mut agree = vec![window.len() == WINDOW; networks as usize];
    for other in window.iter().take(window.len() - 1) {
        let (mut differing, mut weights) = (vec![0i64; networks as usize], 0);
        for (a, b) in newest.iter().zip(other) {
            let different = a.f_logical_xor(b)?.f_view([networks, -1])?;
            weights += different.size()[1];
            let counts = different.f_sum_dim_intlist(1, false, Kind::Int64)?;
            let counts: Vec<i64> = super::select::flat(&counts)?;
            differing.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
        for (agree, differing) in agree.iter_mut().zip(differing) {
            *agree &= differing as f64 / weights as f64 <= threshold;
        }
    }
    Ok(agree)
}
