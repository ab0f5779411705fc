//! Optimal Brain Surgeon: weights leave a quadratic loss exactly, one after another.
//!
//! Around trained weights w the loss grows by `d' H d` for a change d. Of all changes that set weight q to zero the
//! least costs `w_q^2 / [H^-1]_qq` and moves the others by `-w_q / [H^-1]_qq H^-1[:, q]`; without q, the inverse is
//! `H^-1 - H^-1[:, q] H^-1[q, :] / [H^-1]_qq` (Optimal Brain Compression, arXiv 2208.11580, section 4; the constant of
//! H changes no order). The rows of a layer share H and do not see each other.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use nalgebra::DMatrix;

use crate::Progress;
use crate::error::{Result, allocate, in_parallel, shape_error, value_error};

/// Added to the diagonal of H before it is inverted, as a fraction of its mean diagonal: that of arXiv 2301.00774.
pub const DAMPING: f64 = 0.01;

/// The most weights that one H may be of: its inverse then takes 128 MiB for each thread.
pub const MOST_WEIGHTS: usize = 4096;

/// Weights that are removed together under Hessians of their own: a layer of one network.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Trained weights, (rows, inputs).
    pub weights: &'a [f64],
    /// Which of them have not been removed before, (rows, inputs); `None` for all. The others count as zero.
    pub alive: Option<&'a [bool]>,
    /// H for equal consecutive parts of the rows, (parts, inputs, inputs): one for all rows, or one for each group of
    /// a convolution.
    pub hessians: &'a [f64],
    /// Number of inputs of a row.
    pub inputs: usize,
}

/// The order in which the weights of a row leave.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// The weights, first to last.
    pub order: Vec<usize>,
    /// What each removal adds to the loss `d' H d`, from where the last one left the weights. These need not increase.
    pub losses: Vec<f64>,
}

/// The inverse of `H + damping * mean(diag H) * I`, row-major, for H of (size, size): symmetric, and positive
/// semidefinite but for rounding.
///
/// ```
/// use precode_core::ticket::obs::damped_inverse;
/// // A quarter of the mean diagonal is 2.
/// assert_eq!(damped_inverse(&[2.0, 0.0, 0.0, 14.0], 2, 0.25)?, [0.25, 0.0, 0.0, 0.0625]);
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if H is not of that size; [`Error::Value`](crate::Error::Value) if it is larger
/// than [`MOST_WEIGHTS`], not finite, zero, or not positive after damping.
pub fn damped_inverse(hessian: &[f64], size: usize, damping: f64) -> Result<Vec<f64>> {
    if size > MOST_WEIGHTS {
        return Err(value_error!(
            "the Hessian is of {size} weights: at most {MOST_WEIGHTS} are removed together; take a method without \
             Hessian, such as 'magnitude', or prune smaller layers"
        ));
    }
    let damped = damped(hessian.to_vec(), size, damping)?;
    let Some(factor) = DMatrix::from_vec(size, size, damped).cholesky() else {
        return Err(value_error!("the Hessian is singular with damping = {damping}: damp it more"));
    };
    let inverse = factor.inverse();
    // One half decides, so that the result is symmetric to the last bit.
    let place = |i: usize| (i / size, i % size);
    Ok((0..size * size).map(place).map(|(i, j)| inverse[(i.max(j), i.min(j))]).collect())
}

/// `H + damping * mean(diag H) * I`, as [`damped_inverse`] has it.
pub(super) fn damped(mut hessian: Vec<f64>, size: usize, damping: f64) -> Result<Vec<f64>> {
    if size == 0 || hessian.len() != size * size {
        return Err(shape_error!("a Hessian of {} entries for {size} weights", hessian.len()));
    }
    if !(damping >= 0.0 && damping.is_finite()) {
        return Err(value_error!("damping = {damping}: must be a finite number, 0 or more"));
    }
    if let Some(entry) = hessian.iter().find(|entry| !entry.is_finite()) {
        return Err(value_error!("the Hessian contains {entry}: the data and weights must be finite"));
    }
    let mean = (0..size).map(|i| hessian[i * size + i]).sum::<f64>() / size as f64;
    if mean <= 0.0 {
        return Err(value_error!(
            "the Hessian is zero: no input of the layer is ever other than 0 (do all units before it stand still?), so \
             no removal costs anything"
        ));
    }
    (0..size).for_each(|i| hessian[i * size + i] += damping * mean);
    Ok(hessian)
}

