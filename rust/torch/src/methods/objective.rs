//! What a method may ask of the networks it searches, whatever they are.

use std::ops::Range;
use std::sync::Arc;

use precode_core::train::scores::{ScoreRule, ScoreStep, Scores};
use precode_core::{Clause, Dataset};
use tch::Tensor;

use crate::error::{Result, unsupported};

/// One trainable tensor of R networks.
#[derive(Debug)]
pub struct Parameter {
    /// Its name, as masks and tickets spell it.
    pub name: String,
    /// Initial values, theta_0, of shape (R, ..): float, on any device.
    pub initial: Tensor,
    /// Whether its weights may be pruned.
    pub prunable: bool,
}

/// The samples that a gradient is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// The batch of one training step, counted from 0 through all epochs, in the order of training.
    Step(u64),
    /// The scoring batch: large, fixed, and the same for every method.
    Scoring,
}

/// A training run: from where, with what, for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Values of all parameters at the start, in order.
    pub start: &'a [Tensor],
    /// For each prunable parameter, in order, which weights may be nonzero: Boolean, of its shape. Others
    /// start at zero and stay there.
    pub masks: Option<&'a [Tensor]>,
    /// The epoch at which the order of visits is entered.
    pub first_epoch: u32,
    /// The epoch before which training ends; `None`: where a full run ends. Only what runs is paid for.
    pub end_epoch: Option<u32>,
    /// Steps after which values are kept, increasing, counted from this plan's start.
    pub snapshots: &'a [u64],
    /// Learning rate, as a multiple of that of the dense run.
    pub rate: f64,
}

impl<'a> Plan<'a> {
    /// A full run from these values, without masks.
    pub fn new(start: &'a [Tensor]) -> Self {
        Self { start, masks: None, first_epoch: 0, end_epoch: None, snapshots: &[], rate: 1.0 }
    }
}

/// What a training run leaves behind.
#[derive(Debug)]
pub struct Outcome {
    /// Final values of all parameters.
    pub parameters: Vec<Tensor>,
    /// Values at each of the plan's snapshots.
    pub snapshots: Vec<Vec<Tensor>>,
    /// Epochs that ran: of each network, or one number where it is the same for all.
    pub epochs: Vec<f64>,
}

/// How scores are learned.
#[derive(Debug)]
pub struct ScorePlan<'a> {
    /// Which weights are in effect.
    pub rule: ScoreRule,
    /// The numbers of every step: as many as the epochs have.
    pub steps: &'a [ScoreStep],
    /// Epochs of a training that lie behind.
    pub first_epoch: u32,
    /// Epochs to run.
    pub epochs: u32,
    /// Masks on the prunable parameters: the other weights are zero.
    pub masks: Option<&'a [Tensor]>,
}

/// The pair of layers that codes are read from.
#[derive(Debug)]
pub struct FeaturePair {
    /// Place of the first layer's weight (R, rows, inputs) among the parameters.
    pub first: usize,
    /// Place of the next layer's weight (R, outputs, rows) among the parameters.
    pub second: usize,
    /// The output whose weights give rows their polarity.
    pub output: usize,
    /// C0 (inputs, variables), or (R, inputs, variables) where each network has its own; `None` for the identity, and
    /// where [`projection`](Self::projection) says it.
    pub embedding: Option<Tensor>,
    /// Place of the networks' own C0 (R, inputs, variables) among the parameters, where it is trained.
    pub projection: Option<usize>,
    /// Whether tickets are trained behind the C0 of the dense run's end, held fixed.
    pub holds_projection: bool,
    /// The clauses of each network (R entries); `None` where they are not known.
    pub clauses: Option<Vec<Vec<Clause>>>,
    /// Whether each network computes the negation of what its clauses say (a CNF), so that its output weights are read
    /// with the opposite sign; empty where none does.
    pub complemented: Vec<bool>,
}

impl FeaturePair {
    /// C0 at given values of the parameters: (inputs, variables), or (R, inputs, variables) where each network has its
    /// own; `None` for the identity.
    pub fn c0(&self, values: &[Tensor]) -> Option<Tensor> {
        let own = self.projection.and_then(|place| values.get(place));
        own.or(self.embedding.as_ref()).map(Tensor::shallow_clone)
    }
}

/// R networks and what they are to learn.
///
/// Losses are those of R separate networks: no gradient of one depends on another. Tensors passed in and
/// out are those of [`parameters`](Self::parameters), in order, with the leading network axis, of any float
/// kind; they are detached, and no call changes them.
pub trait Objective {
    /// The trainable parameters with their initial values.
    fn parameters(&self) -> &[Parameter];

    /// Optimizer steps of an epoch.
    fn steps_per_epoch(&self) -> u64;

    /// Epochs of a full training.
    fn epochs(&self) -> u32;

    /// Gradient of each network's mean loss on a batch, with respect to every parameter, at `at`.
    ///
    /// # Errors
    /// There are no data; a gradient that is not finite.
    fn gradient(&mut self, at: &[Tensor], batch: Batch) -> Result<Vec<Tensor>>;

    /// H g on the scoring batch, for the loss of `logits / temperature`: the Hessian with respect to all
    /// prunable parameters times the gradient with respect to them (zero at the other parameters).
    ///
    /// # Errors
    /// As [`gradient`](Self::gradient).
    fn curvature(&mut self, at: &[Tensor], temperature: f64) -> Result<Vec<Tensor>>;

    /// Gradient of `R = 1' f(1)`, the sum of the outputs for an input of ones where every weight is replaced
    /// by its magnitude and every bias by zero (SynFlow, arXiv 2006.05467, eq. 2), with respect to these
    /// magnitudes (zero or anything at the parameters that are not prunable), in float64 where the device has it.
    /// The values are given away, so that they need not be held beside it.
    ///
    /// # Errors
    /// The networks cannot be evaluated so.
    fn flow(&mut self, at: Vec<Tensor>) -> Result<Vec<Tensor>>;

