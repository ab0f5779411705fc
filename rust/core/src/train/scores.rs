//! Masks that are learned by gradient descent: scores of the weights of W1 beside weights that stay or are learned too.

use crate::Weights;
use crate::error::{Result, allocate, shape_error, value_error};

/// Momentum of scores and weights, by the formulas of `torch.optim.SGD`.
pub const MOMENTUM: f64 = 0.9;

/// Which weights of W1 are in effect, given their scores, and what else moves scores than the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScoreRule {
    /// The weights of the `kept` largest magnitudes of scores, and all that tie with the last of them; weights stay
    /// as they are (edge-popup, Ramanujan et al., arXiv 1911.13299, section 3).
    Largest {
        /// Weights of W1 in effect, from 1 to all.
        kept: usize,
        /// Weight decay of the scores.
        weight_decay: f32,
    },
    /// The weights of scores of at least 1/2; weights stay as they are, and those of zero are frozen. Where an epoch
    /// begins with no other weight in effect, the `kept` largest scores are, for that epoch (Gem-Miner, Sreenivasan
    /// et al., arXiv 2202.12002, algorithm 1). Scores stay in \[0, 1\].
    Rounded {
        /// Weights in effect in an epoch that would begin with none, from 1 to all.
        kept: usize,
        /// Weight of the squared scores in the loss.
        penalty: f32,
    },
    /// Weights times `sigmoid(steepness * score) / sigmoid(0)`; all parameters are learned, with Nesterov's momentum
    /// (Continuous Sparsification, Savarese, Silva and Maire, arXiv 1912.04427, algorithm 2).
    Soft {
        /// Weight of the sum of the soft mask in the loss.
        penalty: f32,
        /// Weight decay of the parameters.
        weight_decay: f32,
    },
}

impl Default for ScoreStep {
    /// A step of rate zero.
    fn default() -> Self {
        Self { rate: 0.0, steepness: 1.0, restart: None }
    }
}

impl ScoreRule {
    /// Whether the parameters are learned with the scores.
    pub fn learns_weights(&self) -> bool {
        matches!(self, Self::Soft { .. })
    }
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreStep {
    /// Learning rate of scores, and of parameters that are learned.
    pub rate: f32,
    /// Steepness of a soft mask.
    pub steepness: f32,
    /// Before the step, scores are multiplied by this and at most 0 (a new round of a soft mask).
    pub restart: Option<f32>,
}

/// Scores of the weights of W1 of R networks: (R, j, m), row-major as W1.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The scores.
    pub values: Vec<f32>,
    /// Their momentum.
    pub momentum: Vec<f32>,
    /// Epochs that began with no weight in effect ([`ScoreRule::Rounded`]), for each network: (R).
    pub emptied: Vec<u32>,
}

impl Scores {
    /// Scores at rest, for so many networks.
    ///
    /// # Errors
    /// The memory for so many cannot be had.
    pub fn new(values: Vec<f32>, networks: usize) -> Result<Self> {
        let momentum = allocate(Some(values.len()), 0.0, "the momentum of so many scores")?;
        Ok(Self { values, momentum, emptied: vec![0; networks] })
    }

    /// Checks that the scores are those of W1 of some networks, and that the rule and its steps fit them.
    ///
    /// # Errors
    /// Sizes that differ; a number of weights to keep that W1 does not have.
    pub(super) fn validate(
        &self,
        weights: &Weights,
        rule: &ScoreRule,
        steps: &[ScoreStep],
        wanted: u64,
    ) -> Result<()> {
        let networks = weights.networks;
        let size = weights.layers.first().map_or(0, |layer| layer.weight.len());
        let sizes = (self.values.len(), self.momentum.len(), self.emptied.len());
        if sizes != (size, size, networks) {
            return Err(shape_error!("{sizes:?} scores for {size} weights of W1 of {networks} networks"));
        }
        if steps.len() as u64 != wanted {
            return Err(shape_error!("{} steps of scores for {wanted} steps of training", steps.len()));
        }
        if let ScoreRule::Largest { kept, .. } | ScoreRule::Rounded { kept, .. } = *rule {
            let most = size / networks.max(1);
            if kept == 0 || kept > most {
                return Err(value_error!("kept = {kept}: W1 has {most} weights"));
            }
        }
        Ok(())
    }
}
