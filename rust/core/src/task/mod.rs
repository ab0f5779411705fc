//! The task room: Boolean formulas, samplers of their inputs, packed data, and the generator they draw from.

pub mod dataset;
pub mod formula;
pub mod rng;
pub mod sampler;
