//! How many codes of a dense network its sparse ticket has after retraining, and what of it is alive.
//!
//! Levels, floors and the relaxed variant are our definitions.

use ndarray::{ArrayView1, ArrayView2, ArrayView3};
use rayon::prelude::*;

use crate::error::{Result, flat, shape_error};
use crate::read::codes::{Clauses, Readout, Real, sign, validate_floor};
use crate::read::template::{Polarity, Template};

/// Where magnitudes begin to count, as a fraction of a layer's mean magnitude in feature space.
pub const RELATIVE_FLOOR: f64 = 0.1;

/// Two sets of codes (at family level: multisets) compared. Ratios are NaN where they would divide by zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Codes of both.
    pub shared: u32,
    /// Codes of the dense network.
    pub dense: u32,
    /// Codes of the sparse network.
    pub sparse: u32,
}

impl Agreement {
    /// Share of the sparse network's codes that the dense one has.
    pub fn precision(&self) -> f64 {
        f64::from(self.shared) / f64::from(self.sparse)
    }

    /// Share of the dense network's codes that the sparse one has.
    pub fn recall(&self) -> f64 {
        f64::from(self.shared) / f64::from(self.dense)
    }

    /// Shared codes among those of either.
    pub fn jaccard(&self) -> f64 {
        f64::from(self.shared) / f64::from(self.dense + self.sparse - self.shared)
    }

    fn add(&mut self, dense: u32, sparse: u32) {
        self.shared += dense.min(sparse);
        self.dense += dense;
        self.sparse += sparse;
    }
}

/// The same codes compared more and more loosely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// On the same row: (clause, template, row).
    pub location: Agreement,
    /// On as many rows: for each (clause, template) the smaller number of rows is shared.
    pub family: Agreement,
    /// On any row: clauses with a code, by the templates of positive rows (by all, where none is of such).
    pub clause: Agreement,
}

/// Code recovery of one network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovery {
    /// Every cell of a code is alive and above the floor.
    pub exact: Levels,
    /// At least half of a code's cells are alive, and those are above the floor with signs that the template
    /// allows.
    pub relaxed: Levels,
    /// Exact codes that each row of the sparse network carries, (rows).
    pub row_coverage: Vec<u32>,
    /// Rows that carry an exact code of each clause in the sparse network, (C).
    pub clause_coverage: Vec<u32>,
}

/// Compares the codes of R sparse-retrained networks with those of their dense parents.
///
/// `alive` says which cells of the sparse networks' features are alive, (R, rows, variables). Magnitudes up to
/// `relative_floor` times the mean magnitude count as zero: of the whole layer in the dense network, of the alive
/// cells in the sparse one, whose mean would otherwise be that of its zeros.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the readouts and cells do not fit together;
/// [`Error::Value`](crate::Error::Value) if a template does not fit the clauses, or `relative_floor` is negative or not
/// finite.
pub fn recovery<T: Real, S: Real>(
    dense: &Readout<T>,
    sparse: &Readout<S>,
    alive: ArrayView3<bool>,
    clauses: &Clauses,
    templates: &[Template],
    relative_floor: f64,
) -> Result<Vec<Recovery>> {
    validate_floor(relative_floor)?;
    let shape = (dense.networks(), dense.rows(), dense.variables());
    if (sparse.networks(), sparse.rows(), sparse.variables()) != shape {
        return Err(shape_error!(
            "sparse networks of {} x {} x {} beside dense ones of {shape:?} (networks, rows, variables)",
            sparse.networks(),
            sparse.rows(),
            sparse.variables()
        ));
    }
    let size = dense.rows() * dense.variables();
    if alive.dim() != shape {
        return Err(shape_error!(
            "alive cells of shape {:?} for networks of {shape:?}: one for each cell",
            alive.shape()
        ));
    }
    let alive = flat(alive, "the alive cells")?;
    templates.iter().try_for_each(|template| template.check_width(clauses.width()))?;
    let of_network = |network: usize| {
        let alive = &alive[network * size..][..size];
        let all = vec![true; size];
        let before = Codes::read(dense, &all, clauses, templates, network, relative_floor);
        let after = Codes::read(sparse, alive, clauses, templates, network, relative_floor);
        let (count, rows) = (clauses.count(), dense.rows());
        let of_rows = |row: usize| after.exact.iter().skip(row).step_by(rows).filter(|&&code| code).count();
        let of_clause = |clause: usize| {
            let carries =
                |row: &usize| (0..templates.len()).any(|t| after.exact[(t * count + clause) * rows + row]);
            (0..rows).filter(carries).count()
        };
        Recovery {
            exact: levels(&before.exact, &after.exact, clauses.count(), rows, templates),
            relaxed: levels(&before.exact, &after.relaxed, clauses.count(), rows, templates),
            row_coverage: (0..rows).map(|row| of_rows(row) as u32).collect(),
            clause_coverage: (0..count).map(|clause| of_clause(clause) as u32).collect(),
        }
    };
    Ok((0..shape.0).into_par_iter().map(of_network).collect())
}

