//! The training room: networks and their embedding, what a run is given and returns, and the fused engine.

mod config;
pub mod embedding;
pub mod fused;
pub mod network;
mod outcome;
mod problem;
pub mod scores;

pub use config::{EarlyStopping, Optimizer, Patience, TrainConfig, Watch, epoch_order};
pub use outcome::{Evaluation, History, Trained};
pub use problem::Problem;
