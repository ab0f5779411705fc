//! Templates: the (polarity, pattern) pairs that compute a clause.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, value_error};

/// The most templates that an error lists.
const MOST_NAMES: usize = 12;

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
    /// The template of a pattern. All-positive templates live on positive rows, all others on negative rows.
    pub fn of_pattern(positives: usize, negatives: usize) -> Self {
        let polarity = if negatives == 0 { Polarity::Positive } else { Polarity::Negative };
        Self { polarity, positives, negatives }
    }

    /// Number of literals.
    pub fn width(&self) -> usize {
        self.positives.saturating_add(self.negatives)
    }

    /// Refuses clauses of another number of literals.
    ///
    /// # Errors
    /// [`Error::Value`] listing the templates of that width.
    pub fn check_width(&self, width: usize) -> Result<()> {
        if self.width() == width {
            return Ok(());
        }
        let mut names: Vec<String> =
            (0..=width).rev().take(MOST_NAMES).map(|p| pattern_name(p, width - p)).collect();
        if width >= MOST_NAMES {
            names.push("...".into());
        }
        Err(value_error!(
            "template {self} does not fit clauses of {width} literals: use one of {}",
            names.join(", ")
        ))
    }
}

/// From a name such as `4P`, `3N1P` or `2P2N`.
///
/// ```
/// use precode_core::{Polarity, Template};
/// let template: Template = "3N1P".parse()?;
/// assert_eq!((template.positives, template.negatives), (1, 3));
/// assert_eq!(template.polarity, Polarity::Negative);
/// assert!(template.check_width(3).is_err());
/// # Ok::<(), precode_core::Error>(())
/// ```
impl FromStr for Template {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match parse_counts(name) {
            Some((positives, negatives)) if (positives, negatives) != (0, 0) => {
                Ok(Self::of_pattern(positives, negatives))
            }
            _ => Err(value_error!(
                "template '{name}' is unknown: give the number of positive and negative signs, as in 4P, 3N1P or 2P2N"
            )),
        }
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
    let patterns = std::iter::once((width, 0)).chain(lone).chain(negative);
    patterns.map(|(positives, negatives)| Template::of_pattern(positives, negatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_bad_ones_are_refused() {
        for width in 1..7 {
            for positives in 0..=width {
                let name = pattern_name(positives, width - positives);
                let template: Template = name.parse().unwrap();
                assert_eq!((template.to_string(), template.width()), (name, width));
                assert_eq!(template.check_width(width), Ok(()));
            }
        }
        assert_eq!("1N1P".parse::<Template>(), "1P1N".parse());
        for bad in ["", "0P", "P", "4", "4Q", "2P2P", "é", "99999999999999999999P"] {
            let message = bad.parse::<Template>().unwrap_err().to_string();
            assert!(message.contains(&format!("'{bad}'")) && message.contains("as in 4P, 3N1P"), "{message}");
        }
        for other in ["3P", "4P1N", "18446744073709551615P1N"] {
            let message = other.parse::<Template>().unwrap().check_width(4).unwrap_err().to_string();
            assert!(message.contains("use one of 4P, 3P1N, 2P2N, 3N1P, 4N"), "{message}");
        }
    }
}
