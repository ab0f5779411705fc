//! Hot probes: short trainings at a high learning rate, and what is pruned in them.

use precode_core::Clauses;
use precode_core::ticket::mask::{Density, Granularity, Scope};
use precode_core::ticket::obs::{MOST_WEIGHTS, damped_inverse, removal_among, without};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::iterative::{handles, trainings};
use super::objective::{Objective, Plan};
use super::obs::named;
use super::probes::translated::{BLIND, Knows, known, with_codes};
use super::score::{magnitudes, on_device, through_rows};
use super::select::{flat, select};
use super::{Cost, Found, Moment, Needs, Record, Request, Start, initial, prunable};
use crate::error::{Result, value_error};

/// Epochs of the training, unless the request says another number.
const EPOCHS: u32 = 2;

/// Its learning rate, as a multiple of that of the dense run: ours, from a trial on formulas that no result is reported
/// for.
const RATE: f64 = 6.0;

/// Weight of the target in `hot-codes`, beside that of the weights: ours, from the same trial.
const SHARE: f64 = 0.3;

/// How many times less than `imp` `hot-imp` trains.
const SHORTER: u32 = 10;

/// Added to the diagonal of the Gauss-Newton matrix before it is inverted, as a fraction of its mean diagonal.
const DAMPING: f64 = 0.1;

pub(super) const HOT_OBS: Record = Record {
    name: "hot-obs",
    title: "A training of 2 epochs at 6 times the learning rate, pruned by Optimal Brain Surgeon after each",
    needs: Needs { data: true, gradients: true, ..Needs::NONE },
    schedule: "after each epoch t of T, to the density d^(t/T)",
    cost: "T epochs and the gradients of single samples for each, T = 2 unless at says another",
    nested: false,
    reads: Moment::After(EPOCHS),
    rewinds: false,
    random: false,
    features: false,
    reference: "our definition; exact removal as of arXiv 2208.11580",
    deviations: "H is the Gauss-Newton matrix of the loss over all parameters but C0, on the scoring batch, damped by 0.1 \
                 of its mean diagonal; at most 4,096 of them. All parameters make up for a weight that leaves, and \
                 training goes on from there, its optimizer started anew; the ticket starts at theta_0.",
    find: |objective, request| {
        check_size(objective)?;
        find(objective, request, &exact, 1.0)
    },
};

pub(super) const HOT_MAGNITUDE: Record = Record {
    name: "hot-magnitude",
    title: "As hot-obs, pruned to the largest |W1| |w2|: no matrices",
    needs: Needs { gradients: false, pair: true, ..HOT_OBS.needs },
    cost: "T epochs, T = 2 unless at says another",
    reference: "our definition",
    deviations: "|w2| is the norm of a row's weights to all outputs; other weights count by their magnitudes. Training \
                 goes on from the weights that are left, its optimizer started anew; the ticket starts at theta_0.",
    find: |objective, request| find(objective, request, &largest, 0.0),
    ..HOT_OBS
};

pub(super) const HOT_IMP: Record = Record {
    name: "hot-imp",
    title: "Short trainings from theta_0 at 6 times the learning rate, each pruned to the largest |W1| |w2|",
    schedule: "levels of density d^(k/n), n = 2 log2(1/d) rounded up",
    cost: "at most a tenth of what imp trains, or n epochs",
    reads: Moment::Never,
    reference: "our definition; in rounds as arXiv 1803.03635",
    deviations: "imp in a tenth of its epochs: rounds of equally many, one at least. |w2| is the norm of a row's weights to \
                 all outputs; other weights count by their magnitudes.",
    find: |objective, request| in_rounds(objective, request, &largest),
    ..HOT_MAGNITUDE
};

