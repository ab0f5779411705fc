//! What a study computes: one frozen configuration, the same for Rust and Python.
//!
//! A configuration has one JSON text, its [canonical form](Config::to_json), and a key, the SHA-256 of that text.
//! Whoever changes a value has another study.

use std::fmt::{Debug, Display, Write as _};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Result, value_error};
use crate::train::embedding::EmbeddingKind;

/// The version of the configuration's form.
pub const VERSION: u32 = 1;

/// Hidden widths there may be.
pub const HIDDEN: RangeInclusive<u32> = 1..=65_536;
/// Numbers of clauses there may be.
pub const CLAUSES: RangeInclusive<u32> = 1..=65_536;
/// Numbers of formulas there may be.
pub const FORMULAS: RangeInclusive<u32> = 1..=1_048_576;

/// Everything that a study's results depend on, beside the software. Every field must be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of clauses of a formula, C; ascending in the canonical form, as all lists of numbers but `densities`.
    pub clauses: Vec<u32>,
    /// Fractions of the prunable weights that tickets keep, descending.
    pub densities: Vec<f64>,
    /// Names of the fixed maps in front of the networks, in the order of [`EmbeddingKind::NAMES`].
    pub embeddings: Vec<String>,
    /// Most passes over the data.
    pub epochs: u32,
    /// Random formulas for each width, number of clauses and embedding.
    pub formulas: u32,
    /// Hidden widths, j.
    pub hidden: Vec<u32>,
    /// Names of the ticket methods, each with its control if it has one, in alphabetical order.
    pub methods: Vec<String>,
    /// SHA-256 of the file with the rules by which claims are decided.
    pub rules: String,
    /// Training samples of each network.
    pub samples: u32,
    /// Key of all random numbers.
    pub seed: u64,
    /// [`VERSION`].
    pub version: u32,
}

impl Config {
    /// From JSON, in canonical order.
    ///
    /// ```
    /// use precode_core::study::Config;
    /// let error = Config::from_json(r#"{"width": 4}"#).unwrap_err().to_string();
    /// assert!(error.contains("unknown field `width`, expected one of `clauses`"));
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value): no JSON; a key that is unknown (the message lists those there are), missing
    /// or given twice; a value of the wrong type or out of range.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut parser = serde_json::Deserializer::from_str(text);
        let mut config: Self =
            serde_path_to_error::deserialize(&mut parser).map_err(|error| match error.path() {
                path if path.iter().len() == 0 => value_error!("study configuration: {}", error.inner()),
                path => value_error!("study configuration, {path}: {}", error.inner()),
            })?;
        parser.end().map_err(|error| value_error!("study configuration: {error}"))?;
        config.validate()?;
        config.hidden.sort_unstable();
        config.clauses.sort_unstable();
        config.densities.sort_unstable_by(|a, b| b.total_cmp(a));
        config.embeddings.sort_by_key(|name| EmbeddingKind::NAMES.iter().position(|known| known == name));
        config.methods.sort_unstable();
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        if self.version != VERSION {
            return Err(value_error!("version = {}: this precode reads version {VERSION}", self.version));
        }
        each("hidden", &self.hidden, |width| HIDDEN.contains(width), range(&HIDDEN))?;
        each("clauses", &self.clauses, |count| CLAUSES.contains(count), range(&CLAUSES))?;
        each(
            "densities",
            &self.densities,
            |&density| density > 0.0 && density <= 1.0,
            "above 0 and at most 1".into(),
        )?;
        each(
            "embeddings",
            &self.embeddings,
            |name| EmbeddingKind::NAMES.contains(&name.as_str()),
            format!("one of {}", EmbeddingKind::NAMES.join(", ")),
        )?;
        each(
            "methods",
            &self.methods,
            |name| is_method(name),
            "the name of a method such as snip, or snip:shuffle-row".into(),
        )?;
        within("formulas", self.formulas, &FORMULAS)?;
        within("epochs", self.epochs, &(1..=u32::MAX))?;
        within("samples", self.samples, &(1..=u32::MAX))?;
        if self.rules.len() != 64 || !self.rules.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(value_error!(
                "rules = \"{}\": must be the SHA-256 of the rules' file, 64 digits 0-9 and a-f",
                self.rules
            ));
        }
        Ok(())
    }

    /// The canonical form: compact JSON with its keys in alphabetical order, numbers as short as they can be read back
    /// exactly.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) if a number has no JSON form; none that [`from_json`](Self::from_json) takes.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| value_error!("study configuration: {error}"))
    }

    /// SHA-256 of the canonical form, in hexadecimal.
    ///
    /// # Errors
    /// As [`to_json`](Self::to_json).
    pub fn key(&self) -> Result<String> {
        let mut key = String::with_capacity(64);
        for byte in Sha256::digest(self.to_json()?) {
            let _ = write!(key, "{byte:02x}"); // writing into a string cannot fail
        }
        Ok(key)
    }
}

fn range(range: &RangeInclusive<u32>) -> String {
    format!("from {} to {}", range.start(), range.end())
}

