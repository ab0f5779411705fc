//! How networks are trained: update rule, batches and their order, early stopping, snapshots.

use rand::seq::SliceRandom;

use crate::error::{Result, value_error};
use crate::task::rng::{Purpose, stream};

/// Update rule, with the formulas of `torch.optim`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// `torch.optim.Adam`; `weight_decay` is added to the gradient.
    Adam {
        /// Learning rate.
        lr: f64,
        /// Decay of the first and second moments.
        betas: (f64, f64),
        /// Added to the denominator.
        eps: f64,
        /// L2 penalty.
        weight_decay: f64,
    },
    /// `torch.optim.AdamW`; `weight_decay` shrinks the weights directly.
    AdamW {
        /// Learning rate.
        lr: f64,
        /// Decay of the first and second moments.
        betas: (f64, f64),
        /// Added to the denominator.
        eps: f64,
        /// Decoupled weight decay.
        weight_decay: f64,
    },
    /// `torch.optim.SGD` with zero dampening.
    Sgd {
        /// Learning rate.
        lr: f64,
        /// Momentum; 0 for plain SGD.
        momentum: f64,
        /// L2 penalty.
        weight_decay: f64,
    },
}

impl Optimizer {
    /// Adam with PyTorch's defaults and the given learning rate.
    pub fn adam(lr: f64) -> Self {
        Self::Adam { lr, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 }
    }

    /// The same with another multiple of the learning rate.
    ///
    /// ```
    /// use precode_core::train::Optimizer;
    /// assert_eq!(Optimizer::adam(0.5).faster(2.0), Optimizer::adam(1.0));
    /// ```
    pub fn faster(mut self, times: f64) -> Self {
        let (Self::Adam { lr, .. } | Self::AdamW { lr, .. } | Self::Sgd { lr, .. }) = &mut self;
        *lr *= times;
        self
    }

    fn validate(&self) -> Result<()> {
        let (lr, weight_decay) = match *self {
            Self::Adam { lr, betas, eps, weight_decay } | Self::AdamW { lr, betas, eps, weight_decay } => {
                if !(0.0..1.0).contains(&betas.0) || !(0.0..1.0).contains(&betas.1) {
                    return Err(value_error!("betas = {betas:?}: each must be in [0, 1)"));
                }
                if !(eps > 0.0 && eps.is_finite()) {
                    return Err(value_error!("eps = {eps}: must be positive"));
                }
                (lr, weight_decay)
            }
            Self::Sgd { lr, momentum, weight_decay } => {
                if !(0.0..1.0).contains(&momentum) {
                    return Err(value_error!("momentum = {momentum}: must be in [0, 1)"));
                }
                (lr, weight_decay)
            }
        };
        if !(lr > 0.0 && lr.is_finite()) {
            return Err(value_error!("lr = {lr}: must be positive"));
        }
        if !(weight_decay >= 0.0 && weight_decay.is_finite()) {
            return Err(value_error!("weight_decay = {weight_decay}: must be 0 or more"));
        }
        Ok(())
    }
}

/// Which loss early stopping watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Mean loss of the epoch's batches, each before its update.
    Train,
    /// Loss on the validation data after the epoch.
    Validation,
}
named!(Watch, "watch", "train" => Train, "validation" => Validation);

/// Ends a network's training when the watched loss has not fallen for `patience` epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStopping {
    /// Epochs without improvement that are tolerated; training ends at the `patience`-th.
    pub patience: u32,
    /// A smaller loss counts as an improvement only if it is smaller by more than this.
    pub min_delta: f64,
    /// The loss that is watched.
    pub watch: Watch,
}

/// The state of early stopping for one network.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    rule: EarlyStopping,
    best: f64,
    since: u32,
}

impl Patience {
    /// Before the first epoch.
    pub fn new(rule: EarlyStopping) -> Self {
        Self { rule, best: f64::INFINITY, since: 0 }
    }

