//! The reading room: templates, distances to them, codes, interference, nulls, all pairs of codes, blind recovery.

pub mod blind;
pub mod codes;
pub mod distance;
pub mod interference;
pub mod nulls;
pub mod pairs;
pub mod template;
