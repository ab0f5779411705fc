//! The greedy choice of locations under a budget of cells.

use super::Probe;
use super::locations::{Cell, Location};
use crate::read::codes::{Readout, Real};
use crate::read::template::Polarity;
use crate::ticket::translation::better;

/// Marks the cells of the chosen locations of one network in `kept` (rows, variables), all False before;
/// returns how many of the budget are left. `demands` is (C, rows).
pub(super) fn choose(
    locations: &[Location],
    demands: &[f64],
    width: usize,
    variables: usize,
    budget: usize,
    settings: &Probe,
    kept: &mut [bool],
) -> usize {
    let rows = kept.len() / variables;
    let mut by_row = vec![Vec::new(); rows];
    for (i, location) in locations.iter().enumerate() {
        by_row[location.row].push(i);
    }
    let covered = vec![0; demands.len() / rows * width * 4];
    let wanted = vec![0; kept.len() * 2];
    let mut greedy = Greedy {
        locations,
        demands,
        settings,
        width,
        rows,
        variables,
        left: budget,
        by_row,
        covered,
        wanted,
        kept,
    };
    greedy.run();
    greedy.left
}

/// Marks the `count` largest weights of one network that are not in `kept`; with `invert`, the smallest.
pub(super) fn fill<T: Real>(
    readout: &Readout<T>,
    network: usize,
    count: usize,
    invert: bool,
    kept: &mut [bool],
) {
    let variables = readout.variables();
    let magnitude = |cell: usize| {
        let weight: f64 = readout.row(network, cell / variables)[cell % variables].into();
        if invert { -weight.abs() } else { weight.abs() }
    };
    let mut rest: Vec<usize> = (0..kept.len()).filter(|&cell| !kept[cell]).collect();
    rest.sort_by(|&a, &b| magnitude(b).total_cmp(&magnitude(a)));
    rest.iter().take(count).for_each(|&cell| kept[cell] = true);
}

struct Greedy<'a> {
    locations: &'a [Location],
    demands: &'a [f64],
    settings: &'a Probe,
    width: usize,
    rows: usize,
    variables: usize,
    /// Cells that may still be kept.
    left: usize,
    /// The locations of each row.
    by_row: Vec<Vec<usize>>,
    /// (C, width, polarity, sign): how often a literal is covered.
    covered: Vec<u32>,
    /// (rows, variables, sign): how often a sign is wanted of a weight.
    wanted: Vec<u32>,
    kept: &'a mut [bool],
}

impl Greedy<'_> {
    /// Only a row that changed, and rows whose best location is of the clause that changed or no longer fits,
    /// are looked at again: elsewhere a choice can only lower what is not the best.
    fn run(&mut self) {
        let mut best: Vec<Option<(f64, usize)>> = (0..self.rows).map(|row| self.best_of(row)).collect();
        while let Some((_, chosen)) = best.iter().flatten().copied().reduce(better) {
            self.take(chosen);
            let Location { clause, row: changed, .. } = self.locations[chosen];
            for (row, best) in best.iter_mut().enumerate() {
                let stale = |(_, i): (f64, usize)| {
                    let location = &self.locations[i];
                    location.clause == clause || self.new_cells(location) > self.left
                };
                if row == changed || best.is_some_and(stale) {
                    *best = self.best_of(row);
                }
            }
        }
    }

    /// The best location of a row that has new cells and fits: (score less its penalty, number).
    fn best_of(&self, row: usize) -> Option<(f64, usize)> {
        let fits = |&&i: &&usize| (1..=self.left).contains(&self.new_cells(&self.locations[i]));
        self.by_row[row].iter().filter(fits).map(|&i| (self.value(&self.locations[i]), i)).reduce(better)
    }

    fn new_cells(&self, location: &Location) -> usize {
        let row = &self.kept[location.row * self.variables..][..self.variables];
        location.cells.iter().filter(|cell| !row[cell.variable]).count()
    }

    /// Score less penalty.
    fn value(&self, location: &Location) -> f64 {
        let penalties = &self.settings.penalties;
        let covered: u32 = location.cells.iter().map(|cell| self.covered[self.literal(location, cell)]).sum();
        let conflicts: u32 =
            location.cells.iter().map(|cell| self.wanted[self.sign(location, cell, !cell.wanted)]).sum();
        let cells = location.cells.len() as f64;
        let taken = penalties.coverage * f64::from(covered) + penalties.conflict * f64::from(conflicts);
        location.score
            - taken / cells
            - penalties.demand * self.demands[location.clause * self.rows + location.row]
            + penalties.sharing * (1.0 - self.new_cells(location) as f64 / cells)
    }

    fn take(&mut self, chosen: usize) {
        let location = &self.locations[chosen];
        self.left -= self.new_cells(location);
        for cell in &location.cells {
            let (literal, sign) = (self.literal(location, cell), self.sign(location, cell, cell.wanted));
            self.kept[location.row * self.variables + cell.variable] = true;
            self.covered[literal] += 1;
            self.wanted[sign] += 1;
        }
    }

    fn literal(&self, location: &Location, cell: &Cell) -> usize {
        let literal = location.clause * self.width + cell.literal;
        (literal * 2 + usize::from(location.polarity == Polarity::Negative)) * 2 + usize::from(cell.positive)
    }

    fn sign(&self, location: &Location, cell: &Cell, positive: bool) -> usize {
        (location.row * self.variables + cell.variable) * 2 + usize::from(positive)
    }
}