pub(super) const HOT_CODES: Record = Record {
    name: "hot-codes",
    title: "As hot-imp, by the weights and the signs of the nearest locations through C0: |W1 + 0.3 V|",
    needs: Needs { clauses: true, ..HOT_IMP.needs },
    deviations: "Uses the clauses. Locations are the best by the sum of the distances at theta_0 and at the end of the round; \
                 W1 and the target V are in units of the layer, and as many locations are chosen as it can hold exactly. \
                 Rounds as of hot-imp.",
    find: |objective, request| with_clauses(objective, request, Knows::Clauses),
    ..HOT_IMP
};

pub(super) const HOT_CODES_BLIND: Record = Record {
    name: "hot-codes-blind",
    title: "As hot-codes, with the clauses that the data tell",
    needs: Needs { clauses_in_data: true, ..HOT_IMP.needs },
    cost: "at most a tenth of what imp trains, or n epochs, and one pass over the data",
    deviations: BLIND,
    find: |objective, request| with_clauses(objective, request, Knows::Data),
    ..HOT_CODES
};

/// Prunes the networks to each of some densities, among the survivors: for each the masks, and the values that training
/// goes on from.
type Prune<'a> = &'a dyn Fn(
    &mut dyn Objective,
    &[Tensor],
    Option<&[Tensor]>,
    &[Density],
    &Request,
) -> Result<Vec<(Vec<Tensor>, Vec<Tensor>)>>;

/// Trains in one go, pruned after each epoch; `gradients` are those of a pruning.
fn find(objective: &mut dyn Objective, request: &Request, prune: Prune, gradients: f64) -> Result<Found> {
    let epochs = request.at.unwrap_or(EPOCHS).min(objective.epochs());
    let level = |density: &Density, epoch: u32| match epoch == epochs {
        true => Ok(*density),
        false => Density::new(density.value().powf(f64::from(epoch) / f64::from(epochs))),
    };
    let start = initial(objective);
    let (mut values, mut cost) = (handles(&start), Cost { gradients, epochs: vec![0.0] });
    if epochs > 0 {
        let outcome = objective.train(&Plan { end_epoch: Some(1), rate: RATE, ..Plan::new(&start) })?;
        values = outcome.parameters;
        cost.add_epochs(&outcome.epochs);
    }
    // All densities have the first epoch in common; of no epochs, theta_0 is pruned.
    let levels: Vec<Density> = request
        .densities
        .iter()
        .map(|density| level(density, epochs.min(1)))
        .collect::<precode_core::Result<_>>()?;
    let (mut masks, mut costs) = (Vec::new(), Vec::new());
    for ((mut kept, mut values), density) in
        prune(objective, &values, None, &levels, request)?.into_iter().zip(request.densities)
    {
        let mut cost = cost.clone();
        for epoch in 2..=epochs {
            request.progress.check()?;
            let plan = Plan {
                masks: Some(&kept),
                first_epoch: epoch - 1,
                end_epoch: Some(epoch),
                rate: RATE,
                ..Plan::new(&values)
            };
            let outcome = objective.train(&plan)?;
            cost.add_epochs(&outcome.epochs);
            cost.gradients += gradients;
            let levels = [level(density, epoch)?];
            if let Some(pruned) = prune(objective, &outcome.parameters, Some(&kept), &levels, request)?.pop()
            {
                (kept, values) = pruned;
            }
        }
        masks.push(kept);
        costs.push(cost);
    }
    Ok(Found { masks, start: Start::Initial, scores: None, cost: costs, notes: Vec::new() })
}

/// In rounds, the largest sums of weights and the target of the nearest locations; other weights count by their
/// magnitudes.
fn with_clauses(objective: &mut dyn Objective, request: &Request, knows: Knows) -> Result<Found> {
    // Before anything is trained.
    let (clauses, notes) = known(objective, request, knows)?;
    let prune = |objective: &mut dyn Objective,
                 values: &[Tensor],
                 survivors: Option<&[Tensor]>,
                 densities: &[Density],
                 request: &Request| {
        let scores = nearest(objective, values, &clauses, request)?;
        best(&scores, values, survivors, densities, request)
    };
    Ok(Found { notes, ..in_rounds(objective, request, &prune)? })
}