/// Removes all weights of a row, always the one whose removal costs least; of equal costs the last, so that the first
/// are kept. `inverse` is that of H, (weights, weights), of all weights, those that are not alive included.
///
/// ```
/// use precode_core::Progress;
/// use precode_core::ticket::obs::removal;
/// let row = removal(&[1.0, 3.0], None, &[1.0, 0.0, 0.0, 1.0], &Progress::default())?;
/// assert_eq!((row.order, row.losses), (vec![0, 1], vec![1.0, 9.0]));
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for lengths that do not fit together; [`Error::Value`](crate::Error::Value) for
/// a weight that is not finite or an inverse that is not positive; [`Error::Interrupted`](crate::Error::Interrupted).
pub fn removal(
    weights: &[f64],
    alive: Option<&[bool]>,
    inverse: &[f64],
    progress: &Progress,
) -> Result<Removal> {
    let size = weights.len();
    if let Some(alive) = alive.filter(|alive| alive.len() != size) {
        return Err(shape_error!("{} weights that are alive or not, of {size}", alive.len()));
    }
    let is_alive = |i: usize| alive.is_none_or(|alive| alive[i]);
    let living = (0..size).map(|i| if is_alive(i) { weights[i] } else { 0.0 }).collect();
    let mut rest = Rest::new(living, inverse)?;
    for gone in (0..size).filter(|&i| !is_alive(i)) {
        rest.remove(gone)?;
    }
    let count = rest.left.len();
    rest.emptied(size, count, progress)
}

/// As [`removal`], of `count` of the first `candidates` weights: the others, biases and weights of other layers, say, stay
/// and make up for them.
///
/// ```
/// use precode_core::Progress;
/// use precode_core::ticket::obs::removal_among;
/// let inverse = [1.0, -0.5, -0.5, 1.0];
/// let removal = removal_among(&[2.0, 1.0], 1, 1, &inverse, &Progress::default())?;
/// assert_eq!((removal.order, removal.losses), (vec![0], vec![4.0]));
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// As [`removal`]; [`Error::Shape`](crate::Error::Shape) for more candidates than weights, or fewer than are to leave.
pub fn removal_among(
    weights: &[f64],
    candidates: usize,
    count: usize,
    inverse: &[f64],
    progress: &Progress,
) -> Result<Removal> {
    if count > candidates || candidates > weights.len() {
        return Err(shape_error!("{count} of {candidates} candidates among {} weights", weights.len()));
    }
    Rest::new(weights.to_vec(), inverse)?.emptied(candidates, count, progress)
}

/// The weights once those of `gone` are zero and the others have made up for them, where the loss is least.
///
/// ```
/// use precode_core::ticket::obs::without;
/// assert_eq!(without(&[2.0, 1.0], &[0], &[1.0, -0.5, -0.5, 1.0])?, [0.0, 2.0]);
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// As [`removal`]; [`Error::Shape`](crate::Error::Shape) for a weight that there is not, or that is gone twice.
pub fn without(weights: &[f64], gone: &[usize], inverse: &[f64]) -> Result<Vec<f64>> {
    let mut rest = Rest::new(weights.to_vec(), inverse)?;
    for &weight in gone {
        if !rest.left.contains(&weight) {
            return Err(shape_error!("weight {weight} is to leave once, of {} weights", weights.len()));
        }
        rest.remove(weight)?;
    }
    Ok(rest.weights)
}

/// Weights without those that have left.
struct Rest {
    /// Zero where a weight has left.
    weights: Vec<f64>,
    /// The inverse of H of the weights left; in rows and columns of others there is nothing to be read.
    inverse: Vec<f64>,
    /// The weights left, increasing.
    left: Vec<usize>,
}

impl Rest {
    fn new(weights: Vec<f64>, inverse: &[f64]) -> Result<Self> {
        let size = weights.len();
        if inverse.len() != size * size {
            return Err(shape_error!("an inverse of {} entries for {size} weights", inverse.len()));
        }
        if let Some(weight) = weights.iter().find(|weight| !weight.is_finite()) {
            return Err(value_error!("a weight is {weight}: weights must be finite (did training diverge?)"));
        }
        let mut own = allocate(Some(size * size), 0.0, "the inverse of a Hessian")?;
        own.copy_from_slice(inverse);
        Ok(Self { weights, inverse: own, left: (0..size).collect() })
    }

    /// Removes `count` of the first `candidates` weights.
    fn emptied(mut self, candidates: usize, count: usize, progress: &Progress) -> Result<Removal> {
        let mut removal = Removal { order: Vec::new(), losses: Vec::new() };
        for _ in 0..count {
            progress.check()?;
            let Some((cheapest, loss)) = self.cheapest(candidates) else { break };
            self.remove(cheapest)?;
            removal.order.push(cheapest);
            removal.losses.push(loss);
        }
        Ok(removal)
    }

    /// Which of the first `candidates` weights is to leave next, and what that costs.
    fn cheapest(&self, candidates: usize) -> Option<(usize, f64)> {
        let size = self.weights.len();
        let cost = |&i: &usize| (i, self.weights[i].powi(2) / self.inverse[i * size + i]);
        let left = self.left.iter().filter(|&&i| i < candidates);
        left.map(cost).reduce(|best, next| if next.1 <= best.1 { next } else { best })
    }