/// Whether each location (template, clause, row) of a network carries its code.
struct Codes {
    exact: Vec<bool>,
    relaxed: Vec<bool>,
}

impl Codes {
    fn read<T: Real>(
        readout: &Readout<T>,
        alive: &[bool],
        clauses: &Clauses,
        templates: &[Template],
        network: usize,
        relative_floor: f64,
    ) -> Self {
        let variables = readout.variables();
        let magnitude = |cell: usize| readout.row(network, cell / variables)[cell % variables].into().abs();
        let living: Vec<f64> = (0..alive.len()).filter(|&cell| alive[cell]).map(magnitude).collect();
        let floor = relative_floor * living.iter().sum::<f64>() / living.len().max(1) as f64;
        let (mut exact, mut relaxed) = (Vec::new(), Vec::new());
        for &template in templates {
            for clause in 0..clauses.count() {
                for row in 0..readout.rows() {
                    let (weights, living) =
                        (readout.row(network, row), &alive[row * variables..][..variables]);
                    let [mut cells, mut positives, mut negatives] = [0; 3];
                    for &(variable, literal) in clauses.literals(network, clause) {
                        if living[variable] {
                            let sign = sign(literal * weights[variable].into(), floor);
                            cells += 1;
                            positives += usize::from(sign > 0);
                            negatives += usize::from(sign < 0);
                        }
                    }
                    let fits = readout.polarity(network, row) == Some(template.polarity)
                        && positives <= template.positives
                        && negatives <= template.negatives
                        && positives + negatives == cells;
                    exact.push(fits && cells == clauses.width());
                    relaxed.push(fits && 2 * cells >= clauses.width());
                }
            }
        }
        Self { exact, relaxed }
    }
}

fn levels(dense: &[bool], sparse: &[bool], count: usize, rows: usize, templates: &[Template]) -> Levels {
    let mut levels = Levels::default();
    dense.iter().zip(sparse).for_each(|(&dense, &sparse)| levels.location.add(dense.into(), sparse.into()));
    let families = |codes: &[bool]| -> Vec<u32> {
        codes.chunks_exact(rows).map(|family| family.iter().filter(|&&code| code).count() as u32).collect()
    };
    let (dense, sparse) = (families(dense), families(sparse));
    dense.iter().zip(&sparse).for_each(|(&dense, &sparse)| levels.family.add(dense, sparse));
    let positive = |template: &Template| template.polarity == Polarity::Positive;
    let counted: Vec<usize> = (0..templates.len())
        .filter(|&t| positive(&templates[t]) || !templates.iter().any(positive))
        .collect();
    for clause in 0..count {
        let coded = |families: &[u32]| counted.iter().any(|&t| families[t * count + clause] > 0);
        levels.clause.add(coded(&dense).into(), coded(&sparse).into());
    }
    levels
}

/// What of a masked first layer can still carry anything from an input to the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Weights that are alive.
    pub kept: u32,
    /// Rows without a live weight, or with a dead output weight.
    pub dead_rows: u32,
    /// Live weights on rows whose output weight is alive.
    pub on_paths: u32,
}