fn nearest(
    objective: &mut dyn Objective,
    values: &[Tensor],
    clauses: &[Clauses],
    request: &Request,
) -> Result<Vec<Tensor>> {
    let start = initial(objective);
    let own: Vec<f64> = with_codes(objective, &start, values, clauses, SHARE, request)?.into_iter().collect();
    let mut scores = handles(values);
    if let Some(pair) = objective.features() {
        let like = &values[pair.first];
        scores[pair.first] =
            on_device(&Tensor::f_from_slice(&own)?.f_view(like.size().as_slice())?, like.device())?;
    }
    magnitudes(&prunable(objective, scores))
}

/// Iterative magnitude pruning in a tenth of its epochs.
fn in_rounds(objective: &mut dyn Objective, request: &Request, prune: Prune) -> Result<Found> {
    let start = initial(objective);
    let (mut masks, mut costs) = (Vec::new(), Vec::new());
    for &density in request.densities {
        let rounds = ((-2.0 * density.value().log2()).ceil() as u32).max(1);
        let epochs =
            (trainings(density) * objective.epochs() / SHORTER / rounds).max(1).min(objective.epochs());
        let (mut kept, mut cost) = (None::<Vec<Tensor>>, Cost::of_epochs(vec![0.0]));
        for round in 1..=rounds {
            request.progress.check()?;
            let plan =
                Plan { masks: kept.as_deref(), end_epoch: Some(epochs), rate: RATE, ..Plan::new(&start) };
            let outcome = objective.train(&plan)?;
            cost.add_epochs(&outcome.epochs);
            let level = density.value().powf(f64::from(round) / f64::from(rounds));
            let level = if round == rounds { density } else { Density::new(level)? };
            let pruned = prune(objective, &outcome.parameters, kept.as_deref(), &[level], request)?;
            kept = pruned.into_iter().next().map(|(masks, _)| masks);
        }
        masks.push(kept.unwrap_or_default());
        costs.push(cost);
    }
    Ok(Found { masks, start: Start::Initial, scores: None, cost: costs, notes: Vec::new() })
}

/// The largest magnitudes, those of the layer that codes are read from times the norms of their rows' outputs.
fn largest(
    objective: &mut dyn Objective,
    values: &[Tensor],
    survivors: Option<&[Tensor]>,
    densities: &[Density],
    request: &Request,
) -> Result<Vec<(Vec<Tensor>, Vec<Tensor>)>> {
    best(&through_rows(objective, values)?, values, survivors, densities, request)
}

/// The best scores, the values as they are.
fn best(
    scores: &[Tensor],
    values: &[Tensor],
    survivors: Option<&[Tensor]>,
    densities: &[Density],
    request: &Request,
) -> Result<Vec<(Vec<Tensor>, Vec<Tensor>)>> {
    let masks = densities.iter().map(|&density| select(scores, survivors, density, request));
    masks.map(|masks| Ok((masks?, handles(values)))).collect()
}

/// Exact removal under the Gauss-Newton matrix of all parameters but C0; what is left makes up for it.
fn exact(
    objective: &mut dyn Objective,
    values: &[Tensor],
    survivors: Option<&[Tensor]>,
    densities: &[Density],
    request: &Request,
) -> Result<Vec<(Vec<Tensor>, Vec<Tensor>)>> {
    let all = Parameters::of(objective, values, survivors)?;
    let least = densities.iter().copied().reduce(|a, b| if b.value() < a.value() { b } else { a });
    let Some(least) = least else { return Ok(Vec::new()) };
    let mut orders: Vec<Order> = Vec::with_capacity(all.networks);
    // As many matrices at a time as can be worked on.
    for first in (0..all.networks).step_by(rayon::current_num_threads()) {
        request.progress.check()?;
        let here = first..all.networks.min(first + rayon::current_num_threads());
        let matrices: Vec<Vec<f64>> =
            objective.gauss_newton(values, here.clone())?.iter().map(flat).collect::<Result<_>>()?;
        let pairs: Vec<(usize, Vec<f64>)> = here.zip(matrices).collect();
        let of_network = |(network, matrix): (usize, Vec<f64>)| {
            named(network, all.order(network, &matrix, least, request))
        };
        let found: Vec<Order> = pairs.into_par_iter().map(of_network).collect::<Result<_>>()?;
        orders.extend(found);
    }
    let ranks = all.ranks(&orders, values)?;
    densities
        .iter()
        .map(|&density| {
            let masks = select(&ranks, survivors, density, request)?;
            let moved = all.moved(&orders, values, &masks)?;
            Ok((masks, moved))
        })
        .collect()
}