    fn remove(&mut self, gone: usize) -> Result<()> {
        let size = self.weights.len();
        let row = self.inverse[gone * size..][..size].to_vec();
        let pivot = row[gone];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return Err(value_error!("the Hessian is singular to working precision: damp it more"));
        }
        self.left.retain(|&i| i != gone);
        let step = self.weights[gone] / pivot;
        self.weights[gone] = 0.0;
        for &i in &self.left {
            self.weights[i] -= step * row[i];
            let share = row[i] / pivot;
            let entries = self.inverse[i * size..][..size].iter_mut();
            entries.zip(&row).for_each(|(entry, other)| *entry -= share * other);
        }
        Ok(())
    }
}

/// The weights of several rows as (row, weight) in the order in which they leave together: always the row goes on
/// whose next removal costs least; of equal costs the last row.
///
/// ```
/// use precode_core::ticket::obs::{Removal, cheapest_first};
/// let rows = [vec![2.0, 1.0], vec![1.5, 3.0]].map(|losses| Removal { order: vec![0, 1], losses });
/// assert_eq!(cheapest_first(&rows), [(1, 0), (0, 0), (0, 1), (1, 1)]);
/// ```
pub fn cheapest_first(rows: &[Removal]) -> Vec<(usize, usize)> {
    let next = |row: usize, place: usize| {
        rows[row].losses.get(place).map(|&loss| Next { loss: loss + 0.0, row, place })
    };
    let mut heap: BinaryHeap<Next> = (0..rows.len()).filter_map(|row| next(row, 0)).collect();
    let mut order = Vec::new();
    while let Some(Next { row, place, .. }) = heap.pop() {
        order.push((row, rows[row].order[place]));
        heap.extend(next(row, place + 1));
    }
    order
}

/// The next removal of a row; the greatest is the one to come first.
#[derive(PartialEq)]
struct Next {
    loss: f64,
    row: usize,
    place: usize,
}

impl Eq for Next {}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        other.loss.total_cmp(&self.loss).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// For each weight of each layer, (rows, inputs), how many weights of all layers leave before it; 0 for weights that
/// are not alive. Keeping the greatest numbers is what removal leaves, at any density.
///
/// # Errors
/// As [`damped_inverse`] and [`removal`], naming the layer.
pub fn ranks(layers: &[Layer], damping: f64, progress: &Progress) -> Result<Vec<Vec<f64>>> {
    let mut rows: Vec<Removal> = Vec::new();
    let mut places: Vec<(usize, usize)> = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let named = |error| match error {
            crate::Error::Value(message) => value_error!("prunable tensor {number}: {message}"),
            other => other,
        };
        let found = layer.removals(damping, progress).map_err(named)?;
        places.extend((0..found.len()).map(|row| (number, row)));
        rows.extend(found);
    }
    let mut ranks: Vec<Vec<f64>> = layers.iter().map(|layer| vec![0.0; layer.weights.len()]).collect();
    for (rank, (row, weight)) in cheapest_first(&rows).into_iter().enumerate() {
        let (layer, row) = places[row];
        ranks[layer][row * layers[layer].inputs + weight] = rank as f64;
    }
    Ok(ranks)
}

impl Layer<'_> {
    /// Numbers of rows and of Hessians.
    pub(super) fn sizes(&self) -> Result<(usize, usize)> {
        let (inputs, size) = (self.inputs, self.inputs * self.inputs);
        let fits = inputs > 0
            && self.weights.len().is_multiple_of(inputs)
            && self.alive.is_none_or(|alive| alive.len() == self.weights.len())
            && self.hessians.len().is_multiple_of(size)
            && !self.hessians.is_empty();
        let (rows, parts) = (self.weights.len() / inputs.max(1), self.hessians.len() / size.max(1));
        if !fits || !rows.is_multiple_of(parts) {
            return Err(shape_error!(
                "{} weights and {} entries of Hessians for rows of {inputs} inputs",
                self.weights.len(),
                self.hessians.len()
            ));
        }
        Ok((rows, parts))
    }

    /// The removal of each row.
    fn removals(&self, damping: f64, progress: &Progress) -> Result<Vec<Removal>> {
        let (rows, parts) = self.sizes()?;
        let (inputs, size) = (self.inputs, self.inputs * self.inputs);
        let inverses = in_parallel(parts, |part| {
            damped_inverse(&self.hessians[part * size..][..size], inputs, damping)
        })?;
        in_parallel(rows, |row| {
            let here = row * inputs..(row + 1) * inputs;
            let alive = self.alive.map(|alive| &alive[here.clone()]);
            removal(&self.weights[here], alive, &inverses[row / (rows / parts)], progress)
        })
    }
}

#[cfg(test)]
mod tests;
