//! Feature-channel codes of small networks trained on Boolean formulas.
//!
//! The pure-Rust heart of precode: tasks and samplers, codes and their distances, nulls, and the
//! fused training engine on plain slices. Nothing here needs Python or libtorch.
//!
//! The setting is that of Adler, Alistarh and Shavit, *Towards Combinatorial Interpretability of
//! Neural Computation* (arXiv 2504.08842), section 4.

pub mod blind;
pub mod codes;
pub mod dataset;
pub mod distance;
pub mod embedding;
pub mod error;
pub mod file;
pub mod formula;
pub mod fused;
pub mod interference;
pub mod mask;
mod named;
pub mod network;
pub mod nulls;
pub mod pairs;
pub mod probe;
pub mod realize;
pub mod recovery;
pub mod rng;
pub mod sampler;
pub mod study;
pub mod template;
pub mod ticket_file;
pub mod training;

pub use codes::{Clauses, Readout};
pub use dataset::Dataset;
pub use embedding::Embedding;
pub use error::{Error, Result};
pub use formula::{Clause, Dnf, Literal};
pub use network::{Layer, Masks, Weights};
pub use template::{Polarity, Template};