/// The parameters of all networks that the Gauss-Newton matrix is of: all but C0.
struct Parameters {
    networks: usize,
    /// Place among all parameters, and whether it is prunable.
    places: Vec<(usize, bool)>,
    /// (R, ..) of each, in float64.
    numbers: Vec<Vec<f64>>,
    /// Which are alive, (R, ..) of each; empty where all are.
    alive: Vec<Vec<bool>>,
}

/// The order in which the weights of a network leave.
struct Order {
    /// The network's entries that the matrix is of, as (parameter, place in it): those that may leave first.
    entries: Vec<(usize, usize)>,
    weights: Vec<f64>,
    /// Places in `entries`, first to last.
    order: Vec<usize>,
    /// The inverse of the damped matrix.
    inverse: Vec<f64>,
}

impl Parameters {
    fn of(objective: &dyn Objective, values: &[Tensor], survivors: Option<&[Tensor]>) -> Result<Self> {
        let c0 = objective.place_of_projection();
        let places: Vec<(usize, bool)> = (0..values.len())
            .filter(|&place| Some(place) != c0)
            .map(|place| (place, objective.parameters()[place].prunable))
            .collect();
        let numbers: Vec<Vec<f64>> = places
            .iter()
            .map(|&(place, _)| flat(&values[place].f_detach()?.f_to_kind(Kind::Double)?))
            .collect::<Result<_>>()?;
        let mut masks = survivors.unwrap_or_default().iter();
        let alive = places
            .iter()
            .map(|&(_, prunable)| prunable.then(|| masks.next()).flatten().map_or(Ok(Vec::new()), flat))
            .collect::<Result<_>>()?;
        let networks = values.first().map_or(0, |value| value.size()[0] as usize);
        Ok(Self { networks, places, numbers, alive })
    }

    /// Entries of one network.
    fn size(&self, parameter: usize) -> usize {
        self.numbers[parameter].len() / self.networks
    }

    /// `matrix` is that of all entries of the network.
    fn order(
        &self,
        network: usize,
        matrix: &[f64],
        density: Density,
        request: &Request,
    ) -> precode_core::Result<Order> {
        let (mut candidates, mut others, mut first) = (Vec::new(), Vec::new(), 0);
        for (parameter, &(_, prunable)) in self.places.iter().enumerate() {
            let size = self.size(parameter);
            let is_alive = |i: usize| self.alive[parameter].get(network * size + i).copied().unwrap_or(true);
            let living = (0..size).filter(|&i| is_alive(i)).map(|i| ((parameter, i), first + i));
            if prunable {
                candidates.extend(living)
            } else {
                others.extend(living)
            }
            first += size;
        }
        let count = candidates.len();
        candidates.extend(others);
        let (entries, places): (Vec<(usize, usize)>, Vec<usize>) = candidates.into_iter().unzip();
        let living: Vec<f64> =
            places.iter().flat_map(|&a| places.iter().map(move |&b| matrix[a * first + b])).collect();
        let inverse = damped_inverse(&living, places.len(), DAMPING)?;
        let number =
            |&(parameter, i): &(usize, usize)| self.numbers[parameter][network * self.size(parameter) + i];
        let weights: Vec<f64> = entries.iter().map(number).collect();
        let total: usize = (0..self.places.len()).filter(|&i| self.places[i].1).map(|i| self.size(i)).sum();
        // Where single weights are kept for their scores, what stays needs no order.
        let plain =
            !request.invert && request.granularity == Granularity::Weight && request.scope == Scope::Global;
        let gone = if plain { count.saturating_sub(density.of(total)?) } else { count };
        let order = removal_among(&weights, count, gone, &inverse, request.progress)?.order;
        Ok(Order { entries, weights, order, inverse })
    }

