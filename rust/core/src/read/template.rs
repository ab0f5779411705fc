//! Templates: the (polarity, pattern) pairs that compute a clause.

use std::fmt;

use crate::error::{Result, value_error};

/// Sign of a row's output weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Polarity {
    /// The row pushes the output towards True.
    Positive,
    /// The row pushes the output towards False.
    Negative,
}

impl Polarity {
    /// Both, in the order of the arrays that have a polarity axis.
    pub const BOTH: [Self; 2] = [Self::Positive, Self::Negative];

    /// Of an output weight; a weight of zero has none.
    pub fn of(weight: f64) -> Option<Self> {
        match weight {
            w if w > 0.0 => Some(Self::Positive),
            w if w < 0.0 => Some(Self::Negative),
            _ => None,
        }
    }
}

/// A pattern of signs on a clause's literals, in any placement, on rows of one polarity
/// (arXiv 2504.08842, section 4.1).
///
/// Signs are taken per literal: at a negated literal the weight's sign is flipped first, so `4P` on
/// a clause with one negated literal is the published "3P1N aligned".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    /// Polarity of the rows that carry it.
    pub polarity: Polarity,
    /// Literals with a positive sign.
    pub positives: usize,
    /// Literals with a negative sign.
    pub negatives: usize,
}

impl Template {
    /// From a name such as `4P`, `3N1P` or `2P2N` for clauses of `width` literals. All-positive
    /// templates live on positive rows, all others on negative rows.
    ///
    /// ```
    /// use precode_core::read::template::{Polarity, Template};
    /// let template = Template::parse("3N1P", 4).unwrap();
    /// assert_eq!((template.positives, template.negatives), (1, 3));
    /// assert_eq!(template.polarity, Polarity::Negative);
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if the name is not counts of P and N that add up to `width`.
    pub fn parse(name: &str, width: usize) -> Result<Self> {
        let counts = parse_counts(name).filter(|(positives, negatives)| positives + negatives == width);
        let Some((positives, negatives)) = counts else {
            let names: Vec<String> = (0..=width).rev().map(|p| pattern_name(p, width - p)).collect();
            return Err(value_error!(
                "template '{name}' does not fit clauses of {width} literals: use one of {}",
                names.join(", ")
            ));
        };
        let polarity = if negatives == 0 { Polarity::Positive } else { Polarity::Negative };
        Ok(Self { polarity, positives, negatives })
    }

    /// Number of literals.
    pub fn width(&self) -> usize {
        self.positives + self.negatives
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&pattern_name(self.positives, self.negatives))
    }
}

/// Name of a pattern: `4P`, `3P1N`, `2P2N`, `3N1P`, `4N`: the larger count first.
pub fn pattern_name(positives: usize, negatives: usize) -> String {
    match (positives, negatives) {
        (p, 0) => format!("{p}P"),
        (0, n) => format!("{n}N"),
        (p, n) if n > p => format!("{n}N{p}P"),
        (p, n) => format!("{p}P{n}N"),
    }
}

fn parse_counts(name: &str) -> Option<(usize, usize)> {
    let (mut positives, mut negatives) = (None, None);
    for part in name.split_inclusive(['P', 'N']) {
        let (count, letter) = part.split_at_checked(part.len().checked_sub(1)?)?;
        let side = match letter {
            "P" => &mut positives,
            "N" => &mut negatives,
            _ => return None,
        };
        if side.replace(count.parse().ok()?).is_some() {
            return None;
        }
    }
    Some((positives.unwrap_or(0), negatives.unwrap_or(0)))
}

/// The templates that compute clauses of a width: all positive on positive rows; on negative rows one positive
/// sign, and two beside as many negative ones or more (arXiv 2504.08842, sections 4.1 and 6.5: `4P`, `3N1P`,
/// `2P2N`). The single literal of a clause of one is negative there, which is our definition.
///
/// ```
/// use precode_core::read::template::templates;
/// let names = |width| templates(width).map(|t| t.to_string()).collect::<Vec<_>>();
/// assert_eq!(names(4), ["4P", "3N1P", "2P2N"]);
/// assert_eq!(names(2), ["2P", "1P1N"]);
/// assert_eq!(names(1), ["1P", "1N"]);
/// ```
pub fn templates(width: usize) -> impl Iterator<Item = Template> {
    let negative = (1..=2).filter(move |&positives| 2 * positives <= width);
    let negative = negative.map(move |positives| (positives, width - positives));
    let lone = (width == 1).then_some((0, 1));
    std::iter::once((width, 0)).chain(lone).chain(negative).map(|(positives, negatives)| Template {
        polarity: if negatives == 0 { Polarity::Positive } else { Polarity::Negative },
        positives,
        negatives,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_bad_ones_are_refused() {
        for width in 1..7 {
            for positives in 0..=width {
                let name = pattern_name(positives, width - positives);
                assert_eq!(Template::parse(&name, width).unwrap().to_string(), name);
            }
        }
        assert_eq!(Template::parse("1N1P", 2), Template::parse("1P1N", 2));
        for bad in ["", "P", "4", "4Q", "2P2P", "3P", "4P1N", "é"] {
            let message = Template::parse(bad, 4).unwrap_err().to_string();
            assert!(message.contains("use one of 4P, 3P1N, 2P2N, 3N1P, 4N"), "{message}");
        }
    }
}
