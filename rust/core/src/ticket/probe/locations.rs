//! All locations of a network that a probe may choose, with their cells and scores.

use super::Probe;
use crate::read::codes::{Clauses, Readout, Real};
use crate::read::distance::Metric;
use crate::read::template::{Polarity, Template};

/// A cell of a location.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    pub variable: usize,
    /// Number of the literal within the clause.
    pub literal: usize,
    /// Whether the template has a positive sign here, as aligned with the literal.
    pub positive: bool,
    /// Whether the weight is to be positive.
    pub wanted: bool,
}

/// A location, or a part of one: where a pattern of a polarity meets a clause on a row.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub clause: usize,
    pub row: usize,
    pub polarity: Polarity,
    pub cells: Vec<Cell>,
    /// The larger the better.
    pub score: f64,
}

/// Locations in the order (clause, pattern, row).
pub(super) fn locations<T: Real>(
    start: &Readout<T>,
    latest: &Readout<T>,
    clauses: &Clauses,
    templates: &[Template],
    network: usize,
    settings: &Probe,
) -> Vec<Location> {
    let patterns = patterns(templates, settings.least_cells.min(clauses.width()));
    let polarities: Vec<Option<Polarity>> = latest.polarities(network).collect();
    let scale = Some(latest.mean_magnitude(network)).filter(|&mean| mean > 0.0).unwrap_or(1.0);
    let mut out = Vec::new();
    for clause in 0..clauses.count() {
        let literals = clauses.literals(network, clause);
        for &pattern in &patterns {
            let rows = (0..polarities.len()).filter(|&row| polarities[row] == Some(pattern.polarity));
            out.extend(rows.map(|row| {
                let cells = cells(latest.row(network, row), literals, pattern);
                let distance = |readout: &Readout<T>| {
                    let row = readout.row(network, row);
                    let aligned = |cell: &Cell| literals[cell.literal].1 * row[cell.variable].into();
                    let mut values: Vec<f64> = cells.iter().map(aligned).collect();
                    let cells = match settings.metric {
                        Metric::Margin | Metric::Cosine => 1.0,
                        Metric::Hamming | Metric::Soft | Metric::SignedSum => values.len() as f64,
                    };
                    settings.metric.nearest(&mut values, pattern, scale) / cells
                };
                let mut score = -settings.distance * distance(start);
                if settings.motion != 0.0 {
                    score -= settings.motion * (distance(latest) - distance(start));
                }
                let score = if settings.invert { -score } else { score };
                Location { clause, row, polarity: pattern.polarity, cells, score }
            }));
        }
    }
    out
}

/// The templates and their parts of at least `least` cells, each once. A part of a template with both signs
/// has both: one sign alone tells nothing of the other literals.
fn patterns(templates: &[Template], least: usize) -> Vec<Template> {
    let mut out = Vec::new();
    for &Template { polarity, positives, negatives } in templates {
        let both = usize::from(positives > 0 && negatives > 0);
        for size in least..=positives + negatives {
            for p in both.min(positives)..=positives.min(size) {
                let n = size - p;
                let part = Template { polarity, positives: p, negatives: n };
                if (both.min(negatives)..=negatives).contains(&n) && !out.contains(&part) {
                    out.push(part);
                }
            }
        }
    }
    out
}

/// The cells of a row that agree best with a pattern at a clause's literals: its positive signs at the largest
/// aligned weights, its negative ones at the smallest.
fn cells<T: Real>(row: &[T], literals: &[(usize, f64)], pattern: Template) -> Vec<Cell> {
    let aligned = |literal: usize| literals[literal].1 * row[literals[literal].0].into();
    let mut order: Vec<usize> = (0..literals.len()).collect();
    order.sort_by(|&a, &b| aligned(b).total_cmp(&aligned(a)));
    let cell = |&literal: &usize, positive: bool| {
        let (variable, sign) = literals[literal];
        Cell { variable, literal, positive, wanted: positive == (sign > 0.0) }
    };
    let positive = order[..pattern.positives].iter().map(|literal| cell(literal, true));
    let negative = order[order.len() - pattern.negatives..].iter().map(|literal| cell(literal, false));
    positive.chain(negative).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(names: &[&str]) -> Vec<Template> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn parts_have_both_signs_and_come_once() {
        let templates = parse(&["4P", "3N1P", "2P2N"]);
        assert_eq!(patterns(&templates, 4), templates);
        let names: Vec<String> = patterns(&templates, 2).iter().map(Template::to_string).collect();
        assert_eq!(names, ["2P", "3P", "4P", "1P1N", "2N1P", "3N1P", "2P1N", "2P2N"]);
    }

    #[test]
    fn cells_are_the_best_placement() {
        // Aligned with the literals x3, not x1, x0 the weights are 0.5, 2 and -1.
        let (row, literals) = ([-1.0, -2.0, 9.0, 0.5], [(3, 1.0), (1, -1.0), (0, 1.0)]);
        let pattern = Template { polarity: Polarity::Negative, positives: 1, negatives: 1 };
        let got = cells(&row, &literals, pattern);
        let expected = [
            Cell { variable: 1, literal: 1, positive: true, wanted: false },
            Cell { variable: 0, literal: 2, positive: false, wanted: false },
        ];
        assert_eq!(got, expected);
    }
}
