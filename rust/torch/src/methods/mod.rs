//! Ticket methods: statistics, score, exact choice, mask. One interface for our stacks and for any
//! network that can answer an [`Objective`]'s questions.

mod basis;
mod continuous_sparsification;
mod control;
mod early_bird;
mod edge_popup;
mod feed;
mod gem_miner;
mod hot;
mod iterative;
mod learned;
mod objective;
mod obs;
mod probes;
mod registry;
mod score;
mod select;
mod sparsegpt;
mod stack;
mod synflow;
mod threshold;
mod wanda;

use precode_core::Progress;
use precode_core::ticket::mask::{Density, Granularity, Scope};
use tch::Tensor;

pub use control::Control;
pub use feed::SCORING_SAMPLES;
pub use objective::{Batch, FeaturePair, Objective, Outcome, Parameter, Plan, ScorePlan};
pub use registry::{Method, all};
pub use select::best;
pub use sparsegpt::MOST_SPARSEGPT_INPUTS;
pub use stack::StackObjective;

use crate::error::Result;

/// What a method is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// One ticket a network for each.
    pub densities: &'a [Density],
    /// What is kept or pruned as one.
    pub granularity: Granularity,
    /// Over what scores are compared.
    pub scope: Scope,
    /// Keep the weights of the smallest scores instead (a control).
    pub invert: bool,
    /// Tell methods that use the clauses those of another formula instead (a control).
    pub wrong_clauses: bool,
    /// Epochs of the dense run after which the networks are read, by methods that can read them early; `None`: each
    /// method's own moment.
    pub at: Option<u32>,
    /// Epochs of the dense run that the ticket of a trained network starts after; 0 for theta_0.
    pub rewind: u32,
    /// Key of the method's own randomness.
    pub seed: u64,
    /// Number of each network's random streams (R).
    pub streams: &'a [u64],
    /// Cancels the search and is told of its progress.
    pub progress: &'a Progress,
}

impl<'a> Request<'a> {
    /// Tickets of single weights compared over all layers, from theta_0, at each method's own moment; seed 0. `streams` has
    /// a number for each network.
    pub fn new(densities: &'a [Density], streams: &'a [u64], progress: &'a Progress) -> Self {
        let (granularity, scope) = (Granularity::Weight, Scope::Global);
        Self {
            densities,
            granularity,
            scope,
            invert: false,
            wrong_clauses: false,
            at: None,
            rewind: 0,
            seed: 0,
            streams,
            progress,
        }
    }
}

/// Where the training of a ticket starts.
#[derive(Debug)]
pub enum Start {
    /// At theta_0.
    Initial,
    /// At other values of all parameters, one list for each density; `epoch` is where the order of visits
    /// is entered.
    Other {
        /// (densities, parameters), before masking.
        parameters: Vec<Vec<Tensor>>,
        /// Epochs already behind these values.
        epoch: u32,
    },
}

/// What finding the tickets took, for each network, beside what the request was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Gradients taken on a batch (a Hessian-vector product counts as two).
    pub gradients: f64,
    /// Epochs of training of whole networks, dense or masked, the dense run included where it was used: of each
    /// network (R), or one number where it is the same for all.
    pub epochs: Vec<f64>,
}

impl Cost {
    /// Gradients, and no training.
    pub fn of_gradients(gradients: f64) -> Self {
        Self { gradients, epochs: vec![0.0] }
    }

    /// Epochs of training: of each network, or one number for all.
    pub fn of_epochs(epochs: Vec<f64>) -> Self {
        Self { gradients: 0.0, epochs }
    }

    /// Adds epochs: of each network, or one number for all.
    pub fn add_epochs(&mut self, more: &[f64]) {
        let networks = self.epochs.len().max(more.len());
        let of = |epochs: &[f64], network: usize| epochs[if epochs.len() == 1 { 0 } else { network }];
        self.epochs = (0..networks).map(|network| of(&self.epochs, network) + of(more, network)).collect();
    }
}

