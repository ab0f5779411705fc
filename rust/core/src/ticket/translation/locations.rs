//! Locations that a ticket is to keep, and what they ask of the weights behind an embedding.
//!
//! A location asks for the signs of its template at the variables of its clause, in C1 = W1 C0. Behind a projection
//! one weight takes part in the signs of all variables, so that locations are turned into weights in one of three
//! ways: a target that the weights are to lie along, a loss of the signs that weights are removed under, or a
//! Hessian beside that of the layer's inputs. All of this is our definition: arXiv 2605.17704 names probes by feature
//! distance and motion, and its formulas are not public.

use ndarray::{Array2, Array3, ArrayView2};

use super::Translation;
use crate::Progress;
use crate::error::{Result, flat, shape_error, shaped};
use crate::read::codes::{Clauses, Readout, Real};
use crate::read::template::{Polarity, Template, templates};
use crate::ticket::obs::{Layer, Removal, cheapest_first};

/// Between these agreements with a template, in units of the row's root mean square, a weight counts as it is: beyond
/// them it is wrong or right enough.
const AGREEMENT: (f64, f64) = (-1.0, 0.5);

/// Scores over which a chosen location's weight goes from one half, at the last chosen, towards one.
const SOFTNESS: f64 = 0.1;

/// The least agreement of a kept sign that costs nothing, in units of the row's root mean square.
const MARGIN: f64 = 0.3;

/// What a weight's magnitude adds to the cost of its removal, as a fraction of the largest: it decides where no sign is
/// at stake.
const MAGNITUDE: f64 = 0.001;

/// A location that a ticket is to keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The row.
    pub row: usize,
    /// From 1/2, for the last that was chosen, to 1.
    pub weight: f64,
    /// Variables of the clause, and the signs that the row's features are to have there: 1 or -1.
    pub signs: Vec<(usize, f64)>,
}

/// Codes that a first layer of so many weights can hold exactly: a row of m weights meets m linear conditions, and a
/// code of k literals makes k. One at least.
///
/// ```
/// use precode_core::ticket::translation::exact_codes;
/// assert_eq!(exact_codes(32 * 16, 4), 128);
/// ```
pub fn exact_codes(weights: usize, width: usize) -> usize {
    (weights / width.max(1)).max(1)
}

/// The `count` locations of one network whose signs the features `x` agree with best; all where there are fewer.
///
/// `x` are features, their motion, or a sum of both; its output weights give the rows their polarity. The template is
/// the first of the row's polarity, 4P or 3N1P of four literals, its positive signs where `x` is largest. The score is
/// the mean over the literals of `t x / rms(row)`, cut at -1 and 0.5; weights are `sigmoid((score - last) / 0.1)`. Ties
/// go to the lowest (clause, row).
///
/// ```
/// use ndarray::array;
/// use precode_core::ticket::translation::choose_locations;
/// use precode_core::{Clauses, Literal, Readout};
/// let (x, w2) = (array![[[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]]], array![[0.5, 0.5]]);
/// let clauses = [vec![Literal::from_signed(0), Literal::from_signed(1)]];
/// let clauses = Clauses::new(&[&clauses], 1, 3)?;
/// let chosen = choose_locations(&Readout::new(x.view(), w2.view())?, &clauses, 0, 1);
/// assert_eq!((chosen[0].row, chosen[0].weight, chosen[0].signs.clone()), (0, 0.5, vec![(0, 1.0), (1, 1.0)]));
/// # Ok::<(), precode_core::Error>(())
/// ```
pub fn choose_locations<T: Real>(
    x: &Readout<T>,
    clauses: &Clauses,
    network: usize,
    count: usize,
) -> Vec<Chosen> {
    let of_polarity =
        |polarity: Polarity| templates(clauses.width()).find(|template| template.polarity == polarity);
    let [positive, negative] = Polarity::BOTH.map(of_polarity);
    let rms: Vec<f64> = (0..x.rows()).map(|row| root_mean_square(x.row(network, row))).collect();
    let mut scored = Vec::with_capacity(clauses.count() * x.rows());
    for clause in 0..clauses.count() {
        for (row, polarity) in x.polarities(network).enumerate() {
            let template = match polarity {
                Some(Polarity::Positive) => positive,
                Some(Polarity::Negative) => negative,
                None => None,
            };
            let Some(template) = template else { continue };
            let (signs, score) =
                placed(x.row(network, row), rms[row], clauses.literals(network, clause), template);
            scored.push((score, Chosen { row, weight: 1.0, signs }));
        }
    }
    // Stable, so that ties stay in order.
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.truncate(count);
    let last = scored.last().map_or(0.0, |(score, _)| *score);
    let weighted = |(score, chosen): (f64, Chosen)| Chosen {
        weight: 1.0 / (1.0 + ((last - score) / SOFTNESS).exp()),
        ..chosen
    };
    scored.into_iter().map(weighted).collect()
}