/// Liveness of R networks: the `alive` weights of their first layers (R, rows, inputs), and whether each row's output
/// weight is alive (R, rows).
///
/// ```
/// use ndarray::array;
/// use precode_core::ticket::recovery::liveness;
/// let (alive, outputs) = (array![[[true, true], [true, false]]], array![[true, false]]);
/// let counts = liveness(alive.view(), outputs.view())?[0];
/// assert_eq!((counts.kept, counts.dead_rows, counts.on_paths), (3, 1, 2));
/// # Ok::<(), precode_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if there is not one output weight a row.
pub fn liveness(alive: ArrayView3<bool>, outputs: ArrayView2<bool>) -> Result<Vec<Liveness>> {
    let (networks, rows, _) = alive.dim();
    if outputs.dim() != (networks, rows) {
        return Err(shape_error!(
            "output weights of shape {:?} do not fit masks of shape {:?}: pass one a row",
            outputs.shape(),
            alive.shape()
        ));
    }
    let of_network = |(alive, outputs): (ArrayView2<bool>, ArrayView1<bool>)| {
        let mut liveness = Liveness::default();
        for (row, &output) in alive.outer_iter().zip(&outputs) {
            let kept = row.iter().filter(|&&alive| alive).count() as u32;
            liveness.kept += kept;
            liveness.dead_rows += u32::from(kept == 0 || !output);
            liveness.on_paths += if output { kept } else { 0 };
        }
        liveness
    };
    Ok(alive.outer_iter().zip(outputs.outer_iter()).map(of_network).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::codes::of_slices;
    use crate::read::template::templates;
    use crate::task::formula::{Clause, Literal};
    use ndarray::{Array3, array};
    use proptest::prelude::*;

    fn clauses(signed: &[&[i64]], variables: usize) -> Clauses {
        let set: Vec<Clause> =
            signed.iter().map(|clause| clause.iter().map(|&s| Literal::from_signed(s)).collect()).collect();
        Clauses::new(&[&set], 1, variables).unwrap()
    }

    fn agreement(shared: u32, dense: u32, sparse: u32) -> Agreement {
        Agreement { shared, dense, sparse }
    }

    #[test]
    fn two_clauses_by_hand() {
        let clauses = clauses(&[&[0, 1], &[1, 2]], 3);
        let templates: Vec<Template> = templates(2).collect();
        // Rows: 2P of clause 0; 2P of both; 1P1N of clause 0 (the other is below the floor).
        let dense = [1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 0.01];
        let dense = of_slices([1, 3, 3], &dense, &[1.0f64, 1.0, -1.0]);
        // The code of clause 0 moves to the row of clause 1; half of row 2 dies.
        let sparse = [0.0, 0.0, 0.0, 2.0, 2.0, 0.0, 1.0, 0.0, 0.0];
        let alive = array![[[false, false, false], [true, true, false], [true, false, false]]];
        let sparse = of_slices([1, 3, 3], &sparse, &[1.0f64, 1.0, -1.0]);
        let got = &recovery(&dense, &sparse, alive.view(), &clauses, &templates, RELATIVE_FLOOR).unwrap()[0];
        assert_eq!(got.exact.location, agreement(1, 4, 1));
        assert_eq!(got.exact.family, agreement(1, 4, 1));
        assert_eq!(got.exact.clause, agreement(1, 2, 1));
        assert_eq!(
            (got.row_coverage.as_slice(), got.clause_coverage.as_slice()),
            (&[0, 1, 0][..], &[1, 0][..])
        );
        // Half alive: clause 1 on row 1 by its variable 1, clause 0 on row 2 by its variable 0.
        assert_eq!(got.relaxed.location, agreement(3, 4, 3));
        assert_eq!(got.relaxed.clause, agreement(2, 2, 2));
        assert_eq!(got.exact.location.recall(), 0.25);
        assert_eq!(got.exact.location.precision(), 1.0);
        assert_eq!(got.exact.location.jaccard(), 0.25);
        assert!(agreement(0, 0, 0).jaccard().is_nan() && agreement(0, 1, 0).precision().is_nan());
    }

    proptest! {
        #[test]
        fn a_network_recovers_itself(weights in prop::collection::vec(-1.0..1.0f64, 6 * 5),
                                     outputs in prop::collection::vec(-1.0..1.0f64, 6), row in 0usize..6) {
            let clauses = clauses(&[&[0, 1, 2], &[2, !3, 4]], 5);
            let templates: Vec<Template> = templates(3).collect();
            let dense = of_slices([1, 6, 5], &weights, &outputs);
            let all = Array3::from_elem((1, 6, 5), true);
            let of = |sparse: &Readout<f64>, alive: &Array3<bool>| {
                recovery(&dense, sparse, alive.view(), &clauses, &templates, RELATIVE_FLOOR).unwrap().remove(0).exact
            };
            let got = of(&dense, &all);
            for level in [got.location, got.family, got.clause] {
                prop_assert!(level.shared == level.dense && level.dense == level.sparse);
            }
            // Rows in another order keep families, not locations.
            let (mut moved, mut signs) = (weights.clone(), outputs.clone());
            moved.rotate_left(5 * row);
            signs.rotate_left(row);
            let moved = of(&of_slices([1, 6, 5], &moved, &signs), &all);
            prop_assert_eq!((moved.family, moved.clause), (got.family, got.clause));
            // A code needs every cell: without variable 2 none is left.
            let alive = Array3::from_shape_fn((1, 6, 5), |(_, _, variable)| variable != 2);
            prop_assert_eq!(of(&dense, &alive).location.sparse, 0);
        }
    }

    #[test]
    fn dead_rows_and_paths() {
        let alive = array![[[true, true], [false, false], [true, false]]];
        assert_eq!(
            liveness(alive.view(), array![[true, true, false]].view()).unwrap(),
            [Liveness { kept: 3, dead_rows: 2, on_paths: 2 }]
        );
        assert!(liveness(alive.view(), array![[true; 4]].view()).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let clauses = clauses(&[&[0, 1]], 2);
        let readout = of_slices([1, 1, 2], &[1.0f64, 1.0], &[1.0]);
        let wide = of_slices([1, 2, 2], &[1.0f64; 4], &[1.0; 2]);
        let (all, more) = (Array3::from_elem((1, 1, 2), true), Array3::from_elem((1, 1, 3), true));
        let templates: Vec<Template> = templates(2).collect();
        assert!(recovery(&readout, &wide, all.view(), &clauses, &templates, RELATIVE_FLOOR).is_err());
        assert!(recovery(&readout, &readout, more.view(), &clauses, &templates, RELATIVE_FLOOR).is_err());
        assert!(recovery(&readout, &readout, all.view(), &clauses, &templates, -1.0).is_err());
        let wide: Vec<Template> = crate::read::template::templates(4).collect();
        assert!(recovery(&readout, &readout, all.view(), &clauses, &wide, RELATIVE_FLOOR).is_err());
    }
}