/// The tickets of one method.
#[derive(Debug)]
pub struct Found {
    /// (densities, prunable parameters): Boolean tensors of the parameters' shapes.
    pub masks: Vec<Vec<Tensor>>,
    /// Where their training starts.
    pub start: Start,
    /// What they cost, for each density.
    pub cost: Vec<Cost>,
    /// (densities, prunable parameters): the scores that the weights were kept by; none from methods that keep
    /// them for more than one score.
    pub scores: Option<Vec<Vec<Tensor>>>,
    /// Numbers that the method reports of itself, by name, one for each density and network.
    pub notes: Vec<(String, Vec<Vec<f64>>)>,
}

/// A ticket method.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The name by which it is chosen.
    pub name: &'static str,
    /// One line.
    pub title: &'static str,
    /// What it cannot do without.
    pub needs: Needs,
    /// How it prunes: `one shot`, `rounds`, ...
    pub schedule: &'static str,
    /// What it costs beside retraining, in words.
    pub cost: &'static str,
    /// Whether the mask of a smaller density is a part of that of a larger one.
    pub nested: bool,
    /// When it reads the dense networks.
    pub reads: Moment,
    /// Whether its tickets may start later in the dense run ([`Request::rewind`]).
    pub rewinds: bool,
    /// Whether it draws random numbers of its own.
    pub random: bool,
    /// Whether its masks of the first layer are of C1 = W1 C0, which is then what is trained.
    pub features: bool,
    /// Where it was published.
    pub reference: &'static str,
    /// How it differs from the published method or its official code.
    pub deviations: &'static str,
    /// The method.
    pub find: fn(&mut dyn Objective, &Request) -> Result<Found>,
}

/// The values of theta_0, not copied.
pub(crate) fn initial(objective: &dyn Objective) -> Vec<Tensor> {
    objective.parameters().iter().map(|parameter| parameter.initial.shallow_clone()).collect()
}

/// The epoch that a method reads early: the one that the request says, or else `usual`, if there are so many.
pub(crate) fn moment(objective: &dyn Objective, request: &Request, usual: u32) -> u32 {
    request.at.unwrap_or(usual).min(objective.epochs())
}

/// The values of all parameters at that [`moment`] of the dense training, and the epochs up to there: networks that
/// stopped before have the values that they stopped with.
pub(crate) fn early(
    objective: &mut dyn Objective,
    request: &Request,
    usual: u32,
) -> Result<(Vec<Tensor>, Vec<f64>)> {
    let epoch = moment(objective, request, usual);
    if epoch == 0 {
        return Ok((initial(objective), vec![0.0]));
    }
    let steps = [u64::from(epoch) * objective.steps_per_epoch()];
    let values = objective.dense_at(&steps)?.pop().unwrap_or_default();
    Ok((values, epochs_up_to(objective, epoch)))
}

/// Epochs of the dense training up to an epoch: of each network, or one number where it is the same for all.
pub(crate) fn epochs_up_to(objective: &dyn Objective, epoch: u32) -> Vec<f64> {
    objective.dense_epochs().iter().map(|&ran| ran.min(f64::from(epoch))).collect()
}

/// Of one value for each parameter, those of the prunable ones.
pub(crate) fn prunable(objective: &dyn Objective, values: Vec<Tensor>) -> Vec<Tensor> {
    let parameters = objective.parameters().iter();
    parameters.zip(values).filter(|(parameter, _)| parameter.prunable).map(|(_, value)| value).collect()
}

/// When a method reads the dense networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Never, or in training of its own: what the request says of it is passed over.
    Never,
    /// After so many epochs, unless the request says after how many.
    After(u32),
    /// After every epoch, up to the one that the request says.
    Until,
    /// At the end, whatever the request says.
    End,
}

impl Moment {
    /// Whether the request says when.
    pub fn is_early(self) -> bool {
        matches!(self, Self::After(_) | Self::Until)
    }
}

/// What a method cannot do without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Training data and a loss.
    pub data: bool,
    /// Gradients of the loss.
    pub gradients: bool,
    /// A dense training run.
    pub dense_run: bool,
    /// The clauses of the formula.
    pub clauses: bool,
    /// Data that tell the clauses.
    pub clauses_in_data: bool,
    /// A pair of linear layers that follow one another, such as those of one hidden layer.
    pub pair: bool,
}

impl Needs {
    /// Nothing.
    pub const NONE: Self = Self {
        data: false,
        gradients: false,
        dense_run: false,
        clauses: false,
        clauses_in_data: false,
        pair: false,
    };
}
