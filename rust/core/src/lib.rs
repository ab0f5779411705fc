//! Feature-channel codes of small networks trained on Boolean formulas.
//!
//! The pure-Rust heart of precode, in four rooms: [`task`] (formulas, samplers, data), [`read`] (templates, codes and
//! their distances, nulls), [`ticket`] (masks, probes, recovery, files) and [`train`] (networks and the fused engine).
//! [`cpu`] chooses instructions at run time for all of them. Nothing here needs Python or libtorch.
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
