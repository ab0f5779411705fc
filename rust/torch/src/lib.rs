//! Stacks of small networks as libtorch tensors, and the engines that train them.
//!
//! Library code calls only tch's fallible functions, restores the caller's grad mode also after an
//! error, and leaves torch's thread count, random state and default dtype alone.
//!
//! Networks that learn, and the lottery tickets in them:
//!
//! ```
//! use std::sync::Arc;
//! use precode_core::ticket::mask::Density;
//! use precode_core::train::{Optimizer, Problem, TrainConfig};
//! use precode_core::{Dataset, Embedding, Progress, Weights};
//! use precode_torch::methods::{Method, Request, StackObjective};
//! use precode_torch::{Choice, Stack, choose};
//! use tch::{Device, Kind};
//!
//! // Two networks learn x0 and x1.
//! let x = [false, false, false, true, true, false, true, true];
//! let data = vec![Arc::new(Dataset::from_bools(&x, &[false, false, false, true], 2, 1)?); 2];
//! let config =
//!     TrainConfig { epochs: 500, batch: 4, optimizer: Optimizer::adam(0.05), ..TrainConfig::default() };
//! let (embedding, progress) = (Embedding::Identity, Progress::default());
//! let problem =
//!     Problem { data: &data, validation: &[], embedding: &embedding, masks: None, config: &config };
//! let weights = Weights::linear_init(&[2, 8, 1], 0, &[0, 1])?;
//! let start = Stack::from_weights(&weights, Kind::Float, Device::Cpu)?;
//! let (engine, why) = choose(Choice::Auto, &start.widths(), &problem, Kind::Float, Device::Cpu)?;
//! println!("{why}");
//! let trained = engine.train(&start, &problem, &progress)?;
//! let evaluation = engine.evaluate(&trained.weights, &data, &embedding, &progress)?;
//! assert_eq!(evaluation.error, [0.0, 0.0]);
//!
//! // A ticket of each network, by SNIP: a quarter of the first layer's 8 x 2 weights.
//! let mut objective = StackObjective::new(&start, problem, Choice::Auto, "w1", &progress)?;
//! let density = [Density::new(0.25)?];
//! let request = Request::new(&density, &[0, 1], &progress);
//! let found = "snip".parse::<Method>()?.find(&mut objective, &request)?;
//! let mask = &found.masks[0][0]; // of the first density and the first prunable parameter
//! assert_eq!(mask.size(), [2, 8, 2]);
//! assert_eq!(mask.f_sum(Kind::Int64)?.f_int64_value(&[])?, 2 * 4);
//! # Ok::<(), precode_torch::Error>(())
//! ```

mod curvature;
pub mod engine;
pub mod error;
mod evaluate;
mod flat;
pub mod fused;
mod gradient;
pub mod libtorch;
pub mod methods;
mod optimizer;
mod run;
mod samples;
pub mod stack;
mod unpack;
pub mod zeroing;

pub use engine::{Choice, Engine, choose, evaluate, memory_bytes};
pub use error::{Error, Result};
pub use fused::Fused;
pub use libtorch::{Libtorch, Workload};
pub use stack::Stack;