fn within(name: &str, value: u32, allowed: &RangeInclusive<u32>) -> Result<()> {
    if allowed.contains(&value) {
        Ok(())
    } else {
        Err(value_error!("{name} = {value}: must be {}", range(allowed)))
    }
}

/// Refuses an empty list, a value that is not allowed, and a value that stands twice.
fn each<T: Debug + Display + PartialEq>(
    name: &str,
    values: &[T],
    is_allowed: impl Fn(&T) -> bool,
    allowed: String,
) -> Result<()> {
    if values.is_empty() {
        return Err(value_error!("{name} = []: give at least one, {allowed}"));
    }
    for (place, value) in values.iter().enumerate() {
        if !is_allowed(value) {
            return Err(value_error!("{name} contains {value}: each must be {allowed}"));
        }
        if values[..place].contains(value) {
            return Err(value_error!("{name} = {values:?}: {value} stands twice"));
        }
    }
    Ok(())
}

/// Whether a name has the form of a method's, with or without a control behind a colon.
fn is_method(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'+'))
    };
    let mut words = name.split(':');
    words.by_ref().take(2).all(is_word) && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANONICAL: &str = concat!(
        r#"{"clauses":[4,16],"densities":[0.25,0.1],"embeddings":["identity","random"],"epochs":25,"formulas":10,"#,
        r#""hidden":[16,32],"methods":["imp","snip:shuffle-row"],"rules":""#,
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        r#"","samples":20000,"seed":18446744073709551615,"version":1}"#,
    );

    /// The canonical form with one piece of its text replaced.
    fn altered(from: &str, to: &str) -> String {
        assert!(CANONICAL.contains(from), "{from}");
        CANONICAL.replace(from, to)
    }

    #[test]
    fn the_order_and_spelling_of_the_text_do_not_matter() {
        let config = Config::from_json(CANONICAL).unwrap();
        assert_eq!(config.to_json().unwrap(), CANONICAL);
        let shuffled = altered("[4,16]", "[16, 4]").replace("[0.25,0.1]", "[1e-1, 0.250]");
        let shuffled = shuffled.replace(r#"["identity","random"]"#, r#"["random","identity"]"#);
        assert_eq!(Config::from_json(&shuffled).unwrap(), config);
        let combined = Config::from_json(&altered("imp", "distance+motion")).unwrap();
        assert_eq!(combined.methods, ["distance+motion", "snip:shuffle-row"]);
    }

    #[test]
    fn the_key_is_the_digest_of_the_text_and_changes_with_every_value() {
        let config = Config::from_json(CANONICAL).unwrap();
        // printf '%s' '<canonical form>' | sha256sum
        assert_eq!(config.key().unwrap(), "f91fae35b04384ac21c2ab11f10cb141521df888327072536f6fb8274bd4f9b1");
        let changes = [
            ("[4,16]", "[4,17]"),
            ("0.25", "0.26"),
            (r#","random""#, ""),
            (":25,", ":26,"),
            (":10,", ":11,"),
            ("[16,32]", "[16]"),
            (":shuffle-row", ""),
            ("rules\":\"0", "rules\":\"1"),
            ("20000", "20001"),
            ("615,", "614,"),
        ];
        for (from, to) in changes {
            let other = Config::from_json(&altered(from, to)).unwrap();
            assert_ne!(other.key().unwrap(), config.key().unwrap(), "{from}");
        }
    }

    #[test]
    fn what_is_refused_is_named_with_what_is_allowed() {
        let cases = [
            ("\"seed\"", "\"sed\"", "unknown field `sed`, expected one of `clauses`"),
            ("\"seed\":18446744073709551615,", "", "missing field `seed`"),
            ("\"seed\"", "\"epochs\":1,\"seed\"", "duplicate field `epochs`"),
            ("[16,32]", "[16,\"wide\"]", "hidden[1]: invalid type: string \"wide\""),
            ("[16,32]", "[16,0]", "hidden contains 0: each must be from 1 to 65536"),
            ("[16,32]", "[]", "hidden = []: give at least one, from 1 to 65536"),
            ("[4,16]", "[4,4]", "clauses = [4, 4]: 4 stands twice"),
            ("0.25", "1.5", "densities contains 1.5: each must be above 0 and at most 1"),
            (
                "\"random\"",
                "\"fourier\"",
                "embeddings contains fourier: each must be one of identity, hadamard",
            ),
            ("imp", "imp:a:b", "methods contains imp:a:b"),
            (":10,", ":0,", "formulas = 0: must be from 1 to 1048576"),
            (":25,", ":-1,", "epochs: invalid value: integer `-1`"),
            ("20000", "0", "samples = 0"),
            ("0123456789abcdef\"", "\"", "64 digits"),
            ("\"version\":1", "\"version\":2", "version = 2: this precode reads version 1"),
            ("1}", "1}}", "trailing characters"),
            ("{", "", "study configuration: "),
        ];
        for (from, to, expected) in cases {
            let message = Config::from_json(&altered(from, to)).unwrap_err().to_string();
            assert!(message.contains(expected), "{from} -> {to}: {message}");
        }
    }
}
