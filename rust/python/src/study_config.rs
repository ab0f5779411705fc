//! What a study computes: one frozen configuration, the same for Rust and Python.
//!
//! A configuration has one JSON text, its [canonical form](Config::to_json), and a key, the SHA-256 of that text.
//! Whoever changes a value has another study.

use std::fmt::{Debug, Display, Write as _};
use std::ops::RangeInclusive;

use precode_core::error::{Error, Result};
use precode_core::train::embedding::EmbeddingKind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

macro_rules! value_error {
    ($($arg:tt)*) => { Error::Value(format!($($arg)*)) };
}

/// The version of the configuration's form.
const VERSION: u32 = 1;

/// Hidden widths there may be.
const HIDDEN: RangeInclusive<u32> = 1..=65_536;
/// Numbers of clauses there may be.
const CLAUSES: RangeInclusive<u32> = 1..=65_536;
/// Numbers of formulas there may be.
const FORMULAS: RangeInclusive<u32> = 1..=1_048_576;

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
    /// # Errors
    /// [`Error::Value`]: no JSON; a key that is unknown (the message lists those there are), missing
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
    /// [`Error::Value`] if a number has no JSON form; none that [`from_json`](Self::from_json) takes.
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
