//! What a training run or an evaluation returns, whichever engine carried it out.

use super::network::Weights;
use crate::error::{Result, allocate};

/// What training leaves behind beside the weights: per network and epoch, NaN after a network stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Number of networks, R.
    pub networks: usize,
    /// Epoch columns, the configured maximum.
    pub epochs: usize,
    /// (R, epochs): mean over the epoch's samples of the loss before each update (nats).
    pub train_loss: Vec<f64>,
    /// (R, epochs): fraction of the epoch's labels on the wrong side, before each update; NaN logits are wrong.
    pub train_error: Vec<f64>,
    /// (R, epochs): loss on the validation data after the epoch; NaN without validation data.
    pub validation_loss: Vec<f64>,
    /// (R): epochs each network ran.
    pub epochs_run: Vec<u32>,
}

impl History {
    /// A history of `networks` that have not run yet.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if it does not fit into memory.
    pub fn empty(networks: usize, epochs: usize) -> Result<Self> {
        let blank = || allocate(networks.checked_mul(epochs), f64::NAN, "the history of so many epochs");
        Ok(Self {
            networks,
            epochs,
            train_loss: blank()?,
            train_error: blank()?,
            validation_loss: blank()?,
            epochs_run: vec![0; networks],
        })
    }
}

/// The result of a training run; `W` is the engine's form of a stack of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained<W = Weights> {
    /// The weights after the last step of each network.
    pub weights: W,
    /// The weights at each configured snapshot, in order.
    pub snapshots: Vec<W>,
    /// Losses and errors by epoch.
    pub history: History,
}

/// Loss and error of a stack of networks on given data.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// (R): mean binary cross-entropy over samples and outputs (nats).
    pub loss: Vec<f64>,
    /// (R): fraction of labels on the wrong side of logit 0; a NaN logit is on the wrong side of either label.
    pub error: Vec<f64>,
}