    /// For each prunable parameter, the place of each weight in the order of removal, beyond all where it stays.
    fn ranks(&self, orders: &[Order], values: &[Tensor]) -> Result<Vec<Tensor>> {
        let beyond = self.numbers.iter().map(Vec::len).sum::<usize>() as f64;
        let mut ranks: Vec<Vec<f64>> =
            self.numbers.iter().map(|numbers| vec![beyond; numbers.len()]).collect();
        for (network, order) in orders.iter().enumerate() {
            for (rank, &place) in order.order.iter().enumerate() {
                let (parameter, i) = order.entries[place];
                ranks[parameter][network * self.size(parameter) + i] = rank as f64;
            }
        }
        let prunable = self.places.iter().zip(ranks).filter(|((_, prunable), _)| *prunable);
        prunable
            .map(|(&(place, _), ranks)| {
                let like = &values[place];
                on_device(&Tensor::f_from_slice(&ranks)?.f_view(like.size().as_slice())?, like.device())
            })
            .collect()
    }

    /// The values of all parameters once what the masks drop has left and the others have made up for it.
    fn moved(&self, orders: &[Order], values: &[Tensor], masks: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut masks = masks.iter();
        let kept: Vec<Vec<bool>> = self
            .places
            .iter()
            .map(|&(_, prunable)| prunable.then(|| masks.next()).flatten().map_or(Ok(Vec::new()), flat))
            .collect::<Result<_>>()?;
        let moved: Vec<Vec<f64>> = orders
            .par_iter()
            .enumerate()
            .map(|(network, order)| {
                let is_kept = |(parameter, i): (usize, usize)| {
                    kept[parameter].get(network * self.size(parameter) + i).copied().unwrap_or(true)
                };
                let gone: Vec<usize> =
                    order.order.iter().copied().filter(|&place| !is_kept(order.entries[place])).collect();
                named(network, without(&order.weights, &gone, &order.inverse))
            })
            .collect::<Result<_>>()?;
        let mut numbers: Vec<Vec<f64>> =
            self.numbers.iter().map(|numbers| vec![0.0; numbers.len()]).collect();
        for ((network, order), moved) in orders.iter().enumerate().zip(moved) {
            for (&(parameter, i), weight) in order.entries.iter().zip(moved) {
                numbers[parameter][network * self.size(parameter) + i] = weight;
            }
        }
        let mut all = handles(values);
        for (&(place, _), numbers) in self.places.iter().zip(numbers) {
            let like = &values[place];
            let tensor = Tensor::f_from_slice(&numbers)?.f_view(like.size().as_slice())?;
            all[place] = tensor.f_to_kind(like.f_kind()?)?.f_to_device(like.device())?;
        }
        Ok(all)
    }
}

/// Refuses networks of more parameters than a matrix can be of, before anything is trained.
fn check_size(objective: &dyn Objective) -> Result<()> {
    let start = initial(objective);
    let parameters = Parameters::of(objective, &start, None)?;
    let size: usize = (0..parameters.places.len()).map(|parameter| parameters.size(parameter)).sum();
    if size > MOST_WEIGHTS {
        return Err(value_error!(
            "the Gauss-Newton matrix of {size} parameters: hot-obs takes at most {MOST_WEIGHTS}; take 'hot-magnitude', \
             which has no matrices"
        ));
    }
    Ok(())
}