    /// Takes the loss of an epoch; true when training must end. A NaN loss is no improvement.
    pub fn update(&mut self, loss: f64) -> bool {
        if loss < self.best - self.rule.min_delta {
            self.best = loss;
            self.since = 0;
        } else {
            self.since += 1;
        }
        self.since >= self.rule.patience
    }
}

/// Everything about a training run except the networks and their data.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// At most this many passes over the data.
    pub epochs: u32,
    /// Samples a step; the last batch of an epoch holds what is left over.
    pub batch: usize,
    /// Update rule.
    pub optimizer: Optimizer,
    /// Keys the order in which every epoch visits the samples (see [`epoch_order`]). All networks
    /// of a run visit sample numbers in the same order; their data are their own.
    pub order_seed: u64,
    /// Number of the first epoch in the order of visits: a run that goes on after `first_epoch` epochs
    /// visits the samples as the whole run would have.
    pub first_epoch: u32,
    /// When a network may stop before the last epoch.
    pub early_stopping: Option<EarlyStopping>,
    /// Optimizer steps after which the weights are kept, strictly increasing; 0 is the start.
    /// A network that has stopped earlier is kept with its final weights.
    pub snapshots: Vec<u64>,
}

/// The setting of arXiv 2504.08842, section 4, as `precode.train` has it: at most 100 epochs of batches of 64, Adam at
/// 1e-3, and early stopping with patience 10 on the training loss.
///
/// ```
/// use precode_core::train::TrainConfig;
/// let config = TrainConfig { epochs: 25, ..TrainConfig::default() };
/// assert_eq!((config.batch, config.steps_per_epoch(20_000)), (64, 313));
/// ```
impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 100,
            batch: 64,
            optimizer: Optimizer::adam(1e-3),
            order_seed: 0,
            first_epoch: 0,
            early_stopping: Some(EarlyStopping { patience: 10, min_delta: 0.0, watch: Watch::Train }),
            snapshots: Vec::new(),
        }
    }
}

impl TrainConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) naming the setting and what it may be.
    pub fn validate(&self) -> Result<()> {
        self.optimizer.validate()?;
        if self.batch == 0 {
            return Err(value_error!("batch = 0: must be at least 1"));
        }
        if self.first_epoch.checked_add(self.epochs).is_none() {
            return Err(value_error!(
                "first_epoch = {} and epochs = {}: together at most {}",
                self.first_epoch,
                self.epochs,
                u32::MAX
            ));
        }
        if let Some(EarlyStopping { patience: 0, .. }) = self.early_stopping {
            return Err(value_error!("patience = 0: must be at least 1 (None for no early stopping)"));
        }
        if let Some(EarlyStopping { min_delta, .. }) = self.early_stopping
            && (min_delta.is_nan() || min_delta < 0.0)
        {
            return Err(value_error!("min_delta = {min_delta}: must be 0 or more"));
        }
        if self.snapshots.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(value_error!("snapshots {:?}: steps must be strictly increasing", self.snapshots));
        }
        Ok(())
    }

    /// Optimizer steps of one epoch over `samples` samples.
    pub fn steps_per_epoch(&self, samples: usize) -> u64 {
        samples.div_ceil(self.batch) as u64
    }

    /// Refuses snapshots after the last step.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) naming the first step that is never reached.
    pub fn validate_snapshots(&self, samples: usize) -> Result<()> {
        let last = self.steps_per_epoch(samples) * u64::from(self.epochs);
        match self.snapshots.iter().find(|&&step| step > last) {
            Some(step) => Err(value_error!(
                "snapshot at step {step}: {} epochs of {} steps end at step {last}",
                self.epochs,
                self.steps_per_epoch(samples)
            )),
            None => Ok(()),
        }
    }
}

/// The order in which an epoch, counted from 0, visits `samples` samples: a uniform permutation drawn from the
/// stream `(seed, Order, epoch)`, the same on every engine.
pub fn epoch_order(seed: u64, epoch: u32, samples: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..samples as u32).collect();
    order.shuffle(&mut stream(seed, Purpose::Order, u64::from(epoch)));
    order
}
