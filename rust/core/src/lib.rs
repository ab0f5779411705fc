//! Feature-channel codes of small networks trained on Boolean formulas.
//!
//! The pure-Rust heart of precode, in four rooms: [`task`] (formulas, samplers, data), [`read`] (templates, codes and
//! their distances, nulls), [`ticket`] (masks, probes, recovery, files) and [`train`] (networks and the fused engine).
//! [`cpu`] chooses instructions at run time for all of them. Nothing here needs Python or libtorch.
//!
//! From a formula to the codes of a network that learned it:
//!
//! ```
//! use std::sync::Arc;
//! use precode_core::read::codes::channels;
//! use precode_core::task::{formula::ClauseShape, rng::Purpose, sampler::Sampler};
//! use precode_core::train::{Problem, TrainConfig, fused};
//! use precode_core::{Clauses, Dnf, Embedding, Progress, Readout, Weights};
//!
//! // A formula of four clauses over 16 variables, and 2,000 samples for each of two networks.
//! let shape = ClauseShape { clauses: 4, ..ClauseShape::default() };
//! let (task, progress) = (Arc::new(Dnf::random(16, 1, shape, 0, 0)?), Progress::default());
//! let tasks = [Arc::clone(&task), Arc::clone(&task)];
//! let data = Sampler::default().sample_all(&tasks, 2_000, 0, Purpose::Data, &[0, 1], &progress)?;
//!
//! // Two networks of 24 rows learn it.
//! let (embedding, config) = (Embedding::Identity, TrainConfig { epochs: 40, ..TrainConfig::default() });
//! let problem =
//!     Problem { data: &data, validation: &[], embedding: &embedding, masks: None, config: &config };
//! let start = Weights::linear_init(&[16, 24, 1], 0, &[0, 1])?;
//! let trained = fused::train(start, &problem, fused::Options::default(), &progress)?.weights;
//!
//! // A row of positive output weight and four positive weights on a clause computes the clause.
//! let (features, output) = (trained.features(&embedding, 16)?, trained.output(0)?);
//! let readout = Readout::new(features.view(), output.view())?;
//! let clauses = Clauses::new(&[task.clauses(0)], 2, 16)?;
//! let codes = channels(&readout, &clauses, "4P".parse()?, 0.0)?;
//! assert_eq!(codes.dim(), (2, 4, 24)); // networks, clauses, rows
//! for network in codes.outer_iter() {
//!     assert!(network.outer_iter().all(|rows| rows.iter().any(|&carries| carries)));
//! }
//! # Ok::<(), precode_core::Error>(())
//! ```
//!
//! The setting is that of Adler, Alistarh and Shavit, *Towards Combinatorial Interpretability of
//! Neural Computation* (arXiv 2504.08842), section 4.

#[macro_use]
mod names;

pub mod cpu;
pub mod error;
mod progress;
pub mod read;
pub mod task;
pub mod ticket;
pub mod train;

pub use error::{Error, Result};
pub use progress::Progress;
pub use read::codes::{Clauses, Readout};
pub use read::template::{Polarity, Template};
pub use task::dataset::Dataset;
pub use task::formula::{Clause, Dnf, Literal};
pub use train::embedding::Embedding;
pub use train::network::{Layer, Masks, Projection, Weights};

/// How many examples a property test has: as many as `PROPTEST_CASES` says, else `usual`.
#[cfg(test)]
fn examples(usual: u32) -> proptest::test_runner::Config {
    let mut config = proptest::test_runner::Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = usual;
    }
    config
}