/// The signs that a template asks for at a clause's variables, its positive ones where the row is largest along the
/// literals, and how well the row agrees with them.
fn placed<T: Real>(
    row: &[T],
    rms: f64,
    literals: &[(usize, f64)],
    template: Template,
) -> (Vec<(usize, f64)>, f64) {
    let aligned: Vec<f64> = literals.iter().map(|&(variable, sign)| sign * row[variable].into()).collect();
    let mut order: Vec<usize> = (0..aligned.len()).collect();
    order.sort_by(|&a, &b| aligned[b].total_cmp(&aligned[a]));
    let mut signs = vec![(0, 0.0); literals.len()];
    let mut total = 0.0;
    for (place, &literal) in order.iter().enumerate() {
        let wanted = if place < template.positives { 1.0 } else { -1.0 };
        let agreement = if rms > 0.0 { wanted * aligned[literal] / rms } else { 0.0 };
        total += agreement.clamp(AGREEMENT.0, AGREEMENT.1);
        signs[literal] = (literals[literal].0, literals[literal].1 * wanted);
    }
    (signs, total / literals.len() as f64)
}

fn root_mean_square<T: Real>(values: &[T]) -> f64 {
    (values.iter().map(|&value| value.into().powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

impl Translation {
    /// What the weights are to lie along, V = T C0' of (rows, inputs): T has the signs of the chosen locations, times
    /// their weights, summed.
    ///
    /// ```
    /// use precode_core::ticket::translation::{Chosen, Translation};
    /// let chosen = [Chosen { row: 1, weight: 0.5, signs: vec![(0, 1.0), (2, -1.0)] }];
    /// let target = Translation::identity(3).target(&chosen, 2)?;
    /// assert_eq!(target, ndarray::array![[0.0, 0.0, 0.0], [0.5, 0.0, -0.5]]);
    /// # Ok::<(), precode_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a row or variable that there is not.
    pub fn target(&self, chosen: &[Chosen], rows: usize) -> Result<Array2<f64>> {
        self.check_chosen(chosen, rows)?;
        let mut wanted = vec![0.0; rows * self.variables];
        for Chosen { row, weight, signs } in chosen {
            for &(variable, sign) in signs {
                wanted[row * self.variables + variable] += weight * sign;
            }
        }
        shaped(self.pulled_back(&wanted), (rows, self.inputs))
    }

    /// For each weight (rows, inputs), how many weights leave before it when always the one leaves whose removal costs
    /// the signs of the chosen locations least. Keeping the greatest numbers is what removal leaves, at any density.
    ///
    /// Once a weight w of a row has left, the row's cost is the sum over the signs t of its locations of
    /// `max(0, 0.3 - t c / s) / 0.3`, c being the features of what is left of the row and s their root mean square in the
    /// whole row; `0.001 abs(w) / max abs(w)` is added. Always the row goes on whose next cost is the least.
    ///
    /// # Errors
    /// As [`realize`](Self::realize) and [`target`](Self::target); [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn keep_signs(
        &self,
        weights: ArrayView2<f64>,
        chosen: &[Chosen],
        progress: &Progress,
    ) -> Result<Array2<f64>> {
        let (rows, inputs) = weights.dim();
        self.check_inputs(weights.shape(), inputs)?;
        self.check_chosen(chosen, rows)?;
        let entries = flat(weights, "the weights")?;
        super::finite(entries, "the weights")?;
        let largest = entries.iter().fold(0.0, |largest: f64, weight| largest.max(weight.abs()));
        let mut removals = Vec::with_capacity(rows);
        for row in 0..rows {
            progress.check()?;
            let signs: Vec<(usize, f64)> = chosen
                .iter()
                .filter(|chosen| chosen.row == row)
                .flat_map(|chosen| chosen.signs.iter().copied())
                .collect();
            removals.push(self.sign_removal(&entries[row * inputs..][..inputs], &signs, largest));
        }
        let mut ranks = Array2::zeros((rows, inputs));
        for (rank, place) in cheapest_first(&removals).into_iter().enumerate() {
            ranks[place] = rank as f64;
        }
        Ok(ranks)
    }

    fn sign_removal(&self, weights: &[f64], signs: &[(usize, f64)], largest: f64) -> Removal {
        let scale = root_mean_square(&self.forward(weights));
        let scale = if scale > 0.0 { scale } else { 1.0 };
        // What each weight adds to the agreement of each sign.
        let shares: Vec<Vec<f64>> = weights
            .iter()
            .enumerate()
            .map(|(input, &weight)| {
                signs
                    .iter()
                    .map(|&(variable, sign)| weight * self.entry(input, variable) * sign / scale)
                    .collect()
            })
            .collect();
        let mut agreement: Vec<f64> =
            (0..signs.len()).map(|place| shares.iter().map(|share| share[place]).sum()).collect();
        let cost = |agreement: &[f64], input: usize| {
            let without = agreement.iter().zip(&shares[input]).map(|(all, own)| all - own);
            let lost: f64 = without.map(|left| (MARGIN - left).max(0.0) / MARGIN).sum();
            lost + if largest > 0.0 { MAGNITUDE * weights[input].abs() / largest } else { 0.0 }
        };
        let mut left: Vec<usize> = (0..weights.len()).collect();
        let mut removal = Removal { order: Vec::new(), losses: Vec::new() };
        // Of equal costs the last leaves.
        while let Some((gone, loss)) = left
            .iter()
            .map(|&input| (input, cost(&agreement, input)))
            .reduce(|best, next| if next.1 <= best.1 { next } else { best })
        {
            left.retain(|&input| input != gone);
            agreement.iter_mut().zip(&shares[gone]).for_each(|(all, own)| *all -= own);
            removal.order.push(gone);
            removal.losses.push(loss);
        }
        removal
    }

    /// For each weight (rows, inputs), its place in the order of exact removal ([`ranks`](crate::ticket::obs::ranks))
    /// under two Hessians: that of the layer's inputs, `moments` E[z z'] (inputs, inputs), and that of the chosen
    /// locations' features, the sum of c c' over the columns c of C0 that a row's locations read. Each is divided by its
    /// mean diagonal, the second by that of all rows together.
    ///
    /// # Errors
    /// As [`target`](Self::target) and [`ranks`](crate::ticket::obs::ranks).
    pub fn keep_features(
        &self,
        weights: ArrayView2<f64>,
        chosen: &[Chosen],
        moments: &[f64],
        damping: f64,
        progress: &Progress,
    ) -> Result<Array2<f64>> {
        let (rows, inputs) = weights.dim();
        self.check_inputs(weights.shape(), inputs)?;
        self.check_chosen(chosen, rows)?;
        if moments.len() != inputs * inputs {
            return Err(shape_error!("{} moments for {inputs} inputs: expected their square", moments.len()));
        }
        let mut hessians = Array3::<f64>::zeros((rows, inputs, inputs));
        for Chosen { row, signs, .. } in chosen {
            for &(variable, _) in signs {
                for (a, b) in (0..inputs * inputs).map(|i| (i / inputs, i % inputs)) {
                    hessians[(*row, a, b)] += self.entry(a, variable) * self.entry(b, variable);
                }
            }
        }
        let diagonal = |hessian: &dyn Fn(usize) -> f64| (0..inputs).map(hessian).sum::<f64>() / inputs as f64;
        let of_codes = (0..rows).map(|row| diagonal(&|i| hessians[(row, i, i)])).sum::<f64>() / rows as f64;
        let of_inputs = diagonal(&|i| moments[i * inputs + i]);
        for ((_, a, b), entry) in hessians.indexed_iter_mut() {
            *entry = if of_codes > 0.0 { *entry / of_codes } else { 0.0 };
            *entry += if of_inputs > 0.0 { moments[a * inputs + b] / of_inputs } else { 0.0 };
        }
        let layer = Layer {
            weights: flat(weights, "the weights")?,
            alive: None,
            hessians: flat(hessians.view(), "the Hessians")?,
            inputs,
        };
        let ranks = crate::ticket::obs::ranks(&[layer], damping, progress)?.swap_remove(0);
        shaped(ranks, (rows, inputs))
    }

    /// An entry of C0.
    fn entry(&self, input: usize, variable: usize) -> f64 {
        match &self.matrices {
            Some((matrix, _)) => matrix[input * self.variables + variable],
            None => f64::from(u8::from(input == variable)),
        }
    }

    fn check_chosen(&self, chosen: &[Chosen], rows: usize) -> Result<()> {
        let fits = |location: &&Chosen| {
            location.row < rows && location.signs.iter().all(|&(variable, _)| variable < self.variables)
        };
        match chosen.iter().find(|location| !fits(location)) {
            Some(Chosen { row, signs, .. }) => Err(shape_error!(
                "a location on row {row} with signs {signs:?}: there are {rows} rows and {} variables",
                self.variables
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