    /// Second moments of what the weights of every prunable parameter are multiplied with, at `at`, over all training
    /// data: the Hessian of each output unit's squared error. (R, parts, inputs, inputs) for each prunable parameter in
    /// order, `inputs` being the weights of an output unit; each part is of as many consecutive output units (several
    /// parts in grouped convolutions alone).
    ///
    /// # Errors
    /// The networks have no such layers; there are no data.
    fn input_moments(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
        let _ = at;
        Err(unsupported!("these networks do not tell the inputs of their layers"))
    }

    /// The diagonals of [`input_moments`](Self::input_moments), the mean squares: (R, parts, inputs) for each prunable
    /// parameter. Implement it where they cost less than the whole moments.
    ///
    /// # Errors
    /// As [`input_moments`](Self::input_moments).
    fn input_squares(&mut self, at: &[Tensor]) -> Result<Vec<Tensor>> {
        self.input_moments(at)?.iter().map(|moments| Ok(moments.f_diagonal(0, 2, 3)?)).collect()
    }

    /// Empirical Fisher matrix of some of the networks at `at`: the mean over the samples of the scoring batch of
    /// `g g'`, g being the gradient of a sample's loss with respect to all prunable weights, in order: (weights, weights)
    /// for each network.
    ///
    /// # Errors
    /// As [`gradient`](Self::gradient); gradients of single samples that cannot be taken.
    fn fisher(&mut self, at: &[Tensor], networks: Range<usize>) -> Result<Vec<Tensor>> {
        let _ = (at, networks);
        Err(unsupported!("these networks do not tell the gradients of single samples"))
    }

    /// Gauss-Newton matrix of some of the networks at `at`: the mean over the samples of the scoring batch of
    /// `sum_o s_o g_o g_o'`, g_o being the gradient of output o with respect to all parameters but a projection C0, in
    /// order, and s_o the curvature of the loss in that output: (parameters, parameters) for each network.
    ///
    /// # Errors
    /// As [`fisher`](Self::fisher).
    fn gauss_newton(&mut self, at: &[Tensor], networks: Range<usize>) -> Result<Vec<Tensor>> {
        let _ = (at, networks);
        Err(unsupported!("these networks do not tell the gradients of single samples"))
    }

    /// The training samples of each network (R entries): the inputs of the pair of layers that codes are read from,
    /// before the embedding, and the labels of the pair's output alone.
    ///
    /// # Errors
    /// There are no data; inputs or labels that are not Boolean.
    fn samples(&mut self) -> Result<Vec<Arc<Dataset>>> {
        Err(unsupported!("these networks do not tell their samples"))
    }

    /// Values of all parameters after the dense training, theta_T.
    ///
    /// # Errors
    /// There is no dense run and none can be made.
    fn dense(&mut self) -> Result<Vec<Tensor>>;

    /// Called by a method that does not ask for the dense training again, so that its values need not be kept.
    fn forget_dense(&mut self) {}

    /// Epochs of the dense training, of each network or one number for all; as many as a full training has,
    /// unless it is known that it stopped earlier. Asked after [`dense`](Self::dense).
    fn dense_epochs(&self) -> Vec<f64> {
        vec![f64::from(self.epochs())]
    }

    /// Values of all parameters after each of some numbers of steps of the dense training, increasing. What has to
    /// be trained ends with the epoch of the last.
    ///
    /// # Errors
    /// As [`dense`](Self::dense).
    fn dense_at(&mut self, steps: &[u64]) -> Result<Vec<Vec<Tensor>>>;

    /// Hands the values of all parameters after each of the first `last` epochs of the dense training, counted from 1,
    /// to `each`, until it returns false.
    ///
    /// # Errors
    /// As [`dense`](Self::dense), and those of `each`.
    fn each_epoch(
        &mut self,
        last: u32,
        each: &mut dyn FnMut(u32, Vec<Tensor>) -> Result<bool>,
    ) -> Result<()> {
        let steps: Vec<u64> = (1..=u64::from(last)).map(|epoch| epoch * self.steps_per_epoch()).collect();
        for (epoch, values) in (1..).zip(self.dense_at(&steps)?) {
            if !each(epoch, values)? {
                break;
            }
        }
        Ok(())
    }

    /// Trains all networks as the dense run was trained.
    ///
    /// # Errors
    /// As [`dense`](Self::dense); [`precode_core::Error::Interrupted`].
    fn train(&mut self, plan: &Plan) -> Result<Outcome>;

    /// Whether the engine that trains the networks learns scores of the prunable weights, too: then
    /// [`learn_scores`](Self::learn_scores) does what takes a [`gradient`](Self::gradient) for each step otherwise.
    fn learns_scores(&self) -> bool {
        false
    }

    /// Learns scores of the prunable weights, in as many steps as the plan has; parameters start at their initial values.
    ///
    /// # Errors
    /// The engine cannot; scores that do not fit; [`precode_core::Error::Interrupted`].
    fn learn_scores(&mut self, plan: &ScorePlan, scores: &mut Scores) -> Result<()> {
        let _ = (plan, scores);
        Err(unsupported!("these networks learn scores by their gradients alone"))
    }

    /// The layers that codes are read from, if there are such.
    fn features(&self) -> Option<&FeaturePair>;

    /// Which parameter is C0, if one is: curvature is that of all others.
    fn place_of_projection(&self) -> Option<usize> {
        self.features().and_then(|pair| pair.projection)
    }
}
